/* The messages that are held: a dict of MessageId -> lease. See _native.pyi. */
#ifndef SQS2PG_HOLDING_H
#define SQS2PG_HOLDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *hold_messages(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *release_messages(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* Create the attribute names that both need; -1 with an exception. */
int holding_prepare(void);

#endif
