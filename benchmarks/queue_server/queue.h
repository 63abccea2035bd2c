/* Queues and messages: who can receive which message, and when. No HTTP, no JSON.
 *
 * Rules, as documented by AWS or observed there:
 * - A message has one holder: a receive hides it until its visibility timeout ends.
 * - A receipt handle stands for one receive of one message. On a standard queue an older handle
 *   deletes the message only while nobody holds it, and never changes its visibility. On a FIFO
 *   queue a handle expires with its visibility timeout.
 * - FIFO: a message can be delivered while no earlier message of its group is in flight or delayed.
 * - A message moves to its dead-letter queue on the receive that would exceed maxReceiveCount. It
 *   keeps its id, timestamp (FIFO: reset) and receive count.
 * - On a standard queue, a message that becomes visible again goes to the end of the queue.
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

/* Fields that only some messages have. The message owns the strings; NULL if absent. */
typedef struct {
    Group *group; /* FIFO only, like the links in the group's order */
    Message *before, *behind;
    uint64_t sequence;
    char *group_id, *dedup_id;
    char *attributes; /* MessageAttributes: the JSON object as it was sent */
    char *trace;      /* AWSTraceHeader, escaped */
    char *source_arn; /* the queue that it was moved from */
    uint32_t receives_elsewhere;
} Extras;

struct Message {
    Timer link; /* on its queue's visible list, or on the wheel */
    Queue *queue;
    uint64_t serial; /* unique; part of its receipt handles */
    int64_t sent_ms, first_received_ms;
    uint64_t held_since_ms; /* monotonic */
    Extras *extras;
    uint32_t receive_count, raw_len, manifest_index;
    uint8_t state, twin;
    uint8_t id[16], md5[16];
    char raw[]; /* the body as JSON-escaped text, without quotes */
};

struct Queue {
    Entry by_name; /* must be first: the table's entries are queues */
    Queue *next, *next_dirty;
    char *name;
    uint32_t id;
    bool fifo, content_dedup, dedup_in_group, dirty;
    uint32_t visibility_s, delay_s, retention_s, wait_s, size_max;
    Queue *dead_letters; /* NULL if there is no redrive policy */
    uint32_t receives_max;
    char *redrive_policy, *settings[6]; /* attributes that are stored and returned, without effect: QUEUE_SETTINGS */
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

/* The parts of a message to send; NULL if absent. */
typedef struct {
    const char *raw;
    uint32_t raw_len;
    const uint8_t *md5;
    int64_t sent_ms; /* 0: now */
    int manifest_kind;
    const char *group_id, *dedup_id, *attributes, *trace; /* NUL-terminated; copied */
} Draft;

Queue *queue_create(const char *name, size_t len, bool fifo);
Queue *queue_find(const char *name, size_t len);
Queue *queue_by_arn(const char *arn, size_t len);
Queue *queue_first(void);                 /* the oldest; follow its next */
const char *queue_name_ever(uint32_t id); /* deleted queues too */
void queue_purge(Queue *q);
void queue_delete(Queue *q); /* first answer its waiters */
/* Sets the function that queue_delete calls first, so that whoever refers to the queue can stop. */
void queue_when_deleted(void (*forget)(Queue *));

/* Puts a message on the queue; it becomes visible after delay_s. On a FIFO queue, if the
 * deduplication id was used in the last five minutes (AWS), sends nothing: returns NULL and sets id
 * and sequence to those of the first message. */
Message *queue_send(Queue *q, const Draft *d, uint32_t delay_s, uint8_t id[16], uint64_t *sequence);
bool queue_is_deliverable(const Queue *q);
/* Takes up to max messages (at most 10) for visibility_s; returns how many. Sets over_limit if the
 * in-flight limit was reached. */
int queue_receive(Queue *q, int max, uint32_t visibility_s, Message *out[10], bool *over_limit);

/* Finds the message in a slot, NULL if the slot is free; returns false if there is no such slot. */
bool message_in_slot(uint32_t slot, Message **m);

void message_delete(Message *m);
void message_extend(Message *m, uint32_t visibility_s); /* of a message in flight; 0 makes it visible */
void message_expire(Timer *t);                          /* called by the wheel */

/* Returns the next queue with newly deliverable messages, or NULL. */
Queue *queue_next_dirty(void);

#endif
