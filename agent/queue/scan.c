#include "agent/queue/scan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/queue/fs.h"

#define WINDOW_BYTES (256 * KIB)
/* Read when the last place was elsewhere: a walk over headers of large frames wants no more. */
#define WINDOW_STEP (4 * KIB)

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
    assert(len <= WINDOW_STEP);
    if (off > s->size || len > s->size - off)
        return NULL;
    if (off >= s->window_off && off - s->window_off + len <= s->window_len)
        return s->window + (off - s->window_off);

    bool is_next = off >= s->window_off && off <= s->window_off + s->window_len + WINDOW_STEP;
    size_t want = (size_t)MIN((uint64_t)(is_next ? WINDOW_BYTES : WINDOW_STEP), s->size - off);
    ssize_t n = fs_pread_full(s->fd, s->window, want, off);
    /* One bad sector must not hide its neighbours: the least that is needed. */
    if (n < 0 && want > len)
        n = fs_pread_full(s->fd, s->window, len, off);
    s->window_off = off;
    s->window_len = n < 0 ? 0 : (size_t)n;
    return s->window_len < len ? NULL : s->window;
}

int scan_head(struct scan *s, uint64_t off, struct frame_hdr *ret)
{
    const uint8_t *p = view(s, off, FRAME_HEAD_BYTES);
    struct frame_hdr h;
    if (p == NULL || frame_hdr_decode(p, &h) < 0)
        return -EBADMSG;
    if (s->any_salt) {
        s->salt = h.salt;
        s->any_salt = false;
    }
    if (h.salt != s->salt || frame_bytes(&h) > s->size - off)
        return -EBADMSG;
    *ret = h;
    return 0;
}

bool scan_find(struct scan *s, uint64_t off, uint64_t min_seq, uint64_t max_seq, uint64_t *ret_off,
               struct frame_hdr *ret)
{
    off = (off + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
    for (; off + FRAME_HEAD_BYTES <= s->size; off += FRAME_ALIGN) {
        const uint8_t *p = view(s, off, FRAME_HEAD_BYTES);
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

int scan_meta(struct scan *s, uint64_t off, const struct frame_hdr *h, struct buf *meta)
{
    struct buf raw;
    buf_init(&raw, FRAME_META_MAX);
    buf_reset(meta);
    struct buf *into = h->type == FRAME_SNAP ? &raw : meta;
    int r = buf_reserve(into, h->meta_len);
    if (r < 0)
        return r;
    ssize_t n = fs_pread_full(s->fd, into->ptr, h->meta_len, off + FRAME_HEAD_BYTES);
    into->len = n < 0 ? 0 : (size_t)n;
    if (into->len != h->meta_len || frame_crc(buf_slice(into)) != h->meta_crc)
        r = -EBADMSG;
    if (r == 0 && h->type == FRAME_SNAP)
        r = meta_unpack(buf_slice(&raw), meta);
    buf_deinit(&raw);
    return r;
}

bool scan_body_is_good(struct scan *s, uint64_t off, const struct frame_hdr *h)
{
    uint64_t at = off + FRAME_HEAD_BYTES + h->meta_len, end = at + h->body_len;
    uint32_t crc = 0;
    while (at < end) {
        size_t want = (size_t)MIN((uint64_t)WINDOW_BYTES, end - at);
        ssize_t n = fs_pread_full(s->fd, s->window, want, at);
        if (n < 0 || (size_t)n != want) {
            s->window_len = 0;
            return false;
        }
        crc = frame_crc_more(crc, s->window, want);
        s->window_off = at;
        s->window_len = want;
        at += want;
    }
    return crc == h->body_crc;
}
