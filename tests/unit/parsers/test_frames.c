/*
 * Goal:   CRI and Docker lines are unwrapped exactly; all else passes as it is.
 * Method: tables; every line also cut at every byte against an unreadable page.
 */
#include "parsers/parser.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/parsers/guard.h"

#define T0_NS (INT64_C(1767323045) * 1000000000)
#define CRI "2026-01-02T03:04:05.678901234Z stdout "
#define TIME "\"time\":\"2026-01-02T03:04:05.678901234Z\""

struct frame_case {
    struct slice line;
    struct slice content;
    enum record_stream stream; /* NONE: not framed */
    bool is_partial;
    int64_t nanos;             /* -1: no time */
};

static const struct frame_case cases[] = {
    { SLICE_INIT(CRI "F {\"a\":1}"), SLICE_INIT("{\"a\":1}"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "P half"), SLICE_INIT("half"), STREAM_STDOUT, true, 678901234 },
    { SLICE_INIT("2026-01-02T03:04:05Z stderr F x"), SLICE_INIT("x"), STREAM_STDERR, false, 0 },
    { SLICE_INIT("2026-01-02T05:04:05.5+02:00 stderr F x"), SLICE_INIT("x"), STREAM_STDERR, false, 500000000 },
    { SLICE_INIT(CRI "F "), SLICE_INIT(""), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "F"), SLICE_INIT(""), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "F  two blanks "), SLICE_INIT(" two blanks "), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "F:x:y tagged"), SLICE_INIT("tagged"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "P:x tagged"), SLICE_INIT("tagged"), STREAM_STDOUT, true, 678901234 },
    { SLICE_INIT(CRI "F cr\r"), SLICE_INIT("cr"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "P cr\r"), SLICE_INIT("cr\r"), STREAM_STDOUT, true, 678901234 },
    { SLICE_INIT(CRI "F \0\xFF"), SLICE_INIT("\0\xFF"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT(CRI "X x"), SLICE_INIT(CRI "X x"), STREAM_NONE, false, -1 },
    { SLICE_INIT(CRI "Fx"), SLICE_INIT(CRI "Fx"), STREAM_NONE, false, -1 },
    { SLICE_INIT("2026-01-02T03:04:05 stdout F x"), SLICE_INIT("2026-01-02T03:04:05 stdout F x"), STREAM_NONE, false, -1 },
    { SLICE_INIT("2026-01-02T03:04:05Z  stdout F x"), SLICE_INIT("2026-01-02T03:04:05Z  stdout F x"), STREAM_NONE, false, -1 },
    { SLICE_INIT("2026-01-02T03:04:05Z stdin F x"), SLICE_INIT("2026-01-02T03:04:05Z stdin F x"), STREAM_NONE, false, -1 },
    { SLICE_INIT(""), SLICE_INIT(""), STREAM_NONE, false, -1 },
    { SLICE_INIT("text\r"), SLICE_INIT("text"), STREAM_NONE, false, -1 },
    { SLICE_INIT("text\r\r"), SLICE_INIT("text\r"), STREAM_NONE, false, -1 },
    { SLICE_INIT("\xEF\xBB\xBF{\"a\":1}"), SLICE_INIT("{\"a\":1}"), STREAM_NONE, false, -1 },

    { SLICE_INIT("{\"log\":\"text\\n\",\"stream\":\"stdout\"," TIME "}"), SLICE_INIT("text"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT("{\"log\":\"text\\r\\n\",\"stream\":\"stderr\"," TIME "}"), SLICE_INIT("text"), STREAM_STDERR, false, 678901234 },
    { SLICE_INIT("{\"log\":\"half\",\"stream\":\"stdout\"," TIME "}"), SLICE_INIT("half"), STREAM_STDOUT, true, 678901234 },
    { SLICE_INIT("{\"log\":\"\",\"stream\":\"stdout\"," TIME "}"), SLICE_INIT(""), STREAM_STDOUT, true, 678901234 },
    { SLICE_INIT("{\"log\":\"\\n\",\"stream\":\"stdout\"," TIME "}"), SLICE_INIT(""), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT("{\"log\":\"{\\\"level\\\":\\\"info\\\",\\\"x\\\":\\\"\\u003cb\\u003e\\\"}\\n\",\"stream\":\"stdout\",\"attrs\":{\"tag\":\"a\",\"b\":\"\\\"}\"}," TIME "}"),
      SLICE_INIT("{\"level\":\"info\",\"x\":\"<b>\"}"), STREAM_STDOUT, false, 678901234 },
    { SLICE_INIT("{ \"time\" : \"2026-01-02T03:04:05Z\" , \"stream\":\"stderr\", \"log\":\"x\\n\" } "), SLICE_INIT("x"), STREAM_STDERR, false, 0 },
    { SLICE_INIT("{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{},\"time\":\"soon\"}"), SLICE_INIT("x"), STREAM_STDOUT, false, -1 },
#define SAME(lit) { SLICE_INIT(lit), SLICE_INIT(lit), STREAM_NONE, false, -1 }
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdout\"}"),
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdin\"," TIME "}"),
    SAME("{\"log\":5,\"stream\":\"stdout\"," TIME "}"),
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdout\"," TIME ",\"level\":\"info\"}"),
    SAME("{\"log\":\"x\\n\",\"log\":\"x\\n\",\"stream\":\"stdout\"," TIME "}"),
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdout\"," TIME "} {}"),
    SAME("{\"log\":\"\\x\\n\",\"stream\":\"stdout\"," TIME "}"),
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":1}," TIME "}"),
    SAME("{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{},\"attrs\":{}," TIME "}"),
    SAME("{\"level\":\"info\"}"),
    SAME("{\"log\":{\"level\":\"info\"}}"),
    SAME("{}"),
};

static struct parser *make_parser(enum frame_format frame)
{
    struct parser *p = NULL;
    assert_int_equal(parser_new(&(struct parser_conf){ .frame = frame, .timezone = SLICE("UTC") }, &p, NULL), 0);
    return p;
}

static void check(struct parser *p, const struct frame_case *c)
{
    struct framed f;
    memset(&f, 0xA5, sizeof(f));
    parser_frame(p, guard_put(c->line), 0, &f);
    bool is_right = slice_eq(f.content, c->content) && f.stream == c->stream && f.is_framed == (c->stream != STREAM_NONE) &&
                    f.is_partial == c->is_partial && f.has_time == (c->nanos >= 0) &&
                    (c->nanos < 0 || f.time_ns == T0_NS + c->nanos);
    if (!is_right)
        fail_msg("'%.*s' -> '%.*s' stream %d partial %d time %lld", SLICE_ARGS(c->line), SLICE_ARGS(f.content), (int)f.stream,
                 f.is_partial, f.has_time ? (long long)f.time_ns : -1LL);
}

static void test_auto(void **state)
{
    (void)state;
    struct parser *p = make_parser(FRAME_AUTO);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check(p, &cases[i]);
    parser_free(p);
}

static void test_one_format_takes_only_its_own(void **state)
{
    (void)state;
    struct slice cri = SLICE(CRI "F x"), docker = SLICE("{\"log\":\"x\\n\",\"stream\":\"stdout\"," TIME "}");
    static const struct { enum frame_format frame; bool cri, docker; } formats[] = {
        { FRAME_AUTO, true, true }, { FRAME_PLAIN, false, false }, { FRAME_CRI, true, false }, { FRAME_DOCKER, false, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct parser *p = make_parser(formats[i].frame);
        struct framed f;
        parser_frame(p, cri, 0, &f);
        assert_int_equal(f.is_framed, formats[i].cri);
        parser_frame(p, docker, 0, &f);
        assert_int_equal(f.is_framed, formats[i].docker);
        parser_free(p);
    }
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    struct parser *p = make_parser(FRAME_AUTO);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t n = 0; n < cases[i].line.len; n++) {
            struct framed f;
            struct slice cut = guard_put(slice_first(cases[i].line, n));
            parser_frame(p, cut, 0, &f);
            assert_true(f.content.len <= cut.len);
            assert_true(f.is_framed || !f.is_partial);
        }
    }
    parser_free(p);
}

static int open_guard(void **state)
{
    (void)state;
    guard_open();
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_one_format_takes_only_its_own),
        cmocka_unit_test(test_cut_at_every_byte),
    };
    return cmocka_run_group_tests_name("parsers/frames", tests, open_guard, close_guard);
}
