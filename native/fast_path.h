/* The Python type `FastPath`: a compiled mapping, given batches of messages. */
#ifndef SQS2PG_FAST_PATH_H
#define SQS2PG_FAST_PATH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type to the module; -1 with an exception. Call it once the SHA-256 is chosen. */
int fast_path_prepare(PyObject *module);

#endif
