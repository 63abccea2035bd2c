/* Queues and messages: who may see which message, and when. No HTTP, no JSON.
 *
 * Rules, as AWS documents or was seen to do them:
 * - A message has one holder: a receive takes it off sight until its visibility timeout ends.
 * - A receipt handle names one receive of one message. On a standard queue an older handle
 *   deletes the message only while nobody holds it, and never changes its visibility; on a FIFO
 *   queue a handle dies with its visibility timeout.
 * - FIFO: a message is deliverable while no earlier one of its group is in flight or delayed.
 * - A message due for its dead-letter queue moves there on the receive that would pass
 *   maxReceiveCount, keeping id, timestamp (FIFO: reset) and receive count.
 * - What becomes visible again goes to the end of the line on a standard queue.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "server.h"
#include "table.h"
#include "wheel.h"

enum { VISIBILITY_LIMIT_S = 43200 }; /* AWS: 12 hours from the receive */

typedef struct Message Message;
typedef struct Queue Queue;
typedef struct Group Group;
struct Connection;

typedef enum { DELAYED, VISIBLE, IN_FLIGHT } MessageState;

/* What only some messages have; strings are owned, NULL when absent. */
typedef struct {
    Group *group; /* FIFO only, as are the links in the group's order */
    Message *before, *behind;
    uint64_t sequence;
    char *group_id, *dedup_id;
    char *attributes; /* MessageAttributes, the JSON object as it came */
    char *trace;      /* AWSTraceHeader, escaped */
    char *source_arn; /* of the queue it was moved from */
    uint32_t receives_elsewhere;
} Extras;

struct Message {
    Timer link; /* on its queue's visible list, or on the wheel */
    Queue *queue;
    uint64_t serial; /* unique; part of its receipt handles */
    int64_t sent_ms, first_received_ms;
    uint64_t held_since_ms; /* monotonic */
    Extras *extras;
    uint32_t receive_count, raw_len, book;
    uint8_t state, twin;
    uint8_t id[16], md5[16];
    char raw[]; /* the body as JSON-escaped text, without quotes */
};

struct Queue {
    Entry by_name; /* first: the table's entries are queues */
    Queue *next, *next_dirty;
    char *name;
    uint32_t id;
    bool fifo, content_dedup, dedup_in_group, dirty;
    uint32_t visibility_s, delay_s, retention_s, wait_s, size_max;
    Queue *dead_letters; /* NULL without a redrive policy */
    uint32_t receives_max;
    char *redrive_policy, *settings[6]; /* attributes kept only to be given back: QUEUE_SETTINGS */
    int64_t created_s, modified_s;
    uint64_t visible_count, in_flight_count, delayed_count;
    Timer visible;
    struct Connection *waiters_first, *waiters_last; /* receives waiting for a message */
    Table groups, dedups;
    Group *ready_first, *ready_last; /* FIFO: groups with a deliverable message */
    struct Dedup *dedup_oldest, *dedup_newest;
    uint64_t sequence;
};
extern const char *const QUEUE_SETTINGS[6];

/* What a message is made of; text NULL when absent. */
typedef struct {
    const char *raw;
    uint32_t raw_len;
    const uint8_t *md5;
    int64_t sent_ms; /* 0: now */
    int book_kind;
    const char *group_id, *dedup_id, *attributes, *trace; /* NUL-terminated; copied */
} Draft;

Queue *queue_create(const char *name, size_t len, bool fifo);
Queue *queue_find(const char *name, size_t len);
Queue *queue_by_arn(const char *arn, size_t len);
Queue *queue_first(void);                 /* the oldest; follow next */
const char *queue_name_ever(uint32_t id); /* of deleted queues too */
void queue_purge(Queue *q);
void queue_delete(Queue *q); /* the caller has answered its waiters */
/* Sets what queue_delete calls first, so that whoever keeps the queue can forget it. */
void queue_when_deleted(void (*forget)(Queue *));

/* Puts a message on the queue; visible after delay_s. On FIFO queues a deduplication id seen in
 * the last five minutes (AWS) makes none: NULL, with the first one's id and sequence instead. */
Message *queue_send(Queue *q, const Draft *d, uint32_t delay_s, uint8_t id[16], uint64_t *sequence);
bool queue_is_deliverable(const Queue *q);
/* Takes up to max messages (at most 10) for visibility_s; returns how many. over_limit: it found
 * the in-flight limit reached. */
int queue_receive(Queue *q, int max, uint32_t visibility_s, Message *out[10], bool *over_limit);

typedef enum { HANDLE_MALFORMED, HANDLE_GONE, HANDLE_STALE, HANDLE_CURRENT } HandleState;
/* HANDLE_GONE: well formed, its message deleted or moved. HANDLE_STALE: received again since. */
HandleState handle_read(const Queue *q, const char *text, size_t len, Message **message);
void handle_write(const Message *m, char *text); /* options.handle_chars characters */

void message_delete(Message *m);
void message_extend(Message *m, uint32_t visibility_s); /* of one in flight; 0 shows it */
void message_expire(Timer *t);                          /* for the wheel */

/* Queues on which something became deliverable since the last call, one at a time. */
Queue *queue_next_dirty(void);

#endif
