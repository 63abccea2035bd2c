/* See text.h. */
#include "text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"

int text_grow(struct text *text, size_t more)
{
    size_t size = 2 * text->size + more;
    char *grown = malloc(size); /* not realloc: what it leaves behind could not be wiped */
    if (grown == NULL) {
        text->failed = 1;
        return 0;
    }
    if (text->at != NULL) {
        memcpy(grown, text->at, text->len);
        wipe(text->at, text->len);
        free(text->at);
    }
    text->at = grown;
    text->size = size;
    return 1;
}

int text_append_sized(struct text *text, const void *bytes, size_t len)
{
    const uint8_t head[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                             (uint8_t)len};
    return text_append(text, (const char *)head, sizeof head) && text_append(text, bytes, len);
}

void text_forget(struct text *text)
{
    if (text->at != NULL) {
        wipe(text->at, text->size);
        free(text->at);
    }
    *text = (struct text){NULL, 0, 0, 0};
}

/* How long the sequence is that begins at `at`; 0 where none does. */
static size_t utf8_sequence(const unsigned char *at, size_t len)
{
    unsigned first = at[0], low = 0x80, high = 0xBF;
    size_t size;
    if (first >= 0xC2 && first <= 0xDF) {
        size = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
        size = 3;
        low = first == 0xE0 ? 0xA0 : low;
        high = first == 0xED ? 0x9F : high;
    } else if (first >= 0xF0 && first <= 0xF4) {
        size = 4;
        low = first == 0xF0 ? 0x90 : low;
        high = first == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (len < size || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return size;
}

int text_is_utf8(const char *at, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)at;
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        for (; len - i >= sizeof eight; i += sizeof eight) {
            memcpy(&eight, bytes + i, sizeof eight);
            if (eight & UINT64_C(0x8080808080808080))
                break;
        }
        while (i < len && bytes[i] < 0x80)
            i++;
        if (i == len)
            break;
        size_t size = utf8_sequence(bytes + i, len - i);
        if (size == 0)
            return 0;
        i += size;
    }
    return 1;
}

int text_contains(const char *at, size_t len, const char *word)
{
    size_t size = strlen(word);
    while (len >= size) {
        const char *found = memchr(at, word[0], len - size + 1);
        if (found == NULL)
            return 0;
        if (memcmp(found, word, size) == 0)
            return 1;
        len -= (size_t)(found + 1 - at);
        at = found + 1;
    }
    return 0;
}
