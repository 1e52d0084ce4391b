/* Directories: which are watched, what is in them, and which patterns go on there. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

static const char *dir_name_for_calls(const struct dir *d)
{
    return d->len == 0 ? "/" : d->path;
}

struct dir *dir_find(const struct tail *t, const char *path)
{
    struct link *l = table_first(&t->dirs_by_path, path_hash(path, strlen(path)));
    for (; l != NULL; l = table_next(l))
        if (strcmp(CONTAINER_OF(l, struct dir, by_path)->path, path) == 0)
            return CONTAINER_OF(l, struct dir, by_path);
    return NULL;
}

void dir_watch(struct tail *t, struct dir *d)
{
    int wd = watch_add(&t->watch, dir_name_for_calls(d), d->follows_files);
    if (wd >= 0 && wd != d->wd) {
        table_del(&t->dirs_by_wd, &d->by_wd);
        d->wd = wd;
        table_add(&t->dirs_by_wd, &d->by_wd, (uint64_t)wd);
    }
    if (wd == -ENOSPC && !t->is_unwatched) {
        t->is_unwatched = true;
        log_warn("tail", "watch.overflow",
                 "no more inotify watches (fs.inotify.max_user_watches, max_user_instances): "
                 "directories without one are looked at every 2 s",
                 LOG_CSTR("path", dir_name_for_calls(d)));
    }
}

struct dir *dir_get(struct tail *t, const char *path)
{
    struct stat st;
    struct dir *d = dir_find(t, path);
    if (d != NULL)
        return d;
    if (fs_current()->stat(AT_FDCWD, path[0] == '\0' ? "/" : path, &st, true) < 0 || !S_ISDIR(st.st_mode))
        return NULL;
    d = calloc(1, sizeof(*d));
    if (d == NULL || (d->path = strdup(path)) == NULL) {
        free(d);
        return NULL;
    }
    d->len = strlen(path);
    d->dev = st.st_dev;
    d->ino = st.st_ino;
    d->wd = -1;
    d->needs_scan = true;
    t->n_unscanned++;
    list_add_tail(&t->dirs, &d->all);
    table_add(&t->dirs_by_path, &d->by_path, path_hash(d->path, d->len));
    return d;
}

void dir_free(struct tail *t, struct dir *d)
{
    int wd = d->wd;
    table_del(&t->dirs_by_path, &d->by_path);
    table_del(&t->dirs_by_wd, &d->by_wd);
    if (wd >= 0 && table_first(&t->dirs_by_wd, (uint64_t)wd) == NULL)
        watch_remove(&t->watch, wd); /* another path may lead to the same directory */
    t->n_unscanned -= d->needs_scan;
    list_del(&d->all);
    free(d->states);
    free(d->path);
    free(d);
}

static void touch_files_below(struct tail *t, const struct dir *d)
{
    sleepers_wake_below(t, d->path, d->len);
    for (struct list *l = t->files.next; l != &t->files; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        const char *real = file_real(f);
        if (f->path.link.is_in && strncmp(real, d->path, d->len) == 0 && real[d->len] == '/')
            name_touch(t, real, NULL);
        if (f->path.link.is_in && f->real.path != NULL && strncmp(f->path.path, d->path, d->len) == 0)
            name_touch(t, f->path.path, NULL);
    }
}

/* The time of a directory that could not be looked at in full: no change is needed for the next rescan to try again. */
#define UNLISTED (-1)

void discover_again(struct tail *t, const char *path)
{
    char up[PATH_MAX];
    (void)snprintf(up, sizeof(up), "%.*s", SLICE_ARGS(path_dir(path)));
    struct dir *parent = dir_find(t, up);
    if (parent != NULL)
        parent->mtime_ns = UNLISTED;
}

bool is_absent(int error)
{
    return error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -ENAMETOOLONG;
}

/* The directory is gone, cannot be looked at, or another has its name: so are those below. */
void dir_remove(struct tail *t, struct dir *d)
{
    discover_again(t, d->path); /* should it be there after all */
    touch_files_below(t, d);
    for (struct list *l = t->dirs.next; l != &t->dirs; l = l->next) {
        struct dir *o = CONTAINER_OF(l, struct dir, all);
        o->is_gone = o == d || (strncmp(o->path, d->path, d->len) == 0 && o->path[d->len] == '/');
    }
    for (struct list *l = t->aliases.next; l != &t->aliases; l = l->next) {
        struct alias *a = CONTAINER_OF(l, struct alias, all);
        if (a->dir != NULL && a->dir->is_gone)
            a->dir = NULL; /* looked for again when its link is touched, and at each rescan */
    }
    for (struct list *l = t->dirs.next, *next; l != &t->dirs; l = next) {
        next = l->next;
        struct dir *o = CONTAINER_OF(l, struct dir, all);
        if (o->is_gone)
            dir_free(t, o);
    }
}

bool dir_is_there(const struct dir *d, struct stat *st)
{
    return fs_current()->stat(AT_FDCWD, dir_name_for_calls(d), st, true) == 0 && S_ISDIR(st->st_mode) &&
           st->st_dev == d->dev && st->st_ino == d->ino;
}

static void add_state(struct tail *t, struct dir *d, struct dir_state s)
{
    const struct pattern *p = t->inputs[s.input].include[s.pattern];
    for (size_t i = 0; i < d->n_states; i++)
        if (d->states[i].input == s.input && d->states[i].pattern == s.pattern && d->states[i].part == s.part)
            return;
    struct dir_state *states = realloc(d->states, (d->n_states + 1) * sizeof(*states));
    if (states == NULL) {
        t->wants_rescan = true;
        return;
    }
    d->states = states;
    d->states[d->n_states++] = s;
    d->follows_files = d->follows_files || s.part + 1u == pattern_n_parts(p);
    t->n_unscanned += !d->needs_scan;
    d->needs_scan = true;
    if (pattern_part_is_any_depth(p, s.part)) {
        s.part++;
        add_state(t, d, s);
    }
}

/* The deepest folder of a pattern's constant start that exists. */
void dir_add_root(struct tail *t, uint16_t input, uint16_t pattern)
{
    const struct pattern *p = t->inputs[input].include[pattern];
    char path[PATH_MAX] = "";
    size_t part = 0, len = 0;
    for (; part + 1 < pattern_n_parts(p) && pattern_part_is_constant(p, part); part++) {
        struct stat st;
        struct slice name = pattern_part_text(p, part);
        if (len + name.len + 2 > sizeof(path))
            return;
        (void)snprintf(path + len, sizeof(path) - len, "/%.*s", SLICE_ARGS(name));
        if (fs_current()->stat(AT_FDCWD, path, &st, true) < 0 || !S_ISDIR(st.st_mode)) {
            path[len] = '\0';
            break;
        }
        len += name.len + 1;
    }
    struct dir *d = dir_get(t, path);
    if (d != NULL)
        add_state(t, d, (struct dir_state){ input, pattern, (uint16_t)part });
}

/* A symlink to one of the folders it lies in. */
static bool is_loop(const char *path, const struct stat *target)
{
    char up[PATH_MAX];
    struct stat st;
    (void)snprintf(up, sizeof(up), "%s", path);
    for (char *cut = strrchr(up, '/'); cut != NULL; cut = strrchr(up, '/')) {
        cut[cut == up ? 1 : 0] = '\0';
        if (fs_current()->stat(AT_FDCWD, up, &st, true) == 0 && st.st_dev == target->st_dev &&
            st.st_ino == target->st_ino)
            return true;
        if (cut == up)
            return false;
    }
    return false;
}

static size_t depth_of(const char *path)
{
    size_t n = 0;
    for (; *path != '\0'; path++)
        n += *path == '/';
    return n;
}

static void enter(struct tail *t, const struct dir *parent, const char *path, struct slice name,
                  const struct stat *st)
{
    struct stat link;
    bool is_link = fs_current()->stat(AT_FDCWD, path, &link, false) == 0 && S_ISLNK(link.st_mode);
    if (depth_of(path) > DEPTH_MAX || path_is_own(t, path))
        return;
    if (is_link && is_loop(path, st)) {
        log_warn("tail", "file.skipped", "a symlink leads to a directory above it; it is not followed",
                 LOG_CSTR("path", path));
        return;
    }
    struct dir *d = dir_find(t, path);
    if (d != NULL && (d->dev != st->st_dev || d->ino != st->st_ino)) {
        dir_remove(t, d); /* parent is above it and stays */
    }
    d = dir_get(t, path);
    if (d == NULL)
        discover_again(t, path);
    for (size_t i = 0; d != NULL && i < parent->n_states; i++) {
        struct dir_state s = parent->states[i];
        const struct pattern *p = t->inputs[s.input].include[s.pattern];
        if (inputs_exclude(&t->inputs[s.input], slice_cstr(path)))
            continue;
        if (pattern_part_is_any_depth(p, s.part)) {
            add_state(t, d, s);
        } else if (s.part + 1u < pattern_n_parts(p) && pattern_part_matches(p, s.part, name)) {
            s.part++;
            add_state(t, d, s);
        }
    }
    if (d != NULL && d->n_states == 0 && d->refs == 0)
        dir_free(t, d); /* excluded */
}

/* A name in a directory: a folder to enter, a file that an include names, or neither. */
void dir_see_name(struct tail *t, struct dir *d, struct slice name)
{
    bool may_be_dir = false, may_be_file = false;
    for (size_t i = 0; i < d->n_states; i++) {
        const struct dir_state *s = &d->states[i];
        const struct pattern *p = t->inputs[s->input].include[s->pattern];
        if (pattern_part_is_any_depth(p, s->part))
            may_be_dir = true;
        else if (s->part + 1u == pattern_n_parts(p))
            may_be_file = may_be_file || pattern_part_matches(p, s->part, name);
        else
            may_be_dir = may_be_dir || pattern_part_matches(p, s->part, name);
    }
    if ((!may_be_dir && !may_be_file) || d->len + name.len + 2 > PATH_MAX)
        return;
    char path[PATH_MAX];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%.*s", d->path, SLICE_ARGS(name));
    int r = may_be_dir ? fs_current()->stat(AT_FDCWD, path, &st, true) : -ENOENT;
    if (r < 0 && !is_absent(r))
        d->mtime_ns = UNLISTED;
    if (r == 0 && S_ISDIR(st.st_mode))
        enter(t, d, path, name, &st);
    else if (may_be_file)
        name_touch(t, path, NULL);
}

struct listing {
    struct buf names; /* NUL-separated */
    bool is_short;    /* there was no memory for all */
};

static void list_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    if (buf_append(&l->names, name, strlen(name) + 1) < 0)
        l->is_short = true;
}

void dir_scan(struct tail *t, struct dir *d)
{
    struct stat st;
    struct listing l;
    d->needs_scan = false;
    t->n_unscanned--;
    dir_watch(t, d); /* before the listing, so that nothing falls between */
    if (!dir_is_there(d, &st)) {
        dir_remove(t, d);
        return;
    }
    d->mtime_ns = timespec_ns(st.st_mtim);
    if (d->n_states == 0)
        return; /* only watched */
    int fd = fs_current()->open(AT_FDCWD, dir_name_for_calls(d), O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        d->mtime_ns = UNLISTED;
        log_warn("tail", "file.unreadable", "a directory cannot be listed; it is tried again every 10 s",
                 LOG_CSTR("path", dir_name_for_calls(d)), LOG_CSTR("error", strerror(-fd)));
        return;
    }
    buf_init(&l.names, SIZE_MAX / 2);
    l.is_short = false;
    if (fs_current()->list(fd, list_name, &l) < 0 || l.is_short)
        d->mtime_ns = UNLISTED; /* what could be listed is what there is, for now */
    (void)fs_current()->close(fd); /* only read from */
    for (size_t i = 0; i < l.names.len;) {
        struct slice name = slice_cstr(l.names.ptr + i);
        dir_see_name(t, d, name);
        i += name.len + 1;
    }
    buf_deinit(&l.names);
}
