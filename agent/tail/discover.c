/* Which files there are: directories, patterns, symlinks. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

#define PODS_LOGS SLICE_INIT("/var/log/pods/*/*/*.log")

/* ---- inputs ---- */

static int compile_list(struct slices globs, struct pattern ***ret, size_t *ret_n, struct err *err)
{
    if (globs.n == 0)
        return 0;
    *ret = calloc(globs.n, sizeof(**ret));
    if (*ret == NULL)
        return err_set(err, -ENOMEM, "cannot compile patterns");
    for (; *ret_n < globs.n; (*ret_n)++) {
        int r = pattern_parse(globs.items[*ret_n], &(*ret)[*ret_n], err);
        if (r < 0)
            return err_prefix(err, "%.*s", SLICE_ARGS(globs.items[*ret_n]));
    }
    return 0;
}

static void free_list(struct pattern **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pattern_free(list[i]);
    free(list);
}

void inputs_free(struct input_side *inputs, size_t n)
{
    for (size_t i = 0; inputs != NULL && i < n; i++) {
        free_list(inputs[i].include, inputs[i].n_include);
        free_list(inputs[i].exclude, inputs[i].n_exclude);
    }
    free(inputs);
}

/* Our archives: to follow them would feed them for ever. */
static int exclude_own(const struct conf *conf, struct input_side *in, struct err *err)
{
    struct buf glob;
    int r = 0;
    buf_init(&glob, 64 * KIB);
    for (size_t i = 0; r == 0 && i < conf->n_outputs; i++) {
        const struct output_conf *oc = &conf->outputs[i];
        if (oc->type == NULL || oc->type->own_files == NULL)
            continue;
        struct pattern **more = realloc(in->exclude, (in->n_exclude + 1) * sizeof(*more));
        buf_reset(&glob);
        if (more != NULL)
            in->exclude = more;
        r = more == NULL ? -ENOMEM : oc->type->own_files(oc->settings, &glob);
        if (r == 0)
            r = pattern_parse(buf_slice(&glob), &in->exclude[in->n_exclude], NULL);
        if (r == 0)
            in->n_exclude++;
        else
            (void)err_set(err, r, "cannot compile the pattern of the files of outputs.%.*s", SLICE_ARGS(oc->name));
    }
    buf_deinit(&glob);
    return r;
}

int inputs_compile(const struct conf *conf, struct input_side **ret, struct err *err)
{
    static const struct slice PODS = PODS_LOGS;
    struct input_side *in = calloc(MAX(conf->n_inputs, (size_t)1), sizeof(*in));
    int r = in == NULL ? err_set(err, -ENOMEM, "cannot compile patterns") : 0;
    for (size_t i = 0; r == 0 && i < conf->n_inputs; i++) {
        const struct conf_input *ci = &conf->inputs[i];
        struct slices include = ci->include;
        if (include.n == 0 && ci->type == INPUT_KUBERNETES)
            include = (struct slices){ &PODS, 1 };
        r = compile_list(include, &in[i].include, &in[i].n_include, err);
        if (r == 0)
            r = compile_list(ci->exclude, &in[i].exclude, &in[i].n_exclude, err);
        if (r == 0)
            r = exclude_own(conf, &in[i], err);
    }
    if (r < 0) {
        inputs_free(in, conf->n_inputs);
        return r;
    }
    *ret = in;
    return 0;
}

static bool is_excluded(const struct input_side *in, struct slice path)
{
    for (size_t i = 0; i < in->n_exclude; i++)
        if (pattern_covers(in->exclude[i], path))
            return true;
    return false;
}

int inputs_match(const struct conf *conf, const struct input_side *inputs, struct slice path,
                 struct pair *caps, size_t *n_caps)
{
    for (size_t i = 0; i < conf->n_inputs; i++)
        for (size_t k = 0; k < inputs[i].n_include; k++)
            if (pattern_match(inputs[i].include[k], path, caps, n_caps)) {
                if (is_excluded(&inputs[i], path))
                    break;
                return (int)i;
            }
    return -1;
}

int input_of_path(const struct tail *t, struct slice path, struct pair *caps, size_t *n_caps)
{
    return inputs_match(t->conf, t->inputs, path, caps, n_caps);
}

bool is_compressed_name(struct slice path)
{
    static const struct slice ENDS[] = { SLICE_INIT(".gz"), SLICE_INIT(".bz2"), SLICE_INIT(".xz"),
                                         SLICE_INIT(".zst"), SLICE_INIT(".zip") };
    for (size_t i = 0; i < ARRAY_LEN(ENDS); i++)
        if (slice_ends(path, ENDS[i]))
            return true;
    return false;
}

bool path_is_own(const struct tail *t, const char *real)
{
    size_t len = t->state_dir == NULL ? 0 : strlen(t->state_dir);
    return len > 1 && strncmp(real, t->state_dir, len) == 0 && (real[len] == '/' || real[len] == '\0');
}

/* ---- directories ---- */

static const char *dir_name_for_calls(const struct dir *d)
{
    return d->len == 0 ? "/" : d->path;
}

static struct dir *dir_find(const struct tail *t, const char *path)
{
    struct link *l = table_first(&t->dirs_by_path, path_hash(path, strlen(path)));
    for (; l != NULL; l = table_next(l))
        if (strcmp(CONTAINER_OF(l, struct dir, by_path)->path, path) == 0)
            return CONTAINER_OF(l, struct dir, by_path);
    return NULL;
}

static void dir_watch(struct tail *t, struct dir *d)
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

static struct dir *dir_get(struct tail *t, const char *path)
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

static void dir_free(struct tail *t, struct dir *d)
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
static void dir_remove(struct tail *t, struct dir *d)
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

static bool dir_is_there(const struct dir *d, struct stat *st)
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
static void add_root(struct tail *t, uint16_t input, uint16_t pattern)
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
        if (is_excluded(&t->inputs[s.input], slice_cstr(path)))
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
static void name_in(struct tail *t, struct dir *d, struct slice name)
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

static void dir_scan(struct tail *t, struct dir *d)
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
        name_in(t, d, name);
        i += name.len + 1;
    }
    buf_deinit(&l.names);
}

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
        name_in(t, d, ev->name);
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
            add_root(t, (uint16_t)i, (uint16_t)k);
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
    poll_files(t);
    names_settle(t);
    discover_new(t); /* where new symlinks lead */
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
