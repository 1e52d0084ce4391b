/*
 * Files that no longer have a name and are kept by our descriptor alone: how much of the disk they may take. A file that
 * still has one, rotated or not, takes nothing that would be free without us; once it loses its last it counts here.
 */
#include "agent/base/log.h"
#include "agent/queue/fs.h"
#include "agent/tail/internal.h"

static bool is_held(const struct tail_file *f)
{
    return f->is_deleted && f->fd >= 0 && f->is_tracked;
}

/* The one that lost its name first, and the sizes of all: what was read takes room as well until the rest is. */
static struct tail_file *oldest_held(struct tail *t, uint64_t *ret_bytes)
{
    struct tail_file *oldest = NULL;
    *ret_bytes = 0;
    for (struct list *l = t->lru.next; l != &t->lru; l = l->next) {
        struct tail_file *f = CONTAINER_OF(l, struct tail_file, lru);
        if (!is_held(f))
            continue;
        *ret_bytes += f->size;
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

/* The disk gets it back now, not when the queues have heard of it. What is read is lost only if a queue has to begin
 * again before it: file_give_up() counts it then. */
static void let_go(struct tail_file *f)
{
    f->is_let_go = true;
    if (file_held_bytes(f) > 0) {
        log_error("tail", "held.released",
                  "a deleted file is let go before all of it was read: held files took too much of the disk",
                  LOG_CSTR("path", f->path.path), LOG_NUM("bytes", file_held_bytes(f)));
        file_give_up(f, LOST_HELD_LIMIT);
    }
    file_close(f);
}

void held_check(struct tail *t)
{
    for (;;) {
        uint64_t bytes;
        struct tail_file *f = oldest_held(t, &bytes);
        gauge_set(&stats.held_disk_bytes, (int64_t)bytes);
        if (f == NULL || (bytes <= t->conf->held_max_bytes && !is_disk_short(t, f->fd)))
            return;
        if (f->is_copied)
            file_close(f); /* nothing is lost: it is read on from the copy */
        else
            let_go(f);
    }
}
