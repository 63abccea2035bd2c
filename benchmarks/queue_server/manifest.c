/* The manifest (see manifest.h). */
#include "manifest.h"

#include <stdlib.h>

#include "server.h"

static const char *const KINDS[] = {"sent", "login", "malformed"};
static ManifestEntry *entries;
static uint32_t count, cap;

uint32_t manifest_add(const uint8_t id[16], const uint8_t md5[16], uint32_t queue, ManifestKind kind) {
    if (!options.manifest) return MANIFEST_NONE;
    if (count == cap) {
        cap = cap ? cap * 2 : 4096;
        entries = must_alloc(realloc(entries, cap * sizeof *entries));
    }
    ManifestEntry *e = &entries[count];
    memset(e, 0, sizeof *e);
    memcpy(e->id, id, 16);
    memcpy(e->md5, md5, 16);
    e->queue = queue;
    e->kind = (uint8_t)kind;
    return count++;
}

ManifestEntry *manifest_entry(uint32_t index) { return index == MANIFEST_NONE ? NULL : &entries[index]; }

uint32_t manifest_size(void) { return count; }

void manifest_line(const ManifestEntry *e, const char *queue_name, Buffer *out) {
    buffer_uuid(out, e->id);
    buffer_text(out, " ");
    buffer_hex(out, e->md5, 16);
    buffer_printf(out, " %u %u %s %s\n", e->deletes, e->receives, KINDS[e->kind], queue_name);
}
