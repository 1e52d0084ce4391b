/*
 * life.h - a life of a file on world.h: lines, a rename, a copy that is cut, a .gz, restarts; each line once at the end. For tests
 * that let something go wrong on the way.
 */
#ifndef TAILRACE_TESTS_TAIL_LIFE_H
#define TAILRACE_TESTS_TAIL_LIFE_H

#include "tests/unit/tail/world.h"

static unsigned life_written;

static inline void life_lines(struct world *w, unsigned n)
{
    char text[4096] = "";
    for (size_t at = 0; n > 0; n--)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "line %05u of a file that lives through much\n", life_written++);
    w_append(w, "a.log", text);
}

/* restart: world_crash, or what does the same; also for the first start. */
static inline void life_live(struct world *w, void (*restart)(struct world *w))
{
    life_written = 0;
    life_lines(w, 20);
    restart(w);
    world_settle(w, 1);
    life_lines(w, 20);
    world_run(w);
    w_rename(w, "a.log", "a.log.1");
    life_lines(w, 20);
    world_settle(w, 7);
    restart(w);
    life_lines(w, 5);
    world_settle(w, 1);
    w_gzip(w, "a.log.1");
    w_rename(w, "a.log.1.gz", "a.log.2.gz");
    w_copy(w, "a.log", "a.log.1");
    assert_int_equal(0, truncate(w_path(w, "a.log"), 0));
    life_lines(w, 3);
    world_settle(w, 12);
    life_lines(w, 30);
    w_rename(w, "a.log.1", "a.log.3");
    w_rename(w, "a.log", "a.log.1");
    restart(w);
    life_lines(w, 4);
    world_settle(w, 30);
}

static inline void life_expect_each_once(struct world *w, const char *what)
{
    unsigned char seen[1000] = { 0 };
    bool is_right = true;
    for (size_t i = 0; i < w->q[0].durable.n; i++)
        seen[strtoul(w->q[0].durable.item[i] + 5, NULL, 10)]++;
    for (unsigned i = 0; i < life_written; i++)
        is_right = is_right && seen[i] == 1;
    if (is_right && w->q[0].lost_bytes == 0)
        return;
    char log[16384] = "";
    ssize_t n = pread(w->log_fd, log, sizeof(log) - 1, 0);
    (void)n;
    for (unsigned i = 0; i < life_written; i++)
        if (seen[i] != 1)
            print_error("line %u: %u times\n", i, seen[i]);
    fail_msg("%s; lost bytes %lu\n%s", what, (unsigned long)w->q[0].lost_bytes, log);
}

#endif
