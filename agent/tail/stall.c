/*
 * Files that should be read and are not: an event that never came, a place that turns do not move. Whatever made it so,
 * such a file is opened anew and gets its turn, and it is said.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/base/bug.h"
#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

/* Turns that bring nothing although there are bytes; one more may be a race with the writer. */
#define TURNS_IN_VAIN 8

/* What keeps it from being read that is known and told elsewhere: a blocked output, permissions, another file first. */
static bool is_explained(const struct tail_file *f)
{
    return !f->is_tracked || f->stage != STAGE_READING || (f->phase != PHASE_LIVE && f->phase != PHASE_ROTATED) ||
           f->is_stalled || f->is_sink_held || f->passes == NULL || (f->after != NULL && f->after->stage == STAGE_READING);
}

static bool is_longer(const struct tail_file *f)
{
    struct stat st;
    int r = f->fd >= 0 ? fs_current()->fstat(f->fd, &st) : fs_current()->stat(AT_FDCWD, file_real(f), &st, true);
    return r == 0 && (f->fd >= 0 || (st.st_ino == f->ident.ino && st.st_dev == f->ident.dev)) &&
           (uint64_t)st.st_size > f->size;
}

/* Bytes that nobody told us of. Of files that have a name, those that were read lately: the rest is for the rescan, or ten
 * thousand quiet files would be asked every two seconds. */
static bool has_grown(const struct tail_file *f)
{
    const bool is_quiet = f->t->now - f->read_ns > LATELY_NS;
    if (f->is_gz || (is_quiet && (f->fd < 0 || (f->path.link.is_in && !f->is_deleted))))
        return false;
    return is_longer(f);
}

static bool is_hungry(const struct tail_file *f)
{
    for (const struct tail_pass *p = f->passes; p != NULL; p = p->next)
        if (((const struct pass *)(const void *)p)->is_hungry)
            return true;
    return false;
}

/* A turn finds something in it: one that was read to its end may have turns as often as it is renamed, and none brings
 * anything. What is left of a .gz only its turn can say. */
static bool has_unread(const struct tail_file *f)
{
    return is_hungry(f) ? f->is_gz || !file_is_read(f) || is_longer(f) : has_grown(f);
}

static void is_moving(struct tail_file *f)
{
    f->stall_ns = 0;
    if (!f->is_stuck)
        return;
    f->is_stuck = false;
    file_account(f);
}

/* An event that did not come may have been the one that the file was renamed or deleted: until its name has led to it again, the
 * descriptor is all there is of it, whether we were told or not. */
static void open_anew(struct tail_file *f)
{
    if (BUG(36) && !f->is_deleted)
        file_close(f);
    else if (f->fd >= 0 && !f->is_deleted)
        (void)!file_open_at(f, file_real(f));
}

static void kick(struct tail_file *f)
{
    const struct input_stats *in = &stats.inputs[MIN(f->input, (uint32_t)INPUTS_MAX - 1)];
    counter_add((counter *)(uintptr_t)&in->stalls, 1);
    log_warn("tail", "file.stalled", "a file has unread bytes and was not read, for no known reason: it is opened anew",
             LOG_CSTR("path", f->path.path), LOG_NUM("offset", f->stall_off), LOG_NUM("size", f->size),
             LOG_CSTR("why", is_hungry(f) ? "turns bring nothing" : "no event came"),
             LOG_NUM("seconds", (f->t->now - f->stall_ns) / NS_PER_SEC));
    f->is_stuck = true;
    f->stall_ns = 0;
    open_anew(f);
    file_account(f);
    file_ready(f);
}

static void check(struct tail_file *f)
{
    bool is_waiting_its_turn = list_is_in(&f->ready);
    uint64_t off = f->passes == NULL ? 0 : file_least_off(f);
    if (is_explained(f) || !has_unread(f)) {
        is_moving(f);
        return;
    }
    if (f->stall_ns == 0 || off != f->stall_off) {
        is_moving(f);
        f->stall_ns = f->t->now;
        f->stall_off = off;
        f->stall_turns = f->n_turns;
    } else if (f->t->now - f->stall_ns >= STALL_NS &&
               (!is_waiting_its_turn || f->n_turns - f->stall_turns >= TURNS_IN_VAIN)) {
        if (!is_hungry(f) && watch_has_events(&f->t->watch))
            file_ready(f); /* what it waits for may be among them: that is a busy machine, and no stall */
        else
            kick(f);
    }
}

void stall_check(struct tail *t)
{
    if (t->now < t->next_stall_ns)
        return;
    t->next_stall_ns = t->now + STALL_NS;
    for (struct list *l = t->files.next, *next; l != &t->files; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, all);
        check(f);
        file_rest(f);
    }
}
