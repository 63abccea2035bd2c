/* See lines.h. `pipeline/archive_lines.py` says the same for where there is no compiler. */
#include "lines.h"

#include <string.h>

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

/* Whether "messageType" stands in the text, with its quotes. By its T, which few lines have: of quotes
 * they have many. */
static int has_message_type(const char *begin, size_t len)
{
    static const char NAME[] = "\"messageType\"";
    enum { BEFORE_T = 8, SIZE = sizeof NAME - 1 };
    const char *at = begin, *end = begin + len;
    while (at < end && (at = memchr(at, 'T', (size_t)(end - at))) != NULL) {
        if (at - begin >= BEFORE_T && end - at >= SIZE - BEFORE_T &&
            memcmp(at - BEFORE_T, NAME, SIZE) == 0)
            return 1;
        at++;
    }
    return 0;
}

size_t count_usual_lines(const char *at, size_t len)
{
    const char *end = at + len;
    size_t lines = 0;
    if (has_message_type(at, len))
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

const char *next_line(const char *at, const char *end, const char **line, size_t *len)
{
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    *line = at;
    *len = (size_t)((feed != NULL ? feed : end) - at);
    return feed != NULL ? feed + 1 : end;
}

size_t count_lines_of(const char *at, size_t len)
{
    const char *end = at + len, *line;
    size_t lines = 0, size;
    for (; at < end; lines++)
        at = next_line(at, end, &line, &size);
    return lines;
}

/* How long the line is, its feed included; what has no feed is one line. */
static size_t line_len(const char *at, const char *end)
{
    const char *feed = memchr(at, '\n', (size_t)(end - at));
    return (size_t)((feed != NULL ? feed + 1 : end) - at);
}

/* Whether the line is not after the other. */
static int is_first(const char *at, size_t len, const char *other, size_t other_len)
{
    int order = memcmp(at, other, len < other_len ? len : other_len);
    return order < 0 || (order == 0 && len <= other_len);
}

void merge_lines(const char *at, size_t len, const char *other, size_t other_len, char *to)
{
    const char *end = at + len, *other_end = other + other_len;
    while (at < end && other < other_end) {
        const char *from = at;
        size_t its = line_len(other, other_end), size;
        while (at < end && (size = line_len(at, end), is_first(at, size, other, its)))
            at += size;
        memcpy(to, from, (size_t)(at - from));
        to += at - from;
        memcpy(to, other, its);
        to += its;
        other += its;
    }
    memcpy(to, at, (size_t)(end - at));
    memcpy(to + (end - at), other, (size_t)(other_end - other));
}
