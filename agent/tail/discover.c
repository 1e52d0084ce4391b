/* Which files there are: what events and rescans say of directories and symlinks. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>

#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

void discover_new(struct tail *t)
{
    while (t->n_unscanned > 0) {
        struct list *l = t->dirs.next;
        while (l != &t->dirs && !CONTAINER_OF(l, struct dir, all)->needs_scan)
            l = l->next;
        assert(l != &t->dirs);
        for (struct list *next; l != &t->dirs; l = next) {
            struct dir *d = CONTAINER_OF(l, struct dir, all);
            if (!d->needs_scan) {
                next = l->next;
                continue;
            }
            dir_scan(t, d); /* may remove any: begin again */
            next = &t->dirs;
        }
    }
}

/* ---- symlinks ---- */

static void alias_free(struct tail *t, struct alias *a)
{
    table_del(&t->aliases_by_link, &a->by_link);
    table_del(&t->aliases_by_target, &a->by_target);
    list_del(&a->all);
    if (a->dir != NULL && --a->dir->refs == 0 && a->dir->n_states == 0)
        dir_free(t, a->dir);
    free(a->link_path);
    free(a->target);
    free(a);
}

static struct alias *alias_find(const struct tail *t, const char *link_path)
{
    struct link *l = table_first(&t->aliases_by_link, path_hash(link_path, strlen(link_path)));
    for (; l != NULL; l = table_next(l))
        if (strcmp(CONTAINER_OF(l, struct alias, by_link)->link_path, link_path) == 0)
            return CONTAINER_OF(l, struct alias, by_link);
    return NULL;
}

void alias_set(struct tail *t, const char *link_path, const char *target)
{
    struct alias *a = alias_find(t, link_path);
    if (a != NULL && a->dir != NULL && strcmp(a->target, target) == 0)
        return;
    if (a != NULL)
        alias_free(t, a);
    a = calloc(1, sizeof(*a));
    if (a == NULL)
        return; /* the rescan sees what the watch would have told */
    a->link_path = strdup(link_path);
    a->target = strdup(target);
    list_init(&a->all);
    if (a->link_path == NULL || a->target == NULL) {
        alias_free(t, a);
        return;
    }
    list_add_tail(&t->aliases, &a->all);
    table_add(&t->aliases_by_link, &a->by_link, path_hash(link_path, strlen(link_path)));
    table_add(&t->aliases_by_target, &a->by_target, path_hash(target, strlen(target)));
    char dir[PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "%.*s", SLICE_ARGS(path_dir(target)));
    a->dir = dir_get(t, dir);
    if (a->dir == NULL)
        return;
    a->dir->refs++;
    if (!a->dir->follows_files) {
        a->dir->follows_files = true;
        dir_watch(t, a->dir);
    }
}

static void poll_aliases(struct tail *t)
{
    for (struct list *l = t->aliases.next, *next; l != &t->aliases; l = next) {
        struct stat st;
        next = l->next;
        struct alias *a = CONTAINER_OF(l, struct alias, all);
        if (fs_current()->stat(AT_FDCWD, a->link_path, &st, false) < 0)
            alias_free(t, a);
        else if (a->dir == NULL || file_by_path(t, a->link_path) == NULL)
            name_touch(t, a->link_path, NULL);
    }
}

/* ---- events ---- */

static void remember_from(struct tail *t, const char *path, uint32_t cookie)
{
    free(t->from_path);
    t->from_path = strdup(path); /* NULL: a file that comes and is rotated at once waits for the rescan */
    t->from_cookie = cookie;
}

/* Of a file that was renamed more than once since the last settling: the name it had before the first time. */
static const char *first_name(const struct tail *t, const char *name)
{
    for (size_t i = t->touched.n; i > 0; i--) {
        const struct pending *p = &VEC(&t->touched, struct pending)[i - 1];
        if (p->from != NULL && strcmp(p->path, name) == 0)
            return p->from;
    }
    return name;
}

static void event_in(struct tail *t, struct dir *d, const struct watch_event *ev)
{
    char path[PATH_MAX];
    if (d->len + ev->name.len + 2 > sizeof(path))
        return;
    (void)snprintf(path, sizeof(path), "%s/%.*s", d->path, SLICE_ARGS(ev->name));
    struct dir *child =
        ev->mask & (IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE) ? dir_find(t, path) : NULL;
    struct stat st;
    bool is_new = ev->mask & (IN_CREATE | IN_MOVED_TO);
    const char *from = NULL;
    if (ev->mask & IN_MOVED_FROM)
        remember_from(t, path, ev->cookie);
    if ((ev->mask & IN_MOVED_TO) && t->from_path != NULL && ev->cookie == t->from_cookie)
        from = first_name(t, t->from_path);
    if (!(ev->mask & IN_ISDIR)) {
        name_touch(t, path, from);
        chain_stir(t, path);
    }
    /* The last: they may free d. */
    if (child != NULL && !dir_is_there(child, &st))
        dir_remove(t, child);
    if (is_new && dir_find(t, d->path) == d)
        dir_see_name(t, d, ev->name);
}

static void event_for(struct tail *t, struct dir *d, const struct watch_event *ev)
{
    struct stat st;
    if (ev->name.len == 0 || ev->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) {
        if (ev->mask & IN_IGNORED) {
            table_del(&t->dirs_by_wd, &d->by_wd);
            d->wd = -1;
        }
        if (!dir_is_there(d, &st)) {
            dir_remove(t, d);
            t->wants_rescan = true; /* roots may have to be looked for further up */
        } else if (d->wd < 0 && !d->needs_scan) {
            d->needs_scan = true; /* the same name and number, another directory: watch it anew */
            t->n_unscanned++;
        }
        return;
    }
    if (ev->mask & (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE)) {
        event_in(t, d, ev);
        return;
    }
    struct tail_file *f = file_by_name(t, slice_of(d->path, d->len), ev->name);
    if (f == NULL)
        return;
    if (f->is_being_copied) {
        f->is_being_copied = false;
        chain_stir(t, file_base(f));
    }
    if (f->is_tracked && f->stage == STAGE_READING && !f->is_stalled && !(ev->mask & IN_ATTRIB))
        file_ready(f);
    else
        name_touch(t, file_real(f), NULL);
}

void discover_event(struct tail *t, const struct watch_event *ev)
{
    if (ev->mask & IN_Q_OVERFLOW) {
        tail_overflowed(t);
        return;
    }
    /* Handling may remove directories: those of this watch are found anew each time. */
    for (size_t done = 0;; done += !(ev->mask & IN_IGNORED)) {
        struct link *l = table_first(&t->dirs_by_wd, (uint64_t)ev->wd);
        for (size_t i = 0; l != NULL && i < done; i++)
            l = table_next(l);
        if (l == NULL)
            return;
        event_for(t, CONTAINER_OF(l, struct dir, by_wd), ev);
    }
}

/* ---- looking for oneself ---- */

static void add_roots(struct tail *t)
{
    for (size_t i = 0; i < t->conf->n_inputs; i++)
        for (size_t k = 0; k < t->inputs[i].n_include; k++)
            dir_add_root(t, (uint16_t)i, (uint16_t)k);
}

static void poll_dirs(struct tail *t, bool is_forced)
{
    t->is_unwatched = t->is_unwatched && t->dirs.next != &t->dirs;
    bool was_unwatched = t->is_unwatched, is_unwatched = false;
    for (struct list *l = t->dirs.next, *next; l != &t->dirs; l = next) {
        struct stat st;
        struct dir *d = CONTAINER_OF(l, struct dir, all);
        if (!dir_is_there(d, &st)) {
            dir_remove(t, d);
            next = t->dirs.next; /* it may have taken its neighbour along */
            continue;
        }
        next = l->next;
        if (d->wd < 0)
            dir_watch(t, d);
        is_unwatched = is_unwatched || d->wd < 0;
        if (!d->needs_scan && (is_forced || d->wd < 0 || timespec_ns(st.st_mtim) != d->mtime_ns)) {
            d->needs_scan = true;
            t->n_unscanned++;
        }
    }
    t->is_unwatched = was_unwatched && is_unwatched;
}

static void poll_files(struct tail *t)
{
    for (struct list *l = t->files.next, *next; l != &t->files; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->phase == PHASE_MISSING) {
            if (f->stage < STAGE_PASSED && t->now - f->quiet_ns >= MISSING_NS) {
                resume_found(f);
                file_forget(f);
            }
            continue;
        }
        if (f->fd >= 0 && f->phase == PHASE_LIVE && t->now - f->read_ns >= IDLE_CLOSE_NS && file_is_read(f))
            file_close(f);
        file_poll(f);
    }
}

void discover_rescan(struct tail *t, bool is_forced)
{
    poll_dirs(t, is_forced);
    add_roots(t);
    discover_new(t);
    poll_aliases(t);
    sleepers_look(t);
    poll_files(t);
    names_settle(t);
    discover_new(t); /* where new symlinks lead */
    sleepers_take(t);
}

int discover_init(struct tail *t, struct err *err)
{
    struct stat st;
    if (fs_current()->fstat(2, &st) == 0 && S_ISREG(st.st_mode)) {
        t->own_log_dev = st.st_dev; /* following our own log would feed it for ever */
        t->own_log_ino = st.st_ino;
    }
    char real[PATH_MAX];
    char *dir = slice_dup(t->conf->state_dir);
    bool is_there = dir != NULL && fs_current()->realpath(dir, real) == 0; /* not made yet: nothing is in it */
    t->state_dir = is_there ? strdup(real) : NULL;
    bool is_out_of_memory = dir == NULL || (is_there && t->state_dir == NULL);
    free(dir);
    return is_out_of_memory ? err_set(err, -ENOMEM, "cannot begin to follow files") : 0;
}

void discover_deinit(struct tail *t)
{
    while (t->aliases.next != NULL && t->aliases.next != &t->aliases)
        alias_free(t, CONTAINER_OF(t->aliases.next, struct alias, all));
    while (t->dirs.next != NULL && t->dirs.next != &t->dirs)
        dir_free(t, CONTAINER_OF(t->dirs.next, struct dir, all));
    free(t->state_dir);
    free(t->from_path);
}
