/* A growing text, and the bytes of one that is never grown. */
#ifndef SQS2PG_TEXT_H
#define SQS2PG_TEXT_H

#include <stddef.h>
#include <string.h>

struct text { /* `failed`: there was no memory to grow it */
    char *at;
    size_t len, size;
    int failed;
};

/* Make it larger, by `more` bytes at least; 0 where there is no memory. */
int text_grow(struct text *text, size_t more);

/* Make room for `more` bytes behind the text; NULL where there is no memory. */
static inline char *text_room(struct text *text, size_t more)
{
    return text->size - text->len >= more || text_grow(text, more) ? text->at + text->len : NULL;
}

/* Append; 0 where there is no memory. */
static inline int text_append(struct text *text, const char *bytes, size_t len)
{
    char *to = text_room(text, len);
    if (to == NULL)
        return 0;
    memcpy(to, bytes, len);
    text->len += len;
    return 1;
}

/* Append the bytes after their length, 4 bytes, big-endian: as an element of an array in PostgreSQL's
 * binary format, and as the parts of associated data. 0 where there is no memory. */
int text_append_sized(struct text *text, const void *bytes, size_t len);

/* Wipe and free: it may hold cleartext. */
void text_forget(struct text *text);

/* Whether the bytes are UTF-8 (RFC 3629): what Python decodes, without surrogates. */
int text_is_utf8(const char *at, size_t len);

/* Whether `word` stands somewhere in the bytes. */
int text_contains(const char *at, size_t len, const char *word);

#endif
