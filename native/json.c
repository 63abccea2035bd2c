/* See json.h. */
#include "json.h"

#include <stdint.h>
#include <string.h>

int json_ended(struct reader *in)
{
    json_space(in);
    return in->at == in->end;
}

static int read_word(struct reader *in, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0)
        return 0;
    in->at += len;
    return 1;
}

int json_null(struct reader *in)
{
    return read_word(in, "null");
}

/* Pass over characters that stand for themselves; returns all of their bits in one word. */
static uint64_t pass_plain(struct reader *in)
{
    static const uint64_t ONES = 0x0101010101010101u, HIGH = 0x8080808080808080u;
    uint64_t seen = 0;
    while (in->end - in->at >= 8) { /* eight at a time: none is a control, a quote, a backslash */
        uint64_t word, quote, slash;
        memcpy(&word, in->at, 8);
        quote = word ^ ONES * '"';
        slash = word ^ ONES * '\\';
        if ((((word - ONES * 0x20) & ~word) | ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash)) &
            HIGH)
            break;
        seen |= word;
        in->at += 8;
    }
    while (in->at < in->end && (unsigned char)*in->at >= 0x20 && *in->at != '"' && *in->at != '\\')
        seen |= (unsigned char)*in->at++;
    return seen & HIGH;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int read_code_unit(struct reader *in, uint32_t *unit)
{
    if (in->end - in->at < 4)
        return 0;
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*in->at++);
        if (digit < 0)
            return 0;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return 1;
}

/* What follows `\u`: a character, or the two halves of one. No NUL, and no half alone. */
static int read_unicode(struct reader *in, uint32_t *character)
{
    uint32_t low;
    if (!read_code_unit(in, character))
        return 0;
    if (*character == 0) {
        in->unsure = 1;
        return 0;
    }
    if (*character < 0xd800 || *character > 0xdfff)
        return 1;
    if (*character > 0xdbff || !read_word(in, "\\u") || !read_code_unit(in, &low) || low < 0xdc00 ||
        low > 0xdfff)
        return 0;
    *character = 0x10000 + ((*character - 0xd800) << 10) + (low - 0xdc00);
    return 1;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* One escape, behind its backslash; returns the bytes put, 0 where it is none or left to Python. */
static size_t read_escape(struct reader *in, char *to)
{
    static const char NAMES[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (in->at == in->end)
        return 0;
    char name = *in->at++;
    if (name == 'u') {
        uint32_t character;
        return read_unicode(in, &character) ? put_utf8(to, character) : 0;
    }
    const char *found = name ? strchr(NAMES, name) : NULL;
    if (found == NULL)
        return 0;
    *to = MEANT[found - NAMES];
    return 1;
}

/* The rest of a string that has escapes. `from`: where it begins. Decoded it is never longer. */
static int decode_string(struct reader *in, const char *from, struct value *value)
{
    struct text *arena = in->arena;
    char *const start = arena->at + arena->len, *to = start;
    const char *const most = arena->at + arena->size;
    uint64_t high = 0;
    for (;;) {
        size_t len = (size_t)(in->at - from);
        if ((size_t)(most - to) < len + 4)
            return in->unsure = 1, 0; /* cannot be: the arena holds the whole body */
        memcpy(to, from, len);
        to += len;
        if (in->at == in->end || (unsigned char)*in->at < 0x20)
            return 0;
        if (*in->at++ == '"')
            break;
        size_t put = read_escape(in, to);
        if (put == 0)
            return 0;
        high |= (unsigned char)*to;
        to += put;
        from = in->at;
        high |= pass_plain(in) ? 0x80 : 0;
    }
    value->at = start;
    value->len = (size_t)(to - start);
    value->ascii = value->ascii && !(high & 0x80);
    value->escaped = 1;
    arena->len += value->len;
    return 1;
}

int json_string(struct reader *in, struct value *value)
{
    const char *raw = in->at;
    if (in->at == in->end || *in->at != '"')
        return 0;
    const char *from = ++in->at;
    value->is = STRING;
    value->ascii = pass_plain(in) == 0;
    if (in->at == in->end)
        return 0;
    if (*in->at == '"') {
        value->at = from;
        value->len = (size_t)(in->at++ - from);
        value->escaped = 0;
    } else if (*in->at != '\\' || !decode_string(in, from, value)) {
        return 0;
    }
    value->raw = raw;
    value->raw_len = (size_t)(in->at - raw);
    return 1;
}

static size_t digits(struct reader *in)
{
    const char *from = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return (size_t)(in->at - from);
}

static int read_number(struct reader *in, struct value *value)
{
    value->at = value->raw = in->at;
    if (in->at < in->end && *in->at == '-')
        in->at++;
    int zero = in->at < in->end && *in->at == '0';
    size_t whole = digits(in);
    if (whole < 1 || (zero && whole > 1))
        return 0;
    if (in->at < in->end && *in->at == '.') {
        in->at++;
        if (digits(in) < 1)
            return 0;
    }
    if (in->at < in->end && (*in->at == 'e' || *in->at == 'E')) {
        in->at++;
        if (in->at < in->end && (*in->at == '+' || *in->at == '-'))
            in->at++;
        if (digits(in) < 1)
            return 0;
    }
    value->is = NUMBER;
    value->len = value->raw_len = (size_t)(in->at - value->at);
    return 1;
}

static int skip_members(struct reader *in, int depth)
{
    struct value ignored;
    if (json_take(in, '}'))
        return 1;
    do {
        size_t before = in->arena->len;
        json_space(in);
        if (!json_string(in, &ignored) || !json_take(in, ':') || !json_value(in, &ignored, depth))
            return 0;
        in->arena->len = before;
    } while (json_take(in, ','));
    return json_take(in, '}');
}

static int skip_elements(struct reader *in, int depth)
{
    struct value ignored;
    if (json_take(in, ']'))
        return 1;
    do {
        size_t before = in->arena->len;
        if (!json_value(in, &ignored, depth))
            return 0;
        in->arena->len = before;
    } while (json_take(in, ','));
    return json_take(in, ']');
}

int json_value(struct reader *in, struct value *value, int depth)
{
    json_space(in);
    if (in->at == in->end)
        return 0;
    const char *from = in->at;
    int done;
    switch (*from) {
    case '"':
        return json_string(in, value);
    case '{':
        in->at++;
        in->unsure |= depth >= DEPTH_MAX;
        done = depth < DEPTH_MAX && skip_members(in, depth + 1);
        value->is = CONTAINER;
        break;
    case '[':
        in->at++;
        in->unsure |= depth >= DEPTH_MAX;
        done = depth < DEPTH_MAX && skip_elements(in, depth + 1);
        value->is = CONTAINER;
        break;
    case 'n':
        done = json_null(in);
        value->is = NUL;
        break;
    case 't':
        done = read_word(in, "true");
        value->is = TRUE;
        break;
    case 'f':
        done = read_word(in, "false");
        value->is = FALSE;
        break;
    default:
        return read_number(in, value);
    }
    value->at = value->raw = from;
    value->len = value->raw_len = (size_t)(in->at - from);
    return done;
}

int json_is_whole(const char *at, size_t len)
{
    size_t sign = len > 0 && *at == '-';
    if (len - sign < 1 || len - sign > WHOLE_DIGITS_MAX || (sign && at[1] == '0'))
        return 0;
    for (size_t i = sign; i < len; i++)
        if (at[i] < '0' || at[i] > '9')
            return 0;
    return 1;
}
