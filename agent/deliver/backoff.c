#include "agent/deliver/backoff.h"

#include "agent/base/clock.h"
#include "agent/base/macros.h"
#include "agent/queue/fs.h"

struct deliver_timing deliver_timing = {
    .backoff_min_ns = 500 * NS_PER_MS,
    .backoff_max_ns = 60 * NS_PER_SEC,
    .hold_ns = 60 * NS_PER_SEC,
    .park_after_ns = 30 * NS_PER_SEC,
    .cursor_ns = NS_PER_SEC,
    .cursor_blocked_ns = 100 * NS_PER_MS,
    .job_retry_ns = 5 * NS_PER_SEC,
    .lane_idle_ns = 60 * NS_PER_SEC,
};

uint64_t backoff_random(uint64_t *rng)
{
    uint64_t x = *rng;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *rng = x;
    return x * UINT64_C(2685821657736338717);
}

uint64_t backoff_seed(void)
{
    uint64_t seed = 0;
    if (fs_current()->random(&seed, sizeof(seed)) < 0)
        seed = (uint64_t)clock_wall_ns() ^ (uint64_t)clock_mono_ns() << 20; /* spread is all we need */
    return seed | 1;
}

int64_t backoff_delay_ns(unsigned attempt, uint64_t *rng)
{
    const int64_t floor_ns = deliver_timing.backoff_min_ns;
    int64_t ceiling_ns = floor_ns;
    for (unsigned i = 0; i < attempt && ceiling_ns < deliver_timing.backoff_max_ns; i++)
        ceiling_ns *= 2;
    ceiling_ns = MIN(ceiling_ns, deliver_timing.backoff_max_ns);

    const uint64_t span = (uint64_t)(ceiling_ns - floor_ns) + 1;
    return floor_ns + (int64_t)(backoff_random(rng) % span);
}
