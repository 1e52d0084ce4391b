/*
 * Goal: wherever a write stopped, and whatever stands behind, the whole groups before it count and nothing else.
 * Method: for each kind of write the folder as it was just after it; the write is cut at every byte and followed by
 * nothing, zeros, noise, or bytes of an older file of the same queue.
 */
#include "tests/scopes/scope.h"

enum fill { FILL_NONE, FILL_ZERO, FILL_NOISE, FILL_OLD, N_FILLS };
static const char *const fill_names[] = { "nothing", "zeros", "noise", "old bytes" };

enum { LINES = 12, BEHIND = 200 };

static struct scope s;

/* ---- what is written last ---- */

/* Two groups that are known durable, the first of them delivered; then one that is durable. */
static void begin(void)
{
    struct frame_head h;
    scope_open(&s);
    uint64_t seq = scope_put_one(&s, 1, 2);
    scope_sync(&s);
    (void)scope_put_one(&s, 3, 4);
    scope_sync(&s);
    while (queue_next(s.q, &h) == 1)
        ;
    assert_true(queue_ack(s.q, seq));
    assert_int_equal(queue_cursor_sync(s.q), 0);
    (void)scope_put_one(&s, 5, 5);
    scope_sync(&s);
}

static void one_frame(void)
{
    (void)scope_put_one(&s, 6, 7);
}

static void a_group(void)
{
    (void)scope_put(&s, 6, 6, "t", true, 0, 0);
    (void)scope_put(&s, 7, 7, "u", true, 0, 0);
    (void)scope_put(&s, 8, 8, "t", false, 50, 80);
}

static void two_groups(void)
{
    (void)scope_put_one(&s, 6, 6);
    (void)scope_put_one(&s, 7, 7);
}

static void positions(void)
{
    (void)scope_put(&s, 1, 0, "", false, 50, 55);
}

static void seal(void)
{
    assert_int_equal(segment_seal(s.q, false), 0);
}

static void next_segment(void)
{
    assert_int_equal(segment_begin(s.q), 0);
}

static void letter(unsigned nth, unsigned first, unsigned last)
{
    struct scope_frame f;
    struct frame_orig o = { .seq = queue_acked_seq(s.q) + nth, .status = 400, .reason = SLICE("refused"),
                            .text = SLICE("for the test") };
    assert_int_equal(queue_dead_append(s.q, scope_frame(&f, first, last, "t"), &o), 0);
}

static void dead_letter(void)
{
    letter(1, 3, 4);
}

static void second_letter(void)
{
    letter(2, 5, 5);
}

static void parked(void)
{
    struct scope_frame f;
    uint64_t id;
    struct frame_orig o = { .seq = queue_acked_seq(s.q) + 1, .item = UINT32_MAX, .status = 429,
                            .reason = SLICE("refused"), .text = SLICE("for the test") };
    assert_int_equal(queue_park(s.q, scope_frame(&f, 3, 4, "t"), &o, &id), 0);
}

/* The frame of 3 and 4 is damaged while we run; that its loss is known is written, the cursor is not moved yet. */
static uint64_t damaged_at;

static void note_loss(void)
{
    struct frame_head h;
    struct buf meta, body;
    uint8_t byte = 'X';
    buf_init(&meta, FRAME_META_MAX);
    buf_init(&body, FRAME_BODY_MAX);
    queue_rewind(s.q);
    assert_int_equal(queue_next(s.q, &h), 1);
    damaged_at = h.off + FRAME_HEAD_BYTES + h.meta_len;
    assert_int_equal(disk_poke(s.d, DIR "/0000000000000001.seg", damaged_at, &byte, 1), 0);
    assert_int_equal(queue_load(s.q, &h, &meta, &body), -EBADMSG);
    assert_int_equal(loss_flush(s.q), 0);
    buf_deinit(&meta);
    buf_deinit(&body);
}

static const struct kind {
    const char *name;
    void (*before)(void), (*write)(void);
    const char *path;
    unsigned lost, dead; /* lines */
    uint64_t refused;    /* bit n: the frame of line n */
} kinds[] = {
    { "a frame", NULL, one_frame, DIR "/0000000000000001.seg", 0, 0, 0 },
    { "a group", NULL, a_group, DIR "/0000000000000001.seg", 0, 0, 0 },
    { "two groups", NULL, two_groups, DIR "/0000000000000001.seg", 0, 0, 0 },
    { "positions", NULL, positions, DIR "/0000000000000001.seg", 0, 0, 0 },
    { "the end of a segment", NULL, seal, DIR "/0000000000000001.seg", 0, 0, 0 },
    { "the next segment", seal, next_segment, DIR "/0000000000000002.seg", 0, 0, 0 },
    { "the first dead letter", NULL, dead_letter, DIR "/dead/0000000000000001.dead", 0, 2, 1 << 3 },
    { "a dead letter", dead_letter, second_letter, DIR "/dead/0000000000000001.dead", 0, 3, 1 << 3 | 1 << 5 },
    { "a parked frame", NULL, parked, DIR "/parked/0000000000000001.parked", 0, 0, 0 },
    { "a loss", NULL, note_loss, DIR "/dead/0000000000000001.dead", 2, 0, 0 },
};

/* ---- tearing ---- */

/* Frames with their own good CRCs, of a file that was here before: it has another salt. */
static uint8_t old_bytes[16 * KIB];

static void make_old_bytes(void)
{
    scope_init(&s, 99);
    scope_open(&s);
    for (unsigned n = 1; n < 40; n++)
        (void)scope_put_one(&s, n, n);
    scope_sync(&s);
    ssize_t got = disk_read(s.d, DIR "/0000000000000001.seg", old_bytes, sizeof(old_bytes), 0);
    assert_true(got > 4096);
    scope_deinit(&s);
}

static void fill_from(enum fill fill, const char *path, uint64_t off, uint64_t end)
{
    uint8_t bytes[4 * KIB];
    uint64_t x = off + 1;
    size_t len = (size_t)(end - off);
    assert_true(len <= sizeof(bytes));
    for (size_t i = 0; i < len; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
        bytes[i] = fill == FILL_ZERO ? 0 : fill == FILL_NOISE ? (uint8_t)(x >> 33) : old_bytes[off + i];
    }
    if (fill != FILL_NONE)
        assert_int_equal(disk_poke(s.d, path, off, bytes, len), 0);
}

static void check(const struct kind *k, uint64_t off, enum fill fill, const struct account *a)
{
    uint64_t out = 0;
    for (unsigned n = 1; n <= LINES; n++) {
        if (a->out[n] > (n > 2))
            fail_msg("%s, cut at %llu, then %s: line %u came out %u times", k->name, (unsigned long long)off,
                     fill_names[fill], n, a->out[n]);
        out += a->out[n];
    }
    /* Half a header and then whole frames: nobody can tell it from a damaged file. It is set aside as one. */
    bool is_strange = k->write == next_segment && fill == FILL_OLD && off < SEGMENT_HEAD_BYTES;
    bool is_good = out + 2 + a->lost + a->dead == LINES && a->lost == k->lost && a->dead == k->dead && (k->lost > 0 || is_strange || a->damaged_frames == 0);
    if (!is_good)
        fail_msg("%s, cut at %llu, then %s: %llu came out, %llu lost, %llu dead, %llu damaged", k->name,
                 (unsigned long long)off, fill_names[fill], (unsigned long long)out, (unsigned long long)a->lost,
                 (unsigned long long)a->dead, (unsigned long long)a->damaged_frames);
}

static uint64_t n_cases;

static void tear(const struct kind *k, uint64_t from, uint64_t to, const struct disk_image *im)
{
    for (uint64_t off = from; off <= to; off++) {
        for (enum fill fill = FILL_NONE; fill < N_FILLS; fill++, n_cases++) {
            struct account a;
            if (scope_skips(n_cases, 5))
                continue;
            disk_image_put(s.d, im);
            assert_int_equal(disk_cut(s.d, k->path, off), 0);
            fill_from(fill, k->path, off, to + BEHIND);
            s.refused = k->refused;
            scope_live(&s, LINES, &a);
            check(k, off, fill, &a);
        }
    }
}

static void every_torn_offset(void **state)
{
    (void)state;
    make_old_bytes();
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct kind *k = &kinds[i];
        scope_init(&s, i);
        begin();
        if (k->before != NULL)
            k->before();
        int64_t from = disk_size(s.d, k->path), from_or_0 = MAX(from, (int64_t)0);
        k->write();
        int64_t to = disk_size(s.d, k->path);
        assert_true(to > from);
        scope_crash(&s, LOSS_NOTHING, 0);
        struct disk_image *im = disk_image_take(s.d);
        tear(k, (uint64_t)from_or_0, (uint64_t)to, im);
        disk_image_free(im);
        scope_deinit(&s);
    }
    print_message("%llu torn writes\n", (unsigned long long)n_cases);
}

/* ---- the cursor, which is written in place ---- */

/* Of the second of three writes (slot 0 again): a mix of the new slot and of what was there, byte by byte. */
static void every_torn_cursor(void **state)
{
    (void)state;
    uint64_t seq[3];
    make_old_bytes();
    scope_init(&s, 5);
    begin();
    uint8_t before[4608], after[4608];
    for (unsigned i = 0; i < 3; i++) {
        seq[i] = scope_put_one(&s, 6 + i, 6 + i);
        scope_sync(&s);
    }
    struct frame_head h;
    while (queue_next(s.q, &h) == 1)
        ;
    assert_true(queue_ack(s.q, queue_acked_seq(s.q) + 1)); /* 3 and 4, to the other slot */
    assert_int_equal(queue_cursor_sync(s.q), 0);
    assert_int_equal(disk_read(s.d, DIR "/cursor", before, sizeof(before), 0), sizeof(before));
    assert_true(queue_ack(s.q, seq[1])); /* a bit behind the cursor */
    assert_int_equal(queue_cursor_sync(s.q), 0);
    assert_int_equal(disk_read(s.d, DIR "/cursor", after, sizeof(after), 0), sizeof(after));
    size_t slot = memcmp(before, after, CURSOR_SLOT_BYTES) != 0 ? 0 : CURSOR_SLOT_OFF;
    assert_true(memcmp(before + slot, after + slot, CURSOR_SLOT_BYTES) != 0);
    scope_crash(&s, LOSS_NOTHING, 0);
    struct disk_image *im = disk_image_take(s.d);
    for (size_t off = 0; off <= CURSOR_SLOT_BYTES; off++) {
        for (enum fill fill = FILL_NONE; fill < N_FILLS; fill++) {
            struct account a;
            disk_image_put(s.d, im);
            if (fill == FILL_NONE) /* what was there */
                assert_int_equal(disk_poke(s.d, DIR "/cursor", slot + off, before + slot + off,
                                           CURSOR_SLOT_BYTES - off), 0);
            else
                fill_from(fill, DIR "/cursor", slot + off, slot + CURSOR_SLOT_BYTES);
            scope_live(&s, LINES, &a);
            for (unsigned n = 5; n <= LINES; n++)
                assert_int_equal(a.out[n], n == 7 ? a.out[7] : 1);
            if (a.out[1] + a.out[2] + a.out[3] + a.out[4] > 0 || a.out[7] > 1)
                fail_msg("cursor cut at %zu of the slot at %zu, then %s: lines came out %u %u %u times", off, slot,
                         fill_names[fill], a.out[1], a.out[2], a.out[7]);
            assert_true(off < CURSOR_SLOT_BYTES || a.out[7] == 0);
            assert_int_equal(a.lost + a.damaged_frames, 0);
        }
    }
    disk_image_free(im);
    scope_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_torn_offset), cmocka_unit_test(every_torn_cursor) };
    return cmocka_run_group_tests_name("scopes/torn", tests, NULL, NULL);
}
