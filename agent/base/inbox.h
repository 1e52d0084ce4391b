/*
 * inbox.h - messages from many threads to one, and the eventfd that wakes it.
 *
 * A message is a struct with a struct inbox_link first; the receiver owns it after inbox_post(). A lock lives
 * inside and is held for a pointer swap only.
 */
#ifndef TAILRACE_BASE_INBOX_H
#define TAILRACE_BASE_INBOX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "agent/base/macros.h"

struct inbox_link {
    struct inbox_link *next;
};

struct inbox {
    pthread_mutex_t lock;
    struct inbox_link *head, *tail;
    int event_fd;          /* readable while there may be messages */
    atomic_bool is_awake;  /* the eventfd was written, or is about to be */
};

NODISCARD int inbox_init(struct inbox *in);
void inbox_deinit(struct inbox *in); /* must be empty */
void inbox_post(struct inbox *in, struct inbox_link *msg);
/* All messages in order of posting, as a list; NULL when none. Clears the eventfd first. */
struct inbox_link *inbox_take_all(struct inbox *in);
/* Something was posted, or it was woken, since the last take. */
static inline bool inbox_is_awake(const struct inbox *in)
{
    return atomic_load((atomic_bool *)&in->is_awake);
}
/* Wakes the receiver without a message. */
void inbox_wake(struct inbox *in);

#endif
