/* See compile.h. Every number is checked, so that no plan can lead outside of its arrays. */
#include "compile.h"

static int refuse(void)
{
    PyErr_SetString(PyExc_ValueError, "a mapping outside the bounds of plan.h");
    return -1;
}

static int is_within(Py_ssize_t number, Py_ssize_t least, Py_ssize_t bound)
{
    return number >= least && number < bound;
}

typedef int add_one(struct plan *plan, PyObject *given, void *to);

/* Add each item of a tuple of tuples, at most `most`. */
static int add_all(struct plan *plan, PyObject *given, Py_ssize_t most, add_one *add, void *to)
{
    if (PyTuple_GET_SIZE(given) > most)
        return refuse();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(given); i++) {
        PyObject *item = PyTuple_GET_ITEM(given, i);
        if (!PyTuple_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "a mapping is made of tuples");
            return -1;
        }
        if (add(plan, item, to) < 0)
            return -1;
    }
    return 0;
}

static int add_node(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    struct node *node = &plan->node[plan->nodes];
    Py_ssize_t len;
    int kind;
    if (!PyArg_ParseTuple(given, "y#iiiiiip", &node->name, &len, &node->index, &node->slot, &kind,
                          &node->first, &node->count, &node->group, &node->free))
        return -1;
    /* Children come after their parent: so the tree has no circle. */
    if (node->index < -1 || node->slot < -1 || !is_within(kind, 0, WANT_COUNT) ||
        !is_within(node->count, 0, CHILDREN_MAX + 1) || !is_within(node->group, -1, plan->groups) ||
        (node->count > 0 && (node->first <= plan->nodes || node->group >= 0)))
        return refuse();
    node->len = (size_t)len;
    node->kind = (enum wanted_kind)kind;
    plan->nodes++;
    return 0;
}

static int add_group(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    struct group *group = &plan->group[plan->groups];
    if (!PyArg_ParseTuple(given, "ii", &group->root, &group->slots))
        return -1;
    if (!is_within(group->root, 1, NODES_MAX) || !is_within(group->slots, 0, SLOTS_MAX + 1))
        return refuse();
    plan->groups++;
    return 0;
}

static int add_name(struct plan *plan, PyObject *given, void *to)
{
    struct layer *layer = to;
    struct layer_name *name = &layer->name[layer->names];
    Py_ssize_t len;
    int use;
    if (!PyArg_ParseTuple(given, "y#pii", &name->name, &len, &name->required, &use, &name->slot))
        return -1;
    if (!is_within(use, 0, USE_COUNT) ||
        !is_within(name->slot, -1, plan->layer_slots - plan->attributes))
        return refuse();
    name->len = (size_t)len;
    name->use = (enum name_use)use;
    layer->names++;
    return 0;
}

static int add_layer(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    return add_all(plan, given, NAMES_MAX, add_name, &plan->layer[plan->layers++]);
}

static int add_wanted(struct plan *Py_UNUSED(plan), PyObject *given, void *to)
{
    struct condition *when = to;
    struct wanted *wanted = &when->wanteds[when->wanted];
    Py_ssize_t len;
    int is;
    if (!PyArg_ParseTuple(given, "iy#", &is, &wanted->at, &len))
        return -1;
    if (!is_within(is, STRING, CONTAINER))
        return refuse();
    wanted->is = (enum shape)is;
    wanted->len = (size_t)len;
    when->wanted++;
    return 0;
}

static int add_filter(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    struct condition *when = &plan->filter[plan->filters++];
    PyObject *wanted;
    if (!PyArg_ParseTuple(given, "iiO!", &when->slot, &when->exists, &PyTuple_Type, &wanted))
        return -1;
    if (!is_within(when->slot, 0, plan->slots))
        return refuse();
    return add_all(plan, wanted, WANTED_MAX, add_wanted, when);
}

static int slots_of(const struct plan *plan, const struct target *target, enum source source)
{
    switch (source) {
    case FROM_DOCUMENT:
        return plan->slots;
    case FROM_ELEMENT:
        return target->group < 0 ? 0 : plan->group[target->group].slots;
    case FROM_LAYER:
        return plan->layer_slots;
    case FROM_CONDITION:
        return target->deletes.slot < plan->slots;
    default:
        return 1; /* nowhere */
    }
}

static int add_other(struct plan *plan, PyObject *given, void *to)
{
    struct target *target = &plan->target[plan->targets - 1];
    struct conversion *conversion = to;
    struct place *place = &conversion->other[conversion->others];
    if (!PyArg_ParseTuple(given, "ii", &place->source, &place->slot))
        return -1;
    if ((place->source != FROM_DOCUMENT && place->source != FROM_ELEMENT) ||
        !is_within(place->slot, 0, slots_of(plan, target, (enum source)place->source)))
        return refuse();
    conversion->others++;
    return 0;
}

static int add_pair(struct plan *Py_UNUSED(plan), PyObject *given, void *to)
{
    struct conversion *conversion = to;
    struct pair *pair = &conversion->pair[conversion->pairs];
    Py_ssize_t len, cell_len;
    if (!PyArg_ParseTuple(given, "y#z#", &pair->key, &len, &pair->cell, &cell_len))
        return -1;
    pair->len = (size_t)len;
    pair->cell_len = (size_t)cell_len;
    conversion->pairs++;
    return 0;
}

/* What is done with a column's value before its type converts it; an empty tuple: nothing. */
static int add_conversion(struct plan *plan, PyObject *given, struct column *column)
{
    PyObject *others, *pairs;
    int edits, form, has_map, unmapped;
    Py_ssize_t cell_len;
    if (PyTuple_GET_SIZE(given) == 0)
        return 0;
    struct conversion *conversion = PyMem_Calloc(1, sizeof *conversion);
    column->conversion = conversion;
    if (conversion == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (!PyArg_ParseTuple(given, "iiO!pO!iy#", &edits, &form, &PyTuple_Type, &others, &has_map,
                          &PyTuple_Type, &pairs, &unmapped, &conversion->cell, &cell_len))
        return -1;
    if (!is_within(edits, 0, EDIT_ALL + 1) || !is_within(form, 0, FORM_COUNT) ||
        !is_within(unmapped, 0, UNMAPPED_COUNT))
        return refuse();
    conversion->edits = edits;
    conversion->form = (enum form)form;
    conversion->unmapped = (enum unmapped)unmapped;
    conversion->cell_len = (size_t)cell_len;
    if (has_map) {
        conversion->pair = PyMem_Calloc((size_t)PyTuple_GET_SIZE(pairs) + 1, sizeof *conversion->pair);
        if (conversion->pair == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (add_all(plan, pairs, PAIRS_MAX, add_pair, conversion) < 0)
            return -1;
    }
    return add_all(plan, others, OTHERS_MAX, add_other, conversion);
}

static int add_column(struct plan *plan, PyObject *given, void *to)
{
    struct target *target = to;
    struct column *column = &target->column[target->columns];
    struct mask *mask = &column->mask;
    int source, type, missing, operator, kind;
    long long low, high;
    const char *prefix, *key;
    PyObject *conversion;
    Py_ssize_t cell_len, length_max, prefix_len, key_len;
    if (!PyArg_ParseTuple(given, "iipiLLiy#niiy#y#O!", &source, &column->slot, &column->required,
                          &type, &low, &high, &missing, &column->cell, &cell_len, &length_max,
                          &operator, &kind, &prefix, &prefix_len, &key, &key_len,
                          &PyTuple_Type, &conversion))
        return -1;
    if (!is_within(source, 0, SOURCE_COUNT) || !is_within(type, 0, TYPE_COUNT) ||
        !is_within(missing, 0, MISSING_COUNT) || !is_within(operator, 0, MASK_COUNT) ||
        !is_within(kind, 0, KIND_COUNT) || prefix_len > PREFIX_MAX || key_len > SHA256_BLOCK ||
        !is_within(column->slot, 0, slots_of(plan, target, (enum source)source)))
        return refuse();
    column->source = (enum source)source;
    column->type = (enum type)type;
    column->low = low;
    column->high = high;
    column->missing = (enum missing)missing;
    column->cell_len = (size_t)cell_len;
    column->length_max = length_max < 0 ? SIZE_MAX : (size_t)length_max;
    mask->operator = (enum operator)operator;
    mask->kind = (enum kind)kind;
    memcpy(mask->prefix, prefix, (size_t)prefix_len);
    mask->prefix_len = (size_t)prefix_len;
    hmac_key_set(&mask->key, (const uint8_t *)key, (size_t)key_len);
    target->columns++; /* what is made of it so far is freed with the plan */
    return add_conversion(plan, conversion, column);
}

static int add_target(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    struct target *target = &plan->target[plan->targets];
    PyObject *wanted, *deleting, *columns;
    int mode;
    struct condition *when = &target->when, *deletes = &target->deletes;
    if (!PyArg_ParseTuple(given, "iiiiO!iiO!O!", &mode, &target->group, &when->slot, &when->exists,
                          &PyTuple_Type, &wanted, &deletes->slot, &deletes->exists, &PyTuple_Type,
                          &deleting, &PyTuple_Type, &columns))
        return -1;
    if (!is_within(mode, 0, MODE_COUNT) || !is_within(target->group, -1, plan->groups) ||
        !is_within(deletes->slot, 0, plan->slots + 1) ||
        !is_within(when->slot, 0, mode == CONDITIONAL ? plan->slots : 1) ||
        !is_within(PyTuple_GET_SIZE(columns), 1, COLUMNS_MAX + 1))
        return refuse();
    target->mode = (enum mode)mode;
    target->column = PyMem_Calloc((size_t)PyTuple_GET_SIZE(columns), sizeof *target->column);
    plan->targets++;
    if (target->column == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    plan->otherwise |= mode == OTHERWISE;
    if (add_all(plan, wanted, WANTED_MAX, add_wanted, when) < 0 ||
        add_all(plan, deleting, WANTED_MAX, add_wanted, deletes) < 0)
        return -1;
    return add_all(plan, columns, COLUMNS_MAX, add_column, target);
}

/* Each node has one parent or is a root, and its slot is among the values of its document or element.
 * Children are of one sort. No array is exploded inside of one that is. */
static int check_tree(const struct plan *plan)
{
    int slots[NODES_MAX] = {0}, inside[NODES_MAX] = {0}, has_place[NODES_MAX] = {1};
    slots[0] = plan->slots;
    for (int i = 0; i < plan->groups; i++) {
        int root = plan->group[i].root;
        if (root >= plan->nodes || has_place[root])
            return refuse();
        slots[root] = plan->group[i].slots;
        inside[root] = has_place[root] = 1;
    }
    for (int i = 0; i < plan->nodes; i++) {
        const struct node *node = &plan->node[i];
        if (node->slot >= slots[i] || (inside[i] && node->group >= 0) ||
            (node->count > 0 && node->first > plan->nodes - node->count))
            return refuse();
        for (int child = node->first; child < node->first + node->count; child++) {
            if (has_place[child] ||
                (plan->node[child].index < 0) != (plan->node[node->first].index < 0))
                return refuse();
            slots[child] = slots[i];
            inside[child] = inside[i];
            has_place[child] = 1;
        }
    }
    return 0;
}

static int add_event(struct plan *plan, PyObject *given)
{
    const char *key;
    Py_ssize_t key_len, prefix_len;
    plan->event = -1;
    if (PyTuple_GET_SIZE(given) == 0)
        return 0;
    if (!PyArg_ParseTuple(given, "iy#y#", &plan->event, &key, &key_len, &plan->event_prefix,
                          &prefix_len))
        return -1;
    if (!is_within(plan->event, 0, plan->slots) || key_len > SHA256_BLOCK ||
        prefix_len > EVENT_PREFIX_MAX || plan->records != RECORDS_ONE)
        return refuse();
    plan->event_prefix_len = (size_t)prefix_len;
    hmac_key_set(&plan->event_key, (const uint8_t *)key, (size_t)key_len);
    return 0;
}

static int add_drops(struct plan *plan, PyObject *given)
{
    plan->drops = (int)PyTuple_GET_SIZE(given);
    if (!is_within(plan->drops, 0, DROPS_MAX + 1) ||
        (plan->drops > 0 && plan->records != RECORDS_ONE))
        return refuse();
    for (int i = 0; i < plan->drops; i++) {
        long slot = PyLong_AsLong(PyTuple_GET_ITEM(given, i));
        if (slot == -1 && PyErr_Occurred())
            return -1;
        if (!is_within(slot, 0, plan->slots))
            return refuse();
        plan->drop[i] = (int)slot;
    }
    return 0;
}

static int add_check(struct plan *plan, PyObject *given, void *Py_UNUSED(to))
{
    struct check *check = &plan->check[plan->checks];
    if (!PyArg_ParseTuple(given, "ipp", &check->slot, &check->required, &check->decoded))
        return -1;
    if (!is_within(check->slot, 0, plan->slots))
        return refuse();
    plan->checks++;
    return 0;
}

/* In which order faults of documents are looked for; None: they are Python's. */
static int add_checks(struct plan *plan, PyObject *given)
{
    plan->checks = -1;
    if (given == Py_None)
        return 0;
    if (!PyTuple_Check(given) || plan->forbid_unknown || plan->groups > 0)
        return refuse();
    plan->checks = 0;
    return add_all(plan, given, CHECKS_MAX, add_check, NULL);
}

static int add_recovery(struct plan *plan, PyObject *given)
{
    const struct target *target = &plan->target[0];
    PyObject *columns;
    plan->subject = -1;
    if (PyTuple_GET_SIZE(given) == 0)
        return 0;
    if (!PyArg_ParseTuple(given, "iO!", &plan->subject, &PyTuple_Type, &columns))
        return -1;
    if (!is_within(plan->subject, 0, plan->slots) || plan->records != RECORDS_ONE ||
        plan->targets != 1 || target->mode != ALWAYS || target->group >= 0)
        return refuse();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(columns); i++) {
        long column = PyLong_AsLong(PyTuple_GET_ITEM(columns, i));
        if (column == -1 && PyErr_Occurred())
            return -1;
        if (!is_within(column, 0, target->columns))
            return refuse();
        target->column[column].recover = 1;
    }
    return 0;
}

int plan_compile(struct plan *plan, PyObject *args)
{
    PyObject *nodes, *groups, *targets, *layers, *attributes, *event, *drops, *filters,
             *recovery, *checks;
    int records;
    if (!PyArg_ParseTuple(args, "O!O!O!O!ppiiiO!O!O!O!O!O", &PyTuple_Type, &nodes, &PyTuple_Type, &groups,
                          &PyTuple_Type, &targets, &PyTuple_Type, &layers, &plan->forbid_unknown,
                          &plan->drop_unmatched, &records, &plan->slots, &plan->layer_slots,
                          &PyTuple_Type, &attributes, &PyTuple_Type, &event, &PyTuple_Type,
                          &drops, &PyTuple_Type, &filters, &PyTuple_Type, &recovery, &checks))
        return -1;
    if (!is_within(records, 0, RECORDS_COUNT) || !is_within(plan->slots, 0, SLOTS_MAX + 1) ||
        !is_within(plan->layer_slots, 0, NAMES_MAX + 1) ||
        !is_within(PyTuple_GET_SIZE(attributes), 0, plan->layer_slots + 1) ||
        !is_within(PyTuple_GET_SIZE(nodes), 1, NODES_MAX + 1) ||
        !is_within(PyTuple_GET_SIZE(targets), 1, TARGETS_MAX + 1))
        return refuse();
    plan->records = (enum records)records;
    plan->attributes = (int)PyTuple_GET_SIZE(attributes);
    if (add_event(plan, event) < 0 || add_drops(plan, drops) < 0)
        return -1;
    plan->node = PyMem_Calloc((size_t)PyTuple_GET_SIZE(nodes), sizeof *plan->node);
    if (plan->node == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (add_all(plan, groups, GROUPS_MAX, add_group, NULL) < 0 ||
        add_all(plan, nodes, NODES_MAX, add_node, NULL) < 0 || check_tree(plan) < 0 ||
        add_all(plan, layers, LAYERS_MAX, add_layer, NULL) < 0 ||
        add_all(plan, filters, FILTERS_MAX, add_filter, NULL) < 0 || add_checks(plan, checks) < 0)
        return -1;
    if (add_all(plan, targets, TARGETS_MAX, add_target, NULL) < 0)
        return -1;
    return add_recovery(plan, recovery);
}

void plan_clear(struct plan *plan)
{
    for (int i = 0; i < plan->targets; i++) {
        struct target *target = &plan->target[i];
        for (int c = 0; target->column != NULL && c < target->columns; c++) {
            if (target->column[c].conversion != NULL)
                PyMem_Free(target->column[c].conversion->pair);
            PyMem_Free(target->column[c].conversion);
        }
        if (target->column != NULL)
            wipe(target->column, (size_t)target->columns * sizeof *target->column);
        PyMem_Free(target->column);
    }
    PyMem_Free(plan->node);
    wipe(&plan->event_key, sizeof plan->event_key);
}
