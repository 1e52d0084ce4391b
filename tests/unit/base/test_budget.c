/*
 * Goal: what is taken is given back to the same account, wherever a buffer is moved to; the shares are what the limit
 * leaves beside the base and the tables, and never less than the minimum.
 * Method: direct calls; accounts are read before and after.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/buf.h"

#define FILES ACCOUNT_OF(MEMORY_FILES)
#define BATCHES ACCOUNT_BATCHES(3)

static void test_buffers(void **state)
{
    struct buf b;
    (void)state;
    buf_init_in(&b, MIB, BATCHES);
    assert_int_equal(budget_of(BATCHES), 0);
    for (size_t n = 0; n < 200 * KIB; n += 100) {
        assert_int_equal(buf_append_fill(&b, 'x', 100), 0);
        assert_int_equal(budget_of(BATCHES), b.cap);
        assert_true(b.cap < MAX(b.len * 2, (size_t)64 * KIB)); /* large ones are not half empty */
    }
    assert_int_equal(budget_used(MEMORY_BATCHES), b.cap);
    struct buf moved = b;
    buf_init(&b, 0);
    buf_shrink(&moved, moved.len);
    assert_int_equal(budget_of(BATCHES), moved.len);
    buf_reset(&moved);
    buf_shrink(&moved, 0);
    assert_int_equal(budget_of(BATCHES), 0);
    assert_int_equal(buf_append_fill(&moved, 'x', MIB), 0);
    assert_int_equal(buf_append_byte(&moved, 'x'), -ENOBUFS);
    buf_deinit(&moved);
    assert_int_equal(moved.account, BATCHES);
    assert_int_equal(budget_of(BATCHES), 0);
}

static void test_blocks(void **state)
{
    void *p = malloc(1000);
    (void)state;
    budget_took(FILES, p);
    budget_took(FILES, NULL);
    assert_in_range(budget_of(FILES), 1000, 1100);
    assert_int_equal(budget_used(MEMORY_FILES), budget_of(FILES));
    budget_gives(FILES, p);
    budget_gives(FILES, NULL);
    assert_int_equal(budget_of(FILES), 0);
    budget_took(0, p); /* no account */
    assert_int_equal(budget_total(), 0);
    free(p);
}

static void test_shares(void **state)
{
    (void)state;
    budget_configure(0, 2); /* no limit */
    assert_int_equal(budget_batches_share(), BATCHES_ALL_MAX / 2);
    assert_int_equal(budget_sending_share(), SENDING_ALL_MAX / 2);
    assert_false(budget_is_exceeded());
    budget_configure(32 * MIB, 2);
    assert_int_equal(budget_limit(), 32 * MIB);
    assert_int_equal(budget_batches_share(), BATCHES_ALL_MAX / 2);
    budget_add(FILES, 12 * MIB);
    assert_int_equal(budget_batches_share(), (20 * MIB - MEMORY_BASE_BYTES) / 4);
    assert_int_equal(budget_sending_share(), (20 * MIB - MEMORY_BASE_BYTES) / 4);
    budget_add(BATCHES, 5 * MIB); /* the flow itself takes nothing from the flow */
    assert_int_equal(budget_batches_share(), (20 * MIB - MEMORY_BASE_BYTES) / 4);
    assert_int_equal(budget_total(), 17 * MIB);
    budget_add(FILES, 100 * MIB);
    assert_true(budget_is_exceeded());
    assert_int_equal(budget_batches_share(), FLOW_MIN_BYTES / 2);
    budget_add(FILES, -(int64_t)(112 * MIB));
    budget_add(BATCHES, -(int64_t)(5 * MIB));
    assert_false(budget_is_exceeded());
    assert_int_equal(budget_total(), 0);
    budget_configure(0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_buffers), cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_shares) };
    return cmocka_run_group_tests_name("base/budget", tests, NULL, NULL);
}
