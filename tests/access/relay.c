/* A server that is far away, for tests and benchmarks: relays TCP connections to another port of this machine, each byte DELAY
 * milliseconds late, at any rate. SIGUSR1 freezes it: connections are taken but nothing passes; SIGUSR2 thaws it. After SIGHUP
 * the connections of that moment are dead for good, without either end being told; new ones work.
 *
 *     relay PORT TARGET_PORT DELAY_MS */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 << 10, MOST_HELD = 512 << 20 };

/* Bytes on their way from one end to the other. */
typedef struct chunk {
    struct chunk *next;
    double due;
    size_t length, sent;
    char data[CHUNK];
} chunk;

/* One direction of a connection, with a thread of its own. */
typedef struct flow {
    int from, to;
    int number; /* of the connection */
    chunk *first, *last;
    size_t held;
    bool ended; /* nothing more will come */
} flow;

static double delay;
static int target;
static volatile sig_atomic_t frozen, connections, dead; /* the first `dead` connections are */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_signal(int number) {
    if (number == SIGHUP)
        dead = connections;
    else
        frozen = number == SIGUSR1;
}

static void take(flow *f) {
    chunk *c = malloc(sizeof *c);
    ssize_t n = c ? recv(f->from, c->data, sizeof c->data, MSG_DONTWAIT) : 0;
    if (n <= 0) {
        f->ended = n == 0 || (errno != EAGAIN && errno != EINTR);
        free(c);
        return;
    }
    c->next = NULL;
    c->due = now() + delay;
    c->length = (size_t)n;
    c->sent = 0;
    *(f->last ? &f->last->next : &f->first) = c;
    f->last = c;
    f->held += c->length;
}

/* false: the other end is gone. */
static bool give(flow *f) {
    chunk *c = f->first;
    ssize_t n = send(f->to, c->data + c->sent, c->length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->sent += (size_t)n;
    if (c->sent == c->length) {
        f->first = c->next;
        f->last = f->first ? f->last : NULL;
        f->held -= c->length;
        free(c);
    }
    return true;
}

static void *run_flow(void *context) {
    flow *f = context;
    bool alive = true;
    while (alive && (!f->ended || f->first)) {
        if (frozen || f->number < dead) {
            (void)poll(NULL, 0, 10);
            continue;
        }
        double wait = f->first ? f->first->due - now() : 0.2;
        bool due = f->first && wait <= 0;
        struct pollfd ends[2] = {{!f->ended && f->held < MOST_HELD ? f->from : -1, POLLIN, 0},
                                 {due ? f->to : -1, POLLOUT, 0}};
        struct timespec nap = {0, wait > 0.2 ? 200000000 : wait > 0 ? (long)(wait * 1e9) : 200000000};
        if (ppoll(ends, 2, &nap, NULL) <= 0)
            continue;
        if (ends[0].revents)
            take(f);
        if (ends[1].revents)
            alive = give(f);
    }
    shutdown(f->to, SHUT_WR);
    if (!alive)
        shutdown(f->from, SHUT_RD);
    for (chunk *c = f->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(f);
    return NULL;
}

static struct sockaddr_in local_port(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void start_flow(pthread_t *thread, int number, int from, int to) {
    flow *f = calloc(1, sizeof *f);
    *f = (flow){.from = from, .to = to, .number = number};
    if (pthread_create(thread, NULL, run_flow, f) != 0)
        exit(1);
}

typedef struct connection {
    int number, near;
} connection;

static void *run_connection(void *context) {
    connection c = *(connection *)context;
    free(context);
    int near = c.near, far = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = local_port(target);
    if (connect(far, (struct sockaddr *)&address, sizeof address) == 0) {
        setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        pthread_t up, down;
        start_flow(&up, c.number, near, far);
        start_flow(&down, c.number, far, near);
        pthread_join(up, NULL);
        pthread_join(down, NULL);
    }
    close(near);
    close(far);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        (void)fprintf(stderr, "usage: relay PORT TARGET_PORT DELAY_MS\n");
        return 2;
    }
    target = atoi(argv[2]);
    delay = atof(argv[3]) / 1e3;
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    signal(SIGHUP, on_signal);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = local_port(atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
        perror("relay");
        return 1;
    }
    for (;;) {
        int near = accept(listener, NULL, NULL);
        pthread_t thread;
        if (near < 0)
            continue;
        connection *c = malloc(sizeof *c);
        *c = (connection){connections, near};
        connections++;
        if (pthread_create(&thread, NULL, run_connection, c) != 0)
            return 1;
        pthread_detach(thread);
    }
}
