/*
 * internal.h - what the files of agent/tail/ share. Nobody else includes it.
 *
 * A file's way:
 *
 *   recovered ──▶ MISSING ──found──▶ LIVE ◀── new name
 *                    │                │  │
 *                 given up   renamed, │  │ truncated
 *                    │        deleted ▼  ▼
 *                    │          ROTATED  ORPHAN (its bytes are in a copy; once that is found: ROTATED)
 *                    ▼                │  │
 *                 stage GONE      read to the end, quiet for 5 s
 *
 *   Not read: WAITING (a copy in the making, looked at again soon), SKIPPED (binary, too old, not a file),
 *   UNREADABLE (opened again at each rescan).
 *
 * Stages of what the queues are told, each begun when the one before is durable for every output:
 *   READING ─all passes ended▶ FINISHED ─the file is off the disk▶ PASSED ─▶ GONE ─▶ freed
 */
#ifndef TAILRACE_TAIL_INTERNAL_H
#define TAILRACE_TAIL_INTERNAL_H

#include <limits.h>

#include "agent/tail/ident.h"
#include "agent/tail/pattern.h"
#include "agent/tail/table.h"
#include "agent/tail/tail.h"
#include "agent/tail/watch.h"

#define RESCAN_NS (10 * NS_PER_SEC)
#define POLL_NS (2 * NS_PER_SEC)  /* between rescans when directories have no watch */
#define GRACE_NS (5 * NS_PER_SEC) /* late writers of a renamed file */
#define COPY_WAIT_NS (10 * NS_PER_SEC) /* for a copy to be made, or to become a file of its own */
#define STALL_NS (2 * NS_PER_SEC) /* between two looks for files that are not read: two make a stall */
#define HELD_POLL_NS NS_PER_SEC /* unlinked files have no events */
#define REST_NS (5 * NS_PER_SEC) /* a file that was read whole for so long costs the sink no memory */
#define CROWD_FILES 1000       /* of more, those that a first turn reads whole rest at once */
#define RAW_IDLE_NS (2 * NS_PER_SEC)         /* after the last turn the read buffer's memory is given back */
#define LATELY_NS (60 * NS_PER_SEC) /* for so long a file that was read is asked for more without an event */
#define IDLE_CLOSE_NS (600 * NS_PER_SEC)
#define MISSING_NS (600 * NS_PER_SEC) /* recovered, not found: a mount may be late */
#define FD_RESERVE 40     /* of the limit: what there is once, and 16 connections to the admin endpoint */
#define FD_PER_OUTPUT 32  /* its queue's ten, its connections or files */
#define FD_SPARE 16       /* never for files */
#define FD_BUDGET_MAX 4096
#define DEPTH_MAX 40
#define LOOKS_MAX 4                     /* at names that change while they are looked at */
#define MOVING_NS NS_PER_SEC            /* so long is a file without a name looked for while names change */
#define MTIME_SLACK_NS (20 * NS_PER_MS) /* file times lag behind the clock by a tick */

enum phase {
    PHASE_MISSING,
    PHASE_WAITING,
    PHASE_SKIPPED,
    PHASE_UNREADABLE,
    PHASE_LIVE,
    PHASE_ROTATED,
    PHASE_ORPHAN
};
enum stage { STAGE_READING, STAGE_FINISHED, STAGE_PASSED, STAGE_GONE };

struct pass {
    struct tail_pass pub; /* first. Below resume_until, head_crc and tail_bytes are those at resume_until. */
    struct tail_file *file;
    struct pass *prev_parked, *next_parked; /* t->parked[output] */
    uint32_t parked_output;
    uint32_t want;     /* bytes of the next read, grows with a long line */
    uint32_t tail_crc; /* of a recovered place, until its bytes are seen */
    bool is_parked;
    bool is_hungry;   /* there may be bytes at off */
    bool is_ended;    /* has seen is_last */
    bool resume_skip; /* skip_to_newline at resume_until */
    bool head_unknown;
    bool wants_tail; /* tail_bytes are to be read from the file and checked with tail_crc */
};

/* What one output knows of a file. */
struct slot {
    struct pass *pass;
    uint64_t collected;     /* end of the last collected position */
    uint64_t first_off;     /* where it began */
    uint64_t durable;       /* an older end, that was durable when it was looked at last */
    uint64_t under_way;     /* one between the two, or collected, of under_way_group; 0 = none */
    uint32_t under_way_group, told_group; /* told_group: of collected, and of told_stage. 32 bits are a century */
    uint32_t ident_version; /* of the ident it was told last; 0 = none */
    uint32_t rank;          /* among the files that its queue recovered, in the order in which it heard of them; 0 = none */
    uint8_t told_stage;
    bool first_skip; /* first_off is inside a line */
    bool is_own;     /* where it began is what its queue recovered */
    bool is_dirty;
};

struct name {
    struct link link; /* t->names */
    const char *path; /* NULL = none; shared_drop() */
    uint32_t len;
    bool is_real; /* it is the file's `real`, not its `path` */
};

struct list {
    struct list *prev, *next;
};

struct tail_file {
    struct tail *t;
    struct list all;                                /* t->files */
    struct list ready, lru, ending, stages, waking; /* self-linked when out */
    struct link by_ino, by_incarnation, by_base;
    struct name path, real; /* real: behind symlinks; NULL when path is the real one */
    char *base;   /* the live name of its chain, when that is or may be another's now; in t->bases */
    char *origin; /* the name its lines are known by, when path is another (rotated) */

    enum phase phase;
    enum stage stage;
    struct file_ident ident;
    uint32_t ident_version;
    uint32_t input;
    struct pair *captures; /* one block */
    const char *reason; /* of SKIPPED, UNREADABLE */

    struct gz *gz;
    int fd;
    uint32_t n_captures;
    int8_t gauge_state;     /* as counted in stats: -1 = not */
    bool is_gauge_held : 1; /* gauge_unread counts there, too */
    bool is_gz : 1, gz_at_end : 1;
    bool is_tracked : 1;   /* queues know it: slots and passes count */
    bool is_deleted : 1;   /* no name any more */
    bool is_copied : 1;    /* it has a descriptor only, but its text also stands in the file that path and inode say */
    bool is_being_copied : 1; /* perhaps, and not read that far: its chain is looked through again when it changes */
    bool is_let_go : 1;    /* held.c closed it: what is missing is lost for that reason */
    bool is_cut : 1;       /* it is not what was read; its turn does what is to be done */
    bool is_by_number : 1; /* file_is_by_number() when it was opened last */
    bool is_blank : 1;     /* recovered, and no queue knows a byte of it: see file_renew() */
    bool is_sniffed : 1;   /* its first bytes were looked at */
    bool is_displaced : 1; /* it lost its name: where is it? */
    bool is_next_sought : 1; /* by its live name, for what is unfinished at its end */
    bool is_stalled : 1;   /* could not be opened or read */
    bool is_sink_held : 1; /* the sink cannot take its lines yet */
    bool is_warned : 1;
    bool is_stuck : 1;     /* stall_check() had to kick it, and it has not moved since */
    bool is_viewed : 1;    /* tail_again_open(): somebody has a pointer to it */
    uint32_t n_turns, stall_turns;
    int64_t stall_ns;  /* monotonic: news since then, at stall_off, after stall_turns; 0 = none */
    uint64_t stall_off;
    uint64_t size;    /* last known */
    uint64_t nul_end; /* NULs at the start were seen up to here */
    int64_t mtime_ns;
    int64_t born_ns;    /* monotonic, when it came to be known */
    int64_t born_mtime_ns; /* its mtime then; 0 = unknown */
    int64_t read_ns;    /* monotonic, last bytes */
    int64_t quiet_ns;   /* ROTATED: since then no news; WAITING, MISSING, ORPHAN: since it is that */
    int64_t wake_ns;    /* 0 = no */
    int64_t lost_ns;    /* ROTATED: when it lost its name; the oldest is let go first */
    int64_t left_ns;    /* monotonic, when it had its live name last; 0 = before our time */
    uint64_t start_off; /* SKIPPED for its age: where to begin when it wakes up */

    struct tail_file *after, *successor; /* after is read to its end first */
    void *sink_file;       /* NULL: not fed yet, or resting */
    uint64_t fed_to, fed_incarnation; /* as it began to rest */
    struct tail_pass *passes, *parked;

    uint64_t gauge_unread;
    struct slot slots[]; /* t->n_outputs */
};

struct vec {
    void *items;
    size_t n, cap;
};

struct output_side {
    struct vec dirty; /* struct tail_file * */
    struct vec gone;  /* uint64_t: incarnations without a file */
    struct pass *parked;
    uint64_t n_groups, n_durable;
};

/* The patterns of an input. */
struct input_side {
    struct pattern **include, **exclude;
    size_t n_include, n_exclude;
    bool is_first; /* no queue knows any file of it */
};

struct dir_state {
    uint16_t input, pattern, part;
};

struct dir {
    struct link by_path, by_wd;
    struct list all;
    char *path; /* without a slash at the end; "" is the root */
    size_t len;
    uint64_t dev, ino;
    int64_t mtime_ns, listed_ns;
    int wd; /* -1 = none */
    bool follows_files, needs_scan, is_gone;
    uint32_t refs; /* aliases that point into it */
    struct dir_state *states;
    size_t n_states;
};

/* A symlink that an include names, and the file it stands for now or stood for last. */
struct alias {
    struct link by_link, by_target;
    struct list all;
    char *link_path, *target;
    struct dir *dir; /* of the target; NULL = not watched */
};

struct pending {
    char *path;
    char *from; /* was renamed from this name, which an include covers */
};

struct tail {
    const struct conf *conf;
    struct tail_sink sink;
    uint32_t outputs;
    size_t n_outputs;
    uint64_t salt;
    int64_t now; /* monotonic, of the last call that said it */
    int64_t seen_ns; /* ident_seen_now() */

    struct input_side *inputs;
    char *state_dir; /* real path */
    uint64_t own_log_dev, own_log_ino;

    struct watch watch;
    struct table dirs_by_path, dirs_by_wd, aliases_by_link, aliases_by_target;
    struct list dirs, aliases;
    bool is_unwatched; /* some directory has no watch */
    size_t n_unscanned;
    bool wants_rescan;    /* events were dropped */
    uint32_t from_cookie; /* the last name that went away */
    char *from_path;

    struct table names, by_ino, by_incarnation, bases;
    struct table missing; /* by inode number, through by_ino: recovered files that were not found yet */
    struct list files, ready, lru, ending, stages, waking;
    size_t n_files, n_open, fd_budget;
    int fd_top, fd_limit; /* numbers of descriptors between the two are not for files */
    struct list asleep, asleep_open; /* struct sleeper; the second: those with a descriptor, longest asleep first */
    struct vec touched, pending; /* struct pending */
    struct vec stirred;          /* char *: live names of chains that are to be looked through */
    size_t n_displaced;          /* files that lost their name since the last settling */
    const struct queue_recovery *const *recovered; /* during the first scan */
    bool is_first_scan, is_scan_done;
    bool has_new_names;          /* since tail_takes_new_names(); or places of a new output */

    int64_t next_rescan_ns, next_ending_ns, next_wake_ns, next_stall_ns;

    char *raw;           /* TAIL_CRC_BYTES + LINE_BYTES_MAX + TURN_BYTES */
    int64_t raw_used_ns;    /* monotonic, the last turn; 0 = its pages are given back */
    struct pass *spares; /* for tail_block, which cannot fail */
    struct {
        struct pass *pass;
        const struct feed *feed;
        bool skip_before;
    } feeding;

    uint32_t blocked;
    struct output_side sides[OUTPUTS_MAX];
    struct vec ret_files, ret_positions, ret_gone;
};

#define RAW_BYTES (TAIL_CRC_BYTES + LINE_BYTES_MAX + TURN_BYTES)

/* ---- lists and vectors (file.c) ---- */
static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_is_in(const struct list *l)
{
    return l->next != l;
}
static inline void list_del(struct list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}
static inline void list_add_tail(struct list *head, struct list *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}
/* Room for one more item of this size at vec_at(v, v->n). */
NODISCARD int vec_reserve(struct vec *v, size_t item_size);
void vec_must_reserve(struct vec *v, size_t item_size); /* waits for memory (must.h) */
void vec_deinit(struct vec *v);
#define VEC(v, type) ((type *)(v)->items)

/* ---- file.c: files, their names, inodes, gauges ---- */
struct tail_file *file_new(struct tail *t, uint32_t input, const char *path);
struct tail_file *file_alloc(struct tail *t, uint32_t input); /* without a name yet */
void file_take_path(struct tail_file *f, const char *path);   /* the first one, shared (shared.h); f's from now on */
const char *file_give_path(struct tail_file *f);              /* the other way round */
void file_free(struct tail_file *f);
/* These wait for memory (must.h): a file under a wrong name would be read twice. real may equal path or be NULL. */
void file_set_path(struct tail_file *f, const char *path, const char *real);
void file_drop_names(struct tail_file *f);
/* Before a rename: remembers the name that the chain and the lines go by. */
void file_keep_base(struct tail_file *f);
void file_set_base(struct tail_file *f, const char *base, const char *origin);
void file_clear_base(struct tail_file *f);
/* The files that lost this live name; the one that has it is not among them. NULL: no name, no file. */
struct tail_file *chain_first(const struct tail *t, const char *base);
struct tail_file *chain_next(const struct tail_file *f);
static inline const char *file_origin(const struct tail_file *f)
{
    return f->origin != NULL ? f->origin : f->path.path;
}
static inline const char *file_real(const struct tail_file *f)
{
    return f->real.path != NULL ? f->real.path : f->path.path;
}
static inline const char *file_base(const struct tail_file *f)
{
    return f->base != NULL ? f->base : file_real(f);
}
uint64_t path_hash(const char *path, size_t len);
/* By what a directory and a name make together. */
struct tail_file *file_by_name(struct tail *t, struct slice dir, struct slice name);
struct tail_file *file_by_path(struct tail *t, const char *path);
/* The file that stands for this inode now; MISSING ones do not. */
struct tail_file *file_by_ino(struct tail *t, const struct stat *st);
void file_set_ino(struct tail_file *f, const struct file_ident *id); /* dev, ino, generation, btime */
struct tail_file *file_by_incarnation(struct tail *t, uint64_t incarnation);
void file_set_incarnation(struct tail_file *f, uint64_t incarnation);
/* Makes it known to the queues: one pass at off for all outputs, everything dirty. */
NODISCARD int file_track(struct tail_file *f, uint64_t off);
void file_set_phase(struct tail_file *f, enum phase phase);
void file_ready(struct tail_file *f); /* all passes hungry */
void file_account(struct tail_file *f);
static inline uint64_t file_held_bytes(const struct tail_file *f) /* as the gauges have it */
{
    return f->is_gauge_held ? f->gauge_unread : 0;
}
uint64_t file_least_off(const struct tail_file *f);
void file_changed_ident(struct tail_file *f);
void file_dirty(struct tail_file *f, uint32_t outputs);
void file_drop_dirty(struct tail_file *f); /* nothing is told of it: it is freed, or its slots are cleared */
bool file_is_read(const struct tail_file *f); /* nothing unread for anyone */
void file_skip(struct tail_file *f, enum phase phase, const char *event, const char *reason);

/* ---- fds.c: descriptors ---- */
/* Opens f->fd when it is not: 0, -EAGAIN when no descriptor can be spared now, -ENOENT when its bytes are
 * gone. */
NODISCARD int file_open(struct tail_file *f);
/* What has f's number and this id may be another file: neither a birth nor a byte of f can tell. */
bool file_is_by_number(const struct tail_file *f, const struct file_ident *id);
/* What is at path has f's number and id. When only the number says so, may it be f by its name? */
bool file_may_be_named(const struct tail_file *f, const struct file_ident *id, const char *path);
/* -ENOENT: no file, or another; -ESTALE: another, and it has f's number: f is gone. */
NODISCARD int file_open_at(struct tail_file *f, const char *path);
void file_close(struct tail_file *f);
void file_is_gone(struct tail_file *f); /* it has no name any more; without a descriptor its inode is another's soon */
/* Takes over fd, already checked. */
void file_take_fd(struct tail_file *f, int fd);
/* A descriptor to look into a file: >= 0 or negative errno; *st is filled; -EINVAL: not a regular file. */
NODISCARD int open_regular(struct tail *t, const char *path, struct stat *st);
NODISCARD int source_of(struct tail_file *f, struct source *ret);

/* ---- pass.c: places ---- */
#define BIT(o) (UINT32_C(1) << (o))
struct pass *pass_new(struct tail_file *f);
void pass_init(struct pass *p, struct tail_file *f);
void pass_free(struct pass *p); /* it is in no list of the file's any more */
void pass_drop(struct pass *p); /* it is */
void pass_unlink(struct tail_pass **list, struct tail_pass *p);
void pass_set(struct pass *p, const struct file_position *pos); /* a new one stands there */
/* What is unfinished at its place: STREAMS_MAX parts at most; returns their number. */
uint8_t pass_parts(const struct pass *p, struct position_part *parts);
const struct position_part *part_of_stream(const struct position_part *parts, uint8_t n, uint8_t stream); /* or NULL */
NODISCARD int passes_reserve(struct tail *t);
void passes_free_spares(struct tail *t);
static inline struct pass *pass_of(struct tail_pass *p)
{
    return (struct pass *)(void *)p;
}
static inline uint64_t pass_end(const struct tail_pass *p)
{
    return MAX(p->off, p->resume_until);
}
/* Outputs of slots without a pass join one at this place. */
NODISCARD int pass_place(struct tail_file *f, uint32_t output, const struct file_position *pos);
void passes_merge(struct tail_file *f);
void passes_drop(struct tail_file *f); /* all of them; slots point nowhere */
void slot_leave(struct tail_file *f, uint32_t output); /* whatever pass it is in */
/* The output goes there from whatever pass it is in; its queue has the place, but not that it is one of this file. */
void slot_place(struct tail_file *f, uint32_t output, const struct file_position *pos);
/* Outputs that were done with the file where it ended then, while it is longer by now, have something to read in it. For a file
 * that others read still. */
void passes_unend(struct tail_file *f);
void file_reopen(struct tail_file *f); /* an output has something to read in it after all */
/* Where it began. */
struct file_position first_position(const struct slot *s);
/* It stands at off, and the queue has that. */
void slot_settle(struct slot *s, uint64_t off);
void file_see(struct tail_file *f, uint64_t off, const char *ptr, size_t len);
void pass_consume(struct pass *p, const char *ptr, size_t len);

/* ---- block.c: outputs that take no more, and that a failed sync takes back ---- */
void pass_unpark(struct pass *p); /* out of the list of its output */

/* ---- told.c: what the queues are told ---- */
/* Up to here its queue has the file durably. */
uint64_t durable_off(const struct tail *t, uint32_t output, const struct slot *s);
void position_of(const struct tail_file *f, uint32_t output, struct file_position *ret);
bool file_is_untold(const struct tail_file *f); /* followed, and no queue has heard of it */
void stage_advance(struct tail_file *f);
void stage_check(struct tail_file *f);  /* passes ended, or the file is off the disk: go on */
void file_untrack(struct tail_file *f); /* it was no file for us after all: queues that know it are told */
void file_forget(struct tail_file *f);  /* MISSING for too long: PASSED, then GONE */

/* ---- read.c ---- */
/* Reads one pass. True: more is there. f may be gone afterwards when false. */
bool file_turn(struct tail_file *f);
void file_rest(struct tail_file *f); /* all is read for a while: the sink may forget it */
void file_check_end(struct tail_file *f); /* ROTATED: ends the passes when grace is over; may free f */
void file_wake(struct tail_file *f);
void file_give_up(struct tail_file *f, enum lost_reason reason); /* all that is unread is lost */
bool file_sniff(struct tail_file *f); /* false: it is not read (yet); f may be gone */
NODISCARD int file_ensure_sink(struct tail_file *f);

/* ---- inputs.c ---- */
NODISCARD int inputs_compile(const struct conf *conf, struct input_side **ret, struct err *err);
void inputs_free(struct input_side *inputs, size_t n);
int inputs_match(const struct conf *conf, const struct input_side *inputs, struct slice path,
                 struct pair *caps, size_t *n_caps);
bool inputs_exclude(const struct input_side *in, struct slice path); /* this input's excludes cover it */
/* The input that includes this path, or -1. caps may be NULL. */
int input_of_path(const struct tail *t, struct slice path, struct pair *caps, size_t *n_caps);
bool is_compressed_name(struct slice path);
bool path_is_own(const struct tail *t, const char *real);

/* ---- dirs.c ---- */
struct dir *dir_find(const struct tail *t, const char *path);
struct dir *dir_get(struct tail *t, const char *path); /* NULL: there is none, or no memory */
void dir_free(struct tail *t, struct dir *d);
void dir_watch(struct tail *t, struct dir *d);
bool dir_is_there(const struct dir *d, struct stat *st);
/* It is gone, cannot be looked at, or another has its name: so are those below. */
void dir_remove(struct tail *t, struct dir *d);
void dir_add_root(struct tail *t, uint16_t input, uint16_t pattern); /* where a pattern begins, as far as that exists */
/* A name in it: a folder to enter, a file that an include names, or neither. May free d. */
void dir_see_name(struct tail *t, struct dir *d, struct slice name);
void dir_scan(struct tail *t, struct dir *d); /* lists it; may free it */
/* This name could not be looked at: its directory is listed again at the next rescan, changed or not. */
void discover_again(struct tail *t, const char *path);
/* A stat, or an open, said that nothing is there; any other error says nothing. */
bool is_absent(int error);

/* ---- discover.c ---- */
NODISCARD int discover_init(struct tail *t, struct err *err);
void discover_deinit(struct tail *t);
void discover_event(struct tail *t, const struct watch_event *ev);
void discover_new(struct tail *t); /* lists directories that are new, and those in them */
void discover_rescan(struct tail *t, bool is_forced);
/* Paths whose state is to be looked at by names_settle. */
void name_touch(struct tail *t, const char *path, const char *from);
void alias_set(struct tail *t, const char *link_path,
               const char *target); /* a symlink: watch where it leads */

/* ---- begin.c: files that are begun ---- */
/* A file that is followed from now on. base, origin: of a rotated one; NULL = path. Takes fd. NULL: out of
 * memory. */
struct new_file {
    uint32_t input;
    const struct pair *caps;
    size_t n_caps;
    const char *path, *real, *base, *origin;
    int fd;
    const struct stat *st;
    enum phase phase;
    bool is_gz;
    int64_t first_seen_ns; /* 0 = now */
    int64_t left_ns;       /* as a file's; of a rotated one that was found late, that of the one before it */
};
struct tail_file *file_begin(struct tail *t, const struct new_file *nf);
/* A thing that an include names and that we cannot or must not read: known, so that it is said once. */
void file_begin_unread(struct tail *t, uint32_t input, const char *path, const struct stat *st, enum phase phase,
                       const char *event, const char *reason);
void file_start(struct tail_file *f, uint64_t off); /* looks at it; tracks it when it is to be read */
void file_retry(struct tail_file *f);               /* SKIPPED or UNREADABLE: try again; may free f */
int file_set_captures(struct tail_file *f, const struct pair *caps, size_t n);

/* ---- names.c: what a changed name means ---- */
void names_settle(struct tail *t);
void names_forget(struct tail *t); /* what was touched since */
void file_lose_names(struct tail_file *f); /* frees what is not tracked */
/* Found again under this name: LIVE when an input wants it there, else ROTATED. */
void file_found_at(struct tail_file *f, const char *path, const char *real);
void file_place(struct tail_file *f, const char *path,
                const char *real);                  /* the same, and the queues know it already */
bool file_is_still(struct tail_file *f, const char *path, const struct stat *st);
/* The file of this inode, which has this name; a number that was used again is nobody's. */
struct tail_file *file_holding(struct tail *t, const char *path, const struct stat *st);
void file_poll(struct tail_file *f);                /* no event came: has it changed? May free f */
void file_revive(struct tail_file *f);              /* finished, but it grew */
/* The newest of those that had this live name before and are still read: it is read to its end first. */
struct tail_file *predecessor(const struct tail *t, const char *base);
bool file_is_older(const struct tail_file *a, const struct tail_file *b); /* of two of a chain, or of two lives of one inode */
/* Had a the live name before b had it? The clock by which they were first seen may have been put back since. */
bool file_left_sooner(const struct tail_file *a, const struct tail_file *b);
void follow_after(struct tail_file *f, struct tail_file *before); /* NULLs are fine */
void follow_all(struct tail *t); /* each after the one of its chain before it, where that is not known yet */

/* ---- rotate.c, siblings.c: siblings and copies ---- */
/* Is name one that rotation makes of base: base.1, base-20260102, base.2026-01-02-03.gz, stem-DATE.ext …? */
bool sibling_name(struct slice base, struct slice name);
/* "app-1.log" of "app.log" is as likely the log of another program. */
bool sibling_is_doubtful(struct slice base, struct slice name);
/* What the names that rotation gave two of base's files say of their age: < 0: a is older, > 0: b, 0: nothing. */
int rotation_order(struct slice base, struct slice a, struct slice b);
/* The live name that a rotated one was made of; the path itself when it is none. ret: PATH_MAX bytes. */
void rotate_base(const char *path, char *ret);
/* The live names that path may have been made of, one at a call: "/v/app.log" for "/v/app.log.1.gz" and
 * "/v/app-20260102.log". *cut is 0 at first; ret as above. False: there are no more. */
bool rotate_next_base(const char *path, size_t *cut, char *ret);
struct slice path_dir(const char *path); /* without the slash */
struct slice path_name(const char *path);
/* f has no file: looks for its inode, then its content, among the siblings. 1: f->fd is open there; 0: it is not there; -EAGAIN:
 * the names change faster than one can look. */
int rotate_find(struct tail_file *f);
void rotate_truncated(struct tail_file *f);
bool is_copy_in_the_making(struct tail_file *f);
/* The live file whose rotated name this could be, or NULL. */
struct tail_file *live_of_sibling(struct tail *t, const char *path);

/* The regular files beside a live name that rotation may have made of it, oldest first. */
struct sibling {
    char name[NAME_MAX + 1];
    struct stat st;
    bool is_gz;
    bool is_doubtful;        /* by its name alone it is not one */
    struct tail_file *owner; /* both catchup.c's */
    bool is_passed_over;
};
struct siblings {
    struct slice base; /* the name, without folder */
    struct vec v;      /* struct sibling; the caller's to vec_deinit; each file once */
    bool is_moving;    /* names changed between the listing and the look at them: one of these, or one that is not here, is elsewhere */
};
/* has_folders: also those in folders beside the live name whose names have no dot (logrotate's olddir); the siblings'
 * names begin with the folder's. */
void siblings_list(const char *base, bool has_folders, struct siblings *s);
void sibling_path(const char *base, const struct sibling *sb, char ret[PATH_MAX]);
/* "x.gz" while "x" is there, too. */
bool sibling_is_in_the_making(const struct siblings *s, const struct sibling *sb);
/* "x" while there is an "x.gz" that has an owner: somebody wanted to look into that. */
bool sibling_is_unpacked(const struct siblings *s, const struct sibling *sb);
/* Nobody has read this inode, or nobody will: it is free to be taken over. */
bool release_inode(struct tail *t, const char *path, const struct stat *st);
struct text;
/* f's bytes are gone: it goes on in this copy. The descriptor is taken out of x. */
void take_place(struct tail_file *f, struct text *x, const char *path);

/* ---- text.c: whose text is it? ---- */
struct text {
    struct source src; /* owned */
    struct stat st;
    bool has_trailer;  /* a .gz: of the text, without inflating it */
    uint32_t crc;
    uint64_t len;
    size_t head_len;
    char head[FINGERPRINT_BYTES];
};
NODISCARD int text_open(struct tail *t, const char *path, bool is_gz, struct text *x);
void text_close(struct text *x);
/* Is it f's text? All that is known of f, or all that f holds, is compared; a copy may be shorter than what f still
 * holds, or longer than what is known of f. When f's bytes are gone and few of them are known, it is not f's as long as it
 * may be another's of the chain: one that holds it, of which more is known, or that was cut and is to be noted. */
bool text_is_of(struct text *x, struct tail_file *f);
/* When f was first seen, by the clock as it goes now: by one that was put back since, every later file would seem to be older. */
int64_t file_seen_since(const struct tail_file *f);
/* Same text as f's up to its furthest place, tails included? is_full: by the CRC of everything before, too. 1, 0, or the
 * error that kept it from being seen. */
int source_holds(struct tail_file *f, const struct source *src, bool is_full);
struct pass *furthest(const struct tail_file *f);
bool file_is_unseen(const struct tail_file *f); /* nothing was ever read of it */
/* Its bytes are not what was read of them any more. False when it cannot be looked into now. */
bool file_is_cut(struct tail_file *f);

/* ---- catchup.c: what was rotated between two looks ---- */
/* Does any file that lost this live name still count? */
bool chain_is_known(const struct tail *t, const char *base);
/* Something happened to this name: if it is one of a chain, the chain is looked through soon. */
void chain_stir(struct tail *t, const char *path);
/* f was not known when the chain was looked through: what was begun then may be its copy. That is let go, and stands for f after
 * the next look. */
void chain_release_copies(struct tail_file *f);
/* Its siblings that are copies of a file of the chain stand for that; those that are newer than all that is known are
 * begun, oldest first. */
void chains_settle(struct tail *t);

/* ---- cutback.c ---- */
/* f is MISSING, and st is of its inode, in the same life, but not what was read of it: did it only lose its end? Then it
 * goes on, as another incarnation, where it is proven to be what was read. */
bool cut_back(struct tail_file *f, int fd, const struct stat *st);

/* ---- resume.c ---- */
NODISCARD int resume_init(struct tail *t, const struct queue_recovery *const *recovered, size_t n);
/* Is a MISSING file this open one, by inode and content, or (is_content) by content alone? 1: it is placed there, and has
 * taken fd; 0: none is; an error: that cannot be said now. */
NODISCARD int resume_match(struct tail *t, int fd, const struct stat *st, const char *path, const char *real, uint32_t input,
                           bool is_content);
void resume_found(struct tail_file *f); /* no longer MISSING */
/*
 * It was empty when the queues heard of it, and its first bytes are there: it goes on as another incarnation. For it may have had
 * a text in between, that was copied and cut, and the queue of an output that is away now may know that by the old one.
 */
void file_renew(struct tail_file *f);
void place_at_furthest(struct tail_file *f, uint32_t output);
void resume_captures(struct tail_file *f); /* of the name by which it is, or was, included */
void resume_siblings(struct tail *t); /* first scan: MISSING ones are looked for beside their names */

/* The sink's view of it, a new one; NULL: out of memory. */
void *file_new_sink(struct tail_file *f, uint64_t fed_to);

/* ---- twins.c: one file that two queues know as two ---- */
void twins_join(struct tail *t); /* after the first scan found the others, and after a reload handed over what has no name */

/* ---- asleep.c: files that nothing happens to, in a fifth of the memory ---- */
/*
 * A live file that was read whole a while ago, and of which every queue has everything durable, needs no struct tail_file:
 * who it is and where all outputs stand is all there is to know. Whoever looks for it, by its name, its inode or its
 * incarnation, gets a file again, as it was.
 */
struct sleeper {
    struct list all;
    struct link by_path, by_ino, by_incarnation; /* in the tables of files, with is_other */
    const char *path;
    struct pair *captures;
    uint64_t incarnation, dev, ino, generation, off, first_off; /* off: of all outputs, and its size */
    int64_t btime_ns, first_seen_ns, mtime_ns, read_ns, born_mtime_ns;
    uint32_t fp_len, fp_crc, head_crc, tail_crc, ident_version, input;
    int fd;
    uint16_t tail_len;
    uint8_t position_flags, n_captures;
    bool is_sniffed, is_warned, is_blank, is_fed, first_skip, is_own;
};
void sleepers_take(struct tail *t);     /* all files that may sleep do; pointers to files may be void afterwards */
void sleepers_look(struct tail *t);     /* those that changed, by what a stat says, are woken */
void sleepers_wake_all(struct tail *t); /* for what looks at each file in turn */
void sleepers_wake_below(struct tail *t, const char *dir, size_t len);
bool sleepers_close_one(struct tail *t); /* a descriptor is wanted elsewhere; false: none of them has one */
void sleepers_free(struct tail *t);
struct tail_file *sleeper_wake(struct tail *t, struct sleeper *s);
/* Of this name, and what the stat says is what was known: nobody needs to be woken. */
bool sleeper_is_still(struct tail *t, const char *path, const struct stat *st);

/* ---- stall.c ---- */
void stall_check(struct tail *t); /* each STALL_NS: files with news that nobody reads are kicked, and it is said */

/* ---- held.c ---- */
void held_check(struct tail *t);

void tail_overflowed(struct tail *t); /* events were dropped: a test calls it too */

#endif
