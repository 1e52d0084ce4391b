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
#include "agent/queue/letters.h"

/* GIVEN: parked and given up, its lines are counted as lost; the file goes when it can be removed. */
enum queue_place { QUEUE_PLACE_QUEUED, QUEUE_PLACE_ACKED, QUEUE_PLACE_PARKED, QUEUE_PLACE_GIVEN, QUEUE_PLACE_DEAD };
const char *queue_place_name(enum queue_place p);

struct queue_frame {
    struct frame_head head;
    struct slice meta, body;   /* body is empty when !is_whole */
    uint32_t body_crc;         /* as the header says */
    enum queue_place place;
    uint32_t wire_form;
    bool is_whole;             /* the body's CRC is right */
    enum letter_fate fate;     /* of dead letters */
    const char *file;          /* its name, below the directory */
};

/* Where a report goes. Text is for people, a few lines; JSON is one object on one line. docs/FORMATS.md says what is in it. */
struct queue_report {
    const char *dir;     /* state_dir/queue/<output> */
    struct slice output;
    bool is_orphan, is_json;
    struct buf *text;    /* appended to */
};

NODISCARD int queue_inspect_ls(const struct queue_report *to, struct err *err);

/* Every CRC, the numbers, that each file's ranges chain, and the counts. Returns how many problems there are (a torn tail
 * is none), or -errno. */
NODISCARD int queue_inspect_verify(const struct queue_report *to, struct err *err);

/* Every DATA frame: those of the segments in order, then parked, then dead ones. each() returns 0 to go on, anything else
 * ends the walk and is returned. Slices are valid during the call. */
NODISCARD int queue_inspect_each_frame(const char *dir, int (*each)(void *ctx, const struct queue_frame *frame), void *ctx,
                                       struct err *err);
/* One JSON object, without the closing brace: what a frame's header and meta say. */
NODISCARD int queue_frame_json(const struct queue_frame *frame, struct buf *text);

#endif
