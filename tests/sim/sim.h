/*
 * sim.h - the simulator: the agent's own code, single-threaded, on the model disk, the model clock, the model network and
 * model servers, from a seed. docs/SIMULATOR.md is the manual.
 *
 *   plan.c    seed -> a configuration and a list of actions; prints them in words
 *   run.c     carries a plan out: turns of reader, writer, sender, time, deaths and starts
 *   world.c   programs that write log files and rotate them; knows each line and what was promised about it
 *   net.c     agent/deliver/http.h without a network: latencies, refusals, lost replies
 *   servers.c the model Loki and the model Elasticsearch
 *   oracle.c  what must hold after each action and at the end
 *   main.c    ranges of seeds on all cores, the story of one seed, shrinking
 *
 * One thread, one simulation at a time in a process: `sim` is it.
 */
#ifndef TAILRACE_TESTS_SIM_H
#define TAILRACE_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/macros.h"
#include "agent/base/slice.h"
#include "agent/engine.h"
#include "conf/conf.h"
#include "tests/sim/disk.h"

#define SIM_OUTPUTS 3
#define SIM_LOGS 4
#define SIM_TENANTS 3
#define SIM_ACTIONS_MAX 96

/* ---- chance: a stream of its own for each use, so that leaving out one action changes no other ---- */

static inline uint64_t rnd64(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = *state;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}
static inline uint32_t rnd(uint64_t *state, uint32_t n) /* 0 … n-1 */
{
    return (uint32_t)((rnd64(state) >> 32) * n >> 32);
}
static inline bool chance(uint64_t *state, uint32_t percent)
{
    return rnd(state, 100) < percent;
}
static inline int64_t rnd_ns(uint64_t *state, int64_t from, int64_t to)
{
    return from + (int64_t)(rnd64(state) % (uint64_t)(to - from + 1));
}

/* ---- the plan ---- */

enum log_kind { LOG_JSON, LOG_TEXT, LOG_CRI };
enum server_kind { SERVER_LOKI, SERVER_ES };

struct shape { /* of the whole run */
    uint32_t n_outputs, n_logs, n_tenants;
    enum server_kind servers[SIM_OUTPUTS];
    enum log_kind kinds[SIM_LOGS];
    bool copytruncates[SIM_LOGS]; /* else renames */
    bool rots;                    /* while the agent is stopped bytes of its queues change; see rot() */
    bool compresses;              /* rotated files, also while the agent stops and starts */
    bool is_real_size;            /* production constants */
    uint32_t first_outputs;       /* mask: configured at first */
    uint32_t levels[SIM_OUTPUTS]; /* the least level that the route lets pass: 0 debug … 3 error */
    uint32_t tenant_of_output[SIM_OUTPUTS]; /* UINT32_MAX: all, else that tenant only */
    uint64_t max_bytes, segment_bytes, batch_bytes, group_bytes;
    int64_t batch_wait_ns, sync_ns;
    uint32_t sync; /* enum queue_sync, never "never" */
    uint32_t line_bytes; /* padding, at most */
    bool is_calm;        /* no stop, crash or reload, and records that span two files; see there */
    bool acts_within;    /* some of what the world does comes in the middle of the agent's looks, see struct action */
    bool rotates;        /* else outputs go and come back all the more */
    struct disk_conf disk;
};

enum action_kind {
    ACT_APPEND,      /* a = log, n = lines, b = style bits */
    ACT_HALF,        /* a = log: half a line; the rest comes with the next append */
    ACT_ROTATE,      /* a = log: rename; b = the writer goes on in the old one until its next append */
    ACT_COPYTRUNCATE,/* a = log */
    ACT_DELETE,      /* a = log: its oldest rotated file, or the live one when b */
    ACT_GZIP,        /* a = log: the newest rotated plain file; b: only begun */
    ACT_WAIT,        /* ns */
    ACT_SERVER,      /* a = output, b = mode, ns = how long */
    ACT_FAULT,       /* b = enum fault_kind, n = skip, ns = how long */
    ACT_SPACE,       /* the disk is full but for n bytes, for ns */
    ACT_CRASH,       /* b = enum disk_loss, or KILL; n = in so many disk calls (0: now) */
    ACT_STOP,        /* a clean stop and a start */
    ACT_RELOAD,      /* a = output that comes or goes; SIM_OUTPUTS: the same configuration */
    ACT_CLOCK,       /* ns: the wall clock jumps */
    ACT_EVENTS,      /* b = 0 overflow, 1 held, 2 go on */
    ACT_CACHES,      /* b = 0 drop, 1 written back, 2 written back and failed */
    ACT_RENUMBER,    /* another device number, seen at the next start */
    ACT_KINDS
};

enum fault_kind { FAULT_SYNC, FAULT_SHORT, FAULT_ENOSPC, FAULT_EIO_WRITE, FAULT_LATE, FAULT_SYNC_DIR, FAULT_UNLINK,
                  FAULT_CREATE, FAULT_EIO_READ, FAULT_KINDS };

#define CRASH_KILL 100u

struct action {
    uint8_t kind, a, b;
    bool is_out;    /* left out by shrinking */
    bool is_within; /* comes while the agent looks, in the time that the action before it has; between two turns if it did not look */
    uint32_t n;
    int64_t ns;     /* the action's own time */
    int64_t run_ns; /* what passes after it */
    uint64_t rng;   /* the action's own chance */
};

struct plan {
    uint64_t seed;
    struct shape shape;
    struct action acts[SIM_ACTIONS_MAX];
    size_t n;
};

void plan_make(uint64_t seed, struct plan *ret);
void plan_print_shape(const struct plan *p);
void action_words(const struct plan *p, const struct action *a, char *to, size_t cap);

/* ---- lines ---- */

enum poison { POISON_NONE, POISON_MAPPING, POISON_ITEM, POISON_WHOLE };

struct line {
    uint8_t log, tenant, level, poison;
    uint8_t expects;     /* mask of outputs that a route sends it to */
    uint8_t may_miss;    /* mask: its file was gone before it was promised */
    uint8_t may_garble;  /* mask of 1: parts of it may arrive as lines of their own */
    uint8_t got, again;  /* masks: stored once; more than once in other bytes */
    uint8_t refused;     /* mask: the server said no for good */
    uint32_t text_crc;
    uint32_t homes;      /* files that hold it whole */
    uint64_t ident[SIM_OUTPUTS]; /* of the entry or document that was stored */
};

/* ---- the simulation ---- */

struct wake { int64_t part[ENGINE_PARTS]; };

struct sim {
    const struct plan *plan;
    bool is_traced, shows_calls;
    struct disk *disk;
    int64_t mono_ns, wall_off_ns;
    uint64_t rng;              /* schedule */

    size_t acts_done, acts_armed; /* actions before these have begun; may come while the agent looks */
    bool is_acting;            /* the last that has begun is not at its end */
    uint32_t rotated;          /* mask of logs, in this turn */
    uint32_t looks_left;       /* until the next step */
    uint64_t look_rng;
    uint64_t turn_calls;       /* the agent's before this turn; UINT64_MAX between turns */

    struct engine_world world;
    struct stepper stepper;
    struct engine *engine;     /* NULL: down */
    struct conf *confs[1 << SIM_OUTPUTS]; /* by mask of outputs; made on first use */
    struct conf *conf;
    uint32_t outputs;          /* mask: configured now */
    uint32_t seen;             /* mask: were configured once, and their queues may know of it */
    uint32_t fresh;            /* mask: new ones that nothing has arrived from, and that may not have noted where they began */
    int64_t fresh_ns;          /* since then */
    struct wake wake;
    enum engine_part in_part;
    bool is_in_step;
    unsigned starts;
    int64_t started_ns;

    struct line *lines;
    size_t n_lines, cap_lines;
    uint32_t garbage[SIM_OUTPUTS]; /* distinct things that arrived and are no line */
    uint32_t unheard[SIM_OUTPUTS]; /* lines that a server dropped with 204 after it had refused them for good */

    int64_t fault_until_ns, space_until_ns;
    uint64_t parked_peak[SIM_OUTPUTS]; /* bytes in parked/ at once */
    uint64_t n_rots;           /* bytes of queues that were changed */
    uint64_t turns;            /* for the report and for runaways */
    bool is_renumbered;        /* at the next start of the machine */
    bool has_failed;
    char failure[512];
};
extern struct sim sim;

/* The plan from begin to end: false and sim.failure when something did not hold. */
bool sim_run(const struct plan *plan, bool is_traced);
void PRINTF_LIKE(1, 2) sim_fail(const char *fmt, ...); /* the first one counts */
void PRINTF_LIKE(1, 2) sim_say(const char *fmt, ...);  /* with --trace */
void sim_free(void); /* before the process ends */

/* Index of the output in the configuration at work, -1 = not in it; and back. */
int sim_conf_index(unsigned slot);

/* ---- world.c ---- */
void world_begin(void);
/* Appends, halves, rotations, deletions, compressions. world_step() does the next part of it, one change of names or two that
 * belong together; false: that was the last. A rename's events come after so many looks of the agent. */
void world_act(const struct action *a);
bool world_step(uint32_t late);
/* The agent's memory and descriptors are gone. */
void world_agent_died(void);
/* A reload while the disk takes nothing: what was renamed before it was noted may be forgotten. */
void world_unsettled(void);
/* Half lines are ended, halted compressions too. */
void world_heal(void);
/* A text that arrived at a server: the line it holds, or NULL. */
struct line *world_line_of(struct slice text, uint32_t *ret_uid);
bool world_may_garble(void); /* pieces of lines may arrive */
void world_settle(void); /* before the oracle asks what may be missing */
void world_output_begins(void); /* it may begin in the middle of a record */
void world_output_gone(unsigned slot); /* removed from the configuration */
bool world_is_begin_noted(void); /* where new outputs began: at the next sync, where nothing is wrong with the disk */
void world_free(void);

/* ---- net.c, servers.c ---- */
enum server_mode {
    MODE_OK,
    MODE_REFUSED,     /* nobody listens */
    MODE_RESET,       /* the connection breaks before or after the request was carried out */
    MODE_LOST_REPLY,  /* carried out, the answer never comes */
    MODE_TIMEOUT,     /* nothing, for a minute */
    MODE_SLOW,
    MODE_503,
    MODE_429,         /* with Retry-After, sometimes */
    MODE_401,
    MODE_404,
    MODE_PROXY,       /* 200 and a page */
    MODE_CUT_REPLY,   /* carried out; half of the answer */
    MODE_413,         /* more than a few lines are too many */
    MODE_TENANT_429,  /* one tenant or index */
    MODE_TENANT_401,
    MODE_ITEMS_429,   /* Elasticsearch: some items */
    MODE_ITEMS_503,
    MODE_POISON,      /* refuses poisoned lines as the real ones do */
    MODE_REDIRECT,
    MODE_260,
    MODES
};
const char *mode_words(enum server_mode m);

void net_begin(void);
int64_t net_next_ns(void);   /* when a call has news; INT64_MAX: none */
void net_set_mode(unsigned slot, enum server_mode m, int64_t until_ns, uint64_t rng);
void net_heal(void);
unsigned net_slot_of_url(struct slice url);

struct reply_out {
    long status;
    const char *type;  /* content type */
    const char *failure;
    int64_t retry_after_ns;
    struct buf *body;
};
void servers_begin(void);
/* Carries a request out. mode: of the server, for this request. */
void server_push(unsigned slot, struct slice url, struct slice tenant, struct slice wire, enum server_mode mode,
                 uint64_t *rng, struct reply_out *ret);
/* Loki has a line of this body already. */
bool server_has_some_of(unsigned slot, struct slice wire);
void servers_cure(void); /* what was refused for its content is taken from now on */
void servers_free(void);

/* ---- oracle.c ---- */
void oracle_each_turn(void);
void oracle_each_action(void);
bool oracle_is_settled(void); /* nothing is missing any more, as far as can be seen from outside */
void oracle_end(void);

/* ---- peek.c: what only an outsider may know ---- */
bool peek_has_events(struct disk *d);
uint64_t peek_folder_bytes(struct disk *d, const char *path); /* of its files; 0: there is none */
bool peek_is_open(struct disk *d, const char *path, uint64_t since); /* by the agent, since one of its first so many calls */

#endif
