/*
 * series.h - counters with label values that come from log lines: a family has a name and label names, a series the values.
 *
 * Made on first use and kept for the life of the process, so that no counter is seen falling. A family has at most `max`
 * series; what comes later counts in one whose values are all "_other". Values are cut at SERIES_VALUE_MAX.
 * Threads: any may look; a series is added to by one (counter_bump).
 */
#ifndef TAILRACE_BASE_SERIES_H
#define TAILRACE_BASE_SERIES_H

#include "agent/base/stats.h"

#define SERIES_LABELS_MAX 8
#define SERIES_VALUE_MAX 150
#define SERIES_FAMILIES_MAX 256

struct series_family;
struct series {
    counter value;
};

/* The one with this name and these label names, made when new; it is shown while someone has it. NULL: too many. Waits for memory
 * (must.h). The slices are copied. */
struct series_family *series_family(struct slice name, struct slice help, const struct slice *labels, size_t n_labels);
/* As often as series_family() gave it: then it is not shown. */
void series_hide(struct series_family *f);

struct series *series_get(struct series_family *f, const struct slice *values, size_t max);

/* For /metrics. Families in the order they were made, those that are shown. */
struct series_seen {
    void (*family)(void *ctx, struct slice name, struct slice help);
    void (*series)(void *ctx, struct slice name, const struct slice *labels, const struct slice *values, size_t n, uint64_t value);
    void *ctx;
};
void series_each(const struct series_seen *to);

#endif
