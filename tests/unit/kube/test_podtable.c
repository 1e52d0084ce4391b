/*
 * Goal: what is told twice changes nothing; a deleted pod stays known until its files are gone; lists delete what they leave
 * out; owners' owners are named; the cache gives back the same table, or says why not; 500 large pods stay below 4 MiB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/kube/cache.h"
#include "agent/kube/podtable.h"

static struct pod *pod(const char *ns, const char *name, const char *uid, const char *app)
{
    struct pair label = { SLICE("app"), slice_cstr(app) };
    struct kube_object o = { .namespace_ = slice_cstr(ns), .name = slice_cstr(name), .uid = slice_cstr(uid),
                             .labels = { &label, app[0] != '\0' } };
    struct pod *p = pod_new(&o);
    assert_non_null(p);
    return p;
}

static void put(struct podtable *t, struct pod *p, bool want_new)
{
    bool is_new;
    assert_int_equal(podtable_put(t, p, &is_new), 0);
    assert_int_equal(is_new, want_new);
}

static const char *app_of(struct podtable *t, const char *ns, const char *name, const char *uid)
{
    static char text[64];
    struct pod *p = podtable_find(t, slice_cstr(ns), slice_cstr(name), slice_cstr(uid));
    if (p == NULL)
        return NULL;
    struct slice app = pairs_get(p->labels, SLICE("app"));
    (void)snprintf(text, sizeof(text), "%.*s", SLICE_ARGS(app));
    pod_unref(p);
    return text;
}

static void test_put_find_change(void **state)
{
    (void)state;
    struct podtable *t = podtable_new();
    put(t, pod("a", "p", "1", "x"), true);
    uint64_t version = podtable_version(t);
    put(t, pod("a", "p", "1", "x"), false);
    assert_int_equal(podtable_version(t), version);
    struct pod *held = podtable_find(t, SLICE("a"), SLICE("p"), SLICE("1"));
    put(t, pod("a", "p", "1", "y"), true);
    assert_true(podtable_version(t) > version);
    assert_true(slice_eq(pairs_get(held->labels, SLICE("app")), SLICE("x"))); /* never changed */
    pod_unref(held);
    put(t, pod("a", "p", "2", "new"), true);
    assert_string_equal(app_of(t, "a", "p", "1"), "y");
    assert_string_equal(app_of(t, "a", "p", "2"), "new");
    assert_string_equal(app_of(t, "a", "p", ""), "new");
    assert_null(app_of(t, "a", "p", "3"));
    assert_null(app_of(t, "b", "p", "1"));
    podtable_free(t);
}

static bool are_gone;
static bool is_gone(void *ctx, const struct pod *p)
{
    (void)ctx;
    (void)p;
    return are_gone;
}

static void test_deleted_ones_stay_until_their_files_go(void **state)
{
    (void)state;
    struct podtable *t = podtable_new();
    put(t, pod("a", "p", "1", "x"), true);
    put(t, pod("a", "q", "2", "y"), true);
    podtable_delete(t, SLICE("a"), SLICE("p"), SLICE("other"), 10);
    podtable_expire(t, 100, is_gone, NULL);
    assert_int_equal(podtable_count(t, NULL), 2);
    podtable_delete(t, SLICE("a"), SLICE("p"), SLICE("1"), 10);
    assert_int_equal(podtable_count(t, NULL), 1);
    are_gone = false;
    podtable_expire(t, 100, is_gone, NULL);
    assert_string_equal(app_of(t, "a", "p", "1"), "x");
    are_gone = true;
    podtable_expire(t, 10, is_gone, NULL); /* not for long enough */
    struct pod *held = podtable_find(t, SLICE("a"), SLICE("p"), SLICE("1"));
    podtable_expire(t, 100, is_gone, NULL); /* somebody reads its lines */
    assert_string_equal(app_of(t, "a", "p", "1"), "x");
    pod_unref(held);
    podtable_expire(t, 100, is_gone, NULL);
    assert_null(app_of(t, "a", "p", "1"));
    assert_string_equal(app_of(t, "a", "q", "2"), "y");
    podtable_free(t);
}

static void test_a_list_deletes_what_it_leaves_out(void **state)
{
    (void)state;
    struct podtable *t = podtable_new();
    put(t, pod("a", "p", "1", "x"), true);
    put(t, pod("a", "q", "2", "y"), true);
    put(t, pod("a", "", "n", ""), true); /* a namespace */
    podtable_list_begin(t, false);
    put(t, pod("a", "q", "2", "y"), false);
    put(t, pod("a", "r", "3", "z"), true);
    podtable_list_end(t, false, 5);
    assert_int_equal(podtable_count(t, NULL), 2);
    assert_string_equal(app_of(t, "a", "p", "1"), "x"); /* its lines may come yet */
    are_gone = true;
    podtable_expire(t, 100, is_gone, NULL);
    assert_null(app_of(t, "a", "p", "1"));
    assert_non_null(app_of(t, "a", "", "n"));
    podtable_list_begin(t, true);
    podtable_list_end(t, true, 5);
    podtable_expire(t, 100, is_gone, NULL);
    assert_null(app_of(t, "a", "", "n"));
    assert_int_equal(podtable_count(t, NULL), 2);
    podtable_free(t);
}

static void test_owners(void **state)
{
    static const struct {
        const char *kind, *name, *hash, *want_kind, *want;
    } cases[] = {
        { "ReplicaSet", "web-7d9c", "7d9c", "Deployment", "web" }, { "ReplicaSet", "web-7d9c", "", "ReplicaSet", "web-7d9c" },
        { "ReplicaSet", "web", "7d9c", "ReplicaSet", "web" },      { "StatefulSet", "db", "", "StatefulSet", "db" },
        { "DaemonSet", "agent", "", "DaemonSet", "agent" },        { "Job", "backup-29384756", "", "CronJob", "backup" },
        { "Job", "once-7", "", "Job", "once-7" },                  { "", "", "", "", "" },
        { "Node", "n1", "", "Pod", "p" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pair label = { SLICE("pod-template-hash"), slice_cstr(cases[i].hash) };
        struct kube_object o = { .namespace_ = SLICE("a"), .name = SLICE("p"), .uid = SLICE("1"), .labels = { &label, 1 },
                                 .owner_kind = slice_cstr(cases[i].kind), .owner_name = slice_cstr(cases[i].name) };
        struct pod *p = pod_new(&o);
        assert_true(slice_eq(p->workload_kind, slice_cstr(cases[i].want_kind)));
        assert_true(slice_eq(p->workload, slice_cstr(cases[i].want)));
        pod_unref(p);
    }
}

static void test_a_static_pod_has_another_uid_in_paths(void **state)
{
    (void)state;
    struct pair a = { SLICE("kubernetes.io/config.hash"), SLICE("cafe") };
    struct kube_object o = { .namespace_ = SLICE("a"), .name = SLICE("p"), .uid = SLICE("1"), .annotations = { &a, 1 } };
    struct podtable *t = podtable_new();
    put(t, pod_new(&o), true);
    assert_non_null(app_of(t, "a", "p", "cafe"));
    assert_null(app_of(t, "a", "p", "1"));
    podtable_delete(t, SLICE("a"), SLICE("p"), SLICE("1"), 1); /* the API speaks of its own uid */
    assert_int_equal(podtable_count(t, NULL), 0);
    podtable_free(t);
}

static void test_a_full_table_keeps_the_living(void **state)
{
    char name[32];
    (void)state;
    struct podtable *t = podtable_new();
    for (int i = 0; i < PODTABLE_MAX; i++) {
        (void)snprintf(name, sizeof(name), "p-%d", i);
        put(t, pod("a", name, "1", ""), true);
    }
    assert_int_equal(podtable_put(t, pod("a", "more", "1", ""), NULL), -ENOSPC);
    podtable_delete(t, SLICE("a"), SLICE("p-7"), SLICE("1"), 5);
    put(t, pod("a", "more", "1", ""), true);
    assert_null(app_of(t, "a", "p-7", "1"));
    podtable_free(t);
}

/* ---- the cache ---- */

static void fill(struct podtable *t)
{
    put(t, pod("a", "p", "1", "x"), true);
    put(t, pod("a", "q", "2", ""), true);
    put(t, pod("b", "", "3", ""), true);
    podtable_delete(t, SLICE("a"), SLICE("q"), SLICE("2"), 1);
}

static void test_the_cache_gives_back_the_same(void **state)
{
    (void)state;
    struct podtable *t = podtable_new(), *back = podtable_new();
    struct cache_head head = { .key = 42, .pods = SLICE("100"), .namespaces = SLICE("") }, got;
    struct buf b, again;
    buf_init(&b, MIB);
    buf_init(&again, MIB);
    fill(t);
    assert_int_equal(cache_encode(&head, t, &b), 0);
    assert_int_equal(cache_decode(buf_slice(&b), 42, back, &got), 0);
    assert_true(slice_eq(got.pods, SLICE("100")) && got.namespaces.len == 0);
    assert_string_equal(app_of(back, "a", "p", "1"), "x");
    assert_int_equal(podtable_count(back, NULL), 1);
    assert_int_equal(cache_encode(&head, back, &again), 0);
    assert_true(slice_eq(buf_slice(&b), buf_slice(&again)));
    buf_deinit(&b);
    buf_deinit(&again);
    podtable_free(t);
    podtable_free(back);
}

static void test_a_cache_that_is_cut_flipped_or_anothers(void **state)
{
    (void)state;
    struct podtable *t = podtable_new();
    struct cache_head head = { .key = 42, .pods = SLICE("100"), .namespaces = SLICE("") }, got;
    struct buf b;
    buf_init(&b, MIB);
    fill(t);
    assert_int_equal(cache_encode(&head, t, &b), 0);
    podtable_free(t);
    t = podtable_new();
    assert_int_equal(cache_decode(buf_slice(&b), 43, t, &got), -ESTALE);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(cache_decode(slice_first(buf_slice(&b), n), 42, t, &got), -EBADMSG);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        b.ptr[bit / 8] = (char)(b.ptr[bit / 8] ^ 1 << bit % 8);
        assert_int_not_equal(cache_decode(buf_slice(&b), 42, t, &got), 0);
        b.ptr[bit / 8] = (char)(b.ptr[bit / 8] ^ 1 << bit % 8);
    }
    assert_int_equal(podtable_count(t, NULL), 0);
    buf_deinit(&b);
    podtable_free(t);
}

static void test_500_pods_with_all_that_may_be_kept(void **state)
{
    struct pair labels[20], images[8];
    char name[32];
    size_t bytes;
    (void)state;
    struct podtable *t = podtable_new();
    for (size_t i = 0; i < ARRAY_LEN(labels); i++)
        labels[i] = (struct pair){ SLICE("app.kubernetes.io/some-longer-label"), SLICE("and-a-value-of-some-length-too") };
    for (size_t i = 0; i < ARRAY_LEN(images); i++)
        images[i] = (struct pair){ SLICE("container"), SLICE("registry.example.org/team/some/image:v1.2.3-456789ab") };
    for (int i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof(name), "pod-%d", i);
        struct kube_object o = { .namespace_ = SLICE("namespace"), .name = slice_cstr(name),
                                 .uid = SLICE("11111111-2222-4333-8444-555555555555"), .labels = { labels, 20 },
                                 .annotations = { labels, 5 }, .images = { images, 8 } };
        put(t, pod_new(&o), true);
    }
    assert_int_equal(podtable_count(t, &bytes), 500);
    assert_true(bytes < 4 * MIB);
    podtable_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_find_change),
        cmocka_unit_test(test_deleted_ones_stay_until_their_files_go),
        cmocka_unit_test(test_a_list_deletes_what_it_leaves_out),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_a_static_pod_has_another_uid_in_paths),
        cmocka_unit_test(test_a_full_table_keeps_the_living),
        cmocka_unit_test(test_the_cache_gives_back_the_same),
        cmocka_unit_test(test_a_cache_that_is_cut_flipped_or_anothers),
        cmocka_unit_test(test_500_pods_with_all_that_may_be_kept),
    };
    return cmocka_run_group_tests_name("kube/podtable", tests, NULL, NULL);
}
