/* See convert.h. */
#include "convert.h"

#include <string.h>

/* SentTimestamp up to the year 9999, the last that Python's dates have. */
static const int64_t SENT_MS_MAX = 253402300799999;
/* Days are counted from 0000-03-01: 1970-01-01, 0001-01-01 and 9999-12-31. */
enum { EPOCH_DAYS = 719468, DAY_FIRST = 306, DAY_LAST = 3652364 };
enum { EPOCH_DIGITS_MAX = 18 }; /* of microseconds; with more it is left to Python */
enum { DAY_S = 86400, FRACTION_KEPT = 7, MAJOR_MAX = 2146, PART_MAX = 999 };
/* 1,000 digits and an exponent of three: 16,383 may stand behind the point. */
enum { NUMERIC_CHARS_MAX = 1000, EXPONENT_CHARS_MAX = 5 };

format_double *convert_double_by;

struct moment { /* of UTC, unless it has just been read */
    int year, month, day, hour, minute, second;
};

static int append_escaped(const char *at, size_t len, struct text *out)
{
    char *to = text_room(out, 2 * len);
    if (to == NULL)
        return 0;
    for (size_t i = 0; i < len; i++) {
        char c = at[i];
        char name = c == '\\' ? '\\' : c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : 0;
        if (name)
            *to++ = '\\';
        *to++ = name ? name : c;
    }
    out->len = (size_t)(to - out->at);
    return 1;
}

int write_escaped(const struct value *value, struct text *out)
{
    if (!value->escaped) /* then it has no backslash, and JSON allows no tabs and newlines */
        return text_append(out, value->at, value->len);
    return append_escaped(value->at, value->len, out);
}

int write_jsonb(const struct value *value, struct text *out)
{
    return append_escaped(value->raw, value->raw_len, out);
}

size_t count_characters(const char *at, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += (at[i] & 0xc0) != 0x80; /* all but continuation bytes */
    return count;
}

static int append_number(int64_t number, struct text *out)
{
    char text[20], *at = text + sizeof text;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    return text_append(out, at, (size_t)(text + sizeof text - at));
}

int write_integer(const struct value *value, int64_t low, int64_t high, struct text *out)
{
    if (!json_is_whole(value->at, value->len))
        return 0;
    size_t sign = *value->at == '-';
    int64_t number = 0;
    for (size_t i = sign; i < value->len; i++)
        number = number * 10 + (value->at[i] - '0');
    number = sign ? -number : number;
    return number >= low && number <= high && text_append(out, value->at, value->len);
}

/* The number's own text, where it is far from the limits of PostgreSQL's `numeric`. */
int write_numeric(const struct value *value, struct text *out)
{
    size_t exponent = 0;
    while (exponent < value->len && (value->at[exponent] | 0x20) != 'e')
        exponent++;
    if (value->len > NUMERIC_CHARS_MAX || value->len - exponent > EXPONENT_CHARS_MAX)
        return 0;
    return text_append(out, value->at, value->len);
}

int write_double(const struct value *value, struct text *out)
{
    char text[32];
    if (convert_double_by == NULL)
        return 0;
    size_t len = convert_double_by(value->at, value->len, text, sizeof text);
    return len > 0 && text_append(out, text, len);
}

/* One to three dotted numbers; what is over a limit is Python's to refuse. */
static int read_version(const struct value *value, int part[3])
{
    const char *at = value->at, *end = at + value->len;
    part[1] = part[2] = 0;
    for (int i = 0; i < 3; i++) {
        const char *from = at;
        for (part[i] = 0; at < end && *at >= '0' && *at <= '9' && at - from < 9; at++)
            part[i] = part[i] * 10 + (*at - '0');
        if (at == from)
            return 0;
        if (at == end)
            return part[0] <= MAJOR_MAX;
        if (*at++ != '.')
            return 0;
    }
    return 0;
}

int write_version(const struct value *value, int64_t low, int64_t high, struct text *out)
{
    int part[3];
    if (!read_version(value, part) || part[1] > PART_MAX || part[2] > PART_MAX)
        return 0;
    int64_t number = part[0] * INT64_C(1000000) + part[1] * 1000 + part[2];
    return number >= low && number <= high && append_number(number, out);
}

int write_major(const struct value *value, int64_t low, int64_t high, struct text *out)
{
    int part[3];
    return read_version(value, part) && part[0] >= low && part[0] <= high &&
           append_number(part[0], out);
}

static int read_digits(const char *at, int count, int *number)
{
    *number = 0;
    for (int i = 0; i < count; i++) {
        if (at[i] < '0' || at[i] > '9')
            return 0;
        *number = *number * 10 + (at[i] - '0');
    }
    return 1;
}

static int read_day(const char *at, struct moment *moment)
{
    static const int DAYS[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (!read_digits(at, 4, &moment->year) || at[4] != '-' ||
        !read_digits(at + 5, 2, &moment->month) || at[7] != '-' ||
        !read_digits(at + 8, 2, &moment->day))
        return 0;
    int year = moment->year;
    if (year < 1 || moment->month < 1 || moment->month > 12 || moment->day < 1)
        return 0;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return moment->day <= DAYS[moment->month - 1] + (leap && moment->month == 2);
}

/* Days from 0000-03-01 in the proleptic Gregorian calendar. Years are counted from a 1st of March,
 * so that the leap day is a year's last; eras are of 400 years, 146,097 days. */
static int days_of(const struct moment *moment)
{
    int shifted = moment->month > 2 ? moment->month - 3 : moment->month + 9;
    int year = moment->year - (moment->month <= 2);
    int of_era = year % 400;
    return year / 400 * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * shifted + 2) / 5 +
           moment->day - 1;
}

static void set_day(int days, struct moment *moment)
{
    int era = days / 146097, of_era = days % 146097;
    int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * year + year / 4 - year / 100);
    int shifted = (5 * of_year + 2) / 153; /* 0: March */
    moment->day = of_year - (153 * shifted + 2) / 5 + 1;
    moment->month = shifted < 10 ? shifted + 3 : shifted - 9;
    moment->year = era * 400 + year + (moment->month <= 2);
}

static void set_time(int seconds, struct moment *moment)
{
    moment->hour = seconds / 3600;
    moment->minute = seconds / 60 % 60;
    moment->second = seconds % 60;
}

/* From local time to UTC; 0 where that is before year 1 or after 9999. `offset`: seconds. */
static int to_utc(struct moment *moment, int offset)
{
    int days = days_of(moment);
    int seconds = moment->hour * 3600 + moment->minute * 60 + moment->second - offset;
    if (seconds < 0) {
        days--;
        seconds += DAY_S;
    } else if (seconds >= DAY_S) {
        days++;
        seconds -= DAY_S;
    }
    set_day(days, moment);
    set_time(seconds, moment);
    return days >= DAY_FIRST && days <= DAY_LAST;
}

static int read_offset(const char *at, size_t len, int *offset)
{
    int hours, minutes;
    *offset = 0;
    if (len == 1)
        return *at == 'Z' || *at == 'z';
    if (len != 6 || (*at != '+' && *at != '-') || !read_digits(at + 1, 2, &hours) || at[3] != ':' ||
        !read_digits(at + 4, 2, &minutes) || hours > 23 || minutes > 59)
        return 0;
    *offset = (hours * 3600 + minutes * 60) * (*at == '-' ? -1 : 1);
    return 1;
}

/* RFC 3339 without leap seconds, in UTC; `fraction` with its point, or empty. */
static int read_timestamp(const struct value *value, struct moment *moment, const char **fraction,
                          size_t *fraction_len)
{
    const char *at = value->at, *end = at + value->len;
    int offset;
    if (value->len < 20 || !read_day(at, moment) || (at[10] != 'T' && at[10] != 't' && at[10] != ' ') ||
        !read_digits(at + 11, 2, &moment->hour) || at[13] != ':' ||
        !read_digits(at + 14, 2, &moment->minute) || at[16] != ':' ||
        !read_digits(at + 17, 2, &moment->second) || moment->hour > 23 || moment->minute > 59 ||
        moment->second > 59)
        return 0;
    *fraction = at += 19;
    if (*at == '.') {
        at++;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        if (at == *fraction + 1)
            return 0;
    }
    *fraction_len = (size_t)(at - *fraction);
    return at < end && read_offset(at, (size_t)(end - at), &offset) && to_utc(moment, offset);
}

static void put_digits(char *at, int count, int number)
{
    while (count--) {
        at[count] = (char)('0' + number % 10);
        number /= 10;
    }
}

static char *put_day(const struct moment *moment, char *to)
{
    put_digits(to, 4, moment->year);
    put_digits(to + 5, 2, moment->month);
    put_digits(to + 8, 2, moment->day);
    to[4] = to[7] = '-';
    return to + 10;
}

static char *put_time(const struct moment *moment, char *to)
{
    put_digits(to, 2, moment->hour);
    put_digits(to + 3, 2, moment->minute);
    put_digits(to + 6, 2, moment->second);
    to[2] = to[5] = ':';
    return to + 8;
}

int write_date(const struct value *value, struct text *out)
{
    struct moment moment;
    const char *fraction;
    size_t fraction_len;
    char text[10];
    if (value->len == 10 ? !read_day(value->at, &moment)
                         : !read_timestamp(value, &moment, &fraction, &fraction_len))
        return 0;
    put_day(&moment, text);
    return text_append(out, text, sizeof text);
}

int write_timestamp(const struct value *value, struct text *out)
{
    struct moment moment;
    const char *fraction;
    size_t fraction_len;
    char text[19 + FRACTION_KEPT + 3], *to = text;
    if (!read_timestamp(value, &moment, &fraction, &fraction_len))
        return 0;
    to = put_day(&moment, to);
    *to++ = ' ';
    to = put_time(&moment, to);
    if (fraction_len > FRACTION_KEPT)
        fraction_len = FRACTION_KEPT; /* cut, not rounded, as in Python */
    memcpy(to, fraction, fraction_len);
    to += fraction_len;
    memcpy(to, "+00", 3);
    return text_append(out, text, (size_t)(to + 3 - text));
}

/* Microseconds since 1970 of a decimal number without an exponent, cut towards the past. */
static int read_epoch(const struct value *value, int digits, int64_t *us)
{
    static const int64_t SCALES[] = {1000000, 100000, 10000, 1000, 100, 10, 1};
    const char *at = value->at, *end = at + value->len;
    int is_negative = at < end && *at == '-', kept = 0, is_cut = 0;
    const char *from = at += is_negative;
    for (*us = 0; at < end && *at >= '0' && *at <= '9' && at - from < EPOCH_DIGITS_MAX - 6 + digits; at++)
        *us = *us * 10 + (*at - '0');
    if (at == from)
        return 0;
    *us *= SCALES[digits];
    if (at < end && *at == '.') {
        for (from = ++at; at < end && *at >= '0' && *at <= '9'; at++) {
            if (digits + kept < 6)
                *us += (*at - '0') * SCALES[digits + ++kept];
            else
                is_cut |= *at != '0';
        }
        if (at == from)
            return 0;
    }
    if (is_negative)
        *us = -*us - is_cut;
    return at == end;
}

int write_epoch(const struct value *value, int digits, int is_date, struct text *out)
{
    struct moment moment;
    int64_t us;
    char text[19 + FRACTION_KEPT + 3], *to = text;
    if (!read_epoch(value, digits, &us))
        return 0;
    int rest = (int)(us % 1000000);
    int64_t seconds = us / 1000000;
    if (rest < 0) {
        rest += 1000000;
        seconds--;
    }
    int second = (int)(seconds % DAY_S);
    int64_t days = seconds / DAY_S + EPOCH_DAYS;
    if (second < 0) {
        second += DAY_S;
        days--;
    }
    if (days < DAY_FIRST || days > DAY_LAST)
        return 0;
    set_day((int)days, &moment);
    set_time(second, &moment);
    to = put_day(&moment, to);
    if (!is_date) {
        *to++ = ' ';
        to = put_time(&moment, to);
        if (rest) {
            *to++ = '.';
            put_digits(to, 6, rest);
            for (to += 6; to[-1] == '0'; to--)
                ;
        }
        memcpy(to, "+00", 3);
        to += 3;
    }
    return text_append(out, text, (size_t)(to - text));
}

static int set_sent(int64_t sent_ms, struct moment *moment)
{
    if (sent_ms < 0 || sent_ms > SENT_MS_MAX)
        return 0;
    set_day((int)(sent_ms / (DAY_S * 1000)) + EPOCH_DAYS, moment);
    set_time((int)(sent_ms / 1000 % DAY_S), moment);
    return 1;
}

int write_day(int64_t sent_ms, struct text *out)
{
    struct moment moment;
    char text[10];
    if (!set_sent(sent_ms, &moment))
        return 0;
    put_day(&moment, text);
    return text_append(out, text, sizeof text);
}

int format_moment(int64_t sent_ms, char to[MOMENT_CHARS])
{
    struct moment moment;
    if (!set_sent(sent_ms, &moment))
        return 0;
    to = put_day(&moment, to);
    *to++ = 'T';
    to = put_time(&moment, to);
    *to++ = '.';
    put_digits(to, 3, (int)(sent_ms % 1000));
    memcpy(to + 3, "+00:00", 6);
    return 1;
}

int read_ipv4(const char *at, size_t len, uint8_t address[4])
{
    const char *end = at + len;
    for (int i = 0; i < 4; i++) {
        const char *from = at;
        int number = 0;
        for (; at < end && *at >= '0' && *at <= '9' && at - from < 3; at++)
            number = number * 10 + (*at - '0');
        if (at == from || (at - from > 1 && *from == '0') || number > 255)
            return 0;
        address[i] = (uint8_t)number;
        if (i < 3 && (at == end || *at++ != '.'))
            return 0;
    }
    return at == end;
}

int write_inet(const struct value *value, struct text *out)
{
    uint8_t address[4];
    const char *slash = memchr(value->at, '/', value->len);
    size_t len = slash ? (size_t)(slash - value->at) : value->len;
    if (slash) {
        int bits, digits = (int)(value->len - len) - 1;
        if (digits < 1 || digits > 3 || !read_digits(slash + 1, digits, &bits) || bits > 32)
            return 0;
    }
    return read_ipv4(value->at, len, address) && text_append(out, value->at, value->len);
}

int read_uuid(const struct value *value, char lower[UUID_CHARS])
{
    if (value->len != UUID_CHARS)
        return 0;
    for (size_t i = 0; i < UUID_CHARS; i++) {
        char c = value->at[i];
        int dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (c >= 'A' && c <= 'F')
            c = (char)(c + 32);
        if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return 0;
        lower[i] = c;
    }
    return 1;
}
