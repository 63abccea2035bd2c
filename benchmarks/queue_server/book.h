/* The manifest: what was ever sent, how often it was received and deleted. It is the sender's
 * side of the soak's books, kept only with --manifest, since it grows with every message. */
#ifndef BOOK_H
#define BOOK_H

#include "buffer.h"

enum { BOOK_NONE = 0xFFFFFFFF };

typedef enum { KIND_SENT, KIND_LOGIN, KIND_MALFORMED } BookKind;

typedef struct {
    uint8_t id[16], md5[16];
    uint32_t queue, receives; /* queue: its number, see queue_name_ever */
    uint16_t deletes;
    uint8_t kind;
} BookEntry;

uint32_t book_add(const uint8_t id[16], const uint8_t md5[16], uint32_t queue, BookKind kind);
BookEntry *book_entry(uint32_t index); /* NULL for BOOK_NONE */
uint32_t book_size(void);
/* Appends one line: message id, MD5 of the body, deletes, receives, kind, queue name. */
void book_line(const BookEntry *e, const char *queue_name, Buffer *out);

#endif
