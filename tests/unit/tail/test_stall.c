/*
 * Goal: a file that has unread bytes and is not read is said to be so and read within 5 s, when nothing explains it; what
 * explains it, or only looks like it, is left alone.
 * Method: world.h, on its clock; events are taken from under the tail, ready lists are cut, a disk answers with nothing.
 */
#include "tests/unit/tail/world.h"

#include <sys/inotify.h>

#include "agent/queue/fs.h"

static struct world *one(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    memset(&stats, 0, sizeof(stats));
    return w;
}

static void lose_events(struct world *w)
{
    char raw[65536];
    while (read(tail_fd(w->t), raw, sizeof(raw)) > 0)
        ;
}

/* As the reader without news: ticks and turns, no events. Steps of half a second until a line comes; how many. */
static int half_seconds_to_line(struct world *w, size_t lines, int max)
{
    for (int i = 0; i < max; i++) {
        if (w->q[0].open.n >= lines)
            return i;
        w_now += NS_PER_SEC / 2;
        (void)tail_tick(w->t, w_now);
        while (tail_turn(w->t, w_now))
            ;
    }
    return max;
}

static struct tail_file *only_file(struct world *w)
{
    return CONTAINER_OF(w->t->files.next, struct tail_file, all);
}

static void test_lost_event(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    (void)half_seconds_to_line(w, 99, 30); /* nothing is said of a quiet file */
    assert_int_equal(0, counter_get(&stats.inputs[0].stalls));
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC; /* so that it is not the rescan that finds it */
    w_append(w, "a.log", "two\n");
    lose_events(w);
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    expect_lines(w, 0, "one|two");
    assert_int_equal(1, counter_get(&stats.inputs[0].stalls));
    assert_true(log_has(w, "file.stalled") && log_has(w, "no event came"));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_STALLED]));
    (void)half_seconds_to_line(w, 99, 10); /* it moves: over */
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_STALLED]));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_OPEN]));
    assert_int_equal(1, counter_get(&stats.inputs[0].stalls));
    world_free(w);
}

/* Events that wait behind thousands of others did come: the file gets its turn, and nothing is said. */
static void test_waiting_event(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC;
    w_append(w, "a.log", "two\n");
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    expect_lines(w, 0, "one|two");
    (void)half_seconds_to_line(w, 99, 10);
    assert_int_equal(0, counter_get(&stats.inputs[0].stalls));
    assert_false(log_has(w, "file.stalled"));
    world_free(w);
}

static void test_lost_event_without_descriptor(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    file_close(only_file(w)); /* as for want of descriptors */
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC;
    w_append(w, "a.log", "two\n");
    lose_events(w);
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    assert_int_equal(1, counter_get(&stats.inputs[0].stalls));
    world_free(w);
}

static void test_lost_turn(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w_append(w, "a.log", "two\n");
    tail_on_events(w->t);
    list_del(&only_file(w)->ready); /* a bug: it is hungry and nobody knows */
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    assert_true(log_has(w, "file.stalled"));
    world_free(w);
}

/* It is deleted as soon as somebody has looked at its name. */
static const struct world *deleting;

static int deleting_stat(int dir_fd, const char *name, struct stat *st, bool follow)
{
    int r = fs_real.stat(dir_fd, name, st, follow);
    if (deleting != NULL && r == 0 && S_ISREG(st->st_mode))
        w_unlink(deleting, "a.log");
    deleting = NULL;
    return r;
}

static void test_deleted_while_it_is_opened_anew(void **state)
{
    struct world *w = one();
    (void)state;
    struct fs_ops ops = fs_real;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC;
    w_append(w, "a.log", "two\n");
    lose_events(w);
    ops.stat = deleting_stat;
    deleting = w;
    fs_set_ops(&ops);
    (void)half_seconds_to_line(w, 2, 100);
    fs_set_ops(NULL);
    if (deleting != NULL) /* nobody asked by name */
        w_unlink(w, "a.log");
    deleting = NULL;
    expect_lines(w, 0, "one|two");
    assert_true(log_has(w, "file.stalled"));
    world_free(w);
}

static struct fs_ops vain;

static ssize_t vain_pread(int fd, void *buf, size_t n, uint64_t off)
{
    (void)fd;
    (void)buf;
    (void)n;
    (void)off;
    return 0;
}

static void test_turns_in_vain(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    vain = fs_real;
    vain.pread = vain_pread;
    fs_set_ops(&vain);
    w_append(w, "a.log", "two\n");
    lose_events(w);
    (void)half_seconds_to_line(w, 2, 10);
    assert_true(log_has(w, "file.stalled"));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_STALLED]));
    fs_set_ops(NULL);
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    (void)half_seconds_to_line(w, 99, 10);
    assert_int_equal(0, gauge_get(&stats.inputs[0].files[FILES_STALLED]));
    world_free(w);
}

static void test_removed_watch(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    w->t->next_rescan_ns = w_now + 1000 * NS_PER_SEC;
    for (struct list *l = w->t->dirs.next; l != &w->t->dirs; l = l->next)
        if (CONTAINER_OF(l, struct dir, all)->wd >= 0)
            (void)inotify_rm_watch(tail_fd(w->t), CONTAINER_OF(l, struct dir, all)->wd);
    lose_events(w);
    w_append(w, "a.log", "two\n");
    assert_true(half_seconds_to_line(w, 2, 100) <= 10);
    world_free(w);
}

/* Half a line, a blocked output, a file that waits for another: known, and said elsewhere. */
static void test_explained(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\nhalf");
    w_append(w, "b.log", "one\n");
    world_start(w);
    world_run(w);
    (void)half_seconds_to_line(w, 99, 30);
    w->q[0].refuses = true;
    w_append(w, "b.log", "two\nthree\n");
    tail_on_events(w->t);
    (void)half_seconds_to_line(w, 99, 30);
    w_append(w, "b.log", "four\n");
    lose_events(w);
    (void)half_seconds_to_line(w, 99, 30);
    assert_int_equal(0, counter_get(&stats.inputs[0].stalls));
    w->q[0].refuses = false;
    tail_unblock(w->t, 0);
    world_run(w);
    assert_int_equal(5, w->q[0].open.n);
    world_free(w);
}

/* It comes late to its turn because others are read: that is no stall. */
static void test_busy(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    w_append(w, "b.log", "one\n");
    world_start(w);
    world_run(w);
    w_append(w, "a.log", "two\n");
    w_append(w, "b.log", "two\n");
    tail_on_events(w->t);
    for (int i = 0; i < 20; i++) { /* no turns at all */
        w_now += NS_PER_SEC;
        w->t->now = w_now;
        stall_check(w->t);
    }
    assert_int_equal(0, counter_get(&stats.inputs[0].stalls));
    world_run(w);
    world_free(w);
}

/* Shows the first line alone. */
static ssize_t short_pread(int fd, void *buf, size_t n, uint64_t off)
{
    return off >= 4 ? 0 : fs_real.pread(fd, buf, MIN(n, (size_t)(4 - off)), off);
}

static void turns_of_ten_seconds(struct world *w)
{
    for (int i = 0; i < 40; i++) {
        file_ready(only_file(w));
        (void)tail_turn(w->t, w_now);
        w_now += NS_PER_SEC / 4;
        w->t->now = w_now;
        file_ready(only_file(w)); /* it waits for the next one as it is looked at */
        stall_check(w->t);
    }
}

/* A file that is renamed again and again gets a turn each time, and was read to its end long ago. */
static void test_turns_that_have_nothing_to_bring(void **state)
{
    struct world *w = one();
    (void)state;
    w_append(w, "a.log", "one\n");
    world_start(w);
    world_run(w);
    turns_of_ten_seconds(w);
    assert_int_equal(0, counter_get(&stats.inputs[0].stalls));
    w_append(w, "a.log", "two\n"); /* and now it has, but nobody can read it */
    vain = fs_real;
    vain.pread = short_pread;
    fs_set_ops(&vain);
    turns_of_ten_seconds(w);
    assert_true(counter_get(&stats.inputs[0].stalls) > 0);
    fs_set_ops(NULL);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_event), cmocka_unit_test(test_waiting_event), cmocka_unit_test(test_lost_event_without_descriptor),
        cmocka_unit_test(test_deleted_while_it_is_opened_anew),
        cmocka_unit_test(test_lost_turn),  cmocka_unit_test(test_turns_in_vain),
        cmocka_unit_test(test_removed_watch), cmocka_unit_test(test_explained), cmocka_unit_test(test_busy),
        cmocka_unit_test(test_turns_that_have_nothing_to_bring),
    };
    return cmocka_run_group_tests_name("tail/stall", tests, NULL, NULL);
}
