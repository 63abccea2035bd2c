/* See key.h. UUIDv7 is RFC 9562, section 5.7. */
#include "key.h"

#include <string.h>

#include "sha256.h"

/* 48 bits of milliseconds. */
static const int64_t KEY_MS_MAX = ((int64_t)1 << 48) - 1;

static const uint8_t IS_HEX[256] = {
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1,
    ['8'] = 1, ['9'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1};

/* Whether the characters from one place to before another are digits. */
static int are_hex(const char *id, size_t from, size_t to)
{
    int all = 1;
    for (size_t i = from; i < to; i++)
        all &= IS_HEX[(unsigned char)id[i]];
    return all;
}

/* Version 4 or 8 of RFC 9562, sections 5.4 and 5.8, in its text form and in lower case. */
static int is_uuid(const char *id, size_t len, char version)
{
    if (len != KEY_CHARS)
        return 0;
    if (id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-')
        return 0;
    if (!(are_hex(id, 0, 8) & are_hex(id, 9, 13) & are_hex(id, 14, 18) & are_hex(id, 19, 23) &
          are_hex(id, 24, KEY_CHARS)))
        return 0;
    return id[14] == version && (id[19] == '8' || id[19] == '9' || id[19] == 'a' || id[19] == 'b');
}

int write_key(const char *id, size_t len, int64_t sent_ms, enum keying keying, char key[KEY_CHARS])
{
    static const char HEX[] = "0123456789abcdef";
    if (sent_ms < 0 || sent_ms > KEY_MS_MAX || !is_uuid(id, len, keying == KEY_OF_LINE ? '8' : '4'))
        return 0;
    memcpy(key, id, KEY_CHARS);
    uint64_t stamp = keying == KEY_UNDATED ? 0 : (uint64_t)sent_ms;
    for (int i = 12; i >= 0; i--) {
        if (i == 8)
            continue; /* the dash */
        key[i] = HEX[stamp & 15];
        stamp >>= 4;
    }
    key[14] = '7';
    return 1;
}

void write_event_key(const uint8_t *mark, char key[KEY_CHARS])
{
    static const char HEX[] = "0123456789abcdef";
    const uint8_t variant = (uint8_t)((mark[2] & 0x3f) | 0x80);
    memcpy(key, "00000000-0000-7", 15);
    key[15] = HEX[mark[0] >> 4];
    key[16] = HEX[mark[0] & 15];
    key[17] = HEX[mark[1] >> 4];
    key[18] = '-';
    write_hex(key + 19, &variant, 1);
    write_hex(key + 21, mark + 3, 1);
    key[23] = '-';
    write_hex(key + 24, mark + 4, 6);
}
