/* Gives the sealed values of a batch new tokens. */
#ifndef SQS2PG_RENEW_H
#define SQS2PG_RENEW_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See _native.pyi. */
PyObject *renew_values(PyObject *module, PyObject *args);

#endif
