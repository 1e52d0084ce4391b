/*
 * budget.h - the one account of the memory that grows with input, and what is left of limits.memory for lines on their
 * way.
 *
 * Each large holder has an account; buffers (buf.h) and tables add to it by the block, never by the line. Tables (files,
 * streams, lanes, the queues' positions) are as large as the world is. What limits.memory leaves beside the base and the
 * tables is the flow: half of it for batches (open bodies and groups on the way to the writer), half for sending (bodies
 * loaded from the queues, requests, replies), each in equal shares of the outputs. A share that is used up makes its
 * output wait: its group is closed and handed over early, then reading for it stops (feeder.h, writer.h), and the sender
 * loads no more (deliver.h). So one output that is blocked keeps no other from memory, and nothing is dropped.
 *
 * An output that holds nothing may always take one line or one frame, whatever is left: that is FLOW_MIN and a line of
 * LINE_BYTES_MAX beyond the limit in the worst case.
 *
 * Threads: any; relaxed atomics. budget_configure from main, before the threads start.
 */
#ifndef TAILRACE_BASE_BUDGET_H
#define TAILRACE_BASE_BUDGET_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/limits.h"

/* Code, stacks, configuration, libraries and the heap's own waste: measured, 11 MiB resident with nothing to do. */
#define MEMORY_BASE_BYTES (12 * MIB)
/* Left for the flow of one output however small the limit or large the tables: batches of 256 KiB and one frame. */
#define FLOW_MIN_BYTES (512 * KIB)
/* Of batches on the way to the disk no more than this is of use, all outputs together: the writer never waits for the reader
 * with it. With 8 MiB one output is no faster, rather slower, for less stays in the processor's cache; two came to 34 MiB
 * resident, with what lies free between the heap's blocks, and to 32.7 with 6 MiB. */
#define BATCHES_ALL_MAX (5 * MIB)
/* Bodies beyond this, all outputs together, would not make sending faster. */
#define SENDING_ALL_MAX (4 * MIB)

/* What the accounts are summed by, for people. */
enum memory_kind {
    MEMORY_FILES,   /* followed files, their origins and places */
    MEMORY_JOINS,   /* records of several lines in the making */
    MEMORY_BATCHES, /* open bodies, groups on the way to the writer, bytes being sealed */
    MEMORY_STREAMS, /* what the outputs remember of streams and origins */
    MEMORY_QUEUES,  /* the queues' tables of positions and parked frames */
    MEMORY_LANES,   /* the sender's lanes, frames and parked frames */
    MEMORY_SENDING, /* bodies loaded, requests, replies */
    MEMORY_ANSWERS, /* pages of the admin endpoint */
    MEMORY_KINDS
};
const char *memory_kind_name(enum memory_kind k);

/* 0 is no account: buffers of a fixed size, command line tools. Batches and sending have one for each output. */
#define ACCOUNT_OF(kind) ((uint8_t)(1 + (kind)))
#define ACCOUNT_BATCHES(output) ((uint8_t)(1 + MEMORY_KINDS + (output)))
#define ACCOUNT_SENDING(output) ((uint8_t)(1 + MEMORY_KINDS + OUTPUTS_MAX + (output)))
#define ACCOUNTS (1 + MEMORY_KINDS + 2 * OUTPUTS_MAX)
static_assert(ACCOUNTS <= UINT8_MAX, "accounts are bytes");

extern _Atomic int64_t budget_accounts[ACCOUNTS];

/* bytes may be negative: given back. */
static inline void budget_add(uint8_t account, int64_t bytes)
{
    if (account != 0 && bytes != 0)
        atomic_fetch_add_explicit(&budget_accounts[account], bytes, memory_order_relaxed);
}
static inline size_t budget_of(uint8_t account)
{
    int64_t n = atomic_load_explicit(&budget_accounts[account], memory_order_relaxed);
    return n > 0 ? (size_t)n : 0;
}
/* A block of the heap that was just taken, or is about to be freed; NULL is fine. */
void budget_took(uint8_t account, void *block);
void budget_gives(uint8_t account, void *block);
/* realloc() and free() of a block of the account. */
void *budget_realloc(uint8_t account, void *block, size_t bytes);
void budget_free(uint8_t account, void *block);

/* limit_bytes 0: no limit (tools, tests). n_outputs share the flow. */
void budget_configure(uint64_t limit_bytes, size_t n_outputs);
size_t budget_used(enum memory_kind k);
size_t budget_limit(void); /* as configured, SIZE_MAX = none */
size_t budget_total(void); /* of all kinds */

/* One output's share now: it falls as tables grow. */
size_t budget_batches_share(void);
size_t budget_sending_share(void);

/* Records of several pieces take an eighth of the limit, or what is no fewer than two of them: they are shipped as they
 * are instead of growing further. */
bool budget_joins_are_full(void);

/* The tables alone leave no more than the minimum: batches are small now. */
bool budget_is_exceeded(void);

#endif
