/*
 * server.h - a small HTTP server inside a test: a thread a connection, answers by a function of the test.
 *
 * Port 0 on loopback. Every whole request is kept, in the order in which it was read, until the server is stopped.
 */
#ifndef TESTS_UNIT_DELIVER_SERVER_H
#define TESTS_UNIT_DELIVER_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/slice.h"

#define SERVER_CONNS_MAX 2048
#define SERVER_REQUESTS_MAX 8192

enum server_act { ACT_REPLY, ACT_RESET, ACT_CUT, ACT_HANG, ACT_GARBAGE, ACT_HUGE };

struct server_request {
    unsigned number;       /* from 0 */
    char *head;            /* NUL-terminated */
    char *body;
    size_t body_len;
    char key[128];         /* X-Key */
};

struct server_answer {
    enum server_act act;
    int status;
    const char *headers;   /* "Name: value\r\n"…, or NULL */
    char body[4096];
};

typedef struct server_answer (*server_fn)(void *ctx, const struct server_request *req);

struct server {
    int fd;
    uint16_t port;
    server_fn answer;
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct { int fd; pthread_t thread; } conns[SERVER_CONNS_MAX];
    size_t n_conns;
    struct server_request *requests[SERVER_REQUESTS_MAX];
    size_t n_requests;
    unsigned busy, busy_most;
    bool is_stopping;
};

struct server_conn {
    struct server *srv;
    int fd;
};

static inline const char *server_header(const struct server_request *r, const char *name, char *out, size_t cap)
{
    out[0] = '\0';
    const size_t len = strlen(name);
    for (const char *p = strstr(r->head, "\r\n"); p != NULL && p[2] != '\0'; p = strstr(p + 2, "\r\n")) {
        if (strncasecmp(p + 2, name, len) != 0 || p[2 + len] != ':')
            continue;
        const char *v = p + 3 + len;
        while (*v == ' ')
            v++;
        const size_t n = strcspn(v, "\r");
        (void)snprintf(out, cap, "%.*s", (int)n, v);
        break;
    }
    return out;
}

static inline bool server_read_request(int fd, struct server_request *r)
{
    size_t cap = 65536, len = 0, want = SIZE_MAX;
    char *b = malloc(cap + 1);
    while (b != NULL && len < want) {
        if (len == cap) {
            char *more = realloc(b, cap * 2 + 1);
            if (more == NULL)
                break;
            b = more;
            cap *= 2;
        }
        const ssize_t n = recv(fd, b + len, cap - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        b[len] = '\0';
        char *end = want == SIZE_MAX ? memmem(b, len, "\r\n\r\n", 4) : NULL;
        if (end == NULL)
            continue;
        const size_t head_len = (size_t)(end - b) + 4;
        char text[64];
        r->head = strndup(b, head_len);
        const long body_len = strtol(server_header(r, "Content-Length", text, sizeof(text)), NULL, 10);
        memmove(b, b + head_len, len - head_len + 1);
        len -= head_len;
        want = (size_t)body_len;
    }
    if (want == SIZE_MAX || len < want) {
        free(b);
        free(r->head);
        return false;
    }
    r->body = b;
    r->body_len = want;
    (void)server_header(r, "X-Key", r->key, sizeof(r->key));
    return true;
}

static inline void server_reset(int fd)
{
    const struct linger l = { .l_onoff = 1, .l_linger = 0 };
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

/* False: the connection ends. */
static inline bool server_answer(int fd, const struct server_answer *a)
{
    char text[8192];
    const size_t body_len = strlen(a->body);
    int n = snprintf(text, sizeof(text), "HTTP/1.1 %d Words\r\n%sContent-Length: %zu\r\n\r\n%s", a->status,
                     a->headers != NULL ? a->headers : "", a->status == 204 ? 0 : body_len + (a->act == ACT_CUT ? 100 : 0),
                     a->status == 204 ? "" : a->body);
    switch (a->act) {
    case ACT_REPLY:
        return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;
    case ACT_CUT:
        (void)send(fd, text, (size_t)n, MSG_NOSIGNAL);
        return false;
    case ACT_RESET:
        server_reset(fd);
        return false;
    case ACT_GARBAGE:
        (void)send(fd, "\x15\x03\x01 what?\r\n\r\n", 13, MSG_NOSIGNAL);
        return false;
    case ACT_HANG:
        while (recv(fd, text, sizeof(text), 0) > 0) { } /* until the client or the end of the test closes */
        return false;
    case ACT_HUGE: {
        n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        (void)send(fd, text, (size_t)n, MSG_NOSIGNAL);
        memset(text, 'x', sizeof(text));
        for (size_t sent = 0; sent < (size_t)1000 * 1000 * 1000; sent += sizeof(text))
            if (send(fd, text, sizeof(text), MSG_NOSIGNAL) <= 0)
                break;
        return false;
    }
    }
    return false;
}

static inline void *server_conn_main(void *ctx)
{
    struct server_conn c = *(struct server_conn *)ctx;
    struct server *s = c.srv;
    free(ctx);
    for (bool goes_on = true; goes_on;) {
        struct server_request *r = calloc(1, sizeof(*r));
        if (r == NULL || !server_read_request(c.fd, r)) {
            free(r);
            break;
        }
        pthread_mutex_lock(&s->lock);
        r->number = (unsigned)s->n_requests;
        if (s->n_requests < SERVER_REQUESTS_MAX)
            s->requests[s->n_requests++] = r;
        s->busy++;
        s->busy_most = s->busy > s->busy_most ? s->busy : s->busy_most;
        const struct server_answer a = s->answer(s->ctx, r);
        (void)pthread_cond_broadcast(&s->cond);
        pthread_mutex_unlock(&s->lock);
        goes_on = server_answer(c.fd, &a);
        pthread_mutex_lock(&s->lock);
        s->busy--;
        pthread_mutex_unlock(&s->lock);
    }
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_conns; i++)
        if (s->conns[i].fd == c.fd)
            s->conns[i].fd = -1;
    (void)close(c.fd);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static inline void *server_main(void *ctx)
{
    struct server *s = ctx;
    for (;;) {
        const int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        struct server_conn *c = malloc(sizeof(*c));
        pthread_mutex_lock(&s->lock);
        if (c == NULL || s->is_stopping || s->n_conns == SERVER_CONNS_MAX) {
            (void)close(fd);
            free(c);
        } else {
            *c = (struct server_conn){ s, fd };
            s->conns[s->n_conns].fd = fd;
            if (pthread_create(&s->conns[s->n_conns].thread, NULL, server_conn_main, c) == 0)
                s->n_conns++;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* port 0: any. 0, or -errno. */
static inline int server_start(struct server *s, uint16_t port, server_fn answer, void *ctx)
{
    *s = (struct server){ .answer = answer, .ctx = ctx };
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    (void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    if (bind(s->fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s->fd, 64) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&a, &len) < 0)
        return -errno;
    s->port = ntohs(a.sin_port);
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->cond, NULL);
    return -pthread_create(&s->thread, NULL, server_main, s);
}

static inline void server_stop(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    for (size_t i = 0; i < s->n_conns; i++)
        if (s->conns[i].fd >= 0)
            (void)shutdown(s->conns[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    (void)shutdown(s->fd, SHUT_RDWR);
    (void)pthread_join(s->thread, NULL);
    for (size_t i = 0; i < s->n_conns; i++)
        (void)pthread_join(s->conns[i].thread, NULL);
    (void)close(s->fd);
    for (size_t i = 0; i < s->n_requests; i++) {
        free(s->requests[i]->head);
        free(s->requests[i]->body);
        free(s->requests[i]);
    }
    (void)pthread_cond_destroy(&s->cond);
    (void)pthread_mutex_destroy(&s->lock);
}

static inline size_t server_count(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    const size_t n = s->n_requests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* A port on which nobody listens. */
static inline uint16_t server_free_port(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    (void)bind(fd, (struct sockaddr *)&a, sizeof(a));
    (void)getsockname(fd, (struct sockaddr *)&a, &len);
    (void)close(fd);
    return ntohs(a.sin_port);
}

#endif
