/* See sign.h. "Create a signed AWS API request", IAM User Guide. */
#include "sign.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sha256.h"

static const char ALGORITHM[] = "AWS4-HMAC-SHA256\n";
enum { HASH_CHARS = 2 * SHA256_BYTES, REST_MAX = 128 /* fixed texts, line ends, the length */ };

static char *put(char *to, struct span text)
{
    memcpy(to, text.at, text.len);
    return to + text.len;
}

static char *put_hash(char *to, const char *message, size_t len)
{
    uint8_t digest[SHA256_BYTES];
    sha256((const uint8_t *)message, len, digest);
    return write_hex(to, digest, sizeof digest);
}

size_t signed_size(const struct request *request)
{
    return request->before_date.len + request->after_date.len + request->scope.len +
           request->head.len + request->authorization.len + 2 * request->timestamp.len +
           request->body.len + 2 * HASH_CHARS + REST_MAX;
}

size_t write_signed(const struct request *request, char *to, char *scratch)
{
    char *end = put(scratch, request->before_date);
    end = put(end, request->timestamp);
    end = put(end, request->after_date);
    end = put_hash(end, request->body.at, request->body.len);
    char canonical[HASH_CHARS];
    put_hash(canonical, scratch, (size_t)(end - scratch));

    end = put(scratch, (struct span){ALGORITHM, sizeof ALGORITHM - 1});
    end = put(end, request->timestamp);
    *end++ = '\n';
    end = put(end, request->scope);
    *end++ = '\n';
    end = put(end, (struct span){canonical, sizeof canonical});
    uint8_t code[SHA256_BYTES];
    struct hmac_key key;
    hmac_key_set(&key, (const uint8_t *)request->key.at, request->key.len);
    hmac_sha256(&key, (const uint8_t *)scratch, (size_t)(end - scratch), code);
    wipe(&key, sizeof key);

    char *at = put(to, request->head);
    at = put(at, request->timestamp);
    *at++ = '\r';
    *at++ = '\n';
    at = put(at, request->authorization);
    at = write_hex(at, code, sizeof code);
    at += snprintf(at, REST_MAX, "\r\ncontent-length: %zu\r\n\r\n", request->body.len);
    at = put(at, request->body);
    return (size_t)(at - to);
}
