#include "parsers/duplicates.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "parsers/keys.h"

static const uint32_t step_slots[3] = { 128, 2048, 2 * DUPLICATES_KEYS_MAX };

static size_t all_bytes(void)
{
    return (step_slots[0] + step_slots[1] + step_slots[2]) * sizeof(uint64_t);
}

int duplicates_init(struct duplicates *d)
{
    *d = (struct duplicates){ 0 };
    /* Mapped, so that the big step costs no memory until a line needs it. */
    uint64_t *all = mmap(NULL, all_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return -ENOMEM;
    d->steps[0] = all;
    d->steps[1] = all + step_slots[0];
    d->steps[2] = d->steps[1] + step_slots[1];
    /* The place of our heap is hard to guess from outside, so nobody can write keys that all probe the same slots. */
    d->seed = key_mix((uint64_t)(uintptr_t)all, (uint64_t)(uintptr_t)d);
    return 0;
}

void duplicates_deinit(struct duplicates *d)
{
    if (d->steps[0] != NULL)
        (void)munmap(d->steps[0], all_bytes());
    *d = (struct duplicates){ 0 };
}

void duplicates_begin(struct duplicates *d)
{
    d->step = 0;
    d->n = 0;
    memset(d->steps[0], 0, step_slots[0] * sizeof(uint64_t));
}

/* Returns true when it is there already. */
static bool insert(uint64_t *slots, uint32_t n_slots, uint64_t print)
{
    for (uint32_t i = (uint32_t)(print >> 32) & (n_slots - 1);; i = (i + 1) & (n_slots - 1)) {
        if (slots[i] == print)
            return true;
        if (slots[i] == 0) {
            slots[i] = print;
            return false;
        }
    }
}

static void step_up(struct duplicates *d)
{
    assert(d->step < 2);
    const uint64_t *from = d->steps[d->step];
    uint32_t n_from = step_slots[d->step];
    d->step++;
    uint64_t *to = d->steps[d->step];
    memset(to, 0, step_slots[d->step] * sizeof(uint64_t));
    for (uint32_t i = 0; i < n_from; i++)
        if (from[i] != 0)
            (void)insert(to, step_slots[d->step], from[i]); /* all differ */
}

bool duplicates_add(struct duplicates *d, uint32_t object, uint64_t key_hash)
{
    if (d->n >= step_slots[d->step] / 2) {
        if (d->step == 2)
            return true;
        step_up(d);
    }
    uint64_t print = key_mix(key_hash ^ d->seed, (uint64_t)object + 1) | 1; /* 0 is a free slot */
    if (insert(d->steps[d->step], step_slots[d->step], print))
        return true;
    d->n++;
    return false;
}
