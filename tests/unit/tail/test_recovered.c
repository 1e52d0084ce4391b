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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_that_cannot_be_ours),
        cmocka_unit_test(test_told_twice),
        cmocka_unit_test(test_reload_to_another_output),
    };
    return cmocka_run_group_tests_name("tail/recovered", tests, NULL, NULL);
}
