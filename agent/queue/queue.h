/*
 * queue.h - the durable, compressed queue of one output: frames with the source positions they cover.
 *
 * A group is safe once its last seq is at or below queue_durable_seq(): it is handed out again after any crash until
 * the cursor has passed it, and the positions it carries are never behind it. Format and rules: docs/FORMATS.md.
 *
 * Owns:    the directory state_dir/queue/<output>/ and everything in it.
 * Threads: the calls under "writer" from the writer thread, those under "sender" from the sender thread; they share
 *          the list of segments (a lock inside, never held across I/O) and atomics. open and close: while neither runs.
 * Units:   *_bytes sizes, *_off offsets, *_ns wall clock; seq counts frames from 1 and is never reused.
 * Errors:  negative errno; -ENOSPC full by max_bytes, min_free or the disk (queue_blocked_reason tells), nothing has
 *          moved, call again with the same arguments.
 */
#ifndef TAILRACE_QUEUE_QUEUE_H
#define TAILRACE_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/output_conf.h"
#include "agent/base/position.h"
#include "agent/base/sources.h"
#include "agent/base/stats.h"

struct queue;

enum frame_type { FRAME_DATA = 1, FRAME_SNAP, FRAME_POS, FRAME_SEAL, FRAME_LOST };
enum frame_flag { FRAME_FLAG_MORE = 1, FRAME_FLAG_DEAD = 2, FRAME_FLAG_GAP = 4, FRAME_FLAG_ALONE = 8 };

/* Lines of one (input, tenant) in a frame, by name: ids do not survive a restart. */
struct frame_row {
    struct slice input, tenant;
    uint32_t lines;
};

/* Cumulative input ledger as of a group's positions; see stats.h. */
struct ledger_row {
    struct slice input, tenant;
    uint64_t read_lines, read_bytes, kept_lines, filtered[FILTER_REASONS];
};

struct lost_range {
    uint64_t incarnation, start, end;
    enum lost_reason reason;
    struct slice tenant; /* whose lost_bytes these are; not in the frame's meta */
};

/* A dead letter, by the file of dead/ and the number in it. file 0: none. */
struct letter_id {
    uint64_t file, seq;
};

struct frame_in {
    struct slice route;
    struct slice wire;      /* the body's final bytes */
    uint32_t raw_len, lines;
    bool is_alone;          /* body.is_alone */
    const struct frame_row *rows;
    size_t n_rows;
    struct slice runs;      /* struct body.runs; empty with one row */
    struct slice sources;   /* agent/base/sources.h; empty: not known */
    bool is_gap;            /* of a range that is read again */
    int64_t built_ns;       /* wall clock */
    struct letter_id letter; /* it was a dead letter: sent again */
};

/* What the last frame of a group carries. */
struct group_end {
    const struct file_ident *files;         /* new or changed since the last group */
    size_t n_files;
    const struct file_position *positions;  /* every file that progressed, kept lines or none */
    size_t n_positions;
    const uint64_t *gone;                   /* incarnations that will never be read again */
    size_t n_gone;
    const struct lost_range *lost;
    size_t n_lost;
    const struct ledger_row *ledger;        /* rows that changed */
    size_t n_ledger;
    struct letter_id reread;                /* file 0: none; what is in this group was read for this struct reread */
};

/* Ranges of files whose lines damage took, to be read again. */
struct reread_range {
    struct file_position from, to; /* start and end of from: where the range begins; of to: its beginning and end */
    bool knows_to;                 /* else only its end is known, not what was unfinished there */
};
struct reread {
    struct letter_id id;
    struct reread_range *ranges;
    size_t n_ranges;
    struct slice held; /* what other frames of these groups hold: reread_is_held() */
    bool is_handed;
};

struct recovered_file {
    struct file_ident ident;
    struct file_position position; /* start == end */
};

/* A place where an output stood before, between records: of [0, end) the CRC is known. */
struct recovered_mark {
    uint64_t incarnation, end;
    uint32_t head_crc;
};

struct recovered_row {           /* the output's ledger, by tenant */
    struct slice tenant;
    uint64_t accepted, queued, parked, dead, lost[LOST_REASONS], lost_bytes[LOST_REASONS];
};

/* What open found. Borrowed from the queue until queue_recovered_free. */
struct queue_recovery {
    bool is_new;
    uint64_t next_seq, acked_seq;
    int64_t newest_ns;           /* when the newest of the last frames was built; 0 = there are none */
    uint64_t queued_frames, queued_lines, bytes;
    uint64_t torn_bytes;         /* cut from the tail: a normal day */
    uint64_t damaged_bytes, damaged_frames; /* quarantined */
    const struct recovered_file *files;
    size_t n_files;
    const struct recovered_mark *marks; /* of the newest segments, in the order of writing; all of durable groups */
    size_t n_marks;
    const struct ledger_row *ledger;
    size_t n_ledger;
    const struct recovered_row *rows;
    size_t n_rows;
};

struct queue_open_conf {
    const struct output_conf *output;
    uint32_t wire_form;
    bool allow_network_fs;
    uint64_t min_free_bytes;     /* limits.min_free */
    unsigned min_free_percent;   /* counts when > 0 */
};

/* Creates, or recovers (queue.md §5) and starts a new segment. -EBUSY: another agent has it. -EPROTO: made by a newer
 * version, or another wire form over frames that are not delivered; data kept. No byte string in the directory makes
 * it fail otherwise. */
NODISCARD int queue_open(const struct queue_open_conf *conf, struct queue **ret_queue, struct queue_recovery *ret_rec,
                         struct err *err);
void queue_recovered_free(struct queue *q);
/* Seals and syncs what is written, writes the cursor. NULL is fine. */
void queue_close(struct queue *q);

/* ---- any thread ---- */
/* Is the record that begins there, of this route, in a frame that is not lost? */
bool reread_is_held(const struct reread *rr, struct slice route, uint64_t incarnation, uint8_t stream, uint64_t offset);
uint64_t queue_durable_seq(const struct queue *q);
uint64_t queue_acked_seq(const struct queue *q); /* the cursor, in memory */
uint64_t queue_bytes(const struct queue *q);     /* segments and parked frames */
/* Is reading for this output stopped, and why. */
bool queue_is_blocked(const struct queue *q, enum blocked_reason *ret_reason);

/* ---- writer ---- */
/* One frame. end == NULL: more frames of this group follow (MORE). With end: closes the group; frame may be NULL (a
 * POS frame). All of a group go to one segment: a new one is begun (rolled) at a group's first frame when needed.
 * A failed or short write leaves the end where it was. *ret_seq: the frame's seq.
 * -ESTALE: the segment before could not be synced when a new one was to begin; everything is as after a failed
 * queue_sync(), and nothing of this group is in the queue. -ECANCELED: the same for this group alone: the disk is full, it
 * was given up to get room back; what came before it is durable. */
NODISCARD int queue_append(struct queue *q, const struct frame_in *frame, const struct group_end *end,
                           uint64_t *ret_seq);
/* True when a group is open (MORE was written last). */
bool queue_in_group(const struct queue *q);
/* Gives up the open group: its frames are void, the end goes back to the group's start. */
void queue_abandon_group(struct queue *q);
bool queue_is_dirty(const struct queue *q); /* something is written and not synced */
/* 0 and durable_seq is published, or the error: then nothing beyond durable_seq counts, a new segment with a fence
 * has been begun (or will be at the next append), and queue_fenced() tells where the sources stand. */
NODISCARD int queue_sync(struct queue *q);
/* After a failed sync: the positions at durable_seq of every live file, and the ledger rows there. Valid until the next
 * append. -ENOMEM. */
NODISCARD int queue_fenced(struct queue *q, const struct recovered_file **ret_files, size_t *ret_n);
NODISCARD int queue_fenced_ledger(struct queue *q, const struct ledger_row **ret_rows, size_t *ret_n);
/* The same for lines: what had been accepted and is void since the last failed sync or abandoned group, by (input,
 * tenant). Valid until the next append. */
void queue_voided(const struct queue *q, const struct frame_row **ret_rows, size_t *ret_n);

/* The next that was not handed out since open, or since a sync failed; NULL: none. It is done, and gone, when a group that
 * carries its id is durable. */
const struct reread *queue_reread_next(struct queue *q);

/* Housekeeping at the sender's word, all durable when they return. */
NODISCARD int queue_cursor_sync(struct queue *q);   /* with what queue_ack moved since */
NODISCARD int queue_unlink_acked(struct queue *q);  /* whole segments below the synced cursor, oldest first */

/* Dead letters and parked frames: the same format, ORIG in the meta; synced on return. */
struct frame_orig {
    uint64_t seq;
    uint32_t item;          /* UINT32_MAX: a whole frame */
    int32_t status;         /* HTTP status, 0 = none */
    struct slice reason, text;
};
/* Bounded by dead_max_bytes: the oldest files go. Their lines move from dead to lost{dead_full}, in recovered_row and in
 * stats (output_row.dead_lines falls by them, so the metric that must not fall is dead_lines + lost{dead_full}). A letter
 * that was written for this (seq, item) before a crash is not written again: 0 all the same. */
NODISCARD int queue_dead_append(struct queue *q, const struct frame_in *frame, const struct frame_orig *orig);
/* One file per parked frame. *ret_id names it. -EXFULL when max_bytes or the key's share would be
 * passed; -ENOSPC: the disk is full. */
NODISCARD int queue_park(struct queue *q, const struct frame_in *frame, const struct frame_orig *orig, uint64_t *ret_id);
NODISCARD int queue_unpark(struct queue *q, uint64_t id); /* delivered */
/* Gives up a parked frame: its lines are counted lost for this reason, here and in the ledger. While that cannot be written,
 * or files of others not be removed, only so many: then the disk's error or -EBUSY, and it stays parked. */
NODISCARD int queue_park_drop(struct queue *q, uint64_t id, enum lost_reason reason);

/* ---- sender ---- */
struct frame_head {
    uint64_t seq;
    uint64_t segment_id, off; /* where the frame header stands; for parked frames segment_id = the parked id */
    uint32_t meta_len, body_len, raw_len, lines;
    int64_t built_ns;
    uint8_t type, flags;
    bool is_parked;
};

/* The next DATA frame that is durable and above the cursor, in order: 1, 0 when there is none yet (or when it lies more
 * than 2048 frames beyond the cursor), or an error of the disk. Others pass by and are acknowledged by themselves. Damage is
 * set aside, counted lost{damage}, and passed over; the cursor follows at the next queue_cursor_sync(). */
NODISCARD int queue_next(struct queue *q, struct frame_head *ret_head);
/* Goes back to the first frame that is not acknowledged. */
void queue_rewind(struct queue *q);
/* Its meta and body, CRCs checked. -EBADMSG: damaged (then it is counted, quarantined, and acknowledged). */
NODISCARD int queue_load(struct queue *q, const struct frame_head *head, struct buf *meta, struct buf *body);
/* In any order; the cursor moves over the contiguous prefix. False: it was acknowledged before, by hand or because the
 * frame was dropped meanwhile; then its lines are not to be counted. */
bool queue_ack(struct queue *q, uint64_t seq);
/* Writes the cursor in place when it moved, not synced: a kill of the process now sends nothing twice. Once for all
 * acknowledgements of a turn, before more is sent. */
void queue_cursor_write(struct queue *q);
bool queue_has_cursor_news(const struct queue *q); /* written and not synced, or segments to unlink */
/* Parked frames as found at open and added since, oldest first: 1, 0 = end. *iter starts at 0. One whose load says
 * -EBADMSG is for the caller to give up: queue_park_drop(id, LOST_DAMAGE). */
NODISCARD int queue_parked_next(struct queue *q, uint64_t *iter, struct frame_head *ret_head);

/* What a frame's meta says; slices point into meta. rows is the caller's array of rows_max. -EBADMSG, -EPROTO (a newer
 * version's); -ENOBUFS: there are more rows than that, ret->n_rows of them, the rest of *ret is filled. */
struct frame_meta {
    struct slice route, runs;
    struct frame_orig orig;   /* seq 0: none */
    size_t n_rows;
};
NODISCARD int frame_meta_parse(struct slice meta, struct frame_row *rows, size_t rows_max, struct frame_meta *ret);

#endif
