/* The queue server of the benchmarks and the soak. It answers the SQS calls of a consumer, in one
 * thread around epoll, on loopback. It keeps everything in memory until it exits. This file reads the
 * options and runs the event loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "control.h"
#include "faults.h"
#include "http.h"
#include "queue.h"
#include "receive.h"
#include "server.h"

enum { EVENTS = 256 };

static const Route ROUTES[] = {{"/_control/", &control_handler}, {"", &call_handler}};

static int loop_fd;
static char listener_mark, stdin_mark; /* their addresses identify the two descriptors that are not connections */

/* ---- start ---- */

static void usage(FILE *to) {
    fputs("usage: queue_server [options]\n"
          "  --port N               listen on 127.0.0.1:N (default: a free port, printed as `listening N`)\n"
          "  --seed N               message ids from this seed (default: random)\n"
          "  --fault-seed N         faults from this seed (default: 1)\n"
          "  --fault [CALL:]NAME=V  a fault from the start; may be repeated. NAME: latency_ms, throttle_share,\n"
          "                         error_share, lose_reply_share, fail_entry_share, duplicate_share, odd_share, times\n"
          "  --in-flight-limit N    messages in flight per queue before OverLimit (default 120000)\n"
          "  --longest-poll-ms N    answer a receive without a message this early, 1 to 20000 (default 20000)\n"
          "  --handle-chars N       length of receipt handles, 32 to 1024 (default 284, as observed on AWS)\n"
          "  --region R, --account A  region and account in ARNs and queue URLs\n"
          "  --no-md5               leave MD5OfBody out\n"
          "  --manifest             keep one line per message ever sent (about 48 bytes each)\n"
          "  --tls CERT KEY         speak TLS with these PEM files, through libssl\n"
          "  --libssl FILE          the libssl to load (default: the system's)\n"
          "  --die-with-parent      die when the thread that started this process ends (Linux)\n"
          "  --exit-with-stdin      exit when standard input ends\n",
          to);
}

typedef struct {
    bool exit_with_stdin;
    const char *certificate, *key, *libssl;
} Start;

static uint64_t number(const char *text, uint64_t least, uint64_t most, const char *name) {
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || n < least || n > most) {
        fprintf(stderr, "error: %s must be a number from %llu to %llu\n", name, (unsigned long long)least, (unsigned long long)most);
        exit(2);
    }
    return n;
}

static void wrong_usage(const char *what) {
    fprintf(stderr, "error: %s\nhint: queue_server --help lists the options\n", what);
    exit(2);
}

static void die_with_parent(void) {
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) exit(0); /* the parent ended in the meantime */
}

static void read_options(int argc, char **argv, Start *start) {
    enum { PORT = 1, SEED, FAULT_SEED, FAULT, LIMIT, POLL, HANDLE, REGION, ACCOUNT, NO_MD5, MANIFEST, TLS, LIBSSL, DIE, STDIN, HELP };
    static const struct option LONG[] = {
        {"port", 1, 0, PORT}, {"seed", 1, 0, SEED}, {"fault-seed", 1, 0, FAULT_SEED}, {"fault", 1, 0, FAULT},
        {"in-flight-limit", 1, 0, LIMIT}, {"longest-poll-ms", 1, 0, POLL},
        {"handle-chars", 1, 0, HANDLE}, {"region", 1, 0, REGION},
        {"account", 1, 0, ACCOUNT}, {"no-md5", 0, 0, NO_MD5}, {"manifest", 0, 0, MANIFEST}, {"tls", 1, 0, TLS},
        {"libssl", 1, 0, LIBSSL}, {"die-with-parent", 0, 0, DIE}, {"exit-with-stdin", 0, 0, STDIN}, {"help", 0, 0, HELP}, {0, 0, 0, 0}};
    const char *wrong;
    for (int o; (o = getopt_long(argc, argv, "", LONG, NULL)) != -1;) {
        switch (o) {
            case PORT: options.port = (int)number(optarg, 1, 65535, "--port"); break;
            case SEED: random_seed(&random_ids, number(optarg, 0, UINT64_MAX, "--seed")); break;
            case FAULT_SEED: random_seed(&random_faults, number(optarg, 0, UINT64_MAX, "--fault-seed")); break;
            case FAULT:
                wrong = faults_set_option(optarg);
                if (wrong) wrong_usage(wrong);
                break;
            case LIMIT: options.in_flight_limit = (uint32_t)number(optarg, 1, UINT32_MAX, "--in-flight-limit"); break;
            case POLL: options.longest_poll_ms = (uint32_t)number(optarg, 1, 20000, "--longest-poll-ms"); break;
            case HANDLE: options.handle_chars = (uint32_t)number(optarg, 32, 1024, "--handle-chars"); break;
            case REGION: options.region = optarg; break;
            case ACCOUNT: options.account = optarg; break;
            case NO_MD5: options.md5 = false; break;
            case MANIFEST: options.manifest = true; break;
            case TLS:
                if (optind >= argc) wrong_usage("--tls takes a certificate and a key");
                start->certificate = optarg;
                start->key = argv[optind++];
                break;
            case LIBSSL: start->libssl = optarg; break;
            case DIE: die_with_parent(); break;
            case STDIN: start->exit_with_stdin = true; break;
            case HELP: usage(stdout); exit(0);
            default: usage(stderr); exit(2);
        }
    }
    if (optind < argc) wrong_usage("only options are accepted, no arguments");
}

static int open_listener(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 4096) < 0) {
        perror("error: cannot listen on 127.0.0.1");
        exit(1);
    }
    getsockname(fd, (struct sockaddr *)&address, &len);
    options.port = ntohs(address.sin_port);
    return fd;
}

static void watch(int fd, void *mark) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = mark};
    if (epoll_ctl(loop_fd, EPOLL_CTL_ADD, fd, &e) < 0 && mark == &stdin_mark) {
        fputs("error: --exit-with-stdin needs a pipe on standard input\n", stderr);
        exit(2);
    }
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- the loop ---- */

static void expire(Timer *t) {
    switch (t->kind) {
        case TIMER_MESSAGE: message_expire(t); break;
        case TIMER_CONNECTION: connection_timer(t); break;
        case TIMER_FILL: break; /* its only purpose is to wake the loop */
    }
}

static void read_stdin(void) {
    char ignored[256];
    if (read(0, ignored, sizeof ignored) == 0) exit(0);
}

static void run(int listener) {
    struct epoll_event events[EVENTS];
    for (;;) {
        int wait_ms = control_is_busy() ? 0 : wheel_wait_ms(now_ms);
        int n = epoll_wait(loop_fd, events, EVENTS, wait_ms);
        clock_read();
        wheel_advance(now_ms, expire);
        for (int i = 0; i < n; i++) {
            void *mark = events[i].data.ptr;
            if (mark == &listener_mark) {
                connection_accept(listener);
            } else if (mark == &stdin_mark) {
                read_stdin();
            } else {
                connection_ready(mark, events[i].events);
            }
        }
        receives_serve();
        control_round();
        receives_serve(); /* with what a fill just sent */
        connections_reap();
    }
}

int main(int argc, char **argv) {
    Start start = {0};
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = (uint64_t)time(NULL);
    random_seed(&random_ids, seed);
    random_seed(&random_faults, 1);
    read_options(argc, argv, &start);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (start.certificate) {
        if (!tls_start(start.libssl, start.certificate, start.key)) return 1;
        options.tls = true;
    }
    clock_read();
    wheel_start(now_ms);
    loop_fd = epoll_create1(EPOLL_CLOEXEC);
    connections_start(loop_fd, ROUTES);
    queue_when_deleted(control_queue_gone);
    int listener = open_listener();
    watch(listener, &listener_mark);
    if (start.exit_with_stdin) watch(0, &stdin_mark);
    printf("listening %d\n", options.port);
    fflush(stdout);
    run(listener);
}
