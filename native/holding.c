/* See holding.h. */
#include "holding.h"

static PyObject *s_body, *s_message_id;

int holding_prepare(void)
{
    s_body = PyUnicode_InternFromString("body");
    s_message_id = PyUnicode_InternFromString("message_id");
    return s_body == NULL || s_message_id == NULL ? -1 : 0;
}

static int check(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted && PyDict_CheckExact(args[0]) && PyList_CheckExact(args[1]))
        return 0;
    PyErr_SetString(PyExc_TypeError, "a dict and a list of messages are wanted");
    return -1;
}

/* A new reference to the message's id, or NULL with an exception. */
static PyObject *id_of(PyObject *messages, Py_ssize_t at)
{
    PyObject *id = PyObject_GetAttr(PyList_GET_ITEM(messages, at), s_message_id);
    if (id != NULL && !PyUnicode_CheckExact(id)) {
        PyErr_SetString(PyExc_TypeError, "a message's id is a text");
        Py_CLEAR(id);
    }
    return id;
}

/* An upper bound of the body's bytes as UTF-8; -1 with an exception. */
static Py_ssize_t size_of(PyObject *messages, Py_ssize_t at)
{
    PyObject *body = PyObject_GetAttr(PyList_GET_ITEM(messages, at), s_body);
    if (body == NULL)
        return -1;
    Py_ssize_t size = -1;
    if (PyUnicode_CheckExact(body))
        size = PyUnicode_GET_LENGTH(body) * (PyUnicode_IS_ASCII(body) ? 1 : 4);
    else
        PyErr_SetString(PyExc_TypeError, "a message's body is a text");
    Py_DECREF(body);
    return size;
}

/* Remove the first `count` ids again; -1 with an exception. */
static int undo(PyObject *held, PyObject *messages, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *id = id_of(messages, i);
        int failed = id == NULL || PyDict_DelItem(held, id) < 0;
        Py_XDECREF(id);
        if (failed)
            return -1;
    }
    return 0;
}

/* hold_messages(held, messages, lease): see _native.pyi. */
PyObject *hold_messages(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (check(args, count, 3) < 0)
        return NULL;
    PyObject *held = args[0], *messages = args[1];
    Py_ssize_t total = 0, largest = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(messages); i++) {
        Py_ssize_t size = size_of(messages, i);
        if (size < 0)
            return NULL;
        total += size;
        largest = size > largest ? size : largest;
    }
    int all = 1;
    for (Py_ssize_t i = 0; all && i < PyList_GET_SIZE(messages); i++) {
        PyObject *id = id_of(messages, i);
        if (id == NULL)
            return NULL;
        Py_ssize_t before = PyDict_GET_SIZE(held);
        PyObject *lease = PyDict_SetDefault(held, id, args[2]);
        Py_DECREF(id);
        if (lease == NULL)
            return NULL;
        all = PyDict_GET_SIZE(held) > before;
        if (!all && undo(held, messages, i) < 0)
            return NULL;
    }
    return Py_BuildValue("Onn", all ? Py_True : Py_False, total, largest);
}

/* release_messages(held, messages): see _native.pyi. */
PyObject *release_messages(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (check(args, count, 2) < 0)
        return NULL;
    PyObject *held = args[0], *messages = args[1], *lease = NULL, *runs = PyList_New(0);
    Py_ssize_t run = 0, size = PyList_GET_SIZE(messages);
    for (Py_ssize_t i = 0; runs != NULL && i <= size; i++) {
        PyObject *id = NULL, *next = NULL;
        if (i < size) {
            id = id_of(messages, i);
            next = id == NULL ? NULL : PyDict_GetItemWithError(held, id);
            Py_XINCREF(next);
            if (PyErr_Occurred() || (next != NULL && PyDict_DelItem(held, id) < 0))
                Py_CLEAR(runs);
            Py_XDECREF(id);
            if (runs != NULL && next == NULL)
                continue; /* not held */
        }
        if (runs != NULL && next != lease && run > 0) {
            PyObject *pair = Py_BuildValue("On", lease, run);
            if (pair == NULL || PyList_Append(runs, pair) < 0)
                Py_CLEAR(runs);
            Py_XDECREF(pair);
            run = 0;
        }
        Py_XSETREF(lease, next);
        run++;
    }
    Py_XDECREF(lease);
    return runs;
}
