/*
 * Goal: documents and actions byte for byte, ids and names, wire bodies back into lines, the setup request.
 * Method: records made by hand as the parsers would; what the server must see is written out in full.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "outputs/es.h"

#define T0 INT64_C(1767323045678901234) /* 2026-01-02T03:04:05.678901234Z */

static struct wanted_keys wanted;

static struct template *parse(const char *text)
{
    struct template *t;
    struct err err;
    assert_int_equal(template_parse(slice_cstr(text), true, &wanted, &t, &err), 0);
    return t;
}

struct fixture {
    struct es_settings set;
    struct slice urls[2];
    struct output_conf conf;
    struct output *out;
    struct es *es;
};

static void fixture_init(struct fixture *f, const char *index)
{
    memset(f, 0, sizeof(*f));
    f->set.index = parse(index);
    f->set.data_stream.type = SLICE("logs");
    f->set.document.payload = SLICE("top");
    f->urls[0] = SLICE("https://es-1:9200/");
    f->urls[1] = SLICE("http://es-2:9200/base");
    f->conf = (struct output_conf){ .name = SLICE("search"), .type = &elasticsearch_type, .settings = &f->set,
                                    .host = SLICE("vm-1") };
    f->conf.queue.batch_bytes = 1 * MIB;
    f->conf.http.urls = (struct slices){ f->urls, 2 };
}

static void fixture_open(struct fixture *f)
{
    struct err err = { 0 };
    assert_int_equal(elasticsearch_ops.open(&f->conf, &f->out, &err), 0);
    f->es = (struct es *)f->out;
    f->es->salt = 0; /* golden ids on every machine */
}

static void fixture_deinit(struct fixture *f)
{
    elasticsearch_ops.close(f->out);
    template_free(f->set.index);
    template_free(f->set.data_stream.dataset);
    template_free(f->set.data_stream.namespace_);
}

static const struct pair constants[] = { { SLICE_INIT("zone"), SLICE_INIT("b") } };

static struct origin an_origin(void)
{
    return (struct origin){ .id = 1, .host = SLICE("vm-1"), .pod = SLICE("p-1"), .service = SLICE("shop") };
}

static struct record a_record(const struct origin *o, enum record_kind kind, struct slice line)
{
    struct record rec = { .origin = o, .incarnation = UINT64_C(0x0102030405060708), .offset = 0x0a0b0c, .read_ns = T0,
                          .kind = kind, .line = line, .level = LEVEL_INFO, .message = SLICE("hi"), .time_ns = T0,
                          .flags = RECORD_HAS_TIME, .tenant = SLICE("acme"), .tenant_id = 3 };
    return rec;
}

/* Points a suspect at the member whose key, quotes included, is key. */
static void suspect(struct record *rec, const char *key, const char *decoded, enum value_kind kind, const char *value)
{
    struct suspect *s = &rec->suspects[rec->n_suspects++];
    ptrdiff_t k = slice_find(rec->line, slice_cstr(key));
    ptrdiff_t v = slice_find(slice_from(rec->line, (size_t)k), slice_cstr(value));
    assert_true(k >= 0 && v >= 0);
    *s = (struct suspect){ .key_start = (uint32_t)k, .key_end = (uint32_t)((size_t)k + strlen(key)),
                           .value_start = (uint32_t)(k + v), .value_end = (uint32_t)((size_t)(k + v) + strlen(value)),
                           .key = slice_cstr(decoded), .value = { .kind = kind } };
    if (kind == VALUE_STRING)
        s->value.text = slice_of(value + 1, strlen(value) - 2);
}

static struct body *append_one(struct fixture *f, const struct record *rec)
{
    struct append_result res;
    assert_int_equal(elasticsearch_ops.append(f->out, rec, &res), 0);
    assert_non_null(res.body);
    return res.body;
}

static void assert_slice(struct slice got, const char *want)
{
    if (!slice_eq(got, slice_cstr(want)))
        fail_msg("got  %.*s\nwant %s", SLICE_ARGS(got), want);
}

#define ID "AQIDBAUGBwgAAAAKCww"
#define TAIL ",\"pod\":\"p-1\",\"tenant\":\"acme\",\"service_name\":\"shop\",\"host_name\":\"vm-1\",\"severity\":\"info\""
#define STAMP ",\"@timestamp\":\"2026-01-02T03:04:05.678901234Z\""
#define ACTION "{\"create\":{\"_index\":\"tailrace-acme-2026.01.02\",\"_id\":\"" ID "\"}}\n"
#define TEXT_ACTION "{\"create\":{\"_id\":\"" ID "\",\"_index\":\"tailrace-acme-2026.01.02\"}}\n"

static void take(struct fixture *f, struct body *b)
{
    bodies_take(&f->out->open, b);
    body_free(b);
}

static void check_document(struct fixture *f, const struct record *rec, const char *want)
{
    struct body *b = append_one(f, rec);
    assert_slice(buf_slice(&b->raw), want);
    assert_int_equal(b->lines, 1);
    assert_int_equal(b->raw_bytes, b->raw.len);
    assert_int_equal(f->out->open.raw_bytes, b->raw.len);
    assert_int_equal(b->route.len, 0);
    take(f, b);
}

static void test_documents(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    fixture_init(&f, "tailrace-{tenant}-%Y.%m.%d");
    fixture_open(&f);

    struct record rec = a_record(&o, RECORD_JSON, SLICE("{\"level\":\"INFO\",\"msg\":\"hi\"}"));
    check_document(&f, &rec, ACTION "{\"level\":\"INFO\",\"msg\":\"hi\"" TAIL STAMP "}\n");

    rec = a_record(&o, RECORD_TEXT, SLICE("plain \"text\""));
    check_document(&f, &rec, TEXT_ACTION "{\"message\":\"plain \\\"text\\\"\"" TAIL STAMP "}\n");

    rec = a_record(&o, RECORD_JSON, SLICE("{\"a\":1,\"a\":2}"));
    rec.flags |= RECORD_DUPLICATE_KEYS;
    check_document(&f, &rec, TEXT_ACTION "{\"message\":\"{\\\"a\\\":1,\\\"a\\\":2}\"" TAIL STAMP "}\n");

    /* Its own good @timestamp stays and ours is not added. */
    rec = a_record(&o, RECORD_JSON, SLICE("{\"@timestamp\":\"2026-01-02T04:04:05+01:00\",\"a\":1}"));
    suspect(&rec, "\"@timestamp\"", "@timestamp", VALUE_STRING, "\"2026-01-02T04:04:05+01:00\"");
    check_document(&f, &rec, ACTION "{\"@timestamp\":\"2026-01-02T04:04:05+01:00\",\"a\":1" TAIL "}\n");

    /* A bad one is kept aside. */
    rec = a_record(&o, RECORD_JSON, SLICE("{\"@timestamp\":\"yesterday\",\"a\":1}"));
    suspect(&rec, "\"@timestamp\"", "@timestamp", VALUE_STRING, "\"yesterday\"");
    check_document(&f, &rec, ACTION "{\"original_@timestamp\":\"yesterday\",\"a\":1" TAIL STAMP "}\n");

    rec = a_record(&o, RECORD_JSON, SLICE("{\"@timestamp\":1767323045678}"));
    suspect(&rec, "\"@timestamp\"", "@timestamp", VALUE_NUMBER, "1767323045678");
    check_document(&f, &rec, ACTION "{\"original_@timestamp\":1767323045678" TAIL STAMP "}\n");

    /* Before 1970: date_nanos would refuse it. */
    rec = a_record(&o, RECORD_TEXT, SLICE("old"));
    rec.time_ns = -1;
    check_document(&f, &rec, "{\"create\":{\"_id\":\"" ID "\",\"_index\":\"tailrace-acme-1969.12.31\"}}\n"
                             "{\"message\":\"old\"" TAIL STAMP "}\n");
    fixture_deinit(&f);
}

static void test_constants_and_ecs(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    o.fields = (struct pairs){ constants, 1 };
    fixture_init(&f, "t");
    f.set.document.names = ENRICH_ECS;
    fixture_open(&f);
    struct record rec = a_record(&o, RECORD_JSON, SLICE("{}"));
    check_document(&f, &rec,
                   "{\"create\":{\"_index\":\"t\",\"_id\":\"" ID "\"}}\n"
                   "{\"kubernetes.pod.name\":\"p-1\",\"organization.id\":\"acme\",\"service.name\":\"shop\","
                   "\"host.name\":\"vm-1\",\"zone\":\"b\",\"log.level\":\"info\"" STAMP "}\n");
    fixture_deinit(&f);
}

static void test_payload_under_key(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    fixture_init(&f, "t-{record.org|'none'}");
    f.set.document.payload = SLICE("event");
    fixture_open(&f);
    struct record rec = a_record(&o, RECORD_JSON, SLICE(" {\"level\":30,\n\"pod\":\"forged\"} "));
    suspect(&rec, "\"pod\"", "pod", VALUE_STRING, "\"forged\"");
    check_document(&f, &rec,
                   "{\"create\":{\"_index\":\"t-none\",\"_id\":\"" ID "\"}}\n"
                   "{\"@timestamp\":\"2026-01-02T03:04:05.678901234Z\",\"message\":\"hi\","
                   "\"event\":{\"level\":30, \"pod\":\"forged\"}" TAIL "}\n");
    rec = a_record(&o, RECORD_TEXT, SLICE("x"));
    rec.values[0] = (struct value){ VALUE_STRING, SLICE("Org/1") };
    check_document(&f, &rec,
                   "{\"create\":{\"_id\":\"" ID "\",\"_index\":\"t-org_1\"}}\n{\"message\":\"x\"" TAIL STAMP "}\n");
    fixture_deinit(&f);
}

static void test_data_stream(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    fixture_init(&f, "tailrace-{tenant}-%Y.%m.%d");
    f.set.data_stream.dataset = parse("{service}");
    fixture_open(&f);
    o.service = SLICE("My-Shop");
    struct record rec = a_record(&o, RECORD_TEXT, SLICE("x"));
    struct body *b = append_one(&f, &rec);
    assert_true(slice_find(buf_slice(&b->raw), SLICE("\"_index\":\"logs-my_shop-default\"")) > 0);
    take(&f, b);
    o.service = SLICE("");
    o.id = 2;
    b = append_one(&f, &rec);
    assert_true(slice_find(buf_slice(&b->raw), SLICE("\"_index\":\"logs-generic-default\"")) > 0);
    fixture_deinit(&f);
}

/* The name is cached by file, tenant and day: each change must be seen. */
static void test_index_follows_the_record(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    fixture_init(&f, "t-{tenant}-{service}-%d");
    fixture_open(&f);
    struct record rec = a_record(&o, RECORD_TEXT, SLICE("x"));
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-acme-shop-02");
    rec.time_ns += 86400 * NS_PER_SEC;
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-acme-shop-03");
    rec.tenant = SLICE("globex");
    rec.tenant_id = 4;
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-globex-shop-03");
    o.id = 9;
    o.service = SLICE("cart");
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-globex-cart-03");
    fixture_deinit(&f);

    fixture_init(&f, "t-{level}-%H%M%S");
    fixture_open(&f);
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-info-030405");
    rec.time_ns += NS_PER_SEC;
    rec.level = LEVEL_WARN;
    append_one(&f, &rec);
    assert_slice(buf_slice(&f.es->index), "t-warn-030406");
    fixture_deinit(&f);
}

static void test_ids(void **state)
{
    (void)state;
    static const struct { uint64_t incarnation, salt, offset; const char *want; } cases[] = {
        { 0, 0, 0, "AAAAAAAAAAAAAAAAAAA" },
        { UINT64_C(0x0102030405060708), 0, 0x0a0b0c, ID },
        { UINT64_C(0x0102030405060708), UINT64_C(0x0102030405060708), 1, "AAAAAAAAAAAAAAAAAAE" },
        { UINT64_MAX, 0, UINT64_C(0xffffffffffff), "__________________8" },
        { UINT64_MAX, 0, UINT64_MAX, "__________________8" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char id[ES_ID_LEN];
        es_make_id(cases[i].incarnation, cases[i].salt, cases[i].offset, id);
        assert_slice(slice_of(id, sizeof(id)), cases[i].want);
    }
}

static void test_index_names(void **state)
{
    (void)state;
    static const struct { struct slice in; const char *want; } cases[] = {
        { SLICE_INIT("logs-app"), "logs-app" },
        { SLICE_INIT("Logs APP"), "logs_app" },
        { SLICE_INIT("a\\b/c*d?e\"f<g>h|i j,k#l:m"), "a_b_c_d_e_f_g_h_i_j_k_l_m" },
        { SLICE_INIT("a\tb\x7f\nc"), "a_b__c" },
        { SLICE_INIT("a\0b"), "a_b" },
        { SLICE_INIT("-_+.x"), "x" },
        { SLICE_INIT(".security"), "security" },
        { SLICE_INIT("."), "tailrace" },
        { SLICE_INIT(".."), "tailrace" },
        { SLICE_INIT(""), "tailrace" },
        { SLICE_INIT("---"), "tailrace" },
        { SLICE_INIT("/x"), "xx" },
        { SLICE_INIT("\0"), "x" },
        { SLICE_INIT("caf\xc3\x89-1"), "caf_-1" },
        { SLICE_INIT("\xff\xfe"), "x_" },
        { SLICE_INIT("a-_+.b"), "a-_+.b" },
        { SLICE_INIT("..\xc3\x89x"), "xx" },
    };
    struct buf out;
    buf_init(&out, 4 * KIB);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_reset(&out);
        assert_int_equal(es_clean_index(cases[i].in, &out), 0);
        assert_slice(buf_slice(&out), cases[i].want);
    }
    char big[1000];
    memset(big, 'A', sizeof(big));
    buf_reset(&out);
    assert_int_equal(es_clean_index(slice_of(big, sizeof(big)), &out), 0);
    assert_int_equal(out.len, ES_INDEX_MAX);
    assert_int_equal(out.ptr[254], 'a');
    buf_reset(&out);
    assert_int_equal(es_clean_part(SLICE("My-data set"), SLICE("d"), &out), 0);
    assert_slice(buf_slice(&out), "my_data_set");
    buf_reset(&out);
    assert_int_equal(es_clean_part(SLICE(""), SLICE("d"), &out), 0);
    assert_slice(buf_slice(&out), "d");
    buf_reset(&out);
    assert_int_equal(es_clean_part(slice_of(big, sizeof(big)), SLICE("d"), &out), 0);
    assert_int_equal(out.len, ES_PART_MAX);
    buf_deinit(&out);
}

static void test_timestamps(void **state)
{
    (void)state;
    static const char *const good[] = { "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1Z", "2024-02-29T23:59:59.123456789Z",
                                        "2026-01-02T03:04:05+02:00", "2026-01-02T03:04:05.5-18:00" };
    static const char *const bad[] = { "", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "2026-02-29T03:04:05Z",
                                       "2026-13-02T03:04:05Z", "2026-01-02T24:04:05Z", "2026-01-02T03:60:05Z",
                                       "2026-01-02T03:04:60Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05.1234567890Z",
                                       "2026-01-02T03:04:05+0200", "2026-01-02T03:04:05+18:01", "1969-12-31T23:59:59Z",
                                       "2262-01-01T00:00:00Z", "2026-01-02T03:04:05z", "2026-01-02T03:04:05Zx",
                                       "2026-01-02T03:04:05,1Z", "2026-01-00T03:04:05Z", "2026-01-02T03:04:05+2:000" };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(es_is_good_timestamp(slice_cstr(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (es_is_good_timestamp(slice_cstr(bad[i])))
            fail_msg("taken: %s", bad[i]);
    for (size_t n = 0; n < strlen(good[2]); n++) { /* cut at every byte, flush against the end of its block */
        char *copy = malloc(n + 1);
        memcpy(copy, good[2], n);
        assert_false(es_is_good_timestamp(slice_of(copy, n)));
        free(copy);
    }
}

static void test_request(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "t");
    fixture_open(&f);
    struct http_request req = { 0 };
    buf_init(&req.url, 4 * KIB);
    buf_init(&req.headers, 4 * KIB);
    assert_int_equal(elasticsearch_ops.request(f.out, SLICE(""), 0, &req), 0);
    assert_slice(buf_slice(&req.url),
                 "https://es-1:9200/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason");
    assert_slice(buf_slice(&req.headers), "Content-Type: application/x-ndjson\nContent-Encoding: gzip\n");
    assert_string_equal(req.method, "POST");
    buf_reset(&req.url);
    assert_int_equal(elasticsearch_ops.request(f.out, SLICE(""), 1, &req), 0);
    assert_true(slice_starts(buf_slice(&req.url), SLICE("http://es-2:9200/base/_bulk?")));
    assert_int_equal(elasticsearch_ops.request(f.out, SLICE(""), 2, &req), -EINVAL);
    buf_deinit(&req.url);
    buf_deinit(&req.headers);
    fixture_deinit(&f);
}

#define MAPPINGS                                                                                                       \
    "\"_meta\":{\"managed_by\":\"tailrace\"},\"template\":{\"mappings\":{\"date_detection\":false,"                     \
    "\"numeric_detection\":false,\"dynamic_templates\":[{\"sentences\":{\"match_mapping_type\":\"string\","             \
    "\"match_pattern\":\"regex\",\"match\":\"^(message|msg|event|text|log|body|error|err|exception|exc_info|stack|"     \
    "stack_trace|backtrace)$\",\"mapping\":{\"type\":\"text\",\"fields\":{\"keyword\":{\"type\":\"keyword\","           \
    "\"ignore_above\":1024}}}}},{\"strings\":{\"match_mapping_type\":\"string\","                                       \
    "\"mapping\":{\"type\":\"keyword\",\"ignore_above\":1024}}}],\"properties\":{\"@timestamp\":{\"type\":"             \
    "\"date_nanos\"},\"message\":{\"type\":\"text\"}"

static const struct {
    const char *index, *dataset, *namespace_, *payload;
    unsigned step;
    const char *url, *body; /* NULL: no request */
} setups[] = {
    { "tailrace-{tenant}-%Y.%m.%d", NULL, NULL, "top", 0, "https://es-1:9200/_index_template/tailrace",
      "{\"index_patterns\":[\"tailrace-*\"],\"priority\":501," MAPPINGS "}}}}" },
    { "tailrace-{tenant}-%Y.%m.%d", NULL, NULL, "top", 1, NULL, NULL },
    { "App Logs-%Y", NULL, NULL, "event", 0, "https://es-1:9200/_index_template/tailrace-app_logs-",
      "{\"index_patterns\":[\"app_logs-*\"],\"priority\":501," MAPPINGS ",\"event\":{\"type\":\"flat_object\"}}}}}" },
    { "App Logs-%Y", NULL, NULL, "event", 1, "https://es-1:9200/_index_template/tailrace-app_logs-",
      "{\"index_patterns\":[\"app_logs-*\"],\"priority\":501," MAPPINGS
      ",\"event\":{\"type\":\"flattened\",\"ignore_above\":1024}}}}}" },
    { "App Logs-%Y", NULL, NULL, "event", 2, NULL, NULL },
    { "fixed", NULL, NULL, "top", 0, "https://es-1:9200/_index_template/tailrace-fixed",
      "{\"index_patterns\":[\"fixed\"],\"priority\":501," MAPPINGS "}}}}" },
    { "{tenant}-logs", NULL, NULL, "top", 0, NULL, NULL },
    { "ab{tenant}", NULL, NULL, "top", 0, NULL, NULL },
    { "x", "shop", "{tenant}", "top", 0, "https://es-1:9200/_index_template/tailrace-logs-shop-",
      "{\"index_patterns\":[\"logs-shop-*\"],\"priority\":501,\"data_stream\":{}," MAPPINGS "}}}}" },
    /* All of logs-*-*: below the built-in template of Elasticsearch. */
    { "x", "{service}", NULL, "top", 0, "https://es-1:9200/_index_template/tailrace-logs--default",
      "{\"index_patterns\":[\"logs-*-default\"],\"priority\":99,\"data_stream\":{}," MAPPINGS "}}}}" },
};

static void test_setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(setups); i++) {
        struct fixture f;
        struct http_request req = { 0 };
        struct buf body;
        fixture_init(&f, setups[i].index);
        if (setups[i].dataset != NULL)
            f.set.data_stream.dataset = parse(setups[i].dataset);
        if (setups[i].namespace_ != NULL)
            f.set.data_stream.namespace_ = parse(setups[i].namespace_);
        f.set.document.payload = slice_cstr(setups[i].payload);
        fixture_open(&f);
        buf_init(&req.url, 4 * KIB);
        buf_init(&req.headers, 4 * KIB);
        buf_init(&body, 16 * KIB);
        bool has = elasticsearch_ops.setup_request(f.out, setups[i].step, 0, &req, &body);
        assert_int_equal(has, setups[i].url != NULL);
        if (has) {
            assert_slice(buf_slice(&req.url), setups[i].url);
            assert_slice(buf_slice(&body), setups[i].body);
            assert_string_equal(req.method, "PUT");
        }
        f.set.template_ = ES_TEMPLATE_OFF;
        assert_false(elasticsearch_ops.setup_request(f.out, 0, 0, &req, &body));
        buf_deinit(&req.url);
        buf_deinit(&req.headers);
        buf_deinit(&body);
        fixture_deinit(&f);
    }
}

static void count_warning(void *ctx, const char *text)
{
    assert_true(strlen(text) > 0);
    ++*(int *)ctx;
}

static void test_validate(void **state)
{
    (void)state;
    static const struct { const char *index, *dataset, *payload, *url; int want, n_warnings; } cases[] = {
        { "tailrace-{tenant}-%Y.%m.%d", NULL, "top", "http://x", 0, 0 },
        { "logs-{tenant}-%Y.%m.%d", NULL, "top", "http://x", 0, 1 },
        { "logs-%Y", NULL, "top", "http://x", 0, 0 },
        { "{tenant}", NULL, "top", "http://x", 0, 1 },
        { "tailrace-{tenant}-%Y.%m.%d", "x", "top", "http://x", 0, 0 },
        { "other", "x", "top", "http://x", -EINVAL, 0 },
        { "other", NULL, "event", "http://x", 0, 0 },
        { "other", NULL, "message", "http://x", -EINVAL, 0 },
        { "other", NULL, "@timestamp", "http://x", -EINVAL, 0 },
        { "other", NULL, "pod", "http://x", -EINVAL, 0 },
        { "other", NULL, "a.b", "http://x", -EINVAL, 0 },
        { "other", NULL, "", "http://x", -EINVAL, 0 },
        { "other", NULL, "_id", "http://x", -EINVAL, 0 },
        { "other", NULL, "top", "http://x/?a=b", -EINVAL, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        struct err err = { 0 };
        int n = 0;
        fixture_init(&f, cases[i].index);
        if (cases[i].dataset != NULL)
            f.set.data_stream.dataset = parse(cases[i].dataset);
        f.set.document.payload = slice_cstr(cases[i].payload);
        f.urls[0] = slice_cstr(cases[i].url);
        assert_int_equal(elasticsearch_type.validate(&f.conf, count_warning, &n, &err), cases[i].want);
        assert_int_equal(n, cases[i].n_warnings);
        assert_int_equal(err.text[0] != '\0', cases[i].want != 0);
        template_free(f.set.index);
        template_free(f.set.data_stream.dataset);
    }
}

/* ---- wire bodies ---- */

static void seal(struct fixture *f, struct body *b, struct buf *wire)
{
    buf_init(wire, 64 * MIB);
    assert_int_equal(elasticsearch_ops.seal(f->out, b, wire), 0);
}

static uint64_t rnd_state = 42;
static uint64_t rnd(void)
{
    rnd_state = rnd_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return rnd_state >> 33;
}

/* A random line of any bytes, as text. */
static void random_line(struct buf *line)
{
    buf_reset(line);
    for (size_t n = rnd() % 200; n > 0; n--)
        assert_int_equal(buf_append_byte(line, (char)(rnd() % 4 == 0 ? rnd() : 32 + rnd() % 90)), 0);
}

static void test_wire_round_trip(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    struct buf line, wire, again, raw;
    fixture_init(&f, "t-{tenant}");
    fixture_open(&f);
    buf_init(&line, 4 * KIB);
    buf_init(&again, 64 * MIB);
    buf_init(&raw, 64 * MIB);
    struct body *b = NULL;
    for (int i = 0; i < 500; i++) {
        random_line(&line);
        struct record rec = a_record(&o, RECORD_TEXT, buf_slice(&line));
        rec.offset = (uint64_t)i;
        rec.tenant = i % 3 == 0 ? SLICE("a") : SLICE("b");
        rec.tenant_id = i % 3 == 0;
        b = append_one(&f, &rec);
    }
    assert_int_equal(b->n_rows, 2);
    seal(&f, b, &wire);
    assert_true(b->runs.len > 0);

    struct items it = { 0 };
    assert_int_equal(elasticsearch_ops.items(f.out, buf_slice(&wire), SLICE(""), &it), 0);
    assert_int_equal(it.n, 500);
    assert_slice(it.item[0].key, "t-a");
    assert_slice(it.item[1].key, "t-b");
    assert_int_equal(it.item[7].id.len, ES_ID_LEN);
    assert_true(es_item_is_text(&it.item[0]));

    uint8_t choose[500];
    memset(choose, 1, sizeof(choose));
    assert_int_equal(elasticsearch_ops.build(f.out, &it, choose, false, &again), 0);
    assert_int_equal(gzip_decompress(buf_slice(&again), &raw), 0);
    assert_true(slice_eq(buf_slice(&raw), buf_slice(&b->raw)));

    /* Two bodies joined are one body. */
    struct slice two[] = { buf_slice(&wire), buf_slice(&again) };
    struct buf joined;
    buf_init(&joined, 64 * MIB);
    assert_int_equal(elasticsearch_ops.join(f.out, two, 2, &joined), 0);
    items_deinit(&it);
    assert_int_equal(elasticsearch_ops.items(f.out, buf_slice(&joined), SLICE(""), &it), 0);
    assert_int_equal(it.n, 1000);
    struct buf text;
    buf_init(&text, 64 * MIB);
    assert_int_equal(elasticsearch_ops.print(f.out, &it, &text), 0);
    size_t n_lines = 0;
    for (size_t i = 0; i < text.len; i++)
        n_lines += text.ptr[i] == '\n';
    assert_int_equal(n_lines, 1000);
    items_deinit(&it);
    for (size_t n = 0; n < wire.len; n += 97) /* cut anywhere: refused, not crashed */
        assert_int_equal(elasticsearch_ops.items(f.out, slice_first(buf_slice(&wire), n), SLICE(""), &it), -EBADMSG);
    buf_deinit(&text);
    buf_deinit(&joined);
    buf_deinit(&wire);
    buf_deinit(&again);
    buf_deinit(&raw);
    buf_deinit(&line);
    fixture_deinit(&f);
}

static void test_bad_wires(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "x", "{}\n{}\n", ACTION, ACTION "{}", "{\"create\":{\"_index\":\"\",\"_id\":\"x\"}}\n{}\n",
        "{\"create\":{\"_index\":\"a\",\"_id\":\"x\"}}x\n{}\n", "{\"create\":{\"_index\":\"a\"b\",\"_id\":\"x\"}}\n{}\n",
        "{\"index\":{\"_index\":\"a\",\"_id\":\"x\"}}\n{}\n", ACTION "[1]\n", ACTION "{\n", ACTION "\n",
    };
    struct fixture f;
    struct buf wire;
    fixture_init(&f, "t");
    fixture_open(&f);
    buf_init(&wire, 64 * KIB);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct items it = { 0 };
        buf_reset(&wire);
        assert_int_equal(gzip_compress(f.es->gzip, slice_cstr(bad[i]), SLICE(""), &wire), 0);
        assert_int_equal(elasticsearch_ops.items(f.out, buf_slice(&wire), SLICE(""), &it), -EBADMSG);
        assert_null(it.item);
    }
    buf_deinit(&wire);
    fixture_deinit(&f);
}

static void check_as_text(struct fixture *f, const char *pair, const char *want)
{
    struct buf wire, again, raw;
    struct items it = { 0 };
    buf_init(&wire, 64 * KIB);
    buf_init(&again, 64 * KIB);
    buf_init(&raw, 64 * KIB);
    assert_int_equal(gzip_compress(f->es->gzip, slice_cstr(pair), SLICE(""), &wire), 0);
    assert_int_equal(elasticsearch_ops.items(f->out, buf_slice(&wire), SLICE(""), &it), 0);
    assert_int_equal(elasticsearch_ops.build(f->out, &it, (const uint8_t[]){ 1 }, true, &again), 0);
    assert_int_equal(gzip_decompress(buf_slice(&again), &raw), 0);
    assert_slice(buf_slice(&raw), want);
    items_deinit(&it);

    /* What is text stays as it is. */
    assert_int_equal(elasticsearch_ops.items(f->out, buf_slice(&again), SLICE(""), &it), 0);
    assert_true(es_item_is_text(&it.item[0]));
    buf_reset(&wire);
    buf_reset(&raw);
    assert_int_equal(elasticsearch_ops.build(f->out, &it, (const uint8_t[]){ 1 }, true, &wire), 0);
    assert_int_equal(gzip_decompress(buf_slice(&wire), &raw), 0);
    assert_slice(buf_slice(&raw), want);
    items_deinit(&it);
    buf_deinit(&wire);
    buf_deinit(&again);
    buf_deinit(&raw);
}

static void test_as_text(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "t");
    fixture_open(&f);
    check_as_text(&f, ACTION "{\"level\":30,\"a\":{\"b\":[1,\"}\"]}" TAIL STAMP "}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"level\\\":30,\\\"a\\\":{\\\"b\\\":[1,\\\"}\\\"]}}\"" TAIL STAMP "}\n");
    /* The payload's own @timestamp in front stays the time. */
    check_as_text(&f, ACTION "{\"@timestamp\":\"2026-01-02T03:04:05Z\" , \"x\" : null" TAIL "}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"@timestamp\\\":\\\"2026-01-02T03:04:05Z\\\" , \\\"x\\\" : null}\","
                              "\"@timestamp\":\"2026-01-02T03:04:05Z\"" TAIL "}\n");
    /* A constant that we do not know here: nothing is lost, some of ours stay in the text. */
    check_as_text(&f, ACTION "{\"a\":\"\\\"\",\"pod\":\"p\",\"zone\":\"b\",\"severity\":\"info\"}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"a\\\":\\\"\\\\\\\"\\\",\\\"pod\\\":\\\"p\\\",\\\"zone\\\":\\\"b\\\"}\","
                              "\"pod\":\"p\",\"severity\":\"info\"}\n");
    /* A name twice, whatever the reason: the last one is ours. */
    check_as_text(&f, ACTION "{\"@timestamp\":\"x\",\"a\":1,\"@timestamp\":\"y\"}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"@timestamp\\\":\\\"x\\\",\\\"a\\\":1}\",\"@timestamp\":\"y\"}\n");
    /* Nothing but ours: all of it. */
    check_as_text(&f, ACTION "{\"severity\":\"info\"}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"severity\\\":\\\"info\\\"}\",\"severity\":\"info\"}\n");
    fixture_deinit(&f);

    fixture_init(&f, "t");
    f.set.document.payload = SLICE("event");
    fixture_open(&f);
    check_as_text(&f, ACTION "{\"@timestamp\":\"T\",\"message\":\"hi\",\"event\":{\"level\":30}" TAIL "}\n",
                  TEXT_ACTION "{\"message\":\"{\\\"level\\\":30}\",\"@timestamp\":\"T\"" TAIL "}\n");
    fixture_deinit(&f);
}

/* Random bytes instead of a document never crash build(), and no byte of them is lost. */
static void test_as_text_of_anything(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\",:\\ abpod1";
    struct fixture f;
    struct buf out;
    fixture_init(&f, "t");
    fixture_open(&f);
    buf_init(&out, 64 * KIB);
    for (int i = 0; i < 20000; i++) {
        size_t n = 2 + rnd() % 30;
        char *doc = malloc(n);
        for (size_t k = 0; k < n; k++)
            doc[k] = alphabet[rnd() % (sizeof(alphabet) - 1)];
        doc[0] = '{';
        doc[n - 1] = '}';
        struct item item = { .key = SLICE("t"), .id = SLICE(ID), .head = SLICE("{\"create\":{\"_index\":\"t\"}}"),
                             .data = slice_of(doc, n) };
        struct items it = { .item = &item, .n = 1 };
        buf_reset(&out);
        assert_int_equal(elasticsearch_ops.build(f.out, &it, (const uint8_t[]){ 1 }, true, &out), 0);
        free(doc);
    }
    buf_deinit(&out);
    fixture_deinit(&f);
}

static void test_no_room(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    struct append_result res;
    fixture_init(&f, "t");
    fixture_open(&f);
    f.out->open.body_max = 4096;
    char *big = malloc(8000);
    memset(big, 1, 8000); /* each byte becomes six */
    struct record small = a_record(&o, RECORD_TEXT, SLICE("x"));
    struct record huge = a_record(&o, RECORD_JSON, slice_of(big, 8000));
    struct body *b = append_one(&f, &small);
    size_t before = b->raw.len;
    assert_int_equal(elasticsearch_ops.append(f.out, &huge, &res), -ENOBUFS);
    assert_int_equal(b->raw.len, before);
    assert_int_equal(b->lines, 1);
    take(&f, b);
    /* Alone it is cut rather than asked for again for ever. */
    assert_int_equal(elasticsearch_ops.append(f.out, &huge, &res), 0);
    assert_true((res.altered & 1u << ALTER_CUT) != 0);
    assert_int_equal(res.body->lines, 1);
    assert_true(slice_ends(buf_slice(&res.body->raw), SLICE(STAMP "}\n")));
    free(big);
    fixture_deinit(&f);
}

static void test_explain(void **state)
{
    (void)state;
    struct fixture f;
    struct origin o = an_origin();
    struct buf text;
    fixture_init(&f, "tailrace-{tenant}-%Y.%m.%d");
    fixture_open(&f);
    buf_init(&text, 64 * KIB);
    struct record rec = a_record(&o, RECORD_JSON, SLICE("{}"));
    assert_int_equal(elasticsearch_ops.explain(f.out, &rec, &text), 0);
    assert_true(slice_starts(buf_slice(&text), SLICE("index tailrace-acme-2026.01.02\n" ACTION)));
    buf_deinit(&text);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_constants_and_ecs),
        cmocka_unit_test(test_payload_under_key),
        cmocka_unit_test(test_data_stream),
        cmocka_unit_test(test_index_follows_the_record),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_index_names),
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_setup),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_wire_round_trip),
        cmocka_unit_test(test_bad_wires),
        cmocka_unit_test(test_as_text),
        cmocka_unit_test(test_as_text_of_anything),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_explain),
    };
    int r = cmocka_run_group_tests_name("outputs/elasticsearch", tests, NULL, NULL);
    wanted_keys_deinit(&wanted);
    return r;
}
