/*
 * Goal: rows add up for the agent once and for each output as of its place; what is collected is what changed; a restart
 * and a failed sync put exact values back.
 * Method: direct calls; names as the queue gives them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "agent/base/tenants.h"
#include "agent/tally.h"

static struct conf_input inputs[2];
static struct output_conf outputs[3];
static struct conf conf = { .inputs = inputs, .n_inputs = 2, .outputs = outputs, .n_outputs = 3 };

static int set_up(void **state)
{
    (void)state;
    inputs[0].name = SLICE("a");
    inputs[1].name = SLICE("b");
    stats_forget_rows();
    return 0;
}

static void test_count_and_collect(void **state)
{
    struct tallies *ts = tallies_new(&conf);
    uint32_t x = tenant_intern(SLICE("x"));
    struct tally *t = tallies_get(ts, 1, x);
    const struct ledger_row *rows;
    size_t n;
    (void)state;
    assert_true(tallies_get(ts, 1, x) == t);
    tally_count(t, 3, true, 10, TALLY_KEPT);
    tally_count(t, 1, true, 20, FILTER_LEVEL);
    tally_count(t, 2, false, 20, FILTER_LEVEL); /* again, for another output */
    tally_count(t, 0, true, 5, FILTER_UNROUTED);
    const struct input_row *row = stats_input_row(1, x);
    assert_int_equal(counter_get(&row->read_lines), 3);
    assert_int_equal(counter_get(&row->read_bytes), 35);
    assert_int_equal(counter_get(&row->kept_lines), 1);
    assert_int_equal(counter_get(&row->filtered[FILTER_LEVEL]), 1);
    assert_int_equal(counter_get(&row->filtered[FILTER_UNROUTED]), 1);
    for (uint32_t o = 0; o < 2; o++) {
        assert_int_equal(tallies_collect(ts, o, &rows, &n), 0);
        assert_int_equal(n, 1);
        assert_true(slice_eq(rows[0].input, SLICE("b")) && slice_eq(rows[0].tenant, SLICE("x")));
        assert_int_equal(rows[0].read_lines, 2);
        assert_int_equal(rows[0].read_bytes, 30);
        assert_int_equal(rows[0].kept_lines, 1);
        assert_int_equal(rows[0].filtered[FILTER_LEVEL], 1);
        assert_int_equal(tallies_collect(ts, o, &rows, &n), 0);
        assert_int_equal(n, 0);
    }
    assert_int_equal(tallies_collect(ts, 2, &rows, &n), 0);
    assert_int_equal(n, 0);
    tallies_free(ts);
    tallies_free(NULL);
}

static void test_restore_and_fence(void **state)
{
    struct tallies *ts = tallies_new(&conf);
    const struct ledger_row saved[] = {
        { .input = SLICE_INIT("a"), .tenant = SLICE_INIT("x"), .read_lines = 100, .read_bytes = 1000, .kept_lines = 60,
          .filtered = { [FILTER_RULE] = 40 } },
        { .input = SLICE_INIT("gone"), .tenant = SLICE_INIT("x"), .read_lines = 5 }, /* configured no more */
    };
    const struct ledger_row *rows;
    size_t n;
    uint32_t x = tenant_intern(SLICE("x")), y = tenant_intern(SLICE("y"));
    (void)state;
    assert_int_equal(tallies_restore(ts, 0, saved, 2, false), 0);
    assert_int_equal(counter_get(&stats_input_row(0, x)->read_lines), 0);
    assert_int_equal(tallies_restore(ts, 1, saved, 2, true), 0);
    assert_int_equal(counter_get(&stats_input_row(0, x)->read_lines), 100);
    assert_int_equal(counter_get(&stats_input_row(0, x)->filtered[FILTER_RULE]), 40);

    tally_count(tallies_get(ts, 0, x), 3, true, 1, TALLY_KEPT);
    tally_count(tallies_get(ts, 0, y), 3, true, 1, TALLY_KEPT); /* the queue has not heard of this row */
    assert_int_equal(tallies_fence(ts, 0, saved, 2), 0);
    assert_int_equal(tallies_collect(ts, 0, &rows, &n), 0);
    assert_int_equal(n, 0);
    tally_count(tallies_get(ts, 0, x), 1, false, 1, TALLY_KEPT); /* read again */
    tally_count(tallies_get(ts, 0, y), 1, false, 1, TALLY_KEPT);
    assert_int_equal(tallies_collect(ts, 0, &rows, &n), 0);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(rows[i].read_lines, slice_eq(rows[i].tenant, SLICE("x")) ? 101 : 1);
    assert_int_equal(tallies_collect(ts, 1, &rows, &n), 0); /* the other output's are as they were */
    assert_int_equal(n, 2);
    assert_int_equal(counter_get(&stats_input_row(0, x)->read_lines), 101); /* once */
    assert_int_equal(counter_get(&stats_input_row(0, y)->read_lines), 1);
    tallies_free(ts);
}

static void test_many_rows(void **state)
{
    struct tallies *ts = tallies_new(&conf);
    const struct ledger_row *rows;
    size_t n;
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        char name[16];
        struct slice s = slice_of(name, (size_t)snprintf(name, sizeof(name), "t%u", i));
        tally_count(tallies_get(ts, i % 2, tenant_intern(s)), 4, true, 1, TALLY_KEPT);
    }
    assert_int_equal(tallies_collect(ts, 2, &rows, &n), 0);
    assert_int_equal(n, 2000);
    tallies_free(ts);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup(test_count_and_collect, set_up),
                                        cmocka_unit_test_setup(test_restore_and_fence, set_up),
                                        cmocka_unit_test_setup(test_many_rows, set_up) };
    return cmocka_run_group_tests_name("agent/tally", tests, NULL, NULL);
}
