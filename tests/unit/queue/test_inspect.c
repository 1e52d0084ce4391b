/*
 * Goal: the command line sees what is there, beside a running agent and in a damaged folder, and changes nothing.
 */
#include "agent/queue/inspect.h"

#include "tests/unit/queue/fixture.h"

struct seen_frames {
    unsigned queued, acked, parked, given, dead, broken, stop_at;
};

static int each(void *ctx, const struct queue_frame *frame)
{
    struct seen_frames *s = ctx;
    switch (frame->place) {
    case QUEUE_PLACE_QUEUED: s->queued++; break;
    case QUEUE_PLACE_ACKED: s->acked++; break;
    case QUEUE_PLACE_PARKED: s->parked++; break;
    case QUEUE_PLACE_GIVEN: s->given++; break;
    case QUEUE_PLACE_DEAD: s->dead++; break;
    }
    s->broken += !frame->is_whole;
    assert_true(!frame->is_whole || slice_starts(frame->body, SLICE("frame ")));
    assert_int_equal(frame->wire_form, 3);
    return s->stop_at != 0 && s->queued == s->stop_at ? 7 : 0;
}

static void fill(struct fixture *f)
{
    struct sample s;
    struct frame_head h;
    uint64_t id;
    queue_tuning.segment_bytes = 8 * KIB;
    fixture_open(f);
    put_synced(f, 1, 60);
    for (unsigned i = 1; i <= 10; i++) {
        assert_int_equal(take_one(f, &h), i);
        struct frame_orig orig = { .seq = h.seq, .item = UINT32_MAX, .reason = SLICE("r") };
        if (i == 3)
            assert_int_equal(queue_park(f->q, sample_frame(&s, i, 1, "t"), &orig, &id), 0);
        if (i == 4)
            assert_int_equal(queue_dead_append(f->q, sample_frame(&s, i, 1, "t"), &orig), 0);
        queue_ack(f->q, h.seq);
    }
    queue_cursor_write(f->q);
}

static void everything_is_shown(void **state)
{
    struct fixture *f = *state;
    char dir[512];
    struct buf text;
    struct seen_frames seen = { 0 };
    buf_init(&text, MIB);
    fill(f);
    fixture_path(f, dir, "");
    const struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = &text };
    assert_int_equal(queue_inspect_each_frame(dir, each, &seen, &f->err), 0);
    assert_int_equal(seen.queued, 50);
    assert_int_equal(seen.acked, 10);
    assert_int_equal(seen.parked, 1);
    assert_int_equal(seen.dead, 1);
    assert_int_equal(seen.broken, 0);
    seen = (struct seen_frames){ .stop_at = 5 };
    assert_int_equal(queue_inspect_each_frame(dir, each, &seen, &f->err), 7);
    assert_int_equal(seen.queued, 5);

    assert_int_equal(queue_inspect_ls(&to, &f->err), 0);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "queued  frames 50  lines 50"));
    assert_non_null(strstr(text.ptr, "parked  files 1"));
    assert_non_null(strstr(text.ptr, "dead    files 1"));

    buf_reset(&text);
    int problems = queue_inspect_verify(&to, &f->err);
    assert_int_equal(buf_terminate(&text), 0);
    if (problems != 0)
        fail_msg("%s", text.ptr);
    assert_non_null(strstr(text.ptr, "60 frames, 60 lines"));
    /* And after a restart. */
    fixture_crash(f);
    fixture_open(f);
    put_synced(f, 61, 62);
    buf_reset(&text);
    assert_int_equal(queue_inspect_verify(&to, &f->err), 0);
    buf_deinit(&text);
}

static int cannot_unlink(int dir_fd, const char *name)
{
    (void)dir_fd;
    (void)name;
    return -EIO;
}

static void given_up_frame_is_not_parked(void **state)
{
    struct fixture *f = *state;
    char dir[512], path[512];
    struct buf text;
    struct seen_frames seen = { 0 };
    struct fs_ops ops = fs_real;
    buf_init(&text, MIB);
    fill(f);
    fixture_path(f, dir, "");
    const struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = &text };
    const struct queue_report json = { .dir = dir, .output = SLICE("out"), .is_json = true, .text = &text };
    ops.unlink = cannot_unlink;
    f->q->fs = &ops;
    assert_int_equal(queue_park_drop(f->q, 1, LOST_KEY_QUOTA), 0);
    f->q->fs = &fs_real;
    assert_int_equal(queue_inspect_each_frame(dir, each, &seen, &f->err), 0);
    assert_int_equal(seen.parked, 0);
    assert_int_equal(seen.given, 1);
    assert_int_equal(queue_inspect_ls(&to, &f->err), 0);
    assert_int_equal(queue_inspect_ls(&json, &f->err), 0);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "parked  files 0"));
    assert_non_null(strstr(text.ptr, "given_up files 1"));
    assert_non_null(strstr(text.ptr, "\"given_up\":{\"files\":1"));
    fixture_path(f, path, "parked/0000000000000001.parked");
    assert_int_equal(truncate(path, 20), 0); /* nobody will read it */
    buf_reset(&text);
    assert_int_equal(queue_inspect_verify(&to, &f->err), 0);
    buf_deinit(&text);
}

static void damage_is_found(void **state)
{
    struct fixture *f = *state;
    char path[512], dir[512];
    struct stat st;
    struct buf text;
    struct seen_frames seen;
    buf_init(&text, MIB);
    fill(f);
    fixture_close(f);
    fixture_path(f, dir, "");
    const struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = &text };
    const struct queue_report nowhere = { .dir = "/nowhere/at/all", .output = SLICE("out"), .text = &text };
    fixture_path(f, path, "0000000000000001.seg");
    assert_int_equal(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    unsigned found = 0, tried = 0;
    for (off_t at = 0; at < st.st_size; at += 5) {
        uint8_t byte, bad;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        bad = byte ^ 0x40;
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        seen = (struct seen_frames){ 0 };
        buf_reset(&text);
        found += queue_inspect_verify(&to, &f->err) > 0;
        tried++;
        assert_int_equal(queue_inspect_ls(&to, &f->err), 0);
        assert_int_equal(queue_inspect_each_frame(dir, each, &seen, &f->err), 0);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    assert_true(found > tried * 9 / 10); /* the rest is padding */
    buf_reset(&text);
    assert_int_equal(pwrite(fd, "\xff\xff", 2, 20), 2);
    assert_true(queue_inspect_verify(&to, &f->err) > 0);
    assert_int_equal(ftruncate(fd, 600), 0);
    assert_true(queue_inspect_verify(&to, &f->err) > 0);
    close(fd);
    assert_true(queue_inspect_verify(&nowhere, &f->err) < 0);
    assert_non_null(strstr(f->err.text, "/nowhere"));
    buf_deinit(&text);
}

/* A frame that the cursor has passed was durable: when it is not there, that is no torn tail. */
static void acknowledged_frames_are_missed(void **state)
{
    struct fixture *f = *state;
    char dir[512], path[512];
    struct frame_head h, second;
    struct buf text;
    buf_init(&text, MIB);
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(take_one(f, &h), 1);
    assert_int_equal(take_one(f, &second), 2);
    assert_int_equal(take_one(f, &h), 3);
    assert_true(queue_ack(f->q, h.seq)); /* by its bit: 1 and 2 are not done */
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_crash(f);
    fixture_path(f, dir, "");
    fixture_path(f, path, "0000000000000001.seg");
    const struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = &text };
    assert_int_equal(queue_inspect_verify(&to, &f->err), 0);
    assert_int_equal(truncate(path, (off_t)h.off), 0);
    assert_int_equal(queue_inspect_verify(&to, &f->err), 1);
    assert_int_equal(truncate(path, (off_t)second.off), 0);
    assert_int_equal(queue_inspect_verify(&to, &f->err), 1);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "frames are missing"));
    assert_int_equal(truncate(path, SEGMENT_HEAD_BYTES), 0); /* no frame at all, or no file: the start would say so too */
    assert_int_equal(queue_inspect_verify(&to, &f->err), 2);
    assert_int_equal(unlink(path), 0);
    buf_reset(&text);
    assert_int_equal(queue_inspect_verify(&to, &f->err), 1);
    assert_int_equal(buf_terminate(&text), 0);
    assert_non_null(strstr(text.ptr, "cursor at 0: frames are missing at the end (4)"));
    buf_deinit(&text);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = { TEST(everything_is_shown), TEST(given_up_frame_is_not_parked),
                                        TEST(damage_is_found), TEST(acknowledged_frames_are_missed) };
    return cmocka_run_group_tests_name("queue/inspect", tests, NULL, NULL);
}
