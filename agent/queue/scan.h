/*
 * scan.h - reads frames out of a file that may hold any bytes: through a window, never more than it at once in memory.
 *
 * A place that the disk cannot read (EIO) counts as damaged, like one with wrong bytes. A read that fails for a passing
 * reason (fs.h) says nothing: it ends the scan, each call returns it from then on, scan_find() finds nothing, and whoever
 * concludes anything from that looks at `error` first. Bounded: every search is one pass.
 */
#ifndef TAILRACE_QUEUE_SCAN_H
#define TAILRACE_QUEUE_SCAN_H

#include "agent/queue/frame.h"

struct scan {
    int fd;          /* borrowed */
    uint64_t size;   /* bytes that may be read */
    uint32_t salt;
    bool any_salt;   /* a file whose header is damaged: the first frame's salt is taken */
    uint8_t *window; /* owned */
    uint64_t window_off;
    size_t window_len;
    int error;       /* 0, or why nothing can be read now */
};

/* -ENOMEM. */
NODISCARD int scan_init(struct scan *s, int fd, uint64_t size, uint32_t salt);
void scan_deinit(struct scan *s); /* zeroed is fine */

/* The frame header at off, when it is valid, has the salt and its frame lies inside the size. -EBADMSG, `error`. */
NODISCARD int scan_head(struct scan *s, uint64_t off, struct frame_hdr *ret);
/* The next such header at or after off with min_seq <= seq <= max_seq. False: none. */
bool scan_find(struct scan *s, uint64_t off, uint64_t min_seq, uint64_t max_seq, uint64_t *ret_off,
               struct frame_hdr *ret);
/* The meta, its CRC checked; for a SNAP inflated. -EBADMSG, -ENOMEM, `error`. */
NODISCARD int scan_meta(struct scan *s, uint64_t off, const struct frame_hdr *h, struct buf *meta);
bool scan_body_is_good(struct scan *s, uint64_t off, const struct frame_hdr *h);

#endif
