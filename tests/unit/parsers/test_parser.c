/*
 * Goal:   every logger of protocols.md §4 and every text head gives the right level, module, message and time; what is cut,
 *         damaged or hostile never crashes, never reads too far and never believes what is broken.
 * Method: tables of lines; each also cut at every byte against an unreadable page.
 */
#include "parsers/parser.h"

#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/parsers/guard.h"
#include "tests/unit/parsers/samples.h"

#define READ_NS NS(T0 + 86400, 0)

static struct parser *make_parser(const struct parser_conf *given)
{
    struct parser_conf conf = *given;
    struct parser *p = NULL;
    struct err err = { 0 };
    if (conf.timezone.len == 0)
        conf.timezone = SLICE("Europe/Berlin");
    int r = parser_new(&conf, &p, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    return p;
}

static struct record *make_record(struct slice line)
{
    static struct record rec;
    memset(&rec, 0xA5, sizeof(rec)); /* what the parser leaves alone must not matter */
    rec.line = line;
    rec.read_ns = READ_NS;
    rec.time_ns = READ_NS;
    rec.flags = 0;
    return &rec;
}

static const struct record *read_line(struct parser *p, struct slice line)
{
    struct record *rec = make_record(line);
    assert_int_equal(parser_record(p, rec, NULL, NULL), PARSE_OK);
    return rec;
}

#define assert_slice(got, want) assert_slice_at((got), (want), __FILE__, __LINE__)
static void assert_slice_at(struct slice got, struct slice want, const char *file, int line)
{
    if (slice_eq(got, want))
        return;
    print_error("got  '%.*s'\nwant '%.*s'\n", SLICE_ARGS(got), SLICE_ARGS(want));
    _fail(file, line);
}

/* ---- the tables --------------------------------------------------------------------------------------------------- */

static bool is_right(const struct sample *s, const struct record *rec)
{
    struct slice message = s->message.ptr == NULL ? rec->line : s->message;
    bool has_time = (rec->flags & RECORD_HAS_TIME) != 0;
    bool is_time = s->time_ns == NO_TIME ? !has_time && rec->time_ns == READ_NS : has_time && rec->time_ns == s->time_ns;
    if (rec->level == s->level && slice_eq(rec->module, s->module) && slice_eq(rec->message, message) && is_time)
        return true;
    print_error("%s: level %d, module '%.*s', message '%.*s', time %lld (%s)\n", s->name, (int)rec->level,
                SLICE_ARGS(rec->module), SLICE_ARGS(rec->message), (long long)rec->time_ns, has_time ? "own" : "none");
    return false;
}

static void test_json_samples(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    unsigned n_wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(json_samples); i++) {
        const struct record *rec = read_line(p, guard_put(json_samples[i].line));
        n_wrong += is_right(&json_samples[i], rec) && rec->kind == RECORD_JSON && (rec->flags & RECORD_BAD_TIME) == 0 ? 0 : 1;
    }
    assert_int_equal(n_wrong, 0);
    parser_free(p);
}

static void test_text_samples(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ 0 });
    unsigned n_wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(text_samples); i++) {
        const struct record *rec = read_line(p, guard_put(text_samples[i].line));
        n_wrong += is_right(&text_samples[i], rec) && rec->kind == RECORD_TEXT ? 0 : 1;
    }
    assert_int_equal(n_wrong, 0);
    parser_free(p);
}

static void test_text_only_takes_json_as_text(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ .text_only = true });
    const struct record *rec = read_line(p, SLICE("{\"level\":\"info\"}"));
    assert_int_equal(rec->kind, RECORD_TEXT);
    assert_int_equal(rec->flags, 0);
    assert_int_equal(rec->level, LEVEL_UNKNOWN);
    parser_free(p);
}

/* Each sample, cut at every byte: never a crash, and a cut JSON object is text with its whole line as the message. */
static void test_cut_at_every_byte(void **state)
{
    (void)state;
    static const struct slice trusted[] = { SLICE_INIT("pod"), SLICE_INIT("log.x"), SLICE_INIT("fields") };
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true, .trusted = trusted, .n_trusted = 3 });
    for (size_t i = 0; i < ARRAY_LEN(json_samples); i++) {
        struct slice whole = slice_trim(json_samples[i].line);
        for (size_t n = 0; n < whole.len; n++) {
            const struct record *rec = read_line(p, guard_put(slice_first(whole, n)));
            assert_int_equal(rec->kind, RECORD_TEXT);
            assert_int_equal(rec->flags & RECORD_BAD_JSON, n > 0 ? RECORD_BAD_JSON : 0);
            assert_slice(rec->message, rec->line);
            assert_int_equal(rec->level, LEVEL_UNKNOWN);
            assert_int_equal(rec->n_suspects, 0);
        }
        /* and the next whole line is read as if nothing had been */
        assert_true(is_right(&json_samples[i], read_line(p, guard_put(json_samples[i].line))));
    }
    for (size_t i = 0; i < ARRAY_LEN(text_samples); i++)
        for (size_t n = 0; n < text_samples[i].line.len; n++)
            (void)read_line(p, guard_put(slice_first(text_samples[i].line, n)));
    parser_free(p);
}

/* ---- what is not an object ---------------------------------------------------------------------------------------- */

static void test_bad_json(void **state)
{
    (void)state;
    static const struct slice lines[] = {
        SLICE_INIT("{\"level\":\"info\"} x"), SLICE_INIT("{\"level\":\"info\"}{\"a\":1}"), SLICE_INIT("{\"a\":1} 123"),
        SLICE_INIT("{\"a\":1}]"),  SLICE_INIT("{\"a\":1}\0"),       SLICE_INIT("{\"a\":\"\0\"}"), SLICE_INIT("{\"a\":1,}"),
        SLICE_INIT("{a:1}"),       SLICE_INIT("{\"a\":01}"),        SLICE_INIT("{\"a\":.5}"),     SLICE_INIT("{\"a\":+1}"),
        SLICE_INIT("{\"a\":\"\x01\"}"), SLICE_INIT("{\"a\":\"\\x41\"}"), SLICE_INIT("{\"a\":\"\\u12g4\"}"),
        SLICE_INIT("{\"a\":\"\xFF\"}"), SLICE_INIT("{\"a\":\"\xC0\x80\"}"), SLICE_INIT("{\"a\":\"\xED\xA0\x80\"}"),
        SLICE_INIT("{\"a\":\"\xE2\x82\"}"), SLICE_INIT("{\"a\":NaN}"), SLICE_INIT("{\"a\":/**/1}"), SLICE_INIT("{\"a\"\v:1}"),
        SLICE_INIT("{"), SLICE_INIT("{}}"), SLICE_INIT("{\"a\":tru}"), SLICE_INIT("{\"\xF5\x80\x80\x80\":1}"),
    };
    struct parser *p = make_parser(&(struct parser_conf){ 0 });
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        const struct record *rec = read_line(p, guard_put(lines[i]));
        if (rec->kind != RECORD_TEXT || rec->flags != RECORD_BAD_JSON || rec->level != LEVEL_UNKNOWN)
            fail_msg("'%.*s' was taken", SLICE_ARGS(lines[i]));
        assert_slice(rec->message, rec->line);
        assert_int_equal(read_line(p, SLICE("{\"level\":\"warn\"}"))->level, LEVEL_WARN);
    }
    parser_free(p);
}

static void test_good_but_odd_json(void **state)
{
    (void)state;
    static const struct slice lines[] = {
        SLICE_INIT("{}"), SLICE_INIT("{\"a\":1e999}"), SLICE_INIT("{\"a\":123456789012345678901234567890}"),
        SLICE_INIT("{\"\":1}"), SLICE_INIT("{\"a..b\":1}"), SLICE_INIT("{\"a\":\"\\ud800\"}"), SLICE_INIT("{\"\\udc00\":1}"),
        SLICE_INIT("{\"a\":-0.0e-0}"), SLICE_INIT("{\"a\":\"\x7f\"}"), SLICE_INIT("\n{\"a\":[[],{},[{}]]}\n"),
    };
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        const struct record *rec = read_line(p, guard_put(lines[i]));
        if (rec->kind != RECORD_JSON || rec->flags != 0)
            fail_msg("'%.*s' was not taken", SLICE_ARGS(lines[i]));
    }
    /* A lone surrogate must not come out as bytes that are not UTF-8. */
    assert_slice(read_line(p, SLICE("{\"msg\":\"a\\ud800b\\udc00\"}"))->message, SLICE("a\xEF\xBF\xBD" "b\xEF\xBF\xBD"));
    parser_free(p);
}

static char *repeat(struct slice head, struct slice unit, size_t n, struct slice tail, size_t *ret_len)
{
    char *line = malloc(head.len + unit.len * n + tail.len + 1), *at = line;
    assert_non_null(line);
    memcpy(at, head.ptr, head.len);
    at += head.len;
    for (size_t i = 0; i < n; i++, at += unit.len)
        memcpy(at, unit.ptr, unit.len);
    memcpy(at, tail.ptr, tail.len + 1); /* literals: with their NUL */
    *ret_len = (size_t)(at - line) + tail.len;
    return line;
}

static void test_depth(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    static const struct { size_t depth; enum record_kind kind; } cases[] = {
        { 1, RECORD_JSON }, { JSON_DEPTH_MAX - 1, RECORD_JSON }, { JSON_DEPTH_MAX, RECORD_TEXT }, { 100000, RECORD_TEXT },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len;
        char *open = repeat(SLICE("{\"a\":"), SLICE("["), cases[i].depth, SLICE(""), &len);
        char *line = repeat(slice_of(open, len), SLICE("]"), cases[i].depth, SLICE("}"), &len);
        assert_int_equal(read_line(p, slice_of(line, len))->kind, cases[i].kind);
        free(open);
        free(line);
        char *objects = repeat(SLICE(""), SLICE("{\"a\":"), cases[i].depth, SLICE("{}"), &len);
        line = repeat(slice_of(objects, len), SLICE("}"), cases[i].depth, SLICE(""), &len);
        assert_int_equal(read_line(p, slice_of(line, len))->kind, cases[i].kind);
        free(objects);
        free(line);
    }
    parser_free(p);
}

/* A line of a megabyte with an escape at every other byte: decoded right, and the next small line too. */
static void test_long_escaped_lines(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    size_t len, n = 500000;
    char *line = repeat(SLICE("{\"level\":\"warn\",\"msg\":\""), SLICE("\\n"), n, SLICE("\",\"lo\\u0067ger\":\"x\"}"), &len);
    for (int again = 0; again < 3; again++) {
        const struct record *rec = read_line(p, slice_of(line, len));
        assert_int_equal(rec->kind, RECORD_JSON);
        assert_int_equal(rec->message.len, n);
        assert_slice(slice_first(rec->message, 3), SLICE("\n\n\n"));
        assert_slice(rec->module, SLICE("x"));
        assert_int_equal(read_line(p, slice_of(line, len - 9))->flags, RECORD_BAD_JSON);
        assert_slice(read_line(p, SLICE("{\"msg\":\"a\\tb\"}"))->message, SLICE("a\tb"));
    }
    free(line);
    parser_free(p);
}

/* ---- stopping early ----------------------------------------------------------------------------------------------- */

struct asked {
    unsigned n, out_at;
    enum level level[4];
    struct slice module[4];
};

static bool ask(void *ctx, const struct record *rec)
{
    struct asked *a = ctx;
    assert_true(a->n < 4);
    a->level[a->n] = rec->level;
    a->module[a->n] = rec->module;
    a->n++;
    return a->n == a->out_at;
}

static struct asked asked_of(struct parser *p, struct slice line, unsigned out_at, enum parse_result want)
{
    struct asked a = { .out_at = out_at };
    assert_int_equal(parser_record(p, make_record(line), ask, &a), want);
    return a;
}

static void test_is_out(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ 0 });
    struct slice line = SLICE("{\"level\":\"debug\",\"target\":\"a::b\",\"msg\":\"x\"}");
    struct asked a = asked_of(p, line, 0, PARSE_OK);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.level[0], LEVEL_DEBUG);
    assert_slice(a.module[0], SLICE(""));
    assert_slice(a.module[1], SLICE("a::b"));

    /* the rest is not looked at */
    assert_int_equal(asked_of(p, SLICE("{\"level\":\"debug\", what is this"), 1, PARSE_OUT).n, 1);
    assert_int_equal(asked_of(p, line, 2, PARSE_OUT).n, 2);
    a = asked_of(p, line, 0, PARSE_OK); /* and the handle is as good as new */
    assert_int_equal(a.n, 2);

    a = asked_of(p, SLICE("{\"msg\":\"x\"}"), 1, PARSE_OUT); /* neither: at the end */
    assert_int_equal(a.level[0], LEVEL_UNKNOWN);
    a = asked_of(p, SLICE("{\"@t\":\"2026-01-02T03:04:05Z\",\"@m\":\"x\",\"SourceContext\":\"s\"}"), 2, PARSE_OUT);
    assert_int_equal(a.level[1], LEVEL_INFO); /* known from what is missing */
    a = asked_of(p, SLICE("INFO started"), 1, PARSE_OUT); /* text too */
    assert_int_equal(a.level[0], LEVEL_INFO);
    a = asked_of(p, SLICE("{\"level\":\"info\" broken"), 2, PARSE_OUT); /* broken: asked again, as text */
    assert_int_equal(a.level[1], LEVEL_UNKNOWN);
    parser_free(p);
}

/* ---- configured keys ---------------------------------------------------------------------------------------------- */

#define SLICES(...) { .items = (const struct slice[]){ __VA_ARGS__ }, .n = sizeof((const struct slice[]){ __VA_ARGS__ }) / sizeof(struct slice) }

static void test_configured_keys(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){
        .level_keys = SLICES(SLICE("gravity"), SLICE("meta.lev")), .module_keys = SLICES(SLICE("meta.part")),
        .time_keys = SLICES(SLICE("when"), SLICE("time")), .message_keys = SLICES(SLICE("text"), SLICE("msg")),
        .tenant_keys = SLICES(SLICE("org"), SLICE("meta.org")) });
    const struct record *rec = read_line(p, SLICE("{\"meta\":{\"lev\":\"error\",\"part\":\"p\",\"org\":7},\"level\":\"info\","
        "\"timestamp\":\"2026-01-02T03:04:06Z\",\"when\":\"2026-01-02T03:04:05Z\",\"message\":\"m\",\"msg\":\"n\"}"));
    assert_int_equal(rec->level, LEVEL_ERROR); /* it came first in the line */
    assert_slice(rec->module, SLICE("p"));
    assert_true(rec->time_ns == AT(0));
    assert_slice(rec->message, SLICE("n"));
    assert_slice(rec->tenant_key.text, SLICE("7"));
    assert_int_equal(rec->tenant_key.kind, VALUE_NUMBER);

    rec = read_line(p, SLICE("{\"meta.org\":\"flat\",\"org\":\"first\",\"tenant\":\"known\",\"gravity\":\"warn\",\"level\":\"info\"}"));
    assert_slice(rec->tenant_key.text, SLICE("first"));
    assert_int_equal(rec->level, LEVEL_WARN);
    rec = read_line(p, SLICE("{\"org\":\"\",\"meta.org\":null,\"tenant\":\"known\"}"));
    assert_slice(rec->tenant_key.text, SLICE("known"));
    assert_int_equal(read_line(p, SLICE("{\"org\":{\"a\":1}}"))->tenant_key.kind, VALUE_MISSING);
    parser_free(p);
}

static void test_wanted_values(void **state)
{
    (void)state;
    static const struct wanted_keys wanted = {
        .paths = { SLICE_INIT("user.id"), SLICE_INIT("trace_id"), SLICE_INIT("a"), SLICE_INIT("level"), SLICE_INIT("a.b.c") }, .n = 5 };
    struct parser *p = make_parser(&(struct parser_conf){ .wanted = &wanted });

    const struct record *rec = read_line(p, SLICE("{\"user\":{\"id\":5},\"user.id\":\"flat\",\"user.id\":\"again\",\"trace_id\":null,"
        "\"a\":{\"b\":{\"c\":true}},\"level\":\"in\\u0066o\"}"));
    assert_slice(rec->values[0].text, SLICE("flat")); /* flat beats nested, the first beats the second */
    assert_int_equal(rec->values[1].kind, VALUE_NULL);
    assert_int_equal(rec->values[2].kind, VALUE_OBJECT);
    assert_slice(rec->values[3].text, SLICE("info"));
    assert_int_equal(rec->values[4].kind, VALUE_BOOL);
    assert_slice(rec->values[4].text, SLICE("true"));

    rec = read_line(p, SLICE("{\"user\":[{\"id\":1}],\"user\":{\"id\":1.50},\"user\":{\"id\":2},\"a\":[1],\"b\":{\"a\":1}}"));
    assert_slice(rec->values[0].text, SLICE("1.50"));
    assert_int_equal(rec->values[1].kind, VALUE_MISSING);
    assert_int_equal(rec->values[2].kind, VALUE_ARRAY);
    assert_int_equal(rec->values[2].text.len, 0);
    parser_free(p);
}

/* ---- suspects and duplicates -------------------------------------------------------------------------------------- */

static void test_suspects(void **state)
{
    (void)state;
    static const struct slice trusted[] = { SLICE_INIT("pod"), SLICE_INIT("kubernetes.pod.name"), SLICE_INIT("tenant") };
    struct parser *p = make_parser(&(struct parser_conf){ .trusted = trusted, .n_trusted = ARRAY_LEN(trusted) });
    static const struct { struct slice key, raw_key, raw_value, text; enum value_kind kind; } wants[] = {
        { SLICE_INIT("pod"), SLICE_INIT("\"pod\""), SLICE_INIT("\"x\""), SLICE_INIT("x"), VALUE_STRING },
        { SLICE_INIT("pod"), SLICE_INIT("\"p\\u006fd\""), SLICE_INIT("12.5e1"), SLICE_INIT("12.5e1"), VALUE_NUMBER },
        { SLICE_INIT("pod.name"), SLICE_INIT("\"pod.name\""), SLICE_INIT("\"a\\\\\\\"]}b\""), SLICE_INIT("a\\\"]}b"), VALUE_STRING },
        { SLICE_INIT("kubernetes"), SLICE_INIT("\"kubernetes\""), SLICE_INIT("{ \"pod\":{\"n\":[1,{\"]\":\"}\"}]} }"), SLICE_INIT(""), VALUE_OBJECT },
        { SLICE_INIT("tenant"), SLICE_INIT("\"tenant\""), SLICE_INIT("true"), SLICE_INIT("true"), VALUE_BOOL },
        { SLICE_INIT("tenant"), SLICE_INIT("\"tenant\""), SLICE_INIT("null"), SLICE_INIT(""), VALUE_NULL },
        { SLICE_INIT("pod"), SLICE_INIT("\"pod\""), SLICE_INIT("[ ]"), SLICE_INIT(""), VALUE_ARRAY },
        { SLICE_INIT("pod"), SLICE_INIT("\"\\u0070od\""), SLICE_INIT("\"\""), SLICE_INIT(""), VALUE_STRING },
        { SLICE_INIT("tenant.\\x"), SLICE_INIT("\"tenant.\\\\x\""), SLICE_INIT("0"), SLICE_INIT("0"), VALUE_NUMBER },
    };
    const struct record *rec = read_line(p, guard_put(SLICE(
        "  {\"podium\":1,\"p\":{\"pod\":1},\"pod\" : \"x\",\"p\\u006fd\":12.5e1 ,\"pod.name\":\"a\\\\\\\"]}b\",\"kubernetes\":"
        " { \"pod\":{\"n\":[1,{\"]\":\"}\"}]} } ,\"tenant\":true,\"tenant\":null, \"pod\"\t:\t[ ],\"x\\\\\":[{\"pod\":2}],"
        "\"\\u0070od\":\"\",\"tenant.\\\\x\":0}  ")));
    assert_int_equal(rec->kind, RECORD_JSON);
    assert_int_equal(rec->n_suspects, ARRAY_LEN(wants));
    for (size_t i = 0; i < ARRAY_LEN(wants); i++) {
        const struct suspect *s = &rec->suspects[i];
        assert_slice(slice_of(rec->line.ptr + s->key_start, s->key_end - s->key_start), wants[i].raw_key);
        assert_slice(slice_of(rec->line.ptr + s->value_start, s->value_end - s->value_start), wants[i].raw_value);
        assert_slice(s->key, wants[i].key);
        assert_slice(s->value.text, wants[i].text);
        assert_int_equal(s->value.kind, wants[i].kind);
    }
    assert_int_equal(rec->flags, 0);
    assert_slice(rec->tenant_key.text, SLICE("true"));
    parser_free(p);
}

static void test_too_many_suspects(void **state)
{
    (void)state;
    static const struct slice trusted[] = { SLICE_INIT("pod") };
    struct parser *p = make_parser(&(struct parser_conf){ .trusted = trusted, .n_trusted = 1 });
    for (size_t n = SUSPECT_KEYS_MAX - 1; n <= SUSPECT_KEYS_MAX + 1; n++) {
        size_t len;
        char *line = repeat(SLICE("{"), SLICE("\"pod\":1,"), n, SLICE("\"a\":1}"), &len);
        const struct record *rec = read_line(p, slice_of(line, len));
        assert_int_equal(rec->n_suspects, MIN(n, (size_t)SUSPECT_KEYS_MAX));
        assert_int_equal(rec->flags, n > SUSPECT_KEYS_MAX ? RECORD_MANY_SUSPECTS : 0);
        free(line);
    }
    parser_free(p);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    static const struct { struct slice line; bool is_double; } cases[] = {
        { SLICE_INIT("{\"a\":1,\"b\":2}"), false },
        { SLICE_INIT("{\"a\":1,\"a\":2}"), true },
        { SLICE_INIT("{\"a\":1,\"\\u0061\":2}"), true },
        { SLICE_INIT("{\"a\":{\"a\":{\"a\":1}}}"), false },
        { SLICE_INIT("{\"x\":[{\"a\":1},{\"a\":2}],\"a\":3}"), false },
        { SLICE_INIT("{\"x\":[[{\"a\":1,\"b\":{\"a\":1},\"a\":2}]]}"), true },
        { SLICE_INIT("{\"a\":{\"b\":1},\"c\":{\"b\":1},\"b\":1}"), false },
        { SLICE_INIT("{\"\":1,\"\":2}"), true },
        { SLICE_INIT("{\"x\":{\"long long key 1\":1,\"long long key 2\":1}}"), false },
        { SLICE_INIT("{\"level\":\"a\",\"x\":1,\"level\":\"b\"}"), true },
    };
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    struct parser *careless = make_parser(&(struct parser_conf){ 0 });
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t want = cases[i].is_double ? RECORD_DUPLICATE_KEYS : 0;
        if (read_line(p, cases[i].line)->flags != want)
            fail_msg("%.*s", SLICE_ARGS(cases[i].line));
        assert_int_equal(read_line(careless, cases[i].line)->flags, 0);
    }
    parser_free(careless);
    parser_free(p);
}

static void test_many_keys(void **state)
{
    (void)state;
    struct parser *p = make_parser(&(struct parser_conf){ .find_duplicates = true });
    size_t cap = 1000000, len = 1;
    char *line = malloc(cap);
    assert_non_null(line);
    line[0] = '{';
    for (unsigned i = 0; i < 16000; i++)
        len += (size_t)snprintf(line + len, cap - len, "\"key%u\":%u,", i, i);
    size_t before = len;
    len += (size_t)snprintf(line + len, cap - len, "\"last\":1}");
    assert_int_equal(read_line(p, slice_of(line, len))->flags, 0);
    len = before + (size_t)snprintf(line + before, cap - before, "\"key0\":1}");
    assert_int_equal(read_line(p, slice_of(line, len))->flags, RECORD_DUPLICATE_KEYS);
    len = before; /* beyond the limit: taken for doubled, not for unique */
    for (unsigned i = 0; i < 1000; i++)
        len += (size_t)snprintf(line + len, cap - len, "\"more%u\":%u,", i, i);
    len += (size_t)snprintf(line + len, cap - len, "\"last\":1}");
    assert_int_equal(read_line(p, slice_of(line, len))->flags, RECORD_DUPLICATE_KEYS);
    assert_int_equal(read_line(p, SLICE("{\"a\":1,\"b\":1}"))->flags, 0);
    free(line);
    parser_free(p);
}

/* ---- times -------------------------------------------------------------------------------------------------------- */

static void test_times_of_records(void **state)
{
    (void)state;
    static const struct { struct slice line; int64_t time_ns; bool is_bad; } cases[] = {
        { SLICE_INIT("{\"time\":\"2026-01-02T03:04:05Z\"}"), AT(0), false },
        { SLICE_INIT("{\"time\":\"1767323045\"}"), AT(0), false },
        { SLICE_INIT("{\"time\":\"yesterday\"}"), NO_TIME, true },
        { SLICE_INIT("{\"time\":\"yesterday\",\"ts\":1767323045}"), AT(0), false },
        { SLICE_INIT("{\"ts\":1767323099,\"timestamp\":\"2026-01-02T03:04:05Z\"}"), AT(0), false },
        { SLICE_INIT("{\"timestamp\":\"2026-01-02T03:04:05Z\",\"ts\":1767323099}"), AT(0), false },
        { SLICE_INIT("{\"timestamp\":\"2026-01-02T03:04:05Z\",\"ts\":\"soon\"}"), AT(0), false },
        { SLICE_INIT("{\"time\":0.012}"), NO_TIME, true },
        { SLICE_INIT("{\"time\":null}"), NO_TIME, false },
        { SLICE_INIT("{\"time\":\"\"}"), NO_TIME, false },
        { SLICE_INIT("{\"time\":true}"), NO_TIME, true },
        { SLICE_INIT("{\"time\":[1767323045]}"), NO_TIME, true },
        { SLICE_INIT("{\"timestamp\":{\"seconds\":\"x\"}}"), NO_TIME, true },
        { SLICE_INIT("{\"timestamp\":{\"seconds\":1767323045}}"), AT(0), false },
        { SLICE_INIT("{\"timestamp\":{\"nanos\":7,\"seconds\":1767323045}}"), AT(7), false },
        { SLICE_INIT("{\"time\":1e999}"), NO_TIME, true },
        { SLICE_INIT("{\"time\":-1767323045}"), NO_TIME, true },
        { SLICE_INIT("{\"msg\":\"none\"}"), NO_TIME, false },
    };
    struct parser *p = make_parser(&(struct parser_conf){ 0 });
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int is_framed = 0; is_framed < 2; is_framed++) {
            struct record *rec = make_record(cases[i].line);
            rec->flags = is_framed ? RECORD_HAS_TIME : 0;
            rec->time_ns = is_framed ? 42 : 0;
            assert_int_equal(parser_record(p, rec, NULL, NULL), PARSE_OK);
            int64_t want = cases[i].time_ns != NO_TIME ? cases[i].time_ns : is_framed ? 42 : READ_NS;
            bool has_time = cases[i].time_ns != NO_TIME || is_framed;
            if (rec->time_ns != want || ((rec->flags & RECORD_BAD_TIME) != 0) != cases[i].is_bad ||
                ((rec->flags & RECORD_HAS_TIME) != 0) != has_time)
                fail_msg("%.*s: %lld, flags %u", SLICE_ARGS(cases[i].line), (long long)rec->time_ns, rec->flags);
        }
    }
    parser_free(p);
}

static void test_bad_conf(void **state)
{
    (void)state;
    struct parser *p = NULL;
    struct err err = { 0 };
    assert_int_equal(parser_new(&(struct parser_conf){ .timezone = SLICE("Mars/Base") }, &p, &err), -ENOENT);
    assert_non_null(strstr(err.text, "Mars/Base"));
    assert_int_equal(parser_new(&(struct parser_conf){ .timezone = SLICE("../../etc/passwd") }, &p, &err), -EINVAL);
    assert_null(p);
    parser_free(NULL);
}

static int open_guard(void **state)
{
    (void)state;
    guard_open();
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_samples),
        cmocka_unit_test(test_text_samples),
        cmocka_unit_test(test_text_only_takes_json_as_text),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_good_but_odd_json),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_long_escaped_lines),
        cmocka_unit_test(test_is_out),
        cmocka_unit_test(test_configured_keys),
        cmocka_unit_test(test_wanted_values),
        cmocka_unit_test(test_suspects),
        cmocka_unit_test(test_too_many_suspects),
        cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_times_of_records),
        cmocka_unit_test(test_bad_conf),
    };
    return cmocka_run_group_tests_name("parsers/parser", tests, open_guard, close_guard);
}
