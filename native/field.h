/* A field of Python objects that are nearly always of one type. */
#ifndef SQS2PG_FIELD_H
#define SQS2PG_FIELD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct field {
    PyObject *name;
    PyTypeObject *type; /* of the last object that keeps the field in a slot; or NULL */
    Py_ssize_t offset;  /* of the slot in such an object */
};

/* Name a field: 0, or -1 with an exception. */
int field_prepare(struct field *field, const char *name);

/* Look a field up as Python does, and remember where its type keeps it. A new reference, or NULL. */
PyObject *field_find(struct field *field, PyObject *of);

/* The value of a field; a new reference, or NULL with an exception. */
static inline PyObject *field_of(struct field *field, PyObject *of)
{
    if (Py_IS_TYPE(of, field->type)) {
        PyObject *value = *(PyObject **)((char *)of + field->offset);
        if (value != NULL)
            return Py_NewRef(value);
    }
    return field_find(field, of);
}

#endif
