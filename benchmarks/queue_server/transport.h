/* How bytes go in and out of a socket: plainly, or through TLS. libssl is opened when the server
 * starts with --tls, so that neither its headers nor the library are needed otherwise. */
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

/* Prepares TLS; on failure says why on stderr and returns false. */
bool tls_start(const char *library, const char *certificate, const char *key);
void transport_open(Transport *t, int fd);
/* Bytes moved, or TRANSPORT_AGAIN, or TRANSPORT_CLOSED (by the peer, or broken). */
ssize_t transport_read(Transport *t, void *bytes, size_t len);
ssize_t transport_write(Transport *t, const void *bytes, size_t len);
/* Whether bytes are held above the socket, where epoll does not see them. */
bool transport_has_more(const Transport *t);
void transport_close(Transport *t);

#endif
