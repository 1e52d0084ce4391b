/*
 * disk.h - the model disk: agent/queue/fs.h, and inotify (agent/tail/watch.h, by watch_model.c), in memory.
 *
 * Who is on it. *The agent* comes through fs_ops, as on the real disk, and can be failed and killed at any call.
 * *The world* - programs that write logs, logrotate, a person with rm - comes through the functions under "the
 * world"; those never fail by plan and count as no call. *The test* looks with the functions under "for oracles",
 * which nobody notices.
 *
 * Two zones. What lies below the folders given to disk_mkdir(…, DISK_STATE) behaves as a real disk does at a power
 * cut: bytes last after fdatasync, names after sync_dir. Everything else is DISK_LOGS, where each change lasts at
 * once (what a program never synced is nobody's promise), unless conf.logs_are_lost says otherwise.
 *
 * Bytes. A file has what everyone reads (the page cache) and what is on the platter, with the list of writes between
 * the two. A power cut makes each 512-byte sector as it was after some one of those writes, see enum disk_loss. A
 * fdatasync that fails by plan marks the pages clean: some sectors are written, the others never will be, the next sync
 * says 0; reads return the new bytes until disk_drop_caches(). A later write to a 4 KiB page writes the whole page.
 *
 * Names. Every create, rename, unlink and mkdir in DISK_STATE is pending until sync_dir of its folder. At a power
 * cut, by conf.names: NAMES_JOURNAL keeps a prefix of all pending changes in their order, and a sync_dir makes all that
 * are pending durable (ext4, xfs); NAMES_LOOSE keeps any subset, and a sync_dir is for its own folder only. A rename is
 * never half done. NAMES_LOOSE: a change whose sync_dir failed stays pending, whatever is synced later, until a newer change
 * of the same name is durable. fdatasync of a file promises nothing about its name.
 *
 * Inodes. st_ino grows for ever, or with conf.reuses_inodes the lowest free number is taken, as ext4 does; each life
 * has another generation and birth time (conf.has_birth). Times are clock_wall_ns(): give the clock a source first.
 *
 * The agent's death. At a fault DISK_DIE_…, or disk_die(), every further call of the agent fails with -EIO and has no
 * effect. Free what the dead one held (queue_close, tail_close), then disk_kill() or disk_crash(): its descriptors,
 * locks and watches are gone and the disk is alive.
 *
 * Cost: about 50-300 ns a call; memory is kept from seed to seed. One thread; several disks, one of them current.
 * The same seed and the same calls give the same disk, except for what tests do with pointers.
 */
#ifndef TAILRACE_TESTS_SIM_DISK_H
#define TAILRACE_TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/base/macros.h"
#include "agent/queue/fs.h"

struct disk;

#define DISK_SECTOR 512
#define DISK_PAGE 4096
#define DISK_NAME_MAX 95 /* longer: -ENAMETOOLONG */
#define DISK_FD_FIRST 10000 /* no descriptor of the model is one of the process */

enum disk_zone { DISK_LOGS = 1, DISK_STATE = 2, DISK_ANYWHERE = 3 };

enum disk_names { NAMES_JOURNAL, NAMES_LOOSE };

struct disk_conf {
    enum disk_names names;
    bool reuses_inodes;
    bool has_birth;          /* generation and birth time */
    bool logs_are_lost;      /* DISK_LOGS loses what is not synced, too; disk_sync_logs() is its sync */
    bool shows_stale;        /* unwritten sectors below the size may show bytes of removed files, not only zeros */
    bool has_no_reserve;     /* fallocate: -EOPNOTSUPP */
    bool has_no_inotify;     /* watch_init: polling only */
    bool shuffles_lists;     /* readdir in another order each time */
    unsigned fds_max;        /* of the agent; 0: 65,536. -EMFILE */
    unsigned watches_max;    /* 0: 65,536. -ENOSPC */
    unsigned events_max;     /* 0: 16,384, then IN_Q_OVERFLOW */
    int64_t time_grain_ns;   /* mtime is rounded down to this; 0: 1 ns. ext4: 4,000,000 */
    uint64_t space_bytes;    /* see disk_set_space; 0: no limit */
};

struct disk *disk_new(void);   /* aborts when out of memory, as all of the model does */
void disk_free(struct disk *d);
/* An empty disk with "/" (DISK_LOGS), no faults, no descriptors. Nothing is given back to the heap but large
 * buffers. */
void disk_reset(struct disk *d, const struct disk_conf *conf, uint64_t seed);
/* fs_current() is this disk from here on (NULL: the real one). */
void disk_use(struct disk *d);
struct disk *disk_in_use(void);

/* ---- the agent's calls: faults ---- */

enum disk_op {
    DISK_OPEN,   /* of what is there */
    DISK_CREATE, /* open that makes a file */
    DISK_CLOSE,
    DISK_READ,
    DISK_WRITE,
    DISK_SYNC,
    DISK_SYNC_DIR,
    DISK_TRUNCATE,
    DISK_RESERVE,
    DISK_RENAME,
    DISK_UNLINK,
    DISK_MKDIR,
    DISK_STAT, /* fstat and stat */
    DISK_LIST,
    DISK_SPACE,
    DISK_LOCK,
    DISK_REALPATH,
    DISK_N_OPS
};
#define DISK_OP(op) (1u << (op))
#define DISK_ALL_OPS (DISK_OP(DISK_N_OPS) - 1u)
/* Those that change something. */
#define DISK_CHANGES                                                                                               \
    (DISK_OP(DISK_CREATE) | DISK_OP(DISK_WRITE) | DISK_OP(DISK_SYNC) | DISK_OP(DISK_SYNC_DIR) |                    \
     DISK_OP(DISK_TRUNCATE) | DISK_OP(DISK_RESERVE) | DISK_OP(DISK_RENAME) | DISK_OP(DISK_UNLINK) |                \
     DISK_OP(DISK_MKDIR))

enum disk_fault_kind {
    DISK_FAIL,       /* -error. SYNC: pages are clean nevertheless, see above. All others: nothing happened */
    DISK_FAIL_LATE,  /* -error although it was done; a WRITE in part (NFS and signals do this) */
    DISK_SHORT,      /* READ, WRITE: less than asked, at least 1 byte; other calls: nothing happens */
    DISK_SLOW,       /* done after slow_ns, see disk_on_slow */
    DISK_DIE_BEFORE, /* the agent is killed: the call was not begun */
    DISK_DIE_WITHIN, /* WRITE: in part; SYNC: some sectors; else as one of the other two */
    DISK_DIE_AFTER
};

struct disk_fault {
    enum disk_fault_kind kind;
    uint32_t ops;         /* DISK_OP bits */
    unsigned zones;       /* enum disk_zone bits, of the file; 0: anywhere */
    int error;            /* positive errno; 0: EIO */
    uint32_t skip;        /* so many calls that would match go by first */
    uint32_t times;       /* strikes so often; 0: for ever */
    uint32_t per_million; /* chance of each match to strike; 0: always */
    int64_t slow_ns;
};

#define DISK_FAULTS_MAX 16
void disk_fault_add(struct disk *d, const struct disk_fault *f);
void disk_faults_clear(struct disk *d);
uint64_t disk_faults_struck(const struct disk *d); /* since reset or clear */
/* The agent's calls since reset; of one op. A sweep runs once to count, then fails the 1st, the 2nd … */
uint64_t disk_calls(const struct disk *d);
uint64_t disk_calls_of(const struct disk *d, enum disk_op op);
void disk_on_slow(struct disk *d, void (*slow)(void *ctx, int64_t ns), void *ctx); /* moves the clock */
/* Each call of the agent, for a trace: "write /state/queue/out/cursor 512@4096", result. Costs nothing when NULL. */
void disk_on_call(struct disk *d, void (*call)(void *ctx, const char *what, int64_t result), void *ctx);

/* After each call of the agent that looks at names or files in DISK_LOGS - open, fstat, stat, list, realpath -, before the agent
 * has its result: the world may act here. name: what was asked for, NULL for a descriptor. NULL: nobody acts. */
void disk_on_look(struct disk *d, void (*look)(void *ctx, enum disk_op op, const char *name), void *ctx);
const char *disk_op_word(enum disk_op op);

/* Bytes that the agent may still allocate: pages of files, kept ones of fallocate, one page for each new name. What
 * the agent removes is given back. 0: no limit. Writes that fit in part are short, the others -ENOSPC. Writes over
 * bytes that exist need none. */
void disk_set_space(struct disk *d, uint64_t bytes);

/* ---- death and crash ---- */

void disk_die(struct disk *d);
bool disk_is_dead(const struct disk *d);
/* kill -9: the page cache stays, the world's descriptors too. */
void disk_kill(struct disk *d);

enum disk_loss {
    LOSS_RANDOM,  /* each file one of the below, or any sectors; names by conf.names */
    LOSS_NOTHING, /* all reached the disk in time */
    LOSS_ALL,     /* nothing that was not synced is there: bytes, sizes, names */
    LOSS_DATA,    /* names are there, files as they were synced */
    LOSS_ZEROS,   /* names and sizes are there, unsynced sectors are zeros (those over old bytes: the old) */
    LOSS_STALE,   /* the same with bytes of removed files, or noise, for zeros */
    LOSS_NAMES,   /* all data is there, unsynced names are not */
    LOSS_TORN,    /* names are there; each file's pending writes up to some byte in one of them */
    LOSS_SECTORS, /* names are there; each sector by itself */
    LOSS_N
};
/* The power goes and comes back. The world's descriptors are gone too (disk_writer_*: -EBADF). */
void disk_crash(struct disk *d, enum disk_loss loss, uint64_t seed);
/* Another device number from here on, as after a reboot that found the disks in another order. */
void disk_renumber(struct disk *d);
/* Memory is short: clean pages are read from the platter again. What a failed sync dropped is gone. */
void disk_drop_caches(struct disk *d);
/* The kernel writes in the background, without being asked: all pending bytes, and names, of both zones; or, with
 * fails, drops some bytes, which the next fdatasync through each descriptor that is open now reports once. */
void disk_write_back(struct disk *d, bool fails);

/* ---- the world ---- */
/* Absolute paths. 0 or negative errno, which the caller checks as a shell would. Parents must exist. */

/* mkdir -p. DISK_STATE: the new folders, and all that is ever made below them, are of that zone. */
int disk_mkdir(struct disk *d, const char *path, enum disk_zone zone);
int disk_rmdir(struct disk *d, const char *path);
/* open(O_APPEND|O_CREAT), write, close. */
int disk_append(struct disk *d, const char *path, const void *ptr, size_t len);
/* cat > path: the same inode, truncated, or a new one. */
int disk_write_file(struct disk *d, const char *path, const void *ptr, size_t len);
int disk_truncate(struct disk *d, const char *path, uint64_t len);
int disk_rename(struct disk *d, const char *from, const char *to);
int disk_link(struct disk *d, const char *from, const char *to);
int disk_symlink(struct disk *d, const char *target, const char *path);
int disk_unlink(struct disk *d, const char *path);
int disk_mkfifo(struct disk *d, const char *path);
/* cp: a new inode, or the same one that `to` has, truncated; at most len bytes (UINT64_MAX: all). A copytruncate is
 * disk_copy and disk_truncate(from, 0), with whatever comes between. */
int disk_copy(struct disk *d, const char *from, const char *to, uint64_t len);
/* gzip path: path.gz with the same mtime, path removed. permille < 1000: so much of the .gz is written and path is
 * still there, gzip is at work; a later call with 1000 ends it. */
int disk_gzip(struct disk *d, const char *path, unsigned permille);
int disk_set_mtime(struct disk *d, const char *path, int64_t wall_ns);
int disk_chmod(struct disk *d, const char *path, mode_t mode); /* mode without any r bit: the agent's open is -EACCES */
void disk_sync_logs(struct disk *d);

/* A program that keeps its file open over renames and unlinks, O_APPEND. A handle >= 0 or negative errno. */
int disk_writer_open(struct disk *d, const char *path);
int disk_writer_write(struct disk *d, int writer, const void *ptr, size_t len);
int disk_writer_truncate(struct disk *d, int writer, uint64_t len);
void disk_writer_close(struct disk *d, int writer);

/* ---- inotify ---- */

/* The queue of events of each instance is dropped, IN_Q_OVERFLOW in its place. */
void disk_events_overflow(struct disk *d);
/* This share of events never comes (the kernel does not do this; a bug in our own bookkeeping would look like it). */
void disk_events_lose(struct disk *d, uint32_t per_million);
/* The next rename of the world is seen at once, and its events come after `calls` more looks of the agent: as when the kernel is
 * between the two. It holds the locks of both folders there, so before the agent lists one, before any other event and any other
 * change of the world they have come. disk_events_arrive(): now, if they are still to come. */
void disk_events_delay(struct disk *d, uint32_t calls);
void disk_events_arrive(struct disk *d);
/* Events wait until told otherwise: the agent is slow to look. */
void disk_events_hold(struct disk *d, bool holds);

/* ---- for oracles and damage ---- */

int64_t disk_size(struct disk *d, const char *path); /* -ENOENT … */
uint64_t disk_ino(struct disk *d, const char *path); /* 0: none */
/* What everyone reads now. */
ssize_t disk_read(struct disk *d, const char *path, void *ptr, size_t len, uint64_t off);
/* Changes bytes in the cache and on the platter, or the size: rot, a person with dd. */
int disk_poke(struct disk *d, const char *path, uint64_t off, const void *ptr, size_t len);
int disk_cut(struct disk *d, const char *path, uint64_t len);
/* The names in a folder, in the order in which they came. */
int disk_each(struct disk *d, const char *path, void (*each)(void *ctx, const char *name), void *ctx);
unsigned disk_open_fds(const struct disk *d); /* of the agent: 0 after it has closed everything */
uint64_t disk_pending_bytes(const struct disk *d);

/* All files, as they are read now, to be put back many times: nothing is pending after, the agent has nothing open.
 * Inode numbers, generations and times are kept. */
struct disk_image;
struct disk_image *disk_image_take(struct disk *d);
void disk_image_put(struct disk *d, const struct disk_image *image);
void disk_image_free(struct disk_image *image);
/* "/state/queue/out/cursor 4608 crc" … one line each, for a trace. */
void disk_print(struct disk *d, FILE *out);

#endif
