/* Deliberate faults, set per call: latency, throttling, server errors, lost replies, failed batch
 * entries. The draws come from a random stream of their own: with the same --fault-seed, the same
 * order of requests gets the same faults. */
#ifndef FAULTS_H
#define FAULTS_H

#include "buffer.h"
#include "json.h"
#include "server.h"

typedef enum { FAULT_THROTTLE, FAULT_ERROR, FAULT_LOSE_REPLY, FAULT_FAIL_ENTRY, FAULT_KINDS } FaultKind;

uint32_t fault_latency_ms(int call);
bool fault_fires(Call call, FaultKind kind); /* draws, counts, and obeys `times` */

/* An error answer that replaces the answer of a call. */
typedef struct {
    int status;
    const char *type, *code, *message; /* type NULL: message is a load balancer's HTML page */
} Refusal;
/* Draws whether a call is throttled or gets a server error; returns NULL if neither. */
const Refusal *fault_refusal(Call call);

/* Applies {"call": NAME or "*", NAME_OF_FAULT: VALUE…, "times": N, "seed": N, "reset": true}.
 * Returns NULL, or what is wrong with it. */
const char *faults_set(const Json *json, const JsonNode *plan);
/* Applies one command line option, [CALL:]NAME=VALUE. Returns NULL, or what is wrong with it. */
const char *faults_set_option(const char *option);
uint64_t faults_fired(void); /* of every kind except latency, duplicates and odd deliveries */
void faults_describe(Buffer *out); /* as one JSON object: what is set, and how often each fault fired */

#endif
