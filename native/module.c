/* sqs2pg._native: the Python side of line.c. A batch of messages in, a line or None for each out. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "line.h"

struct lines {
    PyObject_HEAD
    struct plan *plan;
    PyObject *names; /* keeps what the sources' names point to */
};

static const char *chosen = "";
static PyObject *s_body, *s_attributes, *s_sent_timestamp;

static void lines_dealloc(PyObject *self)
{
    struct lines *lines = (struct lines *)self;
    if (lines->plan != NULL) {
        wipe(lines->plan, sizeof *lines->plan); /* the keys */
        PyMem_Free(lines->plan);
    }
    Py_XDECREF(lines->names);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int add_source(struct plan *plan, PyObject *given)
{
    Py_ssize_t len;
    struct source *source = &plan->source[plan->sources];
    if (!PyArg_ParseTuple(given, "s#p", &source->name, &len, &source->required))
        return -1;
    source->len = (size_t)len;
    plan->sources++;
    return 0;
}

static int add_column(struct plan *plan, PyObject *given)
{
    int op;
    Py_ssize_t length_max, prefix_len, key_len;
    const char *prefix, *key;
    struct column *column = &plan->column[plan->columns];
    if (!PyArg_ParseTuple(given, "iippny#y#", &column->source, &op, &column->dated,
                          &column->nullable, &length_max, &prefix, &prefix_len, &key, &key_len))
        return -1;
    if (column->source < 0 || (size_t)column->source >= plan->sources || op < 0 || op >= OP_COUNT ||
        prefix_len > PREFIX_MAX || key_len > SHA256_BLOCK) {
        PyErr_SetString(PyExc_ValueError, "a column outside the bounds of line.h");
        return -1;
    }
    column->op = (enum operation)op;
    column->length_max = length_max < 0 ? SIZE_MAX : (size_t)length_max;
    memcpy(column->prefix, prefix, (size_t)prefix_len);
    column->prefix_len = (size_t)prefix_len;
    hmac_key_set(&column->key, (const uint8_t *)key, (size_t)key_len);
    plan->columns++;
    return 0;
}

static int add_all(struct plan *plan, PyObject *given, Py_ssize_t most,
                   int (*add)(struct plan *, PyObject *))
{
    if (PyTuple_GET_SIZE(given) < 1 || PyTuple_GET_SIZE(given) > most) {
        PyErr_SetString(PyExc_ValueError, "a mapping outside the bounds of line.h");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(given); i++) {
        PyObject *item = PyTuple_GET_ITEM(given, i);
        if (!PyTuple_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "sources and columns are tuples of tuples");
            return -1;
        }
        if (add(plan, item) < 0)
            return -1;
    }
    return 0;
}

/* Lines(sources, columns, forbid_unknown): see _native.pyi. */
static PyObject *lines_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *sources, *columns;
    int forbid_unknown;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Lines() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O!p", &PyTuple_Type, &sources, &PyTuple_Type, &columns,
                          &forbid_unknown))
        return NULL;
    struct lines *self = (struct lines *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->names = Py_NewRef(sources);
    self->plan = PyMem_Calloc(1, sizeof *self->plan);
    if (self->plan == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->plan->forbid_unknown = forbid_unknown;
    if (add_all(self->plan, sources, SOURCES_MAX, add_source) < 0 ||
        add_all(self->plan, columns, COLUMNS_MAX, add_column) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* SentTimestamp, or -1 where it does not matter or cannot be read: then no line is made of it. */
static int read_sent_ms(PyObject *message, int64_t *sent_ms)
{
    PyObject *attributes = PyObject_GetAttr(message, s_attributes);
    if (attributes == NULL)
        return -1;
    PyObject *sent = PyObject_GetAttr(attributes, s_sent_timestamp);
    Py_DECREF(attributes);
    if (sent == NULL)
        return -1;
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(sent, &overflow);
    Py_DECREF(sent);
    if (number == -1 && PyErr_Occurred())
        return -1;
    *sent_ms = overflow ? -1 : (int64_t)number;
    return 0;
}

/* The line of one message, None, or NULL with an exception. */
static PyObject *line_of(const struct plan *plan, PyObject *message, struct text *text)
{
    int64_t sent_ms;
    PyObject *body = PyObject_GetAttr(message, s_body);
    if (body == NULL)
        return NULL;
    if (!PyUnicode_CheckExact(body) || !PyUnicode_IS_COMPACT_ASCII(body)) {
        Py_DECREF(body);
        Py_RETURN_NONE;
    }
    if (read_sent_ms(message, &sent_ms) < 0) {
        Py_DECREF(body);
        return NULL;
    }
    text->len = 0;
    int made = write_line(plan, (const char *)PyUnicode_1BYTE_DATA(body),
                          (size_t)PyUnicode_GET_LENGTH(body), sent_ms, text);
    Py_DECREF(body);
    if (text->failed)
        return PyErr_NoMemory();
    if (!made)
        Py_RETURN_NONE;
    PyObject *line = PyUnicode_New((Py_ssize_t)text->len, 127);
    if (line != NULL)
        memcpy(PyUnicode_1BYTE_DATA(line), text->at, text->len);
    return line;
}

static PyObject *lines_call(PyObject *self, PyObject *messages)
{
    struct text text = {NULL, 0, 0, 0};
    PyObject *sequence = PySequence_Fast(messages, "messages are a sequence");
    if (sequence == NULL)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *made = PyList_New(count);
    for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
        PyObject *message = PySequence_Fast_GET_ITEM(sequence, i);
        PyObject *line = line_of(((struct lines *)self)->plan, message, &text);
        if (line == NULL)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, i, line);
    }
    if (text.at != NULL) {
        wipe(text.at, text.size);
        free(text.at);
    }
    Py_DECREF(sequence);
    return made;
}

static PyMethodDef lines_methods[] = {
    {"of", lines_call, METH_O, "of(messages) -> a line or None for each"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lines_slots[] = {
    {Py_tp_new, lines_new},
    {Py_tp_dealloc, lines_dealloc},
    {Py_tp_methods, lines_methods},
    {0, NULL},
};

static PyType_Spec lines_spec = {
    .name = "sqs2pg._native.Lines",
    .basicsize = sizeof(struct lines),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lines_slots,
};

static int module_exec(PyObject *module)
{
    chosen = sha256_choose();
    if (*chosen == '\0') {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give its known answer here");
        return -1;
    }
    s_body = PyUnicode_InternFromString("body");
    s_attributes = PyUnicode_InternFromString("attributes");
    s_sent_timestamp = PyUnicode_InternFromString("sent_timestamp");
    if (s_body == NULL || s_attributes == NULL || s_sent_timestamp == NULL)
        return -1;
    PyObject *type = PyType_FromSpec(&lines_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Lines", type);
    Py_DECREF(type);
    if (failed < 0 || PyModule_AddIntConstant(module, "API", 1) < 0)
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
    .m_doc = "The common case of decoding, masking and writing a line.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
