/*
 * Goal: what is in the queue reaches the server, whatever the server does on the way, and nothing is acknowledged before.
 * Method: a real queue and sender against a scripted server; waiting times are shortened, nothing else is.
 */
#include "tests/unit/deliver/rig.h"

#include <fcntl.h>

#include "agent/queue/fs.h"

struct script {
    const struct server_answer *steps; /* then 204 for ever */
    size_t n, at;
    struct rig *g;
    pthread_mutex_t *lock; /* the server's, held while it is asked for an answer */
};

static struct server_answer play(void *ctx, const struct server_request *req)
{
    struct script *s = ctx;
    (void)req;
    if (s->at < s->n)
        return s->steps[s->at++];
    return (struct server_answer){ .status = 204 };
}

static void run_to_end(struct rig *g)
{
    if (g->s == NULL)
        rig_start(g);
    rig_until(rig_all_acked(g));
    rig_settle(g);
}

static void test_in_order(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct script sc = { 0 };
    assert_int_equal(server_start(&srv, 0, play, &sc), 0);
    rig_init(&g, &toy_ops, srv.port);
    for (unsigned i = 0; i < 20; i++)
        rig_lines(&g, "a", "a", i * 10, 10);
    run_to_end(&g);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(rig_times(&srv, "a", i), 1);
    assert_string_equal(srv.requests[0]->key, "a");
    const struct rig_ledger l = rig_ledger(&g, "a");
    assert_int_equal(l.accepted, 200);
    assert_int_equal(l.delivered, 200);
    assert_int_equal(l.queued, 0);
    struct output_stats *st = &stats.outputs[g.conf.index];
    assert_int_equal(rig_code(st->requests, "204"), 20);
    assert_int_equal(gauge_get(&st->up), 1);
    rig_until(gauge_get(&st->oldest_unsent_wall_ns) == 0);
    rig_until(!queue_has_cursor_news(g.q));
    /* What comes later is sent as well. */
    rig_lines(&g, "a", "a", 500, 1);
    run_to_end(&g);
    assert_int_equal(rig_times(&srv, "a", 500), 1);
    rig_deinit(&g);
    server_stop(&srv);
}

/* Each of these, then yes: all lines arrive and each frame is asked for once more at least. */
static const struct {
    const char *name;
    struct server_answer step;
    const char *code;
} faults[] = {
    { "500", { .status = 500, .body = "no" }, "500" },
    { "503", { .status = 503, .body = "no", .headers = "Retry-After: 0\r\n" }, "503" },
    { "429", { .status = 429, .body = "slow down" }, "429" },
    { "408", { .status = 408 }, "408" },
    { "401", { .status = 401, .body = "who are you?" }, "401" },
    { "404", { .status = 404 }, "404" },
    { "200 from a stranger", { .status = 200, .body = "<html>" }, "200" },
    { "redirect", { .status = 302, .headers = "Location: http://127.0.0.1:1/\r\n" }, "302" },
    { "reset", { .act = ACT_RESET }, "reset" },
    { "cut reply", { .act = ACT_CUT, .status = 207, .body = "dd" }, "reset" },
    { "garbage", { .act = ACT_GARBAGE }, "garbage" },
    { "huge reply", { .act = ACT_HUGE }, "200" },
    { "items of another number", { .status = 207, .body = "d" }, "207" },
};

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct rig g;
        struct server srv;
        const struct server_answer steps[] = { faults[i].step, faults[i].step };
        struct script sc = { .steps = steps, .n = 2 };
        assert_int_equal(server_start(&srv, 0, play, &sc), 0);
        rig_init(&g, &toy_ops, srv.port);
        const uint64_t before = rig_code(stats.outputs[g.conf.index].requests, faults[i].code);
        const struct rig_ledger l0 = rig_ledger(&g, "f");
        rig_lines(&g, "f", "f", 0, 5);
        run_to_end(&g);
        if (rig_code(stats.outputs[g.conf.index].requests, faults[i].code) - before != 2)
            fail_msg("%s: counted %llu", faults[i].name,
                     (unsigned long long)rig_code(stats.outputs[g.conf.index].requests, faults[i].code));
        assert_int_equal(rig_times(&srv, "f", 0), 3);
        assert_int_equal(rig_ledger(&g, "f").delivered - l0.delivered, 5);
        rig_assert_balance(&g, "f");
        rig_deinit(&g);
        server_stop(&srv);
    }
}

static void test_retry_after(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    const struct server_answer steps[] = { { .status = 429, .headers = "Retry-After: 1\r\n" } };
    struct script sc = { .steps = steps, .n = 1 };
    assert_int_equal(server_start(&srv, 0, play, &sc), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "a", "a", 0, 1);
    const int64_t begun = clock_mono_ns();
    run_to_end(&g);
    assert_true(clock_mono_ns() - begun >= NS_PER_SEC - 20 * NS_PER_MS); /* and not the 20 ms of the back-off */
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_refused_then_up(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct script sc = { 0 };
    const uint16_t port = server_free_port();
    rig_init(&g, &toy_ops, port);
    for (unsigned i = 0; i < 50; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "k%u", i % 5);
        rig_lines(&g, key, key, i, 1);
    }
    rig_start(&g);
    struct output_stats *st = &stats.outputs[g.conf.index];
    rig_until(rig_code(st->requests, "refused") >= 30);
    assert_true(gauge_get(&st->failing_since_wall_ns) > 0);
    assert_int_equal(gauge_get(&st->up), 0);
    assert_true(queue_acked_seq(g.q) + 50 <= g.last_seq);
    /* One at a time asks whether it is back, not one for each key. */
    assert_true(gauge_get(&st->inflight) <= 1);
    assert_int_equal(server_start(&srv, port, play, &sc), 0);
    run_to_end(&g);
    assert_int_equal(gauge_get(&st->failing_since_wall_ns), 0);
    for (unsigned i = 0; i < 50; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "k%u", i % 5);
        assert_int_equal(rig_times(&srv, key, i), 1);
    }
    rig_deinit(&g);
    server_stop(&srv);
}

/* The server reads and never answers: the rest of the output's keys go on when one of them does that. */
static struct server_answer hang_one(void *ctx, const struct server_request *req)
{
    unsigned *hung = ctx;
    if (strcmp(req->key, "slow") == 0 && (*hung)++ < 2)
        return (struct server_answer){ .act = ACT_HANG };
    return (struct server_answer){ .status = 204 };
}

static void test_hanging_key(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    unsigned hung = 0;
    assert_int_equal(server_start(&srv, 0, hang_one, &hung), 0);
    rig_init(&g, &toy_ops, srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    g.conf.http.timeout_ns = 300 * NS_PER_MS;
    rig_lines(&g, "slow", "slow", 0, 1);
    rig_lines(&g, "slow", "slow", 1, 1);
    for (unsigned i = 0; i < 40; i++)
        rig_lines(&g, "b", "b", i, 1);
    run_to_end(&g);
    assert_int_equal(rig_code(stats.outputs[g.conf.index].requests, "timeout"), 2);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(rig_times(&srv, "b", i), 1);
    rig_deinit(&g);
    server_stop(&srv);
}

/* The only key that there was is never answered, so the server counts as away; then others come, and must be asked with. */
static struct server_answer hang_always(void *ctx, const struct server_request *req)
{
    (void)ctx;
    return strcmp(req->key, "slow") == 0 ? (struct server_answer){ .act = ACT_HANG } : (struct server_answer){ .status = 204 };
}

static void test_a_hanging_key_was_first(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, hang_always, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    g.conf.http.timeout_ns = 100 * NS_PER_MS;
    for (unsigned i = 0; i < 5; i++)
        rig_lines(&g, "slow", "slow", i, 1);
    rig_start(&g);
    rig_until(rig_code(stats.outputs[g.conf.index].requests, "timeout") >= 2);
    for (unsigned i = 0; i < 10; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "b%u", i);
        rig_lines(&g, key, key, i, 1);
    }
    for (unsigned i = 0; i < 10; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "b%u", i);
        rig_until(rig_ledger(&g, key).delivered == 1);
    }
    assert_int_equal(rig_ledger(&g, "slow").delivered, 0);
    rig_deinit(&g);
    server_stop(&srv);
}

/* --- several URLs --- */

static void test_fail_over(void **state)
{
    (void)state;
    struct rig g;
    struct server one, two;
    struct script sc1 = { 0 }, sc2 = { 0 };
    const uint16_t port = server_free_port();
    assert_int_equal(server_start(&two, 0, play, &sc2), 0);
    rig_init(&g, &toy_ops, port);
    rig_url(&g, 1, two.port);
    rig_lines(&g, "a", "a", 0, 1);
    run_to_end(&g);
    assert_int_equal(rig_times(&two, "a", 0), 1);
    /* It is not failing: the other one took over. */
    assert_int_equal(gauge_get(&stats.outputs[g.conf.index].failing_since_wall_ns), 0);
    /* And it goes back to the first when that is there again. */
    assert_int_equal(server_start(&one, port, play, &sc1), 0);
    for (unsigned i = 1; server_count(&one) == 0 && i < 2000; i++) {
        rig_lines(&g, "a", "a", i, 1);
        run_to_end(&g);
        rig_sleep(NS_PER_MS);
    }
    assert_true(server_count(&one) > 0);
    rig_deinit(&g);
    server_stop(&one);
    server_stop(&two);
}

static void test_fail_over_on_5xx(void **state)
{
    (void)state;
    struct rig g;
    struct server one, two;
    static const struct server_answer bad[64] = { [0 ... 63] = { .status = 503 } };
    struct script sc1 = { .steps = bad, .n = 64 }, sc2 = { 0 };
    assert_int_equal(server_start(&one, 0, play, &sc1), 0);
    assert_int_equal(server_start(&two, 0, play, &sc2), 0);
    rig_init(&g, &toy_ops, one.port);
    rig_url(&g, 1, two.port);
    for (unsigned i = 0; i < 10; i++)
        rig_lines(&g, "a", "a", i, 1);
    run_to_end(&g);
    unsigned n = 0;
    for (unsigned i = 0; i < 10; i++)
        n += rig_times(&two, "a", i);
    assert_int_equal(n, 10);
    rig_deinit(&g);
    server_stop(&one);
    server_stop(&two);
}

/* --- too large, refused for something inside --- */

static unsigned count_lines(const struct server_request *req)
{
    unsigned n = 0;
    for (size_t i = 0; i < req->body_len; i++)
        n += req->body[i] == '\n';
    return n;
}

static bool has_line(const struct server_request *req, unsigned id)
{
    char needle[32];
    (void)snprintf(needle, sizeof(needle), " %u words", id);
    return memmem(req->body, req->body_len, needle, strlen(needle)) != NULL;
}

static struct server_answer small_only(void *ctx, const struct server_request *req)
{
    const unsigned *most = ctx;
    if (count_lines(req) > *most || has_line(req, 7))
        return (struct server_answer){ .status = 413, .body = "too large" };
    return (struct server_answer){ .status = 204 };
}

static void test_split(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    unsigned most = 3;
    assert_int_equal(server_start(&srv, 0, small_only, &most), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "s", "s", 0, 20);
    run_to_end(&g);
    const struct rig_ledger l = rig_ledger(&g, "s");
    assert_int_equal(l.delivered, 19);
    assert_int_equal(l.dead, 1); /* line 7, alone, was too large */
    assert_int_equal(rig_code(stats.outputs[g.conf.index].dead, "too_large"), 1);
    assert_true(gauge_get(&stats.outputs[g.conf.index].last_dead_wall_ns) > 0);
    rig_assert_balance(&g, "s");
    rig_deinit(&g);
    server_stop(&srv);
}

static struct server_answer no_thirteen(void *ctx, const struct server_request *req)
{
    (void)ctx;
    if (has_line(req, 13) || has_line(req, 2))
        return (struct server_answer){ .status = 400, .body = "cannot parse" };
    return (struct server_answer){ .status = 204 };
}

static void test_bisect(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, no_thirteen, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "bi", "bi", 0, 100);
    run_to_end(&g);
    const struct rig_ledger l = rig_ledger(&g, "bi");
    assert_int_equal(l.delivered, 98);
    assert_int_equal(l.dead, 2);
    assert_int_equal(l.queued, 0);
    rig_deinit(&g);
    server_stop(&srv);
}

/* Everything is refused: the configuration is wrong, nothing dies, and it goes on by itself when that is mended. */
static struct server_answer refuse_all(void *ctx, const struct server_request *req)
{
    const atomic_bool *is_mended = ctx;
    (void)req;
    return atomic_load(is_mended) ? (struct server_answer){ .status = 204 }
                                  : (struct server_answer){ .status = 400, .body = "nothing of that" };
}

/* is_slow: the halves take longer than a key may be refused before it is told of. */
static void all_refused_holds(bool is_slow)
{
    static const unsigned sizes[] = { 1, 2, 9, 500 };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct rig g;
        struct server srv;
        atomic_bool is_mended = false;
        assert_int_equal(server_start(&srv, 0, refuse_all, &is_mended), 0);
        rig_init(&g, &toy_ops, srv.port);
        if (is_slow)
            deliver_timing.park_after_ns = 1;
        const struct rig_ledger l0 = rig_ledger(&g, "all");
        rig_lines(&g, "all", "all", 0, sizes[i]);
        rig_start(&g);
        rig_until(rig_code(stats.outputs[g.conf.index].keys_held, "status_400") == 1);
        assert_true(queue_acked_seq(g.q) < g.last_seq);
        assert_int_equal(rig_ledger(&g, "all").dead, l0.dead);
        atomic_store(&is_mended, true);
        run_to_end(&g);
        assert_int_equal(rig_ledger(&g, "all").delivered - l0.delivered, sizes[i]);
        assert_int_equal(rig_ledger(&g, "all").dead, l0.dead);
        assert_int_equal(rig_code(stats.outputs[g.conf.index].keys_held, "status_400"), 0);
        rig_deinit(&g);
        server_stop(&srv);
    }
}

static void test_all_refused_holds(void **state)
{
    (void)state;
    all_refused_holds(false);
}

static void test_all_refused_slowly_holds(void **state)
{
    (void)state;
    all_refused_holds(true);
}

/* One frame of nothing but bad lines between good ones: they tell that it is not the configuration. */
static struct server_answer refuse_key_bad(void *ctx, const struct server_request *req)
{
    (void)ctx;
    return memmem(req->body, req->body_len, "bad ", 4) != NULL ? (struct server_answer){ .status = 400 }
                                                               : (struct server_answer){ .status = 204 };
}

static void test_bad_frame_among_good(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, refuse_key_bad, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    rig_lines(&g, "lane", "bad", 0, 2);
    rig_start(&g);
    /* Until one is accepted after the bad ones were refused. */
    for (unsigned i = 0; i < 2000 && (i < 5 || !rig_all_acked(&g)); i++) {
        rig_lines(&g, "lane", "good", i, 2);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "bad").dead, 2);
    assert_int_equal(rig_ledger(&g, "good").delivered, rig_ledger(&g, "good").accepted);
    rig_deinit(&g);
    server_stop(&srv);
}

/* A server that closes before it has read the body means "too large", when others pass. */
static struct server_answer reset_large(void *ctx, const struct server_request *req)
{
    (void)ctx;
    return count_lines(req) > 4 ? (struct server_answer){ .act = ACT_RESET } : (struct server_answer){ .status = 204 };
}

static void test_resets_split(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, reset_large, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "r", "r", 0, 16);
    rig_start(&g);
    for (unsigned i = 0; i < 4000 && !rig_all_acked(&g); i++) {
        if (i % 20 == 0 && i < 1000)
            rig_lines(&g, "r", "r", 1000 + i, 1);
        rig_sleep(NS_PER_MS);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "r").dead, 0);
    rig_assert_balance(&g, "r");
    assert_int_equal(rig_ledger(&g, "r").queued, 0);
    rig_deinit(&g);
    server_stop(&srv);
}

/* The same with nothing else to compare with: every frame is too large, or the server is away. */
struct size_limit {
    atomic_size_t bytes;
};

static struct server_answer reset_above(void *ctx, const struct server_request *req)
{
    const struct size_limit *l = ctx;
    return req->body_len > atomic_load(&l->bytes) ? (struct server_answer){ .act = ACT_RESET }
                                                  : (struct server_answer){ .status = 204 };
}

static void put_fat_lines(struct rig *g, unsigned n, unsigned bytes)
{
    struct buf wire;
    buf_init(&wire, 64 * MIB);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(buf_printf(&wire, "fat %u %0*u\n", i, (int)bytes, i), 0);
    rig_frame(g, "fat", buf_slice(&wire), n, (uint32_t)wire.len, "fat");
    buf_deinit(&wire);
}

static void test_resets_of_the_only_frame(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct size_limit limit = { 200 * KIB };
    assert_int_equal(server_start(&srv, 0, reset_above, &limit), 0);
    rig_init(&g, &toy_ops, srv.port);
    put_fat_lines(&g, 60, 10000);
    run_to_end(&g);
    const struct rig_ledger l = rig_ledger(&g, "fat");
    assert_int_equal(l.delivered, 60);
    assert_int_equal(l.dead, 0);
    for (unsigned i = 0; i < 60; i++)
        assert_true(rig_times(&srv, "fat", i) >= 1);
    rig_deinit(&g);
    server_stop(&srv);
}

/* A server that resets everything is away, not choosy: nothing dies of it, and pieces do not become crumbs. */
static void test_resets_of_everything(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct size_limit limit = { 0 };
    assert_int_equal(server_start(&srv, 0, reset_above, &limit), 0);
    rig_init(&g, &toy_ops, srv.port);
    put_fat_lines(&g, 60, 10000);
    put_fat_lines(&g, 1, 100000);
    rig_start(&g);
    rig_until(server_count(&srv) >= 100);
    assert_int_equal(rig_ledger(&g, "fat").queued, 61);
    atomic_store(&limit.bytes, SIZE_MAX);
    const size_t before = server_count(&srv);
    run_to_end(&g);
    assert_true(server_count(&srv) - before <= 20);
    const struct rig_ledger l = rig_ledger(&g, "fat");
    assert_int_equal(l.dead, 0);
    assert_int_equal(l.queued, 0);
    rig_assert_balance(&g, "fat");
    rig_deinit(&g);
    server_stop(&srv);
}

/* --- items --- */

/* Letters by id: 1 is dead, 2 is retried twice, 3 is text once, 4 is held twice; by line, in the order of the body. */
struct item_script {
    unsigned seen[5];
    bool had_text;
};

static struct server_answer judge_lines(void *ctx, const struct server_request *req)
{
    struct item_script *s = ctx;
    struct server_answer a = { .status = 207 };
    size_t n = 0;
    bool is_fine = true;
    for (const char *p = req->body; p < req->body + req->body_len; p = strchr(p, '\n') + 1) {
        unsigned id = 0;
        char key[16], words[64];
        assert_int_equal(sscanf(p, "%15s %u %63s", key, &id, words), 3);
        const bool is_text = strncmp(words, "T:", 2) == 0;
        char c = 'd';
        if (id == 1)
            c = 'x';
        else if (id == 2 && s->seen[2]++ < 2)
            c = 'r';
        else if (id == 3 && !is_text)
            c = 't';
        else if (id == 4 && s->seen[4]++ < 2)
            c = 'h';
        s->had_text |= is_text;
        is_fine &= c == 'd';
        a.body[n++] = c;
    }
    return is_fine ? (struct server_answer){ .status = 204 } : a;
}

static void test_items(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct item_script sc = { 0 };
    assert_int_equal(server_start(&srv, 0, judge_lines, &sc), 0);
    rig_init(&g, &toy_ops, srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    const uint64_t altered = counter_get(&stats.inputs[0].altered[ALTER_REFUSED_MAPPING]);
    struct buf wire;
    buf_init(&wire, MIB);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(buf_printf(&wire, "index%u %u words-of-%u\n", i % 3, i, i), 0);
    rig_frame(&g, "", buf_slice(&wire), 10, (uint32_t)wire.len, "items");
    buf_deinit(&wire);
    run_to_end(&g);
    const struct rig_ledger l = rig_ledger(&g, "items");
    assert_int_equal(l.delivered, 9);
    assert_int_equal(l.dead, 1);
    assert_true(sc.had_text);
    assert_int_equal(counter_get(&stats.inputs[0].altered[ALTER_REFUSED_MAPPING]) - altered, 1);
    /* Lines that were done are not sent again. */
    for (unsigned i = 5; i < 10; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "index%u", i % 3);
        assert_int_equal(rig_times(&srv, key, i), 1);
    }
    assert_int_equal(rig_times(&srv, "index2", 2), 3);
    assert_int_equal(rig_times(&srv, "index1", 1), 1);
    assert_int_equal(rig_times(&srv, "index0", 3), 2);
    rig_deinit(&g);
    server_stop(&srv);
}

/* --- one refused key --- */

struct gate {
    atomic_bool is_open;
    const char *key;
    int status;
};

static struct server_answer gated(void *ctx, const struct server_request *req)
{
    const struct gate *gate = ctx;
    if (strcmp(req->key, gate->key) == 0 && !atomic_load(&gate->is_open))
        return (struct server_answer){ .status = gate->status, .body = "not you" };
    return (struct server_answer){ .status = 204 };
}

/* The order of a key's lines in the requests after the first so many; with one request at a time it is exact. */
static void assert_ascending(struct server *srv, const char *key, size_t from)
{
    long last = -1;
    pthread_mutex_lock(&srv->lock);
    for (size_t i = from; i < srv->n_requests; i++) {
        const struct server_request *r = srv->requests[i];
        if (strcmp(r->key, key) != 0)
            continue;
        const long id = strtol(strchr(r->body, ' '), NULL, 10);
        assert_true(id >= last);
        last = id > last ? id : last;
    }
    pthread_mutex_unlock(&srv->lock);
}

static void key_isolation(int status)
{
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "B", .status = status };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    g.conf.http.concurrency = 1;
    const struct rig_ledger a0 = rig_ledger(&g, "A"), b0 = rig_ledger(&g, "B");
    rig_start(&g);
    unsigned id = 0;
    for (; id < 30; id++) {
        rig_lines(&g, "B", "B", id, 1);
        rig_lines(&g, "A", "A", id, 1);
        rig_sleep(10 * NS_PER_MS);
    }
    /* The cursor passes B's lines, which are parked, and A has all of its own. */
    for (unsigned i = 0; i < 2000 && !rig_all_acked(&g); i++) {
        rig_lines(&g, "A", "A", 1000 + i, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "B").parked - b0.parked, 30);
    assert_int_equal(rig_ledger(&g, "B").queued, 0);
    assert_int_equal(rig_ledger(&g, "A").delivered - a0.delivered, rig_ledger(&g, "A").accepted - a0.accepted);
    rig_assert_balance(&g, "B");

    const size_t from = server_count(&srv);
    atomic_store(&gate.is_open, true);
    for (; id < 40; id++)
        rig_lines(&g, "B", "B", id, 1);
    rig_until(rig_ledger(&g, "B").delivered - b0.delivered == 40);
    rig_until(rig_ledger(&g, "B").parked == 0);
    run_to_end(&g);
    assert_ascending(&srv, "B", from);
    for (unsigned i = 0; i < 40; i++) {
        unsigned n = 0;
        pthread_mutex_lock(&srv.lock);
        char needle[32];
        (void)snprintf(needle, sizeof(needle), "B %u ", i);
        for (size_t k = from; k < srv.n_requests; k++)
            n += strncmp(srv.requests[k]->body, needle, strlen(needle)) == 0;
        pthread_mutex_unlock(&srv.lock);
        assert_true(n == 1 || (n == 2 && i == 0)); /* one may have been under way as the gate opened */
    }
    uint64_t iter = 0;
    struct frame_head head;
    rig_until(queue_parked_next(g.q, &(uint64_t){ 0 }, &head) == 0);
    (void)iter;
    rig_assert_balance(&g, "B");
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_key_held(void **state)
{
    (void)state;
    key_isolation(401);
}

static void test_key_backing_off(void **state)
{
    (void)state;
    key_isolation(429);
}

/* Parked, stopped, started again: they are found and go out when the key is accepted. */
static void test_parked_over_restart(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "P", .status = 403 };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    g.conf.http.concurrency = 1;
    rig_start(&g);
    for (unsigned i = 0; i < 5; i++)
        rig_lines(&g, "P", "P", i, 1);
    for (unsigned i = 0; i < 4000 && !rig_all_acked(&g); i++) {
        rig_lines(&g, "A", "A", i, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "P").parked, 5);
    rig_stop(&g, NS_PER_SEC);
    atomic_store(&gate.is_open, true);
    const size_t from = server_count(&srv);
    rig_start(&g);
    rig_until(rig_ledger(&g, "P").delivered == 5);
    assert_int_equal(rig_ledger(&g, "P").parked, 0);
    assert_ascending(&srv, "P", from);
    rig_deinit(&g);
    server_stop(&srv);
}

/* When the whole output is down nothing is parked, however long. */
static void test_down_parks_nothing(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "Z", .status = 503 };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    for (unsigned i = 0; i < 5; i++)
        rig_lines(&g, "Z", "Z", i, 1);
    rig_start(&g);
    rig_sleep(3 * deliver_timing.park_after_ns);
    assert_int_equal(rig_ledger(&g, "Z").parked, 0);
    assert_int_equal(rig_ledger(&g, "Z").queued, 5);
    atomic_store(&gate.is_open, true);
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "Z").delivered, 5);
    rig_deinit(&g);
    server_stop(&srv);
}

/* A key that has used up its share loses its oldest lines, counted. */
static void test_key_quota(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "Q", .status = 401 };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    g.conf.queue.key_share_percent = 1; /* of 64 MiB */
    rig_start(&g);
    for (unsigned i = 0; i < 40; i++)
        rig_lines(&g, "Q", "Q", i * 2000, 2000); /* 48 KiB each, about 2 MiB */
    for (unsigned i = 0; i < 4000 && !rig_all_acked(&g); i++) {
        rig_lines(&g, "A", "A", i, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    const struct output_row *row = rig_row(&g, "Q");
    rig_until(counter_get(&row->lost_lines[LOST_KEY_QUOTA]) > 0);
    const uint64_t lost = counter_get(&row->lost_lines[LOST_KEY_QUOTA]);
    assert_int_equal(lost % 2000, 0);
    rig_assert_balance(&g, "Q");
    atomic_store(&gate.is_open, true);
    rig_until(rig_ledger(&g, "Q").parked == 0);
    assert_int_equal(rig_ledger(&g, "Q").delivered + lost, 80000);
    assert_int_equal(rig_times(&srv, "Q", 40 * 2000 - 1) > 0, true); /* the newest are there */
    rig_deinit(&g);
    server_stop(&srv);
}

#define GIVEN_UP_MAX 16 /* of parked frames while that cannot be written: agent/queue/core.h */
static atomic_bool is_dead_refused;
static atomic_uint n_dead_refused;

static int refusing_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    const size_t n = strlen(name);
    if (!atomic_load(&is_dead_refused) || (flags & O_CREAT) == 0 || n < 5 || strcmp(name + n - 5, ".dead") != 0)
        return fs_real.open(dir_fd, name, flags, mode);
    atomic_fetch_add(&n_dead_refused, 1);
    return -ENOSPC;
}

/* While its losses cannot be counted on disk it loses no more than a few, and no more than its share demands when they can. */
static void test_key_quota_without_dead(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "Q", .status = 401 };
    struct fs_ops ops = fs_real;
    ops.open = refusing_open;
    fs_set_ops(&ops);
    atomic_store(&is_dead_refused, true);
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    g.conf.queue.key_share_percent = 1; /* of 64 MiB: 14 frames */
    rig_start(&g);
    for (unsigned i = 0; i < 14 + GIVEN_UP_MAX + 2; i++)
        rig_lines(&g, "Q", "Q", i * 2000, 2000);
    const struct output_row *row = rig_row(&g, "Q");
    unsigned n = 0;
    for (; n < 4000 && counter_get(&row->lost_lines[LOST_KEY_QUOTA]) < GIVEN_UP_MAX * 2000; n++) {
        rig_lines(&g, "A", "A", n, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    const unsigned refused = atomic_load(&n_dead_refused);
    rig_until(atomic_load(&n_dead_refused) > refused + 10);
    assert_int_equal(counter_get(&row->lost_lines[LOST_KEY_QUOTA]), GIVEN_UP_MAX * 2000);
    atomic_store(&is_dead_refused, false);
    for (; n < 8000 && !rig_all_acked(&g); n++) {
        rig_lines(&g, "A", "A", n, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    rig_assert_balance(&g, "Q");
    assert_in_range(counter_get(&row->lost_lines[LOST_KEY_QUOTA]), GIVEN_UP_MAX * 2000, (GIVEN_UP_MAX + 4) * 2000);
    rig_deinit(&g);
    fs_set_ops(NULL);
    server_stop(&srv);
}

/* Items of one index are refused, the others of the same frames flow; then what is left of each frame is parked. */
static struct server_answer hold_index(void *ctx, const struct server_request *req)
{
    const atomic_bool *is_open = ctx;
    struct server_answer a = { .status = 207 };
    size_t n = 0;
    bool is_fine = true;
    for (const char *p = req->body; p < req->body + req->body_len; p = strchr(p, '\n') + 1) {
        const bool is_held = strncmp(p, "held ", 5) == 0 && !atomic_load(is_open);
        a.body[n++] = is_held ? 'h' : 'd';
        is_fine &= !is_held;
    }
    return is_fine ? (struct server_answer){ .status = 204 } : a;
}

static void test_items_parked(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    atomic_bool is_open = false;
    assert_int_equal(server_start(&srv, 0, hold_index, &is_open), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_start(&g);
    unsigned n = 0;
    for (; n < 2000 && (n < 20 || !rig_all_acked(&g)); n++) {
        char wire[200];
        const int len = snprintf(wire, sizeof(wire), "free %u words-a\nheld %u words-b\nfree %u words-c\n", n, n,
                                 n + 5000);
        rig_frame(&g, "", slice_of(wire, (size_t)len), 3, (uint32_t)len, "ix");
        rig_sleep(10 * NS_PER_MS);
    }
    run_to_end(&g);
    struct rig_ledger l = rig_ledger(&g, "ix");
    assert_int_equal(l.delivered, 2 * n);
    assert_int_equal(l.parked, n);
    assert_int_equal(l.queued, 0);
    assert_int_equal(rig_code(stats.outputs[g.conf.index].keys_held, "item_h"), 1);
    atomic_store(&is_open, true);
    rig_until(rig_ledger(&g, "ix").parked == 0);
    l = rig_ledger(&g, "ix");
    assert_int_equal(l.delivered, 3 * n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(rig_times(&srv, "free", i), 1);
    assert_int_equal(rig_code(stats.outputs[g.conf.index].keys_held, "item_h"), 0);
    rig_deinit(&g);
    server_stop(&srv);
}

/* Of one frame lines of a held key are parked, and delivered again, while those of another key are still under way: nothing of
 * the ledger is below zero meanwhile. */
static struct server_answer slow_and_held(void *ctx, const struct server_request *req)
{
    const atomic_bool *takes_held = ctx;
    if (strstr(req->body, "\nslow ") != NULL)
        return (struct server_answer){ .status = 207, .body = "hr" };
    if (strncmp(req->body, "slow ", 5) == 0)
        return (struct server_answer){ .act = ACT_HANG };
    if (strncmp(req->body, "held ", 5) == 0 && !atomic_load(takes_held))
        return (struct server_answer){ .status = 207, .body = "h" };
    return (struct server_answer){ .status = 204 };
}

static void test_parked_before_its_frame_is_done(void **state)
{
    (void)state;
    static const char wire[] = "held 1 words\nslow 1 words\n";
    struct rig g;
    struct server srv;
    atomic_bool takes_held = false;
    assert_int_equal(server_start(&srv, 0, slow_and_held, &takes_held), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_start(&g);
    rig_frame(&g, "", SLICE(wire), 2, sizeof(wire) - 1, "ix");
    struct frame_head head;
    for (unsigned i = 0; i < 4000 && queue_parked_next(g.q, &(uint64_t){ 0 }, &head) == 0; i++) {
        rig_lines(&g, "A", "A", i, 1); /* others are accepted */
        rig_sleep(5 * NS_PER_MS);
    }
    assert_int_equal(queue_parked_next(g.q, &(uint64_t){ 0 }, &head), 1);
    atomic_store(&takes_held, true);
    rig_until(rig_ledger(&g, "ix").delivered == 1);
    rig_until(queue_parked_next(g.q, &(uint64_t){ 0 }, &head) == 0);
    assert_int_equal(rig_ledger(&g, "ix").parked, 0);
    assert_int_equal(rig_ledger(&g, "ix").queued, 1);
    rig_assert_balance(&g, "ix");
    rig_deinit(&g);
    server_stop(&srv);
}

/* --- stop, memory, joining, setup, status --- */

static struct server_answer hang_all(void *ctx, const struct server_request *req)
{
    const atomic_bool *is_open = ctx;
    (void)req;
    return atomic_load(is_open) ? (struct server_answer){ .status = 204 } : (struct server_answer){ .act = ACT_HANG };
}

static void test_stop_and_resend(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    atomic_bool is_open = false;
    assert_int_equal(server_start(&srv, 0, hang_all, &is_open), 0);
    rig_init(&g, &toy_ops, srv.port);
    for (unsigned i = 0; i < 6; i++)
        rig_lines(&g, "w", "w", i * 100, 100);
    rig_start(&g);
    rig_until(server_count(&srv) >= 4);
    const int64_t begun = clock_mono_ns();
    rig_stop(&g, 100 * NS_PER_MS);
    assert_true(clock_mono_ns() - begun < 2 * NS_PER_SEC);
    const size_t before = server_count(&srv);
    assert_int_equal(before, 4);
    atomic_store(&is_open, true);
    rig_start(&g);
    run_to_end(&g);
    /* The same bytes as the first time. */
    for (size_t i = 0; i < before; i++) {
        const struct server_request *r = srv.requests[i];
        unsigned n = 0;
        for (size_t k = before; k < server_count(&srv); k++)
            n += srv.requests[k]->body_len == r->body_len &&
                 memcmp(srv.requests[k]->body, r->body, r->body_len) == 0;
        assert_int_equal(n, 1);
    }
    rig_deinit(&g);
    server_stop(&srv);
}

/* Answers that come while stopping count. */
static void test_stop_waits_for_answers(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct script sc = { 0 };
    assert_int_equal(server_start(&srv, 0, play, &sc), 0);
    rig_init(&g, &toy_ops, srv.port);
    for (unsigned i = 0; i < 200; i++)
        rig_lines(&g, "st", "st", i, 1);
    rig_start(&g);
    rig_until(server_count(&srv) > 20);
    rig_stop(&g, 5 * NS_PER_SEC);
    const size_t sent = server_count(&srv);
    rig_open_queue(&g);
    assert_int_equal(g.recovered_acked > 0, true);
    rig_start(&g);
    run_to_end(&g);
    assert_int_equal(server_count(&srv), 200); /* none twice: all that were answered had been noted */
    assert_true(sent <= 200);
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_memory_bounded(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "M", .status = 503 };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    const unsigned n = 5000;
    for (unsigned i = 0; i < n; i++)
        rig_lines(&g, "M", "M", i * 100, 100); /* 2 KiB each */
    rig_start(&g);
    struct output_stats *st = &stats.outputs[g.conf.index];
    rig_until(rig_code(st->requests, "503") >= 3);
    struct buf text;
    buf_init(&text, MIB);
    assert_int_equal(sender_status(g.s, &text, 5 * NS_PER_SEC), 0);
    assert_int_equal(buf_terminate(&text), 0);
    const char *window = strstr(text.ptr, "\"window_frames\":"), *loaded = strstr(text.ptr, "\"loaded_bytes\":");
    assert_non_null(window);
    assert_non_null(loaded);
    assert_true(strtol(window + 16, NULL, 10) <= WINDOW_FRAMES);
    assert_true(strtol(loaded + 15, NULL, 10) <= (long)(SENDING_ALL_MAX));
    buf_deinit(&text);
    atomic_store(&gate.is_open, true);
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "M").delivered, n * 100);
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_join(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct item_script unused = { 0 };
    (void)unused;
    struct script sc = { 0 };
    assert_int_equal(server_start(&srv, 0, play, &sc), 0);
    rig_init(&g, &toy_join_ops, srv.port);
    for (unsigned i = 0; i < 300; i++)
        rig_lines(&g, "j", "j", i, 1);
    run_to_end(&g);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(rig_times(&srv, "j", i), 1);
    assert_true(server_count(&srv) < 100);
    rig_deinit(&g);
    server_stop(&srv);
}

/* A joined request that is refused for one line inside: only that line dies, once others are taken after its refusal. */
static void test_join_refused(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, no_thirteen, NULL), 0);
    rig_init(&g, &toy_join_ops, srv.port);
    for (unsigned i = 0; i < 50; i++)
        rig_lines(&g, "jr", "jr", i, 1);
    rig_start(&g);
    rig_until(rig_ledger(&g, "jr").delivered == 48);
    unsigned n = 48;
    for (; n < 2000 && !rig_all_acked(&g); n++) { /* the refusals may have been the last that came */
        rig_lines(&g, "jr", "jr", 1000 + n, 1);
        rig_sleep(5 * NS_PER_MS);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "jr").delivered, n);
    assert_int_equal(rig_ledger(&g, "jr").dead, 2);
    rig_deinit(&g);
    server_stop(&srv);
}

/* An answer that waits for others: the server's lock is theirs meanwhile. */
static void let_others(pthread_mutex_t *lock)
{
    pthread_mutex_unlock(lock);
    rig_sleep(NS_PER_MS);
    pthread_mutex_lock(lock);
}

/* 13 is refused when all others were answered: it may be its own fault or the configuration's, so the lane is held and the
 * next line that is taken tells. */
static struct server_answer thirteen_last(void *ctx, const struct server_request *req)
{
    struct script *s = ctx;
    if (!has_line(req, 13))
        return (struct server_answer){ .status = 204 };
    while (rig_ledger(s->g, "last").delivered < s->n)
        let_others(s->lock);
    return (struct server_answer){ .status = 400, .body = "cannot parse" };
}

static void test_refused_as_the_last(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct script sc = { .n = 4, .g = &g, .lock = &srv.lock };
    assert_int_equal(server_start(&srv, 0, thirteen_last, &sc), 0);
    rig_init(&g, &toy_ops, srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    for (unsigned i = 11; i <= 15; i++)
        rig_lines(&g, "last", "last", i, 1);
    rig_start(&g);
    rig_until(rig_code(stats.outputs[g.conf.index].keys_held, "status_400") == 1);
    assert_int_equal(rig_ledger(&g, "last").delivered, 4);
    assert_int_equal(rig_ledger(&g, "last").dead, 0);
    rig_lines(&g, "last", "last", 16, 1);
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "last").delivered, 5);
    assert_int_equal(rig_ledger(&g, "last").dead, 1);
    assert_int_equal(rig_code(stats.outputs[g.conf.index].keys_held, "status_400"), 0);
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_join_items(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct item_script sc = { 0 };
    assert_int_equal(server_start(&srv, 0, judge_lines, &sc), 0);
    rig_init(&g, &toy_join_ops, srv.port);
    deliver_timing.park_after_ns = NS_PER_SEC * 60; /* nothing is parked here */
    for (unsigned i = 0; i < 12; i++)
        rig_lines(&g, "ji", "ji", i, 1);
    run_to_end(&g);
    const struct rig_ledger l = rig_ledger(&g, "ji");
    assert_int_equal(l.delivered, 11);
    assert_int_equal(l.dead, 1);
    for (unsigned i = 5; i < 12; i++)
        assert_int_equal(rig_times(&srv, "ji", i), 1);
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_setup_first(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    const struct server_answer steps[] = { { .status = 503 }, { .status = 403, .body = "no" }, { .status = 200 } };
    struct script sc = { .steps = steps, .n = 3 };
    assert_int_equal(server_start(&srv, 0, play, &sc), 0);
    rig_init(&g, &toy_setup_ops, srv.port);
    g.toy.setup_steps = 2;
    rig_lines(&g, "se", "se", 0, 3);
    run_to_end(&g);
    assert_int_equal(server_count(&srv), 4);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(srv.requests[i]->key, "setup");
        assert_memory_equal(srv.requests[i]->head, "PUT ", 4);
    }
    assert_string_equal(srv.requests[3]->key, "se");
    rig_deinit(&g);
    server_stop(&srv);
}

/* Each step is another try: what the server takes is the last, and the refusals before it are nobody's business. */
static void test_setup_alternatives(void **state)
{
    (void)state;
    static const struct {
        int answers[3];
        unsigned asked;
    } cases[] = {
        { { 200, 0, 0 }, 1 },
        { { 400, 201, 0 }, 2 },
        { { 400, 403, 400 }, 3 }, /* none: the lines go all the same */
        { { 301, 401, 200 }, 3 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig g;
        struct server srv;
        struct server_answer steps[3];
        for (size_t k = 0; k < 3; k++)
            steps[k] = (struct server_answer){ .status = cases[i].answers[k], .body = "words" };
        struct script sc = { .steps = steps, .n = cases[i].asked };
        assert_int_equal(server_start(&srv, 0, play, &sc), 0);
        rig_init(&g, &toy_setup_ops, srv.port);
        g.toy.setup_steps = 3;
        rig_lines(&g, "alt", "alt", 0, 1);
        run_to_end(&g);
        assert_int_equal(server_count(&srv), cases[i].asked + 1);
        assert_int_equal(rig_code(stats.outputs[g.conf.index].keys_held, "setup"), 0);
        assert_int_equal(g.s->deliveries[0].setup_error[0] != '\0', cases[i].asked > 1);
        rig_deinit(&g);
        server_stop(&srv);
    }
}

static void test_concurrency(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    atomic_bool is_open = false;
    assert_int_equal(server_start(&srv, 0, hang_all, &is_open), 0);
    rig_init(&g, &toy_ops, srv.port);
    for (unsigned i = 0; i < 60; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "c%u", i % 6);
        rig_lines(&g, key, key, i, 1);
    }
    rig_start(&g);
    rig_until(server_count(&srv) == 16);
    rig_sleep(50 * NS_PER_MS);
    assert_int_equal(server_count(&srv), 16); /* of the output */
    unsigned of_key = 0;
    pthread_mutex_lock(&srv.lock);
    for (size_t i = 0; i < srv.n_requests; i++)
        of_key += strcmp(srv.requests[i]->key, "c0") == 0;
    pthread_mutex_unlock(&srv.lock);
    assert_true(of_key >= 1 && of_key <= LANE_IN_FLIGHT);
    rig_stop(&g, 0);
    rig_deinit(&g);
    server_stop(&srv);
}

static void test_status(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct gate gate = { .key = "H\"", .status = 401 };
    assert_int_equal(server_start(&srv, 0, gated, &gate), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "H\"", "h", 0, 1);
    rig_start(&g);
    rig_until(rig_code(stats.outputs[g.conf.index].requests, "401") >= 1);
    struct buf text;
    buf_init(&text, MIB);
    assert_int_equal(sender_status(g.s, &text, 5 * NS_PER_SEC), 0);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "{\"toy\":{"));
    assert_non_null(strstr(text.ptr, "\"key\":\"H\\\"\",\"state\":\"held\",\"reason\":\"status_401\",\"error\":\"not you\""));
    assert_int_equal(text.ptr[text.len - 1], '}');
    buf_deinit(&text);
    rig_deinit(&g);
    server_stop(&srv);
}

/* --- outputs on this machine --- */

static void test_local(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, &toy_local_ops, 1);
    for (unsigned i = 0; i < 30; i++)
        rig_lines(&g, "l", "l", i, 1);
    g.toy.fail_next = 3;
    run_to_end(&g);
    rig_stop(&g, NS_PER_SEC);
    struct slice rest = slice_of(g.toy.delivered_text, g.toy.delivered_len);
    for (unsigned i = 0; i < 30; i++) {
        char line[64];
        const int len = snprintf(line, sizeof(line), "l %u words-of-%u\n", i, i);
        assert_true(slice_starts(rest, slice_of(line, (size_t)len)));
        rest = slice_from(rest, (size_t)len);
    }
    assert_int_equal(rest.len, 0);
    assert_true(g.toy.checkpoints >= 1);
    assert_int_equal(rig_ledger(&g, "l").delivered, 30);
    rig_deinit(&g);
}

/* The output has frames that the cursor does not know of: they are not written again. */
static void test_local_resumes(void **state)
{
    (void)state;
    struct rig g;
    rig_init(&g, &toy_local_ops, 1);
    for (unsigned i = 0; i < 10; i++)
        rig_lines(&g, "lr", "lr", i, 1);
    g.toy.delivered_seq = g.toy.durable_seq = g.last_seq - 2;
    run_to_end(&g);
    rig_stop(&g, NS_PER_SEC);
    assert_memory_equal(g.toy.delivered_text, "lr 8 words-of-8\n", 16);
    assert_int_equal(rig_ledger(&g, "lr").delivered, 10);
    rig_deinit(&g);
}

static void test_probe(void **state)
{
    (void)state;
    static const struct {
        int status;
        int want;
        const char *words;
    } cases[] = {
        { 204, 0, "accepted" }, { 400, 0, "reached" }, { 422, 0, "reached" },     { 429, 0, "reached" },
        { 401, 1, "not let in" }, { 403, 1, "allowed" }, { 404, 1, "no such address" }, { 500, 1, "trouble" },
        { 302, 1, "redirect" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig g;
        struct server srv;
        const struct server_answer steps[] = { { .status = cases[i].status, .body = "the server's words" } };
        struct script sc = { .steps = steps, .n = 1 };
        assert_int_equal(server_start(&srv, 0, play, &sc), 0);
        rig_init(&g, &toy_ops, srv.port);
        struct buf text;
        buf_init(&text, MIB);
        assert_int_equal(sender_probe(g.out, &text) < 0, cases[i].want);
        assert_int_equal(buf_terminate(&text), 0);
        assert_non_null(strstr(text.ptr, cases[i].words));
        assert_non_null(strstr(text.ptr, "connected to 127.0.0.1"));
        buf_deinit(&text);
        rig_deinit(&g);
        server_stop(&srv);
    }
    struct rig g;
    rig_init(&g, &toy_ops, server_free_port());
    struct buf text;
    buf_init(&text, MIB);
    assert_true(sender_probe(g.out, &text) < 0);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "nobody listens"));
    buf_deinit(&text);
    rig_deinit(&g);
}

/* --- resets that are nobody's fault --- */

/* Takes "slow" when "small" was reset twice; resets "small" on after that was heard of, and then all is well. */
struct slow_server {
    struct rig g;
    struct server srv;
    bool has_slow;   /* these two under the server's lock */
    unsigned n_small;
};

static struct server_answer reset_beside_a_slow_one(void *ctx, const struct server_request *req)
{
    struct slow_server *s = ctx;
    const struct server_answer yes = { .status = 204 }, reset = { .act = ACT_RESET };
    if (strcmp(req->key, "slow") == 0) {
        s->has_slow = true;
        while (s->n_small < 2)
            let_others(&s->srv.lock);
        return yes;
    }
    while (!s->has_slow || (s->n_small >= 2 && rig_ledger(&s->g, "slow").delivered == 0))
        let_others(&s->srv.lock);
    return s->n_small++ < 6 ? reset : yes;
}

/* A request that was under way before the first reset, and is answered after it, does not tell that others pass. */
static void test_resets_beside_a_slow_request(void **state)
{
    (void)state;
    struct slow_server s = { 0 };
    assert_int_equal(server_start(&s.srv, 0, reset_beside_a_slow_one, &s), 0);
    rig_init(&s.g, &toy_ops, s.srv.port);
    rig_lines(&s.g, "slow", "slow", 0, 1);
    rig_lines(&s.g, "small", "small", 0, 1);
    run_to_end(&s.g);
    const struct rig_ledger l = rig_ledger(&s.g, "small");
    assert_int_equal(l.dead, 0);
    assert_int_equal(l.delivered, 1);
    rig_deinit(&s.g);
    server_stop(&s.srv);
}

static struct server_answer reset_poison(void *ctx, const struct server_request *req)
{
    (void)ctx;
    return strcmp(req->key, "poison") == 0 ? (struct server_answer){ .act = ACT_RESET } : (struct server_answer){ .status = 204 };
}

/* What is reset each time while others come and go between is given up, however small. */
static void test_resets_of_one_line(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    assert_int_equal(server_start(&srv, 0, reset_poison, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "poison", "poison", 0, 1);
    rig_start(&g);
    for (unsigned i = 0; rig_ledger(&g, "poison").dead == 0; i++) {
        rig_lines(&g, "good", "good", i, 1);
        rig_until(rig_ledger(&g, "good").delivered == i + 1);
    }
    run_to_end(&g);
    assert_int_equal(rig_ledger(&g, "poison").dead, 1);
    assert_int_equal(rig_ledger(&g, "good").delivered, rig_ledger(&g, "good").accepted);
    rig_deinit(&g);
    server_stop(&srv);
}

static _Atomic unsigned n_dead_refused;

static int no_dead_files(int dir_fd, const char *name, int flags, mode_t mode)
{
    if ((flags & O_CREAT) == 0 || strstr(name, ".dead") == NULL)
        return fs_real.open(dir_fd, name, flags, mode);
    n_dead_refused++;
    return -ENOSPC;
}

static struct server_answer too_large(void *ctx, const struct server_request *req)
{
    (void)ctx;
    (void)req;
    return (struct server_answer){ .status = 413 };
}

/* The end comes while a dead letter cannot be written: its frame is nobody's any more. */
static void test_stop_with_unwritten_letter(void **state)
{
    (void)state;
    struct rig g;
    struct server srv;
    struct fs_ops ops = fs_real;
    ops.open = no_dead_files;
    fs_set_ops(&ops);
    assert_int_equal(server_start(&srv, 0, too_large, NULL), 0);
    rig_init(&g, &toy_ops, srv.port);
    rig_lines(&g, "late", "late", 0, 1);
    rig_start(&g);
    rig_until(n_dead_refused > 1); /* it was tried again */
    rig_stop(&g, NS_PER_SEC);
    assert_int_equal(budget_of(ACCOUNT_OF(MEMORY_LANES)), 0);
    rig_deinit(&g);
    server_stop(&srv);
    fs_set_ops(NULL);
}

/* --- a frame that goes alone --- */

static struct server_answer reset_at_first(void *ctx, const struct server_request *req)
{
    const unsigned *n = ctx;
    return (struct server_answer){ .act = req->number < *n ? ACT_RESET : ACT_REPLY, .status = 204 };
}

/* The times of its lines are far from those of the others: it overtakes none, and none overtakes it, whatever is reset. */
static void test_alone_is_in_order(void **state)
{
    (void)state;
    for (unsigned n_resets = 0; n_resets < 4; n_resets++) {
        struct rig g;
        struct server srv;
        assert_int_equal(server_start(&srv, 0, reset_at_first, &n_resets), 0);
        rig_init(&g, &toy_ops, srv.port);
        for (unsigned i = 0; i < 4; i++) {
            g.is_alone = i % 2 == 1;
            rig_lines(&g, "a", "a", i, 1);
        }
        rig_start(&g);
        rig_until(rig_all_acked(&g));
        rig_stop(&g, 0);
        for (size_t i = n_resets; i < srv.n_requests; i++) {
            char want[16];
            (void)snprintf(want, sizeof(want), "a %zu ", i - n_resets);
            assert_memory_equal(srv.requests[i]->body, want, strlen(want));
        }
        assert_int_equal(srv.n_requests, 4 + n_resets);
        rig_deinit(&g);
        server_stop(&srv);
    }
}

int main(void)
{
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* threads are running: nothing good comes after a failure */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_refused_then_up),
        cmocka_unit_test(test_hanging_key),
        cmocka_unit_test(test_a_hanging_key_was_first),
        cmocka_unit_test(test_fail_over),
        cmocka_unit_test(test_fail_over_on_5xx),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_bisect),
        cmocka_unit_test(test_all_refused_holds),
        cmocka_unit_test(test_all_refused_slowly_holds),
        cmocka_unit_test(test_bad_frame_among_good),
        cmocka_unit_test(test_alone_is_in_order),
        cmocka_unit_test(test_resets_split),
        cmocka_unit_test(test_resets_of_the_only_frame),
        cmocka_unit_test(test_resets_of_everything),
        cmocka_unit_test(test_resets_beside_a_slow_request),
        cmocka_unit_test(test_resets_of_one_line),
        cmocka_unit_test(test_stop_with_unwritten_letter),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_key_held),
        cmocka_unit_test(test_key_backing_off),
        cmocka_unit_test(test_parked_over_restart),
        cmocka_unit_test(test_down_parks_nothing),
        cmocka_unit_test(test_key_quota),
        cmocka_unit_test(test_key_quota_without_dead),
        cmocka_unit_test(test_items_parked),
        cmocka_unit_test(test_parked_before_its_frame_is_done),
        cmocka_unit_test(test_stop_and_resend),
        cmocka_unit_test(test_stop_waits_for_answers),
        cmocka_unit_test(test_memory_bounded),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_join_refused),
        cmocka_unit_test(test_refused_as_the_last),
        cmocka_unit_test(test_join_items),
        cmocka_unit_test(test_setup_first),
        cmocka_unit_test(test_setup_alternatives),
        cmocka_unit_test(test_concurrency),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_local_resumes),
        cmocka_unit_test(test_probe),
    };
    if (getenv("TAILRACE_TEST_LOG") == NULL)
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (getenv("TAILRACE_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("TAILRACE_TEST_ONLY"));
    return cmocka_run_group_tests_name("deliver/sender", tests, NULL, NULL);
}
