/*
 * ask.h - a question to another thread: the answer is text, and the asker waits only so long. The question outlives
 * whichever side leaves first.
 */
#ifndef TAILRACE_BASE_ASK_H
#define TAILRACE_BASE_ASK_H

#include <stdint.h>

#include "agent/base/buf.h"

struct ask;

struct ask *ask_new(size_t answer_max);           /* held by the asker; NULL = out of memory */
struct ask *ask_ref(struct ask *a);               /* one more for the answering side */
void ask_unref(struct ask *a);
struct buf *ask_answer(struct ask *a);            /* the answering thread fills it … */
void ask_done(struct ask *a);                     /* … and says so */
/* 0 and the answer appended to out, or -ETIMEDOUT. */
NODISCARD int ask_wait(struct ask *a, int64_t timeout_ns, struct buf *out);

#endif
