/* Queues and messages (see queue.h). */
#include "queue.h"

#include <stdlib.h>

#include "buffer.h"
#include "manifest.h"

const char *const QUEUE_SETTINGS[6] = {"Policy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled", "FifoThroughputLimit"};
enum { DEDUP_MS = 300000 };

/* A message that is delivered twice has a twin: a second message with the same id. The twin follows
 * right after the first, at the end of the queue, or only after the first was deleted. */
typedef enum { TWIN_UNDECIDED, TWIN_NONE, TWIN_AFTER_DELETE, TWIN_ITSELF } Twin;

struct Group {
    Entry by_id;
    Group *prev, *next; /* in the queue's ready list */
    bool ready;
    Message *first, *last;
    char id[];
};

typedef struct Dedup {
    Entry by_id;
    struct Dedup *newer;
    uint64_t due_ms, sequence;
    uint8_t id[16];
    char key[];
} Dedup;

static Table queues;
static Queue *oldest, *newest, *dirty;
static char **names_ever;
static uint32_t queue_ids;
static Message **slots; /* indexed by the slot number in receipt handles */
static uint32_t *free_slots, slot_cap, free_count;
static uint64_t serials;
static void (*when_deleted)(Queue *);

/* ---- queues ---- */

Queue *queue_create(const char *name, size_t len, bool fifo) {
    Queue *q = must_alloc(calloc(1, sizeof *q));
    q->name = must_alloc(strndup(name, len));
    q->id = queue_ids++;
    names_ever = must_alloc(realloc(names_ever, queue_ids * sizeof *names_ever));
    names_ever[q->id] = must_alloc(strdup(q->name));
    q->fifo = fifo;
    q->visibility_s = 30; /* the defaults of the AWS SQS API reference, CreateQueue */
    q->retention_s = 345600;
    q->size_max = 1048576;
    q->created_s = q->modified_s = wall_ms / 1000;
    list_init(&q->visible);
    table_put(&queues, &q->by_name, q->name, len);
    if (newest) {
        newest->next = q;
    } else {
        oldest = q;
    }
    newest = q;
    return q;
}

Queue *queue_find(const char *name, size_t len) { return (Queue *)table_find(&queues, name, len); }

Queue *queue_by_arn(const char *arn, size_t len) {
    Buffer want = {0};
    Queue *found = NULL;
    buffer_printf(&want, "arn:aws:sqs:%s:%s:", options.region, options.account);
    if (len > want.len && memcmp(arn, want.data, want.len) == 0) found = queue_find(arn + want.len, len - want.len);
    buffer_release(&want);
    return found;
}

Queue *queue_first(void) { return oldest; }

const char *queue_name_ever(uint32_t id) { return names_ever[id]; }

static void mark_dirty(Queue *q) {
    if (q->dirty) return;
    q->dirty = true;
    q->next_dirty = dirty;
    dirty = q;
}

Queue *queue_next_dirty(void) {
    Queue *q = dirty;
    if (q) {
        dirty = q->next_dirty;
        q->dirty = false;
    }
    return q;
}

/* ---- FIFO groups ---- */

static void ready_remove(Queue *q, Group *g) {
    if (!g->ready) return;
    g->ready = false;
    *(g->prev ? &g->prev->next : &q->ready_first) = g->next;
    *(g->next ? &g->next->prev : &q->ready_last) = g->prev;
}

static void ready_append(Queue *q, Group *g) {
    g->ready = true;
    g->prev = q->ready_last;
    g->next = NULL;
    *(g->prev ? &g->prev->next : &q->ready_first) = g;
    q->ready_last = g;
}

/* Call it after a group's first message or that message's state changed: puts the group on the ready
 * list or takes it off, and frees an empty group. */
static void group_refresh(Queue *q, Group *g) {
    bool ready = g->first && g->first->state == VISIBLE;
    if (ready && !g->ready) {
        ready_append(q, g);
        mark_dirty(q);
    }
    if (!ready) ready_remove(q, g);
    if (!g->first) {
        table_remove(&q->groups, &g->by_id);
        free(g);
    }
}

static void group_join(Queue *q, Message *m) {
    Extras *x = m->extras;
    size_t len = strlen(x->group_id);
    Group *g = (Group *)table_find(&q->groups, x->group_id, len);
    if (!g) {
        g = must_alloc(calloc(1, sizeof *g + len + 1));
        memcpy(g->id, x->group_id, len);
        table_put(&q->groups, &g->by_id, g->id, len);
    }
    x->group = g;
    x->before = g->last;
    x->behind = NULL;
    *(g->last ? &g->last->extras->behind : &g->first) = m;
    g->last = m;
}

/* Unlinks a message from its group, without refreshing the group. */
static Group *group_leave(Message *m) {
    Extras *x = m->extras;
    Group *g = x->group;
    *(x->before ? &x->before->extras->behind : &g->first) = x->behind;
    *(x->behind ? &x->behind->extras->before : &g->last) = x->before;
    x->group = NULL;
    return g;
}

/* ---- messages ---- */

static uint64_t *state_count(Message *m) {
    Queue *q = m->queue;
    return m->state == VISIBLE ? &q->visible_count : m->state == IN_FLIGHT ? &q->in_flight_count : &q->delayed_count;
}

static void set_state(Message *m, MessageState state) {
    --*state_count(m);
    m->state = (uint8_t)state;
    ++*state_count(m);
}

static uint32_t slot_take(Message *m) {
    if (!free_count) {
        uint32_t cap = slot_cap ? slot_cap * 2 : 1024;
        slots = must_alloc(realloc(slots, cap * sizeof(Message *)));
        free_slots = must_alloc(realloc(free_slots, cap * sizeof *free_slots));
        for (uint32_t i = cap; i > slot_cap; i--) {
            slots[i - 1] = NULL;
            free_slots[free_count++] = i - 1;
        }
        slot_cap = cap;
    }
    uint32_t slot = free_slots[--free_count];
    slots[slot] = m;
    return slot;
}

bool message_in_slot(uint32_t slot, Message **m) {
    if (slot >= slot_cap) return false;
    *m = slots[slot];
    return true;
}

/* Frees a message that is in no group, and subtracts it from the count of its state. */
static void message_free(Message *m) {
    list_remove(&m->link);
    --*state_count(m);
    slots[m->link.slot] = NULL;
    free_slots[free_count++] = m->link.slot;
    Extras *x = m->extras;
    if (x) {
        free(x->group_id);
        free(x->dedup_id);
        free(x->attributes);
        free(x->trace);
        free(x->source_arn);
        free(x);
    }
    free(m);
}

/* Frees a message and refreshes its group, if any. */
static void message_drop(Message *m) {
    Queue *q = m->queue;
    Group *g = m->extras && m->extras->group ? group_leave(m) : NULL;
    message_free(m);
    if (g) group_refresh(q, g);
}

/* Makes a message visible: at the end of a standard queue, in its order on a FIFO queue. */
static void message_show(Message *m) {
    list_remove(&m->link);
    set_state(m, VISIBLE);
    if (m->queue->fifo) {
        group_refresh(m->queue, m->extras->group);
    } else {
        list_append(&m->queue->visible, &m->link);
        mark_dirty(m->queue);
    }
}

void message_expire(Timer *t) { message_show((Message *)t); }

static char *copy(const char *text) { return text ? must_alloc(strdup(text)) : NULL; }

static Extras *extras_new(const char *group_id, const char *dedup_id, const char *attributes, const char *trace) {
    Extras *x = must_alloc(calloc(1, sizeof *x));
    x->group_id = copy(group_id);
    x->dedup_id = copy(dedup_id);
    x->attributes = copy(attributes);
    x->trace = copy(trace);
    return x;
}

static Message *message_new(Queue *q, const char *raw, uint32_t raw_len) {
    Message *m = must_alloc(malloc(sizeof *m + raw_len));
    memset(m, 0, sizeof *m);
    memcpy(m->raw, raw, raw_len);
    m->raw_len = raw_len;
    m->queue = q;
    m->serial = ++serials;
    m->link.kind = TIMER_MESSAGE;
    m->link.slot = slot_take(m);
    m->state = DELAYED;
    q->delayed_count++;
    return m;
}

/* ---- sending ---- */

static void dedup_prune(Queue *q) {
    while (q->dedup_oldest && q->dedup_oldest->due_ms <= now_ms) {
        Dedup *d = q->dedup_oldest;
        q->dedup_oldest = d->newer;
        if (!d->newer) q->dedup_newest = NULL;
        table_remove(&q->dedups, &d->by_id);
        free(d);
    }
}

/* Finds the deduplication entry of a draft; if there is none, makes one for the caller to fill (fresh). */
static Dedup *dedup_claim(Queue *q, const Draft *d, bool *fresh) {
    dedup_prune(q);
    Buffer key = {0};
    if (q->dedup_in_group) buffer_printf(&key, "%s ", d->group_id); /* a group id has no space */
    buffer_printf(&key, "%s", d->dedup_id);
    Dedup *found = (Dedup *)table_find(&q->dedups, key.data, key.len);
    *fresh = !found;
    if (!found) {
        found = must_alloc(calloc(1, sizeof *found + key.len));
        memcpy(found->key, key.data, key.len);
        table_put(&q->dedups, &found->by_id, found->key, key.len);
        found->due_ms = now_ms + DEDUP_MS;
        *(q->dedup_newest ? &q->dedup_newest->newer : &q->dedup_oldest) = found;
        q->dedup_newest = found;
    }
    buffer_release(&key);
    return found;
}

static void new_uuid(uint8_t id[16]) {
    uint64_t halves[2] = {random_next(&random_ids), random_next(&random_ids)};
    memcpy(id, halves, 16);
    id[6] = (uint8_t)((id[6] & 0x0F) | 0x40);
    id[8] = (uint8_t)((id[8] & 0x3F) | 0x80);
}

Message *queue_send(Queue *q, const Draft *d, uint32_t delay_s, uint8_t id[16], uint64_t *sequence) {
    Dedup *dedup = NULL;
    if (q->fifo) {
        bool fresh;
        dedup = dedup_claim(q, d, &fresh);
        if (!fresh) {
            memcpy(id, dedup->id, 16);
            *sequence = dedup->sequence;
            return NULL;
        }
    }
    Message *m = message_new(q, d->raw, d->raw_len);
    new_uuid(m->id);
    memcpy(m->md5, d->md5, 16);
    m->sent_ms = d->sent_ms ? d->sent_ms : wall_ms;
    m->manifest_index = manifest_add(m->id, m->md5, q->id, (ManifestKind)d->manifest_kind);
    if (d->group_id || d->dedup_id || d->attributes || d->trace) {
        m->extras = extras_new(d->group_id, d->dedup_id, d->attributes, d->trace);
    }
    *sequence = 0;
    if (q->fifo) {
        m->extras->sequence = *sequence = dedup->sequence = ++q->sequence;
        memcpy(dedup->id, m->id, 16);
        group_join(q, m);
    }
    if (delay_s) {
        wheel_add(&m->link, now_ms + delay_s * 1000ull);
    } else {
        message_show(m);
    }
    counters.sent++;
    memcpy(id, m->id, 16);
    return m;
}

/* ---- receiving ---- */

bool queue_is_deliverable(const Queue *q) {
    return q->fifo ? q->ready_first != NULL : !list_is_empty(&q->visible);
}

/* Moves a visible message to its queue's dead-letter queue. */
static void message_move(Message *m) {
    Queue *from = m->queue, *to = from->dead_letters;
    list_remove(&m->link);
    Group *left = m->extras && m->extras->group ? group_leave(m) : NULL;
    --*state_count(m);
    if (!m->extras) m->extras = extras_new(NULL, NULL, NULL, NULL);
    Buffer arn = {0};
    buffer_printf(&arn, "arn:aws:sqs:%s:%s:%s", options.region, options.account, from->name);
    free(m->extras->source_arn);
    m->extras->source_arn = must_alloc(strdup(arn.data));
    buffer_release(&arn);
    m->extras->receives_elsewhere = m->receive_count;
    m->queue = to;
    m->serial = ++serials; /* invalidates the handles of the old queue */
    m->state = DELAYED;
    to->delayed_count++;
    if (to->fifo) {
        m->sent_ms = wall_ms; /* AWS SQS developer guide: the timestamp resets on FIFO queues */
        group_join(to, m);
    }
    message_show(m);
    if (left) group_refresh(from, left);
    counters.moved++;
}

/* Drops a message past its retention, or moves one received too often; returns whether it did. */
static bool message_retire(Message *m) {
    Queue *q = m->queue;
    if (wall_ms - m->sent_ms >= q->retention_s * 1000ll) {
        message_drop(m);
        counters.expired++;
        return true;
    }
    uint32_t here = m->receive_count - (m->extras ? m->extras->receives_elsewhere : 0);
    if (q->dead_letters && here >= q->receives_max) {
        message_move(m);
        return true;
    }
    return false;
}

static void twin_decide(Message *m) {
    m->twin = TWIN_NONE;
    if (!random_chance(&random_faults, duplicate_share)) return;
    counters.duplicated++;
    uint32_t way = random_below(&random_faults, 3);
    if (way == 2) {
        m->twin = TWIN_AFTER_DELETE;
        return;
    }
    Message *t = message_new(m->queue, m->raw, m->raw_len);
    memcpy(t->id, m->id, 16);
    memcpy(t->md5, m->md5, 16);
    t->sent_ms = m->sent_ms;
    t->first_received_ms = m->first_received_ms;
    t->receive_count = m->receive_count;
    t->manifest_index = m->manifest_index;
    t->twin = TWIN_ITSELF;
    if (m->extras) {
        const Extras *x = m->extras;
        t->extras = extras_new(x->group_id, x->dedup_id, x->attributes, x->trace);
        t->extras->source_arn = copy(x->source_arn);
        t->extras->receives_elsewhere = x->receives_elsewhere;
    }
    message_show(t);
    if (way == 0) { /* next in the queue, so often in the same answer */
        list_remove(&t->link);
        list_prepend(&t->queue->visible, &t->link);
    }
}

static void message_take(Message *m) {
    list_remove(&m->link);
    set_state(m, IN_FLIGHT);
    m->receive_count++;
    m->held_since_ms = now_ms;
    if (!m->first_received_ms) m->first_received_ms = wall_ms;
    ManifestEntry *e = manifest_entry(m->manifest_index);
    if (e) e->receives++;
    counters.received++;
    counters.delivered_bytes += m->raw_len;
    if (m->twin == TWIN_UNDECIDED && duplicate_share > 0 && !m->queue->fifo) twin_decide(m);
}

static int take_standard(Queue *q, int max, Message *out[10], bool *over_limit) {
    int n = 0;
    while (n < max && !list_is_empty(&q->visible)) {
        Message *m = (Message *)q->visible.next;
        if (message_retire(m)) continue;
        if (q->in_flight_count >= options.in_flight_limit) {
            *over_limit = true;
            break;
        }
        message_take(m);
        out[n++] = m;
    }
    return n;
}

/* Takes as many messages of one group as fit, then the next group (AWS SQS developer guide, FIFO
 * delivery logic). */
static int take_fifo(Queue *q, int max, Message *out[10], bool *over_limit) {
    int n = 0;
    while (n < max && q->ready_first) {
        if (q->in_flight_count >= options.in_flight_limit) {
            *over_limit = true;
            break;
        }
        Group *g = q->ready_first;
        Message *m = g->first;
        if (message_retire(m)) continue; /* may have freed the group */
        for (; m && m->state == VISIBLE && n < max; m = m->extras->behind) {
            if (n && q->in_flight_count >= options.in_flight_limit) break;
            message_take(m);
            out[n++] = m;
            Message *next = m->extras->behind;
            while (next && next->state == VISIBLE && message_retire(next)) next = m->extras->behind;
        }
        group_refresh(q, g);
    }
    return n;
}

int queue_receive(Queue *q, int max, uint32_t visibility_s, Message *out[10], bool *over_limit) {
    *over_limit = false;
    int n = q->fifo ? take_fifo(q, max, out, over_limit) : take_standard(q, max, out, over_limit);
    for (int i = 0; i < n; i++) {
        if (visibility_s) {
            wheel_add(&out[i]->link, now_ms + visibility_s * 1000ull);
        } else {
            message_show(out[i]);
        }
    }
    return n;
}

/* ---- settling ---- */

void message_delete(Message *m) {
    ManifestEntry *e = manifest_entry(m->manifest_index);
    if (e) e->deletes++;
    counters.deleted++;
    if (m->twin == TWIN_AFTER_DELETE) {
        m->twin = TWIN_ITSELF;
        m->serial = ++serials;
        message_show(m);
        return;
    }
    message_drop(m);
}

void message_extend(Message *m, uint32_t visibility_s) {
    if (visibility_s) {
        list_remove(&m->link);
        wheel_add(&m->link, now_ms + visibility_s * 1000ull);
    } else {
        message_show(m);
    }
}

/* ---- the end of queues ---- */

void queue_purge(Queue *q) {
    for (uint32_t i = 0; i < slot_cap; i++) {
        if (slots[i] && slots[i]->queue == q) message_drop(slots[i]);
    }
}

static void dedup_release(Entry *e) { free(e); }

void queue_when_deleted(void (*forget)(Queue *)) { when_deleted = forget; }

void queue_delete(Queue *q) {
    if (when_deleted) when_deleted(q);
    queue_purge(q);
    for (Queue **at = &dirty; *at; at = &(*at)->next_dirty) {
        if (*at == q) {
            *at = q->next_dirty;
            break;
        }
    }
    Queue *before = NULL;
    for (Queue *other = oldest; other; other = other->next) {
        if (other->next == q) before = other;
        if (other->dead_letters == q) other->dead_letters = NULL;
    }
    *(before ? &before->next : &oldest) = q->next;
    if (newest == q) newest = before;
    table_remove(&queues, &q->by_name);
    table_release(&q->dedups, dedup_release);
    table_release(&q->groups, dedup_release); /* empty by now: frees the buckets */
    free(q->redrive_policy);
    for (int i = 0; i < 6; i++) free(q->settings[i]);
    free(q->name);
    free(q);
}
