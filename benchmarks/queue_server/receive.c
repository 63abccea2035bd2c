/* ReceiveMessage and its long polls (see receive.h). */
#include "receive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "handles.h"
#include "queue.h"

static const char *const SYSTEM_ATTRIBUTES[] = {
    "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SenderId", "MessageGroupId",
    "SequenceNumber", "MessageDeduplicationId", "AWSTraceHeader", "DeadLetterQueueSourceArn"};
enum { SENT, RECEIVES, FIRST_RECEIVE, SENDER, GROUP, SEQUENCE, DEDUP, TRACE, SOURCE, SYSTEM_ATTRIBUTE_COUNT };

static bool get_attribute_bits(const JsonNode *names, uint32_t *bits, Problem *p) {
    for (const JsonNode *n = arg_first(names); n; n = arg_next(n)) {
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

/* What is odd about an odd delivery. The message's id decides it, so that each delivery is odd in the same way. */
enum { NO_SENT, LATE_SENT, NO_SYSTEM, NO_BODY, NUMBER_BODY, ODD_WAYS, NOT_ODD };
#define YEAR_10000_MS 253402300800000ULL

static int odd_way(const Message *m) {
    if (odd_share <= 0 || (m->id[0] << 8 | m->id[1]) / 65536.0 >= odd_share) return NOT_ODD;
    return m->id[2] % ODD_WAYS;
}

/* Consumers ask for the first two on the hot path, so those do without printf. */
static void describe_system(Buffer *out, uint32_t bits, const Message *m, int odd) {
    if (odd == NO_SENT) bits &= ~(1u << SENT);
    buffer_text(out, ",\"Attributes\":{");
    if (bits >> SENT & 1) {
        buffer_text(out, "\"SentTimestamp\":\"");
        buffer_number(out, odd == LATE_SENT ? YEAR_10000_MS : (uint64_t)m->sent_ms);
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
    int odd = odd_way(m);
    if (odd == NUMBER_BODY) {
        buffer_text(out, "\",\"Body\":1");
    } else if (odd == NO_BODY) {
        buffer_text(out, "\"");
    } else {
        buffer_text(out, "\",\"Body\":\"");
        buffer_add(out, m->raw, m->raw_len);
        buffer_text(out, "\"");
    }
    if (r->attributes && odd != NO_SYSTEM) describe_system(out, r->attributes, m, odd);
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

bool receive_message(Connection *c, const JsonNode *args, Problem *p) {
    Receive *r = &c->receive;
    Queue *q = arg_queue(args, p);
    if (!q) return false;
    int64_t max = 1, wait_s = q->wait_s, visibility_s = q->visibility_s;
    uint32_t bits = 0;
    if (!arg_number(args, "MaxNumberOfMessages", 1, 10, &max, p) || !arg_number(args, "WaitTimeSeconds", 0, 20, &wait_s, p) ||
        !arg_number(args, "VisibilityTimeout", 0, VISIBILITY_LIMIT_S, &visibility_s, p) ||
        !get_attribute_bits(arg(args, "AttributeNames"), &bits, p) || !get_attribute_bits(arg(args, "MessageSystemAttributeNames"), &bits, p)) {
        return false;
    }
    const JsonNode *names = arg(args, "MessageAttributeNames");
    r->queue = q;
    r->max = (int)max;
    r->visibility_s = (uint32_t)visibility_s;
    r->attributes = bits;
    r->attribute_names = names && arg_first(names) ? must_alloc(strndup(names->text, names->len)) : NULL;
    bool over_limit;
    if (receive_now(c, &over_limit)) {
        forget_receive(c);
    } else if (over_limit && !q->fifo) {
        forget_receive(c);
        return fail(p, &OVER_LIMIT, "Too many messages in flight for the queue: %u.", options.in_flight_limit);
    } else if (wait_s) {
        c->phase = PHASE_WAITING;
        uint64_t wait_ms = (uint64_t)wait_s * 1000;
        wheel_add(&c->timer, now_ms + (wait_ms < options.longest_poll_ms ? wait_ms : options.longest_poll_ms));
        waiter_append(c);
    } else {
        forget_receive(c);
        answer_empty(c);
    }
    return true;
}

void receive_timeout(Connection *c) {
    waiter_remove(c);
    forget_receive(c);
    answer_empty(c);
}

void receive_abandon(Connection *c) {
    waiter_remove(c);
    forget_receive(c);
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

void receives_serve(void) {
    Connection *answered;
    do { /* a resumed connection may have sent a message, too */
        answered = NULL;
        for (Queue *q; (q = queue_next_dirty());) answered = serve_queue(q, answered);
        connections_resume(answered);
    } while (answered);
}

Connection *receives_refuse(Queue *q, const Problem *p) {
    Connection *answered = NULL;
    while (q->waiters_first) {
        Connection *waiter = q->waiters_first;
        waiter_remove(waiter);
        forget_receive(waiter);
        answer_problem(waiter, p);
        waiter->next = answered;
        answered = waiter;
    }
    return answered;
}
