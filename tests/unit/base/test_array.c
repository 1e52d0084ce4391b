/*
 * Goal: there is room for one more, always, what was there stays, and what cannot be had leaves all as it was.
 * Method: items of odd sizes one by one; sizes whose product does not fit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "agent/base/array.h"

struct odd {
    uint32_t n;
    char more[9];
};

static void test_one_by_one(void **state)
{
    struct odd *items = NULL;
    size_t n = 0, cap = 0;
    (void)state;
    for (uint32_t i = 0; i < 5000; i++) {
        struct odd *more = array_room(items, n, &cap, sizeof(*more));
        assert_non_null(more);
        assert_true(n < cap && cap < ARRAY_FIRST + 2 * (n + 1));
        items = more;
        items[n++] = (struct odd){ .n = i, .more = "12345678" };
    }
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(items[i].n, i);
        assert_string_equal(items[i].more, "12345678");
    }
    free(items);
}

static void test_too_much(void **state)
{
    char one;
    size_t cap = 0;
    (void)state;
    assert_null(array_room(NULL, 0, &cap, SIZE_MAX / 2));
    assert_int_equal(cap, 0);
    cap = SIZE_MAX / 2 + 1;
    assert_null(array_room(&one, cap, &cap, 1));
    assert_int_equal(cap, SIZE_MAX / 2 + 1);
    assert_ptr_equal(array_room(&one, cap - 1, &cap, 1), &one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_by_one),
        cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests_name("base/array", tests, NULL, NULL);
}
