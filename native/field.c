/* See field.h. A look-up by name costs as much as the whole reading of a short value, and there are
 * five of them in a message. */
#include "field.h"

#include <structmember.h>

int field_prepare(struct field *field, const char *name)
{
    field->name = PyUnicode_InternFromString(name);
    return field->name == NULL ? -1 : 0;
}

PyObject *field_find(struct field *field, PyObject *of)
{
    PyObject *of_type = PyObject_GetAttr((PyObject *)Py_TYPE(of), field->name);
    if (of_type == NULL)
        PyErr_Clear(); /* the object may have it though its type does not */
    else if (Py_IS_TYPE(of_type, &PyMemberDescr_Type)) {
        const PyMemberDef *member = ((PyMemberDescrObject *)of_type)->d_member;
        if (member->type == T_OBJECT_EX && PyDescr_TYPE(of_type) == Py_TYPE(of)) {
            field->offset = member->offset;
            Py_XSETREF(field->type, (PyTypeObject *)Py_NewRef(Py_TYPE(of)));
        }
    }
    Py_XDECREF(of_type);
    return PyObject_GetAttr(of, field->name);
}
