/* See vault_rows.h. */
#include "vault_rows.h"

#include <stdio.h>
#include <string.h>

uint32_t read_number(const void *from)
{
    const uint8_t *at = from;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

int refuse_rows(void)
{
    PyErr_SetString(PyExc_ValueError, "these are no rows of the vault");
    return 0;
}

PyObject *not_done(enum result result)
{
    if (result == LEFT)
        Py_RETURN_NONE;
    if (result == NO_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_RuntimeError, "OpenSSL does not seal");
    return NULL;
}

/* Read what a row has of a column; `size`: its length, 0: the length comes first. */
static int take_element(const uint8_t **at, const uint8_t *end, size_t size, struct slice *element)
{
    size_t len = size;
    if (size == 0) {
        if (end - *at < 4)
            return refuse_rows();
        len = read_number(*at);
        *at += 4;
    }
    if (len > INT32_MAX || end - *at < (ptrdiff_t)len)
        return refuse_rows();
    *element = (struct slice){(const char *)*at, (uint32_t)len};
    *at += len;
    return 1;
}

int read_rows(struct part rows, Py_ssize_t count, struct column *columns, size_t number)
{
    const uint8_t *at = rows.at, *end = rows.at + rows.len;
    if (count < 0 || count > rows.len)
        return refuse_rows();
    for (size_t i = 0; i < number; i++) {
        columns[i].elements = PyMem_Calloc((size_t)count + 1, sizeof *columns[i].elements);
        if (columns[i].elements == NULL)
            return PyErr_NoMemory() != NULL;
    }
    for (Py_ssize_t row = 0; row < count; row++)
        for (size_t i = 0; i < number; i++)
            if (!take_element(&at, end, columns[i].size, &columns[i].elements[row]))
                return 0;
    return at == end || refuse_rows();
}

void forget_columns(struct column *columns, size_t number)
{
    for (size_t i = 0; i < number; i++)
        PyMem_Free(columns[i].elements);
}

/* Derived keys that open wrapped ones, by the version of the root and the first half of the nonce.
 * `known` keeps them. */
struct openers {
    PyObject *derive, *known;
    const char *version, *first; /* of the last one */
    const uint8_t *last;
};

/* The derived key of a name, borrowed from `known`; NULL with an exception. */
static PyObject *derived_key(struct openers *openers, const char *version, const char *first)
{
    char bytes[VERSION_BYTES + FIRST_HALF_BYTES];
    memcpy(bytes, version, VERSION_BYTES);
    memcpy(bytes + VERSION_BYTES, first, FIRST_HALF_BYTES);
    PyObject *name = PyBytes_FromStringAndSize(bytes, sizeof bytes);
    if (name == NULL)
        return NULL;
    PyObject *key = PyDict_GetItemWithError(openers->known, name);
    if (key == NULL && !PyErr_Occurred()) {
        PyObject *made = PyObject_CallFunction(openers->derive, "Iy#", read_number(version), first,
                                               (Py_ssize_t)FIRST_HALF_BYTES);
        if (made != NULL && PyDict_SetItem(openers->known, name, made) == 0)
            key = made;
        Py_XDECREF(made);
    }
    Py_DECREF(name);
    return key;
}

/* Find the derived key that opens a wrapped one; NULL: Python must. 0 with an exception. */
static int find_opener(struct openers *openers, struct slice version, struct slice wrapped,
                       const uint8_t **found)
{
    const char *first = wrapped.at + 1;
    *found = NULL;
    if (wrapped.len != WRAPPED_BYTES || wrapped.at[0] != FORMAT_WRAPPED)
        return 1;
    if (openers->first == NULL || memcmp(first, openers->first, FIRST_HALF_BYTES) != 0 ||
        memcmp(version.at, openers->version, VERSION_BYTES) != 0) {
        PyObject *key = derived_key(openers, version.at, first);
        if (key == NULL)
            return 0;
        if (key != Py_None && (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) != AEAD_KEY_BYTES))
            return refuse_rows();
        openers->version = version.at;
        openers->first = first;
        openers->last = key == Py_None ? NULL : (const uint8_t *)PyBytes_AS_STRING(key);
    }
    *found = openers->last;
    return 1;
}

const uint8_t **find_openers(PyObject *derive, const struct slice *versions,
                             const struct slice *wrapped, Py_ssize_t count, PyObject *known)
{
    struct openers openers = {.derive = derive, .known = known};
    const uint8_t **found = PyMem_Calloc((size_t)count + 1, sizeof *found);
    if (found == NULL)
        return (const uint8_t **)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++)
        if (!find_opener(&openers, versions[i], wrapped[i], &found[i])) {
            PyMem_Free(found);
            return NULL;
        }
    return found;
}

int check_wrappings(const struct wrappings *wrappings, Py_ssize_t count)
{
    const Py_ssize_t each = wrappings->each;
    if (each < 1 || PyTuple_GET_SIZE(wrappings->pairs) != count / each + (count % each != 0))
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(wrappings->pairs); i++) {
        PyObject *pair = PyTuple_GET_ITEM(wrappings->pairs, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
            return 0;
        PyObject *key = PyTuple_GET_ITEM(pair, 0), *first = PyTuple_GET_ITEM(pair, 1);
        if (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) != AEAD_KEY_BYTES ||
            !PyBytes_CheckExact(first) || PyBytes_GET_SIZE(first) != FIRST_HALF_BYTES)
            return 0;
    }
    return 1;
}

const uint8_t *use_wrapping(struct aead *aead, const struct wrappings *wrappings, Py_ssize_t number)
{
    PyObject *pair = PyTuple_GET_ITEM(wrappings->pairs, number / wrappings->each);
    if (!aead_use(aead, (const uint8_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(pair, 0))))
        return NULL;
    return (const uint8_t *)PyBytes_AS_STRING(PyTuple_GET_ITEM(pair, 1));
}

void bind_data_key(struct text *aad, struct part prefix, struct slice subject,
                   struct slice generation)
{
    char digits[12];
    int len = snprintf(digits, sizeof digits, "%lu", (unsigned long)read_number(generation.at));
    aad->len = 0;
    text_append(aad, (const char *)prefix.at, (size_t)prefix.len);
    text_append(aad, subject.at, subject.len);
    text_append_sized(aad, digits, (size_t)len);
}

int open_data_key(struct aead *aead, const struct text *aad, struct slice wrapped,
                  uint8_t key[AEAD_KEY_BYTES])
{
    const uint8_t *at = (const uint8_t *)wrapped.at;
    return aead_open(aead, at + 1 + FIRST_HALF_BYTES, (const uint8_t *)aad->at, aad->len,
                     at + WRAPPED_HEAD, AEAD_KEY_BYTES + AEAD_TAG_BYTES, key);
}

