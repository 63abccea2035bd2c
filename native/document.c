/* See document.h. The paths are a tree of nodes; the document is read along it, in one pass. */
#include "document.h"

#include <stdlib.h>
#include <string.h>

struct walk {
    const struct plan *plan;
    struct reader *in;
    struct elements *elements;
    struct work *work;
    int judges; /* a value of the wrong kind is noted, and reading goes on */
    int apart; /* in an array, and only some elements are read: what is in it is not counted */
};

static int read_node(struct walk *walk, const struct node *node, struct value *values, int depth);

static int is_wanted(const struct walk *walk, const struct node *node, const struct value *value)
{
    switch (node->kind) {
    case WANT_STRING:
        return value->is == STRING;
    case WANT_NUMBER:
        return value->is == NUMBER;
    case WANT_BOOLEAN:
        return value->is == TRUE || value->is == FALSE;
    case WANT_NUMBER_TEXT:
        return value->is == NUMBER || value->is == STRING;
    case WANT_BOOLEAN_TEXT:
        return value->is == TRUE || value->is == FALSE || value->is == STRING;
    case WANT_SCALAR:
        return value->is != CONTAINER;
    default:
        return value->is != CONTAINER || node->free || !walk->plan->forbid_unknown;
    }
}

/* A value of a scalar place, or one that goes to a column as it is. */
static int read_slot(struct walk *walk, const struct node *node, struct value *value, int depth)
{
    if (!json_value(walk->in, value, depth))
        return 0;
    if (is_wanted(walk, node, value))
        return 1;
    value->is = WRONG;
    return walk->judges;
}

/* A value that nobody asked for. */
static int skip(struct walk *walk, int may_have_names, int depth)
{
    struct value ignored;
    size_t before = walk->in->arena->len;
    int done = json_value(walk->in, &ignored, depth);
    walk->in->arena->len = before;
    return done && (ignored.is != CONTAINER || may_have_names);
}

/* Skip over the value of a name that no path has, and note it. */
static int skip_unknown(struct walk *walk, const struct node *node, const struct value *name,
                        size_t object, int depth)
{
    if (!node->free && walk->plan->forbid_unknown)
        return 0;
    json_space(walk->in);
    const char *from = walk->in->at;
    if (!skip(walk, 1, depth))
        return 0;
    if (node->free || walk->apart)
        return 1;
    int number = (int)(node - walk->plan->node);
    if (unknown_note(&walk->work->unknowns, object, number, name->at, name->len, *from))
        return 1;
    walk->work->failed = 1;
    return 0;
}

/* The child of a name; -1: none. It is looked for from `hint` on, since names keep their order. */
static int find_child(const struct plan *plan, const struct node *node, const struct value *name,
                      int hint)
{
    for (int tried = 0, i = hint; tried < node->count; tried++, i++) {
        if (i >= node->count)
            i = 0;
        const struct node *child = &plan->node[node->first + i];
        if (child->len == name->len && memcmp(child->name, name->at, name->len) == 0)
            return i;
    }
    return -1;
}

static int read_members(struct walk *walk, const struct node *node, struct value *values, int depth)
{
    uint64_t seen = 0;
    int hint = 0;
    size_t object = ++walk->work->unknowns.objects;
    if (json_take(walk->in, '}'))
        return 1;
    do {
        struct value name;
        json_space(walk->in);
        if (!json_string(walk->in, &name) || !json_take(walk->in, ':'))
            return 0;
        int child = find_child(walk->plan, node, &name, hint);
        if (child < 0) {
            if (!skip_unknown(walk, node, &name, object, depth))
                return 0;
            continue;
        }
        if (seen >> child & 1)
            return 0; /* a name that stands twice: the last one counts, and both are checked */
        seen |= UINT64_C(1) << child;
        hint = child + 1;
        if (!read_node(walk, &walk->plan->node[node->first + child], values, depth))
            return 0;
    } while (json_take(walk->in, ','));
    return json_take(walk->in, '}');
}

static int read_elements(struct walk *walk, const struct node *node, struct value *values, int depth)
{
    int child = 0; /* they are in the order of their indexes */
    if (json_take(walk->in, ']'))
        return 1;
    walk->apart++;
    for (int i = 0;; i++) {
        const struct node *next = &walk->plan->node[node->first + child];
        if (child < node->count && next->index == i) {
            child++;
            if (!read_node(walk, next, values, depth))
                return 0;
        } else if (!skip(walk, 1, depth)) {
            return 0;
        }
        if (!json_take(walk->in, ',')) {
            walk->apart--;
            return json_take(walk->in, ']');
        }
    }
}

/* Room for the values of one more element, all missing so far. */
static struct value *add_element(struct elements *elements, size_t slots)
{
    size_t row = slots ? slots : 1;
    struct value *values;
    if (elements->count == elements->size) {
        size_t size = elements->size ? 2 * elements->size : 16;
        if (elements->count > RECORDS_MAX || size * row * sizeof *values > ELEMENTS_BYTES_MAX)
            return NULL;
        struct value *grown = realloc(elements->at, size * row * sizeof *grown);
        if (grown == NULL)
            return NULL;
        elements->at = grown;
        elements->size = size;
    }
    values = &elements->at[elements->count++ * row];
    memset(values, 0, row * sizeof *values);
    return values;
}

static int read_exploded(struct walk *walk, int group, int depth)
{
    const struct group *about = &walk->plan->group[group];
    struct elements *elements = &walk->elements[group];
    elements->present = 1;
    if (json_take(walk->in, ']'))
        return 1;
    do {
        struct value *values = add_element(elements, (size_t)about->slots);
        if (values == NULL || !read_node(walk, &walk->plan->node[about->root], values, depth))
            return 0;
    } while (json_take(walk->in, ','));
    return json_take(walk->in, ']');
}

static int has_elements(const struct walk *walk, const struct node *node)
{
    return walk->plan->node[node->first].index >= 0;
}

static int read_inside(struct walk *walk, const struct node *node, struct value *values, int depth)
{
    char opened = *walk->in->at++;
    if (opened == '[' && node->group >= 0)
        return read_exploded(walk, node->group, depth);
    if (node->group >= 0)
        return 0;
    int is_array = has_elements(walk, node);
    if (opened == '{' && !is_array)
        return read_members(walk, node, values, depth);
    return opened == '[' && is_array && read_elements(walk, node, values, depth);
}

/* Note that no path through this node can be followed. */
static void mark_wrong(const struct walk *walk, const struct node *node, struct value *values)
{
    for (int i = 0; i < node->count; i++) {
        const struct node *child = &walk->plan->node[node->first + i];
        if (child->slot >= 0)
            values[child->slot].is = WRONG;
        mark_wrong(walk, child, values);
    }
}

/* Pass over a value that should have members or elements, and has none. */
static int pass_wrong(struct walk *walk, const struct node *node, struct value *values, int depth)
{
    mark_wrong(walk, node, values);
    return node->slot >= 0 ? json_value(walk->in, &values[node->slot], depth) : skip(walk, 1, depth);
}

/* The value at a place of the document: null is missing, another shape than wanted is Python's. */
static int read_node(struct walk *walk, const struct node *node, struct value *values, int depth)
{
    struct value *slot = node->slot >= 0 ? &values[node->slot] : NULL;
    json_space(walk->in);
    if (walk->in->at == walk->in->end)
        return 0;
    if (*walk->in->at == 'n') {
        if (slot)
            slot->is = NUL;
        return json_null(walk->in);
    }
    if (node->count == 0 && node->group < 0) {
        int may_have_names = node->free || !walk->plan->forbid_unknown;
        return slot ? read_slot(walk, node, slot, depth) : skip(walk, may_have_names, depth);
    }
    const char *from = walk->in->at;
    if (walk->judges && *from != (has_elements(walk, node) ? '[' : '{') &&
        (!slot || node->kind == WANT_ANY))
        return pass_wrong(walk, node, values, depth);
    if ((slot && node->kind != WANT_ANY) || depth >= DEPTH_MAX ||
        !read_inside(walk, node, values, depth + 1))
        return 0;
    if (slot) {
        slot->is = CONTAINER;
        slot->at = slot->raw = from;
        slot->len = slot->raw_len = (size_t)(walk->in->at - from);
    }
    return 1;
}

static int read_object(const struct plan *plan, struct reader *in, struct work *work, int depth,
                       int judges)
{
    struct walk walk = {plan, in, work->elements, work, judges, 0};
    json_space(in);
    if (in->at == in->end || *in->at != '{')
        return 0;
    memset(work->document, 0, (size_t)plan->slots * sizeof *work->document);
    for (int i = 0; i < plan->groups; i++) {
        work->elements[i].count = 0;
        work->elements[i].present = 0;
    }
    return read_node(&walk, &plan->node[0], work->document, depth);
}

int document_read(const struct plan *plan, struct reader *in, struct work *work, int depth)
{
    return read_object(plan, in, work, depth, 0);
}

int document_judge(const struct plan *plan, struct reader *in, struct work *work)
{
    return read_object(plan, in, work, 0, 1);
}
