/* Connections (see http.h). */
#include "http.h"

#include <stdlib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "faults.h"

enum { HEAD_ROOM = 512, KEEP_BYTES = 256 << 10, READ_BYTES = 16 << 10, OUT_BYTES_MAX = 4 << 20 };

static Connection *graveyard, *open_connections;
static uint32_t open_count;
static int loop_fd;
static const Route *all_routes;

/* ---- life ---- */

void connections_start(int epoll_fd, const Route *routes) {
    loop_fd = epoll_fd;
    all_routes = routes;
}

static void set_events(Connection *c, uint32_t events) {
    if (c->events == events) return;
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(loop_fd, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->transport.fd, &e);
    c->events = events;
}

void connection_accept(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *c = must_alloc(calloc(1, sizeof *c));
        c->timer.kind = TIMER_CONNECTION;
        c->call = -1;
        c->open_behind = open_connections;
        if (open_connections) open_connections->open_before = c;
        open_connections = c;
        open_count++;
        transport_open(&c->transport, fd);
        set_events(c, EPOLLIN | EPOLLRDHUP);
    }
}

static void connection_close(Connection *c) {
    if (c->dead) return;
    c->dead = true;
    open_count--;
    *(c->open_before ? &c->open_before->open_behind : &open_connections) = c->open_behind;
    if (c->open_behind) c->open_behind->open_before = c->open_before;
    list_remove(&c->timer);
    if (c->phase == PHASE_WAITING) c->handler->abandon(c);
    transport_close(&c->transport);
    c->next = graveyard;
    graveyard = c;
}

uint32_t connections_open(void) { return open_count; }

void connections_reap(void) {
    while (graveyard) {
        Connection *c = graveyard;
        graveyard = c->next;
        buffer_release(&c->in);
        buffer_release(&c->out);
        free(c);
    }
}

/* ---- answers ---- */

static const char *reason(int status) {
    switch (status) {
        case 200: return "OK";
        case 400: return "Bad Request";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 411: return "Length Required";
        case 413: return "Content Too Large";
        case 431: return "Request Header Fields Too Large";
        case 503: return "Service Unavailable";
        default: return "Internal Server Error";
    }
}

/* The Date header, which clients use to correct their clocks; rendered once per second. */
static const char *http_date(void) {
    static char text[40];
    static int64_t second = -1;
    if (second != wall_ms / 1000) {
        second = wall_ms / 1000;
        time_t t = (time_t)second;
        struct tm parts;
        gmtime_r(&t, &parts);
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    }
    return text;
}

Buffer *answer_begin(Connection *c) {
    c->answer_start = c->out.len;
    buffer_room(&c->out, HEAD_ROOM);
    c->out.len += HEAD_ROOM;
    return &c->out;
}

static char *put(char *at, const char *text) {
    size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

static char *put_hex(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--) *at++ = "0123456789abcdef"[value >> 4 * i & 15];
    return at;
}

static char *put_decimal(char *at, size_t value) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) *at++ = digits[--n];
    return at;
}

/* A request id that looks like a UUID; it only has to differ each time. */
static char *put_request_id(char *at) {
    static uint64_t serial;
    uint64_t high = random_mix(++serial ^ now_ms << 20), low = random_mix(high);
    at = put_hex(at, high >> 32, 8);
    at = put_hex(put(at, "-"), high >> 16, 4);
    at = put_hex(put(at, "-4"), high, 3);
    at = put_hex(put(at, "-8"), low >> 52, 3);
    return put_hex(put(at, "-"), low, 12);
}

/* Without printf, which would take a tenth of the server's own time. */
static size_t render_head(char *head, const Connection *c, int status, const char *content_type, const char *query_error, size_t body) {
    char *at = put(head, "HTTP/1.1 ");
    at = put_decimal(at, (size_t)status);
    at = put(put(at, " "), reason(status));
    at = put_request_id(put(at, "\r\nx-amzn-RequestId: "));
    at = put(put(at, "\r\nDate: "), http_date());
    at = put(put(at, "\r\nContent-Type: "), content_type);
    if (query_error) at = put(put(at, "\r\nx-amzn-query-error: "), query_error);
    at = put_decimal(put(at, "\r\nContent-Length: "), body);
    at = put(at, c->keep_alive ? "\r\n\r\n" : "\r\nConnection: close\r\n\r\n");
    return (size_t)(at - head);
}

/* The answer is complete: send it now, or after its latency. */
static void answer_release(Connection *c) {
    if (!c->keep_alive) c->close_after = true;
    if (c->lose_answer) {
        c->out.len = c->answer_start;
        c->close_after = true;
    }
    uint32_t latency_ms = c->call >= 0 ? fault_latency_ms(c->call) : 0;
    if (latency_ms) {
        c->phase = PHASE_HOLDING;
        wheel_add(&c->timer, now_ms + latency_ms);
        return;
    }
    c->phase = PHASE_READING;
    c->out_allowed = c->out.len;
}

void answer_end(Connection *c, int status, const char *content_type, const char *query_error) {
    char head[HEAD_ROOM];
    size_t body = c->out.len - c->answer_start - HEAD_ROOM;
    size_t len = render_head(head, c, status, content_type, query_error, body);
    char *start = c->out.data + c->answer_start;
    size_t gap = HEAD_ROOM - len;
    memcpy(start + gap, head, len);
    if (c->out_sent == c->answer_start) { /* no answer before it: skip the gap */
        c->out_sent += gap;
    } else {
        memmove(start, start + gap, len + body);
        c->out.len -= gap;
    }
    answer_release(c);
}

void answer_stream(Connection *c, const char *content_type) {
    c->answer_start = c->out.len;
    c->phase = PHASE_STREAMING;
    buffer_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", content_type);
    c->out_allowed = c->out.len;
}

/* ---- requests ---- */

static bool name_is(const char *name, const char *want, size_t len) { return strncasecmp(name, want, len) == 0; }

static bool read_length(const char *value, size_t len, size_t *length) {
    size_t sum = 0;
    if (len == 0 || len > 12) return false;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9') return false;
        sum = sum * 10 + (size_t)(value[i] - '0');
    }
    *length = sum;
    return true;
}

static bool host_is_sane(const char *host, size_t len) {
    for (size_t i = 0; i < len; i++) {
        char c = host[i];
        bool fine = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr(".-:[]_", c);
        if (!fine || !c) return false;
    }
    return true;
}

typedef struct {
    size_t length;
    bool has_length, chunked, expects;
} Framing;

/* Reads one header line; returns 0, or the HTTP status of an error. */
static int read_header(Connection *c, Request *r, Framing *f, const char *line, size_t len) {
    const char *colon = memchr(line, ':', len);
    if (!colon || colon == line) return 400;
    size_t name_len = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    size_t value_len = (size_t)(end - value);
    switch (name_len) {
        case 4:
            if (name_is(line, "host", 4) && value_len < sizeof c->host && host_is_sane(value, value_len)) {
                memcpy(c->host, value, value_len);
                c->host[value_len] = 0;
            }
            break;
        case 6:
            if (name_is(line, "expect", 6)) f->expects = true;
            break;
        case 10:
            if (name_is(line, "connection", 10)) {
                if (value_len == 5 && name_is(value, "close", 5)) c->keep_alive = false;
                if (value_len == 10 && name_is(value, "keep-alive", 10)) c->keep_alive = true;
            }
            break;
        case 12:
            if (name_is(line, "x-amz-target", 12)) r->target = value, r->target_len = value_len;
            break;
        case 14:
            if (name_is(line, "content-length", 14)) {
                size_t before = f->length;
                if (!read_length(value, value_len, &f->length)) return 400;
                if (f->has_length && before != f->length) return 400;
                f->has_length = true;
            }
            break;
        case 17:
            if (name_is(line, "transfer-encoding", 17)) f->chunked = true;
            break;
        default: break;
    }
    return 0;
}

/* Reads "METHOD PATH HTTP/1.x"; returns 0, or the HTTP status of an error. */
static int read_request_line(Connection *c, Request *r, const char *line, size_t len) {
    const char *space = memchr(line, ' ', len);
    if (!space || space == line) return 400;
    r->method = line;
    r->method_len = (size_t)(space - line);
    r->path = space + 1;
    size_t rest = len - r->method_len - 1;
    const char *second = memchr(r->path, ' ', rest);
    if (!second || second == r->path) return 400;
    r->path_len = (size_t)(second - r->path);
    size_t version_len = rest - r->path_len - 1;
    if (version_len != 8 || memcmp(second + 1, "HTTP/1.", 7) != 0) return 400;
    c->keep_alive = second[8] == '1';
    return 0;
}

typedef enum { TAKE_NONE, TAKE_ONE, TAKE_REFUSED } Take;

/* Takes one complete request from the input. TAKE_REFUSED: it was answered with an error. */
static Take take_request(Connection *c, Request *r) {
    const char *start = c->in.data + c->in_start;
    size_t have = c->in.len - c->in_start;
    while (have >= 2 && start[0] == '\r' && start[1] == '\n') start += 2, have -= 2, c->in_start += 2; /* RFC 9112, 2.2 */
    const char *end = have ? memmem(start, have, "\r\n\r\n", 4) : NULL;
    int fault = 0;
    if (!end) {
        if (have <= HEAD_BYTES_MAX) return TAKE_NONE;
        fault = 431;
    }
    Framing f = {0};
    memset(r, 0, sizeof *r);
    for (const char *line = start; !fault && line < end + 2;) {
        const char *stop = memchr(line, '\r', (size_t)(end + 2 - line));
        if (!stop || stop[1] != '\n' || memchr(line, '\n', (size_t)(stop - line))) {
            fault = 400;
            break;
        }
        size_t len = (size_t)(stop - line);
        fault = line == start ? read_request_line(c, r, line, len) : read_header(c, r, &f, line, len);
        line = stop + 2;
    }
    if (!fault && f.chunked) fault = 411;
    if (!fault && f.length > BODY_BYTES_MAX) fault = 413;
    if (fault) {
        c->keep_alive = false;
        c->call = -1;
        c->in_start = c->in.len;
        answer_begin(c);
        answer_end(c, fault, "text/plain", NULL);
        return TAKE_REFUSED;
    }
    size_t head = (size_t)(end + 4 - start);
    if (have < head + f.length) {
        if (f.expects && have == head && c->out.len == c->out_sent) {
            buffer_text(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
            c->out_allowed = c->out.len;
        }
        return TAKE_NONE;
    }
    r->body = end + 4;
    r->body_len = f.length;
    c->in_start += head + f.length;
    return TAKE_ONE;
}

static bool path_starts_with(const Request *r, const char *prefix) {
    size_t len = strlen(prefix);
    return r->path_len >= len && memcmp(r->path, prefix, len) == 0;
}

static void handle(Connection *c, const Request *r) {
    c->call = -1;
    c->lose_answer = false;
    const Route *route = all_routes;
    while (!path_starts_with(r, route->prefix)) route++;
    c->handler = route->handler;
    c->handler->handle(c, r);
}

static void tidy(Buffer *b) {
    b->len = 0;
    if (b->cap > KEEP_BYTES) buffer_release(b);
}

/* Writes the bytes that may be sent; returns false if the connection was closed. */
static bool flush(Connection *c) {
    for (;;) {
        while (c->out_sent < c->out_allowed) {
            ssize_t n = transport_write(&c->transport, c->out.data + c->out_sent, c->out_allowed - c->out_sent);
            if (n == TRANSPORT_AGAIN) {
                set_events(c, c->events | EPOLLOUT);
                return true;
            }
            if (n < 0) {
                connection_close(c);
                return false;
            }
            c->out_sent += (size_t)n;
        }
        if (c->out_sent == c->out.len) { /* no answer is delayed either */
            tidy(&c->out);
            c->out_sent = c->out_allowed = 0;
        }
        if (c->phase != PHASE_STREAMING) break;
        c->handler->stream(c);
    }
    if (c->close_after && c->phase == PHASE_READING) {
        connection_close(c);
        return false;
    }
    set_events(c, c->events & ~(uint32_t)EPOLLOUT);
    return true;
}

static bool is_choked(const Connection *c) { return c->out.len - c->out_sent > OUT_BYTES_MAX; }

static void take_requests(Connection *c) {
    Request r;
    while (c->phase == PHASE_READING && !c->close_after && !is_choked(c)) {
        if (take_request(c, &r) != TAKE_ONE) break;
        handle(c, &r);
    }
    if (c->in_start == c->in.len) {
        tidy(&c->in);
    } else if (c->in_start) {
        memmove(c->in.data, c->in.data + c->in_start, c->in.len - c->in_start);
        c->in.len -= c->in_start;
    }
    c->in_start = 0;
}

/* Handles buffered requests until one must wait or too many answers are unsent, and writes. */
static void work(Connection *c) {
    bool again;
    do {
        take_requests(c);
        bool held_up = c->phase == PHASE_STREAMING || is_choked(c);
        if (!flush(c)) return;
        again = held_up && c->phase == PHASE_READING && !is_choked(c) && c->in.len;
    } while (again);
    bool full = is_choked(c) || (c->phase != PHASE_READING && c->in.len >= PIPELINE_BYTES_MAX);
    set_events(c, full ? c->events & ~(uint32_t)EPOLLIN : c->events | EPOLLIN);
}

/* Reads once, and again while the buffer was filled or libssl holds bytes that epoll does not see. */
static void read_input(Connection *c) {
    for (;;) {
        size_t room = READ_BYTES;
        if (c->in.len >= READ_BYTES) room = c->in.len; /* a large request: double the buffer */
        buffer_room(&c->in, room);
        size_t space = c->in.cap - c->in.len;
        ssize_t n = transport_read(&c->transport, c->in.data + c->in.len, space);
        if (n == TRANSPORT_AGAIN) return;
        if (n == TRANSPORT_CLOSED) {
            connection_close(c);
            return;
        }
        c->in.len += (size_t)n;
        work(c);
        if (c->dead || !(c->events & EPOLLIN)) return;
        if ((size_t)n < space && !transport_has_more(&c->transport)) return;
    }
}

/* Continues, and reads what libssl kept while reading was off: epoll would never report it. */
void connection_resume(Connection *c) {
    if (c->dead) return;
    work(c);
    if (!c->dead && c->events & EPOLLIN && transport_has_more(&c->transport)) read_input(c);
}

void connections_resume(Connection *list) {
    while (list) {
        Connection *c = list;
        list = c->next;
        c->next = NULL;
        connection_resume(c);
    }
}

void connection_ready(Connection *c, uint32_t events) {
    if (c->dead) return;
    if (events & (EPOLLHUP | EPOLLERR) || (events & EPOLLRDHUP && c->phase != PHASE_READING)) {
        connection_close(c);
        return;
    }
    if (events & EPOLLOUT) connection_resume(c);
    if (!c->dead && events & (EPOLLIN | EPOLLRDHUP)) read_input(c);
}

void connection_timer(Timer *t) {
    Connection *c = (Connection *)t;
    switch (c->phase) {
        case PHASE_WAITING: c->handler->timeout(c); break;
        case PHASE_HOLDING:
            c->phase = PHASE_READING;
            c->out_allowed = c->out.len;
            break;
        default: break;
    }
    connection_resume(c);
}
