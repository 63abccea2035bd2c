/* Members of documents that no path of the mapping names: which, where, and how many. */
#ifndef SQS2PG_UNKNOWN_H
#define SQS2PG_UNKNOWN_H

#include <stddef.h>
#include <stdint.h>

enum {
    UNKNOWN_MAX = 512,      /* different ones of a batch; as in mapping/unknown_members.py: */
    UNKNOWN_NAME_MAX = 100, /* bytes of a name */
    UNKNOWN_OF_UNIT_MAX = 256
};

extern const char UNKNOWN_SORTS[]; /* " text, # number, b boolean, n null, { object, [ array */
enum { UNKNOWN_SORTS_COUNT = 6 };

struct unknown {
    int node; /* of the object that it is in; -1: its name is left out, being too long */
    uint8_t len;
    char name[UNKNOWN_NAME_MAX];
    size_t count[UNKNOWN_SORTS_COUNT]; /* of those that are counted */
    size_t object, at; /* the last object that had it, and where in `seen` */
};

/* All zero at first. */
struct unknowns {
    struct unknown *at;
    int count, size;
    uint16_t place[2 * UNKNOWN_MAX]; /* by hash an index and 1; 0: free */
    uint16_t *seen; /* for each that was met, unit by unit: its index and sort */
    size_t seen_count, seen_size;
    size_t unit;    /* where those of the present unit begin */
    size_t objects; /* that were read so far */
};

/* Note a member that was met in an object, which has a number of its own; `from`: the first character
 * of its value. Of a name that stands twice in the object the last one counts. 0 where there is no
 * memory. Past the bounds the name is left out, or it is not noted. */
int unknown_note(struct unknowns *all, size_t object, int node, const char *name, size_t len,
                 char from);

/* Count those from `begin` to `end` of `seen`. */
void unknown_count(struct unknowns *all, size_t begin, size_t end);

/* Wipe and free: a name may be somebody's. */
void unknown_forget(struct unknowns *all);

#endif
