#include "agent/temporary.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/level.h"
#include "agent/base/log.h"

#define TARGET_BYTES_MAX 600
#define LEVELS_BYTES_MAX (4 * KIB)

struct temporary {
    char *target, *levels;
    int64_t until_ns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct temporary items[TEMPORARY_MAX]; /* in the order they were set */
static size_t n_items;
static _Atomic uint64_t version;

static void drop(size_t i)
{
    free(items[i].target);
    free(items[i].levels);
    memmove(&items[i], &items[i + 1], (--n_items - i) * sizeof(*items));
    atomic_fetch_add(&version, 1);
}

static size_t find(struct slice target)
{
    size_t i = 0;
    while (i < n_items && !slice_eq(slice_cstr(items[i].target), target))
        i++;
    return i;
}

static int check(struct slice target, struct slice levels, int64_t for_ns, struct err *err)
{
    struct levels *l;
    size_t slashes = 0;
    for (size_t i = 0; i < target.len; i++)
        slashes += target.ptr[i] == '/';
    if (target.len == 0 || target.len > TARGET_BYTES_MAX || slashes < 1 || slashes > 2)
        return err_say(err, -EINVAL, "'%.*s' is not NAMESPACE/POD or NAMESPACE/POD/CONTAINER",
                       SLICE_ARGS(slice_first(target, 100)));
    if (for_ns <= 0 || for_ns > TEMPORARY_NS_MAX)
        return err_say(err, -EINVAL, "a time from 1s to 7d is expected");
    if (levels.len == 0 || levels.len > LEVELS_BYTES_MAX)
        return err_say(err, -EINVAL, "levels such as 'debug' or 'info,my::module=trace' are expected");
    int r = levels_parse(levels, &l, err);
    if (r == 0)
        levels_free(l);
    return r;
}

int temporary_set(struct slice target, struct slice levels, int64_t for_ns, struct err *err)
{
    int r = check(target, levels, for_ns, err);
    if (r < 0)
        return r;
    struct temporary t = { slice_dup(target), slice_dup(levels), clock_mono_ns() + for_ns };
    if (t.target == NULL || t.levels == NULL) {
        free(t.target);
        free(t.levels);
        return err_set(err, -ENOMEM, "cannot keep it");
    }
    pthread_mutex_lock(&lock);
    size_t i = find(target);
    if (i < n_items)
        drop(i);
    bool is_kept = n_items < TEMPORARY_MAX;
    if (is_kept)
        items[n_items++] = t;
    atomic_fetch_add(&version, 1);
    pthread_mutex_unlock(&lock);
    if (!is_kept) {
        free(t.target);
        free(t.levels);
        return err_say(err, -ENOSPC, "there are %d already; clear one", TEMPORARY_MAX);
    }
    log_info("levels", "levels.set", "levels are set for a time", LOG_SLICE("pods", target), LOG_SLICE("levels", levels),
             LOG_NUM("seconds", for_ns / NS_PER_SEC));
    return 0;
}

int temporary_clear(struct slice target)
{
    pthread_mutex_lock(&lock);
    size_t i = find(target);
    bool is_found = i < n_items;
    if (is_found)
        drop(i);
    pthread_mutex_unlock(&lock);
    if (is_found)
        log_info("levels", "levels.cleared", "levels that were set for a time are taken back", LOG_SLICE("pods", target));
    return is_found ? 0 : -ENOENT;
}

uint64_t temporary_version(void)
{
    return atomic_load(&version);
}

/* Part by part, so that * does not reach over a slash. */
static bool fits(struct slice target, const struct slice parts[3])
{
    for (size_t i = 0; i < 3; i++) {
        ptrdiff_t slash = slice_find_byte(target, '/');
        struct slice glob = slash < 0 ? target : slice_first(target, (size_t)slash);
        if (!slice_glob(glob, parts[i]))
            return false;
        if (slash < 0)
            return i > 0;
        target = slice_from(target, (size_t)slash + 1);
    }
    return false;
}

bool temporary_find(struct slice namespace_, struct slice pod, struct slice container, struct buf *levels)
{
    const struct slice parts[3] = { namespace_, pod, container };
    bool is_found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = n_items; i-- > 0 && !is_found;)
        is_found = fits(slice_cstr(items[i].target), parts) && buf_append_cstr(levels, items[i].levels) == 0;
    pthread_mutex_unlock(&lock);
    return is_found;
}

void temporary_expire(int64_t mono_ns)
{
    pthread_mutex_lock(&lock);
    for (size_t i = n_items; i-- > 0;) {
        if (items[i].until_ns > mono_ns)
            continue;
        log_info("levels", "levels.expired", "levels that were set for a time end",
                 LOG_CSTR("pods", items[i].target), LOG_CSTR("levels", items[i].levels));
        drop(i);
    }
    pthread_mutex_unlock(&lock);
}

static int write_item(struct buf *out, const struct temporary *t, bool is_first, int64_t mono_ns)
{
    int r = buf_append_cstr(out, is_first ? "{\"target\":" : ",{\"target\":");
    r = r < 0 ? r : buf_append_json_string(out, slice_cstr(t->target));
    r = r < 0 ? r : buf_append_lit(out, ",\"levels\":");
    r = r < 0 ? r : buf_append_json_string(out, slice_cstr(t->levels));
    return r < 0 ? r : buf_printf(out, ",\"seconds_left\":%lld}", (long long)(MAX(t->until_ns - mono_ns, 0) / NS_PER_SEC));
}

int temporary_write_json(struct buf *out, int64_t mono_ns)
{
    int r = buf_append_lit(out, "{\"levels\":[");
    pthread_mutex_lock(&lock);
    for (size_t i = 0; r == 0 && i < n_items; i++)
        r = write_item(out, &items[i], i == 0, mono_ns);
    pthread_mutex_unlock(&lock);
    return r < 0 ? r : buf_append_lit(out, "]}\n");
}
