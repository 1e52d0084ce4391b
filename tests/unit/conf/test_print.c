/*
 * Goal: what `check` prints loads again to the same effective configuration, says every default, and no
 * secret. Method: print, load what was printed, print again; awkward texts on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/conf/fake_types.h"

static struct conf *load(struct slice yaml)
{
    struct conf *c = NULL;
    struct buf errors;
    buf_init(&errors, 64 * KIB);
    int r = conf_load_text("f.yaml", yaml, fake_types, &c, &errors);
    if (r < 0)
        fail_msg("%d: %.*s\n%.*s", r, (int)errors.len, errors.len > 0 ? errors.ptr : "", SLICE_ARGS(yaml));
    buf_deinit(&errors);
    return c;
}

static void print(const struct conf *c, struct buf *out)
{
    buf_init(out, 1 * MIB);
    assert_int_equal(conf_print(c, out), 0);
}

static bool holds(const struct buf *b, const char *words)
{
    return slice_find(buf_slice(b), slice_cstr(words)) >= 0;
}

static void comes_back(struct slice yaml, struct buf *first)
{
    struct buf second;
    struct conf *c = load(yaml);
    print(c, first);
    conf_free(c);
    c = load(buf_slice(first));
    print(c, &second);
    conf_free(c);
    if (!slice_eq(buf_slice(first), buf_slice(&second)))
        fail_msg("first:\n%.*s\nsecond:\n%.*s", SLICE_ARGS(buf_slice(first)), SLICE_ARGS(buf_slice(&second)));
    buf_deinit(&second);
}

static void defaults(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "state_dir: \"/var/lib/tailrace\"\n",
        "  listen: \"127.0.0.1:9746\"\n",
        "  memory: 32MiB\n",
        "    max_bytes: 2GiB\n",
        "  min_free: \"512MiB\"\n",
        "  cpu: \"off\"\n",
        "  allow: [\"*\"]\n",
        "  max: 1000\n",
        "  other: \"unassigned\"\n",
        "  max_tenants: 100\n",
        "    type: \"file\"\n",
        "    ignore_older: 0s\n",
        "    format: \"auto\"\n",
        "    timezone: \"local\"\n",
        "    read_from: beginning\n",
        "    multiline: auto\n",
        "    tenant: \"{path.tenant|'default'}\"\n",
        "    fields: {}\n",
        "    urls: [\"http://x:1\"]\n",
        "    flag: true\n",
        "    number: 7\n",
        "    size: 256KiB\n",
        "    duration: 7d\n",
        "    choice: \"enriched\"\n",
        "    template: \"{tenant}-%Y\"\n",
        "      a: \"{pod}\"\n",
        "    list: [\"x\", \"y\"]\n",
        "    map: {}\n",
        "      depth: 3\n",
        "      min_version: \"1.2\"\n",
        "    proxy: \"env\"\n",
        "    timeout: 1m\n",
        "    concurrency: 16\n",
        "      max_bytes: 1GiB\n",
        "      batch_bytes: 1MiB\n",
        "      batch_wait: 1s\n",
        "      sync: \"200ms\"\n",
        "      on_full: \"block\"\n",
        "      key_share: \"25%\"\n",
        "      dead_max_bytes: 256MiB\n",
        "  - to: [\"o\"]\n",
    };
    struct buf out;
    struct conf *c =
        load(SLICE(FAKE_INPUT "outputs: { o: { type: web, url: \"http://x:1\", nested: { inner: x } } }\n"));
    print(c, &out);
    conf_free(c);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!holds(&out, lines[i]))
            fail_msg("\"%s\" is missing in\n%.*s", lines[i], SLICE_ARGS(buf_slice(&out)));
    buf_deinit(&out);
}

static void round_trips(void **state)
{
    (void)state;
    static const char *const documents[] = {
        FAKE_INPUT FAKE_OUTPUT,
        FAKE_INPUT "outputs: { o: { type: web, url: \"http://x:1\", nested: { inner: x } } }\n",
        /* without data for the required key of a section: the section stays away */
        "admin: { listen: off }\nlimits: { min_free: 15%, memory: 10000001 }\ntenants: { allow: [], max: 1, "
        "other: x }\n"
        "fields: { cluster: \"e{{u}}$$1\", namespace: vm, \"1odd\": "
        "\"a\\\"b\\\\c\\n\\t\\x01\\x7f\\u0085\\ufeff\\U0001F600\\u00e9\" }\n"
        "inputs:\n"
        "  a: { type: file, include: [\"/a/<t>/*.log\"], exclude: [/b], read_from: 90s, ignore_older: "
        "1500ms, format: text,\n"
        "       timezone: UTC, multiline: { start: \"^a\\\\d$$\" }, keys: { level: [a, \"b c\"] }, tenant: "
        "\"{path.t|'it''s'}\",\n"
        "       fields: { zone: \"{host}\", service: s }, levels: \"info,db=debug\",\n"
        "       overrides: [ { match: { pod: x, not: { level: [a, b], record.q: \"*\" } }, levels: off },\n"
        "                    { match: { service: \"y*\" }, tenant: \"{service}\" } ] }\n"
        "  b: { type: kubernetes, read_from: 2026-01-31T01:02:03.000000004+01:00, multiline: off }\n"
        "  c: { type: file, include: /c, read_from: end, multiline: auto }\n"
        "outputs:\n"
        "  1.0: { type: local, queue: { max_bytes: 64MiB, sync: each, key_share: 7, on_full: drop_oldest } "
        "}\n"
        "  w: { type: web, urls: [\"http://x\", \"https://y:1/z?q=$$\"], text: \"\", secret: \"\", flag: no, "
        "number: 12,\n"
        "       size: 1025, duration: 1ms, choice: original, template: \"{{%%}}{record.x|'y'}\", labels: "
        "off, list: [],\n"
        "       map: { \"a: b\": \"c\" }, nested: { inner: \"x\", depth: 0 }, headers: { X-Y: \"z: '\" }, "
        "proxy: none }\n"
        "routes:\n"
        "  - { match: { message: \"*\\\"*\", not: { tenant: t } }, drop: true }\n"
        "  - { match: { not: { level: info } }, to: [w], levels: trace, continue: true }\n"
        "  - { to: [w, \"1.0\"] }\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
        struct buf out;
        comes_back(slice_cstr(documents[i]), &out);
        buf_deinit(&out);
    }
}

static void secrets(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "secret: S3CRET",
        "auth: { basic: { username: u, password: S3CRET } }",
        "auth: { bearer: S3CRET }",
        "auth: { api_key: S3CRET }",
        "headers: { Authorization: Bearer S3CRET }",
        "headers: { x-api-KEY: S3CRET }",
        "headers: { Cookie: S3CRET }",
        "headers: { X-Auth-Token: S3CRET }",
        "proxy: \"http://user:S3CRET@proxy:3128\"",
        "proxy: \"http://S3CRET@S3CRET@proxy:3128\"",
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct buf yaml, out;
        buf_init(&yaml, 4 * KIB);
        assert_int_equal(
            buf_printf(&yaml, FAKE_INPUT "outputs: { o: { type: web, url: \"https://x\", %s } }\n", keys[i]),
            0);
        comes_back(buf_slice(&yaml), &out);
        if (holds(&out, "S3CRET"))
            fail_msg("%s is printed:\n%.*s", keys[i], SLICE_ARGS(buf_slice(&out)));
        assert_true(holds(&out, "***"));
        buf_deinit(&out);
        buf_deinit(&yaml);
    }
}

/* A buffer that fills up at every place: an error, and what was in it stays. */
static void full_buffers(void **state)
{
    (void)state;
    struct buf whole;
    struct conf *c =
        load(SLICE("fields: { a: b }\ninputs: { i: { type: file, include: /a, overrides: [ { match: { pod: x "
                   "}, levels: info } ] } }\n"
                   "outputs: { o: { type: web, url: \"http://x\", map: { k: v }, nested: { inner: x } } }\n"
                   "routes: [ { match: { pod: x }, drop: true }, { to: o } ]\n"));
    print(c, &whole);
    for (size_t max = 1; max < whole.len + 8; max += 3) {
        struct buf out;
        buf_init(&out, max);
        assert_int_equal(buf_append_lit(&out, "#"), 0);
        int r = conf_print(c, &out);
        assert_int_equal(r, max <= whole.len ? -ENOBUFS : 0);
        assert_int_equal(out.len, r < 0 ? 1 : whole.len + 1);
        buf_deinit(&out);
    }
    buf_deinit(&whole);
    conf_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(secrets),
        cmocka_unit_test(full_buffers),
    };
    return cmocka_run_group_tests_name("conf/print", tests, NULL, NULL);
}
