/* DeleteMessage, ChangeMessageVisibility and their batches (see settle.h). */
#include "settle.h"

#include <string.h>

#include "arguments.h"
#include "handles.h"
#include "queue.h"

static bool get_handle(Queue *q, const JsonNode *args, Message **m, HandleState *state, Problem *p) {
    static Buffer scratch;
    const JsonNode *node = arg(args, "ReceiptHandle");
    size_t len = 0;
    const char *text;
    if (!node || node->type != JSON_STRING || !node->len) return fail_missing(p, "ReceiptHandle");
    if (memchr(node->text, '\\', node->len)) {
        text = arg_text(node, &scratch, &len);
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
    if (!arg_number(args, "VisibilityTimeout", 0, VISIBILITY_LIMIT_S, &visibility_s, p)) return false;
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
    Queue *q = arg_queue(args, p);
    if (!q || !one(q, args, p)) return false;
    answer_empty(c);
    return true;
}

static bool settle_batch(Connection *c, const JsonNode *args, Problem *p, SettleOne *one) {
    const JsonNode *entries[BATCH_MAX], *ids[BATCH_MAX];
    Queue *q = arg_queue(args, p);
    int n = q ? arg_entries(args, entries, ids, p) : 0;
    if (!n) return false;
    Buffer *out = batch_begin(c);
    for (int i = 0; i < n; i++) {
        Problem fault;
        if (batch_entry_fault(c, ids[i])) continue;
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

bool delete_message(Connection *c, const JsonNode *args, Problem *p) { return settle(c, args, p, delete_one); }
bool delete_message_batch(Connection *c, const JsonNode *args, Problem *p) { return settle_batch(c, args, p, delete_one); }
bool change_visibility(Connection *c, const JsonNode *args, Problem *p) { return settle(c, args, p, change_one); }
bool change_visibility_batch(Connection *c, const JsonNode *args, Problem *p) { return settle_batch(c, args, p, change_one); }
