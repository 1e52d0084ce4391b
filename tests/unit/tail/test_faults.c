/*
 * Goal: a call that fails once, or comes short, or fails for a while, is got over: no line is lost or comes twice.
 * Method: a life of a file (lines, a rename, a copy that is cut, a .gz, restarts) on world.h; the nth call of a kind goes
 * wrong, for each n there is.
 */
#include "tests/unit/tail/life.h"

#include "agent/queue/fs.h"

enum call { CALL_PREAD, CALL_OPEN, CALL_FSTAT, CALL_STAT, CALL_LIST, CALLS };

/* The calls [first, last] of a kind go wrong. result: a negative errno, 0 = one byte. */
static struct {
    enum call call;
    unsigned first, last, n;
    int result;
} fault;
static struct fs_ops faulty;

static bool strikes(enum call call)
{
    if (call != fault.call)
        return false;
    fault.n++;
    return fault.n >= fault.first && fault.n <= fault.last;
}

static ssize_t faulty_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    if (!strikes(CALL_PREAD))
        return fs_real.pread(fd, ptr, len, off);
    return fault.result < 0 ? fault.result : fs_real.pread(fd, ptr, MIN(len, (size_t)1), off);
}

static int faulty_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return strikes(CALL_OPEN) ? fault.result : fs_real.open(dir_fd, name, flags, mode);
}

static int faulty_fstat(int fd, struct stat *st)
{
    return strikes(CALL_FSTAT) ? fault.result : fs_real.fstat(fd, st);
}

static int faulty_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    return strikes(CALL_STAT) ? fault.result : fs_real.stat(dir_fd, name, st, follow);
}

static int faulty_list(int dir_fd, void (*each)(void *ctx, const char *name), void *ctx)
{
    return strikes(CALL_LIST) ? fault.result : fs_real.list(dir_fd, each, ctx);
}

/* Until fs_set_ops(NULL). */
static void use_faults(enum call call, unsigned first, unsigned n_bad, int result)
{
    fault.call = call;
    fault.first = first;
    fault.last = first + n_bad - 1;
    fault.n = 0;
    fault.result = result;
    faulty = fs_real;
    faulty.pread = faulty_pread;
    faulty.open = faulty_open;
    faulty.fstat = faulty_fstat;
    faulty.stat = faulty_stat;
    faulty.list = faulty_list;
    fs_set_ops(&faulty);
}

static void expect_each_once(struct world *w)
{
    char what[64];
    (void)snprintf(what, sizeof(what), "call %d, %u..%u, result %d", fault.call, fault.first, fault.last, fault.result);
    life_expect_each_once(w, what);
}

/* All goes well again, and then each line is there once. */
static void heal(struct world *w)
{
    fs_set_ops(NULL);
    world_settle(w, 30);
    expect_each_once(w);
    world_free(w);
}

/* True: there was an nth call. */
static bool live_with(enum call call, unsigned first, unsigned n_bad, int result)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    use_faults(call, first, n_bad, result);
    life_live(w, world_crash);
    bool was_there = fault.n >= first;
    heal(w);
    return was_there;
}

static void each_call(enum call call, unsigned n_bad, int result)
{
    unsigned n = 1;
    while (live_with(call, n, n_bad, result))
        n++;
    assert_true(n > 5);
}

static void test_short_reads(void **state)
{
    (void)state;
    each_call(CALL_PREAD, 1, 0);
    each_call(CALL_PREAD, 20, 0);
}

static void test_failing_reads(void **state)
{
    (void)state;
    each_call(CALL_PREAD, 1, -EIO);
}

static void test_failing_opens(void **state)
{
    (void)state;
    each_call(CALL_OPEN, 1, -EACCES);
    each_call(CALL_OPEN, 1, -EMFILE);
}

/* Nothing can be looked at, from the nth time on; then it can. Files that were there all the time are taken up. */
static void blind(enum call call, unsigned first, int result, int seconds)
{
    struct world *w = world_new(1);
    world_include(w, 0, "<app>/*.log");
    use_faults(call, first, UINT_MAX - first, result);
    w_mkdir(w, "one");
    w_mkdir(w, "two");
    w_append(w, "one/a.log", "a\n");
    w_append(w, "one/b.log", "b\n");
    w_append(w, "two/c.log", "c\n");
    world_start(w);
    world_pass(w, seconds); /* nothing changes: no event and no time of a directory tells of them */
    fs_set_ops(NULL);
    world_settle(w, 30);
    if (w->q[0].durable.n != 3)
        fail_msg("call %d from %u on: %zu lines of 3", call, first, w->q[0].durable.n);
    world_free(w);
}

static void test_blind(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 60; n++) {
        int seconds = n % 2 == 0 ? 25 : 2; /* with rescans meanwhile, or without */
        blind(CALL_STAT, n, -EACCES, seconds);
        blind(CALL_FSTAT, n, -EACCES, seconds);
        blind(CALL_OPEN, n, -EACCES, seconds);
        blind(CALL_LIST, n, -EIO, seconds);
    }
}

/* Nothing of one kind works from its nth call on. */
static void from_each_call(void (*blind_with)(enum call call, unsigned first, int result))
{
    for (unsigned n = 1; n < 20; n++) {
        blind_with(CALL_PREAD, n, -EIO);
        blind_with(CALL_OPEN, n, -EACCES);
        blind_with(CALL_FSTAT, n, -EIO);
        blind_with(CALL_STAT, n, -EACCES);
    }
}

/* After a restart nothing can be read for a while: files that cannot be compared are not begun anew. */
static void restart_blind(enum call call, unsigned first, int result)
{
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    life_written = 0;
    life_lines(w, 20);
    w_append(w, "b.log", "line 00020\n");
    life_written++;
    world_start(w);
    world_settle(w, 1);
    world_stop(w);
    life_lines(w, 5);
    use_faults(call, first, UINT_MAX - first, result);
    world_start(w);
    world_settle(w, 12);
    heal(w);
}

static void test_restart_blind(void **state)
{
    (void)state;
    from_each_call(restart_blind);
}

/* A reload while nothing can be read: the new tail has the files as the old one had them. */
static void reload_blind(enum call call, unsigned first, int result)
{
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    life_written = 0;
    life_lines(w, 20);
    world_start(w);
    world_settle(w, 1);
    use_faults(call, first, UINT_MAX - first, result);
    life_lines(w, 5);
    world_settle(w, 1);
    world_reload(w);
    world_settle(w, 12);
    heal(w);
}

static void test_reload_blind(void **state)
{
    (void)state;
    from_each_call(reload_blind);
}

/* One queue knows a text that stood in the file before, the other the one that stands there now: that the two are one text
 * is not to be believed because it could not be seen. True: there was an nth call. */
static bool no_twin_unseen(unsigned first)
{
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    life_written = 0;
    life_lines(w, 4);
    world_start(w);
    world_run(w);
    assert_true(world_commit(w, 0));
    world_stop(w);
    world_swap_outputs(w, 1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    life_lines(w, 8);
    world_start(w);
    world_settle(w, 1);
    world_stop(w);
    world_swap_outputs(w, 2);
    use_faults(CALL_PREAD, first, FS_TRIES, -EIO);
    world_start(w);
    world_settle(w, 12);
    bool was_there = fault.n >= first;
    heal(w);
    return was_there;
}

static void test_no_twin_unseen(void **state)
{
    (void)state;
    unsigned n = 1;
    while (no_twin_unseen(n))
        n++;
    assert_true(n > 5);
}

static void test_failing_looks(void **state)
{
    (void)state;
    each_call(CALL_FSTAT, 1, -EACCES);
    each_call(CALL_STAT, 1, -EACCES);
    each_call(CALL_LIST, 1, -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_reads),
        cmocka_unit_test(test_failing_reads),
        cmocka_unit_test(test_failing_opens),
        cmocka_unit_test(test_failing_looks),
        cmocka_unit_test(test_blind),
        cmocka_unit_test(test_restart_blind),
        cmocka_unit_test(test_reload_blind),
        cmocka_unit_test(test_no_twin_unseen),
    };
    return cmocka_run_group_tests_name("tail/faults", tests, NULL, NULL);
}
