/* Originals: what the rows of a batch hide, on its way from fast_path.c to the vault.
 *
 * Of each record: the index of its unit, the person's id, then for each recoverable column its cell
 * (the token) and its cleartext. The index is a uint32, a text comes after its length, another one;
 * token and cleartext are empty where there is no original. */
#ifndef SQS2PG_ORIGINALS_H
#define SQS2PG_ORIGINALS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See _native.pyi. */
PyObject *original_marks(PyObject *module, PyObject *args);
PyObject *original_keys(PyObject *module, PyObject *args);
PyObject *original_values(PyObject *module, PyObject *args);

#endif
