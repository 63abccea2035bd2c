/* Seals what a batch brings of new people: makes their data keys, and seals their ids and values. And
 * the bodies that go to the quarantine. */
#ifndef SQS2PG_SEAL_H
#define SQS2PG_SEAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See _native.pyi. */
PyObject *seal_new_people(PyObject *module, PyObject *args);
PyObject *seal_texts(PyObject *module, PyObject *args);

#endif
