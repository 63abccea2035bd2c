/* A mapping, compiled: from a message's body to the lines of its targets.
 *
 * Whatever it is not sure of it leaves to the Python code, the reference. So there is one meaning of a
 * mapping, and this is the quick way to its usual answers and, by judge.h, its usual faults. No Python
 * here. */
#ifndef SQS2PG_PLAN_H
#define SQS2PG_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "conversion.h"
#include "json.h"
#include "mask.h"
#include "text.h"
#include "unknown.h"

enum {
    NODES_MAX = 512,
    CHILDREN_MAX = 64,
    SLOTS_MAX = 128,
    GROUPS_MAX = 4,
    TARGETS_MAX = 8,
    COLUMNS_MAX = 128,
    WANTED_MAX = 32,
    LAYERS_MAX = 4,
    EVENT_PREFIX_MAX = 16,
    DROPS_MAX = 32,
    CHECKS_MAX = 128,
    FILTERS_MAX = 8,
    NAMES_MAX = 16,
    RECORDS_MAX = 100000, /* of one message; as in mapping/envelope/records.py */
    ELEMENTS_BYTES_MAX = 1 << 26 /* of one exploded array's values; with more Python takes it */
};

/* What a value must be in JSON. */
enum wanted_kind {
    WANT_STRING,
    WANT_NUMBER,
    WANT_BOOLEAN,
    WANT_ANY,
    WANT_NUMBER_TEXT, /* a number or a string */
    WANT_BOOLEAN_TEXT,
    WANT_SCALAR, /* anything that has nothing inside */
    WANT_COUNT
};

/* A place in the document: a member of an object, or an element of an array. */
struct node {
    const char *name; /* of a member */
    size_t len;
    int index;        /* of an element; -1: a member */
    int slot;         /* where its value goes, -1: nowhere */
    enum wanted_kind kind;
    int first, count; /* its children, which follow each other */
    int group;        /* the array that is exploded here, -1: none */
    int free;         /* names below it are known, whatever they are */
};

/* An array that is exploded: one record for each element. */
struct group {
    int root; /* the node of an element */
    int slots;
};

enum source {
    FROM_NOWHERE,
    FROM_DOCUMENT,
    FROM_ELEMENT,
    FROM_LAYER,
    FROM_CONDITION, /* whether the record deletes */
    SOURCE_COUNT
};

/* What a missing value becomes. */
enum missing {
    MISSING_IS_PYTHONS,
    MISSING_IS_CELL, /* NULL or a constant, as it stands in the line */
    MISSING_IS_DAY,  /* the cell is the day that the message was sent */
    MISSING_IS_SENT_DAY, /* these are values: they are converted and masked as if they were there */
    MISSING_IS_SENT_TIME,
    MISSING_IS_SENT_MS,
    MISSING_IS_MESSAGE_ID,
    MISSING_IS_RECORD_INDEX,
    MISSING_COUNT
};

enum type {
    TYPE_TEXT,
    TYPE_INTEGER,
    TYPE_NUMERIC,
    TYPE_DOUBLE,
    TYPE_BOOLEAN,
    TYPE_DATE,
    TYPE_TIMESTAMPTZ,
    TYPE_UUID,
    TYPE_INET,
    TYPE_JSONB,
    TYPE_VERSION,
    TYPE_MAJOR,
    TYPE_COUNT
};

struct column {
    enum source source;
    int slot;
    int required; /* missing or empty is a fault */
    enum type type;
    int64_t low, high; /* of an integer */
    enum missing missing;
    const char *cell;
    size_t cell_len;
    size_t length_max; /* characters; SIZE_MAX: any */
    struct conversion *conversion; /* NULL: the value is converted by its type alone */
    int recover; /* its values are among the originals */
    struct mask mask;
};

/* One value of a route's `when`. */
struct wanted {
    enum shape is;
    const char *at; /* a string, or a whole number in decimal */
    size_t len;
};

/* What a route's `when` asks of one field of the document. */
struct condition {
    int slot;
    int exists; /* -1: not asked */
    int wanted;
    struct wanted wanteds[WANTED_MAX];
};

enum mode { ALWAYS, CONDITIONAL, OTHERWISE, MODE_COUNT };

struct target {
    enum mode mode;
    int group; /* -1: one record for each document */
    struct condition when;
    struct condition deletes; /* of a target with a column from it */
    int columns;
    struct column *column;
};

/* A name of an envelope, and what it is for. */
enum name_use {
    USE_NONE,
    USE_TEXT,       /* a string that holds the message inside */
    USE_SLICE,      /* the message inside, as it stands */
    USE_TYPE,       /* must be "Notification" */
    USE_ATTRIBUTES, /* must not hide what the envelope itself says */
    USE_COUNT
};

struct layer_name {
    const char *name;
    size_t len;
    int required;
    enum name_use use;
    int slot; /* where its string goes, -1: nowhere */
};

struct layer {
    int names; /* 0: a body that may point to S3 */
    struct layer_name name[NAMES_MAX];
};

enum records { RECORDS_ONE, RECORDS_ARRAY, RECORDS_LINES, RECORDS_AUTO, RECORDS_COUNT };

/* A source in the order in which Python looks for faults of documents. */
struct check {
    int slot;
    int required; /* missing is a fault */
    int decoded;  /* a string's text is without its quotes, so it may be empty: a fault too */
};

/* What is wrong with a message that has no lines, where that is certain. */
enum verdict_is {
    VERDICT_NONE, /* Python must look */
    VERDICT_NOT_JSON,
    VERDICT_NOT_AN_OBJECT,
    VERDICT_WRONG_TYPE,
    VERDICT_MISSING,
    VERDICT_EMPTY,
    VERDICT_OF_COLUMN /* else all is right: Python converts and masks this value alone */
};

struct verdict {
    unsigned char is; /* enum verdict_is */
    unsigned char target;
    unsigned char present; /* of a column: whether it has a value */
    int place;        /* the number of the check, or of the target's column */
    size_t from, len; /* of the column's value in `suspects` */
};

struct plan {
    int forbid_unknown; /* a name that no path has is left to Python */
    int otherwise;      /* a target takes what no other one took */
    int drop_unmatched;
    enum records records;
    int nodes, slots, groups, targets, layers;
    int layer_slots; /* of what envelopes say, then of the message's own attributes */
    int attributes;
    int event; /* slot of the event's name in the document, -1: keys do not name events */
    int drops, drop[DROPS_MAX]; /* slots of what goes to no column and is counted */
    int subject; /* slot of the person's id in the document, -1: no originals are kept */
    int checks; /* -1: only whether a body is JSON, and an object, is judged */
    struct check check[CHECKS_MAX];
    int filters;
    struct condition filter[FILTERS_MAX]; /* of documents that go to no table */
    struct hmac_key event_key;
    const char *event_prefix; /* stands before the name */
    size_t event_prefix_len;
    struct node *node;
    struct group group[GROUPS_MAX];
    struct target target[TARGETS_MAX];
    struct layer layer[LAYERS_MAX];
};

/* What is known of a message besides its body. */
struct about {
    int64_t sent_ms;
    const char *id;
    size_t id_len;
    const struct value *attributes; /* as many as the plan's */
};

struct elements { /* the values of an exploded array, `slots` for each element */
    struct value *at;
    size_t count, size;
    int present;
};

/* The lines of a message and the room to work in, kept from one message to the next. */
struct work {
    struct text lines[TARGETS_MAX]; /* they are appended */
    size_t count[TARGETS_MAX];
    size_t dropped;
    struct text arena, originals; /* `originals`: of one record after another, see keep_original */
    struct value document[SLOTS_MAX], layer[NAMES_MAX];
    struct elements elements[GROUPS_MAX];
    struct unknowns unknowns;
    struct verdict verdict; /* of the last message */
    struct text suspects;
    const struct value *stuck; /* what the last message's line could not be written for: in `document` */
    int stuck_target, stuck_column; /* -1: it was not for a column's cell */
    size_t text_max; /* bytes of one message's lines for one target, else Python takes it; 0: any */
    int failed; /* no memory */
};

/* Append a message's lines, newlines included: 1; 0, with nothing appended, where it has a fault or is
 * left to Python: `verdict` says which. `body` is valid UTF-8. */
int plan_write(const struct plan *plan, const char *body, size_t len, const struct about *about,
               struct work *work);

/* Wipe and free what `work` holds. */
void work_forget(struct work *work);

#endif
