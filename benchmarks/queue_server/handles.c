/* Receipt handles (see handles.h). */
#include "handles.h"

#include <string.h>

#include "server.h"

/* 24 bytes as base64, then padding that makes a handle as long as on AWS. */
typedef struct {
    uint32_t queue, slot;
    uint64_t serial;
    uint32_t receive, check;
} Handle;
enum { HANDLE_CORE_CHARS = 32 };

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint32_t handle_check(const Handle *h) {
    return (uint32_t)random_mix(h->serial ^ (uint64_t)h->slot << 32 ^ (uint64_t)h->receive << 16 ^ h->queue);
}

static void handle_fill(char *text, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) text[i] = BASE64[(i * 37 + i / 64) % 64];
}

static const char *handle_filler(void) {
    static char filler[1024];
    if (!filler[HANDLE_CORE_CHARS]) handle_fill(filler, HANDLE_CORE_CHARS, sizeof filler);
    return filler;
}

void handle_write(const Message *m, char *text) {
    Handle h = {m->queue->id, m->link.slot, m->serial, m->receive_count, 0};
    h.check = handle_check(&h);
    const uint8_t *b = (const uint8_t *)&h;
    for (int i = 0, o = 0; i < 24; i += 3, o += 4) {
        uint32_t v = (uint32_t)b[i] << 16 | (uint32_t)b[i + 1] << 8 | b[i + 2];
        text[o] = BASE64[v >> 18];
        text[o + 1] = BASE64[v >> 12 & 63];
        text[o + 2] = BASE64[v >> 6 & 63];
        text[o + 3] = BASE64[v & 63];
    }
    memcpy(text + HANDLE_CORE_CHARS, handle_filler() + HANDLE_CORE_CHARS, options.handle_chars - HANDLE_CORE_CHARS);
}

/* The value of each base64 character; 64 for any other byte. */
static const uint8_t *base64_values(void) {
    static uint8_t values[256];
    if (!values['\n']) {
        memset(values, 64, sizeof values);
        for (int i = 0; i < 64; i++) values[(unsigned char)BASE64[i]] = (uint8_t)i;
    }
    return values;
}

HandleState handle_read(const Queue *q, const char *text, size_t len, Message **message) {
    Handle h;
    uint8_t *b = (uint8_t *)&h;
    if (len != options.handle_chars) return HANDLE_MALFORMED;
    if (memcmp(text + HANDLE_CORE_CHARS, handle_filler() + HANDLE_CORE_CHARS, len - HANDLE_CORE_CHARS) != 0) return HANDLE_MALFORMED;
    const uint8_t *values = base64_values();
    uint32_t seen = 0;
    for (int i = 0, o = 0; i < 24; i += 3, o += 4) {
        uint32_t v0 = values[(unsigned char)text[o]], v1 = values[(unsigned char)text[o + 1]];
        uint32_t v2 = values[(unsigned char)text[o + 2]], v3 = values[(unsigned char)text[o + 3]];
        uint32_t word = v0 << 18 | v1 << 12 | v2 << 6 | v3;
        seen |= v0 | v1 | v2 | v3;
        b[i] = (uint8_t)(word >> 16), b[i + 1] = (uint8_t)(word >> 8), b[i + 2] = (uint8_t)word;
    }
    if (seen & 64) return HANDLE_MALFORMED;
    Message *m;
    if (h.check != handle_check(&h) || h.queue != q->id || !message_in_slot(h.slot, &m)) return HANDLE_MALFORMED;
    if (!m || m->serial != h.serial || m->queue != q) return HANDLE_GONE;
    *message = m;
    return m->receive_count == h.receive ? HANDLE_CURRENT : HANDLE_STALE;
}
