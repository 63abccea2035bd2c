/* See key.h. UUIDv7 is RFC 9562, section 5.7. */
#include "key.h"

#include <string.h>

#include "sha256.h"

/* 48 bits of milliseconds. */
static const int64_t KEY_MS_MAX = ((int64_t)1 << 48) - 1;

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Version 4 or 8 of RFC 9562, sections 5.4 and 5.8, in its text form and in lower case. */
static int is_uuid(const char *id, size_t len, char version)
{
    if (len != KEY_CHARS)
        return 0;
    for (size_t i = 0; i < KEY_CHARS; i++) {
        int dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? id[i] != '-' : !is_hex(id[i]))
            return 0;
    }
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
