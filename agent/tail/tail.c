#include "agent/tail/tail.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

/* What files may have, and the number from which on descriptors are not for files: the kernel gives the lowest that is
 * free, so there are always some for the admin endpoint, whatever the others hold. */
static void set_fd_budget(struct tail *t)
{
    struct rlimit lim;
    t->fd_budget = FD_BUDGET_MAX;
    t->fd_top = t->fd_limit = INT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0 || lim.rlim_cur > INT_MAX)
        return;
    size_t n = (size_t)lim.rlim_cur, others = FD_RESERVE + FD_PER_OUTPUT * t->n_outputs;
    t->fd_budget = MIN(MAX(n > others ? n - others : 0, MAX(n / 4, (size_t)8)), (size_t)FD_BUDGET_MAX);
    t->fd_limit = (int)n;
    t->fd_top = (int)(n - MIN(n / 6, (size_t)FD_SPARE));
}

static int init_tables(struct tail *t)
{
    struct table *all[] = { &t->dirs_by_path,      &t->dirs_by_wd, &t->aliases_by_link,
                            &t->aliases_by_target, &t->names,      &t->by_ino,
                            &t->by_incarnation,    &t->bases,      &t->missing };
    struct list *lists[] = { &t->dirs, &t->aliases, &t->files,  &t->ready,
                             &t->lru,  &t->ending,  &t->stages, &t->waking, &t->asleep, &t->asleep_open };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (table_init(all[i]) < 0)
            return -ENOMEM;
    return 0;
}

int tail_open(const struct tail_conf *conf, const struct tail_sink *sink,
              const struct queue_recovery *const *recovered, size_t n_outputs, struct tail **ret_tail,
              struct err *err)
{
    assert(n_outputs <= OUTPUTS_MAX && conf->outputs == (UINT32_C(1) << n_outputs) - 1);
    struct tail *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_set(err, -ENOMEM, "cannot begin to follow files");
    t->conf = conf->conf;
    t->sink = *sink;
    t->outputs = conf->outputs;
    t->n_outputs = n_outputs;
    t->salt = conf->machine_salt;
    t->now = clock_mono_ns();
    set_fd_budget(t);
    t->watch.fd = -1;
    t->next_ending_ns = t->next_wake_ns = INT64_MAX;
    /* Mapped, so that a quiet tail can give its pages back: see tail_tick(). */
    t->raw = mmap(NULL, RAW_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r = init_tables(t);
    if (r < 0 || t->raw == MAP_FAILED) {
        t->raw = t->raw == MAP_FAILED ? NULL : t->raw;
        r = err_set(err, -ENOMEM, "cannot begin to follow files");
        goto fail;
    }
    r = watch_init(&t->watch);
    if (r < 0) {
        r = err_set(err, r, "cannot have an inotify descriptor");
        goto fail;
    }
    r = inputs_compile(t->conf, &t->inputs, err);
    if (r == 0)
        r = discover_init(t, err);
    if (r < 0)
        goto fail;
    r = resume_init(t, recovered, n_outputs);
    if (r < 0) {
        r = err_set(err, r, "cannot take over the recovered positions");
        goto fail;
    }
    t->is_first_scan = true;
    t->recovered = recovered;
    discover_rescan(t, true);
    t->is_first_scan = false;
    t->recovered = NULL;
    follow_all(t);
    t->is_scan_done = true;
    t->next_rescan_ns = t->now + RESCAN_NS;
    *ret_tail = t;
    return 0;
fail:
    tail_close(t);
    return r;
}

void tail_close(struct tail *t)
{
    if (t == NULL)
        return;
    while (t->files.next != NULL && t->files.next != &t->files)
        file_free(CONTAINER_OF(t->files.next, struct tail_file, all));
    sleepers_free(t);
    discover_deinit(t);
    watch_deinit(&t->watch);
    inputs_free(t->inputs, t->conf->n_inputs);
    struct table *all[] = { &t->dirs_by_path,      &t->dirs_by_wd, &t->aliases_by_link,
                            &t->aliases_by_target, &t->names,      &t->by_ino,
                            &t->by_incarnation,    &t->bases,      &t->missing };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        table_deinit(all[i]);
    for (size_t o = 0; o < t->n_outputs; o++) {
        vec_deinit(&t->sides[o].dirty);
        vec_deinit(&t->sides[o].gone);
    }
    passes_free_spares(t);
    for (size_t i = 0; i < t->stirred.n; i++)
        free(VEC(&t->stirred, char *)[i]);
    struct vec *vecs[] = { &t->touched, &t->stirred, &t->pending, &t->ret_files, &t->ret_positions, &t->ret_gone };
    names_forget(t);
    assert(t->pending.n == 0);
    for (size_t i = 0; i < ARRAY_LEN(vecs); i++)
        vec_deinit(vecs[i]);
    if (t->raw != NULL)
        (void)munmap(t->raw, RAW_BYTES);
    free(t);
}

int tail_fd(const struct tail *t)
{
    return t->watch.fd;
}

bool tail_first_scan_done(const struct tail *t)
{
    return t->is_scan_done;
}

bool tail_takes_new_names(struct tail *t)
{
    bool has = t->has_new_names;
    t->has_new_names = false;
    return has;
}

void tail_overflowed(struct tail *t)
{
    counter_add(&stats.inotify_overflows, 1);
    t->wants_rescan = true;
    log_warn("tail", "watch.overflow", "the kernel dropped inotify events; every file is looked at",
             LOG_NUM("overflows", counter_get(&stats.inotify_overflows)));
}

static void on_event(void *ctx, const struct watch_event *ev)
{
    discover_event(ctx, ev);
}

void tail_on_events(struct tail *t)
{
    t->now = MAX(t->now, clock_mono_ns());    /* grace times count from here */
    (void)watch_read(&t->watch, on_event, t); /* more: the descriptor stays readable */
    discover_new(t);
    names_settle(t);
    discover_new(t);
}

bool tail_turn(struct tail *t, int64_t mono_ns)
{
    t->now = mono_ns;
    if (!list_is_in(&t->ready))
        return false;
    t->raw_used_ns = mono_ns;
    struct tail_file *f = CONTAINER_OF(t->ready.next, struct tail_file, ready);
    list_del(&f->ready);
    bool waits = f->after != NULL && list_is_in(&f->after->ready);
    if ((waits || file_turn(f)) && !list_is_in(&f->ready))
        list_add_tail(&t->ready, &f->ready);
    names_settle(t); /* a turn may find that its file is gone */
    return list_is_in(&t->ready);
}

uint32_t tail_behind(const struct tail_file *f)
{
    uint32_t outputs = 0;
    for (const struct tail_pass *p = f->after == NULL ? NULL : f->after->parked; p != NULL; p = p->next)
        outputs |= p->mask;
    return outputs;
}

void tail_touch(struct tail_file *f, uint32_t outputs)
{
    file_dirty(f, outputs);
}

/* ---- time ---- */

void tail_wake_at(struct tail_file *f, int64_t mono_ns)
{
    struct tail *t = f->t;
    f->wake_ns = f->wake_ns == 0 ? mono_ns : MIN(f->wake_ns, mono_ns);
    if (!list_is_in(&f->waking))
        list_add_tail(&t->waking, &f->waking);
    t->next_wake_ns = MIN(t->next_wake_ns, f->wake_ns);
}

static void wake_due(struct tail *t)
{
    struct list due;
    list_init(&due);
    t->next_wake_ns = INT64_MAX;
    for (struct list *l = t->waking.next, *next; l != &t->waking; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, waking);
        if (f->wake_ns > t->now) {
            t->next_wake_ns = MIN(t->next_wake_ns, f->wake_ns);
            continue;
        }
        list_del(l);
        list_add_tail(&due, l);
    }
    while (list_is_in(&due))
        file_wake(CONTAINER_OF(due.next, struct tail_file, waking)); /* may ask to be woken again */
}

static void check_waiting(struct tail_file *f)
{
    struct stat st;
    if (file_open(f) < 0)
        return; /* its name is gone: the next event or rescan frees it */
    if (fs_current()->fstat(f->fd, &st) == 0 && (uint64_t)st.st_size != f->size) {
        f->size = (uint64_t)st.st_size;
        f->quiet_ns = f->t->now;
    }
    bool is_copy = is_copy_in_the_making(f);
    if (is_copy && f->t->now - f->quiet_ns < COPY_WAIT_NS)
        return;
    f->is_sniffed = true; /* whatever it is a copy of, it is a file of its own */
    file_set_phase(f, PHASE_LIVE);
    file_start(f, 0);
}

static bool is_to_be_polled(const struct tail_file *f)
{
    if (f->phase != PHASE_ROTATED)
        return true;
    if (f->is_stalled)
        return false; /* the rescan tries it again */
    for (const struct tail_pass *p = f->passes; p != NULL; p = p->next)
        if (!((const struct pass *)(const void *)p)->is_ended)
            return true;
    return false;
}

static void check_ending(struct tail *t)
{
    int64_t next_ns = INT64_MAX;
    t->next_ending_ns = INT64_MAX;
    for (struct list *l = t->ending.next, *next; l != &t->ending; l = next) {
        next = l->next;
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, ending);
        if (f->is_tracked && f->stage != STAGE_READING) {
            list_del(l);
            continue;
        }
        if (!is_to_be_polled(f))
            continue;
        next_ns = MIN(next_ns, t->now + HELD_POLL_NS);
        if (f->phase == PHASE_ROTATED && f->quiet_ns + GRACE_NS > t->now)
            next_ns = MIN(next_ns, f->quiet_ns + GRACE_NS);
        if (f->phase == PHASE_WAITING) {
            check_waiting(f);
        } else if (f->phase == PHASE_ORPHAN) {
            bool is_found = rotate_find(f) > 0, is_late = t->now - f->quiet_ns >= COPY_WAIT_NS;
            if (is_found || is_late)
                chain_stir(t, f->base);
            if (!is_found && is_late)
                file_give_up(f, LOST_TRUNCATED);
        } else if (t->now - f->quiet_ns < GRACE_NS && !f->gz_at_end) {
            file_ready(f); /* what has no name has no events */
        } else {
            file_check_end(f);
        }
    }
    t->next_ending_ns = MIN(t->next_ending_ns, next_ns);
    held_check(t);
}

/* Grown by a burst. */
static void give_vec_back(struct vec *v)
{
    if (v->n == 0)
        vec_deinit(v);
}

/* Nothing was read for a while: the read buffer's pages go back. Its content is never needed between two turns. */
static void give_pages_back(struct tail *t)
{
    if (t->raw_used_ns == 0 || t->now - t->raw_used_ns < RAW_IDLE_NS)
        return;
    (void)madvise(t->raw, RAW_BYTES, MADV_DONTNEED);
    t->ret_files.n = t->ret_positions.n = t->ret_gone.n = 0; /* nobody holds what tail_collect() gave any more */
    struct vec *vecs[] = { &t->touched, &t->stirred, &t->pending, &t->ret_files, &t->ret_positions, &t->ret_gone };
    for (size_t i = 0; i < ARRAY_LEN(vecs); i++)
        give_vec_back(vecs[i]);
    for (size_t o = 0; o < t->n_outputs; o++)
        give_vec_back(&t->sides[o].dirty);
    t->raw_used_ns = 0;
}

int64_t tail_tick(struct tail *t, int64_t mono_ns)
{
    t->now = mono_ns;
    give_pages_back(t);
    if (t->wants_rescan || t->now >= t->next_rescan_ns) {
        bool is_forced = t->wants_rescan;
        t->wants_rescan = false;
        discover_rescan(t, is_forced);
        held_check(t);
        t->next_rescan_ns = t->now + (t->is_unwatched ? POLL_NS : RESCAN_NS);
    }
    if (t->now >= t->next_wake_ns)
        wake_due(t);
    if (t->now >= t->next_ending_ns)
        check_ending(t);
    names_settle(t);
    stall_check(t);
    return MIN(MIN(t->next_rescan_ns, t->next_stall_ns), MIN(t->next_wake_ns, t->next_ending_ns));
}
