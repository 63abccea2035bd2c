/* Deliberate faults (see faults.h). */
#include "faults.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const SHARE_NAMES[FAULT_KINDS] = {"throttle_share", "error_share", "lose_reply_share", "fail_entry_share"};
static const char *const FIRED_NAMES[FAULT_KINDS] = {"throttle", "error", "lose_reply", "fail_entry"};

static struct {
    uint32_t latency_ms;
    double shares[FAULT_KINDS];
    int64_t times; /* how many more faults of any kind except latency; -1: no limit */
    uint64_t fired[FAULT_KINDS];
} plans[CALLS];
static bool ready;

static void reset(void) {
    for (int i = 0; i < CALLS; i++) {
        plans[i].latency_ms = 0;
        memset(plans[i].shares, 0, sizeof plans[i].shares);
        plans[i].times = -1;
    }
    duplicate_share = 0;
    odd_share = 0;
    ready = true;
}

uint32_t fault_latency_ms(int call) { return plans[call].latency_ms; }

bool fault_fires(Call call, FaultKind kind) {
    if (plans[call].shares[kind] <= 0 || plans[call].times == 0) return false;
    if (!random_chance(&random_faults, plans[call].shares[kind])) return false;
    if (plans[call].times > 0) plans[call].times--;
    plans[call].fired[kind]++;
    return true;
}

uint64_t faults_fired(void) {
    uint64_t sum = 0;
    for (int i = 0; i < CALLS; i++) {
        for (int k = 0; k < FAULT_KINDS; k++) sum += plans[i].fired[k];
    }
    return sum;
}

/* Every form of these errors observed on AWS; a client must know them all. */
enum { WAYS = 3 };
static const Refusal THROTTLINGS[WAYS] = {
    {400, "com.amazonaws.sqs#RequestThrottled", "RequestThrottled", "Request is throttled."},
    {400, "com.amazon.coral.availability#ThrottlingException", "ThrottlingException", "Rate exceeded"},
    {403, "com.amazonaws.sqs#RequestThrottled", "RequestThrottled", "Request is throttled."}};
static const Refusal ERRORS[WAYS] = {
    {500, "com.amazon.coral.service#InternalFailure", "InternalFailure", "We encountered an internal error. Please try again."},
    {503, "com.amazon.coral.service#ServiceUnavailableException", "ServiceUnavailable", "The service is unavailable. Please try again."},
    {503, NULL, NULL, "<html><body><b>Http/1.1 Service Unavailable</b></body></html>"}};

const Refusal *fault_refusal(Call call) {
    if (fault_fires(call, FAULT_THROTTLE)) return &THROTTLINGS[random_below(&random_faults, WAYS)];
    if (fault_fires(call, FAULT_ERROR)) return &ERRORS[random_below(&random_faults, WAYS)];
    return NULL;
}

/* ---- settings ---- */

static int find_plan(const char *name, size_t len) {
    for (int i = 0; i < CALLS; i++) {
        if (strlen(CALL_NAMES[i]) == len && memcmp(CALL_NAMES[i], name, len) == 0) return i;
    }
    return -1;
}

/* Applies one NAME: VALUE to the plans from..to; returns NULL, or what is wrong. */
static const char *set_one(const char *name, size_t len, double value, int from, int to) {
    bool is_share = len > 6 && memcmp(name + len - 6, "_share", 6) == 0;
    if (is_share && !(value >= 0 && value <= 1)) return "a share is a number from 0 to 1";
    if (value < 0) return "a fault's value is not negative";
    if (len == 15 && memcmp(name, "duplicate_share", 15) == 0) {
        duplicate_share = value;
        return NULL;
    }
    if (len == 9 && memcmp(name, "odd_share", 9) == 0) {
        odd_share = value;
        return NULL;
    }
    if (len == 4 && memcmp(name, "seed", 4) == 0) {
        random_seed(&random_faults, (uint64_t)value);
        return NULL;
    }
    bool latency = len == 10 && memcmp(name, "latency_ms", 10) == 0, times = len == 5 && memcmp(name, "times", 5) == 0;
    int kind = -1;
    for (int k = 0; k < FAULT_KINDS; k++) {
        if (strlen(SHARE_NAMES[k]) == len && memcmp(SHARE_NAMES[k], name, len) == 0) kind = k;
    }
    if (!latency && !times && kind < 0) {
        return "unknown fault; there are latency_ms, throttle_share, error_share, lose_reply_share, fail_entry_share, duplicate_share, odd_share, times, seed";
    }
    if (latency && value > 600000) return "latency_ms is at most 600000";
    for (int i = from; i < to; i++) {
        if (latency) plans[i].latency_ms = (uint32_t)value;
        if (times) plans[i].times = value < 1e15 ? (int64_t)value : -1;
        if (kind >= 0) plans[i].shares[kind] = value;
    }
    return NULL;
}

const char *faults_set(const Json *json, const JsonNode *plan) {
    if (!ready) reset();
    if (!plan || plan->type != JSON_OBJECT) return "faults are a JSON object";
    int from = 0, to = CALLS;
    const JsonNode *call = json_get(json, plan, "call"), *fresh = json_get(json, plan, "reset");
    if (fresh && fresh->type == JSON_TRUE) reset();
    if (call && !json_is(call, "*")) {
        from = find_plan(call->text, call->len);
        if (from < 0) return "unknown call";
        to = from + 1;
    }
    for (const JsonNode *n = json_first(json, plan); n; n = json_next(json, n)) {
        double value;
        if (n == call || n == fresh) continue;
        if (!json_real(n, &value)) return "a fault's value is a number";
        const char *wrong = set_one(n->key, n->key_len, value, from, to);
        if (wrong) return wrong;
    }
    return NULL;
}

const char *faults_set_option(const char *option) {
    if (!ready) reset();
    const char *colon = strchr(option, ':'), *name = colon ? colon + 1 : option, *equals = strchr(name, '=');
    int from = 0, to = CALLS;
    char *end;
    if (!equals) return "a fault is given as [CALL:]NAME=VALUE";
    if (colon) {
        from = find_plan(option, (size_t)(colon - option));
        if (from < 0) return "unknown call";
        to = from + 1;
    }
    double value = strtod(equals + 1, &end);
    if (end == equals + 1 || *end) return "a fault's value is a number";
    return set_one(name, (size_t)(equals - name), value, from, to);
}

void faults_describe(Buffer *out) {
    if (!ready) reset();
    buffer_printf(out, "{\"duplicate_share\":%g,\"duplicated\":%llu,\"odd_share\":%g,\"calls\":{", duplicate_share, (unsigned long long)counters.duplicated, odd_share);
    for (int i = 0; i < CALLS; i++) {
        buffer_printf(out, "%s\"%s\":{\"latency_ms\":%u,\"times\":", i ? "," : "", CALL_NAMES[i], plans[i].latency_ms);
        if (plans[i].times < 0) {
            buffer_text(out, "null");
        } else {
            buffer_printf(out, "%lld", (long long)plans[i].times);
        }
        for (int k = 0; k < FAULT_KINDS; k++) buffer_printf(out, ",\"%s\":%g", SHARE_NAMES[k], plans[i].shares[k]);
        buffer_text(out, ",\"fired\":{");
        for (int k = 0; k < FAULT_KINDS; k++) buffer_printf(out, "%s\"%s\":%llu", k ? "," : "", FIRED_NAMES[k], (unsigned long long)plans[i].fired[k]);
        buffer_text(out, "}}");
    }
    buffer_text(out, "}}");
}
