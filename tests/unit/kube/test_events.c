/*
 * Goal: of watches, lists and objects exactly what is used is kept, in whatever pieces the bytes come; what is not JSON, too
 * long or too deep ends the reading; what stops in the middle is told. Method: one text of each form, cut at every byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "agent/base/buf.h"
#include "agent/kube/events.h"

#define POD                                                                                                           \
    "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"web-1\",\"namespace\":\"shop\",\"uid\":\"u-1\",\"resourceVersion\":\"7\","  \
    "\"labels\":{\"app\":\"web\",\"no\":\"x\"},\"annotations\":{\"tailrace.io/levels\":\"debug\",\"big\":\"yyyy\"},"     \
    "\"ownerReferences\":[{\"kind\":\"Other\",\"name\":\"o\"},{\"kind\":\"ReplicaSet\",\"name\":\"web\",\"controller\":true}]," \
    "\"managedFields\":[{\"name\":\"no\",\"fieldsV1\":{\"f:metadata\":{\"f:labels\":{\"app\":{}}}}}]},"                \
    "\"spec\":{\"nodeName\":\"n\",\"initContainers\":[{\"name\":\"init\",\"image\":\"i:1\"}],"                         \
    "\"containers\":[{\"name\":\"app\",\"image\":\"a:\\u0031\",\"env\":[{\"name\":\"name\",\"value\":\"image\"}]},"    \
    "{\"image\":\"b:1\",\"name\":\"side\"}]},"                                                                        \
    "\"status\":{\"phase\":\"Running\",\"containerStatuses\":[{\"name\":\"app\",\"image\":\"sha256:0\"}]}}"
/* As it is written down below. */
#define POD_SEEN                                                                                                      \
    "shop/web-1 u-1 v7 n Running ReplicaSet=web L[app=web] A[tailrace.io/levels=debug] I[init=i:1 app=a:1 side=b:1]\n"

struct seen {
    struct buf text;
    int answer;
};

static bool keeps(void *ctx, bool is_annotation, struct slice name)
{
    (void)ctx;
    return is_annotation ? slice_starts(name, SLICE("tailrace.io/")) : slice_eq(name, SLICE("app"));
}

static void put_pairs(struct buf *b, char what, struct pairs p)
{
    assert_int_equal(buf_printf(b, " %c[", what), 0);
    for (size_t i = 0; i < p.n; i++)
        assert_int_equal(buf_printf(b, "%s%.*s=%.*s", i == 0 ? "" : " ", SLICE_ARGS(p.items[i].name),
                                    SLICE_ARGS(p.items[i].value)), 0);
    assert_int_equal(buf_append_byte(b, ']'), 0);
}

static int on_event(void *ctx, enum event_kind kind, const struct kube_object *o)
{
    static const char *const names[] = { "", "deleted ", "bookmark ", "status " };
    struct seen *s = ctx;
    assert_int_equal(buf_append_cstr(&s->text, names[kind]), 0);
    if (kind == EVENT_STATUS) {
        assert_int_equal(buf_printf(&s->text, "%lld %.*s: %.*s\n", (long long)o->code, SLICE_ARGS(o->reason),
                                    SLICE_ARGS(o->message)), 0);
        return s->answer;
    }
    if (kind == EVENT_BOOKMARK) {
        assert_int_equal(buf_printf(&s->text, "v%.*s%s\n", SLICE_ARGS(o->version), o->is_initial_end ? " end" : ""), 0);
        return s->answer;
    }
    assert_int_equal(buf_printf(&s->text, "%.*s/%.*s %.*s v%.*s %.*s %.*s %.*s=%.*s", SLICE_ARGS(o->namespace_),
                                SLICE_ARGS(o->name), SLICE_ARGS(o->uid), SLICE_ARGS(o->version), SLICE_ARGS(o->node),
                                SLICE_ARGS(o->phase), SLICE_ARGS(o->owner_kind), SLICE_ARGS(o->owner_name)), 0);
    put_pairs(&s->text, 'L', o->labels);
    put_pairs(&s->text, 'A', o->annotations);
    put_pairs(&s->text, 'I', o->images);
    assert_int_equal(buf_append_byte(&s->text, '\n'), 0);
    return s->answer;
}

static struct events *begin(enum event_form form, struct seen *s)
{
    const struct events_conf conf = { .form = form, .ctx = s, .keeps = keeps, .on_event = on_event };
    struct events *e;
    buf_init(&s->text, MIB);
    assert_int_equal(events_new(&conf, &e), 0);
    return e;
}

static const struct {
    enum event_form form;
    const char *text, *seen;
    int end;
} cases[] = {
    { EVENTS_OBJECT, POD, POD_SEEN, 0 },
    { EVENTS_LIST, "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"9\",\"continue\":\"c=\"},\"items\":[" POD "," POD "]}",
      POD_SEEN POD_SEEN, 0 },
    { EVENTS_LIST, "{\"items\":null,\"metadata\":{}}", "", 0 },
    { EVENTS_WATCH, "{\"type\":\"ADDED\",\"object\":" POD "}\n{\"type\":\"DELETED\",\"object\":" POD "}", POD_SEEN "deleted " POD_SEEN, 0 },
    { EVENTS_WATCH, "{\"object\":" POD ",\"type\":\"MODIFIED\"}", POD_SEEN, 0 },
    { EVENTS_WATCH, "{\"type\":\"NEW\",\"object\":" POD "}", "", 0 },
    { EVENTS_WATCH,
      "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"12\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}"
      "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"13\"}}}",
      "bookmark v12 end\nbookmark v13\n", 0 },
    { EVENTS_WATCH, "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"message\":\"old\"}}",
      "status 410 Expired: old\n", 0 },
    { EVENTS_OBJECT, "{\"kind\":\"Status\",\"status\":\"Failure\",\"message\":\"no\",\"reason\":\"Forbidden\",\"code\":403}",
      "status 403 Forbidden: no\n", 0 },
    { EVENTS_WATCH, "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x", "", -EBADMSG },
    { EVENTS_OBJECT, "{}garbage", "/  v   = L[] A[] I[]\n", -EBADMSG },
    { EVENTS_LIST, "<html>", "", -EBADMSG },
    { EVENTS_OBJECT, "[1,[2,{\"metadata\":{\"name\":\"x\"}}],\"a\"]", "", 0 },
    { EVENTS_OBJECT, "{\"metadata\":{\"labels\":{\"app\":{\"a\":\"b\"}},\"name\":[\"x\"],\"uid\":7,\"annotations\":null}}",
      "/  v   = L[] A[] I[]\n", 0 },
};

static int feed_in_two(const char *text, size_t cut, struct events *e)
{
    struct slice all = slice_cstr(text);
    int r = events_feed(e, slice_first(all, cut));
    r = r < 0 ? r : events_feed(e, slice_from(all, cut));
    return r < 0 ? r : events_end(e);
}

static void test_forms_cut_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t cut = 0; cut <= strlen(cases[i].text); cut++) {
            struct seen s = { 0 };
            struct events *e = begin(cases[i].form, &s);
            int r = feed_in_two(cases[i].text, cut, e);
            if (r != cases[i].end || !slice_eq(buf_slice(&s.text), slice_cstr(cases[i].seen)))
                fail_msg("case %zu cut at %zu: %d\n%.*s", i, cut, r, (int)s.text.len, s.text.ptr);
            events_free(e);
            buf_deinit(&s.text);
        }
}

static void test_a_list_says_its_version_and_its_next_page(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct events *e = begin(EVENTS_LIST, &s);
    assert_int_equal(feed_in_two(cases[1].text, 5, e), 0);
    assert_true(slice_eq(events_list_version(e), SLICE("9")));
    assert_true(slice_eq(events_list_continue(e), SLICE("c=")));
    events_free(e);
    buf_deinit(&s.text);
}

static void test_an_error_of_the_callback_ends_it(void **state)
{
    (void)state;
    struct seen s = { .answer = -ENOMEM };
    struct events *e = begin(EVENTS_LIST, &s);
    assert_int_equal(feed_in_two(cases[1].text, 5, e), -ENOMEM);
    assert_true(slice_eq(buf_slice(&s.text), SLICE(POD_SEEN)));
    assert_int_equal(events_feed(e, SLICE(" ")), -ENOMEM);
    events_free(e);
    buf_deinit(&s.text);
}

/* n times c between two texts. */
static int feed_long(enum event_form form, const char *before, char c, size_t n, const char *after, struct seen *s)
{
    struct events *e = begin(form, s);
    char *piece = malloc(n);
    assert_non_null(piece);
    memset(piece, c, n);
    int r = events_feed(e, slice_cstr(before));
    r = r < 0 ? r : events_feed(e, slice_of(piece, n));
    r = r < 0 ? r : events_feed(e, slice_cstr(after));
    r = r < 0 ? r : events_end(e);
    free(piece);
    events_free(e);
    return r;
}

static void test_what_is_long_or_deep(void **state)
{
    (void)state;
    struct seen s = { 0 };
    assert_int_equal(feed_long(EVENTS_OBJECT, "{\"a\":\"", 'x', MIB, "\"}", &s), 0);
    buf_deinit(&s.text);
    assert_int_equal(feed_long(EVENTS_OBJECT, "{\"a\":\"", 'x', EVENT_STRING_MAX + 1, "\"}", &s), -EBADMSG);
    assert_int_equal(s.text.len, 0);
    assert_int_equal(feed_long(EVENTS_OBJECT, "", '[', EVENT_DEPTH_MAX + 1, "", &s), -EBADMSG);
    assert_int_equal(feed_long(EVENTS_OBJECT, "{\"metadata\":{\"labels\":{\"app\":\"", 'x', EVENT_VALUE_MAX + 1, "\"}}}", &s), 0);
    assert_true(slice_eq(buf_slice(&s.text), SLICE("/  v   = L[] A[] I[]\n")));
    buf_deinit(&s.text);
}

/* A hundred megabytes of list: only what is kept is held. */
static void test_a_list_of_100_megabytes(void **state)
{
    (void)state;
    struct seen s = { 0 };
    struct events *e = begin(EVENTS_LIST, &s);
    char *env = malloc(64 * KIB);
    assert_non_null(env);
    memset(env, 'e', 64 * KIB);
    assert_int_equal(events_feed(e, SLICE("{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[")), 0);
    for (int i = 0; i < 1600; i++) {
        assert_int_equal(events_feed(e, i == 0 ? SLICE("{\"spec\":{\"x\":\"") : SLICE(",{\"spec\":{\"x\":\"")), 0);
        assert_int_equal(events_feed(e, slice_of(env, 64 * KIB)), 0);
        assert_int_equal(events_feed(e, SLICE("\"},\"metadata\":{\"name\":\"p\"}}")), 0);
    }
    assert_int_equal(events_feed(e, SLICE("]}")), 0);
    assert_int_equal(events_end(e), 0);
    assert_true(s.text.len > 0 && s.text.len < 64 * KIB);
    free(env);
    events_free(e);
    buf_deinit(&s.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_cut_anywhere),
        cmocka_unit_test(test_a_list_says_its_version_and_its_next_page),
        cmocka_unit_test(test_an_error_of_the_callback_ends_it),
        cmocka_unit_test(test_what_is_long_or_deep),
        cmocka_unit_test(test_a_list_of_100_megabytes),
    };
    return cmocka_run_group_tests_name("kube/events", tests, NULL, NULL);
}
