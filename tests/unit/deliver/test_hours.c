/*
 * Goal: what takes minutes, hours or a day: the back-off to its ceiling, a key parked after half a minute, a pause that a
 * server asks for, 24 hours without a server. With the waiting times of production.
 * Method: the sender by turns on a clock of the test, which jumps to where the sender wants its next turn; sockets are real.
 */
#include "tests/unit/deliver/rig.h"

#include <fcntl.h>

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

/* The writer's thread is here: a job is done at once. */
static void do_job(struct writer *w, struct writer_job *job)
{
    (void)w;
    job->run(job);
    job->done(job);
}

static void begin(struct rig *g, uint16_t port)
{
    static const struct deliver_timing production = {
        .backoff_min_ns = 500 * NS_PER_MS, .backoff_max_ns = 60 * NS_PER_SEC, .hold_ns = 60 * NS_PER_SEC,
        .park_after_ns = 30 * NS_PER_SEC, .cursor_ns = NS_PER_SEC, .cursor_blocked_ns = 100 * NS_PER_MS,
        .job_retry_ns = 5 * NS_PER_SEC, .lane_idle_ns = 60 * NS_PER_SEC
    };
    now_ns = 1000 * NS_PER_SEC;
    clock_set_source(test_mono, test_wall);
    rig_init(g, &toy_ops, port);
    deliver_timing = production;
    jobs_post = do_job;
}

static void start(struct rig *g)
{
    struct err err = { 0 };
    const struct sender_output so = { g->out, g->q };
    const struct sender_conf sc = { .outputs = &so, .n_outputs = 1, .inputs = rig_inputs, .n_inputs = 1,
                                    .on_space = rig_on_space, .ctx = g, .stepper = &stepper };
    assert_int_equal(sender_start(&sc, &g->s, &err), 0);
}

static void end(struct rig *g)
{
    sender_stop(g->s, 0);
    g->s = NULL;
    rig_deinit(g);
    clock_set_source(NULL, NULL);
}

/* More lines while it runs: the rig would look for a thread. */
static void add_lines(struct rig *g, const char *key, unsigned first, unsigned n)
{
    struct sender *s = g->s;
    g->s = NULL;
    rig_lines(g, key, key, first, n);
    g->s = s;
    sender_wake(s);
}

static const struct delivery *delivery_of(const struct rig *g)
{
    return &g->s->deliveries[0];
}

/* Turns until nothing is under way; time stands still. Returns when the next turn is wanted. */
static int64_t settle(struct rig *g)
{
    int64_t wake = sender_step(g->s);
    const struct timespec t = { .tv_nsec = 20 * 1000 };
    while (delivery_of(g)->in_flight > 0 || sender_is_called(g->s) || wake <= now_ns) {
        if (delivery_of(g)->in_flight > 0)
            (void)nanosleep(&t, NULL); /* sockets need real time */
        wake = sender_step(g->s);
    }
    return wake;
}

/* Lets time jump from turn to turn until this moment. */
static void until_time(struct rig *g, int64_t when_ns, void (*each)(struct rig *g))
{
    for (int64_t wake = settle(g); now_ns < when_ns; wake = settle(g)) {
        now_ns = MIN(MAX(wake, now_ns + NS_PER_MS), when_ns);
        if (each != NULL)
            each(g);
    }
}

struct answers {
    int sick_status;      /* what the key "sick" is told; 0: yes */
    const char *headers;
    unsigned n_sick;
    int64_t sick_at[4096];
};

static struct server_answer answer(void *ctx, const struct server_request *req)
{
    struct answers *a = ctx;
    if (strcmp(req->key, "sick") != 0)
        return (struct server_answer){ .status = 204 };
    if (a->n_sick < ARRAY_LEN(a->sick_at))
        a->sick_at[a->n_sick++] = now_ns;
    return (struct server_answer){ .status = a->sick_status == 0 ? 204 : a->sick_status, .headers = a->headers };
}

/* --- a day without a server --- */

static size_t window_most, loaded_most;

static void look_at_memory(struct rig *g)
{
    window_most = MAX(window_most, delivery_of(g)->n_frames);
    loaded_most = MAX(loaded_most, budget_of(delivery_of(g)->account));
}

#define KEYS 5
#define HOUR (3600 * NS_PER_SEC)

static void test_a_day_without_a_server(void **state)
{
    (void)state;
    struct rig *g = calloc(1, sizeof(*g));
    struct server srv;
    static struct answers ans;
    const uint16_t port = server_free_port();
    assert_non_null(g);
    ans = (struct answers){ 0 };
    begin(g, port);
    unsigned n[KEYS] = { 0 };
    char key[KEYS][8];
    for (unsigned k = 0; k < KEYS; k++)
        (void)snprintf(key[k], sizeof(key[k]), "k%u", k);
    for (unsigned i = 0; i < 100; i++) {
        rig_lines(g, key[i % KEYS], key[i % KEYS], n[i % KEYS], 10);
        n[i % KEYS] += 10;
    }
    start(g);
    struct output_stats *st = &stats.outputs[g->conf.index];
    window_most = loaded_most = 0;
    const int64_t begun = now_ns;
    for (unsigned hour = 1; hour <= 24; hour++) {
        const uint64_t before = rig_code(st->requests, "refused");
        until_time(g, begun + hour * HOUR, look_at_memory);
        const uint64_t asked = rig_code(st->requests, "refused") - before;
        /* Half a second to a minute apart, half a minute on average; by one request, not one for each key. */
        assert_in_range(asked, 60, 240);
        add_lines(g, key[hour % KEYS], n[hour % KEYS], 10);
        n[hour % KEYS] += 10;
    }
    assert_true(window_most <= 16 && loaded_most <= MIB);
    assert_int_equal(gauge_get(&st->up), 0);
    for (unsigned k = 0; k < KEYS; k++) {
        const struct rig_ledger l = rig_ledger(g, key[k]);
        assert_int_equal(l.queued, n[k]);
        assert_int_equal(l.parked + (int64_t)l.dead + (int64_t)l.lost, 0);
    }

    /* Back again: found within a minute, and then everything goes without a pause, in order. */
    assert_int_equal(server_start(&srv, port, answer, &ans), 0);
    const int64_t back = now_ns;
    while (!rig_all_acked(g)) {
        const int64_t wake = settle(g);
        if (!rig_all_acked(g))
            now_ns = MAX(wake, now_ns + NS_PER_MS);
        assert_true(now_ns - back <= 62 * NS_PER_SEC);
    }
    (void)settle(g);
    assert_int_equal(gauge_get(&st->failing_since_wall_ns), 0);
    for (unsigned k = 0; k < KEYS; k++) {
        for (unsigned i = 0; i < n[k]; i++)
            assert_int_equal(rig_times(&srv, key[k], i), 1);
        assert_int_equal(rig_ledger(g, key[k]).queued, 0);
        rig_assert_balance(g, key[k]);
    }
    end(g);
    server_stop(&srv);
    free(g);
}

/* --- one key --- */

/* Lines of both keys each 5 s, so that "others are accepted" holds. */
static unsigned n_well, n_sick;
static int64_t next_lines_ns;

static void add_both(struct rig *g)
{
    if (now_ns < next_lines_ns)
        return;
    next_lines_ns = now_ns + 5 * NS_PER_SEC;
    add_lines(g, "well", n_well++, 1);
    add_lines(g, "sick", n_sick++, 1);
}

static void until_time_with_lines(struct rig *g, int64_t when_ns)
{
    while (now_ns < when_ns) {
        add_both(g);
        until_time(g, MIN(when_ns, next_lines_ns), NULL);
    }
}

static void test_a_key_is_parked_after_half_a_minute(void **state)
{
    (void)state;
    static const int statuses[] = { 429, 401 };
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct rig *g = calloc(1, sizeof(*g));
        struct server srv;
        static struct answers ans;
        assert_non_null(g);
        ans = (struct answers){ .sick_status = statuses[i] };
        assert_int_equal(server_start(&srv, 0, answer, &ans), 0);
        begin(g, srv.port);
        n_well = n_sick = 0;
        next_lines_ns = 0;
        rig_open_queue(g);
        start(g);
        const int64_t begun = now_ns;
        until_time_with_lines(g, begun + 29 * NS_PER_SEC);
        assert_int_equal(rig_ledger(g, "sick").parked, 0);
        until_time_with_lines(g, begun + 40 * NS_PER_SEC);
        assert_true(rig_ledger(g, "sick").parked >= 7);
        assert_int_equal(rig_ledger(g, "well").queued, 0);
        assert_int_equal(counter_get(&stats.outputs[g->conf.index].keys_held[0].n), 1);
        until_time_with_lines(g, begun + HOUR / 6);
        /* Each minute when it is held; between half a second and a minute when it backs off. */
        if (statuses[i] == 401)
            assert_in_range(ans.n_sick, 9, 12);
        else
            assert_in_range(ans.n_sick, 10, 60);
        for (unsigned k = 1; k < ans.n_sick; k++)
            assert_true(ans.sick_at[k] - ans.sick_at[k - 1] <= 66 * NS_PER_SEC);
        rig_assert_balance(g, "sick");

        ans.sick_status = 0;
        until_time(g, now_ns + 130 * NS_PER_SEC, NULL);
        const struct rig_ledger l = rig_ledger(g, "sick");
        assert_int_equal(l.delivered, n_sick);
        assert_int_equal(l.parked + l.queued, 0);
        for (unsigned k = 0; k < n_sick; k++)
            assert_true(rig_times(&srv, "sick", k) >= 1);
        for (unsigned k = 0; k < n_well; k++)
            assert_int_equal(rig_times(&srv, "well", k), 1);
        end(g);
        server_stop(&srv);
        free(g);
    }
}

/* "Come back in …": kept to the second, an hour at most. */
static void test_retry_after(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        int64_t least_s, most_s;
    } cases[] = {
        { "Retry-After: 90\r\n", 90, 91 },
        { "Retry-After: 3600\r\n", 3600, 3601 },
        { "Retry-After: 1000000\r\n", 3600, 3601 },
        { "Retry-After: 0\r\n", 0, 60 },
        { "Retry-After: -5\r\n", 0, 60 },
        { "Retry-After: soon\r\n", 0, 60 },
        { "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 0, 60 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *g = calloc(1, sizeof(*g));
        struct server srv;
        static struct answers ans;
        assert_non_null(g);
        ans = (struct answers){ .sick_status = 503, .headers = cases[i].headers };
        assert_int_equal(server_start(&srv, 0, answer, &ans), 0);
        begin(g, srv.port);
        rig_lines(g, "sick", "sick", 0, 1);
        start(g);
        until_time(g, now_ns + NS_PER_MS, NULL);
        assert_int_equal(ans.n_sick, 1);
        const int64_t first = now_ns;
        ans.sick_status = 0;
        while (ans.n_sick == 1)
            until_time(g, now_ns + NS_PER_SEC / 4, NULL);
        assert_in_range(ans.sick_at[1] - first, MAX(cases[i].least_s * NS_PER_SEC - 10 * NS_PER_MS, 0),
                        cases[i].most_s * NS_PER_SEC);
        end(g);
        server_stop(&srv);
        free(g);
    }
}

/* A clock that jumps by a day, forwards: whatever was waited for is due, and nothing is lost of it. */
static void test_a_jump_of_the_clock(void **state)
{
    (void)state;
    struct rig *g = calloc(1, sizeof(*g));
    struct server srv;
    static struct answers ans;
    assert_non_null(g);
    ans = (struct answers){ .sick_status = 401 };
    assert_int_equal(server_start(&srv, 0, answer, &ans), 0);
    begin(g, srv.port);
    rig_lines(g, "sick", "sick", 0, 5);
    rig_lines(g, "well", "well", 0, 5);
    start(g);
    (void)settle(g);
    ans.sick_status = 0;
    now_ns += 24 * HOUR;
    (void)settle(g);
    assert_int_equal(rig_ledger(g, "sick").delivered, 5);
    assert_true(rig_all_acked(g));
    end(g);
    server_stop(&srv);
    free(g);
}

int main(void)
{
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* threads are running: nothing good comes after a failure */
    (void)toy_join_ops;
    (void)toy_setup_ops;
    (void)toy_local_ops;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_day_without_a_server),
        cmocka_unit_test(test_a_key_is_parked_after_half_a_minute),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_a_jump_of_the_clock),
    };
    if (getenv("TAILRACE_TEST_LOG") == NULL)
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    return cmocka_run_group_tests_name("deliver/hours", tests, NULL, NULL);
}
