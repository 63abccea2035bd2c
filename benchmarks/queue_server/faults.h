/* Faults on purpose, by call: latency, throttling, server errors, lost replies, failed batch
 * entries. Shares are drawn from the fault stream, so that --fault-seed repeats a run's faults
 * for one order of requests. */
#ifndef FAULTS_H
#define FAULTS_H

#include "buffer.h"
#include "json.h"
#include "server.h"

typedef enum { FAULT_THROTTLE, FAULT_ERROR, FAULT_LOSE_REPLY, FAULT_FAIL_ENTRY, FAULT_KINDS } FaultKind;

uint32_t fault_latency_ms(int call);
bool fault_fires(Call call, FaultKind kind); /* draws, counts, and honours the plan's `times` */

/* An answer in place of the call's own. */
typedef struct {
    int status;
    const char *type, *code, *message; /* type NULL: a load balancer's page in HTML, which is message */
} Refusal;
/* Draws a throttling or a server error for a call; NULL when it gets neither. */
const Refusal *fault_refusal(Call call);

/* Applies {"call": NAME or "*", NAME_OF_FAULT: VALUE…, "times": N, "seed": N, "reset": true}.
 * NULL when it was understood, else what was wrong. */
const char *faults_set(const Json *json, const JsonNode *plan);
/* Applies one command line option, [CALL:]NAME=VALUE. */
const char *faults_set_option(const char *option);
uint64_t faults_fired(void); /* of every kind but latency and duplicates */
void faults_describe(Buffer *out); /* as one JSON object: the plan and how often each fired */

#endif
