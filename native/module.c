/* sqs2pg._native: the module; its class is in fast_path.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdint.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "aead.h"
#include "convert.h"
#include "fast_path.h"
#include "known.h"
#include "ledger.h"
#include "lines.h"
#include "originals.h"
#include "renew.h"
#include "rewrap.h"
#include "seal.h"
#include "sha256.h"

/* As `float` reads it and `repr` writes it. */
static size_t format_with_python(const char *number, size_t len, char *to, size_t size)
{
    char ended[80];
    if (len >= sizeof ended)
        return 0;
    memcpy(ended, number, len);
    ended[len] = '\0';
    double nearest = PyOS_string_to_double(ended, NULL, NULL);
    char *text = PyOS_double_to_string(nearest, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (PyErr_Occurred() || text == NULL) {
        PyErr_Clear();
        PyMem_Free(text);
        return 0;
    }
    size_t wrote = strlen(text);
    int zero = nearest == 0 && strpbrk(ended, "123456789") != NULL;
    if (zero || wrote > size || strpbrk(text, "in") != NULL) /* inf, nan */
        wrote = 0;
    else
        memcpy(to, text, wrote);
    PyMem_Free(text);
    return wrote;
}

/* The same, from a thread that may have let the interpreter go. */
static size_t format_as_python(const char *number, size_t len, char *to, size_t size)
{
    PyGILState_STATE state = PyGILState_Ensure();
    size_t wrote = format_with_python(number, len, to, size);
    PyGILState_Release(state);
    return wrote;
}

static int is_bytes(PyObject *text)
{
    if (!PyBytes_CheckExact(text))
        PyErr_SetString(PyExc_TypeError, "the text is bytes");
    return PyBytes_CheckExact(text);
}

/* How many usual lines a text has; 0 where some are of another form. */
static PyObject *count_lines(PyObject *module, PyObject *text)
{
    (void)module;
    if (!is_bytes(text))
        return NULL;
    return PyLong_FromSize_t(
        count_usual_lines(PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text)));
}

/* Where each line of a text begins, and last where one after it would, as uint32. */
static PyObject *line_starts(PyObject *module, PyObject *text)
{
    (void)module;
    if (!is_bytes(text))
        return NULL;
    const char *begin = PyBytes_AS_STRING(text), *end = begin + PyBytes_GET_SIZE(text), *line;
    if ((uint64_t)(end - begin) >= UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "the text is too long");
        return NULL;
    }
    size_t count = count_lines_of(begin, (size_t)(end - begin)), size;
    PyObject *starts = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((count + 1) * sizeof(uint32_t)));
    if (starts == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(starts);
    for (const char *at = begin;; to += sizeof(uint32_t)) {
        uint32_t start = (uint32_t)(at - begin);
        memcpy(to, &start, sizeof start);
        if (at >= end)
            break;
        at = next_line(at, end, &line, &size);
    }
    if (count > 0 && end[-1] != '\n') {
        uint32_t after = (uint32_t)(end - begin) + 1;
        memcpy(to, &after, sizeof after);
    }
    return starts;
}

/* The lines of two texts, each sorted, in one. */
static PyObject *merged_lines(PyObject *module, PyObject *args)
{
    (void)module;
    const char *at, *other;
    Py_ssize_t len, other_len;
    if (!PyArg_ParseTuple(args, "y#y#", &at, &len, &other, &other_len))
        return NULL;
    PyObject *merged = PyBytes_FromStringAndSize(NULL, len + other_len);
    if (merged != NULL)
        merge_lines(at, (size_t)len, other, (size_t)other_len, PyBytes_AS_STRING(merged));
    return merged;
}

enum { LEDGER_ENDS_MAX = 4, LEDGER_COLUMNS_MAX = 16 };
enum { BLOCK_BYTES_MAX = 32 << 20 }; /* the most that glibc takes for this threshold on 64 bits */

/* The ledger's lines in the binary format; None where some are of another form. */
static PyObject *binary_ledger(PyObject *module, PyObject *args)
{
    (void)module;
    const char *at;
    Py_ssize_t len;
    int columns;
    PyObject *given;
    struct ledger_end ends[LEDGER_ENDS_MAX];
    if (!PyArg_ParseTuple(args, "y#iO!", &at, &len, &columns, &PyTuple_Type, &given))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(given);
    if (count > LEDGER_ENDS_MAX || columns < 2 || columns > LEDGER_COLUMNS_MAX) {
        PyErr_SetString(PyExc_ValueError, "a ledger's line has two columns or more, and few ends");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t text_len, fields_len;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(given, i), "y#y#", &ends[i].text, &text_len,
                              &ends[i].fields, &fields_len))
            return NULL;
        ends[i].text_len = (size_t)text_len;
        ends[i].fields_len = (size_t)fields_len;
        if (fields_len > text_len + LEDGER_END_MORE) {
            PyErr_SetString(PyExc_ValueError, "fields are longer than their text");
            return NULL;
        }
    }
    PyObject *binary = PyBytes_FromStringAndSize(NULL, len + LEDGER_BINARY_MORE);
    if (binary == NULL)
        return NULL;
    size_t wrote = ledger_write_binary(at, (size_t)len, ends, (size_t)count, (unsigned)columns,
                                       PyBytes_AS_STRING(binary));
    if (wrote == 0) {
        Py_DECREF(binary);
        Py_RETURN_NONE;
    }
    _PyBytes_Resize(&binary, (Py_ssize_t)wrote);
    return binary;
}

/* Keep memory that is freed, up to so many bytes of each arena: what the C library gives back to the
 * system has to be cleared and mapped again, page by page, when the next batch needs it. */
static PyObject *keep_memory(PyObject *module, PyObject *bytes)
{
    (void)module;
    long kept = PyLong_AsLong(bytes);
    if (kept == -1 && PyErr_Occurred())
        return NULL;
    if (kept < 0 || kept > INT_MAX) {
        PyErr_SetString(PyExc_ValueError, "the bytes to keep are a positive int");
        return NULL;
    }
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES_MAX);
    mallopt(M_TRIM_THRESHOLD, (int)kept);
#endif
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"binary_ledger", binary_ledger, METH_VARARGS,
     "binary_ledger(text, columns, ends) -> the lines in COPY's binary format, or None"},
    {"distinct_references", distinct_references, METH_VARARGS,
     "distinct_references(references, numbers) -> how many, and as elements of an array"},
    {"original_keys", original_keys, METH_VARARGS,
     "original_keys(originals, places, columns, key) -> references, tokens, and whose they are"},
    {"original_values", original_values, METH_VARARGS,
     "original_values(originals, places, columns) -> the texts of records"},
    {"seal_new_people", seal_new_people, METH_VARARGS,
     "seal_new_people(keys, entries, drawn, wrappings, each, contexts, names) -> what is to be stored"},
    {"rewrap_keys", rewrap_keys, METH_VARARGS,
     "rewrap_keys(rows, count, derive, wrappings, each, prefix, drawn) -> elements of arrays, or None"},
    {"renew_values", renew_values, METH_VARARGS,
     "renew_values(rows, count, derive, contexts, pseudonyms, remask, drawn) -> how many, and rows for "
     "COPY; or None"},
    {"seal_texts", seal_texts, METH_VARARGS,
     "seal_texts(wrappings, each, what, drawn, places, plaintexts) -> the texts sealed in format 1"},
    {"merged_lines", merged_lines, METH_VARARGS,
     "merged_lines(text, other) -> the lines of two texts, each sorted, in one"},
    {"count_usual_lines", count_lines, METH_O,
     "count_usual_lines(text) -> how many lines it has, 0 where some are of another form"},
    {"keep_memory", keep_memory, METH_O,
     "keep_memory(bytes): keep so many that are freed, for the next batch"},
    {"line_starts", line_starts, METH_O,
     "line_starts(text) -> where its lines begin, and where one after them would, as uint32"},
    {"value_hashes", value_hashes, METH_VARARGS,
     "value_hashes(originals, key, names) -> hashes, references, places and units of the records"},
    {NULL, NULL, 0, NULL},
};

/* Add a type under its name; -1 with an exception. */
static int add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    int failed = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed;
}

static int module_exec(PyObject *module)
{
    const char *chosen = sha256_choose();
    if (*chosen == '\0') {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give its known answer here");
        return -1;
    }
    convert_double_by = format_as_python;
    if (fast_path_prepare() < 0 || add_type(module, &fast_path_spec) < 0 ||
        add_type(module, &known_spec) < 0 || PyModule_AddIntConstant(module, "API", 33) < 0)
        return -1;
    /* For its libcrypto. An interpreter may have none. */
    PyObject *hashes = PyImport_ImportModule("_hashlib");
    if (hashes == NULL)
        PyErr_Clear();
    Py_XDECREF(hashes);
    PyObject *seals = aead_choose() ? Py_True : Py_False;
    if (PyModule_AddObjectRef(module, "SEALS", seals) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "SHA256", chosen);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sqs2pg._native",
    .m_doc = "The common case of decoding, masking and writing lines.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
