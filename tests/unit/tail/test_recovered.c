/*
 * Goal: records of a queue that cannot be ours, or are there twice, do no harm: what they say is left out, and the files are read.
 * Method: world.h; the queue's records are made up before the start.
 */
#include "world.h"

#define LONG(n) "line " #n ", long enough to tell one file from another by what stands in it"

static struct recovered_file *add(struct world *w, uint64_t incarnation, struct slice path)
{
    struct recovered_file *rf = w_add(&w->q[0]);
    *rf = (struct recovered_file){ .ident = { .incarnation = incarnation, .dev = 1, .ino = incarnation, .path = w_dup(path),
                                              .input = w_dup(SLICE("logs")) },
                                   .position = { .incarnation = incarnation, .start = 5, .end = 5 } };
    w->q[0].is_new = false;
    return rf;
}

static void test_records_that_cannot_be_ours(void **state)
{
    static char longest[PATH_MAX + 1];
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", LONG(1) "\n");
    memset(longest, 'x', sizeof(longest));
    longest[0] = '/';
    add(w, 1, SLICE(""));
    add(w, 2, SLICE("relative/a.log"));
    add(w, 3, slice_of(longest, sizeof(longest)));
    add(w, 4, slice_cstr(w_path(w, "gone.log")))->position.n_parts = STREAMS_MAX + 1;
    add(w, 0, slice_cstr(w_path(w, "nobody.log")));
    add(w, 5, slice_cstr(w_path(w, "other.log")))->ident.input.len = 2; /* an input that is not configured */
    world_start(w);
    world_settle(w, 30);
    expect_lines(w, 0, LONG(1));
    for (uint64_t i = 1; i <= 4; i++)
        assert_null(file_by_incarnation(w->t, i));
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_free(w);
}

/* The same file in two records of one queue: the first counts. */
static void test_told_twice(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", LONG(1) "\n" LONG(2) "\n");
    world_start(w);
    world_settle(w, 2);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    world_stop(w);
    assert_int_equal(w->q[0].n, 1);
    struct recovered_file first = w->q[0].files[0];
    struct recovered_file *second = add(w, first.ident.incarnation, first.ident.path);
    second->ident.dev = first.ident.dev;
    second->ident.ino = first.ident.ino;
    second->position.end = second->position.start = 0;
    w_append(w, "a.log", LONG(3) "\n");
    world_start(w);
    w_drop(&w->q[0], &w->q[0].files[1]);
    world_settle(w, 2);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3));
    world_free(w);
}

/* A reload to another output before the old one's queue was told anything: the new one has all of the file. */
static void test_reload_to_another_output(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a.log", LONG(1) "\n");
    world_start(w);
    world_run(w);
    world_swap_outputs(w, 1);
    world_reload(w);
    w_append(w, "a.log", LONG(2) "\n");
    world_settle(w, 5);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    world_free(w);
}

static void rotate(struct world *w, const char *to)
{
    w_rename(w, "a.log", to);
    w_append(w, "a.log", "");
}

static struct stat w_stat(const struct world *w, const char *name)
{
    struct stat st;
    assert_int_equal(0, stat(w_path(w, name), &st));
    return st;
}

/*
 * One queue knows a file as two: as the empty one that it was, of which no more could be told, and as the .gz that was begun when
 * that was looked at anew. The queue of an output that was away knows its text by the first. The .gz is the second's, by its inode.
 */
static void test_two_that_one_queue_knows(bool is_finished)
{
    struct world *w = world_new(2);
    world_include(w, 0, "a.log");
    w_append(w, "a.log", LONG(1) "\n");
    world_start(w);
    world_settle(w, 2);
    rotate(w, "a.log.2");
    world_settle(w, 8);
    w_append(w, "a.log", LONG(2) "\n");
    world_run(w);
    assert_true(world_commit(w, 1));
    rotate(w, "a.log.1");
    world_pass(w, is_finished ? 8 : 0);
    assert_int_equal(is_finished, world_commit(w, 1));
    world_stop(w);
    w_gzip(w, "a.log.1");
    world_use_outputs(w, 1);
    world_start(w);
    world_settle(w, 12);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    world_stop(w);
    world_use_outputs(w, 2);
    world_start(w);
    world_settle(w, 12);
    w_append(w, "a.log", LONG(3) "\n");
    world_settle(w, 12);
    expect_lines(w, 0, LONG(1) "|" LONG(2) "|" LONG(3));
    expect_lines(w, 1, LONG(1) "|" LONG(2) "|" LONG(3));
    const struct stat st = w_stat(w, "a.log.1.gz");
    struct tail_file *f = file_by_ino(w->t, &st);
    assert_non_null(f);
    assert_int_equal(f->stage, STAGE_FINISHED);
    world_free(w);
}

static void test_one_queue_knows_it_as_two(void **state)
{
    (void)state;
    test_two_that_one_queue_knows(false);
    test_two_that_one_queue_knows(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_that_cannot_be_ours),
        cmocka_unit_test(test_told_twice),
        cmocka_unit_test(test_reload_to_another_output),
        cmocka_unit_test(test_one_queue_knows_it_as_two),
    };
    return cmocka_run_group_tests_name("tail/recovered", tests, NULL, NULL);
}
