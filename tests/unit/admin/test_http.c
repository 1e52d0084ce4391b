/*
 * Goal: the endpoint answers whatever is asked of it and whenever: numbers even while the configuration is being swapped,
 * and it never holds up who swaps or stops it for longer than it says.
 * Method: the real daemon on a free port of loopback, asked over sockets; the engine behind it is functions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/admin/admin.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"

#define PATIENCE_NS (20 * NS_PER_SEC)

static char dir[64];
static struct conf_input inputs[1];
static struct output_conf outputs[1];
static struct conf conf = { .inputs = inputs, .n_inputs = 1, .outputs = outputs, .n_outputs = 1 };
static struct admin *admin;
static struct admin_view view;

/* The threads behind /status: they answer when told to, or when their time is up. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool is_shut;
static unsigned asked;

static int answer(void *ctx, struct buf *out, int64_t timeout_ns)
{
    struct timespec until;
    (void)ctx;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    const int64_t at = (int64_t)until.tv_sec * NS_PER_SEC + until.tv_nsec + timeout_ns;
    until = (struct timespec){ .tv_sec = at / NS_PER_SEC, .tv_nsec = at % NS_PER_SEC };
    int r = 0;
    pthread_mutex_lock(&gate);
    asked++;
    (void)pthread_cond_broadcast(&gate_changed);
    while (is_shut && r == 0)
        r = pthread_cond_timedwait(&gate_changed, &gate, &until);
    pthread_mutex_unlock(&gate);
    return r != 0 ? -ETIMEDOUT : buf_append_lit(out, "{}");
}

static void shut(bool is)
{
    pthread_mutex_lock(&gate);
    is_shut = is;
    (void)pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int set_up(void **state)
{
    struct err err = { 0 };
    (void)state;
    (void)strcpy(dir, "/tmp/tailrace-admin-XXXXXX");
    assert_non_null(mkdtemp(dir));
    inputs[0].name = SLICE("in");
    outputs[0].name = SLICE("out");
    memset(&stats, 0, sizeof(stats));
    stats_forget_rows();
    gauge_set(&stats.state_writable, 1);
    gauge_set(&stats.reload_successful, 1);
    view = (struct admin_view){ .conf = &conf, .files = answer, .senders = answer };
    asked = 0;
    shut(false);
    assert_int_equal(admin_start(SLICE("127.0.0.1:0"), slice_cstr(dir), &admin, &err), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    admin_stop(admin);
    admin = NULL;
    return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* --- a client --- */

static struct sockaddr_in address(void)
{
    char path[96], text[64] = "";
    unsigned port = 0;
    (void)snprintf(path, sizeof(path), "%s/admin.addr", dir);
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    assert_memory_equal(text, "127.0.0.1:", 10);
    port = (unsigned)strtoul(text + 10, NULL, 10);
    return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

struct reply {
    int status;
    char text[65536];
};

static int send_request(const char *request)
{
    const struct sockaddr_in a = address();
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    return fd;
}

static void read_reply(int fd, struct reply *ret)
{
    size_t n = 0;
    for (ssize_t k; (k = recv(fd, ret->text + n, sizeof(ret->text) - 1 - n, 0)) > 0;)
        n += (size_t)k;
    ret->text[n] = '\0';
    ret->status = n > 12 ? (int)strtol(ret->text + 9, NULL, 10) : 0;
    (void)close(fd);
}

static struct reply reply;

static int get(const char *path)
{
    char request[256];
    (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    read_reply(send_request(request), &reply);
    return reply.status;
}

static bool says(const char *words)
{
    return strstr(reply.text, words) != NULL;
}

/* --- tests --- */

static void test_pages(void **state)
{
    (void)state;
    admin_set_view(admin, &view);
    gauge_set(&stats.ready_config, 1);
    assert_int_equal(get("/"), 200);
    assert_true(says("/metrics"));
    assert_int_equal(get("/metrics"), 200);
    assert_true(says("text/plain; version=0.0.4") && says("tailrace_output_up{output=\"out\"}"));
    assert_int_equal(get("/status"), 200);
    assert_true(says("application/json") && says("\"ledger\""));
    assert_int_equal(get("/health"), 200);
    assert_true(says("\"level\":\"Optimal\""));
    assert_int_equal(get("/health/live"), 200);
    assert_int_equal(get("/health/ready"), 503);
    assert_true(says("the queues are being recovered"));
    gauge_set(&stats.state_writable, 0);
    assert_int_equal(get("/health"), 503);
    gauge_set(&stats.thread_turn_mono_ns[THREAD_READER], 1);
    assert_int_equal(get("/health/live"), 503);
    assert_true(says("the reader has not turned"));
    assert_int_equal(get("/nothing"), 404);
    assert_int_equal(get("/metrics/"), 404);
}

static void test_methods(void **state)
{
    (void)state;
    admin_set_view(admin, &view);
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        { "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 405 },
        { "DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405 },
        { "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200 },
        { "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 200 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        read_reply(send_request(cases[i].request), &reply);
        assert_int_equal(reply.status, cases[i].status);
    }
    assert_false(says("405 ") && says("tailrace_"));
}

/* While there is no view, numbers are those of its end; the first view is waited for, and not for ever. */
static void test_numbers_without_a_view(void **state)
{
    (void)state;
    assert_int_equal(get("/metrics"), 503);
    assert_true(says("being loaded"));
    admin_set_view(admin, &view);
    gauge_set(&stats.outputs[0].queue_bytes, 4711);
    assert_int_equal(get("/metrics"), 200);
    admin_set_view(admin, NULL);
    gauge_set(&stats.outputs[0].queue_bytes, 0);
    const int64_t begun = clock_mono_ns();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get("/metrics"), 200);
        assert_true(says("tailrace_queue_bytes{output=\"out\"} 4711"));
        assert_int_equal(get("/health"), 200);
        assert_true(says("Optimal"));
    }
    assert_true(clock_mono_ns() - begun < 10 * NS_PER_SEC); /* 40 times the patience of /status would be 32 s */
    assert_int_equal(get("/status"), 503);
    admin_set_view(admin, NULL); /* twice is once */
    assert_int_equal(get("/metrics"), 200);
    assert_true(says("4711"));
    admin_set_view(admin, &view);
    assert_int_equal(get("/metrics"), 200);
    assert_true(says("tailrace_queue_bytes{output=\"out\"} 0"));
    assert_int_equal(get("/status"), 200);
}

static void *bring_view(void *ctx)
{
    (void)ctx;
    const struct timespec t = { .tv_nsec = 50 * 1000 * 1000 };
    (void)nanosleep(&t, NULL);
    admin_set_view(admin, &view);
    return NULL;
}

static void test_status_waits_a_moment(void **state)
{
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, bring_view, NULL), 0);
    assert_int_equal(get("/status"), 200);
    (void)pthread_join(thread, NULL);
}

/* Threads that do not answer: the page says null for them, and a stop waits for it no longer than its second. */
static void test_a_stop_during_status(void **state)
{
    (void)state;
    admin_set_view(admin, &view);
    shut(true);
    const int fd = send_request("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    pthread_mutex_lock(&gate);
    while (asked == 0)
        (void)pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
    const int64_t begun = clock_mono_ns();
    admin_set_view(admin, NULL);
    assert_true(clock_mono_ns() - begun < 5 * NS_PER_SEC / 2);
    read_reply(fd, &reply);
    assert_int_equal(reply.status, 200);
    assert_true(says("\"outputs\":null") && says("\"files\":null"));
}

static void test_a_stop_while_waiting_for_a_view(void **state)
{
    (void)state;
    const int fd = send_request("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    admin_stop(admin);
    admin = NULL;
    read_reply(fd, &reply);
    assert_true(reply.status == 503 || reply.status == 0);
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/admin.addr", dir);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = { "",        "nowhere",        "127.0.0.1",       "127.0.0.1:",  "127.0.0.1:70000",
                                       "a b:1",   "127.0.0.1:http", "192.0.2.1:9746",  "[::1:80" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct admin *a = NULL;
        struct err err = { 0 };
        assert_true(admin_start(slice_cstr(bad[i]), slice_cstr(dir), &a, &err) < 0);
        assert_non_null(strstr(err.text, "admin.listen"));
        assert_null(a);
    }
    struct err err = { 0 };
    struct admin *a = NULL;
    assert_true(admin_start(SLICE("127.0.0.1:0"), SLICE("/nowhere/at/all"), &a, &err) < 0);
    assert_non_null(strstr(err.text, "state folder"));
    /* All addresses, and the other family when there is one. */
    assert_int_equal(admin_start(SLICE(":0"), slice_cstr(dir), &a, &err), 0);
    admin_stop(a);
    if (admin_start(SLICE("[::1]:0"), slice_cstr(dir), &a, &err) == 0)
        admin_stop(a);
    admin_stop(NULL);
}

/* A full disk: the endpoint answers all the same, and what an agent that was killed left there misleads nobody. */
static void test_an_address_that_cannot_be_written(void **state)
{
    (void)state;
    char path[96];
    struct admin *a = NULL;
    struct err err = { 0 };
    (void)snprintf(path, sizeof(path), "%s/.admin.addr.tmp", dir);
    assert_int_equal(mkdir(path, 0700), 0); /* not to be opened, as if there were no room */
    assert_int_equal(admin_start(SLICE("127.0.0.1:0"), slice_cstr(dir), &a, &err), 0);
    assert_int_equal(rmdir(path), 0);
    (void)snprintf(path, sizeof(path), "%s/admin.addr", dir);
    assert_int_equal(access(path, F_OK), -1);
    admin_stop(a);
}

#define WITH_ADMIN(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ADMIN(test_pages),
        WITH_ADMIN(test_methods),
        WITH_ADMIN(test_numbers_without_a_view),
        WITH_ADMIN(test_status_waits_a_moment),
        WITH_ADMIN(test_a_stop_during_status),
        WITH_ADMIN(test_a_stop_while_waiting_for_a_view),
        WITH_ADMIN(test_addresses),
        WITH_ADMIN(test_an_address_that_cannot_be_written),
    };
    return cmocka_run_group_tests_name("admin/http", tests, NULL, NULL);
}
