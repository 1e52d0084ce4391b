/*
 * Goal: events come with their names, and a lack of watches is an error code, not a failure.
 * Method: a real directory; a hash table under the same roof, with colliding hashes.
 */
#include "world.h"

static unsigned n_events;
static char last_name[NAME_MAX + 1];

static void on_event(void *ctx, const struct watch_event *ev)
{
    (void)ctx;
    n_events++;
    (void)snprintf(last_name, sizeof(last_name), "%.*s", SLICE_ARGS(ev->name));
}

static void test_events(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    struct watch watch;
    assert_int_equal(0, watch_init(&watch));
    assert_true(watch_add(&watch, w->dir, true) >= 0);
    assert_int_equal(-ENOENT, watch_add(&watch, w_path(w, "nowhere"), true));
    w_append(w, "file", "x");
    assert_int_equal(-ENOTDIR, watch_add(&watch, w_path(w, "file"), true));
    assert_false(watch_read(&watch, on_event, NULL));
    assert_true(n_events >= 2);
    assert_string_equal("file", last_name);
    n_events = 0;
    assert_false(watch_read(&watch, on_event, NULL));
    assert_int_equal(0, n_events);
    watch.is_working = false;
    assert_int_equal(-ENOSPC, watch_add(&watch, w->dir, true));
    assert_false(watch_read(&watch, on_event, NULL));
    watch_deinit(&watch);
    world_free(w);
}

static void test_table(void **state)
{
    (void)state;
    static struct link links[1000];
    struct table t;
    assert_int_equal(0, table_init(&t));
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        table_add(&t, &links[i], i % 100); /* ten of each, and it grows */
    assert_int_equal(1000, t.n);
    for (uint64_t h = 0; h < 100; h++) {
        size_t n = 0;
        for (struct link *l = table_first(&t, h); l != NULL; l = table_next(l), n++)
            assert_int_equal(h, l->hash);
        assert_int_equal(10, n);
    }
    assert_null(table_first(&t, 100));
    for (size_t i = 0; i < ARRAY_LEN(links); i += 2) {
        table_del(&t, &links[i]);
        table_del(&t, &links[i]); /* out already */
    }
    assert_int_equal(500, t.n);
    assert_null(table_first(&t, 2));
    assert_non_null(table_first(&t, 3));
    table_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_events), cmocka_unit_test(test_table) };
    return cmocka_run_group_tests_name("tail/watch", tests, NULL, NULL);
}
