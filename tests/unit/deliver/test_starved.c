/*
 * Goal: without memory at any one place of the sender nothing is lost: a line is at the server, dead for the server's own
 * reason, or still in the queue; and the sender goes on by itself or after a restart.
 * Method: each scenario is run again and again, the first, second, third … allocation of the sender's turns failing, until
 * a run needs no more of them. The sender by turns, on a clock of the test.
 */
#include "tests/unit/deliver/rig.h"
#include "tests/unit/starve.h"

#include <fcntl.h>

/* --- the sender by turns --- */

static int64_t now_ns;

static int64_t test_mono(void)
{
    return now_ns;
}

static int64_t test_wall(void)
{
    return now_ns + INT64_C(1767323045) * NS_PER_SEC;
}

static void pass_time(void *ctx, int64_t until_ns)
{
    (void)ctx;
    now_ns = MAX(now_ns, until_ns);
}

static const struct stepper stepper = { .wait = pass_time };

/* The writer's own allocations are another test's. */
static void do_job(struct writer *w, struct writer_job *job)
{
    (void)w;
    const bool was = starve_is_on;
    starve_is_on = false;
    job->run(job);
    job->done(job);
    starve_is_on = was;
}

static void start(struct rig *g)
{
    struct err err = { 0 };
    const struct sender_output so = { g->out, g->q };
    const struct sender_conf sc = { .outputs = &so, .n_outputs = 1, .inputs = rig_inputs, .n_inputs = 1,
                                    .on_space = rig_on_space, .ctx = g, .stepper = &stepper };
    assert_int_equal(sender_start(&sc, &g->s, &err), 0);
}

static void stop(struct rig *g)
{
    sender_stop(g->s, 0);
    g->s = NULL;
}

static bool has_parked(const struct rig *g)
{
    struct frame_head head;
    return queue_parked_next(g->q, &(uint64_t){ 0 }, &head) == 1;
}

/* True when everything is through within so many turns. */
static bool run_turns(struct rig *g, unsigned turns)
{
    const struct timespec t = { .tv_nsec = 20 * 1000 };
    for (unsigned i = 0; i < turns; i++) {
        starve_is_on = true;
        const int64_t wake = sender_step(g->s);
        starve_is_on = false;
        if (g->s->deliveries[0].in_flight > 0) {
            (void)nanosleep(&t, NULL); /* sockets need real time; for who is silent ours goes on */
            now_ns += 20 * 1000;
        } else if (rig_all_acked(g) && !has_parked(g) && g->s->failed_jobs == NULL && !sender_is_called(g->s)) {
            return true;
        } else {
            now_ns = MAX(now_ns, MIN(wake, now_ns + NS_PER_SEC));
        }
    }
    return false;
}

/* --- scenarios --- */

#define LINES 24

struct scene {
    const char *name;
    const struct output_ops *ops;
    server_fn answer;
    unsigned frames; /* LINES in all */
    bool is_dead[LINES];
    bool has_other;  /* a second key beside */
    bool goes_on;    /* by itself: no start is needed */
};

struct play {
    unsigned seen[LINES], taken[LINES];
    unsigned n;
};

/* The ids in a request, in its order. */
static unsigned ids_of(const struct server_request *req, unsigned *ids)
{
    unsigned n = 0;
    for (const char *p = req->body; p != NULL && p < req->body + req->body_len && n < 4 * LINES;) {
        ids[n++] = (unsigned)strtoul(strchr(p, ' '), NULL, 10);
        p = memchr(p, '\n', (size_t)(req->body + req->body_len - p));
        p = p == NULL ? NULL : p + 1;
    }
    return n;
}

static struct server_answer take_all(struct play *p, const unsigned *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p->taken[ids[i]]++;
    return (struct server_answer){ .status = 204 };
}

static struct server_answer takes_all(void *ctx, const struct server_request *req)
{
    unsigned ids[4 * LINES];
    return take_all(ctx, ids, ids_of(req, ids));
}

static struct server_answer takes_small(void *ctx, const struct server_request *req)
{
    unsigned ids[4 * LINES], n = ids_of(req, ids);
    bool has_seven = false;
    for (unsigned i = 0; i < n; i++)
        has_seven |= ids[i] == 7;
    if (n > 5 || has_seven)
        return (struct server_answer){ .status = 413, .body = "too large" };
    return take_all(ctx, ids, n);
}

static struct server_answer takes_good(void *ctx, const struct server_request *req)
{
    unsigned ids[4 * LINES], n = ids_of(req, ids);
    for (unsigned i = 0; i < n; i++)
        if (ids[i] == 2 || ids[i] == 13)
            return (struct server_answer){ .status = 400, .body = "cannot parse" };
    return take_all(ctx, ids, n);
}

static struct server_answer takes_items(void *ctx, const struct server_request *req)
{
    struct play *p = ctx;
    struct server_answer a = { .status = 207 };
    unsigned ids[4 * LINES], n = ids_of(req, ids);
    for (unsigned i = 0; i < n; i++) {
        const unsigned id = ids[i], turn = p->seen[id]++;
        const char c = id % 8 == 1 ? 'x' : turn > 0 ? 'd' : "dxrtdhrd"[id % 8];
        p->taken[id] += c == 'd';
        a.body[i] = c;
    }
    a.body[n] = '\0';
    return a;
}

static struct server_answer takes_later(void *ctx, const struct server_request *req)
{
    struct play *p = ctx;
    unsigned ids[4 * LINES], n = ids_of(req, ids);
    if (strcmp(req->key, "k") == 0 && p->n++ < 8)
        return (struct server_answer){ .status = 429, .body = "later" };
    return take_all(p, ids, n);
}

/* Down to the line: whose fault it is cannot be known before something is taken. */
static struct server_answer takes_nothing_yet(void *ctx, const struct server_request *req)
{
    struct play *p = ctx;
    unsigned ids[4 * LINES], n = ids_of(req, ids);
    if (p->n++ < LINES / 2)
        return (struct server_answer){ .status = 400, .body = "cannot parse" };
    return take_all(p, ids, n);
}

static const struct scene scenes[] = {
    { .name = "join", .ops = &toy_join_ops, .answer = takes_all, .frames = 8 },
    { .name = "split", .ops = &toy_ops, .answer = takes_small, .frames = 2, .is_dead = { [7] = true } },
    { .name = "bisect", .ops = &toy_ops, .answer = takes_good, .frames = 2, .is_dead = { [2] = true, [13] = true } },
    { .name = "defer", .ops = &toy_ops, .answer = takes_nothing_yet, .frames = 8, .goes_on = true },
    { .name = "items", .ops = &toy_ops, .answer = takes_items, .frames = 2,
      .is_dead = { [1] = true, [9] = true, [17] = true } },
    { .name = "park", .ops = &toy_ops, .answer = takes_later, .frames = 6, .has_other = true },
};

/* One run; false: the allocation that was to fail was not reached. */
static bool run_scene(const struct scene *sc, long fail)
{
    struct rig *g = __real_calloc(1, sizeof(*g));
    struct server srv;
    struct play play = { 0 };
    assert_non_null(g);
    now_ns = 1000 * NS_PER_SEC;
    clock_set_source(test_mono, test_wall);
    assert_int_equal(server_start(&srv, 0, sc->answer, &play), 0);
    rig_init(g, sc->ops, srv.port);
    deliver_timing.park_after_ns = 40 * NS_PER_MS;
    jobs_post = do_job;
    for (unsigned i = 0; i < sc->frames; i++) {
        rig_lines(g, "k", "k", i * (LINES / sc->frames), LINES / sc->frames);
        if (sc->has_other)
            rig_lines(g, "o", "o", 0, 1);
    }
    start(g);
    starve_from(fail);
    bool is_through = run_turns(g, 20000);
    const bool was_reached = starve_was_reached();
    starve_from(0);
    if (!is_through && sc->goes_on)
        fail_msg("%s: allocation %ld failed, and it does not go on", sc->name, fail);
    if (!is_through) { /* what waits for the next start */
        stop(g);
        queue_close(g->q);
        g->q = NULL;
        rig_open_queue(g);
        start(g);
        is_through = run_turns(g, 20000);
    }
    if (!is_through)
        fail_msg("%s: allocation %ld failed, and it does not end", sc->name, fail);
    for (unsigned i = 0; i < LINES; i++)
        if (play.taken[i] == 0 && !sc->is_dead[i])
            fail_msg("%s: allocation %ld failed, and line %u is lost", sc->name, fail, i);
        else if (play.taken[i] > 0 && sc->is_dead[i])
            fail_msg("%s: allocation %ld failed, and line %u was taken", sc->name, fail, i);
    stop(g);
    rig_deinit(g);
    clock_set_source(NULL, NULL);
    server_stop(&srv);
    free(g);
    return was_reached;
}

static void test_each_allocation_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scenes); i++) {
        long n = 1;
        while (run_scene(&scenes[i], n))
            n++;
        assert_true(n > 20);
        print_message("           %s: %ld allocations\n", scenes[i].name, n - 1);
    }
}

int main(void)
{
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* threads are running: nothing good comes after a failure */
    (void)toy_setup_ops;
    (void)toy_local_ops;
    if (access("/dev/shm", W_OK) == 0)
        rig_folder = "/dev/shm"; /* a thousand queues: none needs a disk */
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_each_allocation_once) };
    if (getenv("TAILRACE_TEST_LOG") == NULL)
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    return cmocka_run_group_tests_name("deliver/starved", tests, NULL, NULL);
}
