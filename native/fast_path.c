/* See fast_path.h and _native.pyi: from a batch of messages to the lines of each, or to the texts of the
 * batch's COPYs and which messages are left to Python. */
#include "fast_path.h"

#include "compile.h"
#include "key.h"
#include "plan.h"

struct fast_path {
    PyObject_HEAD
    struct plan *plan;
    PyObject *given; /* keeps what the plan points into */
};

enum { LINE_BYTES = 192 }; /* of most lines */

struct slice { /* of a target's text */
    size_t at, len;
};

struct entry { /* one message of a packed batch */
    char key[KEY_CHARS];
    uint32_t message;
    int left; /* to Python */
};

struct batch {
    Py_ssize_t count, left;
    PyObject *sequence;
    struct entry *entries;
    struct slice *slices; /* one for each target of each message */
    int64_t oldest_ms;
    struct work work;
};

static PyObject *s_body, *s_attributes, *s_sent_timestamp, *s_message_id;

static void fast_path_dealloc(PyObject *self)
{
    struct fast_path *fast_path = (struct fast_path *)self;
    if (fast_path->plan != NULL) {
        plan_clear(fast_path->plan);
        PyMem_Free(fast_path->plan);
    }
    Py_XDECREF(fast_path->given);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *fast_path_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "FastPath() takes no keyword arguments");
        return NULL;
    }
    struct fast_path *self = (struct fast_path *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->given = Py_NewRef(args);
    self->plan = PyMem_Calloc(1, sizeof *self->plan);
    if (self->plan == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if (plan_compile(self->plan, args) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* SentTimestamp, or -1 where it is no time that a line could have. */
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

/* The id, if it is of ASCII: else left empty. The reference is the caller's. */
static PyObject *read_id(PyObject *message, struct about *about)
{
    PyObject *id = PyObject_GetAttr(message, s_message_id);
    about->id = NULL;
    if (id != NULL && PyUnicode_CheckExact(id) && PyUnicode_IS_COMPACT_ASCII(id)) {
        about->id = (const char *)PyUnicode_1BYTE_DATA(id);
        about->id_len = (size_t)PyUnicode_GET_LENGTH(id);
    }
    return id;
}

/* A text's UTF-8; NULL where it has none, or with an exception. */
static const char *utf8_of(PyObject *text, Py_ssize_t *len)
{
    if (!PyUnicode_CheckExact(text))
        return NULL;
    const char *at = PyUnicode_AsUTF8AndSize(text, len);
    if (at == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError))
        PyErr_Clear(); /* lone surrogates */
    return at;
}

/* Append the lines of one message: 1; 0 where it is left to Python; -1 with an exception. */
static int add_lines(const struct plan *plan, PyObject *message, const struct about *about,
                     struct work *work)
{
    Py_ssize_t len;
    PyObject *body = PyObject_GetAttr(message, s_body);
    if (body == NULL)
        return -1;
    const char *at = utf8_of(body, &len);
    int made = at == NULL ? 0 : plan_write(plan, at, (size_t)len, about, work);
    Py_DECREF(body);
    if (work->failed)
        PyErr_NoMemory();
    return PyErr_Occurred() ? -1 : made;
}

/* For each target that the message has lines for: its number, the lines, how many they are. */
static PyObject *parts_of(const struct plan *plan, const struct work *work)
{
    PyObject *parts = PyList_New(0);
    for (int i = 0; parts != NULL && i < plan->targets; i++) {
        if (work->count[i] == 0)
            continue;
        PyObject *text = PyUnicode_DecodeUTF8(work->lines[i].at, (Py_ssize_t)work->lines[i].len, NULL);
        PyObject *part = text ? Py_BuildValue("iNn", i, text, (Py_ssize_t)work->count[i]) : NULL;
        if (part == NULL || PyList_Append(parts, part) < 0)
            Py_CLEAR(parts);
        Py_XDECREF(part);
    }
    PyObject *made = parts ? PyList_AsTuple(parts) : NULL;
    Py_XDECREF(parts);
    return made;
}

/* The parts of one message, None, or NULL with an exception. */
static PyObject *lines_of_one(const struct plan *plan, PyObject *message, struct work *work)
{
    struct about about;
    if (read_sent_ms(message, &about.sent_ms) < 0)
        return NULL;
    PyObject *id = read_id(message, &about);
    if (id == NULL)
        return NULL;
    for (int i = 0; i < plan->targets; i++)
        work->lines[i].len = work->count[i] = 0;
    work->dropped = 0;
    int made = add_lines(plan, message, &about, work);
    Py_DECREF(id);
    if (made < 0)
        return NULL;
    return made && !work->dropped ? parts_of(plan, work) : Py_NewRef(Py_None);
}

static PyObject *fast_path_lines(PyObject *self, PyObject *messages)
{
    struct work work = {.failed = 0};
    PyObject *sequence = PySequence_Fast(messages, "messages are a sequence");
    if (sequence == NULL)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *made = PyList_New(count);
    for (Py_ssize_t i = 0; made != NULL && i < count; i++) {
        PyObject *message = PySequence_Fast_GET_ITEM(sequence, i);
        PyObject *parts = lines_of_one(((struct fast_path *)self)->plan, message, &work);
        if (parts == NULL)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, i, parts);
    }
    work_forget(&work);
    Py_DECREF(sequence);
    return made;
}

/* Read one message into its entry and its lines: 1; 0 where the batch is left to Python; -1. */
static int pack_one(const struct plan *plan, struct batch *batch, Py_ssize_t i)
{
    PyObject *message = PySequence_Fast_GET_ITEM(batch->sequence, i);
    struct entry *entry = &batch->entries[i];
    struct slice *slices = &batch->slices[i * plan->targets];
    struct about about;
    if (read_sent_ms(message, &about.sent_ms) < 0)
        return -1;
    PyObject *id = read_id(message, &about);
    if (id == NULL)
        return -1;
    int keyed = about.id != NULL && write_key(about.id, about.id_len, about.sent_ms, entry->key);
    for (int t = 0; t < plan->targets; t++)
        slices[t].at = batch->work.lines[t].len;
    int made = keyed ? add_lines(plan, message, &about, &batch->work) : 0;
    for (int t = 0; t < plan->targets; t++)
        slices[t].len = batch->work.lines[t].len - slices[t].at;
    Py_DECREF(id);
    if (made < 0 || !keyed)
        return made;
    if (about.sent_ms < batch->oldest_ms)
        batch->oldest_ms = about.sent_ms;
    entry->message = (uint32_t)i;
    entry->left = !made;
    batch->left += !made;
    return 1;
}

static int by_key(const void *a, const void *b)
{
    return memcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key, KEY_CHARS);
}

/* In order of their keys; 0 where two are equal. */
static int sort_entries(struct entry *entries, Py_ssize_t count)
{
    Py_ssize_t i = 1;
    while (i < count && by_key(&entries[i - 1], &entries[i]) < 0)
        i++;
    if (i >= count)
        return 1; /* as they nearly are when they come: sent one after another */
    qsort(entries, (size_t)count, sizeof *entries, by_key);
    for (i = 1; i < count; i++)
        if (by_key(&entries[i - 1], &entries[i]) == 0)
            return 0;
    return 1;
}

/* Key, MessageId and `tail` of each that is not left, in the order of the entries. */
static PyObject *ledger_text(const struct batch *batch, const char *tail, size_t tail_len)
{
    Py_ssize_t line = 2 * KEY_CHARS + 2 + (Py_ssize_t)tail_len;
    PyObject *text = PyBytes_FromStringAndSize(NULL, (batch->count - batch->left) * line);
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        const struct entry *entry = &batch->entries[i];
        struct about about;
        if (entry->left)
            continue;
        PyObject *id = read_id(PySequence_Fast_GET_ITEM(batch->sequence, entry->message), &about);
        if (id == NULL || about.id == NULL || about.id_len != KEY_CHARS) {
            Py_XDECREF(id); /* it was as usual a moment ago: only a property could do this */
            Py_DECREF(text);
            PyErr_SetString(PyExc_TypeError, "a message's id has changed");
            return NULL;
        }
        memcpy(to, entry->key, KEY_CHARS);
        to[KEY_CHARS] = '\t';
        memcpy(to + KEY_CHARS + 1, about.id, KEY_CHARS);
        to[2 * KEY_CHARS + 1] = '\t';
        memcpy(to + 2 * KEY_CHARS + 2, tail, tail_len);
        to += line;
        Py_DECREF(id);
    }
    return text;
}

static PyObject *rows_text(const struct batch *batch, int targets, int target)
{
    const struct text *lines = &batch->work.lines[target];
    PyObject *text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)lines->len);
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        struct slice slice = batch->slices[(size_t)batch->entries[i].message * targets + target];
        if (slice.len > 0)
            memcpy(to, lines->at + slice.at, slice.len);
        to += slice.len;
    }
    return text;
}

/* For each target its text and the number of its lines. */
static PyObject *targets_of(const struct plan *plan, const struct batch *batch)
{
    PyObject *texts = PyTuple_New(plan->targets);
    for (int t = 0; texts != NULL && t < plan->targets; t++) {
        PyObject *text = rows_text(batch, plan->targets, t);
        PyObject *one = text ? Py_BuildValue("Nn", text, (Py_ssize_t)batch->work.count[t]) : NULL;
        if (one == NULL)
            Py_CLEAR(texts);
        else
            PyTuple_SET_ITEM(texts, t, one);
    }
    return texts;
}

/* The places of the messages that are left, in the order of their keys. */
static PyObject *left_of(const struct batch *batch)
{
    PyObject *left = PyTuple_New(batch->left);
    for (Py_ssize_t i = 0, at = 0; left != NULL && i < batch->count; i++) {
        if (!batch->entries[i].left)
            continue;
        PyObject *place = PyLong_FromUnsignedLong(batch->entries[i].message);
        if (place == NULL)
            Py_CLEAR(left);
        else
            PyTuple_SET_ITEM(left, at++, place);
    }
    return left;
}

static PyObject *pack_batch(const struct plan *plan, struct batch *batch, const char *tail,
                            size_t tail_len)
{
    int usual = batch->count > 0 && (size_t)batch->count <= UINT32_MAX;
    /* Without it the same: but a text that grows is copied and wiped each time. */
    text_room(&batch->work.lines[0], (size_t)batch->count * LINE_BYTES);
    for (Py_ssize_t i = 0; usual == 1 && i < batch->count; i++)
        usual = pack_one(plan, batch, i);
    if (usual < 0)
        return NULL;
    if (!usual || batch->left == batch->count || !sort_entries(batch->entries, batch->count))
        Py_RETURN_NONE;
    PyObject *ledger = ledger_text(batch, tail, tail_len);
    PyObject *targets = ledger ? targets_of(plan, batch) : NULL;
    PyObject *left = targets ? left_of(batch) : NULL;
    if (left == NULL) {
        Py_XDECREF(ledger);
        Py_XDECREF(targets);
        return NULL;
    }
    return Py_BuildValue("NNLnN", ledger, targets, (long long)batch->oldest_ms,
                         (Py_ssize_t)batch->work.dropped, left);
}

static PyObject *fast_path_pack(PyObject *self, PyObject *args)
{
    const struct plan *plan = ((struct fast_path *)self)->plan;
    const char *tail;
    Py_ssize_t tail_len;
    PyObject *messages, *packed = NULL;
    struct batch batch = {.oldest_ms = INT64_MAX};
    if (!PyArg_ParseTuple(args, "Oy#", &messages, &tail, &tail_len))
        return NULL;
    batch.sequence = PySequence_Fast(messages, "messages are a sequence");
    if (batch.sequence == NULL)
        return NULL;
    batch.count = PySequence_Fast_GET_SIZE(batch.sequence);
    batch.entries = PyMem_Calloc((size_t)batch.count + 1, sizeof *batch.entries);
    batch.slices = PyMem_Calloc((size_t)(batch.count + 1) * (size_t)plan->targets, sizeof *batch.slices);
    if (batch.entries == NULL || batch.slices == NULL)
        PyErr_NoMemory();
    else
        packed = pack_batch(plan, &batch, tail, (size_t)tail_len);
    work_forget(&batch.work);
    PyMem_Free(batch.entries);
    PyMem_Free(batch.slices);
    Py_DECREF(batch.sequence);
    return packed;
}

static PyMethodDef fast_path_methods[] = {
    {"lines", fast_path_lines, METH_O, "lines(messages) -> the parts of each, or None"},
    {"pack", fast_path_pack, METH_VARARGS,
     "pack(messages, tail) -> (ledger, targets, oldest, dropped, left) or None"},
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

int fast_path_prepare(PyObject *module)
{
    s_body = PyUnicode_InternFromString("body");
    s_attributes = PyUnicode_InternFromString("attributes");
    s_sent_timestamp = PyUnicode_InternFromString("sent_timestamp");
    s_message_id = PyUnicode_InternFromString("message_id");
    if (s_body == NULL || s_attributes == NULL || s_sent_timestamp == NULL || s_message_id == NULL)
        return -1;
    PyObject *type = PyType_FromSpec(&fast_path_spec);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "FastPath", type);
    Py_DECREF(type);
    return failed;
}
