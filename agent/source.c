#include "agent/source.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/arena.h"
#include "agent/base/pool.h"
#include "agent/kube/pods.h"

#define ORIGIN_BYTES_MAX (256 * KIB)

/* A file at rest has neither source nor origin (tail.h: fed_to), so whole pages of them go. */
static struct pool pool = POOL_INIT(ACCOUNT_OF(MEMORY_FILES));

static struct slice last_part(struct slice path)
{
    ptrdiff_t slash = slice_rfind_byte(path, '/');
    return slice_from(path, (size_t)(slash + 1));
}

static bool is_date_or_number(struct slice s)
{
    size_t digits = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= '0' && s.ptr[i] <= '9')
            digits++;
        else if (s.ptr[i] != '-' && s.ptr[i] != '_')
            return false;
    }
    return digits > 0;
}

/* "api.log" -> "api", "api-2026-11-21.log" -> "api", "api.log.1" -> "api", "syslog" -> "syslog". */
static struct slice stem_of(struct slice path)
{
    struct slice name = last_part(path);
    static const struct slice ends[] = { SLICE_INIT(".gz"), SLICE_INIT(".log"), SLICE_INIT(".json"),
                                         SLICE_INIT(".ndjson"), SLICE_INIT(".txt") };
    for (size_t before = 0; before != name.len;) { /* "api.log.1.gz" has an ending behind a number behind an ending */
        before = name.len;
        for (size_t i = 0; i < ARRAY_LEN(ends); i++)
            if (name.len > ends[i].len && slice_ends(name, ends[i]))
                name.len -= ends[i].len;
        for (size_t i = name.len; i-- > 1;) {
            if (name.ptr[i] != '.' && name.ptr[i] != '-' && name.ptr[i] != '_')
                continue;
            if (is_date_or_number(slice_from(name, i + 1)))
                name.len = i;
        }
    }
    return name;
}

/* The folder below /var/log that holds the file, else the file's stem: what a VM's services are told apart by. */
static struct slice vm_service(struct slice path)
{
    static const struct slice root = SLICE_INIT("/var/log/");
    if (slice_starts(path, root)) {
        struct slice rest = slice_from(path, root.len);
        ptrdiff_t slash = slice_find_byte(rest, '/');
        if (slash > 0)
            return slice_first(rest, (size_t)slash);
    }
    return stem_of(path);
}

/* app.kubernetes.io/name, app, the owner, the container: what a pod's lines go by. */
static struct slice pod_service(const struct origin *o)
{
    static const struct slice labels[] = { SLICE_INIT("app.kubernetes.io/name"), SLICE_INIT("app") };
    for (size_t i = 0; i < ARRAY_LEN(labels); i++)
        if (pairs_get(o->labels, labels[i]).len > 0)
            return pairs_get(o->labels, labels[i]);
    return o->workload.len > 0 ? o->workload : o->container;
}

static void set_from_pod(struct origin *o, const struct metadata *m, uint32_t annotations)
{
    if (m != NULL && m->pod != NULL) {
        o->labels = m->pod->labels;
        o->annotations = m->pod->annotations;
        o->image = pairs_get(m->pod->images, o->container);
        if (m->pod->workload.len > 0) {
            o->workload = m->pod->workload;
            o->workload_kind = m->pod->workload_kind;
        }
        o->service = annotations_choose(m->pod, o->container, annotations).service;
    }
    if (m != NULL && m->namespace_ != NULL)
        o->namespace_labels = m->namespace_->labels;
    if (o->service.len == 0)
        o->service = pod_service(o);
}

static void set_from_container(struct origin *o, const struct pod *c)
{
    o->container = c->name;
    o->uid = c->uid;
    o->namespace_ = c->namespace_;
    o->workload = c->workload;
    o->labels = c->labels;
    o->image = pairs_get(c->images, c->name);
    o->service = pod_service(o);
}

static void set_from_path(struct origin *o, const struct conf_input *input, const struct metadata *m)
{
    struct pod_path p;
    o->file_stem = stem_of(o->file);
    if (input->type == INPUT_KUBERNETES && pod_path_parse(o->file, &p)) {
        o->namespace_ = p.namespace_;
        o->pod = p.pod;
        o->uid = p.uid;
        o->container = p.container;
        o->workload = pod_workload(p.pod);
        set_from_pod(o, m, input->annotations);
    } else if (input->type == INPUT_DOCKER && m != NULL && m->pod != NULL) {
        set_from_container(o, m->pod);
    } else {
        o->service = vm_service(o->file);
    }
}

/* The member that a name in `fields` sets, or NULL when it is a constant of the user's own. */
static struct slice *member_of(struct origin *o, struct slice name)
{
    const struct {
        struct slice name;
        struct slice *member;
    } members[] = { { SLICE("pod"), &o->pod },           { SLICE("namespace"), &o->namespace_ },
                    { SLICE("container"), &o->container }, { SLICE("service"), &o->service },
                    { SLICE("node"), &o->node },         { SLICE("host"), &o->host },
                    { SLICE("workload"), &o->workload }, { SLICE("cluster"), &o->cluster },
                    { SLICE("uid"), &o->uid } };
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        if (slice_eq(members[i].name, name))
            return members[i].member;
    return NULL;
}

/* The input's fields in order: each may use the path's and those before it. */
static int set_fields(struct origin *o, const struct conf *conf, const struct conf_input *input, struct arena *a)
{
    size_t n = 0, max = conf->fields.n + input->fields.n;
    struct pair *own = arena_alloc(a, MAX(max, (size_t)1) * sizeof(*own));
    struct record rec = { .origin = o };
    if (own == NULL)
        return -1;
    for (size_t i = 0; i < conf->fields.n; i++)
        if (member_of(o, conf->fields.items[i].name) == NULL)
            own[n++] = conf->fields.items[i];
    o->fields = (struct pairs){ own, n };
    for (size_t i = 0; i < input->fields.n; i++) {
        struct buf value;
        buf_init(&value, TEMPLATE_OUT_MAX + 64);
        int r = template_eval(input->fields.items[i].template, &rec, &value);
        struct slice copy = arena_copy(a, buf_slice(&value));
        buf_deinit(&value);
        struct slice *member = member_of(o, input->fields.items[i].name);
        if (r < 0 || copy.ptr == NULL)
            return -1;
        if (member != NULL)
            *member = copy;
        else
            own[n++] = (struct pair){ input->fields.items[i].name, copy };
        o->fields.n = n;
    }
    return 0;
}

/* ---- one block for the whole origin: ten thousand of them must stay small ---- */

static const size_t text_offsets[] = {
    offsetof(struct origin, file),      offsetof(struct origin, file_stem), offsetof(struct origin, host),
    offsetof(struct origin, node),      offsetof(struct origin, cluster),   offsetof(struct origin, pod),
    offsetof(struct origin, uid),       offsetof(struct origin, namespace_), offsetof(struct origin, container),
    offsetof(struct origin, workload),  offsetof(struct origin, service),   offsetof(struct origin, input),
    offsetof(struct origin, image),     offsetof(struct origin, workload_kind),
};
static const size_t pairs_offsets[] = { offsetof(struct origin, path), offsetof(struct origin, fields) };

static struct slice *text_at(struct origin *o, size_t i)
{
    return (struct slice *)(void *)((char *)o + text_offsets[i]);
}

static struct pairs *pairs_at(struct origin *o, size_t i)
{
    return (struct pairs *)(void *)((char *)o + pairs_offsets[i]);
}

static size_t size_of(struct origin *o)
{
    size_t size = sizeof(*o);
    for (size_t i = 0; i < ARRAY_LEN(text_offsets); i++)
        size += text_at(o, i)->len;
    for (size_t i = 0; i < ARRAY_LEN(pairs_offsets); i++) {
        struct pairs *p = pairs_at(o, i);
        size += p->n * sizeof(struct pair);
        for (size_t k = 0; k < p->n; k++)
            size += p->items[k].name.len + p->items[k].value.len;
    }
    return size;
}

static struct slice move_text(char **at, struct slice s)
{
    char *p = *at;
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    *at += s.len;
    return slice_of(p, s.len);
}

static struct origin *pack(struct origin *o)
{
    struct origin *packed = pool_alloc(&pool, size_of(o));
    if (packed == NULL)
        return NULL;
    *packed = *o;
    char *at = (char *)(packed + 1);
    for (size_t i = 0; i < ARRAY_LEN(pairs_offsets); i++) { /* pairs first: they need the alignment */
        struct pairs *p = pairs_at(packed, i);
        struct pair *items = (struct pair *)(void *)at;
        if (p->n > 0)
            memcpy(items, p->items, p->n * sizeof(*items));
        at += p->n * sizeof(*items);
        p->items = items;
    }
    for (size_t i = 0; i < ARRAY_LEN(text_offsets); i++)
        *text_at(packed, i) = move_text(&at, *text_at(packed, i));
    for (size_t i = 0; i < ARRAY_LEN(pairs_offsets); i++) {
        struct pair *items = (struct pair *)(uintptr_t)pairs_at(packed, i)->items;
        for (size_t k = 0; k < pairs_at(packed, i)->n; k++) {
            items[k].name = move_text(&at, items[k].name);
            items[k].value = move_text(&at, items[k].value);
        }
    }
    return packed;
}

struct origin *origin_new(const struct conf *conf, uint32_t input_index, struct slice path, struct pairs captures,
                          const struct metadata *m)
{
    static _Atomic uint64_t last_id;
    const struct conf_input *input = &conf->inputs[input_index];
    struct arena arena;
    arena_init(&arena, ORIGIN_BYTES_MAX);
    struct origin o = { .id = atomic_fetch_add(&last_id, 1) + 1,
                        .input_index = input_index,
                        .input = input->name,
                        .file = path,
                        .host = conf->host,
                        .node = conf->node,
                        .cluster = conf->cluster,
                        .path = captures };
    set_from_path(&o, input, m);
    struct origin *packed = set_fields(&o, conf, input, &arena) < 0 ? NULL : pack(&o);
    arena_deinit(&arena);
    return packed;
}

void origin_free(struct origin *o)
{
    pool_free(&pool, o);
}

static void resolve_overrides(struct source *s, const struct record *rec)
{
    for (size_t i = 0; i < s->input->n_overrides; i++) { /* later ones win */
        const struct conf_override *over = &s->input->overrides[i];
        if (!match_is_static(over->match)) {
            s->has_dynamic_overrides |= over->levels != NULL;
            continue;
        }
        if (!match_eval(over->match, rec))
            continue;
        if (over->levels != NULL)
            s->levels = over->levels;
        if (over->tenant != NULL)
            s->tenant = over->tenant;
    }
}

static void resolve_routes(struct source *s, const struct conf *conf, const struct record *rec)
{
    for (size_t i = 0; i < conf->n_routes; i++) {
        const struct match *m = conf->routes[i].match;
        if (m == NULL || !match_is_static(m) || match_eval(m, rec))
            s->routes[i / 64] |= UINT64_C(1) << (i % 64);
    }
}

/* All that does not change from line to line, of the origin that it has now. */
static void decide(struct source *s, const struct conf *conf)
{
    struct record rec = { .origin = s->origin };
    s->levels = s->input->levels;
    s->tenant = s->input->tenant;
    s->has_dynamic_overrides = false;
    s->static_tenant = 0;
    memset(s->routes, 0, sizeof(s->routes));
    resolve_overrides(s, &rec);
    resolve_routes(s, conf, &rec);
    if (s->metadata.levels != NULL) {
        s->levels = s->metadata.levels;
        s->has_dynamic_overrides = false;
    }
}

struct source *source_new(const struct conf *conf, struct kube *k, struct tail_file *f, const struct tail_file_info *info)
{
    struct source *s = pool_alloc(&pool, sizeof(*s));
    if (s == NULL)
        return NULL;
    *s = (struct source){ .input_index = info->input_index };
    s->input = &conf->inputs[info->input_index];
    s->incarnation = info->ident->incarnation;
    s->file = f;
    for (size_t i = 0; i < STREAMS_MAX; i++)
        s->first_off[i] = UINT64_MAX;
    metadata_init(&s->metadata, conf, info->input_index, k, info->ident->path);
    s->origin = origin_new(conf, info->input_index, info->ident->path, info->captures, &s->metadata);
    if (s->origin == NULL) {
        source_free(s);
        return NULL;
    }
    metadata_choose(&s->metadata, s->input, s->origin);
    decide(s, conf);
    return s;
}

/* Origin and decisions out of what is known by now. before_take, ns_before_take: what the origin was made of, which it
 * borrows from; without memory both stay. */
static int make_anew(const struct conf *conf, struct source *s, struct pod *before_take, struct pod *ns_before_take)
{
    struct metadata *m = &s->metadata;
    struct origin *o = origin_new(conf, s->input_index, s->origin->file, s->origin->path, m);
    if (o == NULL) {
        metadata_restore(m, before_take, ns_before_take);
        return -ENOMEM;
    }
    origin_free(s->origin);
    s->origin = o;
    metadata_choose(m, s->input, o);
    decide(s, conf);
    pod_unref(before_take);
    pod_unref(ns_before_take);
    return 0;
}

void source_refresh(const struct conf *conf, struct source *s)
{
    struct metadata *m = &s->metadata;
    if (!metadata_is_stale(m))
        return;
    struct pod *pod = pod_ref(m->pod), *namespace_ = pod_ref(m->namespace_);
    if (metadata_look(m, s->origin->file)) {
        (void)make_anew(conf, s, pod, namespace_); /* without memory it is tried again */
        return;
    }
    pod_unref(pod);
    pod_unref(namespace_);
}

int source_set_pod(const struct conf *conf, struct source *s, struct pod *pod_take, struct pod *namespace_take)
{
    struct metadata *m = &s->metadata;
    struct pod *pod = pod_ref(m->pod), *namespace_ = pod_ref(m->namespace_);
    metadata_restore(m, pod_take, namespace_take);
    return make_anew(conf, s, pod, namespace_);
}

void source_free(struct source *s)
{
    if (s == NULL)
        return;
    origin_free(s->origin);
    metadata_deinit(&s->metadata);
    pool_free(&pool, s);
}
