/* The manifest: every message ever sent, and how often it was received and deleted. The soak checks
 * the database against it. It grows with every message, so it is kept only with --manifest. */
#ifndef MANIFEST_H
#define MANIFEST_H

#include "buffer.h"

enum { MANIFEST_NONE = 0xFFFFFFFF };

typedef enum { KIND_SENT, KIND_LOGIN, KIND_MALFORMED } ManifestKind;

typedef struct {
    uint8_t id[16], md5[16];
    uint32_t queue, receives; /* queue: its id, as in queue_name_ever */
    uint16_t deletes;
    uint8_t kind;
} ManifestEntry;

uint32_t manifest_add(const uint8_t id[16], const uint8_t md5[16], uint32_t queue, ManifestKind kind);
ManifestEntry *manifest_entry(uint32_t index); /* NULL for MANIFEST_NONE */
uint32_t manifest_size(void);
/* Appends one line: message id, MD5 of the body, deletes, receives, kind, queue name. */
void manifest_line(const ManifestEntry *e, const char *queue_name, Buffer *out);

#endif
