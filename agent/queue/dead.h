/*
 * dead.h - inside dead/: what those who write it and those who read it share.
 */
#ifndef TAILRACE_QUEUE_DEAD_H
#define TAILRACE_QUEUE_DEAD_H

#include "agent/queue/core.h"

/* LOSS: reason (4), zero (4), lines, bytes (8 each), tenant. */
#define LOSS_BYTES 24

/* Letters of one file that nobody has decided about. */
struct open_letters {
    struct marks marks;
    struct totals rows;
    uint64_t file, seq; /* seq: the next that is due */
    size_t n;
    bool has_holes;
};

/* dead.c */
name_of_id dead_file_name;
void dead_publish_bytes(struct queue *q);
NODISCARD int dead_files_add(struct dead_log *d, uint64_t id, uint64_t bytes); /* -ENOMEM */
/* To the tally: lines that were dead letters, or damage, move. -ENOMEM. */
NODISCARD int dead_add_loss(struct dead_log *d, struct slice tenant, uint32_t reason, uint64_t lines, uint64_t bytes);

/* dead_read.c */
/* What is open of a file; open_letters_deinit() whatever it returns. A passing error (fs.h); another: it cannot be read. */
NODISCARD int dead_look_at(struct queue *q, uint64_t file, struct open_letters *ret);
void open_letters_deinit(struct open_letters *o);

#endif
