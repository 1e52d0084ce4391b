/*
 * Goal: one file with conf.d/ beside it, or a folder; what merges, what clashes, what is watched; files that
 * cannot be read; the sample configurations load with the real outputs. Method: folders made for each test.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/io.h"
#include "agent/registry.h"
#include "tests/unit/conf/fake_types.h"

static char folder[64];
static struct buf errors;
static char path_buf[256];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/tailrace-conf-XXXXXX");
    buf_init(&errors, 1 * MIB);
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    buf_deinit(&errors);
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *path_of(const char *name)
{
    (void)snprintf(path_buf, sizeof(path_buf), "%s/%s", folder, name);
    return path_buf;
}

static void put_bytes(const char *name, const char *bytes, size_t len)
{
    const char *slash = strrchr(name, '/');
    if (slash != NULL) {
        char sub[128];
        (void)snprintf(sub, sizeof(sub), "%s/%.*s", folder, (int)(slash - name), name);
        assert_int_equal(io_mkdirs(sub, 0755, NULL), 0);
    }
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static struct conf *load(const char *name)
{
    struct conf *c = NULL;
    buf_reset(&errors);
    int r = conf_load(path_of(name), fake_types, &c, &errors);
    if (r < 0)
        fail_msg("%d: %.*s", r, (int)errors.len, errors.len > 0 ? errors.ptr : "");
    return c;
}

static void refused(const char *name, int want, const char *words)
{
    struct conf *c = NULL;
    buf_reset(&errors);
    assert_int_equal(conf_load(path_of(name), fake_types, &c, &errors), want);
    assert_null(c);
    if (slice_find(buf_slice(&errors), slice_cstr(words)) < 0)
        fail_msg("expected \"%s\", got: %.*s", words, (int)errors.len, errors.len > 0 ? errors.ptr : "");
}

static bool watches(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->watched_files.n; i++)
        if (slice_eq(c->watched_files.items[i], slice_cstr(path_of(name))))
            return true;
    return false;
}

static void one_file(void **state)
{
    (void)state;
    put("t.yaml", FAKE_INPUT FAKE_OUTPUT);
    struct conf *c = load("t.yaml");
    assert_int_equal(c->n_inputs, 1);
    assert_int_equal(c->watched_files.n, 2);
    assert_true(watches(c, "t.yaml"));
    assert_true(watches(c, "conf.d")); /* it may come */
    uint64_t before = c->fingerprint;
    conf_free(c);
    c = load("t.yaml");
    assert_true(c->fingerprint == before);
    conf_free(c);
    put("t.yaml", FAKE_INPUT FAKE_OUTPUT "# a comment\n");
    c = load("t.yaml");
    assert_true(c->fingerprint != before);
    conf_free(c);
}

static void conf_d_merges(void **state)
{
    (void)state;
    put("t.yaml", "limits: { memory: 64MiB }\nfields: { a: x }\n" FAKE_INPUT FAKE_OUTPUT
                  "routes: [ { match: { pod: a }, to: o } ]\n");
    put("conf.d/20.yaml", "routes:\n  - { to: [o, p] }\n");
    put("conf.d/10.yaml", "limits: { min_free: 5% }\nfields: { b: y }\ninputs: { j: { type: kubernetes } }\n"
                          "outputs: { p: { type: local } }\nroutes:\n  - { match: { pod: b }, to: p }\n");
    put("conf.d/.hidden.yaml", "not: read\n");
    put("conf.d/notes.txt", "not: read\n");
    put("conf.d/old.yml", "not: read\n");
    put("conf.d/empty.yaml", "");
    struct conf *c = load("t.yaml");
    assert_int_equal(c->memory_bytes, 64 * MIB);
    assert_int_equal(c->min_free.percent, 5);
    assert_int_equal(c->fields.n, 2);
    assert_int_equal(c->n_inputs, 2);
    assert_int_equal(c->n_outputs, 2);
    assert_int_equal(c->n_routes, 3);
    assert_int_equal(c->routes[0].outputs, 1);
    assert_int_equal(c->routes[1].outputs, 2);
    assert_int_equal(c->routes[2].outputs, 3);
    assert_true(watches(c, "conf.d/10.yaml") && watches(c, "conf.d/20.yaml") && watches(c, "conf.d"));
    assert_false(watches(c, "conf.d/notes.txt"));
    assert_int_equal(c->warnings.n, 1);
    assert_true(slice_find(c->warnings.items[0], SLICE("conf.d/old.yml: not read")) > 0);
    conf_free(c);
}

static void the_same_name_twice(void **state)
{
    (void)state;
    put("t.yaml", "state_dir: /a\nfields: { a: x }\n" FAKE_INPUT FAKE_OUTPUT);
    put("conf.d/a.yaml", "state_dir: /b\n" FAKE_INPUT "fields: { a: y }\noutputs: [x]\n");
    refused("t.yaml", -EINVAL, "conf.d/a.yaml:2:11: inputs.i: stands in two files; first in ");
    struct slice all = buf_slice(&errors);
    assert_true(slice_find(all, SLICE("t.yaml:3\n")) > 0);
    assert_true(slice_find(all, SLICE("conf.d/a.yaml:1:1: state_dir: stands in two files")) > 0);
    assert_true(slice_find(all, SLICE("conf.d/a.yaml:3:11: fields.a: stands in two files")) > 0);
    assert_true(slice_find(all, SLICE("conf.d/a.yaml:4:1: outputs: stands in two files")) > 0);
}

static void errors_of_all_files(void **state)
{
    (void)state;
    put("t.yaml", "a: b: c\n");
    put("conf.d/a.yaml", "x: [\n");
    put("conf.d/b.yaml", "state_dir: ${TAILRACE_TEST_NOT_SET}\n");
    refused("t.yaml", -EINVAL, "t.yaml:1:");
    struct slice all = buf_slice(&errors);
    assert_true(slice_find(all, SLICE("conf.d/a.yaml:")) > slice_find(all, SLICE("t.yaml:1:")));
    assert_true(slice_find(all, SLICE("conf.d/b.yaml:1:12: the variable")) >
                slice_find(all, SLICE("conf.d/a.yaml:")));
    assert_true(slice_find(all, SLICE("inputs: none")) < 0); /* half a tree is accused of nothing else */
}

static void a_folder(void **state)
{
    (void)state;
    refused("", -EINVAL, "no file whose name ends with .yaml");
    put("b.yaml", FAKE_OUTPUT);
    put("a.yaml", FAKE_INPUT);
    put("conf.d/c.yaml", "fields: { a: x }\n");
    struct conf *c = load("");
    assert_int_equal(c->n_inputs, 1);
    assert_int_equal(c->n_outputs, 1);
    assert_int_equal(c->fields.n, 1);
    conf_free(c);
    put("c.yaml", FAKE_INPUT);
    refused("", -EINVAL, "c.yaml:1:11: inputs.i: stands in two files; first in ");
}

static void unreadable(void **state)
{
    (void)state;
    refused("none.yaml", -ENOENT, "none.yaml: cannot be read: No such file");
    assert_int_equal(mkfifo(path_of("fifo.yaml"), 0600), 0);
    refused("fifo.yaml", -EINVAL, "is not a regular file");
    put("t.yaml", FAKE_INPUT FAKE_OUTPUT);
    assert_int_equal(mkdir(path_of("conf.d"), 0755), 0);
    assert_int_equal(mkdir(path_of("conf.d/sub.yaml"), 0755), 0);
    refused("t.yaml", -EINVAL, "sub.yaml is not a regular file");
    assert_int_equal(rmdir(path_of("conf.d/sub.yaml")), 0);
    assert_int_equal(symlink("nowhere", path_of("conf.d/link.yaml")), 0);
    refused("t.yaml", -EINVAL, "link.yaml");
}

static void large_files(void **state)
{
    (void)state;
    size_t len = 2 * MIB;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    memset(bytes, '#', len);
    put_bytes("t.yaml", bytes, len);
    refused("t.yaml", -EFBIG, "larger than 1048576 bytes");
    put("t.yaml", FAKE_INPUT FAKE_OUTPUT);
    put_bytes("conf.d/x.yaml", bytes, len);
    refused("t.yaml", -EINVAL, "larger than 1048576 bytes");
    memset(bytes, 0, len);
    put_bytes("conf.d/x.yaml", bytes, 4096);
    refused("t.yaml", -EINVAL, "conf.d/x.yaml:1:1: not valid YAML");
    free(bytes);
}

static void secrets_are_watched(void **state)
{
    (void)state;
    char yaml[512];
    put("key", "first");
    (void)snprintf(yaml, sizeof(yaml),
                   FAKE_INPUT
                   "outputs: { o: { type: web, url: \"https://x\", auth: { bearer_file: %s } } }\n",
                   path_of("key"));
    put("t.yaml", yaml);
    struct conf *c = load("t.yaml");
    assert_true(watches(c, "key"));
    assert_int_equal(c->warnings.n, 0);
    uint64_t before = c->fingerprint;
    conf_free(c);
    put("key", "second");
    c = load("t.yaml");
    assert_true(c->fingerprint != before);
    conf_free(c);
    assert_int_equal(unlink(path_of("key")), 0);
    c = load("t.yaml"); /* it may be mounted later */
    assert_int_equal(c->warnings.n, 1);
    assert_true(watches(c, "key"));
    conf_free(c);
}

/* Tests run in the top folder of the tree. */
static void samples(void **state)
{
    (void)state;
    static const char *const names[] = { "conf/tailrace.yaml", "conf/kubernetes.yaml" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct conf *c = NULL, *again = NULL;
        struct buf first, second;
        buf_init(&first, 1 * MIB);
        buf_init(&second, 1 * MIB);
        int r = conf_load(names[i], registry_types(), &c, &errors);
        if (r < 0)
            fail_msg("%s: %d: %.*s", names[i], r, (int)errors.len, errors.len > 0 ? errors.ptr : "");
        for (size_t w = 0; w < c->warnings.n; w++)
            fail_msg("%.*s", SLICE_ARGS(c->warnings.items[w]));
        assert_int_equal(conf_print(c, &first), 0);
        assert_int_equal(conf_load_text("printed", buf_slice(&first), registry_types(), &again, &errors), 0);
        assert_int_equal(conf_print(again, &second), 0);
        assert_true(slice_eq(buf_slice(&first), buf_slice(&second)));
        conf_free(c);
        conf_free(again);
        buf_deinit(&first);
        buf_deinit(&second);
    }
}

/* What the samples show commented out must load as well: the comment signs are taken away from every such
 * block. */
static void commented_samples(void **state)
{
    (void)state;
    static const char *const names[] = { "conf/tailrace.yaml", "conf/kubernetes.yaml" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf in, out;
        struct conf *c = NULL;
        buf_init(&in, 1 * MIB);
        buf_init(&out, 1 * MIB);
        buf_reset(&errors);
        assert_int_equal(io_read_file(AT_FDCWD, names[i], &in, NULL), 0);
        struct slice rest = buf_slice(&in);
        while (rest.len > 0) {
            struct slice line = slice_first(rest, (size_t)(slice_find_byte(rest, '\n') + 1));
            rest = slice_from(rest, line.len);
            ptrdiff_t hash = slice_find_byte(line, '#');
            bool is_example = hash > 0 && slice_trim(slice_first(line, (size_t)hash)).len == 0 &&
                              (slice_find(line, SLICE(": ")) > 0 || slice_find(line, SLICE(":\n")) > 0 ||
                               slice_find(line, SLICE("# - {")) > 0) &&
                              line.ptr[(size_t)hash + 2] != '\n' &&
                              !(line.ptr[(size_t)hash + 2] >= 'A' && line.ptr[(size_t)hash + 2] <= 'Z') &&
                              slice_find(line, SLICE("|'default'}\".")) < 0 &&
                              slice_find(line, SLICE("# \"{")) < 0;
            if (is_example) {
                assert_int_equal(buf_append(&out, line.ptr, (size_t)hash), 0);
                line = slice_from(line, (size_t)hash + 2);
            }
            assert_int_equal(buf_append_slice(&out, line), 0);
        }
        int r = conf_load_text(names[i], buf_slice(&out), registry_types(), &c, &errors);
        if (r < 0)
            fail_msg("%s: %d: %.*s\n%.*s", names[i], r, (int)errors.len, errors.len > 0 ? errors.ptr : "",
                     (int)out.len, out.ptr);
        assert_int_equal(c->n_outputs, i == 0 ? 4 : 1);
        conf_free(c);
        buf_deinit(&in);
        buf_deinit(&out);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_file), TEST(conf_d_merges),     TEST(the_same_name_twice), TEST(errors_of_all_files),
        TEST(a_folder), TEST(unreadable),        TEST(large_files),         TEST(secrets_are_watched),
        TEST(samples),  TEST(commented_samples),
    };
    return cmocka_run_group_tests_name("conf/files", tests, NULL, NULL);
}
