#include "agent/kube/podtable.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/budget.h"

#define BUCKETS 1024
#define ACCOUNT ACCOUNT_OF(MEMORY_FILES)

struct entry {
    struct entry *next;
    struct pod *pod; /* held */
    int64_t deleted_ns;
    uint32_t list; /* the list that it was last told in */
    bool is_deleted;
};

struct podtable {
    pthread_mutex_t lock;
    struct entry *buckets[BUCKETS];
    size_t n;
    uint32_t list;
    _Atomic uint64_t version;
};

/* ---- pods ---- */

static const size_t texts[] = { offsetof(struct pod, namespace_),    offsetof(struct pod, name),
                                offsetof(struct pod, uid),           offsetof(struct pod, path_uid),
                                offsetof(struct pod, workload_kind), offsetof(struct pod, workload) };
static const size_t lists[] = { offsetof(struct pod, labels), offsetof(struct pod, annotations),
                                offsetof(struct pod, images) };

static struct slice *text_at(struct pod *p, size_t i)
{
    return (struct slice *)(void *)((char *)p + texts[i]);
}

static struct pairs *list_at(struct pod *p, size_t i)
{
    return (struct pairs *)(void *)((char *)p + lists[i]);
}

static size_t bytes_of(struct pod *p)
{
    size_t bytes = sizeof(*p);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        bytes += text_at(p, i)->len;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (size_t k = 0; k < list_at(p, i)->n; k++)
            bytes += sizeof(struct pair) + list_at(p, i)->items[k].name.len + list_at(p, i)->items[k].value.len;
    return bytes;
}

static struct slice move(char **at, struct slice s)
{
    char *to = *at;
    if (s.len > 0)
        memcpy(to, s.ptr, s.len);
    *at += s.len;
    return slice_of(to, s.len);
}

/* One block: the struct, its pairs, its texts. */
struct pod *pod_pack(struct pod *from)
{
    size_t bytes = bytes_of(from);
    struct pod *p = malloc(bytes);
    if (p == NULL)
        return NULL;
    *p = *from;
    p->bytes = (uint32_t)bytes;
    atomic_init(&p->refs, 1);
    budget_took(ACCOUNT, p);
    char *at = (char *)(p + 1);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        struct pair *items = (struct pair *)(void *)at;
        if (list_at(p, i)->n > 0)
            memcpy(items, list_at(p, i)->items, list_at(p, i)->n * sizeof(*items));
        at += list_at(p, i)->n * sizeof(*items);
        list_at(p, i)->items = items;
    }
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *text_at(p, i) = move(&at, *text_at(p, i));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (size_t k = 0; k < list_at(p, i)->n; k++) {
            struct pair *item = (struct pair *)(uintptr_t)&list_at(p, i)->items[k];
            *item = (struct pair){ move(&at, item->name), move(&at, item->value) };
        }
    return p;
}

/* "web-7d9c5b7f6d" of a ReplicaSet -> Deployment web, "backup-29384756" of a Job -> CronJob backup: the owner's owner is
 * not in the pod, but its name is made of it. */
static void set_workload(struct pod *p, const struct kube_object *obj)
{
    struct slice hash = pairs_get(obj->labels, SLICE("pod-template-hash"));
    struct slice name = obj->owner_name;
    ptrdiff_t dash = slice_rfind_byte(name, '-');
    struct slice end = dash <= 0 ? SLICE("") : slice_from(name, (size_t)dash + 1);
    uint64_t minutes;
    p->workload_kind = obj->owner_kind;
    p->workload = name;
    if (slice_eq(obj->owner_kind, SLICE("ReplicaSet")) && hash.len > 0 && slice_eq(end, hash)) {
        p->workload_kind = SLICE("Deployment");
        p->workload = slice_first(name, (size_t)dash);
    } else if (slice_eq(obj->owner_kind, SLICE("Job")) && end.len >= 8 && slice_to_u64(end, &minutes)) {
        p->workload_kind = SLICE("CronJob"); /* the minute of its schedule, since 1970 */
        p->workload = slice_first(name, (size_t)dash);
    } else if (slice_eq(obj->owner_kind, SLICE("Node"))) { /* a static pod: its name ends with the node's */
        p->workload_kind = SLICE("Pod");
        p->workload = obj->name;
    }
}

struct pod *pod_new(const struct kube_object *obj)
{
    struct slice hash = pairs_get(obj->annotations, SLICE("kubernetes.io/config.hash"));
    struct pod p = { .namespace_ = obj->namespace_,
                     .name = obj->name,
                     .uid = obj->uid,
                     .path_uid = hash.len > 0 ? hash : obj->uid,
                     .labels = obj->labels,
                     .annotations = obj->annotations,
                     .images = obj->images };
    set_workload(&p, obj);
    return pod_pack(&p);
}

struct pod *pod_ref(struct pod *p)
{
    if (p != NULL)
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void pod_unref(struct pod *p)
{
    if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    budget_gives(ACCOUNT, p);
    free(p);
}

static bool pairs_eq(struct pairs a, struct pairs b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (!slice_eq(a.items[i].name, b.items[i].name) || !slice_eq(a.items[i].value, b.items[i].value))
            return false;
    return true;
}

static bool pod_eq(struct pod *a, struct pod *b)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (!slice_eq(*text_at(a, i), *text_at(b, i)))
            return false;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        if (!pairs_eq(*list_at(a, i), *list_at(b, i)))
            return false;
    return true;
}

/* ---- the table ---- */

struct podtable *podtable_new(void)
{
    struct podtable *t = calloc(1, sizeof(*t));
    if (t != NULL)
        pthread_mutex_init(&t->lock, NULL);
    return t;
}

static void entry_free(struct entry *e)
{
    pod_unref(e->pod);
    budget_gives(ACCOUNT, e);
    free(e);
}

void podtable_free(struct podtable *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (t->buckets[i] != NULL) {
            struct entry *e = t->buckets[i];
            t->buckets[i] = e->next;
            entry_free(e);
        }
    pthread_mutex_destroy(&t->lock);
    free(t);
}

uint64_t podtable_version(const struct podtable *t)
{
    return atomic_load_explicit((_Atomic uint64_t *)&t->version, memory_order_acquire);
}

static struct entry **bucket_of(struct podtable *t, struct slice namespace_, struct slice name)
{
    return &t->buckets[(slice_hash(namespace_) * 31 + slice_hash(name)) % BUCKETS];
}

void podtable_raise(struct podtable *t)
{
    atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
}

static struct entry *find_uid(struct podtable *t, const struct pod *pod)
{
    struct entry *e = *bucket_of(t, pod->namespace_, pod->name);
    while (e != NULL && !(slice_eq(e->pod->namespace_, pod->namespace_) && slice_eq(e->pod->name, pod->name) &&
                          slice_eq(e->pod->path_uid, pod->path_uid)))
        e = e->next;
    return e;
}

static void drop(struct podtable *t, struct entry **at)
{
    struct entry *e = *at;
    *at = e->next;
    t->n--;
    entry_free(e);
}

/* Room for one more, at the cost of the one that is deleted for longest. */
static bool make_room(struct podtable *t)
{
    struct entry **oldest = NULL;
    if (t->n < PODTABLE_MAX)
        return true;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry **e = &t->buckets[i]; *e != NULL; e = &(*e)->next)
            if ((*e)->is_deleted && (oldest == NULL || (*e)->deleted_ns < (*oldest)->deleted_ns))
                oldest = e;
    if (oldest == NULL)
        return false;
    drop(t, oldest);
    return true;
}

static int add(struct podtable *t, struct pod *pod)
{
    struct entry *e = make_room(t) ? malloc(sizeof(*e)) : NULL;
    if (e == NULL)
        return t->n >= PODTABLE_MAX ? -ENOSPC : -ENOMEM;
    budget_took(ACCOUNT, e);
    struct entry **bucket = bucket_of(t, pod->namespace_, pod->name);
    *e = (struct entry){ .next = *bucket, .pod = pod, .list = t->list };
    *bucket = e; /* the newest of a name first */
    t->n++;
    return 0;
}

int podtable_put(struct podtable *t, struct pod *pod, bool *ret_is_new)
{
    bool is_new = true;
    int r = 0;
    pthread_mutex_lock(&t->lock);
    struct entry *e = find_uid(t, pod);
    if (e == NULL) {
        r = add(t, pod);
    } else {
        struct pod *drop_it = pod;
        is_new = !pod_eq(e->pod, pod);
        if (is_new) {
            drop_it = e->pod;
            e->pod = pod;
        }
        pod_unref(drop_it);
        e->is_deleted = false;
        e->list = t->list;
    }
    if (r == 0 && is_new)
        podtable_raise(t);
    pthread_mutex_unlock(&t->lock);
    if (r < 0)
        pod_unref(pod);
    if (ret_is_new != NULL)
        *ret_is_new = r == 0 && is_new;
    return r;
}

void podtable_delete(struct podtable *t, struct slice namespace_, struct slice name, struct slice uid, int64_t mono_ns)
{
    pthread_mutex_lock(&t->lock);
    for (struct entry *e = *bucket_of(t, namespace_, name); e != NULL; e = e->next)
        if (!e->is_deleted && slice_eq(e->pod->namespace_, namespace_) && slice_eq(e->pod->name, name) &&
            slice_eq(e->pod->uid, uid)) {
            e->is_deleted = true;
            e->deleted_ns = mono_ns;
        }
    pthread_mutex_unlock(&t->lock);
}

struct pod *podtable_find(struct podtable *t, struct slice namespace_, struct slice name, struct slice path_uid)
{
    struct pod *found = NULL;
    pthread_mutex_lock(&t->lock);
    for (struct entry *e = *bucket_of(t, namespace_, name); e != NULL && found == NULL; e = e->next)
        if (slice_eq(e->pod->namespace_, namespace_) && slice_eq(e->pod->name, name) &&
            (path_uid.len == 0 || slice_eq(e->pod->path_uid, path_uid)))
            found = pod_ref(e->pod);
    pthread_mutex_unlock(&t->lock);
    return found;
}

void podtable_list_begin(struct podtable *t, bool is_namespaces)
{
    (void)is_namespaces; /* one number serves both: only entries of the kind that ends are looked at */
    pthread_mutex_lock(&t->lock);
    t->list++;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = t->buckets[i]; e != NULL; e = e->next)
            if ((e->pod->name.len == 0) != is_namespaces)
                e->list = t->list;
    pthread_mutex_unlock(&t->lock);
}

void podtable_list_end(struct podtable *t, bool is_namespaces, int64_t mono_ns)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = t->buckets[i]; e != NULL; e = e->next)
            if ((e->pod->name.len == 0) == is_namespaces && e->list != t->list && !e->is_deleted) {
                e->is_deleted = true;
                e->deleted_ns = mono_ns;
            }
    pthread_mutex_unlock(&t->lock);
}

/* ---- all of them ---- */

/* The entries of one bucket, held: callbacks are not made under the lock. */
struct held {
    struct pod *pod;
    int64_t deleted_ns;
    bool is_deleted;
};

static size_t hold_bucket(struct podtable *t, size_t i, struct held **items, size_t *cap)
{
    size_t n = 0, want = 0;
    pthread_mutex_lock(&t->lock);
    for (struct entry *e = t->buckets[i]; e != NULL; e = e->next)
        want++;
    if (want > *cap) {
        struct held *more = realloc(*items, want * sizeof(*more));
        if (more != NULL) {
            *items = more;
            *cap = want;
        }
    }
    for (struct entry *e = t->buckets[i]; e != NULL && n < *cap; e = e->next)
        (*items)[n++] = (struct held){ pod_ref(e->pod), e->deleted_ns, e->is_deleted };
    pthread_mutex_unlock(&t->lock);
    return n < want ? SIZE_MAX : n;
}

static void release(struct held *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pod_unref(items[i].pod);
}

int podtable_each(struct podtable *t, int (*each)(void *ctx, const struct pod *pod, bool is_deleted), void *ctx)
{
    struct held *items = NULL;
    size_t cap = 0;
    int r = 0;
    for (size_t i = 0; i < BUCKETS && r == 0; i++) {
        size_t n = hold_bucket(t, i, &items, &cap);
        if (n == SIZE_MAX) {
            release(items, cap);
            r = -ENOMEM;
            break;
        }
        for (size_t k = 0; k < n && r == 0; k++)
            r = each(ctx, items[k].pod, items[k].is_deleted);
        release(items, n);
    }
    free(items);
    return r;
}

/* Held by nobody but the table and, here, by us. */
static void expire_one(struct podtable *t, const struct held *h)
{
    pthread_mutex_lock(&t->lock);
    for (struct entry **e = bucket_of(t, h->pod->namespace_, h->pod->name); *e != NULL; e = &(*e)->next)
        if ((*e)->pod == h->pod) {
            if ((*e)->is_deleted && atomic_load(&h->pod->refs) == 2)
                drop(t, e);
            break;
        }
    pthread_mutex_unlock(&t->lock);
}

void podtable_expire(struct podtable *t, int64_t until_ns, bool (*is_gone)(void *ctx, const struct pod *pod), void *ctx)
{
    struct held *items = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        size_t n = hold_bucket(t, i, &items, &cap);
        if (n == SIZE_MAX) {
            release(items, cap);
            break; /* next time */
        }
        for (size_t k = 0; k < n; k++)
            if (items[k].is_deleted && items[k].deleted_ns < until_ns && is_gone(ctx, items[k].pod))
                expire_one(t, &items[k]);
        release(items, n);
    }
    free(items);
}

size_t podtable_count(struct podtable *t, size_t *ret_bytes)
{
    size_t n = 0, bytes = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = t->buckets[i]; e != NULL; e = e->next) {
            n += !e->is_deleted && e->pod->name.len > 0;
            bytes += e->pod->bytes + sizeof(*e);
        }
    pthread_mutex_unlock(&t->lock);
    if (ret_bytes != NULL)
        *ret_bytes = bytes;
    return n;
}
