/*
 * Goal: folders and disks as they are found: what the queue cannot be on is refused with a sentence, what stands in its way is set
 * aside, a full disk stops the reading and is said a segment ahead; nothing that was accepted is lost by it.
 * Method: a queue on the real disk, single calls of which answer what the test wants.
 */
#include "agent/queue/dead.h"
#include "tests/unit/queue/fixture.h"

static struct say {
    const char *name;       /* of which file; NULL: any */
    int open, mkdir, stat, unlink, lock, reserve, space, sync, sync_dir; /* errors, 0: none */
    bool keeps_names;       /* what is unlinked is there once more when the power comes back */
    bool keeps_bytes;       /* what is cut off, too */
    uint32_t fs_type;
    uint64_t free_bytes, total_bytes; /* total 0: as they are */
} say;

static bool is_meant(const char *name)
{
    const char *slash = strrchr(name, '/');
    return say.name == NULL || strcmp(slash == NULL ? name : slash + 1, say.name) == 0;
}

static int say_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    return say.open < 0 && is_meant(name) ? say.open : fs_real.open(dir_fd, name, flags, mode);
}

static int say_mkdir(int dir_fd, const char *name, mode_t mode)
{
    return say.mkdir < 0 && is_meant(name) ? say.mkdir : fs_real.mkdir(dir_fd, name, mode);
}

static int say_stat(int dir_fd, const char *name, struct stat *ret, bool follow)
{
    return say.stat < 0 && is_meant(name) ? say.stat : fs_real.stat(dir_fd, name, ret, follow);
}

static int say_unlink(int dir_fd, const char *name)
{
    char back[64];
    (void)snprintf(back, sizeof(back), "%s.back", name);
    if (say.keeps_names)
        assert_int_equal(linkat(dir_fd, name, dir_fd, back, 0), 0);
    return say.unlink < 0 && is_meant(name) ? say.unlink : fs_real.unlink(dir_fd, name);
}

static int say_lock(int fd)
{
    return say.lock < 0 ? say.lock : fs_real.lock(fd);
}

static int say_reserve(int fd, uint64_t len)
{
    return say.reserve < 0 ? say.reserve : fs_real.reserve(fd, len);
}

static int say_sync(int fd)
{
    return say.sync < 0 ? say.sync : fs_real.fdatasync(fd);
}

static int say_truncate(int fd, uint64_t len)
{
    return say.keeps_bytes ? 0 : fs_real.truncate(fd, len);
}

static int say_sync_dir(int fd)
{
    return say.sync_dir < 0 ? say.sync_dir : fs_real.sync_dir(fd);
}

static int say_space(int fd, struct fs_space *ret)
{
    int r = say.space < 0 ? say.space : fs_real.space(fd, ret);
    if (say.fs_type != 0)
        ret->type = say.fs_type;
    if (say.total_bytes > 0) {
        ret->free_bytes = say.free_bytes;
        ret->total_bytes = say.total_bytes;
    }
    return r;
}

static int setup(void **state)
{
    static struct fixture f;
    static struct fs_ops ops;
    memset(&say, 0, sizeof(say));
    fixture_init(&f);
    ops = fs_real;
    ops.open = say_open;
    ops.mkdir = say_mkdir;
    ops.stat = say_stat;
    ops.unlink = say_unlink;
    ops.lock = say_lock;
    ops.reserve = say_reserve;
    ops.space = say_space;
    ops.fdatasync = say_sync;
    ops.truncate = say_truncate;
    ops.sync_dir = say_sync_dir;
    fs_set_ops(&ops);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_deinit(*state);
    fs_set_ops(NULL);
    return 0;
}

/* The start fails with this, and leaves nothing open; without the trouble it works. */
static void refused(struct fixture *f, int error, const char *words)
{
    f->err = (struct err){ 0 };
    assert_int_equal(fixture_try_open(f), error);
    if (strstr(f->err.text, words) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", words, f->err.text);
    memset(&say, 0, sizeof(say));
    fixture_open(f);
    fixture_close(f);
}

static void network_disks_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint32_t type;
        const char *name;
    } cases[] = { { 0x6969, "NFS" }, { 0x01021997, "9p" }, { 0x0bd00bd0, "Lustre" } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        f->conf.allow_network_fs = false;
        say.fs_type = cases[i].type;
        refused(f, -ENOTSUP, cases[i].name);
        f->conf.allow_network_fs = true; /* for who knows better */
        say.fs_type = cases[i].type;
        fixture_open(f);
        fixture_close(f);
        say.fs_type = 0;
    }
    f->conf.allow_network_fs = false;
    say.space = -ENOSYS; /* one that does not say what it is */
    fixture_open(f);
}

static void names_that_are_no_folders(void **state)
{
    struct fixture *f = *state;
    static char longest[201];
    memset(longest, 'x', sizeof(longest));
    const struct slice names[] = { SLICE(""), SLICE("."), SLICE(".."), SLICE(".x"), SLICE("a/b"), slice_of("a\0b", 3),
                                   slice_of(longest, 200) };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        f->output.name = names[i];
        assert_int_equal(fixture_try_open(f), -EINVAL);
        assert_non_null(strstr(f->err.text, "cannot be that of a folder"));
    }
    f->output.name = slice_of(longest, 199);
    fixture_open(f);
    fixture_close(f);
    static char deep[4096];
    memset(deep, '/', sizeof(deep));
    f->output.state_dir = slice_of(deep, sizeof(deep) - 20);
    f->output.name = SLICE("a name that is too much");
    assert_int_equal(fixture_try_open(f), -ENAMETOOLONG);
}

static void folders_that_cannot_be(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct say say;
        int error;
        const char *words;
    } cases[] = {
        { { .mkdir = -ENOSPC }, -ENOSPC, "cannot make" },
        { { .mkdir = -ENOSPC, .name = "queue" }, -ENOSPC, "cannot make" },
        { { .mkdir = -EDQUOT, .name = "parked" }, -EDQUOT, "cannot make its folders" },
        { { .open = -EMFILE, .name = "quarantine" }, -EMFILE, "cannot make its folders" },
        { { .sync_dir = -EIO }, -EIO, "cannot sync the folders" },
        { { .open = -EIO, .name = "queue" }, -EIO, "cannot sync the folders" },
        { { .open = -EACCES, .name = "out" }, -EACCES, "cannot open" },
        { { .open = -EROFS, .name = "lock" }, -EROFS, "cannot open its lock" },
        { { .stat = -ENOMEM, .name = "lock" }, -ENOMEM, "what stands at its lock" },
        { { .lock = -ENOLCK }, -ENOLCK, "cannot lock" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        say = cases[i].say;
        refused(f, cases[i].error, cases[i].words);
    }
    say.open = -EACCES; /* a folder above ours that we may not read */
    say.name = "queue";
    fixture_open(f);
    fixture_close(f);
    memset(&say, 0, sizeof(say));
    say.mkdir = -EROFS; /* said before "it is there" by some */
    say.name = "queue";
    fixture_open(f);
}

static void the_lock_of_another(void **state)
{
    struct fixture *f = *state;
    char path[512], want[64];
    struct queue *other;
    struct queue_recovery rec;
    fixture_open(f);
    other = f->q;
    f->q = NULL;
    f->err = (struct err){ 0 };
    assert_int_equal(queue_open(&f->conf, &f->q, &rec, &f->err), -EBUSY);
    (void)snprintf(want, sizeof(want), "(pid %ld)", (long)getpid());
    assert_non_null(strstr(f->err.text, want));
    fixture_path(f, path, "lock");
    static const char *const texts[] = { "", "nobody\n" };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int fd = open(path, O_WRONLY | O_TRUNC);
        assert_int_equal(write(fd, texts[i], strlen(texts[i])), (ssize_t)strlen(texts[i]));
        close(fd);
        f->err = (struct err){ 0 };
        assert_int_equal(queue_open(&f->conf, &f->q, &rec, &f->err), -EBUSY);
        assert_non_null(strstr(f->err.text, "pid unknown"));
    }
    f->q = other;
}

/* More than once, too: each gets a name of its own. */
static void what_stands_in_the_way(void **state)
{
    struct fixture *f = *state;
    char path[512];
    fixture_open(f);
    put_synced(f, 1, 3);
    for (unsigned i = 1; i <= 3; i++) {
        queue_close(f->q);
        fixture_path(f, path, "lock");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(i == 1 ? mkfifo(path, 0600) : i == 2 ? symlink("/nowhere/at/all", path) : mkdir(path, 0700), 0);
        fixture_open(f);
        assert_int_equal(count_files(f, "", i == 1 ? ".aside.1" : i == 2 ? ".aside.2" : ".aside.3"), 1);
    }
    drain(f, 1, 3);
}

/* What could not be parked and not be removed is parked again beside it: it is neither sent twice nor counted as lost. */
static void a_parked_file_that_stays(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct frame_head none;
    const struct frame_orig orig = { .seq = 1, .item = UINT32_MAX };
    uint64_t id, iter = 0;
    fixture_open(f);
    assert_int_equal(queue_next(f->q, &none), 0); /* seq 1, a SNAP, is behind the cursor now */
    say.sync_dir = say.unlink = -EIO;
    assert_int_equal(queue_park(f->q, sample_frame(&s, 1, 2, "t"), &orig, &id), -EIO);
    memset(&say, 0, sizeof(say));
    assert_int_equal(queue_park(f->q, sample_frame(&s, 1, 2, "t"), &orig, &id), 0);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").parked, 2);
    assert_int_equal(rec_row(&f->rec, "t").lost[LOST_DAMAGE], 0);
    assert_int_equal(queue_parked_next(f->q, &iter, &none), 1);
    assert_int_equal(queue_parked_next(f->q, &iter, &none), 0);
}

static int put_letter(struct fixture *f, unsigned number)
{
    struct sample s;
    const struct frame_orig orig = { .seq = number + 1, .reason = SLICE("no"), .text = SLICE("no") }; /* a SNAP is 1 */
    return queue_dead_append(f->q, sample_frame(&s, number, 1, "t"), &orig);
}

/* What the file system had not made durable of this file's going. */
static void name_comes_back(struct fixture *f, const char *folder, const char *name)
{
    char path[512], back[520];
    fixture_path(f, path, folder);
    (void)snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", name);
    (void)snprintf(back, sizeof(back), "%s.back", path);
    if (access(back, F_OK) == 0 && access(path, F_OK) < 0) /* that a later file has it is durable */
        assert_int_equal(rename(back, path), 0);
}

static void names_come_back(struct fixture *f, uint64_t last_id)
{
    for (uint64_t id = 1; id <= last_id; id++) {
        char name[SEGMENT_NAME_BYTES];
        dead_file_name(name, id);
        name_comes_back(f, "dead", name);
        segment_name(name, id);
        name_comes_back(f, "", name);
    }
}

static void ack_one(struct fixture *f, unsigned number)
{
    struct frame_head h;
    assert_int_equal(take_one(f, &h), number);
    assert_true(queue_ack(f->q, h.seq));
}

/* A file of dead/ that could not be begun, in one life; letters that could be written, in the next; then the power goes, and its
 * name is there again: it is not the newest. */
static void a_dead_file_that_comes_back(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    put_synced(f, 1, 2);
    say.keeps_names = true;
    say.sync_dir = -EIO;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(put_letter(f, 1), -EIO);
    fixture_crash(f);
    say.sync_dir = 0;
    fixture_open(f);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(put_letter(f, i), 0);
        ack_one(f, i);
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_crash(f);
    say.keeps_names = false;
    names_come_back(f, 8);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").dead, 2);
    assert_int_equal(rec_row(&f->rec, "t").accepted, 2);
    assert_int_equal(rec_row(&f->rec, "t").queued, 0);
    assert_int_equal(count_files(f, "quarantine", ""), 0);
}

/* What a failed sync left in the file before is void by the one that could not be begun, and stays so when that one is not there
 * any more. */
static void a_dead_file_that_does_not(void **state)
{
    struct fixture *f = *state;
    char path[512];
    fixture_open(f);
    put_synced(f, 1, 3);
    assert_int_equal(put_letter(f, 1), 0);
    say.sync = -EIO;
    say.keeps_bytes = true;
    assert_int_equal(put_letter(f, 2), -EIO);
    say.sync = 0;
    say.sync_dir = -EIO;
    assert_int_equal(put_letter(f, 2), -EIO);
    fixture_crash(f);
    say.sync_dir = 0;
    fixture_open(f);
    assert_int_equal(f->q->dead.n_seen, 1);
    assert_int_equal(put_letter(f, 3), 0);
    fixture_crash(f);
    fixture_path(f, path, "dead/0000000000000002.dead");
    assert_int_equal(access(path, F_OK), -1); /* another is there */
    fixture_open(f);
    assert_int_equal(f->q->dead.n_seen, 2);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(put_letter(f, i), 0);
        ack_one(f, i);
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(rec_row(&f->rec, "t").dead, 3);
    assert_int_equal(rec_row(&f->rec, "t").queued, 0);
}

/* The same of segments: the newest would say that what was written after it is void, and where the files stood before. */
static void a_segment_that_comes_back(void **state)
{
    struct fixture *f = *state;
    unsigned n = 3;
    queue_tuning.segment_bytes = 8 * KIB;
    fixture_open(f);
    put_synced(f, 1, 2);
    say.keeps_names = true;
    say.sync_dir = -EIO;
    while (put_one(f, n) == 0)
        n++;
    for (unsigned i = 0; i < 3; i++)
        assert_true(put_one(f, n) < 0);
    assert_int_equal(queue_sync(f->q), 0);
    fixture_crash(f);
    say.sync_dir = 0;
    fixture_open(f);
    put_synced(f, n, n + 9);
    for (unsigned i = 1; i <= n + 4; i++)
        ack_one(f, i);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    fixture_crash(f);
    say.keeps_names = false;
    names_come_back(f, 20);
    fixture_open(f);
    put_synced(f, n + 10, n + 10);
    drain(f, n + 5, n + 10);
}

/* The same damage twice: the second file beside the first. */
static void set_aside_twice(void **state)
{
    struct fixture *f = *state;
    char path[512];
    fixture_open(f);
    put_synced(f, 1, 2);
    for (unsigned i = 0; i < 3; i++) {
        queue_close(f->q);
        fixture_path(f, path, "00000000000000ff.seg");
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(fd, "no segment", 10), 10);
        close(fd);
        fixture_path(f, path, "dead/00000000000000ff.dead");
        fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(write(fd, "no letters", 10), 10);
        close(fd);
        fixture_open(f);
    }
    assert_int_equal(count_files(f, "quarantine", ".dead"), 1);
    assert_int_equal(count_files(f, "quarantine", ".dead.1"), 1);
    assert_int_equal(count_files(f, "quarantine", ".dead.2"), 1);
    drain(f, 1, 2);
}

static void a_disk_with_little_room(void **state)
{
    struct fixture *f = *state;
    f->conf.min_free_percent = 15;
    fixture_open(f);
    put_synced(f, 1, 1);
    say.total_bytes = 1000 * MIB;
    say.free_bytes = 149 * MIB;
    assert_int_equal(put_one(f, 2), -ENOSPC);
    enum blocked_reason why;
    assert_true(queue_is_blocked(f->q, &why));
    assert_int_equal(why, BLOCKED_DISK_FULL);
    say.free_bytes = 150 * MIB;
    put_synced(f, 2, 2);
    assert_false(queue_is_blocked(f->q, &why));
    say.space = -EIO; /* that nobody knows stops nothing: the write says it */
    put_synced(f, 3, 3);
    drain(f, 1, 3);
}

/* ---- the next segment, made early ---- */

static char big[48 * KIB];

static int put_big(struct fixture *f, unsigned number)
{
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    struct frame_in *in = sample_frame(&s, number, 1, "t");
    memset(big, ' ', sizeof(big));
    memcpy(big, s.body, strlen(s.body));
    in->wire = slice_of(big, sizeof(big));
    return queue_append(f->q, in, sample_end(&e, 1, number - 1, number), &seq);
}

/* Three quarters of a segment and more, and not so much that the next group begins another. */
static unsigned fill_most(struct fixture *f)
{
    queue_tuning.segment_bytes = MIB;
    f->output.queue.group_bytes = 64 * KIB;
    fixture_open(f);
    unsigned n = 1;
    while (f->q->end <= MIB / 4 * 3)
        assert_int_equal(put_big(f, n++), 0);
    assert_int_equal(f->q->spare_fd, -1);
    return n;
}

static void the_next_segment_is_ready(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char path[512];
    unsigned n = fill_most(f);
    assert_int_equal(put_big(f, n++), 0);
    assert_true(f->q->spare_fd >= 0);
    fixture_path(f, path, "0000000000000002.seg");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    while (f->q->last_id == 1)
        assert_int_equal(put_big(f, n++), 0);
    assert_int_equal(f->q->spare_fd, -1);
    assert_int_equal(f->q->last_id, 2);
    assert_int_equal(count_files(f, "", ".seg"), 2);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, n - 1);
}

static void a_spare_that_is_not_needed(void **state)
{
    struct fixture *f = *state;
    unsigned n = fill_most(f);
    assert_int_equal(put_big(f, n++), 0);
    assert_true(f->q->spare_fd >= 0);
    queue_close(f->q);
    assert_int_equal(count_files(f, "", ".seg"), 1);
    fixture_open(f);
    drain(f, 1, n - 1);
}

static void a_spare_at_a_crash(void **state)
{
    struct fixture *f = *state;
    unsigned n = fill_most(f);
    assert_int_equal(put_big(f, n++), 0);
    assert_int_equal(queue_sync(f->q), 0);
    fixture_crash(f);
    assert_int_equal(count_files(f, "", ".seg"), 2);
    fixture_open(f);
    assert_int_equal(f->rec.damaged_bytes, 0);
    assert_int_equal(count_files(f, "quarantine", ""), 0);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, n - 1);
}

/* It is said once a segment, the file goes, and what has room is taken all the same. */
static void no_room_for_a_spare(void **state)
{
    struct fixture *f = *state;
    static const int errors[] = { -ENOSPC, -EDQUOT };
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        unsigned n = fill_most(f);
        say.reserve = errors[i];
        assert_int_equal(put_big(f, n++), 0);
        assert_int_equal(f->q->spare_fd, -1);
        assert_true(f->q->is_spare_tried);
        assert_int_equal(count_files(f, "", ".seg"), 1);
        while (f->q->last_id == 1)
            assert_int_equal(put_big(f, n++), 0);
        assert_int_equal(queue_sync(f->q), 0);
        drain(f, 1, n - 1);
        say.reserve = 0;
        fixture_deinit(f);
        (void)setup(state);
    }
    unsigned n = fill_most(f);
    say.open = -EMFILE;
    say.name = "0000000000000002.seg";
    assert_int_equal(put_big(f, n++), 0);
    assert_int_equal(f->q->spare_fd, -1);
    say.open = 0;
    while (f->q->last_id == 1)
        assert_int_equal(put_big(f, n++), 0);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, n - 1);
}

/* Somebody's file stands at the next names: they are passed over. */
static void names_that_are_taken(void **state)
{
    struct fixture *f = *state;
    char path[512];
    queue_tuning.segment_bytes = 8 * KIB;
    fixture_open(f);
    for (unsigned id = 2; id <= 4; id++) {
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, id);
        fixture_path(f, path, name);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    unsigned n = 1;
    while (f->q->last_id == 1)
        assert_int_equal(put_one(f, n++), 0);
    assert_int_equal(f->q->last_id, 5);
    assert_int_equal(queue_sync(f->q), 0);
    drain(f, 1, n - 1);
}

/* A body that no frame can hold: said, and the queue goes on. */
static void a_frame_that_is_too_large(void **state)
{
    struct fixture *f = *state;
    struct sample s;
    struct sample_end e;
    uint64_t seq;
    fixture_open(f);
    put_synced(f, 1, 1);
    char *huge = calloc(1, FRAME_BODY_MAX + 1);
    struct frame_in *in = sample_frame(&s, 2, 1, "t");
    in->wire = slice_of(huge, FRAME_BODY_MAX + 1);
    assert_int_equal(queue_append(f->q, in, sample_end(&e, 1, 1, 2), &seq), -EMSGSIZE);
    free(huge);
    put_synced(f, 2, 2);
    drain(f, 1, 2);
}

/* The oldest goes only when it is known what goes with it: not while its file cannot be opened, or read, for a moment. */
static void nothing_is_dropped_uncounted(void **state)
{
    struct fixture *f = *state;
    char path[512];
    struct frame_head h;
    unsigned n = 1, left = 0;
    int r;
    queue_tuning.segment_bytes = 16 * KIB;
    f->output.queue.max_bytes = 64 * KIB;
    f->output.queue.group_bytes = KIB;
    f->output.queue.on_full = QUEUE_FULL_DROP_OLDEST;
    fixture_open(f);
    fixture_path(f, path, "0000000000000001.seg");
    say.name = "0000000000000001.seg";
    say.open = -EMFILE;
    while ((r = put_one(f, n)) == 0 && n < 2000)
        n++;
    enum blocked_reason why;
    assert_int_equal(r, -ENOSPC);
    assert_true(queue_is_blocked(f->q, &why));
    assert_int_equal(why, BLOCKED_FULL);
    assert_int_equal(access(path, F_OK), 0);
    say.open = 0;
    put_synced(f, n, n);
    assert_int_equal(access(path, F_OK), -1);
    while (take_one(f, &h) != 0) {
        assert_true(queue_ack(f->q, h.seq));
        left++;
    }
    assert_int_equal(queue_cursor_sync(f->q), 0);
    queue_close(f->q);
    fixture_open(f);
    struct recovered_row row = rec_row(&f->rec, "t");
    assert_true(left < n);
    assert_int_equal(row.lost[LOST_DROPPED], n - left);
    assert_int_equal(row.accepted, n);
    assert_int_equal(row.queued, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(network_disks_are_refused), TEST(names_that_are_no_folders), TEST(folders_that_cannot_be),
        TEST(the_lock_of_another), TEST(what_stands_in_the_way), TEST(a_parked_file_that_stays),
        TEST(a_dead_file_that_comes_back), TEST(a_dead_file_that_does_not), TEST(a_segment_that_comes_back),
        TEST(set_aside_twice), TEST(a_disk_with_little_room),
        TEST(the_next_segment_is_ready), TEST(a_spare_that_is_not_needed), TEST(a_spare_at_a_crash),
        TEST(no_room_for_a_spare), TEST(names_that_are_taken), TEST(a_frame_that_is_too_large),
        TEST(nothing_is_dropped_uncounted),
    };
    return cmocka_run_group_tests_name("queue/disks", tests, NULL, NULL);
}
