/*
 * The directory of a queue: its lock, its folders, its beginning and its end.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/queue/core.h"
#include "agent/base/bug.h"

/* ---- directories ---- */

/* mkdir -p through fs_ops; path is cut and restored. */
static int make_dirs(const struct fs_ops *fs, char *path)
{
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        int r = fs->mkdir(AT_FDCWD, path, 0700);
        *p = '/';
        if (r < 0 && r != -EEXIST && r != -EROFS && r != -EACCES)
            return r; /* the last two say nothing: it may be there already */
    }
    int r = fs->mkdir(AT_FDCWD, path, 0700);
    return r == -EEXIST ? 0 : r;
}

/* The names of the last folders of path, made durable: a filesystem may keep a folder's content and lose its name, and a
 * queue that is gone after a power cut is read, and sent, again from the start. path is cut and restored. */
static int sync_names(const struct fs_ops *fs, char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return 0;
    *slash = '\0';
    int r = 0, fd = fs->open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0) {
        r = fs->sync_dir(fd);
        (void)fs->close(fd);
    } else if (fd != -EACCES) { /* folders above ours need not be readable */
        r = fd;
    }
    if (r == 0 && slash > path)
        r = sync_names(fs, path);
    *slash = '/';
    return r;
}

/* Something stands where a file or folder of ours belongs and is none: it gets another name. */
static int make_way(struct queue *q, const char *name)
{
    char to[64];
    struct stat st;
    unsigned i = 1;
    do
        (void)snprintf(to, sizeof(to), "%s.aside.%u", name, i);
    while (i++ < 1000 && q->fs->stat(q->dir_fd, to, &st, false) == 0);
    int r = q->fs->rename(q->dir_fd, name, q->dir_fd, to);
    log_error("queue", "queue.damaged", "something that is not the queue's stood at one of its names and was renamed",
              LOG_CSTR("output", q->name), LOG_CSTR("name", name), LOG_CSTR("to", to), LOG_NUM("errno", -r));
    return r;
}

int queue_make_way(struct queue *q, const char *name, mode_t type)
{
    struct stat st;
    int r = q->fs->stat(q->dir_fd, name, &st, type == S_IFDIR);
    if (r == -EIO || r == -ENOMEM)
        return r; /* says nothing of what stands there */
    if (r < 0)
        return q->fs->stat(q->dir_fd, name, &st, false) < 0 ? 0 : make_way(q, name); /* a link that leads nowhere */
    return (st.st_mode & S_IFMT) == type ? 0 : make_way(q, name);
}

static int open_sub(struct queue *q, const char *name, int *ret_fd)
{
    int r = queue_make_way(q, name, S_IFDIR);
    if (r == 0)
        r = q->fs->mkdir(q->dir_fd, name, 0700);
    if (r < 0 && r != -EEXIST)
        return r;
    int fd = q->fs->open(q->dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

static const struct {
    uint32_t magic;
    const char *name;
} network_fs[] = {
    { 0x6969, "NFS" },        { 0xff534d42, "CIFS" },   { 0xfe534d42, "SMB2" }, { 0x517b, "SMB" },
    { 0x01021997, "9p" },     { 0x65735546, "FUSE" },   { 0x00c36400, "Ceph" }, { 0x5346414f, "AFS" },
    { 0x73757245, "Coda" },   { 0x47504653, "GPFS" },   { 0x0bd00bd0, "Lustre" },
};

/* Their locks, syncs and renames do not mean what they mean on a disk. */
static int refuse_network(const struct queue *q, const char *path, struct err *err)
{
    struct fs_space space;
    if (q->fs->space(q->dir_fd, &space) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(network_fs); i++)
        if (space.type == network_fs[i].magic)
            return err_say(err, -ENOTSUP,
                           "queue of output '%s': %s is on a network filesystem (%s), which cannot promise what "
                           "a queue needs; use a local disk",
                           q->name, path, network_fs[i].name);
    return 0;
}

static int lock_dir(struct queue *q, struct err *err)
{
    char text[32] = { 0 };
    int r = queue_make_way(q, "lock", S_IFREG);
    if (r < 0)
        return err_set(err, r, "queue of output '%s': what stands at its lock cannot be looked at or set aside", q->name);
    q->lock_fd = q->fs->open(q->dir_fd, "lock", O_RDWR | O_CREAT, 0600);
    if (q->lock_fd < 0)
        return err_set(err, q->lock_fd, "queue of output '%s': cannot open its lock", q->name);
    r = q->fs->lock(q->lock_fd);
    if (r == -EWOULDBLOCK) {
        ssize_t n = fs_pread_full(q->lock_fd, text, sizeof(text) - 1, 0);
        uint64_t pid = 0;
        bool has_pid = n > 0 && slice_to_u64(slice_trim(slice_of(text, (size_t)n)), &pid);
        return err_say(err, -EBUSY, "queue of output '%s' is used by another Tailrace (pid %s%.0llu)", q->name,
                       has_pid ? "" : "unknown", (unsigned long long)pid);
    }
    if (r < 0)
        return err_set(err, r, "queue of output '%s': cannot lock", q->name);
    /* For people only: the lock itself is the kernel's. */
    int n = snprintf(text, sizeof(text), "%-11ld\n", (long)getpid());
    (void)!fs_pwrite_full(q->lock_fd, text, (size_t)n, 0);
    return 0;
}

static int open_dirs(struct queue *q, const struct queue_open_conf *conf, struct err *err)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%.*s/queue/%s", SLICE_ARGS(conf->output->state_dir), q->name);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(err, -ENAMETOOLONG, "queue of output '%s'", q->name);
    int r = make_dirs(q->fs, path);
    if (r < 0)
        return err_set(err, r, "queue of output '%s': cannot make %s", q->name, path);
    r = BUG(37) ? 0 : sync_names(q->fs, path);
    if (r < 0)
        return err_set(err, r, "queue of output '%s': cannot sync the folders of %s", q->name, path);
    q->dir_fd = q->fs->open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (q->dir_fd < 0)
        return err_set(err, q->dir_fd, "queue of output '%s': cannot open %s", q->name, path);
    if (!conf->allow_network_fs && (r = refuse_network(q, path, err)) < 0)
        return r;
    r = lock_dir(q, err);
    if (r < 0)
        return r;
    if ((r = open_sub(q, "dead", &q->dead.dir_fd)) < 0 || (r = open_sub(q, "parked", &q->parked_fd)) < 0 ||
        (r = open_sub(q, "quarantine", &q->quarantine_fd)) < 0)
        return err_set(err, r, "queue of output '%s': cannot make its folders in %s", q->name, path);
    return 0;
}

/* ---- open and close ---- */

static void set_sizes(struct queue *q)
{
    q->segment_bytes = MIN(MAX(q->conf.max_bytes / 16, (uint64_t)SEGMENT_BYTES_MIN), (uint64_t)SEGMENT_BYTES_MAX);
    if (queue_tuning.segment_bytes > 0)
        q->segment_bytes = queue_tuning.segment_bytes;
    q->group_bytes = q->conf.group_bytes > 0 ? q->conf.group_bytes : GROUP_BYTES_MAX;
    q->group_bytes = MIN(q->group_bytes, q->segment_bytes / 4);
}

static bool is_plain_name(struct slice s)
{
    return s.len > 0 && s.len < 200 && s.ptr[0] != '.' && slice_find_byte(s, '/') < 0 && slice_find_byte(s, '\0') < 0;
}

static struct queue *queue_new(const struct queue_open_conf *conf)
{
    struct queue *q = calloc(1, sizeof(*q));
    if (q == NULL)
        return NULL;
    q->fs = fs_current();
    q->conf = conf->output->queue;
    q->name = slice_dup(conf->output->name);
    q->output_index = conf->output->index;
    q->wire_form = conf->wire_form;
    q->min_free_bytes = conf->min_free_bytes;
    q->min_free_percent = conf->min_free_percent;
    q->dir_fd = q->lock_fd = q->parked_fd = q->quarantine_fd = q->cursor_fd = q->fd = q->spare_fd = q->room_fd = -1;
    q->dead.dir_fd = q->dead.fd = -1;
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->cursor_lock, NULL);
    buf_init(&q->meta, SNAP_RAW_MAX);
    buf_init(&q->snap, SNAP_RAW_MAX);
    buf_init(&q->replayed, SNAP_RAW_MAX);
    set_sizes(q);
    return q;
}

static void close_fd(struct queue *q, int fd)
{
    if (fd >= 0)
        (void)q->fs->close(fd); /* everything that matters was synced */
}

static void queue_free(struct queue *q)
{
    reader_close(q);
    segment_drop_spare(q);
    segment_close_room(q);
    dead_close(q);
    parked_close(q);
    close_fd(q, q->fd);
    close_fd(q, q->cursor_fd);
    close_fd(q, q->quarantine_fd);
    close_fd(q, q->dir_fd);
    close_fd(q, q->lock_fd); /* last: from here on another may open it */
    queue_recovered_free(q);
    positions_deinit(&q->positions);
    totals_deinit(&q->totals);
    tally_deinit(&q->losses);
    gaps_deinit(&q->gaps);
    missed_clear(q);
    free(q->missed);
    rereads_deinit(&q->rereads);
    buf_deinit(&q->replayed);
    free(q->voided);
    free(q->fenced);
    free(q->segs);
    buf_deinit(&q->meta);
    buf_deinit(&q->snap);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->cursor_lock);
    free(q->name);
    free(q);
}

int queue_open(const struct queue_open_conf *conf, struct queue **ret_queue, struct queue_recovery *ret_rec,
               struct err *err)
{
    if (!is_plain_name(conf->output->name))
        return err_say(err, -EINVAL, "output '%.*s': the name cannot be that of a folder",
                       SLICE_ARGS(conf->output->name));
    struct queue *q = queue_new(conf);
    if (q == NULL || q->name == NULL) {
        if (q != NULL)
            queue_free(q);
        return err_set(err, -ENOMEM, "cannot open a queue");
    }
    struct queue_recovery rec;
    q->is_opening = true;
    int r = open_dirs(q, conf, err);
    if (r == 0)
        r = recover(q, &rec, err);
    q->is_opening = false;
    if (r < 0) {
        queue_free(q);
        return r;
    }
    q->read_seq = atomic_load(&q->acked_seq) + 1;
    *ret_rec = rec;
    *ret_queue = q;
    return 0;
}

void queue_recovered_free(struct queue *q)
{
    positions_export_free(&q->positions);
    positions_forget_marks(&q->positions);
    free(q->rec_ledger);
    free(q->rec_rows);
    q->rec_ledger = NULL;
    q->rec_rows = NULL;
}

void queue_close(struct queue *q)
{
    if (q == NULL)
        return;
    /* Whatever fails here is found by the next open: it is what a crash would leave. */
    queue_abandon_group(q);
    if (q->fd >= 0 && q->is_failed) /* no fence could be written yet, and the next open must not take it for durable */
        (void)!q->fs->truncate(q->fd, q->void_from);
    if (q->fd >= 0 && !q->is_failed && !q->must_roll)
        (void)!segment_seal(q, true);
    else
        (void)!queue_sync(q);
    if (queue_cursor_sync(q) < 0)
        (void)!queue_cursor_sync(q); /* once more: a loss that is not written by now is counted nowhere */
    (void)!queue_unlink_acked(q);
    queue_free(q);
}
