/* See conversion.h. */
#include "conversion.h"

#include <string.h>

/* What Python's `str.strip` takes off a text of ASCII. */
static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static void trim(struct value *value)
{
    while (value->len > 0 && is_space(value->at[0])) {
        value->at++;
        value->len--;
    }
    while (value->len > 0 && is_space(value->at[value->len - 1]))
        value->len--;
}

/* Change the case of a text of ASCII; 0 where there is no room for it. */
static int change_case(struct value *value, int to_upper, char room[EDITED_MAX])
{
    char first = to_upper ? 'a' : 'A', last = to_upper ? 'z' : 'Z';
    size_t i = 0;
    while (i < value->len && !(value->at[i] >= first && value->at[i] <= last))
        i++;
    if (i == value->len)
        return 1;
    if (value->len > EDITED_MAX)
        return 0;
    for (i = 0; i < value->len; i++) {
        char c = value->at[i];
        room[i] = (char)(c >= first && c <= last ? c ^ 0x20 : c);
    }
    value->at = room;
    return 1;
}

static const struct pair *find_pair(const struct conversion *conversion, const struct value *value)
{
    int low = 0, high = conversion->pairs;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const struct pair *pair = &conversion->pair[middle];
        int order = value->len != pair->len ? (value->len > pair->len ? 1 : -1)
                    : value->len            ? memcmp(value->at, pair->key, value->len)
                                            : 0;
        if (order == 0)
            return pair;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static enum edited map_value(const struct conversion *conversion, const struct value *value,
                             struct pair *cell)
{
    const struct pair *found = find_pair(conversion, value);
    if (found != NULL) {
        *cell = *found;
        return found->cell == NULL ? EDITED_IS_PYTHONS : EDITED_IS_CELL;
    }
    switch (conversion->unmapped) {
    case UNMAPPED_IS_KEPT:
        return EDITED_IS_VALUE;
    case UNMAPPED_IS_NULL:
        return EDITED_IS_MISSING;
    case UNMAPPED_IS_CELL:
        cell->cell = conversion->cell;
        cell->cell_len = conversion->cell_len;
        return EDITED_IS_CELL;
    default:
        return EDITED_IS_PYTHONS;
    }
}

enum edited edit_value(const struct conversion *conversion, struct value *value,
                       char room[EDITED_MAX], struct pair *cell)
{
    int edits = conversion->edits;
    if (edits & (EDIT_TRIM | EDIT_LOWER | EDIT_UPPER)) {
        if (value->is == STRING && !value->ascii)
            return EDITED_IS_PYTHONS; /* it knows all spaces and cases of Unicode */
        if (edits & EDIT_TRIM)
            trim(value);
        if (edits & (EDIT_LOWER | EDIT_UPPER) && !change_case(value, edits & EDIT_UPPER, room))
            return EDITED_IS_PYTHONS;
    }
    if (edits & EDIT_EMPTY_IS_NULL && value->len == 0)
        return EDITED_IS_MISSING;
    return conversion->pair == NULL ? EDITED_IS_VALUE : map_value(conversion, value, cell);
}

static size_t pass_digits(const char *at, size_t len)
{
    size_t count = 0;
    while (count < len && at[count] >= '0' && at[count] <= '9')
        count++;
    return count;
}

int is_json_number(const char *at, size_t len)
{
    const char *end = at + len;
    size_t count;
    if (at < end && *at == '-')
        at++;
    count = pass_digits(at, (size_t)(end - at));
    if (count == 0 || (count > 1 && *at == '0'))
        return 0;
    at += count;
    if (at < end && *at == '.') {
        at++;
        count = pass_digits(at, (size_t)(end - at));
        if (count == 0)
            return 0;
        at += count;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        count = pass_digits(at, (size_t)(end - at));
        if (count == 0)
            return 0;
        at += count;
    }
    return at == end;
}
