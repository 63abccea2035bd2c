/* Which values the vault is known to have: a bounded set of hashes.
 *
 * The hash of a value is the hash of its subject's reference under the hash of its field under the
 * hash of its token (server_hash.h): pii.stored returns the same of what is stored. */
#ifndef SQS2PG_KNOWN_H
#define SQS2PG_KNOWN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Of the type KnownValues. */
extern PyType_Spec known_spec;

/* See _native.pyi. */
PyObject *distinct_references(PyObject *module, PyObject *args);

#endif
