/* Files that no longer have a name and are kept by our descriptor alone: how much of the disk they may take.
 */
#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

static bool is_held(const struct tail_file *f)
{
    return f->is_deleted && f->fd >= 0 && f->is_tracked && f->stage == STAGE_READING && f->gauge_held > 0;
}

/* The one that lost its name first, and the unread bytes of all. */
static struct tail_file *oldest_held(struct tail *t, uint64_t *ret_bytes)
{
    struct tail_file *oldest = NULL;
    *ret_bytes = 0;
    for (struct list *l = t->ending.next; l != &t->ending; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, ending);
        if (!is_held(f))
            continue;
        *ret_bytes += f->gauge_held;
        if (oldest == NULL || f->lost_ns < oldest->lost_ns)
            oldest = f;
    }
    return oldest;
}

static bool is_disk_short(const struct tail *t, int fd)
{
    struct fs_space space;
    const struct conf_size_or_percent *min = &t->conf->min_free;
    if (fs_current()->space(fd, &space) < 0)
        return false;
    uint64_t least = min->percent > 0 ? space.total_bytes / 100 * min->percent : min->bytes;
    return space.free_bytes < least;
}

void held_check(struct tail *t)
{
    for (;;) {
        uint64_t bytes;
        struct tail_file *f = oldest_held(t, &bytes);
        if (f == NULL || (bytes <= t->conf->held_max_bytes && !is_disk_short(t, f->fd)))
            return;
        if (f->is_copied) {
            file_close(f); /* nothing is lost: it is read on from the copy */
            continue;
        }
        log_error("tail", "held.released",
                  "a deleted file is let go before all of it was read: held files took too much of the disk",
                  LOG_CSTR("path", f->path.path), LOG_NUM("bytes", f->gauge_held));
        file_give_up(f, LOST_HELD_LIMIT);
        file_close(f); /* the disk gets it back now, not when the queues have heard of it */
    }
}
