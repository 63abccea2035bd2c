/* The calls about queues (see queue_calls.h). */
#include "queue_calls.h"

#include <string.h>

#include "arguments.h"
#include "attributes.h"
#include "queue.h"
#include "receive.h"

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
    for (const JsonNode *a = arg_first(attributes); a; a = arg_next(a)) {
        JsonNode key = {.type = JSON_STRING, .text = a->key, .len = a->key_len};
        size_t len;
        if (!arg_text(&key, &name, &len) || !arg_text(a, &value, &len)) return fail(p, &NOT_JSON, "Queue attributes must be strings.");
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
    for (const JsonNode *a = arg_first(attributes); a; a = arg_next(a)) {
        JsonNode key = {.type = JSON_STRING, .text = a->key, .len = a->key_len};
        size_t len;
        if (!arg_text(&key, &name, &len) || !arg_text(a, &value, &len)) return fail(p, &NOT_JSON, "Queue attributes must be strings.");
        now.len = 0;
        if (!attribute_get(q, name.data, &now) || now.len != len || memcmp(now.data, value.data, len) != 0) {
            return fail(p, &QUEUE_EXISTS, "A queue already exists with the same name and a different value for an attribute.");
        }
    }
    return true;
}

bool create_queue(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *name = arg(args, "QueueName"), *attributes = arg(args, "Attributes");
    bool fifo;
    if (!name || name->type != JSON_STRING) return fail_missing(p, "QueueName");
    if (!name_is_valid(name->text, name->len, &fifo)) {
        return fail(p, &BAD_PARAMETER, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length");
    }
    if (json_is(arg(attributes, "FifoQueue"), "true") != fifo) {
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

bool get_queue_url(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *name = arg(args, "QueueName");
    if (!name || name->type != JSON_STRING) return fail_missing(p, "QueueName");
    Queue *q = queue_find(name->text, name->len);
    if (!q) return fail(p, &QUEUE_MISSING, "The specified queue does not exist.");
    answer_url(c, q);
    return true;
}

bool list_queues(Connection *c, const JsonNode *args, Problem *p) {
    const JsonNode *prefix = arg(args, "QueueNamePrefix");
    int64_t max = 1000, from = 0;
    if (!arg_number(args, "MaxResults", 1, 1000, &max, p) || !arg_number(args, "NextToken", 0, INT32_MAX, &from, p)) return false;
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
    if (more && arg(args, "MaxResults")) buffer_printf(out, ",\"NextToken\":\"%lld\"", (long long)(from + given));
    buffer_text(out, "}");
    answer_json(c);
    return true;
}

bool delete_queue(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = arg_queue(args, p);
    if (!q) return false;
    Problem gone;
    fail(&gone, &QUEUE_MISSING, "The specified queue does not exist.");
    Connection *answered = receives_refuse(q, &gone);
    queue_delete(q);
    answer_empty(c);
    connections_resume(answered);
    return true;
}

bool purge_queue(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = arg_queue(args, p);
    if (!q) return false;
    queue_purge(q);
    answer_empty(c);
    return true;
}

bool set_queue_attributes(Connection *c, const JsonNode *args, Problem *p) {
    Queue *q = arg_queue(args, p);
    const JsonNode *attributes = arg(args, "Attributes");
    if (!q) return false;
    if (!attributes || attributes->type != JSON_OBJECT) return fail_missing(p, "Attributes");
    if (!set_attributes(q, attributes, false, p) || !set_attributes(q, attributes, true, p)) return false;
    q->modified_s = wall_ms / 1000;
    answer_empty(c);
    return true;
}

bool get_queue_attributes(Connection *c, const JsonNode *args, Problem *p) {
    static Buffer value;
    Queue *q = arg_queue(args, p);
    const JsonNode *names = arg(args, "AttributeNames");
    bool wanted[64] = {false};
    if (!q) return false;
    for (const JsonNode *n = arg_first(names); n; n = arg_next(n)) {
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
