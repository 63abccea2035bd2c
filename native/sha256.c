/* Two compressions: plain C for every processor, and the SHA extensions of x86 if the processor has
 * them. The two are compared at start, and with hashlib in the tests. */
#include "sha256.h"

#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_SHA_NI 1
#include <cpuid.h>
#include <immintrin.h>
#endif

typedef void compress_fn(uint32_t state[8], const uint8_t *blocks, size_t count);

static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* FIPS 180-4, section 4.2.2. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t load_be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be(uint8_t *p, uint32_t x)
{
#if (defined(__GNUC__) || defined(__clang__)) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap32(x); /* byte by byte the compiler makes three times as much of it */
    memcpy(p, &x, sizeof x);
#else
    p[0] = (uint8_t)(x >> 24);
    p[1] = (uint8_t)(x >> 16);
    p[2] = (uint8_t)(x >> 8);
    p[3] = (uint8_t)x;
#endif
}

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* FIPS 180-4, section 6.2.2. */
static void compress_c(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (; count; count--, blocks += SHA256_BLOCK) {
        uint32_t w[64];
        for (int t = 0; t < 16; t++)
            w[t] = load_be(blocks + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
            uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
            w[t] = w[t - 16] + s0 + w[t - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int t = 0; t < 64; t++) {
            uint32_t s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
            uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + K[t] + w[t];
            uint32_t s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
            uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g;
            g = f;
            f = e;
            e = d + t1;
            d = c;
            c = b;
            b = a;
            a = t1 + t2;
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
        state[5] += f;
        state[6] += g;
        state[7] += h;
    }
}

#ifdef HAVE_SHA_NI
/* Intel, "New Instructions Supporting the Secure Hash Algorithm on Intel Architecture
 * Processors" (2013): SHA256RNDS2 does two rounds on a state kept as ABEF and CDGH, SHA256MSG1
 * and SHA256MSG2 make four words of the message schedule out of the sixteen before. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress_ni(uint32_t state[8],
                                                                    const uint8_t *blocks,
                                                                    size_t count)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i low = _mm_loadu_si128((const __m128i *)state);        /* D C B A */
    __m128i high = _mm_loadu_si128((const __m128i *)(state + 4)); /* H G F E */
    low = _mm_shuffle_epi32(low, 0xb1);                           /* C D A B */
    high = _mm_shuffle_epi32(high, 0x1b);                         /* E F G H */
    __m128i abef = _mm_alignr_epi8(low, high, 8);
    __m128i cdgh = _mm_blend_epi16(high, low, 0xf0);
    for (; count; count--, blocks += SHA256_BLOCK) {
        __m128i abef_before = abef, cdgh_before = cdgh, m[4];
        for (int i = 0; i < 4; i++)
            m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks + 16 * i)), swap);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) {
            __m128i now = m[t & 3];
            __m128i wk = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(K + 4 * t)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
            if (t < 12) { /* words 16 + 4t to 19 + 4t take the place of these four */
                __m128i next = _mm_sha256msg1_epu32(now, m[(t + 1) & 3]);
                __m128i last = m[(t + 3) & 3];
                next = _mm_add_epi32(next, _mm_alignr_epi8(last, m[(t + 2) & 3], 4));
                m[t & 3] = _mm_sha256msg2_epu32(next, last);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1b);                                      /* A B E F */
    high = _mm_shuffle_epi32(cdgh, 0xb1);                                     /* D C H G */
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xf0));     /* D C B A */
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8)); /* H G F E */
}

static int has_sha_ni(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 9) || !(c & 1u << 19))
        return 0; /* SSSE3, SSE4.1 */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}
#endif

static compress_fn *compress = compress_c;

/* Run two blocks through both: a compression that differs from the plain one is not used. */
static int agrees(compress_fn *other)
{
    uint8_t blocks[2 * SHA256_BLOCK];
    uint32_t one[8], two[8];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (uint8_t)(i * 37 + 11);
    memcpy(one, START, sizeof one);
    memcpy(two, START, sizeof two);
    compress_c(one, blocks, 2);
    other(two, blocks, 2);
    return memcmp(one, two, sizeof one) == 0;
}

const char *sha256_choose(void)
{
#ifdef HAVE_SHA_NI
    if (has_sha_ni() && agrees(compress_ni)) {
        compress = compress_ni;
        return "sha-ni";
    }
#endif
    return agrees(compress) ? "c" : "";
}

void wipe(void *memory, size_t len)
{
#if defined(__GNUC__) || defined(__clang__)
    memset(memory, 0, len);
    __asm__ __volatile__("" : : "r"(memory) : "memory"); /* somebody may look: so it is not left out */
#else
    volatile uint8_t *p = memory;
    while (len--)
        *p++ = 0;
#endif
}

/* Finish a state that has absorbed `before` bytes: add the rest of the message, padding, length. */
static void finish(uint32_t state[8], size_t before, const uint8_t *message, size_t len)
{
    uint8_t block[2 * SHA256_BLOCK];
    uint64_t bits = ((uint64_t)len + before) * 8;
    size_t whole = len / SHA256_BLOCK, rest = len % SHA256_BLOCK;
    size_t blocks = rest < SHA256_BLOCK - 8 ? 1 : 2;
    if (whole)
        compress(state, message, whole);
    if (rest)
        memcpy(block, message + whole * SHA256_BLOCK, rest);
    memset(block + rest, 0, blocks * SHA256_BLOCK - rest);
    block[rest] = 0x80;
    store_be(block + blocks * SHA256_BLOCK - 8, (uint32_t)(bits >> 32));
    store_be(block + blocks * SHA256_BLOCK - 4, (uint32_t)bits);
    compress(state, block, blocks);
}

static void store_state(uint8_t out[SHA256_BYTES], const uint32_t state[8])
{
    for (int i = 0; i < 8; i++)
        store_be(out + 4 * i, state[i]);
}

void sha256(const uint8_t *message, size_t len, uint8_t out[SHA256_BYTES])
{
    uint32_t state[8];
    memcpy(state, START, sizeof state);
    finish(state, 0, message, len);
    store_state(out, state);
}

char *write_hex(char *to, const uint8_t *digest, size_t len)
{
    static const char HEX[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *to++ = HEX[digest[i] >> 4];
        *to++ = HEX[digest[i] & 15];
    }
    return to;
}

void hmac_key_set(struct hmac_key *into, const uint8_t *key, size_t len)
{
    uint8_t pad[SHA256_BLOCK];
    memset(pad, 0x36, sizeof pad);
    for (size_t i = 0; i < len; i++)
        pad[i] ^= key[i];
    memcpy(into->inner, START, sizeof START);
    compress(into->inner, pad, 1);
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    memcpy(into->outer, START, sizeof START);
    compress(into->outer, pad, 1);
    wipe(pad, sizeof pad);
}

void hmac_sha256(const struct hmac_key *key, const uint8_t *message, size_t len,
                 uint8_t out[SHA256_BYTES])
{
    enum { OUTER_BITS = 8 * (SHA256_BLOCK + SHA256_BYTES) }; /* of the outer hash's message */
    uint32_t state[8];
    uint8_t last[SHA256_BLOCK] = {[SHA256_BYTES] = 0x80,
                                  [SHA256_BLOCK - 2] = OUTER_BITS >> 8,
                                  [SHA256_BLOCK - 1] = OUTER_BITS & 0xff};
    memcpy(state, key->inner, sizeof state);
    finish(state, SHA256_BLOCK, message, len);
    store_state(last, state);
    memcpy(state, key->outer, sizeof state);
    compress(state, last, 1);
    store_state(out, state);
}
