#include "agent/base/ask.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct ask {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned refs;
    bool is_done;
    struct buf answer;
};

struct ask *ask_new(size_t answer_max)
{
    struct ask *a = calloc(1, sizeof(*a));
    pthread_condattr_t attr;
    if (a == NULL)
        return NULL;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &attr);
    pthread_condattr_destroy(&attr);
    a->refs = 1;
    buf_init_in(&a->answer, answer_max, ACCOUNT_OF(MEMORY_ANSWERS));
    return a;
}

struct ask *ask_ref(struct ask *a)
{
    pthread_mutex_lock(&a->lock);
    a->refs++;
    pthread_mutex_unlock(&a->lock);
    return a;
}

void ask_unref(struct ask *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    unsigned left = --a->refs;
    pthread_mutex_unlock(&a->lock);
    if (left > 0)
        return;
    buf_deinit(&a->answer);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

struct buf *ask_answer(struct ask *a)
{
    return &a->answer;
}

void ask_done(struct ask *a)
{
    pthread_mutex_lock(&a->lock);
    a->is_done = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

int ask_wait(struct ask *a, int64_t timeout_ns, struct buf *out)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + timeout_ns;
    until.tv_sec += ns / NS_PER_SEC;
    until.tv_nsec = (long)(ns % NS_PER_SEC);
    pthread_mutex_lock(&a->lock);
    int r = 0;
    while (!a->is_done && r == 0)
        r = pthread_cond_timedwait(&a->changed, &a->lock, &until);
    r = a->is_done ? buf_append_slice(out, buf_slice(&a->answer)) : -ETIMEDOUT;
    pthread_mutex_unlock(&a->lock);
    return r;
}
