/*
 * disk_core.h - inside the model disk: the struct, and what its files call of each other.
 *
 * A node is an inode. refs counts names (current and durable), descriptors, pending names that mention it, and watches;
 * at 0 the slot is free. Bytes above size are zero in `now`, above old_size in `old`, up to the capacities.
 */
#ifndef TAILRACE_TESTS_SIM_DISK_CORE_H
#define TAILRACE_TESTS_SIM_DISK_CORE_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "tests/sim/disk.h"

#define NO_NODE UINT32_MAX
#define ROOT 0u

struct store {
    uint8_t *p;
    size_t cap;
};

/* A write or truncate that is not on the platter; the bytes of a write are in redo. */
struct pend {
    bool is_truncate;
    uint64_t off, len; /* truncate: len is the new size */
    size_t at;
};

struct entry {
    uint32_t hash, node;
    char name[DISK_NAME_MAX + 1];
};

struct names {
    struct entry *e;
    size_t n, cap;
};

struct node {
    bool is_used;
    bool is_safe;  /* what it holds lasts at once: no `old`, no pending */
    bool has_lost; /* a sync failed: `now` and `old` differ where nothing is pending */
    unsigned zone;
    mode_t mode;
    uint32_t refs, nlink, n_fds, n_watches;
    uint64_t ino, generation;
    int64_t btime, mtime, ctime;
    uint32_t home; /* the folder of its newest name, NO_NODE: that one was removed */
    char name[DISK_NAME_MAX + 1];
    /* files, links */
    struct store now, old;
    uint64_t size, old_size;
    struct pend *pend;
    size_t n_pend, cap_pend;
    struct store redo;
    size_t redo_len;
    uint64_t pages;   /* charged against the space */
    bool has_charged_name;
    uint32_t err_seq; /* errors of writing back */
    int lock_fd;      /* -1: not locked */
    /* folders */
    struct names names, old_names;
    uint32_t parent;
};

/* A change of names that is not durable: del_dir/del goes, add_dir/add comes; NO_NODE: not that half. */
struct name_op {
    uint32_t del_dir, add_dir, node;
    bool is_stuck; /* NAMES_LOOSE: its sync_dir failed */
    char del[DISK_NAME_MAX + 1], add[DISK_NAME_MAX + 1];
};

struct dfd {
    bool is_used, is_worlds;
    uint32_t node, err_seen;
    int flags;
    uint64_t since; /* of the agent's calls */
};

struct event {
    int wd;
    uint32_t mask, cookie;
    char name[DISK_NAME_MAX + 1];
};

struct watching {
    int wd;
    uint32_t node, mask;
};

#define INSTANCES 8

struct instance {
    bool is_used;
    struct watching *watches;
    size_t n_watches, cap_watches;
    int next_wd;
    struct event *events; /* those from `first` on wait */
    size_t first, n_events, cap_events;
};

/* A rename that is seen already, and whose event is to come. */
struct late {
    uint32_t armed, left; /* calls: of the next rename; of this one, 0: there is none */
    uint32_t from_dir, to_dir, mask, cookie;
    char from[DISK_NAME_MAX + 1], to[DISK_NAME_MAX + 1];
};

struct fault {
    struct disk_fault f;
    uint32_t left_to_skip, left;
};

#define GHOST_BYTES (64 * KIB)

struct disk {
    struct disk_conf conf;
    uint64_t rng, entropy;
    struct node **nodes;
    size_t n_nodes, cap_nodes; /* slots in use or used before; allocated */
    uint32_t *free_slots;
    size_t n_free, cap_free;
    uint64_t next_ino, *free_inos;
    size_t n_free_inos, cap_free_inos;
    uint64_t generation;
    dev_t dev;
    struct dfd *fds;
    size_t n_fds, cap_fds;
    unsigned n_agent_fds;
    struct name_op *ops;
    size_t n_ops, cap_ops;
    bool is_dead;
    struct fault faults[DISK_FAULTS_MAX];
    size_t n_faults;
    uint64_t struck, calls, calls_of[DISK_N_OPS];
    bool is_limited;
    uint64_t space_left;
    uint8_t ghost[GHOST_BYTES]; /* of removed files; at the offsets they had, modulo its length */
    bool has_ghost;
    struct instance instances[INSTANCES];
    uint32_t cookie;
    bool holds_events;
    uint32_t lose_per_million;
    struct late late;
    void (*slow)(void *ctx, int64_t ns);
    void *slow_ctx;
    void (*call)(void *ctx, const char *what, int64_t result);
    void *call_ctx;
    void (*look)(void *ctx, enum disk_op op, const char *name);
    void *look_ctx;
};

/* ---- disk.c ---- */
extern struct disk *disk_current;
extern const struct fs_ops disk_ops;

static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}
static inline uint64_t rng_next(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(*state);
}
/* 0 … n-1; n > 0. */
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
    return rng_next(state) % n;
}

void *model_grow(void *p, size_t *cap, size_t need, size_t item_bytes);
void store_need(struct store *s, size_t need); /* zeros beyond what it had */
int64_t model_time(const struct disk *d);

static inline struct node *node_at(const struct disk *d, uint32_t i)
{
    return d->nodes[i];
}
uint32_t node_new(struct disk *d, mode_t mode, uint32_t parent);
void node_ref(struct disk *d, uint32_t i);
void node_unref(struct disk *d, uint32_t i);
void node_clear(struct node *n);
void node_charge(struct disk *d, struct node *n); /* pages, after its size or reservation changed */

uint32_t name_hash(const char *name, size_t len);
uint32_t names_find(const struct names *t, const char *name, size_t len);
/* The current name and, where the folder is not safe, the pending change. del_dir, add_dir: NO_NODE for none. */
int names_change(struct disk *d, uint32_t del_dir, const char *del, uint32_t add_dir, const char *add, uint32_t node);
void name_op_commit(struct disk *d, struct name_op *op); /* on the platter, and forgotten */
void name_op_drop(struct disk *d, struct name_op *op);
/* What an older change says of a name that a newer one, which is committed, says something of, counts no more. */
void name_op_supersede(struct disk *d, struct name_op *older, const struct name_op *newer);
void names_put_old(struct disk *d, uint32_t dir, const char *name, uint32_t node);

/* Where a path leads. dir and name: the last component's; node NO_NODE: it is not there (then 0 all the same, when the
 * folder is). Negative errno when there is no such folder. */
struct where {
    uint32_t dir, node;
    char name[DISK_NAME_MAX + 1];
};
int walk(const struct disk *d, uint32_t from, const char *path, bool follow, struct where *ret, char *real);

/* ---- disk_bytes.c ---- */
void file_write(struct disk *d, struct node *n, const void *ptr, size_t len, uint64_t off);
void file_resize(struct disk *d, struct node *n, uint64_t len);
void file_synced(struct node *n);
void file_sync_failed(struct disk *d, struct node *n);
void file_after_crash(struct disk *d, struct node *n, enum disk_loss loss, uint64_t *rng);
void file_drop_cache(struct node *n);

/* ---- disk_fd.c ---- */
int fd_new(struct disk *d, uint32_t node, int flags, bool is_worlds);
void fd_free(struct disk *d, int fd);
struct dfd *fd_find(const struct disk *d, int fd);

/* ---- watch_model.c ---- */
void notify(struct disk *d, uint32_t dir, uint32_t mask, uint32_t cookie, const char *name);
void notify_node(struct disk *d, const struct node *n, uint32_t mask); /* at its home */
void notify_renamed(struct disk *d, const struct where *from, const struct where *to, uint32_t flag);
void late_one_call(struct disk *d); /* the agent made one that looks */
void notify_gone(struct disk *d, uint32_t dir); /* a watched folder was removed */
void notify_moved_self(struct disk *d, uint32_t dir);
void watches_reset(struct disk *d);
void watches_free(struct disk *d);

#endif
