/*
 * Goal: rotation that dates the middle of the name ("a-20260101.log" of "a.log") is known as such after a restart, too, whether an
 * input includes the rotated names or not.
 * Method: world.h; "down" is between world_stop and world_start.
 */
#include "world.h"

#define LONG(n) "line " #n ", long enough to tell one file from another by what stands in it"

static const char *const INCLUDES[] = { "a.log", "*.log" };

/* Its first file was read, and told of under its rotated name. The live name is free. */
static struct world *begin(const char *include)
{
    struct world *w = world_new(1);
    world_include(w, 0, include);
    w_append(w, "a.log", "");
    world_start(w);
    w_append(w, "a.log", LONG(1) "\n");
    world_settle(w, 2);
    w_rename(w, "a.log", "a-20260101.log");
    world_settle(w, 2);
    return w;
}

static void come_up_and_expect(struct world *w, const char *want)
{
    world_start(w);
    world_settle(w, 12);
    expect_lines(w, 0, want);
    assert_int_equal(w->q[0].lost_bytes, 0);
    world_crash(w);
    world_settle(w, 12);
    expect_lines(w, 0, want);
    world_free(w);
}

static void test_compressed_before_it_was_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(INCLUDES); i++) {
        struct world *w = begin(INCLUDES[i]);
        w_append(w, "a.log", LONG(2) "\n");
        world_settle(w, 1);
        world_stop(w);
        w_append(w, "a-20260101.log", LONG(3) "\n");
        w_gzip(w, "a-20260101.log");
        come_up_and_expect(w, LONG(1) "|" LONG(2) "|" LONG(3));
    }
}

static void test_made_and_compressed_while_down(bool is_first_compressed)
{
    for (size_t i = 0; i < ARRAY_LEN(INCLUDES); i++) {
        struct world *w = begin(INCLUDES[i]);
        if (is_first_compressed) {
            w_gzip(w, "a-20260101.log");
            world_settle(w, 12);
        }
        world_stop(w);
        w_append(w, "a.log", LONG(2) "\n");
        w_rename(w, "a.log", "a-20260102.log");
        w_gzip(w, "a-20260102.log");
        w_append(w, "a.log", LONG(3) "\n");
        come_up_and_expect(w, LONG(1) "|" LONG(2) "|" LONG(3));
    }
}

static void test_next_one_compressed(void **state)
{
    (void)state;
    test_made_and_compressed_while_down(false);
}

static void test_both_compressed(void **state)
{
    (void)state;
    test_made_and_compressed_while_down(true);
}

/* A program may date the name that it writes to: without a live name beside it it is no rotated one. */
static void test_written_to_under_a_date(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    w_append(w, "a-20260101.log", LONG(1) "\n");
    world_start(w);
    world_settle(w, 2);
    world_crash(w);
    world_settle(w, 12);
    struct tail_file *f = file_by_path(w->t, w_path(w, "a-20260101.log"));
    assert_non_null(f);
    assert_int_equal(f->phase, PHASE_LIVE);
    w_append(w, "a-20260101.log", LONG(2) "\n");
    world_settle(w, 2);
    expect_lines(w, 0, LONG(1) "|" LONG(2));
    world_free(w);
}

/* Archives that were there before us: the plain ones are read, for an input includes them, the compressed ones never. */
static void test_archives_of_old(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    world_include(w, 0, "*.log");
    const struct timespec times[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
    w_append(w, "a-20260101.log", LONG(1) "\n");
    assert_int_equal(0, utimensat(AT_FDCWD, w_path(w, "a-20260101.log"), times, 0));
    w_append(w, "a-20260102.log", LONG(2) "\n");
    w_gzip(w, "a-20260102.log");
    world_start(w);
    world_settle(w, 2);
    w_append(w, "a.log", LONG(3) "\n");
    world_settle(w, 2);
    world_crash(w);
    world_settle(w, 12);
    expect_lines(w, 0, LONG(1) "|" LONG(3));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compressed_before_it_was_read),
        cmocka_unit_test(test_next_one_compressed),
        cmocka_unit_test(test_both_compressed),
        cmocka_unit_test(test_written_to_under_a_date),
        cmocka_unit_test(test_archives_of_old),
    };
    return cmocka_run_group_tests_name("tail/dated", tests, NULL, NULL);
}
