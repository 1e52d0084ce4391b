/*
 * dead.h - lines that the server will never take, into dead/, with the reason, before their frame is acknowledged.
 */
#ifndef TAILRACE_DELIVER_DEAD_H
#define TAILRACE_DELIVER_DEAD_H

#include "agent/deliver/deliver.h"

/* Lines of a frame with one reason. */
struct dead_lines {
    const uint32_t *idx; /* ascending */
    uint32_t n;
    const char *reason, *text;
    int32_t status;
    bool is_partly_stored; /* the server may have some of them after all */
};

/* Has them written by the writer; the frame stays open until they are synced. ld and items: the frame of p, loaded and
 * decoded; row_of: the row of each item. -ENOMEM or the output's error: nothing was begun. */
NODISCARD int dead_letter(struct part *p, const struct loaded *ld, const struct items *items, const uint8_t *row_of,
                          const struct dead_lines *lots, size_t n_lots);


#endif
