/*
 * Goal: annotations choose what they may, a container's own wins, bad values choose nothing; directives for a time fit by part,
 * the last one wins, and they end; which configurations depend on metadata; what docker writes of a container.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/kube/annotations.h"
#include "agent/kube/docker.h"
#include "agent/kube/kube.h"
#include "agent/registry.h"
#include "agent/temporary.h"

#define ALL ((1u << ANNOTATIONS) - 1)

static struct choices choose(const struct pair *items, size_t n, const char *container, uint32_t allowed)
{
    static struct pod p;
    p = (struct pod){ .annotations = { items, n } };
    return annotations_choose(&p, slice_cstr(container), allowed);
}

static void test_the_containers_own_wins(void **state)
{
    const struct pair items[] = { { SLICE("tailrace.io/levels.side"), SLICE("debug") },
                                  { SLICE("tailrace.io/levels"), SLICE("warn") },
                                  { SLICE("tailrace.io/exclude"), SLICE("true") },
                                  { SLICE("tailrace.io/exclude.app"), SLICE("false") },
                                  { SLICE("tailrace.io/tenant"), SLICE("acme") },
                                  { SLICE("tailrace.io/format.app"), SLICE("text") },
                                  { SLICE("other.io/levels"), SLICE("trace") } };
    (void)state;
    struct choices app = choose(items, ARRAY_LEN(items), "app", ALL), side = choose(items, ARRAY_LEN(items), "side", ALL);
    assert_true(slice_eq(app.levels, SLICE("warn")) && !app.is_excluded && app.is_text);
    assert_true(slice_eq(side.levels, SLICE("debug")) && side.is_excluded && !side.is_text);
    assert_true(slice_eq(app.tenant, SLICE("acme")));
    struct choices none = choose(items, ARRAY_LEN(items), "app", ALL & ~(1u << ANNOTATION_TENANT | 1u << ANNOTATION_LEVELS));
    assert_true(none.tenant.len == 0 && none.levels.len == 0 && none.is_text);
}

static void test_values(void **state)
{
    static const struct {
        enum annotation which;
        const char *value;
        bool is_valid;
    } cases[] = {
        { ANNOTATION_EXCLUDE, "true", true },     { ANNOTATION_EXCLUDE, "false", true }, { ANNOTATION_EXCLUDE, "True", false },
        { ANNOTATION_EXCLUDE, "", false },        { ANNOTATION_LEVELS, "debug", true },  { ANNOTATION_LEVELS, "a=b=c", false },
        { ANNOTATION_LEVELS, "info,x=off", true }, { ANNOTATION_TENANT, "acme-1.x_y", true },
        { ANNOTATION_TENANT, "a/b", false },      { ANNOTATION_TENANT, "..", false },    { ANNOTATION_TENANT, "a b", false },
        { ANNOTATION_TENANT, "", false },         { ANNOTATION_FORMAT, "json", true },   { ANNOTATION_FORMAT, "xml", false },
        { ANNOTATION_SERVICE, "shop", true },     { ANNOTATION_SERVICE, "a\nb", false },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = { 0 };
        if (annotation_is_valid(cases[i].which, slice_cstr(cases[i].value), &err) != cases[i].is_valid)
            fail_msg("%s: %s", annotation_names[cases[i].which], cases[i].value);
        assert_int_equal(err.text[0] == '\0', cases[i].is_valid);
    }
}

/* ---- for a time ---- */

static int64_t now_ns = 1000 * NS_PER_SEC;
static int64_t mono(void)
{
    return now_ns;
}

static const char *found(const char *ns, const char *pod, const char *container)
{
    static struct buf b;
    buf_deinit(&b);
    buf_init(&b, 1000);
    if (!temporary_find(slice_cstr(ns), slice_cstr(pod), slice_cstr(container), &b) || buf_terminate(&b) < 0)
        return "";
    return b.ptr;
}

static void test_directives_for_a_time(void **state)
{
    struct err err = { 0 };
    (void)state;
    clock_set_source(mono, NULL);
    uint64_t version = temporary_version();
    assert_int_equal(temporary_set(SLICE("shop/api-*"), SLICE("debug"), 10 * NS_PER_SEC, &err), 0);
    assert_int_equal(temporary_set(SLICE("shop/api-1/side"), SLICE("trace"), 20 * NS_PER_SEC, &err), 0);
    assert_true(temporary_version() > version);
    assert_string_equal(found("shop", "api-1", "app"), "debug");
    assert_string_equal(found("shop", "api-1", "side"), "trace");
    assert_string_equal(found("shop", "web-1", "app"), "");
    assert_string_equal(found("shop2", "api-1", "app"), "");
    now_ns += 10 * NS_PER_SEC;
    temporary_expire(now_ns);
    assert_string_equal(found("shop", "api-1", "app"), "");
    assert_string_equal(found("shop", "api-1", "side"), "trace");
    assert_int_equal(temporary_clear(SLICE("shop/api-1/side")), 0);
    assert_int_equal(temporary_clear(SLICE("shop/api-1/side")), -ENOENT);
    clock_set_source(NULL, NULL);
}

static void test_directives_that_are_refused(void **state)
{
    static const struct {
        const char *target, *levels;
        int64_t ns;
    } bad[] = { { "shop", "debug", NS_PER_SEC },        { "a/b/c/d", "debug", NS_PER_SEC }, { "", "debug", NS_PER_SEC },
                { "a/b", "", NS_PER_SEC },              { "a/b", "x[", NS_PER_SEC },        { "a/b", "debug", 0 },
                { "a/b", "debug", TEMPORARY_NS_MAX + 1 } };
    char target[16];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = { 0 };
        assert_int_equal(temporary_set(slice_cstr(bad[i].target), slice_cstr(bad[i].levels), bad[i].ns, &err), -EINVAL);
        assert_true(err.text[0] != '\0');
    }
    for (int i = 0; i < TEMPORARY_MAX; i++) {
        (void)snprintf(target, sizeof(target), "a/%d", i);
        assert_int_equal(temporary_set(slice_cstr(target), SLICE("info"), NS_PER_SEC, NULL), 0);
    }
    assert_int_equal(temporary_set(SLICE("a/more"), SLICE("info"), NS_PER_SEC, NULL), -ENOSPC);
    assert_int_equal(temporary_set(SLICE("a/7"), SLICE("debug"), NS_PER_SEC, NULL), 0);
    assert_string_equal(found("a", "7", ""), "debug");
    temporary_expire(INT64_MAX);
    assert_string_equal(found("a", "7", ""), "");
}

/* ---- what depends ---- */

static void test_what_depends_on_metadata(void **state)
{
    static const struct {
        const char *yaml;
        bool decides;
    } cases[] = {
        { "inputs: { p: { type: kubernetes } }", false },
        { "inputs: { p: { type: kubernetes, tenant: \"{label.team|namespace}\" } }", true },
        { "inputs: { p: { type: kubernetes, tenant: \"{namespace_label.team}\" } }", true },
        { "inputs: { p: { type: kubernetes, tenant: \"{field.team|namespace}\", fields: { team: \"{label.team}\" } } }", true },
        { "inputs: { p: { type: kubernetes, fields: { namespace: \"{label.ns}\" } } }", true },
        { "inputs: { p: { type: kubernetes, fields: { zone: \"{label.zone}\" } } }", false },
        { "inputs: { p: { type: kubernetes, allow_annotations: [tenant] } }", true },
        { "inputs: { p: { type: kubernetes } }\nroutes: [ { match: { service: x }, to: [o] }, { to: [o] } ]", true },
        { "inputs: { p: { type: kubernetes, fields: { service: x } } }\nroutes: [ { match: { service: x }, to: [o] }, { to: [o] } ]",
          false },
        { "inputs: { p: { type: kubernetes } }\nroutes: [ { match: { namespace: x }, to: [o] }, { to: [o] } ]", false },
        { "inputs: { p: { type: kubernetes, tenant: \"{label.t}\" } }\nroutes: [ { match: { tenant: x }, to: [o] }, { to: [o] } ]",
          true },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text, errors;
        struct conf *c;
        buf_init(&text, 64 * KIB);
        buf_init(&errors, 64 * KIB);
        assert_int_equal(buf_printf(&text, "state_dir: /tmp/x\noutputs: { o: { type: stdout } }\n%s\n", cases[i].yaml), 0);
        if (conf_load_text("t", buf_slice(&text), registry_types(), &c, &errors) < 0)
            fail_msg("case %zu: %.*s", i, (int)errors.len, errors.ptr);
        if (kube_decides(c, &c->inputs[0]) != cases[i].decides)
            fail_msg("case %zu", i);
        conf_free(c);
        buf_deinit(&text);
        buf_deinit(&errors);
    }
}

static void test_what_docker_writes(void **state)
{
    (void)state;
    struct pod *p = docker_parse(SLICE(
        "{\"ID\":\"0123\",\"Name\":\"/shop-web-1\",\"Config\":{\"Image\":\"nginx:1\",\"Labels\":{\"app\":\"web\",\"n\":7,"
        "\"com.docker.compose.project\":\"shop\",\"com.docker.compose.service\":\"web\"}}}"));
    assert_non_null(p);
    assert_true(slice_eq(p->name, SLICE("shop-web-1")) && slice_eq(p->uid, SLICE("0123")));
    assert_true(slice_eq(p->namespace_, SLICE("shop")) && slice_eq(p->workload, SLICE("web")));
    assert_true(slice_eq(pairs_get(p->images, p->name), SLICE("nginx:1")));
    assert_true(slice_eq(pairs_get(p->labels, SLICE("app")), SLICE("web")));
    pod_unref(p);
    p = docker_parse(SLICE("{\"Name\":\"/alone\"}"));
    assert_true(p != NULL && p->namespace_.len == 0 && p->labels.n == 0);
    pod_unref(p);
    assert_null(docker_parse(SLICE("{\"Name\":")));
    assert_null(docker_parse(SLICE("{\"Name\":7}")));
    assert_null(docker_parse(SLICE("[]")));
    assert_null(docker_container(SLICE("/nowhere/x-json.log")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_containers_own_wins),   cmocka_unit_test(test_values),
        cmocka_unit_test(test_directives_for_a_time),     cmocka_unit_test(test_directives_that_are_refused),
        cmocka_unit_test(test_what_depends_on_metadata),  cmocka_unit_test(test_what_docker_writes),
    };
    return cmocka_run_group_tests_name("kube/annotations", tests, NULL, NULL);
}
