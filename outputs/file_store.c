#include "outputs/file_store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "outputs/file_entries.h"
#include "outputs/file_series.h"

/* A file that was written within this is not closed yet, even when its day is over: the queue may hold more for it. */
#define IDLE_NS (600 * NS_PER_SEC)
#define RETAIN_EVERY_NS (3600 * NS_PER_SEC)
/* A compression that failed is tried again then. */
#define RETRY_NS (600 * NS_PER_SEC)
#define GZ_NAMES_MAX 10000

struct slice file_entry_path(const struct file_entry *e)
{
    return slice_cstr(e->path);
}

/* Paths of before a change of the template have another base: their folder as it is. */
static size_t base_of(const struct file_store *s, struct slice path)
{
    struct slice base = slice_first(s->conf.shape->text, s->conf.shape->base_len);
    if (slice_starts(path, base) && path.len > base.len)
        return base.len;
    return (size_t)(slice_rfind_byte(path, '/') + 1);
}

int file_entry_place(const struct file_store *s, const struct file_entry *e, mode_t dir_mode, struct file_place *ret,
                    struct err *err)
{
    return file_place_open(file_entry_path(e), base_of(s, file_entry_path(e)), dir_mode, ret, err);
}

/* ---- the table of files ---- */

struct file_entry *file_entries_find(const struct file_store *s, struct slice path)
{
    uint64_t hash = slice_hash(path);
    for (size_t i = 0; i < s->n_entries; i++)
        if (s->entries[i]->hash == hash && slice_eq(file_entry_path(s->entries[i]), path))
            return s->entries[i];
    return NULL;
}

static void close_fd(struct file_store *s, struct file_entry *e)
{
    if (e->fd >= 0)
        s->n_fds--;
    fd_close(&e->fd);
}

static void free_entry(struct file_store *s, struct file_entry *e)
{
    close_fd(s, e);
    free(e->path);
    free(e);
}

void file_entries_remove(struct file_store *s, struct file_entry *e)
{
    for (size_t i = 0; i < s->n_entries; i++)
        if (s->entries[i] == e)
            s->entries[i] = s->entries[--s->n_entries];
    free_entry(s, e);
    s->is_dirty = true;
}

struct file_entry *file_entries_add(struct file_store *s, struct slice path)
{
    if (s->n_entries == FILE_ENTRIES_MAX)
        return NULL;
    struct file_entry *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    e->path = slice_dup(path);
    if (e->path == NULL) {
        free(e);
        return NULL;
    }
    e->hash = slice_hash(path);
    e->fd = -1;
    s->entries[s->n_entries++] = e;
    return e;
}

/* The file that was written least recently and has nothing unsynced stays as it is, uncompressed; NULL: there is none. */
static struct file_entry *oldest_clean(const struct file_store *s)
{
    struct file_entry *oldest = NULL;
    for (size_t i = 0; i < s->n_entries; i++) {
        struct file_entry *e = s->entries[i];
        if (e->len == e->durable && !e->is_compressing && (oldest == NULL || e->written_ns < oldest->written_ns))
            oldest = e;
    }
    return oldest;
}

/* ---- the journal ---- */

static int put_entry(const struct file_entry *e, struct buf *out)
{
    int r = file_journal_put_file(out, &(struct file_journal_file){ .path = file_entry_path(e), .len = e->len,
                                                                    .inode = e->inode, .written_ns = e->written_ns });
    if (r == 0 && e->is_compressing)
        r = file_journal_put_gz(out, file_entry_path(e), slice_cstr(e->gz_name));
    return r;
}

/* Replaces the journal by what the entries say; all of it must be on disk. */
static int write_snapshot(struct file_store *s, uint64_t seq, struct err *err)
{
    struct buf content;
    buf_init(&content, FILE_JOURNAL_BYTES_MAX);
    uint32_t n = (uint32_t)s->n_series;
    for (size_t i = 0; i < s->n_entries; i++)
        n += 1u + s->entries[i]->is_compressing;
    int r = file_journal_put_snapshot(&content, seq, n);
    for (size_t i = 0; i < s->n_entries && r == 0; i++)
        r = put_entry(s->entries[i], &content);
    if (r == 0)
        r = file_series_put_all(s, &content);
    if (r < 0)
        r = err_set(err, r, "cannot write " FILE_STATE_NAME);
    else
        r = file_state_replace(&s->journal, buf_slice(&content), err);
    buf_deinit(&content);
    return r;
}

/* Appends one entry, durably. A torn end would hide what comes behind it: then the next snapshot replaces it. */
static int note_entry(struct file_store *s, const struct file_entry *e, struct err *err)
{
    struct buf record;
    bool is_torn = false;
    buf_init(&record, 16 * KIB);
    int r = put_entry(e, &record);
    r = r < 0 ? err_set(err, r, "cannot write " FILE_STATE_NAME)
              : file_state_append(&s->journal, buf_slice(&record), &is_torn, err);
    s->is_dirty |= is_torn;
    buf_deinit(&record);
    return r;
}

/* ---- syncing ---- */

/*
 * After a failed sync the kernel calls the pages clean, and another sync would lie. They are still in memory: when they
 * are what we wrote, they are written once more and that is synced.
 */
static int write_again(struct file_entry *e)
{
    char part[16 * 1024];
    uint32_t crc = 0;
    for (uint64_t off = e->synced; off < e->len;) {
        ssize_t n = io_pread_full(e->fd, part, (size_t)MIN((uint64_t)sizeof(part), e->len - off), off);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        crc = file_journal_crc(crc, slice_of(part, (size_t)n));
        int r = io_pwrite_full(e->fd, part, (size_t)n, off);
        if (r < 0)
            return r;
        off += (uint64_t)n;
    }
    if (crc != e->crc)
        return -EIO;
    return fdatasync(e->fd) < 0 ? -errno : 0;
}

static int sync_folder(const struct file_store *s, const struct file_entry *e)
{
    struct file_place at;
    int r = file_entry_place(s, e, 0, &at, NULL);
    if (r < 0)
        return r == -ENOENT ? 0 : r; /* someone took the whole folder away */
    r = fsync(at.dir_fd) < 0 ? -errno : 0;
    (void)close(at.dir_fd); /* read-only */
    return r;
}

static int sync_entry(const struct file_store *s, struct file_entry *e)
{
    if (e->synced != e->len) {
        assert(e->fd >= 0); /* an fd is closed only after its sync */
        e->has_failed |= fdatasync(e->fd) < 0;
        int r = e->has_failed ? write_again(e) : 0;
        if (r < 0)
            return r;
        e->has_failed = false;
        e->synced = e->len;
        e->crc = 0;
    }
    if (!e->dir_is_new)
        return 0;
    int r = sync_folder(s, e);
    if (r == 0)
        e->dir_is_new = false;
    return r;
}

static int sync_all(struct file_store *s, uint64_t seq, struct err *err)
{
    for (size_t i = 0; i < s->n_entries; i++) {
        int r = sync_entry(s, s->entries[i]);
        if (r < 0)
            return err_set(err, r, "cannot sync %s", s->entries[i]->path);
    }
    uint64_t now_seq = MAX(seq, s->written_seq);
    int r = write_snapshot(s, now_seq, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < s->n_entries; i++)
        s->entries[i]->durable = s->entries[i]->len;
    s->written_seq = s->durable_seq = now_seq;
    s->is_dirty = false;
    return 0;
}

/* ---- closing: compression and retention ---- */

static void end_compression(struct file_store *s, const struct file_job *job)
{
    struct file_entry *e = file_entries_find(s, buf_slice(&job->path));
    if (e == NULL)
        return;
    if (job->result == 0) {
        log_info("file", "file.compressed", "a closed file was compressed", LOG_CSTR("path", e->path));
        file_entries_remove(s, e);
        return;
    }
    e->is_compressing = false;
    e->not_before_ns = clock_wall_ns() + RETRY_NS;
    s->is_dirty = true;
    log_warn("file", "file.compress_failed", "a closed file could not be compressed, trying again later",
             LOG_CSTR("path", e->path), LOG_CSTR("error", job->err.text));
}

static void take_result(struct file_store *s)
{
    struct file_job *job = file_keep_take(s->keep);
    if (job == NULL)
        return;
    if (job->kind == FILE_JOB_COMPRESS)
        end_compression(s, job);
    else if (job->result < 0)
        log_warn("file", "file.retain_failed", "old files could not be deleted", LOG_CSTR("error", job->err.text));
    else if (job->n_deleted > 0)
        log_info("file", "file.retained", "old files were deleted", LOG_NUM("files", job->n_deleted),
                 LOG_NUM("bytes", job->bytes_deleted));
    file_job_deinit(job);
}

static bool is_over(const struct file_store *s, const struct file_entry *e, int64_t now_ns)
{
    return e->len == e->durable && !e->is_compressing && now_ns >= e->not_before_ns &&
           now_ns - e->written_ns >= IDLE_NS && file_period_is_over(s->conf.shape->period, e->written_ns, now_ns);
}

/* NAME.gz, or NAME.1.gz … when lines came after the first was made. */
static int choose_gz_name(const struct file_place *at, char gz_name[256])
{
    for (int i = 0; i < GZ_NAMES_MAX; i++) {
        int n = i == 0 ? snprintf(gz_name, 256, "%s.gz", at->name) : snprintf(gz_name, 256, "%s.%d.gz", at->name, i);
        char temp[256];
        if (n >= 256 || !file_keep_temp_name(gz_name, temp))
            return -ENAMETOOLONG;
        if (faccessat(at->dir_fd, gz_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            return errno == ENOENT ? 0 : -errno;
    }
    return -EEXIST;
}

static int fill_compression(struct file_store *s, struct file_entry *e)
{
    struct file_place at;
    int r = file_entry_place(s, e, 0, &at, NULL);
    if (r < 0)
        return r;
    r = choose_gz_name(&at, e->gz_name);
    (void)close(at.dir_fd); /* read-only */
    s->job = (struct file_job){ .kind = FILE_JOB_COMPRESS, .base_len = base_of(s, file_entry_path(e)), .bytes = e->len,
                                .mode = s->conf.mode };
    buf_init(&s->job.path, PATH_MAX);
    memcpy(s->job.gz_name, e->gz_name, sizeof(e->gz_name));
    if (r == 0)
        r = buf_append_slice(&s->job.path, file_entry_path(e));
    return r;
}

/* The hash that stands for all of a file that is over, for whoever keeps the log elsewhere. */
static void say_chain(const struct file_store *s, const struct file_entry *e)
{
    struct file_place at;
    struct stat st;
    struct chain_hash last;
    char hex[CHAIN_HEX_BYTES + 1];
    if (!s->conf.chain || file_entry_place(s, e, 0, &at, NULL) < 0)
        return;
    CLEANUP(fd_closep) int fd = file_open_existing(&at, &st, NULL);
    (void)close(at.dir_fd); /* read-only */
    if (fd < 0 || chain_last(fd, e->len, &last) <= 0)
        return;
    chain_hash_hex(&last, hex);
    log_info("file", "file.chained", "the last hash of a file that is over", LOG_CSTR("path", e->path), LOG_CSTR("hash", hex),
             LOG_NUM("bytes", e->len));
}

/* The journal says first what will happen: with NAME and NAME.gz both there after a crash, NAME is the one too many. */
static void start_compression(struct file_store *s, struct file_entry *e, int64_t now_ns)
{
    int r = fill_compression(s, e);
    close_fd(s, e);
    say_chain(s, e);
    e->is_compressing = true;
    if (r == 0)
        r = note_entry(s, e, NULL);
    if (r == 0)
        r = file_keep_post(s->keep, &s->job);
    if (r == 0)
        return;
    e->is_compressing = false;
    e->not_before_ns = now_ns + RETRY_NS;
    s->is_dirty = true; /* the journal may say that it is being compressed */
    file_job_deinit(&s->job);
    log_warn("file", "file.compress_failed", "a closed file could not be compressed, trying again later",
             LOG_CSTR("path", e->path), LOG_CSTR("error", strerror(-r)));
}

static void start_retention(struct file_store *s, int64_t now_ns)
{
    s->job = (struct file_job){ .kind = FILE_JOB_RETAIN, .shape = s->conf.shape, .bytes_max = s->conf.retain_bytes,
                                .young_ns = now_ns - RETAIN_EVERY_NS };
    if (s->conf.retain_ns > 0)
        s->job.older_than_ns = now_ns - s->conf.retain_ns;
    buf_init(&s->job.live, FILE_ENTRIES_MAX * 4 * KIB);
    int r = 0;
    for (size_t i = 0; i < s->n_entries && r == 0; i++)
        r = buf_append(&s->job.live, s->entries[i]->path, strlen(s->entries[i]->path) + 1);
    if (r == 0)
        r = file_keep_post(s->keep, &s->job);
    if (r < 0)
        file_job_deinit(&s->job); /* the next hour tries again */
}

/* A file that is over and will not be compressed is no longer ours to look after. */
static void forget_closed(struct file_store *s, int64_t now_ns)
{
    for (size_t i = s->n_entries; i-- > 0;)
        if (is_over(s, s->entries[i], now_ns)) {
            say_chain(s, s->entries[i]);
            file_entries_remove(s, s->entries[i]);
        }
}

static void start_due_job(struct file_store *s)
{
    int64_t now_ns = clock_wall_ns(), mono_ns = clock_mono_ns();
    if (!s->conf.compress)
        forget_closed(s, now_ns);
    for (size_t i = 0; i < s->n_entries && s->conf.compress; i++) {
        if (is_over(s, s->entries[i], now_ns)) {
            start_compression(s, s->entries[i], now_ns);
            return;
        }
    }
    bool wants = s->conf.retain_ns > 0 || s->conf.retain_bytes > 0;
    if (wants && (!s->has_retained || mono_ns - s->retained_mono_ns >= RETAIN_EVERY_NS)) {
        s->has_retained = true;
        s->retained_mono_ns = mono_ns;
        start_retention(s, now_ns);
    }
}

static void keep_house(struct file_store *s)
{
    take_result(s);
    if (file_keep_is_idle(s->keep))
        start_due_job(s);
}

/* ---- writing ---- */

/* Closes the least recently used file, synced, when there are too many open. */
static int make_fd_room(struct file_store *s)
{
    if (s->n_fds < FILE_FDS_MAX)
        return 0;
    struct file_entry *oldest = NULL;
    for (size_t i = 0; i < s->n_entries; i++)
        if (s->entries[i]->fd >= 0 && (oldest == NULL || s->entries[i]->used < oldest->used))
            oldest = s->entries[i];
    int r = sync_entry(s, oldest);
    if (r == 0)
        close_fd(s, oldest);
    return r;
}

/* An fd for reading and writing, or -ENOENT; nothing but an ordinary file with one name. */
int file_open_existing(const struct file_place *at, struct stat *st, struct err *err)
{
    int fd = openat(at->dir_fd, at->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ENOENT : err_set(err, -errno, "cannot open %s (links are not followed)", at->name);
    int r = 0;
    if (fstat(fd, st) < 0)
        r = err_set(err, -errno, "cannot look at %s", at->name);
    else if (!S_ISREG(st->st_mode) || st->st_nlink != 1)
        r = err_say(err, -EINVAL, "%s is not an ordinary file with one name", at->name);
    if (r < 0)
        fd_close(&fd);
    return r < 0 ? r : fd;
}

static int create_file(const struct file_store *s, const struct file_place *at, struct file_entry *e, struct err *err)
{
    struct stat st;
    int fd = openat(at->dir_fd, at->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, s->conf.mode);
    if (fd < 0)
        return err_set(err, -errno, "cannot create %s", at->name);
    if (fchmod(fd, s->conf.mode) < 0 || fstat(fd, &st) < 0) { /* fchmod: whatever the umask */
        int r = err_set(err, -errno, "cannot set the mode of %s", at->name);
        fd_close(&fd);
        return r;
    }
    e->inode = st.st_ino;
    e->dir_is_new = true;
    return fd;
}

/* Someone else's file, or ours from before, that an old-file walk may be about to delete. */
static bool is_at_risk(const struct file_store *s, const struct stat *st)
{
    return !file_keep_is_idle(s->keep) && s->job.kind == FILE_JOB_RETAIN &&
           clock_wall_ns() / NS_PER_SEC - st->st_mtim.tv_sec >= RETAIN_EVERY_NS / NS_PER_SEC;
}

/* The entry is what the file on disk is; the journal knows it before it is touched. */
static int adopt(struct file_store *s, struct file_entry *e, const struct stat *st, bool is_new, struct err *err)
{
    e->len = e->synced = st == NULL ? 0 : (uint64_t)st->st_size;
    e->has_failed = false;
    e->inode = st == NULL ? 0 : st->st_ino;
    e->crc = 0;
    if (is_new)
        e->written_ns = clock_wall_ns();
    int r = note_entry(s, e, err);
    if (r == 0)
        e->durable = e->len;
    return r;
}

/* Where the chain of this file goes on. */
static int find_link(struct file_store *s, struct file_entry *e, int fd, struct err *err)
{
    const struct file_series *series = file_series_get(s, file_entry_path(e));
    if (series == NULL)
        return err_set(err, -ENOMEM, "cannot remember the chain of %s", e->path);
    if (e->len == 0) {
        e->chain = *file_series_last(series);
        return 0;
    }
    int r = chain_last(fd, e->len, &e->chain);
    if (r < 0)
        return err_set(err, r, "cannot read %s", e->path);
    if (r == 0) {
        e->chain = (struct chain_hash){ 0 };
        log_warn("file", "file.chain_begins", "a file does not end with a link: its chain begins anew here",
                 LOG_CSTR("path", e->path), LOG_NUM("offset", e->len));
    }
    return 0;
}

static int open_entry_at(struct file_store *s, struct file_entry *e, const struct file_place *at, bool is_new, struct err *err)
{
    struct stat st;
    int fd = file_open_existing(at, &st, err);
    if (fd == -ENOENT) {
        int r = adopt(s, e, NULL, is_new, err);
        fd = r < 0 ? r : create_file(s, at, e, err);
    } else if (fd >= 0 && is_new && is_at_risk(s, &st)) {
        fd_close(&fd);
        return err_say(err, -EAGAIN, "%s is looked at by the retention", at->name);
    } else if (fd >= 0 && (is_new || st.st_ino != e->inode || (uint64_t)st.st_size != e->len)) {
        if (!is_new)
            log_warn("file", "file.replaced", "a file of ours was changed by someone else; appending to what is there",
                     LOG_CSTR("path", e->path));
        int r = adopt(s, e, &st, is_new, err);
        if (r < 0) {
            fd_close(&fd);
            return r;
        }
    }
    if (fd < 0)
        return fd;
    int r = s->conf.chain ? find_link(s, e, fd, err) : 0;
    if (r < 0) {
        fd_close(&fd);
        return r;
    }
    e->fd = fd;
    s->n_fds++;
    return 0;
}

static int open_entry(struct file_store *s, struct file_entry *e, bool is_new, struct err *err)
{
    int r = make_fd_room(s);
    if (r < 0)
        return err_set(err, r, "cannot sync a file");
    struct file_place at;
    r = file_entry_place(s, e, s->conf.dir_mode, &at, err);
    if (r < 0)
        return r;
    r = open_entry_at(s, e, &at, is_new, err);
    (void)close(at.dir_fd); /* read-only */
    return r;
}

/* Before the first write after a sync: is the open file still the one under its name? */
static bool is_still_there(const struct file_store *s, const struct file_entry *e)
{
    struct file_place at;
    struct stat st;
    if (e->len != e->durable)
        return true; /* looked at when the first of these bytes was written */
    if (file_entry_place(s, e, 0, &at, NULL) < 0)
        return false;
    bool is_same = fstatat(at.dir_fd, at.name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == e->inode &&
                   (uint64_t)st.st_size == e->len;
    (void)close(at.dir_fd); /* read-only */
    return is_same;
}

/* An entry with an open file for this path. */
static int get_entry(struct file_store *s, struct slice path, struct file_entry **ret, struct err *err)
{
    struct file_entry *e = file_entries_find(s, path);
    if (e != NULL && e->is_compressing)
        return err_say(err, -EAGAIN, "%s is being compressed", e->path);
    if (e != NULL && e->fd >= 0 && !is_still_there(s, e))
        close_fd(s, e);
    bool is_new = e == NULL;
    if (is_new && s->n_entries == FILE_ENTRIES_MAX) {
        struct file_entry *old = oldest_clean(s);
        int r = old == NULL ? sync_all(s, 0, err) : 0;
        if (r < 0)
            return r;
        file_entries_remove(s, old != NULL ? old : oldest_clean(s));
    }
    if (is_new)
        e = file_entries_add(s, path);
    if (e == NULL)
        return err_set(err, -ENOMEM, "cannot remember a file");
    int r = e->fd < 0 ? open_entry(s, e, is_new, err) : 0;
    if (r < 0 && is_new)
        file_entries_remove(s, e);
    if (r == 0)
        *ret = e;
    return r;
}

int file_store_write(struct file_store *s, uint64_t seq, struct slice path, struct buf *lines, struct err *err)
{
    struct file_entry *e = NULL;
    struct file_series *series = NULL;
    keep_house(s);
    if (seq <= s->written_seq)
        return 0;
    if (slice_find_byte(path, '\0') >= 0 || path.len >= PATH_MAX || path.len == 0 || path.ptr[0] != '/')
        return err_say(err, -EINVAL, "the path is not one of ours");
    int r = get_entry(s, path, &e, err);
    if (r < 0)
        return r;
    assert(e != NULL && e->fd >= 0);
    struct chain_hash link = e->chain;
    if (s->conf.chain && ((series = file_series_get(s, path)) == NULL || chain_close_block(lines, &link) < 0))
        return err_set(err, -ENOMEM, "cannot chain %s", e->path);
    r = io_pwrite_full(e->fd, lines->ptr, lines->len, e->len);
    if (r < 0) {
        if (ftruncate(e->fd, (off_t)e->len) < 0)
            log_debug("file", "file.cut_failed", "a torn end stays until it is written over", LOG_CSTR("path", e->path));
        return err_set(err, r, "cannot write %s", e->path);
    }
    e->crc = file_journal_crc(e->crc, buf_slice(lines));
    e->len += lines->len;
    e->written_ns = clock_wall_ns();
    e->chain = link;
    if (series != NULL)
        file_series_wrote(series, &link, e->written_ns);
    e->used = ++s->use_clock;
    s->written_seq = seq;
    s->is_dirty = true;
    return 0;
}

int file_store_sync(struct file_store *s, uint64_t seq, struct err *err)
{
    keep_house(s);
    return s->is_dirty ? sync_all(s, seq, err) : 0;
}

uint64_t file_store_seq(const struct file_store *s)
{
    return s->durable_seq;
}

/* ---- opening ---- */

static int open_state(struct file_store *s, struct err *err)
{
    struct buf path;
    buf_init(&path, PATH_MAX);
    int r = buf_append_slice(&path, s->conf.state_dir);
    if (r == 0)
        r = buf_terminate(&path);
    if (r < 0)
        (void)err_set(err, r, "cannot open the state folder");
    else
        r = io_mkdirs(path.ptr, 0750, err);
    if (r == 0) {
        s->state_fd = open(path.ptr, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->state_fd < 0)
            r = err_set(err, -errno, "cannot open %s", path.ptr);
        file_state_init(&s->journal, s->state_fd);
    }
    buf_deinit(&path);
    return r;
}

int file_store_open(const struct file_store_conf *conf, struct file_store **ret_store, struct err *err)
{
    struct file_store *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, -ENOMEM, "cannot open the archive");
    s->conf = *conf;
    s->state_fd = s->journal.fd = -1;
    s->entries = calloc(FILE_ENTRIES_MAX, sizeof(struct file_entry *));
    int r = s->entries == NULL ? -ENOMEM : file_keep_new(&s->keep);
    if (r < 0)
        (void)err_set(err, r, "cannot open the archive");
    if (r == 0)
        r = open_state(s, err);
    if (r == 0)
        r = file_recover(s, err);
    if (r == 0)
        r = write_snapshot(s, s->durable_seq, err);
    if (r < 0) {
        file_store_close(s);
        return r;
    }
    s->is_dirty = false;
    s->written_seq = s->durable_seq;
    s->conf.state_dir = SLICE(""); /* borrowed for the opening only */
    *ret_store = s;
    return 0;
}

void file_store_close(struct file_store *s)
{
    if (s == NULL)
        return;
    bool was_busy = s->keep != NULL && !file_keep_is_idle(s->keep);
    file_keep_free(s->keep);
    if (was_busy)
        file_job_deinit(&s->job);
    for (size_t i = 0; i < s->n_entries; i++)
        free_entry(s, s->entries[i]);
    free(s->entries);
    file_series_free_all(s);
    file_state_deinit(&s->journal);
    fd_close(&s->state_fd);
    free(s);
}
