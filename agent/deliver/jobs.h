/*
 * jobs.h - durable work that the sender asks of the writer thread, and what happens when it is done.
 *
 * Dead letters and unlinks that fail for the disk's sake are tried again each job_retry_ns with the same content: what
 * they carry is not acknowledged before. A frame that could not be parked goes back to its lane; a cursor is asked for
 * again in a second.
 *
 * Threads: run on the writer's, the rest on the sender's. A job belongs to one of them at a time.
 */
#ifndef TAILRACE_DELIVER_JOBS_H
#define TAILRACE_DELIVER_JOBS_H

#include "agent/deliver/deliver.h"
#include "agent/writer.h"

enum job_kind { JOB_CURSOR, JOB_PARK, JOB_UNPARK, JOB_DROP, JOB_DEAD, JOB_CHECKPOINT };

/* One frame to be written to parked/ or dead/. */
struct job_entry {
    struct frame_in in;
    struct frame_orig orig;
    struct buf wire, runs;
    struct frame_row *rows;
    uint32_t *row_lines;       /* of each of the frame's own rows; as many as it has */
    char reason[64], text[360];
};

struct job {
    struct writer_job wj; /* first */
    enum job_kind kind;
    struct sender *s;
    struct delivery *d;
    struct job *next;          /* failed ones */
    int64_t not_before_ns;
    struct lane *lane;         /* PARK; UNPARK, DROP: NULL when nobody waits for it */
    struct frame *frame;       /* DEAD: held open */
    struct part *part;         /* PARK */
    struct buf meta;           /* of the frame: entries point into it */
    struct job_entry *entries;
    size_t n, n_done;          /* n_done are written */
    uint64_t parked_id;        /* PARK: result. UNPARK, DROP: which */
    enum lost_reason reason;   /* DROP */
    bool is_undropped;         /* DROP: counted as one that could not be done yet */
    uint64_t seq;              /* CHECKPOINT */
    bool has_shrunk;           /* the queue takes less room than before */
    struct err err;
};

struct job *job_new(struct delivery *d, enum job_kind kind); /* NULL = out of memory */
void job_post(struct job *j);
void job_free(struct job *j);
/* The writer is through with it: carries on, or keeps it for another try. */
void job_finish(struct job *j, int64_t now);
/* Posts failed jobs whose time has come; returns the time of the next, INT64_MAX = none. */
int64_t jobs_retry(struct sender *s, int64_t now);

/* Which lines of a loaded frame an entry is made of. items NULL: all of them, in the bytes of ld. */
struct entry_lines {
    const struct items *items;
    const uint8_t *row_of; /* of each item */
    const uint32_t *idx;   /* ascending */
    uint32_t n;
};
/* Fills e: bytes, rows, runs. The job's meta is that of ld (job_take_meta was called). 0 or -errno. */
NODISCARD int job_entry_fill(struct job *j, struct job_entry *e, struct frame *f, struct loaded *ld,
                             const struct entry_lines *lines);
NODISCARD int job_copy_meta(struct job *j, const struct loaded *ld);
/* Room for n entries. */
NODISCARD int job_reserve(struct job *j, size_t n);

/* Where jobs go; tests without a writer put their own here before sender_start. */
extern void (*jobs_post)(struct writer *w, struct writer_job *job);

/* What the sender does when they are done: local.c, park.c, dead.c. */
void local_checkpoint_done(struct delivery *d, struct job *j, int64_t now);
void park_done(struct job *j, int64_t now);
void dead_done(struct job *j);

#endif
