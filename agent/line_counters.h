/*
 * line_counters.h - what log lines say, as metrics: tailrace_log_lines_total by input, tenant, service and level, and the
 * counters of the configuration (`counters`), tailrace_log_NAME_total.
 *
 * Every line counts once, when it is first read: in log_lines whatever becomes of it, in a counter of the configuration when
 * its levels keep it (others are not parsed whole) and its match holds. After a restart all begin at 0.
 * Threads: reader; made and freed where the pipeline is.
 */
#ifndef TAILRACE_AGENT_LINE_COUNTERS_H
#define TAILRACE_AGENT_LINE_COUNTERS_H

#include "agent/base/series.h"
#include "agent/source.h"

struct line_counters;

NODISCARD int line_counters_new(const struct conf *conf, struct line_counters **ret_lc, struct err *err);
void line_counters_free(struct line_counters *lc); /* NULL is fine */

void line_counters_level(struct line_counters *lc, struct source *s, const struct record *rec);
void line_counters_rules(struct line_counters *lc, const struct record *rec);

#endif
