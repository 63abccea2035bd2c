/* See fast_path.h and _native.pyi: from a batch of units to the texts of its COPYs, and which units
 * are left to Python. A unit is a message of the queue, or what else becomes rows. */
#include "fast_path.h"

#include "compile.h"
#include "field.h"
#include "key.h"
#include "lines.h"
#include "plan.h"

struct fast_path {
    PyObject_HEAD
    struct plan *plan;
    PyObject *given; /* keeps what the plan points into */
};

enum {
    LINE_BYTES = 192, /* of most lines */
    EVENT_NAME_MAX = 512, /* of a longer one Python makes the key */
    ARENA_KEPT_MAX = 1 << 20 /* a larger one is freed after its unit */
};

struct slice { /* of a target's text */
    size_t at;
    uint32_t len, count;
};

/* LEFT: to Python; FAULTY: it has no lines, and the verdict says why; REPEAT: an earlier unit has its
 * id. */
enum state { WRITTEN, LEFT, FAULTY, REPEAT };

struct entry { /* in the order of the keys */
    char key[KEY_CHARS];
    uint32_t unit;
};

struct unit {
    enum state state;
    uint32_t dropped; /* records */
    size_t unknown_to; /* where its members end in `seen` of unknown.h */
    size_t originals_to; /* where its originals end in `work` */
    struct verdict verdict;
    uint32_t drops;   /* one bit for each of the plan's `drop`: whether the document has it */
};

struct line { /* of an archive: a unit that no Python object has been made of */
    const char *at;
    size_t len;
    int64_t sent_ms;
};

enum { LINE_PREFIX_CHARS = 28 }; /* of a line's id; its number has the other eight */

struct batch {
    Py_ssize_t count, written, faulty;
    PyObject *sequence, *attributes; /* `sequence`: the units, messages or lines */
    const struct line *lines; /* NULL: the units are messages */
    const struct value *said; /* of lines: the attributes that the plan wants, which all have */
    const char *prefix; /* of the lines' ids */
    uint32_t first; /* the number of the first line */
    enum keying keying;
    int named; /* keys may name events: several ids may have one */
    int in_order; /* rows come in the order of the units, not of the keys */
    const char *skip; /* for each unit whether it must be left; or NULL */
    PyObject *open; /* takes a unit's content out of its envelope; or NULL: the content is the body */
    size_t bytes_max, records_max; /* the unit that reaches one of them is the last; 0: no bound */
    size_t bytes, records; /* of what was read, and of what Python will read */
    struct entry *entries;
    struct unit *units;
    struct slice *slices; /* one for each target of each unit */
    int64_t oldest_ms;
    struct work work;
};

enum { ATTRIBUTES_ARG = 9 }; /* of the names of the attributes among the constructor's arguments */

static struct field f_body, f_attributes, f_sent_timestamp, f_message_id;
static struct field f_message_attributes, f_string_value, f_binary_value, f_payload;

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
    PyObject *attributes = field_of(&f_attributes, message);
    if (attributes == NULL)
        return -1;
    PyObject *sent = field_of(&f_sent_timestamp, attributes);
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
    PyObject *id = field_of(&f_message_id, message);
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

/* The text of a message attribute, or its base64; a new reference, None where there is none. */
static PyObject *attribute_text(PyObject *all, PyObject *name)
{
    PyObject *one = PyDict_GetItemWithError(all, name);
    if (one == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *text = field_of(&f_string_value, one);
    if (text != Py_None)
        return text;
    Py_DECREF(text);
    return field_of(&f_binary_value, one);
}

/* The attributes that the plan wants, out of `all`, a dictionary or None: 1; 0 where they are left to
 * Python; -1. Their texts live as long as it does. */
static int read_texts(PyObject *names, PyObject *all, struct value *to)
{
    int done = 1;
    for (Py_ssize_t i = 0; done > 0 && i < PyTuple_GET_SIZE(names); i++) {
        to[i] = (struct value){.is = ABSENT};
        if (all == Py_None)
            continue;
        Py_ssize_t len;
        PyObject *text = PyDict_Check(all) ? attribute_text(all, PyTuple_GET_ITEM(names, i)) : NULL;
        const char *at = text != NULL && text != Py_None ? utf8_of(text, &len) : NULL;
        if (text == NULL || PyErr_Occurred())
            done = PyErr_Occurred() ? -1 : 0;
        else if (text != Py_None && (at == NULL || memchr(at, '\0', (size_t)len) != NULL))
            done = 0;
        else if (at != NULL)
            to[i] = (struct value){.at = at, .len = (size_t)len, .is = STRING,
                                   .ascii = PyUnicode_IS_ASCII(text), .escaped = 1};
        Py_XDECREF(text);
    }
    return done;
}

/* The same of a message. */
static int read_attributes(PyObject *names, PyObject *message, struct value *to)
{
    PyObject *all = field_of(&f_message_attributes, message);
    int done = all == NULL ? -1 : read_texts(names, all, to);
    Py_XDECREF(all);
    return done;
}

/* What a unit holds, without its envelope: a new reference; None where Python must open it. */
static PyObject *content_of(const struct batch *batch, PyObject *message)
{
    if (batch->open == NULL)
        return field_of(&f_body, message);
    return PyObject_CallOneArg(batch->open, message);
}

/* Append the lines of one unit: 1; 0 where it is left to Python; -1 with an exception. `content` must
 * outlive the use of `work`. */
static int add_lines(const struct plan *plan, PyObject *content, const struct about *about,
                     struct work *work)
{
    Py_ssize_t len = 0;
    const char *at;
    if (PyBytes_CheckExact(content)) {
        len = PyBytes_GET_SIZE(content);
        at = PyBytes_AS_STRING(content);
        if (!text_is_utf8(at, (size_t)len))
            at = NULL;
    } else {
        at = utf8_of(content, &len);
    }
    int made = at == NULL ? 0 : plan_write(plan, at, (size_t)len, about, work);
    if (work->failed)
        PyErr_NoMemory();
    return PyErr_Occurred() ? -1 : made;
}

/* How long a text is, in bytes or characters; 0 of None. */
static size_t length_of(PyObject *text)
{
    if (PyBytes_CheckExact(text))
        return (size_t)PyBytes_GET_SIZE(text);
    return PyUnicode_CheckExact(text) ? (size_t)PyUnicode_GET_LENGTH(text) : 0;
}

/* At least as many records as a text of ASCII, or of bytes, can have. */
static size_t records_within(const struct plan *plan, const char *at, size_t len)
{
    size_t found = 1;
    if (plan->groups == 0 && plan->records == RECORDS_ONE)
        return 1;
    for (size_t i = 0; i < len; i++)
        found += at[i] == (plan->groups > 0 ? ',' : '{');
    return found;
}

/* The same of a content; of text that is not ASCII more. */
static size_t records_at_most(const struct plan *plan, PyObject *content)
{
    size_t len = length_of(content);
    if (PyBytes_CheckExact(content))
        return records_within(plan, PyBytes_AS_STRING(content), len);
    if (PyUnicode_CheckExact(content) && PyUnicode_IS_COMPACT_ASCII(content))
        return records_within(plan, (const char *)PyUnicode_1BYTE_DATA(content), len);
    return plan->groups == 0 && plan->records == RECORDS_ONE ? 1 : len / 2 + 1;
}

static void count_slices(const struct plan *plan, struct batch *batch, const struct slice *slices)
{
    for (int t = 0; t < plan->targets; t++) {
        batch->bytes += slices[t].len;
        batch->records += slices[t].count;
    }
}

/* Count what a unit adds to the batch: what was taken out of its envelope, its lines, or what Python
 * will have to read. */
static int count_unit(const struct plan *plan, struct batch *batch, PyObject *message,
                      PyObject *content, const struct slice *slices, int made)
{
    if (batch->open != NULL)
        batch->bytes += length_of(content);
    count_slices(plan, batch, slices);
    if (made || content == Py_None)
        return 0;
    PyObject *payload = field_of(&f_payload, message);
    if (payload == NULL)
        return -1;
    PyObject *read = payload == Py_None ? content : payload;
    batch->bytes += length_of(read);
    batch->records += records_at_most(plan, read);
    Py_DECREF(payload);
    return 0;
}

static int is_full(const struct batch *batch)
{
    return (batch->bytes_max > 0 && batch->bytes >= batch->bytes_max) ||
           (batch->records_max > 0 && batch->records >= batch->records_max);
}

/* Give a unit the key of its event, if it has one: 1; 0 where the name is too long for that. */
static int name_event(const struct plan *plan, const struct work *work, char key[KEY_CHARS])
{
    uint8_t text[EVENT_PREFIX_MAX + EVENT_NAME_MAX], mark[SHA256_BYTES];
    const struct value *name = &work->document[plan->event];
    if (name->is != STRING || name->len == 0)
        return 1;
    if (name->len > EVENT_NAME_MAX)
        return 0;
    memcpy(text, plan->event_prefix, plan->event_prefix_len);
    memcpy(text + plan->event_prefix_len, name->at, name->len);
    hmac_sha256(&plan->event_key, text, plan->event_prefix_len + name->len, mark);
    write_event_key(mark, key);
    wipe(text, sizeof text);
    return 1;
}

static uint32_t drops_of(const struct plan *plan, const struct work *work)
{
    uint32_t drops = 0;
    for (int i = 0; i < plan->drops; i++)
        drops |= (uint32_t)(work->document[plan->drop[i]].is != ABSENT) << i;
    return drops;
}

/* Read a message's content into the lines: 1; 0 where it is left to Python; -1 with an exception. */
static int read_message(const struct plan *plan, struct batch *batch, Py_ssize_t i,
                        struct about *about, struct value *attributes, PyObject **content)
{
    PyObject *message = PySequence_Fast_GET_ITEM(batch->sequence, i);
    int made = 1;
    if ((*content = content_of(batch, message)) == NULL)
        return -1;
    if (plan->attributes > 0)
        made = read_attributes(batch->attributes, message, attributes);
    return made > 0 ? add_lines(plan, *content, about, &batch->work) : made;
}

/* The same of an archive's line. No Python here: -1 where there is no memory. */
static int read_line(const struct plan *plan, struct batch *batch, Py_ssize_t i,
                     struct about *about, struct value *attributes)
{
    const struct line *line = &batch->lines[i];
    for (int name = 0; name < plan->attributes; name++)
        attributes[name] = batch->said[name];
    int made = text_is_utf8(line->at, line->len) &&
               plan_write(plan, line->at, line->len, about, &batch->work);
    return batch->work.failed ? -1 : made;
}

/* Count what a unit that was read adds to the batch; -1 with an exception. */
static int count_read(const struct plan *plan, struct batch *batch, Py_ssize_t i, PyObject *content,
                      const struct slice *slices, int made)
{
    if (batch->lines == NULL)
        return content == NULL ? 0
                               : count_unit(plan, batch, PySequence_Fast_GET_ITEM(batch->sequence, i),
                                            content, slices, made);
    count_slices(plan, batch, slices);
    if (!made && (batch->skip == NULL || !batch->skip[i])) {
        batch->bytes += batch->lines[i].len;
        batch->records += records_within(plan, batch->lines[i].at, batch->lines[i].len);
    }
    return 0;
}

/* Read one unit into its lines: 1; 0 where it is left to Python; -2 where the batch is; -1. */
static int read_unit(const struct plan *plan, struct batch *batch, Py_ssize_t i, struct about *about)
{
    struct work *work = &batch->work;
    struct slice *slices = &batch->slices[i * plan->targets];
    struct value attributes[NAMES_MAX];
    PyObject *content = NULL;
    size_t before[TARGETS_MAX];
    about->attributes = attributes;
    for (int t = 0; t < plan->targets; t++) {
        slices[t].at = work->lines[t].len;
        before[t] = work->count[t];
    }
    int made = batch->skip == NULL || !batch->skip[i];
    if (made)
        made = batch->lines ? read_line(plan, batch, i, about, attributes)
                            : read_message(plan, batch, i, about, attributes, &content);
    int named = made <= 0 || plan->event < 0 || name_event(plan, work, batch->entries[i].key);
    for (int t = 0; t < plan->targets; t++) {
        slices[t].len = (uint32_t)(work->lines[t].len - slices[t].at);
        slices[t].count = (uint32_t)(work->count[t] - before[t]);
    }
    if (made >= 0 && count_read(plan, batch, i, content, slices, made) < 0)
        made = -1;
    if (content != NULL)
        Py_DECREF(content);
    if (work->arena.size > ARENA_KEPT_MAX)
        text_forget(&work->arena);
    return made >= 0 && !named ? -2 : made;
}

/* The id of a line (`line_id` of ledger_key.py). */
static void write_line_id(const struct batch *batch, Py_ssize_t i, char id[KEY_CHARS])
{
    static const char HEX[] = "0123456789abcdef";
    uint32_t number = batch->first + (uint32_t)i;
    memcpy(id, batch->prefix, LINE_PREFIX_CHARS);
    for (int at = KEY_CHARS - 1; at >= LINE_PREFIX_CHARS; at--, number >>= 4)
        id[at] = HEX[number & 15];
}

/* Read one unit, which `about` describes, into its entry and its lines: as pack_one. */
static int pack_unit(const struct plan *plan, struct batch *batch, Py_ssize_t i, struct about *about)
{
    struct work *work = &batch->work;
    if (about->id == NULL ||
        !write_key(about->id, about->id_len, about->sent_ms, batch->keying, batch->entries[i].key))
        return 0;
    size_t dropped = work->dropped;
    work->verdict.is = VERDICT_NONE;
    int made = read_unit(plan, batch, i, about);
    if (made < 0)
        return made == -2 ? 0 : -1;
    if (about->sent_ms < batch->oldest_ms)
        batch->oldest_ms = about->sent_ms;
    batch->entries[i].unit = (uint32_t)i;
    batch->units[i] = (struct unit){.state = made ? WRITTEN : work->verdict.is ? FAULTY : LEFT,
                                    .verdict = work->verdict,
                                    .dropped = (uint32_t)(work->dropped - dropped),
                                    .unknown_to = work->unknowns.seen_count,
                                    .originals_to = work->originals.len,
                                    .drops = made ? drops_of(plan, work) : 0};
    return 1;
}

/* Read one unit into its entry and its lines: 1; 0 where the batch is left to Python; -1, with an
 * exception where it is a message. */
static int pack_one(const struct plan *plan, struct batch *batch, Py_ssize_t i)
{
    struct about about = {.id = NULL};
    if (batch->lines != NULL) {
        char line_id[KEY_CHARS];
        write_line_id(batch, i, line_id);
        about.id = line_id;
        about.id_len = KEY_CHARS;
        about.sent_ms = batch->lines[i].sent_ms;
        return pack_unit(plan, batch, i, &about);
    }
    PyObject *message = PySequence_Fast_GET_ITEM(batch->sequence, i);
    if (read_sent_ms(message, &about.sent_ms) < 0)
        return -1;
    PyObject *id = read_id(message, &about);
    if (id == NULL)
        return -1;
    int done = pack_unit(plan, batch, i, &about);
    Py_DECREF(id);
    return done;
}

static int by_key(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;
    int order = memcmp(one->key, other->key, KEY_CHARS);
    return order ? order : (one->unit > other->unit) - (one->unit < other->unit);
}

static int same_id(const struct batch *batch, uint32_t one, uint32_t other)
{
    struct about a = {.id = NULL}, b = {.id = NULL};
    if (batch->lines != NULL)
        return 0; /* each has a number of its own */
    PyObject *first = read_id(PySequence_Fast_GET_ITEM(batch->sequence, one), &a);
    PyObject *second = read_id(PySequence_Fast_GET_ITEM(batch->sequence, other), &b);
    int same = a.id != NULL && b.id != NULL && a.id_len == b.id_len && memcmp(a.id, b.id, a.id_len) == 0;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return PyErr_Occurred() ? -1 : same;
}

/* Bring the entries in the order of their keys and mark repeats: 1; 0 where two units of different
 * ids have one key; -1. */
static int sort_entries(struct batch *batch)
{
    struct entry *entries = batch->entries;
    Py_ssize_t i = 1;
    while (i < batch->count && by_key(&entries[i - 1], &entries[i]) < 0)
        i++;
    if (i < batch->count) /* else as they nearly are when they come: sent one after another */
        qsort(entries, (size_t)batch->count, sizeof *entries, by_key);
    for (i = 1; i < batch->count; i++) {
        if (memcmp(entries[i - 1].key, entries[i].key, KEY_CHARS) != 0)
            continue;
        int same = batch->named || same_id(batch, entries[i - 1].unit, entries[i].unit);
        if (same <= 0)
            return same;
        batch->units[entries[i].unit].state = REPEAT;
    }
    return 1;
}

/* The units that are written, in the order of their rows. */
static uint32_t unit_at(const struct batch *batch, Py_ssize_t i)
{
    return batch->in_order ? (uint32_t)i : batch->entries[i].unit;
}

/* Write one line; return where the next one goes. `id`: NULL where the caller writes it. */
static char *ledger_line(char *to, const char *key, const char *id, const char *tail, size_t tail_len)
{
    memcpy(to, key, KEY_CHARS);
    to[KEY_CHARS] = '\t';
    if (id != NULL)
        memcpy(to + KEY_CHARS + 1, id, KEY_CHARS);
    to[2 * KEY_CHARS + 1] = '\t';
    memcpy(to + 2 * KEY_CHARS + 2, tail, tail_len);
    return to + 2 * KEY_CHARS + 2 + tail_len;
}

/* Key, id and `tail` of each that is written, in the order of the entries. */
static PyObject *ledger_text(const struct batch *batch, const char *tail, size_t tail_len)
{
    Py_ssize_t line = 2 * KEY_CHARS + 2 + (Py_ssize_t)tail_len;
    PyObject *text = PyBytes_FromStringAndSize(NULL, batch->written * line);
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        const struct entry *entry = &batch->entries[i];
        struct about about;
        if (batch->units[entry->unit].state != WRITTEN)
            continue;
        if (batch->lines != NULL) {
            to = ledger_line(to, entry->key, NULL, tail, tail_len);
            write_line_id(batch, entry->unit, to - line + KEY_CHARS + 1);
            continue;
        }
        PyObject *id = read_id(PySequence_Fast_GET_ITEM(batch->sequence, entry->unit), &about);
        if (id == NULL || about.id == NULL || about.id_len != KEY_CHARS) {
            Py_XDECREF(id); /* it was as usual a moment ago: only a property could do this */
            Py_DECREF(text);
            PyErr_SetString(PyExc_TypeError, "a unit's id has changed");
            return NULL;
        }
        to = ledger_line(to, entry->key, about.id, tail, tail_len);
        Py_DECREF(id);
    }
    return text;
}

/* The lines of one target, and how many they are. */
static PyObject *target_text(const struct batch *batch, int targets, int target)
{
    size_t len = 0;
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        if (batch->units[i].state == WRITTEN) {
            len += batch->slices[i * targets + target].len;
            count += batch->slices[i * targets + target].count;
        }
    }
    PyObject *text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        uint32_t unit = unit_at(batch, i);
        struct slice slice = batch->slices[(size_t)unit * (size_t)targets + (size_t)target];
        if (batch->units[unit].state != WRITTEN || slice.len == 0)
            continue;
        memcpy(to, batch->work.lines[target].at + slice.at, slice.len);
        to += slice.len;
    }
    return Py_BuildValue("Nn", text, count);
}

static PyObject *target_texts(const struct plan *plan, const struct batch *batch)
{
    PyObject *texts = PyTuple_New(plan->targets);
    for (int t = 0; texts != NULL && t < plan->targets; t++) {
        PyObject *one = target_text(batch, plan->targets, t);
        if (one == NULL)
            Py_CLEAR(texts);
        else
            PyTuple_SET_ITEM(texts, t, one);
    }
    return texts;
}

/* Which lines are whose: see `_Packed.layout` of native_encoder.py. */
static PyObject *layout_of(const struct plan *plan, const struct batch *batch)
{
    Py_ssize_t numbers = 2 + 2 * (Py_ssize_t)plan->targets;
    PyObject *layout =
        PyBytes_FromStringAndSize(NULL, batch->written * numbers * (Py_ssize_t)sizeof(uint32_t));
    if (layout == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(layout);
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        uint32_t unit = unit_at(batch, i);
        if (batch->units[unit].state != WRITTEN)
            continue;
        uint32_t head[2] = {unit, batch->units[unit].dropped};
        memcpy(to, head, sizeof head);
        to += sizeof head;
        for (int t = 0; t < plan->targets; t++) {
            const struct slice *slice = &batch->slices[(size_t)unit * (size_t)plan->targets + (size_t)t];
            uint32_t part[2] = {slice->len, slice->count};
            memcpy(to, part, sizeof part);
            to += sizeof part;
        }
    }
    return layout;
}

/* The indexes of the units in a state, rising. */
static PyObject *units_in(const struct batch *batch, enum state state)
{
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++)
        found += batch->units[i].state == state;
    PyObject *indexes = PyTuple_New(found);
    for (Py_ssize_t i = 0, at = 0; indexes != NULL && i < batch->count; i++) {
        if (batch->units[i].state != state)
            continue;
        PyObject *index = PyLong_FromSsize_t(i);
        if (index == NULL)
            Py_CLEAR(indexes);
        else
            PyTuple_SET_ITEM(indexes, at++, index);
    }
    return indexes;
}

/* The units that are at fault, rising: index, key, verdict, target, place, and the text of a column's
 * value or None. */
static PyObject *faults_of(const struct batch *batch)
{
    PyObject *faults = PyList_New(0);
    uint32_t *places = batch->faulty > 0 ? PyMem_Calloc((size_t)batch->count, sizeof *places) : NULL;
    if (faults == NULL || (batch->faulty > 0 && places == NULL)) {
        Py_XDECREF(faults);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; places != NULL && i < batch->count; i++)
        places[batch->entries[i].unit] = (uint32_t)i;
    for (Py_ssize_t i = 0; places != NULL && i < batch->count; i++) {
        const struct verdict *verdict = &batch->units[i].verdict;
        if (batch->units[i].state != FAULTY)
            continue;
        const char *text = verdict->present ? batch->work.suspects.at + verdict->from : NULL;
        PyObject *fault = Py_BuildValue("ns#iiiz#", i, batch->entries[places[i]].key,
                                        (Py_ssize_t)KEY_CHARS, verdict->is, verdict->target,
                                        verdict->place, text, (Py_ssize_t)verdict->len);
        if (fault == NULL || PyList_Append(faults, fault) < 0)
            Py_CLEAR(faults);
        Py_XDECREF(fault);
        if (faults == NULL)
            break;
    }
    PyMem_Free(places);
    return faults;
}

/* Where keys name events: the key of each unit, one after another. */
static PyObject *keys_of(const struct batch *batch)
{
    PyObject *keys = PyBytes_FromStringAndSize(NULL, batch->named ? batch->count * KEY_CHARS : 0);
    for (Py_ssize_t i = 0; keys != NULL && batch->named && i < batch->count; i++)
        memcpy(PyBytes_AS_STRING(keys) + (Py_ssize_t)batch->entries[i].unit * KEY_CHARS,
               batch->entries[i].key, KEY_CHARS);
    return keys;
}

/* For each of the plan's `drop`: how many of the units that are written have it. */
static PyObject *counts_of(const struct plan *plan, const struct batch *batch)
{
    PyObject *counts = PyTuple_New(plan->drops);
    for (int drop = 0; counts != NULL && drop < plan->drops; drop++) {
        Py_ssize_t found = 0;
        for (Py_ssize_t i = 0; i < batch->count; i++)
            found += batch->units[i].state == WRITTEN && batch->units[i].drops >> drop & 1;
        PyObject *count = PyLong_FromSsize_t(found);
        if (count == NULL)
            Py_CLEAR(counts);
        else
            PyTuple_SET_ITEM(counts, drop, count);
    }
    return counts;
}

/* The members that no path names: node, name, sort of value, and how many are in the units that are
 * written. */
static PyObject *unknowns_of(struct batch *batch)
{
    struct unknowns *all = &batch->work.unknowns;
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++)
        if (batch->units[i].state == WRITTEN)
            unknown_count(all, i > 0 ? batch->units[i - 1].unknown_to : 0, batch->units[i].unknown_to);
    for (int i = 0; i < all->count * UNKNOWN_SORTS_COUNT; i++)
        found += all->at[i / UNKNOWN_SORTS_COUNT].count[i % UNKNOWN_SORTS_COUNT] > 0;
    PyObject *unknowns = PyTuple_New(found);
    for (int i = 0, at = 0; unknowns != NULL && i < all->count * UNKNOWN_SORTS_COUNT; i++) {
        const struct unknown *one = &all->at[i / UNKNOWN_SORTS_COUNT];
        int sort = i % UNKNOWN_SORTS_COUNT;
        if (one->count[sort] == 0)
            continue;
        PyObject *entry = Py_BuildValue("iy#in", one->node < 0 ? 0 : one->node, one->name,
                                        (Py_ssize_t)one->len, UNKNOWN_SORTS[sort],
                                        (Py_ssize_t)one->count[sort]);
        if (entry == NULL)
            Py_CLEAR(unknowns);
        else
            PyTuple_SET_ITEM(unknowns, at++, entry);
    }
    return unknowns;
}

/* The originals of the units that are written, each after the unit's index: see originals.h. */
static PyObject *originals_of(const struct batch *batch)
{
    const struct text *all = &batch->work.originals;
    Py_ssize_t len = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        size_t from = i > 0 ? batch->units[i - 1].originals_to : 0;
        if (batch->units[i].state == WRITTEN && batch->units[i].originals_to > from)
            len += (Py_ssize_t)(sizeof(uint32_t) + batch->units[i].originals_to - from);
    }
    PyObject *originals = PyBytes_FromStringAndSize(NULL, len);
    char *to = originals == NULL || len == 0 ? NULL : PyBytes_AS_STRING(originals);
    for (Py_ssize_t i = 0; to != NULL && i < batch->count; i++) {
        size_t from = i > 0 ? batch->units[i - 1].originals_to : 0;
        size_t size = batch->units[i].originals_to - from;
        uint32_t unit = (uint32_t)i;
        if (batch->units[i].state != WRITTEN || size == 0)
            continue;
        memcpy(to, &unit, sizeof unit);
        memcpy(to + sizeof unit, all->at + from, size);
        to += sizeof unit + size;
    }
    return originals;
}

static PyObject *batch_texts(const struct plan *plan, struct batch *batch, const char *tail,
                             size_t tail_len)
{
    size_t dropped = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        int written = batch->units[i].state == WRITTEN;
        batch->written += written;
        batch->faulty += batch->units[i].state == FAULTY;
        dropped += written ? batch->units[i].dropped : 0;
    }
    PyObject *ledger = ledger_text(batch, tail, tail_len);
    PyObject *targets = ledger ? target_texts(plan, batch) : NULL;
    PyObject *layout = targets ? layout_of(plan, batch) : NULL;
    PyObject *left = layout ? units_in(batch, LEFT) : NULL;
    PyObject *repeats = left ? units_in(batch, REPEAT) : NULL;
    PyObject *keys = repeats ? keys_of(batch) : NULL;
    PyObject *counts = keys ? counts_of(plan, batch) : NULL;
    PyObject *unknowns = counts ? unknowns_of(batch) : NULL;
    PyObject *faults = unknowns ? faults_of(batch) : NULL;
    PyObject *originals = faults ? originals_of(batch) : NULL;
    if (originals == NULL) {
        Py_XDECREF(faults);
        Py_XDECREF(unknowns);
        Py_XDECREF(counts);
        Py_XDECREF(keys);
        Py_XDECREF(repeats);
        Py_XDECREF(ledger);
        Py_XDECREF(targets);
        Py_XDECREF(layout);
        Py_XDECREF(left);
        return NULL;
    }
    return Py_BuildValue("NNNLnNNNNNnNN", ledger, targets, layout, (long long)batch->oldest_ms,
                         (Py_ssize_t)dropped, left, repeats, keys, counts, unknowns, batch->count,
                         faults, originals);
}

/* Read units until the batch is full: 1; 0 where the batch is left to Python; -1. */
static int pack_units(const struct plan *plan, struct batch *batch)
{
    int usual = batch->count > 0 && (size_t)batch->count <= UINT32_MAX;
    /* Without it the same: but a text that grows is copied and wiped each time. */
    text_room(&batch->work.lines[0], (size_t)batch->count * LINE_BYTES);
    Py_ssize_t taken = 0;
    while (usual == 1 && taken < batch->count && !is_full(batch))
        usual = pack_one(plan, batch, taken++);
    batch->count = taken;
    for (int t = 0; usual == 1 && t < plan->targets; t++)
        usual = batch->work.lines[t].len <= UINT32_MAX;
    return usual == 1 ? sort_entries(batch) : usual;
}

static PyObject *pack_batch(const struct plan *plan, struct batch *batch, const char *tail,
                            size_t tail_len)
{
    int usual;
    if (batch->lines != NULL) {
        /* No Python is asked: another thread may send the batch before this one. */
        Py_BEGIN_ALLOW_THREADS
        usual = pack_units(plan, batch);
        Py_END_ALLOW_THREADS
        if (usual < 0)
            PyErr_NoMemory();
    } else {
        usual = pack_units(plan, batch);
    }
    if (usual < 0)
        return NULL;
    if (!usual)
        Py_RETURN_NONE;
    return batch_texts(plan, batch, tail, tail_len);
}

struct bounds {
    Py_ssize_t bytes, records, text; /* 0 and less: none */
};

/* Pack a batch whose `sequence`, `keying` and the like are set; `skip_len`: of its `skip`. */
static PyObject *pack_given(PyObject *self, struct batch *batch, Py_ssize_t skip_len,
                            const struct bounds *bounds, const char *tail, size_t tail_len)
{
    const struct plan *plan = ((struct fast_path *)self)->plan;
    PyObject *packed = NULL;
    batch->oldest_ms = INT64_MAX;
    batch->attributes = PyTuple_GET_ITEM(((struct fast_path *)self)->given, ATTRIBUTES_ARG);
    batch->named = plan->event >= 0;
    batch->skip = skip_len > 0 ? batch->skip : NULL;
    batch->bytes_max = bounds->bytes > 0 ? (size_t)bounds->bytes : 0;
    batch->records_max = bounds->records > 0 ? (size_t)bounds->records : 0;
    batch->work.text_max = bounds->text > 0 ? (size_t)bounds->text : 0;
    size_t room = (size_t)batch->count + 1;
    batch->entries = PyMem_Calloc(room, sizeof *batch->entries);
    batch->units = PyMem_Calloc(room, sizeof *batch->units);
    batch->slices = PyMem_Calloc(room * (size_t)plan->targets, sizeof *batch->slices);
    if ((int)batch->keying < 0 || batch->keying >= KEYING_COUNT ||
        (skip_len > 0 && skip_len != batch->count))
        PyErr_SetString(PyExc_ValueError, "no such keying, or a mark for each unit is wanted");
    else if (batch->entries == NULL || batch->units == NULL || batch->slices == NULL)
        PyErr_NoMemory();
    else
        packed = pack_batch(plan, batch, tail, tail_len);
    work_forget(&batch->work);
    PyMem_Free(batch->entries);
    PyMem_Free(batch->units);
    PyMem_Free(batch->slices);
    return packed;
}

static PyObject *fast_path_pack(PyObject *self, PyObject *args)
{
    const char *tail;
    Py_ssize_t tail_len, skip_len;
    int keying;
    PyObject *units, *open = Py_None;
    struct bounds bounds = {0, 0, 0};
    struct batch batch = {.count = 0};
    if (!PyArg_ParseTuple(args, "Oy#ipy#|nnnO", &units, &tail, &tail_len, &keying, &batch.in_order,
                          &batch.skip, &skip_len, &bounds.bytes, &bounds.records, &bounds.text, &open))
        return NULL;
    batch.keying = (enum keying)keying;
    batch.open = open == Py_None ? NULL : open;
    batch.sequence = PySequence_Fast(units, "units are a sequence");
    if (batch.sequence == NULL)
        return NULL;
    batch.count = PySequence_Fast_GET_SIZE(batch.sequence);
    PyObject *packed = pack_given(self, &batch, skip_len, &bounds, tail, (size_t)tail_len);
    Py_DECREF(batch.sequence);
    return packed;
}

/* Set the times of lines; 0 with an exception. `times`: as many numbers; None: all have `day_ms`. */
static int set_times(struct line *lines, Py_ssize_t count, PyObject *times, long long day_ms)
{
    if (times != Py_None && PyTuple_GET_SIZE(times) != count) {
        PyErr_SetString(PyExc_ValueError, "a time for each line is wanted");
        return 0;
    }
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        lines[i].sent_ms = times == Py_None ? day_ms : PyLong_AsLongLong(PyTuple_GET_ITEM(times, i));
    return !PyErr_Occurred();
}

/* The lines of a text; they live as long as it. NULL with an exception. */
static struct line *lines_in_text(PyObject *text, Py_ssize_t *count)
{
    const char *at = PyBytes_AS_STRING(text), *end = at + PyBytes_GET_SIZE(text);
    *count = (Py_ssize_t)count_lines_of(at, (size_t)(end - at));
    struct line *lines = PyMem_Calloc((size_t)*count + 1, sizeof *lines), *line = lines;
    if (lines == NULL)
        PyErr_NoMemory();
    for (; lines != NULL && at < end; line++)
        at = next_line(at, end, &line->at, &line->len);
    return lines;
}

/* The lines of a tuple; they live as long as it. NULL with an exception. */
static struct line *lines_in_tuple(PyObject *bodies, Py_ssize_t *count)
{
    *count = PyTuple_GET_SIZE(bodies);
    struct line *lines = PyMem_Calloc((size_t)*count + 1, sizeof *lines);
    if (lines == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; lines != NULL && i < *count; i++) {
        PyObject *body = PyTuple_GET_ITEM(bodies, i);
        if (!PyBytes_CheckExact(body)) {
            PyErr_SetString(PyExc_TypeError, "lines are bytes");
            PyMem_Free(lines);
            return NULL;
        }
        lines[i].at = PyBytes_AS_STRING(body);
        lines[i].len = (size_t)PyBytes_GET_SIZE(body);
    }
    return lines;
}

static PyObject *fast_path_pack_lines(PyObject *self, PyObject *args)
{
    const char *tail;
    Py_ssize_t tail_len, skip_len, prefix_len;
    long long day_ms;
    PyObject *times, *all = Py_None, *packed = NULL;
    struct bounds bounds = {0, 0, 0};
    struct batch batch = {.keying = KEY_OF_LINE};
    struct value said[NAMES_MAX];
    if (!PyArg_ParseTuple(args, "OOLy#Iy#y#|nnnO", &batch.sequence, &times, &day_ms,
                          &batch.prefix, &prefix_len, &batch.first, &tail, &tail_len, &batch.skip,
                          &skip_len, &bounds.bytes, &bounds.records, &bounds.text, &all))
        return NULL;
    if (prefix_len != LINE_PREFIX_CHARS || (times != Py_None && !PyTuple_CheckExact(times))) {
        PyErr_SetString(PyExc_ValueError, "a line's prefix has 28 characters; times are a tuple");
        return NULL;
    }
    int is_text = PyBytes_CheckExact(batch.sequence);
    if (!is_text && !PyTuple_CheckExact(batch.sequence)) {
        PyErr_SetString(PyExc_TypeError, "lines are one text or a tuple");
        return NULL;
    }
    PyObject *names = PyTuple_GET_ITEM(((struct fast_path *)self)->given, ATTRIBUTES_ARG);
    int read = read_texts(names, all, said);
    if (read < 0)
        return NULL;
    if (!read)
        Py_RETURN_NONE;
    batch.said = said;
    struct line *lines = (is_text ? lines_in_text : lines_in_tuple)(batch.sequence, &batch.count);
    if (lines != NULL && set_times(lines, batch.count, times, day_ms)) {
        batch.lines = lines;
        packed = pack_given(self, &batch, skip_len, &bounds, tail, (size_t)tail_len);
    }
    PyMem_Free(lines);
    return packed;
}

static PyMethodDef fast_path_methods[] = {
    {"pack", fast_path_pack, METH_VARARGS,
     "pack(units, ledger_end, keying, in_order, left, bytes_max, records_max, text_max, open) -> the "
     "texts of a batch, or None"},
    {"pack_lines", fast_path_pack_lines, METH_VARARGS,
     "pack_lines(bodies, times, day_ms, prefix, first, ledger_end, left, bytes_max, records_max, "
     "text_max, attributes) -> the same, of lines of an archive"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot fast_path_slots[] = {
    {Py_tp_new, fast_path_new},
    {Py_tp_dealloc, fast_path_dealloc},
    {Py_tp_methods, fast_path_methods},
    {0, NULL},
};

PyType_Spec fast_path_spec = {
    .name = "sqs2pg._native.FastPath",
    .basicsize = sizeof(struct fast_path),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = fast_path_slots,
};

int fast_path_prepare(void)
{
    if (field_prepare(&f_body, "body") < 0 || field_prepare(&f_attributes, "attributes") < 0 ||
        field_prepare(&f_sent_timestamp, "sent_timestamp") < 0 ||
        field_prepare(&f_message_id, "message_id") < 0 ||
        field_prepare(&f_message_attributes, "message_attributes") < 0 ||
        field_prepare(&f_string_value, "string_value") < 0 ||
        field_prepare(&f_binary_value, "binary_value") < 0 || field_prepare(&f_payload, "payload") < 0)
        return -1;
    return 0;
}
