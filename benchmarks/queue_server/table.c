/* The hash table (see table.h). */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"

/* FNV-1a, 64 bits. Only local tests call this, so deliberate collisions are no concern. */
static uint64_t hash(const char *key, size_t len) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

Entry *table_find(const Table *t, const char *key, size_t len) {
    if (!t->size) return NULL;
    uint64_t h = hash(key, len);
    for (Entry *e = t->buckets[h & (t->size - 1)]; e; e = e->next) {
        if (e->hash == h && e->key_len == len && memcmp(e->key, key, len) == 0) return e;
    }
    return NULL;
}

static void grow(Table *t) {
    size_t size = t->size ? t->size * 2 : 64;
    Entry **buckets = must_alloc(calloc(size, sizeof *buckets));
    for (size_t i = 0; i < t->size; i++) {
        for (Entry *e = t->buckets[i], *next; e; e = next) {
            next = e->next;
            e->next = buckets[e->hash & (size - 1)];
            buckets[e->hash & (size - 1)] = e;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->size = size;
}

void table_put(Table *t, Entry *e, const char *key, size_t len) {
    if (t->count >= t->size) grow(t);
    e->hash = hash(key, len);
    e->key = key;
    e->key_len = len;
    Entry **bucket = &t->buckets[e->hash & (t->size - 1)];
    e->next = *bucket;
    *bucket = e;
    t->count++;
}

void table_remove(Table *t, Entry *e) {
    Entry **at = &t->buckets[e->hash & (t->size - 1)];
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    t->count--;
}

void table_release(Table *t, void (*release)(Entry *)) {
    for (size_t i = 0; i < t->size; i++) {
        for (Entry *e = t->buckets[i], *next; e; e = next) {
            next = e->next;
            release(e);
        }
    }
    free(t->buckets);
    memset(t, 0, sizeof *t);
}
