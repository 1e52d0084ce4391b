/*
 * Goal: whatever the directory holds, the start ends; what is good is sent, what is not is set aside and kept, and the
 * start after that finds nothing more to do. Method: a table of things to put into the folder of a good queue.
 */
#include "agent/queue/inspect.h"

#include "tests/unit/queue/fixture.h"

#include <sys/socket.h>
#include <sys/un.h>

enum { LINES = 40, HANGS_S = 120 };

static int setup(void **state)
{
    static struct fixture f;
    fixture_init(&f);
    *state = &f;
    (void)alarm(HANGS_S); /* a start that never ends */
    return 0;
}

static int teardown(void **state)
{
    (void)alarm(0);
    fixture_deinit(*state);
    return 0;
}

/* ---- what may stand there ---- */

static void put_folder(const char *path)
{
    char inside[600];
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(inside, sizeof(inside), "%s/0000000000000001.seg", path);
    assert_int_equal(mkdir(inside, 0700), 0);
}

static void put_fifo(const char *path)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void put_loop(const char *path)
{
    assert_int_equal(symlink(path, path), 0);
}

static void put_link_nowhere(const char *path)
{
    assert_int_equal(symlink("/nowhere/at/all", path), 0);
}

static void put_link_to_device(const char *path)
{
    assert_int_equal(symlink("/dev/zero", path), 0);
}

static void put_socket(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(fd);
}

static void put_bytes(const char *path, const void *ptr, size_t len, off_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, ptr, len), len);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static void put_garbage(const char *path)
{
    char junk[5000];
    for (size_t i = 0; i < sizeof(junk); i++)
        junk[i] = (char)(i * 7919 >> 3);
    put_bytes(path, junk, sizeof(junk), sizeof(junk));
}

static void put_empty(const char *path)
{
    put_bytes(path, "", 0, 0);
}

/* A terabyte of nothing. */
static void put_huge(const char *path)
{
    put_bytes(path, "", 0, (off_t)1 << 40);
}

/* A header that is good for that id, and then a terabyte of nothing. */
static void put_huge_segment(const char *path)
{
    uint8_t raw[SEGMENT_HEAD_BYTES];
    struct segment_head head = { .id = segment_name_parse(strrchr(path, '/') + 1, ".seg"), .first_seq = 5000,
                                 .fence = 4999, .wire_form = 3, .uuid = "another queue" };
    segment_head_encode(&head, raw);
    put_bytes(path, raw, sizeof(raw), (off_t)1 << 40);
}

static const struct thing {
    const char *name;
    void (*put)(const char *path);
} things[] = {
    { "a folder", put_folder },          { "a fifo", put_fifo },        { "a loop", put_loop },
    { "a link", put_link_nowhere },      { "a device", put_link_to_device },
    { "a socket", put_socket },          { "garbage", put_garbage },    { "an empty file", put_empty },
    { "a huge file", put_huge },         { "a huge segment of another queue", put_huge_segment },
};

static const char *const places[] = {
    "0000000000000000.seg", "0000000000000005.seg", "00000000000000ff.seg", "3fffffffffffffff.seg", "ffffffffffffffff.seg",
    "parked/0000000000000001.parked", "parked/00000000000000ff.parked", "dead/0000000000000001.dead", "dead/00000000000000ff.dead",
    "something else", "\xff\xfe\n\x01.seg", "0000000000000005.SEG", "0000000000000005.seg.bak",
};
static const char *const ours[] = { "cursor", "lock", "dead", "parked", "quarantine" };

/* ---- */

static void fill(struct fixture *f)
{
    queue_tuning.segment_bytes = 4 * KIB;
    fixture_open(f);
    put_synced(f, 1, LINES);
    fixture_close(f);
}

static void opens_with_everything(struct fixture *f, const char *thing, const char *place)
{
    char dir[512];
    struct buf text;
    struct frame_head h;
    if (fixture_try_open(f) < 0)
        fail_msg("%s at %s: %s", thing, place, f->err.text);
    for (unsigned i = 1; i <= LINES; i++) {
        unsigned got = take_one(f, &h);
        if (got != i)
            fail_msg("%s at %s: line %u came for %u", thing, place, got, i);
    }
    put_synced(f, LINES + 1, LINES + 1);
    assert_int_equal(take_one(f, &h), LINES + 1);
    fixture_path(f, dir, "");
    buf_init(&text, 64 * MIB);
    const struct queue_report to = { .dir = dir, .output = SLICE("out"), .text = &text };
    assert_true(queue_inspect_ls(&to, &f->err) >= 0);
    assert_true(queue_inspect_verify(&to, &f->err) >= 0);
    buf_deinit(&text);
    fixture_close(f);
}

static void strangers_at_any_name(void **state)
{
    struct fixture *f = *state;
    char path[512];
    for (size_t t = 0; t < ARRAY_LEN(things); t++) {
        for (size_t p = 0; p < ARRAY_LEN(places); p++) {
            struct stat st;
            fill(f);
            fixture_path(f, path, places[p]);
            if (lstat(path, &st) < 0) /* no good file stands there */
                things[t].put(path);
            opens_with_everything(f, things[t].name, places[p]);
            /* And it is quiet the next time: nothing is damaged any more. */
            fixture_open(f);
            assert_int_equal(f->rec.damaged_bytes, 0);
            fixture_deinit(f);
            fixture_init(f);
        }
    }
}

/* In the place of the cursor, the lock or a folder. */
static void strangers_at_our_names(void **state)
{
    struct fixture *f = *state;
    char path[512];
    for (size_t t = 0; t < ARRAY_LEN(things) - 1; t++) {
        for (size_t p = 0; p < ARRAY_LEN(ours); p++) {
            fill(f);
            fixture_path(f, path, ours[p]);
            (void)nftw(path, fixture_rm, 16, FTW_DEPTH | FTW_PHYS);
            things[t].put(path);
            opens_with_everything(f, things[t].name, ours[p]);
            fixture_deinit(f);
            fixture_init(f);
        }
    }
}

static void all_of_it_at_once(void **state)
{
    struct fixture *f = *state;
    char path[512], name[64];
    fill(f);
    for (size_t t = 0; t < ARRAY_LEN(things); t++) {
        for (size_t sub = 0; sub < 3; sub++) {
            static const char *const forms[] = { "%016zx.seg", "parked/%016zx.parked", "dead/%016zx.dead" };
            snprintf(name, sizeof(name), forms[sub], 256 + t);
            fixture_path(f, path, name);
            if (sub == 0 || things[t].put != put_huge_segment)
                things[t].put(path);
        }
    }
    opens_with_everything(f, "everything", "everywhere");
    /* Nothing is deleted but what was empty. */
    assert_true(count_files(f, "quarantine", "") >= 3 * (ARRAY_LEN(things) - 2));
}

static void a_hundred_thousand_files(void **state)
{
    struct fixture *f = *state;
    char path[512], name[64];
    fill(f);
    for (unsigned i = 0; i < 100000; i++) {
        static const char *const forms[] = { "junk %u", "%08x.seg", "dead/%u", "parked/%u.tmp", "1%015x.seg" };
        snprintf(name, sizeof(name), forms[i % 5], i);
        fixture_path(f, path, name);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    opens_with_everything(f, "a hundred thousand files", "the queue");
}

/* Each with a uuid of its own, and no cursor to say whose the queue is. */
static void thousands_of_other_queues(void **state)
{
    struct fixture *f = *state;
    char path[512], name[64];
    struct frame_head h;
    fill(f);
    fixture_open(f);
    drain(f, 1, LINES);
    fixture_close(f);
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t raw[SEGMENT_HEAD_BYTES];
        struct segment_head head = { .id = 1000 + i, .first_seq = 1000 + i, .fence = 999, .wire_form = 3 };
        memcpy(head.uuid, &i, sizeof(i));
        segment_head_encode(&head, raw);
        snprintf(name, sizeof(name), "%016x.seg", 1000 + i);
        fixture_path(f, path, name);
        put_bytes(path, raw, sizeof(raw), sizeof(raw));
    }
    fixture_open(f); /* the cursor knows */
    put_synced(f, LINES + 1, LINES + 1);
    assert_int_equal(take_one(f, &h), LINES + 1);
    fixture_path(f, path, "cursor");
    fixture_close(f);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_try_open(f), 0); /* and without it the start ends, too */
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(strangers_at_any_name),    TEST(strangers_at_our_names),    TEST(all_of_it_at_once),
        TEST(a_hundred_thousand_files), TEST(thousands_of_other_queues),
    };
    return cmocka_run_group_tests_name("queue/nasty", tests, NULL, NULL);
}
