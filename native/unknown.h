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

struct unknown {
    int node;    /* of the object that it is in */
    char is;     /* " text, # number, b boolean, n null, { object, [ array */
    uint8_t len; /* 0: its name is left out, being empty or too long */
    char name[UNKNOWN_NAME_MAX];
    size_t count; /* of those that are counted */
};

/* All zero at first. */
struct unknowns {
    struct unknown *at;
    int count, size;
    uint16_t place[2 * UNKNOWN_MAX]; /* by hash an index and 1; 0: free */
    uint16_t *seen;                  /* the index of each that was met, unit by unit */
    size_t seen_count, seen_size;
    size_t unit; /* where those of the present unit begin */
};

/* Note a member that was met; `from`: the first character of its value. 0 where there is no memory.
 * Past the bounds its name is left out, or it is not noted. */
int unknown_note(struct unknowns *all, int node, const char *name, size_t len, char from);

/* Count those from `begin` to `end` of `seen`. */
void unknown_count(struct unknowns *all, size_t begin, size_t end);

/* Wipe and free: a name may be somebody's. */
void unknown_forget(struct unknowns *all);

#endif
