/* The Python type `FastPath`: a compiled mapping, given batches of messages. */
#ifndef SQS2PG_FAST_PATH_H
#define SQS2PG_FAST_PATH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Of the type. */
extern PyType_Spec fast_path_spec;

/* Make what the type needs; -1 with an exception. Call it once the SHA-256 is chosen. */
int fast_path_prepare(void);

#endif
