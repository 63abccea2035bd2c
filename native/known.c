/* See known.h. A bucket of two cache lines holds 16 hashes. Each hash has one bucket, or the one beside it
 * if that is full. The set doubles while it may; then a new hash takes the place of another one of its
 * bucket. No hash is ever removed alone: a bucket that was full stays full. */
#include "known.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "originals.h"
#include "text.h"

enum { SLOTS = 16, BUCKETS_MIN = 256, HASH_BYTES = 8, FULL_OF_16 = 7 };

struct known {
    PyObject_HEAD
    uint64_t *slots; /* 0: empty */
    size_t buckets, buckets_max; /* powers of 2 */
    size_t count;
    uint64_t turn;
};

static uint64_t hash_at(const char *hashes, size_t i)
{
    uint64_t hash;
    memcpy(&hash, hashes + i * HASH_BYTES, HASH_BYTES);
    return hash;
}

static size_t bucket_of(const struct known *set, uint64_t hash)
{
    uint64_t mixed = (hash ^ hash >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed >> 32 & (set->buckets - 1));
}

/* Whether the bucket has the hash, or else room for one. */
static int look(const uint64_t *slots, uint64_t hash, int *room)
{
    int found = 0, free_slots = 0;
    for (int i = 0; i < SLOTS; i++) {
        found |= slots[i] == hash;
        free_slots |= slots[i] == 0;
    }
    *room = free_slots;
    return found;
}

static int has(const struct known *set, uint64_t hash)
{
    int room;
    size_t bucket = bucket_of(set, hash);
    return look(set->slots + bucket * SLOTS, hash, &room) ||
           (!room && look(set->slots + (bucket ^ 1) * SLOTS, hash, &room));
}

/* Put the hash into the bucket; 0 where it is full of others. */
static int put_into(struct known *set, uint64_t *slots, uint64_t hash)
{
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i] == hash)
            return 1;
        if (slots[i] == 0) {
            slots[i] = hash;
            set->count++;
            return 1;
        }
    }
    return 0;
}

static void put(struct known *set, uint64_t hash)
{
    size_t bucket = bucket_of(set, hash);
    uint64_t *slots = set->slots + bucket * SLOTS;
    if (!put_into(set, slots, hash) && !put_into(set, set->slots + (bucket ^ 1) * SLOTS, hash))
        slots[set->turn++ % SLOTS] = hash;
}

/* An empty set of so many buckets; 0 where there is no memory. */
static int empty(struct known *set, size_t buckets)
{
    uint64_t *slots = calloc(buckets * SLOTS, sizeof *slots);
    if (slots == NULL)
        return 0;
    free(set->slots);
    set->slots = slots;
    set->buckets = buckets;
    set->count = 0;
    return 1;
}

/* Make room for more hashes. Without the memory for it the set stays as large as it is. */
static void reserve(struct known *set, size_t more)
{
    while (set->count + more > set->buckets * FULL_OF_16 && set->buckets < set->buckets_max) {
        uint64_t *old = set->slots;
        size_t slots = set->buckets * SLOTS;
        set->slots = NULL;
        if (!empty(set, 2 * set->buckets)) {
            set->slots = old;
            return;
        }
        for (size_t i = 0; i < slots; i++)
            if (old[i] != 0)
                put(set, old[i]);
        free(old);
    }
}

static PyObject *known_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Py_ssize_t hashes_max;
    (void)named;
    if (!PyArg_ParseTuple(args, "n", &hashes_max))
        return NULL;
    size_t buckets_max = BUCKETS_MIN;
    if (hashes_max < 1 || (size_t)hashes_max > SIZE_MAX / (4 * HASH_BYTES)) {
        PyErr_SetString(PyExc_ValueError, "the set holds one hash or more");
        return NULL;
    }
    while (2 * buckets_max * SLOTS <= (size_t)hashes_max)
        buckets_max *= 2;
    struct known *set = (struct known *)type->tp_alloc(type, 0);
    if (set == NULL)
        return NULL;
    set->buckets_max = buckets_max;
    if (!empty(set, BUCKETS_MIN)) {
        Py_DECREF(set);
        return PyErr_NoMemory();
    }
    return (PyObject *)set;
}

static void known_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    free(((struct known *)self)->slots);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The hashes of some records: of all of them, or of those with the numbers in `chosen`. */
struct hashes {
    const char *at, *chosen;
    Py_ssize_t len, chosen_len;
    int columns;
    size_t all, count; /* records */
};

/* 0 with an exception where they have another form. */
static int read_hashes(struct hashes *hashes, PyObject *args)
{
    hashes->chosen = NULL;
    hashes->columns = 1;
    if (!PyArg_ParseTuple(args, "y#|iz#", &hashes->at, &hashes->len, &hashes->columns, &hashes->chosen,
                          &hashes->chosen_len))
        return 0;
    if (hashes->columns < 1 || hashes->len % (HASH_BYTES * (Py_ssize_t)hashes->columns) != 0) {
        PyErr_SetString(PyExc_ValueError, "each record has as many hashes of 8 bytes");
        return 0;
    }
    hashes->all = (size_t)hashes->len / HASH_BYTES / (size_t)hashes->columns;
    hashes->count = hashes->chosen == NULL ? hashes->all : (size_t)hashes->chosen_len / sizeof(uint32_t);
    return 1;
}

/* Set the number of the `i`th record; 0 with an exception where there is none. */
static int record_of(const struct hashes *hashes, size_t i, uint32_t *number)
{
    *number = (uint32_t)i;
    if (hashes->chosen != NULL)
        memcpy(number, hashes->chosen + i * sizeof *number, sizeof *number);
    if (*number < hashes->all)
        return 1;
    PyErr_SetString(PyExc_ValueError, "there is no such record");
    return 0;
}

static PyObject *known_add(PyObject *self, PyObject *args)
{
    struct known *set = (struct known *)self;
    struct hashes hashes;
    if (!read_hashes(&hashes, args))
        return NULL;
    reserve(set, hashes.count * (size_t)hashes.columns);
    for (size_t i = 0; i < hashes.count; i++) {
        uint32_t number;
        if (!record_of(&hashes, i, &number))
            return NULL;
        for (size_t column = 0; column < (size_t)hashes.columns; column++) {
            uint64_t hash = hash_at(hashes.at, number * (size_t)hashes.columns + column);
            if (hash != 0)
                put(set, hash);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *known_clear(PyObject *self, PyObject *nothing)
{
    struct known *set = (struct known *)self;
    (void)nothing;
    if (!empty(set, BUCKETS_MIN)) {
        memset(set->slots, 0, set->buckets * SLOTS * sizeof *set->slots);
        set->count = 0;
    }
    Py_RETURN_NONE;
}

static int knows(const struct known *set, const struct hashes *hashes, uint32_t number)
{
    for (size_t column = 0; column < (size_t)hashes->columns; column++) {
        uint64_t hash = hash_at(hashes->at, number * (size_t)hashes->columns + column);
        if (hash != 0 && !has(set, hash))
            return 0;
    }
    return 1;
}

static PyObject *known_unknown(PyObject *self, PyObject *args)
{
    struct hashes hashes;
    struct text numbers = {.at = NULL};
    if (!read_hashes(&hashes, args))
        return NULL;
    for (size_t i = 0; i < hashes.count && !numbers.failed; i++) {
        uint32_t number;
        if (!record_of(&hashes, i, &number)) {
            text_forget(&numbers);
            return NULL;
        }
        if (!knows((struct known *)self, &hashes, number))
            text_append(&numbers, (const char *)&number, sizeof number);
    }
    PyObject *found = numbers.failed
                          ? PyErr_NoMemory()
                          : PyBytes_FromStringAndSize(numbers.at, (Py_ssize_t)numbers.len);
    text_forget(&numbers);
    return found;
}

static Py_ssize_t known_length(PyObject *self)
{
    return (Py_ssize_t)((struct known *)self)->count;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, REFERENCE_BYTES);
}

/* Append sorted references, each once; return how many. */
static Py_ssize_t put_distinct(struct text *elements, const char *sorted, size_t count)
{
    Py_ssize_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        const char *one = sorted + i * REFERENCE_BYTES;
        if (i > 0 && memcmp(one - REFERENCE_BYTES, one, REFERENCE_BYTES) == 0)
            continue;
        text_append_sized(elements, one, REFERENCE_BYTES);
        distinct++;
    }
    return distinct;
}

PyObject *distinct_references(PyObject *module, PyObject *args)
{
    const char *references, *numbers;
    Py_ssize_t references_len, numbers_len;
    struct text elements = {.at = NULL};
    (void)module;
    if (!PyArg_ParseTuple(args, "y#y#", &references, &references_len, &numbers, &numbers_len))
        return NULL;
    size_t count = (size_t)numbers_len / sizeof(uint32_t);
    char *chosen = PyMem_Malloc(count * REFERENCE_BYTES + 1);
    if (chosen == NULL)
        return PyErr_NoMemory();
    for (size_t i = 0; i < count; i++) {
        uint32_t number;
        memcpy(&number, numbers + i * sizeof number, sizeof number);
        if (number >= (size_t)references_len / REFERENCE_BYTES) {
            PyMem_Free(chosen);
            return originals_refuse(), NULL;
        }
        memcpy(chosen + i * REFERENCE_BYTES, references + number * (size_t)REFERENCE_BYTES,
               REFERENCE_BYTES);
    }
    qsort(chosen, count, REFERENCE_BYTES, by_bytes);
    Py_ssize_t distinct = put_distinct(&elements, chosen, count);
    PyMem_Free(chosen);
    PyObject *found =
        elements.failed
            ? PyErr_NoMemory()
            : Py_BuildValue("ny#", distinct, elements.at == NULL ? "" : elements.at,
                            (Py_ssize_t)elements.len);
    text_forget(&elements);
    return found;
}

static PyMethodDef known_methods[] = {
    {"add", known_add, METH_VARARGS, "add(hashes, columns, chosen): note that these are stored"},
    {"clear", known_clear, METH_NOARGS, "clear(): forget all, and give the memory back"},
    {"unknown", known_unknown, METH_VARARGS,
     "unknown(hashes, columns, chosen) -> the numbers of records with a hash that is not here"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot known_slots[] = {
    {Py_tp_new, known_new},
    {Py_tp_dealloc, known_dealloc},
    {Py_tp_methods, known_methods},
    {Py_sq_length, known_length},
    {0, NULL},
};

PyType_Spec known_spec = {
    .name = "sqs2pg._native.KnownValues",
    .basicsize = sizeof(struct known),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = known_slots,
};
