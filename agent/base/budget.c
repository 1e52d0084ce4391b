#include "agent/base/budget.h"

#include <malloc.h>
#include <stdlib.h>

_Atomic int64_t budget_accounts[ACCOUNTS];

static _Atomic uint64_t limit;
static _Atomic size_t outputs = 1;

const char *memory_kind_name(enum memory_kind k)
{
    static const char *const names[MEMORY_KINDS] = { "files",  "joins", "batches", "streams",
                                                     "queues", "lanes", "sending", "answers" };
    return names[k];
}

void budget_configure(uint64_t limit_bytes, size_t n_outputs)
{
    atomic_store(&limit, limit_bytes);
    atomic_store(&outputs, MAX(n_outputs, (size_t)1));
}

/* With the heap's own word before each block. */
#define HEAD_BYTES 8

void budget_took(uint8_t account, void *block)
{
    if (block != NULL)
        budget_add(account, (int64_t)(malloc_usable_size(block) + HEAD_BYTES));
}

void budget_gives(uint8_t account, void *block)
{
    if (block != NULL)
        budget_add(account, -(int64_t)(malloc_usable_size(block) + HEAD_BYTES));
}

void *budget_realloc(uint8_t account, void *block, size_t bytes)
{
    budget_gives(account, block);
    void *more = realloc(block, bytes);
    budget_took(account, more == NULL ? block : more);
    return more;
}

void budget_free(uint8_t account, void *block)
{
    budget_gives(account, block);
    free(block);
}

static size_t sum_of(uint8_t first, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += budget_of((uint8_t)(first + i));
    return sum;
}

size_t budget_used(enum memory_kind k)
{
    size_t own = budget_of(ACCOUNT_OF(k));
    if (k == MEMORY_BATCHES)
        return own + sum_of(ACCOUNT_BATCHES(0), OUTPUTS_MAX);
    return k == MEMORY_SENDING ? own + sum_of(ACCOUNT_SENDING(0), OUTPUTS_MAX) : own;
}

size_t budget_limit(void)
{
    uint64_t n = atomic_load_explicit(&limit, memory_order_relaxed);
    return n == 0 ? SIZE_MAX : (size_t)n;
}

size_t budget_total(void)
{
    return sum_of(1, ACCOUNTS - 1);
}

/* All but the flow itself. */
static size_t tables(void)
{
    return budget_of(ACCOUNT_OF(MEMORY_FILES)) + budget_of(ACCOUNT_OF(MEMORY_JOINS)) +
           budget_of(ACCOUNT_OF(MEMORY_STREAMS)) + budget_of(ACCOUNT_OF(MEMORY_QUEUES)) +
           budget_of(ACCOUNT_OF(MEMORY_LANES)) + budget_of(ACCOUNT_OF(MEMORY_ANSWERS));
}

/* Of one output, batches and sending together. */
static size_t flow_share(void)
{
    size_t n = atomic_load_explicit(&outputs, memory_order_relaxed);
    size_t all = budget_limit(), used = MEMORY_BASE_BYTES + tables();
    return MAX(all > used ? (all - used) / n : 0, (size_t)FLOW_MIN_BYTES);
}

size_t budget_batches_share(void)
{
    size_t n = atomic_load_explicit(&outputs, memory_order_relaxed);
    return MIN(flow_share() / 2, BATCHES_ALL_MAX / n);
}

size_t budget_sending_share(void)
{
    size_t n = atomic_load_explicit(&outputs, memory_order_relaxed);
    return MIN(flow_share() / 2, SENDING_ALL_MAX / n);
}

bool budget_joins_are_full(void)
{
    return budget_of(ACCOUNT_OF(MEMORY_JOINS)) >= MAX(budget_limit() / 8, 2 * LINE_BYTES_MAX);
}

bool budget_is_exceeded(void)
{
    return flow_share() <= FLOW_MIN_BYTES;
}
