/*
 * Goal: whichever call of the disk fails, once or for a while, nothing is lost without being counted, nothing comes
 * twice. Method: a run that does all a queue can do - groups, rolls, dead letters, parked
 * frames, damage, two restarts - is repeated, failing the 1st call, the 2nd, ... until a run needs no more. Whoever
 * calls does what the agent does: the same again; back to the positions after a fence; open again when open failed.
 */
#include "tests/scopes/scope.h"

enum { LINES = 60, TRIES = 200 };

/* ---- the agent ---- */

static struct run {
    struct scope s;
    unsigned next;  /* line of the source */
    uint64_t at;    /* position that the queue knows of */
    unsigned n_groups, n_frames;
    struct account acc;
    bool is_damaged; /* once is enough */
    unsigned delivered[4096]; /* by seq: the line; a cursor that could not be written makes frames come again */
} u;

static void open_until_it_works(void)
{
    for (unsigned i = 0; i < TRIES; i++) {
        if (queue_open(&u.s.conf, &u.s.q, &u.s.rec, &u.s.err) == 0) {
            u.at = scope_file_end(&u.s.rec);
            u.next = (unsigned)(u.at / 10) + 1;
            return;
        }
    }
    fail_msg("it never opens: %s", u.s.err.text);
}

static void go_back(void)
{
    const struct recovered_file *files;
    const struct ledger_row *rows;
    size_t n, n_rows;
    int r = -ENOMEM;
    for (unsigned i = 0; i < TRIES && r < 0; i++)
        r = queue_fenced(u.s.q, &files, &n);
    assert_int_equal(r, 0);
    u.at = n == 0 ? 0 : files[0].position.end;
    u.next = (unsigned)(u.at / 10) + 1;
    (void)!queue_fenced_ledger(u.s.q, &rows, &n_rows);
}

/* One frame of a group, tried until it is in. False: a fence took the group away. */
static bool put_frame(unsigned line, const char *tenant, bool more, uint64_t to)
{
    struct scope_frame f;
    struct scope_end e;
    uint64_t seq;
    for (unsigned i = 0; i < TRIES; i++) {
        int r = queue_append(u.s.q, line == 0 ? NULL : scope_frame(&f, line, line, tenant),
                             more ? NULL : scope_end(&e, u.at, to), &seq);
        if (r == 0)
            return true;
        if (r == -ESTALE || r == -ECANCELED) {
            go_back();
            return false;
        }
    }
    fail_msg("a frame is never taken");
    return false;
}

static void put_group(void)
{
    unsigned n = u.n_groups++ % 4 == 1 ? 3 : 1;
    if (u.next + n > LINES + 1)
        n = 1;
    if (u.next > LINES)
        return;
    if (u.n_groups % 5 == 4 && u.at % 10 == 0) {
        if (put_frame(0, "", false, u.at + 5))
            u.at += 5;
        return;
    }
    unsigned first = u.next;
    for (unsigned i = 0; i < n; i++)
        if (!put_frame(first + i, i == 1 ? "u" : "t", i + 1 < n, 10 * (uint64_t)(first + n - 1)))
            return;
    u.next = first + n;
    u.at = 10 * (uint64_t)(first + n - 1);
}

static void sync_all(void)
{
    if (queue_sync(u.s.q) < 0)
        go_back();
}

/* As the sender: delivered, or a dead letter, or out of the way; what could not be done comes again after a rewind. */
static bool send_frame(const struct frame_head *h, struct slice body)
{
    struct scope_frame f;
    char text[16] = "";
    uint64_t id;
    struct frame_orig o = { .seq = h->seq, .item = 0, .status = 400, .reason = SLICE("r"), .text = SLICE("t") };
    memcpy(text, body.ptr, MIN(body.len, sizeof(text) - 1));
    unsigned line = (unsigned)strtoul(text, NULL, 10);
    if (line % 9 == 4)
        return queue_dead_append(u.s.q, scope_frame(&f, line, line, "t"), &o) == 0;
    o.item = UINT32_MAX;
    if (line % 9 == 7)
        return queue_park(u.s.q, scope_frame(&f, line, line, "u"), &o, &id) == 0;
    assert_true(h->seq < ARRAY_LEN(u.delivered));
    if (u.delivered[h->seq] == 0)
        scope_count_body(&u.acc, body);
    else
        assert_int_equal(u.delivered[h->seq], line);
    u.delivered[h->seq] = line;
    return true;
}

static void send_some(void)
{
    struct frame_head h;
    struct buf meta, body;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    for (unsigned i = 0; i < 6; i++) {
        int r = queue_next(u.s.q, &h);
        if (r <= 0)
            break;
        r = queue_load(u.s.q, &h, &meta, &body);
        if (r == -EBADMSG)
            continue;
        if (r < 0 || !send_frame(&h, buf_slice(&body))) {
            queue_rewind(u.s.q);
            break;
        }
        (void)queue_ack(u.s.q, h.seq);
    }
    buf_deinit(&meta);
    buf_deinit(&body);
}

/* Every second one is delivered, the others are given up. */
static void send_parked(void)
{
    struct frame_head h;
    struct buf meta, body;
    uint64_t iter = 0;
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    while (queue_parked_next(u.s.q, &iter, &h) == 1) {
        int r = h.segment_id % 2 == 0 ? -EBADMSG : queue_load(u.s.q, &h, &meta, &body);
        if (r == -EBADMSG) {
            (void)!queue_park_drop(u.s.q, h.segment_id, LOST_KEY_QUOTA);
            continue;
        }
        if (r < 0)
            continue;
        /* It is sent before it is forgotten: a second time is the same frame, which a server knows. */
        struct account once = { 0 };
        scope_count_body(&once, buf_slice(&body));
        for (unsigned n = 1; n <= LINES; n++)
            u.acc.out[n] |= once.out[n];
        (void)!queue_unpark(u.s.q, h.segment_id);
    }
    buf_deinit(&meta);
    buf_deinit(&body);
}

static void keep_house(void)
{
    if (queue_cursor_sync(u.s.q) == 0)
        (void)!queue_unlink_acked(u.s.q);
}

/* One frame that is durable and not sent is damaged on the disk. */
static void damage(void)
{
    struct frame_head h;
    char path[96];
    uint8_t byte = 'X';
    queue_rewind(u.s.q);
    if (u.is_damaged || queue_next(u.s.q, &h) != 1)
        return;
    (void)snprintf(path, sizeof(path), "%s/%016llx.seg", DIR, (unsigned long long)h.segment_id);
    assert_int_equal(disk_poke(u.s.d, path, h.off + FRAME_HEAD_BYTES + h.meta_len, &byte, 1), 0);
    u.is_damaged = true;
    queue_rewind(u.s.q);
}

static void live(unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        for (unsigned k = 0; k < 3; k++)
            put_group();
        sync_all();
        if (i == 4)
            damage();
        send_some();
        if (i % 3 == 2) {
            send_parked();
            keep_house();
        }
    }
}

static bool is_done(void)
{
    struct frame_head h;
    uint64_t iter = 0;
    queue_rewind(u.s.q);
    bool is = u.next > LINES && queue_next(u.s.q, &h) == 0 && queue_parked_next(u.s.q, &iter, &h) == 0;
    queue_rewind(u.s.q); /* what was only looked at comes again */
    return is;
}

static void restart(bool crashes)
{
    if (crashes)
        scope_crash(&u.s, LOSS_NOTHING, 1);
    else
        scope_close(&u.s);
    open_until_it_works();
}

static void run(bool is_damaged)
{
    memset(&u.acc, 0, sizeof(u.acc));
    u.is_damaged = !is_damaged;
    memset(u.delivered, 0, sizeof(u.delivered));
    u.n_groups = u.n_frames = 0;
    u.s.output.queue.dead_max_bytes = 1500;
    queue_tuning = (struct queue_tuning){ .segment_bytes = 8 * KIB, .dead_file_bytes = 600 };
    open_until_it_works();
    live(5);
    restart(false);
    live(5);
    restart(false);
    bool has_ended = is_done();
    for (unsigned i = 0; i < TRIES && !has_ended; i++) {
        live(3);
        has_ended = is_done();
    }
    assert_true(has_ended);
    keep_house();
}

static void check(const char *what, uint64_t n)
{
    struct account *a = &u.acc;
    uint64_t out = 0;
    disk_faults_clear(u.s.d);
    for (unsigned i = 0; i < 3; i++)
        keep_house();
    scope_close(&u.s);
    open_until_it_works();
    scope_count_rows(&u.s, a);
    for (unsigned line = 1; line <= LINES; line++) {
        if (a->out[line] > 1)
            fail_msg("%s %llu: line %u came %u times", what, (unsigned long long)n, line, a->out[line]);
        out += a->out[line];
    }
    if (out + a->dead + a->lost != LINES)
        fail_msg("%s %llu: %llu came, %llu dead, %llu lost", what, (unsigned long long)n, (unsigned long long)out,
                 (unsigned long long)a->dead, (unsigned long long)a->lost);
}

#define LOOKS (DISK_OP(DISK_READ) | DISK_OP(DISK_OPEN) | DISK_OP(DISK_STAT))
#define WRITES (DISK_OP(DISK_WRITE) | DISK_OP(DISK_SYNC) | DISK_OP(DISK_SYNC_DIR))

/* Damage on top of one fault is counted exactly; on top of five in a row its account may be among what fails. */
static const struct fault_kind {
    const char *name;
    bool is_damaged;
    struct disk_fault f;
} fault_kinds[] = {
    { "EIO once at call", true, { .kind = DISK_FAIL, .ops = DISK_ALL_OPS, .times = 1 } },
    { "looks say ENOMEM from call", true, { .kind = DISK_FAIL, .ops = LOOKS, .error = ENOMEM, .times = 11 } },
    { "looks say EAGAIN twice from call", true, { .kind = DISK_FAIL, .ops = LOOKS, .error = EAGAIN, .times = 2 } },
    { "five writes fail from call", false, { .kind = DISK_FAIL, .ops = WRITES, .times = 5 } },
    { "no space from call", false, { .kind = DISK_FAIL, .ops = DISK_OP(DISK_WRITE) | DISK_OP(DISK_CREATE) | DISK_OP(DISK_MKDIR),
                              .error = ENOSPC, .times = 7 } },
    { "short at call", true, { .kind = DISK_SHORT, .ops = DISK_OP(DISK_WRITE) | DISK_OP(DISK_READ), .times = 1 } },
    { "no descriptor at call", true, { .kind = DISK_FAIL, .ops = DISK_OP(DISK_OPEN) | DISK_OP(DISK_CREATE), .error = EMFILE,
                                 .times = 2 } },
};

static int setup(void **state)
{
    (void)state;
    scope_init(&u.s, 1);
    disk_write_back(u.s.d, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scope_deinit(&u.s);
    return 0;
}

static void calls_fail(void **state)
{
    (void)state;
    struct disk_image *im = disk_image_take(u.s.d);
    uint64_t n_runs = 0;
    for (size_t k = 0; k < ARRAY_LEN(fault_kinds); k++) {
        uint32_t n = 0;
        for (bool has_struck = true; has_struck; n++) {
            if (scope_skips(n, 7))
                continue;
            struct disk_fault f = fault_kinds[k].f;
            disk_image_put(u.s.d, im);
            f.skip = n;
            disk_fault_add(u.s.d, &f);
            run(fault_kinds[k].is_damaged);
            has_struck = disk_faults_struck(u.s.d) > 0;
            check(fault_kinds[k].name, n);
            scope_close(&u.s);
            n_runs++;
        }
        assert_true(n > 50);
    }
    print_message("%llu runs\n", (unsigned long long)n_runs);
    disk_image_free(im);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = { TEST(calls_fail) };
    return cmocka_run_group_tests_name("scopes/calls", tests, NULL, NULL);
}
