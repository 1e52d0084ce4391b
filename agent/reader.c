#include "agent/reader.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/ask.h"
#include "agent/base/clock.h"
#include "agent/base/inbox.h"
#include "agent/base/must.h"
#include "agent/base/stats.h"
#include "agent/feeder.h"
#include "agent/pace.h"
#include "agent/pipeline.h"
#include "agent/reread.h"
#include "agent/tally.h"

/* After news the reader looks again no sooner: a writer of single lines costs a few wake-ups, not one a line. Far below
 * batch_wait, so nothing arrives later for it. */
#define EVENTS_APART_NS (20 * NS_PER_MS)
/* File turns between two looks at messages and events. */
#define TURNS_PER_LOOK 8
/* While the writer is behind with an output, or no output takes lines, files are not read for this long: usually that is a
 * moment, and what is read meanwhile is read again for that output. After it they are, for neither the other outputs nor
 * what goes to none must stand still with it. */
#define BLOCKED_PATIENCE_NS NS_PER_SEC
#define STATUS_BYTES_MAX (32 * MIB)

enum message_kind { MESSAGE_SPACE, MESSAGE_DURABLE, MESSAGE_FENCE, MESSAGE_REREAD, MESSAGE_ASK };

struct message {
    struct inbox_link link; /* first */
    enum message_kind kind;
    uint32_t output, epoch;
    uint64_t number;
    struct recovered_file *files; /* one block with their strings */
    size_t n_files;
    struct ledger_row *ledger;    /* alike */
    size_t n_ledger;
    struct reread *reread;
    struct ask *ask;
};

struct reader {
    struct reader_conf conf;
    struct tail *tail;
    struct pipeline *pipeline;
    struct tallies *tallies;
    struct feeder *feeders;
    struct rereader *rereaders[OUTPUTS_MAX];
    struct inbox inbox;
    pthread_t thread;
    bool is_started, is_ready;
    _Atomic bool is_stopping;
    _Atomic int64_t stop_deadline_ns;
    int64_t next_look_ns;
    int64_t in_vain_ns;     /* monotonic: since when reading would be in vain, see is_worth_reading(); 0 = it is not */
    bool has_more;          /* files are ready */
    bool is_waiting;        /* they are left alone for a moment: see is_worth_reading(), may_go_on_at() */
    struct pace pace;       /* limits.cpu */
};

/* ---- messages ---- */

/* A message is never lost: that would stop an output for ever, or break a promise. */
static void post(struct reader *r, struct message m)
{
    struct message *copy = must_alloc(sizeof(*copy));
    *copy = m;
    inbox_post(&r->inbox, &copy->link);
}

static void on_space(void *ctx, uint32_t output)
{
    post(ctx, (struct message){ .kind = MESSAGE_SPACE, .output = output });
}

static void on_durable(void *ctx, uint32_t output, uint64_t number)
{
    post(ctx, (struct message){ .kind = MESSAGE_DURABLE, .output = output, .number = number });
}

static void move_text(char **at, struct slice *s)
{
    if (s->len > 0)
        memcpy(*at, s->ptr, s->len);
    s->ptr = *at;
    *at += s->len;
}

static struct recovered_file *copy_files(const struct recovered_file *files, size_t n)
{
    size_t bytes = n * sizeof(*files);
    for (size_t i = 0; i < n; i++)
        bytes += files[i].ident.path.len + files[i].ident.input.len;
    struct recovered_file *copy = must_alloc(bytes);
    char *at = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        copy[i] = files[i];
        move_text(&at, &copy[i].ident.path);
        move_text(&at, &copy[i].ident.input);
    }
    return copy;
}

static struct ledger_row *copy_ledger(const struct ledger_row *rows, size_t n)
{
    size_t bytes = n * sizeof(*rows);
    for (size_t i = 0; i < n; i++)
        bytes += rows[i].input.len + rows[i].tenant.len;
    struct ledger_row *copy = must_alloc(bytes);
    char *at = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        copy[i] = rows[i];
        move_text(&at, &copy[i].input);
        move_text(&at, &copy[i].tenant);
    }
    return copy;
}

static void on_fence(void *ctx, uint32_t output, const struct writer_fence *fence)
{
    post(ctx, (struct message){ .kind = MESSAGE_FENCE, .output = output, .epoch = fence->epoch,
                                .files = copy_files(fence->files, fence->n_files), .n_files = fence->n_files,
                                .ledger = copy_ledger(fence->ledger, fence->n_ledger), .n_ledger = fence->n_ledger });
}

static void on_reread(void *ctx, uint32_t output, const struct reread *rr)
{
    struct must must = { 0 };
    struct reread *copy;
    while (reread_copy(rr, &copy) < 0)
        must_wait(&must);
    post(ctx, (struct message){ .kind = MESSAGE_REREAD, .output = output, .reread = copy });
}

static void message_free(struct message *m)
{
    free(m->reread);
    free(m->files);
    free(m->ledger);
    free(m);
}

struct writer_events reader_events(struct reader *r)
{
    return (struct writer_events){ .ctx = r, .on_space = on_space, .on_durable = on_durable, .on_fence = on_fence,
                                    .on_reread = on_reread };
}

static void handle(struct reader *r, struct message *m, int64_t now)
{
    struct feeder *f = &r->feeders[m->output];
    struct must must = { 0 };
    switch (m->kind) {
    case MESSAGE_SPACE:
        if (feeder_on_space(f, now) && !f->is_rereading)
            tail_unblock(r->tail, m->output);
        break;
    case MESSAGE_DURABLE:
        tail_durable(r->tail, m->output, m->number);
        break;
    case MESSAGE_FENCE:
        rereader_drop(r->rereaders[m->output]);
        feeder_on_fence(f, m->epoch);
        while (tallies_fence(r->tallies, m->output, m->ledger, m->n_ledger) < 0)
            must_wait(&must);
        tail_fence(r->tail, m->output, m->files, m->n_files);
        tail_unblock(r->tail, m->output);
        break;
    case MESSAGE_REREAD:
        rereader_add(r->rereaders[m->output], m->reread);
        m->reread = NULL;
        break;
    case MESSAGE_ASK:
        if (tail_status(r->tail, ask_answer(m->ask)) == 0)
            ask_done(m->ask);
        ask_unref(m->ask);
        break;
    }
    message_free(m);
}

static void handle_messages(struct reader *r, int64_t now)
{
    struct inbox_link *list = inbox_take_all(&r->inbox);
    while (list != NULL) {
        struct message *m = CONTAINER_OF(list, struct message, link);
        list = list->next;
        handle(r, m, now);
    }
}

/* ---- one turn ---- */

/* Feeders that wait for memory come back by time, not by a message. */
static void retry_feeders(struct reader *r, int64_t now)
{
    for (size_t i = 0; i < r->conf.conf->n_outputs; i++) {
        struct feeder *f = &r->feeders[i];
        if (f->is_blocked && f->pending == NULL && now >= f->retry_at_ns && feeder_on_space(f, now)) {
            if (!f->is_rereading)
                tail_unblock(r->tail, f->index);
            r->has_more = true;
        }
    }
}

static void close_groups(struct reader *r, int64_t now, bool is_forced)
{
    for (size_t i = 0; i < r->conf.conf->n_outputs; i++)
        feeder_close_if_due(&r->feeders[i], r->tail, now, is_forced);
}

static int64_t groups_due_at(const struct reader *r)
{
    int64_t at = INT64_MAX;
    for (size_t i = 0; i < r->conf.conf->n_outputs; i++) {
        at = MIN(at, feeder_due_at(&r->feeders[i]));
        at = MIN(at, rereader_due_at(r->rereaders[i]));
    }
    return at;
}

static void take_events(struct reader *r)
{
    tail_on_events(r->tail);
    r->has_more = true;
    r->next_look_ns = clock_mono_ns() + EVENTS_APART_NS;
}

/* Waits for a message, for events once they may be looked at again, or for a time. */
static void look(struct reader *r, int64_t wake_at_ns)
{
    int64_t now = clock_mono_ns();
    bool with_events = now >= r->next_look_ns;
    int64_t until = with_events ? wake_at_ns : MIN(wake_at_ns, r->next_look_ns);
    int64_t wait_ns = r->has_more && !r->is_waiting ? 0 : MAX(until - now, (int64_t)0);
    int timeout_ms = (int)MIN((wait_ns + NS_PER_MS - 1) / NS_PER_MS, (int64_t)10000);
    struct pollfd fds[2] = { { .fd = r->inbox.event_fd, .events = POLLIN },
                             { .fd = with_events ? tail_fd(r->tail) : -1, .events = POLLIN } };
    if (poll(fds, 2, timeout_ms) <= 0)
        return;
    if (fds[0].revents != 0)
        handle_messages(r, clock_mono_ns());
    if (fds[1].revents != 0)
        take_events(r);
}

/* Its queue is full, or fails: that may last. */
static bool is_stuck(uint32_t output)
{
    for (int k = 0; k < BLOCKED_REASONS; k++)
        if (gauge_get(&stats.outputs[output].blocked[k]) != 0)
            return true;
    return false;
}

static bool is_in_vain(const struct reader *r)
{
    bool all_blocked = r->conf.conf->n_outputs > 0;
    for (uint32_t i = 0; i < r->conf.conf->n_outputs; i++) {
        if (r->feeders[i].is_blocked && !is_stuck(i))
            return true;
        all_blocked &= r->feeders[i].is_blocked;
    }
    return all_blocked;
}

static bool is_worth_reading(struct reader *r, int64_t now)
{
    if (!is_in_vain(r))
        r->in_vain_ns = 0;
    else if (r->in_vain_ns == 0)
        r->in_vain_ns = now;
    return r->in_vain_ns == 0 || now - r->in_vain_ns >= BLOCKED_PATIENCE_NS;
}

static int64_t may_go_on_at(struct reader *r, int64_t now)
{
    return r->pace.percent == 0 ? now : pace_next(&r->pace, now, clock_cpu_ns());
}

/* Returns when the next one is wanted, if nothing comes before. */
static int64_t turn(struct reader *r)
{
    stats_turn(THREAD_READER);
    int64_t now = clock_mono_ns();
    int64_t tick_at = tail_tick(r->tail, now);
    r->is_waiting = !is_worth_reading(r, now);
    if (r->is_waiting)
        tick_at = MIN(tick_at, r->in_vain_ns + BLOCKED_PATIENCE_NS);
    const int64_t go_on_at = may_go_on_at(r, now);
    if (go_on_at > now) {
        r->is_waiting = true;
        tick_at = MIN(tick_at, go_on_at);
    }
    for (int i = 0; i < TURNS_PER_LOOK && !r->is_waiting; i++) {
        r->has_more = tail_turn(r->tail, now);
        if (!r->has_more)
            break;
        now = clock_mono_ns();
        if (now >= groups_due_at(r) || !is_worth_reading(r, now) || may_go_on_at(r, now) > now)
            break;
    }
    if (tail_takes_new_names(r->tail))
        for (size_t i = 0; i < r->conf.conf->n_outputs; i++)
            feeder_hurry(&r->feeders[i], now);
    close_groups(r, now, false);
    retry_feeders(r, now);
    for (size_t i = 0; i < r->conf.conf->n_outputs; i++)
        r->has_more |= rereader_turn(r->rereaders[i], now);
    if (!r->is_ready && tail_first_scan_done(r->tail)) {
        r->is_ready = true;
        r->conf.on_ready(r->conf.ctx);
    }
    return MIN(tick_at, groups_due_at(r));
}

int64_t reader_step(struct reader *r, bool has_events)
{
    handle_messages(r, clock_mono_ns());
    const bool takes_events = has_events && clock_mono_ns() >= r->next_look_ns;
    if (takes_events)
        take_events(r);
    const int64_t wake_at_ns = turn(r);
    if (r->has_more && !r->is_waiting)
        return 0;
    return has_events && !takes_events ? MIN(wake_at_ns, r->next_look_ns) : wake_at_ns;
}

bool reader_is_called(const struct reader *r)
{
    return inbox_is_awake(&r->inbox);
}

/* Is anything on its way to a queue that takes it? For one that is full or cannot be written nobody waits: those lines
 * are in their files. */
static bool has_pending(const struct reader *r)
{
    for (uint32_t i = 0; i < r->conf.conf->n_outputs; i++)
        if (r->feeders[i].pending != NULL && !is_stuck(i))
            return true;
    return false;
}

static void wait_for_messages(struct reader *r, int64_t deadline, int64_t now)
{
    struct pollfd p = { .fd = r->inbox.event_fd, .events = POLLIN };
    if (r->conf.stepper != NULL)
        r->conf.stepper->wait(r->conf.stepper->ctx, deadline);
    else
        (void)poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1);
}

/* Everything read so far goes to the writer; what it does not take in time is still in the files. */
static void finish(struct reader *r)
{
    int64_t deadline = atomic_load(&r->stop_deadline_ns);
    close_groups(r, clock_mono_ns(), true);
    for (int64_t now; has_pending(r) && (now = clock_mono_ns()) < deadline;) {
        wait_for_messages(r, deadline, now);
        handle_messages(r, clock_mono_ns());
        close_groups(r, clock_mono_ns(), true); /* an output that was blocked may have one group more */
    }
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    (void)pthread_setname_np(pthread_self(), "reader");
    while (!atomic_load(&r->is_stopping))
        look(r, turn(r));
    finish(r);
    return NULL;
}

/* ---- life ---- */

/* The output whose queue has seen the most lines: the agent's own ledger goes on from its place. */
static size_t reference_output(const struct reader_conf *conf)
{
    size_t best = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < conf->conf->n_outputs; i++) {
        uint64_t lines = 0;
        for (size_t k = 0; k < conf->recovered[i]->n_ledger; k++)
            lines += conf->recovered[i]->ledger[k].read_lines;
        if (lines > most) {
            most = lines;
            best = i;
        }
    }
    return best;
}

static int open_parts(struct reader *r, struct err *err)
{
    const struct conf *c = r->conf.conf;
    size_t ref = reference_output(&r->conf);
    r->feeders = calloc(MAX(c->n_outputs, (size_t)1), sizeof(*r->feeders));
    r->tallies = tallies_new(c);
    if (r->feeders == NULL || r->tallies == NULL)
        return err_set(err, -ENOMEM, "cannot make the reader");
    for (size_t i = 0; i < c->n_outputs; i++) {
        feeder_init(&r->feeders[i], r->conf.outputs[i], NULL, r->tallies, clock_mono_ns());
        const struct queue_recovery *rec = r->conf.recovered[i];
        if (tallies_restore(r->tallies, (uint32_t)i, rec->ledger, rec->n_ledger, i == ref) < 0)
            return err_set(err, -ENOMEM, "cannot make the reader");
    }
    struct pipeline_conf pc = { .conf = c, .kube = r->conf.kube, .feeders = r->feeders, .n_feeders = c->n_outputs, .tallies = r->tallies,
                                .recovered = r->conf.recovered, .reference = (uint32_t)ref };
    int e = pipeline_new(&pc, &r->pipeline, err);
    if (e < 0)
        return e;
    struct tail_conf tc = { .conf = c, .outputs = (uint32_t)((UINT64_C(1) << c->n_outputs) - 1),
                            .machine_salt = r->conf.machine_salt };
    struct tail_sink sink = pipeline_sink(r->pipeline);
    e = tail_open(&tc, &sink, r->conf.recovered, c->n_outputs, &r->tail, err);
    for (size_t i = 0; e == 0 && i < c->n_outputs; i++)
        if ((r->rereaders[i] = rereader_new(&r->feeders[i], r->tail, &sink)) == NULL)
            e = err_set(err, -ENOMEM, "cannot make the reader");
    return e;
}

int reader_new(const struct reader_conf *conf, struct reader **ret_reader, struct err *err)
{
    struct reader *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_set(err, -ENOMEM, "cannot make the reader");
    r->conf = *conf;
    r->inbox.event_fd = -1;
    int e = inbox_init(&r->inbox);
    e = e < 0 ? err_set(err, e, "cannot make the reader") : open_parts(r, err);
    if (e < 0) {
        reader_free(r);
        return e;
    }
    r->conf.recovered = NULL;
    pace_init(&r->pace, conf->conf->cpu_percent, clock_mono_ns(), conf->conf->cpu_percent == 0 ? 0 : clock_cpu_ns());
    *ret_reader = r;
    return 0;
}

int reader_start(struct reader *r, struct writer *writer, struct err *err)
{
    for (size_t i = 0; i < r->conf.conf->n_outputs; i++)
        r->feeders[i].writer = writer;
    if (r->conf.adopt != NULL) /* not before everything else runs: it cannot be given back */
        tail_adopt(r->tail, r->conf.adopt);
    r->conf.adopt = NULL;
    int e = r->conf.stepper != NULL ? 0 : -pthread_create(&r->thread, NULL, reader_main, r);
    if (e < 0)
        return err_set(err, e, "cannot start the reader");
    r->is_started = true;
    return 0;
}

void reader_stop(struct reader *r, int64_t grace_ns)
{
    if (r == NULL || !r->is_started)
        return;
    atomic_store(&r->stop_deadline_ns, clock_mono_ns() + grace_ns);
    atomic_store(&r->is_stopping, true);
    inbox_wake(&r->inbox);
    if (r->conf.stepper != NULL)
        finish(r);
    else
        (void)pthread_join(r->thread, NULL);
    r->is_started = false;
}

struct tail *reader_take_tail(struct reader *r)
{
    struct tail *t = r->tail;
    for (size_t i = 0; i < OUTPUTS_MAX; i++) {
        rereader_free(r->rereaders[i]);
        r->rereaders[i] = NULL;
    }
    r->tail = NULL;
    return t;
}

static void drop_messages(struct reader *r)
{
    struct inbox_link *list = inbox_take_all(&r->inbox);
    while (list != NULL) {
        struct message *m = CONTAINER_OF(list, struct message, link);
        list = list->next;
        ask_unref(m->ask);
        message_free(m);
    }
}

void reader_free(struct reader *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < OUTPUTS_MAX; i++)
        rereader_free(r->rereaders[i]);
    tail_close(r->tail);
    for (size_t i = 0; r->feeders != NULL && i < r->conf.conf->n_outputs; i++)
        feeder_deinit(&r->feeders[i]);
    pipeline_free(r->pipeline);
    tallies_free(r->tallies);
    free(r->feeders);
    if (r->inbox.event_fd >= 0) {
        drop_messages(r);
        inbox_deinit(&r->inbox);
    }
    free(r);
}

int reader_status(struct reader *r, struct buf *out, int64_t timeout_ns)
{
    struct ask *ask = ask_new(STATUS_BYTES_MAX);
    if (ask == NULL)
        return -ENOMEM;
    post(r, (struct message){ .kind = MESSAGE_ASK, .ask = ask_ref(ask) });
    int e = ask_wait(ask, timeout_ns, out);
    ask_unref(ask);
    return e;
}
