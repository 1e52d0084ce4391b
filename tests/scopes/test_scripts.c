/*
 * Goal: each line is delivered exactly once, whatever is done in whatever order, and wherever the process is killed or the
 * power goes. Method: the tail and a queue on the model disk; every script of up to four of the actions below. For each of
 * them every change of the disk in its last action kills (those of the others were the last of a shorter script), and what
 * is not synced is lost in six ways; and every sync in it fails, alone and with each later change killing. Then the agent
 * starts again, time passes, everything is sent.
 *
 * The server takes a frame it has seen before as the same again, by its seq: then the bytes must be the same.
 */
#include "agent/tail/tail.h"
#include "tests/scopes/scope.h"

enum action { APPEND, ROTATE, COPYTRUNCATE, SYNC, SEND, ACK, ROLL, RELOAD, N_ACTIONS };
static const char *const action_names[] = { "append", "rotate", "copytruncate", "sync", "send", "ack", "roll", "reload" };

enum { LENGTH_MAX = 4, BASE_LINES = 2, FRAMES_MAX = 64 };

#define LOG_PATH "/var/log/a.log"

struct sent {
    uint64_t seq, hash;
    bool is_acked;
};

static struct agent {
    struct scope s;
    struct conf conf;
    struct conf_input input;
    struct slice include;
    struct tail *tail;
    unsigned open[LINES_MAX];
    size_t n_open;
    uint64_t n_groups;
    /* the world and the server outlive the agent */
    unsigned n_lines;
    unsigned delivered[LINES_MAX];
    struct sent sent[FRAMES_MAX];
    size_t n_sent;
} a;

/* ---- the agent ---- */

static void *file_new(void *ctx, struct tail_file *f, const struct tail_file_info *info)
{
    (void)f;
    (void)info;
    return ctx;
}

static void file_free(void *ctx, void *file)
{
    (void)ctx;
    (void)file;
}

static size_t feed(void *ctx, void *file, struct tail_pass *pass, const struct feed *fd)
{
    (void)ctx;
    (void)file;
    (void)pass;
    size_t at = 0;
    while (at < fd->bytes.len) {
        const char *start = fd->bytes.ptr + at, *nl = memchr(start, '\n', fd->bytes.len - at);
        if (nl == NULL && !fd->is_last)
            break;
        unsigned n = (unsigned)strtoul(start, NULL, 10);
        assert_true(n > 0 && n < LINES_MAX && a.n_open < LINES_MAX);
        a.open[a.n_open++] = n;
        at = nl == NULL ? fd->bytes.len : (size_t)(nl - fd->bytes.ptr) + 1;
    }
    return at;
}

static uint8_t parts(void *ctx, const struct tail_pass *pass, struct position_part *ret)
{
    (void)ctx;
    (void)pass;
    (void)ret;
    return 0;
}

static void pass_free(void *ctx, struct tail_pass *pass)
{
    (void)ctx;
    (void)pass;
}

static unsigned n_given_up;

static void lost(void *ctx, void *file, uint32_t mask, uint64_t start, uint64_t end, enum lost_reason reason)
{
    (void)ctx;
    (void)file;
    (void)mask;
    (void)reason;
    n_given_up += start < end;
}

static bool is_dead(void)
{
    return disk_is_dead(a.s.d);
}

static void tail_begin(struct tail **ret)
{
    static const struct tail_sink sink = { .ctx = &a, .file_new = file_new, .file_free = file_free, .feed = feed,
                                           .parts = parts, .pass_free = pass_free, .lost = lost };
    const struct queue_recovery *rec = &a.s.rec;
    struct tail_conf tc = { &a.conf, 1, 42 };
    int r = tail_open(&tc, &sink, &rec, 1, ret, &a.s.err);
    if (r < 0)
        fail_msg("tail_open: %d %s", r, a.s.err.text);
    queue_recovered_free(a.s.q);
    a.n_groups = 0;
}

/* False: it died. */
static bool start(void)
{
    int r = queue_open(&a.s.conf, &a.s.q, &a.s.rec, &a.s.err);
    if (r < 0 && !is_dead())
        r = queue_open(&a.s.conf, &a.s.q, &a.s.rec, &a.s.err); /* a sync failed: a supervisor starts it again */
    if (r < 0 && is_dead())
        return false;
    if (r < 0)
        fail_msg("queue_open: %d %s", r, a.s.err.text);
    tail_begin(&a.tail);
    return !is_dead();
}

static void fence(void)
{
    const struct recovered_file *files;
    size_t n;
    a.n_open = 0;
    if (is_dead())
        return;
    assert_int_equal(queue_fenced(a.s.q, &files, &n), 0);
    tail_fence(a.tail, 0, files, n);
}

static void commit(void)
{
    struct group_end end = { 0 };
    struct frame_row row = { SLICE("in"), SLICE("t"), (uint32_t)a.n_open };
    char body[LINES_MAX * 4];
    size_t len = 0;
    uint64_t seq;
    if (is_dead() || !tail_collect(a.tail, 0, SIZE_MAX, &end)) {
        assert_true(is_dead() || a.n_open == 0);
        return;
    }
    for (size_t i = 0; i < a.n_open; i++)
        len += (size_t)snprintf(body + len, sizeof(body) - len, "%u ", a.open[i]);
    struct frame_in in = { .route = SLICE("t"), .wire = slice_of(body, len), .raw_len = (uint32_t)len, .rows = &row,
                           .n_rows = 1, .lines = (uint32_t)a.n_open, .built_ns = scope_now };
    int r = queue_append(a.s.q, a.n_open > 0 ? &in : NULL, &end, &seq);
    a.n_groups++;
    a.n_open = 0;
    if (r == -ESTALE)
        fence();
    else
        assert_true(r == 0 || is_dead());
}

static void look(void)
{
    for (unsigned i = 0; i < 1000 && !is_dead(); i++) {
        tail_on_events(a.tail);
        bool more = tail_turn(a.tail, scope_now);
        (void)tail_tick(a.tail, scope_now);
        if (!more && i > 1)
            break;
    }
    commit();
}

static void sync_queue(void)
{
    if (is_dead())
        return;
    if (queue_sync(a.s.q) == 0)
        tail_durable(a.tail, 0, a.n_groups);
    else
        fence();
}

/* ---- the server ---- */

static void receive(uint64_t seq, struct slice body)
{
    uint64_t hash = frame_crc(body) * UINT64_C(0x100000001) + body.len;
    for (size_t i = 0; i < a.n_sent; i++) {
        if (a.sent[i].seq != seq)
            continue;
        assert_int_equal(a.sent[i].hash, hash); /* a number never means two frames */
        a.sent[i].is_acked = false;
        return;
    }
    assert_true(a.n_sent < FRAMES_MAX);
    a.sent[a.n_sent++] = (struct sent){ seq, hash, false };
    struct account acc = { 0 };
    scope_count_body(&acc, body);
    for (unsigned n = 1; n < LINES_MAX; n++)
        a.delivered[n] += acc.out[n];
}

static bool send_one(void)
{
    struct frame_head h;
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    bool has = !is_dead() && queue_next(a.s.q, &h) == 1 && queue_load(a.s.q, &h, &meta, &body) == 0;
    if (has)
        receive(h.seq, buf_slice(&body));
    buf_deinit(&meta);
    buf_deinit(&body);
    return has;
}

static void ack_all(void)
{
    for (size_t i = 0; i < a.n_sent && !is_dead(); i++) {
        if (!a.sent[i].is_acked)
            (void)queue_ack(a.s.q, a.sent[i].seq);
        a.sent[i].is_acked = true;
    }
    if (!is_dead() && queue_cursor_sync(a.s.q) == 0)
        (void)!queue_unlink_acked(a.s.q);
}

/* ---- actions ---- */

static void append_line(void)
{
    char line[128];
    int n = snprintf(line, sizeof(line), "%u is a line that is long enough to know its file by, sixty-four bytes\n",
                     ++a.n_lines);
    assert_int_equal(disk_append(a.s.d, LOG_PATH, line, (size_t)n), 0);
}

static void shift_names(void)
{
    for (unsigned i = LENGTH_MAX; i > 0; i--) {
        char from[64], to[64];
        (void)snprintf(from, sizeof(from), LOG_PATH ".%u", i);
        (void)snprintf(to, sizeof(to), LOG_PATH ".%u", i + 1);
        (void)disk_rename(a.s.d, from, to);
    }
}

static void roll(void)
{
    if (is_dead())
        return;
    int r = segment_seal(a.s.q, false);
    if (r == -ESTALE)
        fence();
    if (r == 0 && !is_dead())
        r = segment_begin(a.s.q);
    if (r == 0 && !is_dead())
        tail_durable(a.tail, 0, a.n_groups);
}

/* As agent_reload: everything is written, then a new agent takes the files over. */
static void reload(void)
{
    struct tail *old = a.tail;
    look();
    sync_queue();
    look(); /* what a fence took back */
    sync_queue();
    if (is_dead())
        return;
    scope_close(&a.s);
    a.tail = NULL;
    if (start())
        tail_adopt(a.tail, old);
    tail_close(old);
}

static void act(enum action what)
{
    switch (what) {
    case APPEND:
        append_line();
        break;
    case ROTATE:
        shift_names();
        (void)disk_rename(a.s.d, LOG_PATH, LOG_PATH ".1");
        break;
    case COPYTRUNCATE:
        shift_names();
        if (disk_copy(a.s.d, LOG_PATH, LOG_PATH ".1", UINT64_MAX) == 0)
            assert_int_equal(disk_truncate(a.s.d, LOG_PATH, 0), 0);
        break;
    case SYNC:
        look();
        sync_queue();
        break;
    case SEND:
        (void)send_one();
        break;
    case ACK:
        ack_all();
        break;
    case ROLL:
        look();
        roll();
        break;
    case RELOAD:
        reload();
        break;
    case N_ACTIONS:
        break;
    }
}

/* ---- a run ---- */

struct script {
    enum action action[LENGTH_MAX];
    unsigned n;
};

static const char *describe(const struct script *sc)
{
    static char text[128];
    text[0] = '\0';
    for (unsigned i = 0; i < sc->n; i++) {
        size_t at = strlen(text);
        (void)snprintf(text + at, sizeof(text) - at, "%s%s", i > 0 ? ", " : "", action_names[sc->action[i]]);
    }
    return text;
}

static void stop(void)
{
    scope_close(&a.s);
    tail_close(a.tail);
    a.tail = NULL;
    a.n_open = 0;
}

static uint64_t changes(void)
{
    uint64_t n = 0;
    for (enum disk_op op = 0; op < DISK_N_OPS; op++)
        if (DISK_CHANGES & DISK_OP(op))
            n += disk_calls_of(a.s.d, op);
    return n;
}

static void forget_the_world(void)
{
    memset(a.delivered, 0, sizeof(a.delivered));
    a.n_sent = 0;
    a.n_lines = BASE_LINES;
    for (unsigned n = 1; n <= BASE_LINES; n++)
        a.delivered[n] = 1;
}

/* What one action did: changes of the disk, and those of them that are syncs. */
struct extent {
    uint64_t changes, syncs;
};

static struct extent calls_so_far(void)
{
    return (struct extent){ changes(), disk_calls_of(a.s.d, DISK_SYNC) + disk_calls_of(a.s.d, DISK_SYNC_DIR) };
}

/* All but the last action; then the last, under up to two faults. False: it died before its end. */
static bool play(const struct script *sc, const struct disk_image *im, const struct disk_fault *fault, unsigned n_faults,
                 struct extent *ret)
{
    disk_image_put(a.s.d, im);
    forget_the_world();
    bool lives = start();
    assert_true(lives);
    for (unsigned i = 0; i + 1 < sc->n; i++)
        act(sc->action[i]);
    struct extent before = calls_so_far();
    for (unsigned i = 0; i < n_faults; i++)
        disk_fault_add(a.s.d, &fault[i]);
    act(sc->action[sc->n - 1]);
    struct extent after = calls_so_far();
    if (ret != NULL)
        *ret = (struct extent){ after.changes - before.changes, after.syncs - before.syncs };
    return !is_dead();
}

static unsigned n_bad;

static void tell_bad(const struct script *sc, const char *how)
{
    char lines[256] = "";
    if (++n_bad > 20)
        return;
    for (unsigned n = 1; n <= a.n_lines; n++) {
        size_t at = strlen(lines);
        if (a.delivered[n] != 1)
            (void)snprintf(lines + at, sizeof(lines) - at, " line %u %u times", n, a.delivered[n]);
    }
    print_error("%s; %s:%s%s\n", describe(sc), how, lines, n_given_up > 0 ? " (given up)" : "");
}

/* Whatever the agent waits for comes; the server gets everything. */
static void end_well(const struct script *sc, const char *how)
{
    n_given_up = 0;
    static const int seconds[] = { 0, 1, 5, 11, 11, 11, 11 };
    for (size_t i = 0; i < ARRAY_LEN(seconds); i++) {
        scope_now += seconds[i] * NS_PER_SEC;
        look();
        sync_queue();
        while (send_one())
            ;
        ack_all();
    }
    bool is_good = true;
    for (unsigned n = 1; n <= a.n_lines; n++)
        is_good &= a.delivered[n] == 1;
    if (!is_good || n_given_up > 0)
        tell_bad(sc, how);
    stop();
    assert_int_equal(disk_open_fds(a.s.d), 0);
}

static uint64_t n_runs;

static void crash_and_end(const struct script *sc, const char *what, uint64_t at, enum disk_loss loss)
{
    static const char *const names[] = { "any",   "nothing", "all",  "data",   "zeros",
                                         "stale", "names",   "torn", "sectors" };
    char how[128];
    disk_faults_clear(a.s.d);
    disk_die(a.s.d);
    stop();
    if (loss == LOSS_NOTHING)
        disk_kill(a.s.d);
    else
        disk_crash(a.s.d, loss, n_runs);
    n_runs++;
    (void)snprintf(how, sizeof(how), "%s %llu, lost: %s", what, (unsigned long long)at, names[loss]);
    if (!start())
        fail_msg("%s; %s: died", describe(sc), how);
    end_well(sc, how);
}

static const enum disk_loss losses[] = { LOSS_NOTHING, LOSS_ALL, LOSS_DATA, LOSS_RANDOM };

static void kill_everywhere(const struct script *sc, const struct disk_image *im)
{
    struct extent n;
    assert_true(play(sc, im, NULL, 0, &n));
    crash_and_end(sc, "killed after", n.changes, LOSS_NOTHING);
    (void)play(sc, im, NULL, 0, NULL);
    crash_and_end(sc, "killed after", n.changes, LOSS_ALL);
    for (uint32_t i = 0; i < n.changes; i++) {
        struct disk_fault f = { .kind = DISK_DIE_BEFORE, .ops = DISK_CHANGES, .skip = i, .times = 1 };
        for (size_t k = 0; k < ARRAY_LEN(losses); k++) {
            assert_false(play(sc, im, &f, 1, NULL));
            crash_and_end(sc, "killed at change", i, losses[k]);
        }
        f.kind = DISK_DIE_WITHIN;
        for (size_t k = 0; k < 2; k++) {
            assert_false(play(sc, im, &f, 1, NULL));
            crash_and_end(sc, "killed within change", i, k == 0 ? LOSS_NOTHING : LOSS_RANDOM);
        }
    }
}

static void fail_each_sync(const struct script *sc, const struct disk_image *im)
{
    struct extent n, m;
    assert_true(play(sc, im, NULL, 0, &n));
    stop();
    for (uint32_t j = 0; j < n.syncs; j++) {
        struct disk_fault f[2] = {
            { .kind = DISK_FAIL, .ops = DISK_OP(DISK_SYNC) | DISK_OP(DISK_SYNC_DIR), .skip = j, .times = 1 },
            { .kind = DISK_DIE_BEFORE, .ops = DISK_CHANGES, .times = 1 },
        };
        char how[64];
        assert_true(play(sc, im, f, 1, &m)); /* lives on, and what it reads again is what the disk has */
        disk_drop_caches(a.s.d);
        (void)snprintf(how, sizeof(how), "sync %u failed", j);
        end_well(sc, how);
        n_runs++;
        (void)play(sc, im, f, 1, NULL);
        crash_and_end(sc, "killed after a failed sync", j, LOSS_ALL);
        for (uint32_t i = 0; i + 1 < m.changes; i++) { /* the sync that fails is not one of them */
            f[1].skip = i;
            if (play(sc, im, f, 2, NULL))
                fail_msg("%s: change %u did not come again", describe(sc), i);
            if (disk_faults_struck(a.s.d) == 2) /* else it died before the sync: seen */
                crash_and_end(sc, "killed after a failed sync, at change", i, i % 2 == 0 ? LOSS_ALL : LOSS_RANDOM);
            else
                crash_and_end(sc, "killed at change", i, LOSS_NOTHING);
        }
    }
}

static void each_script(unsigned length, void (*run)(const struct script *sc, const struct disk_image *im),
                        const struct disk_image *im)
{
    struct script sc = { .n = length };
    unsigned n = 1;
    for (unsigned i = 0; i < length; i++)
        n *= N_ACTIONS;
    for (unsigned k = 0; k < n; k++) {
        for (unsigned i = 0, left = k; i < length; i++, left /= N_ACTIONS)
            sc.action[i] = (enum action)(left % N_ACTIONS);
        if (length < 3 || !scope_skips(k, length == 3 ? 20 : 400))
            run(&sc, im);
    }
}

/* Two lines that were delivered, and everything at rest. */
static struct disk_image *base(void)
{
    memset(&a, 0, sizeof(a));
    scope_init(&a.s, 1);
    assert_int_equal(disk_mkdir(a.s.d, "/var/log", DISK_LOGS), 0);
    a.include = SLICE(LOG_PATH);
    a.input = (struct conf_input){ .name = SLICE("logs"), .include = { &a.include, 1 } };
    a.conf = (struct conf){ .state_dir = SLICE("/state"), .inputs = &a.input, .n_inputs = 1, .outputs = &a.s.output,
                            .n_outputs = 1, .held_max_bytes = UINT64_MAX };
    a.n_lines = 0;
    append_line();
    append_line();
    assert_true(start());
    act(SYNC);
    act(SEND);
    act(ACK);
    assert_int_equal(a.delivered[1] + a.delivered[2], 2);
    stop();
    disk_write_back(a.s.d, false);
    return disk_image_take(a.s.d);
}

static void run_scripts(void (*run)(const struct script *sc, const struct disk_image *im), unsigned length_max)
{
    struct disk_image *im = base();
    n_bad = 0;
    n_runs = 0;
    for (unsigned length = 1; length <= length_max; length++)
        each_script(length, run, im);
    print_message("%llu runs\n", (unsigned long long)n_runs);
    disk_image_free(im);
    disk_free(a.s.d);
    assert_int_equal(n_bad, 0);
}

static void killed_everywhere(void **state)
{
    (void)state;
    run_scripts(kill_everywhere, LENGTH_MAX);
}

static void syncs_fail_everywhere(void **state)
{
    (void)state;
    run_scripts(fail_each_sync, LENGTH_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(killed_everywhere),
                                       cmocka_unit_test(syncs_fail_everywhere) };
    return cmocka_run_group_tests_name("scopes/scripts", tests, NULL, NULL);
}
