/*
 * Goal: matches hold when all their keys do, any glob of a list suffices, `not` excludes, and what is missing
 * is only matched by the empty glob. Method: one record, a table of conditions.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/match.h"

static const struct origin origin = { .input = SLICE_INIT("pods"),
                                      .namespace_ = SLICE_INIT("test-7"),
                                      .pod = SLICE_INIT("web-0"),
                                      .container = SLICE_INIT("web"),
                                      .service = SLICE_INIT("shop") };

static struct record record(void)
{
    struct record r = { .origin = &origin,
                        .level = LEVEL_WARN,
                        .module = SLICE("app::db"),
                        .message = SLICE("GET /health/live 200"),
                        .tenant = SLICE("acme") };
    r.values[0] = (struct value){ VALUE_STRING, SLICE("eu") };
    return r;
}

struct condition_case {
    const char *name;
    const char *globs[3];
    bool is_not;
};

static void conditions(void **state)
{
    (void)state;
    static const struct {
        struct condition_case c[3];
        bool want;
    } cases[] = {
        { { { 0 } }, true },
        { { { "tenant", { "acme" }, false } }, true },
        { { { "tenant", { "acm" }, false } }, false }, /* the whole value */
        { { { "tenant", { "globex", "ac*" }, false } }, true },
        { { { "tenant", { "acme" }, false }, { "namespace", { "prod*" }, false } }, false },
        { { { "tenant", { "acme" }, false }, { "namespace", { "test-*" }, true } }, false },
        { { { "tenant", { "acme" }, false }, { "namespace", { "prod" }, true } }, true },
        { { { "pod", { "x" }, true }, { "container", { "web" }, true } }, false }, /* one of them suffices */
        { { { "pod", { "web-?" }, false },
            { "container", { "w[a-f]b" }, false },
            { "service", { "shop" }, false } },
          true },
        { { { "input", { "pods" }, false } }, true },
        { { { "level", { "warn" }, false } }, true },
        { { { "level", { "WARNING" }, false } }, true },
        { { { "level", { "error", "fatal" }, false } }, false },
        { { { "module", { "app::*" }, false } }, true },
        { { { "message", { "*GET /health/*" }, false } }, true },
        { { { "record.region", { "eu" }, false } }, true },
        { { { "record.region", { "*" }, false } }, true },
        { { { "record.gone", { "*" }, false } }, false },
        { { { "record.gone", { "" }, false } }, true },
        { { { "record.gone", { "*" }, true } }, true },
        { { { "record.tenant", { "*" }, false } }, false },
    };
    struct record rec = record();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wanted_keys w = { 0 };
        assert_int_equal(wanted_keys_add(&w, SLICE("region")), 0);
        struct match *m = match_new();
        assert_non_null(m);
        for (size_t c = 0; c < 3 && cases[i].c[c].name != NULL; c++) {
            struct slice globs[3];
            size_t n = 0;
            for (; n < 3 && cases[i].c[c].globs[n] != NULL; n++)
                globs[n] = slice_cstr(cases[i].c[c].globs[n]);
            assert_int_equal(
                match_add(m, slice_cstr(cases[i].c[c].name), globs, n, cases[i].c[c].is_not, &w, NULL), 0);
        }
        if (match_eval(m, &rec) != cases[i].want)
            fail_msg("case %zu: expected %d", i, cases[i].want);
        match_free(m);
        wanted_keys_deinit(&w);
    }
    assert_true(match_eval(NULL, &rec));
    assert_true(match_is_static(NULL));
    match_free(NULL);
}

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name, *words;
    } wrong[] = { { "namespaces", "did you mean \"namespace\"" },
                  { "labels", "cannot be matched" },
                  { "", "cannot be matched" },
                  { "record.", "needs a name" },
                  { "not", "cannot be matched" } };
    const struct slice glob = SLICE("x");
    struct wanted_keys w = { 0 };
    struct match *m = match_new();
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err err = { 0 };
        assert_int_equal(match_add(m, slice_cstr(wrong[i].name), &glob, 1, false, &w, &err), -EINVAL);
        if (strstr(err.text, wrong[i].words) == NULL)
            fail_msg("\"%s\" says: %s", wrong[i].name, err.text);
    }
    match_free(m);
    wanted_keys_deinit(&w);
}

/* The names and globs are the match's own: those given may go. */
static void owns_its_words(void **state)
{
    (void)state;
    struct wanted_keys w = { 0 };
    char *name = strdup("record.region"), *glob = strdup("e*");
    const struct slice globs = slice_cstr(glob);
    struct match *m = match_new();
    assert_int_equal(match_add(m, slice_cstr(name), &globs, 1, true, &w, NULL), 0);
    assert_false(match_is_static(m));
    free(name);
    free(glob);
    struct record rec = record();
    assert_false(match_eval(m, &rec));

    struct slice got_name;
    const struct slice *got_globs;
    size_t n;
    bool is_not;
    assert_true(match_condition(m, 0, &got_name, &got_globs, &n, &is_not));
    assert_true(slice_eq(got_name, SLICE("record.region")));
    assert_true(n == 1 && slice_eq(got_globs[0], SLICE("e*")) && is_not);
    assert_false(match_condition(m, 1, &got_name, &got_globs, &n, &is_not));
    assert_false(match_condition(NULL, 0, &got_name, &got_globs, &n, &is_not));
    match_free(m);
    wanted_keys_deinit(&w);
}

static void is_static(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool want;
    } cases[] = { { "namespace", true }, { "pod", true },     { "container", true },
                  { "service", true },   { "input", true },   { "tenant", false },
                  { "level", false },    { "module", false }, { "message", false } };
    const struct slice glob = SLICE("x");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wanted_keys w = { 0 };
        struct match *m = match_new();
        assert_int_equal(match_add(m, slice_cstr(cases[i].name), &glob, 1, false, &w, NULL), 0);
        assert_int_equal(match_is_static(m), cases[i].want);
        match_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conditions),
        cmocka_unit_test(names),
        cmocka_unit_test(owns_its_words),
        cmocka_unit_test(is_static),
    };
    return cmocka_run_group_tests_name("base/match", tests, NULL, NULL);
}
