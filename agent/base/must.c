#include "agent/base/must.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/log.h"

#define TRY_NS (100 * NS_PER_MS)

static atomic_bool is_ending;

void must_not_wait(void)
{
    atomic_store(&is_ending, true);
}

void must_wait(struct must *must)
{
    if (must->tries++ == 0)
        log_error("memory", "memory.exhausted", "out of memory: a thread waits until there is some");
    if (must->tries > MUST_NS / TRY_NS || atomic_load(&is_ending)) {
        log_error("memory", "memory.exhausted", "out of memory for too long: stopping; a restart loses nothing");
        abort();
    }
    (void)nanosleep(&(struct timespec){ .tv_nsec = TRY_NS }, NULL);
}

void *must_alloc(size_t bytes)
{
    struct must must = { 0 };
    void *p;
    while ((p = calloc(1, MAX(bytes, (size_t)1))) == NULL)
        must_wait(&must);
    return p;
}

char *must_dup(const char *text)
{
    struct must must = { 0 };
    char *p;
    while ((p = strdup(text)) == NULL)
        must_wait(&must);
    return p;
}
