/* Growable byte buffers (see buffer.h). */
#include "buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char HEX[] = "0123456789abcdef";

void *must_alloc(void *pointer) {
    if (pointer == NULL) {
        fputs("error: out of memory\n", stderr);
        exit(1);
    }
    return pointer;
}

void buffer_enlarge(Buffer *b, size_t extra) {
    size_t cap = b->cap ? b->cap : 1024;
    while (cap - b->len < extra) cap *= 2;
    b->data = must_alloc(realloc(b->data, cap));
    b->cap = cap;
}

void buffer_release(Buffer *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

void buffer_printf(Buffer *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *at = buffer_room(b, (size_t)need + 1);
    va_start(args, format);
    vsnprintf(at, (size_t)need + 1, format, args);
    va_end(args);
    b->len += (size_t)need;
}

void buffer_escaped(Buffer *b, const char *text, size_t len) {
    char *at = buffer_room(b, len * 6 + 1), *start = at;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c < 0x20) {
            memcpy(at, "\\u00", 4);
            at[4] = HEX[c >> 4];
            at[5] = HEX[c & 15];
            at += 6;
        } else {
            *at++ = (char)c;
        }
    }
    b->len += (size_t)(at - start);
}

void buffer_number(Buffer *b, uint64_t value) {
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    buffer_add(b, digits + n, sizeof digits - n);
}

void buffer_hex(Buffer *b, const uint8_t *bytes, size_t count) {
    char *at = buffer_room(b, count * 2);
    for (size_t i = 0; i < count; i++) {
        *at++ = HEX[bytes[i] >> 4];
        *at++ = HEX[bytes[i] & 15];
    }
    b->len += count * 2;
}

void buffer_uuid(Buffer *b, const uint8_t id[16]) {
    char *at = buffer_room(b, 36);
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
        *at++ = HEX[id[i] >> 4];
        *at++ = HEX[id[i] & 15];
    }
    b->len += 36;
}
