/* Queue attributes (see attributes.h). */
#include "attributes.h"

#include <stddef.h>
#include <stdlib.h>

#include "json.h"

const char *const ATTRIBUTE_NAMES[] = {
    "QueueArn", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed", "CreatedTimestamp", "LastModifiedTimestamp",
    "VisibilityTimeout", "DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds", "RedrivePolicy", "FifoQueue", "ContentBasedDeduplication",
    "DeduplicationScope", "FifoThroughputLimit", "Policy", "RedriveAllowPolicy", "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled", NULL};

static const struct {
    const char *name;
    size_t field;
    uint32_t least, most;
} NUMBERS[] = {
    {"VisibilityTimeout", offsetof(Queue, visibility_s), 0, 43200},
    {"DelaySeconds", offsetof(Queue, delay_s), 0, 900},
    {"MaximumMessageSize", offsetof(Queue, size_max), 1024, 1048576},
    {"MessageRetentionPeriod", offsetof(Queue, retention_s), 60, 1209600},
    {"ReceiveMessageWaitTimeSeconds", offsetof(Queue, wait_s), 0, 20},
};
enum { NUMBER_COUNT = sizeof NUMBERS / sizeof *NUMBERS };

static uint32_t *number_field(const Queue *q, size_t i) { return (uint32_t *)((char *)q + NUMBERS[i].field); }

static bool read_number(const char *value, uint32_t *number) {
    JsonNode node = {.type = JSON_STRING, .text = value, .len = (uint32_t)strlen(value)};
    int64_t n;
    if (!json_integer(&node, &n) || n < 0 || n > UINT32_MAX) return false;
    *number = (uint32_t)n;
    return true;
}

static void replace(char **field, const char *value) {
    free(*field);
    *field = *value ? must_alloc(strdup(value)) : NULL;
}

static SetResult set_redrive_policy(Queue *q, const char *value, bool apply) {
    static Json json;
    Queue *target = NULL;
    int64_t most = 0;
    if (*value) {
        const JsonNode *policy = json_parse(&json, value, strlen(value));
        const JsonNode *arn = json_get(&json, policy, "deadLetterTargetArn");
        if (!arn || arn->type != JSON_STRING) return SET_INVALID;
        if (!json_integer(json_get(&json, policy, "maxReceiveCount"), &most) || most < 1 || most > 1000) return SET_INVALID;
        target = queue_by_arn(arn->text, arn->len);
        if (!target || target == q || target->fifo != q->fifo) return SET_INVALID;
    }
    if (apply) {
        replace(&q->redrive_policy, value);
        q->dead_letters = target;
        q->receives_max = (uint32_t)most;
    }
    return SET_OK;
}

static SetResult set_flag(bool *flag, const char *value, const char *yes, const char *no, bool apply) {
    bool on = strcmp(value, yes) == 0;
    if (!on && strcmp(value, no) != 0) return SET_INVALID;
    if (apply) *flag = on;
    return SET_OK;
}

SetResult attribute_set(Queue *q, const char *name, const char *value, bool apply) {
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        uint32_t n;
        if (strcmp(name, NUMBERS[i].name) != 0) continue;
        if (!read_number(value, &n) || n < NUMBERS[i].least || n > NUMBERS[i].most) return SET_INVALID;
        if (apply) *number_field(q, i) = n;
        return SET_OK;
    }
    if (strcmp(name, "RedrivePolicy") == 0) return set_redrive_policy(q, value, apply);
    if (strcmp(name, "FifoQueue") == 0) return q->fifo && strcmp(value, "true") == 0 ? SET_OK : SET_INVALID;
    if (q->fifo && strcmp(name, "ContentBasedDeduplication") == 0) return set_flag(&q->content_dedup, value, "true", "false", apply);
    if (q->fifo && strcmp(name, "DeduplicationScope") == 0) return set_flag(&q->dedup_in_group, value, "messageGroup", "queue", apply);
    for (int i = 0; i < 6; i++) {
        if (strcmp(name, QUEUE_SETTINGS[i]) != 0) continue;
        if (apply) replace(&q->settings[i], value);
        return SET_OK;
    }
    return SET_UNKNOWN;
}

bool attribute_get(const Queue *q, const char *name, Buffer *out) {
    const struct { const char *name; uint64_t value; } counts[] = {
        {"ApproximateNumberOfMessages", q->visible_count},
        {"ApproximateNumberOfMessagesNotVisible", q->in_flight_count},
        {"ApproximateNumberOfMessagesDelayed", q->delayed_count},
        {"CreatedTimestamp", (uint64_t)q->created_s},
        {"LastModifiedTimestamp", (uint64_t)q->modified_s},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (strcmp(name, counts[i].name) == 0) return buffer_number(out, counts[i].value), true;
    }
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        if (strcmp(name, NUMBERS[i].name) == 0) return buffer_number(out, *number_field(q, i)), true;
    }
    const char *text = NULL;
    if (strcmp(name, "QueueArn") == 0) {
        buffer_printf(out, "arn:aws:sqs:%s:%s:%s", options.region, options.account, q->name);
        return true;
    }
    if (strcmp(name, "RedrivePolicy") == 0) text = q->redrive_policy;
    if (q->fifo) {
        if (strcmp(name, "FifoQueue") == 0) text = "true";
        if (strcmp(name, "ContentBasedDeduplication") == 0) text = q->content_dedup ? "true" : "false";
        if (strcmp(name, "DeduplicationScope") == 0) text = q->dedup_in_group ? "messageGroup" : "queue";
    }
    for (int i = 0; i < 6; i++) {
        if (strcmp(name, QUEUE_SETTINGS[i]) == 0) text = q->settings[i];
    }
    if (!text) return false;
    buffer_add(out, text, strlen(text));
    return true;
}
