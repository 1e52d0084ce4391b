/*
 * temporary.h - level directives for some pods and for some time: `tailrace levels set NS/POD 'debug' --for 10m`. They come
 * after everything else that says a level, end by themselves, and are not kept over a restart.
 *
 * Threads: any; a lock inside. Limits: TEMPORARY_MAX at a time, TEMPORARY_NS_MAX each.
 */
#ifndef TAILRACE_AGENT_TEMPORARY_H
#define TAILRACE_AGENT_TEMPORARY_H

#include "agent/base/buf.h"
#include "agent/base/err.h"

#define TEMPORARY_MAX 64
#define TEMPORARY_NS_MAX (INT64_C(7) * 24 * 3600 * NS_PER_SEC)

/* target: "NAMESPACE/POD" or "NAMESPACE/POD/CONTAINER", globs allowed; the same target again replaces. -EINVAL, -ENOSPC with a
 * sentence. */
NODISCARD int temporary_set(struct slice target, struct slice levels, int64_t for_ns, struct err *err);
/* -ENOENT: there is none. */
NODISCARD int temporary_clear(struct slice target);
/* Raised by every change. */
uint64_t temporary_version(void);
/* The text of the last one set that fits, appended; false: none does. */
bool temporary_find(struct slice namespace_, struct slice pod, struct slice container, struct buf *levels);
/* From time to time: those whose time is over end, which is said. */
void temporary_expire(int64_t mono_ns);
/* {"levels":[{"target":…,"levels":…,"seconds_left":…}]} */
NODISCARD int temporary_write_json(struct buf *out, int64_t mono_ns);

#endif
