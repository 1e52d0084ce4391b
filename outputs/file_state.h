/*
 * file_state.h - the file that the journal of the file output stands in, and its spare: a snapshot is written into the
 * spare in place, synced, and the two change names. So a checkpoint needs no space, and a disk that is full of what the
 * archive has already can be emptied.
 *
 * Behind the records stand zeros: a record of no length, which ends the reading.
 *
 * Threads: the sender's.
 */
#ifndef TAILRACE_OUTPUTS_FILE_STATE_H
#define TAILRACE_OUTPUTS_FILE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/macros.h"
#include "agent/base/slice.h"

#define FILE_STATE_NAME "files.state"
#define FILE_STATE_SPARE "files.state.spare"

struct file_state {
    int dir_fd; /* borrowed */
    int fd;     /* of what is FILE_STATE_NAME now; -1 before the first snapshot */
    uint64_t end; /* of its records */
};

void file_state_init(struct file_state *st, int dir_fd);
void file_state_deinit(struct file_state *st);
/* All of it is `content` from now on, durably; or it is what it was. */
NODISCARD int file_state_replace(struct file_state *st, struct slice content, struct err *err);
/* One record more, durably; or none. -EIO and the like may leave a torn one: *ret_is_torn, then the next call has to be a
 * replacement. */
NODISCARD int file_state_append(struct file_state *st, struct slice record, bool *ret_is_torn, struct err *err);

#endif
