/*
 * Goal: whole files that are gone, empty, exchanged, doubled or another queue's, and cursors that are bad, old or ahead,
 * cost what is written in FORMATS.md and are counted. Method: the folder of folder.h, one such mishap at a time.
 */
#include "tests/scopes/folder.h"

static struct scope s;
static struct map map;
static struct disk_image *im;

static void seg_path(char out[96], unsigned id)
{
    (void)snprintf(out, 96, "%s/%016x.seg", DIR, id);
}

static size_t slurp(const char *path, uint8_t *raw, size_t room)
{
    ssize_t n = disk_read(s.d, path, raw, room, 0);
    assert_true(n > 0 && (size_t)n < room);
    return (size_t)n;
}

static void replace(const char *path, const uint8_t *raw, size_t len)
{
    assert_int_equal(disk_write_file(s.d, path, raw, len), 0);
    disk_write_back(s.d, false);
}

/* lost: that many are counted; gone: these are not even that, but said to be. Lines first..last may be missing. */
struct want {
    uint64_t lost, gone;
    unsigned first, last;
    bool may_repeat;
};

static void expect(const char *what, const struct want *w)
{
    struct account a;
    uint64_t out = 0, done = 0;
    scope_live(&s, FOLDER_LINES, &a);
    for (unsigned n = 1; n <= FOLDER_LINES; n++) {
        out += a.out[n];
        done += folder_is_done(n) && a.out[n] == 0;
        if (a.out[n] > (folder_is_done(n) && !w->may_repeat ? 0u : 1u))
            fail_msg("%s: line %u came out %u times", what, n, a.out[n]);
        if (a.out[n] == 0 && !folder_is_done(n) && n != 4 && (n < w->first || n > w->last))
            fail_msg("%s: line %u is gone", what, n);
    }
    if (a.lost != w->lost || out + done + a.lost + a.dead + w->gone != FOLDER_LINES)
        fail_msg("%s: %llu done, %llu came out, %llu lost, %llu dead", what, (unsigned long long)done,
                 (unsigned long long)out, (unsigned long long)a.lost, (unsigned long long)a.dead);
}

static int setup(void **state)
{
    (void)state;
    scope_init(&s, 3);
    folder_make(&s);
    map_make(&map, s.d);
    im = disk_image_take(s.d);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disk_image_free(im);
    scope_deinit(&s);
    return 0;
}

/* Of the oldest nothing says what was in it (line 6; 7 is parked); of the middle one its neighbours do; what was in the
 * newest is read again. */
static const struct want of_segment[] = { { 0, 1, 6, 6, false }, { 5, 0, 8, 12, false }, { 0, 0, 1, 0, false } };

static void segments_missing(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        char path[96];
        disk_image_put(s.d, im);
        seg_path(path, k + 1);
        assert_int_equal(disk_unlink(s.d, path), 0);
        disk_write_back(s.d, false);
        expect(path, &of_segment[k]);
    }
}

static void segments_empty(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        char path[96];
        disk_image_put(s.d, im);
        seg_path(path, k + 1);
        assert_int_equal(disk_cut(s.d, path, 0), 0);
        expect(path, &of_segment[k]);
    }
}

/* A file whose header does not fit its name is set aside; its frames are counted. */
static void segments_exchanged(void **state)
{
    (void)state;
    static const struct want wants[3][3] = {
        { { 0, 0, 1, 0, false }, { 6, 0, 6, 12, false }, { 1, 0, 6, 6, false } },
        { { 0 }, { 0 }, { 0, 0, 1, 0, false } }, /* all behind the first is read again */
        { { 0 }, { 0 }, { 0 } },
    };
    static uint8_t a[16 * KIB], b[16 * KIB];
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = i + 1; k < 3; k++) {
            char one[96], other[96], what[224];
            disk_image_put(s.d, im);
            seg_path(one, i + 1);
            seg_path(other, k + 1);
            size_t n = slurp(one, a, sizeof(a)), m = slurp(other, b, sizeof(b));
            replace(one, b, m);
            replace(other, a, n);
            (void)snprintf(what, sizeof(what), "%s exchanged with %s", one, other);
            expect(what, &wants[i][k]);
        }
    }
}

static void segments_doubled(void **state)
{
    (void)state;
    static const struct want nothing = { 0, 0, 1, 0, false };
    static uint8_t raw[16 * KIB];
    for (unsigned k = 1; k <= 3; k++) {
        for (unsigned id = 4; id < 6; id++) {
            char path[96], to[96];
            disk_image_put(s.d, im);
            seg_path(path, k);
            seg_path(to, id);
            replace(to, raw, slurp(path, raw, sizeof(raw)));
            expect("doubled", &nothing);
        }
    }
}

/* A segment of another queue with the same ids and seqs: beside ours, and instead of one. */
static void segments_of_another_queue(void **state)
{
    (void)state;
    static const struct want nothing = { 0, 0, 1, 0, false };
    static uint8_t foreign[3][16 * KIB];
    size_t len[3];
    struct scope mine = s;
    scope_init(&s, 77);
    folder_make(&s);
    for (unsigned k = 0; k < 3; k++) {
        char path[96];
        seg_path(path, k + 1);
        len[k] = slurp(path, foreign[k], sizeof(foreign[k]));
    }
    scope_deinit(&s);
    s = mine;
    disk_use(s.d);
    clock_set_source(scope_clock, scope_clock);
    for (unsigned k = 0; k < 3; k++) {
        char path[96];
        disk_image_put(s.d, im);
        seg_path(path, 4);
        replace(path, foreign[k], len[k]);
        expect("another's, above ours", &nothing);
        disk_image_put(s.d, im);
        seg_path(path, k + 1);
        replace(path, foreign[k], len[k]);
        expect(path, &of_segment[k]);
    }
}

/* ---- the cursor ---- */

static void put_cursor(uint64_t acked, uint64_t generation)
{
    uint8_t raw[CURSOR_SLOT_BYTES];
    struct cursor_slot c = { 0 };
    struct segment_head head;
    uint8_t first[SEGMENT_HEAD_BYTES];
    assert_int_equal(disk_read(s.d, DIR "/0000000000000001.seg", first, sizeof(first), 0), sizeof(first));
    assert_int_equal(segment_head_decode(first, &head), 0);
    memcpy(c.uuid, head.uuid, UUID_BYTES);
    c.acked_seq = acked;
    c.generation = generation;
    cursor_encode(&c, raw);
    assert_int_equal(disk_poke(s.d, DIR "/cursor", generation % 2 * CURSOR_SLOT_OFF, raw, sizeof(raw)), 0);
}

static void cursor_is_bad(void **state)
{
    (void)state;
    static const struct want all_again = { 0, 0, 1, 0, true };
    static const uint8_t zero[CURSOR_SLOT_BYTES];
    disk_image_put(s.d, im);
    assert_int_equal(disk_poke(s.d, DIR "/cursor", 0, zero, sizeof(zero)), 0);
    assert_int_equal(disk_poke(s.d, DIR "/cursor", CURSOR_SLOT_OFF, zero, sizeof(zero)), 0);
    s.refused = UINT64_C(1) << 4;
    expect("both slots bad", &all_again);
    static const unsigned lengths[] = { 0, 1, 511, 512, 4095, 4096, 4097, 4607 };
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        disk_image_put(s.d, im);
        assert_int_equal(disk_cut(s.d, DIR "/cursor", lengths[i]), 0);
        s.refused = UINT64_C(1) << 4;
        expect("the cursor is cut", &all_again);
    }
    disk_image_put(s.d, im);
    assert_int_equal(disk_unlink(s.d, DIR "/cursor"), 0);
    disk_write_back(s.d, false);
    expect("no cursor", &all_again);
}

/* Each place behind and ahead: never below what is there, and new frames are above it. */
static void cursor_anywhere(void **state)
{
    (void)state;
    for (uint64_t acked = 0; acked < 40; acked++) {
        struct account a;
        disk_image_put(s.d, im);
        put_cursor(acked, 1000 + acked % 2);
        s.refused = UINT64_C(1) << 4;
        scope_live(&s, FOLDER_LINES, &a);
        assert_int_equal(a.lost, 0);
        for (unsigned n = 1; n <= FOLDER_LINES; n++)
            assert_true(a.out[n] <= 1);
        /* The last line has a frame, or is read again after the position; acknowledged it is only beyond. */
        assert_true(a.out[FOLDER_LINES] == 1 || acked > 20);
    }
    disk_image_put(s.d, im);
    put_cursor(SEQ_MAX - 10, 1001);
    scope_open(&s);
    assert_true(s.rec.next_seq > SEQ_MAX - 10);
    scope_close(&s);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(segments_missing), TEST(segments_empty),           TEST(segments_exchanged), TEST(segments_doubled),
        TEST(cursor_is_bad),    TEST(segments_of_another_queue), TEST(cursor_anywhere),
    };
    return cmocka_run_group_tests_name("scopes/files", tests, NULL, NULL);
}
