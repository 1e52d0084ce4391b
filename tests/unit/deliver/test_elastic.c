/*
 * Goal: the real Elasticsearch output and the sender agree on what a reply with mixed items means.
 * Method: real bodies through a real queue; a scripted server decodes them and answers line by line.
 */
#include "tests/unit/deliver/rig.h"

#include <fcntl.h>

#include "outputs/es.h"

#define LINES 8

static struct wanted_keys wanted;

struct es_rig {
    struct rig g;
    struct es_settings set;
    struct server srv;
    unsigned seen[LINES];     /* how often each line came */
    unsigned as_text[LINES];
    unsigned refuse[LINES];   /* so often it is refused before it is taken; UINT_MAX: always */
};

/* What each line is answered at first. */
static const struct {
    int status;
    unsigned refuse;
    const char *type;
} lines[LINES] = {
    { 201, 0, "" },
    { 409, 1, "version_conflict_engine_exception" },   /* is there: done */
    { 429, 2, "es_rejected_execution_exception" },     /* again, twice */
    { 400, 1, "document_parsing_exception" },          /* once more as text, which is taken */
    { 403, 2, "security_exception" },                  /* its index is held, then let go */
    { 400, UINT32_MAX, "document_parsing_exception" }, /* also refused as text: dead */
    { 503, 1, "unavailable_shards_exception" },
    { 201, 0, "" },
};

static struct server_answer bulk(void *ctx, const struct server_request *req)
{
    struct es_rig *e = ctx;
    struct server_answer a = { .status = 200, .headers = "Content-Type: application/json\r\n" };
    struct items items = { 0 };
    struct buf body;
    bool errors = false;
    if (strncmp(req->head, "POST /_bulk", 11) != 0) /* setup: the template */
        return (struct server_answer){ .status = 200, .body = "{}" };
    assert_int_equal(elasticsearch_ops.items(e->g.out, slice_of(req->body, req->body_len), SLICE(""), &items), 0);
    buf_init(&body, sizeof(a.body) - 64);
    for (size_t i = 0; i < items.n; i++) {
        const struct slice doc = items.item[i].data;
        const ptrdiff_t at = slice_find(doc, SLICE("line-"));
        assert_true(at >= 0);
        const unsigned n = (unsigned)(doc.ptr[at + 5] - '0');
        e->as_text[n] += es_item_is_text(&items.item[i]);
        const bool is_refused = e->seen[n]++ < e->refuse[n];
        errors |= is_refused;
        if (is_refused)
            assert_int_equal(buf_printf(&body, "%s{\"create\":{\"status\":%d,\"error\":{\"type\":\"%s\",\"reason\":\"because\"}}}",
                                        i == 0 ? "" : ",", lines[n].status, lines[n].type), 0);
        else
            assert_int_equal(buf_printf(&body, "%s{\"create\":{\"status\":201}}", i == 0 ? "" : ","), 0);
    }
    (void)snprintf(a.body, sizeof(a.body), "{\"took\":1,\"errors\":%s,\"items\":[%.*s]}", errors ? "true" : "false",
                   SLICE_ARGS(buf_slice(&body)));
    buf_deinit(&body);
    items_deinit(&items);
    return a;
}

/* Lines 0..LINES of two tenants into one frame; line 4 alone is in an index of its own. */
static void put_lines(struct es_rig *e)
{
    const struct origin o = { .id = 1, .host = SLICE("vm-1"), .service = SLICE("shop") };
    struct append_result res = { 0 };
    for (unsigned i = 0; i < LINES; i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "{\"level\":\"INFO\",\"msg\":\"line-%u\"}", i);
        struct record rec = { .origin = &o, .incarnation = 77, .offset = 100 * i, .read_ns = clock_wall_ns(),
                              .kind = RECORD_JSON, .line = slice_cstr(text), .level = LEVEL_INFO,
                              .message = slice_cstr(text), .flags = RECORD_HAS_TIME,
                              .tenant = i == 4 ? SLICE("held") : SLICE("free") };
        rec.time_ns = rec.read_ns;
        rec.tenant_id = tenant_intern(rec.tenant);
        assert_int_equal(elasticsearch_ops.append(e->g.out, &rec, &res), 0);
    }
    struct buf wire;
    buf_init(&wire, MIB);
    bodies_take(&e->g.out->open, res.body);
    assert_int_equal(elasticsearch_ops.seal(e->g.out, res.body, &wire), 0);
    assert_int_equal(res.body->n_rows, 2);
    struct frame_row rows[2];
    for (unsigned i = 0; i < 2; i++) {
        rows[i] = (struct frame_row){ SLICE("in"), tenant_name(res.body->rows[i].tenant), res.body->rows[i].lines };
        struct output_row *row = stats_output_row(e->g.conf.index, res.body->rows[i].tenant);
        counter_add(&row->accepted_lines, rows[i].lines);
        gauge_add(&row->queued_lines, rows[i].lines);
    }
    const struct frame_in in = { .route = buf_slice(&res.body->route), .wire = buf_slice(&wire),
                                 .raw_len = (uint32_t)res.body->raw.len, .lines = LINES, .rows = rows, .n_rows = 2,
                                 .runs = buf_slice(&res.body->runs), .built_ns = clock_wall_ns() };
    const struct group_end end = { 0 };
    rig_open_queue(&e->g);
    assert_int_equal(queue_append(e->g.q, &in, &end, &e->g.last_seq), 0);
    assert_int_equal(queue_sync(e->g.q), 0);
    buf_deinit(&wire);
    body_free(res.body);
}

static void test_mixed_items(void **state)
{
    (void)state;
    struct es_rig *e = calloc(1, sizeof(*e));
    struct err err = { 0 };
    assert_non_null(e);
    for (unsigned i = 0; i < LINES; i++)
        e->refuse[i] = lines[i].refuse;
    assert_int_equal(server_start(&e->srv, 0, bulk, e), 0);
    rig_init(&e->g, &toy_ops, e->srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    assert_int_equal(template_parse(SLICE("ix-{tenant}"), true, &wanted, &e->set.index, &err), 0);
    e->set.data_stream.type = SLICE("logs");
    e->set.document.payload = SLICE("top");
    e->set.document.on_refused = ES_REFUSED_TEXT;
    e->g.conf.type = &elasticsearch_type;
    e->g.conf.settings = &e->set;
    (void)snprintf(e->g.url_text[0], sizeof(e->g.url_text[0]), "http://127.0.0.1:%u", e->srv.port);
    e->g.urls[0] = slice_cstr(e->g.url_text[0]);
    assert_int_equal(elasticsearch_ops.open(&e->g.conf, &e->g.out, &err), 0);
    put_lines(e);

    const uint64_t altered = counter_get(&stats.inputs[0].altered[ALTER_REFUSED_MAPPING]);
    rig_start(&e->g);
    rig_until(rig_all_acked(&e->g));
    rig_settle(&e->g);
    rig_stop(&e->g, NS_PER_SEC);
    static const unsigned seen[LINES] = { 1, 1, 3, 2, 3, 2, 2, 1 };
    for (unsigned i = 0; i < LINES; i++)
        assert_int_equal(e->seen[i], seen[i]);
    assert_int_equal(e->as_text[3], 1);
    assert_int_equal(e->as_text[5], 1);
    assert_int_equal(e->as_text[0] + e->as_text[1] + e->as_text[2] + e->as_text[4], 0);
    assert_int_equal(counter_get(&stats.inputs[0].altered[ALTER_REFUSED_MAPPING]) - altered, 1);
    const struct rig_ledger free_ = rig_ledger(&e->g, "free"), held = rig_ledger(&e->g, "held");
    assert_int_equal(free_.delivered, 6);
    assert_int_equal(free_.dead, 1);
    assert_int_equal(free_.queued, 0);
    assert_int_equal(held.delivered, 1);
    assert_int_equal(held.queued, 0);
    assert_int_equal(rig_code(stats.outputs[e->g.conf.index].dead, "document_parsing_exception"), 1);

    elasticsearch_ops.close(e->g.out);
    template_free(e->set.index);
    rig_deinit(&e->g);
    server_stop(&e->srv);
    free(e);
}

int main(void)
{
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* threads are running: nothing good comes after a failure */
    (void)toy_join_ops;
    (void)toy_setup_ops;
    (void)toy_local_ops;
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_mixed_items) };
    if (getenv("TAILRACE_TEST_LOG") == NULL)
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    return cmocka_run_group_tests_name("deliver/elastic", tests, NULL, NULL);
}
