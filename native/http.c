/* See http.h. */
#include "http.h"

#include <string.h>

static const size_t LENGTH_DIGITS_MAX = 9;

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static int is(const char *text, size_t len, const char *wanted)
{
    if (len != strlen(wanted))
        return 0;
    for (size_t i = 0; i < len; i++)
        if (lower(text[i]) != wanted[i])
            return 0;
    return 1;
}

/* A token of RFC 9110, section 5.6.2, without the characters that servers do not use. */
static int is_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = lower(name[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return 0;
    }
    return len > 0;
}

static int read_length(const char *value, size_t len, size_t *length)
{
    if (len < 1 || len > LENGTH_DIGITS_MAX)
        return 0;
    *length = 0;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 0;
        *length = *length * 10 + (size_t)(value[i] - '0');
    }
    return 1;
}

/* Read one header; 0 if it may change how the reply must be read. `seen` counts Content-Length. */
static int read_header(const char *line, size_t len, size_t *length, int *seen)
{
    const char *colon = memchr(line, ':', len);
    if (colon == NULL || !is_name(line, (size_t)(colon - line)))
        return 0;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    size_t size = (size_t)(end - value);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)value[i] < 0x20 && value[i] != '\t')
            return 0;
    if (is(line, name, "content-length"))
        return !(*seen)++ && read_length(value, size, length);
    if (is(line, name, "connection"))
        return is(value, size, "keep-alive");
    return !is(line, name, "transfer-encoding") && !is(line, name, "upgrade") &&
           !is(line, name, "trailer");
}

size_t plain_body(const char *reply, size_t len)
{
    static const char STATUS[] = "HTTP/1.1 200 ";
    if (len < sizeof STATUS || memcmp(reply, STATUS, sizeof STATUS - 1) != 0)
        return 0;
    const char *end = reply + len, *line = reply;
    size_t length = 0;
    int seen = 0;
    for (int first = 1;; first = 0) {
        const char *stop = memchr(line, '\r', (size_t)(end - line));
        if (stop == NULL || end - stop < 2 || stop[1] != '\n')
            return 0;
        if (stop == line)
            break;
        if (first ? memchr(line, '\n', (size_t)(stop - line)) != NULL
                  : !read_header(line, (size_t)(stop - line), &length, &seen))
            return 0;
        line = stop + 2;
    }
    line += 2;
    return seen && (size_t)(end - line) == length ? (size_t)(line - reply) : 0;
}
