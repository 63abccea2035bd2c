/* What a field's settings make of a value before its type converts it, as `mapping/conversions.py`
 * does: the first of several sources, the edits of its text, and a map. */
#ifndef SQS2PG_CONVERSION_H
#define SQS2PG_CONVERSION_H

#include <stddef.h>

#include "json.h"
#include "text.h"

enum {
    OTHERS_MAX = 7,   /* sources besides the first */
    PAIRS_MAX = 4096, /* of a map */
    EDITED_MAX = 512  /* bytes of a text whose case changes; a longer one is left to Python */
};

enum edit { EDIT_TRIM = 1, EDIT_LOWER = 2, EDIT_UPPER = 4, EDIT_EMPTY_IS_NULL = 8, EDIT_ALL = 15 };

/* How a moment is written. */
enum form { FORM_OF_TYPE, FORM_EPOCH_S, FORM_EPOCH_MS, FORM_EPOCH_US, FORM_COUNT };

/* What a value becomes that is not in the map. */
enum unmapped { UNMAPPED_IS_PYTHONS, UNMAPPED_IS_KEPT, UNMAPPED_IS_NULL, UNMAPPED_IS_CELL,
                UNMAPPED_COUNT };

struct pair { /* pairs are in the order of their keys: the shorter first, then by bytes */
    const char *key, *cell; /* the cell as it stands in the line; NULL: left to Python */
    size_t len, cell_len;
};

struct place {
    int source, slot;
};

struct conversion {
    int edits; /* of enum edit */
    enum form form;
    int others, pairs;
    struct place other[OTHERS_MAX];
    struct pair *pair; /* NULL: there is no map */
    enum unmapped unmapped;
    const char *cell; /* of what is not in the map */
    size_t cell_len;
};

enum edited { EDITED_IS_PYTHONS, EDITED_IS_VALUE, EDITED_IS_MISSING, EDITED_IS_CELL };

/* Edit a value that is present: `value` then has what is to be converted, or `cell` what stands in
 * the line. `room` is where a text goes that changes. */
enum edited edit_value(const struct conversion *conversion, struct value *value,
                       char room[EDITED_MAX], struct pair *cell);

/* Whether a text is a number as JSON writes it. */
int is_json_number(const char *at, size_t len);

#endif
