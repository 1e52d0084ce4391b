/*
 * Goal: the whole agent in one process: lines written to a file come out of the file output, each once; and the reader
 * allocates nothing per line.
 * Method: agent_start() with a configuration in a temporary folder; malloc of the "reader" thread is counted while the
 * lines go through (not under sanitizers, which bring their own).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/agent.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/registry.h"

#define WARM_LINES 20000
#define LINES 120000

#if HAS_ASAN || HAS_TSAN
#define COUNTS_MALLOC 0
#else
#define COUNTS_MALLOC 1
#include <pthread.h>
#include <stdatomic.h>

static _Atomic uint64_t reader_mallocs;

static void count_call(void)
{
    static __thread int is_reader = -1;
    static __thread unsigned calls;
    if (is_reader != 1 && calls++ < 64) { /* the name is set a little after the thread begins */
        char name[16] = "";
        (void)pthread_getname_np(pthread_self(), name, sizeof(name));
        is_reader = strcmp(name, "reader") == 0;
    }
    if (is_reader == 1)
        atomic_fetch_add_explicit(&reader_mallocs, 1, memory_order_relaxed);
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);

void *malloc(size_t size)
{
    count_call();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count_call();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    count_call();
    return __libc_realloc(p, size);
}
#endif

static char folder[] = "/tmp/tailrace-flow-XXXXXX";

static void append_lines(const char *path, int from, int to)
{
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    for (int i = from; i < to; i++)
        fprintf(f,
                "{\"timestamp\":\"2026-01-15T10:30:00.%06dZ\",\"level\":\"%s\",\"target\":\"kmb_%d\",\"message\":\"line %d "
                "of the flow\",\"fields\":{\"view\":%d}}\n",
                i, i % 4 == 0 ? "DEBUG" : "INFO", i % 7, i, i % 13);
    assert_int_equal(fclose(f), 0);
}

static uint64_t lines_of(uint64_t (*what)(const struct input_row *))
{
    uint64_t sum = 0;
    for (uint32_t t = 1; t <= tenant_count(); t++)
        sum += what(stats_input_row(0, t));
    return sum;
}

static uint64_t read_lines(const struct input_row *row)
{
    return counter_get(&row->read_lines);
}

static uint64_t kept_lines(const struct input_row *row)
{
    return counter_get(&row->kept_lines);
}

static uint64_t delivered_lines(void)
{
    uint64_t sum = 0;
    for (uint32_t t = 1; t <= tenant_count(); t++)
        sum += counter_get(&stats_output_row(0, t)->delivered_lines);
    return sum;
}

/* Polls: the counters are the event, and the agent's threads post none to us. */
static void wait_for(uint64_t (*now)(void), uint64_t want)
{
    int64_t deadline = clock_mono_ns() + 60 * NS_PER_SEC;
    while (now() < want) {
        if (clock_mono_ns() > deadline)
            fail_msg("%llu of %llu lines after 60 s", (unsigned long long)now(), (unsigned long long)want);
        usleep(2000);
    }
}

static uint64_t all_read(void)
{
    return lines_of(read_lines);
}

static struct agent *start(void)
{
    struct buf yaml, errors;
    struct conf *conf;
    struct agent *agent;
    struct err err = { 0 };
    buf_init(&yaml, 8192);
    buf_init(&errors, 8192);
    assert_int_equal(buf_printf(&yaml,
                                "state_dir: %s/state\nadmin: { listen: \"\" }\ninputs:\n  flow:\n    type: file\n"
                                "    include: [\"%s/logs/*.log\"]\n    levels: info\n    tenant: acme\n"
                                "outputs:\n  out: { type: file, path: \"%s/out/{tenant}.ndjson\", "
                                "queue: { batch_wait: 50ms, sync: 20ms } }\n",
                                folder, folder, folder),
                     0);
    if (conf_load_text("flow", buf_slice(&yaml), registry_types(), &conf, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    if (agent_start(conf, &agent, &err) < 0)
        fail_msg("%s", err.text);
    buf_deinit(&yaml);
    buf_deinit(&errors);
    return agent;
}

static void test_lines_arrive_once(void **state)
{
    char path[256], out[256];
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/logs", folder);
    assert_int_equal(io_mkdirs(path, 0755, NULL), 0);
    (void)snprintf(path, sizeof(path), "%s/logs/a.log", folder);
    append_lines(path, 0, WARM_LINES);
    struct agent *a = start();
    wait_for(all_read, WARM_LINES);
#if COUNTS_MALLOC
    uint64_t before = atomic_load(&reader_mallocs);
#endif
    append_lines(path, WARM_LINES, LINES);
    wait_for(all_read, LINES);
#if COUNTS_MALLOC
    /* Bodies, groups and messages: some a batch, none a line. */
    uint64_t n = atomic_load(&reader_mallocs) - before;
    if (n > (LINES - WARM_LINES) / 50)
        fail_msg("%llu allocations for %d lines", (unsigned long long)n, LINES - WARM_LINES);
#endif
    assert_true(lines_of(kept_lines) == LINES / 4 * 3);
    wait_for(delivered_lines, LINES / 4 * 3);
    agent_stop(a, 2 * NS_PER_SEC);

    (void)snprintf(out, sizeof(out), "%s/out/acme.ndjson", folder);
    FILE *f = fopen(out, "r");
    assert_non_null(f);
    char line[1024];
    int next = 0, n_lines = 0;
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *at = strstr(line, "\"line ");
        assert_non_null(at);
        next += next % 4 == 0; /* DEBUG lines are filtered */
        assert_int_equal(atoi(at + 6), next++);
        assert_non_null(strstr(line, "\"tenant\":\"acme\""));
        n_lines++;
    }
    (void)fclose(f);
    assert_int_equal(n_lines, LINES / 4 * 3);
}

static void test_restart_goes_on(void **state)
{
    char path[256];
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/logs/a.log", folder);
    append_lines(path, LINES, LINES + 1000);
    struct agent *a = start();
    wait_for(all_read, LINES + 1000); /* the ledger goes on from the queue's: nothing is counted twice */
    wait_for(delivered_lines, (LINES + 1000) / 4 * 3);
    assert_true(all_read() == LINES + 1000);
    agent_stop(a, 2 * NS_PER_SEC);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return getenv("KEEP") != NULL ? 0 : system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lines_arrive_once),
                                        cmocka_unit_test(test_restart_goes_on) };
    return cmocka_run_group_tests_name("agent/flow", tests, set_up, tear_down);
}
