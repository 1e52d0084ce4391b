/*
 * Goal: what is known of a file before its lines: service, pod, fields, levels, routes; all in one block that stands alone.
 * Method: configurations as YAML, paths by table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/source.h"

static const struct output_type types[] = { { .name = "t" }, { .name = NULL } };

static struct conf *load(const char *yaml)
{
    struct conf *c;
    struct buf errors;
    buf_init(&errors, 65536);
    if (conf_load_text("t", slice_cstr(yaml), types, &c, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    buf_deinit(&errors);
    return c;
}

static bool is(struct slice got, const char *want)
{
    return slice_eq(got, slice_cstr(want));
}

static void test_names_from_the_path(void **state)
{
    static const struct {
        const char *path, *stem, *service;
    } cases[] = {
        { "/var/log/api.log", "api", "api" },
        { "/var/log/syslog", "syslog", "syslog" },
        { "/var/log/nginx/access.log", "access", "nginx" },
        { "/srv/x/api-2026-11-21.log", "api", "api" },
        { "/srv/x/api.log.1", "api", "api" },
        { "/srv/x/api.log.12.gz", "api", "api" },
        { "/srv/x/api.log-20261121.gz", "api", "api" },
        { "/srv/x/api-v2.json", "api-v2", "api-v2" },
        { "/srv/x/2026.log", "2026", "2026" },
        { "/srv/x/.log", ".log", ".log" },
        { "api", "api", "api" },
    };
    struct conf *c = load("state_dir: /tmp/x\ninputs: { i: { type: file, include: /var/log/*.log } }\noutputs: { o: { type: t } }\n");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct origin *o = origin_new(c, 0, slice_cstr(cases[i].path), (struct pairs){ 0 }, NULL);
        assert_non_null(o);
        if (!is(o->file_stem, cases[i].stem) || !is(o->service, cases[i].service))
            fail_msg("%s: stem %.*s, service %.*s", cases[i].path, SLICE_ARGS(o->file_stem), SLICE_ARGS(o->service));
        assert_true(is(o->input, "i") && is(o->file, cases[i].path) && o->pod.len == 0);
        origin_free(o);
    }
    conf_free(c);
}

static void test_pods(void **state)
{
    struct conf *c = load("state_dir: /tmp/x\ninputs: { pods: { type: kubernetes } }\noutputs: { o: { type: t } }\n");
    struct slice path = SLICE("/var/log/pods/shop_web-6d4b75cb6d-x7k2p_0a1b/nginx/0.log");
    struct origin *o = origin_new(c, 0, path, (struct pairs){ 0 }, NULL);
    (void)state;
    assert_true(is(o->namespace_, "shop") && is(o->pod, "web-6d4b75cb6d-x7k2p") && is(o->uid, "0a1b"));
    assert_true(is(o->container, "nginx") && is(o->workload, "web") && is(o->service, "web"));
    origin_free(o);
    o = origin_new(c, 0, SLICE("/var/log/pods/odd"), (struct pairs){ 0 }, NULL);
    assert_true(o->pod.len == 0 && is(o->service, "pods"));
    origin_free(o);
    conf_free(c);
}

/* Fields may use captures and fields before them; constants stay; the block does not borrow from what it was made of. */
static void test_fields_are_packed(void **state)
{
    struct conf *c = load("state_dir: /tmp/x\nfields: { cluster: eu, zone: a }\n"
                          "inputs: { i: { type: file, include: \"/srv/<team>/*.log\", fields: { namespace: vm, "
                          "service: \"{path.team}\", pod: \"{namespace}-{service}\", z: \"{field.zone}!\" } } }\n"
                          "outputs: { o: { type: t } }\n");
    char path[] = "/srv/red/a.log", name[] = "team", value[] = "red";
    struct pair captures[] = { { slice_cstr(name), slice_cstr(value) } };
    struct origin *a = origin_new(c, 0, slice_cstr(path), (struct pairs){ captures, 1 }, NULL);
    struct origin *b = origin_new(c, 0, slice_cstr(path), (struct pairs){ captures, 1 }, NULL);
    (void)state;
    memset(path, 'X', sizeof(path) - 1);
    memset(name, 'X', sizeof(name) - 1);
    memset(value, 'X', sizeof(value) - 1);
    assert_true(is(a->file, "/srv/red/a.log") && is(a->namespace_, "vm") && is(a->service, "red") && is(a->pod, "vm-red"));
    assert_true(is(a->cluster, "eu"));
    assert_true(is(pairs_get(a->fields, SLICE("zone")), "a") && is(pairs_get(a->fields, SLICE("z")), "a!"));
    assert_true(is(pairs_get(a->path, SLICE("team")), "red"));
    assert_true(a->id != b->id);
    origin_free(a);
    origin_free(b);
    origin_free(NULL);
    conf_free(c);
}

static struct source *make(const struct conf *c, const char *path)
{
    struct file_ident ident = { .incarnation = 9, .path = slice_cstr(path) };
    struct tail_file_info info = { .ident = &ident };
    struct source *s = source_new(c, NULL, NULL, &info);
    assert_non_null(s);
    return s;
}

static void test_static_decisions(void **state)
{
    struct conf *c = load(
        "state_dir: /tmp/x\n"
        "inputs: { i: { type: file, include: \"/srv/*.log\", levels: info, overrides: ["
        "{ match: { service: \"api*\" }, levels: warn, tenant: acme }, { match: { service: api2 }, levels: error } ] } }\n"
        "outputs: { o: { type: t } }\n"
        "routes: [ { match: { service: api }, to: [o] }, { match: { message: x }, to: [o] }, { to: [o] } ]\n");
    struct source *web = make(c, "/srv/web.log"), *api = make(c, "/srv/api.log"), *api2 = make(c, "/srv/api2.log");
    (void)state;
    assert_true(is(levels_text(web->levels), "info") && !web->has_dynamic_overrides);
    assert_true(is(levels_text(api->levels), "warn"));
    assert_true(is(levels_text(api2->levels), "error")); /* later ones win */
    assert_true(api->tenant != web->tenant && api->tenant == api2->tenant);
    assert_int_equal(web->routes[0], 6); /* the first cannot match; the second is asked of each record */
    assert_int_equal(api->routes[0], 7);
    assert_int_equal(api2->routes[0], 6);
    for (size_t i = 0; i < STREAMS_MAX; i++)
        assert_true(web->first_off[i] == UINT64_MAX && web->counted_off[i] == 0);
    source_free(web);
    source_free(api);
    source_free(api2);
    source_free(NULL);
    conf_free(c);
    c = load("state_dir: /tmp/x\ninputs: { i: { type: file, include: \"/srv/*.log\", overrides: [ { match: { message: x }, "
             "levels: warn } ] } }\noutputs: { o: { type: t } }\n");
    struct source *s = make(c, "/srv/a.log");
    assert_true(s->has_dynamic_overrides && s->levels == NULL);
    source_free(s);
    conf_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_names_from_the_path), cmocka_unit_test(test_pods),
                                        cmocka_unit_test(test_fields_are_packed), cmocka_unit_test(test_static_decisions) };
    return cmocka_run_group_tests_name("agent/source", tests, NULL, NULL);
}
