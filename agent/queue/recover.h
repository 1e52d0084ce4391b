/*
 * recover.h - inside recovery: what its steps share.
 */
#ifndef TAILRACE_QUEUE_RECOVER_H
#define TAILRACE_QUEUE_RECOVER_H

#include "agent/queue/core.h"

enum verdict { FILE_GOOD, FILE_EMPTY, FILE_BAD };

struct found {
    uint64_t id, size;
    struct segment_head head; /* FILE_GOOD */
    enum verdict verdict;
    bool is_strange; /* FILE_BAD: whole, and another queue's */
};

struct recovery {
    struct queue *q;
    struct queue_recovery *rec;
    struct err *err;
    struct found *files;
    size_t n, cap;
    bool is_out_of_memory;
    struct cursor_slot cursor;
    bool has_cursor;
    uint64_t top_seq;
    struct totals queued, gaps; /* gaps: in segments' totals, but not to be had */
    struct tally parked;
};

/* recover_files.c */
/* The files and their headers, oldest first. Says what is wrong: -EPROTO, of a newer version; a passing error. */
NODISCARD int recover_list(struct recovery *rc);
/* Which queue it is, and q->segs: its files, and where each ends. -ENOMEM, a passing error. */
NODISCARD int recover_segments(struct recovery *rc);

/* recover_heads.c */
/* Damaged headers of files whose frames prove what stood there are written again. -ENOMEM, a passing error. */
NODISCARD int recover_heads(struct recovery *rc);

/* recover_missing.c */
/* Files that are not of q->segs go, and what they held that nobody else has is counted. -ENOMEM, a passing error. */
NODISCARD int recover_set_aside(struct recovery *rc);
/* What no file has between two segments. -ENOMEM, a passing error. */
NODISCARD int recover_gaps(struct recovery *rc);

/* recover_report.c */
/* Files, marks, ledger and rows of rc->rec. -ENOMEM. */
NODISCARD int recover_report(struct recovery *rc);
/* Our log hears how it went. */
void recover_say(const struct queue *q, const struct queue_recovery *rec);

#endif
