#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/cli/queue_cmd.h"

#define REPORT_MAX (256 * MIB)

static const char help[] =
    "usage: tailrace queue ls          [-c FILE|DIR] [--format text|json] [OUTPUT...]\n"
    "       tailrace queue verify      [-c FILE|DIR] [--format text|json] [OUTPUT...]\n"
    "       tailrace queue cat         [-c FILE|DIR] [--format text|json] [--dead|--parked|--all] OUTPUT\n"
    "       tailrace queue export      [-c FILE|DIR] OUTPUT > LINES\n"
    "       tailrace queue dead ls     [-c FILE|DIR] [--format text|json] [--reason R] [--all] OUTPUT\n"
    "       tailrace queue dead resend [-c FILE|DIR] [--format text|json] OUTPUT (LETTER...|--reason R|--all)\n"
    "       tailrace queue dead drop   [-c FILE|DIR] [--format text|json] OUTPUT (LETTER...|--reason R|--all)\n"
    "       tailrace queue skip        [-c FILE|DIR] [--format text|json] OUTPUT SEQ\n\n"
    "Looks into the queues on disk. All but resend, drop and skip only read, and are safe beside a running agent;\n"
    "those three want the agent stopped, and say so when it is not.\n\n"
    "  ls           segments, cursor, lines and bytes waiting, parked frames, dead letters; given_up: parked files whose\n"
    "               lines are counted as lost and that could not be removed yet\n"
    "  verify       every checksum and the chain of positions; exit status 1 when there are problems\n"
    "  cat          the lines that wait, as JSON; before each frame a comment line with its seq and route\n"
    "  export       the lines that were not delivered (waiting and parked), one JSON object a line\n"
    "  dead ls      dead letters with status and reason; --all: those that were sent again or dropped, too\n"
    "  dead resend  puts dead letters at the end of the queue, each once: they are sent when the agent runs\n"
    "  dead drop    gives dead letters up: they stay counted as dead and are listed no more\n"
    "  skip         passes over one frame: its lines are counted lost (dropped), a copy goes to quarantine/\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "      --format text|json json: one object for each output or frame, a line each\n"
    "      --dead             with cat: dead letters, with status and reason\n"
    "      --parked           with cat: parked frames\n"
    "      --all              with cat: delivered and given up frames too, while they are on disk; with dead: all letters\n"
    "      --reason R         with dead: letters of this reason\n"
    "  LETTER                 FILE:SEQ, as dead ls names it\n"
    "  -h, --help\n";

int queue_cmd_dir(const struct conf *c, struct slice output, char *dir, size_t size)
{
    int n = snprintf(dir, size, "%.*s/queue/%.*s", SLICE_ARGS(c->state_dir), SLICE_ARGS(output));
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int queue_cmd_output(const struct queue_cmd *cmd)
{
    if (cmd->n_names < 1) {
        (void)cli_misuse("queue", "name one output");
        return -EINVAL;
    }
    for (size_t i = 0; i < cmd->conf->n_outputs; i++)
        if (slice_eq(cmd->conf->outputs[i].name, slice_cstr(cmd->names[0])))
            return (int)i;
    (void)cli_misuse("queue", "there is no output '%s'", cmd->names[0]);
    return -ENOENT;
}

/* ---- ls and verify ---- */

typedef int report_fn(const struct queue_report *to, struct err *err);

static int say_failed(const struct queue_report *to, const struct err *err, int r)
{
    const char *why = err->text[0] != '\0' ? err->text : strerrordesc_np(-r);
    buf_reset(to->text);
    if (!to->is_json)
        return buf_printf(to->text, "%.*s: %s\n%s\n", SLICE_ARGS(to->output), to->dir, why);
    int e = buf_append_lit(to->text, "{\"output\":");
    if (e == 0)
        e = buf_append_json_string(to->text, to->output);
    if (e == 0)
        e = buf_append_lit(to->text, ",\"error\":");
    if (e == 0)
        e = buf_append_json_string(to->text, slice_cstr(why));
    return e < 0 ? e : buf_append_lit(to->text, "}\n");
}

static int report(const struct queue_cmd *cmd, struct slice output, bool is_orphan, report_fn *fn)
{
    char dir[4096] = "";
    struct err err = { 0 };
    struct buf text;
    buf_init(&text, REPORT_MAX);
    const struct queue_report to = { .dir = dir, .output = output, .is_orphan = is_orphan, .is_json = cmd->is_json,
                                     .text = &text };
    int r = queue_cmd_dir(cmd->conf, output, dir, sizeof(dir));
    if (r == 0)
        r = fn(&to, &err);
    if (r < 0 && say_failed(&to, &err, r) < 0)
        fputs("tailrace queue: out of memory\n", stderr);
    printf("%.*s", SLICE_ARGS(buf_slice(&text)));
    buf_deinit(&text);
    return r == 0 ? EXIT_FINE : EXIT_FAILED;
}

static bool is_configured(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_outputs; i++)
        if (slice_eq(c->outputs[i].name, slice_cstr(name)))
            return true;
    return false;
}

/* The named outputs; without names all configured ones, and those on disk that are configured no more. */
static int report_all(const struct queue_cmd *cmd, report_fn *fn)
{
    const struct conf *c = cmd->conf;
    char root[4096];
    int status = EXIT_FINE;
    for (int i = 0; i < cmd->n_names; i++)
        status |= report(cmd, slice_cstr(cmd->names[i]), !is_configured(c, cmd->names[i]), fn);
    if (cmd->n_names > 0)
        return status;
    for (size_t i = 0; i < c->n_outputs; i++)
        status |= report(cmd, c->outputs[i].name, false, fn);
    (void)snprintf(root, sizeof(root), "%.*s/queue", SLICE_ARGS(c->state_dir));
    DIR *d = opendir(root);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.' && !is_configured(c, e->d_name))
            status |= report(cmd, slice_cstr(e->d_name), true, fn);
    }
    if (d != NULL)
        (void)closedir(d);
    return status;
}

/* ---- the command line ---- */

static int dispatch_dead(struct queue_cmd *cmd)
{
    const char *what = cmd->n_names > 0 ? cmd->names[0] : "";
    cmd->names++;
    cmd->n_names--;
    if (strcmp(what, "ls") == 0)
        return queue_cmd_dead_ls(cmd);
    if (strcmp(what, "resend") == 0)
        return queue_cmd_settle(cmd, LETTER_RESENT);
    if (strcmp(what, "drop") == 0)
        return queue_cmd_settle(cmd, LETTER_DROPPED);
    return cli_misuse("queue", "dead: say ls, resend or drop");
}

static int dispatch(struct queue_cmd *cmd, const char *what)
{
    if (strcmp(what, "ls") == 0)
        return report_all(cmd, queue_inspect_ls);
    if (strcmp(what, "verify") == 0)
        return report_all(cmd, queue_inspect_verify);
    if (strcmp(what, "cat") == 0)
        return queue_cmd_cat(cmd);
    if (strcmp(what, "export") == 0)
        return queue_cmd_export(cmd);
    if (strcmp(what, "dead") == 0)
        return dispatch_dead(cmd);
    if (strcmp(what, "skip") == 0)
        return queue_cmd_skip(cmd);
    return cli_misuse("queue", "there is no '%s'", what);
}

enum { OPT_DEAD = 256, OPT_PARKED, OPT_ALL, OPT_FORMAT, OPT_REASON };

/* EXIT_FINE, EXIT_FAILED after help, or EXIT_MISUSE. */
static int parse(int argc, char **argv, struct queue_cmd *cmd, const char **config)
{
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "dead", no_argument, NULL, OPT_DEAD },
                                           { "parked", no_argument, NULL, OPT_PARKED },
                                           { "all", no_argument, NULL, OPT_ALL },
                                           { "format", required_argument, NULL, OPT_FORMAT },
                                           { "reason", required_argument, NULL, OPT_REASON },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            *config = optarg;
            break;
        case OPT_DEAD:
            cmd->places = 1u << QUEUE_PLACE_DEAD;
            break;
        case OPT_PARKED:
            cmd->places = 1u << QUEUE_PLACE_PARKED;
            break;
        case OPT_ALL:
            cmd->is_all = true;
            break;
        case OPT_REASON:
            cmd->reason = optarg;
            break;
        case OPT_FORMAT:
            cmd->is_json = strcmp(optarg, "json") == 0;
            if (!cmd->is_json && strcmp(optarg, "text") != 0)
                return cli_misuse("queue", "--format is text or json, not '%s'", optarg);
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FAILED;
        default:
            return EXIT_MISUSE;
        }
    }
    return EXIT_FINE;
}

int cmd_queue(int argc, char **argv)
{
    const char *config = DEFAULT_CONFIG;
    struct queue_cmd cmd = { 0 };
    struct conf *c;
    int status = parse(argc, argv, &cmd, &config);
    if (status != EXIT_FINE)
        return status == EXIT_FAILED ? EXIT_FINE : status; /* help was asked for */
    if (optind >= argc)
        return cli_misuse("queue", "say ls, verify, cat, export, dead or skip");
    if (cmd.places == 0)
        cmd.places = !cmd.is_all ? 1u << QUEUE_PLACE_QUEUED
                                 : 1u << QUEUE_PLACE_QUEUED | 1u << QUEUE_PLACE_ACKED | 1u << QUEUE_PLACE_PARKED |
                                       1u << QUEUE_PLACE_GIVEN;
    status = cli_load(config, &c);
    if (status != EXIT_FINE)
        return status;
    cmd.conf = c;
    cmd.names = argv + optind + 1;
    cmd.n_names = argc - optind - 1;
    status = dispatch(&cmd, argv[optind]);
    conf_free(c);
    return status;
}
