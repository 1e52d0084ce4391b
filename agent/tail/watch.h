/*
 * watch.h - inotify, by its system calls: one descriptor, one watch for each directory.
 *
 * Events are hints. When the kernel drops some, or has no watches left, whoever uses this looks for himself.
 */
#ifndef TAILRACE_TAIL_WATCH_H
#define TAILRACE_TAIL_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"

struct watch {
    int fd; /* always pollable; an eventfd that never fires when inotify cannot be had */
    bool is_working;
};

struct watch_event {
    int wd;
    uint32_t mask, cookie; /* IN_… */
    struct slice name;     /* inside the directory; empty: the directory itself */
};

NODISCARD int watch_init(struct watch *w);
void watch_deinit(struct watch *w);
/* follows_files: changes of the files in it are wanted too, not only names that come and go. The number of
 * the watch, or -ENOSPC (limit of watches), -ENOENT, -ENOTDIR, -EACCES … */
NODISCARD int watch_add(struct watch *w, const char *dir, bool follows_files);
void watch_remove(struct watch *w, int wd);
/* Do events wait to be read? What they would say is not known yet. */
bool watch_has_events(const struct watch *w);
/* Hands out at most a few thousand events; true when there may be more. */
bool watch_read(struct watch *w, void (*each)(void *ctx, const struct watch_event *ev), void *ctx);

#endif
