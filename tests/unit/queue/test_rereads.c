/*
 * Goal: what damage took is handed out to be read again, once, until a durable group says that it was; whatever is killed or
 * fails between. Method: groups of several frames with damage in some, read as the sender does; the reader's part is played.
 */
#include "tests/unit/queue/fixture.h"

#include "agent/base/stats.h"

/* One group: a frame of two tenants each, of records [from, from + 10) and [from + 10, from + 20) of file 1. */
static void put_group(struct fixture *f, unsigned number, uint64_t from)
{
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    for (unsigned i = 0; i < 2; i++) {
        struct buf b;
        buf_init(&b, KIB);
        assert_int_equal(sources_put(&b, &(struct source_span){ 1, from + 10 * i, from + 10 * i + 9, 0 }), 0);
        struct frame_in *in = sample_frame(&s, number + i, 2, i == 0 ? "t" : "u");
        in->sources = buf_slice(&b);
        assert_int_equal(queue_append(f->q, in, i == 0 ? NULL : sample_end(&e, 1, from, from + 20), &seq), 0);
        buf_deinit(&b);
    }
}

/* One byte of the file where these bytes are. */
static void hurt_at(struct fixture *f, unsigned segment, struct slice what)
{
    static char bytes[64 * KIB];
    char path[512], name[64];
    snprintf(name, sizeof(name), "%016x.seg", segment);
    fixture_path(f, path, name);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
    const char *at = NULL; /* the last of them */
    for (char *p = bytes; (p = memmem(p, (size_t)(bytes + n - p), what.ptr, what.len)) != NULL; p++)
        at = p;
    assert_non_null(at);
    assert_int_equal(pwrite(fd, "X", 1, at - bytes), 1);
    close(fd);
}

static void hurt(struct fixture *f, unsigned segment, const char *body)
{
    hurt_at(f, segment, slice_cstr(body));
}

static const struct reread *next(struct fixture *f)
{
    const struct reread *rr = queue_reread_next(f->q);
    if (rr != NULL)
        assert_null(queue_reread_next(f->q));
    return rr;
}

/* As the reader: a frame of n lines, closed under this name. */
static int put_again(struct fixture *f, struct letter_id id, unsigned number, uint32_t lines)
{
    struct sample s;
    uint64_t seq;
    struct frame_in *in = sample_frame(&s, number, lines, "t");
    in->is_gap = true;
    return queue_append(f->q, lines == 0 ? NULL : in, &(struct group_end){ .reread = id }, &seq);
}

/* By the tally of dead/, of all tenants. */
static void assert_lost(struct fixture *f, uint64_t damage, uint64_t reread)
{
    const struct tally *t = &f->q->dead.tally;
    uint64_t lost[LOST_REASONS] = { 0 };
    for (size_t i = 0; i < t->n; i++)
        for (unsigned k = 0; k < LOST_REASONS; k++)
            lost[k] += t->rows[i].lost[k];
    assert_int_equal(lost[LOST_DAMAGE], damage);
    assert_int_equal(lost[LOST_REREAD], reread);
}

static void begin(struct fixture *f)
{
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    put_group(f, 5, 40);
    assert_int_equal(queue_sync(f->q), 0);
    hurt(f, 1, "frame 3 of t");
    assert_int_equal(take_all(f), 5);
}

static void a_body_of_a_group(void **state)
{
    struct fixture *f = *state;
    begin(f);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].from.end, 20);
    assert_int_equal(rr->ranges[0].to.end, 40);
    assert_true(rr->ranges[0].knows_to);
    assert_int_equal(rr->ranges[0].from.tail_crc, 5);
    assert_int_equal(rr->ranges[0].to.tail_len, 8);
    for (uint64_t at = 20; at < 40; at++) {
        assert_false(reread_is_held(rr, SLICE("t"), 1, 0, at)); /* the frame of t is gone */
        assert_int_equal(reread_is_held(rr, SLICE("u"), 1, 0, at), at >= 30);
        assert_false(reread_is_held(rr, SLICE("u"), 2, 0, at));
        assert_false(reread_is_held(rr, SLICE("u"), 1, 1, at));
    }
    struct letter_id id = rr->id;
    assert_int_equal(put_again(f, id, 9, 2), 0);
    assert_int_equal(f->q->rereads.n, 1); /* not durable yet */
    assert_int_equal(queue_sync(f->q), 0);
    assert_int_equal(f->q->rereads.n, 0);
    struct frame_head h;
    assert_int_equal(take_one(f, &h), 9);
    assert_int_equal(h.flags, FRAME_FLAG_GAP);
    assert_true(queue_ack(f->q, h.seq));
    queue_close(f->q);
    fixture_open(f);
    assert_null(next(f));
    struct recovered_row row = rec_row(&f->rec, "t");
    assert_int_equal(row.lost[LOST_DAMAGE], 0);
    assert_int_equal(row.lost[LOST_REREAD], 2);
    assert_int_equal(row.accepted, 8); /* the lost ones a second time */
    assert_int_equal(row.queued, 0);
}

/* Killed at each step: it is found again until its group is durable, and not after. */
static void is_found_again_after_a_crash(void **state)
{
    struct fixture *f = *state;
    begin(f);
    struct letter_id id = next(f)->id;
    for (unsigned i = 0; i < 5; i++) { /* its dead file is another one each time */
        fixture_crash(f);
        fixture_open(f);
        const struct reread *rr = next(f);
        assert_non_null(rr);
        assert_int_equal(rr->id.file, id.file);
        assert_int_equal(rr->id.seq, id.seq);
        assert_true(reread_is_held(rr, SLICE("u"), 1, 0, 30));
        assert_false(reread_is_held(rr, SLICE("t"), 1, 0, 20));
        struct frame_orig orig = { .seq = 1000 + i, .item = 0, .reason = SLICE("r"), .text = SLICE("t") };
        struct sample s;
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    }
    assert_int_equal(put_again(f, id, 9, 2), 0);
    assert_int_equal(f->q->fs->fdatasync(f->q->fd), 0); /* it is durable, and nobody has said so in dead/ */
    fixture_crash(f);
    fixture_open(f);
    assert_null(next(f));
    assert_lost(f, 0, 2);
    assert_int_equal(take_all(f), 1);
    fixture_crash(f);
    fixture_open(f);
    assert_null(next(f));
    assert_lost(f, 0, 2); /* once */
}

/* Two losses, one of them read again: only its lines move, and those of the other do later. */
static void each_letter_has_its_own_lines(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    put_group(f, 5, 40);
    assert_int_equal(queue_sync(f->q), 0);
    hurt(f, 1, "frame 3 of t");
    struct frame_head h;
    for (unsigned n = 0; n < 3; n++) {
        assert_int_not_equal(take_one(f, &h), 0);
        assert_true(queue_ack(f->q, h.seq));
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    hurt(f, 1, "frame 5 of t");
    assert_int_equal(take_all(f), 1);
    const struct reread *first = queue_reread_next(f->q), *second = queue_reread_next(f->q);
    assert_non_null(first);
    assert_non_null(second);
    struct letter_id ids[] = { first->id, second->id };
    assert_lost(f, 4, 0);
    assert_int_equal(put_again(f, ids[0], 9, 2), 0);
    assert_int_equal(f->q->fs->fdatasync(f->q->fd), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_lost(f, 2, 2);
    assert_int_equal(put_again(f, ids[1], 10, 2), 0);
    assert_int_equal(f->q->fs->fdatasync(f->q->fd), 0);
    fixture_crash(f);
    fixture_open(f);
    assert_lost(f, 0, 4);
    assert_null(next(f));
}

/* A sync while the group of the second is open: it says nothing of its lines, whatever becomes of it. */
static void lines_of_an_open_group_stay_lost(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    uint64_t seq;
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    assert_int_equal(queue_sync(f->q), 0);
    struct frame_head h;
    hurt(f, 1, "frame 1 of t");
    assert_int_equal(take_one(f, &h), 2);
    assert_true(queue_ack(f->q, h.seq));
    assert_int_equal(queue_cursor_sync(f->q), 0);
    hurt(f, 1, "frame 3 of t");
    assert_int_equal(take_all(f), 1);
    struct letter_id ids[] = { queue_reread_next(f->q)->id, queue_reread_next(f->q)->id };
    assert_int_equal(put_again(f, ids[0], 9, 2), 0);
    struct frame_in *in = sample_frame(&s, 10, 2, "t");
    in->is_gap = true;
    assert_int_equal(queue_append(f->q, in, NULL, &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_lost(f, 2, 2);
    queue_abandon_group(f->q);
    assert_int_equal(put_again(f, ids[1], 10, 2), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_lost(f, 0, 4);
}

/* The writer's turn comes at the moment at which a loss is told, and the process dies after it: what is in the log then has all
 * of it, the lines, whose they are and where they came from. */
static struct queue *flushes;

static bool flush_now(enum log_level level, const char *target)
{
    struct queue *q = flushes;
    (void)target;
    flushes = NULL; /* what it logs comes here too */
    if (q != NULL && level == LOG_ERROR && q->has_losses)
        assert_int_equal(loss_flush(q), 0);
    else
        flushes = q;
    return false;
}

static void a_flush_takes_all(struct fixture *f, struct slice what)
{
    struct frame_head h;
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    put_group(f, 5, 40);
    assert_int_equal(queue_sync(f->q), 0);
    put_group(f, 7, 60);
    queue_close(f->q);
    hurt_at(f, 1, what);
    fixture_open(f);
    flushes = f->q;
    log_set_filter(flush_now);
    while (flushes != NULL)
        assert_int_not_equal(take_one(f, &h), 0);
    log_set_filter(fixture_quiet);
    fixture_crash(f);
    fixture_open(f);
    assert_lost(f, 2, 0);
    assert_non_null(next(f));
    (void)take_all(f);
    assert_lost(f, 2, 0); /* once */
    assert_null(next(f));
}

static void a_flush_takes_all_of_a_body(void **state)
{
    a_flush_takes_all(*state, SLICE("frame 3 of t"));
}

static void a_flush_takes_all_of_a_header(void **state)
{
    static const char header[] = { 'T', 'R', 'F', '1', FRAME_DATA, FRAME_FLAG_MORE, FRAME_HEAD_BYTES, 0, 4 }; /* seq 4 */
    a_flush_takes_all(*state, slice_of(header, sizeof(header)));
}

static int no_sync(int fd)
{
    (void)fd;
    return -EIO;
}

/* The group is void: it is handed out anew. */
static void a_failed_sync_hands_it_out_again(void **state)
{
    struct fixture *f = *state;
    begin(f);
    struct letter_id id = next(f)->id;
    struct fs_ops ops = fs_real;
    ops.fdatasync = no_sync;
    assert_int_equal(put_again(f, id, 9, 2), 0);
    f->q->fs = &ops;
    assert_int_equal(queue_sync(f->q), -EIO);
    f->q->fs = &fs_real;
    assert_non_null(next(f));
    assert_int_equal(put_again(f, id, 9, 2), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_null(next(f));
    assert_int_equal(f->q->rereads.n, 0);
    assert_int_equal(take_all(f), 1);
}

/* dead/ cannot be written: the queue's own segments remember, over a roll too. */
static int full(int dir_fd, const char *name, int flags, mode_t mode)
{
    bool is_dead = strstr(name, ".dead") != NULL && (flags & O_CREAT) != 0;
    return is_dead ? -ENOSPC : fs_real.open(dir_fd, name, flags, mode);
}

static void dead_is_full(void **state)
{
    struct fixture *f = *state;
    begin(f);
    struct letter_id id = next(f)->id;
    queue_close(f->q);
    fixture_open(f); /* the next frame of dead/ wants a new file */
    assert_non_null(next(f));
    struct fs_ops ops = fs_real;
    ops.open = full;
    f->q->fs = &ops;
    assert_int_equal(put_again(f, id, 9, 2), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_int_equal(f->q->rereads.done.n, 1);
    f->q->fs = &fs_real;
    f->q->must_roll = true;
    put_group(f, 20, 60); /* into a new segment, whose SNAP says it */
    fixture_crash(f);
    fixture_open(f);
    assert_null(next(f));
}

/* dead/ takes no mark, then a sync fails: the lines of the durable group are moved when there is room. */
static void what_was_found_outlives_a_failed_sync(void **state)
{
    struct fixture *f = *state;
    begin(f);
    struct letter_id id = next(f)->id;
    queue_close(f->q);
    fixture_open(f);
    assert_non_null(next(f));
    struct fs_ops ops = fs_real;
    ops.open = full;
    f->q->fs = &ops;
    assert_int_equal(put_again(f, id, 9, 2), 0);
    assert_int_equal(queue_sync(f->q), 0);
    assert_lost(f, 2, 0);
    ops.open = fs_real.open;
    ops.fdatasync = no_sync;
    put_group(f, 20, 60);
    assert_int_equal(queue_sync(f->q), -EIO);
    f->q->fs = &fs_real;
    put_group(f, 20, 60);
    assert_int_equal(queue_sync(f->q), 0);
    assert_lost(f, 0, 2);
}

/* Nothing but the positions behind it says what a segment held that is gone. */
static void a_segment_is_gone(void **state)
{
    struct fixture *f = *state;
    char path[512];
    fixture_open(f);
    put_group(f, 1, 0);
    queue_close(f->q);
    fixture_open(f);
    put_group(f, 3, 20);
    put_group(f, 5, 40);
    queue_close(f->q);
    fixture_open(f);
    put_group(f, 7, 60);
    queue_close(f->q);
    fixture_path(f, path, "0000000000000002.seg");
    assert_int_equal(unlink(path), 0);
    fixture_open(f);
    assert_int_equal(take_all(f), 4);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].from.end, 20);
    assert_int_equal(rr->ranges[0].to.end, 60);
    assert_true(rr->ranges[0].knows_to);
    assert_false(reread_is_held(rr, SLICE("t"), 1, 0, 25));
}

/* Frames of one group, met one after the other: its range is read once, for both. */
static void two_bodies_of_a_group(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    assert_int_equal(queue_sync(f->q), 0);
    hurt(f, 1, "frame 1 of t");
    hurt(f, 1, "frame 2 of u");
    assert_int_equal(take_all(f), 2);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_false(reread_is_held(rr, SLICE("t"), 1, 0, 5));
    assert_false(reread_is_held(rr, SLICE("u"), 1, 0, 15));
    assert_int_equal(f->q->dead.tally.rows[0].lost[LOST_DAMAGE], 2);
    assert_int_equal(f->q->dead.tally.rows[1].lost[LOST_DAMAGE], 2);
}

/* The last frame of the last group, with the positions in it: the SEAL has them once more, so the file is not read again from
 * where it stood before, beside what the group's other frames hold. */
static void the_last_positions_are_twice_there(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    queue_close(f->q);
    hurt(f, 1, "frame 4 of u"); /* and its meta, by the route in it */
    hurt(f, 1, "/var/log/app.log");
    fixture_open(f);
    assert_int_equal(file_end(&f->rec, 1), 40);
    assert_int_equal(take_all(f), 3);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].from.end, 20);
    assert_int_equal(rr->ranges[0].to.end, 40);
    assert_true(reread_is_held(rr, SLICE("t"), 1, 0, 25));
    assert_false(reread_is_held(rr, SLICE("u"), 1, 0, 35));
}

/* The start of the header of a DATA frame. */
static void hurt_head(struct fixture *f, uint8_t seq, bool is_last)
{
    const char head[] = { 'T', 'R', 'F', '1', FRAME_DATA, is_last ? 0 : FRAME_FLAG_MORE, FRAME_HEAD_BYTES, 0, (char)seq, 0 };
    hurt_at(f, 1, slice_of(head, sizeof(head)));
}

static void begin_sealed(struct fixture *f)
{
    fixture_open(f);
    put_group(f, 1, 0);
    put_group(f, 3, 20);
    put_group(f, 5, 40);
    queue_close(f->q);
}

/* The body of one is found damaged, and with it the other, of which nothing is left: both are counted, and read together. */
static void a_body_and_a_header_of_a_group(void **state)
{
    struct fixture *f = *state;
    begin_sealed(f);
    hurt(f, 1, "frame 3 of t");
    hurt_head(f, 5, true);
    fixture_open(f);
    assert_int_equal(take_all(f), 4);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].from.end, 20);
    assert_int_equal(rr->ranges[0].to.end, 40);
    assert_false(reread_is_held(rr, SLICE("t"), 1, 0, 25));
    assert_false(reread_is_held(rr, SLICE("u"), 1, 0, 35));
    assert_lost(f, 4, 0);
}

/* Takes all frames but acknowledges none of them; what is lost is told in dead/. */
static unsigned look_at_all(struct fixture *f)
{
    struct frame_head h;
    unsigned n = 0;
    while (take_one(f, &h) != 0)
        n++;
    assert_int_equal(queue_cursor_sync(f->q), 0);
    return n;
}

/* A segment lacks what was counted of it before, too: that is not counted again. */
static void a_header_after_another(void **state)
{
    struct fixture *f = *state;
    begin_sealed(f);
    hurt_head(f, 4, false);
    fixture_open(f);
    assert_int_equal(look_at_all(f), 5);
    assert_lost(f, 2, 0);
    hurt_head(f, 6, false);
    for (unsigned i = 0; i < 3; i++) { /* at once, and then by what dead/ says: of the frame, and in its next file */
        queue_rewind(f->q);
        f->q->read_segment = 0;
        assert_int_equal(look_at_all(f), 4);
        assert_lost(f, 4, 0);
        queue_close(f->q);
        fixture_open(f);
        assert_int_equal(rec_row(&f->rec, "t").queued, 2);
        assert_int_equal(rec_row(&f->rec, "u").queued, 6);
        struct frame_orig orig = { .seq = 1000 + i, .item = 0, .reason = SLICE("r"), .text = SLICE("t") };
        struct sample s;
        assert_int_equal(queue_dead_append(f->q, sample_frame(&s, 1, 1, "t"), &orig), 0);
    }
    queue_close(f->q);
    hurt_head(f, 3, true);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "u").queued, 6);
    assert_int_equal(look_at_all(f), 3);
    assert_lost(f, 6, 0);
    for (uint64_t from = 20; from != 60; from += 20) {
        const struct reread *rr = queue_reread_next(f->q);
        assert_non_null(rr);
        assert_int_equal(rr->n_ranges, 1);
        assert_int_equal(rr->ranges[0].from.end, from);
    }
}

/* The range of the group is to be read, or was, with all that the first of the two had held, and nobody knows what that was:
 * with the second it is not read once more. */
static void a_group_is_hurt_twice(void **state)
{
    struct fixture *f = *state;
    begin_sealed(f);
    hurt_head(f, 4, false);
    fixture_open(f);
    assert_int_equal(look_at_all(f), 5);
    assert_non_null(next(f));
    queue_close(f->q);
    hurt(f, 1, "frame 4 of u");
    fixture_open(f);
    assert_non_null(next(f));
    assert_int_equal(look_at_all(f), 4);
    assert_null(next(f));
    assert_lost(f, 4, 0);
}

/* What becomes of the frame with a record of two files. */
enum two_files {
    LOSE_BODY,
    LOSE_HEADER,
    LOSE_HEADER_THEN_FIRST, /* and the next group knows of the first file that nothing is unfinished there */
    LOSE_HEADER_THEN_BOTH,  /* and that the second goes on */
};

/* A record whose first part ends file 1 and whose rest begins file 2: when its frame is lost, file 2 is read again without it. */
static void lose_a_record_of_two_files(struct fixture *f, enum two_files how)
{
    struct sample s;
    uint64_t seq;
    struct file_ident idents[] = { { .incarnation = 1, .path = SLICE("/var/log/app.log.1") },
                                   { .incarnation = 2, .path = SLICE("/var/log/app.log") } };
    struct file_position half = { .incarnation = 1, .end = 40, .n_parts = 1, .parts = { { .stream = 1, .start = 30 } } };
    struct file_position pos[] = { { .incarnation = 1, .start = 40, .end = 40 }, { .incarnation = 2, .end = 20 } };
    struct file_position later[] = { pos[0], { .incarnation = 2, .start = 20, .end = 50 } };
    struct group_end first = { .files = idents, .n_files = 1, .positions = &half, .n_positions = 1 };
    struct group_end second = { .files = idents, .n_files = 2, .positions = pos, .n_positions = 2 };
    struct group_end third = { .files = idents, .n_files = 2, .positions = later,
                               .n_positions = how == LOSE_HEADER_THEN_BOTH ? 2 : 1 };
    bool has_third = how == LOSE_HEADER_THEN_FIRST || how == LOSE_HEADER_THEN_BOTH;
    fixture_open(f);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 1, 1, "t"), &first, &seq), 0);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 2, 1, "t"), &second, &seq), 0);
    if (has_third)
        assert_int_equal(queue_append(f->q, sample_frame(&s, 3, 1, "t"), &third, &seq), 0);
    queue_close(f->q);
    if (how == LOSE_BODY)
        hurt(f, 1, "frame 2 of t");
    else
        hurt_head(f, 3, true); /* the SEAL says where the files stood */
    fixture_open(f);
    assert_int_equal(look_at_all(f), has_third ? 2 : 1);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_int_equal(rr->n_ranges, 1);
    assert_int_equal(rr->ranges[0].to.incarnation, 2);
    assert_int_equal(rr->ranges[0].from.end, 0);
    assert_int_equal(rr->ranges[0].to.end, 20);
    assert_int_equal(rr->ranges[0].from.n_parts, 1);
    assert_int_equal(rr->ranges[0].from.parts[0].stream, 1);
}

static void a_record_of_two_files_body(void **state)
{
    lose_a_record_of_two_files(*state, LOSE_BODY);
}

static void a_record_of_two_files_header(void **state)
{
    lose_a_record_of_two_files(*state, LOSE_HEADER);
}

static void a_record_of_two_files_then_the_first(void **state)
{
    lose_a_record_of_two_files(*state, LOSE_HEADER_THEN_FIRST);
}

static void a_record_of_two_files_then_both(void **state)
{
    lose_a_record_of_two_files(*state, LOSE_HEADER_THEN_BOTH);
}

/* Of a frame without SOURCES all lines of its route count as held: rather lost than doubled. */
static void frames_without_sources(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 1, 1, "t"), NULL, &seq), 0);
    assert_int_equal(queue_append(f->q, sample_frame(&s, 2, 1, "u"), sample_end(&e, 1, 0, 20), &seq), 0);
    assert_int_equal(queue_sync(f->q), 0);
    hurt(f, 1, "frame 1 of t");
    assert_int_equal(take_all(f), 1);
    const struct reread *rr = next(f);
    assert_non_null(rr);
    assert_true(reread_is_held(rr, SLICE("u"), 1, 0, 3));
    assert_true(reread_is_held(rr, SLICE("u"), 77, 1, 3));
    assert_false(reread_is_held(rr, SLICE("t"), 1, 0, 3));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_body_of_a_group),
        TEST(is_found_again_after_a_crash),
        TEST(each_letter_has_its_own_lines),
        TEST(a_flush_takes_all_of_a_body),
        TEST(a_flush_takes_all_of_a_header),
        TEST(a_failed_sync_hands_it_out_again),
        TEST(dead_is_full),
        TEST(lines_of_an_open_group_stay_lost),
        TEST(what_was_found_outlives_a_failed_sync),
        TEST(a_segment_is_gone),
        TEST(two_bodies_of_a_group),
        TEST(the_last_positions_are_twice_there),
        TEST(frames_without_sources),
        TEST(a_body_and_a_header_of_a_group),
        TEST(a_header_after_another),
        TEST(a_group_is_hurt_twice),
        TEST(a_record_of_two_files_body),
        TEST(a_record_of_two_files_header),
        TEST(a_record_of_two_files_then_the_first),
        TEST(a_record_of_two_files_then_both),
    };
    return cmocka_run_group_tests_name("queue/rereads", tests, NULL, NULL);
}
