/*
 * The model disk: death of the agent, power cuts, the kernel's own doings, and images.
 */
#include <assert.h>
#include <stdlib.h>
#include <zlib.h>

#include "tests/sim/disk_core.h"

void disk_die(struct disk *d)
{
    d->is_dead = true;
}

bool disk_is_dead(const struct disk *d)
{
    return d->is_dead;
}

static void close_all(struct disk *d, bool also_the_worlds)
{
    for (size_t i = 0; i < d->n_fds; i++)
        if (d->fds[i].is_used && (also_the_worlds || !d->fds[i].is_worlds))
            fd_free(d, DISK_FD_FIRST + (int)i);
}

void disk_kill(struct disk *d)
{
    close_all(d, false);
    watches_reset(d);
    d->late.left = 0;
    d->is_dead = false;
}

/* ---- names after a power cut ---- */

static void decide_names(struct disk *d, enum disk_loss loss, uint64_t *rng)
{
    bool keeps_all = loss != LOSS_RANDOM && loss != LOSS_ALL && loss != LOSS_NAMES;
    size_t prefix = keeps_all ? d->n_ops : loss == LOSS_RANDOM ? (size_t)rng_below(rng, d->n_ops + 1) : 0;
    bool is_loose = loss == LOSS_RANDOM && d->conf.names == NAMES_LOOSE;
    for (size_t i = 0; i < d->n_ops; i++) {
        if (is_loose ? rng_below(rng, 2) != 0 : i < prefix)
            name_op_commit(d, &d->ops[i]);
        else
            name_op_drop(d, &d->ops[i]);
    }
    d->n_ops = 0;
}

static void forget_names(struct disk *d, uint32_t dir)
{
    struct node *n = node_at(d, dir);
    size_t count = n->names.n;
    n->names.n = 0;
    for (size_t i = 0; i < count; i++) {
        struct node *child = node_at(d, n->names.e[i].node);
        child->nlink--;
        if (child->home == dir)
            child->home = NO_NODE;
        node_unref(d, n->names.e[i].node);
    }
}

static void read_names(struct disk *d, uint32_t dir)
{
    struct node *n = node_at(d, dir);
    n->names.e = model_grow(n->names.e, &n->names.cap, n->old_names.n, sizeof(*n->names.e));
    for (size_t i = 0; i < n->old_names.n; i++) {
        const struct entry *e = &n->old_names.e[i];
        struct node *child = node_at(d, e->node);
        n->names.e[n->names.n++] = *e;
        node_ref(d, e->node);
        child->nlink++;
        child->home = dir;
        memcpy(child->name, e->name, sizeof(child->name));
        if (S_ISDIR(child->mode))
            child->parent = dir;
    }
}

static bool is_unsafe_dir(const struct node *n)
{
    return n->is_used && S_ISDIR(n->mode) && !n->is_safe;
}

static void names_after_crash(struct disk *d, enum disk_loss loss, uint64_t *rng)
{
    size_t n = d->n_nodes;
    for (uint32_t i = 0; i < n; i++)
        if (is_unsafe_dir(node_at(d, i)))
            node_ref(d, i); /* none of them goes while we walk over them */
    decide_names(d, loss, rng);
    for (uint32_t i = 0; i < n; i++)
        if (is_unsafe_dir(node_at(d, i)))
            forget_names(d, i);
    for (uint32_t i = 0; i < n; i++)
        if (is_unsafe_dir(node_at(d, i)))
            read_names(d, i);
    for (uint32_t i = 0; i < n; i++)
        if (is_unsafe_dir(node_at(d, i)))
            node_unref(d, i);
}

void disk_crash(struct disk *d, enum disk_loss loss, uint64_t seed)
{
    uint64_t rng = mix64(seed ^ UINT64_C(0x5eed));
    close_all(d, true);
    watches_reset(d);
    d->is_dead = false;
    names_after_crash(d, loss, &rng);
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (node_at(d, i)->is_used)
            file_after_crash(d, node_at(d, i), loss, &rng);
}

void disk_renumber(struct disk *d)
{
    d->dev += 16;
}

void disk_drop_caches(struct disk *d)
{
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (node_at(d, i)->is_used)
            file_drop_cache(node_at(d, i));
}

static void commit_all(struct disk *d)
{
    for (size_t i = 0; i < d->n_ops; i++)
        name_op_commit(d, &d->ops[i]);
    d->n_ops = 0;
}

void disk_write_back(struct disk *d, bool fails)
{
    if (!fails)
        commit_all(d);
    for (uint32_t i = 0; i < d->n_nodes; i++) {
        struct node *n = node_at(d, i);
        if (!n->is_used || n->n_pend == 0)
            continue;
        if (!fails) {
            file_synced(n);
        } else {
            file_sync_failed(d, n);
            n->err_seq++;
        }
    }
}

void disk_sync_logs(struct disk *d)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->n_ops; i++) {
        struct name_op op = d->ops[i];
        uint32_t dir = op.add_dir != NO_NODE ? op.add_dir : op.del_dir;
        if (d->conf.names == NAMES_JOURNAL || node_at(d, dir)->zone == DISK_LOGS)
            name_op_commit(d, &op);
        else
            d->ops[kept++] = op;
    }
    d->n_ops = kept;
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (node_at(d, i)->is_used && node_at(d, i)->zone == DISK_LOGS)
            file_synced(node_at(d, i));
}

uint64_t disk_pending_bytes(const struct disk *d)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < d->n_nodes; i++)
        bytes += node_at(d, i)->redo_len;
    return bytes;
}

/* ---- images ---- */

struct saved_name {
    uint32_t dir, node;
    char name[DISK_NAME_MAX + 1];
};

struct saved_node {
    bool is_used;
    unsigned zone;
    mode_t mode;
    uint64_t ino, generation, size;
    int64_t btime, mtime, ctime;
    size_t at; /* in bytes */
};

struct disk_image {
    struct saved_node *nodes;
    size_t n_nodes;
    struct saved_name *names;
    size_t n_names;
    uint8_t *bytes;
    uint64_t next_ino, generation;
    dev_t dev;
};

static void *alloc(size_t n, size_t bytes)
{
    void *p = calloc(MAX(n, (size_t)1), MAX(bytes, (size_t)1));
    if (p == NULL)
        abort();
    return p;
}

static void save_node(struct disk_image *im, uint32_t i, const struct node *n, size_t *at)
{
    im->nodes[i] = (struct saved_node){ n->is_used, n->zone,  n->mode,  n->ino,   n->generation,
                                        n->size,    n->btime, n->mtime, n->ctime, *at };
    if (n->size > 0)
        memcpy(im->bytes + *at, n->now.p, (size_t)n->size);
    *at += (size_t)n->size;
    for (size_t k = 0; k < n->names.n; k++) {
        struct saved_name *s = &im->names[im->n_names++];
        s->dir = i;
        s->node = n->names.e[k].node;
        memcpy(s->name, n->names.e[k].name, sizeof(s->name));
    }
}

struct disk_image *disk_image_take(struct disk *d)
{
    struct disk_image *im = alloc(1, sizeof(*im));
    size_t n_names = 0, n_bytes = 0, at = 0;
    for (uint32_t i = 0; i < d->n_nodes; i++) {
        n_names += node_at(d, i)->names.n;
        n_bytes += (size_t)node_at(d, i)->size;
    }
    im->nodes = alloc(d->n_nodes, sizeof(*im->nodes));
    im->names = alloc(n_names, sizeof(*im->names));
    im->bytes = alloc(n_bytes, 1);
    im->n_nodes = d->n_nodes;
    im->next_ino = d->next_ino;
    im->generation = d->generation;
    im->dev = d->dev;
    for (uint32_t i = 0; i < d->n_nodes; i++)
        save_node(im, i, node_at(d, i), &at);
    return im;
}

static void put_node(struct disk *d, uint32_t i, const struct saved_node *s, const uint8_t *bytes)
{
    struct node *n = node_at(d, i);
    n->zone = s->zone;
    n->is_safe = s->zone == DISK_LOGS && !d->conf.logs_are_lost;
    n->ino = s->ino;
    n->generation = s->generation;
    n->btime = s->btime;
    if (s->size == 0)
        return;
    store_need(&n->now, (size_t)s->size);
    memcpy(n->now.p, bytes + s->at, (size_t)s->size);
    n->size = s->size;
    if (!n->is_safe) {
        store_need(&n->old, (size_t)s->size);
        memcpy(n->old.p, bytes + s->at, (size_t)s->size);
        n->old_size = s->size;
    }
}

void disk_image_put(struct disk *d, const struct disk_image *im)
{
    struct disk_conf conf = d->conf;
    disk_reset(d, &conf, d->rng);
    for (uint32_t i = 1; i < im->n_nodes; i++) {
        uint32_t got = node_new(d, im->nodes[i].mode, ROOT);
        assert(got == i);
    }
    d->n_free_inos = 0;
    for (uint32_t i = 0; i < im->n_nodes; i++) {
        if (im->nodes[i].is_used) {
            put_node(d, i, &im->nodes[i], im->bytes);
            continue;
        }
        node_at(d, i)->ino = im->nodes[i].ino;
        node_ref(d, i);
        node_unref(d, i); /* back to the free ones */
    }
    for (size_t i = 0; i < im->n_names; i++)
        (void)names_change(d, NO_NODE, NULL, im->names[i].dir, im->names[i].name, im->names[i].node);
    commit_all(d);
    for (uint32_t i = 0; i < im->n_nodes; i++) {
        struct node *n = node_at(d, i);
        n->mtime = im->nodes[i].mtime;
        n->ctime = im->nodes[i].ctime;
        if (n->is_used)
            node_charge(d, n);
    }
    d->next_ino = im->next_ino;
    d->generation = im->generation;
    d->dev = im->dev;
}

void disk_image_free(struct disk_image *im)
{
    if (im == NULL)
        return;
    free(im->nodes);
    free(im->names);
    free(im->bytes);
    free(im);
}

static void print_dir(struct disk *d, uint32_t dir, const char *path, FILE *out)
{
    const struct node *n = node_at(d, dir);
    for (size_t i = 0; i < n->names.n; i++) {
        char sub[PATH_MAX];
        const struct node *c = node_at(d, n->names.e[i].node);
        (void)snprintf(sub, sizeof(sub), "%s/%s", path, n->names.e[i].name);
        if (S_ISDIR(c->mode))
            print_dir(d, n->names.e[i].node, sub, out);
        else
            (void)fprintf(out, "%s ino %llu size %llu crc %08lx pending %zu\n", sub, (unsigned long long)c->ino,
                          (unsigned long long)c->size, crc32(0, c->now.p, (uInt)c->size), c->n_pend);
    }
}

void disk_print(struct disk *d, FILE *out)
{
    print_dir(d, ROOT, "", out);
}
