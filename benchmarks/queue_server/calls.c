/* The SQS calls (see calls.h). Codes and texts come from the AWS SQS API reference, or were observed
 * on the service. `x-amzn-query-error` carries the codes of the older protocol, which AWS SDKs show
 * to their callers. */
#include "calls.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "attributes.h"
#include "digest.h"
#include "faults.h"
#include "json.h"
#include "queue.h"

enum { BATCH_MAX = 10, BATCH_BYTES_MAX = 1048576, ATTRIBUTES_MAX = 10, ID_CHARS_MAX = 128 };
static const char JSON_TYPE[] = "application/x-amz-json-1.0";

/* ---- problems ---- */

typedef struct {
    const char *type, *code;
} Kind;
#define SQS "com.amazonaws.sqs#"
#define CORAL "com.amazon.coral.service#"
static const Kind
    QUEUE_MISSING = {SQS "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"},
    QUEUE_EXISTS = {SQS "QueueNameExists", "QueueAlreadyExists"},
    EMPTY_BATCH = {SQS "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest"},
    TOO_MANY_ENTRIES = {SQS "TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"},
    IDS_NOT_DISTINCT = {SQS "BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"},
    BAD_ENTRY_ID = {SQS "InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId"},
    BATCH_TOO_LONG = {SQS "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"},
    BAD_HANDLE = {SQS "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"},
    BAD_CONTENTS = {SQS "InvalidMessageContents", "InvalidMessageContents"},
    BAD_ATTRIBUTE_NAME = {SQS "InvalidAttributeName", "InvalidAttributeName"},
    BAD_ATTRIBUTE_VALUE = {SQS "InvalidAttributeValue", "InvalidAttributeValue"},
    OVER_LIMIT = {SQS "OverLimit", "OverLimit"},
    BAD_PARAMETER = {CORAL "InvalidParameterValueException", "InvalidParameterValue"},
    MISSING_PARAMETER = {CORAL "MissingRequiredParameterException", "MissingParameter"},
    NOT_JSON = {CORAL "SerializationException", "MalformedInput"},
    UNKNOWN_OPERATION = {CORAL "UnknownOperationException", "InvalidAction"};

typedef struct {
    const Kind *kind;
    char text[384];
} Problem;

/* Fills in a problem; returns false, so that a check can end with `return fail(...)`. */
static bool fail(Problem *p, const Kind *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(Problem *p, const Kind *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    p->kind = kind;
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return false;
}

static bool fail_missing(Problem *p, const char *name) {
    return fail(p, &MISSING_PARAMETER, "The request must contain the parameter %s.", name);
}

static void answer_error(Connection *c, int status, const char *type, const char *query_code, const char *message) {
    char header[128];
    snprintf(header, sizeof header, "%s;%s", query_code, status < 500 ? "Sender" : "Receiver");
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"__type\":\"");
    buffer_add(out, type, strlen(type));
    buffer_text(out, "\",\"message\":\"");
    buffer_escaped(out, message, strlen(message));
    buffer_text(out, "\"}");
    answer_end(c, status, JSON_TYPE, header);
}

static void answer_problem(Connection *c, const Problem *p) { answer_error(c, 400, p->kind->type, p->kind->code, p->text); }

static void answer_json(Connection *c) { answer_end(c, 200, JSON_TYPE, NULL); }

static void answer_empty(Connection *c) {
    Buffer *out = answer_begin(c);
    buffer_text(out, "{}");
    answer_json(c);
}

/* ---- arguments ---- */

static Json request_json; /* the request being handled */

static const JsonNode *get(const JsonNode *object, const char *key) { return json_get(&request_json, object, key); }
static const JsonNode *first(const JsonNode *parent) { return json_first(&request_json, parent); }
static const JsonNode *next(const JsonNode *node) { return json_next(&request_json, node); }

/* Returns the unescaped text of a string node, stored in scratch; NULL if it is not valid text. */
static const char *plain(const JsonNode *node, Buffer *scratch, size_t *len) {
    if (!node || node->type != JSON_STRING) return NULL;
    scratch->len = 0;
    if (json_unescape(node->text, node->len, scratch) != TEXT_OK) return NULL;
    buffer_room(scratch, 1)[0] = 0;
    *len = scratch->len;
    return scratch->data;
}

/* Reads an optional integer and checks its range. */
static bool get_number(const JsonNode *args, const char *name, int64_t least, int64_t most, int64_t *value, Problem *p) {
    const JsonNode *node = get(args, name);
    if (!node) return true;
    int64_t n;
    if (!json_integer(node, &n)) return fail(p, &NOT_JSON, "Invalid type for parameter %s.", name);
    if (n < least || n > most) {
        return fail(p, &BAD_PARAMETER, "Value %lld for parameter %s is invalid. Reason: Must be between %lld and %lld, if provided.",
                    (long long)n, name, (long long)least, (long long)most);
    }
    *value = n;
    return true;
}

/* Finds the queue that the last part of QueueUrl names. */
static Queue *get_queue(const JsonNode *args, Problem *p) {
    const JsonNode *url = get(args, "QueueUrl");
    if (!url || url->type != JSON_STRING || !url->len) return fail_missing(p, "QueueUrl"), NULL;
    const char *name = memrchr(url->text, '/', url->len);
    name = name ? name + 1 : url->text;
    Queue *q = queue_find(name, (size_t)(url->text + url->len - name));
    if (!q) fail(p, &QUEUE_MISSING, "The specified queue does not exist.");
    return q;
}

static bool is_entry_id(const JsonNode *id) {
    if (!id || id->type != JSON_STRING || id->len < 1 || id->len > 80) return false;
    for (uint32_t i = 0; i < id->len; i++) {
        char c = id->text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_')) return false;
    }
    return true;
}

/* Reads the entries of a batch; returns how many, or 0 if a problem fails the whole batch. */
static int get_entries(const JsonNode *args, const JsonNode *entries[BATCH_MAX], const JsonNode *ids[BATCH_MAX], Problem *p) {
    const JsonNode *list = get(args, "Entries");
    int n = 0;
    if (!list || list->type != JSON_ARRAY || !first(list)) return fail(p, &EMPTY_BATCH, "There should be at least one entry in the request.");
    for (const JsonNode *e = first(list); e; e = next(e), n++) {
        if (n < BATCH_MAX) entries[n] = e, ids[n] = get(e, "Id");
    }
    if (n > BATCH_MAX) return fail(p, &TOO_MANY_ENTRIES, "Maximum number of entries per request are %d. You have sent %d.", BATCH_MAX, n);
    for (int i = 0; i < n; i++) {
        if (!is_entry_id(ids[i])) {
            return fail(p, &BAD_ENTRY_ID, "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.");
        }
        for (int k = 0; k < i; k++) {
            if (ids[k]->len == ids[i]->len && memcmp(ids[k]->text, ids[i]->text, ids[i]->len) == 0) {
                return fail(p, &IDS_NOT_DISTINCT, "Id %.*s repeated.", (int)ids[i]->len, ids[i]->text);
            }
        }
    }
    return n;
}

/* ---- batch answers ---- */

static Buffer failed_entries; /* the Failed list of the batch answer */

static void batch_failed(const JsonNode *id, const char *code, const char *message, bool sender) {
    Buffer *out = &failed_entries;
    if (out->len) buffer_text(out, ",");
    buffer_text(out, "{\"Id\":\"");
    buffer_add(out, id->text, id->len);
    buffer_text(out, "\",\"Code\":\"");
    buffer_add(out, code, strlen(code));
    buffer_text(out, "\",\"Message\":\"");
    buffer_escaped(out, message, strlen(message));
    if (sender) {
        buffer_text(out, "\",\"SenderFault\":true}");
    } else {
        buffer_text(out, "\",\"SenderFault\":false}");
    }
}

/* Fails the entry if a fault is drawn for it. */
static bool entry_fault(Connection *c, const JsonNode *id) {
    if (!fault_fires((Call)c->call, FAULT_FAIL_ENTRY)) return false;
    batch_failed(id, "InternalError", "We encountered an internal error. Please try again.", false);
    return true;
}

static Buffer *batch_begin(Connection *c) {
    failed_entries.len = 0;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"Successful\":[");
    return out;
}

static void batch_succeeded(Buffer *out, const JsonNode *id) {
    if (out->data[out->len - 1] != '[') buffer_text(out, ",");
    buffer_text(out, "{\"Id\":\"");
    buffer_add(out, id->text, id->len);
    buffer_text(out, "\"");
}

static void batch_end(Connection *c, Buffer *out) {
    buffer_text(out, "]");
    if (failed_entries.len) {
        buffer_text(out, ",\"Failed\":[");
        buffer_add(out, failed_entries.data, failed_entries.len);
        buffer_text(out, "]");
    }
    buffer_text(out, "}");
    answer_json(c);
}

/* ---- SendMessage, SendMessageBatch ---- */

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
    const JsonNode *node = get(args, name);
    if (!node) return true;
    size_t len = 0;
    const char *text = plain(node, &scratch, &len);
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
    for (const JsonNode *a = first(object); a; a = next(a), count++) {
        const JsonNode *type = get(a, "DataType"), *text = get(a, "StringValue"), *binary = get(a, "BinaryValue");
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
    const JsonNode *attributes = get(args, "MessageAttributes");
    const JsonNode *system = get(args, "MessageSystemAttributes");
    size_t ignored = 0; /* "The size of a message system attribute doesn't count" (AWS, SendMessage) */
    if (attributes && first(attributes)) {
        if (!check_attributes(attributes, &m->bytes, p)) return false;
        m->draft.attributes = hold(attributes);
    }
    if (system && first(system)) {
        if (!check_attributes(system, &ignored, p)) return false;
        const JsonNode *trace = get(get(system, "AWSTraceHeader"), "StringValue");
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
    const JsonNode *text = get(args, "MessageBody");
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
    if (!get_number(args, "DelaySeconds", 0, 900, &delay_s, p)) return false;
    if (q->fifo) {
        if (delay_s != 0 && get(args, "DelaySeconds")) {
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

static bool send_message(Connection *c, const JsonNode *args, Problem *p) {
    static Prepared m;
    Queue *q = get_queue(args, p);
    if (!q || !prepare(q, args, &m, p) || !check_size(q, &m, p)) return false;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{");
    send_and_describe(q, &m, out);
    buffer_text(out, "}");
    answer_json(c);
    return true;
}

static bool send_message_batch(Connection *c, const JsonNode *args, Problem *p) {
    static Prepared prepared[BATCH_MAX];
    const JsonNode *entries[BATCH_MAX], *ids[BATCH_MAX];
    Queue *q = get_queue(args, p);
    int n = q ? get_entries(args, entries, ids, p) : 0;
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
        } else if (!entry_fault(c, ids[i])) {
            batch_succeeded(out, ids[i]);
            buffer_text(out, ",");
            send_and_describe(q, m, out);
            buffer_text(out, "}");
        }
    }
    batch_end(c, out);
    return true;
}

/* ---- ReceiveMessage ---- */

static const char *const SYSTEM_ATTRIBUTES[] = {
    "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SenderId", "MessageGroupId",
    "SequenceNumber", "MessageDeduplicationId", "AWSTraceHeader", "DeadLetterQueueSourceArn"};
enum { SENT, RECEIVES, FIRST_RECEIVE, SENDER, GROUP, SEQUENCE, DEDUP, TRACE, SOURCE, SYSTEM_ATTRIBUTE_COUNT };

static bool get_attribute_bits(const JsonNode *names, uint32_t *bits, Problem *p) {
    for (const JsonNode *n = first(names); n; n = next(n)) {
        bool known = json_is(n, "All");
        if (known) *bits |= ~0u;
        for (int i = 0; !known && i < SYSTEM_ATTRIBUTE_COUNT; i++) {
            known = json_is(n, SYSTEM_ATTRIBUTES[i]);
            if (known) *bits |= 1u << i;
        }
        /* AttributeNames may also name queue attributes, which have no meaning here. */
        if (!known && n->type != JSON_STRING) return fail(p, &NOT_JSON, "Attribute names must be strings.");
    }
    return true;
}

static void describe_text(Buffer *out, int which, const char *text, bool escaped) {
    if (out->data[out->len - 1] != '{') buffer_text(out, ",");
    buffer_printf(out, "\"%s\":\"", SYSTEM_ATTRIBUTES[which]);
    if (escaped) {
        buffer_add(out, text, strlen(text));
    } else {
        buffer_escaped(out, text, strlen(text));
    }
    buffer_text(out, "\"");
}

static void describe_extras(Buffer *out, uint32_t bits, const Extras *x) {
    char number[24];
    if (bits >> GROUP & 1 && x->group_id) describe_text(out, GROUP, x->group_id, false);
    if (bits >> SEQUENCE & 1 && x->sequence) {
        snprintf(number, sizeof number, "%020llu", (unsigned long long)x->sequence);
        describe_text(out, SEQUENCE, number, true);
    }
    if (bits >> DEDUP & 1 && x->dedup_id) describe_text(out, DEDUP, x->dedup_id, false);
    if (bits >> TRACE & 1 && x->trace) describe_text(out, TRACE, x->trace, true);
    if (bits >> SOURCE & 1 && x->source_arn) describe_text(out, SOURCE, x->source_arn, true);
}

/* Consumers ask for the first two on the hot path, so those do without printf. */
static void describe_system(Buffer *out, uint32_t bits, const Message *m) {
    buffer_text(out, ",\"Attributes\":{");
    if (bits >> SENT & 1) {
        buffer_text(out, "\"SentTimestamp\":\"");
        buffer_number(out, (uint64_t)m->sent_ms);
        buffer_text(out, "\"");
    }
    if (bits >> RECEIVES & 1) {
        if (out->data[out->len - 1] != '{') buffer_text(out, ",");
        buffer_text(out, "\"ApproximateReceiveCount\":\"");
        buffer_number(out, m->receive_count);
        buffer_text(out, "\"");
    }
    if (bits >> FIRST_RECEIVE & 1) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)m->first_received_ms);
        describe_text(out, FIRST_RECEIVE, number, true);
    }
    if (bits >> SENDER & 1) describe_text(out, SENDER, options.account, true);
    if (m->extras) describe_extras(out, bits, m->extras);
    buffer_text(out, "}");
}

/* Whether MessageAttributeNames includes a name: the name itself, All, .*, or prefix.* */
static bool names_ask_for(const Json *json, const JsonNode *names, const JsonNode *attribute) {
    for (const JsonNode *n = json_first(json, names); n; n = json_next(json, n)) {
        if (json_is(n, "All")) return true;
        bool prefix = n->len >= 2 && memcmp(n->text + n->len - 2, ".*", 2) == 0;
        uint32_t len = prefix ? n->len - 2 : n->len;
        if (len > attribute->key_len || memcmp(n->text, attribute->key, len) != 0) continue;
        if (prefix || len == attribute->key_len) return true;
    }
    return false;
}

static void describe_attributes(Buffer *out, const char *names_text, const char *attributes_text) {
    static Json names_json, attributes_json;
    const JsonNode *names = json_parse(&names_json, names_text, strlen(names_text));
    const JsonNode *attributes = json_parse(&attributes_json, attributes_text, strlen(attributes_text));
    bool any = false;
    for (const JsonNode *a = json_first(&attributes_json, attributes); a; a = json_next(&attributes_json, a)) {
        if (!names_ask_for(&names_json, names, a)) continue;
        if (any) {
            buffer_text(out, ",\"");
        } else {
            buffer_text(out, ",\"MessageAttributes\":{\"");
        }
        buffer_add(out, a->key, a->key_len);
        buffer_text(out, "\":");
        buffer_add(out, a->text, a->len);
        any = true;
    }
    if (any) buffer_text(out, "}");
}

static void describe_message(Buffer *out, const Receive *r, const Message *m) {
    buffer_room(out, m->raw_len + options.handle_chars + 512);
    buffer_text(out, "{\"MessageId\":\"");
    buffer_uuid(out, m->id);
    buffer_text(out, "\",\"ReceiptHandle\":\"");
    handle_write(m, buffer_room(out, options.handle_chars));
    out->len += options.handle_chars;
    if (options.md5) {
        buffer_text(out, "\",\"MD5OfBody\":\"");
        buffer_hex(out, m->md5, 16);
    }
    buffer_text(out, "\",\"Body\":\"");
    buffer_add(out, m->raw, m->raw_len);
    buffer_text(out, "\"");
    if (r->attributes) describe_system(out, r->attributes, m);
    if (r->attribute_names && m->extras && m->extras->attributes) describe_attributes(out, r->attribute_names, m->extras->attributes);
    buffer_text(out, "}");
}

/* Answers with the available messages; returns false without answering if there are none. */
static bool receive_now(Connection *c, bool *over_limit) {
    Message *messages[10];
    Receive *r = &c->receive;
    int n = queue_receive(r->queue, r->max, r->visibility_s, messages, over_limit);
    if (!n) return false;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"Messages\":[");
    for (int i = 0; i < n; i++) {
        if (i) buffer_text(out, ",");
        describe_message(out, r, messages[i]);
    }
    buffer_text(out, "]}");
    answer_json(c);
    return true;
}

static void forget_receive(Connection *c) {
    free(c->receive.attribute_names);
    memset(&c->receive, 0, sizeof c->receive);
}

static void waiter_append(Connection *c) {
    Queue *q = c->receive.queue;
    c->prev = q->waiters_last;
    c->next = NULL;
    *(c->prev ? &c->prev->next : &q->waiters_first) = c;
    q->waiters_last = c;
}

static void waiter_remove(Connection *c) {
    Queue *q = c->receive.queue;
    *(c->prev ? &c->prev->next : &q->waiters_first) = c->next;
    *(c->next ? &c->next->prev : &q->waiters_last) = c->prev;
    c->prev = c->next = NULL;
    list_remove(&c->timer);
}

static bool receive_message(Connection *c, const JsonNode *args, Problem *p) {
    Receive *r = &c->receive;
    Queue *q = get_queue(args, p);
    if (!q) return false;
    int64_t max = 1, wait_s = q->wait_s, visibility_s = q->visibility_s;
    uint32_t bits = 0;
    if (!get_number(args, "MaxNumberOfMessages", 1, 10, &max, p) || !get_number(args, "WaitTimeSeconds", 0, 20, &wait_s, p) ||
        !get_number(args, "VisibilityTimeout", 0, VISIBILITY_LIMIT_S, &visibility_s, p) ||
        !get_attribute_bits(get(args, "AttributeNames"), &bits, p) || !get_attribute_bits(get(args, "MessageSystemAttributeNames"), &bits, p)) {
        return false;
    }
    const JsonNode *names = get(args, "MessageAttributeNames");
    r->queue = q;
    r->max = (int)max;
    r->visibility_s = (uint32_t)visibility_s;
    r->attributes = bits;
    r->attribute_names = names && first(names) ? must_alloc(strndup(names->text, names->len)) : NULL;
    bool over_limit;
    if (receive_now(c, &over_limit)) {
        forget_receive(c);
    } else if (over_limit && !q->fifo) {
        forget_receive(c);
        return fail(p, &OVER_LIMIT, "Too many messages in flight for the queue: %u.", options.in_flight_limit);
    } else if (wait_s) {
        c->phase = PHASE_WAITING;
        wheel_add(&c->timer, now_ms + (uint64_t)wait_s * 1000);
        waiter_append(c);
    } else {
        forget_receive(c);
        answer_empty(c);
    }
    return true;
}

static void wait_over(Connection *c) {
    waiter_remove(c);
    forget_receive(c);
    answer_empty(c);
}

static void wait_abandon(Connection *c) {
    waiter_remove(c);
    forget_receive(c);
}

/* Resumes a list of connections that were answered late, linked by next. The caller must not be
 * using a queue: a resumed connection may have any request waiting, even DeleteQueue. */
static void resume_all(Connection *list) {
    while (list) {
        Connection *c = list;
        list = c->next;
        c->next = NULL;
        connection_resume(c);
    }
}

/* Answers waiters of one queue while it has messages; returns the list with those answered. */
static Connection *serve_queue(Queue *q, Connection *answered) {
    while (q->waiters_first && queue_is_deliverable(q)) {
        Connection *c = q->waiters_first;
        bool over_limit;
        if (!receive_now(c, &over_limit)) break;
        waiter_remove(c);
        forget_receive(c);
        c->next = answered;
        answered = c;
    }
    return answered;
}

void calls_serve_waiters(void) {
    Connection *answered;
    do { /* a resumed connection may have sent a message, too */
        answered = NULL;
        for (Queue *q; (q = queue_next_dirty());) answered = serve_queue(q, answered);
        resume_all(answered);
    } while (answered);
}

/* ---- DeleteMessage, ChangeMessageVisibility, and their batches ---- */

static bool get_handle(Queue *q, const JsonNode *args, Message **m, HandleState *state, Problem *p) {
    static Buffer scratch;
    const JsonNode *node = get(args, "ReceiptHandle");
    size_t len = 0;
    const char *text;
    if (!node || node->type != JSON_STRING || !node->len) return fail_missing(p, "ReceiptHandle");
    if (memchr(node->text, '\\', node->len)) {
        text = plain(node, &scratch, &len);
    } else {
        text = node->text, len = node->len;
    }
    *state = text ? handle_read(q, text, len, m) : HANDLE_MALFORMED;
    if (*state != HANDLE_MALFORMED) return true;
    return fail(p, &BAD_HANDLE, "The input receipt handle is invalid.");
}

static bool fail_handle(Problem *p, const char *why) {
    return fail(p, &BAD_PARAMETER, "Value for parameter ReceiptHandle is invalid. Reason: %s", why);
}

/* On a standard queue, a handle of a deleted message succeeds, and an older handle deletes only
 * while nobody holds the message. On a FIFO queue, a handle expires with its timeout. */
static bool delete_one(Queue *q, const JsonNode *args, Problem *p) {
    Message *m = NULL;
    HandleState state;
    if (!get_handle(q, args, &m, &state, p)) return false;
    if (state == HANDLE_GONE) return true;
    bool held = m->state == IN_FLIGHT;
    if (q->fifo && (state == HANDLE_STALE || !held)) return fail_handle(p, "The receipt handle has expired.");
    if (state == HANDLE_CURRENT || !held) message_delete(m);
    return true;
}

/* On a standard queue, an expired handle changes nothing, and AWS still answers with success. */
static bool change_one(Queue *q, const JsonNode *args, Problem *p) {
    Message *m = NULL;
    HandleState state;
    int64_t visibility_s = -1;
    if (!get_number(args, "VisibilityTimeout", 0, VISIBILITY_LIMIT_S, &visibility_s, p)) return false;
    if (visibility_s < 0) return fail_missing(p, "VisibilityTimeout");
    if (!get_handle(q, args, &m, &state, p)) return false;
    if (state == HANDLE_GONE) return fail_handle(p, "Message does not exist or is not available for visibility timeout change.");
    if (state == HANDLE_STALE || m->state != IN_FLIGHT) return q->fifo ? fail_handle(p, "The receipt handle has expired.") : true;
    if (now_ms + (uint64_t)visibility_s * 1000 > m->held_since_ms + VISIBILITY_LIMIT_S * 1000ull) {
        return fail(p, &BAD_PARAMETER, "Value %d for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [%d seconds].",
                    (int)visibility_s, VISIBILITY_LIMIT_S);
    }
    message_extend(m, (uint32_t)visibility_s);
    return true;
}

typedef bool SettleOne(Queue *q, const JsonNode *args, Problem *p);

static bool settle(Connection *c, const JsonNode *args, Problem *p, SettleOne *one) {
    Queue *q = get_queue(args, p);
    if (!q || !one(q, args, p)) return false;
    answer_empty(c);
    return true;
}

static bool settle_batch(Connection *c, const JsonNode *args, Problem *p, SettleOne *one) {
    const JsonNode *entries[BATCH_MAX], *ids[BATCH_MAX];
    Queue *q = get_queue(args, p);
    int n = q ? get_entries(args, entries, ids, p) : 0;
    if (!n) return false;
    Buffer *out = batch_begin(c);
    for (int i = 0; i < n; i++) {
        Problem fault;
        if (entry_fault(c, ids[i])) continue;
        if (one(q, entries[i], &fault)) {
            batch_succeeded(out, ids[i]);
            buffer_text(out, "}");
        } else {
            batch_failed(ids[i], fault.kind->code, fault.text, true);
        }
    }
    batch_end(c, out);
    return true;
}

static bool delete_message(Connection *c, const JsonNode *args, Problem *p) { return settle(c, args, p, delete_one); }
static bool delete_message_batch(Connection *c, const JsonNode *args, Problem *p) { return settle_batch(c, args, p, delete_one); }
static bool change_visibility(Connection *c, const JsonNode *args, Problem *p) { return settle(c, args, p, change_one); }
static bool change_visibility_batch(Connection *c, const JsonNode *args, Problem *p) { return settle_batch(c, args, p, change_one); }

/* ---- queues ---- */

static void append_url(Buffer *out, const Connection *c, const char *name) {
    buffer_printf(out, "\"%s://", options.tls ? "https" : "http");
    if (c->host[0]) {
        buffer_printf(out, "%s", c->host);
    } else {
        buffer_printf(out, "127.0.0.1:%d", options.port);
    }
    buffer_printf(out, "/%s/%s\"", options.account, name);
}

static void answer_url(Connection *c, const Queue *q) {
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"QueueUrl\":");
    append_url(out, c, q->name);
    buffer_text(out, "}");
    answer_json(c);
}

/* 1 to 80 of A-Z a-z 0-9 - _; only the name of a FIFO queue ends with `.fifo`. */
static bool name_is_valid(const char *name, size_t len, bool *fifo) {
    if (len < 1 || len > 80) return false;
    *fifo = len > 5 && memcmp(name + len - 5, ".fifo", 5) == 0;
    if (*fifo) len -= 5;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_')) return false;
    }
    return true;
}

/* Sets every attribute of an object; if apply is false, only checks them. */
static bool set_attributes(Queue *q, const JsonNode *attributes, bool apply, Problem *p) {
    static Buffer name, value;
    for (const JsonNode *a = first(attributes); a; a = next(a)) {
        JsonNode key = {.type = JSON_STRING, .text = a->key, .len = a->key_len};
        size_t len;
        if (!plain(&key, &name, &len) || !plain(a, &value, &len)) return fail(p, &NOT_JSON, "Queue attributes must be strings.");
        switch (attribute_set(q, name.data, value.data, apply)) {
            case SET_UNKNOWN: return fail(p, &BAD_ATTRIBUTE_NAME, "Unknown Attribute.");
            case SET_INVALID: return fail(p, &BAD_ATTRIBUTE_VALUE, "Invalid value for the parameter %s.", name.data);
            default: break;
        }
    }
    return true;
}

static bool same_attributes(const Queue *q, const JsonNode *attributes, Problem *p) {
    static Buffer name, value, now;
    for (const JsonNode *a = first(attributes); a; a = next(a)) {
        JsonNode key = {.type = JSON_STRING, .text = a->key, .len = a->key_len};
        size_t len;
        if (!plain(&key, &name, &len) || !plain(a, &value, &len)) return fail(p, &NOT_JSON, "Queue attributes must be strings.");
        now.len = 0;
        if (!attribute_get(q, name.data, &now) || now.len != len || memcmp(now.data, value.data, len) != 0) {
            return fail(p, &QUEUE_EXISTS, "A queue already exists with the same name and a different value for an attribute.");
        }
    }
    return true;
}

static bool create_queue(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *name = get(args, "QueueName"), *attributes = get(args, "Attributes");
    bool fifo;
    if (!name || name->type != JSON_STRING) return fail_missing(p, "QueueName");
    if (!name_is_valid(name->text, name->len, &fifo)) {
        return fail(p, &BAD_PARAMETER, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length");
    }
    if (json_is(get(attributes, "FifoQueue"), "true") != fifo) {
        return fail(p, &BAD_PARAMETER, "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length");
    }
    Queue *q = queue_find(name->text, name->len);
    if (q) {
        if (!same_attributes(q, attributes, p)) return false;
    } else {
        q = queue_create(name->text, name->len, fifo);
        if (!set_attributes(q, attributes, true, p)) {
            queue_delete(q);
            return false;
        }
    }
    answer_url(c, q);
    return true;
}

static bool get_queue_url(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *name = get(args, "QueueName");
    if (!name || name->type != JSON_STRING) return fail_missing(p, "QueueName");
    Queue *q = queue_find(name->text, name->len);
    if (!q) return fail(p, &QUEUE_MISSING, "The specified queue does not exist.");
    answer_url(c, q);
    return true;
}

static bool list_queues(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *prefix = get(args, "QueueNamePrefix");
    int64_t max = 1000, from = 0;
    if (!get_number(args, "MaxResults", 1, 1000, &max, p) || !get_number(args, "NextToken", 0, INT32_MAX, &from, p)) return false;
    int64_t at = 0, given = 0;
    bool more = false;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"QueueUrls\":[");
    for (Queue *q = queue_first(); q && !more; q = q->next) {
        if (prefix && (strlen(q->name) < prefix->len || memcmp(q->name, prefix->text, prefix->len) != 0)) continue;
        if (at++ < from) continue;
        more = given == max;
        if (more) break;
        if (given++) buffer_text(out, ",");
        append_url(out, c, q->name);
    }
    buffer_text(out, "]");
    if (more && get(args, "MaxResults")) buffer_printf(out, ",\"NextToken\":\"%lld\"", (long long)(from + given));
    buffer_text(out, "}");
    answer_json(c);
    return true;
}

static bool delete_queue(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = get_queue(args, p);
    if (!q) return false;
    Problem gone;
    fail(&gone, &QUEUE_MISSING, "The specified queue does not exist.");
    Connection *answered = NULL;
    while (q->waiters_first) {
        Connection *waiter = q->waiters_first;
        waiter_remove(waiter);
        forget_receive(waiter);
        answer_problem(waiter, &gone);
        waiter->next = answered;
        answered = waiter;
    }
    queue_delete(q);
    answer_empty(c);
    resume_all(answered);
    return true;
}

static bool purge_queue(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = get_queue(args, p);
    if (!q) return false;
    queue_purge(q);
    answer_empty(c);
    return true;
}

static bool set_queue_attributes(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = get_queue(args, p);
    const JsonNode *attributes = get(args, "Attributes");
    if (!q) return false;
    if (!attributes || attributes->type != JSON_OBJECT) return fail_missing(p, "Attributes");
    if (!set_attributes(q, attributes, false, p) || !set_attributes(q, attributes, true, p)) return false;
    q->modified_s = wall_ms / 1000;
    answer_empty(c);
    return true;
}

static bool get_queue_attributes(Connection *c, const JsonNode *args, Problem *p) {
    static Buffer value;
    Queue *q = get_queue(args, p);
    const JsonNode *names = get(args, "AttributeNames");
    bool wanted[64] = {false};
    if (!q) return false;
    for (const JsonNode *n = first(names); n; n = next(n)) {
        bool known = false;
        for (int i = 0; ATTRIBUTE_NAMES[i]; i++) {
            bool hit = json_is(n, "All") || json_is(n, ATTRIBUTE_NAMES[i]);
            wanted[i] |= hit;
            known |= hit;
        }
        if (!known) return fail(p, &BAD_ATTRIBUTE_NAME, "Unknown Attribute.");
    }
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"Attributes\":{");
    for (int i = 0; ATTRIBUTE_NAMES[i]; i++) {
        value.len = 0;
        if (!wanted[i] || !attribute_get(q, ATTRIBUTE_NAMES[i], &value)) continue;
        if (out->data[out->len - 1] != '{') buffer_text(out, ",");
        buffer_printf(out, "\"%s\":\"", ATTRIBUTE_NAMES[i]);
        buffer_escaped(out, value.data, value.len);
        buffer_text(out, "\"");
    }
    buffer_text(out, "}}");
    answer_json(c);
    return true;
}

/* ---- dispatch ---- */

typedef bool Operation(Connection *c, const JsonNode *args, Problem *p);
static Operation *const OPERATIONS[CALLS] = {
    [CALL_RECEIVE_MESSAGE] = receive_message,
    [CALL_DELETE_MESSAGE_BATCH] = delete_message_batch,
    [CALL_SEND_MESSAGE_BATCH] = send_message_batch,
    [CALL_CHANGE_MESSAGE_VISIBILITY_BATCH] = change_visibility_batch,
    [CALL_SEND_MESSAGE] = send_message,
    [CALL_DELETE_MESSAGE] = delete_message,
    [CALL_CHANGE_MESSAGE_VISIBILITY] = change_visibility,
    [CALL_GET_QUEUE_ATTRIBUTES] = get_queue_attributes,
    [CALL_SET_QUEUE_ATTRIBUTES] = set_queue_attributes,
    [CALL_GET_QUEUE_URL] = get_queue_url,
    [CALL_CREATE_QUEUE] = create_queue,
    [CALL_LIST_QUEUES] = list_queues,
    [CALL_DELETE_QUEUE] = delete_queue,
    [CALL_PURGE_QUEUE] = purge_queue,
};

static int find_call(const char *target, size_t len) {
    static const char PREFIX[] = "AmazonSQS.";
    size_t prefix = sizeof PREFIX - 1;
    if (len <= prefix || memcmp(target, PREFIX, prefix) != 0) return -1;
    for (int i = 0; i < CALLS; i++) {
        if (strlen(CALL_NAMES[i]) == len - prefix && memcmp(CALL_NAMES[i], target + prefix, len - prefix) == 0) return i;
    }
    return -1;
}

static void answer_refusal(Connection *c, const Refusal *r) {
    if (r->type) {
        answer_error(c, r->status, r->type, r->code, r->message);
    } else {
        Buffer *out = answer_begin(c);
        buffer_add(out, r->message, strlen(r->message));
        answer_end(c, r->status, "text/html", NULL);
    }
}

static void handle(Connection *c, const Request *r) {
    Problem p;
    int call = r->method_len == 4 && memcmp(r->method, "POST", 4) == 0 ? find_call(r->target, r->target_len) : -1;
    if (call < 0) {
        fail(&p, &UNKNOWN_OPERATION, "The action or operation requested is invalid.");
        answer_problem(c, &p);
        return;
    }
    counters.requests[call]++;
    c->call = (int8_t)call;
    const Refusal *refusal = fault_refusal((Call)call);
    if (refusal) {
        answer_refusal(c, refusal);
        return;
    }
    c->lose_answer = fault_fires((Call)call, FAULT_LOSE_REPLY);
    const JsonNode *args = json_parse(&request_json, r->body, r->body_len);
    if (!args || args->type != JSON_OBJECT) {
        fail(&p, &NOT_JSON, "The request is not a JSON object.");
        answer_problem(c, &p);
        return;
    }
    if (!OPERATIONS[call](c, args, &p)) answer_problem(c, &p);
}

const Handler call_handler = {.handle = handle, .timeout = wait_over, .abandon = wait_abandon};
