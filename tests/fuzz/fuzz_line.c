/*
 * fuzz_line.c - a line's whole way: frame, record, tenant, route, the bodies of every kind of output, and back out of them.
 *
 * The wire bodies are read by others than wrote them: snappy and zlib themselves, a naive reader of protobuf, jansson. Checked:
 * every body is valid, each line is in it once, the payload is there byte for byte but for the keys that clash, and our names hold
 * our values and stand exactly once, whatever the payload calls its keys. Then the outputs' own items(), build() and join() must
 * say the same of all lines together.
 *
 * First byte: the input (format) that reads the lines; the rest: raw lines.
 */
#include <fcntl.h>
#include <jansson.h>
#include <snappy-c.h>
#include <zlib.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/pipeline.h"
#include "agent/registry.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_json.h"

#define READ_NS INT64_C(1767323045000000000)
#define LINES_MAX 32
#define WIRE_MAX (8 * MIB)

static const char config[] =
    "state_dir: /nonexistent\n"
    "admin: { listen: \"off\" }\n"
    "fields: { cluster: eu-1, region: 'b\"\\ü' }\n"
    "inputs:\n"
    "  auto:   { type: file, include: /var/log/a/<service>.log, format: auto, tenant: \"{record.tenant|'platform'}\" }\n"
    "  docker: { type: file, include: /var/log/d/<service>.log, format: docker, timezone: UTC, fields: { pod: p-1, zone: b } }\n"
    "  cri:    { type: file, include: /var/log/c/<service>.log, format: cri, timezone: UTC, fields: { namespace: shop } }\n"
    "  text:   { type: file, include: /var/log/t/<service>.log, format: text, timezone: UTC, levels: \"info,noisy=off\" }\n"
    "outputs:\n"
    "  loki:     { type: loki, url: http://localhost:3100, late_after: 0s, labels: { service_name: \"{service}\", namespace: "
    "\"{namespace}\", node: \"{node}\", level: \"{level}\" }, metadata: { module: \"{module}\", trace: \"{record.trace_id}\" } }\n"
    "  enriched: { type: loki, url: http://localhost:3100, late_after: 0s, line: enriched, tenant: \"{tenant}\" }\n"
    "  plain:    { type: elasticsearch, url: http://localhost:9200 }\n"
    "  ecs:      { type: elasticsearch, url: http://localhost:9200, index: \"x-{level}-{record.trace_id}\", document: { names: ecs } }\n"
    "  under:    { type: elasticsearch, url: http://localhost:9200, document: { payload: app }, data_stream: { dataset: "
    "\"{service}\", namespace: \"{tenant}\" } }\n"
    "  archive:  { type: file, path: \"/nonexistent/{tenant}/%Y-%m-%d.ndjson\" }\n";

enum { LOKI, ENRICHED, PLAIN, ECS, UNDER, ARCHIVE, N_OUTPUTS };

static struct conf *conf;
static struct feeder feeders[OUTPUTS_MAX];
static struct pipeline *pipeline;
static struct source *sources[4];
static const char *const paths[] = { "/var/log/a/we\"b.log", "/var/log/d/web.log", "/var/log/c/web.log", "/var/log/t/web.log" };

struct line {
    struct record rec;
    char *text; /* what rec.line points into: the frame's scratch is used again */
    uint32_t outputs;
};

static int64_t wall(void)
{
    return READ_NS;
}

/* ---- made once ---------------------------------------------------------------------------------------------------- */

static void make(void)
{
    struct buf errors;
    struct err err = { 0 };
    if (conf != NULL)
        return;
    clock_set_source(wall, wall);
    log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    buf_init(&errors, MIB);
    if (conf_load_text("fuzz.yaml", slice_cstr(config), registry_types(), &conf, &errors) < 0)
        fuzz_fail("%.*s", SLICE_ARGS(buf_slice(&errors)));
    struct tallies *tallies = tallies_new(conf);
    fuzz_check(tallies != NULL && conf->n_outputs == N_OUTPUTS, "tallies");
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        struct output *out;
        const struct output_ops *ops = registry_ops(conf->outputs[i].type);
        if (i == ARCHIVE)
            continue; /* it opens its folders; its lines are the enriched ones of Loki */
        fuzz_check(ops->open(&conf->outputs[i], &out, &err) == 0, "%s", err.text);
        feeder_init(&feeders[i], out, NULL, tallies, 0);
    }
    struct pipeline_conf pc = { .conf = conf, .feeders = feeders, .n_feeders = ARCHIVE, .tallies = tallies };
    fuzz_check(pipeline_new(&pc, &pipeline, &err) == 0, "%s", err.text);
    for (uint32_t i = 0; i < ARRAY_LEN(sources); i++) {
        static const struct pair captures[] = { { SLICE_INIT("service"), SLICE_INIT("we\"b") } };
        struct file_ident ident = { .incarnation = i + 1, .path = slice_cstr(paths[i]), .input = conf->inputs[i].name };
        struct tail_file_info info = { .input_index = i, .ident = &ident, .captures = { captures, 1 } };
        sources[i] = source_new(conf, NULL, NULL, &info);
        fuzz_check(sources[i] != NULL, "source");
    }
}

/* ---- our names ---------------------------------------------------------------------------------------------------- */

#define N_NAMES 9
static const char *const names[][N_NAMES] = {
    { "pod", "namespace", "tenant", "container_name", "node_name", "service_name", "host_name", "cluster", "severity" },
    { "kubernetes.pod.name", "kubernetes.namespace", "organization.id", "container.name", "kubernetes.node.name", "service.name",
      "host.name", "orchestrator.cluster.name", "log.level" },
};

static struct slice our_value(const struct record *rec, size_t i)
{
    const struct origin *o = rec->origin;
    const struct slice values[N_NAMES] = { o->pod,  o->namespace_, rec->tenant, o->container,         o->node, o->service,
                                           o->host, o->cluster,    level_name(rec->level) };
    return values[i];
}

static bool begins_path(struct slice path, struct slice prefix)
{
    return slice_starts(path, prefix) && (path.len == prefix.len || path.ptr[prefix.len] == '.');
}

/* Is the key one of ours, or above or below one of ours? */
static bool is_ours(struct slice key, const struct record *rec, bool is_ecs, bool has_timestamp)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        struct slice name = slice_cstr(names[is_ecs][i]);
        if ((i != 7 || our_value(rec, i).len > 0) && (begins_path(key, name) || begins_path(name, key)))
            return true;
    }
    for (size_t i = 0; i < rec->origin->fields.n; i++) {
        struct slice name = rec->origin->fields.items[i].name;
        if (begins_path(key, name) || begins_path(name, key))
            return true;
    }
    return has_timestamp && (begins_path(key, SLICE("@timestamp")));
}

static bool is_string(const json_t *v, struct slice want)
{
    return json_is_string(v) && slice_eq(slice_of(json_string_value(v), json_string_length(v)), want);
}

static void check_ours(json_t *doc, const struct record *rec, bool is_ecs)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        const json_t *v = json_object_get(doc, names[is_ecs][i]);
        struct slice want = our_value(rec, i);
        if (want.len == 0 && (i != 7 || v == NULL))
            fuzz_check(v == NULL, "%s is the payload's", names[is_ecs][i]);
        else if (want.len > 0)
            fuzz_check(is_string(v, want), "%s is not '%.*s'", names[is_ecs][i], SLICE_ARGS(want));
    }
    for (size_t i = 0; i < rec->origin->fields.n; i++) {
        struct pair f = rec->origin->fields.items[i];
        fuzz_check(is_string(json_object_getn(doc, f.name.ptr, f.name.len), f.value), "%.*s is not ours", SLICE_ARGS(f.name));
    }
}

/* ---- a document --------------------------------------------------------------------------------------------------- */

static bool is_renamed(struct slice name, struct slice key)
{
    if (!slice_starts(name, SLICE("original_")))
        return false;
    name = slice_from(name, 9);
    if (name.len > key.len && name.ptr[0] >= '2' && name.ptr[0] <= '9' && name.ptr[1] == '_' &&
        slice_eq(slice_from(name, 2), key))
        return true;
    return slice_eq(name, key);
}

/* The payload's members stand first, in their order, with their values; the iterator is left behind them. false: they do not. */
static bool has_payload(json_t *doc, json_t *payload, const struct record *rec, bool is_ecs, bool has_timestamp, void **it)
{
    *it = json_object_iter(doc);
    for (void *p = json_object_iter(payload); p != NULL; p = json_object_iter_next(payload, p)) {
        if (*it == NULL || !json_equal(json_object_iter_value(*it), json_object_iter_value(p)))
            return false;
        struct slice key = slice_of(json_object_iter_key(p), json_object_iter_key_len(p));
        struct slice name = slice_of(json_object_iter_key(*it), json_object_iter_key_len(*it));
        bool is_clash = is_ours(key, rec, is_ecs, has_timestamp);
        if (!slice_eq(name, key) && (!is_clash || !is_renamed(name, key)))
            return false;
        *it = json_object_iter_next(doc, *it);
    }
    return true;
}

static void check_text(json_t *doc, const struct record *rec)
{
    const json_t *message = json_object_get(doc, "message");
    fuzz_check(json_is_string(message), "a line as text has no message");
    if (slice_utf8_valid(rec->line) == rec->line.len)
        fuzz_check(is_string(message, rec->line), "the message is not the line");
}

/* What follows the payload is ours alone. */
static void check_rest(json_t *doc, void *it, const struct record *rec, bool is_ecs)
{
    for (; it != NULL; it = json_object_iter_next(doc, it)) {
        struct slice key = slice_of(json_object_iter_key(it), json_object_iter_key_len(it));
        fuzz_check(is_ours(key, rec, is_ecs, true), "'%.*s' is neither the payload's nor ours", SLICE_ARGS(key));
    }
}

static void check_timestamp(json_t *doc, const struct record *rec)
{
    const json_t *v = json_object_get(doc, "@timestamp");
    struct buf want;
    buf_init(&want, 100);
    fuzz_check(clock_append_rfc3339(&want, rec->time_ns >= 0 ? rec->time_ns : READ_NS, 9) == 0, "memory");
    fuzz_check(json_is_string(v), "no @timestamp");
    /* A good one of the payload stays as it is written. */
    if (slice_find(rec->line, SLICE("timestamp")) < 0 && slice_find(rec->line, SLICE("\\u")) < 0)
        fuzz_check(is_string(v, buf_slice(&want)), "@timestamp is %s", json_string_value(v));
    buf_deinit(&want);
}

/* refuses: the server takes no key twice, so such a line went as text. */
static void check_document(struct slice text, const struct record *rec, bool is_ecs, bool refuses, bool has_timestamp)
{
    bool is_judged, is_payload_judged;
    json_t *doc = model_parse(text, refuses ? JSON_REJECT_DUPLICATES : 0, &is_judged);
    json_t *payload = rec->kind == RECORD_JSON ? model_parse(rec->line, 0, &is_payload_judged) : NULL;
    if (!is_judged) {
        json_decref(payload);
        return;
    }
    fuzz_check(doc != NULL && json_is_object(doc), "no valid document: %.*s", SLICE_ARGS(text));
    fuzz_check(slice_find_byte(text, '\n') < 0, "a document of two lines");
    check_ours(doc, rec, is_ecs);
    bool has_twice = (rec->flags & RECORD_DUPLICATE_KEYS) != 0;
    bool must_be_text = rec->kind == RECORD_TEXT || (rec->flags & RECORD_MANY_SUSPECTS) != 0 || (refuses && has_twice);
    void *it = NULL;
    if (must_be_text)
        check_text(doc, rec);
    else if (!has_twice) { /* with a key twice jansson keeps the last only */
        if (has_payload(doc, payload, rec, is_ecs, has_timestamp, &it))
            check_rest(doc, it, rec, is_ecs);
        else /* no name was free: it is text */
            check_text(doc, rec);
        if (rec->n_suspects == 0) {
            struct slice line = slice_trim(rec->line);
            fuzz_check(slice_starts(text, slice_first(line, line.len - 1)), "the payload's bytes have changed");
        }
    }
    if (has_timestamp)
        check_timestamp(doc, rec);
    json_decref(payload);
    json_decref(doc);
}

static void check_under(struct slice text, const struct record *rec)
{
    bool is_judged;
    json_t *doc = model_parse(text, JSON_REJECT_DUPLICATES, &is_judged);
    if (!is_judged)
        return;
    fuzz_check(doc != NULL && json_is_object(doc), "no valid document: %.*s", SLICE_ARGS(text));
    check_ours(doc, rec, false);
    json_t *app = json_object_get(doc, "app");
    if (rec->kind == RECORD_TEXT || (rec->flags & (RECORD_MANY_SUSPECTS | RECORD_DUPLICATE_KEYS)) != 0) {
        check_text(doc, rec);
    } else {
        json_t *payload = model_parse(rec->line, 0, &is_judged);
        fuzz_check(payload != NULL && json_equal(app, payload), "the payload under its key is another");
        json_decref(payload);
    }
    json_decref(doc);
}

/* ---- Elasticsearch's bodies --------------------------------------------------------------------------------------- */

static struct slice gunzip(struct slice wire, char *room, size_t room_len)
{
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)wire.ptr, .avail_in = (unsigned)wire.len,
                   .next_out = (unsigned char *)room, .avail_out = (unsigned)room_len };
    fuzz_check(inflateInit2(&z, 16 + 15) == Z_OK && inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0, "no gzip");
    (void)inflateEnd(&z);
    return slice_of(room, room_len - z.avail_out);
}

/* docs.elastic.co: lower case, none of \ / * ? " < > | space , # :, not begun by - _ +, not . or .., at most 255 bytes. */
static void check_index(struct slice name)
{
    fuzz_check(name.len >= 1 && name.len <= 255, "an index of %zu bytes", name.len);
    fuzz_check(memchr("-_+.", name.ptr[0], 4) == NULL, "an index begins with %c", name.ptr[0]);
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        fuzz_check(c > ' ' && memchr("\\/*?\"<>|,#:", c, 11) == NULL && !(c >= 'A' && c <= 'Z'), "byte %u in an index", c);
    }
    fuzz_check(slice_utf8_valid(name) == name.len, "an index that is no UTF-8");
}

static void check_action(struct slice action)
{
    bool is_judged;
    json_t *a = model_parse(action, JSON_REJECT_DUPLICATES, &is_judged);
    json_t *create = json_object_get(a, "create"), *index = json_object_get(create, "_index"), *id = json_object_get(create, "_id");
    fuzz_check(json_object_size(a) == 1 && json_object_size(create) == 2 && json_is_string(index) && json_is_string(id),
               "action %.*s", SLICE_ARGS(action));
    check_index(slice_of(json_string_value(index), json_string_length(index)));
    fuzz_check(json_string_length(id) > 0 && json_string_length(id) <= 512, "_id");
    json_decref(a);
}

static void check_bulk(unsigned output, struct slice wire, const struct line *lines, size_t n)
{
    static char room[WIRE_MAX];
    struct slice rest = gunzip(wire, room, sizeof(room));
    fuzz_check(slice_ends(rest, SLICE("\n")), "a body that does not end in a newline");
    for (size_t i = 0; i < n; i++) {
        struct slice action = fuzz_take_until(&rest, '\n'), document = fuzz_take_until(&rest, '\n');
        check_action(action);
        if (output == UNDER)
            check_under(document, &lines[i].rec);
        else
            check_document(document, &lines[i].rec, output == ECS, true, true);
    }
    fuzz_check(rest.len == 0, "more lines than were appended");
}

/* ---- Loki's bodies ------------------------------------------------------------------------------------------------ */

struct field {
    unsigned number;
    uint64_t value;
    struct slice bytes;
};

static uint64_t varint(struct slice *in)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        fuzz_check(in->len > 0, "a cut varint");
        unsigned b = fuzz_take_byte(in);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    fuzz_fail("a varint without end");
}

static struct field next_field(struct slice *in)
{
    uint64_t key = varint(in);
    struct field f = { .number = (unsigned)(key >> 3) };
    if ((key & 7) == 0) {
        f.value = varint(in);
        return f;
    }
    fuzz_check((key & 7) == 2, "wire type %u", (unsigned)(key & 7));
    uint64_t len = varint(in);
    fuzz_check(len <= in->len, "a field behind the end");
    f.bytes = slice_first(*in, (size_t)len);
    *in = slice_from(*in, (size_t)len);
    return f;
}

/* {a="b", c="d"}: names in order, values escaped as Loki's lexer has it, none empty, UTF-8 without U+FFFD. */
static void check_labels(struct slice s)
{
    struct slice last = SLICE("");
    size_t n = 0, i = 1;
    fuzz_check(s.len > 2 && s.ptr[0] == '{' && s.ptr[s.len - 1] == '}', "labels %.*s", SLICE_ARGS(s));
    fuzz_check(slice_utf8_valid(s) == s.len && slice_find(s, SLICE("\xef\xbf\xbd")) < 0, "labels that Loki refuses");
    while (i < s.len - 1) {
        size_t from = i;
        while (i < s.len && (((s.ptr[i] | 0x20) >= 'a' && (s.ptr[i] | 0x20) <= 'z') || s.ptr[i] == '_'))
            i++;
        struct slice name = slice_of(s.ptr + from, i - from);
        fuzz_check(slice_cmp(last, name) < 0 && slice_starts(slice_from(s, i), SLICE("=\"")), "labels %.*s", SLICE_ARGS(s));
        last = name;
        for (i += 2; i < s.len && s.ptr[i] != '"'; i++) {
            fuzz_check((unsigned char)s.ptr[i] >= 0x20 && s.ptr[i] != 0x7f, "a control byte in a label");
            if (s.ptr[i] != '\\')
                continue;
            fuzz_check(memchr("abfnrtvx\\\"", s.ptr[++i], 10) != NULL, "an escape that Loki does not know");
        }
        fuzz_check(++n <= 15 && i > from + name.len + 2, "empty, or too many");
        if (slice_starts(slice_from(s, i), SLICE("\", ")))
            i += 3;
        else
            fuzz_check(++i == s.len - 1, "labels %.*s", SLICE_ARGS(s));
    }
}

static void check_metadata(struct slice pair, const struct record *rec, size_t *bytes)
{
    struct slice name = SLICE(""), value = SLICE("");
    while (pair.len > 0) {
        struct field f = next_field(&pair);
        *(f.number == 1 ? &name : &value) = f.bytes;
    }
    *bytes += name.len + value.len;
    fuzz_check(name.len > 0 && slice_utf8_valid(value) == value.len, "metadata that Loki refuses");
    if (slice_eq(name, SLICE("module")) && slice_utf8_valid(rec->module) == rec->module.len && rec->module.len < 2000)
        fuzz_check(slice_eq(value, rec->module), "the module is '%.*s'", SLICE_ARGS(value));
}

static void check_entry(unsigned output, struct slice entry, const struct record *rec, int64_t *last_ns)
{
    int64_t ns = 0;
    struct slice line = SLICE("");
    size_t pairs = 0, bytes = 0;
    while (entry.len > 0) {
        struct field f = next_field(&entry);
        if (f.number == 1) {
            for (struct slice t = f.bytes; t.len > 0;) {
                struct field part = next_field(&t);
                ns += part.number == 1 ? (int64_t)part.value * NS_PER_SEC : (int64_t)part.value;
                fuzz_check(part.number == 1 || part.value < (uint64_t)NS_PER_SEC, "nanos");
            }
        } else if (f.number == 2) {
            line = f.bytes;
        } else {
            fuzz_check(f.number == 3, "field %u of an entry", f.number);
            check_metadata(f.bytes, rec, &bytes);
            pairs++;
        }
    }
    fuzz_check(pairs <= 128 && bytes <= 64 * KIB, "more metadata than Loki takes");
    fuzz_check(ns > *last_ns, "entries out of order");
    *last_ns = ns;
    if (output == LOKI)
        fuzz_check(slice_eq(line, rec->line), "the line is not as it was");
    else
        check_document(line, rec, false, false, false);
}

/* One line, so one stream and one entry. */
static void check_push(unsigned output, struct slice wire, const struct line *line)
{
    static char room[WIRE_MAX];
    size_t len = sizeof(room);
    fuzz_check(snappy_uncompress(wire.ptr, wire.len, room, &len) == SNAPPY_OK, "no snappy");
    struct slice push = slice_of(room, len);
    struct field stream = next_field(&push);
    fuzz_check(stream.number == 1 && push.len == 0, "not one stream");
    struct field labels = next_field(&stream.bytes), entry = next_field(&stream.bytes);
    fuzz_check(labels.number == 1 && entry.number == 2 && stream.bytes.len == 0, "not labels and one entry");
    check_labels(labels.bytes);
    int64_t last_ns = INT64_MIN;
    check_entry(output, entry.bytes, &line->rec, &last_ns);
}

/* ---- bodies ------------------------------------------------------------------------------------------------------- */

/* The first open body, sealed into wire; its tenant or index into route. */
static uint32_t seal_first(struct output *out, struct buf *wire, struct buf *route)
{
    struct body *b = out->open.first;
    uint32_t lines = b->lines;
    bodies_take(&out->open, b);
    buf_reset(wire);
    buf_reset(route);
    fuzz_check(out->ops->seal(out, b, wire) == 0, "seal");
    fuzz_check(buf_append_slice(route, buf_slice(&b->route)) == 0, "memory");
    out->ops->discard(out, b);
    body_free(b);
    return lines;
}

/* 1 when it was taken, 0 when it was filtered on purpose. */
static uint32_t append(struct output *out, const struct record *rec)
{
    struct append_result res = { 0 };
    fuzz_check(out->ops->append(out, rec, &res) == 0, "append");
    fuzz_check((res.body == NULL) == res.is_filtered, "neither taken nor filtered");
    return !res.is_filtered;
}

static void check_alone(unsigned output, const struct line *line, struct buf *wire, struct buf *route)
{
    struct output *out = feeders[output].output;
    if (append(out, &line->rec) == 0)
        return;
    fuzz_check(seal_first(out, wire, route) == 1 && out->open.first == NULL, "not one line in one body");
    if (output == LOKI || output == ENRICHED)
        check_push(output, buf_slice(wire), line);
    else
        check_bulk(output, buf_slice(wire), line, 1);
}

/* items() finds all lines, build() of all of them makes a body of the same lines, join() of both one of twice as many. */
static void check_items(struct output *out, struct slice wire, struct slice route, uint32_t n)
{
    struct items it, again;
    struct buf built, joined;
    buf_init(&built, WIRE_MAX);
    buf_init(&joined, WIRE_MAX);
    fuzz_check(out->ops->items(out, wire, route, &it) == 0 && it.n == n, "items: not %u", n);
    uint8_t *all = malloc(n);
    memset(all, 1, n);
    fuzz_check(out->ops->build(out, &it, all, false, &built) == 0, "build");
    fuzz_check(out->ops->items(out, buf_slice(&built), route, &again) == 0 && again.n == n, "items of what was built");
    for (uint32_t i = 0; i < n; i++)
        fuzz_check(slice_eq(it.item[i].data, again.item[i].data) && slice_eq(it.item[i].head, again.item[i].head) &&
                       it.item[i].time_ns == again.item[i].time_ns,
                   "line %u is another", i);
    items_deinit(&again);
    buf_reset(&built);
    if (slice_eq(slice_cstr(out->ops->type->name), SLICE("elasticsearch"))) {
        fuzz_check(out->ops->build(out, &it, all, true, &built) == 0, "build as text");
        fuzz_check(out->ops->items(out, buf_slice(&built), route, &again) == 0 && again.n == n, "items of texts");
        for (uint32_t i = 0; i < n; i++) {
            bool is_judged;
            json_t *doc = model_parse(again.item[i].data, JSON_REJECT_DUPLICATES, &is_judged);
            fuzz_check(!is_judged || json_is_string(json_object_get(doc, "message")), "text: %.*s", SLICE_ARGS(again.item[i].data));
            json_decref(doc);
        }
        items_deinit(&again);
    }
    struct slice two[] = { wire, wire };
    fuzz_check(out->ops->join(out, two, 2, &joined) == 0, "join");
    fuzz_check(out->ops->items(out, buf_slice(&joined), route, &again) == 0 && again.n == 2 * n, "items of two bodies");
    items_deinit(&again);
    items_deinit(&it);
    free(all);
    buf_deinit(&built);
    buf_deinit(&joined);
}

static void check_together(unsigned output, const struct line *lines, size_t n, struct buf *wire, struct buf *route)
{
    struct output *out = feeders[output].output;
    uint32_t want = 0, got = 0;
    for (size_t i = 0; i < n; i++)
        if ((lines[i].outputs & 1u << output) != 0)
            want += append(out, &lines[i].rec);
    while (out->open.first != NULL) {
        uint32_t in_body = seal_first(out, wire, route);
        got += in_body;
        check_items(out, buf_slice(wire), buf_slice(route), in_body);
    }
    fuzz_check(got == want, "%u lines in the bodies instead of %u", got, want);
}

/* ---- the line ----------------------------------------------------------------------------------------------------- */

static bool is_inside(const char *ptr, struct slice whole)
{
    return (uintptr_t)ptr >= (uintptr_t)whole.ptr && (uintptr_t)ptr <= (uintptr_t)whole.ptr + whole.len;
}

/* The record keeps slices of parsers' buffers, which the next line uses again: each line is read anew when it is appended. */
static void read_line(struct line *l, uint32_t input, struct slice raw, uint64_t offset)
{
    static struct decision d;
    struct framed fr;
    parser_frame(pipeline_parser(pipeline, input), raw, READ_NS, &fr);
    l->text = slice_dup(fr.content);
    l->rec = (struct record){ .origin = sources[input]->origin, .offset = offset, .read_ns = READ_NS, .stream = fr.stream,
                              .line = slice_of(l->text, fr.content.len), .incarnation = input + 1,
                              .flags = fr.has_time ? RECORD_HAS_TIME : 0, .time_ns = fr.time_ns };
    pipeline_decide(pipeline, sources[input], &l->rec, &d);
    l->outputs = d.outputs & ~(1u << ARCHIVE);
    fuzz_check(is_inside(l->rec.line.ptr, slice_of(l->text, fr.content.len)), "the line moved");
}

int fuzz_line(const uint8_t *data, size_t size)
{
    static uint64_t serial;
    static struct buf wire, route;
    make();
    wire.max = route.max = WIRE_MAX;
    struct slice in = slice_of(data, size);
    uint32_t input = fuzz_take_byte(&in) % ARRAY_LEN(sources);
    /* Loki's output remembers the times of each stream: every input of the fuzzer is a node of its own. */
    char node[32];
    sources[input]->origin->id = 1000 + ++serial;
    sources[input]->origin->node = slice_of(node, (size_t)snprintf(node, sizeof(node), "n%llu", (unsigned long long)serial));

    struct line line;
    size_t n = 0;
    for (uint64_t offset = 0; in.len > 0 && n < LINES_MAX; n++) {
        struct slice raw = fuzz_take_until(&in, '\n');
        read_line(&line, input, raw, offset);
        for (uint32_t m = line.outputs; m != 0; m &= m - 1) {
            unsigned output = (unsigned)__builtin_ctz(m);
            check_alone(output, &line, &wire, &route);
            check_together(output, (struct line[]){ line, line }, 2, &wire, &route);
        }
        free(line.text);
        offset += raw.len + 1;
    }
    return 0;
}
