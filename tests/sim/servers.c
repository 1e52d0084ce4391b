/*
 * The model servers. They take what goes over the wire, decode it with code of their own, and do what the real ones were
 * seen to do.
 *
 * Loki: a stream's entries in its head block are remembered, the same entry again is dropped without a word; an entry that
 * is an hour behind the newest of its stream is refused, and the reply tells only what became of the last stream of the
 * request; a line that is too long is refused, the rest is stored.
 * Elasticsearch: a document for each _index and _id, by `create` alone; refusals by item.
 */
#include <libdeflate.h>
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/bytes.h"
#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "tests/sim/pieces.h"
#include "tests/sim/sim.h"

#define LOKI_LINE_MAX 1500
#define LOKI_BEHIND_NS (3600 * NS_PER_SEC)
#define SMALL_REQUEST 3
#define RAW_MAX (96 * MIB)

struct slot { /* of a table: key 0 is free */
    uint64_t key;
    int64_t value;
};

struct table {
    struct slot *slots;
    size_t n, cap; /* cap: power of two */
};

static struct {
    struct table docs[SIM_OUTPUTS];    /* Elasticsearch: (index, id) -> uid */
    struct table newest[SIM_OUTPUTS];  /* Loki: stream -> newest time */
    uint8_t *raw;
    size_t raw_cap;
    bool is_cured;                     /* poison is taken */
} v;

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
    return slice_hash(slice_of(p, n)) * UINT64_C(0x9e3779b97f4a7c15) + (h ^ h >> 29);
}

/* The place of a key, made with the value -1. */
static int64_t *table_at(struct table *t, uint64_t key)
{
    key |= 1;
    if (2 * (t->n + 1) > t->cap) {
        struct table more = { .cap = MAX(t->cap * 2, (size_t)256) };
        more.slots = calloc(more.cap, sizeof(*more.slots));
        if (more.slots == NULL)
            abort();
        for (size_t i = 0; i < t->cap; i++)
            if (t->slots[i].key != 0)
                *table_at(&more, t->slots[i].key) = t->slots[i].value;
        free(t->slots);
        *t = more;
    }
    size_t i = (size_t)(key >> 7) & (t->cap - 1);
    while (t->slots[i].key != 0 && t->slots[i].key != key)
        i = (i + 1) & (t->cap - 1);
    if (t->slots[i].key == 0) {
        t->slots[i] = (struct slot){ key, INT64_MIN };
        t->n++;
    }
    return &t->slots[i].value;
}

static void table_reset(struct table *t)
{
    if (t->cap > 4096) {
        free(t->slots);
        *t = (struct table){ 0 };
    } else if (t->n > 0) {
        memset(t->slots, 0, t->cap * sizeof(*t->slots));
        t->n = 0;
    }
}

void servers_begin(void)
{
    v.is_cured = false;
    for (unsigned i = 0; i < SIM_OUTPUTS; i++) {
        table_reset(&v.docs[i]);
        table_reset(&v.newest[i]);
    }
}

void servers_cure(void)
{
    v.is_cured = true;
}

void servers_free(void)
{
    for (unsigned i = 0; i < SIM_OUTPUTS; i++) {
        free(v.docs[i].slots);
        free(v.newest[i].slots);
    }
    free(v.raw);
}

static void raw_need(size_t n)
{
    if (n <= v.raw_cap)
        return;
    v.raw_cap = MAX(n, MAX(v.raw_cap * 2, (size_t)(64 * KIB)));
    v.raw = realloc(v.raw, v.raw_cap);
    if (v.raw == NULL || v.raw_cap > 2 * RAW_MAX)
        abort();
}

/* ---- what every server tells the world ---- */

static struct line *line_in(unsigned slot, struct slice text, uint32_t *ret_uid)
{
    struct line *l = world_line_of(text, ret_uid);
    if (pieces_explain(slot, text))
        return NULL;
    if (l == NULL && !world_may_garble())
        sim_fail("output %u got something that no program wrote: %.*s", slot, (int)MIN(text.len, (size_t)300), text.ptr);
    if (l != NULL && !(l->expects >> slot & 1) && world_may_garble())
        return NULL; /* the rest of a record, without its level or tenant */
    if (l != NULL && !(l->expects >> slot & 1))
        sim_fail("output %u got line %u, which no route sends there", slot, *ret_uid);
    return l;
}

/* ident: equal for the same bytes only. False: it was there already. */
static bool store(unsigned slot, struct line *l, uint32_t uid, uint64_t ident)
{
    const uint8_t bit = (uint8_t)(1u << slot);
    if (l == NULL)
        return true;
    if (!(l->got & bit)) {
        l->got |= bit;
        sim.fresh &= ~(uint32_t)bit;
        l->ident[slot] = ident;
        sim_say("    server %u stores line %u", slot, uid);
        return true;
    }
    if (l->ident[slot] == ident)
        return false;
    l->again |= bit;
    sim_fail("output %u has line %u twice", slot, uid);
    return true;
}

static bool is_tenant(struct slice name)
{
    return slice_find(name, SLICE("t1")) >= 0;
}

/* ---- Elasticsearch ---- */

static bool gunzip(struct slice wire, struct slice *ret)
{
    static struct libdeflate_decompressor *z;
    size_t n = 0;
    if (z == NULL)
        z = libdeflate_alloc_decompressor();
    raw_need(64 * KIB);
    while (wire.len > 0) {
        size_t in, out;
        const enum libdeflate_result r =
            libdeflate_gzip_decompress_ex(z, wire.ptr, wire.len, v.raw + n, v.raw_cap - n, &in, &out);
        if (r == LIBDEFLATE_INSUFFICIENT_SPACE) {
            raw_need(v.raw_cap * 2);
            continue;
        }
        if (r != LIBDEFLATE_SUCCESS)
            return false;
        n += out;
        wire = slice_from(wire, in);
    }
    *ret = slice_of(v.raw, n);
    return true;
}

static struct slice next_line(struct slice *s)
{
    const ptrdiff_t nl = slice_find_byte(*s, '\n');
    const struct slice line = nl < 0 ? *s : slice_first(*s, (size_t)nl);
    *s = slice_from(*s, nl < 0 ? s->len : (size_t)nl + 1);
    return line;
}

static struct slice json_text(struct slice s, struct slice key)
{
    const ptrdiff_t at = slice_find(s, key);
    if (at < 0)
        return SLICE("");
    s = slice_from(s, (size_t)at + key.len);
    const ptrdiff_t end = slice_find_byte(s, '"');
    return end < 0 ? SLICE("") : slice_first(s, (size_t)end);
}

struct bulk {
    unsigned slot;
    enum server_mode mode;
    uint64_t *rng;
    struct buf *out;
    bool has_errors;
    unsigned n;
};

static void say_item(struct bulk *b, unsigned status, const char *type, const char *reason)
{
    if (b->n++ > 0)
        (void)!buf_append_byte(b->out, ',');
    if (type == NULL) {
        (void)!buf_printf(b->out, "{\"create\":{\"status\":%u}}", status);
        return;
    }
    b->has_errors = true;
    (void)!buf_printf(b->out, "{\"create\":{\"status\":%u,\"error\":{\"type\":\"%s\",\"reason\":\"%s\"}}}", status, type,
                      reason);
}

/* Refusals for now; true when it was one. */
static bool refuse_for_now(struct bulk *b, struct slice index)
{
    if (b->mode == MODE_ITEMS_429 && chance(b->rng, 40))
        say_item(b, 429, "es_rejected_execution_exception", "rejected execution");
    else if (b->mode == MODE_ITEMS_503 && chance(b->rng, 40))
        say_item(b, 503, "unavailable_shards_exception", "primary shard is not active");
    else if (b->mode == MODE_TENANT_429 && is_tenant(index))
        say_item(b, 429, "es_rejected_execution_exception", "rejected execution");
    else if (b->mode == MODE_TENANT_401 && is_tenant(index))
        say_item(b, 403, "security_exception", "action is unauthorized for this user");
    else
        return false;
    return true;
}

static void index_one(struct bulk *b, struct slice action, struct slice doc)
{
    const struct slice index = json_text(action, SLICE("\"_index\":\"")), id = json_text(action, SLICE("\"_id\":\""));
    uint32_t uid = 0;
    if (!slice_starts(action, SLICE("{\"create\":{")) || index.len == 0 || id.len == 0) {
        sim_fail("output %u: not a create with index and id: %.*s", b->slot, SLICE_ARGS(action));
        say_item(b, 201, NULL, NULL);
        return;
    }
    if (refuse_for_now(b, index))
        return;
    struct line *l = line_in(b->slot, doc, &uid);
    const uint8_t bit = (uint8_t)(1u << b->slot);
    const bool is_bad = slice_find(doc, SLICE("\"bad\":{")) >= 0 && slice_find(doc, SLICE("\\\"bad\\\"")) < 0;
    if (is_bad && !v.is_cured) {
        say_item(b, 400, "document_parsing_exception", "failed to parse field [bad]");
        return;
    }
    if (l != NULL && l->poison == POISON_ITEM && !v.is_cured) {
        l->refused |= bit;
        say_item(b, 400, "document_parsing_exception", "failed to parse");
        return;
    }
    const uint64_t key = hash_bytes(hash_bytes(1, index.ptr, index.len), id.ptr, id.len);
    int64_t *at = table_at(&v.docs[b->slot], key);
    if (*at != INT64_MIN) {
        if (l != NULL && *at != (int64_t)uid)
            sim_fail("output %u: the _id of line %lld is given to line %u as well", b->slot, (long long)*at, uid);
        say_item(b, 409, "version_conflict_engine_exception", "version conflict, document already exists");
        return;
    }
    *at = l == NULL ? -1 : (int64_t)uid;
    if (l == NULL)
        sim.garbage[b->slot]++;
    (void)store(b->slot, l, uid, key);
    say_item(b, 201, NULL, NULL);
}

/* All of a request is refused, and this is all of it: the agent will give it up. */
static void refuse_alone(unsigned slot, struct slice text)
{
    uint32_t uid;
    struct line *l = world_line_of(text, &uid);
    if (!pieces_explain(slot, text) && l != NULL)
        l->refused |= (uint8_t)(1u << slot);
}

static bool has_whole_poison(unsigned slot, struct slice raw)
{
    if (v.is_cured || slice_find(raw, SLICE("POISON3")) < 0)
        return false;
    struct slice rest = raw, doc = SLICE("");
    unsigned n = 0;
    for (; rest.len > 0; n++) {
        (void)next_line(&rest);
        doc = next_line(&rest);
    }
    if (n == 1)
        refuse_alone(slot, doc);
    return true;
}

static void es_bulk(unsigned slot, struct slice wire, enum server_mode mode, uint64_t *rng, struct reply_out *ret)
{
    struct slice raw;
    struct bulk b = { .slot = slot, .mode = mode, .rng = rng, .out = ret->body };
    ret->type = "application/json";
    if (!gunzip(wire, &raw)) {
        sim_fail("output %u: the body is not gzip", slot);
        ret->status = 400;
        return;
    }
    struct slice rest = raw;
    unsigned docs = 0;
    for (; rest.len > 0; docs++) {
        (void)next_line(&rest);
        (void)next_line(&rest);
    }
    if (mode == MODE_413 && docs > SMALL_REQUEST) {
        ret->status = 413;
        return;
    }
    if (has_whole_poison(slot, raw)) {
        ret->status = 400;
        (void)!buf_append_lit(ret->body, "{\"error\":{\"type\":\"illegal_argument_exception\",\"reason\":\"malformed\"},"
                                         "\"status\":400}");
        return;
    }
    (void)!buf_append_lit(ret->body, "{\"items\":[");
    for (rest = raw; rest.len > 0;) {
        const struct slice action = next_line(&rest), doc = next_line(&rest);
        index_one(&b, action, doc);
    }
    (void)!buf_printf(ret->body, "],\"errors\":%s}", b.has_errors ? "true" : "false");
    ret->status = 200;
    if (mode == MODE_CUT_REPLY)
        ret->body->len /= 2;
}

/* ---- Loki ---- */

/* One field of a protobuf message: number in *ret_field; bytes or varint. False at the end, or when it is none. */
static bool pb_next(struct slice *s, unsigned *ret_field, struct slice *ret_bytes, uint64_t *ret_number)
{
    uint64_t key = 0;
    unsigned shift = 0;
    size_t i = 0;
    for (; i < s->len && shift < 64; shift += 7) {
        const uint8_t c = (uint8_t)s->ptr[i++];
        key |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80)
            break;
    }
    if (i == 0)
        return false;
    uint64_t value = 0;
    for (shift = 0; i < s->len && shift < 64; shift += 7) {
        const uint8_t c = (uint8_t)s->ptr[i++];
        value |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80)
            break;
    }
    *ret_field = (unsigned)(key >> 3);
    *ret_number = value;
    *ret_bytes = SLICE("");
    if ((key & 7) == 2) {
        if (value > s->len - i)
            return false;
        *ret_bytes = slice_of(s->ptr + i, (size_t)value);
        i += (size_t)value;
    }
    *s = slice_from(*s, i);
    return true;
}

struct entry {
    int64_t time_ns;
    struct slice line;
};

static struct entry read_entry(struct slice data)
{
    struct entry e = { 0 };
    unsigned field;
    struct slice bytes, inner;
    uint64_t number;
    while (pb_next(&data, &field, &bytes, &number)) {
        if (field == 2)
            e.line = bytes;
        if (field != 1)
            continue;
        for (inner = bytes; pb_next(&inner, &field, &bytes, &number);)
            e.time_ns += (int64_t)number * (field == 1 ? NS_PER_SEC : 1);
    }
    return e;
}

struct push {
    unsigned slot;
    struct slice tenant;
    struct buf *out;
    bool has_complaint, last_is_behind;
    unsigned n_entries;
    struct line *last_line;
};

static void complain_of_length(struct push *p, struct slice labels, size_t len)
{
    (void)!buf_printf(p->out, "%smax entry size '%d' bytes exceeded for stream '%.*s' while adding an entry with length '%zu' bytes",
                      p->has_complaint ? "; " : "", LOKI_LINE_MAX, SLICE_ARGS(labels), len);
    p->has_complaint = true;
}

static void push_entry(struct push *p, struct slice labels, uint64_t stream, int64_t *newest, struct slice data)
{
    const struct entry e = read_entry(data);
    uint32_t uid = 0;
    struct line *l = line_in(p->slot, e.line, &uid);
    if (e.line.len > LOKI_LINE_MAX && !sim.plan->shape.is_real_size && !v.is_cured) {
        if (l != NULL)
            l->refused |= (uint8_t)(1u << p->slot);
        complain_of_length(p, labels, e.line.len);
        return;
    }
    if (sim.is_traced)
        sim_say("    (stream %.*s tenant %.*s: line %u at %.3f)", SLICE_ARGS(labels), SLICE_ARGS(p->tenant), uid,
                (double)(e.time_ns - INT64_C(1767225600) * NS_PER_SEC) / (double)NS_PER_SEC);
    if (*newest != INT64_MIN && e.time_ns < *newest - LOKI_BEHIND_NS) {
        sim_say("    server %u drops line %u: too far behind", p->slot, uid);
        p->last_is_behind = true; /* and nobody may ever hear of it */
        if (l != NULL && v.is_cured && (l->refused >> p->slot & 1)) {
            /* Refused for good it would be a dead letter, but that could not be written before the agent ended; the server has
             * taken a much newer line of the same batch meanwhile, and has nothing against this one by now. */
            l->refused &= (uint8_t)~(1u << p->slot);
            l->may_miss |= (uint8_t)(1u << p->slot);
            sim.unheard[p->slot]++;
        }
        return;
    }
    *newest = MAX(*newest, e.time_ns);
    const uint64_t ident = hash_bytes(stream, data.ptr, data.len);
    if (l == NULL) {
        int64_t *at = table_at(&v.docs[p->slot], ident);
        sim.garbage[p->slot] += *at == INT64_MIN;
        *at = 0;
    }
    (void)store(p->slot, l, uid, ident);
}

static void push_stream(struct push *p, struct slice data)
{
    struct slice labels = SLICE(""), rest = data, bytes;
    unsigned field;
    uint64_t number;
    while (pb_next(&rest, &field, &bytes, &number))
        if (field == 1)
            labels = bytes;
    const uint64_t stream = hash_bytes(hash_bytes(2, p->tenant.ptr, p->tenant.len), labels.ptr, labels.len);
    p->last_is_behind = false;
    for (rest = data; pb_next(&rest, &field, &bytes, &number);)
        if (field == 2)
            push_entry(p, labels, stream, table_at(&v.newest[p->slot], stream), bytes);
}

/* How many entries, and the last one's line. */
static unsigned count_entries(struct slice raw, struct slice *ret_last)
{
    struct slice stream, entry;
    unsigned field, n = 0;
    uint64_t number;
    while (pb_next(&raw, &field, &stream, &number))
        while (pb_next(&stream, &field, &entry, &number))
            if (field == 2) {
                *ret_last = read_entry(entry).line;
                n++;
            }
    return n;
}

static bool unpack(struct slice wire, struct slice *ret)
{
    size_t len = 0;
    if (snappy_uncompressed_length(wire.ptr, wire.len, &len) != SNAPPY_OK || len > RAW_MAX)
        return false;
    raw_need(len + 1);
    bool is_good = snappy_uncompress(wire.ptr, wire.len, (char *)v.raw, &len) == SNAPPY_OK;
    *ret = slice_of(v.raw, len);
    return is_good;
}

bool server_has_some_of(unsigned slot, struct slice wire)
{
    struct slice raw, stream, entry;
    unsigned field;
    uint64_t number;
    if (sim.plan->shape.servers[slot] != SERVER_LOKI || !unpack(wire, &raw))
        return false;
    while (pb_next(&raw, &field, &stream, &number))
        while (pb_next(&stream, &field, &entry, &number)) {
            uint32_t uid;
            const struct line *l = field == 2 ? world_line_of(read_entry(entry).line, &uid) : NULL;
            if (l != NULL && (l->got >> slot & 1))
                return true;
        }
    return false;
}

static void loki_push(unsigned slot, struct slice tenant, struct slice wire, enum server_mode mode, struct reply_out *ret)
{
    struct slice raw, bytes;
    ret->type = "text/plain";
    if (!unpack(wire, &raw)) {
        sim_fail("output %u: the body is not snappy", slot);
        ret->status = 400;
        return;
    }
    struct slice last = SLICE("");
    const unsigned n = count_entries(raw, &last);
    if (mode == MODE_413 && n > SMALL_REQUEST) {
        ret->status = 413;
        (void)!buf_append_lit(ret->body, "request body too large\n");
        return;
    }
    if (!v.is_cured && slice_find(raw, SLICE("POISON3")) >= 0) {
        ret->status = 400;
        (void)!buf_append_lit(ret->body, "couldn't parse push request\n");
        if (n == 1)
            refuse_alone(slot, last);
        return;
    }
    struct push p = { .slot = slot, .tenant = tenant, .out = ret->body };
    unsigned field;
    uint64_t number;
    while (pb_next(&raw, &field, &bytes, &number))
        push_stream(&p, bytes);
    ret->status = p.has_complaint ? 400 : 204;
}

/* ---- both ---- */

/* Answers that have nothing to do with what was sent. True: that was it. */
static bool whole_answer(enum server_kind kind, struct slice tenant, enum server_mode mode, uint64_t *rng, struct reply_out *ret)
{
    const bool is_loki = kind == SERVER_LOKI;
    switch (mode) {
    case MODE_503:
        ret->status = 503;
        break;
    case MODE_429:
        ret->status = 429;
        if (chance(rng, 50))
            ret->retry_after_ns = (1 + (int64_t)rnd(rng, 20)) * NS_PER_SEC;
        break;
    case MODE_401:
        ret->status = 401;
        break;
    case MODE_404:
        ret->status = 404;
        break;
    case MODE_REDIRECT:
        ret->status = 302;
        break;
    case MODE_260:
        ret->status = is_loki ? 260 : 202;
        break;
    case MODE_PROXY:
        ret->status = 200;
        ret->type = "text/html";
        (void)!buf_append_lit(ret->body, "<html>welcome</html>");
        break;
    case MODE_ITEMS_429:
    case MODE_TENANT_429:
        if (!is_loki || (mode == MODE_TENANT_429 && !is_tenant(tenant)))
            return false;
        ret->status = 429;
        break;
    case MODE_ITEMS_503:
        if (!is_loki)
            return false;
        ret->status = 500;
        break;
    case MODE_TENANT_401:
        if (!is_loki || !is_tenant(tenant))
            return false;
        ret->status = 401;
        break;
    default:
        return false;
    }
    return true;
}

void server_push(unsigned slot, struct slice url, struct slice tenant, struct slice wire, enum server_mode mode,
                 uint64_t *rng, struct reply_out *ret)
{
    const enum server_kind kind = sim.plan->shape.servers[slot];
    if (whole_answer(kind, tenant, mode, rng, ret))
        return;
    if (kind == SERVER_LOKI) {
        loki_push(slot, tenant, wire, mode, ret);
    } else if (slice_find(url, SLICE("/_bulk")) >= 0) {
        es_bulk(slot, wire, mode, rng, ret);
    } else { /* the index template */
        ret->status = 200;
        ret->type = "application/json";
        (void)!buf_append_lit(ret->body, "{\"acknowledged\":true}");
    }
}
