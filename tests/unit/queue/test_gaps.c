/*
 * Goal: of what is lost to damage, it is said from which ranges of which files it came, and that is in dead/ for ever.
 * Method: groups of known ranges, frames of them overwritten on disk, then read as the sender does.
 */
#include "agent/queue/view.h"

#include "tests/unit/queue/fixture.h"

enum part { WHOLE, META, BODY };

/* Zeros over that part of the frame that seq has; WHOLE: to the end of frame last_seq. */
static void hurt(struct fixture *f, uint64_t segment, uint64_t seq, uint64_t last_seq, enum part part)
{
    static const uint8_t zero[4096];
    char path[512], name[64];
    uint64_t off, from = 0, to = 0;
    struct scan s;
    struct frame_hdr h;
    uint8_t raw[SEGMENT_HEAD_BYTES];
    struct segment_head head;
    struct stat st;
    snprintf(name, sizeof(name), "%016llx.seg", (unsigned long long)segment);
    fixture_path(f, path, name);
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, raw, sizeof(raw), 0), sizeof(raw));
    assert_int_equal(segment_head_decode(raw, &head), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(scan_init(&s, fd, (uint64_t)st.st_size, head.salt), 0);
    assert_true(scan_find(&s, SEGMENT_HEAD_BYTES, seq, seq, &off, &h));
    from = off + (part == BODY ? FRAME_HEAD_BYTES + h.meta_len : part == META ? FRAME_HEAD_BYTES : 0);
    assert_true(scan_find(&s, off, last_seq, last_seq, &off, &h));
    to = part == META ? from + h.meta_len : off + frame_bytes(&h);
    scan_deinit(&s);
    assert_true(to - from <= sizeof(zero));
    assert_int_equal(pwrite(fd, zero, to - from, (off_t)from), to - from);
    close(fd);
}

static void read_all(struct fixture *f)
{
    struct frame_head h;
    while (take_one(f, &h) != 0)
        assert_true(queue_ack(f->q, h.seq));
}

static void assert_gaps(struct fixture *f, const struct lost_range *want, size_t n)
{
    assert_int_equal(f->q->gaps.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(f->q->gaps.list[i].to.incarnation, want[i].incarnation);
        assert_int_equal(f->q->gaps.list[i].from.end, want[i].start);
        assert_int_equal(f->q->gaps.list[i].to.end, want[i].end);
    }
}

/* The LOST items of LOST frames in dead/. */
static size_t logged(struct fixture *f, struct lost_range *ret, size_t max)
{
    struct view v;
    size_t n = 0;
    struct buf meta;
    buf_init(&meta, MIB);
    assert_int_equal(view_open_at(&v, f->q->dir_fd), 0);
    for (size_t i = 0; i < v.dead.n; i++) {
        struct reading r;
        struct frame_hdr h;
        uint64_t off;
        assert_int_equal(reading_open(&v, &v.dead.list[i], &r), 0);
        while (reading_next(&r, SEQ_MAX, &off, &h)) {
            struct meta_item item;
            assert_int_equal(scan_meta(&r.scan, off, &h, &meta), 0);
            struct slice rest = buf_slice(&meta);
            while (h.type == FRAME_LOST && meta_next(&rest, &item) > 0)
                if (item.tag == META_LOST) {
                    assert_true(n < max);
                    assert_int_equal(meta_get_lost(item.bytes, &ret[n++]), 0);
                }
        }
        assert_int_equal(reading_close(&v, &r, 0), 0);
    }
    view_close(&v);
    buf_deinit(&meta);
    return n;
}

/* Lines of frame n, which has seq n + 1, are [n - 1, n) of file 1. */
static void one_body(void **state)
{
    struct fixture *f = *state;
    struct lost_range got[4];
    fixture_open(f);
    put_synced(f, 1, 20);
    hurt(f, 1, 8, 8, BODY);
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 6, .end = 7 } }, 1);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(f->q->gaps.n, 0);
    assert_int_equal(logged(f, got, 4), 1);
    assert_int_equal(got[0].start, 6);
    assert_int_equal(got[0].end, 7);
}

static void whole_frames(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 20);
    queue_close(f->q);
    fixture_open(f);
    hurt(f, 1, 8, 10, WHOLE);
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 6, .end = 9 } }, 1);
}

static void the_last_of_a_segment(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 20);
    queue_close(f->q);
    fixture_open(f);
    hurt(f, 1, 20, 22, WHOLE); /* and the SEAL */
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 18, .end = 20 } }, 1);
}

/* A frame of one tenant: the range of its group, whichever lines of it were whose. */
static void the_first_of_a_group(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 4, 1, "a"), NULL, &seq), 0);
    uint64_t first = seq;
    assert_int_equal(queue_append(f->q, sample_frame(&s, 5, 1, "b"), sample_end(&e, 1, 3, 50), &seq), 0);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 6, 1, "b"), sample_end(&e, 1, 50, 60), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    queue_close(f->q);
    fixture_open(f);
    hurt(f, 1, first, first, WHOLE);
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 3, .end = 50 } }, 1);
}

/* Only the files that the lost groups had moved. */
static void two_files(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    for (unsigned i = 1; i <= 10; i++)
        assert_int_equal(queue_append(f->q, sample_frame(&s, i, 1, "a"),
                                      sample_end(&e, 1 + i % 2, (i - 1) / 2 * 10, (i - 1) / 2 * 10 + 10), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    queue_close(f->q);
    fixture_open(f);
    hurt(f, 1, 6, 7, WHOLE); /* frames 5 and 6: [20, 30) of both */
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 2, .start = 20, .end = 30 },
                                                { .incarnation = 1, .start = 20, .end = 30 } }, 2);
}

/* The first that names file 2, and a group by itself: what comes next of that file is whole, and where its records stand between
 * the two was told by the lost one alone. */
static void what_follows_a_lost_beginning_is_whole(void **state)
{
    struct fixture *f = *state;
    const enum part parts[] = { META, WHOLE };
    struct sample s;
    struct sample_end e;
    uint64_t first, seq;
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        unsigned file = 2 + i;
        fixture_open(f);
        put_synced(f, 1 + i, 1 + i);
        assert_int_equal(queue_append(f->q, sample_frame(&s, 2, 1, "a"), sample_end(&e, file, 0, 10), &first), 0);
        assert_int_equal(queue_append(f->q, sample_frame(&s, 3, 1, "a"), sample_end(&e, file, 10, 20), &seq), 0);
        assert_int_equal(queue_sync(f->q), 0);
        uint64_t segment = f->q->last_id;
        queue_close(f->q);
        fixture_open(f);
        hurt(f, segment, first, first, parts[i]);
        read_all(f);
        assert_gaps(f, (const struct lost_range[]){ { .incarnation = file, .start = 0, .end = 10 } }, 1);
        assert_int_equal(queue_cursor_sync(f->q), 0);
        fixture_close(f);
    }
}

/* ---- the SNAP is damaged as well ---- */

/* Segment 1 has lines 1..5, segment 2 has 6..10: its SNAP's seq. After it a group of three frames, lines 11..13, [10, 13). */
static uint64_t begin_behind_another(struct fixture *f)
{
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 5);
    fixture_close(f);
    fixture_open(f);
    uint64_t snap = f->q->segs[f->q->n_segs - 1].first_seq;
    put_synced(f, 6, 10);
    for (unsigned i = 11; i <= 13; i++)
        assert_int_equal(queue_append(f->q, sample_frame(&s, i, 1, "t"), i < 13 ? NULL : sample_end(&e, 1, 10, 13), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    fixture_close(f);
    fixture_open(f);
    return snap;
}

/* The segment before says where the file stood, to the byte: what was read there is known by its CRC when it is read again. */
static void the_snap_and_the_group_behind_it(void **state)
{
    struct fixture *f = *state;
    const enum part snaps[] = { META, WHOLE, META, WHOLE, WHOLE, META }, firsts[] = { BODY, BODY, WHOLE, META, BODY, WHOLE };
    for (unsigned i = 0; i < ARRAY_LEN(snaps); i++) {
        fixture_deinit(f);
        fixture_init(f);
        uint64_t snap = begin_behind_another(f);
        hurt(f, 2, snap + 1, snap + 1, firsts[i]);
        hurt(f, 2, snap, snap, snaps[i]);
        if (i >= 4) /* the groups behind it have moved the file */
            hurt(f, 1, 1, 1, snaps[i]);
        read_all(f);
        assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 5, .end = 6 } }, 1);
        assert_int_equal(f->q->gaps.list[0].from.tail_len, 8);
        assert_int_equal(f->q->losses.rows[0].lost[LOST_DAMAGE], 1);
    }
}

/* Nobody knows where the file stood, but by the group itself. */
static void the_snap_of_the_oldest_segment(void **state)
{
    struct fixture *f = *state;
    uint64_t snap = begin_behind_another(f);
    struct frame_head h;
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(take_one(f, &h), i);
        assert_true(queue_ack(f->q, h.seq));
    }
    hurt(f, 2, snap + 1, snap + 1, BODY);
    hurt(f, 2, snap, snap, META);
    char path[512];
    fixture_path(f, path, "0000000000000001.seg");
    assert_int_equal(truncate(path, SEGMENT_HEAD_BYTES), 0);
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 5, .end = 6 } }, 1);
    assert_int_equal(f->q->gaps.list[0].from.tail_len, 0);
}

/* What segment 1 has lost was counted when the sender came to it, and may have been read again: only what the group itself says. */
static void the_snap_and_a_hole_in_the_segment_before(void **state)
{
    struct fixture *f = *state;
    uint64_t snap = begin_behind_another(f);
    hurt(f, 1, 4, 4, WHOLE);
    hurt(f, 2, snap + 1, snap + 1, BODY);
    hurt(f, 2, snap, snap, META);
    read_all(f);
    assert_gaps(f, (const struct lost_range[]){ { .incarnation = 1, .start = 2, .end = 3 },
                                                { .incarnation = 1, .start = 5, .end = 6 } }, 2);
    assert_int_equal(f->q->gaps.list[1].from.tail_len, 0);
    assert_int_equal(f->q->losses.rows[0].lost[LOST_DAMAGE], 2);
}

/* There are no lines in it: nothing is lost, and no range is to be read. */
static void the_snap_alone(void **state)
{
    struct fixture *f = *state;
    const enum part parts[] = { META, WHOLE };
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        fixture_deinit(f);
        fixture_init(f);
        uint64_t snap = begin_behind_another(f);
        hurt(f, 2, snap, snap, parts[i]);
        read_all(f);
        assert_int_equal(f->q->read_seq, snap + 11); /* behind the SNAP of segment 3 */
        assert_gaps(f, NULL, 0);
        for (size_t k = 0; k < f->q->losses.n; k++)
            assert_int_equal(f->q->losses.rows[k].lost[LOST_DAMAGE], 0);
    }
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_body),  TEST(whole_frames), TEST(the_last_of_a_segment), TEST(the_first_of_a_group),
        TEST(two_files), TEST(what_follows_a_lost_beginning_is_whole),
        TEST(the_snap_and_the_group_behind_it), TEST(the_snap_of_the_oldest_segment), TEST(the_snap_alone),
        TEST(the_snap_and_a_hole_in_the_segment_before),
    };
    return cmocka_run_group_tests_name("queue/gaps", tests, NULL, NULL);
}
