/* Faults on purpose, by call: latency, throttling, server errors, lost replies, failed batch
 * entries. Shares are drawn from the fault stream, so that --fault-seed repeats a run's faults
 * for one order of requests. */
#ifndef FAULTS_H
#define FAULTS_H

#include "buffer.h"
#include "http.h"
#include "json.h"

typedef enum { FAULT_THROTTLE, FAULT_ERROR, FAULT_LOSE_REPLY, FAULT_FAIL_ENTRY, FAULT_KINDS } FaultKind;

uint32_t fault_latency_ms(int call);
bool fault_fires(Call call, FaultKind kind); /* draws, counts, and honours the plan's `times` */
/* Answers with a throttling or server error if the call draws one; true if it did. */
bool fault_answers(Connection *c, Call call);

/* Applies {"call": NAME or "*", NAME_OF_FAULT: VALUE…, "times": N, "seed": N, "reset": true}.
 * NULL when it was understood, else what was wrong. */
const char *faults_set(const Json *json, const JsonNode *plan);
/* Applies one command line option, [CALL:]NAME=VALUE. */
const char *faults_set_option(const char *option);
uint64_t faults_fired(void); /* of every kind but latency and duplicates */
void faults_describe(Buffer *out); /* as one JSON object: the plan and how often each fired */

#endif
