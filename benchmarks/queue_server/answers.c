/* Answers to SQS calls (see answers.h). Codes and texts come from the AWS SQS API reference, or were
 * observed on the service. `x-amzn-query-error` carries the codes of the older protocol, which AWS
 * SDKs show to their callers. */
#include "answers.h"

#include <stdarg.h>
#include <stdio.h>

#include "faults.h"

static const char JSON_TYPE[] = "application/x-amz-json-1.0";

#define SQS "com.amazonaws.sqs#"
#define CORAL "com.amazon.coral.service#"
const Kind QUEUE_MISSING = {SQS "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"};
const Kind QUEUE_EXISTS = {SQS "QueueNameExists", "QueueAlreadyExists"};
const Kind EMPTY_BATCH = {SQS "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest"};
const Kind TOO_MANY_ENTRIES = {SQS "TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"};
const Kind IDS_NOT_DISTINCT = {SQS "BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"};
const Kind BAD_ENTRY_ID = {SQS "InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId"};
const Kind BATCH_TOO_LONG = {SQS "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"};
const Kind BAD_HANDLE = {SQS "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"};
const Kind BAD_CONTENTS = {SQS "InvalidMessageContents", "InvalidMessageContents"};
const Kind BAD_ATTRIBUTE_NAME = {SQS "InvalidAttributeName", "InvalidAttributeName"};
const Kind BAD_ATTRIBUTE_VALUE = {SQS "InvalidAttributeValue", "InvalidAttributeValue"};
const Kind OVER_LIMIT = {SQS "OverLimit", "OverLimit"};
const Kind BAD_PARAMETER = {CORAL "InvalidParameterValueException", "InvalidParameterValue"};
const Kind MISSING_PARAMETER = {CORAL "MissingRequiredParameterException", "MissingParameter"};
const Kind NOT_JSON = {CORAL "SerializationException", "MalformedInput"};
const Kind UNKNOWN_OPERATION = {CORAL "UnknownOperationException", "InvalidAction"};

bool fail(Problem *p, const Kind *kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    p->kind = kind;
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return false;
}

bool fail_missing(Problem *p, const char *name) {
    return fail(p, &MISSING_PARAMETER, "The request must contain the parameter %s.", name);
}

void answer_error(Connection *c, int status, const char *type, const char *query_code, const char *message) {
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

void answer_problem(Connection *c, const Problem *p) { answer_error(c, 400, p->kind->type, p->kind->code, p->text); }

void answer_json(Connection *c) { answer_end(c, 200, JSON_TYPE, NULL); }

void answer_empty(Connection *c) {
    Buffer *out = answer_begin(c);
    buffer_text(out, "{}");
    answer_json(c);
}

/* ---- batches ---- */

static Buffer failed_entries; /* the Failed list of the batch answer */

void batch_failed(const JsonNode *id, const char *code, const char *message, bool sender) {
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

bool batch_entry_fault(Connection *c, const JsonNode *id) {
    if (!fault_fires((Call)c->call, FAULT_FAIL_ENTRY)) return false;
    batch_failed(id, "InternalError", "We encountered an internal error. Please try again.", false);
    return true;
}

Buffer *batch_begin(Connection *c) {
    failed_entries.len = 0;
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"Successful\":[");
    return out;
}

void batch_succeeded(Buffer *out, const JsonNode *id) {
    if (out->data[out->len - 1] != '[') buffer_text(out, ",");
    buffer_text(out, "{\"Id\":\"");
    buffer_add(out, id->text, id->len);
    buffer_text(out, "\"");
}

void batch_end(Connection *c, Buffer *out) {
    buffer_text(out, "]");
    if (failed_entries.len) {
        buffer_text(out, ",\"Failed\":[");
        buffer_add(out, failed_entries.data, failed_entries.len);
        buffer_text(out, "]");
    }
    buffer_text(out, "}");
    answer_json(c);
}
