/*
 * Parked frames that were given up, until their files are gone: first their lines are in the log of dead/ as lost, with
 * a GIVEN item for each in the same frame, then the file is removed. A kill in between counts nothing twice and forgets nothing.
 */
#include <errno.h>

#include "agent/base/bytes.h"
#include "agent/queue/core.h"

#define GIVEN_BYTES 16

bool given_add(struct given *g, uint64_t id, uint64_t seq)
{
    if (g->n == GIVEN_MAX)
        return false;
    g->list[g->n++] = (struct given_frame){ .id = id, .seq = seq };
    return true;
}

bool given_has(const struct given *g, uint64_t id)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->list[i].id == id)
            return true;
    return false;
}

bool given_is_another(struct given *g, uint64_t id, uint64_t seq)
{
    for (size_t i = 0; i < g->n; i++) {
        if (g->list[i].id != id || g->list[i].seq == seq)
            continue;
        g->list[i] = g->list[--g->n];
        return true;
    }
    return false;
}

int given_put(const struct given *g, bool with_news, struct buf *meta)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < g->n; i++)
        if (with_news || g->list[i].is_logged)
            r = meta_put_u64s(meta, META_GIVEN, false, (const uint64_t[]){ g->list[i].id, g->list[i].seq }, 2);
    return r;
}

void given_set_logged(struct given *g)
{
    for (size_t i = 0; i < g->n; i++)
        g->list[i].is_logged = true;
}

void given_take(struct given *g, struct slice meta)
{
    struct meta_item item;
    bool is_first = true;
    while (meta_next(&meta, &item) > 0) {
        if (item.tag != META_GIVEN || item.bytes.len < GIVEN_BYTES)
            continue;
        if (is_first) /* each frame names all that are left */
            g->n = 0;
        is_first = false;
        (void)given_add(g, get_le64(item.bytes.ptr), get_le64(item.bytes.ptr + 8));
    }
    given_set_logged(g);
}

void given_remove(struct queue *q)
{
    struct given *g = &q->given;
    char name[SEGMENT_NAME_BYTES];
    bool is_gone[GIVEN_MAX] = { false };
    bool any = false;
    for (size_t i = 0; i < g->n; i++) {
        if (!g->list[i].is_logged)
            continue;
        parked_file_name(name, g->list[i].id);
        int r = q->fs->unlink(q->parked_fd, name);
        is_gone[i] = r == 0 || r == -ENOENT;
        any |= is_gone[i];
    }
    if (!any || q->fs->sync_dir(q->parked_fd) < 0)
        return; /* named until it cannot come back */
    size_t kept = 0;
    for (size_t i = 0; i < g->n; i++)
        if (!is_gone[i])
            g->list[kept++] = g->list[i];
    g->n = kept;
}
