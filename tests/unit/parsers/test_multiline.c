/*
 * Goal:   tracebacks, panics, stack traces and indented lines join; nothing else does, and a JSON line never.
 * Method: scripts of lines, each with the group it has to fall into.
 */
#include "parsers/multiline.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/parsers/guard.h"

/* '+' before a line that continues, '=' before one that starts a group. */
static const struct { const char *name; const char *lines[16]; } scripts[] = {
    { "python between JSON lines",
      { "={\"level\":\"info\"}", "=Traceback (most recent call last):", "+  File \"/app/x.py\", line 3, in f", "+    g()",
        "+ValueError: bad", "={\"level\":\"info\"}" } },
    { "python, bare exception, then text",
      { "=Traceback (most recent call last):", "+  File \"x\", line 3", "+KeyboardInterrupt", "=started again", "=KeyError: x" } },
    { "python chained",
      { "=Traceback (most recent call last):", "+  File \"x\"", "+KeyError: 'a'", "+",
        "+During handling of the above exception, another exception occurred:", "+", "+Traceback (most recent call last):",
        "+  File \"y\"", "+app.errors.Fatal: no", "=next" } },
    { "python cut short by a log line", { "=Traceback (most recent call last):", "+  File \"x\"", "=2026-01-02 03:04:05 INFO x" } },
    { "python, no chain after the blank", { "=Traceback (most recent call last):", "+  f", "+E: x", "+", "=hello" } },
    { "go panic",
      { "=panic: runtime error: index out of range [5] with length 3", "+", "+goroutine 1 [running]:",
        "+main.(*T).run(0xc000012345, {0x1, 0x2})", "+\t/app/main.go:12 +0x1d", "+main.main()", "+\t/app/main.go:5",
        "+created by main.start in goroutine 7", "+exit status 2", "=started", "={\"a\":1}" } },
    { "go signal",
      { "=fatal error: unexpected signal during runtime execution", "+[signal SIGSEGV: segmentation violation]", "+",
        "+runtime stack:", "+runtime.throw({0x1, 0x2})", "+rax    0x0", "=listening on (all) ports" } },
    { "rust panic, message on its own line",
      { "={\"level\":\"info\"}", "=thread 'main' panicked at src/main.rs:2:5:", "+no such file", "+stack backtrace:",
        "+   0: std::panicking::begin_panic", "+             at /rustc/x", "+note: run with `RUST_BACKTRACE=1`",
        "={\"level\":\"info\"}" } },
    { "rust panic, thread id, assertion",
      { "=thread 'w-1' (812) panicked at src/a.rs:1:1:", "+assertion `left == right` failed", "+  left: 1", "+ right: 2", "=ok" } },
    { "rust panic, old form", { "=thread 'main' panicked at 'oops', src/main.rs:2:5", "+note: run with x", "=ok" } },
    { "rust panic, then JSON at once", { "=thread 'main' panicked at src/main.rs:2:5:", "={\"a\":1}", "=x" } },
    { "java",
      { "=Exception in thread \"main\" java.lang.RuntimeException: x", "+\tat c.x.A.f(A.java:3)", "+Caused by: java.io.IOException",
        "+\tat c.x.B.g(B.java:4)", "+\t... 12 more", "=2026-01-02 INFO next" } },
    { "node", { "=Error: no", "+    at f (/app/x.js:1:2) {", "+  code: 'E'", "+}", "=next" } },
    { "php", { "=PHP Fatal error:  Uncaught Exception: x", "+Stack trace:", "+#0 {main}", "+  thrown in /x.php", "=next" } },
    { "indented lines", { "=2026-01-02 INFO config:", "+  a: 1", "+\tb: 2", "=done", "=" , "=x" } },
    { "pretty-printed JSON", { "={", "+  \"level\" : \"info\",", "+  \"x\" : {", "+  },", "+  \"y\" : [", "+    {\"z\":1}", "+  ]", "+}", "=x" } },
    { "a JSON line is never continued", { "={\"a\":1}", "=  indented", "+  again", "={\"a\":1}", "=}" } },
};

static void run(const struct multiline *m, const char *name, const char *const *lines, bool zero_it)
{
    struct multiline_state state = { 0 };
    for (size_t i = 0; i < 16 && lines[i] != NULL; i++) {
        struct slice line = guard_put(slice_cstr(lines[i] + 1));
        bool is_part = multiline_continues(m, &state, line);
        if (is_part != (lines[i][0] == '+'))
            fail_msg("%s: line %zu '%s'", name, i, lines[i] + 1);
        if (is_part || !zero_it)
            continue;
        state = (struct multiline_state){ 0 }; /* as a caller may do at the start of a group */
        assert_false(multiline_continues(m, &state, line));
    }
}

static void test_auto(void **state)
{
    (void)state;
    struct multiline *m = NULL;
    assert_int_equal(multiline_new(true, SLICE(""), &m, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        run(m, scripts[i].name, scripts[i].lines, false);
        run(m, scripts[i].name, scripts[i].lines, true);
    }
    multiline_free(m);
}

static void test_start_pattern(void **state)
{
    (void)state;
    static const char *const lines[] = { "=2026-01-02 a", "+b", "+", "+  c", "=2026-01-03 d", "={\"a\":1}", "=e", "+f", "={\"a\":1}", NULL };
    struct multiline *m = NULL;
    assert_int_equal(multiline_new(false, SLICE("^[0-9]{4}-"), &m, NULL), 0);
    run(m, "pattern", lines, false);
    run(m, "pattern", lines, true);
    multiline_free(m);

    struct err err = { 0 };
    m = NULL;
    assert_int_equal(multiline_new(false, SLICE("a(b"), &m, &err), -EINVAL);
    assert_int_equal(multiline_new(false, SLICE("a\0b"), &m, &err), -EINVAL);
    assert_null(m);
    multiline_free(NULL);
}

static void test_at_most_500_lines(void **state)
{
    (void)state;
    struct multiline *m = NULL;
    assert_int_equal(multiline_new(true, SLICE(""), &m, NULL), 0);
    struct multiline_state s = { 0 };
    for (unsigned i = 0; i < 3 * MULTILINE_LINES_MAX; i++)
        assert_int_equal(multiline_continues(m, &s, SLICE("  x")), i % MULTILINE_LINES_MAX != 0);
    multiline_free(m);
}

static void test_single(void **state)
{
    (void)state;
    struct multiline *m = NULL;
    assert_int_equal(multiline_new(true, SLICE(""), &m, NULL), 0);
    assert_true(multiline_is_single(m, SLICE("{\"a\":1}")));
    assert_true(multiline_is_single(m, SLICE(" {} ")));
    assert_false(multiline_is_single(m, SLICE("{")));
    assert_false(multiline_is_single(m, SLICE("text")));
    assert_false(multiline_is_single(m, SLICE("")));
    multiline_free(m);
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
        cmocka_unit_test(test_start_pattern),
        cmocka_unit_test(test_at_most_500_lines),
        cmocka_unit_test(test_single),
    };
    return cmocka_run_group_tests_name("parsers/multiline", tests, open_guard, close_guard);
}
