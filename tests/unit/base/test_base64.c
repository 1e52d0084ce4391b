/*
 * Goal: both ways give RFC 4648's text and the bytes back; blanks are passed over, other bytes refused, bounds kept.
 * Method: the RFC's cases, and every byte value at every place of a group.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "agent/base/base64.h"

static void test_both_ways(void **state)
{
    static const struct {
        struct slice bytes, text;
    } cases[] = {
        { SLICE_INIT(""), SLICE_INIT("") },         { SLICE_INIT("f"), SLICE_INIT("Zg==") },
        { SLICE_INIT("fo"), SLICE_INIT("Zm8=") },   { SLICE_INIT("foo"), SLICE_INIT("Zm9v") },
        { SLICE_INIT("foobar"), SLICE_INIT("Zm9vYmFy") }, { SLICE_INIT("\xff\xfe\x00"), SLICE_INIT("//4A") },
        { SLICE_INIT("\xfb\xff"), SLICE_INIT("+/8=") },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text, bytes;
        buf_init(&text, 64);
        buf_init(&bytes, 64);
        assert_int_equal(base64_encode(cases[i].bytes, &text), 0);
        assert_true(slice_eq(buf_slice(&text), cases[i].text));
        assert_int_equal(base64_decode(cases[i].text, &bytes), 0);
        assert_true(slice_eq(buf_slice(&bytes), cases[i].bytes));
        buf_deinit(&text);
        buf_deinit(&bytes);
    }
}

static void test_every_byte_everywhere(void **state)
{
    struct buf text, bytes;
    uint8_t in[5] = { 0 };
    (void)state;
    buf_init(&text, 64);
    buf_init(&bytes, 64);
    for (size_t at = 0; at < sizeof(in); at++)
        for (unsigned v = 0; v < 256; v++) {
            in[at] = (uint8_t)v;
            buf_reset(&text);
            buf_reset(&bytes);
            assert_int_equal(base64_encode(slice_of(in, sizeof(in)), &text), 0);
            assert_int_equal(base64_decode(buf_slice(&text), &bytes), 0);
            assert_true(slice_eq(buf_slice(&bytes), slice_of(in, sizeof(in))));
        }
    buf_deinit(&text);
    buf_deinit(&bytes);
}

static void test_what_is_passed_over_or_refused(void **state)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \t\n\v\f\r";
    struct buf b;
    (void)state;
    buf_init(&b, 64);
    assert_int_equal(base64_decode(SLICE("Zm9v\r\n YmFy\n=\t"), &b), 0);
    assert_true(slice_eq(buf_slice(&b), SLICE("foobar")));
    for (unsigned v = 0; v < 256; v++) {
        const char text[] = { 'Z', (char)v, 'm' };
        const bool is_fine = slice_find_byte(SLICE(alphabet), (char)v) >= 0;
        buf_reset(&b);
        assert_int_equal(base64_decode(slice_of(text, sizeof(text)), &b), is_fine ? 0 : -EBADMSG);
    }
    buf_deinit(&b);
    buf_init(&b, 5);
    assert_int_equal(base64_decode(SLICE("Zm9vYmFy"), &b), -ENOBUFS);
    assert_int_equal(base64_encode(SLICE("foobar"), &b), -ENOBUFS);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_every_byte_everywhere),
        cmocka_unit_test(test_what_is_passed_over_or_refused),
    };
    return cmocka_run_group_tests_name("base/base64", tests, NULL, NULL);
}
