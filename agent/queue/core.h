/*
 * core.h - inside the queue: the struct, and what its files call of each other. Nothing outside agent/queue and its
 * tests includes this.
 *
 * What belongs to whom: fields under "writer" to the writer thread, under "sender" to the sender thread; those under
 * "lock" to whoever holds it, never across I/O. cursor_lock alone is held across one pwrite of 512 bytes, so that slots
 * are written in the order of their generations; it is taken before lock.
 */
#ifndef TAILRACE_QUEUE_CORE_H
#define TAILRACE_QUEUE_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "agent/queue/frame.h"
#include "agent/queue/fs.h"
#include "agent/queue/marks.h"
#include "agent/queue/positions.h"
#include "agent/queue/queue.h"
#include "agent/queue/rereads.h"
#include "agent/queue/totals.h"

/* Frames after the cursor that may be handed out and acknowledged out of order. The bits fit a cursor slot. */
#define QUEUE_WINDOW 2048
#define SEGMENT_BYTES_MIN (4 * MIB)
#define SEGMENT_BYTES_MAX (64 * MIB)
#define GROUP_BYTES_MAX (8 * MIB)
/* Memory of a meta that many positions made large is given back above this. */
#define META_BYTES_KEEP (32 * KIB)
/* Ranges of seqs whose loss is counted, remembered until the cursor has passed them. More: the oldest is forgotten. */
#define SPANS_MAX 256
/* Copies of damaged bytes made by one process; beyond this damage is counted and not kept. */
#define QUARANTINE_BYTES_MAX (256 * MIB)

/* No more of a file is looked at: a segment's soft size and a group of the largest frames are below it. */
#define SEGMENT_READ_MAX (256 * MIB)
/* The newest segments say whose the queue is when the cursor does not. */
#define UUID_VOTERS 1024

/* Zero: the production value. Set by tests before queue_open. */
struct queue_tuning {
    uint64_t segment_bytes, dead_file_bytes;
};
extern struct queue_tuning queue_tuning;

struct segment {
    uint64_t id, first_seq, fence;
    uint64_t last_seq;      /* of the last closed group, not above a later fence; first_seq - 1: none */
    uint64_t last_data_seq; /* 0: none; UINT64_MAX: not known */
    uint64_t bytes;
    uint32_t salt, wire_form;
};

struct span {
    uint64_t first, last;
    bool is_logged; /* of losses: it stands in dead/ with the lines */
};

struct spans {
    struct span list[SPANS_MAX];
    size_t n;
};

/* A frame that was handed out: where it stands, so that going back costs nothing. */
struct handed {
    uint64_t seq, segment_id, off;
};

/* A frame header that is known without reading it: it was just written, or came along with the frame before it. */
#define KNOWN_HEADERS 64
struct known {
    uint64_t segment_id, off;
    struct frame_hdr hdr;
};

struct parked {
    uint64_t id, bytes;
    uint32_t route; /* index in park.routes */
    struct frame_head head;
};

/* Of a segment: lines that it lacks and whose loss is counted, in the log of dead/ and not yet in it. */
struct missed {
    uint64_t segment_id;
    struct totals logged, news;
};

/* Parked frames that were given up and whose files are not known to be gone. is_logged: the log of dead/ has their lines. There
 * are many only while dead/ cannot be written, or parked/; no more than these are given up then. */
#define GIVEN_MAX 16
struct given {
    struct given_frame {
        uint64_t id, seq;
        bool is_logged;
    } list[GIVEN_MAX];
    size_t n;
};

struct parked_route {
    struct slice key; /* owned */
    uint64_t bytes;
};

struct dead_file {
    uint64_t id, bytes;
    uint64_t fence; /* frames beyond are void: the sync that was to make them durable failed; SEQ_MAX: none are */
};

struct seen {
    uint64_t seq;
    uint32_t item;
};

/* dead/: dead letters, and the ledger of what is dead or lost. Writer. */
struct dead_log {
    int dir_fd, fd;
    uint64_t id, end, next_seq; /* of the file that is written; fd -1: none yet */
    uint64_t left_at;           /* the fence of the file that was left after a failed sync; 0: none was */
    uint64_t unborn_id;         /* a file with nothing in it but how it began, for the next to take its place; 0: none */
    uint32_t salt;
    struct dead_file *files;    /* by id, the oldest first */
    size_t n_files, cap_files;
    uint64_t bytes, dropped_id;
    struct tally tally;         /* durable in the log */
    struct seen *seen;          /* dead letters of frames that the cursor has not passed: not written twice */
    size_t n_seen, cap_seen;
    bool is_out_of_memory;      /* at open */
    struct totals unsettled;    /* at open: their lines, which count as queued and not as dead */
};

#define READER_FDS 4

struct queue {
    const struct fs_ops *fs;
    struct queue_conf conf;
    char *name;
    uint32_t output_index, wire_form;
    uint64_t min_free_bytes;
    unsigned min_free_percent;
    uint64_t segment_bytes, group_bytes;
    uint8_t uuid[UUID_BYTES];
    int dir_fd, lock_fd, parked_fd, quarantine_fd;

    _Atomic uint64_t durable_seq, acked_seq, bytes;
    _Atomic int blocked; /* enum blocked_reason + 1, 0 = not */

    /* ---- lock ---- */
    pthread_mutex_t lock;
    struct segment *segs; /* by id */
    size_t n_segs, cap_segs;
    uint64_t bits[QUEUE_WINDOW / 64]; /* bit seq % QUEUE_WINDOW: acknowledged, above the cursor */
    bool is_cursor_news;              /* moved or bits set since the last cursor_write */
    uint64_t generation, synced_generation; /* of the cursor file: written, known durable */
    uint64_t written_acked_seq, synced_acked_seq;
    struct span spans[SPANS_MAX];
    size_t n_spans;
    struct tally losses;              /* not in the log yet */
    bool has_losses;
    struct gaps gaps;                 /* where lost lines came from; not in the log yet */
    struct missed *missed;
    size_t n_missed, cap_missed;
    struct spans damaged;             /* to be acknowledged when their loss is in the log */
    struct known known[KNOWN_HEADERS]; /* by seq; seq 0: none */
    struct parked *parked;
    size_t n_parked, cap_parked;
    struct parked_route *routes;
    size_t n_routes, cap_routes;
    uint64_t next_parked_id, parked_bytes;

    /* ---- writer, and open ---- */
    struct given given;

    pthread_mutex_t cursor_lock;
    int cursor_fd;
    bool is_cursor_unsafe; /* a sync of it failed: write a slot again before the next */

    /* ---- writer ---- */
    int fd;                          /* the newest segment; -1: none could be made yet */
    uint64_t end, synced_end;        /* of the file */
    uint64_t void_from;              /* is_failed: where in it begins what counts no more */
    uint64_t group_end, group_seq;   /* of the last closed group */
    uint64_t group_data_seq;         /* the last DATA frame of it or before */
    uint64_t next_seq, top_seq;      /* top_seq: the highest ever written */
    int64_t newest_ns;               /* when the newest frame was built; kept over a clock that goes back */
    uint64_t synced_seq;             /* as durable_seq, but never ahead of a real sync */
    uint64_t last_id;
    uint64_t unborn_id;              /* of a segment that could not be made durable and has its name still; 0: none */
    uint32_t salt;
    bool in_group, must_roll, is_failed; /* is_failed: a sync failed, the segment is left as it is */
    uint64_t group_data, group_lines;    /* of the open group */
    int spare_fd;                        /* the next segment, made early */
    uint64_t spare_id;
    bool is_spare_tried;
    int room_fd;                         /* the room for the next segment's head, see segment_keep_room() */
    uint64_t room_bytes;                 /* of it; 0: none is kept */
    struct positions positions;
    struct totals totals;
    struct frame_row *voided;            /* what the last fence made void */
    size_t n_voided;
    struct ledger_row *fenced;           /* queue_fenced_ledger() */
    struct buf meta, snap;
    struct dead_log dead;
    struct rereads rereads;

    /* ---- sender ---- */
    uint64_t read_seq;               /* the next to be looked at */
    uint64_t read_segment, read_off; /* where it stands; segment 0: to be found */
    uint64_t riddled_id; /* a segment with more holes than are remembered: all that it lacks is counted; 0: none */
    struct {
        uint64_t segment_id;
        int fd;
    } read_fds[READER_FDS];
    unsigned read_fd_next;
    struct handed handed[QUEUE_WINDOW];
    _Atomic uint64_t quarantined_bytes;

    /* ---- open ---- */
    struct buf replayed; /* LETTER items of the newest segments: what they hold as frames; before each of ranges that were
                          * read again the COUNT items of its group */
    bool is_opening; /* what is lost now is in the report, from which the caller fills the metrics */
    struct ledger_row *rec_ledger;
    struct recovered_row *rec_rows;
};

/* segment.c */
#define SEGMENT_NAME_BYTES 32
typedef void name_of_id(char out[SEGMENT_NAME_BYTES], uint64_t id); /* segment_name(), dead_file_name() */
name_of_id segment_name;
NODISCARD int queue_unlink_id(struct queue *q, int dir_fd, name_of_id *name_of, uint64_t id);
/* A file whose own first sync failed may be there when the power has come back, as the newest, whatever became of its name: so
 * that stays until another stands in its place, and a later start goes on from its number. id 0: the other is durable. */
void queue_replace_unborn(struct queue *q, int dir_fd, name_of_id *name_of, uint64_t *unborn_id, uint64_t id);
/* "%016x" + suffix: the id, or 0 for another name. */
uint64_t segment_name_parse(const char *name, const char *suffix);
/* A regular file by this name, whatever else may stand there: a descriptor; -ENOENT, -EBADMSG for what is none. */
NODISCARD int queue_open_file(const struct fs_ops *fs, int dir_fd, const char *name, int flags, struct stat *ret_st);
/* The header of the file of this id. -EBADMSG: it has none; -EPROTO: a newer version's; else passing (fs.h). */
NODISCARD int segment_head_read(int fd, uint64_t id, struct segment_head *ret);
NODISCARD int segment_begin(struct queue *q);    /* the next segment, durable; from here on it is written. Not in a group */
/* SEAL and sync; nothing may be unsealed after it. with_places: no other segment follows now. */
NODISCARD int segment_seal(struct queue *q, bool with_places);
/*
 * The newest segment is never removed, so on a full disk the next one could not be begun when all of the newest is
 * acknowledged, and the queue would be full of nothing for ever. So an empty file holds blocks (fallocate) for header and
 * SNAP from the start, grows with what a SNAP has to say, and takes the next segment's name when there is no other room.
 * -ENOSPC, -EDQUOT: it cannot be had; then no group may begin. A disk without fallocate keeps none: 0.
 */
NODISCARD int segment_keep_room(struct queue *q);
void segment_close_room(struct queue *q); /* it stays on the disk */
void segment_make_spare(struct queue *q);
void segment_drop_spare(struct queue *q);
NODISCARD int segment_list_add(struct queue *q, const struct segment *s); /* takes the lock */
/* Bytes of one frame, in one write. Returns its length in *ret_bytes. */
NODISCARD int frame_write(struct queue *q, int fd, uint64_t off, struct frame_hdr *h, struct slice meta,
                          struct slice body);
uint32_t random_u32(void);
void random_bytes(void *ptr, size_t len);

/* open.c */
/* What stands at this name of ours and is not of this type is renamed, and the log says so. */
NODISCARD int queue_make_way(struct queue *q, const char *name, mode_t type);

/* queue.c */
void queue_fence(struct queue *q);
void queue_publish(struct queue *q); /* everything of closed groups is durable */
void queue_set_blocked(struct queue *q, int err);
NODISCARD int queue_meta_frame(struct buf *meta, const struct frame_in *f, const struct frame_orig *orig);

/* cursor.c */
#define CURSOR_SLOT_BYTES 512
#define CURSOR_SLOT_OFF 4096 /* of the second */
struct cursor_slot {
    uint64_t generation, acked_seq;
    uint8_t uuid[UUID_BYTES];
    uint64_t bits[QUEUE_WINDOW / 64]; /* bit i: acked_seq + 1 + i */
};
void cursor_encode(const struct cursor_slot *c, uint8_t out[CURSOR_SLOT_BYTES]);
NODISCARD int cursor_decode(const uint8_t in[CURSOR_SLOT_BYTES], struct cursor_slot *ret);
/* The highest seq that is done, by the bits too: all up to it were durable. */
uint64_t cursor_top(const struct cursor_slot *c);
/* The newer valid slot: 1; 0: there is none. Else passing (fs.h). */
NODISCARD int cursor_read(int fd, struct cursor_slot *ret);
NODISCARD int cursor_create(struct queue *q);
NODISCARD int cursor_write(struct queue *q); /* both threads */

/* ack.c: all take the lock themselves but those named _locked. */
bool ack_is_done_locked(const struct queue *q, uint64_t seq);
bool ack_is_done(struct queue *q, uint64_t seq);
/* True when it was not acknowledged before. The cursor moves over what is contiguous. */
bool ack_mark_locked(struct queue *q, uint64_t seq);
/* A range of any length: false when it lies beyond the window; to be tried again when the cursor has come closer. */
bool ack_span_locked(struct queue *q, struct span s);
/* Frames whose loss is counted. */
void ack_damaged_locked(struct queue *q);
/* The segment that holds seq, or the next one after it; NULL: none yet. */
struct segment *segment_of_locked(const struct queue *q, uint64_t seq);

/* loss.c */
/* One after the other. False: there is no room, it is left out. */
bool spans_put(struct spans *s, uint64_t first, uint64_t last);
bool spans_have_locked(const struct queue *q, uint64_t first, uint64_t last);
/* All of them are counted as lost, or acknowledged; some of them are. */
bool are_settled_locked(const struct queue *q, uint64_t first, uint64_t last);
bool any_is_settled_locked(const struct queue *q, uint64_t first, uint64_t last);
void spans_add_locked(struct queue *q, uint64_t first, uint64_t last);
void spans_set_logged_locked(struct queue *q, uint64_t first, uint64_t last);
/* Frames whose loss is counted: the cursor passes them when it is in the log as well. */
void damaged_add_locked(struct queue *q, uint64_t first, uint64_t last);
struct loss {
    enum lost_reason reason;
    const struct totals *rows;
    uint64_t bytes;
    bool was_parked;            /* else the lines were queued */
    const struct gaps *gaps;    /* where they came from; NULL: not known */
    const struct spans *frames; /* whose lines they are: the cursor may pass them; NULL: none */
    const struct spans *holes;  /* whose lines they are as well: the sender comes to them and finds them counted; NULL: none */
    const struct totals *missed; /* of the rows, those by what the segment lacks; NULL: none */
    uint64_t segment_id;        /* with missed */
};
/* Counts lines as lost: metrics, the log of the ledger at the next loss_flush, our log. The flush, in the writer, sees all of it
 * or nothing. When another has counted the first of the frames meanwhile nothing is counted. -ENOMEM: nothing has happened. */
NODISCARD int loss_count(struct queue *q, const struct loss *loss);
/* Bytes that were given up before they were lines; whoever did it has counted and said so. */
void loss_note_bytes(struct queue *q, const struct lost_range *lost);
void loss_say(struct queue *q, enum lost_reason reason, uint64_t lines, uint64_t bytes);
NODISCARD int loss_flush(struct queue *q); /* writer */
void quarantine_copy(struct queue *q, int fd, uint64_t segment_id, uint64_t off, uint64_t len);
/* What stands at this name goes to quarantine/ under a name of its own, and the log says so. */
void quarantine_rename(struct queue *q, int dir_fd, const char *name);

/* stock.c */
/* Lines of the DATA frames with first <= seq <= last that are not acknowledged, by header and meta. *ret_has_holes: there
 * are frames in the segment that cannot be read; NULL is fine. */
NODISCARD int loss_rows(struct queue *q, int fd, const struct segment *seg, uint64_t first, uint64_t last,
                        struct totals *rows, uint64_t *ret_frames, bool *ret_has_holes);
/* COUNT adds: the rows of a frame's meta. */
NODISCARD int totals_add_meta(struct totals *rows, struct slice meta);
/* COUNT sets: what a SNAP or SEAL says. */
NODISCARD int totals_from_meta(struct totals *ret, struct slice meta);
/* Totals at a segment's beginning (SNAP). -EBADMSG: not to be had. */
NODISCARD int segment_totals_begin(struct queue *q, const struct segment *seg, struct totals *ret);
/* Totals at its end: its SEAL's, else what is at its beginning and in its good frames. */
NODISCARD int segment_totals_end(struct queue *q, const struct segment *seg, struct totals *ret);
/* The highest seq of a good frame; 0: none. */
NODISCARD int segment_last_seq(struct queue *q, const struct segment *seg, uint64_t *ret_seq);
/* All that a segment should hold and does not, by header and meta: rows without what was counted of it before, and the frames
 * that held them, these too. */
NODISCARD int segment_missing(struct queue *q, const struct segment *seg, struct totals *rows, struct spans *ret_holes);
/* The segment before (by -1) or after (by +1) this one; false when there is none or frames are missing between. */
bool segment_neighbour(struct queue *q, const struct segment *seg, int by, struct segment *ret);
NODISCARD int segment_open(struct queue *q, uint64_t id, int *ret_fd, uint64_t *ret_size);

/* missed.c */
/* Frames between these two are in no file any more: what they held is the difference of the counts on both sides. Others as
 * segment_totals_begin(). */
NODISCARD int between_rows(struct queue *q, const struct segment *before, const struct segment *after, struct totals *rows);
/* They are lost, and to be read again from their sources. frames: as in struct loss. */
NODISCARD int between_count(struct queue *q, const struct segment *before, const struct segment *after,
                            const struct totals *rows, const struct spans *frames);
/* -ENOMEM: nothing has happened. */
NODISCARD int missed_add_locked(struct queue *q, uint64_t segment_id, const struct totals *rows);
/* rows -= what is counted of the segment. */
void missed_subtract(struct queue *q, uint64_t segment_id, struct totals *rows);
bool missed_any(struct queue *q, uint64_t segment_id);
/* MISSED items: of what is in the log, or of what is not. */
NODISCARD int missed_put_locked(struct queue *q, bool is_logged, struct buf *meta);
/* Those of a meta are in the log. -ENOMEM, but not with news. */
NODISCARD int missed_take_locked(struct queue *q, struct slice meta, bool were_news);
void missed_clear(struct queue *q);

/* dead_read.c */
NODISCARD int dead_open(struct queue *q);

/* dead.c */
void dead_close(struct queue *q);
struct losses {
    const struct tally *tally;
    const struct span *spans;
    size_t n_spans;
    const struct gaps *gaps; /* they are q->rereads from here on */
    struct slice missed;     /* MISSED items */
};
NODISCARD int dead_put_losses(struct queue *q, const struct losses *l);
/* found: lines by tenant that are lost no more; NULL: none. */
NODISCARD int dead_put_marks(struct queue *q, const struct marks *m, const struct totals *found);
/* What was read again and is durable is marked so; what fails is tried again at the next sync. */
void dead_settle_rereads(struct queue *q);
/* Files that hold no open letter any more, from the oldest on. */
void dead_drop_settled(struct queue *q);

/* letters.c */
NODISCARD int letters_finish(struct queue *q);

/* reader.c */
void reader_close(struct queue *q);
/* A frame that was handed out and will not be sent: copied to quarantine/, counted lost{dropped}; the next
 * queue_cursor_sync() passes it. */
NODISCARD int reader_give_up(struct queue *q, const struct frame_head *head);
void known_add(struct queue *q, uint64_t segment_id, uint64_t off, const struct frame_hdr *h);
NODISCARD int frame_load(int fd, const struct frame_head *head, struct buf *meta, struct buf *body); /* -EBADMSG, passing */

/* parked.c */
NODISCARD int parked_load(struct queue *q, const struct frame_head *head, struct buf *meta, struct buf *body);
NODISCARD int parked_open(struct queue *q, struct tally *ret_lines);
void parked_close(struct queue *q);
void parked_file_name(char out[SEGMENT_NAME_BYTES], uint64_t id);

/* given.c */
bool given_add(struct given *g, uint64_t id, uint64_t seq); /* false: there are too many */
bool given_has(const struct given *g, uint64_t id);
/* The number was given to another frame since: it is not given up. */
bool given_is_another(struct given *g, uint64_t id, uint64_t seq);
/* GIVEN items: of what is in the log, or of all. */
NODISCARD int given_put(const struct given *g, bool with_news, struct buf *meta);
void given_set_logged(struct given *g);
/* Those of a meta are in the log. */
void given_take(struct given *g, struct slice meta);
/* Removes the files of what is in the log. What fails is tried again at the next sync or open. */
void given_remove(struct queue *q);

/* recover.c */
NODISCARD int recover(struct queue *q, struct queue_recovery *rec, struct err *err);

#endif
