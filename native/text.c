/* See text.h. */
#include "text.h"

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

void text_forget(struct text *text)
{
    if (text->at != NULL) {
        wipe(text->at, text->size);
        free(text->at);
    }
    *text = (struct text){NULL, 0, 0, 0};
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
