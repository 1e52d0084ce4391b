/*
 * Parked frames that were given up, until their files are gone: first their lines are in the log of dead/ as lost, with
 * a GIVEN item for each in the same frame, then the file is removed. A kill in between counts nothing twice and forgets nothing.
 */
#include <errno.h>

#include "agent/base/bytes.h"
#include "agent/queue/core.h"

#define GIVEN_BYTES 16

bool given_add(struct queue *q, uint64_t id, uint64_t seq)
{
    if (q->n_given == GIVEN_MAX)
        return false;
    q->given[q->n_given++] = (struct given){ .id = id, .seq = seq };
    return true;
}

bool given_has(const struct queue *q, uint64_t id)
{
    for (size_t i = 0; i < q->n_given; i++)
        if (q->given[i].id == id)
            return true;
    return false;
}

bool given_is_another(struct queue *q, uint64_t id, uint64_t seq)
{
    for (size_t i = 0; i < q->n_given; i++) {
        if (q->given[i].id != id || q->given[i].seq == seq)
            continue;
        q->given[i] = q->given[--q->n_given];
        return true;
    }
    return false;
}

int given_put(const struct queue *q, bool with_news, struct buf *meta)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < q->n_given; i++)
        if (with_news || q->given[i].is_logged)
            r = meta_put_u64s(meta, META_GIVEN, false, (const uint64_t[]){ q->given[i].id, q->given[i].seq }, 2);
    return r;
}

void given_set_logged(struct queue *q)
{
    for (size_t i = 0; i < q->n_given; i++)
        q->given[i].is_logged = true;
}

void given_take(struct queue *q, struct slice meta)
{
    struct meta_item item;
    bool is_first = true;
    while (meta_next(&meta, &item) > 0) {
        if (item.tag != META_GIVEN || item.bytes.len < GIVEN_BYTES)
            continue;
        if (is_first) /* each frame names all that are left */
            q->n_given = 0;
        is_first = false;
        (void)given_add(q, get_le64(item.bytes.ptr), get_le64(item.bytes.ptr + 8));
    }
    given_set_logged(q);
}

void given_remove(struct queue *q)
{
    char name[SEGMENT_NAME_BYTES];
    bool is_gone[GIVEN_MAX] = { false };
    bool any = false;
    for (size_t i = 0; i < q->n_given; i++) {
        if (!q->given[i].is_logged)
            continue;
        parked_file_name(name, q->given[i].id);
        int r = q->fs->unlink(q->parked_fd, name);
        is_gone[i] = r == 0 || r == -ENOENT;
        any |= is_gone[i];
    }
    if (!any || q->fs->sync_dir(q->parked_fd) < 0)
        return; /* named until it cannot come back */
    size_t kept = 0;
    for (size_t i = 0; i < q->n_given; i++)
        if (!is_gone[i])
            q->given[kept++] = q->given[i];
    q->n_given = kept;
}
