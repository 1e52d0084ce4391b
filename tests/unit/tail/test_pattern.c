/*
 * Goal: globs match what a person expects, capture by name, and refuse what they do not understand.
 * Method: tables of pattern, path, captures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/tail/pattern.h"

static const struct {
    const char *glob, *path;
    bool matches;
    const char *caps;
} cases[] = {
    { "/var/log/*.log", "/var/log/a.log", true, "" },
    { "/var/log/*.log", "/var/log/.log", true, "" },
    { "/var/log/*.log", "/var/log/x/a.log", false, "" },
    { "/var/log/*.log", "/var/log/a.log.1", false, "" },
    { "/var/log/*.log", "/var/log/", false, "" },
    { "/var/log/syslog", "/var/log/syslog", true, "" },
    { "/var/log/**", "/var/log/a", true, "" },
    { "/var/log/**", "/var/log/a/b/c", true, "" },
    { "/var/log/**", "/var/log", false, "" },
    { "/var/log/**/*.log", "/var/log/a.log", true, "" },
    { "/var/log/**/*.log", "/var/log/x/y/a.log", true, "" },
    { "/var/log/**/**/*.log", "/var/log/x/a.log", true, "" },
    { "/a/**/b/**/c", "/a/x/b/y/b/z/c", true, "" },
    { "/a/**/b/**/c", "/a/x/y/c", false, "" },
    { "/a/?.log", "/a/x.log", true, "" },
    { "/a/?.log", "/a/xy.log", false, "" },
    { "/a/[a-c]x", "/a/bx", true, "" },
    { "/a/[!a-c]x", "/a/bx", false, "" },
    { "/a/[]x]", "/a/]", true, "" },
    { "/a/[x", "/a/[x", true, "" },
    { "/a/\\*", "/a/*", true, "" },
    { "/a/\\*", "/a/b", false, "" },
    { "/a/\\<x>", "/a/<x>", true, "" },
    { "*.gz", "/any/where/x.gz", true, "" },
    { "/srv/<tenant>/logs/<service>.log", "/srv/acme/logs/api.log", true, "tenant=acme;service=api;" },
    { "/srv/<tenant>/logs/<service>.log", "/srv//logs/api.log", false, "" },
    { "/c/<pod>_<ns>_<container>-<id>.log", "/c/p-1_default_my-app-0123.log", true,
      "pod=p-1;ns=default;container=my-app;id=0123;" },
    { "/x/<name>", "/x/a", true, "name=a;" },
    { "/x/<name>.log", "/x/.log", false, "" },
    { "/**/<d>/f", "/a/b/f", true, "d=b;" },
    { "/a//b/./c", "/a/b/c", true, "" },
    { "/a/*a*a*a*a*a*a*a*b",
      "/a/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false, "" },
};

static void test_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pattern *p;
        struct err err = { 0 };
        struct pair caps[PATTERN_CAPTURES_MAX];
        size_t n = 0, at = 0;
        char got[256] = "";
        if (pattern_parse(slice_cstr(cases[i].glob), &p, &err) < 0)
            fail_msg("%s: %s", cases[i].glob, err.text);
        bool matches = pattern_match(p, slice_cstr(cases[i].path), caps, &n);
        for (size_t k = 0; matches && k < n; k++)
            at += (size_t)snprintf(got + at, sizeof(got) - at, "%.*s=%.*s;", SLICE_ARGS(caps[k].name),
                                   SLICE_ARGS(caps[k].value));
        if (matches != cases[i].matches || strcmp(got, cases[i].caps) != 0)
            fail_msg("%s of %s: %d %s", cases[i].glob, cases[i].path, matches, got);
        assert_true(slice_eq(pattern_text(p), slice_cstr(cases[i].glob)));
        pattern_free(p);
    }
}

static void test_covers(void **state)
{
    (void)state;
    struct pattern *p;
    assert_int_equal(0, pattern_parse(SLICE("/var/log/private"), &p, NULL));
    assert_true(pattern_covers(p, SLICE("/var/log/private")));
    assert_true(pattern_covers(p, SLICE("/var/log/private/a/b")));
    assert_false(pattern_covers(p, SLICE("/var/log/privateer")));
    assert_false(pattern_covers(p, SLICE("/var/log")));
    pattern_free(p);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = { "",         "/",
                                       "//",       "/a/<",
                                       "/a/<>",    "/a/<x",
                                       "/a/<x y>", "/<a><b><c><d><e><f><g><h><i><j><k><l><m><n><o><p><q>" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct pattern *p;
        struct err err = { 0 };
        assert_int_equal(-EINVAL, pattern_parse(slice_cstr(bad[i]), &p, &err));
        assert_true(strlen(err.text) > 0);
    }
    /* Too long, too deep, too many wildcards. */
    char *text = malloc(PATH_MAX + 1);
    struct pattern *p;
    memset(text, '/', PATH_MAX);
    for (size_t i = 1; i < PATH_MAX; i += 2)
        text[i] = 'x';
    assert_int_equal(-EINVAL, pattern_parse(slice_of(text, PATH_MAX), &p, NULL));
    assert_int_equal(-EINVAL, pattern_parse(slice_of(text, 200), &p, NULL));
    for (size_t i = 1; i < 300; i++)
        text[i] = i % 2 ? '*' : '?';
    assert_int_equal(-EINVAL, pattern_parse(slice_of(text, 300), &p, NULL));
    free(text);
    assert_int_equal(-EINVAL, pattern_parse(slice_of("/a\0b", 4), &p, NULL));
}

static void test_long_names(void **state)
{
    (void)state;
    struct pattern *p;
    char path[NAME_MAX + 16];
    assert_int_equal(0, pattern_parse(SLICE("/<x>?"), &p, NULL));
    memset(path, 'n', sizeof(path));
    path[0] = '/';
    assert_true(pattern_match(p, slice_of(path, NAME_MAX + 1), NULL, NULL));
    assert_false(pattern_match(p, slice_of(path, NAME_MAX + 2), NULL, NULL));
    pattern_free(p);
}

static void test_parts(void **state)
{
    (void)state;
    struct pattern *p;
    assert_int_equal(0, pattern_parse(SLICE("/var/lo[g]/**/x\\*y"), &p, NULL));
    assert_int_equal(4, pattern_n_parts(p));
    assert_true(pattern_part_is_constant(p, 0));
    assert_true(slice_eq(SLICE("var"), pattern_part_text(p, 0)));
    assert_false(pattern_part_is_constant(p, 1));
    assert_true(pattern_part_matches(p, 1, SLICE("log")));
    assert_true(pattern_part_is_any_depth(p, 2));
    assert_true(slice_eq(SLICE("x*y"), pattern_part_text(p, 3)));
    pattern_free(p);
    pattern_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match), cmocka_unit_test(test_covers),     cmocka_unit_test(test_bad),
        cmocka_unit_test(test_parts), cmocka_unit_test(test_long_names),
    };
    return cmocka_run_group_tests_name("tail/pattern", tests, NULL, NULL);
}
