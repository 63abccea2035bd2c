/* The JSON reader (see json.h). Recursive descent, bounded in depth and nodes. */
#include "json.h"

#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef struct {
    Json *json;
    const char *at, *end;
} Reader;

static void skip_space(Reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
}

/* Advances to the first quote, backslash or control character, sixteen bytes at a time if possible. */
static const char *scan_string(const char *at, const char *end) {
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), last_control = _mm_set1_epi8(0x1F);
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)at);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, last_control), bytes);
        __m128i special = _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, slash));
        int found = _mm_movemask_epi8(_mm_or_si128(special, control));
        if (found) return at + __builtin_ctz((unsigned)found);
        at += 16;
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) at++;
    return at;
}

/* Reads a string, from after its opening quote to after its closing quote. */
static bool read_string(Reader *r, const char **text, uint32_t *len) {
    const char *start = r->at;
    for (;;) {
        r->at = scan_string(r->at, r->end);
        if (r->at >= r->end || (unsigned char)*r->at < 0x20) return false;
        if (*r->at == '"') break;
        if (r->end - r->at < 2) return false;
        r->at += 2; /* json_unescape checks what follows a backslash */
    }
    *text = start;
    *len = (uint32_t)(r->at - start);
    r->at++;
    return true;
}

static bool read_digits(Reader *r) {
    const char *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return r->at > start;
}

static bool read_number(Reader *r) {
    if (r->at < r->end && *r->at == '-') r->at++;
    if (r->at < r->end && *r->at == '0') {
        r->at++;
    } else if (!read_digits(r)) {
        return false;
    }
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!read_digits(r)) return false;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        if (!read_digits(r)) return false;
    }
    return true;
}

static bool read_word(Reader *r, const char *word, size_t len) {
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0) return false;
    r->at += len;
    return true;
}

static uint32_t new_node(Json *json) {
    if (json->count >= JSON_NODES_MAX) return 0;
    if (json->count == json->cap) {
        json->cap = json->cap ? json->cap * 2 : 256;
        json->nodes = must_alloc(realloc(json->nodes, json->cap * sizeof *json->nodes));
    }
    memset(&json->nodes[json->count], 0, sizeof *json->nodes);
    return json->count++;
}

static uint32_t read_value(Reader *r, int depth);

/* Reads the members of an array or object, after its bracket; returns false on an error. */
static bool read_members(Reader *r, uint32_t parent, bool keyed, int depth) {
    char close = keyed ? '}' : ']';
    uint32_t last = 0;
    skip_space(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        return true;
    }
    for (;;) {
        const char *key = NULL;
        uint32_t key_len = 0;
        skip_space(r);
        if (keyed) {
            if (r->at >= r->end || *r->at != '"') return false;
            r->at++;
            if (!read_string(r, &key, &key_len)) return false;
            skip_space(r);
            if (r->at >= r->end || *r->at != ':') return false;
            r->at++;
        }
        uint32_t child = read_value(r, depth + 1);
        if (!child) return false;
        JsonNode *nodes = r->json->nodes;
        nodes[child].key = key;
        nodes[child].key_len = key_len;
        if (last) {
            nodes[last].next = child;
        } else {
            nodes[parent].child = child;
        }
        last = child;
        skip_space(r);
        if (r->at >= r->end) return false;
        char c = *r->at++;
        if (c == close) return true;
        if (c != ',') return false;
    }
}

/* Reads any value; returns its index, or 0 on an error. */
static uint32_t read_value(Reader *r, int depth) {
    skip_space(r);
    uint32_t index = new_node(r->json);
    if (!index || r->at >= r->end || depth > JSON_DEPTH_MAX) return 0;
    const char *start = r->at, *text = start;
    uint32_t len = 0;
    JsonType type;
    bool ok;
    switch (*r->at) {
        case '"':
            r->at++;
            type = JSON_STRING;
            if (!read_string(r, &text, &len)) return 0;
            ok = true;
            break;
        case '{': r->at++, type = JSON_OBJECT, ok = read_members(r, index, true, depth); break;
        case '[': r->at++, type = JSON_ARRAY, ok = read_members(r, index, false, depth); break;
        case 't': type = JSON_TRUE, ok = read_word(r, "true", 4); break;
        case 'f': type = JSON_FALSE, ok = read_word(r, "false", 5); break;
        case 'n': type = JSON_NULL, ok = read_word(r, "null", 4); break;
        default: type = JSON_NUMBER, ok = read_number(r); break;
    }
    if (!ok) return 0;
    JsonNode *node = &r->json->nodes[index];
    node->type = type;
    node->text = text;
    node->len = type == JSON_STRING ? len : (uint32_t)(r->at - start);
    return index;
}

const JsonNode *json_parse(Json *json, const char *text, size_t len) {
    json->count = 0;
    new_node(json); /* index 0 means "none" */
    Reader r = {json, text, text + len};
    uint32_t root = read_value(&r, 0);
    skip_space(&r);
    return root && r.at == r.end ? &json->nodes[root] : NULL;
}

const JsonNode *json_first(const Json *json, const JsonNode *parent) {
    return parent && parent->child ? &json->nodes[parent->child] : NULL;
}

const JsonNode *json_next(const Json *json, const JsonNode *node) {
    return node->next ? &json->nodes[node->next] : NULL;
}

const JsonNode *json_get(const Json *json, const JsonNode *object, const char *key) {
    if (!object || object->type != JSON_OBJECT) return NULL;
    size_t len = strlen(key);
    for (const JsonNode *n = json_first(json, object); n; n = json_next(json, n)) {
        if (n->key_len == len && memcmp(n->key, key, len) == 0) return n->type == JSON_NULL ? NULL : n;
    }
    return NULL;
}

bool json_is(const JsonNode *node, const char *text) {
    return node && node->type == JSON_STRING && node->len == strlen(text) && memcmp(node->text, text, node->len) == 0;
}

bool json_integer(const JsonNode *node, int64_t *value) {
    if (!node || (node->type != JSON_NUMBER && node->type != JSON_STRING)) return false;
    size_t i = 0, len = node->len;
    bool negative = len && node->text[0] == '-';
    if (negative) i++;
    if (i == len || len - i > 15) return false;
    int64_t sum = 0;
    for (; i < len; i++) {
        if (node->text[i] < '0' || node->text[i] > '9') return false;
        sum = sum * 10 + (node->text[i] - '0');
    }
    *value = negative ? -sum : sum;
    return true;
}

bool json_real(const JsonNode *node, double *value) {
    if (!node || node->type != JSON_NUMBER || node->len >= 40) return false;
    char text[40];
    memcpy(text, node->text, node->len);
    text[node->len] = 0;
    *value = strtod(text, NULL);
    return true;
}

static bool read_hex4(const char *at, const char *end, uint32_t *unit) {
    if (end - at < 4) return false;
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return false;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

static size_t put_utf8(char *at, uint32_t c) {
    if (c < 0x80) {
        at[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        at[0] = (char)(0xC0 | c >> 6);
        at[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        at[0] = (char)(0xE0 | c >> 12);
        at[1] = (char)(0x80 | (c >> 6 & 63));
        at[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    at[0] = (char)(0xF0 | c >> 18);
    at[1] = (char)(0x80 | (c >> 12 & 63));
    at[2] = (char)(0x80 | (c >> 6 & 63));
    at[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Reads one UTF-8 sequence of two to four bytes (RFC 3629: shortest form, no surrogates). */
static size_t read_utf8(const char *at, const char *end, uint32_t *c) {
    const unsigned char *s = (const unsigned char *)at;
    size_t more = s[0] >= 0xF0 ? 3 : s[0] >= 0xE0 ? 2 : 1;
    if (s[0] < 0xC2 || s[0] > 0xF4 || (size_t)(end - at) <= more) return 0;
    uint32_t value = s[0] & (0x3Fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (s[i] & 63);
    }
    static const uint32_t LEAST[] = {0, 0x80, 0x800, 0x10000};
    if (value < LEAST[more] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
    *c = value;
    return more + 1;
}

static bool allowed(uint32_t c) {
    return c >= 0x20 ? (c < 0xD800 || c > 0xDFFF) && c != 0xFFFE && c != 0xFFFF : c == 9 || c == 10 || c == 13;
}

/* Reads the escape after a backslash; advances at. */
static bool read_escape(const char **at, const char *end, uint32_t *c) {
    if (*at >= end) return false;
    char kind = *(*at)++;
    switch (kind) {
        case '"': case '\\': case '/': *c = (uint32_t)kind; return true;
        case 'b': *c = 8; return true;
        case 'f': *c = 12; return true;
        case 'n': *c = 10; return true;
        case 'r': *c = 13; return true;
        case 't': *c = 9; return true;
        case 'u': break;
        default: return false;
    }
    if (!read_hex4(*at, end, c)) return false;
    *at += 4;
    uint32_t low;
    if (*c >= 0xD800 && *c < 0xDC00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u' &&
        read_hex4(*at + 2, end, &low) && low >= 0xDC00 && low < 0xE000) {
        *c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
        *at += 6;
    }
    return true;
}

TextCheck json_unescape(const char *raw, size_t len, Buffer *out) {
    const char *at = raw, *end = raw + len;
    char *put = buffer_room(out, len + 4); /* an escape is never shorter than its character */
    char *start = put;
    bool forbidden = false;
    while (at < end) {
        uint32_t c;
        unsigned char byte = (unsigned char)*at;
        if (byte == '\\') {
            at++;
            if (!read_escape(&at, end, &c)) return TEXT_MALFORMED;
            forbidden |= !allowed(c);
            put += put_utf8(put, c);
        } else if (byte < 0x80) {
            *put++ = *at++;
        } else {
            size_t n = read_utf8(at, end, &c);
            if (!n) return TEXT_MALFORMED;
            forbidden |= !allowed(c);
            memcpy(put, at, n);
            put += n;
            at += n;
        }
    }
    out->len += (size_t)(put - start);
    return forbidden ? TEXT_FORBIDDEN : TEXT_OK;
}
