/* See ledger.h. The format: PostgreSQL's documentation, "COPY", "Binary Format". */
#include "ledger.h"

#include <stdint.h>
#include <string.h>

#include "key.h"

enum { HEADER_BYTES = LEDGER_BINARY_MORE - 2, KEY_BYTES = 16 };
static const char HEADER[HEADER_BYTES] = "PGCOPY\n\377\r\n"; /* no flags, no extension */

struct entry { /* of the ledger: one line */
    const char *id;
    size_t id_len;
    const struct ledger_end *end;
};

/* Read the line at `at`; return where the next one begins, NULL where it is of another form. */
static const char *read_entry(const char *at, const char *stop, const struct ledger_end *ends,
                              size_t count, struct entry *entry)
{
    if (stop - at <= KEY_CHARS || at[KEY_CHARS] != '\t')
        return NULL;
    entry->id = at + KEY_CHARS + 1;
    const char *tab = memchr(entry->id, '\t', (size_t)(stop - entry->id));
    if (tab == NULL)
        return NULL;
    entry->id_len = (size_t)(tab - entry->id);
    for (size_t i = 0; i < count; i++) {
        entry->end = &ends[i];
        size_t len = entry->end->text_len;
        if ((size_t)(stop - tab - 1) >= len && memcmp(tab + 1, entry->end->text, len) == 0)
            return tab + 1 + len;
    }
    return NULL;
}

static int is_plain(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)at[i] < ' ' || (unsigned char)at[i] > '~' || at[i] == '\\')
            return 0;
    return 1;
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The 16 bytes of a key's characters; 0 where they are none. */
static int read_key(const char *at, uint8_t key[KEY_BYTES])
{
    int bad = 0;
    for (int i = 0, to = 0; i < KEY_CHARS;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            bad |= at[i++] == '-' ? 0 : -1;
            continue;
        }
        int high = digit_of(at[i]), low = digit_of(at[i + 1]);
        bad |= high | low;
        key[to++] = (uint8_t)((unsigned)high << 4 | (unsigned)(low & 15));
        i += 2;
    }
    return bad >= 0;
}

static char *put(char *to, const void *bytes, size_t len)
{
    memcpy(to, bytes, len);
    return to + len;
}

static char *put_16(char *to, unsigned number)
{
    const uint8_t bytes[2] = {(uint8_t)(number >> 8), (uint8_t)number};
    return put(to, bytes, sizeof bytes);
}

static char *put_32(char *to, size_t number)
{
    return put_16(put_16(to, (unsigned)(number >> 16) & 0xffff), (unsigned)number & 0xffff);
}

size_t ledger_write_binary(const char *at, size_t len, const struct ledger_end *ends, size_t count,
                           unsigned columns, char *to)
{
    const char *stop = at + len, *begin = to;
    uint8_t key[KEY_BYTES];
    struct entry entry;
    to = put(to, HEADER, HEADER_BYTES);
    while (at < stop) {
        const char *next = read_entry(at, stop, ends, count, &entry);
        if (next == NULL || !read_key(at, key) || !is_plain(entry.id, entry.id_len))
            return 0;
        to = put_32(put_16(to, columns), KEY_BYTES);
        to = put_32(put(to, key, KEY_BYTES), entry.id_len);
        to = put(put(to, entry.id, entry.id_len), entry.end->fields, entry.end->fields_len);
        at = next;
    }
    return (size_t)(put_16(to, 0xffff) - begin);
}
