/*
 * writer.h - the writer thread: the only one that waits for the disk. Compresses and writes bodies that the reader
 * closed, syncs the queues every 200 ms or 8 MiB, and does the sender's durable jobs (cursor, parked, dead, unlink).
 *
 * Owns: the writing end of every queue between writer_start and writer_stop.
 */
#ifndef TAILRACE_AGENT_WRITER_H
#define TAILRACE_AGENT_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/inbox.h"
#include "agent/base/ring.h"
#include "agent/queue/queue.h"
#include "outputs/output.h"

struct writer;

/* A job of another thread: run() on the writer thread, then done() there too (it posts to its owner's inbox). */
struct writer_job {
    struct inbox_link link;                 /* first */
    void (*run)(struct writer_job *job);    /* sets result */
    void (*done)(struct writer_job *job);
    int result;
};

/* Any thread. After writer_stop began, jobs still run; nothing is lost. */
void writer_post(struct writer *w, struct writer_job *job);

#endif
