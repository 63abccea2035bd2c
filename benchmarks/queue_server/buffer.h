/* Growable byte buffers, and functions that append text to them. If an allocation fails, the process
 * exits: a benchmark server has no way to go on without memory. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char *data;
    size_t len, cap;
} Buffer;

void *must_alloc(void *pointer); /* returns pointer; exits if it is NULL */
void buffer_enlarge(Buffer *b, size_t extra);
void buffer_release(Buffer *b);
void buffer_printf(Buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends the content of a JSON string: escapes quotes, backslashes and control characters. */
void buffer_escaped(Buffer *b, const char *text, size_t len);
void buffer_number(Buffer *b, uint64_t value);
void buffer_hex(Buffer *b, const uint8_t *bytes, size_t count);
void buffer_uuid(Buffer *b, const uint8_t id[16]);

static inline char *buffer_room(Buffer *b, size_t extra) {
    if (b->cap - b->len < extra) buffer_enlarge(b, extra);
    return b->data + b->len;
}

static inline void buffer_add(Buffer *b, const void *bytes, size_t len) {
    if (len == 0) return;
    memcpy(buffer_room(b, len), bytes, len);
    b->len += len;
}

/* Appends a string literal; the compiler knows its length. */
#define buffer_text(b, literal) buffer_add((b), "" literal "", sizeof(literal) - 1)

#endif
