/* What the queues recovered: who stood where, and is it still there? */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

static uint32_t input_by_name(const struct tail *t, struct slice name)
{
    for (uint32_t i = 0; i < t->conf->n_inputs; i++)
        if (slice_eq(t->conf->inputs[i].name, name))
            return i;
    return UINT32_MAX;
}

static bool is_included(const struct tail *t, const char *path)
{
    return input_of_path(t, slice_cstr(path), NULL, NULL) >= 0;
}

/* The live name in the folder above (logrotate's olddir), if an input includes such a one. */
static bool base_above(const struct tail *t, const char *path, char ret[PATH_MAX])
{
    char folder[PATH_MAX], up[PATH_MAX];
    (void)snprintf(folder, sizeof(folder), "%.*s", SLICE_ARGS(path_dir(path)));
    struct slice above = path_dir(folder), name = path_name(path);
    (void)snprintf(up, sizeof(up), "%.*s/%.*s", SLICE_ARGS(above), SLICE_ARGS(name)); /* shorter than path */
    for (size_t cut = 0; rotate_next_base(up, &cut, ret);)
        if (is_included(t, ret))
            return true;
    return false;
}

/* Has it this name, and was not written to since it was first seen? Then it may be an archive that was there already. */
static bool is_old(const struct file_ident *id, const char *path)
{
    struct stat st;
    return fs_current()->stat(AT_FDCWD, path, &st, true) == 0 && timespec_ns(st.st_mtim) < id->first_seen_ns - MTIME_SLACK_NS;
}

/* The live name that rotation dated in its middle ("app-20260102.log" of "app.log"), if an input includes such a one. But a path that
 * is included itself may be one that its program writes to, or was found as it is: then the live name has to be there, too. */
static bool base_dated(const struct tail *t, const struct file_ident *id, const char *path, char ret[PATH_MAX])
{
    struct stat st;
    const bool is_sure = !is_included(t, path);
    if (!is_sure && is_old(id, path))
        return false;
    for (size_t cut = 0; rotate_next_base(path, &cut, ret);)
        if (!sibling_is_doubtful(path_name(ret), path_name(path)) && is_included(t, ret) &&
            (is_sure || (fs_current()->stat(AT_FDCWD, ret, &st, false) == 0 && S_ISREG(st.st_mode))))
            return true;
    return false;
}

/* -EBADMSG: no path that can be ours, from a damaged queue or another machine. */
static int recovered_new(struct tail *t, const struct file_ident *id, struct tail_file **ret)
{
    char path[PATH_MAX], base[PATH_MAX], other[PATH_MAX];
    if (id->path.len == 0 || id->path.len >= sizeof(path) || id->path.ptr[0] != '/')
        return -EBADMSG;
    memcpy(path, id->path.ptr, id->path.len);
    path[id->path.len] = '\0';
    struct tail_file *f = file_new(t, input_by_name(t, id->input), path);
    if (f == NULL)
        return -ENOMEM;
    file_drop_names(f); /* whoever has the name now: is it this one? */
    rotate_base(path, base);
    const char *live = base;
    if ((!is_included(t, base) || strcmp(base, path) == 0) && base_dated(t, id, path, other))
        live = other;
    else if (!is_included(t, base))
        live = is_included(t, path) ? path : base_above(t, path, other) ? other : base;
    file_set_base(f, live, live);
    struct slice own_path = f->ident.path, own_input = f->ident.input;
    f->ident = *id;
    f->ident.path = own_path;
    f->ident.input = own_input;
    f->ident_version = 1;
    f->born_ns = t->now - COPY_WAIT_NS - 1; /* what was missed since is found when it is looked for */
    f->is_gz = slice_ends(own_path, SLICE(".gz"));
    f->is_tracked = f->is_sniffed = true;
    file_set_incarnation(f, id->incarnation);
    table_add(&t->missing, &f->by_ino, f->ident.ino);
    *ret = f;
    return 0;
}

static int add_record(struct tail *t, uint32_t output, const struct recovered_file *rf, size_t i)
{
    const struct file_position *pos = &rf->position;
    if (rf->ident.incarnation == 0 || pos->n_parts > STREAMS_MAX)
        return 0;
    struct tail_file *f = file_by_incarnation(t, rf->ident.incarnation);
    int r = f == NULL ? recovered_new(t, &rf->ident, &f) : 0;
    if (r < 0) /* without its position a file would be read from its start: rather no start at all */
        return r == -EBADMSG ? 0 : r;
    if (rf->ident.fp_len > f->ident.fp_len) {
        f->ident.fp_len = rf->ident.fp_len;
        f->ident.fp_crc = rf->ident.fp_crc;
        f->ident_version++; /* the queues that were looked at before are to hear of it */
    }
    if (f->slots[output].pass != NULL)
        return 0; /* told twice: the first counts */
    if (pass_place(f, output, pos) < 0)
        return -ENOMEM;
    struct slot *s = &f->slots[output];
    slot_settle(s, pos->end);
    s->first_off = pos->end;
    s->first_skip = pos->flags & POSITION_SKIP_TO_NEWLINE;
    s->is_own = true;
    s->rank = (uint32_t)i + 1;
    const bool is_same = slice_eq(rf->ident.path, f->ident.path) && rf->ident.fp_len == f->ident.fp_len;
    s->ident_version = is_same ? f->ident_version : 0;
    s->told_stage = pos->flags & POSITION_PASSED     ? STAGE_PASSED
                    : pos->flags & POSITION_FINISHED ? STAGE_FINISHED
                                                     : STAGE_READING;
    if (pos->flags & POSITION_PASSED)
        f->stage = STAGE_PASSED;
    f->size = MAX(f->size, pos->end);
    return 0;
}

/* Does this output know any file of the input? */
static bool knows_input(const struct queue_recovery *rec, struct slice input)
{
    for (size_t i = 0; rec != NULL && i < rec->n_files; i++)
        if (slice_eq(rec->files[i].ident.input, input))
            return true;
    return false;
}

void place_at_furthest(struct tail_file *f, uint32_t output)
{
    struct tail_pass *far = f->passes;
    for (struct tail_pass *p = f->passes; p != NULL; p = p->next)
        if (pass_end(p) > pass_end(far))
            far = p;
    struct pass *p = pass_of(far);
    struct file_position pos = {
        .end = pass_end(far), .head_crc = far->head_crc, .tail_crc = p->tail_crc, .tail_len = far->tail_len
    };
    bool skip = far->off < far->resume_until ? p->resume_skip : far->skip_to_newline;
    pos.flags = (skip ? POSITION_SKIP_TO_NEWLINE : 0) | (p->is_ended ? POSITION_FINISHED : 0) |
                (p->head_unknown ? POSITION_HEAD_UNKNOWN : 0);
    if (far->off < far->resume_until) { /* the record that is unfinished there is whole for this output, too */
        pos.n_parts = far->n_parts;
        memcpy(pos.parts, far->parts, sizeof(*far->parts) * far->n_parts);
    }
    struct must must = { 0 };
    while (pass_place(f, output, &pos) < 0)
        must_wait(&must);
    slot_settle(&f->slots[output], pos.end);
    f->slots[output].first_off = pos.end;
    f->slots[output].first_skip = skip;
    f->t->has_new_names = true; /* its queue has to hear of it soon: a crash would forget where it began */
}

/* An output without a place in a file that others know.
 *  - The file was finished for all: it knew it, and is done with it.
 *  - The output is new: where the furthest other stands.
 *  - It was there when the file was first seen, and crashed before its first group with it was durable: the
 * start. That is 0 unless the file began at its end; then only the others' place is left to go by. */
static void place_unknown(struct tail *t, struct tail_file *f, uint32_t output,
                          const struct queue_recovery *rec, bool knows)
{
    struct file_position start = { 0 };
    bool is_from_start =
        f->input >= t->conf->n_inputs || t->conf->inputs[f->input].read_from == READ_FROM_BEGINNING;
    if (f->stage >= STAGE_PASSED)
        f->slots[output].told_stage = STAGE_GONE;
    else if (rec == NULL || rec->is_new || !(knows || is_from_start))
        place_at_furthest(f, output);
    else
        for (struct must must = { 0 }; pass_place(f, output, &start) < 0;)
            must_wait(&must);
}

static void complete(struct tail *t, struct tail_file *f, const struct queue_recovery *const *recovered,
                     size_t n)
{
    bool is_ended = true;
    if (f->stage == STAGE_READING)
        passes_unend(f);
    for (uint32_t o = 0; o < n; o++) {
        struct slot *s = &f->slots[o];
        if (s->pass == NULL)
            place_unknown(t, f, o, recovered[o],
                          f->input < t->conf->n_inputs &&
                              knows_input(recovered[o], t->conf->inputs[f->input].name));
        is_ended = is_ended && (s->pass == NULL || s->pass->is_ended);
    }
    if (f->stage == STAGE_READING && is_ended)
        f->stage = STAGE_FINISHED;
    if (f->stage >= STAGE_PASSED) {
        resume_found(f);
        f->stage = STAGE_PASSED;
        file_dirty(f, t->outputs);
        list_add_tail(&t->stages, &f->stages);
    }
}

/* Is the order in which this queue was told of two, both before f, that of the clock? What was found late says nothing of that. */
static bool is_order_true(const struct tail_file *f, const struct tail_file *g, size_t o)
{
    if (g->slots[o].rank == 0 || g->slots[o].rank >= f->slots[o].rank || ident_is_dated(&g->ident))
        return true;
    for (const struct tail_file *h = chain_first(f->t, f->base); h != NULL; h = chain_next(h))
        if (h->slots[o].rank > g->slots[o].rank && h->slots[o].rank < f->slots[o].rank && !ident_is_dated(&h->ident) &&
            h->ident.first_seen_ns < g->ident.first_seen_ns)
            return false;
    return true;
}

/* Before which of those that this queue was told of before f? Of the first that came after it by the clock, unless that was put
 * back. */
static uint32_t rank_by_date(const struct tail_file *f, size_t o)
{
    uint32_t rank = f->slots[o].rank, sooner = 0;
    for (const struct tail_file *g = chain_first(f->t, f->base); g != NULL; g = chain_next(g)) {
        if (!is_order_true(f, g, o))
            return rank;
        if (g->slots[o].rank < rank && g->ident.first_seen_ns <= f->ident.first_seen_ns)
            sooner = MAX(sooner, g->slots[o].rank);
    }
    for (const struct tail_file *g = chain_first(f->t, f->base); g != NULL; g = chain_next(g))
        if (g->slots[o].rank > sooner && g->slots[o].rank < rank)
            rank = g->slots[o].rank;
    return rank;
}

/* A file that was found late was told late, and got a time beside that of the one it came before or after (begin_before(),
 * date_sibling(), rotate_truncated()): among the others of the chain it stands where that one stands. When the queue has forgotten
 * that one, only the clock tells where it stood. */
static void rank_beside(struct tail_file *f, size_t o)
{
    struct slot *s = &f->slots[o];
    bool has_one = false;
    for (const struct tail_file *g = chain_first(f->t, f->base); g != NULL; g = chain_next(g)) {
        if (g == f || g->slots[o].rank == 0 || !ident_is_beside(&f->ident, &g->ident))
            continue;
        has_one = true;
        s->rank = MIN(s->rank, g->slots[o].rank);
    }
    if (!has_one && ident_is_dated(&f->ident))
        s->rank = rank_by_date(f, o);
}

int resume_init(struct tail *t, const struct queue_recovery *const *recovered, size_t n)
{
    for (uint32_t o = 0; o < n; o++)
        for (size_t i = 0; recovered[o] != NULL && i < recovered[o]->n_files; i++)
            if (add_record(t, o, &recovered[o]->files[i], i) < 0)
                return -ENOMEM;
    for (size_t i = 0; i < t->conf->n_inputs; i++) {
        t->inputs[i].is_first = true;
        for (uint32_t o = 0; o < n && t->inputs[i].is_first; o++)
            t->inputs[i].is_first = !knows_input(recovered[o], t->conf->inputs[i].name);
    }
    for (struct list *l = t->files.next; l != &t->files; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        complete(t, f, recovered, n);
        for (uint32_t o = 0; o < n; o++)
            rank_beside(f, o);
    }
    return 0;
}

static bool was_blank(const struct tail_file *f)
{
    for (const struct tail_pass *p = f->passes; p != NULL; p = p->next)
        if (pass_end(p) > 0)
            return false;
    return f->ident.fp_len == 0;
}

void resume_found(struct tail_file *f)
{
    assert(f->phase == PHASE_MISSING);
    table_del(&f->t->missing, &f->by_ino);
    f->is_blank = was_blank(f);
}

void file_renew(struct tail_file *f)
{
    struct must must = { 0 };
    f->is_blank = false;
    file_untrack(f);
    f->stage = STAGE_READING;
    f->ident.first_seen_ns += SEEN_BESIDE_NS; /* the younger of the two */
    while (file_track(f, 0) < 0)
        must_wait(&must);
    file_ready(f);
    file_account(f);
}

/* ---- finding them ---- */

/* 1, 0, or the error that kept it from being seen. */
static int is_it(struct tail_file *f, int fd, const struct stat *st, bool is_content)
{
    struct source src = { fd, NULL };
    uint64_t end = 0;
    for (struct tail_pass *p = f->passes; p != NULL; p = p->next)
        end = MAX(end, pass_end(p));
    if (!f->is_gz && (uint64_t)st->st_size < end)
        return 0;
    if (is_content && (f->is_gz || f->ident.fp_len < ADOPT_BYTES_MIN))
        return 0;
    int r = f->is_gz ? gz_open(fd, &src.gz) : 0;
    if (r == 0)
        r = source_holds(f, &src, is_content);
    gz_close(src.gz);
    return r;
}

/* A number alone says little: where neither a birth nor a byte can tell, a file that was never written to is looked for in its
 * own folder, and in those below, only. And what has the live name now that this one had before is rather a new one. */
static bool may_be_at(const struct tail_file *f, const struct file_ident *id, const char *path)
{
    if (!ident_same_inode(id, &f->ident) || !file_may_be_named(f, id, path))
        return false;
    const bool was_live = strcmp(f->path.path, file_base(f)) == 0;
    return !file_is_by_number(f, id) || (f->ident.dev == id->dev && slice_starts(path_dir(path), path_dir(file_base(f))) &&
                                         (was_live || strcmp(path, file_base(f)) != 0));
}

/* Of two lives of one inode the younger is the present one. But of one that was empty any text may be, and rather that of the other,
 * unless so little is known of that that it is the start of many. */
static bool is_rather(const struct tail_file *f, const struct tail_file *other)
{
    const bool is_known = f->ident.fp_len >= ADOPT_BYTES_MIN, is_other_known = other->ident.fp_len >= ADOPT_BYTES_MIN;
    if ((f->ident.fp_len == 0 && is_other_known) || (is_known && other->ident.fp_len == 0))
        return is_known;
    return file_is_older(other, f);
}

static int match_inode(struct tail *t, int fd, const struct stat *st, const char *path, struct tail_file **ret)
{
    struct tail_file *best = NULL, *other = NULL;
    struct file_ident id = { 0 };
    struct link *l = table_first(&t->missing, st->st_ino);
    if (l == NULL)
        return 0;
    ident_of_fd(fd, st, &id);
    for (; l != NULL; l = table_next(l)) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, by_ino);
        if (!may_be_at(f, &id, path))
            continue;
        int r = is_it(f, fd, st, false);
        if (r < 0)
            return r;
        struct tail_file **which = r > 0 ? &best : &other;
        if (*which == NULL || is_rather(f, *which))
            *which = f;
    }
    *ret = best != NULL ? best : other;
    return best != NULL || (other != NULL && cut_back(other, fd, st));
}

static int match_content(struct tail *t, int fd, const struct stat *st, struct tail_file **ret)
{
    int r = 0;
    for (size_t i = 0; i < t->missing.n_slots; i++)
        for (struct link *l = t->missing.slots[i]; r == 0 && l != NULL; l = l->next) {
            *ret = CONTAINER_OF(l, struct tail_file, by_ino);
            r = is_it(*ret, fd, st, true);
        }
    return r;
}

/* What the pattern catches of its name; rotated before the restart, of the name it had before: that tells its tenant. */
void resume_captures(struct tail_file *f)
{
    struct pair caps[PATTERN_CAPTURES_MAX];
    size_t n_caps = 0;
    char base[PATH_MAX];
    const char *named = f->base == NULL ? f->path.path : f->origin;
    if (input_of_path(f->t, slice_cstr(named), NULL, NULL) < 0) {
        rotate_base(named, base);
        named = base;
    }
    if (input_of_path(f->t, slice_cstr(named), caps, &n_caps) >= 0 && file_set_captures(f, caps, n_caps) < 0)
        log_error("tail", "file.stalled", "out of memory", LOG_CSTR("path", f->path.path));
}

static void settle_at(struct tail_file *f, int fd, const struct stat *st, const char *path, const char *real,
                      uint32_t input)
{
    struct tail *t = f->t;
    struct file_ident id = { 0 };
    ident_of_fd(fd, st, &id);
    resume_found(f);
    file_take_fd(f, fd);
    f->is_by_number = file_is_by_number(f, &id);
    bool is_moved = strcmp(f->path.path, path) != 0 || !ident_same_inode(&id, &f->ident) ||
                    (input < t->conf->n_inputs && f->input != input);
    file_set_ino(f, &id);
    f->mtime_ns = timespec_ns(st->st_mtim);
    if (!f->is_gz)
        f->size = (uint64_t)st->st_size;
    if (input < t->conf->n_inputs) {
        f->input = input;
        f->ident.input = t->conf->inputs[input].name;
    }
    file_place(f, path, real);
    if (is_moved)
        file_changed_ident(f);
    for (size_t o = 0; o < t->n_outputs; o++)
        if (f->slots[o].ident_version != f->ident_version)
            file_dirty(f, BIT(o)); /* the others know all this */
    if (f->stage == STAGE_FINISHED && !f->is_gz && f->size > file_least_off(f))
        file_revive(f);
    else if (f->stage == STAGE_READING)
        passes_unend(f);
    resume_captures(f);
}

int resume_match(struct tail *t, int fd, const struct stat *st, const char *path, const char *real, uint32_t input,
                 bool is_content)
{
    struct tail_file *f = NULL;
    int r = match_inode(t, fd, st, real, &f);
    if (r == 0 && is_content)
        r = match_content(t, fd, st, &f);
    if (r > 0)
        settle_at(f, fd, st, path, real, input);
    return r;
}

static bool is_it_still(struct tail_file *f, int fd, const struct stat *st)
{
    int r = is_it(f, fd, st, false);
    return r > 0 || (r == 0 && cut_back(f, fd, st));
}

/* A rotated file that no include names is looked for where it was last. */
static bool find_at_own_path(struct tail_file *f)
{
    struct stat st;
    struct tail *t = f->t;
    const struct fs_ops *fs = fs_current();
    if (fs->stat(AT_FDCWD, f->path.path, &st, true) < 0 || st.st_ino != f->ident.ino ||
        file_by_ino(t, &st) != NULL)
        return false;
    int fd = open_regular(t, f->path.path, &st);
    if (fd < 0)
        return false;
    struct file_ident id = { 0 };
    ident_of_fd(fd, &st, &id);
    if (ident_same_inode(&id, &f->ident) && is_it_still(f, fd, &st)) {
        char *path = must_dup(f->path.path); /* found_at replaces it */
        settle_at(f, fd, &st, path, path, f->input);
        free(path);
        return true;
    }
    (void)fs->close(fd); /* only read from */
    return false;
}

void resume_siblings(struct tail *t)
{
    size_t n = t->n_files;
    struct list *l = t->files.next;
    for (size_t i = 0; i < n && l != &t->files; i++, l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->input >= t->conf->n_inputs)
            continue; /* its input is gone: it stays missing, and its positions kept, should the input come back */
        if (f->phase == PHASE_MISSING && f->stage < STAGE_PASSED && !find_at_own_path(f))
            (void)rotate_find(f); /* else it stays missing */
    }
    twins_join(t);
    l = t->files.next;
    for (size_t i = 0; i < n && l != &t->files; i++, l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        if (f->input < t->conf->n_inputs && f->is_tracked && f->phase != PHASE_LIVE && f->base != NULL)
            chain_stir(t, f->base);
    }
}
