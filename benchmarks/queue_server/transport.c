/* Plain and TLS sockets (see transport.h). The prototypes are those of OpenSSL 1.1 and 3, declared
 * here because the functions are looked up by name. */
#include "transport.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SSL_FILETYPE_PEM_ = 1, SSL_CTRL_MODE_ = 33, SSL_CTRL_SET_READ_AHEAD_ = 41, SSL_WANT_READ_ = 2, SSL_WANT_WRITE_ = 3 };
enum { MODE_PARTIAL_WRITE = 1, MODE_MOVING_BUFFER = 2 };

static struct {
    void *context;
    const void *(*TLS_server_method)(void);
    void *(*SSL_CTX_new)(const void *method);
    long (*SSL_CTX_ctrl)(void *context, int command, long number, void *pointer);
    int (*SSL_CTX_use_certificate_chain_file)(void *context, const char *file);
    int (*SSL_CTX_use_PrivateKey_file)(void *context, const char *file, int type);
    int (*SSL_CTX_check_private_key)(const void *context);
    void *(*SSL_new)(void *context);
    int (*SSL_set_fd)(void *ssl, int fd);
    void (*SSL_set_accept_state)(void *ssl);
    int (*SSL_read)(void *ssl, void *bytes, int len);
    int (*SSL_write)(void *ssl, const void *bytes, int len);
    int (*SSL_get_error)(const void *ssl, int result);
    int (*SSL_has_pending)(const void *ssl);
    int (*SSL_shutdown)(void *ssl);
    void (*SSL_free)(void *ssl);
    void (*ERR_clear_error)(void);
} tls;

static void *open_library(const char *library) {
    if (library) return dlopen(library, RTLD_NOW | RTLD_LOCAL);
    static const char *const NAMES[] = {"libssl.so.3", "libssl.so.1.1", "libssl.so"};
    for (int i = 0; i < 3; i++) {
        void *handle = dlopen(NAMES[i], RTLD_NOW | RTLD_LOCAL);
        if (handle) return handle;
    }
    return NULL;
}

static bool look_up(void *handle) {
    /* dlsym returns functions as void *; POSIX recommends this copy through void **. */
#define FIND(name) if (!(*(void **)&tls.name = dlsym(handle, #name))) return false
    FIND(TLS_server_method);
    FIND(SSL_CTX_new);
    FIND(SSL_CTX_ctrl);
    FIND(SSL_CTX_use_certificate_chain_file);
    FIND(SSL_CTX_use_PrivateKey_file);
    FIND(SSL_CTX_check_private_key);
    FIND(SSL_new);
    FIND(SSL_set_fd);
    FIND(SSL_set_accept_state);
    FIND(SSL_read);
    FIND(SSL_write);
    FIND(SSL_get_error);
    FIND(SSL_has_pending);
    FIND(SSL_shutdown);
    FIND(SSL_free);
    FIND(ERR_clear_error);
#undef FIND
    return true;
}

bool tls_start(const char *library, const char *certificate, const char *key) {
    void *handle = open_library(library);
    if (!handle || !look_up(handle)) {
        fputs("error: --tls needs libssl, and none could be loaded\n"
              "hint: give one with --libssl FILE\n", stderr);
        return false;
    }
    tls.context = tls.SSL_CTX_new(tls.TLS_server_method());
    if (!tls.context || tls.SSL_CTX_use_certificate_chain_file(tls.context, certificate) != 1 ||
        tls.SSL_CTX_use_PrivateKey_file(tls.context, key, SSL_FILETYPE_PEM_) != 1 ||
        tls.SSL_CTX_check_private_key(tls.context) != 1) {
        fputs("error: the certificate and key are not usable\n"
              "hint: --tls takes two PEM files, the certificate first\n", stderr);
        return false;
    }
    tls.SSL_CTX_ctrl(tls.context, SSL_CTRL_MODE_, MODE_PARTIAL_WRITE | MODE_MOVING_BUFFER, NULL);
    tls.SSL_CTX_ctrl(tls.context, SSL_CTRL_SET_READ_AHEAD_, 1, NULL); /* one recv per record, not two */
    return true;
}

void transport_open(Transport *t, int fd) {
    t->fd = fd;
    t->ssl = NULL;
    if (!tls.context) return;
    t->ssl = tls.SSL_new(tls.context);
    if (t->ssl) {
        tls.SSL_set_fd(t->ssl, fd);
        tls.SSL_set_accept_state(t->ssl);
    }
}

static ssize_t tls_result(Transport *t, int result) {
    if (result > 0) return result;
    int why = tls.SSL_get_error(t->ssl, result);
    return why == SSL_WANT_READ_ || why == SSL_WANT_WRITE_ ? TRANSPORT_AGAIN : TRANSPORT_CLOSED;
}

static ssize_t plain_result(ssize_t result) {
    if (result > 0) return result;
    return result < 0 && (errno == EAGAIN || errno == EINTR) ? TRANSPORT_AGAIN : TRANSPORT_CLOSED;
}

ssize_t transport_read(Transport *t, void *bytes, size_t len) {
    if (!t->ssl) return plain_result(recv(t->fd, bytes, len, 0));
    tls.ERR_clear_error();
    return tls_result(t, tls.SSL_read(t->ssl, bytes, (int)len));
}

bool transport_has_more(const Transport *t) { return t->ssl && tls.SSL_has_pending(t->ssl); }

ssize_t transport_write(Transport *t, const void *bytes, size_t len) {
    if (!t->ssl) return plain_result(send(t->fd, bytes, len, MSG_NOSIGNAL));
    tls.ERR_clear_error();
    return tls_result(t, tls.SSL_write(t->ssl, bytes, (int)(len > 1 << 30 ? 1 << 30 : len)));
}

void transport_close(Transport *t) {
    if (t->ssl) {
        tls.ERR_clear_error();
        tls.SSL_shutdown(t->ssl);
        tls.SSL_free(t->ssl);
        t->ssl = NULL;
    }
    close(t->fd);
    t->fd = -1;
}
