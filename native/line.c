/* See line.h. Of JSON (RFC 8259), this reads only flat objects of printable ASCII. */
#include "line.h"

#include <stdlib.h>
#include <string.h>

/* The largest SentTimestamp: the end of year 9999, the last year of Python's dates. */
static const int64_t SENT_MS_MAX = 253402300799999;

struct value {
    const char *at;
    size_t len;
    enum { ABSENT, NUL, TEXT } is;
};

struct reader {
    const char *at, *end;
};

static void skip_space(struct reader *in)
{
    while (in->at < in->end &&
           (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t'))
        in->at++;
}

static int take(struct reader *in, char wanted)
{
    skip_space(in);
    if (in->at == in->end || *in->at != wanted)
        return 0;
    in->at++;
    return 1;
}

/* A string without escapes, of printable ASCII: its bytes are its characters and its COPY text. */
static int read_string(struct reader *in, struct value *value)
{
    if (!take(in, '"'))
        return 0;
    value->at = in->at;
    while (in->at < in->end && *in->at != '"') {
        unsigned char c = (unsigned char)*in->at;
        if (c < 0x20 || c > 0x7e || c == '\\')
            return 0;
        in->at++;
    }
    if (in->at == in->end)
        return 0;
    value->len = (size_t)(in->at++ - value->at);
    value->is = TEXT;
    return 1;
}

static int read_word(struct reader *in, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0)
        return 0;
    in->at += len;
    return 1;
}

static size_t digits(struct reader *in)
{
    const char *from = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return (size_t)(in->at - from);
}

/* Skip a number that no column needs: a short one without an exponent, which no reader refuses. */
static int skip_number(struct reader *in)
{
    if (in->at < in->end && *in->at == '-')
        in->at++;
    int zero = in->at < in->end && *in->at == '0';
    size_t whole = digits(in);
    if (whole < 1 || whole > 15 || (zero && whole > 1))
        return 0;
    if (in->at < in->end && *in->at == '.') {
        in->at++;
        size_t part = digits(in);
        if (part < 1 || part > 15)
            return 0;
    }
    return in->at < in->end && *in->at != 'e' && *in->at != 'E';
}

static int skip_value(struct reader *in)
{
    struct value ignored;
    skip_space(in);
    if (in->at == in->end)
        return 0;
    switch (*in->at) {
    case '"':
        return read_string(in, &ignored);
    case 'n':
        return read_word(in, "null");
    case 't':
        return read_word(in, "true");
    case 'f':
        return read_word(in, "false");
    default:
        return skip_number(in);
    }
}

static int find_source(const struct plan *plan, const struct value *name)
{
    for (size_t i = 0; i < plan->sources; i++)
        if (plan->source[i].len == name->len &&
            memcmp(plan->source[i].name, name->at, name->len) == 0)
            return (int)i;
    return -1;
}

/* Read every value that the plan names; an object with a name twice is left to Python. */
static int read_object(const struct plan *plan, struct reader *in, struct value *values)
{
    if (!take(in, '{'))
        return 0;
    skip_space(in);
    if (in->at < in->end && *in->at == '}') {
        in->at++;
    } else {
        do {
            struct value name;
            skip_space(in);
            if (!read_string(in, &name) || !take(in, ':'))
                return 0;
            int source = find_source(plan, &name);
            if (source < 0) {
                if (plan->forbid_unknown || !skip_value(in))
                    return 0;
                continue;
            }
            if (values[source].is != ABSENT)
                return 0;
            skip_space(in);
            if (in->at < in->end && *in->at == 'n') {
                if (!read_word(in, "null"))
                    return 0;
                values[source].is = NUL;
            } else if (!read_string(in, &values[source])) {
                return 0;
            }
        } while (take(in, ','));
        if (!take(in, '}'))
            return 0;
    }
    skip_space(in);
    return in->at == in->end;
}

static char *room(struct text *out, size_t more)
{
    if (out->size - out->len < more) {
        size_t size = 2 * out->size + more;
        char *grown = realloc(out->at, size);
        if (grown == NULL) {
            out->failed = 1;
            return NULL;
        }
        out->at = grown;
        out->size = size;
    }
    return out->at + out->len;
}

static int append(struct text *out, const char *bytes, size_t len)
{
    char *to = room(out, len);
    if (to == NULL)
        return 0;
    memcpy(to, bytes, len);
    out->len += len;
    return 1;
}

/* As `convert.version` in Python: one to three numbers. Python reports the faults. */
static int write_version(const struct value *value, struct text *out)
{
    struct reader in = {value->at, value->at + value->len};
    uint32_t part[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        const char *from = in.at;
        size_t count = digits(&in);
        if (count < 1 || count > 9)
            return 0;
        for (; from < in.at; from++)
            part[i] = part[i] * 10 + (uint32_t)(*from - '0');
        if (in.at == in.end)
            break;
        if (i == 2 || *in.at++ != '.')
            return 0;
    }
    if (part[0] > 2146 || part[1] > 999 || part[2] > 999)
        return 0;
    uint32_t number = part[0] * 1000000 + part[1] * 1000 + part[2];
    char text[10], *at = text + sizeof text;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    return append(out, at, (size_t)(text + sizeof text - at));
}

static int two_digits(const char *at, int *number)
{
    if (at[0] < '0' || at[0] > '9' || at[1] < '0' || at[1] > '9')
        return 0;
    *number = (at[0] - '0') * 10 + at[1] - '0';
    return 1;
}

static int write_date(const struct value *value, struct text *out)
{
    static const int DAYS[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century, year, month, day;
    const char *at = value->at;
    if (value->len != 10 || at[4] != '-' || at[7] != '-' || !two_digits(at, &century) ||
        !two_digits(at + 2, &year) || !two_digits(at + 5, &month) || !two_digits(at + 8, &day))
        return 0;
    year += century * 100;
    if (year < 1 || month < 1 || month > 12 || day < 1)
        return 0;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > DAYS[month - 1] + (leap && month == 2))
        return 0;
    return append(out, at, 10);
}

static void put_digits(char *at, int count, int number)
{
    while (count--) {
        at[count] = (char)('0' + number % 10);
        number /= 10;
    }
}

/* The UTC day of a timestamp, in the proleptic Gregorian calendar. Years begin on the
 * 1st of March, so that the leap day is the last of a year; an era is 400 years, 146,097 days. */
static int write_day(int64_t sent_ms, struct text *out)
{
    if (sent_ms < 0 || sent_ms > SENT_MS_MAX)
        return 0;
    int days = (int)(sent_ms / 86400000) + 719468; /* from 0000-03-01 */
    int era = days / 146097, of_era = days % 146097;
    int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * year + year / 4 - year / 100);
    int shifted = (5 * of_year + 2) / 153; /* 0: March */
    int day = of_year - (153 * shifted + 2) / 5 + 1;
    int month = shifted < 10 ? shifted + 3 : shifted - 9;
    char text[10];
    put_digits(text, 4, era * 400 + year + (month <= 2));
    put_digits(text + 5, 2, month);
    put_digits(text + 8, 2, day);
    text[4] = text[7] = '-';
    return append(out, text, sizeof text);
}

/* POSIX's dotted decimal as `inet_pton` takes it: four numbers to 255, no leading zeros. */
static int read_ipv4(const struct value *value, uint8_t address[4])
{
    struct reader in = {value->at, value->at + value->len};
    for (int i = 0; i < 4; i++) {
        const char *from = in.at;
        size_t count = digits(&in);
        if (count < 1 || count > 3 || (count > 1 && *from == '0'))
            return 0;
        int number = 0;
        for (; from < in.at; from++)
            number = number * 10 + *from - '0';
        if (number > 255)
            return 0;
        address[i] = (uint8_t)number;
        if (i < 3 && (in.at == in.end || *in.at++ != '.'))
            return 0;
    }
    return in.at == in.end;
}

/* Write the prefix with the key's version, then the first 16 bytes of the HMAC in hex. */
static int write_token(const struct column *column, const uint8_t *value, size_t len,
                       struct text *out)
{
    uint8_t code[SHA256_BYTES];
    char token[PREFIX_MAX + 32];
    hmac_sha256(&column->key, value, len, code);
    memcpy(token, column->prefix, column->prefix_len);
    const char *at = write_hex(token + column->prefix_len, code, 16);
    return append(out, token, (size_t)(at - token));
}

static int write_cell(const struct column *column, const struct value *value, int64_t sent_ms,
                      struct text *out)
{
    uint8_t address[4];
    if (value->is != TEXT) {
        if (column->op == OP_DATE && column->dated)
            return write_day(sent_ms, out);
        return column->nullable && append(out, "\\N", 2);
    }
    switch (column->op) {
    case OP_TEXT:
        return value->len <= column->length_max && append(out, value->at, value->len);
    case OP_VERSION:
        return write_version(value, out);
    case OP_DATE:
        return write_date(value, out);
    case OP_TOKEN_IP:
        return read_ipv4(value, address) && write_token(column, address, sizeof address, out);
    case OP_TOKEN_TEXT:
        return write_token(column, (const uint8_t *)value->at, value->len, out);
    default:
        return 0;
    }
}

int write_line(const struct plan *plan, const char *body, size_t len, int64_t sent_ms,
               struct text *out)
{
    struct value values[SOURCES_MAX];
    struct reader in = {body, body + len};
    size_t before = out->len;
    for (size_t i = 0; i < plan->sources; i++)
        values[i] = (struct value){NULL, 0, ABSENT};
    if (!read_object(plan, &in, values))
        return 0;
    for (size_t i = 0; i < plan->sources; i++)
        if (plan->source[i].required && (values[i].is != TEXT || values[i].len == 0))
            return 0;
    for (size_t i = 0; i < plan->columns; i++) {
        const struct column *column = &plan->column[i];
        const char *after = i + 1 < plan->columns ? "\t" : "\n";
        if (!write_cell(column, &values[column->source], sent_ms, out) || !append(out, after, 1)) {
            out->len = before;
            return 0;
        }
    }
    return 1;
}
