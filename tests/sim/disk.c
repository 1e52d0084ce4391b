/*
 * The model disk: its life, inodes, names and paths.
 */
#include <assert.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "tests/sim/disk_core.h"

#define KEEP_BYTES (256 * KIB) /* of a buffer from one seed to the next */
#define LINKS_MAX 40

struct disk *disk_current;

void disk_use(struct disk *d)
{
    disk_current = d;
    fs_set_ops(d == NULL ? NULL : &disk_ops);
}

struct disk *disk_in_use(void)
{
    return disk_current;
}

/* ---- memory ---- */

void *model_grow(void *p, size_t *cap, size_t need, size_t item_bytes)
{
    if (need <= *cap)
        return p;
    size_t n = MAX(MAX(*cap * 2, need), (size_t)8);
    void *q = realloc(p, n * item_bytes);
    if (q == NULL)
        q = realloc(p, n * item_bytes); /* a test that fails one allocation means the agent's */
    if (q == NULL)
        abort();
    *cap = n;
    return q;
}

void store_need(struct store *s, size_t need)
{
    if (need <= s->cap)
        return;
    size_t had = s->cap;
    s->p = model_grow(s->p, &s->cap, MAX(need, (size_t)KIB), 1);
    memset(s->p + had, 0, s->cap - had);
}

static void store_clear(struct store *s, uint64_t used)
{
    if (s->cap > KEEP_BYTES) {
        free(s->p);
        *s = (struct store){ 0 };
    } else if (used > 0) {
        memset(s->p, 0, (size_t)used);
    }
}

int64_t model_time(const struct disk *d)
{
    int64_t t = clock_wall_ns();
    return d->conf.time_grain_ns > 1 ? t - t % d->conf.time_grain_ns : t;
}

/* ---- inodes ---- */

static uint64_t ino_take(struct disk *d)
{
    if (!d->conf.reuses_inodes || d->n_free_inos == 0)
        return d->next_ino++;
    size_t low = 0;
    for (size_t i = 1; i < d->n_free_inos; i++)
        if (d->free_inos[i] < d->free_inos[low])
            low = i;
    uint64_t ino = d->free_inos[low];
    d->free_inos[low] = d->free_inos[--d->n_free_inos];
    return ino;
}

uint32_t node_new(struct disk *d, mode_t mode, uint32_t parent)
{
    uint32_t i;
    if (d->n_free > 0) {
        i = d->free_slots[--d->n_free];
    } else {
        i = (uint32_t)d->n_nodes++;
        size_t had = d->cap_nodes;
        d->nodes = model_grow(d->nodes, &d->cap_nodes, d->n_nodes, sizeof(*d->nodes));
        memset(d->nodes + had, 0, (d->cap_nodes - had) * sizeof(*d->nodes));
        size_t cap = 0;
        if (d->nodes[i] == NULL) {
            d->nodes[i] = model_grow(NULL, &cap, 1, sizeof(struct node));
            memset(d->nodes[i], 0, sizeof(struct node));
        }
    }
    struct node *n = d->nodes[i];
    assert(!n->is_used && n->refs == 0);
    n->is_used = true;
    n->mode = mode;
    n->zone = parent == NO_NODE ? DISK_LOGS : node_at(d, parent)->zone;
    n->is_safe = n->zone == DISK_LOGS && !d->conf.logs_are_lost;
    n->ino = ino_take(d);
    n->generation = ++d->generation;
    n->btime = n->mtime = n->ctime = model_time(d);
    n->home = NO_NODE;
    n->parent = parent;
    n->lock_fd = -1;
    return i;
}

/* What a removed file held, for sectors that were never written. */
static void ghost_keep(struct disk *d, const struct node *n)
{
    if (!S_ISREG(n->mode) || n->zone != DISK_STATE)
        return;
    for (uint64_t off = 0; off < n->size; off += DISK_SECTOR)
        memcpy(d->ghost + off % GHOST_BYTES, n->now.p + off, (size_t)MIN((uint64_t)DISK_SECTOR, n->size - off));
    d->has_ghost |= n->size > 0;
}

void node_clear(struct node *n)
{
    struct node old = *n;
    store_clear(&old.now, old.size);
    store_clear(&old.old, old.old_size);
    if (old.redo.cap > KEEP_BYTES)
        store_clear(&old.redo, 0);
    *n = (struct node){ .now = old.now, .old = old.old, .redo = old.redo, .pend = old.pend, .cap_pend = old.cap_pend,
                        .names = { old.names.e, 0, old.names.cap },
                        .old_names = { old.old_names.e, 0, old.old_names.cap } };
}

void node_ref(struct disk *d, uint32_t i)
{
    node_at(d, i)->refs++;
}

void node_unref(struct disk *d, uint32_t i)
{
    struct node *n = node_at(d, i);
    assert(n->refs > 0);
    if (--n->refs > 0)
        return;
    ghost_keep(d, n);
    for (size_t k = 0; k < n->old_names.n; k++)
        node_unref(d, n->old_names.e[k].node); /* of a folder that was removed */
    n->old_names.n = 0;
    d->free_inos = model_grow(d->free_inos, &d->cap_free_inos, d->n_free_inos + 1, sizeof(*d->free_inos));
    d->free_inos[d->n_free_inos++] = n->ino;
    if (d->is_limited)
        d->space_left += (n->pages + n->has_charged_name) * DISK_PAGE;
    node_clear(n);
    d->free_slots = model_grow(d->free_slots, &d->cap_free, d->n_free + 1, sizeof(*d->free_slots));
    d->free_slots[d->n_free++] = i;
}

void node_charge(struct disk *d, struct node *n)
{
    uint64_t pages = (n->size + DISK_PAGE - 1) / DISK_PAGE;
    if (n->zone != DISK_STATE || pages == n->pages)
        return;
    if (d->is_limited && pages > n->pages)
        d->space_left -= MIN((pages - n->pages) * DISK_PAGE, d->space_left);
    else if (d->is_limited)
        d->space_left += (n->pages - pages) * DISK_PAGE;
    n->pages = pages;
}

/* ---- names ---- */

uint32_t name_hash(const char *name, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    return h;
}

static size_t names_index(const struct names *t, const char *name, size_t len)
{
    uint32_t h = name_hash(name, len);
    for (size_t i = 0; i < t->n; i++)
        if (t->e[i].hash == h && memcmp(t->e[i].name, name, len) == 0 && t->e[i].name[len] == '\0')
            return i;
    return SIZE_MAX;
}

uint32_t names_find(const struct names *t, const char *name, size_t len)
{
    size_t i = names_index(t, name, len);
    return i == SIZE_MAX ? NO_NODE : t->e[i].node;
}

/* Sets, or removes (NO_NODE), a name; the node it had before. */
static uint32_t names_set(struct names *t, const char *name, uint32_t node)
{
    size_t len = strlen(name), i = names_index(t, name, len);
    uint32_t had = i == SIZE_MAX ? NO_NODE : t->e[i].node;
    if (node == NO_NODE) {
        if (i != SIZE_MAX)
            memmove(&t->e[i], &t->e[i + 1], (--t->n - i) * sizeof(*t->e));
        return had;
    }
    if (i == SIZE_MAX) {
        t->e = model_grow(t->e, &t->cap, t->n + 1, sizeof(*t->e));
        i = t->n++;
        t->e[i].hash = name_hash(name, len);
        memcpy(t->e[i].name, name, len + 1);
    }
    t->e[i].node = node;
    return had;
}

void names_put_old(struct disk *d, uint32_t dir, const char *name, uint32_t node)
{
    uint32_t had = names_set(&node_at(d, dir)->old_names, name, node);
    if (node != NO_NODE)
        node_ref(d, node);
    if (had != NO_NODE)
        node_unref(d, had);
}

static void names_put(struct disk *d, uint32_t dir, const char *name, uint32_t node)
{
    struct node *dn = node_at(d, dir);
    if (node != NO_NODE) {
        struct node *n = node_at(d, node);
        node_ref(d, node);
        n->nlink++;
        n->home = dir;
        memcpy(n->name, name, strlen(name) + 1);
        if (S_ISDIR(n->mode))
            n->parent = dir;
    }
    uint32_t had = names_set(&dn->names, name, node);
    dn->mtime = dn->ctime = model_time(d);
    if (had == NO_NODE)
        return;
    struct node *h = node_at(d, had);
    h->nlink--;
    h->ctime = dn->mtime;
    if (h->home == dir && strcmp(h->name, name) == 0 && had != node)
        h->home = NO_NODE;
    node_unref(d, had);
}

static bool is_pending(const struct disk *d, uint32_t dir)
{
    return dir != NO_NODE && !node_at(d, dir)->is_safe;
}

static void op_hold(struct disk *d, const struct name_op *op, void (*each)(struct disk *d, uint32_t i))
{
    if (op->add_dir != NO_NODE) {
        each(d, op->add_dir);
        each(d, op->node);
    }
    if (op->del_dir != NO_NODE)
        each(d, op->del_dir);
}

int names_change(struct disk *d, uint32_t del_dir, const char *del, uint32_t add_dir, const char *add, uint32_t node)
{
    if (is_pending(d, del_dir) || is_pending(d, add_dir)) {
        d->ops = model_grow(d->ops, &d->cap_ops, d->n_ops + 1, sizeof(*d->ops));
        struct name_op *op = &d->ops[d->n_ops++];
        *op = (struct name_op){ .del_dir = del_dir, .add_dir = add_dir, .node = node };
        if (del_dir != NO_NODE)
            memcpy(op->del, del, strlen(del) + 1);
        if (add_dir != NO_NODE)
            memcpy(op->add, add, strlen(add) + 1);
        op_hold(d, op, node_ref);
    }
    /* The new name first: the node must not go between the two. */
    if (add_dir != NO_NODE)
        names_put(d, add_dir, add, node);
    if (del_dir != NO_NODE)
        names_put(d, del_dir, del, NO_NODE);
    return 0;
}

void name_op_commit(struct disk *d, struct name_op *op)
{
    if (op->add_dir != NO_NODE && !node_at(d, op->add_dir)->is_safe)
        names_put_old(d, op->add_dir, op->add, op->node);
    if (op->del_dir != NO_NODE && !node_at(d, op->del_dir)->is_safe)
        names_put_old(d, op->del_dir, op->del, NO_NODE);
    op_hold(d, op, node_unref);
}

static bool is_same_name(uint32_t dir, const char *name, uint32_t other_dir, const char *other)
{
    return dir != NO_NODE && dir == other_dir && strcmp(name, other) == 0;
}

static bool changes(const struct name_op *op, uint32_t dir, const char *name)
{
    return is_same_name(dir, name, op->add_dir, op->add) || is_same_name(dir, name, op->del_dir, op->del);
}

void name_op_supersede(struct disk *d, struct name_op *older, const struct name_op *newer)
{
    struct name_op was = *older;
    if (changes(newer, older->add_dir, older->add))
        older->add_dir = NO_NODE;
    if (changes(newer, older->del_dir, older->del))
        older->del_dir = NO_NODE;
    op_hold(d, older, node_ref);
    op_hold(d, &was, node_unref);
}

void name_op_drop(struct disk *d, struct name_op *op)
{
    op_hold(d, op, node_unref);
}

/* ---- paths ---- */

/* The text that is still to be walked, when links are followed. */
struct trail {
    char text[2][PATH_MAX];
    int at; /* the one that is in use */
    unsigned n_links;
};

static const char *trail_link(struct trail *t, const struct node *link, const char *rest)
{
    char *to = t->text[1 - t->at];
    if (++t->n_links > LINKS_MAX)
        return NULL;
    int n = snprintf(to, PATH_MAX, "%.*s%s", (int)link->size, (const char *)link->now.p, rest);
    t->at = 1 - t->at;
    return n < PATH_MAX ? to : NULL;
}

static void real_add(char *real, const char *name, size_t len)
{
    size_t at = strlen(real);
    if (at > 1 || at == 0)
        real[at++] = '/';
    memcpy(real + at, name, len);
    real[at + len] = '\0';
}

static void real_up(char *real)
{
    char *slash = strrchr(real, '/');
    slash[slash == real] = '\0';
}

int walk(const struct disk *d, uint32_t from, const char *path, bool follow, struct where *ret, char *real)
{
    struct trail trail; /* large: only what counts is set */
    trail.at = 0;
    trail.n_links = 0;
    uint32_t at = path[0] == '/' ? ROOT : from;
    ret->dir = ret->node = at;
    ret->name[0] = '\0';
    if (path[0] == '\0')
        return -ENOENT;
    if (real != NULL)
        memcpy(real, "/", 2);
    for (;;) {
        while (*path == '/')
            path++;
        if (*path == '\0')
            return 0;
        const char *end = strchrnul(path, '/');
        size_t len = (size_t)(end - path);
        bool is_last = end[strspn(end, "/")] == '\0';
        const struct node *dir = node_at(d, at);
        if (!S_ISDIR(dir->mode))
            return -ENOTDIR;
        if (len > DISK_NAME_MAX)
            return -ENAMETOOLONG;
        uint32_t next;
        if (len == 1 && path[0] == '.') {
            next = at;
        } else if (len == 2 && path[0] == '.' && path[1] == '.') {
            next = dir->parent == NO_NODE ? ROOT : dir->parent;
            if (real != NULL)
                real_up(real);
        } else {
            next = names_find(&dir->names, path, len);
            ret->dir = at;
            memcpy(ret->name, path, len);
            ret->name[len] = '\0';
            if (real != NULL && (next == NO_NODE || !S_ISLNK(node_at(d, next)->mode)))
                real_add(real, path, len);
        }
        if (next == NO_NODE) {
            ret->node = NO_NODE;
            return is_last ? 0 : -ENOENT;
        }
        const struct node *n = node_at(d, next);
        if (S_ISLNK(n->mode) && (!is_last || follow || *end == '/')) {
            path = trail_link(&trail, n, end);
            if (path == NULL)
                return -ELOOP;
            if (path[0] == '/') {
                at = ret->dir = ROOT;
                if (real != NULL)
                    memcpy(real, "/", 2);
            }
            ret->node = at;
            continue;
        }
        if (*end == '/' && is_last && !S_ISDIR(n->mode))
            return -ENOTDIR;
        at = ret->node = next;
        path = end;
    }
}

/* ---- life ---- */

struct disk *disk_new(void)
{
    struct disk *d = calloc(1, sizeof(*d));
    if (d == NULL)
        abort();
    disk_reset(d, &(struct disk_conf){ 0 }, 1);
    return d;
}

void disk_reset(struct disk *d, const struct disk_conf *conf, uint64_t seed)
{
    watches_reset(d);
    for (size_t i = 0; i < d->n_nodes; i++)
        node_clear(d->nodes[i]);
    d->n_nodes = d->n_free = d->n_free_inos = d->n_fds = d->n_ops = d->n_faults = 0;
    d->n_agent_fds = 0;
    d->conf = *conf;
    d->rng = mix64(seed);
    d->entropy = mix64(~seed);
    d->next_ino = 1000;
    d->generation = 0;
    d->dev = 0x801;
    d->is_dead = d->holds_events = d->has_ghost = false;
    d->struck = d->calls = 0;
    memset(d->calls_of, 0, sizeof(d->calls_of));
    d->lose_per_million = d->cookie = 0;
    d->slow = NULL;
    d->call = NULL;
    d->look = NULL;
    d->late = (struct late){ 0 };
    disk_set_space(d, conf->space_bytes);
    uint32_t root = node_new(d, S_IFDIR | 0755, NO_NODE);
    assert(root == ROOT);
    node_ref(d, root);
    node_at(d, root)->nlink = 1;
}

void disk_free(struct disk *d)
{
    if (d == NULL)
        return;
    if (disk_current == d)
        disk_use(NULL);
    watches_free(d);
    for (size_t i = 0; i < d->cap_nodes && d->nodes[i] != NULL; i++) {
        struct node *n = d->nodes[i];
        free(n->now.p);
        free(n->old.p);
        free(n->redo.p);
        free(n->pend);
        free(n->names.e);
        free(n->old_names.e);
        free(n);
    }
    free(d->nodes);
    free(d->free_slots);
    free(d->free_inos);
    free(d->fds);
    free(d->ops);
    free(d);
}
