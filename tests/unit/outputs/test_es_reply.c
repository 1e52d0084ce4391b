/*
 * Goal: every answer to _bulk gets the verdict of the design, and no answer, however it is cut, counts as sent.
 * Method: tables of literal replies of the real servers; each is also cut at every byte.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "outputs/es.h"

static struct es_settings set;
static struct es es = { .set = &set };

#define INDEX_ACTION "{\"create\":{\"_index\":\"t\",\"_id\":\"AAAAAAAAAAAAAAAAAAA\"}}"
#define TEXT_ACTION "{\"create\":{\"_id\":\"AAAAAAAAAAAAAAAAAAA\",\"_index\":\"t\"}}"

static struct http_reply a_reply(long status, const char *body, const char *content_type, uint32_t lines)
{
    return (struct http_reply){ .status = status, .body = slice_cstr(body), .content_type = slice_cstr(content_type),
                                .retry_after_ns = -1, .lines_sent = lines };
}

#define JSON "application/json"
#define HTML "text/html; charset=UTF-8"

static const struct {
    long status;
    const char *body, *type;
    uint32_t lines;
    enum verdict want;
    const char *reason;
} whole[] = {
    /* 200 */
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"status\":201}}]}", JSON, 2,
      VERDICT_SENT, "ok" },
    { 200, "{\"took\":7,\"errors\":false,\"items\":[{\"create\":{\"_index\":\".ds-logs-app-default-2026.01.02-000001\","
           "\"_id\":\"x\",\"_version\":1,\"result\":\"created\",\"_shards\":{\"total\":2,\"successful\":1,\"failed\":0},"
           "\"_seq_no\":0,\"_primary_term\":1,\"status\":201}}]}", JSON, 1, VERDICT_SENT, "ok" },
    { 200, "\xef\xbb\xbf{}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    /* OpenSearch and a dropping pipeline: status 200 with result noop */
    { 200, "{\"items\":[{\"create\":{\"status\":200}}],\"errors\":false}", JSON, 1, VERDICT_SENT, "ok" },
    /* Elasticsearch 9 and a truncated gzip body */
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":201}}]}", JSON, 2, VERDICT_RETRY, "item_count" },
    { 200, "{\"errors\":false,\"items\":[]}", JSON, 2, VERDICT_RETRY, "item_count" },
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":201}},]}", JSON, 1, VERDICT_RETRY, "garbage_reply" },
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":200}}]}", JSON, 1, VERDICT_SENT, "ok" },
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"status\":201}}]}", JSON, 1,
      VERDICT_RETRY, "item_count" },
    { 200, "{\"errors\":true,\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"status\":429,\"error\":{\"type\":"
           "\"es_rejected_execution_exception\",\"reason\":\"rejected\"}}}]}", JSON, 2, VERDICT_ITEMS, "items" },
    { 200, "{\"errors\":true,\"items\":[{\"create\":{\"status\":400}}]}", JSON, 2, VERDICT_RETRY, "item_count" },
    /* How many lines were sent is not known: the items must be counted. */
    { 200, "{\"errors\":false,\"items\":[{\"create\":{\"status\":201}}]}", JSON, 0, VERDICT_ITEMS, "items" },
    /* not the server we know */
    { 200, "{\"errors\":false,\"items\":[null]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[true]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[\"created\"]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[201]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[[{\"create\":{\"status\":201}}]]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":null,\"items\":[{\"create\":{\"status\":201}}]}", JSON, 2, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":null}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"x\":[true,null,1,{\"errors\":false}],\"errors\":false,\"items\":[{\"create\":null}]}", JSON, 1, VERDICT_SENT, "ok" },
    { 200, "[{\"errors\":false,\"items\":[{\"create\":{\"status\":201}}]}]", JSON, 2, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "<html><body>Welcome</body></html>", HTML, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "", HTML, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "", "", 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "", JSON, 1, VERDICT_RETRY, "cut_reply" },
    { 200, "ok", "text/plain", 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"status\":\"ok\"}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"items\":[{\"create\":{\"status\":201}}]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":\"false\",\"items\":[{\"create\":{\"status\":201}}]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[1]}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"a\":{\"errors\":false,\"items\":[{}]}}", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "[{\"errors\":false,\"items\":[{}]}]", JSON, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 200, "{\"errors\":false,\"items\":[{}]} trailing", JSON, 1, VERDICT_RETRY, "garbage_reply" },
    { 200, "{garbage", JSON, 1, VERDICT_RETRY, "garbage_reply" },
    { 200, "{garbage", HTML, 1, VERDICT_HOLD, "garbage_reply" },
    /* other statuses */
    { 201, "{}", JSON, 1, VERDICT_HOLD, "unexpected_status" },
    { 204, "", "", 1, VERDICT_HOLD, "unexpected_status" },
    { 301, "", HTML, 1, VERDICT_HOLD, "redirect" },
    { 302, "", HTML, 1, VERDICT_HOLD, "redirect" },
    { 400, "{\"error\":{\"root_cause\":[{\"type\":\"illegal_argument_exception\",\"reason\":\"x\"}],\"type\":"
           "\"illegal_argument_exception\",\"reason\":\"Action/metadata line [1] contains an unknown parameter [x]\"},"
           "\"status\":400}", JSON, 1, VERDICT_BISECT, "bad_request" },
    { 400, "", "", 1, VERDICT_BISECT, "bad_request" },
    { 400, "<html>400 The plain HTTP request was sent to HTTPS port</html>", HTML, 1, VERDICT_HOLD, "not_elasticsearch" },
    { 401, "{\"error\":{\"type\":\"security_exception\",\"reason\":\"missing authentication credentials\"},"
           "\"status\":401}", JSON, 1, VERDICT_HOLD, "unauthorized" },
    { 403, "{\"error\":{\"type\":\"cluster_block_exception\",\"reason\":\"blocked by: [FORBIDDEN/6/cluster read-only "
           "(api)];\"},\"status\":403}", JSON, 1, VERDICT_HOLD, "forbidden" },
    { 403, "{\"error\":{\"type\":\"cluster_block_exception\",\"reason\":\"blocked by: [FORBIDDEN/12/index read-only / "
           "allow delete (api)];\"},\"status\":403}", JSON, 1, VERDICT_RETRY, "forbidden" },
    { 404, "nginx", HTML, 1, VERDICT_HOLD, "not_found" },
    { 405, "{\"error\":\"Incorrect HTTP method\",\"status\":405}", JSON, 1, VERDICT_BISECT, "method" },
    { 406, "{\"error\":\"Content-Type header [text/plain] is not supported\",\"status\":406}", JSON, 1, VERDICT_BISECT,
      "content_type" },
    { 407, "", HTML, 1, VERDICT_HOLD, "unexpected_status" },
    { 408, "", "", 1, VERDICT_RETRY, "timeout" },
    { 413, "", "", 1, VERDICT_SPLIT, "too_large" },
    { 413, "<html>413 Request Entity Too Large</html>", HTML, 1, VERDICT_SPLIT, "too_large" },
    { 415, "", "", 1, VERDICT_HOLD, "unexpected_status" },
    { 425, "", "", 1, VERDICT_RETRY, "too_early" },
    { 429, "{\"error\":{\"type\":\"es_rejected_execution_exception\",\"reason\":\"rejected execution of coordinating "
           "operation\"},\"status\":429}", JSON, 1, VERDICT_RETRY, "rate_limited" },
    { 500, "oops", HTML, 1, VERDICT_RETRY, "server_error" },
    { 501, "", "", 1, VERDICT_HOLD, "not_implemented" },
    { 502, "<html>Bad Gateway</html>", HTML, 1, VERDICT_RETRY, "server_error" },
    { 503, "", "", 1, VERDICT_RETRY, "server_error" },
    { 504, "", "", 1, VERDICT_RETRY, "server_error" },
    { 100, "", "", 1, VERDICT_RETRY, "unexpected_status" },
    { 600, "", "", 1, VERDICT_RETRY, "unexpected_status" },
};

static void test_whole_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        struct http_reply reply = a_reply(whole[i].status, whole[i].body, whole[i].type, whole[i].lines);
        struct judgement j = { 0 };
        es_judge(&es.base, &reply, SLICE(""), &j);
        if (j.verdict != whole[i].want || strcmp(j.reason, whole[i].reason) != 0)
            fail_msg("%ld %s: verdict %d (%s), wanted %d (%s)", whole[i].status, whole[i].body, (int)j.verdict, j.reason,
                     (int)whole[i].want, whole[i].reason);
    }
}

/* However short the reply is cut: never sent, never a crash (the bytes lie flush against the end of their block). */
static void test_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        size_t len = strlen(whole[i].body);
        if (strstr(whole[i].body, "trailing") != NULL)
            continue; /* cut at the right place it is a good reply */
        for (size_t n = 0; n < len; n++) {
            char *copy = malloc(n + 1);
            memcpy(copy, whole[i].body, n);
            struct http_reply reply = a_reply(whole[i].status, "", whole[i].type, whole[i].lines);
            struct judgement j = { 0 };
            reply.body = slice_of(copy, n);
            es_judge(&es.base, &reply, SLICE(""), &j);
            assert_int_not_equal(j.verdict, VERDICT_SENT);
            if (whole[i].want == VERDICT_SENT)
                assert_int_equal(j.verdict, VERDICT_RETRY);
            assert_true(strlen(j.text) < sizeof(j.text));
            free(copy);
        }
    }
}

static void test_failures(void **state)
{
    (void)state;
    static const struct { const char *failure; enum verdict want; } cases[] = {
        { "timeout", VERDICT_RETRY }, { "refused", VERDICT_RETRY }, { "reset", VERDICT_RETRY }, { "dns", VERDICT_RETRY },
        { "tls", VERDICT_HOLD },      { "proxy", VERDICT_RETRY },   { "write", VERDICT_RETRY }, { NULL, VERDICT_RETRY },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_reply reply = { .failure = cases[i].failure, .failure_text = SLICE("curl says\nso") };
        struct judgement j = { 0 };
        es_judge(&es.base, &reply, SLICE(""), &j);
        assert_int_equal(j.verdict, cases[i].want);
        assert_string_equal(j.reason, cases[i].failure != NULL ? cases[i].failure : "no_reply");
        assert_string_equal(j.text, "curl says so");
    }
}

static void test_words(void **state)
{
    (void)state;
    struct http_reply reply = a_reply(401, "{\"error\":{\"root_cause\":[{\"type\":\"a\",\"reason\":\"b\"}],\"type\":"
                                           "\"security_exception\",\"reason\":\"no\\nway\"},\"status\":401}", JSON, 1);
    struct judgement j = { 0 };
    es_judge(&es.base, &reply, SLICE(""), &j);
    assert_string_equal(j.text, "security_exception: no way");
    reply = a_reply(406, "{\"error\":\"Content-Type header [text/plain] is not supported\",\"status\":406}", JSON, 1);
    es_judge(&es.base, &reply, SLICE(""), &j);
    assert_string_equal(j.text, "Content-Type header [text/plain] is not supported");
    char big[2000];
    memset(big, 'x', sizeof(big));
    reply.body = slice_of(big, sizeof(big));
    reply.status = 500;
    es_judge(&es.base, &reply, SLICE(""), &j);
    assert_int_equal(strlen(j.text), sizeof(j.text) - 1);
}

#define ERR(type, reason) "\"error\":{\"type\":\"" type "\",\"reason\":\"" reason "\"}"

static const struct {
    const char *item;
    bool is_text;
    int on_refused;
    enum item_verdict want;
    const char *reason;
} single[] = {
    { "\"status\":201", false, ES_REFUSED_TEXT, ITEM_DONE, "" },
    { "\"status\":200,\"result\":\"noop\"", false, ES_REFUSED_TEXT, ITEM_DONE, "" },
    { "\"status\":201,\"failure_store\":\"used\"", false, ES_REFUSED_TEXT, ITEM_DONE, "" },
    { "\"status\":409," ERR("version_conflict_engine_exception", "[x]: version conflict, document already exists"), false,
      ES_REFUSED_TEXT, ITEM_DONE, "" },
    { "\"status\":409", false, ES_REFUSED_TEXT, ITEM_DONE, "" },
    { "\"status\":409," ERR("something_else", "x"), false, ES_REFUSED_TEXT, ITEM_RETRY, "something_else" },
    { "\"status\":429," ERR("es_rejected_execution_exception", "rejected"), false, ES_REFUSED_TEXT, ITEM_RETRY,
      "es_rejected_execution_exception" },
    { "\"status\":429," ERR("cluster_block_exception", "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded "
                            "flood-stage watermark, index has read-only-allow-delete block];"), false, ES_REFUSED_TEXT,
      ITEM_RETRY, "cluster_block_exception" },
    { "\"status\":403," ERR("cluster_block_exception", "blocked by: [FORBIDDEN/12/index read-only / allow delete "
                            "(api)];"), false, ES_REFUSED_TEXT, ITEM_RETRY, "cluster_block_exception" },
    { "\"status\":403," ERR("cluster_block_exception", "blocked by: [FORBIDDEN/5/index read-only (api)];"), false,
      ES_REFUSED_TEXT, ITEM_HOLD, "cluster_block_exception" },
    { "\"status\":403," ERR("security_exception", "action is unauthorized"), false, ES_REFUSED_TEXT, ITEM_HOLD,
      "security_exception" },
    { "\"status\":401," ERR("security_exception", "x"), false, ES_REFUSED_TEXT, ITEM_HOLD, "security_exception" },
    { "\"status\":404," ERR("index_not_found_exception", "no such index [x]"), false, ES_REFUSED_TEXT, ITEM_HOLD,
      "index_not_found_exception" },
    { "\"status\":503," ERR("unavailable_shards_exception", "x"), false, ES_REFUSED_TEXT, ITEM_RETRY,
      "unavailable_shards_exception" },
    { "\"status\":500," ERR("fail_processor_exception", "x"), false, ES_REFUSED_TEXT, ITEM_RETRY,
      "fail_processor_exception" },
    { "\"status\":501", false, ES_REFUSED_TEXT, ITEM_HOLD, "status_501" },
    { "\"status\":408", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_408" },
    { "\"status\":400," ERR("document_parsing_exception", "[1:10] failed to parse field [level] of type [long]"), false,
      ES_REFUSED_TEXT, ITEM_TEXT, "document_parsing_exception" },
    { "\"status\":400," ERR("mapper_parsing_exception", "failed to parse"), false, ES_REFUSED_DEAD, ITEM_DEAD,
      "mapper_parsing_exception" },
    { "\"status\":400," ERR("mapper_parsing_exception", "failed to parse"), true, ES_REFUSED_TEXT, ITEM_DEAD,
      "mapper_parsing_exception" },
    { "\"status\":400," ERR("illegal_argument_exception", "Limit of total fields [1000] has been exceeded"), false,
      ES_REFUSED_TEXT, ITEM_TEXT, "illegal_argument_exception" },
    { "\"status\":400," ERR("validation_exception", "Validation Failed: 1: this action would add [2] shards, but this "
                            "cluster currently has [1000]/[1000] maximum normal shards open;"), false, ES_REFUSED_TEXT,
      ITEM_HOLD, "validation_exception" },
    { "\"status\":400," ERR("illegal_argument_exception", "pipeline with id [x] does not exist"), true, ES_REFUSED_TEXT,
      ITEM_HOLD, "illegal_argument_exception" },
    { "\"status\":400," ERR("index_closed_exception", "closed"), false, ES_REFUSED_TEXT, ITEM_HOLD,
      "index_closed_exception" },
    { "\"status\":400," ERR("invalid_index_name_exception", "Invalid index name"), false, ES_REFUSED_TEXT, ITEM_HOLD,
      "invalid_index_name_exception" },
    { "\"status\":413", false, ES_REFUSED_DEAD, ITEM_DEAD, "status_413" },
    { "\"status\":400," ERR("Evil Type\\u0000", "x"), false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":400,\"error\":\"a string\"", false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":99999999999999999999", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_0" },
    { "\"status\":-1", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_0" },
    { "\"status\":\"201\"", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_0" },
    { "\"status\":1000", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_0" },
    { "\"status\":300", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_300" },
    { "\"status\":425", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_425" },
    { "\"status\":400," ERR("illegal_argument_exception", "pipeline with id [x] is broken"), false, ES_REFUSED_DEAD, ITEM_DEAD,
      "illegal_argument_exception" },
    { "\"status\":400," ERR("v2_exception", "x"), false, ES_REFUSED_DEAD, ITEM_DEAD, "v2_exception" },
    { "\"status\":400," ERR("a{b", "x"), false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":400," ERR("a`b", "x"), false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":400," ERR("a:b", "x"), false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":400,\"error\":{\"type\":null,\"reason\":null,\"caused_by\":{\"type\":\"x\"},\"root_cause\":[null]}", false,
      ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"status\":400,\"error\":[{\"type\":\"x\"}]", false, ES_REFUSED_DEAD, ITEM_DEAD, "status_400" },
    { "\"result\":{\"status\":201}", false, ES_REFUSED_TEXT, ITEM_RETRY, "status_0" },
};

static void test_single_items(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(single); i++) {
        char body[1024];
        (void)snprintf(body, sizeof(body), "{\"errors\":true,\"items\":[{\"create\":{%s}}]}", single[i].item);
        struct item item = { .head = single[i].is_text ? SLICE(TEXT_ACTION) : SLICE(INDEX_ACTION) };
        struct items items = { .item = &item, .n = 1 };
        struct http_reply reply = a_reply(200, body, JSON, 1);
        enum item_verdict v = ITEM_DONE;
        char reasons[1][64] = { "" };
        struct judgement j = { .items = &v, .item_reasons = reasons };
        set.document.on_refused = single[i].on_refused;
        es_judge_items(&es.base, &reply, &items, &j);
        assert_int_equal(j.verdict, VERDICT_ITEMS);
        if (v != single[i].want)
            fail_msg("%s: %d, wanted %d", single[i].item, (int)v, (int)single[i].want);
        assert_string_equal(reasons[0], single[i].reason);
        assert_string_equal(j.reason, v == ITEM_DONE ? "" : single[i].reason);
    }
    set.document.on_refused = ES_REFUSED_TEXT;
}

#define MIXED                                                                                                          \
    "{\"errors\":true,\"items\":[{\"create\":{\"status\":201}},{\"create\":{\"status\":429," ERR("a", "b") "}},"        \
    "{\"create\":{\"status\":400," ERR("mapper_parsing_exception", "c") "}},{\"create\":{\"status\":404,"               \
    ERR("index_not_found_exception", "d") "}}]}"

static void judge_mixed(struct http_reply *reply, size_t n, enum item_verdict v[4], struct judgement *j)
{
    struct item item[4] = { { .head = SLICE(INDEX_ACTION) }, { .head = SLICE(INDEX_ACTION) },
                            { .head = SLICE(INDEX_ACTION) }, { .head = SLICE(INDEX_ACTION) } };
    struct items items = { .item = item, .n = n };
    *j = (struct judgement){ .items = v };
    es_judge_items(&es.base, reply, &items, j);
}

static void test_mixed_items(void **state)
{
    (void)state;
    struct http_reply reply = a_reply(200, MIXED, JSON, 4);
    enum item_verdict v[4];
    struct judgement j;
    judge_mixed(&reply, 4, v, &j);
    const enum item_verdict want[4] = { ITEM_DONE, ITEM_RETRY, ITEM_TEXT, ITEM_HOLD };
    assert_memory_equal(v, want, sizeof(want));
    assert_string_equal(j.reason, "mapper_parsing_exception");
    assert_string_equal(j.text, "mapper_parsing_exception: c");

    /* Another number of lines than items: nothing can be told apart, all again. */
    judge_mixed(&reply, 3, v, &j);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(v[i], ITEM_RETRY);
    assert_string_equal(j.reason, "item_count");
}

/* A reply longer than we keep settles the items that can be read; the cut one and the rest are sent again. */
static void test_long_replies(void **state)
{
    (void)state;
    size_t len = strlen(MIXED);
    for (size_t n = 0; n <= len; n++) {
        char *copy = malloc(n + 1);
        memcpy(copy, MIXED, n);
        struct http_reply reply = a_reply(200, "", JSON, 4);
        enum item_verdict v[4];
        struct judgement j;
        reply.body = slice_of(copy, n);
        reply.is_cut = true;
        es_judge(&es.base, &reply, SLICE(""), &j);
        assert_int_not_equal(j.verdict, VERDICT_SENT);
        judge_mixed(&reply, 4, v, &j);
        const enum item_verdict want[4] = { ITEM_DONE, ITEM_RETRY, ITEM_TEXT, ITEM_HOLD };
        for (size_t i = 0; i < 4; i++)
            assert_true(v[i] == want[i] || v[i] == ITEM_RETRY);
        if (n > 60)
            assert_int_equal(v[0], ITEM_DONE);
        /* Not cut by us, but short: nothing of it counts. */
        reply.is_cut = false;
        judge_mixed(&reply, 4, v, &j);
        for (size_t i = 0; i < 4 && n < len; i++)
            assert_int_equal(v[i], ITEM_RETRY);
        free(copy);
    }
}

static void test_deep_reply(void **state)
{
    (void)state;
    size_t n = 1 * MIB - 16;
    char *deep = malloc(n);
    memset(deep, '[', n);
    memcpy(deep, "{\"a\":", 5);
    struct http_reply reply = a_reply(200, "", JSON, 1);
    struct judgement j = { 0 };
    reply.body = slice_of(deep, n);
    es_judge(&es.base, &reply, SLICE(""), &j);
    assert_int_equal(j.verdict, VERDICT_RETRY);
    free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_replies), cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_failures),      cmocka_unit_test(test_words),
        cmocka_unit_test(test_single_items),  cmocka_unit_test(test_mixed_items),
        cmocka_unit_test(test_long_replies),  cmocka_unit_test(test_deep_reply),
    };
    set.document.payload = SLICE("top");
    return cmocka_run_group_tests_name("outputs/es_reply", tests, NULL, NULL);
}
