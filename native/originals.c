/* See originals.h. */
#include "originals.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server_hash.h"
#include "sha256.h"
#include "text.h"

enum { ORIGINALS_COLUMNS_MAX = 128, ELEMENT_HEAD = 4 };

struct cursor {
    const char *at, *end;
};

struct record {
    uint8_t reference[REFERENCE_BYTES];
    uint32_t number; /* among those that were asked for */
    struct cursor columns;
};

static int take_number(struct cursor *from, uint32_t *number)
{
    if (from->end - from->at < (ptrdiff_t)sizeof *number)
        return originals_refuse();
    memcpy(number, from->at, sizeof *number);
    from->at += sizeof *number;
    return 1;
}

static int take_text(struct cursor *from, struct slice *text)
{
    if (!take_number(from, &text->len) || from->end - from->at < (ptrdiff_t)text->len)
        return originals_refuse();
    text->at = from->at;
    from->at += text->len;
    return 1;
}

static PyObject *bytes_of(const struct text *text)
{
    return PyBytes_FromStringAndSize(text->at, (Py_ssize_t)text->len);
}

PyObject *tuple_of(struct text *texts, int count, int made)
{
    for (int i = 0; i < count; i++)
        if (texts[i].failed && made) {
            PyErr_NoMemory();
            made = 0;
        }
    PyObject *found = made ? PyTuple_New(count) : NULL;
    for (int i = 0; i < count; i++) {
        PyObject *one = found != NULL ? bytes_of(&texts[i]) : NULL;
        text_forget(&texts[i]);
        if (found != NULL && one == NULL)
            Py_CLEAR(found);
        else if (found != NULL)
            PyTuple_SET_ITEM(found, i, one);
    }
    return found;
}

/* The parts of a call of value_hashes. */
struct hashing {
    struct hmac_key key;
    PyObject *names; /* of the columns, bytes */
    int columns;
    struct text texts[4]; /* hashes, references, places, units */
};

/* Append a record's hash for each column, as int8send makes it; 0 where there is no original. */
static int put_hashes(struct hashing *into, struct cursor *from, const uint8_t *reference)
{
    for (int i = 0; i < into->columns; i++) {
        struct slice token, value;
        uint8_t sent[sizeof(uint64_t)] = {0};
        if (!take_text(from, &token) || !take_text(from, &value))
            return 0;
        if (token.len > 0) {
            PyObject *name = PyTuple_GET_ITEM(into->names, i);
            uint64_t hash = server_hash(token.at, token.len, 0);
            hash = server_hash(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name), hash);
            hash = server_hash(reference, REFERENCE_BYTES, hash);
            for (size_t byte = 0; byte < sizeof sent; byte++)
                sent[byte] = (uint8_t)(hash >> (56 - 8 * byte));
        }
        text_append(&into->texts[0], (const char *)sent, sizeof sent);
    }
    return 1;
}

static int hash_records(struct hashing *into, const char *at, Py_ssize_t len)
{
    struct cursor from = {at, at + len};
    while (from.at < from.end) {
        uint32_t unit;
        struct slice id;
        uint8_t code[SHA256_BYTES];
        if (!take_number(&from, &unit))
            return 0;
        uint64_t place = (uint64_t)(from.at - at);
        if (!take_text(&from, &id))
            return 0;
        hmac_sha256(&into->key, (const uint8_t *)id.at, id.len, code);
        if (!put_hashes(into, &from, code))
            return 0;
        text_append(&into->texts[1], (const char *)code, REFERENCE_BYTES);
        text_append(&into->texts[2], (const char *)&place, sizeof place);
        text_append(&into->texts[3], (const char *)&unit, sizeof unit);
    }
    return 1;
}

static int are_names(PyObject *names, int columns)
{
    int named = PyTuple_GET_SIZE(names) == columns;
    for (int i = 0; named && i < columns; i++)
        named = PyBytes_CheckExact(PyTuple_GET_ITEM(names, i));
    return named;
}

PyObject *value_hashes(PyObject *module, PyObject *args)
{
    (void)module;
    const char *at, *secret;
    Py_ssize_t len, secret_len;
    struct hashing into = {.columns = 0};
    if (!PyArg_ParseTuple(args, "y#y#O!", &at, &len, &secret, &secret_len, &PyTuple_Type, &into.names))
        return NULL;
    into.columns = (int)Py_MIN(PyTuple_GET_SIZE(into.names), ORIGINALS_COLUMNS_MAX + 1);
    if (into.columns < 1 || into.columns > ORIGINALS_COLUMNS_MAX || secret_len > SHA256_BLOCK ||
        !are_names(into.names, into.columns))
        return originals_refuse(), NULL;
    hmac_key_set(&into.key, (const uint8_t *)secret, (size_t)secret_len);
    int made = hash_records(&into, at, len);
    wipe(&into.key, sizeof into.key);
    return tuple_of(into.texts, 4, made);
}

static int by_reference(const void *a, const void *b)
{
    const struct record *one = a, *other = b;
    int order = memcmp(one->reference, other->reference, REFERENCE_BYTES);
    return order ? order : (one->number > other->number) - (one->number < other->number);
}

/* Find the record whose place is the `i`th one; 0 with an exception. */
static int seek(struct cursor *to, const char *at, Py_ssize_t len, const char *places, size_t i)
{
    uint64_t place;
    memcpy(&place, places + i * sizeof place, sizeof place);
    if (place > (uint64_t)len)
        return originals_refuse();
    *to = (struct cursor){at + place, at + len};
    return 1;
}

/* Read the records at so many places; 0 with an exception. */
static int read_records(struct record *records, const char *at, Py_ssize_t len, const char *places,
                        size_t count, const struct hmac_key *key)
{
    for (size_t i = 0; i < count; i++) {
        struct slice id;
        uint8_t code[SHA256_BYTES];
        records[i].number = (uint32_t)i;
        if (!seek(&records[i].columns, at, len, places, i) || !take_text(&records[i].columns, &id))
            return 0;
        hmac_sha256(key, (const uint8_t *)id.at, id.len, code);
        memcpy(records[i].reference, code, REFERENCE_BYTES);
    }
    return 1;
}

/* Append a record's keys, and where they come from. */
static int put_keys(struct text texts[3], struct record *record, int columns)
{
    for (uint32_t i = 0; i < (uint32_t)columns; i++) {
        struct slice token, value;
        uint32_t from[2] = {record->number, i};
        if (!take_text(&record->columns, &token) || !take_text(&record->columns, &value))
            return 0;
        if (token.len == 0)
            continue;
        text_append_sized(&texts[0], record->reference, REFERENCE_BYTES);
        text_append_sized(&texts[1], token.at, token.len);
        text_append(&texts[2], (const char *)from, sizeof from);
    }
    return 1;
}

PyObject *original_keys(PyObject *module, PyObject *args)
{
    (void)module;
    const char *at, *places, *secret;
    Py_ssize_t len, places_len, secret_len;
    int columns;
    struct text texts[3] = {{.at = NULL}};
    struct hmac_key key;
    if (!PyArg_ParseTuple(args, "y#y#iy#", &at, &len, &places, &places_len, &columns, &secret,
                          &secret_len))
        return NULL;
    size_t count = (size_t)places_len / sizeof(uint64_t);
    if (columns < 0 || columns > ORIGINALS_COLUMNS_MAX || secret_len > SHA256_BLOCK ||
        count > UINT32_MAX || places_len % (Py_ssize_t)sizeof(uint64_t) != 0)
        return originals_refuse(), NULL;
    struct record *records = PyMem_Calloc(count + 1, sizeof *records);
    if (records == NULL)
        return PyErr_NoMemory();
    hmac_key_set(&key, (const uint8_t *)secret, (size_t)secret_len);
    int made = read_records(records, at, len, places, count, &key);
    wipe(&key, sizeof key);
    if (made)
        qsort(records, count, sizeof *records, by_reference);
    for (size_t i = 0; made && i < count; i++)
        made = put_keys(texts, &records[i], columns);
    PyMem_Free(records);
    return tuple_of(texts, 3, made);
}

/* The texts of one record: the id, then of each column token and cleartext. */
static PyObject *record_texts(struct cursor *from, int columns)
{
    PyObject *texts = PyTuple_New(1 + 2 * (Py_ssize_t)columns);
    for (int i = 0; texts != NULL && i < 1 + 2 * columns; i++) {
        struct slice one;
        PyObject *text = take_text(from, &one) ? PyUnicode_DecodeUTF8(one.at, one.len, NULL) : NULL;
        if (text == NULL)
            Py_CLEAR(texts);
        else
            PyTuple_SET_ITEM(texts, i, text);
    }
    return texts;
}

int originals_parse(struct originals *into, PyObject *given)
{
    Py_ssize_t places_len, references_len, each_len;
    if (!PyArg_ParseTuple(given, "y#y#iy#y#", &into->at, &into->len, &into->places, &places_len,
                          &into->columns, &into->references, &references_len, &into->each, &each_len))
        return 0;
    into->records = (size_t)places_len / sizeof(uint64_t);
    into->keys = (size_t)each_len / (2 * sizeof(uint32_t));
    if (into->columns < 1 || into->columns > ORIGINALS_COLUMNS_MAX ||
        (size_t)references_len != into->keys * (ELEMENT_HEAD + REFERENCE_BYTES))
        return originals_refuse();
    return 1;
}

int originals_entry(const struct originals *from, size_t number, struct original *into)
{
    uint32_t key[2];
    struct cursor cursor;
    if (number >= from->keys)
        return originals_refuse();
    into->reference = (const uint8_t *)from->references + number * (ELEMENT_HEAD + REFERENCE_BYTES) +
                      ELEMENT_HEAD;
    memcpy(key, from->each + number * sizeof key, sizeof key);
    into->column = key[1];
    if (key[0] >= from->records || key[1] >= (uint32_t)from->columns)
        return originals_refuse();
    int made = seek(&cursor, from->at, from->len, from->places, key[0]) && take_text(&cursor, &into->id);
    for (uint32_t i = 0; made && i <= key[1]; i++)
        made = take_text(&cursor, &into->token) && take_text(&cursor, &into->value);
    return made;
}

PyObject *original_values(PyObject *module, PyObject *args)
{
    (void)module;
    const char *at, *places;
    Py_ssize_t len, places_len;
    int columns;
    if (!PyArg_ParseTuple(args, "y#y#i", &at, &len, &places, &places_len, &columns))
        return NULL;
    if (columns < 0 || columns > ORIGINALS_COLUMNS_MAX ||
        places_len % (Py_ssize_t)sizeof(uint64_t) != 0)
        return originals_refuse(), NULL;
    Py_ssize_t count = places_len / (Py_ssize_t)sizeof(uint64_t);
    PyObject *records = PyList_New(count);
    for (Py_ssize_t i = 0; records != NULL && i < count; i++) {
        struct cursor from;
        PyObject *record =
            seek(&from, at, len, places, (size_t)i) ? record_texts(&from, columns) : NULL;
        if (record == NULL)
            Py_CLEAR(records);
        else
            PyList_SET_ITEM(records, i, record);
    }
    return records;
}
