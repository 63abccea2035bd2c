/* sqs2pg._native: the module; its one class is in fast_path.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "convert.h"
#include "fast_path.h"
#include "sha256.h"

/* As `float` reads it and `repr` writes it. */
static size_t format_with_python(const char *number, size_t len, char *to, size_t size)
{
    char ended[80];
    if (len >= sizeof ended)
        return 0;
    memcpy(ended, number, len);
    ended[len] = '\0';
    double nearest = PyOS_string_to_double(ended, NULL, NULL);
    char *text = PyOS_double_to_string(nearest, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (PyErr_Occurred() || text == NULL) {
        PyErr_Clear();
        PyMem_Free(text);
        return 0;
    }
    size_t wrote = strlen(text);
    int zero = nearest == 0 && strpbrk(ended, "123456789") != NULL;
    if (zero || wrote > size || strpbrk(text, "in") != NULL) /* inf, nan */
        wrote = 0;
    else
        memcpy(to, text, wrote);
    PyMem_Free(text);
    return wrote;
}

/* The same, from a thread that may have let the interpreter go. */
static size_t format_as_python(const char *number, size_t len, char *to, size_t size)
{
    PyGILState_STATE state = PyGILState_Ensure();
    size_t wrote = format_with_python(number, len, to, size);
    PyGILState_Release(state);
    return wrote;
}

static int module_exec(PyObject *module)
{
    const char *chosen = sha256_choose();
    if (*chosen == '\0') {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give its known answer here");
        return -1;
    }
    convert_double_by = format_as_python;
    if (fast_path_prepare(module) < 0 || PyModule_AddIntConstant(module, "API", 16) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "SHA256", chosen);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sqs2pg._native",
    .m_doc = "The common case of decoding, masking and writing lines.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
