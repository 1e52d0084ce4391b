/*
 * Goal: a log that has two names, both of which are included, is read once: while rotation moves the one on, when the other goes
 * or comes to be another's, and over a restart.
 * Method: world.h; an include names a.log and other.log.
 */
#include <unistd.h>

#include "world.h"

/* One that was rotated before is known, too. */
static struct world *with_two_names(void)
{
    struct world *w = world_new(1);
    world_include(w, 0, "a.log");
    world_include(w, 0, "other.log");
    w_append(w, "a.log", "line of an older file\n");
    world_start(w);
    world_settle(w, 1);
    w_rename(w, "a.log", "a.log.9");
    world_settle(w, 1);
    return w;
}

static void w_link(const struct world *w, const char *from, const char *to)
{
    assert_int_equal(0, link(w_path(w, from), w_path(w, to)));
}

/* The second name goes, and after a restart rotation goes on. */
static void rotate_on(struct world *w)
{
    world_settle(w, 12);
    world_settle(w, 12);
    w_unlink(w, "other.log");
    world_settle(w, 12);
    world_stop(w);
    world_start(w);
    world_settle(w, 12);
    w_rename(w, "a.log.1", "a.log.2");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "line of the third file\n");
    world_settle(w, 12);
    world_settle(w, 12);
    expect_lines(w, 0, "line of an older file|line of the first file|line of the second file|line of the third file");
}

static void test_linked_and_rotated(void **state)
{
    (void)state;
    struct world *w = with_two_names();
    w_append(w, "a.log", "line of the first file\n");
    world_settle(w, 1);
    w_link(w, "a.log", "other.log");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "line of the second file\n");
    world_settle(w, 1);
    rotate_on(w);
    world_free(w);
}

static void test_linked_and_rotated_while_stopped(void **state)
{
    (void)state;
    struct world *w = with_two_names();
    w_append(w, "a.log", "line of the first file\n");
    world_settle(w, 1);
    world_stop(w);
    w_link(w, "a.log", "other.log");
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "line of the second file\n");
    world_start(w);
    world_settle(w, 1);
    rotate_on(w);
    world_free(w);
}

static void test_rotated_one_is_linked(void **state)
{
    (void)state;
    struct world *w = with_two_names();
    w_append(w, "a.log", "line of the first file\n");
    world_settle(w, 1);
    w_rename(w, "a.log", "a.log.5");
    world_settle(w, 1);
    w_link(w, "a.log.5", "other.log");
    w_rename(w, "a.log.5", "a.log.1");
    w_append(w, "a.log", "line of the second file\n");
    world_settle(w, 1);
    rotate_on(w);
    world_free(w);
}

/* It is known by the second name first. */
static void test_begun_by_the_other_name(void **state)
{
    (void)state;
    struct world *w = with_two_names();
    w_append(w, "other.log", "line of the first file\n");
    world_settle(w, 1);
    w_link(w, "other.log", "a.log");
    world_settle(w, 1);
    w_rename(w, "a.log", "a.log.1");
    w_append(w, "a.log", "line of the second file\n");
    world_settle(w, 1);
    rotate_on(w);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linked_and_rotated),
        cmocka_unit_test(test_linked_and_rotated_while_stopped),
        cmocka_unit_test(test_rotated_one_is_linked),
        cmocka_unit_test(test_begun_by_the_other_name),
    };
    return cmocka_run_group_tests_name("tail/links", tests, NULL, NULL);
}
