/*
 * Goal: equal texts are one, others are not; a text is there until the last of its users has dropped it, and then its memory
 * is given back; also when threads ask for the same ones at once.
 * Method: many texts in any order; what is accounted tells what is kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/budget.h"
#include "agent/base/shared.h"

#define N 1000

static const char *numbered(int i)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "/var/log/pods/shop_web-%d/web/%d.log", i / 7, i);
    return shared_text(slice_of(text, (size_t)n));
}

static void test_one_of_each(void **state)
{
    const char *first[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        first[i] = numbered(i);
        assert_non_null(first[i]);
    }
    const size_t once = budget_of(ACCOUNT_OF(MEMORY_FILES));
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(first[i], numbered(i));
        assert_true(i == 0 || strcmp(first[i], first[i - 1]) != 0);
    }
    assert_int_equal(once, budget_of(ACCOUNT_OF(MEMORY_FILES)));
    for (int i = 0; i < N; i++)
        shared_drop(first[i]);
    assert_int_equal(once, budget_of(ACCOUNT_OF(MEMORY_FILES))); /* each has one user left */
    for (int k = 0; k < N; k++) {
        const int i = k * 271 % N;
        char want[64];
        (void)snprintf(want, sizeof(want), "/var/log/pods/shop_web-%d/web/%d.log", i / 7, i);
        assert_string_equal(want, first[i]);
        shared_drop(first[i]);
    }
    assert_int_equal(0, budget_of(ACCOUNT_OF(MEMORY_FILES)));
}

static void test_odd_texts(void **state)
{
    (void)state;
    const char *empty = shared_text(SLICE("")), *nul = shared_text(slice_of("a\0b", 3)), *a = shared_text(SLICE("a"));
    assert_string_equal("", empty);
    assert_memory_equal("a\0b", nul, 4);
    assert_string_equal("a", a);
    assert_ptr_not_equal(a, nul);
    shared_drop(empty);
    shared_drop(nul);
    shared_drop(a);
    shared_drop(NULL);
    assert_int_equal(0, budget_of(ACCOUNT_OF(MEMORY_FILES)));
}

static void *take_and_drop(void *unused)
{
    (void)unused;
    for (int round = 0; round < 200; round++) {
        const char *kept[20];
        for (int i = 0; i < 20; i++)
            kept[i] = numbered(i);
        for (int i = 0; i < 20; i++)
            shared_drop(kept[i]);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t thread[3];
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(0, pthread_create(&thread[i], NULL, take_and_drop, NULL));
    for (int i = 0; i < 3; i++)
        assert_int_equal(0, pthread_join(thread[i], NULL));
    assert_int_equal(0, budget_of(ACCOUNT_OF(MEMORY_FILES)));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_one_of_each), cmocka_unit_test(test_odd_texts),
                                        cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests_name("base/shared", tests, NULL, NULL);
}
