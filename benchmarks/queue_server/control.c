/* The endpoints under /_control/ (see control.h). */
#include "control.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "faults.h"
#include "fill.h"
#include "json.h"
#include "manifest.h"
#include "queue.h"

static const char JSON_TYPE[] = "application/json";
static Json control_json;
static Connection *watchers;

static void answer_json(Connection *c) { answer_end(c, 200, JSON_TYPE, NULL); }

static void answer_wrong(Connection *c, int status, const char *message) {
    Buffer *out = answer_begin(c);
    buffer_text(out, "{\"error\":\"");
    buffer_escaped(out, message, strlen(message));
    buffer_text(out, "\"}");
    answer_end(c, status, JSON_TYPE, NULL);
}

/* ---- stats ---- */

static const char *const COUNTER_NAMES[] = {"sent", "received", "deleted", "moved", "expired", "duplicated", "visible", "in_flight", "delayed", "filling", "faults_fired", "connections", "waiting"};
enum { SENT, RECEIVED, DELETED, MOVED, EXPIRED, DUPLICATED, VISIBLE_NOW, IN_FLIGHT_NOW, DELAYED_NOW, FILLING, FIRED, CONNECTIONS, WAITING, COUNTER_COUNT };

/* Returns the value of a counter. Counts of messages and of waiting polls can be limited to a queue. */
static uint64_t counter_value(int counter, const Queue *only) {
    uint64_t sum = 0;
    switch (counter) {
        case SENT: return counters.sent;
        case RECEIVED: return counters.received;
        case DELETED: return counters.deleted;
        case MOVED: return counters.moved;
        case EXPIRED: return counters.expired;
        case DUPLICATED: return counters.duplicated;
        case FILLING: return fills_remaining();
        case FIRED: return faults_fired();
        case CONNECTIONS: return connections_open();
        default: break;
    }
    for (const Queue *q = queue_first(); q; q = q->next) {
        if (only && q != only) continue;
        if (counter == WAITING) {
            for (const Connection *c = q->waiters_first; c; c = c->next) sum++;
            continue;
        }
        sum += counter == VISIBLE_NOW ? q->visible_count : counter == IN_FLIGHT_NOW ? q->in_flight_count : q->delayed_count;
    }
    return sum;
}

static void describe_stats(Buffer *out) {
    struct timespec cpu;
    struct rusage usage;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    getrusage(RUSAGE_SELF, &usage);
    for (int i = 0; i < COUNTER_COUNT; i++) buffer_printf(out, "\"%s\":%llu,", COUNTER_NAMES[i], (unsigned long long)counter_value(i, NULL));
    buffer_printf(out, "\"delivered_body_bytes\":%llu,\"manifest_lines\":%u,\"cpu_seconds\":%.6f,\"peak_memory_bytes\":%llu,\"requests\":{",
                  (unsigned long long)counters.delivered_bytes, manifest_size(), (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9,
                  (unsigned long long)usage.ru_maxrss * 1024);
    for (int i = 0; i < CALLS; i++) buffer_printf(out, "%s\"%s\":%llu", i ? "," : "", CALL_NAMES[i], (unsigned long long)counters.requests[i]);
    buffer_text(out, "},\"queues\":{");
    for (const Queue *q = queue_first(); q; q = q->next) {
        buffer_printf(out, "%s\"%s\":{\"visible\":%llu,\"in_flight\":%llu,\"delayed\":%llu}", q == queue_first() ? "" : ",", q->name,
                      (unsigned long long)q->visible_count, (unsigned long long)q->in_flight_count, (unsigned long long)q->delayed_count);
    }
    buffer_text(out, "}");
}

static void answer_stats(Connection *c, int reached) {
    Buffer *out = answer_begin(c);
    buffer_text(out, "{");
    describe_stats(out);
    if (reached >= 0) buffer_printf(out, ",\"reached\":%s", reached ? "true" : "false");
    buffer_text(out, "}");
    answer_json(c);
}

/* ---- wait ---- */

static void watcher_remove(Connection *c) {
    *(c->prev ? &c->prev->next : &watchers) = c->next;
    if (c->next) c->next->prev = c->prev;
    c->prev = c->next = NULL;
    list_remove(&c->timer);
}

static bool is_reached(const Connection *c) {
    uint64_t value = counter_value(c->watch.counter, c->watch.queue);
    return c->watch.at_least ? value >= c->watch.bound : value <= c->watch.bound;
}

static const char *start_wait(Connection *c, const JsonNode *args) {
    const JsonNode *name = json_get(&control_json, args, "counter"), *queue = json_get(&control_json, args, "queue");
    const JsonNode *least = json_get(&control_json, args, "at_least"), *most = json_get(&control_json, args, "at_most");
    int64_t bound, timeout_ms = 10000;
    const JsonNode *timeout = json_get(&control_json, args, "timeout_ms");
    c->watch.counter = -1;
    for (int i = 0; i < COUNTER_COUNT; i++) {
        if (json_is(name, COUNTER_NAMES[i])) c->watch.counter = i;
    }
    if (c->watch.counter < 0) return "counter must be one of those in stats";
    c->watch.queue = queue && queue->type == JSON_STRING ? queue_find(queue->text, queue->len) : NULL;
    if (queue && !c->watch.queue) return "queue must name an existing queue";
    if (!least == !most || !json_integer(least ? least : most, &bound) || bound < 0) return "give either at_least or at_most, an integer";
    if (timeout && (!json_integer(timeout, &timeout_ms) || timeout_ms < 0)) return "timeout_ms must be an integer";
    c->watch.at_least = least != NULL;
    c->watch.bound = (uint64_t)bound;
    c->phase = PHASE_WAITING;
    wheel_add(&c->timer, now_ms + (uint64_t)timeout_ms);
    c->prev = NULL;
    c->next = watchers;
    if (watchers) watchers->prev = c;
    watchers = c;
    return NULL;
}

static void answer_watcher(Connection *c, bool reached) {
    watcher_remove(c);
    answer_stats(c, reached);
}

static void wait_over(Connection *c) { answer_watcher(c, is_reached(c)); }

void control_round(void) {
    fills_run();
    Connection *answered = NULL;
    for (Connection *c = watchers, *next; c; c = next) {
        next = c->next;
        if (!is_reached(c)) continue;
        answer_watcher(c, true);
        c->next = answered;
        answered = c;
    }
    connections_resume(answered);
}

bool control_is_busy(void) { return fills_are_busy(); }

static void abandon(Connection *c) {
    fill_abandon(c);
    for (Connection *w = watchers; w; w = w->next) {
        if (w == c) {
            watcher_remove(c);
            return;
        }
    }
}

void control_queue_gone(Queue *q) {
    fills_queue_gone(q);
    for (Connection *w = watchers; w; w = w->next) {
        if (w->watch.queue == q) w->watch.queue = NULL;
    }
}

/* ---- manifest ---- */

static void stream(Connection *c) {
    static Buffer lines;
    lines.len = 0;
    while (c->stream_at < c->stream_end && lines.len < 64 << 10) {
        const ManifestEntry *e = manifest_entry(c->stream_at++);
        manifest_line(e, queue_name_ever(e->queue), &lines);
    }
    if (lines.len) {
        buffer_printf(&c->out, "%zx\r\n", lines.len);
        buffer_add(&c->out, lines.data, lines.len);
        buffer_text(&c->out, "\r\n");
    } else {
        buffer_text(&c->out, "0\r\n\r\n");
        c->phase = PHASE_READING;
        if (!c->keep_alive) c->close_after = true;
    }
    c->out_allowed = c->out.len;
}

/* ---- dispatch ---- */

static bool path_is(const Request *r, const char *path) { return r->path_len == strlen(path) && memcmp(r->path, path, r->path_len) == 0; }

static void handle_post(Connection *c, const Request *r) {
    const JsonNode *args = json_parse(&control_json, r->body, r->body_len);
    if (!args || args->type != JSON_OBJECT) {
        answer_wrong(c, 400, "the request is not a JSON object");
        return;
    }
    const char *wrong = NULL;
    if (path_is(r, "/_control/faults")) {
        wrong = faults_set(&control_json, args);
        if (!wrong) {
            faults_describe(answer_begin(c));
            answer_json(c);
        }
    } else if (path_is(r, "/_control/fill")) {
        wrong = fill_start(c, &control_json, args);
    } else if (path_is(r, "/_control/wait")) {
        wrong = start_wait(c, args);
    } else {
        answer_wrong(c, 404, "POST to fill, faults or wait");
    }
    if (wrong) answer_wrong(c, 400, wrong);
}

static void handle(Connection *c, const Request *r) {
    if (r->method_len == 4 && memcmp(r->method, "POST", 4) == 0) {
        handle_post(c, r);
    } else if (r->method_len != 3 || memcmp(r->method, "GET", 3) != 0) {
        answer_wrong(c, 405, "use GET or POST");
    } else if (path_is(r, "/_control/stats")) {
        answer_stats(c, -1);
    } else if (path_is(r, "/_control/faults")) {
        faults_describe(answer_begin(c));
        answer_json(c);
    } else if (path_is(r, "/_control/manifest")) {
        c->stream_at = 0;
        c->stream_end = manifest_size();
        answer_stream(c, "text/plain");
    } else {
        answer_wrong(c, 404, "GET stats, faults or manifest");
    }
}

const Handler control_handler = {.handle = handle, .timeout = wait_over, .abandon = abandon, .stream = stream};
