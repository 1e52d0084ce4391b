/*
 * shared.h - texts that several keep for long and nobody changes: a file's path is the tail's and every queue's, and there are
 * ten thousand. Each is there once, however often it is asked for.
 *
 *     const char *path = shared_text(s);
 *     ...
 *     shared_drop(path);
 *
 * Owns:    the texts, until each of those who asked has dropped his; they are counted as files (budget.h). Threads: any.
 */
#ifndef TAILRACE_BASE_SHARED_H
#define TAILRACE_BASE_SHARED_H

#include "agent/base/macros.h"
#include "agent/base/slice.h"

/* Followed by a NUL. The caller drops it; NULL when out of memory. */
NODISCARD const char *shared_text(struct slice s);
void shared_drop(const char *text); /* NULL is fine */

#endif
