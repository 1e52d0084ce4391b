/* The walker and yajl must tell the same story of every line: the same verdict, and the same events in the
 * same order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/base/buf.h"
#include "parsers/json.h"

static struct keys keys;

static uint32_t add(const char *path)
{
    uint32_t node;
    assert_int_equal(keys_add_nested(&keys, slice_cstr(path), &node), 0);
    keys.nodes[node].has_use = true;
    return node;
}

static int setup(void **state)
{
    (void)state;
    assert_int_equal(keys_init(&keys), 0);
    static const char *const used[] = { "level", "msg", "a", "fields.message", "fields.deep.x", "time", "" };
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        (void)add(used[i]);
    keys.nodes[add("pod")].is_trusted = true;
    keys.trusted_first['p'] = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    keys_deinit(&keys);
    return 0;
}

/* ---- the story of a line, as text ---- */

struct story {
    struct buf text;
    unsigned stop_at; /* the n-th value ends the scan; 0 = none does */
    unsigned n;
};

static void put(struct story *s, struct slice text)
{
    assert_int_equal(buf_append_slice(&s->text, text), 0);
}

static void put_number(struct story *s, uint64_t n)
{
    char digits[24];
    put(s, slice_of(digits, (size_t)snprintf(digits, sizeof(digits), " %llu", (unsigned long long)n)));
}

static bool on_value(void *ctx, const struct key_node *node, struct value value)
{
    struct story *s = ctx;
    put(s, SLICE("V "));
    put(s, node->key);
    put_number(s, value.kind);
    put(s, SLICE(" "));
    put(s, value.text);
    put(s, SLICE("\n"));
    return ++s->n != s->stop_at;
}

static void on_suspect(void *ctx, const struct suspect *x)
{
    struct story *s = ctx;
    put(s, SLICE("S "));
    put(s, x->key);
    put_number(s, x->key_start);
    put_number(s, x->key_end);
    put_number(s, x->value_start);
    put_number(s, x->value_end);
    put_number(s, x->value.kind);
    put(s, x->value.text);
    put(s, SLICE("\n"));
}

static void on_restart(void *ctx)
{
    struct story *s = ctx;
    buf_reset(&s->text);
    s->n = 0;
}

static const struct json_sink sink = { .value = on_value, .suspect = on_suspect, .restart = on_restart };

struct pair_of_readers {
    struct json *walker, *yajl;
    struct story one, other;
};

static void open_readers(struct pair_of_readers *p, bool find_duplicates)
{
    memset(p, 0, sizeof(*p));
    assert_int_equal(json_new(&keys, find_duplicates, &p->walker), 0);
    assert_int_equal(json_new(&keys, find_duplicates, &p->yajl), 0);
    buf_init(&p->one.text, 16 << 20);
    buf_init(&p->other.text, 16 << 20);
}

static void close_readers(struct pair_of_readers *p)
{
    json_free(p->walker);
    json_free(p->yajl);
    buf_deinit(&p->one.text);
    buf_deinit(&p->other.text);
}

static enum json_result compare(struct pair_of_readers *p, struct slice text, unsigned stop_at)
{
    /* In a block of exactly its size, so that a sanitizer sees one byte too far. */
    char *line = malloc(text.len + (text.len == 0));
    assert_non_null(line);
    if (text.len > 0)
        memcpy(line, text.ptr, text.len);
    on_restart(&p->one);
    on_restart(&p->other);
    p->one.stop_at = p->other.stop_at = stop_at;
    enum json_result one = json_scan(p->walker, slice_of(line, text.len), &sink, &p->one);
    enum json_result other = json_scan_by_yajl(p->yajl, slice_of(line, text.len), &sink, &p->other);
    bool is_same = one == other;
    if (is_same && one != JSON_BAD)
        is_same = slice_eq(buf_slice(&p->one.text), buf_slice(&p->other.text));
    if (is_same && one == JSON_OBJECT)
        is_same = json_has_duplicates(p->walker) == json_has_duplicates(p->yajl);
    if (!is_same)
        fail_msg("they differ (%d, %d) on: %.*s\n--- walker\n%.*s--- yajl\n%.*s", (int)one, (int)other,
                 (int)text.len, line, (int)p->one.text.len, p->one.text.ptr, (int)p->other.text.len,
                 p->other.text.ptr);
    free(line);
    return one;
}

/* ---- cases by hand ---- */

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum json_result want;
    } cases[] = {
        { "{}", JSON_OBJECT },
        { " {} ", JSON_OBJECT },
        { "{", JSON_BAD },
        { "}", JSON_BAD },
        { "{}}", JSON_BAD },
        { "{}{}", JSON_BAD },
        { "{} x}", JSON_BAD },
        { "{\"a\":1}", JSON_OBJECT },
        { "{\"a\" :\t1 , \"msg\" : [ ] }", JSON_OBJECT },
        { "{\"a\":1,}", JSON_BAD },
        { "{,\"a\":1}", JSON_BAD },
        { "{\"a\":}", JSON_BAD },
        { "{\"a\"}", JSON_BAD },
        { "{\"a\":1 \"b\":2}", JSON_BAD },
        { "{\"a\":[1,2,[3,{}],{\"x\":[]}]}", JSON_OBJECT },
        { "{\"a\":[1,]}", JSON_BAD },
        { "{\"a\":[1}", JSON_BAD },
        { "{\"a\":[}]}", JSON_BAD },
        { "{\"a\":[1}]}", JSON_BAD },
        { "{\"a\":{]}", JSON_BAD },
        { "{a:1}", JSON_BAD },
        { "{\"a\":tru}", JSON_BAD },
        { "{\"a\":truex}", JSON_BAD },
        { "{\"a\":true,\"b\":false,\"msg\":null}", JSON_OBJECT },
        { "{\"a\":nul}", JSON_BAD },
        { "{\"a\":0}", JSON_OBJECT },
        { "{\"a\":-0}", JSON_OBJECT },
        { "{\"a\":-}", JSON_BAD },
        { "{\"a\":01}", JSON_BAD },
        { "{\"a\":+1}", JSON_BAD },
        { "{\"a\":1.}", JSON_BAD },
        { "{\"a\":.5}", JSON_BAD },
        { "{\"a\":1.5e}", JSON_BAD },
        { "{\"a\":1.5e+}", JSON_BAD },
        { "{\"a\":1.5E-07}", JSON_OBJECT },
        { "{\"a\":1e999}", JSON_OBJECT },
        { "{\"a\":123456789012345678901234567890}", JSON_OBJECT },
        { "{\"a\":NaN}", JSON_BAD },
        { "{\"a\":Infinity}", JSON_BAD },
        { "{\"a\":'x'}", JSON_BAD },
        { "{\"a\":\"x}", JSON_BAD },
        { "{\"a\":\"\\\"}", JSON_BAD },
        { "{\"a\":\"\\\"\"}", JSON_OBJECT },
        { "{\"a\":\"\\n\\t\\b\\f\\r\\/\\\\\"}", JSON_OBJECT },
        { "{\"a\":\"\\x\"}", JSON_BAD },
        { "{\"a\":\"\\u12\"}", JSON_BAD },
        { "{\"a\":\"\\u12g4\"}", JSON_BAD },
        { "{\"a\":\"\\u0041\"}", JSON_OBJECT },
        { "{\"a\":\"\\ud83d\\ude00\"}", JSON_OBJECT },
        { "{\"a\":\"\\ud83d\"}", JSON_OBJECT },
        { "{\"a\":\"\\ude00\"}", JSON_OBJECT },
        { "{\"\\u0061\":\"by an escaped key\"}", JSON_OBJECT },
        { "{\"p\\u006fd\":\"forged\",\"pod.name\":1,\"pod\":{\"name\":[1,{}]}}", JSON_OBJECT },
        { "{\"a\":\"tab\there\"}", JSON_BAD },
        { "{\"a\":\"\x7f\"}", JSON_OBJECT },
        { "{\"a\":\"\x80\"}", JSON_BAD },
        { "{\"a\":\"\xc3\xa9\"}", JSON_OBJECT },
        { "{\"a\":\"\xc0\xaf\"}", JSON_BAD },
        { "{\"a\":\"\xed\xa0\x80\"}", JSON_BAD },
        { "{\"a\":1\v}", JSON_BAD },
        { "{\"a\":1\f}", JSON_BAD },
        { "{\"a\":1\xc2\xa0}", JSON_BAD },
        { "{\"a\":1}/**/", JSON_BAD },
        { "{\"a\":1/**/}", JSON_BAD },
        { "{\"\":1}", JSON_OBJECT },
        { "{\"a\":1,\"a\":2,\"x\":{\"y\":1,\"y\":2}}", JSON_OBJECT },
        { "{\"fields\":{\"message\":\"m\",\"deep\":{\"x\":1},\"deep\":[{\"x\":2}]}}", JSON_OBJECT },
        { "{\"fields\":[{\"message\":\"not this\"}]}", JSON_OBJECT },
        { "{\"k0123456789abcdef0123456789\":\"0123456789abcde\\\"f0123456789abcdef\"}", JSON_OBJECT },
    };
    struct pair_of_readers p;
    for (int duplicates = 0; duplicates < 2; duplicates++) {
        open_readers(&p, duplicates != 0);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            if (compare(&p, slice_cstr(cases[i].line), 0) != cases[i].want)
                fail_msg("not what was wanted: %s", cases[i].line);
        close_readers(&p);
    }
}

static void test_every_truncation(void **state)
{
    (void)state;
    struct slice line =
        SLICE("{\"time\":1763719200123,\"level\":\"in\\u0066o\",\"fields\":{\"message\":\"caf\xc3\xa9 "
              "\\ud83d\\ude00\","
              "\"deep\":{\"x\":[1,-2.5e+3,true,false,null,{}]}},\"pod\":\"p\",\"msg\":\"x\"}");
    struct pair_of_readers p;
    open_readers(&p, true);
    for (size_t n = 0; n < line.len; n++)
        assert_int_equal(compare(&p, slice_first(line, n), 0), JSON_BAD);
    for (unsigned stop = 1; stop <= 6; stop++)
        assert_int_equal(compare(&p, line, stop), JSON_STOPPED);
    assert_int_equal(compare(&p, line, 0), JSON_OBJECT);
    close_readers(&p);
}

/* To the depth that is allowed, and one more. */
static void test_depth(void **state)
{
    (void)state;
    struct pair_of_readers p;
    open_readers(&p, true);
    for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        struct buf b;
        buf_init(&b, 1 << 20);
        for (size_t i = 0; i < depth; i++)
            assert_int_equal(buf_append_slice(&b, SLICE("{\"a\":")), 0);
        assert_int_equal(buf_append_slice(&b, SLICE("1")), 0);
        for (size_t i = 0; i < depth; i++)
            assert_int_equal(buf_append_slice(&b, SLICE("}")), 0);
        assert_int_equal(compare(&p, buf_slice(&b), 0), depth <= JSON_DEPTH_MAX ? JSON_OBJECT : JSON_BAD);
        buf_deinit(&b);
    }
    close_readers(&p);
}

/* ---- by chance ---- */

static uint64_t seed = 1;

static uint32_t roll(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

static const char *pick(const char *const *words, size_t n)
{
    return words[roll((uint32_t)n)];
}
#define PICK(...)                                                                                            \
    pick((const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static void say(struct buf *b, const char *text)
{
    assert_int_equal(buf_append_slice(b, slice_cstr(text)), 0);
}

static void say_value(struct buf *b, unsigned depth);

static void say_members(struct buf *b, unsigned depth, bool is_object)
{
    for (uint32_t i = 0, n = roll(5); i < n; i++) {
        say(b, i == 0 ? "" : PICK(",", ",", ", ", " ,\t"));
        if (is_object) {
            say(b, PICK("\"level\"", "\"msg\"", "\"a\"", "\"fields\"", "\"message\"", "\"deep\"", "\"x\"",
                        "\"pod\"", "\"pod.name\"", "\"p\\u006fd\"", "\"\"", "\"other_key_of_some_length\"",
                        "\"time\""));
            say(b, PICK(":", ":", " : "));
        }
        say_value(b, depth + 1);
    }
}

static void say_value(struct buf *b, unsigned depth)
{
    switch (roll(depth > 5 ? 5 : 8)) {
    case 0:
        say(b, PICK("0", "-0", "17", "-3.25", "1e9", "6.02E+23", "1763719200123", "0.000"));
        break;
    case 1:
        say(b, PICK("true", "false", "null"));
        break;
    case 2:
    case 3:
        say(b, PICK("\"\"", "\"info\"", "\"a somewhat longer text, more than a block of bytes\"",
                    "\"q\\\"q\"", "\"\\\\\"", "\"\\u00e9\\n\"", "\"caf\xc3\xa9\"", "\"\\ud800x\""));
        break;
    case 4:
        say(b, PICK("[]", "{}", "[ ]", "{ }"));
        break;
    case 5:
        say(b, "[");
        say_members(b, depth, false);
        say(b, "]");
        break;
    default:
        say(b, "{");
        say_members(b, depth, true);
        say(b, "}");
    }
}

static void damage(struct buf *b)
{
    static const char bytes[] = "{}[]\",:\\ue0-+.tn \t\n\v\x01\x7f\x80\xc3\xff";
    for (uint32_t i = 0, n = roll(3); i < n && b->len > 0; i++) {
        size_t at = roll((uint32_t)b->len);
        switch (roll(3)) {
        case 0:
            b->ptr[at] = bytes[roll(sizeof(bytes) - 1)];
            break;
        case 1:
            memmove(b->ptr + at, b->ptr + at + 1, b->len - at - 1);
            b->len--;
            break;
        default:
            b->len -= roll((uint32_t)(b->len - at));
        }
    }
}

static void test_random_lines(void **state)
{
    (void)state;
    struct pair_of_readers p;
    unsigned good = 0, bad = 0;
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int duplicates = 0; duplicates < 2; duplicates++) {
        open_readers(&p, duplicates != 0);
        for (int i = 0; i < 50000; i++) {
            buf_reset(&b);
            say(&b, "{");
            say_members(&b, 1, true);
            say(&b, "}");
            damage(&b);
            enum json_result r = compare(&p, buf_slice(&b), roll(4) == 0 ? 1 + roll(4) : 0);
            good += r == JSON_OBJECT;
            bad += r == JSON_BAD;
        }
        close_readers(&p);
    }
    buf_deinit(&b);
    assert_true(good > 20000 && bad > 20000); /* it tried both */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_random_lines),
    };
    return cmocka_run_group_tests_name("parsers/json", tests, setup, teardown);
}
