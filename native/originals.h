/* Originals: what the rows of a batch hide, on its way from fast_path.c to the vault.
 *
 * Of each record: the index of its unit, the person's id, then for each recoverable column its cell
 * (the token) and its cleartext. The index is a uint32, a text comes after its length, another one;
 * token and cleartext are empty where there is no original. */
#ifndef SQS2PG_ORIGINALS_H
#define SQS2PG_ORIGINALS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "text.h"

enum { REFERENCE_BYTES = 16 };

/* Raise ValueError; returns 0. */
static inline int originals_refuse(void)
{
    PyErr_SetString(PyExc_ValueError, "these are no originals");
    return 0;
}

struct slice {
    const char *at;
    uint32_t len;
};

/* Originals, the places of records in them, and the keys that original_keys made of these. */
struct originals {
    const char *at;
    Py_ssize_t len;
    const char *places, *references, *each;
    size_t records, keys;
    int columns;
};

/* One value of a record: what a key stands for. */
struct original {
    const uint8_t *reference;
    struct slice id, token, value;
    uint32_t column;
};

/* Read (originals, places, columns, references, each); 0 with an exception. They live as long as
 * the tuple. */
int originals_parse(struct originals *into, PyObject *given);

/* Find what a key stands for, by its number; 0 with an exception. */
int originals_entry(const struct originals *from, size_t number, struct original *into);

/* Return some texts as a tuple, and forget them; NULL with an exception. `made`: 0 where the caller has
 * set one. */
PyObject *tuple_of(struct text *texts, int count, int made);

/* See _native.pyi. */
PyObject *original_keys(PyObject *module, PyObject *args);
PyObject *original_values(PyObject *module, PyObject *args);
PyObject *value_hashes(PyObject *module, PyObject *args);

#endif
