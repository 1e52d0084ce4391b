/*
 * report.h - collects what is wrong with a configuration: every mistake with its place and its path.
 *
 *   FILE:LINE:COL: outputs.loki.url: expected http:// or https://
 *
 * Owns: nothing; sentences live in the arena. Used while a configuration is loaded, by one thread.
 */
#ifndef TAILRACE_CONF_REPORT_H
#define TAILRACE_CONF_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/arena.h"
#include "agent/base/buf.h"
#include "agent/base/setting.h"

struct mark {
    const char *file;   /* NULL: no place, such as a default's */
    uint32_t line, col; /* from 1; 0: the whole file */
};

/* More errors than anyone reads are counted and not kept. */
#define REPORT_ERRORS_MAX 200
#define REPORT_PATH_MAX 512

struct report_line {
    struct mark mark;
    unsigned file_index; /* files in the order they were read */
    struct slice text;
};

struct report {
    struct arena *arena;
    struct report_line *errors, *warnings; /* arrays of REPORT_ERRORS_MAX */
    size_t n_errors, n_warnings, n_more;
    const char *files[1024];
    unsigned n_files;
    char path[REPORT_PATH_MAX]; /* "routes[2].match.pod" */
    size_t path_len;
};

/* -ENOMEM when the arena is full. */
NODISCARD int report_init(struct report *rep, struct arena *arena);
/* Errors are listed by file in this order, then by line. */
void report_file(struct report *rep, const char *file);

/* The path grows and shrinks as sections are entered: size_t at = report_enter(...); … report_leave(rep, at).
 */
size_t report_enter(struct report *rep, struct slice key);
size_t report_enter_index(struct report *rep, size_t index);
void report_leave(struct report *rep, size_t at);

void report_error(struct report *rep, struct mark mark, const char *fmt, ...) PRINTF_LIKE(3, 4);
void report_warning(struct report *rep, struct mark mark, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same for a key below the path: "auth.basic". */
void report_error_at(struct report *rep, struct mark mark, const char *key, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void report_warning_at(struct report *rep, struct mark mark, const char *key, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* How many errors there are by now: has a section added some? */
static inline size_t report_count(const struct report *rep)
{
    return rep->n_errors + rep->n_more;
}

/* All errors, sorted by file and line, newline-separated. What does not fit in out is left away. */
void report_write(struct report *rep, struct buf *out);
/* All warnings as slices in the arena. */
NODISCARD int report_warnings(struct report *rep, struct slices *ret_warnings);

/* For "%.*s" of text from outside: at most 100 bytes of it. */
#define QUOTED(s) (int)MIN((s).len, (size_t)100), (s).len == 0 ? "" : (s).ptr

#endif
