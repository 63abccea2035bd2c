/* Reads and writes a socket, plain or with TLS. With --tls the server loads libssl when it starts;
 * without it, neither the headers nor the library are needed. */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct {
    int fd;
    void *ssl; /* NULL on a plain socket */
} Transport;

enum { TRANSPORT_AGAIN = -1, TRANSPORT_CLOSED = -2 };

/* Prepares TLS; on failure prints the reason to stderr and returns false. */
bool tls_start(const char *library, const char *certificate, const char *key);
void transport_open(Transport *t, int fd);
/* Both return the number of bytes, TRANSPORT_AGAIN, or TRANSPORT_CLOSED (by the peer or an error). */
ssize_t transport_read(Transport *t, void *bytes, size_t len);
ssize_t transport_write(Transport *t, const void *bytes, size_t len);
/* Whether libssl holds bytes that were read from the socket, which epoll does not see. */
bool transport_has_more(const Transport *t);
void transport_close(Transport *t);

#endif
