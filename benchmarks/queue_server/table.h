/* A hash table with chaining; each entry contains its own link. It holds queues by name, message
 * groups and deduplication ids. The entry owns the bytes of its key. */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct Entry {
    struct Entry *next;
    uint64_t hash;
    const char *key;
    size_t key_len;
} Entry;

typedef struct {
    Entry **buckets;
    size_t size, count;
} Table;

Entry *table_find(const Table *t, const char *key, size_t len);
void table_put(Table *t, Entry *e, const char *key, size_t len); /* the key must be absent */
void table_remove(Table *t, Entry *e);
void table_release(Table *t, void (*release)(Entry *));

#endif
