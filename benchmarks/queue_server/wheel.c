/* The timing wheel (see wheel.h): four levels of 256 slots. Level n holds timers due within
 * 256^(n+1) ms; when the clock reaches one of its slots, the timers move to the levels below. */
#include "wheel.h"

#include <stddef.h>

enum { LEVELS = 4, SLOTS = 256 };

static Timer slots[LEVELS][SLOTS];
static uint64_t used[SLOTS / 64]; /* slots of level 0 that may hold timers */
static uint64_t clock_ms;
static bool any; /* false only if certainly empty */

void list_init(Timer *head) { head->prev = head->next = head; }

void list_append(Timer *head, Timer *t) {
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
}

void list_prepend(Timer *head, Timer *t) { list_append(head->next, t); }

void list_remove(Timer *t) {
    if (!t->next) return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->prev = t->next = NULL;
}

void wheel_start(uint64_t now_ms) {
    for (int level = 0; level < LEVELS; level++) {
        for (int i = 0; i < SLOTS; i++) list_init(&slots[level][i]);
    }
    clock_ms = now_ms;
}

void wheel_add(Timer *t, uint64_t due_ms) {
    if (due_ms <= clock_ms) due_ms = clock_ms + 1;
    uint64_t ahead = due_ms - clock_ms;
    if (ahead > UINT32_MAX) due_ms = clock_ms + UINT32_MAX, ahead = UINT32_MAX;
    t->due_ms = due_ms;
    int level = ahead < 1u << 8 ? 0 : ahead < 1u << 16 ? 1 : ahead < 1u << 24 ? 2 : 3;
    unsigned index = due_ms >> 8 * level & 255;
    if (level == 0) used[index / 64] |= 1ull << index % 64;
    list_append(&slots[level][index], t);
    any = true;
}

static void pour(int level, unsigned index) {
    Timer *head = &slots[level][index];
    while (!list_is_empty(head)) {
        Timer *t = head->next;
        list_remove(t);
        if (t->due_ms <= clock_ms) { /* due at this tick, which expires next */
            unsigned now = clock_ms & 255;
            used[now / 64] |= 1ull << now % 64;
            list_append(&slots[0][now], t);
        } else {
            wheel_add(t, t->due_ms);
        }
    }
}

static bool is_empty(void) {
    for (int level = 0; level < LEVELS; level++) {
        for (int i = 0; i < SLOTS; i++) {
            if (!list_is_empty(&slots[level][i])) return false;
        }
    }
    return true;
}

void wheel_advance(uint64_t now_ms, void (*expire)(Timer *)) {
    if (!any) {
        clock_ms = now_ms;
        return;
    }
    while (clock_ms < now_ms) {
        clock_ms++;
        unsigned index = clock_ms & 255;
        for (int level = 1; level < LEVELS && index == 0; level++) {
            index = clock_ms >> 8 * level & 255;
            pour(level, index);
        }
        index = clock_ms & 255;
        if (index == 0 && is_empty()) {
            any = false;
            clock_ms = now_ms;
            return;
        }
        if (!(used[index / 64] >> index % 64 & 1)) continue;
        used[index / 64] &= ~(1ull << index % 64);
        Timer due;
        list_init(&due);
        Timer *head = &slots[0][index];
        if (!list_is_empty(head)) { /* take the whole slot, since expire may add to the wheel */
            due = *head;
            due.prev->next = &due;
            due.next->prev = &due;
            list_init(head);
        }
        while (!list_is_empty(&due)) {
            Timer *t = due.next;
            list_remove(t);
            expire(t);
        }
    }
}

int wheel_wait_ms(uint64_t now_ms) {
    if (!any) return -1;
    uint64_t tick = clock_ms + 1;
    while (tick & 255) { /* the next slot in use, or the next move from a level above */
        uint64_t bits = used[(tick & 255) / 64] >> (tick & 63);
        if (bits) {
            tick += (unsigned)__builtin_ctzll(bits);
            break;
        }
        tick = (tick | 63) + 1;
    }
    return tick > now_ms ? (int)(tick - now_ms) : 0;
}
