/*
 * Goal: a file that nothing happens to is kept as a sleeper, and whatever happens to it then is as if it had never been one:
 * each line once, positions that go on where they were, its descriptor, its place in /status.
 * Method: world.h, on its clock; test_random.c does the same at random.
 */
#include "world.h"

#define LONG(n) "line " #n ", long enough to tell one file from another by what stands in it"

static size_t n_asleep(const struct world *w)
{
    size_t n = 0;
    for (const struct list *l = w->t->asleep.next; l != &w->t->asleep; l = l->next)
        n++;
    for (const struct list *l = w->t->asleep_open.next; l != &w->t->asleep_open; l = l->next)
        n++;
    return n;
}

static void fall_asleep(struct world *w, size_t n)
{
    world_commit_all(w);
    world_pass(w, 80);
    assert_int_equal(n, n_asleep(w));
}

static struct world *begin(size_t n_outputs)
{
    struct world *w = world_new(n_outputs);
    world_include(w, 0, "*.log");
    memset(&stats, 0, sizeof(stats));
    w_append(w, "a.log", LONG(1) "\n");
    world_start(w);
    world_run(w);
    w_append(w, "b.log", LONG(2) "\n");
    world_run(w);
    return w;
}

static void end(struct world *w)
{
    for (int i = 0; i < 5; i++)
        world_settle(w, 8);
    world_crash(w); /* what is durable is where it is gone on */
    world_run(w);
    world_commit_all(w);
}

static void test_line(void **state)
{
    struct world *w = begin(2);
    (void)state;
    fall_asleep(w, 2);
    assert_true(!list_is_in(&w->t->files));
    assert_int_equal(2, gauge_get(&stats.inputs[0].files[FILES_OPEN]));
    w_append(w, "a.log", LONG(3) "\n");
    world_run(w);
    assert_int_equal(1, n_asleep(w));
    end(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3));
    expect_lines(w, 1, LONG(1) "|" LONG(2) "|" LONG(3));
    world_free(w);
}

/* Of very many that are read whole at once, the sink keeps none; what comes then is fed as ever. */
static void test_crowd_rests_at_once(void **state)
{
    struct world *w = world_new(1);
    char name[16];
    (void)state;
    world_include(w, 0, "*.log");
    for (int i = 0; i <= CROWD_FILES; i++) {
        (void)snprintf(name, sizeof(name), "%d.log", i);
        w_append(w, name, "");
    }
    w_append(w, "7.log", LONG(1) "\n");
    w_append(w, "8.log", "unfinished");
    world_start(w);
    world_run(w);
    assert_int_equal(CROWD_FILES + 1, w->t->n_files);
    assert_null(file_by_path(w->t, w_path(w, "7.log"))->sink_file);
    assert_non_null(file_by_path(w->t, w_path(w, "8.log"))->sink_file);
    w_append(w, "7.log", LONG(2) "\n");
    w_append(w, "8.log", " line\n");
    world_run(w);
    assert_non_null(file_by_path(w->t, w_path(w, "7.log"))->sink_file); /* it writes: not at each turn */
    world_commit_all(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|unfinished line");
    world_free(w);
}

/* The rescan compares, as it does with files that are awake; what is as it was is left alone. */
static void test_lost_event(void **state)
{
    struct world *w = begin(1);
    char raw[65536];
    (void)state;
    fall_asleep(w, 2);
    w_append(w, "a.log", LONG(3) "\n");
    while (read(tail_fd(w->t), raw, sizeof(raw)) > 0)
        ;
    world_pass(w, 10);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3));
    assert_int_equal(1, n_asleep(w));
    fall_asleep(w, 2); /* again */
    w_append(w, "c.txt", "x"); /* the folder has another time: all names in it are looked at */
    world_pass(w, 10);
    assert_int_equal(2, n_asleep(w));
    world_free(w);
}

static void test_not_yet(void **state)
{
    struct world *w = begin(2);
    (void)state;
    w_append(w, "b.log", "half");
    world_run(w);
    (void)world_commit(w, 0);
    world_pass(w, 80);
    assert_int_equal(0, n_asleep(w)); /* the other output knows nothing yet */
    (void)world_commit(w, 1);
    world_pass(w, 80);
    assert_int_equal(1, n_asleep(w)); /* b.log has unread bytes */
    w_append(w, "b.log", " line\n");
    world_run(w);
    fall_asleep(w, 2);
    expect_lines(w, 1, LONG(1) "|" LONG(2) "|half line");
    world_free(w);
}

/* Rotated with a late line, cut, replaced by one of the same length, deleted. */
static void test_rotation(void **state)
{
    struct world *w = begin(2);
    (void)state;
    fall_asleep(w, 2);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log.1", LONG(3) "\n");
    w_append(w, "a.log", LONG(4) "\n");
    assert_int_equal(0, truncate(w_path(w, "b.log"), 0));
    w_append(w, "b.log", LONG(5) "\n");
    end(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3) "|" LONG(4) "|" LONG(5));
    fall_asleep(w, 2);
    w_append(w, "new", LONG(6) "\n");
    w_rename(w, "new", "b.log");
    w_unlink(w, "a.log");
    end(w);
    expect_lines(w, 1, LONG(1) "|" LONG(2) "|" LONG(3) "|" LONG(4) "|" LONG(5) "|" LONG(6));
    assert_int_equal(1, gauge_get(&stats.inputs[0].files[FILES_OPEN]));
    world_free(w);
}

/* Its descriptor stays: what a writer that holds a deleted file still writes is read. It is the first to be given up. */
static void test_descriptor(void **state)
{
    struct world *w = begin(1);
    (void)state;
    int fd = open(w_path(w, "a.log"), O_WRONLY | O_APPEND | O_CLOEXEC);
    fall_asleep(w, 2);
    assert_int_equal(2, w->t->n_open);
    w_unlink(w, "a.log");
    world_run(w);
    assert_int_equal(sizeof(LONG(3)), write(fd, LONG(3) "\n", sizeof(LONG(3))));
    close(fd);
    world_pass(w, 3);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3));
    end(w);
    fall_asleep(w, 1);
    w->t->fd_budget = 1;
    assert_true(list_is_in(&w->t->asleep_open));
    w_append(w, "c.log", LONG(4) "\n");
    world_run(w);
    assert_false(list_is_in(&w->t->asleep_open));
    assert_int_equal(1, w->t->n_open);
    world_settle(w, 601);
    world_pass(w, 20);
    assert_int_equal(0, w->t->n_open);
    end(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3) "|" LONG(4));
    world_free(w);
}

static void test_fence_and_reload(void **state)
{
    struct world *w = begin(2);
    (void)state;
    fall_asleep(w, 2);
    tail_fence(w->t, 1, w->q[1].files, w->q[1].n);
    w_append(w, "a.log", LONG(3) "\n");
    world_run(w);
    fall_asleep(w, 2);
    world_hand_over(w);
    w_append(w, "b.log", LONG(4) "\n"); /* before the new one looked */
    end(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3) "|" LONG(4));
    expect_lines(w, 1, LONG(1) "|" LONG(2) "|" LONG(3) "|" LONG(4));
    world_free(w);
}

/* A folder that takes another name takes its sleepers along. */
static void test_folder(void **state)
{
    struct world *w = world_new(1);
    world_include(w, 0, "*/*.log");
    (void)state;
    w_mkdir(w, "d");
    w_append(w, "d/a.log", LONG(1) "\n");
    world_start(w);
    world_run(w);
    fall_asleep(w, 1);
    w_rename(w, "d", "e");
    w_append(w, "e/a.log", LONG(2) "\n");
    world_pass(w, 11);
    end(w);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    world_free(w);
}

static void test_status(void **state)
{
    struct world *w = begin(2);
    struct buf awake, asleep;
    (void)state;
    world_commit_all(w);
    buf_init(&awake, MIB);
    buf_init(&asleep, MIB);
    assert_int_equal(0, tail_status(w->t, &awake));
    fall_asleep(w, 2);
    assert_int_equal(0, tail_status(w->t, &asleep));
    assert_true(slice_eq(buf_slice(&awake), buf_slice(&asleep)));
    buf_deinit(&awake);
    buf_deinit(&asleep);
    world_free(w);
}

/* A queue heard of it as an empty file; another, whose output is away now, of a text that was cut since. */
static void test_empty(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", "");
    world_start(w);
    world_run(w);
    world_commit_all(w);
    w_append(w, "a.log", LONG(1) "\n");
    world_run(w);
    assert_true(world_commit(w, 1));
    world_stop(w);
    world_use_outputs(w, 1);
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    world_start(w);
    fall_asleep(w, 1);
    w_append(w, "a.log", LONG(2) "\n");
    world_run(w);
    world_commit_all(w);
    world_stop(w);
    world_use_outputs(w, 2);
    world_start(w);
    world_pass(w, 12);
    expect_lines(w, 0, LONG(2));
    expect_lines(w, 1, LONG(1) "|" LONG(2));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),       cmocka_unit_test(test_lost_event),       cmocka_unit_test(test_not_yet),
        cmocka_unit_test(test_crowd_rests_at_once),
        cmocka_unit_test(test_rotation),   cmocka_unit_test(test_descriptor),       cmocka_unit_test(test_fence_and_reload),
        cmocka_unit_test(test_folder),     cmocka_unit_test(test_status),           cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests_name("tail/asleep", tests, NULL, NULL);
}
