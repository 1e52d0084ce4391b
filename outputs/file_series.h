/*
 * file_series.h - inside of the file store: the last link of each folder's chain, from which the folder's next file goes
 * on. Part of the journal (C records), so that it is what the files on disk say after any crash. Nobody but the store
 * includes it.
 */
#ifndef TAILRACE_OUTPUTS_FILE_SERIES_H
#define TAILRACE_OUTPUTS_FILE_SERIES_H

#include "outputs/file_entries.h"

/* Of the folder of this path; made with a hash of zeros. The least recently written gives way when there are
 * FILE_ENTRIES_MAX: that folder's chain will begin anew. NULL: out of memory. */
struct file_series *file_series_get(struct file_store *s, struct slice path);
const struct chain_hash *file_series_last(const struct file_series *series);
void file_series_wrote(struct file_series *series, const struct chain_hash *hash, int64_t written_ns);
/* From the journal. */
NODISCARD int file_series_load(void *ctx, const struct file_journal_series *from);
NODISCARD int file_series_put_all(const struct file_store *s, struct buf *out);
void file_series_free_all(struct file_store *s);

#endif
