/*
 * level.h - the seven levels, whatever the logger calls them, and level directives per module.
 *
 * The grammar is RUST_LOG's without spans and fields (tracing-subscriber's EnvFilter):
 *     spec := directive {"," directive};  directive := LEVEL | TARGET | TARGET "=" [LEVEL]
 * LEVEL is off error warn info debug trace (also warning, fatal, critical, notice), any case, or 0..5. A bare target
 * and "target=" mean trace. A target covers a module by plain string prefix; the longest target decides; the same
 * target twice: the later one. Two differences, for what nobody spoke of must not vanish: a module that no directive
 * covers is kept, and a record without a level is kept unless its directive is off.
 */
#ifndef TAILRACE_BASE_LEVEL_H
#define TAILRACE_BASE_LEVEL_H

#include <stdbool.h>

#include "agent/base/err.h"
#include "agent/base/slice.h"

enum level {
    LEVEL_UNKNOWN = 0,
    LEVEL_TRACE,
    LEVEL_DEBUG,
    LEVEL_INFO,
    LEVEL_WARN,
    LEVEL_ERROR,
    LEVEL_FATAL,
    LEVEL_OFF /* a threshold only, never a record's level */
};

/* "trace" … "fatal", "unknown", "off". */
struct slice level_name(enum level level);

/* What loggers write: TRACE verbose fine finest · debug · info information notice default · warn warning · error err
 * severe · fatal critical crit panic dpanic alert emerg emergency; any case, with slog's "INFO+2" and "DEBUG-4", and
 * one-letter klog/glog I W E F D; else LEVEL_UNKNOWN. */
enum level level_from_name(struct slice name);

/* Numbers: pino and bunyan 10..60 (a custom one counts as the next named one below), logback's level_value 5000..40000,
 * else LEVEL_UNKNOWN. */
enum level level_from_number(int64_t n);
/* Syslog and journald severities 0 (emergency) .. 7 (debug). */
enum level level_from_severity(int64_t n);

struct levels; /* a compiled spec; read-only, any thread */

/* 0, or -EINVAL with a sentence that quotes the wrong directive (spans and fields are refused by name). The empty
 * spec keeps everything. */
NODISCARD int levels_parse(struct slice spec, struct levels **ret_levels, struct err *err);
void levels_free(struct levels *l);

/* The threshold for a module: LEVEL_TRACE (all) … LEVEL_OFF (none); LEVEL_UNKNOWN when no directive covers it. */
enum level levels_threshold(const struct levels *l, struct slice module);

/* The decision; NULL keeps everything. */
bool levels_keep(const struct levels *l, enum level level, struct slice module);

/* True when a record of this level is dropped whatever its module is: lets the parser stop at the level key. */
bool levels_drops_all(const struct levels *l, enum level level);

bool levels_asks_module(const struct levels *l); /* is there a directive with a target? */
bool levels_has_bare(const struct levels *l); /* is there a directive without a target? `check` warns when not */
/* The text of the directive that decides for this module, for `explain`; empty when none does. */
struct slice levels_directive(const struct levels *l, struct slice module);
struct slice levels_text(const struct levels *l);

#endif
