/*
 * Goal: a queue with frames and no attempt is told after three seconds, again each three, and its end once; what explains
 * the wait, or moves, is nothing.
 * Method: the clock is an argument.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/stall.h"

#define S NS_PER_SEC

static void test_stall(void **state)
{
    struct stall s = { 0 };
    struct stall_facts f = { .durable = 5, .acked = 5, .attempts = 7 };
    (void)state;
    assert_int_equal(stall_look(&s, &f, 100 * S), STALL_NOTHING);
    assert_int_equal(stall_look(&s, &f, 200 * S), STALL_NOTHING); /* nothing waits, however long */
    f.durable = 6;
    assert_int_equal(stall_look(&s, &f, 201 * S), STALL_NOTHING);
    assert_int_equal(stall_look(&s, &f, 204 * S - 1), STALL_NOTHING);
    assert_int_equal(stall_look(&s, &f, 204 * S), STALL_BEGINS);
    assert_int_equal(stall_look(&s, &f, 205 * S), STALL_NOTHING);
    assert_int_equal(stall_look(&s, &f, 207 * S), STALL_GOES_ON);
    f.attempts++;
    assert_int_equal(stall_look(&s, &f, 208 * S), STALL_ENDS);
    assert_int_equal(stall_look(&s, &f, 210 * S), STALL_NOTHING);
    assert_int_equal(stall_look(&s, &f, 211 * S), STALL_BEGINS); /* that attempt came to nothing, and there was no other */
    f.acked = 6;
    assert_int_equal(stall_look(&s, &f, 212 * S), STALL_ENDS);
    assert_int_equal(stall_look(&s, &f, 220 * S), STALL_NOTHING);
}

static void test_explained(void **state)
{
    struct stall s = { 0 };
    struct stall_facts f = { .durable = 5, .acked = 1, .waits = WAITS_SERVER };
    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(stall_look(&s, &f, (100 + i) * S), STALL_NOTHING);
    f.waits = WAITS_NOTHING;
    assert_int_equal(stall_look(&s, &f, 300 * S), STALL_NOTHING); /* from now on */
    assert_int_equal(stall_look(&s, &f, 303 * S), STALL_BEGINS);
    f.waits = WAITS_REPLY;
    assert_int_equal(stall_look(&s, &f, 304 * S), STALL_ENDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_stall), cmocka_unit_test(test_explained) };
    return cmocka_run_group_tests_name("agent/stall", tests, NULL, NULL);
}
