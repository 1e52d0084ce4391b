/*
 * inspect.h - looks at a queue's directory for the command line: `queue ls`, `verify`, `cat` and `export`.
 *
 * Read-only, takes no lock and opens nothing for writing, so it is safe beside a running agent. Files may grow or vanish
 * while they are read: that is never an error.
 */
#ifndef TAILRACE_QUEUE_INSPECT_H
#define TAILRACE_QUEUE_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/queue/queue.h"

enum queue_place { QUEUE_PLACE_QUEUED, QUEUE_PLACE_ACKED, QUEUE_PLACE_PARKED, QUEUE_PLACE_DEAD };
const char *queue_place_name(enum queue_place p);

struct queue_frame {
    struct frame_head head;
    struct slice meta, body;   /* body is empty when !is_whole */
    enum queue_place place;
    uint32_t wire_form;
    bool is_whole;             /* the body's CRC is right */
    const char *file;          /* its name, below the directory */
};

/* dir: state_dir/queue/<output>. All appended to text, for people. */
NODISCARD int queue_inspect_ls(const char *dir, struct buf *text, struct err *err);

/* Every CRC, the numbers, that each file's ranges chain, and the counts. Returns how many problems there are (a torn tail
 * is none), or -errno. */
NODISCARD int queue_inspect_verify(const char *dir, struct buf *text, struct err *err);

/* Every DATA frame: those of the segments in order, then parked, then dead ones. each() returns 0 to go on, anything else
 * ends the walk and is returned. Slices are valid during the call. */
NODISCARD int queue_inspect_each_frame(const char *dir, int (*each)(void *ctx, const struct queue_frame *frame), void *ctx,
                                       struct err *err);

#endif
