/*
 * multiline.h - which lines of text continue the one before: tracebacks, panics, stack traces, indented lines.
 *
 * Only looks; the pipeline joins (at most 500 lines, 2 s). A line that is a JSON object is always a start.
 */
#ifndef TAILRACE_PARSERS_MULTILINE_H
#define TAILRACE_PARSERS_MULTILINE_H

#include <stdbool.h>

#include "agent/base/err.h"
#include "agent/base/slice.h"

#define MULTILINE_LINES_MAX 500
#define MULTILINE_WAIT_NS (2 * NS_PER_SEC)

struct multiline; /* compiled rule of an input */

/* is_auto: the built-in rules; else start is an extended regular expression that only first lines match. */
NODISCARD int multiline_new(bool is_auto, struct slice start, struct multiline **ret_multiline, struct err *err);
void multiline_free(struct multiline *m);

/* What the group so far looks like; zero it at the start of each group. */
struct multiline_state {
    unsigned mode; /* enum in multiline.c: inside a Python traceback, a Go panic, a Rust backtrace, … */
    unsigned n_lines;
};

/* Does `line` belong to the group in *state (n_lines > 0)? Updates *state when it does or when it starts one. */
bool multiline_continues(const struct multiline *m, struct multiline_state *state, struct slice line);

/* True when nothing after this line can continue it (a JSON object): the group needs no wait. */
bool multiline_is_single(const struct multiline *m, struct slice line);

#endif
