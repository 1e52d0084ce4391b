/*
 * Goal: blocks are apart, aligned and writable; a chunk goes with its last block, whichever that is.
 * Method: many blocks in any order of freeing; whether pages are there is asked of the kernel.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "agent/base/pool.h"

#define N 500

static bool is_mapped(void *at)
{
    unsigned char in_core;
    return mincore((void *)((uintptr_t)at & ~(uintptr_t)4095), 1, &in_core) == 0;
}

static void test_blocks(void **state)
{
    struct pool p = POOL_INIT(ACCOUNT_OF(MEMORY_FILES));
    unsigned char *blocks[N];
    size_t sizes[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        sizes[i] = i % 50 == 7 ? POOL_BLOCK_MAX + 1 + i : 1 + i * 37 % 700;
        blocks[i] = pool_alloc(&p, sizes[i]);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 8, 0);
        memset(blocks[i], (int)i & 0xff, sizes[i]);
    }
    for (size_t k = 0; k < N; k++) {
        size_t i = k * 271 % N; /* each once */
        for (size_t b = 0; b < sizes[i]; b++)
            assert_int_equal(blocks[i][b], i & 0xff);
        pool_free(&p, blocks[i]);
    }
    assert_null(p.open);
    pool_free(&p, NULL);
    assert_int_equal(budget_total(), 0);
}

static void test_chunk_goes_with_its_last_block(void **state)
{
    struct pool p = POOL_INIT(ACCOUNT_OF(MEMORY_FILES));
    (void)state;
    if (HAS_ASAN)
        skip(); /* there are no chunks then */
    void *one = pool_alloc(&p, 100), *two = pool_alloc(&p, 100), *others[40];
    for (size_t i = 0; i < 40; i++) /* in other chunks, most of them */
        others[i] = pool_alloc(&p, POOL_BLOCK_MAX);
    pool_free(&p, two);
    for (size_t i = 0; i < 40; i++)
        pool_free(&p, others[i]);
    assert_true(is_mapped(one));
    pool_free(&p, one);
    assert_false(is_mapped(one));
    void *again = pool_alloc(&p, 100);
    assert_non_null(again);
    pool_free(&p, again);
    assert_null(p.open);
}

/* Its blocks are watched only when they are the heap's, whichever compiler it came with. */
static void test_sanitizer_has_no_chunks(void **state)
{
    struct pool p = POOL_INIT(ACCOUNT_OF(MEMORY_FILES));
    (void)state;
    void *one = pool_alloc(&p, 100);
    assert_non_null(one);
    assert_int_equal(HAS_ASAN, p.open == NULL);
    pool_free(&p, one);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_blocks), cmocka_unit_test(test_chunk_goes_with_its_last_block),
                                        cmocka_unit_test(test_sanitizer_has_no_chunks) };
    return cmocka_run_group_tests_name("base/pool", tests, NULL, NULL);
}
