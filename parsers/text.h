/*
 * text.h - what can be known of a line that is not JSON: leading time, level, program.
 *
 * Conservative: a level is a word of its own in the head of the line (INFO, [warn], error:, level=warn, LOG:, klog's letter,
 * syslog's <PRI>), never one in the middle of a sentence. A panic and a traceback have none.
 *
 *   Jan  2 15:04:05 host sshd[12]: msg         <34>1 2026-01-02T15:04:05Z host app 12 ID - msg
 *   2026/01/02 15:04:05 [error] 7#7: *1 msg    2026-01-02 15:04:05.678 UTC [12] LOG:  msg
 *   I0102 15:04:05.678901  12 x.go:3] msg      ts=2026-01-02T15:04:05Z level=warn msg="…"
 *   [2026-01-02T15:04:05Z INFO  shop::db] msg  2026-01-02T15:04:05.678901Z  INFO shop::db: msg
 *   2026-01-02 15:04:05,678 - app - INFO - msg 1.2.3.4 - - [02/Jan/2026:15:04:05 +0000] "GET / …
 */
#ifndef TAILRACE_PARSERS_TEXT_H
#define TAILRACE_PARSERS_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/level.h"
#include "parsers/timestamp.h"

struct text {
    enum level level;
    struct slice module;  /* program of syslog, target of Rust, logger of logfmt; empty when there is none */
    struct slice message; /* what follows the head; the line when there is no head, or nothing behind it */
    bool has_time;
    int64_t time_ns;
};

/* scratch: decoded strings go there; reset by this call. Slices live until the next call. */
void text_read(const struct timestamp_env *env, struct slice line, struct buf *scratch, struct text *ret_text);

/* The level that a word of a text log stands for; any case, the names only of text logs too (LOG, Note, fail). */
enum level text_level_word(struct slice word);

#endif
