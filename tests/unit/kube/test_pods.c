/*
 * Goal: what a path says of a pod, and nothing where it says nothing. Method: tables of the forms of protocols §3.1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/kube/pods.h"

static void test_paths(void **state)
{
    static const struct {
        const char *path;
        bool ok;
        const char *namespace_, *pod, *uid, *container;
    } cases[] = {
        { "/var/log/pods/kms-threshold_kms-core-3_7c1d-uid/core/0.log", true, "kms-threshold", "kms-core-3", "7c1d-uid",
          "core" },
        { "/var/log/pods/a_b.c.d_u/init-x/12.log", true, "a", "b.c.d", "u", "init-x" },
        { "/data/pods/a_b_u/c/0.log.20261121-070000", true, "a", "b", "u", "c" },
        { "/var/log/containers/api-7d9c_default_app-web-0123456789abcdef.log", true, "default", "api-7d9c", "",
          "app-web" },
        { "/var/log/containers/api_default_app-xyz.log", false, 0, 0, 0, 0 },
        { "/var/log/pods/a_b/c/0.log", false, 0, 0, 0, 0 },
        { "/var/log/pods/a_b_c_d/c/0.log", false, 0, 0, 0, 0 },
        { "/var/log/pods/_b_c/c/0.log", false, 0, 0, 0, 0 },
        { "/var/log/syslog", false, 0, 0, 0, 0 },
        { "", false, 0, 0, 0, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pod_path p;
        assert_int_equal(pod_path_parse(slice_cstr(cases[i].path), &p), cases[i].ok);
        if (!cases[i].ok)
            continue;
        assert_true(slice_eq(p.namespace_, slice_cstr(cases[i].namespace_)));
        assert_true(slice_eq(p.pod, slice_cstr(cases[i].pod)));
        assert_true(slice_eq(p.uid, slice_cstr(cases[i].uid)));
        assert_true(slice_eq(p.container, slice_cstr(cases[i].container)));
    }
}

static void test_workloads(void **state)
{
    static const char *const cases[][2] = { { "api-7d9c5b7f6d-x2x4z", "api" }, { "kms-core-3", "kms-core" },
                                            { "node-exporter-k8s2x", "node-exporter" }, { "standalone", "standalone" },
                                            { "my-app", "my-app" },                 { "etcd-master", "etcd-master" } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slice got = pod_workload(slice_cstr(cases[i][0]));
        if (!slice_eq(got, slice_cstr(cases[i][1])))
            fail_msg("%s -> %.*s", cases[i][0], (int)got.len, got.ptr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_paths), cmocka_unit_test(test_workloads) };
    return cmocka_run_group_tests_name("kube/pods", tests, NULL, NULL);
}
