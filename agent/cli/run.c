#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/cli/cli.h"
#include "agent/notify.h"
#include "agent/registry.h"

#define TICK_NS NS_PER_SEC
#define CONFIG_LOOK_NS (5 * NS_PER_SEC)
/* SIGTERM to exit: under the two seconds that are promised. */
#define STOP_GRACE_NS (1500 * NS_PER_MS)

static const char help[] =
    "usage: tailrace run [-c FILE|DIR]\n"
    "       tailrace run --stdout [--state DIR] [--from beginning|end|24h] FILE...\n\n"
    "Follows the files of the configuration and ships their lines until SIGTERM or SIGINT.\n"
    "SIGHUP, or a change of its files, loads the configuration again.\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "      --stdout           no configuration: ship FILEs (paths or quoted globs) to the terminal\n"
    "      --state DIR        with --stdout: keep queue and positions in DIR (default: a folder that is removed)\n"
    "      --from WHEN        with --stdout: where files that exist begin (default beginning)\n"
    "      --admin ADDRESS    with --stdout: the admin endpoint, e.g. 127.0.0.1:9746 (default none)\n"
    "  -h, --help\n\n"
    "TAILRACE_LOG sets the agent's own log, e.g. 'info,tail=debug'.\n";

/* ---- our own log's levels ---- */

static struct levels *log_levels;

static bool own_log_enabled(enum log_level level, const char *target)
{
    static const enum level as[] = { LEVEL_TRACE, LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR };
    enum level threshold = levels_threshold(log_levels, slice_cstr(target));
    return as[level] >= (threshold == LEVEL_UNKNOWN ? LEVEL_INFO : threshold) && threshold != LEVEL_OFF;
}

static int set_own_log(void)
{
    const char *spec = getenv("TAILRACE_LOG");
    struct err err = { 0 };
    if (spec == NULL || *spec == '\0')
        return EXIT_FINE;
    if (levels_parse(slice_cstr(spec), &log_levels, &err) < 0)
        return cli_misuse("run", "TAILRACE_LOG: %s", err.text);
    log_set_filter(own_log_enabled);
    return EXIT_FINE;
}

/* ---- what is followed ---- */

struct options {
    const char *config;
    bool to_stdout;
    const char *state, *from, *admin;
    char **files;
    int n_files;
    char scratch[PATH_MAX]; /* a state folder of our own, removed at the end; empty = none */
};

static int append_quoted_path(struct buf *yaml, const char *path)
{
    char absolute[PATH_MAX];
    if (path[0] == '/')
        return buf_append_json_string(yaml, slice_cstr(path));
    if (getcwd(absolute, sizeof(absolute)) == NULL)
        return -errno;
    struct buf whole;
    buf_init(&whole, 2 * PATH_MAX);
    int r = buf_printf(&whole, "%s/%s", absolute, strncmp(path, "./", 2) == 0 ? path + 2 : path);
    if (r == 0)
        r = buf_append_json_string(yaml, buf_slice(&whole));
    buf_deinit(&whole);
    return r;
}

/* The configuration that --stdout stands for. JSON strings are YAML strings; '$' is doubled for the expansion. */
static int terminal_yaml(const struct options *o, struct buf *yaml)
{
    struct buf plain;
    buf_init(&plain, 256 * KIB);
    int r = buf_printf(&plain, "state_dir: \"%s\"\nadmin: { listen: \"%s\" }\ninputs:\n  files:\n    type: file\n    read_from: %s\n"
                               "    ignore_older: 0\n    include:\n",
                       o->state, o->admin != NULL ? o->admin : "", o->from != NULL ? o->from : "beginning");
    for (int i = 0; r == 0 && i < o->n_files; i++) {
        r = buf_append_lit(&plain, "      - ");
        if (r == 0)
            r = append_quoted_path(&plain, o->files[i]);
        if (r == 0)
            r = buf_append_byte(&plain, '\n');
    }
    if (r == 0)
        r = buf_append_lit(&plain, "outputs:\n  terminal: { type: stdout, queue: { batch_wait: 200ms } }\n");
    for (size_t i = 0; r == 0 && i < plain.len; i++)
        r = buf_append(yaml, plain.ptr[i] == '$' ? "$$" : plain.ptr + i, plain.ptr[i] == '$' ? 2 : 1);
    buf_deinit(&plain);
    return r;
}

static int load_terminal(struct options *o, struct conf **ret_conf)
{
    struct buf yaml, errors;
    if (o->state == NULL) {
        const char *tmp = getenv("TMPDIR");
        (void)snprintf(o->scratch, sizeof(o->scratch), "%s/tailrace-XXXXXX", tmp != NULL ? tmp : "/tmp");
        if (mkdtemp(o->scratch) == NULL) {
            fprintf(stderr, "tailrace run: cannot make a folder like %s: %s\n", o->scratch, strerrordesc_np(errno));
            return EXIT_FAILED;
        }
        o->state = o->scratch;
    }
    buf_init(&yaml, MIB);
    buf_init(&errors, MIB);
    int r = terminal_yaml(o, &yaml);
    if (r == 0)
        r = conf_load_text("--stdout", buf_slice(&yaml), registry_types(), ret_conf, &errors);
    if (r < 0)
        fprintf(stderr, "tailrace run: %.*s\n", SLICE_ARGS(slice_trim(buf_slice(&errors))));
    buf_deinit(&yaml);
    buf_deinit(&errors);
    return r < 0 ? EXIT_MISUSE : EXIT_FINE;
}

static int load(struct options *o, struct conf **ret_conf)
{
    return o->to_stdout ? load_terminal(o, ret_conf) : cli_load(o->config, ret_conf);
}

/* ---- the loop ---- */

/* Names, sizes, times and inodes of every file that was read: a change is worth a look. */
static uint64_t files_state(const struct conf *c)
{
    uint64_t h = 0;
    for (size_t i = 0; i < c->watched_files.n; i++) {
        struct stat st;
        char *path = slice_dup(c->watched_files.items[i]);
        struct {
            int64_t s, ns, size, ino;
        } seen = { 0 };
        if (path != NULL && stat(path, &st) == 0) {
            seen.s = st.st_mtim.tv_sec;
            seen.ns = st.st_mtim.tv_nsec;
            seen.size = st.st_size;
            seen.ino = (int64_t)st.st_ino;
        }
        free(path);
        h = h * 31 + slice_hash(slice_of(&seen, sizeof(seen)));
    }
    return h;
}

static void say_warnings(const struct conf *c)
{
    for (size_t i = 0; i < c->warnings.n; i++)
        log_warn("conf", "config.warning", "the configuration deserves a look",
                 LOG_SLICE("warning", c->warnings.items[i]));
}

static void reload(struct agent *a, struct options *o, bool is_asked)
{
    struct conf *conf = NULL;
    struct buf errors;
    struct err err = { 0 };
    buf_init(&errors, MIB);
    notify_reloading();
    int r = conf_load(o->config, registry_types(), &conf, &errors);
    if (r < 0) {
        (void)err_say(&err, r, "%.*s", SLICE_ARGS(slice_trim(buf_slice(&errors))));
    } else if (!is_asked && conf->fingerprint == agent_conf(a)->fingerprint) {
        conf_free(conf); /* touched, not changed */
        goto done;
    } else if ((r = agent_reload(a, conf, &err)) < 0) {
        conf_free(conf);
    }
    gauge_set(&stats.reload_successful, r == 0);
    if (r == 0) {
        gauge_set(&stats.reload_wall_ns, clock_wall_ns());
        log_info("main", "config.reloaded", "the new configuration is in effect", LOG_CSTR("path", o->config));
        say_warnings(agent_conf(a));
    } else {
        log_error("main", "config.rejected", "the new configuration is not taken; the old one goes on",
                  LOG_CSTR("path", o->config), LOG_CSTR("error", err.text));
    }
done:
    buf_deinit(&errors);
    notify_ready("shipping");
}

enum wish { WISH_NOTHING, WISH_RELOAD, WISH_STOP };

static enum wish read_signal(int fd)
{
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return WISH_NOTHING;
    return info.ssi_signo == SIGHUP ? WISH_RELOAD : WISH_STOP;
}

static void loop(struct agent *a, struct options *o, int signal_fd)
{
    uint64_t files = files_state(agent_conf(a));
    int64_t next_config_look = clock_mono_ns() + CONFIG_LOOK_NS, next_ping = 0;
    int64_t ping_ns = notify_watchdog_interval_ns();
    for (;;) {
        int64_t now = clock_mono_ns();
        agent_tick(a);
        if (ping_ns > 0 && now >= next_ping) {
            notify_watchdog();
            next_ping = now + ping_ns;
        }
        struct pollfd p = { .fd = signal_fd, .events = POLLIN };
        int64_t wait_ns = ping_ns > 0 ? MIN(TICK_NS, ping_ns) : TICK_NS;
        enum wish wish = poll(&p, 1, (int)(wait_ns / NS_PER_MS)) > 0 ? read_signal(signal_fd) : WISH_NOTHING;
        if (wish == WISH_STOP)
            return;
        bool is_changed = false;
        if (!o->to_stdout && clock_mono_ns() >= next_config_look) {
            uint64_t state = files_state(agent_conf(a));
            is_changed = state != files;
            files = state;
            next_config_look = clock_mono_ns() + CONFIG_LOOK_NS;
        }
        if ((wish == WISH_RELOAD && !o->to_stdout) || is_changed) {
            reload(a, o, wish == WISH_RELOAD);
            files = files_state(agent_conf(a));
        }
    }
}

static int block_signals(int *ret_fd)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    int r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (r < 0)
        return r;
    *ret_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *ret_fd < 0 ? -errno : 0;
}

/* One heap for all threads: they allocate a batch, not a line, and a heap each would keep megabytes apart. Bodies come
 * from it too, for mapping each on its own costs a system call for every step of its growth; what a burst leaves behind
 * goes back in agent_tick(). */
static void tune_malloc(void)
{
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, (int)(8 * MIB));
    (void)mallopt(M_TRIM_THRESHOLD, (int)(16 * MIB));
    (void)mallopt(M_TOP_PAD, (int)(1 * MIB));
}

static int run(struct options *o)
{
    struct conf *conf;
    struct agent *agent;
    struct err err = { 0 };
    CLEANUP(fd_closep) int signal_fd = -1;
    tune_malloc();
    int status = load(o, &conf);
    if (status != EXIT_FINE)
        return status;
    notify_init();
    int r = block_signals(&signal_fd);
    if (r == 0)
        r = agent_start(conf, &agent, &err);
    if (r < 0) {
        fprintf(stderr, "tailrace: %s\n", err.text[0] != '\0' ? err.text : strerrordesc_np(-r));
        conf_free(conf);
        return EXIT_FAILED;
    }
    log_info("main", "agent.started", "following files", LOG_CSTR("version", TAILRACE_VERSION),
             LOG_NUM("inputs", conf->n_inputs), LOG_NUM("outputs", conf->n_outputs));
    say_warnings(conf);
    notify_ready("shipping");
    loop(agent, o, signal_fd);
    notify_stopping();
    agent_stop(agent, STOP_GRACE_NS);
    log_info("main", "agent.stopped", "everything that was read is committed");
    return EXIT_FINE;
}

/* Our own scratch folder only: names we made. */
static void remove_tree(int dir_fd, const char *name);

static void remove_one(int fd, const char *name)
{
    if (unlinkat(fd, name, 0) < 0 && (errno == EISDIR || errno == EPERM))
        remove_tree(fd, name);
}

static void remove_tree(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_one(dirfd(d), e->d_name);
    if (d != NULL)
        (void)closedir(d);
    (void)unlinkat(dir_fd, name, AT_REMOVEDIR); /* what stays is a temporary folder */
}

int cmd_run(int argc, char **argv)
{
    enum { OPT_STDOUT = 256, OPT_STATE, OPT_FROM, OPT_ADMIN };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "stdout", no_argument, NULL, OPT_STDOUT },
                                           { "state", required_argument, NULL, OPT_STATE },
                                           { "from", required_argument, NULL, OPT_FROM },
                                           { "admin", required_argument, NULL, OPT_ADMIN },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    struct options o = { .config = DEFAULT_CONFIG };
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            o.config = optarg;
            break;
        case OPT_STDOUT:
            o.to_stdout = true;
            break;
        case OPT_STATE:
            o.state = optarg;
            break;
        case OPT_FROM:
            o.from = optarg;
            break;
        case OPT_ADMIN:
            o.admin = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_MISUSE;
        }
    }
    o.files = argv + optind;
    o.n_files = argc - optind;
    if (!o.to_stdout && (o.n_files > 0 || o.state != NULL || o.from != NULL || o.admin != NULL))
        return cli_misuse("run", "files, --state, --from and --admin go with --stdout");
    if (o.to_stdout && o.n_files == 0)
        return cli_misuse("run", "--stdout needs a file");
    int status = set_own_log();
    if (status == EXIT_FINE)
        status = run(&o);
    if (o.scratch[0] != '\0')
        remove_tree(AT_FDCWD, o.scratch);
    return status;
}
