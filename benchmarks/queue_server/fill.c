/* Filling a queue (see fill.h). */
#include "fill.h"

#include <stdio.h>
#include <stdlib.h>

#include "digest.h"
#include "logins.h"
#include "manifest.h"
#include "queue.h"

enum { SLICE = 500 }; /* messages per round: well under a millisecond */

typedef struct Fill {
    Timer timer; /* wakes the loop for the next messages of a steady rate */
    struct Fill *next;
    Connection *connection; /* to answer at the end, or NULL */
    Queue *queue;           /* NULL once the queue was deleted */
    Population population;
    Random random;
    Buffer template;
    uint64_t count, done, malformed, body_bytes, start_ms;
    int64_t sent_ms_ago;
    uint32_t groups;
    double rate_per_s; /* 0: as fast as possible */
} Fill;

static Fill *fills;
static uint64_t dedup_ids;

static bool get_real(const Json *json, const JsonNode *args, const char *name, double most, double *value) {
    const JsonNode *node = json_get(json, args, name);
    if (!node) return true;
    return json_real(node, value) && *value >= 0 && *value <= most;
}

const char *fill_start(Connection *c, const Json *json, const JsonNode *args) {
    const JsonNode *name = json_get(json, args, "queue"), *background = json_get(json, args, "background");
    const JsonNode *template = json_get(json, args, "template");
    Queue *q = name && name->type == JSON_STRING ? queue_find(name->text, name->len) : NULL;
    double count = -1, malformed = 0, people = 1000, pad = 0, groups = 1, rate = 0, ago = 0;
    double seed = (double)(random_next(&random_ids) >> 32);
    if (!q) return "queue must name an existing queue";
    if (!get_real(json, args, "count", 1e9, &count) || count < 0) return "count must be a number up to 1e9";
    if (!get_real(json, args, "malformed_share", 1, &malformed)) return "malformed_share must be from 0 to 1";
    if (!get_real(json, args, "people", 1e9, &people) || people < 1) return "people must be from 1 to 1e9";
    if (!get_real(json, args, "pad_bytes", 1048576 - 512, &pad)) return "pad_bytes must leave room in 1 MiB";
    if (!get_real(json, args, "groups", 1e6, &groups) || groups < 1) return "groups must be from 1 to 1e6";
    if (!get_real(json, args, "rate_per_s", 1e7, &rate)) return "rate_per_s must be up to 1e7";
    if (!get_real(json, args, "sent_ms_ago", 1e12, &ago)) return "sent_ms_ago must be a number";
    if (!get_real(json, args, "seed", 1e15, &seed)) return "seed must be a number up to 1e15";
    if (template && template->type != JSON_STRING) return "template must be a string";
    Fill *f = must_alloc(calloc(1, sizeof *f));
    if (template && json_unescape(template->text, template->len, &f->template) != TEXT_OK) {
        buffer_release(&f->template);
        free(f);
        return "template must be text";
    }
    f->timer.kind = TIMER_FILL;
    f->queue = q;
    f->population = (Population){(uint64_t)seed, (uint32_t)people, malformed, (uint32_t)pad,
                                 f->template.len ? f->template.data : NULL, f->template.len};
    random_seed(&f->random, (uint64_t)seed);
    f->count = (uint64_t)count;
    f->groups = (uint32_t)groups;
    f->rate_per_s = rate;
    f->sent_ms_ago = (int64_t)ago;
    f->start_ms = now_ms;
    f->next = fills;
    fills = f;
    if (background && background->type == JSON_TRUE) {
        Buffer *out = answer_begin(c);
        buffer_text(out, "{}");
        answer_end(c, 200, "application/json", NULL);
    } else {
        f->connection = c;
        c->phase = PHASE_WAITING;
    }
    return NULL;
}

static void send_one(Fill *f) {
    static Buffer text, raw;
    uint8_t digest[16] = {0}, id[16];
    char group[16], dedup[24];
    uint64_t sequence;
    text.len = raw.len = 0;
    bool malformed = login_write(&f->population, &f->random, &text);
    buffer_escaped(&raw, text.data, text.len);
    if (options.md5 || options.manifest) md5(text.data, text.len, digest);
    Draft d = {.raw = raw.data, .raw_len = (uint32_t)raw.len, .md5 = digest, .manifest_kind = malformed ? KIND_MALFORMED : KIND_LOGIN};
    if (f->sent_ms_ago) d.sent_ms = wall_ms - f->sent_ms_ago;
    if (f->queue->fifo) {
        snprintf(group, sizeof group, "g%u", random_below(&f->random, f->groups));
        snprintf(dedup, sizeof dedup, "fill-%llu", (unsigned long long)++dedup_ids);
        d.group_id = group;
        d.dedup_id = dedup;
    }
    queue_send(f->queue, &d, f->queue->delay_s, id, &sequence);
    f->done++;
    f->malformed += malformed;
    f->body_bytes += text.len;
}

/* Returns how many messages are due now. */
static uint64_t due(const Fill *f) {
    if (!f->queue) return 0;
    uint64_t upto = f->count;
    if (f->rate_per_s > 0) {
        double reached = (double)(now_ms - f->start_ms) * f->rate_per_s / 1000;
        if (reached < (double)upto) upto = (uint64_t)reached;
    }
    return upto - f->done;
}

static bool is_done(const Fill *f) { return !f->queue || f->done >= f->count; }

static void finish(Fill *f) {
    Connection *c = f->connection;
    list_remove(&f->timer);
    if (c) {
        Buffer *out = answer_begin(c);
        buffer_printf(out, "{\"messages\":%llu,\"malformed\":%llu,\"body_bytes\":%llu}", (unsigned long long)f->done,
                      (unsigned long long)f->malformed, (unsigned long long)f->body_bytes);
        answer_end(c, 200, "application/json", NULL);
    }
    buffer_release(&f->template);
    free(f);
    if (c) connection_resume(c);
}

void fills_run(void) {
    Fill *done = NULL;
    for (Fill **at = &fills; *at;) {
        Fill *f = *at;
        uint64_t n = due(f);
        for (uint64_t i = 0; i < n && i < SLICE; i++) send_one(f);
        if (is_done(f)) {
            *at = f->next;
            f->next = done;
            done = f;
        } else {
            if (!f->timer.next) wheel_add(&f->timer, now_ms + 1);
            at = &f->next;
        }
    }
    while (done) { /* a resumed connection may start another fill, so the list must be complete by now */
        Fill *f = done;
        done = f->next;
        finish(f);
    }
}

bool fills_are_busy(void) {
    for (Fill *f = fills; f; f = f->next) {
        if (due(f)) return true;
    }
    return false;
}

uint64_t fills_remaining(void) {
    uint64_t sum = 0;
    for (Fill *f = fills; f; f = f->next) sum += f->queue ? f->count - f->done : 0;
    return sum;
}

void fill_abandon(Connection *c) {
    for (Fill *f = fills; f; f = f->next) {
        if (f->connection == c) f->connection = NULL;
    }
}

void fills_queue_gone(Queue *q) {
    for (Fill *f = fills; f; f = f->next) {
        if (f->queue == q) f->queue = NULL;
    }
}
