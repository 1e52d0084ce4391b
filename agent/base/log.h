/*
 * log.h - the agent's own log: JSON lines on stderr.
 *
 *   {"timestamp":"…Z","level":"warn","target":"deliver","event":"output.failing","message":"…","fields":{…}}
 *
 * The same event about the same thing (its first string field) is written at most once a minute, with the number
 * "suppressed" when it comes again; debug is free when off. Bytes from outside are escaped.
 * Threads: any.
 */
#ifndef TAILRACE_BASE_LOG_H
#define TAILRACE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/slice.h"

enum log_level { LOG_TRACE = 1, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum log_field_kind { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_FLOAT };
struct log_field {
    const char *key;
    enum log_field_kind kind;
    struct slice str;
    int64_t num;
    double real;
};

#define LOG_CSTR(k, v) { .key = (k), .kind = LOG_FIELD_STR, .str = slice_cstr(v) }
#define LOG_SLICE(k, v) { .key = (k), .kind = LOG_FIELD_STR, .str = (v) }
#define LOG_NUM(k, v) { .key = (k), .kind = LOG_FIELD_INT, .num = (int64_t)(v) }
#define LOG_REAL(k, v) { .key = (k), .kind = LOG_FIELD_FLOAT, .real = (v) }

/* target: the module ("tail", "queue", "deliver" …). event: the dotted name that a runbook paragraph is found by
 * (metrics.md). message: a sentence of ours. */
#define log_at(lvl, target, event, message, ...)                                                             \
    log_emit((lvl), (target), (event), (message), (const struct log_field[]){ { 0 }, __VA_ARGS__ },          \
             sizeof((const struct log_field[]){ { 0 }, __VA_ARGS__ }) / sizeof(struct log_field))

#define log_error(target, event, message, ...) log_at(LOG_ERROR, target, event, message, __VA_ARGS__)
#define log_warn(target, event, message, ...) log_at(LOG_WARN, target, event, message, __VA_ARGS__)
#define log_info(target, event, message, ...) log_at(LOG_INFO, target, event, message, __VA_ARGS__)
#define log_debug(target, event, message, ...)                                                               \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG, (target)))                                                                \
            log_at(LOG_DEBUG, target, event, message, __VA_ARGS__);                                          \
    } while (0)

/* fields[0] is a place holder, so that a call without fields compiles. */
void log_emit(enum log_level level, const char *target, const char *event, const char *message,
              const struct log_field *fields, size_t n_fields);

bool log_enabled(enum log_level level, const char *target);

/* Which (level, target) is written; NULL = info and above. Called by main before threads start. */
void log_set_filter(bool (*is_enabled)(enum log_level level, const char *target));
/* Where it goes: 2 by default. */
void log_set_fd(int fd);

#endif
