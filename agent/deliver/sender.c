#include "agent/deliver/sender.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/deliver/deliver.h"
#include "agent/deliver/jobs.h"
#include "agent/deliver/local.h"
#include "agent/deliver/shipment.h"

/* A turn at least so often: /health/live wants to see every thread move. */
#define IDLE_NS (10 * NS_PER_SEC)
#define STATUS_BYTES_MAX (4 * MIB)
/* Once stopping, the end is looked for this often while jobs and requests come in. */
#define STOP_TURN_NS (50 * NS_PER_MS)

/* --- one turn --- */

static void take_jobs(struct sender *s, int64_t now)
{
    struct inbox_link *list = inbox_take_all(&s->inbox);
    while (list != NULL) {
        struct inbox_link *next = list->next;
        job_finish(CONTAINER_OF(CONTAINER_OF(list, struct writer_job, link), struct job, wj), now);
        list = next;
    }
}

static void take_replies(struct sender *s)
{
    for (struct http_call *call; (call = http_next_done(s->http)) != NULL;)
        shipment_end(http_call_owner(call));
}

static void answer_status(struct sender *s)
{
    pthread_mutex_lock(&s->status_lock);
    if (s->status_wanted != s->status_written) {
        buf_reset(&s->status);
        status_write(s, &s->status);
        s->status_written = s->status_wanted;
        (void)pthread_cond_broadcast(&s->status_cond);
    }
    pthread_mutex_unlock(&s->status_lock);
}

static int64_t turn_all(struct sender *s)
{
    const int64_t now = clock_mono_ns();
    int64_t wake = now + IDLE_NS;
    stats_turn(THREAD_SENDER);
    take_jobs(s, now);
    take_replies(s);
    wake = MIN(wake, jobs_retry(s, now));
    for (size_t i = 0; i < s->n; i++)
        wake = MIN(wake, delivery_turn(&s->deliveries[i], now));
    answer_status(s);
    return wake;
}

static void wait_for_news(struct sender *s, int64_t timeout_ns)
{
    if (s->stepper != NULL)
        s->stepper->wait(s->stepper->ctx, clock_mono_ns() + timeout_ns);
    http_wait(s->http, s->inbox.event_fd, s->stepper != NULL ? 0 : timeout_ns);
}

int64_t sender_step(struct sender *s)
{
    http_wait(s->http, s->inbox.event_fd, 0);
    return turn_all(s);
}

bool sender_is_called(const struct sender *s)
{
    return inbox_is_awake(&s->inbox);
}

/* --- the end --- */

static unsigned in_flight(const struct sender *s)
{
    unsigned n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->deliveries[i].in_flight;
    return n;
}

static void wait_for_requests(struct sender *s)
{
    for (;;) {
        const int64_t now = clock_mono_ns(), left = atomic_load(&s->stop_by_mono_ns) - now;
        take_jobs(s, now);
        take_replies(s);
        if (in_flight(s) == 0 || left <= 0)
            return;
        wait_for_news(s, MIN(left, STOP_TURN_NS));
    }
}

static void wait_for_jobs(struct sender *s)
{
    take_jobs(s, clock_mono_ns());
    while (s->n_jobs > 0) {
        wait_for_news(s, STOP_TURN_NS);
        take_jobs(s, clock_mono_ns());
    }
}

static void free_failed_jobs(struct sender *s)
{
    for (struct job *j; (j = s->failed_jobs) != NULL;) {
        s->failed_jobs = j->next;
        if (j->frame != NULL)
            frame_let_go(j->frame);
        job_free(j); /* what it holds is not acknowledged: it comes again */
    }
}

/* Requests that are answered in time count; the rest is sent again after the next start. Then the last checkpoints,
 * and cursors, which are worth nothing before them. */
static void finish_all(struct sender *s)
{
    wait_for_requests(s);
    for (size_t i = 0; i < s->n; i++)
        while (s->deliveries[i].shipments != NULL)
            shipment_abort(s->deliveries[i].shipments);
    wait_for_jobs(s);
    for (size_t i = 0; i < s->n; i++)
        (void)local_stop(&s->deliveries[i], clock_mono_ns());
    wait_for_jobs(s);
    for (size_t i = 0; i < s->n; i++)
        delivery_cursor(&s->deliveries[i], clock_mono_ns(), true);
    wait_for_jobs(s);
    free_failed_jobs(s);
}

static void *thread_main(void *ctx)
{
    struct sender *s = ctx;
    (void)pthread_setname_np(pthread_self(), "sender");
    while (!atomic_load(&s->is_stopping)) {
        const int64_t wake = turn_all(s), now = clock_mono_ns();
        if (atomic_load(&s->is_stopping))
            break;
        wait_for_news(s, MAX(wake - now, 0));
    }
    finish_all(s);
    pthread_mutex_lock(&s->status_lock);
    s->is_ended = true;
    (void)pthread_cond_broadcast(&s->status_cond);
    pthread_mutex_unlock(&s->status_lock);
    return NULL;
}

/* --- start and stop --- */

static void sender_free(struct sender *s)
{
    for (size_t i = 0; i < s->n; i++)
        delivery_deinit(&s->deliveries[i]);
    free(s->deliveries);
    http_close(s->http);
    inbox_deinit(&s->inbox);
    buf_deinit(&s->status);
    (void)pthread_cond_destroy(&s->status_cond);
    (void)pthread_mutex_destroy(&s->status_lock);
    free(s);
}

static int init_all(struct sender *s, const struct sender_conf *conf, struct err *err)
{
    s->deliveries = calloc(MAX(conf->n_outputs, (size_t)1), sizeof(s->deliveries[0]));
    if (s->deliveries == NULL)
        return err_set(err, -ENOMEM, "cannot start the sender");
    int r = http_open(&s->http, err);
    s->n = conf->n_outputs;
    for (size_t i = 0; r == 0 && i < s->n; i++)
        r = delivery_init(&s->deliveries[i], s, &conf->outputs[i], err);
    return r;
}

/* Signals are for the main thread. */
static int start_thread(struct sender *s)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&s->thread, NULL, thread_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int sender_start(const struct sender_conf *conf, struct sender **ret_sender, struct err *err)
{
    struct sender *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, -ENOMEM, "cannot start the sender");
    int r = inbox_init(&s->inbox);
    if (r < 0) {
        free(s);
        return err_set(err, r, "cannot start the sender");
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&s->status_lock, NULL);
    (void)pthread_cond_init(&s->status_cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    buf_init_in(&s->status, STATUS_BYTES_MAX, ACCOUNT_OF(MEMORY_ANSWERS));
    s->writer = conf->writer;
    s->inputs = conf->inputs;
    s->n_inputs = conf->n_inputs;
    s->on_space = conf->on_space;
    s->ctx = conf->ctx;
    s->stepper = conf->stepper;
    s->rng = backoff_seed();
    r = init_all(s, conf, err);
    if (r == 0 && s->stepper == NULL && (r = start_thread(s)) < 0)
        (void)err_set(err, r, "cannot start the sender thread");
    if (r < 0) {
        sender_free(s);
        return r;
    }
    *ret_sender = s;
    return 0;
}

void sender_stop(struct sender *s, int64_t grace_ns)
{
    if (s == NULL)
        return;
    atomic_store(&s->stop_by_mono_ns, clock_mono_ns() + grace_ns);
    atomic_store(&s->is_stopping, true);
    inbox_wake(&s->inbox);
    if (s->stepper != NULL)
        finish_all(s);
    else
        (void)pthread_join(s->thread, NULL);
    sender_free(s);
}

void sender_wake(struct sender *s)
{
    inbox_wake(&s->inbox);
}

void sender_kick(struct sender *s, size_t output)
{
    atomic_store(&s->deliveries[output].is_kicked, true);
    inbox_wake(&s->inbox);
}

/* --- status --- */

int sender_status(struct sender *s, struct buf *out, int64_t timeout_ns)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    const int64_t at = (int64_t)until.tv_sec * NS_PER_SEC + until.tv_nsec + timeout_ns;
    until = (struct timespec){ .tv_sec = at / NS_PER_SEC, .tv_nsec = at % NS_PER_SEC };

    pthread_mutex_lock(&s->status_lock);
    const uint64_t mine = ++s->status_wanted;
    inbox_wake(&s->inbox);
    int r = 0;
    while (r == 0 && s->status_written < mine && !s->is_ended)
        r = pthread_cond_timedwait(&s->status_cond, &s->status_lock, &until);
    if (s->status_written >= mine)
        r = buf_append_slice(out, buf_slice(&s->status));
    else
        r = -ETIMEDOUT;
    pthread_mutex_unlock(&s->status_lock);
    return r;
}
