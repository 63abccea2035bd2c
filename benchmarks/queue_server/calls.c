/* Which function answers which SQS call (see calls.h). */
#include "calls.h"

#include <string.h>

#include "arguments.h"
#include "faults.h"
#include "queue_calls.h"
#include "receive.h"
#include "send.h"
#include "settle.h"

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

const Handler call_handler = {.handle = handle, .timeout = receive_timeout, .abandon = receive_abandon};
