#include "agent/queue/scan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/queue/fs.h"

#define WINDOW_BYTES (256 * KIB)
/* Read when the last place was elsewhere: a walk over headers of large frames wants no more. */
#define WINDOW_STEP (4 * KIB)
#define SECTOR_BYTES 512u

int scan_init(struct scan *s, int fd, uint64_t size, uint32_t salt)
{
    *s = (struct scan){ .fd = fd, .size = size, .salt = salt };
    s->window = malloc(WINDOW_BYTES);
    return s->window == NULL ? -ENOMEM : 0;
}

void scan_deinit(struct scan *s)
{
    free(s->window);
    s->window = NULL;
}

/* len bytes at off, in the window. NULL: beyond the size, or unreadable. */
static const uint8_t *view(struct scan *s, uint64_t off, size_t len)
{
    assert(len <= WINDOW_BYTES);
    if (s->error < 0 || off > s->size || len > s->size - off)
        return NULL;
    if (off >= s->window_off && off - s->window_off + len <= s->window_len)
        return s->window + (off - s->window_off);

    bool is_next = s->window_len > 0 && off >= s->window_off && off <= s->window_off + s->window_len + WINDOW_STEP;
    size_t step = is_next ? WINDOW_BYTES : MAX(WINDOW_STEP, len);
    size_t want = (size_t)MIN((uint64_t)step, s->size - off);
    ssize_t n = fs_pread_full(s->fd, s->window, want, off);
    /* One bad sector must not hide its neighbours: the least that is needed. */
    if (n < 0 && want > len && !fs_is_passing(n))
        n = fs_pread_full(s->fd, s->window, len, off);
    s->error = fs_is_passing(n) ? (int)n : 0;
    s->window_off = off;
    s->window_len = n < 0 ? 0 : (size_t)n;
    return s->window_len < len ? NULL : s->window;
}

int scan_head(struct scan *s, uint64_t off, struct frame_hdr *ret)
{
    const uint8_t *p = view(s, off, FRAME_HEAD_BYTES);
    struct frame_hdr h;
    if (p == NULL || frame_hdr_decode(p, &h) < 0)
        return s->error < 0 ? s->error : -EBADMSG;
    if (s->any_salt) {
        s->salt = h.salt;
        s->any_salt = false;
    }
    if ((h.salt != s->salt && !BUG(22)) || frame_bytes(&h) > s->size - off)
        return -EBADMSG;
    *ret = h;
    return 0;
}

bool scan_find(struct scan *s, uint64_t off, uint64_t min_seq, uint64_t max_seq, uint64_t *ret_off,
               struct frame_hdr *ret)
{
    off = (off + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
    for (; s->error == 0 && off + FRAME_HEAD_BYTES <= s->size; off += FRAME_ALIGN) {
        const uint8_t *p = view(s, off, FRAME_HEAD_BYTES);
        if (p == NULL) /* a bad sector, this one or the next: all that begins before its end is lost with it */
            off = (off | (SECTOR_BYTES - 1)) + 1 - FRAME_ALIGN;
        if (p == NULL || memcmp(p, "TRF1", 4) != 0)
            continue;
        struct frame_hdr h;
        if (scan_head(s, off, &h) == 0 && h.seq >= min_seq && h.seq <= max_seq) {
            *ret_off = off;
            *ret = h;
            return true;
        }
    }
    return false;
}

static int read_into(struct scan *s, uint64_t off, size_t len, struct buf *b)
{
    int r = buf_reserve(b, len);
    if (r < 0)
        return r;
    ssize_t n = fs_pread_full(s->fd, b->ptr, len, off);
    if (fs_is_passing(n))
        return s->error = (int)n;
    if (n < 0 || (size_t)n != len)
        return -EBADMSG;
    b->len = len;
    return 0;
}

/* Nearly all metas lie in the window already; a SNAP's may be larger than it. */
int scan_meta(struct scan *s, uint64_t off, const struct frame_hdr *h, struct buf *meta)
{
    struct buf own;
    struct slice bytes;
    int r = 0;
    buf_init(&own, FRAME_META_MAX);
    buf_reset(meta);
    if (h->meta_len <= WINDOW_BYTES) {
        const uint8_t *p = view(s, off + FRAME_HEAD_BYTES, h->meta_len);
        bytes = slice_of(p, h->meta_len);
        r = p != NULL ? 0 : s->error < 0 ? s->error : -EBADMSG;
    } else {
        r = read_into(s, off + FRAME_HEAD_BYTES, h->meta_len, &own);
        bytes = buf_slice(&own);
    }
    if (r == 0 && frame_crc(bytes) != h->meta_crc)
        r = -EBADMSG;
    if (r == 0)
        r = h->type == FRAME_SNAP ? meta_unpack(bytes, meta) : buf_append_slice(meta, bytes);
    buf_deinit(&own);
    return r;
}

bool scan_body_is_good(struct scan *s, uint64_t off, const struct frame_hdr *h)
{
    uint64_t at = off + FRAME_HEAD_BYTES + h->meta_len, end = at + h->body_len;
    uint32_t crc = 0;
    while (at < end) {
        size_t want = (size_t)MIN((uint64_t)WINDOW_BYTES, end - at);
        const uint8_t *p = view(s, at, want);
        if (p == NULL)
            return false;
        crc = frame_crc_more(crc, p, want);
        at += want;
    }
    return crc == h->body_crc || BUG(21);
}
