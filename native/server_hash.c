/* See server_hash.h. */
#include "server_hash.h"

enum { BLOCK = 12 };
#define FIRST UINT32_C(0x9e3779b9)
#define MORE UINT32_C(3923095)

struct state {
    uint32_t a, b, c;
};

static uint32_t turn(uint32_t word, int by)
{
    return word << by | word >> (32 - by);
}

static void mix(struct state *s)
{
    s->a = (s->a - s->c) ^ turn(s->c, 4);
    s->c += s->b;
    s->b = (s->b - s->a) ^ turn(s->a, 6);
    s->a += s->c;
    s->c = (s->c - s->b) ^ turn(s->b, 8);
    s->b += s->a;
    s->a = (s->a - s->c) ^ turn(s->c, 16);
    s->c += s->b;
    s->b = (s->b - s->a) ^ turn(s->a, 19);
    s->a += s->c;
    s->c = (s->c - s->b) ^ turn(s->b, 4);
    s->b += s->a;
}

static void finish(struct state *s)
{
    s->c = (s->c ^ s->b) - turn(s->b, 14);
    s->a = (s->a ^ s->c) - turn(s->c, 11);
    s->b = (s->b ^ s->a) - turn(s->a, 25);
    s->c = (s->c ^ s->b) - turn(s->b, 16);
    s->a = (s->a ^ s->c) - turn(s->c, 4);
    s->b = (s->b ^ s->a) - turn(s->a, 14);
    s->c = (s->c ^ s->b) - turn(s->b, 24);
}

static uint32_t word(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint64_t server_hash(const void *bytes, size_t len, uint64_t seed)
{
    const unsigned char *at = bytes;
    uint32_t first = FIRST + (uint32_t)len + MORE;
    struct state s = {first, first, first};
    if (seed != 0) {
        s.a += (uint32_t)(seed >> 32);
        s.b += (uint32_t)seed;
        mix(&s);
    }
    for (; len >= BLOCK; len -= BLOCK, at += BLOCK) {
        s.a += word(at);
        s.b += word(at + 4);
        s.c += word(at + 8);
        mix(&s);
    }
    uint32_t rest[3] = {0, 0, 0}; /* the lowest byte of the third is the length's */
    for (size_t i = 0; i < len; i++)
        rest[i / 4] |= (uint32_t)at[i] << (8 * (i % 4));
    s.a += rest[0];
    s.b += rest[1];
    s.c += rest[2] << 8;
    finish(&s);
    return (uint64_t)s.b << 32 | s.c;
}
