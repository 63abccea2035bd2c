/* See seal.h. The formats are those of vault/crypto.py, which gives the constant parts. */
#include "seal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vault_rows.h"

enum {
    DRAWN_BYTES = AEAD_KEY_BYTES + 2 * AEAD_NONCE_BYTES,
    PARTS = 7 /* subjects, wrapped keys, sealed ids; subjects, fields, tokens, sealed values */
};

struct job {
    struct originals from;
    PyObject *names; /* of the columns, bytes */
    const uint32_t *entries; /* rising: sorted by the person's reference */
    size_t count;
    struct part drawn; /* random, not used yet: for each person DRAWN_BYTES, for each value a nonce */
    struct wrappings wrappings;
    struct part data_key, generation, subject; /* of the associated data */
    PyObject *value; /* the same of each column's values */
    struct aead *aead;
    struct text out[PARTS];
    struct text aad, sealed;
    Py_ssize_t people, values;
};

static int not_sealed(void)
{
    return not_done(NOT_SEALED) != NULL;
}

static const uint8_t *draw(struct job *job, Py_ssize_t len)
{
    const uint8_t *drawn = job->drawn.at;
    if (len > job->drawn.len)
        return originals_refuse(), NULL;
    job->drawn.at += len;
    job->drawn.len -= len;
    return drawn;
}

/* Begin the associated data with a constant part. */
static void begin_aad(struct job *job, struct part part)
{
    job->aad.len = 0;
    text_append(&job->aad, (const char *)part.at, (size_t)part.len);
}

/* Seal a text: format, nonce, ciphertext and tag. `first`: the first half of a nonce of format 1; NULL:
 * format 2. */
static int seal(struct job *job, const uint8_t *first, const uint8_t *nonce, const void *plaintext,
                size_t len)
{
    struct text *sealed = &job->sealed;
    size_t head = 1 + (first != NULL ? FIRST_HALF_BYTES : 0) + AEAD_NONCE_BYTES;
    sealed->len = 0;
    char *at = text_room(sealed, head + len + AEAD_TAG_BYTES);
    if (at == NULL || job->aad.failed)
        return PyErr_NoMemory(), 0;
    *at++ = first != NULL ? 1 : 2;
    if (first != NULL) {
        memcpy(at, first, FIRST_HALF_BYTES);
        at += FIRST_HALF_BYTES;
    }
    memcpy(at, nonce, AEAD_NONCE_BYTES);
    if (!aead_seal(job->aead, nonce, (const uint8_t *)job->aad.at, job->aad.len, plaintext, len,
                   (uint8_t *)at + AEAD_NONCE_BYTES))
        return not_sealed();
    sealed->len = head + len + AEAD_TAG_BYTES;
    return 1;
}

/* Append a sealed text to an array. */
static int put_sealed(struct job *job, struct text *to, const uint8_t *first, const uint8_t *nonce,
                      const void *plaintext, size_t len)
{
    if (!seal(job, first, nonce, plaintext, len))
        return 0;
    text_append_sized(to, job->sealed.at, job->sealed.len);
    return 1;
}

/* Make a person's data key, and use it from now on. */
static int add_person(struct job *job, const struct original *one)
{
    const uint8_t *key = draw(job, DRAWN_BYTES);
    if (key == NULL)
        return 0;
    const uint8_t *nonce = key + AEAD_KEY_BYTES;
    text_append_sized(&job->out[0], one->reference, REFERENCE_BYTES);
    begin_aad(job, job->data_key);
    text_append(&job->aad, (const char *)one->reference, REFERENCE_BYTES);
    text_append(&job->aad, (const char *)job->generation.at, (size_t)job->generation.len);
    const uint8_t *first = use_wrapping(job->aead, &job->wrappings, job->people);
    if (first == NULL)
        return not_sealed();
    if (!put_sealed(job, &job->out[1], first, nonce, key, AEAD_KEY_BYTES))
        return 0;
    if (!aead_use(job->aead, key))
        return not_sealed();
    begin_aad(job, job->subject);
    text_append(&job->aad, (const char *)one->reference, REFERENCE_BYTES);
    job->people++;
    return put_sealed(job, &job->out[2], NULL, nonce + AEAD_NONCE_BYTES, one->id.at, one->id.len);
}

static int add_value(struct job *job, const struct original *one)
{
    PyObject *name = PyTuple_GET_ITEM(job->names, one->column);
    PyObject *context = PyTuple_GET_ITEM(job->value, one->column);
    const uint8_t *nonce = draw(job, AEAD_NONCE_BYTES);
    if (nonce == NULL)
        return 0;
    text_append_sized(&job->out[3], one->reference, REFERENCE_BYTES);
    text_append_sized(&job->out[4], PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
    text_append_sized(&job->out[5], one->token.at, one->token.len);
    begin_aad(job,
              (struct part){(const uint8_t *)PyBytes_AS_STRING(context), PyBytes_GET_SIZE(context)});
    text_append_sized(&job->aad, one->token.at, one->token.len);
    text_append_sized(&job->aad, one->reference, REFERENCE_BYTES);
    job->values++;
    return put_sealed(job, &job->out[6], NULL, nonce, one->value.at, one->value.len);
}

/* By column and token; those of one value as they came. */
static int by_value(const void *a, const void *b)
{
    const struct original *one = a, *other = b;
    int order = (one->column > other->column) - (one->column < other->column);
    if (order == 0)
        order = (one->token.len > other->token.len) - (one->token.len < other->token.len);
    if (order == 0)
        order = memcmp(one->token.at, other->token.at, one->token.len);
    return order ? order : (one->token.at > other->token.at) - (one->token.at < other->token.at);
}

/* Add a person's values, each once. */
static int add_values(struct job *job, struct original *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    for (size_t i = 0; i < count; i++) {
        const struct original *one = &values[i], *before = &values[i > 0 ? i - 1 : 0];
        int known = i > 0 && one->column == before->column && one->token.len == before->token.len &&
                    memcmp(one->token.at, before->token.at, one->token.len) == 0;
        if (!known && !add_value(job, one))
            return 0;
    }
    return 1;
}

/* Add all people and their values. */
static int add_all(struct job *job, struct original *all)
{
    for (size_t i = 0; i < job->count; i++)
        if (!originals_entry(&job->from, job->entries[i], &all[i]))
            return 0;
    for (size_t begin = 0, end = 0; begin < job->count; begin = end) {
        while (end < job->count && memcmp(all[begin].reference, all[end].reference, REFERENCE_BYTES) == 0)
            end++;
        if (!add_person(job, &all[begin]) || !add_values(job, &all[begin], end - begin))
            return 0;
    }
    return 1;
}

static int by_number(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    return (one > other) - (one < other);
}

/* The numbers of the entries, given as PostgreSQL's int4send does; NULL with an exception. */
static uint32_t *read_entries(const uint8_t *at, Py_ssize_t len, size_t *count)
{
    *count = (size_t)len / 4;
    uint32_t *entries = PyMem_Calloc(*count + 1, sizeof *entries);
    if (entries == NULL)
        return (uint32_t *)PyErr_NoMemory();
    for (size_t i = 0; i < *count; i++, at += 4)
        entries[i] = read_number(at);
    qsort(entries, *count, sizeof *entries, by_number);
    return entries;
}

static PyObject *result_of(struct job *job)
{
    PyObject *parts = tuple_of(job->out, PARTS, 1);
    return parts == NULL ? NULL : Py_BuildValue("nnN", job->people, job->values, parts);
}

/* Whether each column has a name and a context. */
static int check_columns(const struct job *job)
{
    for (Py_ssize_t i = 0; i < job->from.columns; i++)
        if (PyTuple_GET_SIZE(job->names) != job->from.columns ||
            PyTuple_GET_SIZE(job->value) != job->from.columns ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(job->names, i)) ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(job->value, i)))
            return originals_refuse();
    return 1;
}

PyObject *seal_new_people(PyObject *module, PyObject *args)
{
    (void)module;
    struct job job = {.count = 0};
    const uint8_t *entries;
    Py_ssize_t entries_len;
    PyObject *keys, *found = NULL;
    if (!PyArg_ParseTuple(args, "O!y#y#O!n(y#y#y#O!)O!", &PyTuple_Type, &keys, &entries, &entries_len,
                          &job.drawn.at, &job.drawn.len, &PyTuple_Type, &job.wrappings.pairs,
                          &job.wrappings.each, &job.data_key.at, &job.data_key.len,
                          &job.generation.at, &job.generation.len, &job.subject.at,
                          &job.subject.len, &PyTuple_Type, &job.value, &PyTuple_Type, &job.names))
        return NULL;
    if (entries_len % 4 != 0 || !check_wrappings(&job.wrappings, entries_len / 4))
        return originals_refuse(), NULL;
    if (!originals_parse(&job.from, keys) || !check_columns(&job))
        return NULL;
    uint32_t *numbers = read_entries(entries, entries_len, &job.count);
    struct original *all = PyMem_Calloc(job.count + 1, sizeof *all);
    job.entries = numbers;
    job.aead = aead_new();
    if (numbers != NULL && all == NULL)
        PyErr_NoMemory();
    else if (numbers != NULL && job.aead == NULL)
        not_sealed();
    else if (numbers != NULL && add_all(&job, all))
        found = result_of(&job);
    aead_free(job.aead);
    PyMem_Free(numbers);
    PyMem_Free(all);
    text_forget(&job.aad);
    text_forget(&job.sealed);
    for (int i = 0; i < PARTS; i++)
        text_forget(&job.out[i]);
    return found;
}

/* Append a text to the associated data, as one of its parts. */
static int add_to_aad(struct job *job, PyObject *text)
{
    Py_ssize_t len;
    const char *at = text != NULL ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    if (at != NULL)
        text_append_sized(&job->aad, at, (size_t)len);
    return at != NULL;
}

/* Seal one text, which belongs to a place: a pair of texts. `first`: as `seal` takes it. */
static PyObject *seal_one(struct job *job, const uint8_t *first, struct part what, PyObject *place,
                          PyObject *plaintext)
{
    const uint8_t *nonce = draw(job, AEAD_NONCE_BYTES);
    if (nonce == NULL)
        return NULL;
    if (!PyTuple_Check(place) || PyTuple_GET_SIZE(place) != 2 || !PyBytes_CheckExact(plaintext))
        return originals_refuse(), NULL;
    begin_aad(job, what);
    if (!add_to_aad(job, PyTuple_GET_ITEM(place, 0)) || !add_to_aad(job, PyTuple_GET_ITEM(place, 1)) ||
        !seal(job, first, nonce, PyBytes_AS_STRING(plaintext),
              (size_t)PyBytes_GET_SIZE(plaintext)))
        return NULL;
    return PyBytes_FromStringAndSize(job->sealed.at, (Py_ssize_t)job->sealed.len);
}

PyObject *seal_texts(PyObject *module, PyObject *args)
{
    (void)module;
    struct job job = {.count = 0};
    struct part what;
    const uint8_t *first = NULL;
    PyObject *places, *plaintexts, *sealed = NULL;
    if (!PyArg_ParseTuple(args, "O!ny#y#O!O!", &PyTuple_Type, &job.wrappings.pairs,
                          &job.wrappings.each, &what.at, &what.len, &job.drawn.at, &job.drawn.len,
                          &PyList_Type, &places, &PyList_Type, &plaintexts))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(plaintexts);
    if (!check_wrappings(&job.wrappings, count) || PyList_GET_SIZE(places) != count)
        return originals_refuse(), NULL;
    job.aead = aead_new();
    if (job.aead == NULL)
        not_sealed();
    else
        sealed = PyList_New(count);
    for (Py_ssize_t i = 0; sealed != NULL && i < count; i++) {
        PyObject *one = NULL;
        if (i % job.wrappings.each == 0 &&
            (first = use_wrapping(job.aead, &job.wrappings, i)) == NULL)
            not_sealed();
        else
            one = seal_one(&job, first, what, PyList_GET_ITEM(places, i),
                           PyList_GET_ITEM(plaintexts, i));
        if (one == NULL)
            Py_CLEAR(sealed);
        else
            PyList_SET_ITEM(sealed, i, one);
    }
    aead_free(job.aead);
    text_forget(&job.aad);
    text_forget(&job.sealed);
    return sealed;
}
