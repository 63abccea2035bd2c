/* Connections: HTTP/1.1 with keep-alive. Each connection handles one request at a time; pipelined
 * requests wait in its input buffer. */
#ifndef HTTP_H
#define HTTP_H

#include "buffer.h"
#include "server.h"
#include "transport.h"
#include "wheel.h"

enum {
    HEAD_BYTES_MAX = 32 << 10,
    BODY_BYTES_MAX = 16 << 20, /* 1 MiB of text with every character escaped as \uXXXX, and the JSON around ten entries */
    PIPELINE_BYTES_MAX = 64 << 10, /* how much is read ahead while a request waits */
};

typedef struct Queue Queue;

typedef enum {
    PHASE_READING,   /* the next request may be taken from the input */
    PHASE_WAITING,   /* the handler will answer later */
    PHASE_HOLDING,   /* an answer is delayed by a latency fault */
    PHASE_STREAMING, /* the handler appends the next piece whenever the last one was sent */
} Phase;

/* A receive that found no message; kept until one arrives or the wait time is over. */
typedef struct {
    Queue *queue;
    int max;
    uint32_t visibility_s;
    uint32_t attributes;  /* bit set of requested system attributes */
    char *attribute_names; /* MessageAttributeNames, JSON array; owned, or NULL */
} Receive;

typedef struct Connection {
    Timer timer; /* must be first: the wheel passes it to connection_timer */
    Transport transport;
    const struct Handler *handler; /* of the last request */
    Phase phase;
    bool close_after, lose_answer, dead, keep_alive;
    int8_t call; /* the call being answered; -1 for control requests and invalid ones */
    uint32_t events;
    Buffer in, out;
    size_t in_start, out_sent, out_allowed, answer_start;
    Receive receive;
    struct Connection *prev, *next;             /* in the list of the queue's waiters, or of the watchers */
    struct Connection *open_before, *open_behind; /* in the list of open connections */
    uint32_t stream_at, stream_end;
    struct { int counter; uint64_t bound; bool at_least; Queue *queue; } watch;
    char host[128];
} Connection;

/* One parsed request; the pointers are valid until the next read on its connection. */
typedef struct {
    const char *method, *path, *target, *body;
    size_t method_len, path_len, target_len, body_len;
} Request;

/* Answers one kind of requests. */
typedef struct Handler {
    /* Answers now, or sets PHASE_WAITING to answer later, or calls answer_stream. */
    void (*handle)(Connection *c, const Request *r);
    void (*timeout)(Connection *c); /* a waiting connection's timer expired: answers */
    void (*abandon)(Connection *c); /* a waiting connection was closed: forgets it */
    void (*stream)(Connection *c);  /* appends the next piece; NULL if it never streams */
} Handler;

/* A path goes to the first route whose prefix it starts with; the last route's prefix is empty. */
typedef struct {
    const char *prefix;
    const Handler *handler;
} Route;

/* To answer: call answer_begin, append the body to the buffer it returns, call answer_end. */
Buffer *answer_begin(Connection *c);
void answer_end(Connection *c, int status, const char *content_type, const char *query_error);
/* Starts a chunked answer; the handler's stream function appends the chunks and the end. */
void answer_stream(Connection *c, const char *content_type);

/* Sets the epoll that watches the sockets, and who handles requests. Call it first. */
void connections_start(int epoll_fd, const Route *routes);
void connection_accept(int listener);
uint32_t connections_open(void);
void connection_ready(Connection *c, uint32_t events);
void connection_timer(Timer *t);
/* Writes what can be written and takes the next request. Call it after a late answer, and not while
 * using a queue: the connection may have any request waiting, even DeleteQueue. */
void connection_resume(Connection *c);
void connections_resume(Connection *list); /* the same for a list, linked by next */
void connections_reap(void); /* frees closed connections; call it at the end of a round */

#endif
