/*
 * file_journal.h - the bytes of files.state; file_store.h has the table and says what they are for.
 */
#ifndef TAILRACE_OUTPUTS_FILE_JOURNAL_H
#define TAILRACE_OUTPUTS_FILE_JOURNAL_H

#include <stdint.h>

#include "agent/base/buf.h"
#include "outputs/file_chain.h"

/* All of it: 4096 paths of the longest kind, and as many folders. */
#define FILE_JOURNAL_BYTES_MAX (48 * MIB)
#define FILE_JOURNAL_RECORD_MAX 4200

struct file_journal_file {
    struct slice path;
    uint64_t len;
    uint64_t inode; /* 0: announced, not made yet */
    int64_t written_ns;
};

struct file_journal_series {
    struct slice folder;
    struct chain_hash last;
    int64_t written_ns;
};

uint32_t file_journal_crc(uint32_t crc, struct slice s);

NODISCARD int file_journal_put_snapshot(struct buf *out, uint64_t seq, uint32_t n_records);
NODISCARD int file_journal_put_file(struct buf *out, const struct file_journal_file *f);
NODISCARD int file_journal_put_gz(struct buf *out, struct slice path, struct slice gz_name);
NODISCARD int file_journal_put_series(struct buf *out, const struct file_journal_series *s);

/* NULL: of no interest. */
struct file_journal_reader {
    int (*file)(void *ctx, const struct file_journal_file *f);
    int (*gz)(void *ctx, struct slice path, struct slice gz_name);
    int (*series)(void *ctx, const struct file_journal_series *s);
    void *ctx;
};

/* Calls the reader for each record, in order. -EBADMSG when the snapshot itself is damaged; a torn record behind it ends
 * the reading without an error. */
NODISCARD int file_journal_read(struct slice content, const struct file_journal_reader *reader, uint64_t *ret_seq);

#endif
