/* See unknown.h. */
#include "unknown.h"

#include <stdlib.h>
#include <string.h>

#include "sha256.h"

const char UNKNOWN_SORTS[] = "\"#bn{[";

static int sort_of(char from)
{
    switch (from) {
    case '"':
        return 0;
    case 't':
    case 'f':
        return 2;
    case 'n':
        return 3;
    case '{':
        return 4;
    case '[':
        return 5;
    default:
        return 1;
    }
}

static uint32_t hash_of(int node, const char *name, size_t len)
{
    uint32_t hash = 2166136261u ^ (uint32_t)node * 31u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    return hash ^ hash >> 15;
}

static int grow(struct unknowns *all)
{
    int size = all->size ? 2 * all->size : 16;
    struct unknown *grown = malloc((size_t)size * sizeof *grown); /* realloc would leave names */
    if (grown == NULL)
        return 0;
    if (all->count)
        memcpy(grown, all->at, (size_t)all->count * sizeof *grown);
    if (all->size)
        wipe(all->at, (size_t)all->size * sizeof *all->at);
    free(all->at);
    all->at = grown;
    all->size = size;
    return 1;
}

/* The index of one; -1 where there is no memory. */
static int find(struct unknowns *all, int node, const char *name, size_t len)
{
    uint32_t place = hash_of(node, name, len);
    for (;; place++) {
        uint16_t *found = &all->place[place % (2 * UNKNOWN_MAX)];
        if (*found == 0) {
            if (all->count == all->size && !grow(all))
                return -1;
            struct unknown *new = &all->at[all->count];
            *new = (struct unknown){.node = node, .len = (uint8_t)len};
            if (len)
                memcpy(new->name, name, len);
            *found = (uint16_t)++all->count;
            return all->count - 1;
        }
        struct unknown *one = &all->at[*found - 1];
        if (one->node == node && one->len == len && (len == 0 || memcmp(one->name, name, len) == 0))
            return *found - 1;
    }
}

static int make_room(struct unknowns *all)
{
    if (all->seen_count < all->seen_size)
        return 1;
    size_t size = all->seen_size ? 2 * all->seen_size : 256;
    uint16_t *grown = realloc(all->seen, size * sizeof *grown);
    if (grown == NULL)
        return 0;
    all->seen = grown;
    all->seen_size = size;
    return 1;
}

int unknown_note(struct unknowns *all, size_t object, int node, const char *name, size_t len,
                 char from)
{
    if (all->seen_count - all->unit >= UNKNOWN_OF_UNIT_MAX)
        return 1;
    int named = len <= UNKNOWN_NAME_MAX && all->count < UNKNOWN_MAX - 1;
    int index = named ? find(all, node, name, len) : find(all, -1, "", 0);
    if (index < 0 || !make_room(all))
        return 0;
    struct unknown *one = &all->at[index];
    uint16_t met = (uint16_t)(index * UNKNOWN_SORTS_COUNT + sort_of(from));
    if (one->object == object && one->node >= 0) {
        all->seen[one->at] = met;
        return 1;
    }
    one->object = object;
    one->at = all->seen_count;
    all->seen[all->seen_count++] = met;
    return 1;
}

void unknown_count(struct unknowns *all, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        all->at[all->seen[i] / UNKNOWN_SORTS_COUNT].count[all->seen[i] % UNKNOWN_SORTS_COUNT]++;
}

void unknown_forget(struct unknowns *all)
{
    if (all->size)
        wipe(all->at, (size_t)all->size * sizeof *all->at);
    free(all->at);
    free(all->seen);
    memset(all, 0, sizeof *all);
}
