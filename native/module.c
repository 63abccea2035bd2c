/* sqs2pg._native: the Python side of http.c and sign.c, and of a delete's body; fast_path.c and holding.c
 * have their own. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "convert.h"
#include "holding.h"
#include "http.h"
#include "fast_path.h"
#include "sha256.h"
#include "sign.h"

enum { BATCH_MAX = 10 }; /* entries of one batch call of SQS */

/* read_plain(reply): see _native.pyi. */
static PyObject *read_plain(PyObject *Py_UNUSED(module), PyObject *reply)
{
    if (!PyBytes_CheckExact(reply))
        Py_RETURN_NONE;
    size_t len = (size_t)PyBytes_GET_SIZE(reply);
    size_t body = plain_body(PyBytes_AS_STRING(reply), len);
    if (body == 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(reply) + body, (Py_ssize_t)(len - body));
}

/* Return a text's bytes for JSON, or NULL if they need escapes or are not printable ASCII. */
static const char *plain_text(PyObject *text, Py_ssize_t *len)
{
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        return NULL;
    const char *at = (const char *)PyUnicode_1BYTE_DATA(text);
    *len = PyUnicode_GET_LENGTH(text);
    int odd = 0; /* no early exit, so that the compiler can test many at once */
    for (Py_ssize_t i = 0; i < *len; i++)
        odd |= (at[i] < 0x20) | (at[i] == '"') | (at[i] == '\\') | (at[i] == 0x7f);
    return odd ? NULL : at;
}

/* write_delete(head, handles): see _native.pyi. */
static PyObject *write_delete(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const char BEFORE[] = "{\"Id\":\"0\",\"ReceiptHandle\":\"", AFTER[] = "\"},";
    const char *head, *handle[BATCH_MAX];
    Py_ssize_t head_len, len[BATCH_MAX];
    PyObject *handles;
    if (!PyArg_ParseTuple(args, "y#O!", &head, &head_len, &PyList_Type, &handles))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(handles), size = head_len + 1;
    if (count < 1 || count > BATCH_MAX)
        Py_RETURN_NONE;
    for (Py_ssize_t i = 0; i < count; i++) {
        handle[i] = plain_text(PyList_GET_ITEM(handles, i), &len[i]);
        if (handle[i] == NULL)
            Py_RETURN_NONE;
        size += (Py_ssize_t)(sizeof BEFORE - 1 + sizeof AFTER - 1) + len[i];
    }
    PyObject *body = PyBytes_FromStringAndSize(NULL, size);
    if (body == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(body);
    memcpy(to, head, (size_t)head_len);
    to += head_len;
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(to, BEFORE, sizeof BEFORE - 1);
        to[7] = (char)('0' + i); /* the Id */
        to += sizeof BEFORE - 1;
        memcpy(to, handle[i], (size_t)len[i]);
        to += len[i];
        memcpy(to, AFTER, sizeof AFTER - 1);
        to += sizeof AFTER - 1;
    }
    to[-1] = ']'; /* in place of the last comma */
    *to = '}';
    return body;
}

static int take_span(PyObject *given, struct span *into)
{
    if (!PyBytes_CheckExact(given)) {
        PyErr_SetString(PyExc_TypeError, "the parts of a request are bytes");
        return -1;
    }
    into->at = PyBytes_AS_STRING(given);
    into->len = (size_t)PyBytes_GET_SIZE(given);
    return 0;
}

/* sign(before_date, after_date, scope, head, authorization, key, timestamp, body): see the .pyi. */
static PyObject *sign(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    struct request request;
    struct span *parts[] = {
        &request.before_date, &request.after_date, &request.scope,     &request.head,
        &request.authorization, &request.key,      &request.timestamp, &request.body,
    };
    if (count != sizeof parts / sizeof *parts) {
        PyErr_SetString(PyExc_TypeError, "a request has eight parts");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (take_span(args[i], parts[i]) < 0)
            return NULL;
    if (request.key.len > SHA256_BLOCK) {
        PyErr_SetString(PyExc_ValueError, "a signing key has 32 bytes");
        return NULL;
    }
    size_t size = signed_size(&request);
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    char *scratch = PyMem_Malloc(size);
    if (made == NULL || scratch == NULL) {
        Py_XDECREF(made);
        PyMem_Free(scratch);
        return PyErr_NoMemory();
    }
    size_t len = write_signed(&request, PyBytes_AS_STRING(made), scratch);
    PyMem_Free(scratch);
    _PyBytes_Resize(&made, (Py_ssize_t)len);
    return made;
}

/* As `float` reads it and `repr` writes it. */
static size_t format_as_python(const char *number, size_t len, char *to, size_t size)
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

static PyMethodDef module_methods[] = {
    {"sign", (PyCFunction)(void (*)(void))sign, METH_FASTCALL, "sign(eight parts) -> the request, signed"},
    {"hold_messages", (PyCFunction)(void (*)(void))hold_messages, METH_FASTCALL,
     "hold_messages(held, messages, lease) -> (all, bytes, largest)"},
    {"release_messages", (PyCFunction)(void (*)(void))release_messages, METH_FASTCALL,
     "release_messages(held, messages) -> [(lease, count), ...]"},
    {"read_plain", read_plain, METH_O, "read_plain(reply) -> the body of a plain 200, or None"},
    {"write_delete", write_delete, METH_VARARGS, "write_delete(head, handles) -> body or None"},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    const char *chosen = sha256_choose();
    if (*chosen == '\0') {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give its known answer here");
        return -1;
    }
    convert_double_by = format_as_python;
    if (holding_prepare() < 0 || fast_path_prepare(module) < 0 ||
        PyModule_AddIntConstant(module, "API", 8) < 0)
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
    .m_doc = "The common case of decoding, masking and writing lines, and of SQS's replies.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
