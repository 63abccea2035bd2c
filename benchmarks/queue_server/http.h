/* Connections: HTTP/1.1 with keep-alive, one request of a connection worked on at a time. Requests
 * that arrive meanwhile (pipelined) wait in the input buffer. */
#ifndef HTTP_H
#define HTTP_H

#include "buffer.h"
#include "server.h"
#include "transport.h"
#include "wheel.h"

enum {
    HEAD_BYTES_MAX = 32 << 10,
    BODY_BYTES_MAX = 16 << 20, /* 1 MiB of text, every character escaped as \uXXXX, and ten envelopes */
    PIPELINE_BYTES_MAX = 64 << 10, /* read ahead while a request waits */
};

typedef struct Queue Queue;

typedef enum {
    PHASE_READING,   /* the next request may be taken from the input */
    PHASE_WAITING,   /* the handler will answer later */
    PHASE_HOLDING,   /* an answer is held back: added latency */
    PHASE_STREAMING, /* the handler is asked for the next piece whenever the last one is out */
} Phase;

/* A receive that found nothing, kept until something arrives or its time is up. */
typedef struct {
    Queue *queue;
    int max;
    uint32_t visibility_s;
    uint32_t attributes;  /* bit set of system attributes */
    char *attribute_names; /* MessageAttributeNames, JSON array; owned, or NULL */
} Receive;

typedef struct Connection {
    Timer timer; /* first: the wheel hands it back */
    Transport transport;
    const struct Handler *handler; /* of the last request */
    Phase phase;
    bool close_after, lose_answer, dead, keep_alive;
    int8_t call; /* what is being answered, -1 for control and faulty requests */
    uint32_t events;
    Buffer in, out;
    size_t in_start, out_sent, out_allowed, answer_start;
    Receive receive;
    struct Connection *prev, *next;             /* among the queue's waiters, or the watchers */
    struct Connection *open_before, *open_behind; /* among all that are open */
    uint32_t stream_at, stream_end;
    struct { int counter; uint64_t bound; bool at_least; Queue *queue; } watch;
    char host[128];
} Connection;

/* One request, as parsed; the pointers are good until the next read on its connection. */
typedef struct {
    const char *method, *path, *target, *body;
    size_t method_len, path_len, target_len, body_len;
} Request;

/* One kind of requests: who answers them. */
typedef struct Handler {
    /* Answers, or sets PHASE_WAITING to answer later, or calls answer_stream. */
    void (*handle)(Connection *c, const Request *r);
    void (*timeout)(Connection *c); /* the timer of a waiting connection is due: answers */
    void (*abandon)(Connection *c); /* a waiting connection is closed: forgets it */
    void (*stream)(Connection *c);  /* appends the next piece; NULL when it never streams */
} Handler;

/* The first route whose prefix starts a path handles it; the last one's prefix is empty. */
typedef struct {
    const char *prefix;
    const Handler *handler;
} Route;

/* An answer is made by answer_begin, appending the body to the buffer it returns, answer_end. */
Buffer *answer_begin(Connection *c);
void answer_end(Connection *c, int status, const char *content_type, const char *query_error);
/* Starts a chunked answer without an end; the handler streams it. */
void answer_stream(Connection *c, const char *content_type);

/* Where sockets are watched, and who handles requests; before any other call. */
void connections_start(int epoll_fd, const Route *routes);
void connection_accept(int listener);
uint32_t connections_open(void);
void connection_ready(Connection *c, uint32_t events);
void connection_timer(Timer *t);
/* Writes what may be written and takes up the next request; after an answer made out of turn. */
void connection_resume(Connection *c);
void connections_reap(void); /* frees the closed ones; at the end of a round */

#endif
