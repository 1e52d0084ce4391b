/*
 * Goal: every key reaches its field, absent ones get their default, and every mistake is told once, with its
 * place, its path and what was expected - all of them in one run. Method: documents in memory against the
 * fields and against the words of errors and warnings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/conf/fake_types.h"

static struct buf errors;

static int set_up(void **state)
{
    (void)state;
    buf_init(&errors, 1 * MIB);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_deinit(&errors);
    return 0;
}

static struct conf *load(const char *yaml)
{
    struct conf *c = NULL;
    buf_reset(&errors);
    int r = conf_load_text("f.yaml", slice_cstr(yaml), fake_types, &c, &errors);
    if (r < 0)
        fail_msg("%d: %.*s", r, (int)errors.len, errors.len > 0 ? errors.ptr : "");
    assert_int_equal(errors.len, 0);
    return c;
}

static size_t count_lines(struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == '\n';
    return n;
}

/* Exactly these lines' words, in order; an empty list means none is checked. */
static void refused(const char *yaml, size_t n, const char *const *words)
{
    struct conf *c = NULL;
    buf_reset(&errors);
    assert_int_equal(conf_load_text("f.yaml", slice_cstr(yaml), fake_types, &c, &errors), -EINVAL);
    assert_null(c);
    struct slice rest = buf_slice(&errors);
    if (count_lines(rest) != n)
        fail_msg("%s\nexpected %zu errors, got:\n%.*s", yaml, n, SLICE_ARGS(rest));
    for (size_t i = 0; i < n; i++) {
        struct slice line = slice_first(rest, (size_t)slice_find_byte(rest, '\n'));
        rest = slice_from(rest, line.len + 1);
        if (slice_find(line, slice_cstr(words[i])) < 0)
            fail_msg("%s\nexpected \"%s\", got \"%.*s\"", yaml, words[i], SLICE_ARGS(line));
    }
}

static bool warns(const struct conf *c, const char *words)
{
    for (size_t i = 0; i < c->warnings.n; i++)
        if (slice_find(c->warnings.items[i], slice_cstr(words)) >= 0)
            return true;
    return false;
}

static void assert_slice(struct slice got, const char *want)
{
    if (!slice_eq(got, slice_cstr(want)))
        fail_msg("expected \"%s\", got \"%.*s\"", want, SLICE_ARGS(got));
}

static void defaults(void **state)
{
    (void)state;
    char host[256] = "";
    assert_int_equal(gethostname(host, sizeof(host) - 1), 0);
    (void)unsetenv("NODE_NAME");
    struct conf *c = load(FAKE_INPUT "outputs: { o: { type: web, url: \"http://x:1\" } }\n");
    assert_slice(c->path, "f.yaml");
    assert_slice(c->state_dir, "/var/lib/tailrace");
    assert_slice(c->admin_listen, "127.0.0.1:9746");
    assert_int_equal(c->memory_bytes, 32 * MIB);
    assert_int_equal(c->held_max_bytes, 2048 * MIB);
    assert_int_equal(c->min_free.bytes, 512 * MIB);
    assert_int_equal(c->min_free.percent, 0);
    assert_int_equal(c->cpu_percent, 0);
    assert_int_equal(c->tenants_allow.n, 1);
    assert_slice(c->tenants_allow.items[0], "*");
    assert_int_equal(c->tenants_max, 1000);
    assert_slice(c->tenants_other, "unassigned");
    assert_int_equal(c->metrics_max_tenants, 100);
    assert_int_equal(c->fields.n, 0);
    assert_slice(c->host, host);
    assert_slice(c->node, host);
    assert_slice(c->cluster, "");
    assert_int_equal(c->warnings.n, 0);

    assert_int_equal(c->n_inputs, 1);
    const struct conf_input *in = &c->inputs[0];
    assert_slice(in->name, "i");
    assert_int_equal(in->type, INPUT_FILE);
    assert_int_equal(in->include.n, 1);
    assert_int_equal(in->exclude.n, 0);
    assert_int_equal(in->read_from, READ_FROM_BEGINNING);
    assert_int_equal(in->ignore_older_ns, 0);
    assert_int_equal(in->format, FORMAT_AUTO);
    assert_slice(in->timezone, "local");
    assert_int_equal(in->multiline, MULTILINE_AUTO);
    assert_int_equal(in->level_keys.n, 0);
    assert_slice(template_text(in->tenant), "{path.tenant|'default'}");
    assert_int_equal(in->fields.n, 0);
    assert_null(in->levels);
    assert_int_equal(in->n_overrides, 0);

    assert_int_equal(c->n_outputs, 1);
    const struct output_conf *o = &c->outputs[0];
    assert_slice(o->name, "o");
    assert_string_equal(o->type->name, "web");
    assert_int_equal(o->queue.max_bytes, 1024 * MIB);
    assert_int_equal(o->queue.batch_bytes, 1 * MIB);
    assert_int_equal(o->queue.batch_wait_ns, NS_PER_SEC);
    assert_int_equal(o->queue.sync, QUEUE_SYNC_INTERVAL);
    assert_int_equal(o->queue.sync_interval_ns, 200 * NS_PER_MS);
    assert_int_equal(o->queue.on_full, QUEUE_FULL_BLOCK);
    assert_int_equal(o->queue.key_share_percent, 25);
    assert_int_equal(o->queue.dead_max_bytes, 256 * MIB);
    assert_int_equal(o->queue.group_bytes, 4 * MIB);
    assert_slice(o->http.urls.items[0], "http://x:1");
    assert_slice(o->http.proxy, "env");
    assert_slice(o->http.min_version, "1.2");
    assert_int_equal(o->http.timeout_ns, 60 * NS_PER_SEC);
    assert_int_equal(o->http.concurrency, 16);
    const struct fake_settings *set = o->settings;
    assert_slice(set->text, "plain text");
    assert_null(set->secret.ptr);
    assert_true(set->flag);
    assert_int_equal(set->number, 7);
    assert_int_equal(set->size, 256 * KIB);
    assert_int_equal(set->duration, 168 * 3600 * NS_PER_SEC);
    assert_int_equal(set->choice, 1);
    assert_slice(template_text(set->template), "{tenant}-%Y");
    assert_int_equal(set->labels.n, 2);
    assert_slice(set->labels.items[1].name, "b");
    assert_int_equal(set->list.n, 2);
    assert_int_equal(set->map.n, 0);
    assert_null(set->nested.inner);
    assert_int_equal(set->nested.depth, 3);

    assert_int_equal(c->n_routes, 1);
    assert_int_equal(c->routes[0].outputs, 1);
    assert_null(c->routes[0].match);
    assert_int_equal(c->wanted.n, 1); /* record.b of the labels */
    conf_free(c);
}

static const char everything[] =
    "state_dir: ./var\n"
    "admin: { listen: \"[::1]:0\" }\n"
    "limits: { memory: 64MiB, held: { max_bytes: 1GB }, min_free: 15%, cpu: 30% }\n"
    "tenants: { allow: [a*, b], max: 10, other: rest }\n"
    "metrics: { max_tenants: 5 }\n"
    "fields: { cluster: eu-1, node: n7, namespace: vm, zone: \"b{{1}}\" }\n"
    "inputs:\n"
    "  x-ignored: whatever\n"
    "  services:\n"
    "    type: file\n"
    "    include: [\"/var/log/*.log\", \"/srv/<tenant>/logs/<service>.log\"]\n"
    "    exclude: /var/log/own/*\n"
    "    read_from: 24h\n"
    "    ignore_older: 7d\n"
    "    format: cri\n"
    "    timezone: \"+02:00\"\n"
    "    multiline: { start: \"^[0-9]{4}-\" }\n"
    "    keys: { level: [severity, lvl], tenant: org, time: [], x-more: y }\n"
    "    tenant: \"{record.tenant|path.tenant|'platform'}\"\n"
    "    fields: { pod: \"{host}\", service: \"{path.service|file_stem}\", zone: c }\n"
    "    levels: \"info,db=debug\"\n"
    "    overrides:\n"
    "      - { match: { service: \"api*\", not: { pod: [x, y] } }, levels: warn, tenant: api }\n"
    "  pods: { type: kubernetes, read_from: 2026-01-31T00:00:00Z, multiline: off }\n"
    "outputs:\n"
    "  web:\n"
    "    type: web\n"
    "    urls: [\"https://a:1/x\", \"https://b\"]\n"
    "    text: hello\n"
    "    secret: s3cret\n"
    "    flag: off\n"
    "    number: 1000000\n"
    "    size: 1MiB\n"
    "    duration: 0\n"
    "    choice: original\n"
    "    template: \"{record.t}-%j\"\n"
    "    labels: { z: \"{pod}\" }\n"
    "    list: [one]\n"
    "    map: { k: v, k2: \"\" }\n"
    "    nested: { inner: \"{node}\", depth: -5 }\n"
    "    queue: { max_bytes: 64MiB, batch_bytes: 1MiB, batch_wait: 10ms, sync: each, on_full: drop_oldest,\n"
    "             key_share: 50, dead_max_bytes: 1MiB }\n"
    "    auth: { basic: { username: u, password: p } }\n"
    "    tls: { server_name: n, min_version: \"1.3\", insecure_skip_verify: true }\n"
    "    headers: { X-Thing: y }\n"
    "    proxy: http://user:pw@proxy:3128\n"
    "    timeout: 5s\n"
    "    concurrency: 1\n"
    "  disk: { type: local, queue: { sync: never } }\n"
    "routes:\n"
    "  - { match: { message: \"*GET /health*\" }, drop: true }\n"
    "  - { match: { tenant: [a, b], level: ERROR, record.k: x }, to: disk, levels: trace, continue: true }\n"
    "  - { to: [web, disk], levels: \"info\" }\n";

static void every_key(void **state)
{
    (void)state;
    struct conf *c = load(everything);
    assert_slice(c->state_dir, "./var");
    assert_slice(c->admin_listen, "[::1]:0");
    assert_int_equal(c->memory_bytes, 64 * MIB);
    assert_int_equal(c->held_max_bytes, 1000000000);
    assert_int_equal(c->min_free.percent, 15);
    assert_int_equal(c->cpu_percent, 30);
    assert_int_equal(c->tenants_allow.n, 2);
    assert_int_equal(c->tenants_max, 10);
    assert_slice(c->tenants_other, "rest");
    assert_int_equal(c->metrics_max_tenants, 5);
    assert_slice(c->cluster, "eu-1");
    assert_slice(c->node, "n7");
    assert_slice(pairs_get(c->fields, SLICE("zone")), "b{1}");

    assert_int_equal(c->n_inputs, 2);
    const struct conf_input *in = &c->inputs[0];
    assert_int_equal(in->include.n, 2);
    assert_slice(in->exclude.items[0], "/var/log/own/*");
    assert_int_equal(in->read_from, READ_FROM_AGE);
    assert_int_equal(in->read_from_ns, 86400 * NS_PER_SEC);
    assert_int_equal(in->ignore_older_ns, 7 * 86400 * NS_PER_SEC);
    assert_int_equal(in->format, FORMAT_CRI);
    assert_slice(in->timezone, "+02:00");
    assert_int_equal(in->multiline, MULTILINE_START);
    assert_slice(in->multiline_start, "^[0-9]{4}-");
    assert_int_equal(in->level_keys.n, 2);
    assert_slice(in->tenant_keys.items[0], "org");
    assert_true(template_uses(in->tenant, VAR_RECORD_TENANT));
    assert_int_equal(in->fields.n, 4); /* and namespace: vm of the common ones */
    assert_slice(in->fields.items[3].name, "namespace");
    assert_int_equal(levels_threshold(in->levels, SLICE("db")), LEVEL_DEBUG);
    assert_int_equal(in->n_overrides, 1);
    assert_true(match_is_static(in->overrides[0].match));
    assert_int_equal(levels_threshold(in->overrides[0].levels, SLICE("")), LEVEL_WARN);
    assert_slice(template_text(in->overrides[0].tenant), "api");

    const struct conf_input *pods = &c->inputs[1];
    assert_int_equal(pods->type, INPUT_KUBERNETES);
    assert_slice(pods->include.items[0], "/var/log/pods/*/*/*.log");
    assert_slice(template_text(pods->tenant), "{namespace}");
    assert_int_equal(pods->read_from, READ_FROM_TIME);
    assert_int_equal(pods->read_from_ns, INT64_C(1769817600) * NS_PER_SEC);
    assert_int_equal(pods->multiline, MULTILINE_OFF);
    assert_int_equal(pods->fields.n, 0); /* pods keep what their path says */

    assert_int_equal(c->n_outputs, 2);
    const struct output_conf *o = &c->outputs[0];
    const struct fake_settings *set = o->settings;
    assert_int_equal(o->http.urls.n, 2);
    assert_slice(set->secret, "s3cret");
    assert_false(set->flag);
    assert_int_equal(set->number, 1000000);
    assert_int_equal(set->size, 1 * MIB);
    assert_int_equal(set->duration, 0);
    assert_int_equal(set->choice, 0);
    assert_int_equal(set->labels.n, 1);
    assert_int_equal(set->list.n, 1);
    assert_int_equal(set->map.n, 2);
    assert_non_null(set->nested.inner);
    assert_int_equal(set->nested.depth, -5);
    assert_int_equal(o->queue.max_bytes, 64 * MIB);
    assert_int_equal(o->queue.group_bytes, 1 * MIB);
    assert_int_equal(o->queue.sync, QUEUE_SYNC_EACH);
    assert_int_equal(o->queue.on_full, QUEUE_FULL_DROP_OLDEST);
    assert_int_equal(o->queue.key_share_percent, 50);
    assert_slice(o->http.username, "u");
    assert_slice(o->http.password, "p");
    assert_true(o->http.insecure_skip_verify);
    assert_slice(o->http.min_version, "1.3");
    assert_slice(pairs_get(o->http.headers, SLICE("X-Thing")), "y");
    assert_int_equal(o->http.concurrency, 1);
    assert_int_equal(c->outputs[1].index, 1);
    assert_int_equal(c->outputs[1].queue.sync, QUEUE_SYNC_NEVER);

    assert_int_equal(c->n_routes, 3);
    assert_true(c->routes[0].is_drop && c->routes[0].outputs == 0);
    assert_true(c->routes[1].is_continue && c->routes[1].outputs == 2);
    assert_int_equal(c->routes[2].outputs, 3);
    assert_int_equal(c->routes[2].file_line, 53);
    assert_int_equal(c->wanted.n, 2); /* t and k: a default that was replaced wants nothing */
    conf_free(c);
}

/* The whole document is a key at the top, an input's, an output's or a route's; the rest is right. */
static void mistakes(void **state)
{
    (void)state;
    static const struct {
        const char *before, *key, *words;
    } cases[] = {
        { "", "state_dri: x", "f.yaml:1:1: state_dri: unknown key; did you mean \"state_dir\"?" },
        { "", "zzz: x", "zzz: unknown key; expected one of state_dir, admin, limits, tenants, kubernetes, metrics, fields" },
        { "", "state_dir: \"\"", "state_dir: expected the path of a folder" },
        { "", "state_dir:", "state_dir: expected text, found nothing" },
        { "", "admin: { listen: nine }", "admin.listen: \"nine\" is not an address" },
        { "", "admin: { listen: \"1.2.3.4:99999\" }", "admin.listen" },
        { "", "admin: { listen: \"1.2.3:1\" }", "admin.listen" },
        { "", "admin: on", "admin: expected a map of keys, found text" },
        { "", "limits: { memory: 1KiB }", "limits.memory: 1KiB is out of range; expected from 8MiB up" },
        { "", "limits: { memory: lots }", "limits.memory: \"lots\" is not a size" },
        { "", "limits: { memroy: 32MiB }", "limits.memroy: unknown key; did you mean \"memory\"?" },
        { "", "limits: { min_free: 150% }", "limits.min_free: \"150%\" is neither" },
        { "", "limits: { min_free: x }", "limits.min_free: \"x\" is neither" },
        { "", "limits: { cpu: 0% }", "limits.cpu: \"0%\" is no share" },
        { "", "limits: { cpu: 2 }", "limits.cpu: \"2\" is no share" },
        { "", "limits: { held: { max: 1 } }", "limits.held.max: unknown key" },
        { "", "tenants: { max: 0 }", "tenants.max: 0 is out of range; expected from 1 to 100000" },
        { "", "tenants: { max: many }", "tenants.max: expected a whole number, found \"many\"" },
        { "", "tenants: { other: \"a b\" }", "tenants.other: \"a b\" is not a name" },
        { "", "fields: { tenant: x }", "fields.tenant: is not a field" },
        { "", "fields: { a: \"{host}\" }", "fields.a: expected a constant" },
        { "", "fields: { \"a b\": x }", "is not a name" },
        { "", "routes: { to: o }", "routes: expected a list of { match, to }, found a map" },
        { "", "routes: [ x ]", "routes[0]: expected { match, to }, found text" },
        { "", "routes: [ {} ]", "routes[0]: goes nowhere" },
        { "", "routes: [ { to: oo } ]", "routes[0].to: there is no output \"oo\"" },
        { "", "routes: [ { to: [] } ]", "routes[0].to: the list is empty" },
        { "", "routes: [ { to: o, drop: true } ]", "routes[0]: says both drop and to" },
        { "", "routes: [ { drop: true, continue: true } ]", "routes[0]: says both drop and continue" },
        { "", "routes: [ { to: o, drop: maybe } ]",
          "routes[0].drop: expected true or false, found \"maybe\"" },
        { "", "routes: [ { to: o, match: { pods: x } } ]",
          "routes[0].match.pods: \"pods\" cannot be matched; did you mean \"pod\"" },
        { "", "routes: [ { to: o, match: { pod: [] } } ]", "routes[0].match.pod: the list is empty" },
        { "", "routes: [ { to: o, match: { not: x } } ]", "routes[0].match.not: expected a map" },
        { "", "routes: [ { to: o, match: { not: { x: y } } } ]", "routes[0].match.not.x: " },
        { "", "routes: [ { to: o, levels: \"a=b\" } ]",
          "f.yaml:1:29: routes[0].levels: \"a=b\": \"b\" is not a level" },
        { "", "routes: [ { to: o, levels: \"info,[x]=info\" } ]",
          "f.yaml:1:34: routes[0].levels: \"[x]=info\": spans" },
        { "i", "type: fiel", "inputs.i.type: \"fiel\" is no type of input; did you mean \"file\"?" },
        { "i", "include: log", "inputs.i.include: \"log\": expected an absolute path" },
        { "i", "include: [/a, /b/]", "inputs.i.include[1]: \"/b/\": names a folder" },
        { "i", "include: /a/../b", "inputs.i.include: \"/a/../b\": expected a path without" },
        { "i", "include: \"/a/<x>/<x>.log\"", "captures the same name twice" },
        { "i", "include: \"/a/<x.log\"", "is not closed" },
        { "i", "include: \"/a/<x-y>.log\"", "is not closed, or not of letters" },
        { "i", "include: []", "include is missing" },
        { "i", "include: {a: b}", "inputs.i.include: expected text, found a map" },
        { "i", "exclude: [x]", "inputs.i.exclude[0]" },
        { "i", "read_from: start", "inputs.i.read_from: \"start\" is none of beginning, end, an age" },
        { "i", "ignore_older: 7", "inputs.i.ignore_older: \"7\" is not a duration" },
        { "i", "format: jsno",
          "inputs.i.format: \"jsno\" is none of auto, json, cri, docker, text; did you mean \"json\"?" },
        { "i", "timezone: Mars/Olympus", "inputs.i.timezone: \"Mars/Olympus\" is not a time zone" },
        { "i", "timezone: ../../etc/passwd", "inputs.i.timezone" },
        { "i", "timezone: \"+25:00\"", "inputs.i.timezone" },
        { "i", "multiline: yes", "inputs.i.multiline: \"yes\" is none of auto, off" },
        { "i", "multiline: { start: \"(\" }",
          "inputs.i.multiline.start: \"(\" is not an extended regular expression" },
        { "i", "multiline: {}", "inputs.i.multiline.start: missing" },
        { "i", "multiline: { start: x, strat: y }",
          "inputs.i.multiline.strat: unknown key; did you mean \"start\"?" },
        { "i", "keys: { lvl: x }", "inputs.i.keys.lvl: unknown key" },
        { "i", "tenant: {record.tenant|'x'}",
          "inputs.i.tenant: expected text, found a map; put it in quotes: \"{record.tenant|'x'}\"" },
        { "i", "tenant: \"{tenant}\"", "inputs.i.tenant: a tenant cannot be made of {tenant}" },
        { "i", "tenant: \"{tennant}\"",
          "inputs.i.tenant: unknown name \"tennant\"; did you mean \"tenant\"?" },
        { "i", "fields: { level: x }", "inputs.i.fields.level: is not a field" },
        { "i", "fields: { a: \"{record.x}\" }",
          "inputs.i.fields.a: {record.…} changes from record to record" },
        { "i", "fields: { a: {b} }",
          "inputs.i.fields.a: expected text, found a map; put it in quotes: \"{b}\"" },
        { "i", "levels: \"info,db=lots\"",
          "f.yaml:1:55: inputs.i.levels: \"db=lots\": \"lots\" is not a level" },
        { "i", "levels: [info]", "inputs.i.levels: expected text, found a list" },
        { "i", "overrides: { a: b }", "inputs.i.overrides: expected a list" },
        { "i", "overrides: [ { levels: info } ]", "inputs.i.overrides[0]: match is missing" },
        { "i", "overrides: [ { match: { pod: x } } ]", "inputs.i.overrides[0]: overrides nothing" },
        { "i", "overrides: [ { match: { level: info }, tenant: x } ]",
          "inputs.i.overrides[0].tenant: can be set only" },
        { "i", "overides: []", "inputs.i.overides: unknown key; did you mean \"overrides\"?" },
        { "o", "type: wbe", "outputs.o.type: \"wbe\" is no type of output; did you mean \"web\"?" },
        { "o", "type: kafka", "expected one of web, local" },
        { "o", "urll: x", "outputs.o.urll: unknown key; did you mean \"url\"?" },
        { "o", "url: x:1", "outputs.o.url: \"x:1\": expected http:// or https://" },
        { "o", "url: http://", "a host is missing" },
        { "o", "url: \"http://a b\"", "no blanks" },
        { "o", "url: http://me:s3cret@host", "outputs.o.url: a password does not belong in an address" },
        { "o", "url: [http://a]", "outputs.o.url: expected one address, found a list" },
        { "o", "urls: [http://b]", "outputs.o: url and urls both stand here" },
        { "o", "text: [a]", "outputs.o.text: expected text, found a list" },
        { "o", "text: refuse me", "outputs.o: text: expected something else" },
        { "o", "flag: 2", "outputs.o.flag: expected true or false" },
        { "o", "number: 0", "outputs.o.number: 0 is out of range; expected from 1 up" },
        { "o", "number: 1.5", "outputs.o.number: expected a whole number" },
        { "o", "size: 2MiB", "outputs.o.size: 2MiB is out of range; expected from 1KiB to 1MiB" },
        { "o", "duration: 400d", "outputs.o.duration: 400d is out of range; expected from 0s to 365d" },
        { "o", "choice: enrichd",
          "outputs.o.choice: \"enrichd\" is none of original, enriched; did you mean \"enriched\"?" },
        { "o", "template: \"%q\"", "outputs.o.template: the % at byte 0" },
        { "o", "labels: [a]",
          "outputs.o.labels: expected a map of names and templates, or off; found a list" },
        { "o", "labels: { a: \"{pdo}\" }",
          "outputs.o.labels.a: unknown name \"pdo\"; did you mean \"pod\"?" },
        { "o", "list: [a, [b]]", "outputs.o.list[1]: expected text, found a list" },
        { "o", "map: { a: {} }", "outputs.o.map.a: expected text, found a map" },
        { "o", "nested: { depth: 1 }", "outputs.o.nested.inner: missing. a template" },
        { "o", "nested: { inner: x, deep: 1 }", "outputs.o.nested.deep: unknown key" },
        { "o", "queue: { max_bytes: 1MiB }",
          "outputs.o.queue.max_bytes: 1MiB is out of range; expected from 64MiB up" },
        { "o", "queue: { max_bytes: 64MiB, batch_bytes: 2MiB }", "outputs.o.queue.batch_bytes: too large" },
        { "o", "queue: { sync: 1h }", "outputs.o.queue.sync: \"1h\" is none of each, never" },
        { "o", "queue: { key_share: 0% }", "outputs.o.queue.key_share: \"0%\"" },
        { "o", "queue: { on_full: drop }", "outputs.o.queue.on_full" },
        { "o", "queue: { max_byte: 1GiB }",
          "outputs.o.queue.max_byte: unknown key; did you mean \"max_bytes\"?" },
        { "o", "auth: { basic: { username: u } }", "auth.basic: a password is missing" },
        { "o", "auth: { basic: { password: u } }", "auth.basic: username is missing" },
        { "o", "auth: { bearer: a, bearer_file: /dev/null }",
          "auth: bearer and bearer_file both stand here" },
        { "o", "auth: { bearer: a, api_key: b }",
          "auth: expected one of basic, bearer and api_key, found 2" },
        { "o", "auth: { token: a }", "outputs.o.auth.token: unknown key" },
        { "o", "tls: { min_version: \"1.1\" }", "tls.min_version: \"1.1\" is none of 1.2, 1.3" },
        { "o", "tls: { cert_file: /a }", "tls: cert_file and key_file go together; key_file is missing" },
        { "o", "headers: { Content-Type: x }", "Content-Type is set by the output itself" },
        { "o", "headers: { \"a b\": x }", "\"a b\" is not the name of a header" },
        { "o", "headers: { a: \"x\\r\\nEvil: y\" }", "a header is one line" },
        { "o", "proxy: proxy:3128", "proxy: expected env, none or an address" },
        { "o", "timeout: 1ms", "outputs.o.timeout: 1ms is out of range; expected from 1s to 1h" },
        { "o", "concurrency: 0", "outputs.o.concurrency" },
        { "o", "type: [a]", "outputs.o.type: expected text, found a list" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char yaml[1024];
        const char *where = cases[i].before, *key = cases[i].key;
        const char *type = strncmp(key, "type:", 5) == 0 ? ""
                           : where[0] == 'i'             ? "type: file, "
                                                         : "type: web, ";
        const char *include = strncmp(key, "include:", 8) == 0 ? "" : "include: /a, ";
        const char *url = strncmp(key, "url:", 4) == 0 ? "" : "url: \"http://x\", ";
        if (where[0] == 'i')
            (void)snprintf(yaml, sizeof(yaml), "inputs: { i: { %s%s%s } }\n" FAKE_OUTPUT, type, include, key);
        else if (where[0] == 'o')
            (void)snprintf(yaml, sizeof(yaml), "outputs: { o: { %s%s%s } }\n" FAKE_INPUT, type, url, key);
        else
            (void)snprintf(yaml, sizeof(yaml), "%s\n" FAKE_INPUT FAKE_OUTPUT, key);
        refused(yaml, 1, (const char *const[]){ cases[i].words });
    }
}

static void what_is_missing(void **state)
{
    (void)state;
    refused("", 2,
            (const char *const[]){ "f.yaml:1:1: inputs: none; expected at least one input",
                                   "f.yaml:1:1: outputs: none; expected at least one output" });
    refused("inputs: {}\noutputs:\n", 2,
            (const char *const[]){ "f.yaml:1:9: inputs: none", "f.yaml:2:9: outputs: none" });
    refused("- a\n", 3,
            (const char *const[]){ "f.yaml:1:1: expected keys such as inputs: and outputs:, found a list",
                                   "inputs: none", "outputs: none" });
    refused("text\n", 3, (const char *const[]){ "found text", "inputs: none", "outputs: none" });
    refused("inputs: { i: {} }\noutputs: { o: {} }\n", 3,
            (const char *const[]){ "inputs.i.type: missing; expected file, kubernetes or docker",
                                   "inputs.i: include is missing", "outputs.o: type is missing" });
    refused("inputs: { i: x, \"a b\": { type: file } }\noutputs: { o: [] }\n", 3,
            (const char *const[]){ "inputs.i: expected a map with type and include, found text",
                                   "\"a b\" is not a name",
                                   "outputs.o: expected a map with type, found a list" });
    refused("outputs: { o: { type: web } }\n" FAKE_INPUT, 1,
            (const char *const[]){ "outputs.o: url is missing" });
}

static void undefined_variables_do_not_cascade(void **state)
{
    (void)state;
    (void)unsetenv("TAILRACE_TEST_UNSET");
    refused("state_dir: ${TAILRACE_TEST_UNSET}\nlimits: { memory: \"${TAILRACE_TEST_UNSET}\" }\n"
            "inputs: { i: { type: file, include: /a, levels: \"${TAILRACE_TEST_UNSET}\", tenant: "
            "\"${TAILRACE_TEST_UNSET}\" } }\n"
            "outputs: { o: { type: web, url: \"${TAILRACE_TEST_UNSET}\" } }\n",
            5,
            (const char *const[]){ "f.yaml:1:12: the variable TAILRACE_TEST_UNSET is not set", "f.yaml:2:19",
                                   "f.yaml:3:49", "f.yaml:3:83", "f.yaml:4:33" });
}

/* A section whose values were refused - when the file was read, or beyond the errors that are kept - is not
 * shown to its type. */
static void types_see_whole_sections_only(void **state)
{
    (void)state;
    (void)unsetenv("TAILRACE_TEST_UNSET");
    refused(FAKE_INPUT
            "outputs: { o: { type: web, url: \"http://x\", template: \"${TAILRACE_TEST_UNSET}\" } }\n",
            1, (const char *const[]){ "TAILRACE_TEST_UNSET is not set" });
    struct buf b;
    struct conf *c = NULL;
    buf_init(&b, 1 * MIB);
    for (int i = 0; i < 300; i++)
        assert_int_equal(buf_printf(&b, "unknown_%d: x\n", i), 0);
    assert_int_equal(
        buf_append_lit(&b, FAKE_INPUT
                       "outputs: { o: { type: web, url: \"http://x\", template: \"{nothing}\" } }\n"),
        0);
    assert_int_equal(conf_load_text("f.yaml", buf_slice(&b), fake_types, &c, &errors), -EINVAL);
    buf_deinit(&b);
}

static void variables(void **state)
{
    (void)state;
    (void)setenv("TAILRACE_TEST_URL", "http://from-env:1", 1);
    (void)setenv("NODE_NAME", "node-7", 1);
    struct conf *c = load(FAKE_INPUT "outputs: { o: { type: web, url: \"${TAILRACE_TEST_URL}\", text: "
                                     "\"a$$b${TAILRACE_TEST_NOT:-c}\" } }\n");
    assert_slice(c->outputs[0].http.urls.items[0], "http://from-env:1");
    assert_slice(((struct fake_settings *)c->outputs[0].settings)->text, "a$bc");
    assert_slice(c->node, "node-7");
    uint64_t before = c->fingerprint;
    conf_free(c);
    (void)setenv("TAILRACE_TEST_URL", "http://from-env:2", 1);
    c = load(FAKE_INPUT "outputs: { o: { type: web, url: \"${TAILRACE_TEST_URL}\", text: "
                        "\"a$$b${TAILRACE_TEST_NOT:-c}\" } }\n");
    assert_true(c->fingerprint != before);
    conf_free(c);
    (void)unsetenv("NODE_NAME");
    (void)unsetenv("TAILRACE_TEST_URL");
}

static void warnings(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *words;
    } cases[] = {
        { "inputs: { i: { type: file, include: /a, levels: \"db=debug\" } }\n" FAKE_OUTPUT,
          "f.yaml:1:49: inputs.i.levels: \"db=debug\" has no level of its own" },
        { "inputs: { i: { type: file, include: /a, levels: \"info, warn\" } }\n" FAKE_OUTPUT,
          "f.yaml:1:55: inputs.i.levels: \" warn\" names a module with a blank" },
        { "inputs: { i: { type: file, include: /a, tenant: \"{path.tenant}\" } }\n" FAKE_OUTPUT,
          "inputs.i.tenant: {path.tenant} is empty: no include pattern has <tenant>" },
        { "inputs: { i: { type: file, include: \"/<tenant>/a\", fields: { a: \"{path.tennant}\" } } "
          "}\n" FAKE_OUTPUT,
          "did you mean {path.tenant}?" },
        { "inputs: { i: { type: file, include: /a, keys: { tenant: org } } }\n" FAKE_OUTPUT,
          "keys.tenant has no effect" },
        { "routes: [ { match: { pod: x }, to: o } ]\n" FAKE_INPUT FAKE_OUTPUT,
          "f.yaml:1:11: routes: records that match none of the 1 routes are discarded" },
        { "routes: [ { to: o }, { match: { pod: x }, drop: true } ]\n" FAKE_INPUT FAKE_OUTPUT,
          "routes[1]: is never reached" },
        { "routes: [ { drop: true } ]\n" FAKE_INPUT FAKE_OUTPUT, "no route leads to the output \"o\"" },
        { FAKE_INPUT "outputs: { o: { type: web, url: \"http://x\", auth: { bearer: y } } }\n",
          "travels unencrypted" },
        { FAKE_INPUT
          "outputs: { o: { type: web, url: \"https://x\", tls: { insecure_skip_verify: true } } }\n",
          "anyone may answer" },
        { FAKE_INPUT
          "outputs: { o: { type: web, url: \"https://x\", auth: { bearer_file: /nowhere/at/all } } }\n",
          "cannot open /nowhere/at/all" },
        { FAKE_INPUT "outputs: { o: { type: web, url: \"https://x\", text: warn me } }\n",
          "f.yaml:2:12: outputs.o: text: asks for a warning" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *c = load(cases[i].yaml);
        if (!warns(c, cases[i].words))
            fail_msg("expected \"%s\", got %zu: %.*s", cases[i].words, c->warnings.n,
                     c->warnings.n > 0 ? (int)c->warnings.items[0].len : 0,
                     c->warnings.n > 0 ? c->warnings.items[0].ptr : "");
        conf_free(c);
    }
    struct conf *c =
        load("routes: [ { match: { pod: x }, drop: true }, { match: { tenant: y }, to: o, continue: true }, "
             "{ to: o } ]\n"
             "inputs: { i: { type: file, include: \"/<tenant>/a\", tenant: \"{path.tenant|record.tenant}\", "
             "keys: { tenant: org }, levels: off } }\n" FAKE_OUTPUT);
    assert_int_equal(c->warnings.n, 0);
    conf_free(c);
}

static void anchors_and_extensions(void **state)
{
    (void)state;
    struct conf *c =
        load("x-base: &base { type: file, format: json, levels: info }\n"
             "inputs:\n"
             "  a: { <<: *base, include: /a }\n"
             "  b: { <<: *base, include: /b, format: text, x-note: { anything: goes } }\n" FAKE_OUTPUT);
    assert_int_equal(c->n_inputs, 2);
    assert_int_equal(c->inputs[0].format, FORMAT_JSON);
    assert_int_equal(c->inputs[1].format, FORMAT_TEXT);
    assert_non_null(c->inputs[1].levels);
    conf_free(c);
}

static void limits_of_number(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 * MIB);
    assert_int_equal(buf_append_lit(&b, "inputs:\n"), 0);
    for (int i = 0; i < INPUTS_MAX + 2; i++)
        assert_int_equal(buf_printf(&b, "  i%d: { type: file, include: /a%d }\n", i, i), 0);
    assert_int_equal(buf_append_lit(&b, "outputs:\n"), 0);
    for (int i = 0; i < OUTPUTS_MAX + 1; i++)
        assert_int_equal(buf_printf(&b, "  o%d: { type: local }\n", i), 0);
    assert_int_equal(buf_append_lit(&b, "routes:\n"), 0);
    for (int i = 0; i < ROUTES_MAX + 1; i++)
        assert_int_equal(buf_append_lit(&b, "  - { to: o1, match: { pod: x } }\n"), 0);
    assert_int_equal(buf_terminate(&b), 0);
    refused(b.ptr, 4,
            (const char *const[]){ "f.yaml:66:3: inputs.i64: one input too many", "f.yaml:67:3: inputs.i65",
                                   "outputs.o16: one output too many",
                                   "routes: 257 routes; expected at most 256" });
    buf_reset(&b);
    assert_int_equal(buf_append_lit(&b, FAKE_INPUT FAKE_OUTPUT "routes:\n"), 0);
    for (int i = 0; i < WANTED_KEYS_MAX + 1; i++)
        assert_int_equal(buf_printf(&b, "  - { to: o, match: { record.k%d: x } }\n", i), 0);
    assert_int_equal(buf_terminate(&b), 0);
    refused(b.ptr, 1,
            (const char *const[]){
                "routes[64].match.record.k64: \"record.k64\" is one key too many: at most 64" });
    buf_deinit(&b);
}

static void many_errors_are_counted(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 * MIB);
    for (int i = 0; i < 500; i++)
        assert_int_equal(buf_printf(&b, "unknown_%d: x\n", i), 0);
    struct conf *c = NULL;
    assert_int_equal(conf_load_text("f.yaml", buf_slice(&b), fake_types, &c, &errors), -EINVAL);
    assert_true(slice_find(buf_slice(&errors), SLICE("… and 302 more\n")) > 0);
    struct buf small; /* whole lines, as many as there is room for */
    buf_init(&small, 300);
    assert_int_equal(conf_load_text("f.yaml", buf_slice(&b), fake_types, &c, &small), -EINVAL);
    assert_true(small.len > 0 && small.ptr[small.len - 1] == '\n');
    buf_deinit(&small);
    buf_deinit(&b);
}

/* Every prefix of a large configuration: loaded or refused, never worse, nothing left behind. */
static void cut_anywhere(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(everything); len += len < 400 ? 1 : 7) {
        struct conf *c = NULL;
        buf_reset(&errors);
        int r = conf_load_text("f.yaml", slice_of(everything, len), fake_types, &c, &errors);
        assert_true(r == 0 || (r == -EINVAL && errors.len > 0));
        conf_free(c);
    }
}

/* Every key replaced by a value of every wrong shape. */
static void wrong_shapes(void **state)
{
    (void)state;
    static const char *const shapes[] = { "[]",     "{}",          "~",  "\"\"",
                                          "[[x]]",  "{a: {b: c}}", "-1", "\"\\u00e9\\n\"",
                                          "[~, {}]" };
    static const char *const keys[] = {
        "state_dir: %s\n" FAKE_INPUT FAKE_OUTPUT,
        "admin: %s\n" FAKE_INPUT FAKE_OUTPUT,
        "limits: { held: %s }\n" FAKE_INPUT FAKE_OUTPUT,
        "tenants: { allow: %s }\n" FAKE_INPUT FAKE_OUTPUT,
        "fields: %s\n" FAKE_INPUT FAKE_OUTPUT,
        "fields: { a: %s }\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: %s\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ %s ]\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ { to: %s } ]\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ { to: o, match: %s } ]\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ { to: o, match: { pod: %s } } ]\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ { to: o, match: { not: %s } } ]\n" FAKE_INPUT FAKE_OUTPUT,
        "routes: [ { to: o, levels: %s } ]\n" FAKE_INPUT FAKE_OUTPUT,
        "inputs: %s\n" FAKE_OUTPUT,
        "inputs: { i: %s }\n" FAKE_OUTPUT,
        "inputs: { i: { type: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, multiline: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, multiline: { start: %s } } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, keys: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, fields: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, overrides: %s } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, overrides: [ %s ] } }\n" FAKE_OUTPUT,
        "inputs: { i: { type: file, include: /a, overrides: [ { match: %s, levels: info } ] } "
        "}\n" FAKE_OUTPUT,
        "outputs: %s\n" FAKE_INPUT,
        "outputs: { o: %s }\n" FAKE_INPUT,
        "outputs: { o: { type: web, url: %s } }\n" FAKE_INPUT,
        "outputs: { o: { type: web, urls: %s } }\n" FAKE_INPUT,
        "outputs: { o: { type: local, queue: %s } }\n" FAKE_INPUT,
        "outputs: { o: { type: web, url: \"http://x\", auth: %s } }\n" FAKE_INPUT,
        "outputs: { o: { type: web, url: \"http://x\", auth: { basic: %s } } }\n" FAKE_INPUT,
        "outputs: { o: { type: web, url: \"http://x\", labels: %s, map: %s, list: %s, nested: %s } "
        "}\n" FAKE_INPUT,
    };
    for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            struct buf b;
            buf_init(&b, 4 * KIB);
            for (const char *p = keys[k]; *p != '\0'; p++) {
                bool is_hole = p[0] == '%' && p[1] == 's';
                assert_int_equal(is_hole ? buf_append_cstr(&b, shapes[s]) : buf_append_byte(&b, *p), 0);
                p += is_hole;
            }
            struct conf *c = NULL;
            buf_reset(&errors);
            int r = conf_load_text("f.yaml", buf_slice(&b), fake_types, &c, &errors);
            if (r != 0 && (r != -EINVAL || errors.len == 0))
                fail_msg("%d without a word: %.*s", r, (int)b.len, b.ptr);
            conf_free(c);
            buf_deinit(&b);
        }
    }
}

static void reload(void **state)
{
    (void)state;
    static const struct {
        const char *other, *words; /* NULL: fine */
    } cases[] = {
        { FAKE_INPUT FAKE_OUTPUT, NULL },
        { "inputs: { j: { type: kubernetes } }\noutputs: { o: { type: local }, p: { type: web, url: "
          "\"http://x\" } }\n",
          NULL },
        { "inputs: { j: { type: kubernetes } }\noutputs: { p: { type: web, url: \"http://x\" } }\n", NULL },
        { "state_dir: /else\n" FAKE_INPUT FAKE_OUTPUT, "state_dir" },
        { "admin: { listen: \":1\" }\n" FAKE_INPUT FAKE_OUTPUT, "admin.listen" },
        { FAKE_INPUT "outputs: { o: { type: web, url: \"http://x\" } }\n", "type" },
    };
    struct conf *old_conf = load(FAKE_INPUT FAKE_OUTPUT);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *c = load(cases[i].other);
        const char *why = conf_reload_obstacle(old_conf, c);
        assert_true((why == NULL) == (cases[i].words == NULL));
        assert_true(why == NULL || strstr(why, cases[i].words) != NULL);
        conf_free(c);
    }
    conf_free(old_conf);
    conf_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(defaults),
        TEST(every_key),
        TEST(mistakes),
        TEST(what_is_missing),
        TEST(undefined_variables_do_not_cascade),
        TEST(types_see_whole_sections_only),
        TEST(variables),
        TEST(warnings),
        TEST(anchors_and_extensions),
        TEST(limits_of_number),
        TEST(many_errors_are_counted),
        TEST(cut_anywhere),
        TEST(wrong_shapes),
        TEST(reload),
    };
    return cmocka_run_group_tests_name("conf/conf", tests, NULL, NULL);
}
