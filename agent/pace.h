/*
 * pace.h - keeps the process to a share of one core (limits.cpu): the reader asks before each turn of a file when it may
 * go on. What the writer and the sender spend follows from what was read, so it is enough to hold back the reader.
 *
 * The share holds over seconds. What was not spent lapses but for PACE_CREDIT_NS, so that a quiet hour is not followed by
 * a loud one.
 *
 * Threads: one owner. Units: ns; cpu_ns is the processor time of the whole process.
 */
#ifndef TAILRACE_AGENT_PACE_H
#define TAILRACE_AGENT_PACE_H

#include <stdint.h>

#define PACE_CREDIT_NS INT64_C(100000000)

struct pace {
    unsigned percent;       /* of one core; 0: no limit */
    int64_t mono_ns, cpu_ns; /* from here on is counted */
};

void pace_init(struct pace *p, unsigned percent, int64_t mono_ns, int64_t cpu_ns);
/* When the next turn may be: mono_ns, or later. */
int64_t pace_next(struct pace *p, int64_t mono_ns, int64_t cpu_ns);

#endif
