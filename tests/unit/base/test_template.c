/*
 * Goal: templates compile once, say what is wrong with them, and evaluate within their bound; names and
 * wanted keys. Method: tables of template, record and result; a buffer that is full at every size.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/suggest.h"
#include "agent/base/template.h"

static const struct pair captures[] = { { SLICE_INIT("tenant"), SLICE_INIT("acme") },
                                        { SLICE_INIT("none"), { "", 0 } } };
static const struct pair fields[] = { { SLICE_INIT("zone"), SLICE_INIT("b") } };
static const struct pair labels[] = { { SLICE_INIT("app.kubernetes.io/name"), SLICE_INIT("shop") } };
static const struct origin origin = {
    .input = SLICE_INIT("in"),
    .file = SLICE_INIT("/var/log/a.log"),
    .file_stem = SLICE_INIT("a"),
    .host = SLICE_INIT("h1"),
    .node = SLICE_INIT("n1"),
    .cluster = SLICE_INIT("eu"),
    .pod = SLICE_INIT("web-0"),
    .uid = SLICE_INIT("u-1"),
    .namespace_ = SLICE_INIT("prod"),
    .container = SLICE_INIT("web"),
    .workload = SLICE_INIT("web"),
    .service = SLICE_INIT("shop"),
    .path = { captures, 2 },
    .fields = { fields, 1 },
    .labels = { labels, 1 },
};

/* 2026-03-01T04:05:06Z: day 60 of the year */
static struct record record(void)
{
    struct record r = { .origin = &origin,
                        .stream = STREAM_STDERR,
                        .level = LEVEL_WARN,
                        .module = SLICE("app::db"),
                        .message = SLICE("hello"),
                        .tenant = SLICE("t1"),
                        .tenant_key = { VALUE_STRING, SLICE("rt") },
                        .time_ns = INT64_C(1772337906) * NS_PER_SEC + 5 };
    r.values[0] = (struct value){ VALUE_NUMBER, SLICE("42") };
    return r;
}

static struct wanted_keys wanted;

static int forget_wanted(void **state)
{
    (void)state;
    wanted_keys_deinit(&wanted);
    return 0;
}

static void values(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        bool has_time;
    } cases[] = {
        { "", "", false },
        { "plain", "plain", false },
        { "{tenant}", "t1", false },
        { "a-{ tenant }-b", "a-t1-b", false },
        { "{record.user.id}", "42", false },
        { "{record.tenant}", "rt", false },
        { "{path.tenant|'x'}", "acme", false },
        { "{path.none|'x'}", "x", false },
        { "{path.gone|record.gone|service}", "shop", false },
        { "{service|pod|'x'}!", "shop!", false },
        { "{path.none|path.gone}", "", false },
        { "{'it''s {odd|}'}", "it's {odd|}", false },
        { "{''}", "", false },
        { "{path.none|''}x", "x", false },
        { "{{x}}", "{x}", false },
        { "{{{pod}}}", "{web-0}", false },
        { "{input} {file} {file_stem} {host} {node} {cluster}", "in /var/log/a.log a h1 n1 eu", false },
        { "{uid} {namespace} {container} {workload} {stream}", "u-1 prod web web stderr", false },
        { "{level} {module} {message}", "warn app::db hello", false },
        { "{field.zone} {field.pod} {field.gone}", "b web-0 ", false },
        { "{label.app.kubernetes.io/name}", "shop", false },
        { "{annotation.x}{namespace_label.y}", "", false },
        { "%Y 100%", "%Y 100%", false },
        { "{tenant}-%Y.%m.%d", "t1-2026.03.01", true },
        { "%H:%M:%S %j %%", "04:05:06 060 %", true },
        { "{'%Y'}", "%Y", true },
        { "caf\xc3\xa9 {pod}", "caf\xc3\xa9 web-0", false },
    };
    struct record rec = record();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct template *t = NULL;
        struct err err = { 0 };
        /* value_index 0 for record.user.id, 1 for record.gone, whatever the order of the cases */
        assert_int_equal(wanted_keys_add(&wanted, SLICE("user.id")), 0);
        if (template_parse(slice_cstr(cases[i].text), cases[i].has_time, &wanted, &t, &err) < 0)
            fail_msg("\"%s\": %s", cases[i].text, err.text);
        struct buf out;
        buf_init(&out, 4 * KIB);
        assert_int_equal(buf_append_lit(&out, "<"), 0);
        assert_int_equal(template_eval(t, &rec, &out), 0);
        struct slice got = slice_from(buf_slice(&out), 1);
        if (!slice_eq(got, slice_cstr(cases[i].want)))
            fail_msg("\"%s\" gave \"%.*s\"", cases[i].text, SLICE_ARGS(got));
        assert_true(slice_eq(template_text(t), slice_cstr(cases[i].text)));
        buf_deinit(&out);
        template_free(t);
    }
}

static void mistakes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
        bool has_time;
    } cases[] = {
        { "{tennant}", "did you mean \"tenant\"", false },
        { "{recrod.user.id}", "did you mean \"record.user.id\"", false },
        { "{xyzzyx}", "expected one of input, file", false },
        { "{record}", "needs a name behind a dot", false },
        { "{path.}", "needs a name behind a dot", false },
        { "{}", "a name is missing", false },
        { "{pod|}", "a name is missing", false },
        { "{|pod}", "a name is missing", false },
        { "{pod", "not closed", false },
        { "{", "a name is missing", false },
        { "{pod|'x", "is not closed", false },
        { "{'x'pod}", "unexpected p", false },
        { "{pod'x'}", "unexpected '", false },
        { "{po{d}", "unexpected {", false },
        { "pod}", "closes nothing", false },
        { "{pod}}", "closes nothing", false },
        { "%q", "not followed by", true },
        { "50%", "not followed by", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct template *t = NULL;
        struct err err = { 0 };
        assert_int_equal(template_parse(slice_cstr(cases[i].text), cases[i].has_time, &wanted, &t, &err),
                         -EINVAL);
        assert_null(t);
        if (strstr(err.text, cases[i].words) == NULL)
            fail_msg("\"%s\" says: %s", cases[i].text, err.text);
    }
    struct template *t = NULL;
    assert_int_equal(template_parse(SLICE("{record.x}"), false, NULL, &t, NULL), -EINVAL);
    static char large[TEMPLATE_OUT_MAX + 1];
    memset(large, 'x', sizeof(large));
    assert_int_equal(template_parse(slice_of(large, sizeof(large)), false, &wanted, &t, NULL), -EINVAL);
    assert_int_equal(wanted.n, 0);
}

/* Every prefix of a template that uses everything: parsed or refused, never past its end. */
static void cut_anywhere(void **state)
{
    (void)state;
    const struct slice whole = SLICE("a{{b}}{record.x|path.y|'it''s'}%Y-%%{label.z}");
    for (size_t len = 0; len <= whole.len; len++) {
        char *copy = malloc(MAX(len, 1)); /* exact, so that one byte too far is seen */
        assert_non_null(copy);
        memcpy(copy, whole.ptr, len);
        struct template *t = NULL;
        struct err err = { 0 };
        int r = template_parse(slice_of(copy, len), true, &wanted, &t, &err);
        assert_true(r == 0 || (r == -EINVAL && err.text[0] != '\0'));
        free(copy);
        if (r == 0) {
            struct record rec = record();
            struct buf out;
            buf_init(&out, 4 * KIB);
            assert_int_equal(template_eval(t, &rec, &out), 0);
            buf_deinit(&out);
        }
        template_free(r == 0 ? t : NULL);
    }
}

static void properties(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool has_time, is_static, is_constant;
    } cases[] = {
        { "x", false, true, true },
        { "{'x'}", false, true, true },
        { "", false, true, true },
        { "{pod}", false, true, false },
        { "{pod|tenant}", false, false, false },
        { "{stream}", false, false, false },
        { "%Y", true, false, false },
        { "%Y", false, true, true },
        { "%%", true, true, true },
        { "{field.z}", false, true, false },
        { "{record.tenant}", false, false, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct template *t = NULL;
        assert_int_equal(template_parse(slice_cstr(cases[i].text), cases[i].has_time, &wanted, &t, NULL), 0);
        assert_int_equal(template_is_static(t), cases[i].is_static);
        assert_int_equal(template_is_constant(t), cases[i].is_constant);
        template_free(t);
    }
    struct template *t = NULL;
    assert_int_equal(template_parse(SLICE("{pod|record.a}{label.x}"), false, &wanted, &t, NULL), 0);
    assert_true(template_uses(t, VAR_POD) && template_uses(t, VAR_RECORD) && template_uses(t, VAR_LABEL));
    assert_false(template_uses(t, VAR_NODE));
    assert_int_equal(template_var(t, 1)->kind, VAR_RECORD);
    assert_true(slice_eq(template_var(t, 2)->key, SLICE("x")));
    assert_null(template_var(t, 3));
    template_free(t);
}

static void long_values_are_cut(void **state)
{
    (void)state;
    static char text[2 * TEMPLATE_OUT_MAX];
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    struct record rec = record();
    rec.message = slice_of(text, sizeof(text));
    struct template *t = NULL;
    assert_int_equal(template_parse(SLICE("x{message}{pod}"), false, &wanted, &t, NULL), 0);
    struct buf out;
    buf_init(&out, 8 * KIB);
    assert_int_equal(template_eval(t, &rec, &out), 0);
    assert_int_equal(out.len, TEMPLATE_OUT_MAX - 1); /* not half a character, and nothing behind it */
    assert_int_equal(slice_utf8_valid(buf_slice(&out)), out.len);
    buf_deinit(&out);
    template_free(t);
}

static void a_full_buffer_stays_as_it_was(void **state)
{
    (void)state;
    struct record rec = record();
    struct template *t = NULL;
    assert_int_equal(template_parse(SLICE("{pod}-{namespace}-%Y"), true, &wanted, &t, NULL), 0);
    const size_t whole = sizeof("web-0-prod-2026") - 1;
    for (size_t max = 1; max <= whole + 1; max++) {
        struct buf out;
        buf_init(&out, max);
        assert_int_equal(buf_append_lit(&out, "<"), 0);
        int r = template_eval(t, &rec, &out);
        assert_int_equal(r, max <= whole ? -ENOBUFS : 0);
        assert_int_equal(out.len, max <= whole ? 1 : whole + 1);
        buf_deinit(&out);
    }
    template_free(t);
}

static void unknown_origin(void **state)
{
    (void)state;
    const struct record rec = { 0 };
    struct template *t = NULL;
    assert_int_equal(
        template_parse(SLICE("[{pod|label.x|tenant|stream|record.tenant}{level}]"), false, &wanted, &t, NULL),
        0);
    struct buf out;
    buf_init(&out, 100);
    assert_int_equal(template_eval(t, &rec, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("[unknown]")));
    buf_deinit(&out);
    template_free(t);
}

static void dates_before_the_epoch(void **state)
{
    (void)state;
    struct record rec = { .time_ns = -1 };
    struct template *t = NULL;
    assert_int_equal(template_parse(SLICE("%Y-%m-%d %H:%M:%S %j"), true, &wanted, &t, NULL), 0);
    struct buf out;
    buf_init(&out, 100);
    assert_int_equal(template_eval(t, &rec, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("1969-12-31 23:59:59 365")));
    buf_reset(&out);
    rec.time_ns = INT64_MAX;
    assert_int_equal(template_eval(t, &rec, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("2262-04-11 23:47:16 101")));
    buf_reset(&out);
    rec.time_ns = INT64_MIN;
    assert_int_equal(template_eval(t, &rec, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("1677-09-21 00:12:43 264")));
    buf_deinit(&out);
    template_free(t);
}

static void wanted_keys_are_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WANTED_KEYS_MAX; i++) {
        char key[16];
        int len = snprintf(key, sizeof(key), "k%u", i);
        assert_int_equal(wanted_keys_add(&wanted, slice_of(key, (size_t)len)), (int)i);
    }
    assert_int_equal(wanted_keys_add(&wanted, SLICE("k7")), 7);
    assert_int_equal(wanted_keys_add(&wanted, SLICE("more")), -ENOSPC);
    struct template *t = NULL;
    struct err err = { 0 };
    assert_int_equal(template_parse(SLICE("{record.more}"), false, &wanted, &t, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most 64"));
    assert_int_equal(template_parse(SLICE("{record.k63}{record.tenant}"), false, &wanted, &t, &err), 0);
    template_free(t);
    template_free(NULL);
}

static void suggestions(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        size_t want;
    } cases[] = { { "", "", 0 },
                  { "a", "", 1 },
                  { "tenant", "tenant", 0 },
                  { "tennant", "tenant", 1 },
                  { "teannt", "tenant", 1 },
                  { "TENANT", "tenant", 0 },
                  { "kitten", "sitting", 3 },
                  { "abc", "xyz", 3 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(suggest_distance(slice_cstr(cases[i].a), slice_cstr(cases[i].b)), cases[i].want);
        assert_int_equal(suggest_distance(slice_cstr(cases[i].b), slice_cstr(cases[i].a)), cases[i].want);
    }
    static char large[SUGGEST_WORD_MAX + 1];
    memset(large, 'x', sizeof(large));
    assert_int_equal(suggest_distance(slice_of(large, sizeof(large)), SLICE("x")), SIZE_MAX);
    struct suggestion s;
    suggest_init(&s, SLICE("urll"));
    suggest_offer(&s, SLICE("urls"));
    suggest_offer(&s, SLICE("queue"));
    assert_true(slice_eq(s.best, SLICE("urls")));
    suggest_init(&s, SLICE("x"));
    suggest_offer(&s, SLICE("y")); /* one edit is the whole word */
    assert_int_equal(s.best.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(values, forget_wanted),
        cmocka_unit_test_teardown(mistakes, forget_wanted),
        cmocka_unit_test_teardown(cut_anywhere, forget_wanted),
        cmocka_unit_test_teardown(properties, forget_wanted),
        cmocka_unit_test_teardown(long_values_are_cut, forget_wanted),
        cmocka_unit_test_teardown(a_full_buffer_stays_as_it_was, forget_wanted),
        cmocka_unit_test_teardown(unknown_origin, forget_wanted),
        cmocka_unit_test_teardown(dates_before_the_epoch, forget_wanted),
        cmocka_unit_test_teardown(wanted_keys_are_bounded, forget_wanted),
        cmocka_unit_test(suggestions),
    };
    return cmocka_run_group_tests_name("base/template", tests, NULL, NULL);
}
