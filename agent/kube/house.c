#include "agent/kube/internal.h"

#include <stdio.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/kube/cache.h"

#define SAVE_NS (5 * NS_PER_SEC)
#define EXPIRE_NS (30 * NS_PER_SEC)
#define DELETED_MIN_NS (60 * NS_PER_SEC)
/* Files that no folder's name tells of (/var/log/containers) are gone by then. */
#define DELETED_BLIND_NS (3600 * NS_PER_SEC)

/* The folder that holds the pods' folders: the pattern up to the first part with a wildcard. False: not of that shape. */
static bool log_root(struct slice include, struct slice *ret_root)
{
    size_t i = 0;
    while (i < include.len && memchr("*?[<", include.ptr[i], 4) == NULL)
        i++;
    ptrdiff_t slash = slice_rfind_byte(slice_first(include, i), '/');
    *ret_root = slice_first(include, slash < 0 ? 0 : (size_t)slash);
    return slash > 0 && !slice_ends(*ret_root, SLICE("/containers"));
}

static bool is_gone(void *ctx, const struct pod *p)
{
    const struct kube *k = ctx;
    for (size_t i = 0; i < k->conf->n_inputs; i++) {
        const struct conf_input *in = &k->conf->inputs[i];
        for (size_t n = 0; in->type == INPUT_KUBERNETES && n < in->include.n; n++) {
            char path[4096];
            struct slice root;
            if (!log_root(in->include.items[n], &root))
                continue;
            int len = snprintf(path, sizeof(path), "%.*s/%.*s_%.*s_%.*s", SLICE_ARGS(root), SLICE_ARGS(p->namespace_),
                               SLICE_ARGS(p->name), SLICE_ARGS(p->path_uid));
            if (len > 0 && len < (int)sizeof(path) && access(path, F_OK) == 0)
                return false;
        }
    }
    return true;
}

static bool knows_folders(const struct conf *conf)
{
    struct slice root;
    for (size_t i = 0; i < conf->n_inputs; i++)
        for (size_t n = 0; conf->inputs[i].type == INPUT_KUBERNETES && n < conf->inputs[i].include.n; n++)
            if (!log_root(conf->inputs[i].include.items[n], &root))
                return false;
    return true;
}

void house_save(struct kube *k)
{
    const struct cache_head head = { .key = k->key,
                                     .pods = k->pods.has_state ? buf_slice(&k->pods.version) : SLICE(""),
                                     .namespaces = k->namespaces.has_state ? buf_slice(&k->namespaces.version) : SLICE("") };
    struct err err = { 0 };
    k->pods.is_changed = k->namespaces.is_changed = false;
    if (cache_save(k->dir, &head, k->table, &err) < 0)
        log_warn("kube", "kube.cache", "what is known of pods cannot be kept on disk", LOG_CSTR("path", k->dir),
                 LOG_CSTR("error", err.text));
}

/* What is unknown will soon be known: the state is watched, or is being read. */
static bool is_answering(const struct kube *k, bool is_synced, int64_t now)
{
    const struct stream *s = &k->pods;
    bool is_coming = s->call != NULL && s->events != NULL && s->form_status == 200 && now - s->heard_ns < SILENT_NS;
    return (is_synced && !k->is_silent) || is_coming;
}

static void say_size(struct kube *k, int64_t now)
{
    size_t bytes;
    if (now < k->count_ns) /* all entries are looked at */
        return;
    k->count_ns = now + NS_PER_SEC;
    gauge_set(&stats.kube.pods, (int64_t)podtable_count(k->table, &bytes));
    gauge_set(&stats.kube.table_bytes, (int64_t)bytes);
}

static void say_state(struct kube *k, int64_t now)
{
    bool is_synced = stream_is_synced(&k->pods) && (!k->wants_namespaces || stream_is_synced(&k->namespaces));
    atomic_store(&k->is_answering, is_answering(k, is_synced, now));
    if (is_synced == (gauge_get(&stats.kube.synced) != 0))
        return;
    gauge_set(&stats.kube.synced, is_synced);
    gauge_set(&stats.kube.unsynced_since_wall_ns, is_synced ? 0 : clock_wall_ns());
}

int64_t house_keep(struct kube *k, int64_t now)
{
    bool is_changed = k->pods.is_changed || k->namespaces.is_changed;
    say_state(k, now);
    say_size(k, now);
    if (is_changed && now >= k->save_ns) {
        house_save(k);
        k->save_ns = now + SAVE_NS;
        is_changed = false;
    }
    if (now >= k->expire_ns) {
        podtable_expire(k->table, now - (knows_folders(k->conf) ? DELETED_MIN_NS : DELETED_BLIND_NS), is_gone, k);
        k->expire_ns = now + EXPIRE_NS;
    }
    return is_changed ? MIN(MIN(k->save_ns, k->expire_ns), k->count_ns) : k->expire_ns;
}
