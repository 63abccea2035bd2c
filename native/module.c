/* sqs2pg._native: the Python interface of line.c and key.c (from a batch of messages to a line or
 * None for each, or to the texts of the batch's two COPYs), of http.c and sign.c, and the body of a
 * delete. holding.c has its own interface. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "holding.h"
#include "http.h"
#include "key.h"
#include "line.h"
#include "sign.h"

enum { BATCH_MAX = 10 }; /* entries of one batch call of SQS */

struct entry { /* one message of a packed batch */
    char key[KEY_CHARS];
    uint32_t message;
    size_t at, len; /* its line */
};

struct fast_path {
    PyObject_HEAD
    struct plan *plan;
    PyObject *names; /* owns the bytes that the sources' names point to */
};

static const char *chosen = "";
static PyObject *s_body, *s_attributes, *s_sent_timestamp, *s_message_id;

static void fast_path_dealloc(PyObject *self)
{
    struct fast_path *fast_path = (struct fast_path *)self;
    if (fast_path->plan != NULL) {
        wipe(fast_path->plan, sizeof *fast_path->plan); /* the keys */
        PyMem_Free(fast_path->plan);
    }
    Py_XDECREF(fast_path->names);
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
        PyErr_SetString(PyExc_ValueError, "a column exceeds the bounds of line.h");
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
        PyErr_SetString(PyExc_ValueError, "a mapping exceeds the bounds of line.h");
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

/* FastPath(sources, columns, forbid_unknown): see _native.pyi. */
static PyObject *fast_path_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *sources, *columns;
    int forbid_unknown;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "FastPath() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O!p", &PyTuple_Type, &sources, &PyTuple_Type, &columns,
                          &forbid_unknown))
        return NULL;
    struct fast_path *self = (struct fast_path *)type->tp_alloc(type, 0);
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

/* Read SentTimestamp into `sent_ms`; there, -1 is one too large. Returns -1 with an exception. */
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

/* Append the line of one message to `text`. 1: done; 0: left to Python; -1 with an exception. */
static int add_line(const struct plan *plan, PyObject *message, int64_t sent_ms, struct text *text)
{
    PyObject *body = PyObject_GetAttr(message, s_body);
    if (body == NULL)
        return -1;
    int made = PyUnicode_CheckExact(body) && PyUnicode_IS_COMPACT_ASCII(body) &&
               write_line(plan, (const char *)PyUnicode_1BYTE_DATA(body),
                          (size_t)PyUnicode_GET_LENGTH(body), sent_ms, text);
    Py_DECREF(body);
    if (text->failed) {
        PyErr_NoMemory();
        return -1;
    }
    return made;
}

/* Return the line of one message, None, or NULL with an exception. */
static PyObject *line_of(const struct plan *plan, PyObject *message, struct text *text)
{
    int64_t sent_ms;
    if (read_sent_ms(message, &sent_ms) < 0)
        return NULL;
    text->len = 0;
    int made = add_line(plan, message, sent_ms, text);
    if (made < 0)
        return NULL;
    if (!made)
        Py_RETURN_NONE;
    PyObject *line = PyUnicode_New((Py_ssize_t)text->len, 127);
    if (line != NULL)
        memcpy(PyUnicode_1BYTE_DATA(line), text->at, text->len);
    return line;
}

static void wipe_text(struct text *text)
{
    if (text->at != NULL) {
        wipe(text->at, text->size);
        free(text->at);
    }
}

static PyObject *fast_path_lines(PyObject *self, PyObject *messages)
{
    struct text text = {NULL, 0, 0, 0};
    PyObject *sequence = PySequence_Fast(messages, "messages are a sequence");
    if (sequence == NULL)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *made = PyList_New(count);
    for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
        PyObject *message = PySequence_Fast_GET_ITEM(sequence, i);
        PyObject *line = line_of(((struct fast_path *)self)->plan, message, &text);
        if (line == NULL)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, i, line);
    }
    wipe_text(&text);
    Py_DECREF(sequence);
    return made;
}

/* Read one message into its entry and line. 1: done; 0: left to Python; -1 with an exception. */
static int pack_one(const struct plan *plan, PyObject *message, struct entry *entry,
                    int64_t *oldest_ms, struct text *text)
{
    int64_t sent_ms;
    if (read_sent_ms(message, &sent_ms) < 0)
        return -1;
    PyObject *id = PyObject_GetAttr(message, s_message_id);
    if (id == NULL)
        return -1;
    int keyed = PyUnicode_CheckExact(id) && PyUnicode_IS_COMPACT_ASCII(id) &&
                write_key((const char *)PyUnicode_1BYTE_DATA(id), (size_t)PyUnicode_GET_LENGTH(id),
                          sent_ms, entry->key);
    Py_DECREF(id);
    if (!keyed)
        return 0;
    if (sent_ms < *oldest_ms)
        *oldest_ms = sent_ms;
    entry->at = text->len;
    int made = add_line(plan, message, sent_ms, text);
    entry->len = text->len - entry->at;
    return made;
}

static int by_key(const void *a, const void *b)
{
    return memcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key, KEY_CHARS);
}

/* Sort by key; 0 if two keys are equal. */
static int sort_entries(struct entry *entries, Py_ssize_t count)
{
    Py_ssize_t i = 1;
    while (i < count && by_key(&entries[i - 1], &entries[i]) < 0)
        i++;
    if (i >= count)
        return 1; /* the usual case: they arrive nearly in the order they were sent */
    qsort(entries, (size_t)count, sizeof *entries, by_key);
    for (i = 1; i < count; i++)
        if (by_key(&entries[i - 1], &entries[i]) == 0)
            return 0;
    return 1;
}

/* Return the ledger's lines: key, MessageId and `tail` of each entry, in order. */
static PyObject *ledger_text(const struct entry *entries, PyObject *sequence, const char *tail,
                             size_t tail_len)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *text = PyBytes_FromStringAndSize(NULL, count * (2 * KEY_CHARS + 2 + (Py_ssize_t)tail_len));
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *message = PySequence_Fast_GET_ITEM(sequence, entries[i].message);
        PyObject *id = PyObject_GetAttr(message, s_message_id);
        if (id == NULL || !PyUnicode_CheckExact(id) || !PyUnicode_IS_COMPACT_ASCII(id) ||
            PyUnicode_GET_LENGTH(id) != KEY_CHARS) {
            Py_XDECREF(id); /* it was fine a moment ago: only a property can do this */
            Py_DECREF(text);
            PyErr_SetString(PyExc_TypeError, "a message's id has changed");
            return NULL;
        }
        memcpy(to, entries[i].key, KEY_CHARS);
        to[KEY_CHARS] = '\t';
        memcpy(to + KEY_CHARS + 1, PyUnicode_1BYTE_DATA(id), KEY_CHARS);
        Py_DECREF(id);
        to += 2 * KEY_CHARS + 1;
        *to++ = '\t';
        memcpy(to, tail, tail_len);
        to += tail_len;
    }
    return text;
}

static PyObject *rows_text(const struct entry *entries, Py_ssize_t count, const struct text *lines)
{
    PyObject *text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)lines->len);
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(to, lines->at + entries[i].at, entries[i].len);
        to += entries[i].len;
    }
    return text;
}

/* pack(messages, tail): see _native.pyi. */
static PyObject *fast_path_pack(PyObject *self, PyObject *args)
{
    const struct plan *plan = ((struct fast_path *)self)->plan;
    const char *tail;
    Py_ssize_t tail_len;
    PyObject *messages, *packed = NULL;
    if (!PyArg_ParseTuple(args, "Oy#", &messages, &tail, &tail_len))
        return NULL;
    PyObject *sequence = PySequence_Fast(messages, "messages are a sequence");
    if (sequence == NULL)
        return NULL;
    struct text text = {NULL, 0, 0, 0};
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    int64_t oldest_ms = INT64_MAX;
    int ordinary = count > 0 && (size_t)count <= UINT32_MAX;
    struct entry *entries = PyMem_Calloc((size_t)count + 1, sizeof *entries);
    if (entries == NULL) {
        Py_DECREF(sequence);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; ordinary == 1 && i < count; i++) {
        entries[i].message = (uint32_t)i;
        ordinary =
            pack_one(plan, PySequence_Fast_GET_ITEM(sequence, i), &entries[i], &oldest_ms, &text);
    }
    if (ordinary == 1 && sort_entries(entries, count)) {
        PyObject *ledger = ledger_text(entries, sequence, tail, (size_t)tail_len);
        PyObject *rows = ledger == NULL ? NULL : rows_text(entries, count, &text);
        if (rows != NULL)
            packed = Py_BuildValue("NNL", ledger, rows, (long long)oldest_ms);
        else
            Py_XDECREF(ledger);
    } else if (ordinary >= 0) {
        packed = Py_NewRef(Py_None);
    }
    wipe_text(&text);
    PyMem_Free(entries);
    Py_DECREF(sequence);
    return packed;
}

static PyMethodDef fast_path_methods[] = {
    {"lines", fast_path_lines, METH_O, "lines(messages) -> a line or None for each"},
    {"pack", fast_path_pack, METH_VARARGS, "pack(messages, tail) -> (ledger, rows, oldest) or None"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot fast_path_slots[] = {
    {Py_tp_new, fast_path_new},
    {Py_tp_dealloc, fast_path_dealloc},
    {Py_tp_methods, fast_path_methods},
    {0, NULL},
};

static PyType_Spec fast_path_spec = {
    .name = "sqs2pg._native.FastPath",
    .basicsize = sizeof(struct fast_path),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = fast_path_slots,
};

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
    chosen = sha256_choose();
    if (*chosen == '\0') {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give its known answer here");
        return -1;
    }
    s_body = PyUnicode_InternFromString("body");
    s_attributes = PyUnicode_InternFromString("attributes");
    s_sent_timestamp = PyUnicode_InternFromString("sent_timestamp");
    s_message_id = PyUnicode_InternFromString("message_id");
    if (s_body == NULL || s_attributes == NULL || s_sent_timestamp == NULL || s_message_id == NULL ||
        holding_prepare() < 0)
        return -1;
    PyObject *type = PyType_FromSpec(&fast_path_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "FastPath", type);
    Py_DECREF(type);
    if (failed < 0 || PyModule_AddIntConstant(module, "API", 6) < 0)
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
