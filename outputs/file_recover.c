/* The file store after a crash: back to what the journal says. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/base/io.h"
#include "agent/base/log.h"
#include "outputs/file_entries.h"
#include "outputs/file_series.h"

/* The crash came after NAME.gz got its name, or before. */
static bool finish_compression(struct file_entry *e, const struct file_place *at)
{
    char temp[256];
    if (faccessat(at->dir_fd, e->gz_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        (void)unlinkat(at->dir_fd, at->name, 0); /* gone already is as good */
        (void)fsync(at->dir_fd);                 /* not yet durable: the journal still says so at the next start */
        return true;
    }
    if (file_keep_temp_name(e->gz_name, temp))
        (void)unlinkat(at->dir_fd, temp, 0); /* half of it; it is made again */
    e->is_compressing = false;
    return false;
}

static int cut_back(struct file_entry *e, int fd, const struct stat *st, struct err *err)
{
    uint64_t size = (uint64_t)st->st_size;
    if (size < e->len) {
        log_error("file", "file.short", "a file is shorter than it was when it was synced", LOG_CSTR("path", e->path),
                  LOG_NUM("missing_bytes", e->len - size));
        e->len = size;
    } else if (size > e->len) {
        log_info("file", "file.cut_back", "lines behind the last acknowledged frame are written again",
                 LOG_CSTR("path", e->path), LOG_NUM("bytes", size - e->len));
        if (ftruncate(fd, (off_t)e->len) < 0 || fdatasync(fd) < 0)
            return err_set(err, -errno, "cannot cut %s back", e->path);
    }
    e->inode = st->st_ino;
    e->synced = e->durable = e->len;
    return 0;
}

/* 1 = the entry stays, 0 = it is done with, negative errno. */
static int recover_at(struct file_entry *e, const struct file_place *at, struct err *err)
{
    struct stat st;
    if (e->is_compressing && finish_compression(e, at))
        return 0;
    CLEANUP(fd_closep) int fd = file_open_existing(at, &st, err);
    if (fd == -ENOENT)
        return 0; /* announced and never made, or taken away by someone */
    if (fd < 0)
        return fd;
    if (e->inode != 0 && st.st_ino != e->inode)
        return 0; /* not the file that we wrote */
    int r = cut_back(e, fd, &st, err);
    return r < 0 ? r : 1;
}

static int recover_entries(struct file_store *s, struct err *err)
{
    for (size_t i = s->n_entries; i-- > 0;) {
        struct file_entry *e = s->entries[i];
        struct file_place at;
        int r = file_entry_place(s, e, 0, &at, err);
        if (r == 0) {
            r = recover_at(e, &at, err);
            (void)close(at.dir_fd); /* read-only */
        } else if (r == -ENOENT) {
            r = 0;
        }
        if (r < 0)
            return r;
        if (r == 0)
            file_entries_remove(s, e);
    }
    return 0;
}

static int load_file(void *ctx, const struct file_journal_file *f)
{
    struct file_store *s = ctx;
    struct file_entry *e = file_entries_find(s, f->path); /* a later record counts */
    if (e == NULL)
        e = file_entries_add(s, f->path);
    if (e == NULL)
        return -ENOMEM;
    e->len = f->len;
    e->inode = (ino_t)f->inode;
    e->written_ns = f->written_ns;
    e->is_compressing = false;
    return 0;
}

static int load_gz(void *ctx, struct slice path, struct slice gz_name)
{
    struct file_entry *e = file_entries_find(ctx, path);
    if (e == NULL || gz_name.len >= sizeof(e->gz_name))
        return -EBADMSG;
    memcpy(e->gz_name, gz_name.ptr, gz_name.len);
    e->gz_name[gz_name.len] = '\0';
    e->is_compressing = true;
    return 0;
}

/* A damaged journal is set aside: then files cannot be cut back and lines may be there twice, but none is missing. */
static int set_aside(struct file_store *s, struct err *err)
{
    log_error("file", "file.state_damaged", "files.state is damaged and was set aside; some lines may be written twice",
              LOG_SLICE("folder", s->conf.state_dir));
    while (s->n_entries > 0)
        file_entries_remove(s, s->entries[s->n_entries - 1]);
    file_series_free_all(s);
    s->durable_seq = 0;
    if (renameat(s->state_fd, FILE_STATE_NAME, s->state_fd, FILE_STATE_NAME ".bad") < 0)
        return err_set(err, -errno, "cannot set " FILE_STATE_NAME " aside");
    return 0;
}

static int load_journal(struct file_store *s, struct err *err)
{
    const struct file_journal_reader reader = { load_file, load_gz, file_series_load, s };
    struct buf content;
    buf_init(&content, FILE_JOURNAL_BYTES_MAX);
    int r = 0;
    if (faccessat(s->state_fd, FILE_STATE_NAME, F_OK, 0) == 0)
        r = io_read_file(s->state_fd, FILE_STATE_NAME, &content, err);
    else if (errno != ENOENT)
        r = err_set(err, -errno, "cannot read " FILE_STATE_NAME);
    if (r == 0 && content.ptr != NULL) {
        r = file_journal_read(buf_slice(&content), &reader, &s->durable_seq);
        if (r == -EBADMSG)
            r = set_aside(s, err);
        else if (r < 0)
            (void)err_set(err, r, "cannot read " FILE_STATE_NAME);
    }
    buf_deinit(&content);
    return r;
}

int file_recover(struct file_store *s, struct err *err)
{
    int r = load_journal(s, err);
    return r < 0 ? r : recover_entries(s, err);
}
