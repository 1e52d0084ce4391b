/*
 * tail.h - follows files: which there are, who they are, where each output stands in each, and their bytes in
 * turns.
 *
 * One inotify descriptor watches directories, never files. Events are hints: a file with news goes on the
 * ready list; a rescan every 10 s and after overflow catches the rest, and a file that has unread bytes for no
 * known reason is opened anew within 5 s. A turn reads at most TURN_BYTES of one file.
 *
 * Files that nothing happens to are kept in a smaller form (asleep.c); the sink does not know one from the other.
 *
 * A file has one *pass* for each distinct place its outputs stand at, usually one for all. An output that is
 * blocked leaves the pass and later gets one of its own, from its position, until it has caught up.
 *
 * Threads: the reader thread only, but tail_status (called by it as well).
 * Owns:    the inotify descriptor, the files' descriptors (at most an LRU budget below RLIMIT_NOFILE).
 */
#ifndef TAILRACE_TAIL_TAIL_H
#define TAILRACE_TAIL_TAIL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/position.h"
#include "agent/base/record.h"
#include "agent/queue/queue.h"
#include "conf/conf.h"

struct tail;
struct tail_file;

struct tail_file_info {
    uint32_t input_index;
    const struct file_ident *ident;
    struct pairs captures; /* <name> of the include pattern */
    /* The sink had this file before and let it go as it rested (file_free): it was fed all up to here, for every output, and
     * nothing was unfinished. 0: it is new. */
    uint64_t fed_to;
};

/*
 * A place in a file where some outputs stand.
 * Lines below resume_until are read again for the streams in parts only (those that had an unfinished record
 * there), from each part's start on. head_crc, tail_bytes, tail_len are the tail's own business: of the bytes
 * before off, or before resume_until while off is below it.
 */
struct tail_pass {
    struct tail_pass *next;
    uint32_t mask; /* outputs that this pass feeds */
    uint64_t off;  /* everything before is consumed */
    uint64_t resume_until;
    struct position_part parts[STREAMS_MAX]; /* of the resume */
    uint8_t n_parts;
    bool skip_to_newline; /* off is inside a line that was cut */
    bool is_again;        /* not the tail's: a range that was read before, see tail_again_open() */
    uint8_t skips;        /* with is_again, streams: what comes first is the rest of a record that stays lost */
    void *state;          /* the sink's: unfinished records; freed by sink->pass_free */
    uint32_t head_crc;    /* of [0, off) */
    uint8_t tail_bytes[TAIL_CRC_BYTES];
    uint16_t tail_len;
};

struct feed {
    struct slice bytes; /* from pass->off on */
    uint64_t off;
    bool is_last; /* the file is complete: an unterminated last line counts, unfinished records are flushed */
    bool is_full; /* more than LINE_BYTES_MAX bytes: a line without newline is to be cut there */
};

struct tail_sink {
    void *ctx;
    /* A file enters; the result is handed back with each call. NULL = out of memory, tried again later. */
    void *(*file_new)(void *ctx, struct tail_file *f, const struct tail_file_info *info);
    /* Also while the file is followed, when all is read and nothing unfinished: it may enter again, see fed_to. */
    void (*file_free)(void *ctx, void *file);
    /* Consumes whole lines; returns how many bytes. The sink may call tail_block(), tail_part() and tail_wake_at() during
     * it, nothing else of this header. What a pass without outputs (mask 0, after tail_block) returns does
     * not matter. With is_last it consumes all. Lines it leaves although they are whole are offered again,
     * 100 ms later at the earliest. It sets pass->skip_to_newline when it cut a line and clears it at the
     * newline. */
    size_t (*feed)(void *ctx, void *file, struct tail_pass *pass, const struct feed *feed);
    /* Is anything unfinished in pass->state? Fills parts (at most STREAMS_MAX) and returns their number. A
     * pass that has some after feed(is_last) is not at its end: it is fed again, with no bytes, until it has
     * none. */
    uint8_t (*parts)(void *ctx, const struct tail_pass *pass, struct position_part *parts);
    /* Is anything unfinished in pass->state bound to what another file ends or begins with? Then no other pass with the same
     * unfinished records may stand for it. May be NULL: nothing ever is. */
    bool (*is_bound)(void *ctx, const struct tail_pass *pass);
    /* pass->state is to be freed; called only when it is not NULL. */
    void (*pass_free)(void *ctx, struct tail_pass *pass);
    /* Lines that are given up: held limit, truncated unread. Called before the position moves. */
    void (*lost)(void *ctx, void *file, uint32_t mask, uint64_t start, uint64_t end, enum lost_reason reason);
    /* Asked before feed(): 0, or after how long to ask again, for the sink cannot take them yet (what they are is
     * not known). May be NULL. */
    int64_t (*holds)(void *ctx, void *file);
};

struct tail_conf {
    const struct conf *conf;
    uint32_t outputs; /* mask of all */
    uint64_t machine_salt;
};

/* recovered[i]: what queue i recovered; a file that no queue knows begins as read_from says. NULL: it knows
 * nothing. Scans all folders before it returns. Strings of conf are borrowed until tail_close, those of
 * recovered are copied. An output that does not know a file that others know: a new queue begins where the
 * furthest other stands; an old one crashed before it heard of the file, and begins at its start. */
NODISCARD int tail_open(const struct tail_conf *conf, const struct tail_sink *sink,
                        const struct queue_recovery *const *recovered, size_t n_outputs,
                        struct tail **ret_tail, struct err *err);
void tail_close(struct tail *t); /* NULL is fine */

int tail_fd(
    const struct tail *t); /* inotify: poll for reading. Without inotify one that never becomes readable. */
void tail_on_events(struct tail *t); /* reads events, marks files ready */
/* One turn of one file with news. True when more is ready. */
bool tail_turn(struct tail *t, int64_t mono_ns);
/* Rescans, grace times, unfinished groups; returns when it wants to be called next (monotonic ns). */
int64_t tail_tick(struct tail *t, int64_t mono_ns);
bool tail_first_scan_done(const struct tail *t);
/* Did a file appear, since the last call, under a name that no position speaks of yet, or does an output that is new begin where
 * the others stand? Until a group says so, a crash would forget it: that the name's rotated files are to be read; where it began. */
bool tail_takes_new_names(struct tail *t);

/* From feed(): output leaves the pass (its bit in pass->mask goes at once); its place is pos_end, between
 * feed->off and the end of feed->bytes, with these parts: the line at pos_end is the first it did not take,
 * parts are unfinished records that began before. It keeps that place until tail_unblock, and then has a pass
 * of its own until it has caught up. */
void tail_block(struct tail_file *f, struct tail_pass *pass, uint32_t output, uint64_t pos_end,
                const struct position_part *parts, uint8_t n_parts);
/* As tail_block(), but the output is not blocked: it goes on by itself from there. */
void tail_part(struct tail_file *f, struct tail_pass *pass, uint32_t output, uint64_t pos_end,
               const struct position_part *parts, uint8_t n_parts);
/* Also from feed(), for a pass of another file that stands still (the one whose last record goes on in the file that is
 * fed): the output leaves it and will read these parts again, once it is not blocked. */
void tail_block_before(struct tail_file *f, struct tail_pass *pass, uint32_t output,
                       const struct position_part *parts, uint8_t n_parts);
/* The output takes lines again: its files become ready. */
void tail_unblock(struct tail *t, uint32_t output);
/* Is this output blocked (by tail_block since the last tail_unblock)? */
bool tail_is_blocked(const struct tail *t, uint32_t output);
/* A sync failed: the output stands where these say, in every file. */
void tail_fence(struct tail *t, uint32_t output, const struct recovered_file *files, size_t n);

/* For a group of this output that is about to be closed: everything that progressed since the last call, as
 * arrays that live until the next tail call. Sets files, positions, gone of *end and leaves its other members
 * alone. Returns false when nothing did; that is no group for tail_durable's count. Not from within feed().
 * Of files that are new, and of which nothing was fed yet, it takes max_new at most: ten thousand that appear at once are
 * told in several groups, and tail_takes_new_names() says so as long as some are left. */
bool tail_collect(struct tail *t, uint32_t output, size_t max_new, struct group_end *end);
/* That group, the n-th collected for this output (from 1), is durable: descriptors below it may go. */
void tail_durable(struct tail *t, uint32_t output, uint64_t n);

/* A pass of the file has an unfinished record that wants to be flushed at this time (multi-line): the sink's
 * state says so; the tail calls feed() with no bytes then, once, for each pass with a state. The earliest
 * time asked for counts. */
void tail_wake_at(struct tail_file *f, int64_t mono_ns);

/* The sink's file of the one whose name this file took over, while its last bytes are still to be accounted
 * for: a container's half line may go on here. NULL: none. */
void *tail_predecessor(const struct tail_file *f);
/* From feed(): bytes of this file again, from off on. As many as there are; 0 at its end; negative errno. */
NODISCARD ssize_t tail_read_before(struct tail_file *f, void *ptr, size_t len, uint64_t off);
/* Outputs that were stopped in that one, and have not been there where it ends. */
uint32_t tail_behind(const struct tail_file *f);
/* The unfinished records of these outputs' passes changed although no bytes were fed: the position is told
 * anew. */
void tail_touch(struct tail_file *f, uint32_t outputs);

/* Descriptors of live files, to be taken over by the tail of a new configuration: pass old to tail_adopt
 * right after tail_open, before any turn, and close it after; files that are still wanted keep their
 * descriptor, deleted ones are read to the end. Files that the new tail was told nothing of (no recovered)
 * keep who they are and where old's outputs, by name, stood: so all groups of old must be committed before.
 */
void tail_adopt(struct tail *t, struct tail *old);

/* A range that damage took out of a queue, to be read again: its file, and a view of it for the sink, the caller's to
 * file_free(). Passes and positions do not change. -EAGAIN: not now, it is looked for, or there is no descriptor; -ENOENT: it
 * is gone, or not what it was. */
NODISCARD int tail_again_open(struct tail *t, const struct reread_range *range, void **ret_sink_file);
NODISCARD int tail_again_look(struct tail *t, const struct reread_range *range); /* would it open? */
/* Its bytes at off; the same errors, -EBADMSG for a damaged .gz. The view is good as long as this does not say -ENOENT. */
NODISCARD ssize_t tail_again_read(struct tail *t, uint64_t incarnation, void *ptr, size_t len, uint64_t off);

/* JSON array of files for /status. */
NODISCARD int tail_status(struct tail *t, struct buf *out);
/* Which input takes this path, or why none does, in words: for `explain --file`. -ENOENT: none does. On
 * success ret_captures->items is one malloc'd block with all its text; the caller frees it. */
NODISCARD int tail_explain(const struct conf *conf, const char *path, struct buf *text, uint32_t *ret_input,
                           struct pairs *ret_captures);

#endif
