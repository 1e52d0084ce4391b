/*
 * Goal: a copy beside its live file, found at any moment of its making by an input that takes both names, is read once with it; one
 * that only begins alike is a file of its own. Method: world.h; the copy comes in two pieces, cut at each place of interest.
 */
#include "world.h"

#include <time.h>

static const char text[] = "line 1 of a file that is copied, long enough to tell it from another by what stands in it\n"
                           "line 2 of a file that is copied, long enough to tell it from another by what stands in it\n"
                           "line 3 of a file that is copied, long enough to tell it from another by what stands in it\n";

static void put(const struct world *w, const char *name, const char *p, size_t n)
{
    int fd = open(w_path(w, name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(n, write(fd, p, n));
    close(fd);
}

static size_t times(const struct world *w, const char *line)
{
    size_t n = 0;
    for (size_t i = 0; i < w->q[0].durable.n; i++)
        n += strstr(w->q[0].durable.item[i], line) == w->q[0].durable.item[i];
    return n;
}

static void test_cut_at(size_t first)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*");
    put(w, "a.log", text, sizeof(text) - 1);
    world_start(w);
    world_settle(w, 2);
    put(w, "a.log.1", text, first);
    world_settle(w, 1);
    put(w, "a.log.1", text + first, sizeof(text) - 1 - first);
    world_settle(w, 1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "line 4\n");
    world_settle(w, 15);
    for (char i = '1'; i <= '4'; i++) {
        const char line[] = { 'l', 'i', 'n', 'e', ' ', i, '\0' };
        if (times(w, line) != 1)
            fail_msg("cut at %zu: %s came %zu times", first, line, times(w, line));
    }
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_free(w);
}

static void test_copy_in_two_pieces(void **state)
{
    static const size_t at[] = { 0, 1, 20, 89, 90, 91, 128, 180, 256, sizeof(text) - 2, sizeof(text) - 1 };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(at); i++)
        test_cut_at(at[i]);
}

/* The same beginning, or none in common: all of it is read. */
static void test_a_file_of_its_own(void **state)
{
    static const size_t alike[] = { 0, 20, 100, sizeof(text) - 1 };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(alike); i++) {
        struct world *w = world_new(1);
        world_include(w, 0, "*");
        put(w, "a.log", text, sizeof(text) - 1);
        world_start(w);
        world_settle(w, 2);
        put(w, "a.log.1", text, alike[i]);
        w_append(w, "a.log.1", "own words, which nobody else has and which make it another file\n");
        world_settle(w, 15);
        size_t n = 0;
        for (size_t k = 0; k < w->q[0].durable.n; k++)
            n += strstr(w->q[0].durable.item[k], "own words") != NULL;
        if (n != 1)
            fail_msg("alike up to %zu: %zu times", alike[i], n);
        world_free(w);
    }
}

/* Cut when a few bytes of it were known, which every line begins with, and written to again; nobody has a copy. */
static struct world *cut_and_written(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "line ");
    world_start(w);
    world_settle(w, 2);
    w_append(w, "a.log", "1, that goes with its copy\n");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    world_settle(w, 2);
    w_append(w, "a.log", "line 2, long enough to tell it from another by what stands in it\n");
    return w;
}

/* Of one that was cut, and has no copy any more, a few bytes are known that every line begins with. The next copy is of the file
 * that was cut after it, which nobody has noted yet. */
static void test_copy_of_the_one_cut_last(void **state)
{
    (void)state;
    struct world *w = cut_and_written();
    world_settle(w, 2);
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "line 3\n");
    world_settle(w, 15);
    expect_lines(w, 0, "line 2, long enough to tell it from another by what stands in it|line 3");
    world_free(w);
}

/* As above, and the one that was cut last has its copy, or nobody has cut it yet. */
static void test_copy_of_one_of_which_more_is_known(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        const bool is_cut = (way & 1) != 0, is_gz = (way & 2) != 0;
        struct world *w = cut_and_written();
        world_settle(w, 1);
        w_copy(w, "a.log", "a.log.1");
        if (is_cut)
            assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
        world_settle(w, is_cut || !is_gz);
        if (is_gz)
            w_gzip(w, "a.log.1");
        world_settle(w, 2);
        w_append(w, "a.log", "line 3\n");
        world_settle(w, 15);
        expect_lines(w, 0, "line 2, long enough to tell it from another by what stands in it|line 3");
        world_free(w);
    }
}

static int64_t ahead_ns;

static int64_t wall_ahead(void)
{
    struct timespec now;
    assert_int_equal(0, clock_gettime(CLOCK_REALTIME, &now));
    return timespec_ns(now) + ahead_ns;
}

/* A live file of one short line, first seen by a clock that is put back then. */
static struct world *world_put_back(void)
{
    struct world *w = world_new(1);
    ahead_ns = 3600 * NS_PER_SEC;
    clock_set_source(w_mono, wall_ahead);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", "short\n");
    world_start(w);
    world_settle(w, 2);
    ahead_ns = 0;
    return w;
}

/* It grows, is copied and cut: the copy seems to be older than what is known of the file. */
static void test_copied_after_the_clock_went_back(void **state)
{
    (void)state;
    struct world *w = world_put_back();
    w_append(w, "a.log", "half");
    world_settle(w, 1);
    w_append(w, "a.log", " a line\n");
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "next\n");
    world_settle(w, 15);
    expect_lines(w, 0, "short|half a line|next");
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_free(w);
}

/* What was written long before the file was first seen is no copy of it, whatever the clock said then. */
static void test_old_one_after_the_clock_went_back(void **state)
{
    (void)state;
    struct world *w = world_put_back();
    w_append(w, "a.log.1", "short\nof an older time\n");
    const struct timespec day_ago = { .tv_sec = wall_ahead() / NS_PER_SEC - 86400 }, times[2] = { day_ago, day_ago };
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, "a.log.1"), times, 0));
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    w_append(w, "a.log", "next\n");
    world_settle(w, 15);
    expect_lines(w, 0, "short|next");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_in_two_pieces),
        cmocka_unit_test(test_a_file_of_its_own),
        cmocka_unit_test(test_copy_of_the_one_cut_last),
        cmocka_unit_test(test_copy_of_one_of_which_more_is_known),
        cmocka_unit_test(test_copied_after_the_clock_went_back),
        cmocka_unit_test(test_old_one_after_the_clock_went_back),
    };
    return cmocka_run_group_tests_name("tail/copies", tests, NULL, NULL);
}
