#include "outputs/enrich.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/stats.h"

/* Prebuilt members per (origin, tenant), direct-mapped: two that meet in one slot only rebuild each other. */
#define CACHE_SLOTS 1024
/* All prebuilt members together; beyond it the cache starts anew. */
#define CACHE_BYTES_MAX (1 * MIB)
/* The members of one record; a constant that would pass it is left out. */
#define MEMBERS_MAX (256 * KIB)
/* A longer new name makes the line text. */
#define RENAMED_MAX 512
/* original_KEY, original_2_KEY … : with all of these taken the line becomes text. */
#define RENAME_TRIES 9

enum field {
    FIELD_POD,
    FIELD_NAMESPACE,
    FIELD_TENANT,
    FIELD_CONTAINER,
    FIELD_NODE,
    FIELD_SERVICE,
    FIELD_HOST,
    FIELD_CLUSTER,
    FIELD_SEVERITY,
    FIELD_COUNT
};

static const struct slice field_names[][FIELD_COUNT] = {
    [ENRICH_PLAIN] = { SLICE_INIT("pod"), SLICE_INIT("namespace"), SLICE_INIT("tenant"),
                       SLICE_INIT("container_name"), SLICE_INIT("node_name"), SLICE_INIT("service_name"),
                       SLICE_INIT("host_name"), SLICE_INIT("cluster"), SLICE_INIT("severity") },
    [ENRICH_ECS] = { SLICE_INIT("kubernetes.pod.name"), SLICE_INIT("kubernetes.namespace"),
                     SLICE_INIT("organization.id"), SLICE_INIT("container.name"),
                     SLICE_INIT("kubernetes.node.name"), SLICE_INIT("service.name"), SLICE_INIT("host.name"),
                     SLICE_INIT("orchestrator.cluster.name"), SLICE_INIT("log.level") },
};

struct cached {
    bool is_used;
    uint64_t origin_id;
    uint32_t tenant_id;
    struct buf members; /* ,"name":"value"… without the severity */
};

struct renamed {
    size_t len; /* 0 = keeps its name */
    char name[RENAMED_MAX];
};

struct enricher {
    const struct slice *fields; /* row of field_names */
    struct slice *names;        /* fields, then extras: what the scanner looks for */
    size_t n_names;
    struct cached *cache;
    size_t cached_bytes;
    struct renamed renamed[SUSPECT_KEYS_MAX]; /* of the line at hand */
    struct slice kept[SUSPECT_KEYS_MAX];      /* our names that the payload has with our value */
    size_t n_kept;
    struct buf severity[LEVEL_OFF]; /* the member for each level */
};

/* A line at hand and what is added to it. */
struct splice {
    struct enricher *e;
    const struct record *rec;
    const struct enrich_extra *extras;
    size_t n_extras;
};

/* ,"name":"value" — nothing for an empty value. */
static int append_member(struct buf *out, struct slice name, struct slice value)
{
    if (value.len == 0)
        return 0;
    size_t len_before = out->len;
    int r = buf_append_byte(out, ',');
    if (r == 0)
        r = buf_append_json_string(out, name);
    if (r == 0)
        r = buf_append_byte(out, ':');
    if (r == 0)
        r = buf_append_json_string(out, value);
    if (r < 0)
        out->len = len_before;
    return r;
}

int enricher_new(enum enrich_style style, const struct slice *extra_names, size_t n_extra_names,
                 struct enricher **ret_enricher)
{
    struct enricher *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->fields = field_names[style];
    e->n_names = FIELD_COUNT + n_extra_names;
    e->names = calloc(e->n_names, sizeof(*e->names));
    e->cache = calloc(CACHE_SLOTS, sizeof(*e->cache));
    if (e->names == NULL || e->cache == NULL) {
        enricher_free(e);
        return -ENOMEM;
    }
    memcpy(e->names, e->fields, FIELD_COUNT * sizeof(*e->names));
    if (n_extra_names > 0)
        memcpy(e->names + FIELD_COUNT, extra_names, n_extra_names * sizeof(*e->names));
    int r = 0;
    for (int level = 0; level < LEVEL_OFF; level++) {
        buf_init(&e->severity[level], 64);
        if (r == 0)
            r = append_member(&e->severity[level], e->fields[FIELD_SEVERITY], level_name((enum level)level));
    }
    if (r < 0) {
        enricher_free(e);
        return r;
    }
    *ret_enricher = e;
    return 0;
}

static void cache_clear(struct enricher *e)
{
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        buf_deinit(&e->cache[i].members);
        e->cache[i].is_used = false;
    }
    e->cached_bytes = 0;
}

void enricher_free(struct enricher *e)
{
    if (e == NULL)
        return;
    if (e->cache != NULL)
        cache_clear(e);
    for (int level = 0; level < LEVEL_OFF; level++)
        buf_deinit(&e->severity[level]);
    free(e->cache);
    free(e->names);
    free(e);
}

const struct slice *enricher_names(const struct enricher *e, size_t *ret_n)
{
    *ret_n = e->n_names;
    return e->names;
}

/* ---- names as dotted paths ---- */

static bool path_extends(struct slice longer, struct slice shorter)
{
    return longer.len > shorter.len && longer.ptr[shorter.len] == '.' && slice_starts(longer, shorter);
}

static bool paths_clash(struct slice a, struct slice b)
{
    return slice_eq(a, b) || path_extends(a, b) || path_extends(b, a);
}

/* ---- our members ---- */

static struct slice field_value(const struct record *rec, enum field f)
{
    const struct origin *o = rec->origin;
    switch (f) {
    case FIELD_POD:
        return o->pod;
    case FIELD_NAMESPACE:
        return o->namespace_;
    case FIELD_TENANT:
        return rec->tenant;
    case FIELD_CONTAINER:
        return o->container;
    case FIELD_NODE:
        return o->node;
    case FIELD_SERVICE:
        return o->service;
    case FIELD_HOST:
        return o->host;
    case FIELD_CLUSTER:
        return o->cluster;
    case FIELD_SEVERITY:
        return level_name(rec->level);
    case FIELD_COUNT:
        break;
    }
    return (struct slice){ "", 0 };
}

/* A constant is ours to add unless its name is spoken for. */
static bool constant_counts(const struct enricher *e, struct pairs constants, size_t i)
{
    struct slice name = constants.items[i].name;
    if (name.len == 0 || constants.items[i].value.len == 0 || paths_clash(name, SLICE("message")))
        return false;
    for (size_t k = 0; k < e->n_names; k++)
        if (paths_clash(name, e->names[k]))
            return false;
    for (size_t k = 0; k < i; k++)
        if (paths_clash(name, constants.items[k].name))
            return false;
    return true;
}

static bool is_kept(const struct enricher *e, struct slice name)
{
    for (size_t i = 0; i < e->n_kept; i++)
        if (slice_eq(e->kept[i], name))
            return true;
    return false;
}

/* All members that are the same for each line of this origin and tenant, but those in e->kept. */
static int build_members(const struct enricher *e, const struct record *rec, struct buf *out)
{
    for (int f = 0; f < FIELD_SEVERITY; f++) {
        if (is_kept(e, e->fields[f]))
            continue;
        int r = append_member(out, e->fields[f], field_value(rec, (enum field)f));
        if (r < 0)
            return r;
    }
    struct pairs constants = rec->origin->fields;
    for (size_t i = 0; i < constants.n; i++) {
        if (!constant_counts(e, constants, i) || is_kept(e, constants.items[i].name))
            continue;
        int r = append_member(out, constants.items[i].name, constants.items[i].value);
        if (r < 0)
            return r;
    }
    return 0;
}

static struct cached *cache_slot(struct enricher *e, const struct record *rec)
{
    uint64_t h =
        rec->origin->id * UINT64_C(0x9e3779b97f4a7c15) ^ rec->tenant_id * UINT64_C(0xc2b2ae3d27d4eb4f);
    return &e->cache[(h ^ h >> 32) % CACHE_SLOTS];
}

static int cache_fill(struct enricher *e, struct cached *c, const struct record *rec)
{
    c->is_used = false;
    e->cached_bytes -= c->members.cap;
    if (c->members.max == 0)
        buf_init_in(&c->members, MEMBERS_MAX, ACCOUNT_OF(MEMORY_STREAMS));
    buf_reset(&c->members);
    int r = build_members(e, rec, &c->members);
    e->cached_bytes += c->members.cap;
    if (r < 0 && r != -ENOBUFS) /* what passes MEMBERS_MAX stays out, the rest is whole */
        return r;
    c->origin_id = rec->origin->id;
    c->tenant_id = rec->tenant_id;
    c->is_used = true;
    return 0;
}

static int append_cached(struct enricher *e, const struct record *rec, struct buf *out)
{
    struct cached *c = cache_slot(e, rec);
    if (!c->is_used || c->origin_id != rec->origin->id || c->tenant_id != rec->tenant_id) {
        if (e->cached_bytes > CACHE_BYTES_MAX)
            cache_clear(e);
        int r = cache_fill(e, c, rec);
        if (r < 0)
            return r;
    }
    return buf_append_slice(out, buf_slice(&c->members));
}

static int append_ours(struct enricher *e, const struct record *rec, struct buf *out)
{
    int r = e->n_kept == 0 ? append_cached(e, rec, out) : build_members(e, rec, out);
    if (r == 0 && !is_kept(e, e->fields[FIELD_SEVERITY]))
        r = buf_append_slice(out, buf_slice(&e->severity[rec->level]));
    return r;
}

int enrich_append_members(struct enricher *e, const struct record *rec, struct buf *out)
{
    size_t len_before = out->len;
    e->n_kept = 0;
    int r = append_ours(e, rec, out);
    if (r < 0)
        out->len = len_before;
    return r;
}

static int append_extras(const struct splice *s, struct buf *out)
{
    for (size_t i = 0; i < s->n_extras; i++) {
        if (is_kept(s->e, s->extras[i].name))
            continue;
        int r = buf_append_byte(out, ',');
        if (r == 0)
            r = buf_append_json_string(out, s->extras[i].name);
        if (r == 0)
            r = buf_append_byte(out, ':');
        if (r == 0)
            r = buf_append_slice(out, s->extras[i].json);
        if (r < 0)
            return r;
    }
    return 0;
}

static int append_tail(const struct splice *s, struct buf *out)
{
    int r = append_ours(s->e, s->rec, out);
    if (r == 0)
        r = append_extras(s, out);
    if (r == 0)
        r = buf_append_byte(out, '}');
    return r;
}

/* ---- is a name taken? Only for lines that have a clash. ---- */

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

#define KEY_BYTE_WIDE 0xff /* is in no valid UTF-8 */

/* The next decoded byte of a key; KEY_BYTE_WIDE for what \u says beyond ASCII. */
static unsigned char key_byte(struct slice raw, size_t *at)
{
    unsigned char c = (unsigned char)raw.ptr[(*at)++];
    if (c != '\\' || *at >= raw.len)
        return c;
    c = (unsigned char)raw.ptr[(*at)++];
    if (c != 'u' || raw.len - *at < 4)
        return c; /* \" \\ \/ ; the other short escapes are no part of any name either way */
    int v = hex4(raw.ptr + *at);
    *at += 4;
    return v >= 0 && v < 0x80 ? (unsigned char)v : KEY_BYTE_WIDE;
}

/* paths_clash of an escaped key with a name, without storing the decoded key. In doubt true: another name is
 * tried. */
static bool raw_key_clashes(struct slice raw, struct slice name)
{
    size_t at = 0, n = 0;
    while (at < raw.len && n < name.len) {
        unsigned char c = key_byte(raw, &at);
        if (c == KEY_BYTE_WIDE)
            return true;
        if (c != (unsigned char)name.ptr[n])
            return false;
        n++;
    }
    if (n < name.len)
        return n > 0 && name.ptr[n] == '.'; /* the key ended first */
    return at == raw.len || key_byte(raw, &at) == '.';
}

/* One behind the string's closing quote; i is at the opening one. */
static size_t string_end(struct slice s, size_t i)
{
    for (i++; i < s.len && s.ptr[i] != '"'; i++)
        if (s.ptr[i] == '\\')
            i++;
    return MIN(i + 1, s.len);
}

/* Does a top-level key of this object clash with name? The line was accepted by the scanner. */
static bool line_has_key(struct slice line, struct slice name)
{
    size_t depth = 0;
    bool wants_key = false;
    for (size_t i = 0; i < line.len;) {
        char c = line.ptr[i];
        if (c == '"') {
            size_t end = string_end(line, i);
            if (wants_key && end - i >= 2 && raw_key_clashes(slice_of(line.ptr + i + 1, end - i - 2), name))
                return true;
            wants_key = false;
            i = end;
            continue;
        }
        if (c == '{' || c == '[')
            wants_key = ++depth == 1;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        else if (c == ',')
            wants_key = depth == 1;
        i++;
    }
    return false;
}

/* ---- clashes ---- */

/* Calls each name that this record's payload may not use; stops at the first true. */
static bool any_reserved(const struct splice *s,
                         bool (*test)(void *ctx, struct slice name, struct slice value), void *ctx)
{
    const struct enricher *e = s->e;
    for (int f = 0; f < FIELD_COUNT; f++) {
        struct slice value = field_value(s->rec, (enum field)f);
        if (f == FIELD_CLUSTER && value.len == 0)
            continue;
        if (test(ctx, e->fields[f], value))
            return true;
    }
    struct pairs constants = s->rec->origin->fields;
    for (size_t i = 0; i < constants.n; i++)
        if (constant_counts(e, constants, i) && test(ctx, constants.items[i].name, constants.items[i].value))
            return true;
    for (size_t i = 0; i < s->n_extras; i++)
        if (test(ctx, s->extras[i].name, (struct slice){ NULL, 0 }))
            return true;
    return false;
}

struct clash {
    const struct splice *s;
    const struct suspect *suspect;
    struct slice equal_name; /* ptr NULL = none */
};

static bool extra_is_equal(const struct clash *c, struct slice name)
{
    struct slice raw = slice_of(c->s->rec->line.ptr + c->suspect->value_start,
                                c->suspect->value_end - c->suspect->value_start);
    for (size_t i = 0; i < c->s->n_extras; i++)
        if (slice_eq(c->s->extras[i].name, name))
            return slice_eq(c->s->extras[i].json, raw);
    return false;
}

/* True = must be renamed. */
static bool suspect_clashes(void *ctx, struct slice name, struct slice value)
{
    struct clash *c = ctx;
    const struct suspect *su = c->suspect;
    if (!paths_clash(su->key, name))
        return false;
    bool is_equal = slice_eq(su->key, name) && !is_kept(c->s->e, name) &&
                    (value.ptr == NULL ? extra_is_equal(c, name)
                                       : value.len > 0 && su->value.kind == VALUE_STRING &&
                                             slice_eq(su->value.text, value));
    if (!is_equal)
        return true;
    c->equal_name = name;
    return false;
}

static bool name_clashes(void *ctx, struct slice name, struct slice value)
{
    (void)value;
    const struct slice *candidate = ctx;
    return paths_clash(*candidate, name);
}

static bool is_free(const struct splice *s, struct slice candidate)
{
    for (size_t i = 0; i < s->rec->n_suspects; i++) {
        const struct renamed *rn = &s->e->renamed[i];
        if (rn->len > 0 && paths_clash(slice_of(rn->name, rn->len), candidate))
            return false;
    }
    if (any_reserved(s, name_clashes, &candidate))
        return false;
    /* Without these bytes no key can begin with original_, however it is written. */
    struct slice line = s->rec->line;
    if (slice_find(line, SLICE("original_")) < 0 && slice_find(line, SLICE("\\u")) < 0)
        return true;
    return !line_has_key(line, candidate);
}

/* Finds "original_KEY", "original_2_KEY" … for suspect i. */
static bool find_name(const struct splice *s, size_t i)
{
    struct slice key = s->rec->suspects[i].key;
    char name[RENAMED_MAX];
    size_t prefix_len = sizeof("original_") - 1;
    if (key.len > RENAMED_MAX - prefix_len - 2)
        return false;
    for (int try = 1; try <= RENAME_TRIES; try++) {
        size_t len = prefix_len;
        memcpy(name, "original_", len);
        if (try > 1) {
            name[len++] = (char)('0' + try);
            name[len++] = '_';
        }
        if (key.len > 0)
            memcpy(name + len, key.ptr, key.len);
        len += key.len;
        if (is_free(s, slice_of(name, len))) {
            memcpy(s->e->renamed[i].name, name, len);
            s->e->renamed[i].len = len;
            return true;
        }
    }
    return false;
}

/* Fills e->renamed and e->kept. The number of renamed keys, or -1: no name is free. */
static int settle_clashes(const struct splice *s)
{
    struct enricher *e = s->e;
    int n_renamed = 0;
    for (size_t i = 0; i < s->rec->n_suspects; i++)
        e->renamed[i].len = 0;
    for (size_t i = 0; i < s->rec->n_suspects; i++) {
        struct clash c = { s, &s->rec->suspects[i], { NULL, 0 } };
        if (any_reserved(s, suspect_clashes, &c)) {
            if (!find_name(s, i))
                return -1;
            n_renamed++;
        } else if (c.equal_name.ptr != NULL) {
            e->kept[e->n_kept++] = c.equal_name;
        }
    }
    return n_renamed;
}

/* ---- the object ---- */

/* Bytes of the payload. A joined record may hold newlines between its tokens; in a document they are blanks.
 */
static int append_payload(struct buf *out, const char *ptr, size_t len)
{
    size_t start = out->len;
    int r = buf_append(out, ptr, len);
    if (r < 0)
        return r;
    char *nl = out->ptr + start, *end = out->ptr + out->len;
    while (nl < end && (nl = memchr(nl, '\n', (size_t)(end - nl))) != NULL)
        *nl++ = ' ';
    return 0;
}

/* The key keeps its own spelling: only the prefix is put in behind its quote. */
static int append_renamed(struct buf *out, const struct record *rec, const struct suspect *su,
                          const struct renamed *rn)
{
    int r = buf_append_byte(out, '"');
    if (r == 0)
        r = buf_append(out, rn->name, rn->len - su->key.len);
    if (r == 0)
        r = buf_append(out, rec->line.ptr + su->key_start + 1, su->key_end - su->key_start - 1);
    return r;
}

/* The line from its brace up to end, with the new names. */
static int append_head(const struct splice *s, size_t start, size_t end, int n_renamed, struct buf *out)
{
    const char *line = s->rec->line.ptr;
    if (n_renamed == 0)
        return append_payload(out, line + start, end - start);
    size_t at = start;
    for (size_t i = 0; i < s->rec->n_suspects; i++) {
        const struct suspect *su = &s->rec->suspects[i];
        const struct renamed *rn = &s->e->renamed[i];
        if (rn->len == 0)
            continue;
        assert(su->key_start >= at && su->key_end <= end && su->key_end - su->key_start >= 2);
        int r = append_payload(out, line + at, su->key_start - at);
        if (r == 0)
            r = append_renamed(out, s->rec, su, rn);
        if (r < 0)
            return r;
        at = su->key_end;
    }
    return append_payload(out, line + at, end - at);
}

int enrich_append_message(const struct record *rec, struct buf *out)
{
    size_t len_before = out->len;
    int r = buf_append_lit(out, "{\"message\":");
    if (r == 0)
        r = buf_append_json_string(out, rec->line);
    if (r < 0)
        out->len = len_before;
    return r;
}

static int append_text(const struct splice *s, struct buf *out)
{
    s->e->n_kept = 0;
    int r = enrich_append_message(s->rec, out);
    return r < 0 ? r : append_tail(s, out);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Where the object begins and its content ends; false when the line is no object after all. */
static bool find_braces(struct slice line, size_t *ret_start, size_t *ret_end)
{
    size_t start = 0, end = line.len;
    while (start < end && is_blank(line.ptr[start]))
        start++;
    while (end > start && is_blank(line.ptr[end - 1]))
        end--;
    if (end - start < 2 || line.ptr[start] != '{' || line.ptr[end - 1] != '}')
        return false;
    *ret_start = start;
    *ret_end = end - 1;
    return true;
}

static bool is_empty_object(struct slice line, size_t start, size_t end)
{
    while (end > start + 1 && is_blank(line.ptr[end - 1]))
        end--;
    return end == start + 1;
}

static int append_object(const struct splice *s, size_t start, size_t end, int n_renamed, struct buf *out)
{
    int r = append_head(s, start, end, n_renamed, out);
    if (r < 0)
        return r;
    size_t comma = out->len;
    r = append_tail(s, out);
    if (r < 0 || !is_empty_object(s->rec->line, start, end) || out->ptr[comma] != ',')
        return r;
    memmove(out->ptr + comma, out->ptr + comma + 1, out->len - comma - 1);
    out->len--;
    return 0;
}

int enrich_append(struct enricher *e, const struct record *rec, unsigned flags,
                  const struct enrich_extra *extras, size_t n_extras, struct buf *out, uint32_t *altered)
{
    assert(rec->origin != NULL && rec->n_suspects <= SUSPECT_KEYS_MAX);
    struct splice s = { e, rec, extras, n_extras };
    size_t len_before = out->len, start = 0, end = 0;
    int r, n_renamed = 0;
    e->n_kept = 0;

    bool is_json = rec->kind == RECORD_JSON && find_braces(rec->line, &start, &end);
    bool has_conflict =
        is_json && ((rec->flags & RECORD_MANY_SUSPECTS) != 0 ||
                    ((flags & ENRICH_NO_DUPLICATES) != 0 && (rec->flags & RECORD_DUPLICATE_KEYS) != 0));
    if (is_json && !has_conflict && (flags & ENRICH_AS_TEXT) == 0 && rec->n_suspects > 0) {
        n_renamed = settle_clashes(&s);
        has_conflict = n_renamed < 0;
    }
    if (!is_json || has_conflict || (flags & ENRICH_AS_TEXT) != 0)
        r = append_text(&s, out);
    else
        r = append_object(&s, start, end, n_renamed, out);
    if (r < 0) {
        out->len = len_before;
        return r;
    }
    if (has_conflict || n_renamed > 0)
        *altered |= 1u << ALTER_KEY_CONFLICT;
    return 0;
}
