/*
 * Goal: ranges that damage took are read again from their files, each record once; what is gone from the files stays lost, counted;
 * an output that takes no more, a file that cannot be opened or read for a while and a missing one hold nothing up for ever.
 * Method: followed.h; the rereader's sink is the test's: it keeps lines, and stops when it is told to.
 */
#include "tests/unit/agent/followed.h"

#include "agent/join.h"
#include "agent/reread.h"

struct again {
    struct followed w;
    struct rereader *r;
    char got[64][64];
    size_t n_got, longest;
    size_t stop_at;          /* the line that is not taken the first time; SIZE_MAX: none */
    bool takes_all;          /* bytes, not lines */
    bool keeps_state;        /* a pass has something to be freed */
    unsigned n_states, n_freed;
    struct tail_pass seen;   /* as it came with the first bytes */
};

/* Calls to the disk that fail: so many in a row, after so many good ones. */
static struct {
    unsigned opens, preads, good_preads;
    int error;
} fault;
static struct fs_ops ops;

static int faulty_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    if (fault.opens == 0)
        return fs_real.open(dir_fd, name, flags, mode);
    fault.opens--;
    return fault.error;
}

static ssize_t faulty_pread(int fd, void *ptr, size_t len, uint64_t off)
{
    if (fault.good_preads > 0)
        fault.good_preads--;
    else if (fault.preads > 0) {
        fault.preads--;
        return fault.error;
    }
    return fs_real.pread(fd, ptr, len, off);
}

static void stop(struct again *a, struct tail_pass *pass, uint64_t off)
{
    struct position_part none[STREAMS_MAX];
    a->stop_at = SIZE_MAX;
    a->w.f.is_blocked = true;
    a->w.f.retry_at_ns = a->w.now + 1;
    reread_stop(pass, off, none, 0);
}

static size_t feed(void *ctx, void *file, struct tail_pass *pass, const struct feed *fd)
{
    struct again *a = ctx;
    size_t at = 0;
    assert_ptr_equal(file, &a->w);
    assert_true(pass->is_again);
    if (a->n_got == 0 && a->longest == 0)
        a->seen = *pass;
    a->longest = MAX(a->longest, fd->bytes.len);
    if (a->keeps_state && pass->state == NULL) {
        pass->state = calloc(1, sizeof(struct join));
        a->n_states++;
    }
    if (a->takes_all)
        return fd->bytes.len;
    while (at < fd->bytes.len) {
        const char *p = fd->bytes.ptr + at, *nl = memchr(p, '\n', fd->bytes.len - at);
        if (nl == NULL)
            break;
        if (a->n_got == a->stop_at) {
            stop(a, pass, fd->off + at);
            break;
        }
        assert_true(a->n_got < ARRAY_LEN(a->got));
        (void)snprintf(a->got[a->n_got++], sizeof(a->got[0]), "%.*s", (int)MIN((size_t)(nl - p), (size_t)60), p);
        at += (size_t)(nl - p) + 1;
    }
    return at;
}

static void pass_free(void *ctx, struct tail_pass *pass)
{
    struct again *a = ctx;
    a->n_freed++;
    free(pass->state);
    pass->state = NULL;
}

static void begin(struct again *a)
{
    memset(a, 0, sizeof(*a));
    memset(&fault, 0, sizeof(fault));
    a->stop_at = SIZE_MAX;
    followed_init(&a->w);
    ops = *fs_current();
    ops.open = faulty_open;
    ops.pread = faulty_pread;
    fs_set_ops(&ops);
    struct tail_sink sink = { .ctx = a, .file_free = followed_sink_free, .feed = feed, .pass_free = pass_free };
    a->r = rereader_new(&a->w.f, a->w.tail, &sink);
    assert_non_null(a->r);
    followed_write(&a->w, "two\nthree\nfour\nfive\n"); /* behind "one\n" */
    followed_read(&a->w);
}

static void end(struct again *a)
{
    rereader_free(a->r);
    followed_deinit(&a->w);
    assert_int_equal(a->n_states, a->n_freed);
}

static struct reread_range range(const struct again *a, uint64_t from, uint64_t to)
{
    return (struct reread_range){ .from = { .incarnation = a->w.incarnation, .end = from },
                                  .to = { .incarnation = a->w.incarnation, .start = from, .end = to },
                                  .knows_to = true };
}

static void add(struct again *a, struct reread_range *ranges, size_t n)
{
    const struct reread rr = { .id = { 1, 1 }, .ranges = ranges, .n_ranges = n };
    struct reread *copy;
    assert_int_equal(reread_copy(&rr, &copy), 0);
    rereader_add(a->r, copy);
}

static int64_t pending_bytes(void)
{
    return gauge_get(&stats.outputs[0].reread_pending_bytes);
}

static uint64_t lost_bytes(void)
{
    return counter_get(&stats.outputs[0].reread_lost_bytes);
}

/* Turns until it has nothing more to do, time passing as it asks; the writer's room is always there. */
static void run(struct again *a)
{
    for (unsigned i = 0; i < 10000; i++) {
        (void)feeder_on_space(&a->w.f, a->w.now);
        if (rereader_turn(a->r, a->w.now))
            continue;
        if (rereader_due_at(a->r) == INT64_MAX && !a->w.f.is_blocked)
            return;
        a->w.now = MAX(a->w.now + 1, a->w.f.is_blocked ? a->w.f.retry_at_ns : rereader_due_at(a->r));
    }
    fail_msg("it never ends");
}

static void expect(const struct again *a, const char *want)
{
    char all[1024] = "";
    for (size_t i = 0; i < a->n_got; i++)
        (void)snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s ", a->got[i]);
    assert_string_equal(all, want);
    assert_int_equal(pending_bytes(), 0);
    assert_int_equal(rereader_due_at(a->r), INT64_MAX);
    assert_false(a->w.f.is_rereading);
}

static void test_ranges(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    assert_int_equal(rereader_due_at(a.r), INT64_MAX);
    struct reread_range r[] = { range(&a, 4, 8), range(&a, 14, 24) };
    add(&a, r, 2);
    struct reread_range other = range(&a, 0, 4);
    add(&a, &other, 1);
    assert_int_equal(pending_bytes(), 18);
    run(&a);
    expect(&a, "two four five one ");
    assert_int_equal(lost_bytes(), 0);
    end(&a);
}

/* The output stops in the middle: from that record on it comes later, once. */
static void test_blocked(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    a.keeps_state = true;
    a.stop_at = 1;
    struct reread_range r = range(&a, 0, 24);
    add(&a, &r, 1);
    while (rereader_turn(a.r, a.w.now))
        ;
    assert_int_equal(a.n_got, 1);
    assert_true(a.w.f.is_blocked);
    assert_int_equal(rereader_due_at(a.r), INT64_MAX);
    assert_false(rereader_turn(a.r, a.w.now));
    assert_int_equal(a.n_got, 1);
    run(&a);
    expect(&a, "one two three four five ");
    assert_int_equal(lost_bytes(), 0);
    end(&a);
}

/* Lines longer than a chunk: more is read at once, up to the longest line there may be; what is no line is passed over. */
static void test_long_lines(void **state)
{
    static char text[700 * KIB];
    struct again a;
    (void)state;
    begin(&a);
    memset(text, 'x', sizeof(text) - 2);
    text[sizeof(text) - 2] = '\n';
    followed_write(&a.w, text);
    uint64_t len = 24 + sizeof(text) - 1;
    struct reread_range r = range(&a, 0, len);
    add(&a, &r, 1);
    run(&a);
    assert_int_equal(a.n_got, 6);
    assert_true(a.longest >= sizeof(text) - 1);
    for (unsigned i = 0; i < 3; i++) { /* 2 MiB without a newline */
        text[sizeof(text) - 2] = 'x';
        followed_write(&a.w, text);
    }
    followed_write(&a.w, "\nsix\n");
    r = range(&a, len, len + 3 * (sizeof(text) - 1) + 5);
    add(&a, &r, 1);
    run(&a);
    assert_string_equal(a.got[a.n_got - 1], "six");
    assert_int_equal(lost_bytes(), 0);
    end(&a);
}

/* A place inside of records: where the earliest begins, and which they were; or inside a line that was cut. */
static void test_places(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    struct reread_range r = range(&a, 14, 24);
    r.from.n_parts = 1;
    r.from.parts[0] = (struct position_part){ .stream = 1, .start = 8 };
    r.from.flags = POSITION_SKIP_TO_NEWLINE; /* says nothing beside parts */
    r.to.n_parts = 1;
    r.to.parts[0] = (struct position_part){ .stream = 1, .start = 19 };
    a.keeps_state = true;
    add(&a, &r, 1);
    run(&a);
    assert_int_equal(a.seen.off, 8);
    assert_int_equal(a.seen.resume_until, 14);
    assert_int_equal(a.seen.n_parts, 1);
    assert_false(a.seen.skip_to_newline);
    expect(&a, "three four five ");
    a.n_got = a.longest = 0;
    r = range(&a, 2, 8);
    r.from.flags = POSITION_SKIP_TO_NEWLINE;
    r.knows_to = false;
    add(&a, &r, 1);
    run(&a);
    assert_true(a.seen.skip_to_newline);
    assert_int_equal(a.seen.off, 2);
    expect(&a, "e two ");
    end(&a);
}

/* Gone, another file, or not the bytes that were there: lost for good, and the next range is read all the same. */
static void test_what_is_gone_stays_lost(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    struct reread_range r[] = { range(&a, 4, 8), range(&a, 8, 14), range(&a, 14, 1000), range(&a, 0, 4) };
    r[0].to.incarnation = r[0].from.incarnation = 77;
    r[1].to.tail_len = 4;
    r[1].to.tail_crc = 1;
    r[2].from.tail_len = 40; /* more than there is before it */
    add(&a, r, 4);
    run(&a);
    expect(&a, "one ");
    assert_int_equal(lost_bytes(), 4 + 6 + 986);
    r[0] = range(&a, 14, 1000);
    add(&a, r, 1);
    run(&a);
    assert_int_equal(lost_bytes(), 4 + 6 + 986 + 986);
    end(&a);
}

/* One that is cut while it is read. */
static void test_cut_on_the_way(void **state)
{
    struct again a;
    char path[256];
    (void)state;
    begin(&a);
    struct reread_range r = range(&a, 0, 24);
    add(&a, &r, 1);
    assert_true(rereader_turn(a.r, a.w.now)); /* it is open */
    (void)snprintf(path, sizeof(path), "%s/a.log", a.w.s->dir);
    assert_int_equal(truncate(path, 8), 0);
    run(&a);
    expect(&a, "one two ");
    assert_int_equal(lost_bytes(), 16);
    end(&a);
}

/* No descriptor, no memory, a disk that does not answer: tried again, and not for ever. */
static void test_for_a_while(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    struct reread_range r = range(&a, 0, 24), other = range(&a, 4, 8);
    const int64_t start = a.w.now;
    fault.error = -EIO;
    fault.preads = 4; /* it is looked at before its group begins: the other goes first */
    add(&a, &r, 1);
    add(&a, &other, 1);
    run(&a);
    expect(&a, "two one two three four five ");
    assert_true(a.w.now - start >= 10 * NS_PER_SEC);
    a.n_got = 0;
    fault.good_preads = 4; /* looked at twice: of each place one byte */
    fault.preads = 10;
    r = range(&a, 4, 24);
    add(&a, &r, 1);
    run(&a);
    expect(&a, "two three four five ");
    assert_int_equal(lost_bytes(), 0);
    a.n_got = 0;
    fault.good_preads = 4;
    fault.preads = 100000;
    add(&a, &r, 1);
    run(&a);
    expect(&a, "");
    assert_int_equal(lost_bytes(), 20);
    fault.preads = 0;
    end(&a);
}

/* More than a segment may hold at once stays lost, and says so. */
static void test_too_much(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    struct reread_range r[] = { range(&a, 0, 512 * MIB), range(&a, 0, 24) };
    add(&a, r, 2);
    run(&a);
    expect(&a, "");
    assert_int_equal(lost_bytes(), 512 * MIB + 24);
    end(&a);
}

/* A sync failed: what is open is void and comes again from the queue. */
static void test_dropped(void **state)
{
    struct again a;
    (void)state;
    begin(&a);
    a.keeps_state = true;
    a.stop_at = 2;
    struct reread_range r = range(&a, 0, 24);
    add(&a, &r, 1);
    add(&a, &r, 1);
    while (rereader_turn(a.r, a.w.now))
        ;
    assert_true(a.w.f.is_rereading);
    rereader_drop(a.r);
    feeder_on_fence(&a.w.f, 1);
    expect(&a, "one two ");
    a.n_got = 0;
    add(&a, &r, 1);
    run(&a);
    expect(&a, "one two three four five ");
    end(&a);
}

static const struct {
    uint64_t resume_until;
    struct position_part was[2];
    uint8_t n_was;
    uint64_t pos_end;
    struct position_part now[2];
    uint8_t n_now;
    uint64_t off, until; /* wanted */
    uint8_t n_parts;
} stops[] = {
    { 0, { { 0, 0 } }, 0, 50, { { 0, 0 } }, 0, 50, 0, 0 },
    { 0, { { 0, 0 } }, 0, 50, { { 1, 40 } }, 1, 40, 50, 1 },
    /* a stream that is read again is not done with: it goes on behind this record */
    { 100, { { 1, 20 } }, 1, 50, { { 0, 0 } }, 0, 50, 100, 1 },
    { 100, { { 1, 70 } }, 1, 50, { { 0, 0 } }, 0, 70, 100, 1 },
    { 100, { { 1, 20 } }, 1, 50, { { 1, 30 } }, 1, 30, 100, 1 },
    { 100, { { 1, 20 } }, 1, 50, { { 2, 30 } }, 1, 30, 100, 2 },
    /* behind what is read again nothing is left of it */
    { 100, { { 1, 20 } }, 1, 120, { { 2, 110 } }, 1, 110, 120, 1 },
};

static void test_stops(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(stops); i++) {
        struct tail_pass p = { .mask = 1, .resume_until = stops[i].resume_until, .n_parts = stops[i].n_was };
        memcpy(p.parts, stops[i].was, sizeof(stops[i].was));
        reread_stop(&p, stops[i].pos_end, stops[i].now, stops[i].n_now);
        assert_int_equal(p.mask, 0);
        if (p.off != stops[i].off || p.resume_until != stops[i].until || p.n_parts != stops[i].n_parts)
            fail_msg("case %zu: off %llu until %llu, %u parts", i, (unsigned long long)p.off, (unsigned long long)p.resume_until,
                     p.n_parts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_blocked), cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_places), cmocka_unit_test(test_what_is_gone_stays_lost),
        cmocka_unit_test(test_cut_on_the_way), cmocka_unit_test(test_for_a_while), cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_dropped), cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests_name("agent/rereader", tests, NULL, NULL);
}
