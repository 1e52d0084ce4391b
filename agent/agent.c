#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/admin/admin.h"
#include "agent/base/budget.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/base/stats.h"
#include "agent/engine.h"
#include "agent/temporary.h"

/* Fragments of a burst are given back this often; it costs a look at the heap's top and its free pages. */
#define TRIM_NS (3 * NS_PER_SEC)

struct agent {
    struct engine_world world;
    struct engine *engine;
    struct admin *admin;
    struct slice admin_listen; /* of the configuration it was started with: owned */
    int state_fd;              /* locked: one agent owns a state folder */
    bool memory_is_tight;      /* and said so */
};

/* ---- opening ---- */

static uint64_t machine_salt(void)
{
    struct buf id;
    buf_init(&id, 256);
    uint64_t salt = 0;
    if (io_read_file(AT_FDCWD, "/etc/machine-id", &id, NULL) == 0)
        salt = slice_hash(slice_trim(buf_slice(&id)));
    buf_deinit(&id);
    return salt;
}

static void raise_descriptor_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l); /* the lower limit works too */
    }
}

/* ---- the admin endpoint's view ---- */

static int view_files(void *ctx, struct buf *out, int64_t timeout_ns)
{
    return reader_status(((struct engine *)ctx)->reader, out, timeout_ns);
}

static int view_senders(void *ctx, struct buf *out, int64_t timeout_ns)
{
    return sender_status(((struct engine *)ctx)->sender, out, timeout_ns);
}

static void show(struct agent *a)
{
    struct engine *e = a->engine;
    struct admin_view v = { .conf = e->conf, .queues = e->queues, .n_queues = e->n, .files = view_files,
                            .senders = view_senders, .ctx = e };
    if (a->admin != NULL)
        admin_set_view(a->admin, &v);
}

static int start_admin(struct agent *a, const struct conf *conf, struct err *err)
{
    if (conf->admin_listen.len == 0)
        return 0;
    char *copy = slice_dup(conf->admin_listen);
    if (copy == NULL)
        return err_set(err, -ENOMEM, "cannot start the admin endpoint");
    a->admin_listen = slice_of(copy, conf->admin_listen.len);
    return admin_start(a->admin_listen, conf->state_dir, &a->admin, err);
}

static void stop_admin(struct agent *a)
{
    admin_stop(a->admin);
    a->admin = NULL;
    free((void *)(uintptr_t)a->admin_listen.ptr);
    a->admin_listen = (struct slice){ 0 };
}

/* ---- life ---- */

/* Locked before anything in it is touched, the address file of a running agent included. */
static int take_state_dir(const struct conf *conf, int *ret_fd, struct err *err)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%.*s", SLICE_ARGS(conf->state_dir)) >= (int)sizeof(path))
        return err_set(err, -ENAMETOOLONG, "state_dir");
    int r = io_mkdirs(path, 0750, err);
    if (r < 0)
        return r;
    if (access(path, W_OK) < 0)
        return err_set(err, -errno, "the state folder %s is not writable", path);
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot open the state folder %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? err_say(err, -EBUSY, "another Tailrace uses the state folder %s", path)
                                    : err_set(err, -errno, "cannot lock the state folder %s", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int agent_start(struct conf *conf, struct agent **ret_agent, struct err *err)
{
    struct agent *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return err_set(err, -ENOMEM, "cannot start");
    a->state_fd = -1;
    a->world.machine_salt = machine_salt();
    raise_descriptor_limit();
    gauge_set(&stats.started_wall_ns, clock_wall_ns());
    gauge_set(&stats.reload_successful, 1);
    gauge_set(&stats.reload_wall_ns, clock_wall_ns());
    gauge_set(&stats.state_writable, 1);
    gauge_set(&stats.ready_config, 1);
    int r = take_state_dir(conf, &a->state_fd, err);
    if (r == 0)
        r = start_admin(a, conf, err);
    if (r == 0)
        r = engine_start(&a->world, conf, NULL, &a->engine, err);
    if (r < 0) {
        stop_admin(a);
        fd_close(&a->state_fd);
        free(a);
        return r;
    }
    (void)malloc_trim(0); /* start-up's scratch memory */
    gauge_set(&stats.ready_queues, 1);
    show(a);
    *ret_agent = a;
    return 0;
}

int agent_reload(struct agent *a, struct conf *conf, struct err *err)
{
    const char *obstacle = conf_reload_obstacle(a->engine->conf, conf);
    if (obstacle != NULL)
        return err_say(err, -EINVAL, "%s", obstacle);
    struct conf *old = a->engine->conf;
    if (a->admin != NULL)
        admin_set_view(a->admin, NULL);
    int r = engine_reload(&a->engine, conf, err);
    if (a->engine == NULL)
        exit(1); /* everything is committed: a supervisor's restart loses nothing */
    (void)malloc_trim(0); /* start-up's scratch memory */
    show(a);
    if (r == 0)
        conf_free(old);
    return r;
}

void agent_stop(struct agent *a, int64_t grace_ns)
{
    if (a == NULL)
        return;
    if (a->admin != NULL)
        admin_set_view(a->admin, NULL);
    must_not_wait();
    struct conf *conf = a->engine->conf;
    tail_close(engine_stop(a->engine, grace_ns));
    engine_free(a->engine);
    stop_admin(a);
    fd_close(&a->state_fd);
    conf_free(conf);
    free(a);
}

const struct conf *agent_conf(const struct agent *a)
{
    return a->engine->conf;
}

static int64_t resident_bytes(void)
{
    char text[128];
    CLEANUP(fd_closep) int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *pages = strchr(text, ' ');
    return pages == NULL ? 0 : strtoll(pages, NULL, 10) * sysconf(_SC_PAGESIZE);
}

/* What a burst needed goes back to the system. */
static void trim_memory(void)
{
    static int64_t next_ns;
    int64_t now = clock_mono_ns();
    if (now < next_ns)
        return;
    next_ns = now + TRIM_NS;
    (void)malloc_trim(0);
}

/* Said when it begins and when it ends, not each second in between. */
static void say_memory(struct agent *a)
{
    if (budget_is_exceeded() == a->memory_is_tight)
        return;
    a->memory_is_tight = !a->memory_is_tight;
    if (a->memory_is_tight)
        log_warn("main", "memory.tight", "the tables of what is followed leave little of limits.memory: batches are kept small",
                 LOG_NUM("limit_bytes", budget_limit()), LOG_NUM("accounted_bytes", budget_total()),
                 LOG_NUM("files_bytes", budget_used(MEMORY_FILES)), LOG_NUM("queues_bytes", budget_used(MEMORY_QUEUES)));
    else
        log_info("main", "memory.tight", "there is memory for batches again", LOG_NUM("accounted_bytes", budget_total()));
}

/* limits.min_free in bytes, of a disk of that size. */
static int64_t min_free_bytes(const struct conf_size_or_percent *min, uint64_t disk_bytes)
{
    return (int64_t)(min->percent > 0 ? disk_bytes / 100 * min->percent : min->bytes);
}

void agent_tick(struct agent *a)
{
    const struct conf *c = a->engine->conf;
    char path[4096];
    struct statvfs fs;
    stats_turn(THREAD_MAIN);
    (void)snprintf(path, sizeof(path), "%.*s", SLICE_ARGS(c->state_dir));
    if (statvfs(path, &fs) == 0) {
        gauge_set(&stats.state_free_bytes, (int64_t)(fs.f_bavail * fs.f_frsize));
        gauge_set(&stats.state_min_free_bytes, min_free_bytes(&c->min_free, fs.f_blocks * fs.f_frsize));
    }
    gauge_set(&stats.state_writable, access(path, W_OK) == 0 && (fs.f_flag & ST_RDONLY) == 0);
    temporary_expire(clock_mono_ns());
    engine_watch(a->engine);
    trim_memory();
    say_memory(a);
    gauge_set(&stats.memory_bytes, resident_bytes());
}
