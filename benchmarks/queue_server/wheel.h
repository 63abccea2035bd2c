/* A hierarchical timing wheel: add, cancel and expire in constant time. Times are milliseconds of the
 * monotonic clock; no timer expires early. A Timer is also a list link: a message is either on its
 * queue's list of visible messages or on the wheel, and moves between them without allocation. */
#ifndef WHEEL_H
#define WHEEL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { TIMER_MESSAGE, TIMER_CONNECTION, TIMER_FILL } TimerKind;

typedef struct Timer {
    struct Timer *prev, *next; /* both NULL if on no list */
    uint64_t due_ms;
    TimerKind kind;
    uint32_t slot; /* of a message */
} Timer;

void list_init(Timer *head);
void list_append(Timer *head, Timer *t);
void list_prepend(Timer *head, Timer *t);
void list_remove(Timer *t); /* does nothing if on no list */
static inline bool list_is_empty(const Timer *head) { return head->next == head; }

void wheel_start(uint64_t now_ms);
void wheel_add(Timer *t, uint64_t due_ms);
/* Calls expire for every due timer, after taking it off the wheel; it may be added again. */
void wheel_advance(uint64_t now_ms, void (*expire)(Timer *));
/* Milliseconds until the wheel must be advanced: at most 256, or -1 if it is empty. */
int wheel_wait_ms(uint64_t now_ms);

#endif
