/* SendMessage and SendMessageBatch (see send.h). */
#include "send.h"

#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "digest.h"
#include "queue.h"

enum { BATCH_BYTES_MAX = 1048576, ATTRIBUTES_MAX = 10, ID_CHARS_MAX = 128 };

/* A checked message, ready to send. */
typedef struct {
    Draft draft;
    size_t bytes; /* body and attributes, as AWS counts */
    uint32_t delay_s;
    uint8_t md5[16];
    char group_id[ID_CHARS_MAX + 1], dedup_id[ID_CHARS_MAX + 1];
    Problem problem; /* kind is NULL if there is none */
} Prepared;

/* A group or deduplication id: 1 to 128 characters, alphanumeric or punctuation. */
static bool get_label(const JsonNode *args, const char *name, char label[ID_CHARS_MAX + 1], const char **where, Problem *p) {
    static Buffer scratch;
    const JsonNode *node = arg(args, name);
    if (!node) return true;
    size_t len = 0;
    const char *text = arg_text(node, &scratch, &len);
    bool fine = text && len >= 1 && len <= ID_CHARS_MAX;
    for (size_t i = 0; fine && i < len; i++) fine = text[i] > 0x20 && text[i] < 0x7F;
    if (!fine) {
        return fail(p, &BAD_PARAMETER, "Value for parameter %s is invalid. Reason: %s can only include alphanumeric and punctuation characters. 1 to 128 in length.", name, name);
    }
    memcpy(label, text, len + 1);
    *where = label;
    return true;
}

/* Checks MessageAttributes or MessageSystemAttributes, and adds their bytes. */
static bool check_attributes(const JsonNode *object, size_t *bytes, Problem *p) {
    static Buffer scratch;
    int count = 0;
    if (object->type != JSON_OBJECT) return fail(p, &NOT_JSON, "MessageAttributes must be an object.");
    for (const JsonNode *a = arg_first(object); a; a = arg_next(a), count++) {
        const JsonNode *type = arg(a, "DataType"), *text = arg(a, "StringValue"), *binary = arg(a, "BinaryValue");
        const JsonNode *value = text ? text : binary;
        bool typed = type && type->type == JSON_STRING &&
                     ((type->len >= 6 && (memcmp(type->text, "String", 6) == 0 || memcmp(type->text, "Number", 6) == 0 || memcmp(type->text, "Binary", 6) == 0)));
        if (!typed || !value || value->type != JSON_STRING || !value->len || !a->key_len || a->key_len > 256) {
            return fail(p, &BAD_PARAMETER, "One message attribute must have a type of String, Binary or Number and a non-empty value.");
        }
        JsonNode key = {.type = JSON_STRING, .text = a->key, .len = a->key_len};
        const JsonNode *parts[] = {&key, type, value};
        for (int i = 0; i < 3; i++) {
            scratch.len = 0;
            if (json_unescape(parts[i]->text, parts[i]->len, &scratch) != TEXT_OK) {
                return fail(p, &BAD_CONTENTS, "A message attribute contains characters outside the allowed set.");
            }
            *bytes += i == 2 && value == binary ? scratch.len * 3 / 4 : scratch.len;
        }
    }
    if (count > ATTRIBUTES_MAX) return fail(p, &BAD_PARAMETER, "Number of message attributes [%d] exceeds the allowed maximum [%d].", count, ATTRIBUTES_MAX);
    return true;
}

/* Copies a part of the request and ends it with NUL; the copy is valid until the next request. */
static const char *hold(const JsonNode *node) {
    static char *held[2 * BATCH_MAX];
    static int at;
    at = (at + 1) % (2 * BATCH_MAX);
    free(held[at]);
    return held[at] = must_alloc(strndup(node->text, node->len));
}

static bool prepare_attributes(const JsonNode *args, Prepared *m, Problem *p) {
    const JsonNode *attributes = arg(args, "MessageAttributes");
    const JsonNode *system = arg(args, "MessageSystemAttributes");
    size_t ignored = 0; /* "The size of a message system attribute doesn't count" (AWS, SendMessage) */
    if (attributes && arg_first(attributes)) {
        if (!check_attributes(attributes, &m->bytes, p)) return false;
        m->draft.attributes = hold(attributes);
    }
    if (system && arg_first(system)) {
        if (!check_attributes(system, &ignored, p)) return false;
        const JsonNode *trace = arg(arg(system, "AWSTraceHeader"), "StringValue");
        if (!trace) return fail(p, &BAD_PARAMETER, "Message system attribute name is invalid: only AWSTraceHeader can be set.");
        m->draft.trace = hold(trace);
    }
    return true;
}

static bool prepare_fifo(Queue *q, const char *body, size_t len, Prepared *m, Problem *p) {
    if (!m->draft.group_id) return fail_missing(p, "MessageGroupId");
    if (m->draft.dedup_id) return true;
    if (!q->content_dedup) {
        return fail(p, &BAD_PARAMETER, "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly");
    }
    uint8_t digest[32];
    Buffer hex = {0};
    sha256(body, len, digest);
    buffer_hex(&hex, digest, 32);
    memcpy(m->dedup_id, hex.data, 64);
    m->dedup_id[64] = 0;
    m->draft.dedup_id = m->dedup_id;
    buffer_release(&hex);
    return true;
}

static bool prepare(Queue *q, const JsonNode *args, Prepared *m, Problem *p) {
    static Buffer body;
    memset(m, 0, sizeof *m);
    const JsonNode *text = arg(args, "MessageBody");
    if (!text || text->type != JSON_STRING || !text->len) return fail_missing(p, "MessageBody");
    body.len = 0;
    TextCheck check = json_unescape(text->text, text->len, &body);
    if (check == TEXT_MALFORMED) return fail(p, &NOT_JSON, "The body is not valid UTF-8 or has a bad escape.");
    if (check == TEXT_FORBIDDEN) return fail(p, &BAD_CONTENTS, "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.");
    m->bytes = body.len;
    if (options.md5 || options.manifest) md5(body.data, body.len, m->md5);
    m->draft.raw = text->text;
    m->draft.raw_len = text->len;
    m->draft.md5 = m->md5;
    if (!prepare_attributes(args, m, p)) return false;
    if (!get_label(args, "MessageGroupId", m->group_id, &m->draft.group_id, p)) return false;
    if (!get_label(args, "MessageDeduplicationId", m->dedup_id, &m->draft.dedup_id, p)) return false;
    int64_t delay_s = q->delay_s;
    if (!arg_number(args, "DelaySeconds", 0, 900, &delay_s, p)) return false;
    if (q->fifo) {
        if (delay_s != 0 && arg(args, "DelaySeconds")) {
            return fail(p, &BAD_PARAMETER, "Value %d for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.", (int)delay_s);
        }
        delay_s = q->delay_s;
        if (!prepare_fifo(q, body.data, body.len, m, p)) return false;
    } else if (m->draft.dedup_id) {
        return fail(p, &BAD_PARAMETER, "Value for parameter MessageDeduplicationId is invalid. Reason: The request include parameter that is not valid for this queue type.");
    }
    m->delay_s = (uint32_t)delay_s;
    return true;
}

static bool check_size(const Queue *q, const Prepared *m, Problem *p) {
    if (m->bytes <= q->size_max) return true;
    return fail(p, &BAD_PARAMETER, "One or more parameters are invalid. Reason: Message must be shorter than %u bytes.", q->size_max);
}

/* Sends a message and appends the members of the answer. */
static void send_and_describe(Queue *q, Prepared *m, Buffer *out) {
    uint8_t id[16];
    uint64_t sequence;
    queue_send(q, &m->draft, m->delay_s, id, &sequence);
    buffer_text(out, "\"MessageId\":\"");
    buffer_uuid(out, id);
    if (options.md5) {
        buffer_text(out, "\",\"MD5OfMessageBody\":\"");
        buffer_hex(out, m->md5, 16);
    }
    if (q->fifo) buffer_printf(out, "\",\"SequenceNumber\":\"%020llu", (unsigned long long)sequence);
    buffer_text(out, "\"");
}

bool send_message(Connection *c, const JsonNode *args, Problem *p) {
    static Prepared m;
    Queue *q = arg_queue(args, p);
    if (!q || !prepare(q, args, &m, p) || !check_size(q, &m, p)) return false;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{");
    send_and_describe(q, &m, out);
    buffer_text(out, "}");
    answer_json(c);
    return true;
}

bool send_message_batch(Connection *c, const JsonNode *args, Problem *p) {
    static Prepared prepared[BATCH_MAX];
    const JsonNode *entries[BATCH_MAX], *ids[BATCH_MAX];
    Queue *q = arg_queue(args, p);
    int n = q ? arg_entries(args, entries, ids, p) : 0;
    if (!n) return false;
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        Problem *fault = &prepared[i].problem;
        Problem found = {0};
        prepare(q, entries[i], &prepared[i], &found);
        *fault = found;
        bytes += prepared[i].bytes;
    }
    if (bytes > BATCH_BYTES_MAX) {
        return fail(p, &BATCH_TOO_LONG, "Batch requests cannot be longer than %d bytes. You have sent %zu bytes.", BATCH_BYTES_MAX, bytes);
    }
    Buffer *out = batch_begin(c);
    for (int i = 0; i < n; i++) {
        Prepared *m = &prepared[i];
        if (!m->problem.kind) check_size(q, m, &m->problem);
        if (m->problem.kind) {
            batch_failed(ids[i], m->problem.kind->code, m->problem.text, true);
        } else if (!batch_entry_fault(c, ids[i])) {
            batch_succeeded(out, ids[i]);
            buffer_text(out, ",");
            send_and_describe(q, m, out);
            buffer_text(out, "}");
        }
    }
    batch_end(c, out);
    return true;
}
