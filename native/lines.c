/* See lines.h. `pipeline/archive_lines.py` says the same for where there is no compiler. */
#include "lines.h"

#include <string.h>

#include "text.h"

/* Whether a brace that closes an object is followed by one that opens another. */
static int is_glued(const char *at, const char *end)
{
    while (at < end && (at = memchr(at, '}', (size_t)(end - at))) != NULL) {
        at++;
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        if (at < end && *at == '{')
            return 1;
    }
    return 0;
}

size_t count_usual_lines(const char *at, size_t len)
{
    const char *end = at + len;
    size_t lines = 0;
    if (text_contains(at, len, "\"messageType\""))
        return 0;
    for (; at < end; lines++) {
        const char *feed = memchr(at, '\n', (size_t)(end - at));
        const char *stop = feed != NULL ? feed : end;
        if (*at != '{' || is_glued(at, stop))
            return 0;
        at = feed != NULL ? feed + 1 : end;
    }
    return lines;
}
