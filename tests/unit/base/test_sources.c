/*
 * Goal: which records a frame holds is written in a few bytes and read back exactly; any bytes may be read.
 * Method: a table of spans through the codec, each cut at every byte; bodies that count lines of several files and streams.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include "agent/base/sources.h"
#include "outputs/output.h"

static const struct source_span spans[] = {
    { 1, 0, 0, 0 },
    { UINT64_MAX, 5, 127, 1 },
    { 7, 128, 1 << 20, 2 },
    { 9, UINT64_C(1) << 60, (UINT64_C(1) << 60) + 1, 1 },
};

static void there_and_back(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, KIB);
    for (size_t i = 0; i < ARRAY_LEN(spans); i++)
        assert_int_equal(sources_put(&b, &spans[i]), 0);
    struct slice rest = buf_slice(&b);
    struct source_span s;
    for (size_t i = 0; i < ARRAY_LEN(spans); i++) {
        assert_true(sources_next(&rest, &s));
        assert_memory_equal(&s.incarnation, &spans[i].incarnation, 8);
        assert_int_equal(s.first, spans[i].first);
        assert_int_equal(s.last, spans[i].last);
        assert_int_equal(s.stream, spans[i].stream);
        assert_true(sources_have(buf_slice(&b), s.incarnation, s.stream, s.last));
        assert_false(sources_have(buf_slice(&b), s.incarnation, s.stream, s.last + 1));
        assert_false(sources_have(buf_slice(&b), s.incarnation, s.stream + 1, s.first));
    }
    assert_false(sources_next(&rest, &s));
    for (size_t cut = 0; cut < b.len; cut++) {
        unsigned n = 0;
        for (rest = slice_first(buf_slice(&b), cut); sources_next(&rest, &s); n++)
            ;
        assert_true(n < ARRAY_LEN(spans));
    }
    assert_false(sources_next(&(struct slice){ "12345678\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 20 }, &s));
    assert_false(sources_next(&(struct slice){ "12345678\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff", 18 }, &s));
    buf_deinit(&b);
}

static void add(struct body *b, uint64_t incarnation, enum record_stream stream, uint64_t offset)
{
    static const struct origin origin = { .id = 1 };
    struct record rec = { .origin = &origin, .incarnation = incarnation, .stream = stream, .offset = offset, .read_ns = 1 };
    assert_int_equal(body_count(b, &rec), 0);
}

static struct body *first_of(struct bodies *bs)
{
    struct body *b = bodies_get(bs, SLICE("r"));
    assert_non_null(b);
    return b;
}

static void a_body_says_what_it_holds(void **state)
{
    (void)state;
    struct bodies bs;
    assert_int_equal(bodies_init(&bs, KIB), 0);
    struct body *b = first_of(&bs);
    for (uint64_t i = 0; i < 100; i++)
        add(b, 5, i % 2 == 0 ? STREAM_STDOUT : STREAM_STDERR, 10 * i);
    add(b, 6, STREAM_NONE, 3);
    add(b, 5, STREAM_STDOUT, 5000);
    add(b, 5, STREAM_STDOUT, 4000); /* read anew: no order to rely on */
    struct slice s = body_end_sources(b);
    assert_true(s.len < 100);
    assert_true(sources_have(s, 5, STREAM_STDOUT, 20));
    assert_true(sources_have(s, 5, STREAM_STDERR, 990));
    assert_false(sources_have(s, 5, STREAM_STDERR, 5000));
    assert_true(sources_have(s, 5, STREAM_STDOUT, 5000));
    assert_true(sources_have(s, 5, STREAM_STDOUT, 4000));
    assert_false(sources_have(s, 5, STREAM_STDOUT, 4500));
    assert_true(sources_have(s, 6, STREAM_NONE, 3));
    assert_int_equal(body_end_sources(b).len, s.len); /* asked twice, when a write has to be repeated */
    bodies_deinit(&bs);
}

static void too_many_are_not_known(void **state)
{
    (void)state;
    struct bodies bs;
    assert_int_equal(bodies_init(&bs, KIB), 0);
    struct body *b = first_of(&bs);
    for (uint64_t i = 1; i <= 1024; i++)
        add(b, i, STREAM_NONE, i);
    assert_true(sources_have(body_end_sources(b), 1024, STREAM_NONE, 1024));
    add(b, 2000, STREAM_NONE, 1);
    assert_int_equal(body_end_sources(b).len, 0);
    bodies_deinit(&bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(a_body_says_what_it_holds),
        cmocka_unit_test(too_many_are_not_known),
    };
    return cmocka_run_group_tests_name("base/sources", tests, NULL, NULL);
}
