#include "agent/base/inbox.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/base/io.h"

int inbox_init(struct inbox *in)
{
    *in = (struct inbox){ .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
    if (in->event_fd < 0)
        return -errno;
    int r = pthread_mutex_init(&in->lock, NULL);
    if (r != 0)
        fd_close(&in->event_fd);
    return -r;
}

void inbox_deinit(struct inbox *in)
{
    assert(in->head == NULL);
    fd_close(&in->event_fd);
    (void)pthread_mutex_destroy(&in->lock);
}

void inbox_wake(struct inbox *in)
{
    uint64_t one = 1;
    ssize_t n;
    if (atomic_exchange(&in->is_awake, true))
        return;
    do {
        n = write(in->event_fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so the reader is awake anyway */
}

void inbox_post(struct inbox *in, struct inbox_link *msg)
{
    msg->next = NULL;
    pthread_mutex_lock(&in->lock);
    if (in->tail == NULL)
        in->head = msg;
    else
        in->tail->next = msg;
    in->tail = msg;
    pthread_mutex_unlock(&in->lock);
    inbox_wake(in);
}

struct inbox_link *inbox_take_all(struct inbox *in)
{
    uint64_t count;
    ssize_t n;
    /* Clear first: a message posted after the take leaves the descriptor readable. While is_awake stands, one write was
     * made or is about to be made, never two; so it falls only behind the read that took that one. */
    if (atomic_load(&in->is_awake)) {
        do {
            n = read(in->event_fd, &count, sizeof(count));
        } while (n < 0 && errno == EINTR);
        if (n > 0)
            (void)atomic_exchange(&in->is_awake, false);
    }
    pthread_mutex_lock(&in->lock);
    struct inbox_link *list = in->head;
    in->head = in->tail = NULL;
    pthread_mutex_unlock(&in->lock);
    return list;
}
