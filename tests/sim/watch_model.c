/*
 * inotify on the model disk: agent/tail/watch.h, linked instead of watch.c. Without a disk in use nothing can be watched.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/inotify.h>

#include "agent/tail/watch.h"
#include "tests/sim/disk_core.h"

#define FD_FIRST 20000
#define BATCH 2000

/* ---- the disk's side ---- */

static void push(struct disk *d, struct instance *in, int wd, uint32_t mask, uint32_t cookie, const char *name)
{
    size_t max = d->conf.events_max == 0 ? 16384 : d->conf.events_max;
    if (in->first > 0 && in->first == in->n_events)
        in->first = in->n_events = 0;
    const struct event *last = in->n_events > in->first ? &in->events[in->n_events - 1] : NULL;
    if (last != NULL && last->wd == wd && last->mask == mask && last->cookie == cookie &&
        strcmp(last->name, name) == 0)
        return; /* the kernel joins equal neighbours */
    if (last != NULL && last->mask == IN_Q_OVERFLOW && in->n_events - in->first >= max)
        return;
    if (d->lose_per_million > 0 && rng_below(&d->rng, 1000000) < d->lose_per_million)
        return;
    in->events = model_grow(in->events, &in->cap_events, in->n_events + 1, sizeof(*in->events));
    struct event *e = &in->events[in->n_events++];
    *e = (struct event){ .wd = wd, .mask = mask, .cookie = cookie };
    if (in->n_events - in->first > max)
        *e = (struct event){ .wd = -1, .mask = IN_Q_OVERFLOW };
    else
        memcpy(e->name, name, strlen(name) + 1);
}

static void push_to(struct disk *d, uint32_t node, uint32_t mask, uint32_t cookie, const char *name)
{
    if (node == NO_NODE || node_at(d, node)->n_watches == 0)
        return;
    for (size_t k = 0; k < INSTANCES; k++) {
        struct instance *in = &d->instances[k];
        for (size_t i = 0; in->is_used && i < in->n_watches; i++)
            if (in->watches[i].node == node && (in->watches[i].mask & mask & IN_ALL_EVENTS))
                push(d, in, in->watches[i].wd, mask, cookie, name);
    }
}

void disk_events_delay(struct disk *d, uint32_t calls)
{
    d->late.armed = calls;
}

void disk_events_arrive(struct disk *d)
{
    const struct late *l = &d->late;
    if (l->left == 0)
        return;
    d->late.left = 0;
    push_to(d, l->from_dir, IN_MOVED_FROM | l->mask, l->cookie, l->from);
    push_to(d, l->to_dir, IN_MOVED_TO | l->mask, l->cookie, l->to);
}

void late_one_call(struct disk *d)
{
    if (d->late.left == 1)
        disk_events_arrive(d);
    else if (d->late.left > 1)
        d->late.left--;
}

/* The names have changed. */
void notify_renamed(struct disk *d, const struct where *from, const struct where *to, uint32_t flag)
{
    struct late *l = &d->late;
    l->left = MAX(l->armed, 1u);
    l->from_dir = from->dir;
    l->to_dir = to->dir;
    l->mask = flag;
    l->cookie = ++d->cookie;
    memcpy(l->from, from->name, sizeof(l->from));
    memcpy(l->to, to->name, sizeof(l->to));
    if (l->armed == 0)
        disk_events_arrive(d);
    l->armed = 0;
}

void notify(struct disk *d, uint32_t dir, uint32_t mask, uint32_t cookie, const char *name)
{
    disk_events_arrive(d);
    push_to(d, dir, mask, cookie, name);
}

void notify_node(struct disk *d, const struct node *n, uint32_t mask)
{
    disk_events_arrive(d);
    push_to(d, n->home, mask, 0, n->name);
}

void notify_moved_self(struct disk *d, uint32_t dir)
{
    disk_events_arrive(d);
    push_to(d, dir, IN_MOVE_SELF, 0, "");
}

static void drop_watch(struct disk *d, struct instance *in, size_t i)
{
    push(d, in, in->watches[i].wd, IN_IGNORED, 0, "");
    node_at(d, in->watches[i].node)->n_watches--;
    uint32_t node = in->watches[i].node;
    in->watches[i] = in->watches[--in->n_watches];
    node_unref(d, node);
}

void notify_gone(struct disk *d, uint32_t dir)
{
    disk_events_arrive(d);
    push_to(d, dir, IN_DELETE_SELF, 0, "");
    for (size_t k = 0; k < INSTANCES; k++) {
        struct instance *in = &d->instances[k];
        for (size_t i = in->n_watches; in->is_used && i > 0; i--)
            if (in->watches[i - 1].node == dir)
                drop_watch(d, in, i - 1);
    }
}

static void instance_reset(struct disk *d, struct instance *in)
{
    for (size_t i = 0; i < in->n_watches; i++) {
        node_at(d, in->watches[i].node)->n_watches--;
        node_unref(d, in->watches[i].node);
    }
    in->n_watches = in->first = in->n_events = 0;
    in->is_used = false;
}

void watches_reset(struct disk *d)
{
    for (size_t k = 0; k < INSTANCES; k++)
        instance_reset(d, &d->instances[k]);
}

void watches_free(struct disk *d)
{
    watches_reset(d);
    for (size_t k = 0; k < INSTANCES; k++) {
        free(d->instances[k].watches);
        free(d->instances[k].events);
    }
}

void disk_events_overflow(struct disk *d)
{
    for (size_t k = 0; k < INSTANCES; k++) {
        struct instance *in = &d->instances[k];
        if (!in->is_used)
            continue;
        in->first = in->n_events = 0;
        in->events = model_grow(in->events, &in->cap_events, 1, sizeof(*in->events));
        in->events[in->n_events++] = (struct event){ .wd = -1, .mask = IN_Q_OVERFLOW };
    }
}

void disk_events_lose(struct disk *d, uint32_t per_million)
{
    d->lose_per_million = per_million;
}

void disk_events_hold(struct disk *d, bool holds)
{
    d->holds_events = holds;
}

/* ---- the agent's side ---- */

static struct instance *instance_of(const struct watch *w)
{
    struct disk *d = disk_in_use();
    int k = w->fd - FD_FIRST;
    return d == NULL || !w->is_working || k < 0 || k >= INSTANCES || !d->instances[k].is_used ? NULL
                                                                                               : &d->instances[k];
}

int watch_init(struct watch *w)
{
    struct disk *d = disk_in_use();
    *w = (struct watch){ .fd = FD_FIRST + INSTANCES };
    if (d == NULL || d->conf.has_no_inotify || d->is_dead)
        return 0;
    for (int k = 0; k < INSTANCES; k++) {
        if (d->instances[k].is_used)
            continue;
        d->instances[k].is_used = true;
        d->instances[k].next_wd = 1;
        *w = (struct watch){ .fd = FD_FIRST + k, .is_working = true };
        return 0;
    }
    return 0; /* fs.inotify.max_user_instances is reached: polling */
}

/* After disk_kill or disk_crash the instance may be another's: nothing of a dead agent is taken back twice. */
void watch_deinit(struct watch *w)
{
    struct instance *in = instance_of(w);
    if (in != NULL && !disk_in_use()->is_dead)
        instance_reset(disk_in_use(), in);
    w->fd = -1;
    w->is_working = false;
}

int watch_add(struct watch *w, const char *dir, bool follows_files)
{
    struct instance *in = instance_of(w);
    struct disk *d = disk_in_use();
    struct where at;
    uint32_t mask = IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF;
    if (in == NULL)
        return -ENOSPC;
    if (d->is_dead)
        return -EIO;
    int r = walk(d, ROOT, dir, true, &at, NULL);
    if (r < 0 || at.node == NO_NODE)
        return r < 0 ? r : -ENOENT;
    if (!S_ISDIR(node_at(d, at.node)->mode))
        return -ENOTDIR;
    mask |= follows_files ? IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE : 0;
    for (size_t i = 0; i < in->n_watches; i++) {
        if (in->watches[i].node == at.node) {
            in->watches[i].mask |= mask;
            return in->watches[i].wd;
        }
    }
    if (in->n_watches >= (d->conf.watches_max == 0 ? 65536 : d->conf.watches_max))
        return -ENOSPC;
    in->watches = model_grow(in->watches, &in->cap_watches, in->n_watches + 1, sizeof(*in->watches));
    in->watches[in->n_watches++] = (struct watching){ in->next_wd, at.node, mask };
    node_at(d, at.node)->n_watches++;
    node_ref(d, at.node);
    return in->next_wd++;
}

void watch_remove(struct watch *w, int wd)
{
    struct instance *in = instance_of(w);
    for (size_t i = 0; in != NULL && !disk_in_use()->is_dead && i < in->n_watches; i++) {
        if (in->watches[i].wd == wd) {
            drop_watch(disk_in_use(), in, i);
            return;
        }
    }
}

bool watch_has_events(const struct watch *w)
{
    const struct instance *in = instance_of(w);
    return in != NULL && !disk_in_use()->holds_events && in->first < in->n_events;
}

bool watch_read(struct watch *w, void (*each)(void *ctx, const struct watch_event *ev), void *ctx)
{
    struct instance *in = instance_of(w);
    const struct disk *d = disk_in_use();
    if (in == NULL || d->is_dead || d->holds_events)
        return false;
    for (unsigned i = 0; i < BATCH && in->first < in->n_events; i++) {
        struct event e = in->events[in->first++];
        struct watch_event ev = { .wd = e.wd, .mask = e.mask, .cookie = e.cookie, .name = slice_cstr(e.name) };
        each(ctx, &ev);
    }
    return in->first < in->n_events;
}
