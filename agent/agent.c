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
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/base/tenants.h"
#include "agent/deliver/sender.h"
#include "agent/reader.h"
#include "agent/registry.h"
#include "agent/writer.h"

/* How long a reload waits for requests in flight and for the disk. */
#define RELOAD_GRACE_NS (5 * NS_PER_SEC)

/* Fragments of a burst are given back this often; it costs a look at the heap's top and its free pages. */
#define TRIM_NS (3 * NS_PER_SEC)

struct engine {
    struct conf *conf;
    size_t n;
    struct output *outputs[OUTPUTS_MAX];
    struct queue *queues[OUTPUTS_MAX];
    struct queue_recovery recovery[OUTPUTS_MAX];
    struct slice inputs[INPUTS_MAX]; /* names by index */
    struct reader *reader;
    struct writer *writer;
    struct sender *sender;
};

struct agent {
    struct engine *engine;
    struct admin *admin;
    struct slice admin_listen; /* of the configuration it was started with: owned */
    int state_fd;              /* locked: one agent owns a state folder */
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

static void restore_output_rows(uint32_t output, const struct queue_recovery *rec)
{
    for (size_t i = 0; i < rec->n_rows; i++) {
        const struct recovered_row *from = &rec->rows[i];
        struct output_row *row = stats_output_row(output, tenant_intern(from->tenant));
        if (row == NULL)
            continue;
        uint64_t rest = from->queued + from->parked + from->dead;
        atomic_store(&row->accepted_lines, from->accepted);
        for (int k = 0; k < LOST_REASONS; k++) {
            atomic_store(&row->lost_lines[k], from->lost[k]);
            atomic_store(&row->lost_bytes[k], from->lost_bytes[k]);
            rest += from->lost[k];
        }
        atomic_store(&row->dead_lines, from->dead);
        if (from->dead > 0)
            stats_count_dead_reason(row, "earlier", (int64_t)from->dead); /* the reasons are in dead/ */
        gauge_set(&row->queued_lines, (int64_t)from->queued);
        gauge_set(&row->parked_lines, (int64_t)from->parked);
        atomic_store(&row->delivered_lines, from->accepted > rest ? from->accepted - rest : 0);
    }
}

static void say_recovered(const struct output_conf *oc, const struct queue_recovery *rec)
{
    if (!rec->is_new)
        log_info("queue", "queue.opened", "the queue was opened", LOG_SLICE("output", oc->name),
                 LOG_NUM("frames", rec->queued_frames), LOG_NUM("lines", rec->queued_lines),
                 LOG_NUM("files", rec->n_files), LOG_NUM("torn_bytes", rec->torn_bytes));
    if (rec->damaged_bytes > 0)
        log_error("queue", "queue.damaged", "damaged bytes of the queue were set aside",
                  LOG_SLICE("output", oc->name), LOG_NUM("bytes", rec->damaged_bytes),
                  LOG_NUM("frames", rec->damaged_frames));
}

static int open_output(struct engine *e, size_t i, struct err *err)
{
    struct output_conf *oc = &e->conf->outputs[i];
    const struct output_ops *ops = registry_ops(oc->type);
    if (ops == NULL)
        return err_say(err, -EINVAL, "outputs.%.*s: there is no output of type %s", SLICE_ARGS(oc->name), oc->type->name);
    struct queue_open_conf qc = { .output = oc,
                                  .wire_form = ops->wire_form,
                                  .min_free_bytes = e->conf->min_free.bytes,
                                  .min_free_percent = e->conf->min_free.percent };
    int r = queue_open(&qc, &e->queues[i], &e->recovery[i], err);
    if (r == 0)
        r = ops->open(oc, &e->outputs[i], err);
    if (r < 0)
        return err_prefix(err, "outputs.%.*s", SLICE_ARGS(oc->name));
    e->outputs[i]->is_resumed = !e->recovery[i].is_new;
    say_recovered(oc, &e->recovery[i]);
    return 0;
}

static void on_ready(void *ctx)
{
    (void)ctx;
    gauge_set(&stats.ready_scan, 1);
}

static void on_space(void *ctx, uint32_t output)
{
    struct engine *e = ctx;
    (void)output; /* the writer looks at every channel */
    writer_wake(e->writer);
}

static void on_frames(void *ctx)
{
    struct engine *e = ctx;
    sender_wake(e->sender);
}

static struct slice input_name(void *ctx, uint32_t input)
{
    const struct conf *c = ctx;
    return c->inputs[input].name;
}

static int start_threads(struct engine *e, struct err *err)
{
    struct writer_output writing[OUTPUTS_MAX];
    struct sender_output sending[OUTPUTS_MAX];
    for (size_t i = 0; i < e->n; i++) {
        writing[i] = (struct writer_output){ e->outputs[i], e->queues[i] };
        sending[i] = (struct sender_output){ e->outputs[i], e->queues[i] };
    }
    struct writer_conf wc = { .outputs = writing, .n_outputs = e->n, .events = reader_events(e->reader),
                              .input_name = input_name, .input_ctx = e->conf };
    int r = writer_start(&wc, &e->writer, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < e->conf->n_inputs; i++)
        e->inputs[i] = e->conf->inputs[i].name;
    struct sender_conf sc = { .outputs = sending, .n_outputs = e->n, .writer = e->writer, .inputs = e->inputs,
                              .n_inputs = e->conf->n_inputs, .on_space = on_space, .ctx = e };
    r = sender_start(&sc, &e->sender, err);
    if (r < 0)
        return r;
    writer_set_listener(e->writer, on_frames, e);
    return reader_start(e->reader, e->writer, err);
}

/* In the order of a line's way backwards: who takes lines stops after who brings them. */
static struct tail *engine_stop(struct engine *e, int64_t grace_ns)
{
    int64_t each_ns = grace_ns / 3; /* the worst case: a dead server and a full queue */
    reader_stop(e->reader, each_ns);
    if (e->writer != NULL)
        writer_set_listener(e->writer, NULL, NULL);
    sender_stop(e->sender, each_ns);
    e->sender = NULL;
    writer_stop(e->writer, each_ns);
    return e->reader != NULL ? reader_take_tail(e->reader) : NULL;
}

static void engine_free(struct engine *e)
{
    if (e == NULL)
        return;
    writer_free(e->writer);
    reader_free(e->reader);
    for (size_t i = 0; i < OUTPUTS_MAX; i++) {
        if (e->outputs[i] != NULL)
            e->outputs[i]->ops->close(e->outputs[i]);
        queue_close(e->queues[i]);
    }
    free(e);
}

static int engine_start(struct conf *conf, struct tail *adopt, struct engine **ret_engine, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    const struct queue_recovery *recovered[OUTPUTS_MAX] = { 0 };
    int r = e == NULL ? err_set(err, -ENOMEM, "cannot start") : 0;
    if (r == 0) {
        e->conf = conf;
        e->n = conf->n_outputs;
    }
    for (size_t i = 0; r == 0 && i < e->n; i++) {
        r = open_output(e, i, err);
        recovered[i] = &e->recovery[i];
    }
    if (r == 0) {
        for (size_t i = 0; i < e->n; i++)
            restore_output_rows((uint32_t)i, &e->recovery[i]);
        struct reader_conf rc = { .conf = conf, .outputs = e->outputs, .recovered = recovered,
                                  .machine_salt = machine_salt(), .adopt = adopt, .on_ready = on_ready };
        r = reader_new(&rc, &e->reader, err);
    }
    for (size_t i = 0; r == 0 && i < e->n; i++)
        queue_recovered_free(e->queues[i]);
    if (r == 0)
        r = start_threads(e, err);
    if (r < 0) {
        if (e != NULL) {
            tail_close(engine_stop(e, NS_PER_SEC));
            engine_free(e);
        }
        return r;
    }
    (void)malloc_trim(0); /* start-up's scratch memory */
    *ret_engine = e;
    return 0;
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
    raise_descriptor_limit();
    gauge_set(&stats.started_wall_ns, clock_wall_ns());
    gauge_set(&stats.memory_limit_bytes, (int64_t)conf->memory_bytes);
    gauge_set(&stats.reload_successful, 1);
    gauge_set(&stats.reload_wall_ns, clock_wall_ns());
    gauge_set(&stats.state_writable, 1);
    gauge_set(&stats.ready_config, 1);
    int r = take_state_dir(conf, &a->state_fd, err);
    if (r == 0)
        r = start_admin(a, conf, err);
    if (r == 0)
        r = engine_start(conf, NULL, &a->engine, err);
    if (r < 0) {
        stop_admin(a);
        fd_close(&a->state_fd);
        free(a);
        return r;
    }
    gauge_set(&stats.ready_queues, 1);
    show(a);
    *ret_agent = a;
    return 0;
}

/* Counters are kept by index: what has another name now begins anew. Rows by tenant come back from the queues. */
static void forget_stats(const struct conf *old, const struct conf *conf)
{
    stats_forget_rows();
    for (uint32_t i = 0; i < old->n_inputs; i++)
        if (i >= conf->n_inputs || !slice_eq(old->inputs[i].name, conf->inputs[i].name))
            stats_forget_input(i);
    for (uint32_t i = 0; i < old->n_outputs; i++)
        if (i >= conf->n_outputs || !slice_eq(old->outputs[i].name, conf->outputs[i].name))
            stats_forget_output(i);
}

int agent_reload(struct agent *a, struct conf *conf, struct err *err)
{
    const char *obstacle = conf_reload_obstacle(a->engine->conf, conf);
    if (obstacle != NULL)
        return err_say(err, -EINVAL, "%s", obstacle);
    struct conf *old = a->engine->conf;
    if (a->admin != NULL)
        admin_set_view(a->admin, NULL);
    struct tail *tail = engine_stop(a->engine, RELOAD_GRACE_NS);
    engine_free(a->engine);
    a->engine = NULL;
    forget_stats(old, conf);
    int r = engine_start(conf, tail, &a->engine, err);
    if (r < 0) {
        struct err again = { 0 };
        forget_stats(conf, old);
        if (engine_start(old, tail, &a->engine, &again) < 0) {
            log_error("main", "config.rejected", "neither the new nor the old configuration starts: stopping",
                      LOG_CSTR("new", err->text), LOG_CSTR("old", again.text));
            exit(1); /* everything is committed: a supervisor's restart loses nothing */
        }
    }
    tail_close(tail); /* before the configuration that its files were made with */
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

void agent_tick(struct agent *a)
{
    const struct conf *c = a->engine->conf;
    char path[4096];
    struct statvfs fs;
    stats_turn(THREAD_MAIN);
    (void)snprintf(path, sizeof(path), "%.*s", SLICE_ARGS(c->state_dir));
    if (statvfs(path, &fs) == 0)
        gauge_set(&stats.state_free_bytes, (int64_t)(fs.f_bavail * fs.f_frsize));
    gauge_set(&stats.state_writable, access(path, W_OK) == 0 && (fs.f_flag & ST_RDONLY) == 0);
    trim_memory();
    gauge_set(&stats.memory_bytes, resident_bytes());
}
