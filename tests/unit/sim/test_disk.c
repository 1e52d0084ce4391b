/*
 * Goal: the model disk answers as a real one does, and loses at a power cut what a real one may lose and nothing
 * else. Method: random calls on both at once; then each rule of disk.h by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/tail/gz.h"
#include "agent/tail/watch.h"
#include "tests/sim/disk.h"

static struct disk *d;
static int64_t now = 1000;

static int64_t model_now(void)
{
    return now;
}

static void reset(const struct disk_conf *conf, uint64_t seed)
{
    disk_reset(d, conf, seed);
    assert_int_equal(disk_mkdir(d, "/var/log", DISK_LOGS), 0);
    assert_int_equal(disk_mkdir(d, "/state", DISK_STATE), 0);
    disk_write_back(d, false);
}

static int setup(void **state)
{
    (void)state;
    clock_set_source(model_now, model_now);
    d = disk_new();
    disk_use(d);
    reset(&(struct disk_conf){ 0 }, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disk_free(d);
    clock_set_source(NULL, NULL);
    return 0;
}

static int make(const char *path)
{
    return fs_current()->open(AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static void put(int fd, const char *text, uint64_t off)
{
    assert_int_equal(fs_pwrite_full(fd, text, strlen(text), off), 0);
}

static void expect(const char *path, const char *text)
{
    char got[256] = "";
    ssize_t n = disk_read(d, path, got, sizeof(got) - 1, 0);
    assert_true(n >= 0);
    assert_string_equal(got, text);
}

static void names_need_sync_dir(void **state)
{
    (void)state;
    int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0), fd = make("/state/a");
    put(fd, "one", 0);
    assert_int_equal(fs_current()->fdatasync(fd), 0);
    disk_crash(d, LOSS_ALL, 1);
    assert_int_equal(disk_size(d, "/state/a"), -ENOENT);

    dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0);
    fd = make("/state/a");
    put(fd, "one", 0);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    disk_crash(d, LOSS_ALL, 1);
    assert_int_equal(disk_size(d, "/state/a"), 0);

    dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(fs_current()->rename(dir, "a", dir, "b"), 0);
    assert_int_equal(fs_current()->unlink(dir, "a"), -ENOENT);
    disk_crash(d, LOSS_NAMES, 1);
    assert_int_equal(disk_size(d, "/state/b"), -ENOENT);
    assert_int_equal(disk_size(d, "/state/a"), 0);
    assert_int_equal(disk_open_fds(d), 0);
}

/* A change whose sync failed is not made durable by a later one; but once a newer change of its name is, it says nothing. */
static void stuck_names_give_way(void **state)
{
    (void)state;
    const struct disk_fault f = { .kind = DISK_FAIL, .ops = DISK_OP(DISK_SYNC_DIR), .error = EIO, .zones = DISK_STATE, .times = 1 };
    reset(&(struct disk_conf){ .names = NAMES_LOOSE }, 1);
    int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0), fd = make("/state/a");
    disk_fault_add(d, &f);
    assert_int_equal(fs_current()->sync_dir(dir), -EIO);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    disk_crash(d, LOSS_ALL, 1);
    assert_int_equal(disk_size(d, "/state/a"), -ENOENT);

    dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY | O_DIRECTORY, 0);
    fd = make("/state/a");
    put(fd, "one", 0);
    assert_int_equal(fs_current()->fdatasync(fd), 0);
    disk_fault_add(d, &f);
    assert_int_equal(fs_current()->sync_dir(dir), -EIO);
    assert_int_equal(fs_current()->unlink(dir, "a"), 0);
    fd = make("/state/a");
    put(fd, "another", 0);
    assert_int_equal(fs_current()->fdatasync(fd), 0);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    disk_crash(d, LOSS_DATA, 1);
    expect("/state/a", "another");
}

static void bytes_need_fdatasync(void **state)
{
    (void)state;
    static const struct {
        enum disk_loss loss;
        const char *want;
        int64_t size;
    } cases[] = { { LOSS_ALL, "one", 3 }, { LOSS_DATA, "one", 3 }, { LOSS_NOTHING, "twomore", 7 },
                  { LOSS_NAMES, "twomore", 7 }, { LOSS_ZEROS, "one", 7 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        reset(&(struct disk_conf){ 0 }, 1);
        int fd = make("/state/a");
        put(fd, "one", 0);
        disk_write_back(d, false);
        put(fd, "two", 0);
        put(fd, "more", 3);
        expect("/state/a", "twomore");
        disk_crash(d, cases[i].loss, 3);
        expect("/state/a", cases[i].want);
        assert_int_equal(disk_size(d, "/state/a"), cases[i].size);
    }
}

/* ---- against a real disk ---- */

static uint64_t dice = 7;

static unsigned roll(unsigned n)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((dice >> 33) % n);
}

enum { PAIRS = 12 };

struct both {
    const struct fs_ops *fs[2];
    int dir[2];
    int fd[PAIRS][2];
    char root[2][64];
};

static const char *const some_names[] = { "a", "b", "sub", "sub/a", "sub/b", "link", "link/a", "./a", "sub/../b",
                                          "none/a", "a/", "sub/", "dangling", "..", "sub/sub" };

static const char *some_name(void)
{
    return some_names[roll(ARRAY_LEN(some_names))];
}

static void both_open(struct both *b, unsigned k)
{
    static const int flags[] = { O_RDONLY,
                                 O_RDWR | O_CREAT,
                                 O_RDWR | O_CREAT | O_EXCL,
                                 O_WRONLY | O_CREAT | O_TRUNC,
                                 O_RDONLY | O_DIRECTORY,
                                 O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
                                 O_RDWR };
    const char *name = some_name();
    int flag = flags[roll(ARRAY_LEN(flags))];
    if (flag & O_CREAT && name[strlen(name) - 1] == '/')
        return; /* EISDIR there */
    for (int i = 0; i < 2; i++)
        b->fd[k][i] = b->fs[i]->open(b->dir[i], name, flag, 0644);
    if ((b->fd[k][0] < 0 || b->fd[k][1] < 0) && b->fd[k][0] != b->fd[k][1])
        fail_msg("open %s %x: %d, model %d", name, (unsigned)flag, b->fd[k][0], b->fd[k][1]);
}

static void both_write(struct both *b, unsigned k)
{
    char text[3000];
    memset(text, (int)('a' + roll(26)), sizeof(text));
    struct iovec iov[2] = { { text, roll(2000) }, { text, 1 + roll(900) } };
    uint64_t off = roll(9000);
    ssize_t n[2];
    for (int i = 0; i < 2; i++)
        n[i] = b->fs[i]->pwritev(b->fd[k][i], iov, 2, off);
    assert_int_equal(n[0], n[1]);
}

static void both_read(struct both *b, unsigned k)
{
    static char text[2][12000];
    uint64_t off = roll(9000);
    size_t len = roll(12000);
    ssize_t n[2];
    for (int i = 0; i < 2; i++)
        n[i] = b->fs[i]->pread(b->fd[k][i], text[i], len, off);
    assert_int_equal(n[0], n[1]);
    if (n[0] > 0)
        assert_memory_equal(text[0], text[1], (size_t)n[0]);
}

static void compare_stat(const struct both *b, const struct stat st[2])
{
    (void)b;
    assert_int_equal(st[0].st_mode & S_IFMT, st[1].st_mode & S_IFMT);
    if (S_ISREG(st[0].st_mode)) {
        assert_int_equal(st[0].st_size, st[1].st_size);
        assert_int_equal(st[0].st_nlink, st[1].st_nlink);
    }
}

static void both_stat(struct both *b, unsigned k)
{
    struct stat st[2];
    const char *name = some_name();
    bool follow = roll(2) != 0, is_fd = roll(2) != 0;
    int r[2];
    for (int i = 0; i < 2; i++)
        r[i] = is_fd ? b->fs[i]->fstat(b->fd[k][i], &st[i]) : b->fs[i]->stat(b->dir[i], name, &st[i], follow);
    assert_int_equal(r[0], r[1]);
    if (r[0] == 0)
        compare_stat(b, st);
}

struct listed {
    char name[32][64];
    size_t n;
};

static void listed_add(void *ctx, const char *name)
{
    struct listed *l = ctx;
    assert_true(l->n < 32);
    (void)snprintf(l->name[l->n++], 64, "%s", name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void both_list(struct both *b, unsigned k)
{
    static struct listed l[2];
    int r[2];
    for (int i = 0; i < 2; i++) {
        l[i] = (struct listed){ 0 };
        r[i] = b->fs[i]->list(roll(2) != 0 ? b->dir[i] : b->dir[i], listed_add, &l[i]);
        qsort(l[i].name, l[i].n, 64, by_name);
    }
    (void)k;
    assert_int_equal(r[0], r[1]);
    assert_int_equal(l[0].n, l[1].n);
    for (size_t i = 0; i < l[0].n; i++)
        assert_string_equal(l[0].name[i], l[1].name[i]);
}

static void both_names(struct both *b)
{
    const char *name = some_name(), *to = some_name();
    unsigned what = roll(4);
    char real[2][PATH_MAX], path[2][200];
    int r[2];
    if (strcmp(name, "..") == 0 || strcmp(to, "..") == 0 || name[strlen(name) - 1] == '/' ||
        to[strlen(to) - 1] == '/' || strstr(name, "../") != NULL || strstr(to, "../") != NULL)
        return; /* EBUSY, ENOTEMPTY: not modelled, for nobody asks for such */
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path[i], sizeof(path[i]), "%s/%s", b->root[i], name);
        r[i] = what == 0   ? b->fs[i]->unlink(b->dir[i], name)
               : what == 1 ? b->fs[i]->mkdir(b->dir[i], name, 0755)
               : what == 2 ? b->fs[i]->realpath(path[i], real[i])
                           : b->fs[i]->rename(b->dir[i], "a", b->dir[i], to);
    }
    assert_int_equal(r[0], r[1]);
    if (what == 2 && r[0] == 0)
        assert_string_equal(real[0] + strlen(b->root[0]), real[1] + strlen(b->root[1]));
}

static void both_change(struct both *b, unsigned k)
{
    uint64_t len = roll(10000);
    bool locks = roll(4) == 0;
    int r[2];
    for (int i = 0; i < 2; i++)
        r[i] = locks ? b->fs[i]->lock(b->fd[k][i]) : b->fs[i]->truncate(b->fd[k][i], len);
    assert_int_equal(r[0], r[1]);
}

static void both_close(struct both *b, unsigned k)
{
    for (int i = 0; i < 2; i++) {
        assert_int_equal(b->fs[i]->close(b->fd[k][i]), 0);
        b->fd[k][i] = -1;
    }
}

static bool is_writable(const struct both *b, unsigned k)
{
    return b->fd[k][0] >= 0 && (fcntl(b->fd[k][0], F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static void step(struct both *b)
{
    unsigned k = roll(PAIRS);
    if (b->fd[k][0] < 0) {
        both_open(b, k);
        return;
    }
    switch (roll(8)) {
    case 0:
        both_close(b, k);
        break;
    case 1:
        both_read(b, k);
        break;
    case 2:
        both_stat(b, k);
        break;
    case 3:
        both_names(b);
        break;
    case 4:
        both_list(b, k);
        break;
    case 5:
        if (is_writable(b, k))
            both_change(b, k);
        break;
    default:
        if (is_writable(b, k))
            both_write(b, k);
    }
}

static int rm(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void answers_as_a_real_disk(void **state)
{
    (void)state;
    struct both b = { .fs = { &fs_real, fs_current() }, .root = { "/dev/shm/tailrace-model-XXXXXX", "/state" } };
    if (access("/dev/shm", W_OK) < 0)
        memcpy(b.root[0], "/tmp/tailrace-model-XXXXXX", sizeof("/tmp/tailrace-model-XXXXXX"));
    assert_non_null(mkdtemp(b.root[0]));
    for (int i = 0; i < 2; i++)
        b.dir[i] = b.fs[i]->open(AT_FDCWD, b.root[i], O_RDONLY | O_DIRECTORY, 0);
    assert_int_equal(symlinkat("sub", b.dir[0], "link"), 0);
    assert_int_equal(symlinkat("nothing", b.dir[0], "dangling"), 0);
    assert_int_equal(disk_symlink(d, "sub", "/state/link"), 0);
    assert_int_equal(disk_symlink(d, "nothing", "/state/dangling"), 0);
    memset(b.fd, -1, sizeof(b.fd));
    for (unsigned i = 0; i < 30000; i++)
        step(&b);
    for (unsigned k = 0; k < PAIRS; k++)
        if (b.fd[k][0] >= 0)
            both_close(&b, k);
    (void)close(b.dir[0]);
    (void)nftw(b.root[0], rm, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- what a power cut may leave ---- */

enum { VERSIONS = 24, FILE_MAX = 4000 };

/* The file as it was after each change since the last sync; [0]: at it. */
static struct version {
    char bytes[FILE_MAX];
    size_t len;
} history[VERSIONS];
static size_t n_versions;

static bool is_some_version(const char *sector, uint64_t off, size_t len)
{
    for (size_t v = 0; v < n_versions; v++) {
        char want[DISK_SECTOR] = { 0 };
        if (history[v].len > off)
            memcpy(want, history[v].bytes + off, MIN(history[v].len - (size_t)off, len));
        if (memcmp(want, sector, len) == 0)
            return true;
    }
    return false;
}

/* Bytes of one write that made the file longer may be cut anywhere: then what follows is zero or not there. */
static bool is_torn_version(const char *sector, uint64_t off, size_t len)
{
    for (size_t v = 0; v < n_versions; v++) {
        size_t same = 0;
        while (same < len && off + same < history[v].len && history[v].bytes[off + same] == sector[same])
            same++;
        while (same < len && sector[same] == 0)
            same++;
        if (same == len)
            return true;
    }
    return false;
}

static void check_left(enum disk_loss loss)
{
    char got[FILE_MAX];
    ssize_t n = disk_read(d, "/state/f", got, sizeof(got), 0);
    assert_true(n >= 0);
    size_t longest = 0;
    for (size_t v = 0; v < n_versions; v++)
        longest = MAX(longest, history[v].len);
    assert_true((size_t)n <= longest);
    if (loss == LOSS_ALL)
        assert_int_equal(n, history[0].len);
    for (size_t off = 0; off < (size_t)n; off += DISK_SECTOR) {
        size_t len = MIN((size_t)n - off, (size_t)DISK_SECTOR);
        bool is_torn = off + len > history[0].len && is_torn_version(got + off, off, len);
        assert_true(is_torn || is_some_version(got + off, off, len));
    }
}

static void change_some(int fd)
{
    struct version *v = &history[n_versions];
    *v = history[n_versions - 1];
    if (roll(6) == 0) {
        size_t len = roll(FILE_MAX);
        memset(v->bytes + len, 0, FILE_MAX - len);
        v->len = len;
        assert_int_equal(fs_current()->truncate(fd, len), 0);
    } else {
        char text[700];
        size_t len = 1 + roll(sizeof(text)), off = roll(3) == 0 ? roll(FILE_MAX - 700) : MIN(v->len, (size_t)3300);
        memset(text, (int)('A' + roll(26)), sizeof(text));
        memcpy(v->bytes + off, text, len);
        v->len = MAX(v->len, off + len);
        assert_int_equal(fs_pwrite_full(fd, text, len, off), 0);
    }
    n_versions++;
}

static unsigned differ_from_both(void)
{
    char got[FILE_MAX];
    ssize_t n = disk_read(d, "/state/f", got, sizeof(got), 0);
    const struct version *first = &history[0], *last = &history[n_versions - 1];
    return ((size_t)n != first->len || memcmp(got, first->bytes, (size_t)n) != 0) &&
           ((size_t)n != last->len || memcmp(got, last->bytes, (size_t)n) != 0);
}

static void sectors_are_as_at_some_time(void **state)
{
    (void)state;
    unsigned mixed = 0;
    for (unsigned run = 0; run < 4000; run++) {
        enum disk_loss loss = roll(3) == 0 ? LOSS_RANDOM : (enum disk_loss)(roll(LOSS_N));
        reset(&(struct disk_conf){ 0 }, run);
        int fd = make("/state/f");
        history[0] = (struct version){ 0 };
        n_versions = 1;
        for (unsigned i = roll(6); i > 0; i--)
            change_some(fd);
        history[0] = history[n_versions - 1];
        n_versions = 1;
        disk_write_back(d, false);
        for (unsigned i = roll(VERSIONS - 1); i > 0; i--)
            change_some(fd);
        disk_crash(d, loss, run);
        if (loss != LOSS_STALE)
            check_left(loss);
        mixed += differ_from_both();
        struct version after = { .len = (size_t)disk_size(d, "/state/f") };
        (void)!disk_read(d, "/state/f", after.bytes, FILE_MAX, 0);
        disk_crash(d, LOSS_ALL, run); /* what is left is durable */
        history[0] = after;
        n_versions = 1;
        check_left(LOSS_ALL);
    }
    assert_true(mixed > 1000);
}

static bool is_there(const char *dir, unsigned i)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/%u", dir, i);
    return disk_size(d, path) >= 0;
}

/* Ten names, the first four synced: a prefix survives with a journal, any subset without. */
static void names_are_a_prefix_or_a_subset(void **state)
{
    (void)state;
    unsigned n_prefixes[2] = { 0 }, seen[2] = { 0 };
    for (unsigned loose = 0; loose < 2; loose++) {
        for (unsigned seed = 0; seed < 200; seed++) {
            reset(&(struct disk_conf){ .names = loose ? NAMES_LOOSE : NAMES_JOURNAL }, seed);
            assert_int_equal(disk_mkdir(d, "/state/other", DISK_STATE), 0);
            int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY, 0);
            for (unsigned i = 0; i < 10; i++) {
                char path[32];
                (void)snprintf(path, sizeof(path), "/state/%u", i);
                assert_true(make(path) >= 0);
                if (i == 3)
                    assert_int_equal(fs_current()->sync_dir(dir), 0);
            }
            disk_crash(d, LOSS_RANDOM, seed);
            unsigned n = 0;
            while (n < 10 && is_there("/state", n))
                n++;
            assert_true(n >= 4);
            bool is_prefix = true;
            for (unsigned i = n; i < 10; i++)
                is_prefix &= !is_there("/state", i);
            n_prefixes[loose] += is_prefix;
            seen[loose] |= 1u << n;
            assert_int_equal(disk_size(d, "/state/other") >= 0, true);
        }
    }
    assert_int_equal(n_prefixes[0], 200);
    assert_true(n_prefixes[1] < 60);
    assert_int_equal(seen[0], 0x7f0); /* 4 to 10 */
}

static void stale_bytes_are_of_removed_files(void **state)
{
    (void)state;
    char old[DISK_SECTOR * 4];
    memset(old, 'x', sizeof(old));
    int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY, 0), fd = make("/state/gone");
    assert_int_equal(fs_pwrite_full(fd, old, sizeof(old), 0), 0);
    assert_int_equal(fs_current()->close(fd), 0);
    assert_int_equal(fs_current()->unlink(dir, "gone"), 0);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    fd = make("/state/new");
    assert_int_equal(fs_pwrite_full(fd, "0123456789", 10, 1500), 0);
    disk_crash(d, LOSS_STALE, 1);
    char got[1510];
    assert_int_equal(disk_read(d, "/state/new", got, sizeof(got), 0), 1510);
    assert_memory_equal(got, old, sizeof(got));
}

/* ---- failed syncs ---- */

static void failed_sync_leaves_pages_clean(void **state)
{
    (void)state;
    unsigned lost = 0, shown = 0;
    for (unsigned seed = 0; seed < 100; seed++) {
        reset(&(struct disk_conf){ 0 }, seed);
        int fd = make("/state/a"), other = fs_current()->open(AT_FDCWD, "/state/a", O_RDONLY, 0);
        put(fd, "one", 0);
        disk_write_back(d, false);
        put(fd, "two", 0);
        disk_fault_add(d, &(struct disk_fault){ .kind = DISK_FAIL, .ops = DISK_OP(DISK_SYNC), .times = 1 });
        assert_int_equal(fs_current()->fdatasync(fd), -EIO);
        assert_int_equal(fs_current()->fdatasync(fd), 0); /* the lie */
        assert_int_equal(fs_current()->fdatasync(other), -EIO); /* each descriptor hears of it once */
        assert_int_equal(fs_current()->fdatasync(other), 0);
        expect("/state/a", "two");
        if (seed % 2 == 0) {
            disk_drop_caches(d);
            char got[4] = "";
            assert_int_equal(disk_read(d, "/state/a", got, 3, 0), 3);
            shown += strcmp(got, "one") == 0;
        }
        disk_crash(d, LOSS_NOTHING, seed);
        char got[4] = "";
        assert_int_equal(disk_read(d, "/state/a", got, 3, 0), 3);
        lost += strcmp(got, "one") == 0;
    }
    assert_in_range(lost, 40, 90);
    assert_true(shown > 10);
}

/* A page that is written again goes whole. */
static void later_write_heals_its_page(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 50; seed++) {
        reset(&(struct disk_conf){ 0 }, seed);
        int fd = make("/state/a");
        put(fd, "lost", 0);
        disk_write_back(d, true);
        assert_int_equal(fs_current()->fdatasync(fd), -EIO);
        put(fd, "new", 4000);
        assert_int_equal(fs_current()->fdatasync(fd), 0);
        disk_write_back(d, false); /* the name */
        disk_crash(d, LOSS_ALL, seed);
        expect("/state/a", "lost");
    }
}

/* ---- faults ---- */

static void faults_strike_as_planned(void **state)
{
    (void)state;
    int fd = make("/state/a");
    assert_int_equal(disk_append(d, "/var/log/x", "text", 4), 0);
    int log = fs_current()->open(AT_FDCWD, "/var/log/x", O_RDONLY, 0);
    disk_fault_add(d, &(struct disk_fault){ .kind = DISK_FAIL, .ops = DISK_OP(DISK_WRITE), .error = ENOSPC, .skip = 2,
                                            .times = 2 });
    disk_fault_add(d, &(struct disk_fault){ .kind = DISK_FAIL, .ops = DISK_OP(DISK_READ), .zones = DISK_LOGS });
    static const int want[] = { 0, 0, -ENOSPC, -ENOSPC, 0, 0 };
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_int_equal(fs_pwrite_full(fd, "x", 1, i), want[i]);
    char c;
    assert_int_equal(fs_pread_full(fd, &c, 1, 0), 1);
    assert_int_equal(fs_pread_full(log, &c, 1, 0), -EIO);
    assert_int_equal(disk_faults_struck(d), 2 + FS_TRIES);
    disk_faults_clear(d);

    disk_fault_add(d, &(struct disk_fault){ .kind = DISK_SHORT, .ops = DISK_OP(DISK_WRITE) | DISK_OP(DISK_READ) });
    char text[64] = "it takes several calls to write this", got[64] = "";
    struct iovec iov = { text, 36 };
    ssize_t n = fs_current()->pwritev(fd, &iov, 1, 0);
    assert_in_range(n, 1, 35);
    assert_int_equal(fs_pwrite_full(fd, text, 36, 0), 0);
    assert_int_equal(fs_pread_full(fd, got, 36, 0), 36);
    assert_string_equal(got, text);
    disk_faults_clear(d);

    uint64_t calls = disk_calls(d), writes = disk_calls_of(d, DISK_WRITE);
    put(fd, "x", 0);
    assert_int_equal(disk_calls(d), calls + 1);
    assert_int_equal(disk_calls_of(d, DISK_WRITE), writes + 1);
}

static void the_dead_do_nothing(void **state)
{
    (void)state;
    static const enum disk_fault_kind kinds[] = { DISK_DIE_BEFORE, DISK_DIE_WITHIN, DISK_DIE_AFTER };
    static const int64_t low[] = { 0, 1, 6 }, high[] = { 0, 5, 6 };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        reset(&(struct disk_conf){ 0 }, i);
        int fd = make("/state/a");
        assert_int_equal(fs_current()->lock(fd), 0);
        disk_fault_add(d, &(struct disk_fault){ .kind = kinds[i], .ops = DISK_OP(DISK_WRITE), .times = 1 });
        assert_int_equal(fs_pwrite_full(fd, "abcdef", 6, 0), -EIO);
        assert_true(disk_is_dead(d));
        assert_in_range(disk_size(d, "/state/a"), low[i], high[i]);
        assert_int_equal(fs_pwrite_full(fd, "abcdefghi", 9, 0), -EIO);
        assert_int_equal(make("/state/b"), -EIO);
        assert_int_equal(fs_current()->close(fd), -EIO);
        disk_kill(d);
        assert_false(disk_is_dead(d));
        assert_int_equal(disk_open_fds(d), 0);
        assert_in_range(disk_size(d, "/state/a"), low[i], high[i]);
        fd = fs_current()->open(AT_FDCWD, "/state/a", O_RDWR, 0);
        assert_int_equal(fs_current()->lock(fd), 0);
        int again = fs_current()->open(AT_FDCWD, "/state/a", O_RDWR, 0);
        assert_int_equal(fs_current()->lock(again), -EWOULDBLOCK);
    }
}

static void space_runs_out_and_comes_back(void **state)
{
    (void)state;
    struct fs_space space;
    static char page[DISK_PAGE * 4];
    disk_set_space(d, 4 * DISK_PAGE);
    int fd = make("/state/a"), dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY, 0);
    assert_int_equal(fs_pwrite_full(fd, page, DISK_PAGE, 0), 0);
    struct iovec iov = { page, sizeof(page) };
    assert_int_equal(fs_current()->pwritev(fd, &iov, 1, 1000), 3 * DISK_PAGE - 1000);
    assert_int_equal(fs_pwrite_full(fd, page, 1, 3 * DISK_PAGE), -ENOSPC);
    assert_int_equal(fs_pwrite_full(fd, page, 3 * DISK_PAGE, 0), 0); /* over what is there */
    assert_int_equal(make("/state/b"), -ENOSPC);
    assert_int_equal(fs_current()->space(fd, &space), 0);
    assert_int_equal(space.free_bytes, 0);
    assert_int_equal(fs_current()->truncate(fd, 0), 0);
    assert_int_equal(fs_current()->reserve(fd, 4 * DISK_PAGE), -ENOSPC);
    assert_int_equal(fs_current()->reserve(fd, 2 * DISK_PAGE), 0);
    assert_int_equal(fs_current()->close(fd), 0);
    assert_int_equal(fs_current()->unlink(dir, "a"), 0);
    assert_int_equal(fs_current()->sync_dir(dir), 0);
    assert_int_equal(fs_current()->space(dir, &space), 0);
    assert_int_equal(space.free_bytes, 4 * DISK_PAGE);
    disk_set_space(d, 0);
    assert_true(make("/state/b") >= 0);
}

static void descriptors_run_out(void **state)
{
    (void)state;
    reset(&(struct disk_conf){ .fds_max = 3 }, 1);
    int fd[4];
    assert_true(disk_writer_open(d, "/var/log/x") >= 0); /* the world has its own */
    for (int i = 0; i < 4; i++)
        fd[i] = fs_current()->open(AT_FDCWD, "/var/log/x", O_RDONLY, 0);
    assert_true(fd[2] >= 0);
    assert_int_equal(fd[3], -EMFILE);
    assert_int_equal(fs_current()->close(fd[0]), 0);
    assert_int_equal(fs_current()->open(AT_FDCWD, "/var/log/x", O_RDONLY, 0), fd[0]);
}

/* ---- the world ---- */

static void logs_rotate(void **state)
{
    (void)state;
    now = 5000;
    int w = disk_writer_open(d, "/var/log/a");
    assert_int_equal(disk_writer_write(d, w, "one\n", 4), 0);
    uint64_t ino = disk_ino(d, "/var/log/a");
    assert_int_equal(disk_rename(d, "/var/log/a", "/var/log/a.1"), 0);
    assert_int_equal(disk_append(d, "/var/log/a", "new\n", 4), 0);
    assert_int_equal(disk_writer_write(d, w, "two\n", 4), 0);
    assert_int_equal(disk_ino(d, "/var/log/a.1"), ino);
    expect("/var/log/a.1", "one\ntwo\n");
    expect("/var/log/a", "new\n");
    assert_int_equal(disk_copy(d, "/var/log/a", "/var/log/a.2", UINT64_MAX), 0);
    assert_int_equal(disk_truncate(d, "/var/log/a", 0), 0);
    expect("/var/log/a", "");
    expect("/var/log/a.2", "new\n");
    disk_crash(d, LOSS_ALL, 1); /* the logs' zone loses nothing */
    expect("/var/log/a.1", "one\ntwo\n");
    assert_int_equal(disk_writer_write(d, w, "x", 1), -EBADF);

    now = 9000;
    assert_int_equal(disk_gzip(d, "/var/log/a.1", 500), 0);
    assert_true(disk_size(d, "/var/log/a.1.gz") > 0);
    expect("/var/log/a.1", "one\ntwo\n");
    assert_int_equal(disk_gzip(d, "/var/log/a.1", 1000), 0);
    assert_int_equal(disk_size(d, "/var/log/a.1"), -ENOENT);
    int fd = fs_current()->open(AT_FDCWD, "/var/log/a.1.gz", O_RDONLY, 0);
    struct stat st;
    assert_int_equal(fs_current()->fstat(fd, &st), 0);
    assert_int_equal(st.st_mtim.tv_nsec, 5000);
    struct gz *gz;
    char text[32] = "";
    assert_int_equal(gz_open(fd, &gz), 0);
    assert_int_equal(gz_pread(gz, text, sizeof(text), 0), 8);
    assert_string_equal(text, "one\ntwo\n");
    gz_close(gz);
}

static void inodes_are_used_again(void **state)
{
    (void)state;
    struct fs_birth first, second;
    reset(&(struct disk_conf){ .reuses_inodes = true, .has_birth = true }, 1);
    now = 1;
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    uint64_t ino = disk_ino(d, "/var/log/a");
    int fd = fs_current()->open(AT_FDCWD, "/var/log/a", O_RDONLY, 0);
    fs_current()->birth(fd, &first);
    assert_int_equal(disk_unlink(d, "/var/log/a"), 0);
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    assert_int_not_equal(disk_ino(d, "/var/log/a"), ino); /* somebody has it open */
    assert_int_equal(fs_current()->close(fd), 0);
    now = 2;
    assert_int_equal(disk_append(d, "/var/log/b", "x", 1), 0);
    assert_int_equal(disk_ino(d, "/var/log/b"), ino);
    fd = fs_current()->open(AT_FDCWD, "/var/log/b", O_RDONLY, 0);
    fs_current()->birth(fd, &second);
    assert_true(first.generation != second.generation && first.btime_ns == 1 && second.btime_ns == 2);
}

struct seen_events {
    char text[1024];
};

static void note_event(void *ctx, const struct watch_event *ev)
{
    struct seen_events *s = ctx;
    size_t at = strlen(s->text);
    const char *what = ev->mask & IN_CREATE          ? "create"
                       : ev->mask & IN_MODIFY        ? "modify"
                       : ev->mask & IN_MOVED_FROM    ? "from"
                       : ev->mask & IN_MOVED_TO      ? "to"
                       : ev->mask & IN_DELETE        ? "delete"
                       : ev->mask & IN_DELETE_SELF   ? "self"
                       : ev->mask & IN_IGNORED       ? "ignored"
                       : ev->mask & IN_CLOSE_WRITE   ? "close"
                       : ev->mask & IN_Q_OVERFLOW    ? "overflow"
                                                     : "?";
    (void)snprintf(s->text + at, sizeof(s->text) - at, "%s:%.*s ", what, SLICE_ARGS(ev->name));
}

static void expect_events(struct watch *w, const char *want)
{
    struct seen_events s = { 0 };
    while (watch_read(w, note_event, &s))
        ;
    assert_string_equal(s.text, want);
}

static void events_come(void **state)
{
    (void)state;
    struct watch w;
    assert_int_equal(watch_init(&w), 0);
    assert_true(w.is_working);
    int wd = watch_add(&w, "/var/log", true);
    assert_true(wd > 0);
    assert_int_equal(watch_add(&w, "/var/log", false), wd);
    assert_int_equal(watch_add(&w, "/var/none", true), -ENOENT);
    int writer = disk_writer_open(d, "/var/log/a");
    for (int i = 0; i < 3; i++)
        assert_int_equal(disk_writer_write(d, writer, "x", 1), 0);
    expect_events(&w, "create:a modify:a ");
    assert_int_equal(disk_rename(d, "/var/log/a", "/var/log/b"), 0);
    assert_int_equal(disk_writer_write(d, writer, "x", 1), 0);
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    expect_events(&w, "from:a to:b modify:b create:a modify:a close:a ");
    assert_int_equal(disk_unlink(d, "/var/log/b"), 0);
    assert_int_equal(disk_writer_write(d, writer, "x", 1), 0);
    expect_events(&w, "delete:b ");
    disk_events_hold(d, true);
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    expect_events(&w, "");
    disk_events_hold(d, false);
    expect_events(&w, "modify:a close:a ");
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    disk_events_overflow(d);
    expect_events(&w, "overflow: ");
    disk_events_lose(d, 1000000);
    assert_int_equal(disk_append(d, "/var/log/a", "x", 1), 0);
    expect_events(&w, "");
    disk_events_lose(d, 0);
    assert_int_equal(disk_mkdir(d, "/var/log/sub", DISK_LOGS), 0);
    assert_true(watch_add(&w, "/var/log/sub", false) > wd);
    assert_int_equal(disk_rmdir(d, "/var/log/sub"), 0);
    expect_events(&w, "create:sub self: ignored: delete:sub ");
    watch_deinit(&w);
}

static void queue_of_events_overflows(void **state)
{
    (void)state;
    struct watch w;
    reset(&(struct disk_conf){ .events_max = 4, .watches_max = 1 }, 1);
    assert_int_equal(watch_init(&w), 0);
    assert_true(watch_add(&w, "/var/log", true) > 0);
    assert_int_equal(watch_add(&w, "/var", true), -ENOSPC);
    for (char c = 'a'; c < 'j'; c++) {
        char path[] = "/var/log/a";
        path[9] = c;
        assert_int_equal(disk_append(d, path, "x", 1), 0);
    }
    expect_events(&w, "create:a modify:a close:a create:b overflow: ");
    assert_int_equal(disk_append(d, "/var/log/z", "x", 1), 0);
    expect_events(&w, "create:z modify:z close:z ");
    watch_deinit(&w);
}

/* ---- images, and the same again ---- */

static void print(char *out, size_t room)
{
    FILE *f = fmemopen(out, room, "w");
    assert_non_null(f);
    disk_print(d, f);
    assert_int_equal(fclose(f), 0);
}

static void some_life(uint64_t seed, char *out, size_t room)
{
    struct disk_conf conf = { .names = (enum disk_names)(seed % 2), .reuses_inodes = true };
    dice = 99;
    reset(&conf, seed);
    int fd = make("/state/f");
    disk_fault_add(d, &(struct disk_fault){ .kind = DISK_SHORT, .ops = DISK_OP(DISK_WRITE), .per_million = 200000 });
    for (unsigned i = 0; i < 200; i++) {
        char text[64] = "some text";
        (void)!fs_pwrite_full(fd, text, 10 + roll(50), roll(5000));
        if (roll(10) == 0)
            (void)!fs_current()->fdatasync(fd);
        if (roll(20) == 0) {
            disk_crash(d, LOSS_RANDOM, seed + i);
            fd = fs_current()->open(AT_FDCWD, "/state/f", O_RDWR | O_CREAT, 0600);
        }
    }
    print(out, room);
}

static void seeds_repeat(void **state)
{
    (void)state;
    char a[2048], b[2048], c[2048];
    some_life(5, a, sizeof(a));
    some_life(6, b, sizeof(b));
    some_life(5, c, sizeof(c));
    assert_string_equal(a, c);
    assert_string_not_equal(a, b);
}

static void images_come_back(void **state)
{
    (void)state;
    char before[2048], after[2048];
    int fd = make("/state/a"), gone = make("/state/gone");
    put(fd, "bytes", 0);
    put(gone, "more", 0);
    int dir = fs_current()->open(AT_FDCWD, "/state", O_RDONLY, 0);
    assert_int_equal(fs_current()->unlink(dir, "gone"), 0);
    assert_int_equal(disk_append(d, "/var/log/x", "text", 4), 0);
    disk_write_back(d, false);
    disk_kill(d);
    print(before, sizeof(before));
    struct disk_image *im = disk_image_take(d);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(disk_poke(d, "/state/a", 2, "X", 1), 0);
        assert_int_equal(disk_unlink(d, "/var/log/x"), 0);
        assert_true(make("/state/b") >= 0);
        disk_image_put(d, im);
        disk_crash(d, LOSS_ALL, i);
        print(after, sizeof(after));
        assert_string_equal(before, after);
    }
    disk_image_free(im);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(names_need_sync_dir),
        TEST(stuck_names_give_way),
        TEST(bytes_need_fdatasync),
        TEST(answers_as_a_real_disk),
        TEST(sectors_are_as_at_some_time),
        TEST(names_are_a_prefix_or_a_subset),
        TEST(stale_bytes_are_of_removed_files),
        TEST(failed_sync_leaves_pages_clean),
        TEST(later_write_heals_its_page),
        TEST(faults_strike_as_planned),
        TEST(the_dead_do_nothing),
        TEST(space_runs_out_and_comes_back),
        TEST(descriptors_run_out),
        TEST(logs_rotate),
        TEST(inodes_are_used_again),
        TEST(events_come),
        TEST(queue_of_events_overflows),
        TEST(seeds_repeat),
        TEST(images_come_back),
    };
    return cmocka_run_group_tests_name("sim/disk", tests, NULL, NULL);
}
