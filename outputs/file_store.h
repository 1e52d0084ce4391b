/*
 * file_store.h - the files that the file output is writing: appended to, synced, cut back after a crash, closed.
 *
 * A journal, STATE/files.state, says up to which frame everything is durable and how long each file was then. It is
 * replaced as a whole at each sync (file_state.h); before a file is written that it does not know, an entry is appended and synced. So
 * whatever the crash, each file is cut back to what the journal says, and the frames after it are written again: nothing
 * twice, nothing missing.
 *
 * Journal (little-endian), records back to back; the first bad one ends it:
 *   off  size  field
 *     0     4  len     bytes of the content, 1..4200
 *     4     4  crc32   of the content
 *     8   len  content: a type and
 *              'S'  8 magic "TRFILES1", 8 seq, 4 entries that follow in this snapshot
 *              'F'  8 length, 8 inode (0: not made yet), 8 last written (unix ns), then the path
 *              'Z'  2 length of the path, the path, the name of the .gz that is being made beside it
 *              'C'  8 last written (unix ns), 32 the last hash of the chain (file_chain.h), then the folder
 * A snapshot counts if S and all its entries are whole; what follows it may be torn by a crash.
 *
 * Threads: one at a time, handed over with a barrier: main at open and close, the sender for writes, whoever syncs.
 * Limits:  FILE_ENTRIES_MAX files that are not closed, FILE_FDS_MAX of them open.
 */
#ifndef TAILRACE_OUTPUTS_FILE_STORE_H
#define TAILRACE_OUTPUTS_FILE_STORE_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "outputs/file_path.h"

#define FILE_ENTRIES_MAX 4096
#define FILE_FDS_MAX 128

struct file_store_conf {
    struct slice state_dir; /* the folder of files.state; made when missing */
    const struct file_shape *shape; /* outlives the store */
    mode_t mode, dir_mode;
    bool compress;          /* files whose period is over become NAME.gz */
    bool chain;             /* behind each frame's lines a link: file_chain.h */
    int64_t retain_ns;      /* 0 = for ever */
    uint64_t retain_bytes;  /* 0 = no limit */
};

struct file_store;

NODISCARD int file_store_open(const struct file_store_conf *conf, struct file_store **ret_store, struct err *err);
/* Does not sync: what was not is written again at the next start. NULL is fine. */
void file_store_close(struct file_store *s);

/* Appends the lines of frame seq to the file, and their link, which lines gets too; a seq that is there already is skipped.
 * On failure the file is as before.
 * -EAGAIN: the file is just being compressed or looked at by the retention. */
NODISCARD int file_store_write(struct file_store *s, uint64_t seq, struct slice path, struct buf *lines, struct err *err);
/* Makes all that was written durable, as the state after seq at least. */
NODISCARD int file_store_sync(struct file_store *s, uint64_t seq, struct err *err);
/* The last durable seq. */
uint64_t file_store_seq(const struct file_store *s);

#endif
