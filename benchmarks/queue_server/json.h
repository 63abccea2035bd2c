/* A strict JSON reader (RFC 8259). Nodes point into the text, and strings stay escaped, so that a
 * message body is stored and returned exactly as it was sent. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum { JSON_DEPTH_MAX = 32, JSON_NODES_MAX = 1 << 16 };

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

typedef struct JsonNode {
    const char *text; /* a string's content, still escaped; the whole text of any other value */
    const char *key;  /* escaped; NULL outside objects */
    uint32_t len, key_len;
    uint32_t next, child; /* indexes of the next sibling and the first child; 0: none */
    JsonType type;
} JsonNode;

typedef struct {
    JsonNode *nodes;
    uint32_t count, cap;
} Json;

/* Parses one document; returns its root, or NULL if the text is not JSON or exceeds a bound.
 * The nodes are valid until the next parse with the same Json. */
const JsonNode *json_parse(Json *json, const char *text, size_t len);
const JsonNode *json_get(const Json *json, const JsonNode *object, const char *key);
const JsonNode *json_first(const Json *json, const JsonNode *parent);
const JsonNode *json_next(const Json *json, const JsonNode *node);
bool json_is(const JsonNode *node, const char *text); /* a string equal to text */
/* Reads an integer from a number (or from a string, as AWS allows in attributes); false if not one. */
bool json_integer(const JsonNode *node, int64_t *value);
bool json_real(const JsonNode *node, double *value);

typedef enum { TEXT_OK, TEXT_MALFORMED, TEXT_FORBIDDEN } TextCheck;
/* Appends an unescaped string. TEXT_MALFORMED: a bad escape or not UTF-8.
 * TEXT_FORBIDDEN: outside #x9 #xA #xD #x20-#xD7FF #xE000-#xFFFD #x10000-#x10FFFF
 * (AWS SQS API reference, SendMessage, MessageBody); lone surrogates too. */
TextCheck json_unescape(const char *raw, size_t len, Buffer *out);

#endif
