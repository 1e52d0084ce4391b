/*
 * file_entries.h - inside of the file store: what file_store.c (writing, syncing, closing) and file_recover.c (opening
 * after a crash) share. Nobody else includes it.
 */
#ifndef TAILRACE_OUTPUTS_FILE_ENTRIES_H
#define TAILRACE_OUTPUTS_FILE_ENTRIES_H

#include <sys/stat.h>

#include "outputs/file_chain.h"
#include "outputs/file_journal.h"
#include "outputs/file_keep.h"
#include "outputs/file_state.h"
#include "outputs/file_store.h"

/* A file that we may write to, or have since the last close. */
struct file_entry {
    char *path;
    uint64_t hash;
    uint64_t len;         /* with all that was written */
    uint64_t durable;     /* in the journal */
    ino_t inode;
    int64_t written_ns;   /* wall clock */
    int64_t not_before_ns;/* of the next try to compress */
    int fd;               /* -1: not open */
    uint64_t used;        /* of the clock for the least recently used */
    uint32_t crc;         /* of the bytes from synced to len */
    uint64_t synced;      /* on disk */
    bool has_failed;      /* a sync: another one alone proves nothing */
    bool dir_is_new;      /* its name is not synced */
    bool is_compressing;
    char gz_name[256];
    struct chain_hash chain; /* the last link, known while fd is open */
};

struct file_series; /* file_series.h */

struct file_store {
    struct file_store_conf conf;
    struct file_keep *keep;
    int state_fd;
    struct file_state journal;
    struct file_entry **entries;
    size_t n_entries, n_fds;
    struct file_series **series; /* NULL until there is a chain */
    size_t n_series;
    uint64_t use_clock;
    uint64_t written_seq, durable_seq;
    bool is_dirty;          /* the journal does not say all */
    int64_t retained_mono_ns;
    bool has_retained;
    struct file_job job;
};

struct slice file_entry_path(const struct file_entry *e);
/* Its folder and name; the caller closes ret->dir_fd. dir_mode 0: missing folders are not made. */
NODISCARD int file_entry_place(const struct file_store *s, const struct file_entry *e, mode_t dir_mode,
                               struct file_place *ret, struct err *err);

struct file_entry *file_entries_find(const struct file_store *s, struct slice path);
/* NULL: too many, or out of memory. */
struct file_entry *file_entries_add(struct file_store *s, struct slice path);
void file_entries_remove(struct file_store *s, struct file_entry *e);

/* An fd for reading and writing, or -ENOENT; nothing but an ordinary file with one name. */
NODISCARD int file_open_existing(const struct file_place *at, struct stat *st, struct err *err);

/* Reads the journal into the entries and cuts each file back to it. Sets s->durable_seq. A damaged journal is set aside. */
NODISCARD int file_recover(struct file_store *s, struct err *err);

#endif
