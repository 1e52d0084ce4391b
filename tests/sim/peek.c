/*
 * What only an outsider may know of the model disk.
 */
#include "tests/sim/disk_core.h"
#include "tests/sim/sim.h"

bool peek_has_events(struct disk *d)
{
    for (size_t i = 0; i < INSTANCES && !d->holds_events; i++)
        if (d->instances[i].is_used && d->instances[i].n_events > d->instances[i].first)
            return true;
    return false;
}

uint64_t peek_folder_bytes(struct disk *d, const char *path)
{
    struct where w;
    uint64_t bytes = 0;
    if (walk(d, 0, path, true, &w, NULL) < 0 || w.node == NO_NODE)
        return 0;
    const struct names *names = &node_at(d, w.node)->names;
    for (size_t i = 0; i < names->n; i++)
        bytes += node_at(d, names->e[i].node)->size;
    return bytes;
}

bool peek_is_open(struct disk *d, const char *path, uint64_t since)
{
    const uint64_t ino = disk_ino(d, path);
    for (size_t i = 0; ino != 0 && i < d->n_fds; i++)
        if (d->fds[i].is_used && !d->fds[i].is_worlds && d->fds[i].since <= since && node_at(d, d->fds[i].node)->ino == ino)
            return true;
    return false;
}
