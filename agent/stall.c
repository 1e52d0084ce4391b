#include "agent/stall.h"

static bool is_waiting(const struct stall_facts *f)
{
    return f->durable > f->acked && f->waits == WAITS_NOTHING;
}

enum stall_news stall_look(struct stall *s, const struct stall_facts *f, int64_t mono_ns)
{
    bool has_moved = f->acked != s->acked || f->attempts != s->attempts;
    s->acked = f->acked;
    s->attempts = f->attempts;
    if (!is_waiting(f) || has_moved) {
        bool was_told = s->is_told;
        s->is_told = false;
        s->since_ns = is_waiting(f) ? mono_ns : 0;
        return was_told ? STALL_ENDS : STALL_NOTHING;
    }
    if (s->since_ns == 0)
        s->since_ns = mono_ns;
    if (mono_ns - s->since_ns < QUEUE_STALL_NS)
        return STALL_NOTHING;
    s->since_ns = mono_ns;
    bool is_first = !s->is_told;
    s->is_told = true;
    return is_first ? STALL_BEGINS : STALL_GOES_ON;
}
