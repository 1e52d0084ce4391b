#include "agent/pace.h"

void pace_init(struct pace *p, unsigned percent, int64_t mono_ns, int64_t cpu_ns)
{
    *p = (struct pace){ .percent = percent, .mono_ns = mono_ns, .cpu_ns = cpu_ns };
}

int64_t pace_next(struct pace *p, int64_t mono_ns, int64_t cpu_ns)
{
    if (p->percent == 0)
        return mono_ns;
    /* Both count from the same moment, which is seconds ago at most: products stay far below 64 bits. */
    const int64_t percent = (int64_t)p->percent;
    const int64_t allowed_ns = (mono_ns - p->mono_ns) / 100 * percent, spent_ns = cpu_ns - p->cpu_ns;
    if (spent_ns > allowed_ns)
        return p->mono_ns + spent_ns / percent * 100;
    if (allowed_ns - spent_ns > PACE_CREDIT_NS) {
        p->cpu_ns = cpu_ns;
        p->mono_ns = mono_ns - PACE_CREDIT_NS / percent * 100;
    }
    return mono_ns;
}
