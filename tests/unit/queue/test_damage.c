/*
 * Goal: no bytes in the folder make open fail, loop or crash; damage costs the damaged frame, and the ledger says so.
 * Method: a small queue is written once; each case copies it, damages the copy, opens it, reads everything, appends and
 * opens it once more.
 */
#include "tests/unit/queue/fixture.h"

enum { FILES_MAX = 16, FRAMES = 6 };

struct image {
    struct {
        char name[64];
        uint8_t *bytes;
        size_t len;
    } files[FILES_MAX];
    size_t n;
};

static void image_read(struct image *im, const struct fixture *f)
{
    char path[512];
    fixture_path(f, path, ".");
    DIR *d = opendir(path);
    assert_non_null(d);
    im->n = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        fixture_path(f, path, e->d_name);
        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || strcmp(e->d_name, "lock") == 0)
            continue;
        assert_true(im->n < FILES_MAX);
        snprintf(im->files[im->n].name, 64, "%.60s", e->d_name);
        im->files[im->n].len = (size_t)st.st_size;
        im->files[im->n].bytes = malloc((size_t)st.st_size + 1);
        int fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, im->files[im->n].bytes, im->files[im->n].len), st.st_size);
        close(fd);
        im->n++;
    }
    closedir(d);
}

static void image_free(struct image *im)
{
    for (size_t i = 0; i < im->n; i++)
        free(im->files[i].bytes);
}

static void wipe(const struct fixture *f)
{
    char path[512];
    fixture_path(f, path, ".");
    (void)nftw(path, fixture_rm, 16, FTW_DEPTH | FTW_PHYS);
    snprintf(path, sizeof(path), "%s/queue", f->root);
    (void)mkdir(path, 0700);
    fixture_path(f, path, "");
    (void)mkdir(path, 0700);
}

static void put_file(const struct fixture *f, const char *name, const uint8_t *bytes, size_t len)
{
    char path[512];
    fixture_path(f, path, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

static void image_write(const struct image *im, const struct fixture *f)
{
    wipe(f);
    for (size_t i = 0; i < im->n; i++)
        put_file(f, im->files[i].name, im->files[i].bytes, im->files[i].len);
}

/* Two segments: frames 1..3 sealed, 4..6 in the newest, after a crash or a close; frame 1 acknowledged. */
static void make_image(struct image *im, bool is_closed)
{
    struct fixture f;
    struct frame_head h;
    fixture_init(&f);
    fixture_open(&f);
    put_synced(&f, 1, 3);
    queue_close(f.q);
    f.q = NULL;
    fixture_open(&f);
    put_synced(&f, 4, FRAMES);
    assert_int_equal(take_one(&f, &h), 1);
    queue_ack(f.q, h.seq);
    assert_int_equal(queue_cursor_sync(f.q), 0);
    if (is_closed) {
        queue_close(f.q);
        f.q = NULL;
    } else {
        fixture_crash(&f);
    }
    image_read(im, &f);
    fixture_deinit(&f);
}

struct outcome {
    unsigned mask;     /* frames that came out */
    uint64_t end;      /* of file 1 */
    uint64_t lost;
    unsigned taken;
    int r;
};

/* Opens, drains, appends, and opens twice more: what came out, and that nothing comes out twice. */
static struct outcome live_through(struct fixture *f)
{
    struct outcome o = { 0 };
    struct frame_head h;
    o.r = fixture_try_open(f);
    if (o.r < 0)
        return o;
    o.end = file_end(&f->rec, 1);
    for (unsigned n; (n = take_one(f, &h)) != 0; o.taken++) {
        assert_true(n <= FRAMES);
        assert_false(o.mask >> n & 1); /* once */
        o.mask |= 1u << n;
        queue_ack(f->q, h.seq);
    }
    put_synced(f, 100, 101);
    assert_true(queue_cursor_sync(f->q) == 0);
    assert_int_equal(take_one(f, &h), 100);
    queue_ack(f->q, h.seq);
    assert_int_equal(queue_cursor_sync(f->q), 0);
    assert_int_equal(queue_unlink_acked(f->q), 0);
    fixture_crash(f);

    fixture_open(f);
    struct recovered_row t = rec_row(&f->rec, "t"), u = rec_row(&f->rec, TENANT_UNKNOWN);
    o.lost = t.lost[LOST_DAMAGE] + u.lost[LOST_DAMAGE];
    assert_int_equal(f->rec.queued_lines, 1);
    assert_true(t.accepted >= t.queued + t.lost[LOST_DAMAGE]);
    assert_int_equal(take_one(f, &h), 101);
    assert_int_equal(take_one(f, &h), 0);
    fixture_close(f);
    fixture_open(f);
    t = rec_row(&f->rec, "t");
    u = rec_row(&f->rec, TENANT_UNKNOWN);
    assert_int_equal(o.lost, t.lost[LOST_DAMAGE] + u.lost[LOST_DAMAGE]);
    fixture_close(f);
    return o;
}

static unsigned popcount(unsigned m)
{
    return (unsigned)__builtin_popcount(m);
}

/* Where the SNAP of a segment ends. */
static size_t snap_end(const uint8_t *segment)
{
    struct frame_hdr h;
    assert_int_equal(frame_hdr_decode(segment + SEGMENT_HEAD_BYTES, &h), 0);
    return SEGMENT_HEAD_BYTES + (size_t)frame_bytes(&h);
}

/* Every line of 2..6 came out, was lost and counted, or is behind the position and will be read again. */
static void check_balance(const struct outcome *o, const char *what, size_t at)
{
    unsigned due = 0;
    for (unsigned n = 2; n <= FRAMES; n++)
        due += n <= o->end;
    unsigned got = popcount(o->mask & ~2u);
    if (got + o->lost < due)
        fail_msg("%s at %zu: %u due, %u came out, %llu counted as lost", what, at, due, got,
                 (unsigned long long)o->lost);
    if (got + o->lost > FRAMES)
        fail_msg("%s at %zu: %u came out and %llu lost of %u", what, at, got, (unsigned long long)o->lost, FRAMES);
}

static void flip_every_bit(bool is_closed)
{
    struct image im;
    struct fixture f;
    make_image(&im, is_closed);
    fixture_init(&f);
    fixture_open(&f);
    queue_close(f.q);
    f.q = NULL;
    for (size_t i = 0; i < im.n; i++) {
        for (size_t at = 0; at < im.files[i].len; at += is_closed ? 3 : 1) {
            if (strcmp(im.files[i].name, "cursor") == 0 && at % 4096 > 64 && at % 64 != 0)
                continue; /* mostly zeros: every 64th will do */
            /* One bit a byte, another each time: eight runs of the file see all. */
            uint8_t bit = (uint8_t)(1u << (at + i) % 8);
            im.files[i].bytes[at] ^= bit;
            image_write(&im, &f);
            im.files[i].bytes[at] ^= bit;
            struct outcome o = live_through(&f);
            if (o.r < 0)
                fail_msg("%s byte %zu: %s", im.files[i].name, at, f.err.text);
            check_balance(&o, im.files[i].name, at);
            if (strcmp(im.files[i].name, "cursor") == 0)
                assert_true((o.mask & 0x7c) == 0x7c);
        }
    }
    fixture_deinit(&f);
    image_free(&im);
}

static void flips_after_crash(void **state)
{
    (void)state;
    flip_every_bit(false);
}

static void flips_after_close(void **state)
{
    (void)state;
    flip_every_bit(true);
}

static const char first_segment[] = "0000000000000001.seg";

static size_t first_snap(const struct image *im)
{
    for (size_t i = 0; i < im->n; i++)
        if (strcmp(im->files[i].name, first_segment) == 0)
            return snap_end(im->files[i].bytes);
    fail();
    return 0;
}

static void truncations(void **state)
{
    (void)state;
    struct image im;
    struct fixture f;
    make_image(&im, false);
    fixture_init(&f);
    size_t first_snap_end = first_snap(&im);
    for (size_t i = 0; i < im.n; i++) {
        size_t len = im.files[i].len;
        size_t step = strcmp(im.files[i].name, "cursor") == 0 ? 61 : 1;
        for (size_t at = 0; at < len; at += step) {
            im.files[i].len = at;
            image_write(&im, &f);
            struct outcome o = live_through(&f);
            if (o.r < 0)
                fail_msg("%s cut at %zu: %s", im.files[i].name, at, f.err.text);
            /* The oldest segment without its SNAP and its frames: nothing is left to count by. */
            if (at >= first_snap_end || strcmp(im.files[i].name, first_segment) != 0)
                check_balance(&o, im.files[i].name, at);
        }
        im.files[i].len = len;
    }
    fixture_deinit(&f);
    image_free(&im);
}

/* What may follow the last whole write: zeros, noise, the bytes of other frames, of other segments. */
static void tails(void **state)
{
    (void)state;
    struct image im;
    struct fixture f;
    make_image(&im, false);
    fixture_init(&f);
    size_t newest = 0, older = 0;
    for (size_t i = 0; i < im.n; i++) {
        if (!slice_ends(slice_cstr(im.files[i].name), SLICE(".seg")))
            continue;
        if (strcmp(im.files[i].name, im.files[newest].name) > 0 ||
            !slice_ends(slice_cstr(im.files[newest].name), SLICE(".seg")))
            newest = i;
    }
    for (size_t i = 0; i < im.n; i++)
        if (i != newest && slice_ends(slice_cstr(im.files[i].name), SLICE(".seg")))
            older = i;
    size_t len = im.files[newest].len, extra = 2048;
    uint8_t *whole = im.files[newest].bytes, *with = calloc(1, len + extra);
    for (unsigned kind = 0; kind < 5; kind++) {
        for (size_t n = 8; n <= extra; n += 136) {
            memcpy(with, whole, len);
            for (size_t k = 0; k < n; k++) {
                uint8_t noise = (uint8_t)((k * 2654435761u) >> 13);
                const uint8_t *from[] = { NULL, NULL, whole + len - MIN(len, n), whole, im.files[older].bytes };
                size_t lens[] = { 0, 0, MIN(len, n), len, im.files[older].len };
                with[len + k] = kind == 0 ? 0 : kind == 1 ? noise : k < lens[kind] ? from[kind][k] : 0;
            }
            im.files[newest].bytes = with;
            im.files[newest].len = len + n;
            image_write(&im, &f);
            struct outcome o = live_through(&f);
            assert_int_equal(o.r, 0);
            assert_int_equal(o.end, FRAMES);
            assert_int_equal(o.mask & 0x7c, 0x7c);
            assert_int_equal(o.lost, 0);
        }
    }
    im.files[newest].bytes = whole;
    im.files[newest].len = len;
    free(with);
    fixture_deinit(&f);
    image_free(&im);
}

static void files_missing_swapped_doubled_foreign(void **state)
{
    (void)state;
    struct image im, other;
    struct fixture f;
    make_image(&im, true);
    make_image(&other, true);
    fixture_init(&f);
    for (size_t i = 0; i < im.n; i++) {
        char path[512];
        image_write(&im, &f); /* missing */
        fixture_path(&f, path, im.files[i].name);
        unlink(path);
        struct outcome o = live_through(&f);
        assert_int_equal(o.r, 0);
        for (size_t k = 0; k < im.n; k++) {
            image_write(&im, &f); /* another's content under this name */
            put_file(&f, im.files[i].name, im.files[k].bytes, im.files[k].len);
            o = live_through(&f);
            assert_int_equal(o.r, 0);
            image_write(&im, &f); /* a stranger's file */
            put_file(&f, im.files[i].name, other.files[k].bytes, other.files[k].len);
            o = live_through(&f);
            assert_int_equal(o.r, 0);
        }
        image_write(&im, &f); /* doubled, above all others */
        put_file(&f, "00000000000000aa.seg", im.files[i].bytes, im.files[i].len);
        put_file(&f, "00000000000000ab.seg", other.files[i].bytes, other.files[i].len);
        put_file(&f, "zzzz.seg", im.files[i].bytes, im.files[i].len);
        put_file(&f, "3fffffffffffffff.seg", im.files[i].bytes, MIN(im.files[i].len, 5));
        o = live_through(&f);
        assert_int_equal(o.r, 0);
        assert_int_equal(o.mask & 0x7c, 0x7c);
        check_balance(&o, "doubled", i);
    }
    fixture_deinit(&f);
    image_free(&im);
    image_free(&other);
}

/* Zeros over the middle of the newest segment: below what is known durable it is damage, above it is the disk's order. */
static void holes(void **state)
{
    (void)state;
    struct image im;
    struct fixture f;
    make_image(&im, false);
    fixture_init(&f);
    for (size_t i = 0; i < im.n; i++) {
        if (!slice_ends(slice_cstr(im.files[i].name), SLICE(".seg")))
            continue;
        uint8_t *copy = malloc(im.files[i].len), *whole = im.files[i].bytes;
        size_t end = strcmp(im.files[i].name, first_segment) == 0 ? snap_end(whole) : 0;
        for (size_t at = 0; at < im.files[i].len; at += 40) {
            for (size_t n = 1; n < 1200; n = n * 6 + 1) {
                memcpy(copy, whole, im.files[i].len);
                memset(copy + at, 0, MIN(n, im.files[i].len - at));
                im.files[i].bytes = copy;
                image_write(&im, &f);
                im.files[i].bytes = whole;
                struct outcome o = live_through(&f);
                assert_int_equal(o.r, 0);
                if (at >= end || at + n <= end)
                    check_balance(&o, im.files[i].name, at);
            }
        }
        free(copy);
    }
    fixture_deinit(&f);
    image_free(&im);
}

static void both_slots_bad_sends_all_again(void **state)
{
    (void)state;
    struct image im;
    struct fixture f;
    make_image(&im, false);
    fixture_init(&f);
    image_write(&im, &f);
    static const uint8_t zero[8192];
    put_file(&f, "cursor", zero, sizeof(zero));
    struct outcome o = live_through(&f);
    assert_int_equal(o.r, 0);
    assert_int_equal(o.mask, 0x7e);
    assert_int_equal(o.lost, 0);
    fixture_deinit(&f);
    image_free(&im);
}

/* The segments are gone, the cursor is there: new frames are above it, or they would be born acknowledged. */
static void new_frames_are_above_the_cursor(void **state)
{
    (void)state;
    struct fixture f;
    struct frame_head h;
    char path[512];
    fixture_init(&f);
    fixture_open(&f);
    put_synced(&f, 1, 9);
    drain(&f, 1, 9);
    assert_int_equal(queue_cursor_sync(f.q), 0);
    const uint64_t acked = queue_acked_seq(f.q);
    fixture_crash(&f);
    fixture_path(&f, path, "0000000000000001.seg");
    assert_int_equal(unlink(path), 0);
    fixture_open(&f);
    assert_true(f.rec.next_seq > acked);
    put_synced(&f, 10, 10);
    assert_int_equal(take_one(&f, &h), 10);
    fixture_deinit(&f);
}

/* Three groups, the last of them acknowledged by its bit; then the file is cut behind the first. */
static void cut_end_is_said(void **state)
{
    (void)state;
    struct fixture f;
    struct frame_head h, second = { 0 };
    char path[512];
    fixture_init(&f);
    fixture_open(&f);
    put_synced(&f, 1, 3);
    assert_int_equal(take_one(&f, &h), 1);
    assert_int_equal(take_one(&f, &second), 2);
    assert_int_equal(take_one(&f, &h), 3);
    assert_true(queue_ack(f.q, h.seq));
    assert_int_equal(queue_cursor_sync(f.q), 0);
    fixture_crash(&f);
    fixture_path(&f, path, "0000000000000001.seg");
    assert_int_equal(truncate(path, (off_t)second.off), 0);
    fixture_open(&f);
    assert_int_equal(f.rec.damaged_frames, 2);
    assert_int_equal(file_end(&f.rec, 1), 1);
    drain(&f, 1, 1);
    put_synced(&f, 2, 3); /* as the reader does, from that position */
    drain(&f, 2, 3);
    queue_close(f.q);
    fixture_open(&f);
    assert_int_equal(f.rec.damaged_frames, 0); /* said once */

    queue_close(f.q); /* not one file is left */
    f.q = NULL;
    for (unsigned id = 1; id < 9; id++) {
        char name[SEGMENT_NAME_BYTES];
        segment_name(name, id);
        fixture_path(&f, path, name);
        (void)unlink(path);
    }
    fixture_open(&f);
    assert_true(f.rec.damaged_frames > 0);
    assert_false(f.rec.is_new);
    put_synced(&f, 7, 7);
    drain(&f, 7, 7);
    fixture_deinit(&f);
}

/* The head and the meta of the last frame reached the disk, its body did not: never durable, so it is cut, not counted. */
static void torn_body_is_cut(void **state)
{
    (void)state;
    struct fixture f;
    struct frame_head h;
    char path[512];
    static uint8_t bytes[64 * KIB];
    fixture_init(&f);
    fixture_open(&f);
    put_synced(&f, 1, 3);
    assert_int_equal(put_one(&f, 4), 0);
    fixture_crash(&f);
    fixture_path(&f, path, "0000000000000001.seg");
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    const ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
    assert_true(n > 0);
    const char *body = memmem(bytes, (size_t)n, "frame 4 ", 8);
    assert_non_null(body);
    assert_int_equal(pwrite(fd, "\0\0\0\0", 4, (const uint8_t *)body - bytes), 4);
    close(fd);
    fixture_open(&f);
    assert_true(f.rec.torn_bytes > 0);
    assert_int_equal(f.rec.damaged_frames, 0);
    put_synced(&f, 4, 4);
    for (unsigned i = 1; i <= 4; i++)
        assert_int_equal(take_one(&f, &h), i);
    fixture_deinit(&f);
}

/* The slots are written in turn: when the newest is torn the one before it counts. */
static void torn_slot_costs_one_step(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        struct fixture f;
        struct frame_head h;
        static const uint8_t junk[16] = { 1, 2, 3 };
        fixture_init(&f);
        fixture_open(&f);
        put_synced(&f, 1, 6);
        uint64_t before = 0;
        for (int i = 0; i < 4 + torn; i++) { /* so that once the first and once the second slot is the newest */
            before = queue_acked_seq(f.q);
            assert_true(take_one(&f, &h) > 0);
            queue_ack(f.q, h.seq);
            assert_int_equal(queue_cursor_sync(f.q), 0);
        }
        const uint64_t slot = f.q->generation % 2 * 4096;
        fixture_crash(&f);
        char path[512];
        fixture_path(&f, path, "cursor");
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, junk, sizeof(junk), (off_t)slot + 100), sizeof(junk));
        close(fd);
        fixture_open(&f);
        assert_int_equal(queue_acked_seq(f.q), before);
        fixture_deinit(&f);
    }
}

/* Damage that comes while we run, in a segment that is sealed: exactly its lines, for their tenant. */
static void damage_at_read_time(void **state)
{
    (void)state;
    struct fixture f;
    struct frame_head h[40];
    fixture_init(&f);
    queue_tuning.segment_bytes = 16 * KIB;
    for (unsigned part = 0; part < 3; part++) { /* header, meta, body */
        fixture_open(&f);
        wipe(&f);
        queue_close(f.q);
        wipe(&f);
        fixture_open(&f);
        put_synced(&f, 1, 200);
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(take_one(&f, &h[i]), i + 1);
        char path[512], name[64];
        snprintf(name, sizeof(name), "%016llx.seg", (unsigned long long)h[5].segment_id);
        fixture_path(&f, path, name);
        uint64_t off = h[5].off + (part == 0 ? 9 : part == 1 ? FRAME_HEAD_BYTES + 3 : FRAME_HEAD_BYTES + h[5].meta_len);
        int fd = open(path, O_WRONLY);
        assert_int_equal(pwrite(fd, "\xee", 1, (off_t)off), 1);
        close(fd);
        queue_rewind(f.q);
        for (unsigned i = 1; i <= 200; i++) {
            if (i == 6)
                continue;
            assert_int_equal(take_one(&f, &h[0]), i);
            assert_true(queue_ack(f.q, h[0].seq));
        }
        assert_true(queue_acked_seq(f.q) < h[5].seq);
        assert_int_equal(queue_cursor_sync(f.q), 0);
        assert_int_equal(queue_acked_seq(f.q), queue_durable_seq(f.q));
        assert_int_equal(count_files(&f, "quarantine", ".bad"), 1);
        fixture_crash(&f);
        fixture_open(&f);
        struct recovered_row t = rec_row(&f.rec, "t");
        assert_int_equal(t.lost[LOST_DAMAGE], 1);
        assert_int_equal(t.accepted, 200);
        assert_int_equal(t.queued, 0);
        queue_close(f.q);
        f.q = NULL;
        wipe(&f);
    }
    fixture_deinit(&f);
}

/* Thousands of folders are opened and none has to survive a power cut. */
static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static int no_reserve(int fd, uint64_t len)
{
    (void)fd;
    (void)len;
    return -EOPNOTSUPP;
}

static struct fs_ops fast;

/* The power goes before the header of a new segment is durable: its blocks hold what an older file had there, which is gone
 * because all of it was acknowledged. Nothing of that is lost. */
static void old_blocks_in_a_new_segment(void **state)
{
    (void)state;
    struct image im;
    struct fixture f;
    fixture_init(&f);
    fixture_open(&f);
    put_synced(&f, 1, 3);
    queue_close(f.q);
    image_read(&im, &f);
    fixture_open(&f);
    put_synced(&f, 4, 6);
    drain(&f, 1, 6);
    assert_int_equal(queue_cursor_sync(f.q), 0);
    assert_int_equal(queue_unlink_acked(f.q), 0);
    assert_int_equal(count_files(&f, ".", ".seg"), 1);
    fixture_crash(&f);
    for (size_t i = 0; i < im.n; i++) {
        if (strcmp(im.files[i].name, "0000000000000001.seg") != 0)
            continue;
        memset(im.files[i].bytes, 0, SEGMENT_HEAD_BYTES);
        put_file(&f, "0000000000000003.seg", im.files[i].bytes, snap_end(im.files[i].bytes));
    }
    fixture_open(&f);
    assert_int_equal(count_files(&f, "quarantine", ".seg"), 1);
    assert_int_equal(rec_row(&f.rec, "t").lost[LOST_DAMAGE], 0);
    put_synced(&f, 7, 7);
    drain(&f, 7, 7);
    fixture_deinit(&f);
    image_free(&im);
}

/* ---- a header of no use before good frames ---- */

/* Three segments, each closed: frames 1..2, 3..4, 5..6. What is zeroed: from..to of segment id, and the SNAP's meta of the newest
 * when wanted. Nothing is lost by it, and where file 1 stands is known. */
static void head_is_made_anew(uint64_t id, size_t from, size_t to, bool with_last_snap)
{
    struct image im;
    struct fixture f;
    char name[SEGMENT_NAME_BYTES];
    fixture_init(&f);
    for (unsigned n = 1; n <= FRAMES; n += 2) {
        fixture_open(&f);
        put_synced(&f, n, n + 1);
        fixture_close(&f);
    }
    image_read(&im, &f);
    segment_name(name, id);
    for (size_t i = 0; i < im.n; i++) {
        if (strcmp(im.files[i].name, name) == 0)
            memset(im.files[i].bytes + from, 0, to - from);
        else if (with_last_snap && strcmp(im.files[i].name, "0000000000000003.seg") == 0)
            im.files[i].bytes[SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES + 9] ^= 4;
    }
    image_write(&im, &f);
    for (int again = 0; again < 2; again++) { /* the second start finds nothing wrong with the header */
        fixture_open(&f);
        assert_int_equal(f.rec.queued_lines, FRAMES);
        assert_int_equal(file_end(&f.rec, 1), FRAMES);
        assert_int_equal(rec_row(&f.rec, "t").accepted, FRAMES);
        assert_int_equal(count_files(&f, "quarantine", ".seg"), 0);
        fixture_crash(&f);
    }
    fixture_open(&f);
    drain(&f, 1, FRAMES);
    assert_int_equal(queue_cursor_sync(f.q), 0);
    assert_int_equal(queue_acked_seq(f.q), queue_durable_seq(f.q));
    fixture_crash(&f);
    fixture_open(&f);
    struct recovered_row t = rec_row(&f.rec, "t"), u = rec_row(&f.rec, TENANT_UNKNOWN);
    assert_int_equal(t.lost[LOST_DAMAGE] + u.lost[LOST_DAMAGE], 0);
    assert_int_equal(t.accepted, FRAMES);
    fixture_deinit(&f);
    image_free(&im);
}

static void header_of_the_oldest(void **state)
{
    (void)state;
    head_is_made_anew(1, 9, 10, false);
    head_is_made_anew(1, 0, SEGMENT_HEAD_BYTES, false);
    head_is_made_anew(1, 0, SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES, false);
}

static void header_of_one_between(void **state)
{
    (void)state;
    head_is_made_anew(2, 0, SEGMENT_HEAD_BYTES, false);
    head_is_made_anew(2, 0, SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES, false);
    head_is_made_anew(2, 0, SEGMENT_HEAD_BYTES + FRAME_HEAD_BYTES, true);
}

static void header_of_the_newest(void **state)
{
    (void)state;
    head_is_made_anew(3, 9, 10, false);
    head_is_made_anew(3, 0, SEGMENT_HEAD_BYTES, false);
}

/* The one segment of a queue of which the server has much: frames 1..FRAMES, `done` of them acknowledged, killed or closed. What
 * comes of it when its header is zeroed. */
static void the_only_head(struct fixture *f, unsigned done, bool is_closed)
{
    static const uint8_t zero[SEGMENT_HEAD_BYTES];
    struct frame_head h;
    char path[512];
    fixture_init(f);
    fixture_open(f);
    put_synced(f, 1, FRAMES);
    for (unsigned i = 1; i <= done; i++) {
        assert_int_equal(take_one(f, &h), i);
        assert_true(queue_ack(f->q, h.seq));
    }
    if (done > 0)
        assert_int_equal(queue_cursor_sync(f->q), 0);
    if (is_closed)
        fixture_close(f);
    else
        fixture_crash(f);
    fixture_path(f, path, "0000000000000001.seg");
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, zero, sizeof(zero), 0), sizeof(zero));
    close(fd);
    fixture_open(f);
}

/* The cursor stands in it: it is the queue's. */
static void header_of_the_only_one(void **state)
{
    struct fixture f;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        the_only_head(&f, 2, i == 1);
        assert_int_equal(file_end(&f.rec, 1), FRAMES);
        assert_int_equal(f.rec.queued_lines, FRAMES - 2);
        assert_int_equal(rec_row(&f.rec, "t").accepted, FRAMES);
        assert_int_equal(count_files(&f, "quarantine", ".seg"), 0);
        drain(&f, 3, FRAMES);
        put_synced(&f, FRAMES + 1, FRAMES + 1);
        drain(&f, FRAMES + 1, FRAMES + 1);
        assert_int_equal(rec_row(&f.rec, "t").lost[LOST_DAMAGE], 0);
        fixture_deinit(&f);
    }
}

/* Nothing says that these frames are this queue's: they are set aside, and everything is read from the files. */
static void header_that_nothing_proves(void **state)
{
    struct fixture f;
    (void)state;
    the_only_head(&f, 0, false);
    assert_int_equal(f.rec.n_files, 0);
    assert_int_equal(f.rec.queued_lines, 0);
    assert_int_equal(count_files(&f, "quarantine", ".seg"), 1);
    fixture_deinit(&f);
}

static int use_fast(void **state)
{
    (void)state;
    fast = fs_real;
    fast.fdatasync = fast.sync_dir = no_sync;
    fast.reserve = no_reserve;
    fs_set_ops(&fast);
    return 0;
}

int main(void)
{
#define FAST(fn) cmocka_unit_test_setup(fn, use_fast)
    const struct CMUnitTest tests[] = {
        FAST(flips_after_crash),
        FAST(flips_after_close),
        FAST(truncations),
        FAST(tails),
        FAST(holes),
        FAST(files_missing_swapped_doubled_foreign),
        FAST(both_slots_bad_sends_all_again),
        FAST(new_frames_are_above_the_cursor),
        FAST(torn_slot_costs_one_step),
        FAST(cut_end_is_said),
        FAST(torn_body_is_cut),
        FAST(damage_at_read_time),
        FAST(old_blocks_in_a_new_segment),
        FAST(header_of_the_oldest),
        FAST(header_of_one_between),
        FAST(header_of_the_newest),
        FAST(header_of_the_only_one),
        FAST(header_that_nothing_proves),
    };
    return cmocka_run_group_tests_name("queue/damage", tests, NULL, NULL);
}
