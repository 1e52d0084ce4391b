/*
 * Goal: an allocation of the reader, the writer or the sender that fails, whichever it is, ends nothing, loses nothing and
 * doubles nothing; each step goes on when there is memory again.
 * Method: the whole agent in one process, malloc of its three threads fails at the nth call and for a few after it, n from
 * 1 on; meanwhile lines of CRI parts, multi-line text and JSON are written to files that come and go. Sanitizers
 * bring their own malloc: under them nothing fails, and the lines arrive all the same.
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

#include "agent/admin/admin.h"
#include "agent/agent.h"
#include "agent/base/budget.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/registry.h"

#include <pthread.h>
#include <stdatomic.h>

#if HAS_ASAN || HAS_TSAN
#define FAILS_MALLOC 0
#else
#define FAILS_MALLOC 1
#endif

#define ROUNDS 100
#define FAIL_CALLS 3 /* in a row */

static _Atomic long fail_in; /* calls until it fails; 0: never */
static _Atomic unsigned n_failed;

#if FAILS_MALLOC
static bool is_ours(void)
{
    static __thread int known = -1;
    static __thread unsigned calls;
    if (known < 0 || (known == 0 && calls++ < 64)) { /* the name is set a little after the thread begins */
        char name[16] = "";
        (void)pthread_getname_np(pthread_self(), name, sizeof(name));
        known = strcmp(name, "reader") == 0 || strcmp(name, "writer") == 0 || strcmp(name, "sender") == 0;
    }
    return known == 1;
}

static bool fails(void)
{
    if (atomic_load(&fail_in) == 0 || !is_ours())
        return false;
    long left = atomic_fetch_sub(&fail_in, 1);
    if (left > FAIL_CALLS)
        return false;
    if (left <= 1)
        atomic_store(&fail_in, 0);
    if (left < 1)
        return false;
    atomic_fetch_add(&n_failed, 1);
    return true;
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t size);

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    return fails() ? NULL : __libc_realloc(p, size);
}

#endif

static char folder[] = "/tmp/tailrace-exhausted-XXXXXX";
static unsigned n_tokens;

/* Each token once, in whatever record it ends up. */
static void write_round(int round)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/logs/%d.log", folder, round / 5);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    for (int i = 0; i < 4; i++) {
        fprintf(f, "2026-01-15T10:30:00.%09uZ stdout P first [%u] ", n_tokens, n_tokens);
        n_tokens++;
        fprintf(f, "\n2026-01-15T10:30:00.%09uZ stderr F Traceback (most recent call last):\n", n_tokens);
        fprintf(f, "2026-01-15T10:30:00.%09uZ stderr F   at [%u]\n", n_tokens, n_tokens);
        n_tokens++;
        fprintf(f, "2026-01-15T10:30:00.%09uZ stdout F second [%u]\n", n_tokens, n_tokens);
        n_tokens++;
        fprintf(f, "2026-01-15T10:30:00.%09uZ stderr F {\"level\":\"info\",\"tenant\":\"t%d\",\"message\":\"[%u]\"}\n",
                n_tokens, round % 7, n_tokens);
        n_tokens++;
    }
    assert_int_equal(fclose(f), 0);
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
                                "state_dir: %s/state\nadmin: { listen: \"\" }\ninputs:\n  x:\n    type: file\n"
                                "    include: [\"%s/logs/*.log\"]\n    tenant: \"{record.tenant|'none'}\"\n"
                                "outputs:\n  out: { type: file, path: \"%s/out/all.ndjson\", "
                                "queue: { batch_wait: 20ms, sync: 10ms } }\n"
                                "  two: { type: file, path: \"%s/out/{tenant}/two.ndjson\", "
                                "queue: { batch_wait: 30ms, sync: 10ms } }\n",
                                folder, folder, folder, folder),
                     0);
    if (conf_load_text("x", buf_slice(&yaml), registry_types(), &conf, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    if (agent_start(conf, &agent, &err) < 0)
        fail_msg("%s", err.text);
    buf_deinit(&yaml);
    buf_deinit(&errors);
    return agent;
}

static void count_tokens(unsigned *seen, const char *command)
{
    char line[8192];
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL)
        for (const char *at = line; (at = strchr(at, '[')) != NULL; at++)
            if (at[1] >= '0' && at[1] <= '9') {
                unsigned token = (unsigned)strtoul(at + 1, NULL, 10);
                assert_true(token < n_tokens);
                seen[token]++;
            }
    (void)pclose(f);
}

static unsigned *tokens_of(int output)
{
    char text[256];
    unsigned *seen = calloc(n_tokens, sizeof(*seen));
    assert_non_null(seen);
    (void)snprintf(text, sizeof(text), output == 0 ? "cat %s/out/all.ndjson 2>&-" : "cat %s/out/*/two.ndjson 2>&-", folder);
    count_tokens(seen, text);
    return seen;
}

/* Records differ by what could be joined, so it is their text that says when all is there. */
static void wait_all(void)
{
    int64_t deadline = clock_mono_ns() + 20 * NS_PER_SEC;
    for (int o = 0; o < 2; o++) {
        for (unsigned missing = 1; missing > 0;) {
            unsigned *seen = tokens_of(o);
            missing = 0;
            for (unsigned i = 0; i < n_tokens; i++) {
                missing += seen[i] == 0;
                if (seen[i] == 0 && clock_mono_ns() > deadline)
                    print_message("missing: %u\n", i);
            }
            free(seen);
            if (clock_mono_ns() > deadline)
                fail_msg("output %d misses %u of %u tokens", o, missing, n_tokens);
            usleep(50000);
        }
    }
}

static void test_nth_allocation_fails(void **state)
{
    char text[256];
    (void)state;
    (void)snprintf(text, sizeof(text), "%s/logs", folder);
    assert_int_equal(io_mkdirs(text, 0755, NULL), 0);
    struct agent *a = start();
    for (int round = 0; round < ROUNDS; round++) {
        atomic_store(&fail_in, round + FAIL_CALLS);
        write_round(round);
        for (int i = 0; i < 20 && (i < 4 || (FAILS_MALLOC && atomic_load(&fail_in) != 0)); i++)
            usleep(10000); /* on a busy machine the calls come later */
    }
    atomic_store(&fail_in, 0);
    wait_all();
    agent_stop(a, 2 * NS_PER_SEC);
    assert_true(!FAILS_MALLOC || atomic_load(&n_failed) > ROUNDS / 2);
    for (int o = 0; o < 2; o++) {
        unsigned *seen = tokens_of(o);
        for (unsigned i = 0; i < n_tokens; i++)
            if (seen[i] != 1)
                fail_msg("output %d has token %u %u times, of %u; %u allocations failed", o, i, seen[i], n_tokens, n_failed);
        free(seen);
    }
    struct ledger_off off = ledger_sum();
    assert_int_equal(off.inputs, 0);
    assert_int_equal(off.outputs, 0);
    /* Failures never made the accounts wrong. */
    assert_int_equal(budget_used(MEMORY_BATCHES) + budget_used(MEMORY_JOINS) + budget_used(MEMORY_SENDING) +
                         budget_used(MEMORY_LANES) + budget_used(MEMORY_FILES) + budget_used(MEMORY_QUEUES), 0);
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
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_nth_allocation_fails) };
    return cmocka_run_group_tests_name("agent/exhausted", tests, set_up, tear_down);
}
