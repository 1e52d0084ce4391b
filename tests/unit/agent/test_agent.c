/*
 * Goal: the agent starts whole or not at all, ends in time whatever stands in its way, and a reload that fails changes
 * nothing.
 * Method: real configurations, folders and threads; servers that refuse or are silent; the archive shows what arrived.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/registry.h"

static char dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    (void)strcpy(dir, "/tmp/tailrace-agent-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* "@" stands for the test's folder. */
static struct conf *load(const char *yaml)
{
    struct buf text, errors;
    struct conf *c = NULL;
    buf_init(&text, MIB);
    buf_init(&errors, MIB);
    for (const char *p = yaml; *p != '\0'; p++)
        assert_int_equal(*p == '@' ? buf_append_cstr(&text, dir) : buf_append_byte(&text, *p), 0);
    if (conf_load_text("test", buf_slice(&text), registry_types(), &c, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    buf_deinit(&text);
    buf_deinit(&errors);
    return c;
}

#define INPUT "state_dir: @/state\ninputs: { app: { type: file, include: ['@/app.log'], ignore_older: 0 } }\n"
#define QUEUE "queue: { batch_wait: 50ms, sync: 10ms }"
#define ARCHIVE "  archive: { type: file, path: @/archive.ndjson, compress: false, " QUEUE " }\n"
#define ADMIN "admin: { listen: '127.0.0.1:0' }\n"

static void write_lines(unsigned first, unsigned n)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/app.log", dir);
    FILE *f = fopen(path, "ae");
    assert_non_null(f);
    for (unsigned i = first; i < first + n; i++)
        fprintf(f, "{\"level\":\"info\",\"msg\":\"line-%u-end\"}\n", i);
    assert_int_equal(fclose(f), 0);
}

/* How often each of the n lines is in the archive; -1: not the same for all. */
static int times_archived(unsigned n)
{
    char path[96], needle[32];
    struct buf text;
    (void)snprintf(path, sizeof(path), "%s/archive.ndjson", dir);
    buf_init(&text, 64 * MIB);
    if (io_read_file(AT_FDCWD, path, &text, NULL) < 0) {
        buf_deinit(&text);
        return 0;
    }
    int times = -2;
    for (unsigned i = 0; i < n && times != -1; i++) {
        int k = 0;
        (void)snprintf(needle, sizeof(needle), "line-%u-end", i);
        for (struct slice rest = buf_slice(&text); slice_find(rest, slice_cstr(needle)) >= 0; k++)
            rest = slice_from(rest, (size_t)slice_find(rest, slice_cstr(needle)) + 1);
        times = times == -2 || times == k ? k : -1;
    }
    buf_deinit(&text);
    return times;
}

#define PATIENCE_NS (20 * NS_PER_SEC)
#define until(cond)                                                                                \
    do {                                                                                           \
        const int64_t end_ = clock_mono_ns() + PATIENCE_NS;                                        \
        while (!(cond) && clock_mono_ns() < end_) {                                                \
            const struct timespec t_ = { .tv_nsec = 1000 * 1000 };                                 \
            (void)nanosleep(&t_, NULL);                                                            \
        }                                                                                          \
        assert_true(cond);                                                                         \
    } while (0)

static struct agent *start(const char *yaml)
{
    struct agent *a = NULL;
    struct err err = { 0 };
    assert_int_equal(agent_start(load(yaml), &a, &err), 0);
    return a;
}

static bool exists(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* --- tests --- */

static void test_start_and_stop(void **state)
{
    (void)state;
    write_lines(0, 10);
    struct agent *a = start(ADMIN INPUT "outputs:\n" ARCHIVE);
    until(times_archived(10) == 1);
    assert_true(exists("state/admin.addr"));
    agent_tick(a);
    assert_int_equal(gauge_get(&stats.state_writable), 1);
    assert_true(gauge_get(&stats.memory_bytes) > 0 && gauge_get(&stats.state_free_bytes) > 0);
    write_lines(10, 5);
    agent_stop(a, NS_PER_SEC);
    assert_false(exists("state/admin.addr"));
    /* What the stop did not read is read at the next start; what it did is not read again. */
    a = start(INPUT "outputs:\n" ARCHIVE);
    until(times_archived(15) == 1);
    agent_stop(a, NS_PER_SEC);
    assert_int_equal(times_archived(15), 1);
    agent_stop(NULL, 0);
}

static void test_what_keeps_it_from_starting(void **state)
{
    (void)state;
    struct err err = { 0 };
    struct agent *a = NULL, *first = start(INPUT "outputs:\n" ARCHIVE);
    struct conf *c = load(ADMIN INPUT "outputs:\n" ARCHIVE);
    assert_int_equal(agent_start(c, &a, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another Tailrace"));
    conf_free(c);
    agent_stop(first, NS_PER_SEC);

    /* The port is taken. */
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)) + listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    char yaml[1024];
    (void)snprintf(yaml, sizeof(yaml), "admin: { listen: '127.0.0.1:%u' }\n" INPUT "outputs:\n" ARCHIVE, ntohs(at.sin_port));
    c = load(yaml);
    assert_int_equal(agent_start(c, &a, &err), -EADDRINUSE);
    conf_free(c);
    (void)close(fd);

    /* The state folder cannot be made. */
    write_lines(0, 1);
    c = load("state_dir: @/app.log/state\ninputs: { app: { type: file, include: ['@/app.log'] } }\noutputs:\n" ARCHIVE);
    assert_true(agent_start(c, &a, &err) < 0);
    conf_free(c);

    /* A queue that another process holds: nothing of the rest stays behind. */
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/state/queue/archive/lock", dir);
    CLEANUP(fd_closep) int held = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(held >= 0 && flock(held, LOCK_EX | LOCK_NB) == 0);
    c = load(ADMIN INPUT "outputs:\n" ARCHIVE);
    assert_int_equal(agent_start(c, &a, &err), -EBUSY);
    assert_false(exists("state/admin.addr"));
    conf_free(c);
    fd_close(&held);
    held = -1;
    a = start(INPUT "outputs:\n" ARCHIVE);
    until(times_archived(1) == 1);
    agent_stop(a, NS_PER_SEC);
}

static void test_reload(void **state)
{
    (void)state;
    struct err err = { 0 };
    write_lines(0, 10);
    struct agent *a = start(ADMIN INPUT "outputs:\n" ARCHIVE);
    until(times_archived(10) == 1);
    write_lines(10, 10);
    assert_int_equal(agent_reload(a, load(ADMIN INPUT "metrics: { max_tenants: 7 }\noutputs:\n" ARCHIVE), &err), 0);
    assert_true(agent_conf(a)->metrics_max_tenants == 7);
    until(times_archived(20) == 1);

    /* What cannot change while it runs. */
    struct conf *c = load("state_dir: @/other\ninputs: { app: { type: file, include: ['@/app.log'] } }\noutputs:\n" ARCHIVE);
    assert_int_equal(agent_reload(a, c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "state_dir"));
    conf_free(c);

    /* One that cannot be started: the old one goes on. */
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/state/queue/more", dir);
    assert_int_equal(io_mkdirs(path, 0750, &err), 0);
    assert_true(strcat(path, "/lock") == path);
    CLEANUP(fd_closep) int held = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(held >= 0 && flock(held, LOCK_EX | LOCK_NB) == 0);
    c = load(ADMIN INPUT "metrics: { max_tenants: 8 }\noutputs:\n" ARCHIVE
             "  more: { type: file, path: @/more.ndjson, compress: false, " QUEUE " }\n");
    assert_int_equal(agent_reload(a, c, &err), -EBUSY);
    conf_free(c);
    assert_true(agent_conf(a)->metrics_max_tenants == 7);
    write_lines(20, 10);
    until(times_archived(30) == 1);
    agent_stop(a, NS_PER_SEC);
    assert_int_equal(times_archived(30), 1);
}

/* A server that takes the connection and never says a word. */
static int silent_server(uint16_t *ret_port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)) + listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

/* Nothing that stands in its way makes the stop longer than its grace: a silent server with requests in flight. */
static void test_stop_with_a_silent_server(void **state)
{
    (void)state;
    uint16_t port;
    char yaml[2048];
    CLEANUP(fd_closep) int fd = silent_server(&port);
    (void)snprintf(yaml, sizeof(yaml), ADMIN INPUT "outputs:\n" ARCHIVE
                   "  loki: { type: loki, url: 'http://127.0.0.1:%u', " QUEUE " }\n", port);
    write_lines(0, 10);
    struct agent *a = start(yaml);
    until(times_archived(10) == 1 && gauge_get(&stats.outputs[1].inflight) > 0);
    const int64_t begun = clock_mono_ns();
    agent_stop(a, 900 * NS_PER_MS);
    assert_true(clock_mono_ns() - begun < 10 * NS_PER_SEC);
    assert_int_equal(gauge_get(&stats.outputs[1].inflight), 0);
    assert_int_equal(gauge_get(&stats_output_row(1, 0)->queued_lines) >= 0, 1);
    assert_int_equal(times_archived(10), 1);
}

/* A queue that takes nothing (the disk counts as full) is not waited for: at a reload the others would wait as well. */
static void test_stop_and_reload_with_a_blocked_queue(void **state)
{
    (void)state;
    struct err err = { 0 };
    write_lines(0, 100);
    struct agent *a = start(INPUT "limits: { min_free: 900TiB }\noutputs:\n" ARCHIVE);
    until(gauge_get(&stats.outputs[0].blocked[BLOCKED_DISK_FULL]) != 0);
    int64_t begun = clock_mono_ns();
    assert_int_equal(agent_reload(a, load(INPUT "metrics: { max_tenants: 7 }\nlimits: { min_free: 900TiB }\noutputs:\n" ARCHIVE), &err), 0);
    /* The grace of a reload is seconds for each thread. */
    assert_true(clock_mono_ns() - begun < 2 * NS_PER_SEC);
    until(gauge_get(&stats.outputs[0].blocked[BLOCKED_DISK_FULL]) != 0);
    begun = clock_mono_ns();
    agent_stop(a, 30 * NS_PER_SEC);
    assert_true(clock_mono_ns() - begun < 5 * NS_PER_SEC);
    assert_int_equal(times_archived(100), 0);
    a = start(INPUT "limits: { min_free: 1MiB }\noutputs:\n" ARCHIVE);
    until(times_archived(100) == 1);
    agent_stop(a, NS_PER_SEC);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_start_and_stop),
        IN_FOLDER(test_what_keeps_it_from_starting),
        IN_FOLDER(test_reload),
        IN_FOLDER(test_stop_with_a_silent_server),
        IN_FOLDER(test_stop_and_reload_with_a_blocked_queue),
    };
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* threads are running: nothing good comes after a failure */
    if (getenv("TAILRACE_TEST_LOG") == NULL)
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    return cmocka_run_group_tests_name("agent/agent", tests, NULL, NULL);
}
