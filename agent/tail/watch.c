#include "agent/tail/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "agent/base/io.h"

#define READS_MAX 8
#define READ_BYTES (32 * KIB)

#define MASK_NAMES (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF)
#define MASK_FILES (IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE)

int watch_init(struct watch *w)
{
    *w = (struct watch){ .fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), .is_working = true };
    if (w->fd >= 0)
        return 0;
    w->is_working = false;
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return w->fd < 0 ? -errno : 0;
}

void watch_deinit(struct watch *w)
{
    fd_close(&w->fd);
    w->is_working = false;
}

int watch_add(struct watch *w, const char *dir, bool follows_files)
{
    if (!w->is_working)
        return -ENOSPC;
    /* Events of unlinked files come under a name that may already be another's: those are polled instead. */
    uint32_t mask = MASK_NAMES | (follows_files ? MASK_FILES : 0) | IN_ONLYDIR | IN_EXCL_UNLINK | IN_MASK_ADD;
    int wd = inotify_add_watch(w->fd, dir, mask);
    return wd < 0 ? -errno : wd;
}

void watch_remove(struct watch *w, int wd)
{
    if (w->is_working && wd >= 0)
        (void)inotify_rm_watch(w->fd, wd); /* gone with its directory already: fine */
}

bool watch_has_events(const struct watch *w)
{
    struct pollfd p = { .fd = w->fd, .events = POLLIN };
    return w->is_working && poll(&p, 1, 0) > 0;
}

bool watch_read(struct watch *w, void (*each)(void *ctx, const struct watch_event *ev), void *ctx)
{
    if (!w->is_working)
        return false;
    for (int i = 0; i < READS_MAX; i++) {
        alignas(struct inotify_event) char raw[READ_BYTES];
        ssize_t n = read(w->fd, raw, sizeof(raw));
        if (n <= 0)
            return false;
        for (size_t at = 0; at + sizeof(struct inotify_event) <= (size_t)n;) {
            struct inotify_event head;
            memcpy(&head, raw + at, sizeof(head));
            const char *name = raw + at + sizeof(head);
            struct watch_event ev = { .wd = head.wd,
                                      .mask = head.mask,
                                      .cookie = head.cookie,
                                      .name = slice_of(name, strnlen(name, head.len)) };
            each(ctx, &ev);
            at += sizeof(head) + head.len;
        }
        if ((size_t)n < sizeof(raw) / 2)
            return false; /* the queue was emptied: spares a read that says EAGAIN */
    }
    return true;
}
