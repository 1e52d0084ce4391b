/*
 * Ranges that were read before and are to be read once more, because damage took what was made of them. Nothing of the file's
 * passes and positions changes; the bytes must be the same.
 */
#include <errno.h>

#include "agent/tail/internal.h"

/* -EAGAIN: its file is being looked for, or there is no descriptor, for now. */
static int file_of(struct tail *t, uint64_t incarnation, struct tail_file **ret, struct source *src)
{
    struct tail_file *f = file_by_incarnation(t, incarnation);
    if (f == NULL || f->phase == PHASE_SKIPPED)
        return -ENOENT;
    if (f->phase != PHASE_LIVE && f->phase != PHASE_ROTATED)
        return -EAGAIN;
    int r = source_of(f, src);
    *ret = f;
    return r < 0 && r != -ENOENT ? -EAGAIN : r;
}

/* Are the bytes before this place what they were when it was written? */
static int check_place(const struct source *src, const struct file_position *pos)
{
    char raw[TAIL_CRC_BYTES];
    size_t want = MIN((size_t)pos->tail_len, sizeof(raw));
    if (want > pos->end)
        return -ENOENT;
    uint64_t at = pos->end - want;
    if (want == 0 && pos->end > 0) /* not known: is it as long as that at least? */
        at = pos->end - (want = 1);
    for (size_t done = 0; done < want;) {
        ssize_t n = source_pread(src, raw + done, want - done, at + done);
        if (n <= 0)
            return n == 0 || n == -EBADMSG ? -ENOENT : -EAGAIN;
        done += (size_t)n;
    }
    return pos->tail_len == 0 || crc_update(0, raw, want) == pos->tail_crc ? 0 : -ENOENT;
}

int tail_again_look(struct tail *t, const struct reread_range *range)
{
    struct tail_file *f;
    struct source src;
    int r = file_of(t, range->to.incarnation, &f, &src);
    if (r == 0)
        r = check_place(&src, &range->from);
    return r == 0 ? check_place(&src, &range->to) : r;
}

int tail_again_open(struct tail *t, const struct reread_range *range, void **ret_sink_file)
{
    int r = tail_again_look(t, range);
    if (r < 0)
        return r;
    struct tail_file *f = file_by_incarnation(t, range->to.incarnation);
    f->is_viewed = true;
    *ret_sink_file = file_new_sink(f, 0);
    return *ret_sink_file == NULL ? -EAGAIN : 0;
}

ssize_t tail_again_read(struct tail *t, uint64_t incarnation, void *ptr, size_t len, uint64_t off)
{
    struct tail_file *f;
    struct source src;
    int r = file_of(t, incarnation, &f, &src);
    if (r < 0)
        return r;
    ssize_t n = source_pread(&src, ptr, len, off);
    return n < 0 && n != -EBADMSG ? -EAGAIN : n;
}

ssize_t tail_read_before(struct tail_file *f, void *ptr, size_t len, uint64_t off)
{
    struct source src;
    int r = source_of(f, &src);
    return r < 0 ? r : source_pread(&src, ptr, len, off);
}
