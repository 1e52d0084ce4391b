/*
 * Goal: a document becomes a tree with places, variables are expanded after parsing, aliases and merges are
 * resolved, and nothing in a file - depth, size, cycles, bombs, odd bytes - costs more than an error. Method:
 * small documents, generated large ones, every prefix of a document with everything.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/yaml.h"

static struct arena arena;
static struct report rep;
static uint64_t hash;

static int set_up(void **state)
{
    (void)state;
    hash = 0;
    arena_init(&arena, 64 * MIB);
    return report_init(&rep, &arena);
}

static int tear_down(void **state)
{
    (void)state;
    arena_deinit(&arena);
    return 0;
}

static const char *env(const char *name)
{
    return strcmp(name, "SET") == 0     ? "value"
           : strcmp(name, "EMPTY") == 0 ? ""
           : strcmp(name, "SHAPE") == 0 ? "}: [\n- x"
           : strcmp(name, "LATIN") == 0 ? "caf\xe9"
                                        : NULL;
}

static int parse(struct slice text, struct node **ret_root)
{
    return yaml_parse(&rep, "f.yaml", text, env, &hash, ret_root);
}

static struct node *good(const char *text)
{
    struct node *root = NULL;
    if (parse(slice_cstr(text), &root) < 0 || rep.n_errors > 0)
        fail_msg("%s\n%.*s", text, rep.n_errors > 0 ? (int)rep.errors[0].text.len : 0,
                 rep.errors[0].text.ptr);
    return root;
}

static void says(const char *words)
{
    for (size_t i = 0; i < rep.n_errors; i++)
        if (slice_find(rep.errors[i].text, slice_cstr(words)) >= 0)
            return;
    fail_msg("expected \"%s\", got %zu errors: %.*s", words, rep.n_errors,
             rep.n_errors > 0 ? (int)rep.errors[0].text.len : 0, rep.errors[0].text.ptr);
}

static void tree(void **state)
{
    (void)state;
    struct node *root = good("a: 1\nb:\n  - x\n  - 'y'\nc: {d: \"e\"}\nn:\nt: ~\nq: ''\n");
    assert_int_equal(root->n, 6);
    struct node *b = node_get(root, SLICE("b")), *d = node_get(node_get(root, SLICE("c")), SLICE("d"));
    assert_int_equal(b->kind, NODE_LIST);
    assert_int_equal(b->n, 2);
    assert_true(b->mark.line == 3 && b->mark.col == 3);
    assert_true(slice_eq(b->items[1]->text, SLICE("y")) && b->items[1]->is_quoted);
    assert_true(slice_eq(d->text, SLICE("e")) && d->mark.line == 5 && d->mark.col == 8);
    assert_true(node_is_null(node_get(root, SLICE("n"))) && node_is_null(node_get(root, SLICE("t"))));
    assert_false(node_is_null(node_get(root, SLICE("q"))));
    assert_null(node_get(root, SLICE("zz")));
    assert_string_equal(node_what(b), "a list");
    assert_string_equal(node_what(root), "a map");
    assert_string_equal(node_what(node_get(root, SLICE("n"))), "nothing");
    assert_string_equal(node_what(d), "text");
}

static void empty_documents(void **state)
{
    (void)state;
    assert_int_equal(good("")->n, 0);
    assert_int_equal(good("# only a comment\n")->n, 0);
    assert_int_equal(good("---\n{}\n...\n")->n, 0);
    struct node *root = NULL;
    assert_int_equal(parse((struct slice){ 0 }, &root), 0);
}

static void variables(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *want;
    } cases[] = {
        { "a: ${SET}", "value" },
        { "a: x-${SET}-y-${SET}", "x-value-y-value" },
        { "a: \"${NOT_SET:-default}\"", "default" },
        { "a: ${EMPTY:-default}", "default" },
        { "a: ${EMPTY}", "" },
        { "a: \"${NOT_SET:-}\"", "" },
        { "a: $${SET}", "${SET}" },
        { "a: $$$$", "$$" },
        { "a: ^x$", "^x$" },
        { "a: $5", "$5" },
        { "a: $SET", "$SET" },
        { "a: ${SHAPE}", "}: [\n- x" }, /* cannot change the document */
        { "a: ${NOT_SET:-a:-b}", "a:-b" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slice got = node_get(good(cases[i].yaml), SLICE("a"))->text;
        if (!slice_eq(got, slice_cstr(cases[i].want)))
            fail_msg("%s gave \"%.*s\"", cases[i].yaml, SLICE_ARGS(got));
        assert_int_equal(got.ptr[got.len], '\0');
    }
    assert_true(slice_eq(good("${SET}: x")->members[0].key, SLICE("${SET}"))); /* keys stay */
    uint64_t before = hash;
    (void)good("a: ${SET}");
    assert_true(hash != before); /* a changed variable is a changed configuration */
}

static void wrong_variables(void **state)
{
    (void)state;
    struct node *root = NULL;
    assert_int_equal(
        parse(SLICE("a: ${NOT_SET}\nb: ${SET\nc: ${1X}\nd: ${}\ne: ${LATIN}\nf: ${SET:x}\ng: fine\n"), &root),
        0);
    assert_int_equal(rep.n_errors, 6);
    says("f.yaml:1:4: the variable NOT_SET is not set");
    says("f.yaml:2:4: \"${SET\" is not closed");
    says("f.yaml:3:4: \"${1X}\" is not a variable");
    says("f.yaml:5:4: the variable LATIN is not UTF-8");
    assert_true(node_get(root, SLICE("a"))->is_bad);
    assert_false(node_get(root, SLICE("g"))->is_bad);
}

static void expansion_is_bounded(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 * MIB);
    assert_int_equal(buf_append_lit(&b, "a: "), 0);
    for (size_t i = 0; i < 20000; i++)
        assert_int_equal(buf_append_lit(&b, "${SET}"), 0);
    struct node *root = NULL;
    assert_int_equal(parse(buf_slice(&b), &root), 0);
    says("longer than 65536 bytes");
    buf_deinit(&b);
}

static void aliases_and_merges(void **state)
{
    (void)state;
    struct node *root =
        good("x-a: &a {k: 1, l: 2}\nx-b: &b {l: 3, m: 4}\nc: *a\n"
             "d: {<<: *a, k: own}\ne: {<<: [*a, *b]}\nf: {\"<<\": plain}\ns: &s text\nt: *s\n");
    assert_ptr_equal(node_get(root, SLICE("x-a")), node_get(root, SLICE("c")));
    struct node *d = node_get(root, SLICE("d")), *e = node_get(root, SLICE("e"));
    assert_true(slice_eq(node_get(d, SLICE("k"))->text, SLICE("own")));
    assert_true(slice_eq(node_get(d, SLICE("l"))->text, SLICE("2")));
    assert_int_equal(e->n, 3);
    assert_true(slice_eq(node_get(e, SLICE("l"))->text, SLICE("2"))); /* the earlier base */
    assert_true(slice_eq(node_get(node_get(root, SLICE("f")), SLICE("<<"))->text, SLICE("plain")));
    assert_true(slice_eq(node_get(root, SLICE("t"))->text, SLICE("text")));
}

static void wrong_structure(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *words;
    } cases[] = {
        { "a: 1\nb: 2\na: 3\n", "f.yaml:3:1: the key \"a\" stands here a second time, first in line 1" },
        { "a: *nope\n", "names no anchor" },
        { "a: &a [*a]\n", "stands inside of what it names" },
        { "a: &a {b: {c: *a}}\n", "stands inside of what it names" },
        { "{<<: text}\n", "<< takes a map" },
        { "{[a]: b}\n", "a key must be text, not a list" },
        { "a: 1\n---\nb: 2\n", "a second document begins" },
        { "a: [1, 2\nb: 3\n", "not valid YAML" },
        { "a: b: c\n", "not valid YAML" },
        { "a:\n\tb: c\n", "a tab cannot indent" },
        { "index: {tenant}-x\n", "a value that begins with { must be in quotes" },
        { "a: *\n", "must be in quotes" },
        { "a: \"\\0\"\n", "NUL" },
        { "a: 'open\n", "not valid YAML" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct node *root = NULL;
        rep.n_errors = 0;
        int r = parse(slice_cstr(cases[i].yaml), &root);
        assert_true(r == 0 || r == -EINVAL);
        says(cases[i].words);
    }
}

static void odd_bytes(void **state)
{
    (void)state;
    static const struct slice cases[] = {
        SLICE_INIT("a: b\0c\n"),    SLICE_INIT("a: \xff\xfe\n"),     SLICE_INIT("a: \x01\n"),
        SLICE_INIT("a: caf\xe9\n"), SLICE_INIT("a: \xed\xa0\x80\n"), SLICE_INIT("\0\0\0\0"),
        SLICE_INIT("a: \x7f\n"),
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct node *root = NULL;
        rep.n_errors = 0;
        assert_int_equal(parse(cases[i], &root), -EINVAL);
        says("f.yaml:1:");
        says("not valid YAML");
    }
}

static struct slice repeated(struct buf *b, const char *head, const char *part, size_t n, const char *tail)
{
    buf_init(b, 16 * MIB);
    assert_int_equal(buf_append_cstr(b, head), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(buf_append_cstr(b, part), 0);
    assert_int_equal(buf_append_cstr(b, tail), 0);
    return buf_slice(b);
}

static void refused(struct slice text, const char *words)
{
    struct node *root = NULL;
    rep.n_errors = 0;
    assert_int_equal(parse(text, &root), -EINVAL);
    says(words);
}

static void bounds(void **state)
{
    (void)state;
    struct buf b;
    refused(repeated(&b, "a: ", "[", 100000, ""), "nested deeper than 32");
    buf_deinit(&b);
    refused(repeated(&b, "a: ", "{a: ", 1000, ""), "nested deeper than 32");
    buf_deinit(&b);
    refused(repeated(&b, "a: ", "- ", 100, "x"), "not valid YAML");
    buf_deinit(&b);
    refused(repeated(&b, "", "x", YAML_BYTES_MAX + 1, ""), "larger than 1048576 bytes");
    buf_deinit(&b);
    refused(repeated(&b, "a: [", "x,", 150000, "]"), "more than 100000 values");
    buf_deinit(&b);
    buf_init(&b, 1 * MIB);
    for (int i = 0; i < YAML_KEYS_MAX + 1; i++)
        assert_int_equal(buf_printf(&b, "k%d: x\n", i), 0);
    refused(buf_slice(&b), "more than 1000 keys");
    buf_deinit(&b);
    struct node *root = NULL;
    rep.n_errors = 0;
    assert_int_equal(parse(repeated(&b, "? ", "k", YAML_KEY_BYTES_MAX + 1, "\n: x\n"), &root), 0);
    says("longer than 256 bytes");
    buf_deinit(&b);
}

/* Ten lines that would be 10^9 values if aliases were copied. */
static void alias_bomb(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 64 * KIB);
    assert_int_equal(buf_append_lit(&b, "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n"), 0);
    for (int i = 1; i < 10; i++) {
        assert_int_equal(buf_printf(&b, "l%d: &l%d [", i, i), 0);
        for (int k = 0; k < 10; k++)
            assert_int_equal(buf_printf(&b, "%s*l%d", k > 0 ? ", " : "", i - 1), 0);
        assert_int_equal(buf_append_lit(&b, "]\n"), 0);
    }
    refused(buf_slice(&b), "more than 100000 values, aliases counted");
    buf_deinit(&b);

    buf_init(&b, 64 * KIB); /* a chain is not heavy, but deep */
    assert_int_equal(buf_append_lit(&b, "l0: &l0 [x]\n"), 0);
    for (int i = 1; i < 60; i++)
        assert_int_equal(buf_printf(&b, "l%d: &l%d [*l%d]\n", i, i, i - 1), 0);
    refused(buf_slice(&b), "nested deeper than 32");
    buf_deinit(&b);
}

static void cut_anywhere(void **state)
{
    (void)state;
    const struct slice whole =
        SLICE("a: &a {b: \"${SET:-x}\", 'c': [1, *a2 ]}\nd: &d |\n  text $$\n<<: *a\ne: >-\n  caf\xc3\xa9\n"
              "? f\n: !!str g\n...\n");
    for (size_t len = 0; len <= whole.len; len++) {
        char *copy = malloc(MAX(len, 1));
        assert_non_null(copy);
        memcpy(copy, whole.ptr, len);
        struct node *root = NULL;
        rep.n_errors = 0;
        int r = parse(slice_of(copy, len), &root);
        assert_true(r == 0 || (r == -EINVAL && rep.n_errors > 0));
        free(copy);
    }
}

static void no_memory(void **state)
{
    (void)state;
    struct arena small;
    struct report r;
    struct node *root = NULL;
    struct buf b;
    arena_init(&small, 64 * KIB);
    assert_int_equal(report_init(&r, &small), 0);
    assert_int_equal(yaml_parse(&r, "f", repeated(&b, "a: [", "x,", 50000, "]"), NULL, &hash, &root),
                     -ENOMEM);
    buf_deinit(&b);
    arena_deinit(&small);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tree),
        TEST(empty_documents),
        TEST(variables),
        TEST(wrong_variables),
        TEST(expansion_is_bounded),
        TEST(aliases_and_merges),
        TEST(wrong_structure),
        TEST(odd_bytes),
        TEST(bounds),
        TEST(alias_bomb),
        TEST(cut_anywhere),
        TEST(no_memory),
    };
    return cmocka_run_group_tests_name("conf/yaml", tests, NULL, NULL);
}
