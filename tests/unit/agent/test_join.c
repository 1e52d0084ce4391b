/*
 * Goal: pending records keep their place, time and text within bounds; parts and flush times say what is unfinished; a part
 * that is lent is found by those it is for only, and neither side survives the other by accident.
 * Method: direct calls with hand-made passes; what needs the tail is in test_pipeline.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/limits.h"
#include "agent/join.h"

static void test_pending(void **state)
{
    struct pending p = { 0 };
    (void)state;
    buf_init(&p.text, LINE_BYTES_MAX);
    assert_int_equal(pending_add(&p, SLICE("one "), 100, 110), 0);
    assert_int_equal(pending_add(&p, SLICE("two"), 200, 207), 0);
    assert_true(p.is_active);
    assert_int_equal(p.start, 100);
    assert_int_equal(p.end, 207);
    assert_int_equal(p.raw_bytes, 17); /* what lies between is another stream's */
    assert_true(slice_eq(buf_slice(&p.text), SLICE("one two")));
    pending_end(&p);
    assert_false(p.is_active);
    assert_int_equal(p.text.len, 0);
    assert_int_equal(p.raw_bytes, 0);
    buf_deinit(&p.text);
}

static void test_pending_is_bounded(void **state)
{
    struct pending p = { 0 };
    static char piece[256 * KIB];
    (void)state;
    memset(piece, 'x', sizeof(piece));
    buf_init(&p.text, LINE_BYTES_MAX);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(pending_add(&p, slice_of(piece, sizeof(piece)), i * 100, i * 100 + 100), 0);
    assert_false(p.is_cut); /* exactly full */
    assert_int_equal(pending_add(&p, SLICE(""), 400, 401), 0);
    assert_false(p.is_cut);
    assert_int_equal(pending_add(&p, SLICE("y"), 401, 402), 0);
    assert_true(p.is_cut);
    assert_int_equal(p.text.len, LINE_BYTES_MAX);
    assert_int_equal(p.end, 402);
    pending_end(&p);
    assert_true(p.text.cap <= 4 * KIB); /* given back */
    assert_false(p.is_cut);
    buf_deinit(&p.text);
}

static void test_parts_and_flush(void **state)
{
    struct join *list = NULL;
    struct tail_pass pass = { .mask = 3 };
    struct position_part parts[STREAMS_MAX];
    struct join *j = join_new(NULL, &pass, &list);
    (void)state;
    assert_non_null(j);
    assert_true(list == j);
    assert_int_equal(join_parts(NULL, -1, parts), 0);
    assert_int_equal(join_parts(j, -1, parts), 0);
    assert_true(join_is_idle(j));
    assert_true(join_flush_at(NULL) == INT64_MAX && join_flush_at(j) == INT64_MAX);

    assert_int_equal(pending_add(&j->streams[STREAM_STDOUT].group, SLICE("g"), 10, 20), 0);
    assert_int_equal(pending_add(&j->streams[STREAM_STDOUT].part, SLICE("p"), 30, 40), 0);
    assert_int_equal(pending_add(&j->streams[STREAM_STDERR].part, SLICE("q"), 50, 60), 0);
    j->streams[STREAM_STDOUT].flush_at_ns = 77;
    assert_int_equal(join_parts(j, -1, parts), 2);
    assert_int_equal(parts[0].stream, STREAM_STDOUT);
    assert_int_equal(parts[0].start, 10); /* the group is the older one */
    assert_int_equal(parts[1].start, 50);
    assert_int_equal(join_parts(j, STREAM_STDOUT, parts), 1);
    assert_int_equal(parts[0].stream, STREAM_STDERR);
    assert_int_equal(join_flush_at(j), 77);
    assert_false(join_is_idle(j));
    join_free(j);
    assert_null(list);
}

static void test_lending(void **state)
{
    struct join *old_list = NULL, *new_list = NULL;
    struct tail_pass old_pass = { .mask = 3, .off = 100 }, new_pass = { .mask = 3 };
    struct join *lender = join_new(NULL, &old_pass, &old_list), *j = join_new(NULL, &new_pass, &new_list);
    (void)state;
    assert_null(join_find_part(old_list, STREAM_STDOUT, 3));
    struct pending *part = &lender->streams[STREAM_STDOUT].part;
    part->has_time = true;
    part->time_ns = 5;
    assert_int_equal(pending_add(part, SLICE("half"), 90, 100), 0);

    assert_null(join_find_part(old_list, STREAM_STDERR, 3));
    assert_null(join_find_part(old_list, STREAM_STDOUT, 4)); /* another output's */
    old_pass.resume_until = 200;
    assert_null(join_find_part(old_list, STREAM_STDOUT, 1)); /* it is being read again */
    old_pass.resume_until = 0;
    assert_true(join_find_part(old_list, STREAM_STDOUT, 1) == lender);
    assert_int_equal(pending_add(&lender->streams[STREAM_STDOUT].group, SLICE("g"), 80, 90), 0);
    assert_null(join_find_part(old_list, STREAM_STDOUT, 3)); /* a position cannot tell the two apart */
    pending_end(&lender->streams[STREAM_STDOUT].group);

    assert_int_equal(join_borrow(j, lender, STREAM_STDOUT, 0), 0);
    assert_null(join_find_part(old_list, STREAM_STDOUT, 3)); /* once */
    const struct pending *mine = &j->streams[STREAM_STDOUT].part;
    assert_true(slice_eq(buf_slice(&mine->text), SLICE("half")));
    assert_true(mine->has_time && mine->time_ns == 5);
    assert_int_equal(mine->start, 0);
    assert_int_equal(mine->raw_bytes, 10);

    join_free(j); /* its outputs went away: the part is to be had again */
    assert_true(join_find_part(old_list, STREAM_STDOUT, 3) == lender);
    j = join_new(NULL, &new_pass, &new_list);
    assert_int_equal(join_borrow(j, lender, STREAM_STDOUT, 0), 0);
    join_free(lender);
    assert_null(j->streams[STREAM_STDOUT].lender);
    join_settle(j, STREAM_STDOUT); /* nothing left to say */
    join_release(j, 0, true);
    join_free(j);
    join_free(NULL);
    join_release(NULL, 0, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pending), cmocka_unit_test(test_pending_is_bounded),
                                        cmocka_unit_test(test_parts_and_flush), cmocka_unit_test(test_lending) };
    return cmocka_run_group_tests_name("agent/join", tests, NULL, NULL);
}
