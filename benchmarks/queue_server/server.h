/* What all parts of the queue server share: options, clock, counters, random streams. */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    CALL_RECEIVE_MESSAGE,
    CALL_DELETE_MESSAGE_BATCH,
    CALL_SEND_MESSAGE_BATCH,
    CALL_CHANGE_MESSAGE_VISIBILITY_BATCH,
    CALL_SEND_MESSAGE,
    CALL_DELETE_MESSAGE,
    CALL_CHANGE_MESSAGE_VISIBILITY,
    CALL_GET_QUEUE_ATTRIBUTES,
    CALL_SET_QUEUE_ATTRIBUTES,
    CALL_GET_QUEUE_URL,
    CALL_CREATE_QUEUE,
    CALL_LIST_QUEUES,
    CALL_DELETE_QUEUE,
    CALL_PURGE_QUEUE,
    CALLS,
} Call;
extern const char *const CALL_NAMES[CALLS];

typedef struct {
    const char *region, *account;
    uint32_t in_flight_limit; /* messages per queue; AWS: 120,000 */
    uint32_t handle_chars;    /* length of a receipt handle */
    uint32_t longest_poll_ms; /* of a receive without a message; AWS: 20,000 */
    bool md5;                 /* return MD5OfBody */
    bool manifest;            /* keep a line for every message ever sent */
    bool tls;
    int port;
} Options;
extern Options options;

typedef struct {
    uint64_t requests[CALLS];
    uint64_t sent, received, deleted, moved, expired, duplicated;
    uint64_t delivered_bytes; /* of bodies, escaped as in the answers */
} Counters;
extern Counters counters;

/* Share of a standard queue's messages to deliver twice: faults.c sets it, queue.c applies it. */
extern double duplicate_share, odd_share;

extern uint64_t now_ms; /* monotonic; read once per round of the event loop */
extern int64_t wall_ms; /* since the epoch */
void clock_read(void);

/* xoshiro256**. Ids and generated logins use one stream, faults another, so that switching a fault on
 * does not change the ids that a seed gives. */
typedef struct {
    uint64_t s[4];
} Random;
extern Random random_ids, random_faults;
void random_seed(Random *r, uint64_t seed);
uint64_t random_next(Random *r);
uint32_t random_below(Random *r, uint32_t bound);
bool random_chance(Random *r, double share); /* true for about this share of the calls */
uint64_t random_mix(uint64_t x);             /* splitmix64's finalizer: a hash of x */

#endif
