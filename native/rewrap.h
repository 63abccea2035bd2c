/* Wraps the data keys of a batch under another root's key. */
#ifndef SQS2PG_REWRAP_H
#define SQS2PG_REWRAP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See _native.pyi. */
PyObject *rewrap_keys(PyObject *module, PyObject *args);

#endif
