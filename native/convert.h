/* A value -> the text of its column, as `mapping/convert.py` gives it, by the field's type. Each
 * appends to `out` and returns 1, or returns 0 where it is left to Python: a fault, or a rare form. */
#ifndef SQS2PG_CONVERT_H
#define SQS2PG_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "text.h"

enum { UUID_CHARS = 36 };

/* Python's repr of the nearest double of a number, without a NUL at its end: its length, at most
 * `size`; 0 where it is infinite, or zero and the number is not. NULL: none is converted. */
typedef size_t format_double(const char *number, size_t len, char *to, size_t size);
extern format_double *convert_double_by;

/* A text with COPY's escapes. */
int write_escaped(const struct value *value, struct text *out);

/* The characters of UTF-8. */
size_t count_characters(const char *at, size_t len);

int write_integer(const struct value *value, int64_t low, int64_t high, struct text *out);
int write_numeric(const struct value *value, struct text *out);
int write_double(const struct value *value, struct text *out);
int write_version(const struct value *value, int64_t low, int64_t high, struct text *out);
int write_major(const struct value *value, int64_t low, int64_t high, struct text *out);
int write_date(const struct value *value, struct text *out);
int write_timestamp(const struct value *value, struct text *out);
/* A number of units since 1970, so many digits of which are of a second's fraction: 0, 3, 6. */
int write_epoch(const struct value *value, int digits, int is_date, struct text *out);

int write_inet(const struct value *value, struct text *out);
int write_jsonb(const struct value *value, struct text *out);

/* The lower case of a UUID of 32 digits and four hyphens. */
int read_uuid(const struct value *value, char lower[UUID_CHARS]);

/* Four numbers to 255 without leading zeros, as POSIX's `inet_pton` takes them. */
int read_ipv4(const char *at, size_t len, uint8_t address[4]);

/* The UTC day of a SentTimestamp, YYYY-MM-DD. */
int write_day(int64_t sent_ms, struct text *out);

enum { MOMENT_CHARS = 29 };

/* A SentTimestamp as Python's isoformat gives it: 2026-11-22T10:11:12.345+00:00. */
int format_moment(int64_t sent_ms, char to[MOMENT_CHARS]);

#endif
