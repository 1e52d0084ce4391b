/*
 * Goal: what is appended and synced comes out once, in order, whatever is closed or killed in between; positions, ledger
 * and cursor with it. Method: a real folder, production sizes unless a test shrinks them.
 */
#include "tests/unit/queue/fixture.h"

static void new_queue_is_empty(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    fixture_open(f);
    assert_true(f->rec.is_new);
    assert_int_equal(f->rec.n_files, 0);
    assert_int_equal(queue_next(f->q, &h), 0);
    assert_false(queue_is_dirty(f->q));
    assert_true(f->rec.next_seq > queue_acked_seq(f->q));
}

static void only_durable_frames_are_seen(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    fixture_open(f);
    assert_int_equal(put_one(f, 1), 0);
    assert_true(queue_is_dirty(f->q));
    assert_int_equal(take_one(f, &h), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_false(queue_is_dirty(f->q));
    drain(f, 1, 1);
}

static void group_is_seen_whole(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    struct frame_head h;
    uint64_t seq;
    fixture_open(f);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 1, 5, "a"), NULL, &seq), 0);
    assert_true(queue_in_group(f->q));
    assert_int_equal(queue_sync(f->q), 0);
    assert_int_equal(take_one(f, &h), 0);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 2, 6, "b"), sample_end(&e, 9, 0, 11), &seq), 0);
    assert_false(queue_in_group(f->q));
    assert_int_equal(queue_sync(f->q), 0);
    assert_int_equal(queue_durable_seq(f->q), seq);
    assert_int_equal(take_one(f, &h), 1);
    assert_int_equal(h.flags, FRAME_FLAG_MORE);
    assert_int_equal(h.lines, 5);
    assert_int_equal(take_one(f, &h), 2);
    assert_int_equal(take_one(f, &h), 0);
}

static void group_may_end_with_positions_only(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 1, 1, "t"), NULL, &seq), 0);
    assert_int_equal(queue_append(f->q, NULL, sample_end(&e, 4, 0, 44), &seq), 0);
    assert_int_equal(queue_append(f->q, NULL, sample_end(&e, 4, 44, 50), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, 1);
    assert_int_equal(queue_acked_seq(f->q), seq); /* others are acknowledged by themselves */
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(file_end(&f->rec, 4), 50);
}

static void open_group_is_void_after_crash(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 99, 5, "a"), NULL, &seq), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(file_end(&f->rec, 1), 3);
    assert_int_equal(f->rec.queued_lines, 3);
    assert_true(f->rec.torn_bytes > 0);
    assert_int_equal(f->rec.damaged_frames, 0);
    assert_true(f->rec.next_seq > seq);
    drain(f, 1, 3);
}

static void abandoned_group_is_void(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    const struct frame_row *rows;
    size_t n;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 2);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 99, 5, "a"), NULL, &seq), 0);
    queue_abandon_group(f->q);
    queue_voided(f->q, &rows, &n);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].lines, 5);
    assert_false(queue_in_group(f->q));
    put_synced(f, 3, 4);
    assert_true(queue_durable_seq(f->q) > seq);
    drain(f, 1, 4);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "a").accepted, 0);
    assert_int_equal(rec_row(&f->rec, "t").accepted, 4);
    drain(f, 5, 4);
}

static void resumes_after_close_and_crash(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    unsigned next_in = 1, next_out = 1;
    fixture_open(f);
    for (unsigned round = 0; round < 12; round++) {
        put_synced(f, next_in, next_in + 4);
        next_in += 5;
        for (unsigned k = 0; k < 4; k++) {
            assert_int_equal(take_one(f, &h), next_out++);
            queue_ack(f->q, h.seq);
        }
        queue_cursor_write(f->q);
        if (round % 2 == 0) {
            fixture_close(f);
        } else {
            fixture_crash(f);
        }
        fixture_open(f);
        assert_false(f->rec.is_new);
        assert_int_equal(f->rec.torn_bytes, 0);
        assert_int_equal(f->rec.damaged_frames, 0);
        assert_int_equal(f->rec.queued_lines, next_in - next_out);
        assert_int_equal(f->rec.queued_frames, next_in - next_out);
        assert_int_equal(file_end(&f->rec, 1), next_in - 1);
        assert_int_equal(f->rec.n_ledger, 1);
        assert_int_equal(f->rec.ledger[0].read_lines, next_in - 1);
        assert_int_equal(rec_row(&f->rec, "t").accepted, next_in - 1);
        assert_int_equal(rec_row(&f->rec, "t").queued, next_in - next_out);
    }
    drain(f, next_out, next_in - 1);
}

static void acks_out_of_order_survive(void **state)
{
    struct fixture *f = *state;
    struct frame_head h[6];
    fixture_open(f);
    put_synced(f, 1, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(take_one(f, &h[i]), i + 1);
    uint64_t before = queue_acked_seq(f->q);
    assert_true(queue_ack(f->q, h[1].seq));
    assert_true(queue_ack(f->q, h[3].seq));
    assert_false(queue_ack(f->q, h[3].seq));
    assert_int_equal(queue_acked_seq(f->q), before);
    assert_true(queue_has_cursor_news(f->q));
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_false(queue_has_cursor_news(f->q));

    queue_rewind(f->q);
    struct frame_head again;
    assert_int_equal(take_one(f, &again), 1);
    assert_int_equal(take_one(f, &again), 3);

    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(f->rec.queued_lines, 4);
    assert_int_equal(take_one(f, &again), 1);
    assert_int_equal(take_one(f, &again), 3);
    assert_int_equal(take_one(f, &again), 5);
    assert_true(queue_ack(f->q, h[0].seq));
    assert_true(queue_ack(f->q, h[2].seq));
    assert_int_equal(queue_acked_seq(f->q), h[3].seq);
}

static void window_bounds_what_is_handed_out(void **state)
{
    struct fixture *f = *state;
    struct frame_head h, first;
    fixture_open(f);
    put_synced(f, 1, QUEUE_WINDOW + 50);
    assert_int_equal(take_one(f, &first), 1);
    unsigned n = 1;
    while (take_one(f, &h) != 0) {
        n++;
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_true(n >= QUEUE_WINDOW - 2 && n <= QUEUE_WINDOW);
    assert_true(queue_ack(f->q, first.seq));
    assert_int_equal(queue_acked_seq(f->q), h.seq);
    drain(f, n + 1, QUEUE_WINDOW + 50);
}

static void rolls_and_unlinks(void **state)
{
    struct fixture *f = *state;
    struct frame_head h;
    queue_tuning.segment_bytes = 64 * KIB;
    fixture_open(f);
    put_synced(f, 1, 3000);
    unsigned segs = count_files(f, ".", ".seg");
    assert_true(segs > 5);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    assert_int_equal(count_files(f, ".", ".seg"), segs);
    for (unsigned i = 1; i <= 1500; i++) {
        assert_int_equal(take_one(f, &h), i);
        queue_ack(f->q, h.seq);
    }
    assert_int_equal(queue_unlink_acked(f->q), 0); /* the cursor is not durable yet */
    assert_int_equal(count_files(f, ".", ".seg"), segs);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    uint64_t before = queue_bytes(f->q);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    assert_true(count_files(f, ".", ".seg") < segs - 1);
    assert_true(queue_bytes(f->q) < before);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(f->rec.queued_lines, 1500);
    assert_int_equal(f->rec.queued_frames, 1500);
    assert_int_equal(file_end(&f->rec, 1), 3000);
    drain(f, 1501, 3000);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    assert_int_equal(count_files(f, ".", ".seg"), 1);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(f->rec.queued_lines, 0);
    assert_int_equal(file_end(&f->rec, 1), 3000);
    assert_int_equal(rec_row(&f->rec, "t").accepted, 3000);
}

static void full_blocks_and_drains(void **state)
{
    struct fixture *f = *state;
    struct sample_end e;
    enum blocked_reason why;
    uint64_t seq;
    queue_tuning.segment_bytes = 64 * KIB;
    f->output.queue.max_bytes = 256 * KIB;
    fixture_open(f);
    unsigned n = 0;
    int r;
    while ((r = put_one(f, n + 1)) == 0)
        n++;
    assert_int_equal(r, -ENOSPC);
    assert_true(queue_bytes(f->q) <= 256 * KIB);
    assert_true(queue_is_blocked(f->q, &why));
    assert_int_equal(why, BLOCKED_FULL);
    /* Positions go on. */
    assert_int_equal(queue_append(f->q, NULL, sample_end(&e, 2, 0, 7), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, n);
    assert_int_equal(put_one(f, n + 1), 0); /* all is acknowledged: over the limit rather than stuck */
    assert_false(queue_is_blocked(f->q, NULL));
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    assert_true(queue_bytes(f->q) < 128 * KIB);
}

static void full_can_drop_the_oldest(void **state)
{
    struct fixture *f = *state;
    queue_tuning.segment_bytes = 64 * KIB;
    f->output.queue.max_bytes = 256 * KIB;
    f->output.queue.on_full = QUEUE_FULL_DROP_OLDEST;
    fixture_open(f);
    put_synced(f, 1, 5000);
    assert_true(queue_bytes(f->q) <= 256 * KIB);
    struct frame_head h;
    unsigned first = take_one(f, &h);
    assert_true(first > 1000);
    fixture_crash(f);
    fixture_open(f);
    struct recovered_row row = rec_row(&f->rec, "t");
    assert_int_equal(row.accepted, 5000);
    assert_int_equal(row.lost[LOST_DROPPED], first - 1);
    assert_int_equal(row.queued, 5000 - first + 1);
    assert_true(row.lost_bytes[LOST_DROPPED] > 0);
    drain(f, first, 5000);
}

static void many_files_fit_a_snap(void **state)
{
    struct fixture *f = *state;
    enum { FILES = 10000 };
    fixture_open(f);
    struct file_ident *ids = calloc(FILES, sizeof(*ids));
    struct file_position *pos = calloc(FILES, sizeof(*pos));
    uint64_t *gone = calloc(FILES, sizeof(*gone));
    char (*paths)[64] = calloc(FILES, sizeof(*paths));
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(paths[i], sizeof(paths[i]), "/var/log/pods/ns_pod-%u_uid/app/0.log", i);
        ids[i] = (struct file_ident){ .incarnation = UINT64_C(0x9e3779b97f4a7c15) * (i + 1), .ino = i, .fp_crc = i * 77,
                                      .path = slice_cstr(paths[i]), .input = SLICE("pods") };
        pos[i] = (struct file_position){ .incarnation = ids[i].incarnation, .end = i + 1, .n_parts = 1,
                                         .parts = { { 2, i } } };
        gone[i] = ids[i].incarnation;
    }
    uint64_t seq;
    struct group_end end = { .files = ids, .n_files = FILES, .positions = pos, .n_positions = FILES };
    assert_int_equal(queue_append(f->q, NULL, &end, &seq), 0);
    fixture_close(f);
    for (int round = 0; round < 3; round++) {
        fixture_open(f);
        assert_int_equal(f->rec.n_files, FILES);
        assert_int_equal(file_end(&f->rec, ids[7777].incarnation), 7778);
        assert_int_equal(f->rec.files[17].position.n_parts, 1);
        assert_int_equal(f->rec.files[17].position.parts[0].stream, 2);
        assert_int_equal(f->rec.files[17].ident.input.len, 4);
        fixture_crash(f);
    }
    fixture_open(f);
    end = (struct group_end){ .gone = gone, .n_gone = FILES - 1 };
    assert_int_equal(queue_append(f->q, NULL, &end, &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(f->rec.n_files, 1);
    free(ids);
    free(pos);
    free(gone);
    free(paths);
}

/* Places between records, in the order of writing, none beyond what is durable. */
static void marks_say_where_a_file_stood(void **state)
{
    struct fixture *f = *state;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 3);
    (void)sample_end(&e, 1, 3, 10);
    e.pos.parts[e.pos.n_parts++] = (struct position_part){ .stream = 1, .start = 5 };
    assert_int_equal(queue_append(f->q, NULL, &e.end, &seq), 0);
    (void)sample_end(&e, 1, 10, 20);
    e.pos.flags = POSITION_SKIP_TO_NEWLINE;
    assert_int_equal(queue_append(f->q, NULL, &e.end, &seq), 0);
    assert_int_equal(queue_append(f->q, NULL, sample_end(&e, 2, 0, 7), &seq), 0);
    assert_int_equal(queue_append(f->q, NULL, sample_end(&e, 1, 20, 30), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    struct sample s;
    assert_int_equal(queue_append(f->q, sample_frame(&s, 99, 5, "a"), NULL, &seq), 0); /* void */
    fixture_crash(f);
    fixture_open(f);
    static const struct recovered_mark want[] = { { 1, 1, 1 }, { 1, 2, 2 }, { 1, 3, 3 }, { 2, 7, 7 }, { 1, 30, 30 } };
    assert_int_equal(f->rec.n_marks, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(f->rec.marks[i].incarnation, want[i].incarnation);
        assert_int_equal(f->rec.marks[i].end, want[i].end);
        assert_int_equal(f->rec.marks[i].head_crc, want[i].head_crc);
    }
}

static void second_agent_is_refused(void **state)
{
    struct fixture *f = *state;
    struct queue *other;
    struct queue_recovery rec;
    fixture_open(f);
    assert_int_equal(queue_open(&f->conf, &other, &rec, &f->err), -EBUSY);
    assert_non_null(strstr(f->err.text, "used by another Tailrace (pid "));
}

static void other_wire_form_waits_for_the_drain(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 2);
    fixture_close(f);
    f->conf.wire_form = 1;
    assert_int_equal(fixture_try_open(f), -EPROTO);
    assert_non_null(strstr(f->err.text, "drain it or rename the output"));
    f->conf.wire_form = 3;
    fixture_open(f);
    drain(f, 1, 2);
    fixture_close(f);
    f->conf.wire_form = 1;
    fixture_open(f);
    assert_int_equal(file_end(&f->rec, 1), 2);
    put_synced(f, 3, 3);
    drain(f, 3, 3);
}

static void newer_version_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char path[512];
    fixture_open(f);
    put_synced(f, 1, 1);
    fixture_path(f, path, "00000000000000ff.seg");
    struct segment_head head = { .id = 255, .first_seq = 1000, .fence = 0, .salt = 1 };
    memcpy(head.uuid, f->q->uuid, UUID_BYTES);
    fixture_close(f);
    uint8_t raw[SEGMENT_HEAD_BYTES];
    segment_head_encode(&head, raw);
    raw[8] = 2;
    uint32_t crc = frame_crc_more(0, raw, 124);
    memcpy(raw + 124, &crc, 4);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, raw, sizeof(raw)), sizeof(raw));
    close(fd);
    assert_int_equal(fixture_try_open(f), -EPROTO);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    fixture_open(f);
    drain(f, 1, 1);
}

static void sync_never_publishes(void **state)
{
    struct fixture *f = *state;
    f->output.queue.sync = QUEUE_SYNC_NEVER;
    fixture_open(f);
    put_synced(f, 1, 3);
    drain(f, 1, 3);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(file_end(&f->rec, 1), 3);
}

static void parked_frames_live_on(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct frame_head h, p;
    uint64_t id, iter = 0;
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(take_one(f, &h), 1);
    struct frame_orig orig = { .seq = h.seq, .item = UINT32_MAX, .status = 401, .reason = SLICE("unauthorized"),
                               .text = SLICE("no") };
    assert_int_equal(queue_park(f->q, sample_frame(&s, 1, 1, "t"), &orig, &id), 0);
    assert_true(queue_ack(f->q, h.seq));
    queue_cursor_write(f->q);
    assert_int_equal(take_one(f, &h), 2);
    orig.seq = h.seq;
    uint64_t id2;
    assert_int_equal(queue_park(f->q, sample_frame(&s, 2, 1, "t"), &orig, &id2), 0);
    /* Not acknowledged: the frame comes again, its copy goes. */
    fixture_crash(f);
    fixture_open(f);
    struct recovered_row row = rec_row(&f->rec, "t");
    assert_int_equal(row.accepted, 3);
    assert_int_equal(row.parked, 1);
    assert_int_equal(row.queued, 2);
    assert_int_equal(queue_parked_next(f->q, &iter, &p), 1);
    assert_true(p.is_parked);
    assert_int_equal(p.lines, 1);
    struct buf meta, body;
    buf_init(&meta, MIB);
    buf_init(&body, MIB);
    assert_int_equal(queue_load(f->q, &p, &meta, &body), 0);
    struct frame_meta m;
    struct frame_row rows[2];
    assert_int_equal(frame_meta_parse(buf_slice(&meta), rows, 2, &m), 0);
    assert_int_equal(m.orig.status, 401);
    assert_true(slice_eq(m.orig.reason, SLICE("unauthorized")));
    assert_true(slice_eq(buf_slice(&body), SLICE("frame 1 of t")));
    buf_deinit(&meta);
    buf_deinit(&body);
    uint64_t one = p.segment_id;
    assert_int_equal(queue_parked_next(f->q, &iter, &p), 0);
    assert_int_equal(queue_unpark(f->q, one), 0);
    assert_int_equal(queue_unpark(f->q, one), -ENOENT);
    drain(f, 2, 3);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").parked, 0);
}

static void parked_key_has_its_share(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    uint64_t id, first = 0;
    struct frame_head none;
    f->output.queue.max_bytes = 64 * KIB;
    fixture_open(f);
    assert_int_equal(queue_next(f->q, &none), 0); /* seq 1, a SNAP, is behind the cursor now */
    struct frame_orig orig = { .seq = 1, .item = UINT32_MAX };
    unsigned n = 0;
    while (queue_park(f->q, sample_frame(&s, n, 2, "t"), &orig, &id) == 0) {
        first = first == 0 ? id : first;
        n++;
    }
    assert_true(n > 20 && n < 100);
    assert_int_equal(queue_park(f->q, sample_frame(&s, n, 2, "u"), &orig, &id), 0);
    assert_int_equal(queue_park_drop(f->q, first, LOST_KEY_QUOTA), 0);
    assert_int_equal(queue_park(f->q, sample_frame(&s, n, 2, "t"), &orig, &id), 0);
    fixture_crash(f); /* the file is gone, so its loss must be on disk already */
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 2);
    assert_int_equal(rec_row(&f->rec, "t").parked, 2 * n);
}

static const char *refused; /* names that end so can be neither made nor removed */

static bool is_refused(const char *name)
{
    size_t n = strlen(name), m = strlen(refused);
    return n >= m && strcmp(name + n - m, refused) == 0;
}

static int refusing_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return (flags & O_CREAT) != 0 && is_refused(name) ? -ENOSPC : fs_real.open(dir_fd, name, flags, mode);
}

static int refusing_unlink(int dir_fd, const char *name)
{
    return is_refused(name) ? -EIO : fs_real.unlink(dir_fd, name);
}

static struct fs_ops refusing(const char *suffix)
{
    struct fs_ops ops = fs_real;
    refused = suffix;
    ops.open = refusing_open;
    ops.unlink = refusing_unlink;
    return ops;
}

static uint64_t park_one(struct fixture *f)
{
    struct sample s;
    struct frame_orig orig = { .seq = 1, .item = UINT32_MAX };
    struct frame_head none;
    uint64_t id;
    assert_int_equal(queue_next(f->q, &none), 0); /* seq 1, a SNAP, is behind the cursor now */
    assert_int_equal(queue_park(f->q, sample_frame(&s, 1, 2, "t"), &orig, &id), 0);
    return id;
}

static void parked_frame_stays_until_its_loss_is_counted(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    uint64_t id = park_one(f);
    const struct fs_ops ops = refusing(".dead");
    f->q->fs = &ops;
    assert_int_equal(queue_park_drop(f->q, id, LOST_KEY_QUOTA), 0);
    assert_int_equal(queue_unpark(f->q, id), -ENOENT);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 0);
    assert_int_equal(rec_row(&f->rec, "t").parked, 2);
    assert_int_equal(queue_park_drop(f->q, id, LOST_KEY_QUOTA), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 2);
    assert_int_equal(rec_row(&f->rec, "t").parked, 0);
}

static void parked_frames_are_given_up_as_far_as_they_are_counted(void **state)
{
    struct fixture *f = *state;
    uint64_t ids[GIVEN_MAX + 1];
    fixture_open(f);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = park_one(f);
    const struct fs_ops ops = refusing(".dead");
    f->q->fs = &ops;
    for (size_t i = 0; i < GIVEN_MAX; i++)
        assert_int_equal(queue_park_drop(f->q, ids[i], LOST_KEY_QUOTA), 0);
    assert_int_equal(queue_park_drop(f->q, ids[GIVEN_MAX], LOST_KEY_QUOTA), -ENOSPC);
    fixture_crash(f);
    fixture_open(f); /* as if nothing had been given up */
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 0);
    assert_int_equal(rec_row(&f->rec, "t").parked, 2 * ARRAY_LEN(ids));
    f->q->fs = &ops;
    for (size_t i = 0; i < GIVEN_MAX; i++)
        assert_int_equal(queue_park_drop(f->q, ids[i], LOST_KEY_QUOTA), 0);
    assert_int_equal(queue_park_drop(f->q, ids[GIVEN_MAX], LOST_KEY_QUOTA), -ENOSPC);
    f->q->fs = &fs_real;
    assert_int_equal(queue_park_drop(f->q, ids[GIVEN_MAX], LOST_KEY_QUOTA), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 2 * ARRAY_LEN(ids));
    assert_int_equal(rec_row(&f->rec, "t").parked, 0);
}

static void counted_parked_frame_does_not_come_back(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    const struct fs_ops ops = refusing(".parked");
    for (uint64_t i = 1; i <= 3; i++) { /* each start begins a file in dead/ that says it again */
        uint64_t id = park_one(f);
        assert_int_equal(id, i);
        f->q->fs = &ops;
        assert_int_equal(queue_park_drop(f->q, id, LOST_KEY_QUOTA), 0);
        fixture_crash(f);
        fs_set_ops(&ops);
        fixture_open(f);
        fs_set_ops(NULL);
        assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 2 * i);
        assert_int_equal(rec_row(&f->rec, "t").parked, 0);
        f->q->fs = &fs_real;
    }
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(f->q->given.n, 0);
    assert_int_equal(faccessat(f->q->parked_fd, "0000000000000001.parked", F_OK, 0), -1);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_KEY_QUOTA], 6);
    assert_int_equal(rec_row(&f->rec, "t").parked, 0);
}

static void dead_letters_are_kept_bounded_and_counted(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    queue_tuning.dead_file_bytes = 4 * KIB;
    f->output.queue.dead_max_bytes = 16 * KIB;
    fixture_open(f);
    put_synced(f, 1, 1);
    struct frame_head h;
    assert_int_equal(take_one(f, &h), 1);
    queue_ack(f->q, h.seq);
    queue_cursor_write(f->q);
    for (uint32_t i = 0; i < 200; i++) {
        struct frame_orig orig = { .seq = h.seq, .item = i, .status = 400, .reason = SLICE("mapping") };
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, i, 1, "t"), &orig), 0);
        assert_true(f->q->dead.bytes <= 16 * KIB + KIB);
    }
    for (int round = 0; round < 3; round++) {
        fixture_crash(f);
        fixture_open(f);
        struct recovered_row row = rec_row(&f->rec, "t");
        assert_int_equal(row.dead + row.lost[LOST_DEAD_FULL], 200);
        assert_true(row.dead > 30 && row.dead < 150);
    }
}

static void dead_letter_of_a_resent_frame_is_written_once(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct frame_head h;
    fixture_open(f);
    put_synced(f, 1, 2);
    assert_int_equal(take_one(f, &h), 1);
    struct frame_orig orig = { .seq = h.seq, .item = 0, .status = 400, .reason = SLICE("mapping") };
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").dead, 0); /* queued, that is */
    assert_int_equal(rec_row(&f->rec, "t").queued, 2);
    assert_int_equal(take_one(f, &h), 1);
    assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    queue_ack(f->q, h.seq);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").dead, 1);
    assert_int_equal(rec_row(&f->rec, "t").queued, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(new_queue_is_empty),
        TEST(only_durable_frames_are_seen),
        TEST(group_is_seen_whole),
        TEST(group_may_end_with_positions_only),
        TEST(open_group_is_void_after_crash),
        TEST(abandoned_group_is_void),
        TEST(resumes_after_close_and_crash),
        TEST(acks_out_of_order_survive),
        TEST(window_bounds_what_is_handed_out),
        TEST(rolls_and_unlinks),
        TEST(full_blocks_and_drains),
        TEST(full_can_drop_the_oldest),
        TEST(many_files_fit_a_snap),
        TEST(marks_say_where_a_file_stood),
        TEST(second_agent_is_refused),
        TEST(other_wire_form_waits_for_the_drain),
        TEST(newer_version_is_left_alone),
        TEST(sync_never_publishes),
        TEST(parked_frames_live_on),
        TEST(parked_key_has_its_share),
        TEST(parked_frame_stays_until_its_loss_is_counted),
        TEST(parked_frames_are_given_up_as_far_as_they_are_counted),
        TEST(counted_parked_frame_does_not_come_back),
        TEST(dead_letters_are_kept_bounded_and_counted),
        TEST(dead_letter_of_a_resent_frame_is_written_once),
    };
    return cmocka_run_group_tests_name("queue/queue", tests, NULL, NULL);
}
