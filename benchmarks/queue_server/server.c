/* Options, clock, counters and random streams (see server.h). */
#include "server.h"

#include <time.h>

const char *const CALL_NAMES[CALLS] = {
    "ReceiveMessage", "DeleteMessageBatch", "SendMessageBatch", "ChangeMessageVisibilityBatch",
    "SendMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes",
    "SetQueueAttributes", "GetQueueUrl", "CreateQueue", "ListQueues", "DeleteQueue", "PurgeQueue"};

Options options = {.region = "us-east-1", .account = "000000000000", .in_flight_limit = 120000, .handle_chars = 284, .longest_poll_ms = 20000, .md5 = true};
Counters counters;
Random random_ids, random_faults;
uint64_t now_ms;
int64_t wall_ms;
double duplicate_share, odd_share;

void clock_read(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    now_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    clock_gettime(CLOCK_REALTIME, &t);
    wall_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

uint64_t random_mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

void random_seed(Random *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) r->s[i] = random_mix(seed + (uint64_t)i * 0x9E3779B97F4A7C15u);
}

uint64_t random_next(Random *r) {
    uint64_t *s = r->s, x = s[1] * 5, result = (x << 7 | x >> 57) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

uint32_t random_below(Random *r, uint32_t bound) { return (uint32_t)((random_next(r) >> 32) * bound >> 32); }

bool random_chance(Random *r, double share) {
    return share > 0 && (double)(random_next(r) >> 11) * 0x1p-53 < share;
}
