/*
 * sources.h - which records of which files are in a frame, by where they begin: so that, when a frame of a group is damaged
 * and the group's ranges are read again, what the other frames hold is not taken a second time.
 *
 * A list of {incarnation (8), LEB128 of first << 2 | stream, LEB128 of last - first}: of this stream of the file all records
 * of the frame's route that begin in [first, last]. They come in order, so nothing else of that route lies between. Any
 * bytes may be decoded. Pure.
 */
#ifndef TAILRACE_BASE_SOURCES_H
#define TAILRACE_BASE_SOURCES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"

struct source_span {
    uint64_t incarnation, first, last;
    uint8_t stream; /* enum record_stream, below 4 */
};

NODISCARD int sources_put(struct buf *b, const struct source_span *s);
/* Takes the next off rest; false at the end, or where it cannot be read. */
bool sources_next(struct slice *rest, struct source_span *ret);
bool sources_have(struct slice sources, uint64_t incarnation, uint8_t stream, uint64_t offset);

#endif
