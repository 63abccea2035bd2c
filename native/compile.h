/* A plan from what `mapping/fast_path.py` gives: tuples of numbers and bytes. */
#ifndef SQS2PG_COMPILE_H
#define SQS2PG_COMPILE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "plan.h"

/* Fill an empty plan; -1 with ValueError or TypeError where it would be outside of plan.h's bounds.
 * The plan points into the tuples. */
int plan_compile(struct plan *plan, PyObject *args);

/* Free what it allocated, and wipe its keys. */
void plan_clear(struct plan *plan);

#endif
