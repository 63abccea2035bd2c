/* See envelope.h. */
#include "envelope.h"

#include <string.h>

/* The name's place; -1: it has none. */
static int find_name(const struct layer *layer, const struct value *name)
{
    for (int i = 0; i < layer->names; i++)
        if (layer->name[i].len == name->len &&
            memcmp(layer->name[i].name, name->at, name->len) == 0)
            return i;
    return -1;
}

/* Attributes that a publisher sets go by the same names as what the envelope says: where one could,
 * Python looks. */
static int may_hide(const struct value *attributes)
{
    return text_contains(attributes->raw, attributes->raw_len, "\"sns.") ||
           text_contains(attributes->raw, attributes->raw_len, "\"eventbridge.") ||
           text_contains(attributes->raw, attributes->raw_len, "\\");
}

static int use_value(const struct layer_name *name, const struct value *value, struct reader *inside,
                     struct value *slots)
{
    if (name->slot >= 0 && value->is == STRING)
        slots[name->slot] = *value;
    switch (name->use) {
    case USE_TEXT:
        inside->at = value->at;
        inside->end = value->at + value->len;
        return value->is == STRING;
    case USE_SLICE:
        inside->at = value->raw;
        inside->end = value->raw + value->raw_len;
        return 1;
    case USE_TYPE:
        return value->is == STRING && value->len == 12 && memcmp(value->at, "Notification", 12) == 0;
    case USE_ATTRIBUTES:
        return !may_hide(value);
    default:
        return 1;
    }
}

static int open_layer(const struct layer *layer, struct reader *in, struct value *slots)
{
    struct reader inside = {NULL, NULL, in->arena, 0};
    unsigned seen = 0;
    if (!json_take(in, '{'))
        return 0;
    do {
        struct value name, value;
        json_space(in);
        if (!json_string(in, &name) || !json_take(in, ':') || !json_value(in, &value, 1))
            return 0;
        int place = find_name(layer, &name);
        if (place < 0)
            continue;
        if (seen >> place & 1 || !use_value(&layer->name[place], &value, &inside, slots))
            return 0;
        seen |= 1u << place;
    } while (json_take(in, ','));
    if (!json_take(in, '}') || !json_ended(in) || inside.at == NULL)
        return 0;
    for (int i = 0; i < layer->names; i++)
        if (layer->name[i].required && !(seen >> i & 1))
            return 0;
    *in = inside;
    return 1;
}

int open_layers(const struct plan *plan, struct reader *in, struct value *slots)
{
    for (int i = 0; i < plan->layers; i++) {
        const struct layer *layer = &plan->layer[i];
        if (layer->names == 0) {
            if (text_contains(in->at, (size_t)(in->end - in->at), "s3BucketName"))
                return 0;
        } else if (!open_layer(layer, in, slots)) {
            return 0;
        }
    }
    return 1;
}
