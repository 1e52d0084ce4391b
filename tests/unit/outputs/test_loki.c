/*
 * Goal: what goes to Loki is what the configuration says, in bytes that Loki takes, each line once; and each
 * of Loki's replies leads to the verdict of queue.md §4, for the lines it speaks of. Method: the output as
 * the configuration makes it; records by hand; wire bodies decoded again and printed; replies with Loki's own
 * words (3.7) over bodies of our own; truncation at every byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/conf.h"
#include "outputs/codec/snappy.h"
#include "outputs/loki.h"

#define T0 (INT64_C(1700000000) * NS_PER_SEC) /* 2023-11-14T22:13:20Z */
#define MINUTE (60 * NS_PER_SEC)

struct fixture {
    struct conf *conf;
    struct output *out;
    struct origin origin;
    struct record rec;
    uint32_t altered; /* of the last append */
    bool is_filtered;
};

static int load(const char *section, struct conf **ret_conf, struct buf *errors)
{
    struct output_type types[] = { loki_type, { .name = NULL } };
    struct buf yaml;
    buf_init(&yaml, 64 * KIB);
    assert_int_equal(buf_printf(&yaml,
                                "state_dir: /var/lib/x\n"
                                "inputs: { a: { type: file, include: [\"/var/log/*.log\"] } }\n"
                                "outputs:\n  o:\n    type: loki\n%s",
                                section),
                     0);
    int r = conf_load_text("t.yaml", buf_slice(&yaml), types, ret_conf, errors);
    buf_deinit(&yaml);
    return r;
}

/* section: lines of the output's section, indented by four. */
static void start(struct fixture *f, const char *section)
{
    struct buf errors;
    struct err err;
    buf_init(&errors, 64 * KIB);
    *f = (struct fixture){ .altered = 0 };
    if (load(section, &f->conf, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    buf_deinit(&errors);
    if (loki_ops.open(&f->conf->outputs[0], &f->out, &err) < 0)
        fail_msg("%s", err.text);
    f->origin = (struct origin){ .id = 1,
                                 .input = SLICE("a"),
                                 .node = SLICE("n1"),
                                 .host = SLICE("h1"),
                                 .namespace_ = SLICE("shop"),
                                 .service = SLICE("web"),
                                 .container = SLICE("app"),
                                 .pod = SLICE("web-1") };
    f->rec = (struct record){ .origin = &f->origin,
                              .read_ns = T0,
                              .time_ns = T0,
                              .flags = RECORD_HAS_TIME,
                              .tenant = SLICE("acme"),
                              .tenant_id = 1,
                              .level = LEVEL_INFO,
                              .incarnation = 7 };
}

static void stop(struct fixture *f)
{
    loki_ops.close(f->out);
    conf_free(f->conf);
}

#define URL "    url: http://loki:3100\n"

static int put(struct fixture *f, int64_t time_ns, struct slice line, struct append_result *ret)
{
    f->rec.time_ns = time_ns;
    f->rec.line = line;
    int r = loki_ops.append(f->out, &f->rec, ret);
    f->altered = ret->altered;
    f->is_filtered = ret->is_filtered;
    return r;
}

static void add(struct fixture *f, int64_t time_ns, const char *line)
{
    struct append_result ret;
    assert_int_equal(put(f, time_ns, slice_cstr(line), &ret), 0);
    assert_true((ret.body != NULL) != ret.is_filtered);
}

/* Seals the oldest open body; its route is copied to *ret_route if given. */
static void seal(struct fixture *f, struct buf *wire, struct buf *ret_route)
{
    struct body *b = f->out->open.first;
    assert_non_null(b);
    bodies_take(&f->out->open, b);
    buf_init(wire, 8 * MIB);
    assert_int_equal(loki_ops.seal(f->out, b, wire), 0);
    if (ret_route != NULL)
        assert_int_equal(buf_append_slice(ret_route, buf_slice(&b->route)), 0);
    loki_ops.discard(f->out, b);
    body_free(b);
}

/* Seals and decodes; caller's to free. */
static struct items sealed(struct fixture *f)
{
    struct buf wire;
    struct items it;
    seal(f, &wire, NULL);
    assert_int_equal(loki_ops.items(f->out, buf_slice(&wire), SLICE("r"), &it), 0);
    buf_deinit(&wire);
    return it;
}

/* All open bodies as `queue cat` would show them. */
static void assert_printed(struct fixture *f, const char *want)
{
    struct buf text;
    buf_init(&text, 8 * MIB);
    while (f->out->open.first != NULL) {
        struct buf wire, route;
        struct items it;
        buf_init(&route, 1 * KIB);
        seal(f, &wire, &route);
        assert_int_equal(loki_ops.items(f->out, buf_slice(&wire), buf_slice(&route), &it), 0);
        assert_int_equal(loki_ops.print(f->out, &it, &text), 0);
        items_deinit(&it);
        buf_deinit(&wire);
        buf_deinit(&route);
    }
    assert_int_equal(buf_terminate(&text), 0);
    assert_string_equal(text.ptr, want);
    buf_deinit(&text);
}

/* ---- bytes ---- */

static void golden(void **state)
{
    (void)state;
    static const unsigned char want[] = { 0x0a, 0x2a, 0x0a, 0x09, 0x7b, 0x6a, 0x6f, 0x62, 0x3d, 0x22, 0x74,
                                          0x22, 0x7d, 0x12, 0x1d, 0x0a, 0x0b, 0x08, 0x80, 0xe2, 0xcf, 0xaa,
                                          0x06, 0x10, 0x95, 0x9a, 0xef, 0x3a, 0x12, 0x02, 0x68, 0x69, 0x1a,
                                          0x0a, 0x0a, 0x03, 0x70, 0x6f, 0x64, 0x12, 0x03, 0x70, 0x2d, 0x31 };
    struct fixture f;
    struct buf wire, raw;
    /* Naming the node is enough for the writer label; here it is empty. */
    start(&f, URL "    labels: { job: \"t{field.none|node}\" }\n    metadata: { pod: \"{pod}\" }\n");
    f.origin.node = SLICE("");
    f.origin.pod = SLICE("p-1");
    add(&f, T0 + 123456789, "hi");
    seal(&f, &wire, NULL);
    assert_true(slice_starts(buf_slice(&wire), SLICE("\x2c\xac"))); /* 44 bytes, one literal */
    assert_int_equal(wire.len, 46);
    buf_init(&raw, 100);
    assert_int_equal(snappy_block_decompress(buf_slice(&wire), &raw), 0);
    assert_true(slice_eq(buf_slice(&raw), slice_of(want, sizeof(want))));
    buf_deinit(&wire);
    buf_deinit(&raw);
    stop(&f);
}

static const struct {
    struct slice value, want;
} label_values[] = {
    { SLICE_INIT("plain-1.2/x y"), SLICE_INIT("{a=\"plain-1.2/x y\"}") },
    { SLICE_INIT("q\"b\\n\n\t\r"), SLICE_INIT("{a=\"q\\\"b\\\\n\\n\\t\\r\"}") },
    { SLICE_INIT("\x01\x07\x7f\0"), SLICE_INIT("{a=\"\\x01\\a\\x7f\\x00\"}") },
    { SLICE_INIT("gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"),
      SLICE_INIT("{a=\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"}") },
    { SLICE_INIT("x\xef\xbf\xbdy"), SLICE_INIT("{a=\"x?y\"}") }, /* U+FFFD, which Loki refuses */
    { SLICE_INIT("x\xff\xc3"), SLICE_INIT("{a=\"x??\"}") },      /* no UTF-8 */
    { SLICE_INIT("\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80"),
      SLICE_INIT("{a=\"?????????\"}") }, /* overlong, surrogate, beyond */
    { SLICE_INIT(""), SLICE_INIT("{a=\"\"}") },
};

static void label_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(label_values); i++) {
        struct buf out;
        struct slice name, value;
        size_t at = 0;
        char back[64];
        size_t n = 0;
        buf_init(&out, 1 * KIB);
        assert_int_equal(buf_append_byte(&out, '{'), 0);
        assert_int_equal(loki_append_label(&out, SLICE("a"), label_values[i].value), 0);
        assert_int_equal(buf_append_byte(&out, '}'), 0);
        if (!slice_eq(buf_slice(&out), label_values[i].want))
            fail_msg("case %zu: %.*s", i, SLICE_ARGS(buf_slice(&out)));
        assert_true(loki_next_label(buf_slice(&out), &at, &name, &value));
        assert_true(slice_eq(name, SLICE("a")));
        for (size_t k = 0; k < value.len;)
            n += loki_unescape(value, &k, back + n);
        if (slice_find_byte(label_values[i].want, '?') < 0)
            assert_true(slice_eq(slice_of(back, n), label_values[i].value));
        assert_false(loki_next_label(buf_slice(&out), &at, &name, &value));
        assert_int_equal(at, out.len);
        buf_deinit(&out);
    }
}

static const struct {
    struct slice text;
    size_t n;   /* labels before the end */
    size_t end; /* 0: no label set */
} label_sets[] = {
    { SLICE_INIT("{}"), 0, 2 },
    { SLICE_INIT("{a=\"1\"}"), 1, 7 },
    { SLICE_INIT("{a=\"1\", b=\"}\"}'"), 2, 14 },
    { SLICE_INIT("{a=\"\\\"\",b=\"\"}"), 2, 13 },
    { SLICE_INIT("{a=\"1\""), 1, 0 },
    { SLICE_INIT("{a=\"1"), 0, 0 },
    { SLICE_INIT("{a=\"1\\"), 0, 0 },
    { SLICE_INIT("{a=1}"), 0, 0 },
    { SLICE_INIT("{=\"1\"}"), 0, 0 },
    { SLICE_INIT("{"), 0, 0 },
    { SLICE_INIT(""), 0, 0 },
    { SLICE_INIT("a=\"1\"}"), 0, 0 },
};

static void label_reading(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(label_sets); i++) {
        /* On the heap to the byte. */
        char *copy = malloc(MAX(label_sets[i].text.len, (size_t)1));
        assert_non_null(copy);
        memcpy(copy, label_sets[i].text.ptr, label_sets[i].text.len);
        struct slice name, value;
        size_t at = 0, n = 0;
        while (loki_next_label(slice_of(copy, label_sets[i].text.len), &at, &name, &value))
            n++;
        if (n != label_sets[i].n || at != label_sets[i].end)
            fail_msg("case %zu: %zu labels, end %zu", i, n, at);
        free(copy);
    }
}

static const int64_t times[] = {
    0, 1, -1, T0, T0 + 1, -T0, NS_PER_SEC, -NS_PER_SEC, -NS_PER_SEC - 1, INT64_C(1) << 62
};

static void entries(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        struct buf meta, out;
        struct loki_entry e;
        buf_init(&meta, 1 * KIB);
        buf_init(&out, 1 * KIB);
        assert_int_equal(loki_append_metadata(&meta, SLICE("k"), SLICE("v\xff\xc3\xa9\xc3")), 0);
        assert_int_equal(loki_append_metadata(&meta, SLICE("k2"), SLICE("")), 0);
        assert_int_equal(loki_append_entry(&out, times[i], SLICE("l\0\xff"), buf_slice(&meta)), 0);
        assert_true(out.len <= loki_entry_most(SLICE("l\0\xff"), buf_slice(&meta)));
        assert_int_equal(loki_read_entry_field(buf_slice(&out), &e, NULL, NULL), 0);
        assert_true(e.time_ns == times[i]);
        assert_true(slice_eq(e.line, SLICE("l\0\xff"))); /* the line is nobody's to mend */
        assert_int_equal(e.metadata_pairs, 2);
        assert_int_equal(e.metadata_bytes, 8);
        assert_true(slice_find(buf_slice(&meta), SLICE("v?\xc3\xa9?")) > 0);
        for (size_t cut = 0; cut < out.len; cut++)
            assert_int_equal(loki_read_entry_field(slice_first(buf_slice(&out), cut), &e, NULL, NULL),
                             -EBADMSG);
        buf_deinit(&meta);
        buf_deinit(&out);
    }
}

/* ---- settings ---- */

static const struct {
    const char *section;
    const char *want; /* in the errors; NULL = fine */
} configs[] = {
    { URL, NULL },
    { URL "    labels: { a-b: \"{node}\" }\n", "labels.a-b: Loki takes letters, digits and _" },
    { URL "    labels: { 1a: \"{node}\" }\n", "labels.1a" },
    { URL "    labels: { __x: \"{node}\" }\n", "labels.__x" },
    { URL "    labels: { late: \"{node}\" }\n", "labels.late" },
    { URL "    labels: { late: \"{node}\" }\n    late_after: 0\n", NULL },
    { URL "    labels: { a: \"1\", b: \"1\", c: \"1\", d: \"1\", e: \"1\", f: \"1\", g: \"1\", h: \"1\", i: "
          "\"1\", j: \"1\", "
          "k: \"1\", l: \"1\", m: \"1\" }\n",
      NULL },
    { URL "    labels: { a: \"1\", b: \"1\", c: \"1\", d: \"1\", e: \"1\", f: \"1\", g: \"1\", h: \"1\", i: "
          "\"1\", j: \"1\", "
          "k: \"1\", l: \"1\", m: \"1\", n: \"1\" }\n",
      "Loki takes 15" },
    { URL "    labels: { a: \"1\", b: \"1\", c: \"1\", d: \"1\", e: \"1\", f: \"1\", g: \"1\", h: \"1\", i: "
          "\"1\", j: \"1\", "
          "k: \"1\", l: \"1\", m: \"1\", n: \"{host}\", service_name: x }\n",
      NULL },
    { URL "    metadata: { original_time: \"x\" }\n", "set by tailrace" },
    { URL "    metadata: { \"trace.id\": \"x\" }\n", "metadata.trace.id" },
    { URL "    metadata: off\n", NULL },
    { URL "    max_line: 2MiB\n", "max_line" },
    { URL "    line: whole\n", "line" },
    { URL "    tenat: x\n", "tenant" },
};

static void settings_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(configs); i++) {
        struct conf *conf = NULL;
        struct buf errors;
        buf_init(&errors, 64 * KIB);
        int r = load(configs[i].section, &conf, &errors);
        struct slice text = buf_slice(&errors);
        if ((configs[i].want == NULL) != (r == 0) ||
            (configs[i].want != NULL && slice_find(text, slice_cstr(configs[i].want)) < 0))
            fail_msg("case %zu: %d %.*s", i, r, SLICE_ARGS(text));
        conf_free(conf);
        buf_deinit(&errors);
    }
}

static void writer_label_is_added(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { app: \"{service}\", node: \"x\" }\n    metadata: off\n");
    assert_int_equal(f.conf->warnings.n, 1);
    assert_true(slice_find(f.conf->warnings.items[0], SLICE("host: \"{node|host}\" is added")) >= 0);
    add(&f, T0, "l");
    assert_printed(
        &f, "{\"timestamp\":\"2023-11-14T22:13:20.000000000Z\",\"tenant\":\"acme\","
            "\"labels\":{\"app\":\"web\",\"host\":\"n1\",\"node\":\"x\"},\"line\":\"l\",\"metadata\":{}}\n");
    stop(&f);
}

static void requests(void **state)
{
    (void)state;
    struct fixture f;
    static const struct {
        const char *section;
        size_t index;
        struct slice route, url, headers;
    } cases[] = {
        { "    url: http://a:3100\n", 0, SLICE_INIT("t1"), SLICE_INIT("http://a:3100/loki/api/v1/push"),
          SLICE_INIT("Content-Type: application/x-protobuf\nX-Scope-OrgID: t1\n") },
        { "    url: http://a:3100/sub/\n", 3, SLICE_INIT(""),
          SLICE_INIT("http://a:3100/sub/loki/api/v1/push"),
          SLICE_INIT("Content-Type: application/x-protobuf\n") },
        { "    url: https://a/x/loki/api/v1/push\n", 0, SLICE_INIT("t"),
          SLICE_INIT("https://a/x/loki/api/v1/push"),
          SLICE_INIT("Content-Type: application/x-protobuf\nX-Scope-OrgID: t\n") },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_request req = { .method = NULL };
        buf_init(&req.url, 1 * KIB);
        buf_init(&req.headers, 1 * KIB);
        start(&f, cases[i].section);
        assert_int_equal(loki_ops.request(f.out, cases[i].route, cases[i].index, &req), 0);
        assert_string_equal(req.method, "POST");
        assert_true(slice_eq(buf_slice(&req.url), cases[i].url));
        assert_true(slice_eq(buf_slice(&req.headers), cases[i].headers));
        buf_deinit(&req.url);
        buf_deinit(&req.headers);
        stop(&f);
    }
}

/* ---- a record's way ---- */

static void defaults(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL);
    f.rec.module = SLICE("app.db");
    add(&f, T0, "{\"a\":1}");
    f.origin = (struct origin){ .id = 2, .node = SLICE("n1"), .service = SLICE("cron") };
    f.rec.level = LEVEL_UNKNOWN;
    f.rec.module = SLICE("");
    add(&f, T0 + 5, "text");
    assert_printed(
        &f,
        "{\"timestamp\":\"2023-11-14T22:13:20.000000000Z\",\"tenant\":\"acme\",\"labels\":{\"container\":"
        "\"app\","
        "\"namespace\":\"shop\",\"node\":\"n1\",\"service_name\":\"web\"},\"line\":\"{\\\"a\\\":1}\","
        "\"metadata\":"
        "{\"level\":\"info\",\"pod\":\"web-1\",\"tenant\":\"acme\",\"module\":\"app.db\"}}\n"
        "{\"timestamp\":\"2023-11-14T22:13:20.000000005Z\",\"tenant\":\"acme\",\"labels\":{\"node\":\"n1\","
        "\"service_name\":\"cron\"},\"line\":\"text\",\"metadata\":{\"level\":\"unknown\",\"tenant\":"
        "\"acme\"}}\n");
    stop(&f);
}

static void tenants(void **state)
{
    (void)state;
    static char longer[200];
    memset(longer, 'x', sizeof(longer));
    static const struct {
        struct slice tenant, want;
    } cases[] = {
        { SLICE_INIT("acme"), SLICE_INIT("acme") },
        { SLICE_INIT("a/b|c d"), SLICE_INIT("a_b_c_d") },
        { SLICE_INIT("!-_.*'()"), SLICE_INIT("!-_.*'()") },
        { SLICE_INIT("."), SLICE_INIT("_") },
        { SLICE_INIT(".."), SLICE_INIT("__") },
        { SLICE_INIT("..."), SLICE_INIT("...") },
        { SLICE_INIT("\xc3\xa9\0\n"), SLICE_INIT("____") },
        { SLICE_INIT(""), SLICE_INIT("") },
        { { longer, 200 }, { longer, 150 } },
    };
    struct fixture f;
    start(&f, URL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct append_result ret;
        f.rec.tenant = cases[i].tenant;
        f.rec.tenant_id = (uint32_t)i + 1;
        assert_int_equal(put(&f, T0, SLICE("l"), &ret), 0);
        assert_true(slice_eq(buf_slice(&ret.body->route), cases[i].want));
    }
    assert_int_equal(f.out->open.n_open, ARRAY_LEN(cases));
    stop(&f);
}

/* Labels of the record itself, which no cache by origin may answer. */
static void labels_by_record(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { m: \"{module}\", n: \"{node}\" }\n    metadata: off\n");
    f.rec.module = SLICE("one");
    add(&f, T0, "1");
    f.rec.module = SLICE("two");
    add(&f, T0, "2");
    f.rec.module = SLICE("one");
    add(&f, T0 + 1, "3");
    struct items it = sealed(&f);
    static const struct {
        struct slice head;
        int64_t time;
    } want[] = { { SLICE_INIT("{m=\"one\", n=\"n1\"}"), T0 },
                 { SLICE_INIT("{m=\"one\", n=\"n1\"}"), T0 + 1 },
                 { SLICE_INIT("{m=\"two\", n=\"n1\"}"), T0 } };
    assert_int_equal(it.n, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(slice_eq(it.item[i].head, want[i].head));
        assert_true(it.item[i].time_ns == want[i].time);
    }
    items_deinit(&it);
    stop(&f);
}

/* All labels empty: Loki takes no stream without one. */
static void no_label_left(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { n: \"{node}\" }\n    metadata: off\n");
    f.origin.node = SLICE("");
    add(&f, T0, "l");
    struct items it = sealed(&f);
    assert_true(slice_eq(it.item[0].head, SLICE("{service_name=\"unknown_service\"}")));
    items_deinit(&it);
    stop(&f);
}

static void equal_times_step(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL);
    static const int64_t in[] = { 100, 100, 100, 101, 100, 200, 100, 101, 99, 200, 99 };
    static const int64_t want[] = { 100, 101, 102, 103, 104, 200, 105, 106, 99, 201, 107 };
    int64_t got[ARRAY_LEN(in)];
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        add(&f, T0 + in[i], "same");
        if (i == 4) { /* the next body goes on where this one ended */
            struct items it = sealed(&f);
            for (size_t k = 0; k < it.n; k++)
                got[k] = it.item[k].time_ns - T0;
            assert_int_equal(it.n, 5);
            items_deinit(&it);
        }
    }
    struct items it = sealed(&f);
    assert_int_equal(it.n, ARRAY_LEN(in) - 5);
    for (size_t k = 0; k < it.n; k++)
        got[5 + k] = it.item[k].time_ns - T0;
    items_deinit(&it);
    for (size_t i = 0; i < ARRAY_LEN(in); i++)
        if (got[i] != want[i])
            fail_msg("line %zu: %lld, not %lld", i, (long long)got[i], (long long)want[i]);
    stop(&f);
}

static void old_and_ahead(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { n: \"{node}\" }\n    metadata: { tenant: \"{tenant}\" }\n");
    add(&f, T0 - 168 * 60 * MINUTE - 1, "too old");
    assert_true(f.is_filtered);
    assert_int_equal(f.out->open.n_open, 0);
    add(&f, T0 + 10 * MINUTE, "just in time");
    assert_int_equal(f.altered, 0);
    add(&f, T0 + 10 * MINUTE + 1, "ahead");
    assert_int_equal(f.altered, 1u << ALTER_FUTURE);
    add(&f, INT64_MAX, "far ahead");
    assert_printed(
        &f,
        "{\"timestamp\":\"2023-11-14T22:23:20.000000000Z\",\"tenant\":\"acme\",\"labels\":{\"n\":\"n1\"},"
        "\"line\":\"just in time\",\"metadata\":{\"tenant\":\"acme\"}}\n"
        "{\"timestamp\":\"2023-11-14T22:13:20.000000000Z\",\"tenant\":\"acme\",\"labels\":{\"n\":\"n1\"},"
        "\"line\":\"ahead\",\"metadata\":{\"original_time\":\"2023-11-14T22:23:20.000000001Z\",\"tenant\":"
        "\"acme\"}}\n"
        "{\"timestamp\":\"2023-11-14T22:13:20.000000001Z\",\"tenant\":\"acme\",\"labels\":{\"n\":\"n1\"},"
        "\"line\":\"far "
        "ahead\",\"metadata\":{\"original_time\":\"2262-04-11T23:47:16.854775807Z\",\"tenant\":\"acme\"}}\n");
    stop(&f);

    start(&f, URL "    max_age: 0\n    max_future: 0\n    late_after: 0\n    metadata: off\n");
    add(&f, T0 - 10000 * 60 * MINUTE, "old");
    assert_false(f.is_filtered);
    add(&f, T0 + 10000 * 60 * MINUTE, "ahead");
    assert_int_equal(f.altered, 0);
    add(&f, INT64_MIN, "no time at all");
    assert_int_equal(f.altered, 1u << ALTER_FUTURE);
    stop(&f);
}

/* Each late label is a stream of its own, with its own newest; behind all of them the line goes at the edge.
 */
static void late_lines(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { a: \"{namespace}\", z: \"{node}\" }\n    metadata: off\n    max_age: 0\n");
    struct slice want[12];
    char text[12][64];
    for (int i = 0; i <= 11; i++) {
        add(&f, T0 - i * 46 * MINUTE, "down");
        assert_int_equal(f.altered, i == 0 ? 0 : 1u << ALTER_LATE);
        int step = MIN(i, 9);
        int n = step == 0 ? snprintf(text[i], sizeof(text[i]), "{a=\"shop\", z=\"n1\"}")
                          : snprintf(text[i], sizeof(text[i]), "{a=\"shop\", late=\"%d\", z=\"n1\"}", step);
        want[i] = slice_of(text[i], (size_t)n);
    }
    add(&f, T0 - 45 * MINUTE, "at the edge of the first"); /* not further behind: no label */
    assert_int_equal(f.altered, 0);
    add(&f, T0 - 46 * MINUTE, "again late");
    struct items it = sealed(&f);
    assert_int_equal(it.n, 14);
    size_t per_stream[10] = { 0 };
    for (size_t i = 0; i < it.n; i++) {
        size_t step = 0;
        while (!slice_eq(it.item[i].head, want[step]))
            assert_true(++step < 10);
        per_stream[step]++;
        /* Nothing is further behind its stream's newest than Loki takes. */
        assert_true(it.item[i].time_ns >= T0 - (int64_t)step * 46 * MINUTE - 45 * MINUTE);
    }
    static const size_t counts[10] = { 2, 2, 1, 1, 1, 1, 1, 1, 1, 3 };
    assert_memory_equal(per_stream, counts, sizeof(counts));
    items_deinit(&it);
    stop(&f);
}

static void long_lines(void **state)
{
    (void)state;
    struct fixture f;
    static char line[5000];
    struct loki_entry e;
    start(&f, URL "    max_line: 1KiB\n    metadata: {}\n");
    for (size_t i = 0; i < sizeof(line); i += 2)
        memcpy(line + i, "\xc3\xa9", 2);
    struct append_result ret;
    assert_int_equal(put(&f, T0, slice_of(line, 1024), &ret), 0);
    assert_int_equal(ret.altered, 0);
    assert_int_equal(put(&f, T0, slice_of(line, 5000), &ret), 0);
    assert_int_equal(ret.altered, 1u << ALTER_CUT);
    line[0] = 'x'; /* now the limit falls into a character */
    memmove(line + 1, line + 2, 4998);
    assert_int_equal(put(&f, T0, slice_of(line, 4999), &ret), 0);
    f.rec.flags |= RECORD_CUT;
    assert_int_equal(put(&f, T0, slice_of(line, 5), &ret), 0);
    assert_int_equal(ret.altered, 0); /* counted where it was cut */
    struct items it = sealed(&f);
    static const size_t lens[] = { 1024, 1024, 1023, 5 }, pairs[] = { 0, 1, 1, 1 };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(loki_read_entry(it.item[i].data, &e, NULL, NULL), 0);
        assert_int_equal(e.line.len, lens[i]);
        assert_int_equal(e.metadata_pairs, pairs[i]);
        assert_int_equal(slice_utf8_valid(e.line), e.line.len);
    }
    items_deinit(&it);
    stop(&f);
}

static void enriched(void **state)
{
    (void)state;
    struct fixture f;
    size_t n = 99;
    start(&f, URL);
    (void)loki_ops.trusted(f.out, &n);
    assert_int_equal(n, 0); /* the line stays as it is: nothing can clash */
    stop(&f);
    start(&f, URL "    line: enriched\n    labels: { n: \"{node}\" }\n    metadata: off\n");
    assert_non_null(loki_ops.trusted(f.out, &n));
    assert_true(n >= 8);
    f.rec.kind = RECORD_JSON;
    add(&f, T0, "{\"a\":1}");
    assert_printed(
        &f,
        "{\"timestamp\":\"2023-11-14T22:13:20.000000000Z\",\"tenant\":\"acme\",\"labels\":{\"n\":\"n1\"},"
        "\"line\":"
        "\"{\\\"a\\\":1,\\\"pod\\\":\\\"web-1\\\",\\\"namespace\\\":\\\"shop\\\",\\\"tenant\\\":\\\"acme\\\","
        "\\\"container_name\\\":\\\"app\\\",\\\"node_name\\\":\\\"n1\\\",\\\"service_name\\\":\\\"web\\\","
        "\\\"host_name\\\":\\\"h1\\\",\\\"severity\\\":\\\"info\\\"}\",\"metadata\":{}}\n");
    stop(&f);
}

static void metadata_is_bounded(void **state)
{
    (void)state;
    static char big[3000];
    memset(big, 'm', sizeof(big));
    struct fixture f;
    struct buf section;
    struct loki_entry e;
    buf_init(&section, 64 * KIB);
    assert_int_equal(buf_append_cstr(&section, URL "    metadata: {"), 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(buf_printf(&section, "%s m%d: \"{message}\"", i == 0 ? "" : ",", i), 0);
    assert_int_equal(buf_append_cstr(&section, " }\n"), 0);
    assert_int_equal(buf_terminate(&section), 0);
    start(&f, section.ptr);
    f.rec.message = slice_of(big, sizeof(big));
    add(&f, T0, "l");
    struct items it = sealed(&f);
    assert_int_equal(loki_read_entry(it.item[0].data, &e, NULL, NULL), 0);
    assert_true(e.metadata_bytes <= LOKI_METADATA_BYTES_MAX);
    assert_true(e.metadata_bytes > LOKI_METADATA_BYTES_MAX - 3 * KIB);
    items_deinit(&it);
    buf_deinit(&section);
    stop(&f);
}

/* More streams than are remembered: forgotten ones are made anew, the bodies are whole. */
static void many_streams(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, URL "    labels: { p: \"{pod}\", n: \"{node}\" }\n    metadata: off\n");
    size_t n_lines = 0;
    for (unsigned i = 0; i < 2 * LOKI_STREAMS_MAX + 100; i++) {
        char pod[32];
        f.origin.id = i % (LOKI_STREAMS_MAX + 50) + 1;
        f.origin.pod = slice_of(pod, (size_t)snprintf(pod, sizeof(pod), "p%u", i % (LOKI_STREAMS_MAX + 50)));
        add(&f, T0 + i, "l");
        n_lines++;
    }
    struct items it = sealed(&f);
    assert_int_equal(it.n, n_lines);
    items_deinit(&it);
    stop(&f);
}

static void full_body(void **state)
{
    (void)state;
    static char line[256 * 1024];
    memset(line, 'x', sizeof(line));
    struct fixture f;
    struct append_result ret;
    start(&f, URL);
    size_t n = 0;
    int r;
    while ((r = put(&f, T0, slice_of(line, sizeof(line)), &ret)) == 0) {
        n++;
        assert_int_equal(f.out->open.raw_bytes, ret.body->raw_bytes);
        assert_true(n < 100);
    }
    assert_int_equal(r, -ENOBUFS);
    assert_non_null(ret.body); /* which to close */
    assert_int_equal(n, 11);
    assert_int_equal(ret.body->lines, n);
    size_t raw = ret.body->raw_bytes, len;
    struct buf wire;
    seal(&f, &wire, NULL);
    assert_int_equal(snappy_block_length(buf_slice(&wire), &len), 0);
    assert_true(len <= raw && raw - len < 64 && len <= LOKI_RAW_MAX);
    assert_int_equal(f.out->open.raw_bytes, 0);
    assert_int_equal(put(&f, T0, slice_of(line, sizeof(line)), &ret), 0);
    assert_int_equal(f.out->open.raw_bytes, ret.body->raw_bytes);
    buf_deinit(&wire);
    stop(&f);
}

/* Lines of several tenants in one body: whose each is, in the order of the items. */
static void rows_follow_items(void **state)
{
    (void)state;
    struct fixture f;
    enum { N = 1000 };
    start(&f, URL "    tenant: \"all\"\n    labels: { s: \"{service}\", n: \"{node}\" }\n    metadata: { t: "
                  "\"{tenant}\" }\n");
    for (unsigned i = 0; i < N; i++) {
        static const struct slice names[] = { SLICE_INIT("t0"), SLICE_INIT("t1"), SLICE_INIT("t2") };
        static const struct slice services[] = { SLICE_INIT("s0"), SLICE_INIT("s1") };
        unsigned t = i < 300 ? 0 : i * 7 % 3;
        f.rec.tenant = names[t];
        f.rec.tenant_id = t + 1;
        f.origin.service = services[i / 3 % 2];
        f.origin.id = i / 3 % 2 + 1;
        add(&f, T0 + i, "l");
    }
    struct body *b = f.out->open.first;
    struct buf wire;
    struct items it;
    bodies_take(&f.out->open, b);
    buf_init(&wire, 8 * MIB);
    assert_int_equal(loki_ops.seal(f.out, b, &wire), 0);
    assert_int_equal(loki_ops.items(f.out, buf_slice(&wire), SLICE("all"), &it), 0);
    assert_int_equal(it.n, N);
    assert_int_equal(b->n_rows, 3);
    size_t at = 0;
    for (size_t i = 0; i < b->runs.len;) {
        uint32_t tenant = b->rows[(uint8_t)b->runs.ptr[i++]].tenant, count = 0;
        for (unsigned shift = 0;; shift += 7) {
            count |= (uint32_t)(b->runs.ptr[i] & 0x7f) << shift;
            if ((b->runs.ptr[i++] & 0x80) == 0)
                break;
        }
        for (; count > 0; count--, at++) {
            char name[] = { '\x12', '\x02', 't', (char)('0' + tenant - 1) };
            assert_true(slice_find(it.item[at].data, slice_of(name, sizeof(name))) > 0);
        }
    }
    assert_int_equal(at, N);
    items_deinit(&it);
    buf_deinit(&wire);
    loki_ops.discard(f.out, b);
    body_free(b);
    stop(&f);
}

static void explained(void **state)
{
    (void)state;
    struct fixture f;
    struct buf text;
    buf_init(&text, 8 * KIB);
    start(&f, URL);
    f.rec.line = SLICE("l");
    f.rec.time_ns = T0;
    assert_int_equal(loki_ops.explain(f.out, &f.rec, &text), 0);
    static const char *const words[] = { "acme", "{container=\"app\", namespace=\"shop\"",
                                         "2023-11-14T22:13:20", "metadata level: info",
                                         "metadata pod: web-1" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (slice_find(buf_slice(&text), slice_cstr(words[i])) < 0)
            fail_msg("no %s in %.*s", words[i], SLICE_ARGS(buf_slice(&text)));
    assert_int_equal(f.out->open.n_open, 0);
    f.rec.time_ns = 0;
    buf_reset(&text);
    assert_int_equal(loki_ops.explain(f.out, &f.rec, &text), 0);
    assert_true(slice_find(buf_slice(&text), SLICE("max_age")) > 0);
    buf_deinit(&text);
    stop(&f);
}

/* ---- bodies again ---- */

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* A body of n random lines in a few streams. */
static void random_body(struct fixture *f, size_t n, uint64_t seed, struct buf *wire)
{
    for (size_t i = 0; i < n; i++) {
        char line[40], service[] = { 's', (char)('a' + next_random(&seed) % 3) };
        size_t len = next_random(&seed) % sizeof(line);
        for (size_t k = 0; k < len; k++)
            line[k] = (char)next_random(&seed);
        f->origin.id = 10 + (uint64_t)(service[1] - 'a');
        f->origin.service = slice_of(service, 2);
        struct append_result ret;
        int64_t back = (int64_t)(next_random(&seed) % 1000);
        assert_int_equal(put(f, T0 - back * NS_PER_SEC, slice_of(line, len), &ret), 0);
    }
    seal(f, wire, NULL);
}

static bool same_item(const struct item *a, const struct item *b)
{
    return slice_eq(a->head, b->head) && slice_eq(a->data, b->data) && slice_eq(a->key, b->key) &&
           a->time_ns == b->time_ns;
}

static void built_again(void **state)
{
    (void)state;
    struct fixture f;
    struct buf wire;
    struct items it;
    start(&f, URL);
    random_body(&f, 300, 1, &wire);
    assert_int_equal(loki_ops.items(f.out, buf_slice(&wire), SLICE("r"), &it), 0);
    assert_int_equal(it.n, 300);
    uint64_t seed = 3;
    for (int round = 0; round < 20; round++) {
        uint8_t choose[300];
        size_t n = 0, k = 0;
        for (size_t i = 0; i < it.n; i++) {
            choose[i] = round == 0 ? 1 : round == 1 ? i == 299 : (uint8_t)(next_random(&seed) % 2);
            n += choose[i];
        }
        struct buf again;
        struct items back;
        buf_init(&again, 8 * MIB);
        assert_int_equal(loki_ops.build(f.out, &it, choose, false, &again), 0);
        assert_int_equal(loki_ops.items(f.out, buf_slice(&again), SLICE("r"), &back), 0);
        assert_int_equal(back.n, n);
        for (size_t i = 0; i < it.n; i++)
            if (choose[i] != 0)
                assert_true(same_item(&it.item[i], &back.item[k++]));
        items_deinit(&back);
        buf_deinit(&again);
    }
    items_deinit(&it);
    buf_deinit(&wire);
    stop(&f);
}

static void joined(void **state)
{
    (void)state;
    struct fixture f;
    struct buf wires[3], all;
    struct slice slices[3];
    struct items it, part;
    start(&f, URL);
    buf_init(&all, 8 * MIB);
    for (size_t i = 0; i < 3; i++) {
        random_body(&f, 50 + i, i + 1, &wires[i]);
        slices[i] = buf_slice(&wires[i]);
    }
    assert_int_equal(loki_ops.join(f.out, slices, 3, &all), 0);
    assert_int_equal(loki_ops.items(f.out, buf_slice(&all), SLICE("r"), &it), 0);
    assert_int_equal(it.n, 50 + 51 + 52);
    size_t at = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(loki_ops.items(f.out, slices[i], SLICE("r"), &part), 0);
        for (size_t k = 0; k < part.n; k++)
            assert_true(same_item(&part.item[k], &it.item[at++]));
        items_deinit(&part);
    }
    items_deinit(&it);
    struct slice too_much[64];
    static char line[200 * 1024];
    struct append_result ret;
    assert_int_equal(put(&f, T0, slice_of(line, sizeof(line)), &ret), 0);
    struct buf big;
    seal(&f, &big, NULL);
    for (size_t i = 0; i < 64; i++)
        too_much[i] = buf_slice(&big);
    buf_reset(&all);
    assert_int_equal(loki_ops.join(f.out, too_much, 64, &all), -ENOBUFS);
    assert_int_equal(loki_ops.join(f.out, too_much, 10, &all), 0);
    too_much[1] = SLICE("\xff");
    assert_int_equal(loki_ops.join(f.out, too_much, 3, &all), -EBADMSG);
    buf_deinit(&big);
    buf_deinit(&all);
    for (size_t i = 0; i < 3; i++)
        buf_deinit(&wires[i]);
    stop(&f);
}

/* Every truncation of the wire, of what is in it, and every changed byte of that. */
static void not_ours(void **state)
{
    (void)state;
    struct fixture f;
    struct buf wire, raw, again;
    struct items it;
    start(&f, URL);
    random_body(&f, 20, 5, &wire);
    for (size_t len = 0; len < wire.len; len++) {
        char *copy = malloc(MAX(len, (size_t)1));
        assert_non_null(copy);
        memcpy(copy, wire.ptr, len);
        assert_int_equal(loki_ops.items(f.out, slice_of(copy, len), SLICE("r"), &it), -EBADMSG);
        free(copy);
    }
    buf_init(&raw, 1 * MIB);
    buf_init(&again, 1 * MIB);
    assert_int_equal(snappy_block_decompress(buf_slice(&wire), &raw), 0);
    size_t whole = 0;
    for (size_t len = 0; len < raw.len; len++) {
        buf_reset(&again);
        assert_int_equal(snappy_block_compress(slice_first(buf_slice(&raw), len), &again), 0);
        int r = loki_ops.items(f.out, buf_slice(&again), SLICE("r"), &it);
        assert_true(r == -EBADMSG || (r == 0 && it.n < 20));
        if (r == 0) {
            whole++;
            items_deinit(&it);
        }
    }
    assert_true(whole <= 3); /* between streams, and the empty one */
    for (size_t i = 0; i < raw.len; i++) {
        raw.ptr[i] = (char)(raw.ptr[i] ^ 0xa5);
        buf_reset(&again);
        assert_int_equal(snappy_block_compress(buf_slice(&raw), &again), 0);
        int r = loki_ops.items(f.out, buf_slice(&again), SLICE("r"), &it);
        assert_true(r == -EBADMSG || r == 0);
        if (r == 0)
            items_deinit(&it);
        raw.ptr[i] = (char)(raw.ptr[i] ^ 0xa5);
    }
    buf_deinit(&wire);
    buf_deinit(&raw);
    buf_deinit(&again);
    stop(&f);
}

/* ---- replies ---- */

#define S "{app=\"x\", n=\"n1\"}"

static const struct {
    long status;
    const char *failure, *type, *body;
    enum verdict want;
    const char *reason;
} replies[] = {
    { 204, NULL, "", "", VERDICT_SENT, "" },
    { 200, NULL, "text/plain", "", VERDICT_SENT, "" },
    { 200, NULL, "text/html; charset=utf-8", "<html>login</html>", VERDICT_HOLD, "not_loki" },
    { 200, NULL, "text/html", "", VERDICT_HOLD, "not_loki" },
    { 200, NULL, "application/json", "{}", VERDICT_HOLD, "not_loki" },
    { 201, NULL, "", "", VERDICT_HOLD, "unexpected_status" },
    { 202, NULL, "", "", VERDICT_HOLD, "unexpected_status" },
    { 260, NULL, "", "ingestion blocked for user 't' until '2026-01-02T03:04:05Z' with status code '260'\n",
      VERDICT_HOLD, "ingestion_blocked" },
    { 301, NULL, "", "", VERDICT_HOLD, "redirect" },
    { 307, NULL, "", "", VERDICT_HOLD, "redirect" },
    { 400, NULL, "", "couldn't parse labels: 1:5: parse error: unexpected character\n", VERDICT_BISECT,
      "bad_request" },
    { 400, NULL, "", "snappy: corrupt input\n", VERDICT_BISECT, "bad_request" },
    { 400, NULL, "text/html", "<h1>400 Bad Request</h1>", VERDICT_BISECT, "bad_request" },
    { 400, NULL, "", "", VERDICT_BISECT, "bad_request" },
    { 400, NULL, "", "error parsing labels '" S "' with error: 1:2: parse error\n", VERDICT_ITEMS,
      "validation" },
    { 400, NULL, "", "Error parsing labels '" S "' with error: 1:2: parse error\n", VERDICT_ITEMS,
      "validation" },
    { 400, NULL, "", "error at least one label pair is required per stream\n", VERDICT_ITEMS, "validation" },
    { 400, NULL, "",
      "entry for stream '" S "' has timestamp too old: 2026-01-02T03:04:05Z, oldest acceptable timestamp is: "
      "2026-01-03T03:04:05Z\n",
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "", "entry for stream '" S "' has timestamp too new: 2026-01-02T03:04:05Z\n", VERDICT_ITEMS,
      "validation" },
    { 400, NULL, "",
      "max entry size '262144' bytes exceeded for stream '" S
      "' while adding an entry with length '300000' bytes\n",
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "",
      "Max entry size '262144' bytes exceeded for stream '" S "' while adding an entry with length '3' bytes",
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "", "entry for stream '" S "' has 16 label names; limit 15\n", VERDICT_HOLD,
      "too_many_labels" },
    { 400, NULL, "", "stream '" S "' has label name too long: 'aaa'\n", VERDICT_ITEMS, "validation" },
    { 400, NULL, "", "stream '" S "' has label value too long: 'aaa'\n", VERDICT_ITEMS, "validation" },
    { 400, NULL, "", "stream '" S "' has duplicate label name: 'app'\n", VERDICT_ITEMS, "validation" },
    { 400, NULL, "",
      "stream '" S "' has structured metadata too large: '70000' bytes, limit: '65536' bytes. Please see "
      "`limits_config.max_structured_metadata_size`\n",
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "", "stream '" S "' has too many structured metadata labels: '200', limit: '128'.\n",
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "",
      "stream '" S "' includes structured metadata, but this feature is disallowed. Please see "
      "`limits_config.allow_structured_metadata`\n",
      VERDICT_HOLD, "metadata_disallowed" },
    { 400, NULL, "", "missing required labels 'env' for user 't' for stream '" S "' (policy: '')\n",
      VERDICT_HOLD, "missing_labels" },
    { 400, NULL, "", "multiple org IDs present\n", VERDICT_HOLD, "tenant" },
    { 400, NULL, "", "tenant ID 'a/b' contains unsupported character '/'\n", VERDICT_HOLD, "tenant" },
    { 400, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'entry too far behind, entry "
      "timestamp is: "
      "2026-01-02T03:04:05Z, oldest acceptable timestamp is: 2026-01-02T04:04:05Z',\nuser 't', total "
      "ignored: 1 out of "
      "2 for stream: " S,
      VERDICT_ITEMS, "validation" },
    { 400, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'entry out of order',\nuser 't', "
      "total "
      "ignored: 1 out of 2 for stream: " S,
      VERDICT_ITEMS, "validation" },
    { 401, NULL, "", "no org id\n", VERDICT_HOLD, "unauthorized" },
    { 403, NULL, "", "", VERDICT_HOLD, "forbidden" },
    { 404, NULL, "", "404 page not found\n", VERDICT_HOLD, "not_found" },
    { 405, NULL, "", "", VERDICT_HOLD, "unexpected_status" },
    { 407, NULL, "", "", VERDICT_HOLD, "unexpected_status" },
    { 408, NULL, "", "", VERDICT_RETRY, "timeout" },
    { 413, NULL, "", "request body too large: message size too large than max (9 vs 8)\n", VERDICT_SPLIT,
      "too_large" },
    { 422, NULL, "", "error at least one valid stream is required for ingestion\n", VERDICT_HOLD,
      "unexpected_status" },
    { 425, NULL, "", "", VERDICT_RETRY, "too_early" },
    { 429, NULL, "",
      "ingestion rate limit exceeded for user t (limit: 4194304 bytes/sec) while attempting to ingest '500' "
      "lines "
      "totaling '100000' bytes, reduce log volume",
      VERDICT_RETRY, "rate_limited" },
    { 429, NULL, "",
      "ingestion rate limit exceeded for user t (limit: 1048 bytes/sec) while attempting to ingest '500' "
      "lines "
      "totaling '100000' bytes, reduce log volume",
      VERDICT_SPLIT, "above_rate" },
    { 429, NULL, "",
      "Ingestion rate limit exceeded for user t (limit: 1048 bytes/sec) while attempting to ingest '1' lines "
      "totaling '100000' bytes, reduce log volume",
      VERDICT_RETRY, "rate_limited" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded "
      "(limit: "
      "3MB/sec) while attempting to ingest for stream '" S
      "' totaling 1.2MB, consider splitting',\nuser 't', total "
      "ignored: 9 out of 9 for stream: " S,
      VERDICT_RETRY, "rate_limited" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded "
      "(limit: "
      "512KB/sec) while attempting to ingest for stream '" S
      "' totaling 1.2MB, consider splitting',\nuser 't', total "
      "ignored: 9 out of 9 for stream: " S,
      VERDICT_SPLIT, "above_rate" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) "
      "while attempting to ingest for stream '" S "' totaling 4.5MB, consider splitting',\nuser 't', total ignored: 2 out of 9 for stream: "
      S,
      VERDICT_SPLIT, "above_rate" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 1GB/sec) "
      "while attempting to ingest for stream '" S "' totaling 1.5GB, consider splitting',\nuser 't', total ignored: 9 out of 9 for stream: "
      S,
      VERDICT_SPLIT, "above_rate" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 512B/sec) "
      "while attempting to ingest for stream '" S "' totaling 600B, consider splitting',\nuser 't', total ignored: 1 out of 1 for stream: "
      S,
      VERDICT_RETRY, "rate_limited" },
    { 429, NULL, "",
      "entry with timestamp 2026-01-02 03:04:05 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 512B/sec) "
      "while attempting to ingest for stream '" S "' totaling 600B, consider splitting',\nuser 't', total ignored: all for stream: "
      S,
      VERDICT_RETRY, "rate_limited" },
    { 429, NULL, "", "ingestion rate limit exceeded (limit: 1048 bytes/sec) while attempting to ingest '500' lines", VERDICT_RETRY,
      "rate_limited" },
    { 429, NULL, "", "maximum active stream limit exceeded when trying to create stream " S ", reduce",
      VERDICT_RETRY, "stream_limit" },
    { 429, NULL, "", "", VERDICT_RETRY, "rate_limited" },
    { 499, NULL, "", "context canceled\n", VERDICT_RETRY, "canceled" },
    { 500, NULL, "",
      "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5000000 vs. "
      "4194304)\n",
      VERDICT_SPLIT, "too_large" },
    { 500, NULL, "", "at least 1 live replicas required, could only find 0\n", VERDICT_RETRY,
      "server_error" },
    { 502, NULL, "text/html", "<html>bad gateway</html>", VERDICT_RETRY, "unavailable" },
    { 503, NULL, "", "", VERDICT_RETRY, "unavailable" },
    { 504, NULL, "", "", VERDICT_RETRY, "unavailable" },
    { 0, "timeout", "", "", VERDICT_RETRY, "timeout" },
    { 0, "refused", "", "", VERDICT_RETRY, "refused" },
    { 0, "dns", "", "", VERDICT_RETRY, "dns" },
    { 0, "reset", "", "", VERDICT_RETRY, "reset" },
    { 0, "tls", "", "", VERDICT_HOLD, "tls" },
    { 0, NULL, "", "", VERDICT_RETRY, "failed" },
};

static void verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        struct http_reply reply = { .status = replies[i].status,
                                    .failure = replies[i].failure,
                                    .failure_text = SLICE("curl\x01says"),
                                    .body = slice_cstr(replies[i].body),
                                    .content_type = slice_cstr(replies[i].type),
                                    .retry_after_ns = -1 };
        struct judgement j;
        memset(&j, 0x55, sizeof(j));
        j.items = NULL;
        loki_ops.judge(NULL, &reply, SLICE(""), &j);
        if (j.verdict != replies[i].want || strcmp(j.reason, replies[i].reason) != 0)
            fail_msg("case %zu (%ld %s): %d %s", i, replies[i].status, replies[i].body, (int)j.verdict,
                     j.reason);
        assert_false(j.partly_stored);
        if (replies[i].status == 0)
            assert_string_equal(j.text, "curl says");
    }
}

/* The server's words are cut to what fits, between characters. */
static void words_are_kept(void **state)
{
    (void)state;
    char body[1000];
    struct judgement j;
    for (size_t i = 0; i < sizeof(body); i += 2)
        memcpy(body + i, "\xc3\xa9", 2);
    struct http_reply reply = { .status = 500, .body = slice_of(body, sizeof(body)) };
    loki_ops.judge(NULL, &reply, SLICE(""), &j);
    assert_int_equal(strlen(j.text), 318);
    reply.body = SLICE("\n two\nlines\x7f!\n\n");
    loki_ops.judge(NULL, &reply, SLICE(""), &j);
    assert_string_equal(j.text, "two lines !");
}

/*
 * A body of three streams for the replies to complain of:
 *   0 1 2   {app="a", n="n1"}  T0, T0 + 0.5 s, T0 + 1 s
 *   3 4 5   {app="b", n="n1"}  T0, T0 + 1 s, T0 + 2 s; lines of 1, 2, 3 bytes; the last with metadata
 *
 *   6       {app="q\"}\n'", n="n1"}
 */
static struct items complaint_items(struct fixture *f)
{
    static const struct {
        struct slice service, line, module;
        int64_t time;
    } lines[] = {
        { SLICE_INIT("a"), SLICE_INIT("l"), SLICE_INIT(""), 0 },
        { SLICE_INIT("a"), SLICE_INIT("l"), SLICE_INIT(""), NS_PER_SEC / 2 },
        { SLICE_INIT("a"), SLICE_INIT("l"), SLICE_INIT(""), NS_PER_SEC },
        { SLICE_INIT("b"), SLICE_INIT("1"), SLICE_INIT(""), 0 },
        { SLICE_INIT("b"), SLICE_INIT("22"), SLICE_INIT(""), NS_PER_SEC },
        { SLICE_INIT("b"), SLICE_INIT("333"), SLICE_INIT("55555"), 2 * NS_PER_SEC },
        { SLICE_INIT("q\"}\n'"), SLICE_INIT("l"), SLICE_INIT(""), 0 },
    };
    start(f, URL "    labels: { app: \"{service}\", n: \"{node}\" }\n    metadata: { m: \"{module}\" }\n");
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct append_result ret;
        f->origin.service = lines[i].service;
        f->origin.id = 50 + i;
        f->rec.module = lines[i].module;
        assert_int_equal(put(f, T0 + lines[i].time, lines[i].line, &ret), 0);
    }
    return sealed(f);
}

#define A "{app=\"a\", n=\"n1\"}"
#define B "{app=\"b\", n=\"n1\"}"
#define B_SERVER "{app=\"b\", n=\"n1\", service_name=\"b\"}"
#define Q "{app=\"q\\\"}\\n'\", n=\"n1\", service_name=\"q\"}"
#define T_0 "2023-11-14T22:13:20Z"
#define T_1 "2023-11-14T22:13:21Z"
#define T_2 "2023-11-14T22:13:22Z"
#define TOO_OLD(t) "entry for stream '" A "' has timestamp too old: " t ", oldest acceptable timestamp is: " T_1
#define IGNORED(t, a, b)                                                                                     \
    "entry with timestamp 2023-11-14 " t                                                                     \
    " +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: " a                              \
    ", oldest acceptable timestamp is: " b "',\n"

static const struct {
    const char *body;
    const char *dead; /* one letter an item: x dead, . done */
    const char *reason;
    bool partly;
} complaints[] = {
    { TOO_OLD(T_0) "\n", "xx.....", "too_old", false },
    { "2 errors like: entry for stream '" A "' has timestamp too old: " T_0
      ", oldest acceptable timestamp is: " T_1 "; 1 errors like: entry for stream '" B
      "' has timestamp too new: " T_2 "\n",
      "xx...x.", NULL, false },
    { "max entry size '2' bytes exceeded for stream '" B "' while adding an entry with length '3' bytes\n",
      ".....x.", "line_too_long", false },
    { "max entry size '2' bytes exceeded for stream '" B_SERVER
      "' while adding an entry with length '3' bytes\n",
      ".....x.", "line_too_long", false },
    { "stream '" B "' has structured metadata too large: '6' bytes, limit: '5' bytes. Please\n", ".....x.",
      "metadata_too_large", false },
    { "stream '" B "' has too many structured metadata labels: '1', limit: '0'. Please\n", ".....x.",
      "metadata_too_many", false },
    { "stream '" A "' has label name too long: 'app'\n", "xxx....", "invalid_labels", false },
    { "error parsing labels '" A "' with error: 1:2: parse error: x\n", "xxx....", "invalid_labels", false },
    { "entry for stream '" Q "' has timestamp too old: " T_0 ", oldest acceptable timestamp is: " T_1,
      "......x", "too_old", false },
    /* too far behind: listed one by one */
    { IGNORED("22:13:20", T_0, T_2) "user 't', total ignored: 1 out of 3 for stream: " B_SERVER, "...x...",
      "too_far_behind", false },
    { IGNORED("22:13:20", T_0, T_1)
          IGNORED("22:13:20.5", T_0, T_1) "user 't', total ignored: 2 out of 3 for stream: " A,
      "xx.....", "too_far_behind", false },
    /* not all are listed: all before the cutoff are as many as are said */
    { IGNORED("22:13:20", T_0, T_2) "user 't', total ignored: 2 out of 3 for stream: " B, "...xx..",
      "too_far_behind", false },
    /* as many as there are, only with the second of the cutoff */
    { IGNORED("22:13:20", T_0, T_0) "user 't', total ignored: 2 out of 3 for stream: " A, "xx.....",
      "too_far_behind", false },
    /* they cannot be told apart: all that may be meant */
    { IGNORED("22:13:20", T_0, T_2) "user 't', total ignored: 3 out of 9 for stream: " A, "xxx....",
      "too_far_behind", false },
    { IGNORED("22:13:20", T_0, T_1) "user 't', total ignored: 1 out of 3 for stream: {app=\"c\"}", "xxxxxxx",
      "refused", true },
    { "entry with timestamp 2023-11-14 22:13:20 +0000 UTC ignored, reason: 'entry out of order',\nuser 't', "
      "total ignored: 2 out of 3 "
      "for stream: " A,
      "xxx....", "too_far_behind", true },
    /* a count of none is no count: something was refused */
    { "entry with timestamp yesterday ignored, reason: 'entry out of order',\nuser 't', total ignored: 0 out of 3 "
      "for stream: " A,
      "xxx....", "too_far_behind", true },
    { "entry for stream '" A "' has timestamp too old: yesterday, oldest", "xxx....", "too_old", true },
    { "entry for stream '" A "' has timestamp too old: 2023-11-14T22:13:59Z, oldest", "xxx....", "too_old",
      true },
    { "entry for stream '" A "' is of a kind that nobody knew", "xxx....", "refused", true },
    { "error at least one label pair is required per stream", "xxxxxxx", "refused", true },
    { "error parsing labels '{a' with error: x; entry for stream '" A "' has timestamp too old: " T_0 ",",
      "xxxxxxx", NULL, true },
    /* times with another zone, a broken zone, more digits than there are nanoseconds */
    { "entry with timestamp 2023-11-14 23:13:20.5 +0100 CET ignored, reason: 'entry too far behind, entry timestamp is: " T_0
      ", oldest acceptable timestamp is: 2023-11-14T17:13:21-05:00',\nuser 't', total ignored: 1 out of 9 for stream: " A,
      ".x.....", "too_far_behind", false },
    { "entry with timestamp 2023-11-14 22:13:20.50000000012 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: " T_0
      ", oldest acceptable timestamp is: 2023-11-14T22:13:21Z',\nuser 't', total ignored: 1 out of 9 for stream: " A,
      ".x.....", "too_far_behind", false },
    { TOO_OLD("2023-11-14T23:13:20+01:00"), "xx.....", "too_old", false },
    { TOO_OLD("2023-11-14T17:13:20-05:00"), "xx.....", "too_old", false },
    { TOO_OLD("2023-11-14T22:13:20+0"), "xx.....", "too_old", false },
    { TOO_OLD("2023-11-14T22:13:20+00:x"), "xx.....", "too_old", false },
    /* what is no time */
    { TOO_OLD("2023-13-14T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-00-14T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-11-00T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-11-32T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("1600-11-14T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("9999-11-14T22:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-11-14Txx:13:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-11-14T22:xx:20Z"), "xxx....", "too_old", true },
    { TOO_OLD("2023-11-14T22:13:xxZ"), "xxx....", "too_old", true },
    /* the cutoff of the later one counts; with its second they are as many as are said */
    { IGNORED("22:13:20", T_0, T_1)
          IGNORED("22:13:20.5", T_0, T_0) "user 't', total ignored: 3 out of 9 for stream: " A,
      "xxx....", "too_far_behind", false },
    /* more than there are before any cutoff, or none before it: the whole stream */
    { IGNORED("22:13:20", T_0, T_1) "user 't', total ignored: 9 out of 9 for stream: " A, "xxx....", "too_far_behind", true },
    { IGNORED("22:13:29", T_0, "2023-11-14T22:13:10Z") "user 't', total ignored: 2 out of 9 for stream: " A, "xxx....",
      "too_far_behind", true },
    { IGNORED("22:13:29", T_0, "soon") "user 't', total ignored: 2 out of 9 for stream: " A, "xxx....", "too_far_behind", true },
    /* how many is not said */
    { IGNORED("22:13:20", T_0, T_1) "user 't' for stream: " A, "xxx....", "too_far_behind", true },
    { IGNORED("22:13:20", T_0, T_0) "user 't' for stream: " A, "xx.....", "too_far_behind", true },
    { "something new happened for stream: " A, "xxx....", "refused", true },
    /* numbers that no line has */
    { "max entry size '2' bytes exceeded for stream '" B "' while adding an entry with length '18446744073709551615' bytes",
      "...xxx.", "line_too_long", true },
    { "max entry size '2' bytes exceeded for stream '" B "' while adding an entry with length '0' bytes", "...xxx.",
      "line_too_long", true },
    /* a label of theirs between ours; one of ours is missing; one that is not ours; another value */
    { "entry for stream '{__x__=\"1\", app=\"a\", n=\"n1\"}' has timestamp too old: " T_0 ",", "xx.....", "too_old", false },
    { "entry for stream '{app=\"a\"}' has timestamp too old: " T_0 ",", "xxxxxxx", "refused", true },
    { "entry for stream '{app=\"a\", m=\"1\", n=\"n1\"}' has timestamp too old: " T_0 ",", "xxxxxxx", "refused", true },
    { "entry for stream '{app=\"a\", n=\"n1\", z=\"2\"}' has timestamp too old: " T_0 ",", "xxxxxxx", "refused", true },
    { "entry for stream '{app=\"a\\u00e9\", n=\"n1\"}' has timestamp too old: " T_0 ",", "xxxxxxx", "refused", true },
    { "entry too far behind", "xxxxxxx", "refused", true },
    { "", "xxxxxxx", "refused", true },
};

static void refused_lines(void **state)
{
    (void)state;
    struct fixture f;
    struct items it = complaint_items(&f);
    assert_int_equal(it.n, 7);
    for (size_t i = 0; i < ARRAY_LEN(complaints); i++) {
        enum item_verdict verdict[7];
        char reasons[7][64] = { { 0 } };
        struct judgement j = { .items = verdict, .item_reasons = reasons };
        struct http_reply reply = { .status = 400, .body = slice_cstr(complaints[i].body) };
        loki_ops.judge_items(f.out, &reply, &it, &j);
        for (size_t k = 0; k < 7; k++) {
            enum item_verdict want = complaints[i].dead[k] == 'x' ? ITEM_DEAD : ITEM_DONE;
            if (verdict[k] != want)
                fail_msg("case %zu, line %zu: %d", i, k, (int)verdict[k]);
            if (want == ITEM_DEAD && complaints[i].reason != NULL)
                assert_string_equal(reasons[k], complaints[i].reason);
        }
        if (j.partly_stored != complaints[i].partly)
            fail_msg("case %zu: partly %d", i, (int)j.partly_stored);

        /* A cut reply may have spoken of any line; and no cut of the text makes us read beyond it. */
        for (size_t len = 0; len <= reply.body.len; len++) {
            char *copy = malloc(MAX(len, (size_t)1));
            assert_non_null(copy);
            memcpy(copy, complaints[i].body, len);
            struct http_reply cut = { .status = 400, .body = slice_of(copy, len), .is_cut = len % 2 == 0 };
            struct judgement jc = { .items = verdict };
            loki_ops.judge_items(f.out, &cut, &it, &jc);
            if (cut.is_cut) {
                assert_true(jc.partly_stored);
                for (size_t k = 0; k < 7; k++)
                    assert_int_equal(verdict[k], ITEM_DEAD);
            }
            free(copy);
        }
    }
    items_deinit(&it);
    stop(&f);
}

/* Loki may write a character of a label as its number where we have its bytes; and entries before 1970 have seconds too. */
static void refused_by_other_spellings(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool is_meant;
    } cases[] = {
        { "entry for stream '{app=\"gr\\u00fc\\U0001f600\", n=\"n1\"}' has timestamp too old: 1969-12-31T23:59:58Z,", true },
        { "entry for stream '{app=\"gr\xc3\xbc\xf0\x9f\x98\x80\", n=\"n1\"}' has timestamp too old: 1969-12-31T23:59:58Z,", true },
        { "entry for stream '{app=\"gr\\u00fc\\U0001f601\", n=\"n1\"}' has timestamp too old: 1969-12-31T23:59:58Z,", false },
        { "entry for stream '{app=\"gr\\u00fc\", n=\"n1\"}' has timestamp too old: 1969-12-31T23:59:58Z,", false },
        { "entry for stream '{app=\"gr\\u00fc\\U0001f600x\", n=\"n1\"}' has timestamp too old: 1969-12-31T23:59:58Z,", false },
    };
    struct fixture f;
    struct append_result ret;
    start(&f, URL "    labels: { app: \"{service}\", n: \"{node}\" }\n    max_age: 0s\n");
    f.origin.service = SLICE("gr\xc3\xbc\xf0\x9f\x98\x80");
    assert_int_equal(put(&f, -3 * NS_PER_SEC / 2, SLICE("before"), &ret), 0); /* 23:59:58.5 */
    assert_int_equal(put(&f, -NS_PER_SEC / 2, SLICE("after"), &ret), 0);
    struct items it = sealed(&f);
    assert_int_equal(it.n, 2);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum item_verdict verdict[2];
        struct judgement j = { .items = verdict }; /* nobody wants the reasons */
        struct http_reply reply = { .status = 400, .body = slice_cstr(cases[i].body) };
        loki_ops.judge_items(f.out, &reply, &it, &j);
        assert_int_equal(verdict[0], ITEM_DEAD);
        if (verdict[1] != (cases[i].is_meant ? ITEM_DONE : ITEM_DEAD) || j.partly_stored == cases[i].is_meant)
            fail_msg("case %zu: %d, partly %d", i, (int)verdict[1], (int)j.partly_stored);
    }
    items_deinit(&it);
    stop(&f);
}

/* An empty 200 that is longer than we read is no empty 200. */
static void cut_success(void **state)
{
    (void)state;
    struct http_reply reply = { .status = 200, .is_cut = true };
    struct judgement j = { 0 };
    loki_ops.judge(NULL, &reply, SLICE(""), &j);
    assert_int_equal(j.verdict, VERDICT_HOLD);
    assert_string_equal(j.reason, "not_loki");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_by_other_spellings),
        cmocka_unit_test(cut_success),
        cmocka_unit_test(golden),
        cmocka_unit_test(label_text),
        cmocka_unit_test(label_reading),
        cmocka_unit_test(entries),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(writer_label_is_added),
        cmocka_unit_test(requests),
        cmocka_unit_test(defaults),
        cmocka_unit_test(tenants),
        cmocka_unit_test(labels_by_record),
        cmocka_unit_test(no_label_left),
        cmocka_unit_test(equal_times_step),
        cmocka_unit_test(old_and_ahead),
        cmocka_unit_test(late_lines),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(enriched),
        cmocka_unit_test(metadata_is_bounded),
        cmocka_unit_test(many_streams),
        cmocka_unit_test(full_body),
        cmocka_unit_test(rows_follow_items),
        cmocka_unit_test(explained),
        cmocka_unit_test(built_again),
        cmocka_unit_test(joined),
        cmocka_unit_test(not_ours),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(words_are_kept),
        cmocka_unit_test(refused_lines),
    };
    return cmocka_run_group_tests_name("outputs/loki", tests, NULL, NULL);
}
