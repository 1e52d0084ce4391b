/*
 * reread.h - ranges of files whose lines damage took out of a queue are read again, for that output alone.
 *
 * One struct reread of the queue is one commit group of its own (flag GAP, no positions). While it is read, a chunk a turn,
 * the output takes no other lines: its files wait as if the queue were full. Of its lines those are left out that other
 * frames of the same groups hold. What is gone from the files stays lost.
 * Threads: reader.
 */
#ifndef TAILRACE_AGENT_REREAD_H
#define TAILRACE_AGENT_REREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/feeder.h"
#include "agent/tail/tail.h"

struct rereader;

/* One output's. NULL when out of memory. */
struct rereader *rereader_new(struct feeder *f, struct tail *t, const struct tail_sink *sink);
void rereader_free(struct rereader *r); /* NULL is fine */
/* A copy of what the queue has handed out; any thread. -ENOMEM. */
NODISCARD int reread_copy(const struct reread *rr, struct reread **ret);
void rereader_add(struct rereader *r, struct reread *rr); /* takes it over */
/* A sync failed: all that is not done comes again. */
void rereader_drop(struct rereader *r);
/* One chunk. True when there is more to do at once. */
bool rereader_turn(struct rereader *r, int64_t mono_ns);
/* When it wants a turn; INT64_MAX: not before the output takes lines, or there is nothing. */
int64_t rereader_due_at(const struct rereader *r);

/* From lines that are being placed: the output takes no more, the record at pos_end is the first it did not take, and parts
 * are unfinished records before it. As tail_block() does for passes of the tail. */
void reread_stop(struct tail_pass *pass, uint64_t pos_end, const struct position_part *parts, uint8_t n_parts);

#endif
