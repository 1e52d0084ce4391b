/*
 * Goal: our fields are in every document once, with our values; the payload's bytes are otherwise as they
 * were, and no way of writing a key puts the payload's value under one of our names. Method: lines through
 * the real scanner, whole outputs compared; then all documents read again by yajl's tree parser and walked
 * for forged values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yajl/yajl_tree.h>

#include "agent/base/stats.h"
#include "outputs/enrich.h"
#include "parsers/parser.h"

static const struct pair constants[] = { { SLICE_INIT("zone"), SLICE_INIT("b\"1") },
                                         { SLICE_INIT("message"),
                                           SLICE_INIT("never") },                    /* the payload's name */
                                         { SLICE_INIT("pod"), SLICE_INIT("never") }, /* ours already */
                                         { SLICE_INIT("empty"), SLICE_INIT("") } };

static const struct origin on_kubernetes = { .id = 1,
                                             .input = SLICE_INIT("pods"),
                                             .host = SLICE_INIT("h1"),
                                             .node = SLICE_INIT("n1"),
                                             .pod = SLICE_INIT("web-1"),
                                             .namespace_ = SLICE_INIT("shop"),
                                             .container = SLICE_INIT("app"),
                                             .service = SLICE_INIT("web"),
                                             .fields = { constants, ARRAY_LEN(constants) } };
static const struct origin on_host = { .id = 2, .host = SLICE_INIT("h1") };

#define OURS                                                                                                 \
    "\"pod\":\"web-1\",\"namespace\":\"shop\",\"tenant\":\"acme\",\"container_name\":\"app\",\"node_name\":" \
    "\"n1\","                                                                                                \
    "\"service_name\":\"web\",\"host_name\":\"h1\",\"zone\":\"b\\\"1\""
#define OURS_ECS                                                                                             \
    "\"kubernetes.pod.name\":\"web-1\",\"kubernetes.namespace\":\"shop\",\"organization.id\":\"acme\","      \
    "\"container.name\":\"app\",\"kubernetes.node.name\":\"n1\",\"service.name\":\"web\",\"host.name\":"     \
    "\"h1\","                                                                                                \
    "\"zone\":\"b\\\"1\",\"pod\":\"never\""

static const struct slice extra_names[] = { SLICE_INIT("@timestamp"), SLICE_INIT("zone") };

/* Reads line as the pipeline does, and enriches it. */
struct fixture {
    struct enricher *e;
    struct parser *parser;
    struct wanted_keys wanted;
    struct slice trusted[64];
    struct record rec;
    struct buf out;
    uint32_t altered;
};

static void start(struct fixture *f, enum enrich_style style)
{
    *f = (struct fixture){ .altered = 0 };
    size_t n;
    assert_int_equal(enricher_new(style, extra_names, 1, &f->e), 0);
    const struct slice *names = enricher_names(f->e, &n);
    memcpy(f->trusted, names, n * sizeof(*names));
    f->trusted[n++] = SLICE("zone"); /* as whoever knows the constants adds them */
    struct parser_conf conf = { .frame = FRAME_PLAIN,
                                .wanted = &f->wanted,
                                .trusted = f->trusted,
                                .n_trusted = n,
                                .find_duplicates = true,
                                .timezone = SLICE("UTC") };
    struct err err;
    assert_int_equal(parser_new(&conf, &f->parser, &err), 0);
    buf_init(&f->out, 8 * MIB);
}

static void stop(struct fixture *f)
{
    enricher_free(f->e);
    parser_free(f->parser);
    buf_deinit(&f->out);
}

static int enrich(struct fixture *f, const struct origin *o, struct slice line, unsigned flags,
                  const struct enrich_extra *extras, size_t n_extras)
{
    f->rec =
        (struct record){ .origin = o, .line = line, .read_ns = 1, .tenant = SLICE("acme"), .tenant_id = 1 };
    assert_int_equal(parser_record(f->parser, &f->rec, NULL, NULL), PARSE_OK);
    buf_reset(&f->out);
    f->altered = 0;
    return enrich_append(f->e, &f->rec, flags, extras, n_extras, &f->out, &f->altered);
}

static void assert_text(size_t i, const struct buf *out, struct slice want)
{
    if (!slice_eq(buf_slice(out), want))
        fail_msg("case %zu:\n  is   %.*s\n  want %.*s", i, SLICE_ARGS(buf_slice(out)), SLICE_ARGS(want));
}

static void assert_json(size_t i, struct buf *out)
{
    char error[256];
    assert_int_equal(buf_terminate(out), 0);
    assert_int_equal(strlen(out->ptr), out->len);
    assert_true(slice_find_byte(buf_slice(out), '\n') < 0);
    yajl_val tree = yajl_tree_parse(out->ptr, error, sizeof(error));
    if (tree == NULL)
        fail_msg("case %zu: %s\n%s", i, error, out->ptr);
    assert_true(YAJL_IS_OBJECT(tree));
    for (size_t k = 0; k < tree->u.object.len; k++)
        for (size_t m = 0; m < k; m++)
            if (strcmp(tree->u.object.keys[k], tree->u.object.keys[m]) == 0)
                fail_msg("case %zu: %s twice\n%s", i, tree->u.object.keys[k], out->ptr);
    yajl_tree_free(tree);
}

static const struct {
    struct slice line, want;
    bool is_altered;
} plain_cases[] = {
    { SLICE_INIT("{\"a\":1}"), SLICE_INIT("{\"a\":1," OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT("{}"), SLICE_INIT("{" OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT(" \t{ } \r"), SLICE_INIT("{ " OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT("  {\"a\": [1 , {\"pod\":2}] } "),
      SLICE_INIT("{\"a\": [1 , {\"pod\":2}] ," OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT("{\"level\":\"WARN\",\"x\":\"}\"}"),
      SLICE_INIT("{\"level\":\"WARN\",\"x\":\"}\"," OURS ",\"severity\":\"warn\"}"), false },
    { SLICE_INIT("{\"a\":\n1}"), SLICE_INIT("{\"a\": 1," OURS ",\"severity\":\"unknown\"}"), false },
    /* text */
    { SLICE_INIT("plain \"text\"\t\x01"),
      SLICE_INIT("{\"message\":\"plain \\\"text\\\"\\t\\u0001\"," OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT(""), SLICE_INIT("{\"message\":\"\"," OURS ",\"severity\":\"unknown\"}"), false },
    { SLICE_INIT("{\"a\":1"), SLICE_INIT("{\"message\":\"{\\\"a\\\":1\"," OURS ",\"severity\":\"unknown\"}"),
      false },
    { SLICE_INIT("bad \xff utf"),
      SLICE_INIT("{\"message\":\"bad \xef\xbf\xbd utf\"," OURS ",\"severity\":\"unknown\"}"), false },
    /* forged: plain, escaped, dotted, nested, twice */
    { SLICE_INIT("{\"pod\":\"evil\",\"a\":1}"),
      SLICE_INIT("{\"original_pod\":\"evil\",\"a\":1," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"a\":1, \"p\\u006fd\" : \"evil\"}"),
      SLICE_INIT("{\"a\":1, \"original_p\\u006fd\" : \"evil\"," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"pod.name\":\"evil\"}"),
      SLICE_INIT("{\"original_pod.name\":\"evil\"," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"pod\":{\"name\":\"evil\"}}"),
      SLICE_INIT("{\"original_pod\":{\"name\":\"evil\"}," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"pod\":\"e\",\"pod\":\"f\"}"),
      SLICE_INIT("{\"original_pod\":\"e\",\"original_2_pod\":\"f\"," OURS ",\"severity\":\"unknown\"}"),
      true },
    { SLICE_INIT("{\"pod\":\"e\",\"pod.x\":\"f\"}"),
      SLICE_INIT("{\"original_pod\":\"e\",\"original_2_pod.x\":\"f\"," OURS ",\"severity\":\"unknown\"}"),
      true },
    /* near misses are no clash */
    { SLICE_INIT("{\"pods\":1,\"po\":2,\"Pod\":3,\"x.pod\":4,\"pod_name\":5}"),
      SLICE_INIT("{\"pods\":1,\"po\":2,\"Pod\":3,\"x.pod\":4,\"pod_name\":5," OURS
                 ",\"severity\":\"unknown\"}"),
      false },
    /* an equal string stays theirs, and ours is not added again; a second one is renamed */
    { SLICE_INIT("{\"namespace\":\"shop\"}"),
      SLICE_INIT(
          "{\"namespace\":\"shop\",\"pod\":\"web-1\",\"tenant\":\"acme\",\"container_name\":\"app\",\"node_"
          "name\":\"n1\","
          "\"service_name\":\"web\",\"host_name\":\"h1\",\"zone\":\"b\\\"1\",\"severity\":\"unknown\"}"),
      false },
    { SLICE_INIT("{\"zone\":\"b\\u00221\",\"zone\":\"b\\\"1\"}"),
      SLICE_INIT("{\"zone\":\"b\\u00221\",\"original_zone\":\"b\\\"1\",\"pod\":\"web-1\",\"namespace\":"
                 "\"shop\",\"tenant\":\"acme\","
                 "\"container_name\":\"app\",\"node_name\":\"n1\",\"service_name\":\"web\",\"host_name\":"
                 "\"h1\",\"severity\":\"unknown\"}"),
      true },
    { SLICE_INIT("{\"severity\":\"info\"}"), SLICE_INIT("{\"severity\":\"info\"," OURS "}"), false },
    { SLICE_INIT("{\"severity\":\"INFO\"}"),
      SLICE_INIT("{\"original_severity\":\"INFO\"," OURS ",\"severity\":\"info\"}"), true },
    { SLICE_INIT("{\"tenant\":5}"), SLICE_INIT("{\"original_tenant\":5," OURS ",\"severity\":\"unknown\"}"),
      true },
    { SLICE_INIT("{\"tenant\":null}"),
      SLICE_INIT("{\"original_tenant\":null," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"zone\":\"a\"}"),
      SLICE_INIT("{\"original_zone\":\"a\"," OURS ",\"severity\":\"unknown\"}"), true },
    /* the new name is taken: plain, escaped, as a path, deep ones do not count */
    { SLICE_INIT("{\"pod\":1,\"original_pod\":2}"),
      SLICE_INIT("{\"original_2_pod\":1,\"original_pod\":2," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"original_p\\u006fd\":2,\"pod\":1}"),
      SLICE_INIT("{\"original_p\\u006fd\":2,\"original_2_pod\":1," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"original_pod.a\":2,\"pod\":1}"),
      SLICE_INIT("{\"original_pod.a\":2,\"original_2_pod\":1," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"original_pod\":2,\"pod.a\":1}"),
      SLICE_INIT("{\"original_pod\":2,\"original_2_pod.a\":1," OURS ",\"severity\":\"unknown\"}"), true },
    { SLICE_INIT("{\"x\":{\"original_pod\":2},\"y\":\"\\\"original_pod\\\":\",\"pod\":1}"),
      SLICE_INIT("{\"x\":{\"original_pod\":2},\"y\":\"\\\"original_pod\\\":\",\"original_pod\":1," OURS
                 ",\"severity\":\"unknown\"}"),
      true },
    /* no free name at all, or a name too long to prefix: text */
    { SLICE_INIT("{\"pod\":0,\"original_pod\":1,\"original_2_pod\":1,\"original_3_pod\":1,\"original_4_pod\":"
                 "1,\"original_5_pod\":1,"
                 "\"original_6_pod\":1,\"original_7_pod\":1,\"original_8_pod\":1,\"original_9_pod\":1}"),
      SLICE_INIT("{\"message\":\"{\\\"pod\\\":0,\\\"original_pod\\\":1,\\\"original_2_pod\\\":1,\\\"original_"
                 "3_pod\\\":1,"
                 "\\\"original_4_pod\\\":1,\\\"original_5_pod\\\":1,\\\"original_6_pod\\\":1,\\\"original_7_"
                 "pod\\\":1,"
                 "\\\"original_8_pod\\\":1,\\\"original_9_pod\\\":1}\"," OURS ",\"severity\":\"unknown\"}"),
      true },
};

static void plain(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    for (int round = 0; round < 2; round++) /* the second time from the cache */
        for (size_t i = 0; i < ARRAY_LEN(plain_cases); i++) {
            assert_int_equal(enrich(&f, &on_kubernetes, plain_cases[i].line, 0, NULL, 0), 0);
            assert_text(i, &f.out, plain_cases[i].want);
            assert_json(i, &f.out);
            assert_int_equal(f.altered, plain_cases[i].is_altered ? 1u << ALTER_KEY_CONFLICT : 0);
        }
    stop(&f);
}

static const struct {
    struct slice line, want;
} ecs_cases[] = {
    { SLICE_INIT("{\"a\":1}"), SLICE_INIT("{\"a\":1," OURS_ECS ",\"log.level\":\"unknown\"}") },
    { SLICE_INIT("{\"kubernetes\":{\"pod\":{\"name\":\"evil\"}}}"),
      SLICE_INIT("{\"original_kubernetes\":{\"pod\":{\"name\":\"evil\"}}," OURS_ECS
                 ",\"log.level\":\"unknown\"}") },
    { SLICE_INIT("{\"kubernetes.pod\":{\"name\":\"evil\"}}"),
      SLICE_INIT("{\"original_kubernetes.pod\":{\"name\":\"evil\"}," OURS_ECS
                 ",\"log.level\":\"unknown\"}") },
    { SLICE_INIT("{\"kubernetes\":{\"pod.name\":\"evil\"},\"kubernetes.pod.name\":\"evil\"}"),
      SLICE_INIT("{\"original_kubernetes\":{\"pod.name\":\"evil\"},\"original_2_kubernetes.pod.name\":"
                 "\"evil\"," OURS_ECS ",\"log.level\":\"unknown\"}") },
    { SLICE_INIT("{\"kubernetes.labels.app\":\"x\",\"host.ip\":\"10.0.0.1\"}"),
      SLICE_INIT("{\"kubernetes.labels.app\":\"x\",\"host.ip\":\"10.0.0.1\"," OURS_ECS
                 ",\"log.level\":\"unknown\"}") },
    { SLICE_INIT("{\"log.level\":\"info\",\"service.name\":\"web\"}"),
      SLICE_INIT("{\"log.level\":\"info\",\"service.name\":\"web\",\"kubernetes.pod.name\":\"web-1\","
                 "\"kubernetes.namespace\":\"shop\","
                 "\"organization.id\":\"acme\",\"container.name\":\"app\",\"kubernetes.node.name\":\"n1\","
                 "\"host.name\":\"h1\","
                 "\"zone\":\"b\\\"1\",\"pod\":\"never\"}") },
};

static void ecs(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_ECS);
    for (size_t i = 0; i < ARRAY_LEN(ecs_cases); i++) {
        assert_int_equal(enrich(&f, &on_kubernetes, ecs_cases[i].line, 0, NULL, 0), 0);
        assert_text(i, &f.out, ecs_cases[i].want);
        assert_json(i, &f.out);
    }
    stop(&f);
}

/* Off Kubernetes a payload may not pass for a pod either; a cluster and constants are reserved only where
 * they are set. */
static void reserved_where_empty(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    assert_int_equal(
        enrich(&f, &on_host, SLICE("{\"pod\":\"evil\",\"cluster\":\"c\",\"zone\":\"z\"}"), 0, NULL, 0), 0);
    assert_text(0, &f.out,
                SLICE("{\"original_pod\":\"evil\",\"cluster\":\"c\",\"zone\":\"z\",\"tenant\":\"acme\","
                      "\"host_name\":\"h1\","
                      "\"severity\":\"unknown\"}"));
    struct origin clustered = on_host;
    clustered.id = 3;
    clustered.cluster = SLICE("eu");
    assert_int_equal(enrich(&f, &clustered, SLICE("{\"cluster\":\"c\"}"), 0, NULL, 0), 0);
    assert_text(
        1, &f.out,
        SLICE("{\"original_cluster\":\"c\",\"tenant\":\"acme\",\"host_name\":\"h1\",\"cluster\":\"eu\","
              "\"severity\":\"unknown\"}"));
    stop(&f);
}

static void extras(void **state)
{
    (void)state;
    static const struct enrich_extra time = { SLICE_INIT("@timestamp"), SLICE_INIT("\"2026-01-02\"") };
    static const struct {
        struct slice line, want;
        size_t n;
    } cases[] = {
        { SLICE_INIT("{}"),
          SLICE_INIT("{\"tenant\":\"acme\",\"host_name\":\"h1\",\"severity\":\"unknown\",\"@timestamp\":"
                     "\"2026-01-02\"}"),
          1 },
        { SLICE_INIT("{\"@timestamp\":\"2026-01-02\"}"),
          SLICE_INIT("{\"@timestamp\":\"2026-01-02\",\"tenant\":\"acme\",\"host_name\":\"h1\",\"severity\":"
                     "\"unknown\"}"),
          1 },
        { SLICE_INIT("{\"@timestamp\":\"x\"}"),
          SLICE_INIT("{\"original_@timestamp\":\"x\",\"tenant\":\"acme\",\"host_name\":\"h1\",\"severity\":"
                     "\"unknown\",\"@timestamp\":\"2026-01-02\"}"),
          1 },
        { SLICE_INIT("{\"@timestamp\":{\"a\":1}}"),
          SLICE_INIT("{\"original_@timestamp\":{\"a\":1},\"tenant\":\"acme\",\"host_name\":\"h1\","
                     "\"severity\":\"unknown\",\"@timestamp\":\"2026-01-02\"}"),
          1 },
        { SLICE_INIT("{\"@timestamp\":\"x\"}"),
          SLICE_INIT(
              "{\"@timestamp\":\"x\",\"tenant\":\"acme\",\"host_name\":\"h1\",\"severity\":\"unknown\"}"),
          0 },
        { SLICE_INIT("text"),
          SLICE_INIT("{\"message\":\"text\",\"tenant\":\"acme\",\"host_name\":\"h1\",\"severity\":"
                     "\"unknown\",\"@timestamp\":\"2026-01-02\"}"),
          1 },
    };
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(enrich(&f, &on_host, cases[i].line, 0, &time, cases[i].n), 0);
        assert_text(i, &f.out, cases[i].want);
        assert_json(i, &f.out);
    }
    stop(&f);
}

static void as_text(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    struct slice twice = SLICE("{\"a\":{\"b\":1,\"\\u0062\":2}}");
    assert_int_equal(enrich(&f, &on_host, twice, ENRICH_NO_DUPLICATES, NULL, 0), 0);
    assert_text(0, &f.out,
                SLICE("{\"message\":\"{\\\"a\\\":{\\\"b\\\":1,\\\"\\\\u0062\\\":2}}\",\"tenant\":\"acme\","
                      "\"host_name\":\"h1\",\"severity\":\"unknown\"}"));
    assert_int_equal(f.altered, 1u << ALTER_KEY_CONFLICT);
    assert_int_equal(enrich(&f, &on_host, twice, 0, NULL, 0), 0);
    assert_true(slice_starts(buf_slice(&f.out), SLICE("{\"a\":{")));
    assert_int_equal(f.altered, 0);
    assert_int_equal(enrich(&f, &on_host, SLICE("{\"a\":1}"), ENRICH_AS_TEXT, NULL, 0), 0);
    assert_true(slice_starts(buf_slice(&f.out), SLICE("{\"message\":\"{\\\"a\\\":1}\",")));
    assert_int_equal(f.altered, 0);

    struct buf many;
    buf_init(&many, 64 * KIB);
    assert_int_equal(buf_append_byte(&many, '{'), 0);
    for (int i = 0; i <= SUSPECT_KEYS_MAX; i++)
        assert_int_equal(buf_printf(&many, "%s\"pod.%d\":1", i == 0 ? "" : ",", i), 0);
    assert_int_equal(buf_append_byte(&many, '}'), 0);
    assert_int_equal(enrich(&f, &on_host, buf_slice(&many), 0, NULL, 0), 0);
    assert_true(slice_starts(buf_slice(&f.out), SLICE("{\"message\":\"{\\\"pod.0\\\"")));
    assert_int_equal(f.altered, 1u << ALTER_KEY_CONFLICT);
    buf_deinit(&many);
    stop(&f);
}

static void members(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    assert_int_equal(enrich(&f, &on_kubernetes, SLICE("{\"namespace\":\"shop\"}"), 0, NULL, 0), 0);
    buf_reset(&f.out);
    assert_int_equal(enrich_append_message(&f.rec, &f.out), 0);
    assert_int_equal(enrich_append_members(f.e, &f.rec, &f.out), 0);
    assert_text(0, &f.out,
                SLICE("{\"message\":\"{\\\"namespace\\\":\\\"shop\\\"}\"," OURS ",\"severity\":\"unknown\""));
    stop(&f);
}

/* At every bound of the buffer: whole, or as it was. */
static void bounded(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    struct slice line = SLICE("{\"pod\":\"evil\",\"namespace\":\"shop\",\"a\":1}");
    assert_int_equal(enrich(&f, &on_kubernetes, line, 0, NULL, 0), 0);
    size_t whole = f.out.len;
    for (size_t max = 0; max < whole; max++) {
        struct buf small;
        uint32_t altered = 0;
        buf_init(&small, max + 4);
        assert_int_equal(buf_append_lit(&small, "kept"), 0);
        int r = enrich_append(f.e, &f.rec, 0, NULL, 0, &small, &altered);
        assert_int_equal(r, -ENOBUFS);
        assert_true(slice_eq(buf_slice(&small), SLICE("kept")));
        assert_int_equal(altered, 0);
        buf_deinit(&small);
    }
    stop(&f);
}

/* More origins than the cache has room for, and big ones: each record has its own origin's fields. */
static void many_origins(void **state)
{
    (void)state;
    static char big[2000];
    memset(big, 'x', sizeof(big));
    struct fixture f;
    start(&f, ENRICH_PLAIN);
    for (uint64_t i = 0; i < 6000; i++) {
        char pod[32], want[64];
        struct origin o = { .id = 100 + i % 3000, .namespace_ = slice_of(big, sizeof(big)) };
        o.pod = slice_of(pod, (size_t)snprintf(pod, sizeof(pod), "pod-%u", (unsigned)(i % 3000)));
        size_t n = (size_t)snprintf(want, sizeof(want), "{\"a\":1,\"pod\":\"%s\",", pod);
        assert_int_equal(enrich(&f, &o, SLICE("{\"a\":1}"), 0, NULL, 0), 0);
        assert_true(slice_starts(buf_slice(&f.out), slice_of(want, n)));
    }
    stop(&f);
}

/* Lines made of forgeries at random: whatever comes, one tree per line, no key twice, and no "evil" under a
 * name of ours. */
static void forgeries(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "\"pod\":\"evil\"",       "\"p\\u006fd\":\"evil\"",      "\"\\u0070\\u006f\\u0064\":\"evil\"",
        "\"pod.name\":\"evil\"",  "\"pod\":{\"name\":\"evil\"}", "\"namespace\":[\"evil\"]",
        "\"namespace\":\"shop\"", "\"tenant\":\"evil\"",         "\"tenant\":\"acme\"",
        "\"original_pod\":1",     "\"original_tenant.x\":1",     "\"original_2_pod\":2",
        "\"severity\":\"evil\"",  "\"original_p\\u006Fd\":3",    "\"zone\":\"evil\"",
        "\"original_zone\":{}",   "\"host_name\":true",          "\"\":1",
        "\"a\":{\"pod\":1}",
    };
    struct fixture f;
    uint64_t seed = 42;
    start(&f, ENRICH_PLAIN);
    for (size_t round = 0; round < 3000; round++) {
        struct buf line;
        unsigned used = 0;
        buf_init(&line, 4 * KIB);
        assert_int_equal(buf_append_byte(&line, '{'), 0);
        for (int k = 0; k < 6; k++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            unsigned i = (unsigned)(seed >> 33) % ARRAY_LEN(parts);
            bool is_forged = strstr(parts[i], "evil") != NULL;
            if ((used >> i & 1) != 0 && !is_forged)
                continue; /* what is no clash may not stand twice, or the twins would be the line's own */
            if ((i == 9 || i == 13) && (used & (1u << 9 | 1u << 13)) != 0)
                continue;
            if (line.len > 1)
                assert_int_equal(buf_append_byte(&line, ','), 0);
            used |= 1u << i;
            assert_int_equal(buf_append_cstr(&line, parts[i]), 0);
        }
        assert_int_equal(buf_append_byte(&line, '}'), 0);
        assert_int_equal(enrich(&f, &on_kubernetes, buf_slice(&line), 0, NULL, 0), 0);
        assert_json(round, &f.out);
        const char *path_pod[] = { "pod", NULL }, *path_tenant[] = { "tenant", NULL },
                   *path_ns[] = { "namespace", NULL };
        yajl_val tree = yajl_tree_parse(f.out.ptr, NULL, 0);
        assert_string_equal(YAJL_GET_STRING(yajl_tree_get(tree, path_pod, yajl_t_string)), "web-1");
        assert_string_equal(YAJL_GET_STRING(yajl_tree_get(tree, path_tenant, yajl_t_string)), "acme");
        assert_string_equal(YAJL_GET_STRING(yajl_tree_get(tree, path_ns, yajl_t_string)), "shop");
        yajl_tree_free(tree);
        buf_deinit(&line);
    }
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),   cmocka_unit_test(ecs),          cmocka_unit_test(reserved_where_empty),
        cmocka_unit_test(extras),  cmocka_unit_test(as_text),      cmocka_unit_test(members),
        cmocka_unit_test(bounded), cmocka_unit_test(many_origins), cmocka_unit_test(forgeries),
    };
    return cmocka_run_group_tests_name("outputs/enrich", tests, NULL, NULL);
}
