/*
 * view.h - inside the queue's tools: a queue's directory as it stands, and the frames of one of its files. Read-only.
 */
#ifndef TAILRACE_QUEUE_VIEW_H
#define TAILRACE_QUEUE_VIEW_H

#include "agent/queue/core.h"
#include "agent/queue/scan.h"

enum file_kind { FILE_GOOD, FILE_EMPTY, FILE_DAMAGED, FILE_FOREIGN };

struct file {
    char name[64];      /* below the directory */
    uint64_t id, bytes;
    struct segment_head head;
    enum file_kind kind;
    bool is_given;      /* of parked/: given up, by the log of dead/ */
    uint64_t fence;     /* frames beyond are void: of segments the lowest of later ones, of dead/ the next good one's */
};

struct files {
    struct file *list;
    size_t n, cap;
    const char *sub, *suffix;
    bool is_out_of_memory;
};

struct view {
    const struct fs_ops *fs;
    int dir_fd;
    uint8_t uuid[UUID_BYTES]; /* the cursor's, else that of most segments */
    struct cursor_slot cursor;
    uint64_t cursor_bytes;
    bool has_cursor;
    struct files segments, parked, dead; /* by id */
    struct given given; /* what the log of dead/ names */
};

NODISCARD int view_open(struct view *v, const char *dir, struct err *err);
NODISCARD int view_open_at(struct view *v, int dir_fd);
/* What became of dead letters (m: NULL when nobody asks), and which parked files are given up, from all files of dead/. */
NODISCARD int view_log(struct view *v, struct marks *m);
void view_close(struct view *v);
bool view_is_acked(const struct view *v, uint64_t seq);

/* A walk over the frames of a FILE_GOOD. */
struct reading {
    int fd;
    struct scan scan;
    uint64_t off, seq; /* where the next frame should stand, and its number */
};

NODISCARD int reading_open(struct view *v, const struct file *f, struct reading *r);
/* r, or why the walk ended early. */
NODISCARD int reading_close(struct view *v, struct reading *rd, int r);
/* The next good header with a seq that follows, at most fence; what lies between is stepped over. */
bool reading_next(struct reading *r, uint64_t fence, uint64_t *ret_off, struct frame_hdr *h);
/* Its body. -EBADMSG, -ENOMEM. */
NODISCARD int reading_body(struct reading *r, uint64_t off, const struct frame_hdr *h, struct buf *body);

struct queue_report;
/* The beginning of a report: its name, or the JSON object's first members. */
NODISCARD int report_begin(const struct queue_report *to);

#endif
