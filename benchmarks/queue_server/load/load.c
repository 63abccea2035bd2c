/* Drains a queue over several connections, receive(10) then delete(10), as fast as the server
 * answers. It measures the server, not a client. usage: load PORT QUEUE CONNECTIONS
 * Prints messages and seconds. The headers are as long as those of a signed request. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 16 << 20, EVENTS = 64 };

typedef struct {
    int fd, deleting;
    char *in;
    size_t len;
} Peer;

static const char *port, *queue;
static long messages;
static char body[1 << 16], request[1 << 17];

static void fail(const char *what) {
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

static void send_call(Peer *p, const char *call, const char *text, size_t len) {
    int n = snprintf(request, sizeof request,
                     "POST / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.%s\r\n"
                     "X-Amz-Date: 20260101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE0123456789/20260101/us-east-1/sqs/aws4_request, "
                     "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=%064d\r\nContent-Length: %zu\r\n\r\n",
                     port, call, 0, len);
    memcpy(request + n, text, len);
    size_t total = (size_t)n + len;
    if (send(p->fd, request, total, MSG_NOSIGNAL) != (ssize_t)total) fail("short send");
    p->len = 0;
}

static void ask(Peer *p) {
    int n = snprintf(body, sizeof body, "{\"QueueUrl\":\"http://127.0.0.1:%s/000000000000/%s\",\"MaxNumberOfMessages\":10,\"VisibilityTimeout\":60,"
                     "\"MessageSystemAttributeNames\":[\"SentTimestamp\",\"ApproximateReceiveCount\"]}", port, queue);
    p->deleting = 0;
    send_call(p, "ReceiveMessage", body, (size_t)n);
}

/* Deletes the messages of an answer; returns how many. */
static int settle(Peer *p) {
    static const char MARK[] = "\"ReceiptHandle\":\"";
    int count = 0, n = snprintf(body, sizeof body, "{\"QueueUrl\":\"http://127.0.0.1:%s/000000000000/%s\",\"Entries\":[", port, queue);
    for (char *at = p->in, *end = p->in + p->len; (at = memmem(at, (size_t)(end - at), MARK, sizeof MARK - 1)); count++) {
        at += sizeof MARK - 1;
        char *stop = memchr(at, '"', (size_t)(end - at));
        n += snprintf(body + n, sizeof body - (size_t)n, "%s{\"Id\":\"%d\",\"ReceiptHandle\":\"%.*s\"}", count ? "," : "", count, (int)(stop - at), at);
        at = stop;
    }
    if (!count) return 0;
    n += snprintf(body + n, sizeof body - (size_t)n, "]}");
    p->deleting = 1;
    send_call(p, "DeleteMessageBatch", body, (size_t)n);
    return count;
}

/* Whether a complete answer was read. */
static int is_whole(Peer *p) {
    char *head = memmem(p->in, p->len, "\r\n\r\n", 4), *length = head ? memmem(p->in, p->len, "Content-Length: ", 16) : NULL;
    if (!length) return 0;
    if (memcmp(p->in, "HTTP/1.1 200", 12) != 0) fail("an answer was not 200");
    return p->len >= (size_t)(head + 4 - p->in) + strtoul(length + 16, NULL, 10);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) fail("usage: load PORT QUEUE CONNECTIONS");
    port = argv[1], queue = argv[2];
    int open = atoi(argv[3]), poller = epoll_create1(0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    double start = now();
    for (int i = 0; i < open; i++) {
        Peer *p = calloc(1, sizeof *p);
        int on = 1;
        p->fd = socket(AF_INET, SOCK_STREAM, 0);
        p->in = malloc(BYTES);
        if (connect(p->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("cannot connect");
        setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
        epoll_ctl(poller, EPOLL_CTL_ADD, p->fd, &e);
        ask(p);
    }
    while (open) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Peer *p = events[i].data.ptr;
            ssize_t got = recv(p->fd, p->in + p->len, BYTES - p->len, 0);
            if (got <= 0) fail("connection lost");
            p->len += (size_t)got;
            if (!is_whole(p)) continue;
            if (p->deleting) {
                ask(p);
                continue;
            }
            int count = settle(p);
            messages += count;
            if (!count) {
                close(p->fd);
                open--;
            }
        }
    }
    printf("%ld %.6f\n", messages, now() - start);
}
