/*
 * `tailrace queue dead resend`, `dead drop` and `skip`: with the agent stopped, under the queue's lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/cli/queue_cmd.h"
#include "agent/registry.h"
#include "outputs/output.h"

struct picked {
    const struct queue_cmd *cmd;
    struct letter_id *ids;
    bool *is_seen;
    size_t n;
};

static bool wants(void *ctx, const struct letter *l)
{
    struct picked *p = ctx;
    bool is_named = p->n == 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->ids[i].file == l->id.file && p->ids[i].seq == l->id.seq)
            is_named = p->is_seen[i] = true;
    }
    return is_named && (p->cmd->reason == NULL || slice_eq(l->orig.reason, slice_cstr(p->cmd->reason)));
}

/* "FILE:SEQ" as `dead ls` shows it. */
static bool parse_letter(const char *text, struct letter_id *ret)
{
    struct slice s = slice_cstr(text);
    ptrdiff_t colon = slice_find_byte(s, ':');
    return colon > 0 && slice_to_u64(slice_first(s, (size_t)colon), &ret->file) &&
           slice_to_u64(slice_from(s, (size_t)colon + 1), &ret->seq);
}

/* What root makes in another's folder that other could not open. */
static void become_owner(const char *dir)
{
    struct stat st;
    if (geteuid() != 0 || stat(dir, &st) < 0 || st.st_uid == 0)
        return;
    (void)!setegid(st.st_gid);
    (void)!seteuid(st.st_uid);
}

/* The recovery's own words would stand between ours. */
static bool only_errors(enum log_level level, const char *target)
{
    (void)target;
    return level >= LOG_ERROR;
}

static int open_queue(const struct queue_cmd *cmd, int i, struct queue **ret)
{
    const struct output_conf *oc = &cmd->conf->outputs[i];
    struct queue_open_conf conf = { .output = oc, .wire_form = registry_ops(oc->type)->wire_form,
                                    .min_free_bytes = cmd->conf->min_free.bytes,
                                    .min_free_percent = cmd->conf->min_free.percent };
    struct queue_recovery rec;
    struct err err = { 0 };
    struct stat st;
    char dir[4096];
    int r = queue_cmd_dir(cmd->conf, oc->name, dir, sizeof(dir));
    if (r == 0 && stat(dir, &st) < 0)
        r = err_set(&err, -errno, "cannot open the queue %s", dir);
    if (r == 0) {
        become_owner(dir);
        log_set_filter(only_errors);
        r = queue_open(&conf, ret, &rec, &err);
    }
    if (r < 0)
        fprintf(stderr, "tailrace queue: %s%s\n", err.text[0] != '\0' ? err.text : strerrordesc_np(-r),
                r == -EBUSY ? ": stop the agent first" : "");
    else
        queue_recovered_free(*ret);
    return r;
}

static int report(const struct queue_cmd *cmd, const struct picked *p, enum letter_fate fate,
                  const struct letters_result *res, int r)
{
    uint64_t unknown = 0;
    for (size_t i = 0; i < p->n; i++)
        unknown += !p->is_seen[i];
    if (cmd->is_json) {
        printf("{\"output\":\"%s\",\"fate\":\"%s\",\"letters\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"unsettled\":%" PRIu64
               ",\"foreign\":%" PRIu64 ",\"damaged\":%" PRIu64 ",\"unknown\":%" PRIu64 ",\"error\":%s%s%s}\n",
               cmd->names[0], letter_fate_name(fate), res->letters, res->lines, res->unsettled, res->foreign,
               res->damaged, unknown, r < 0 ? "\"" : "", r < 0 ? strerrordesc_np(-r) : "null", r < 0 ? "\"" : "");
    } else {
        printf("%s: %" PRIu64 " dead letters, %" PRIu64 " lines %s\n", cmd->names[0], res->letters, res->lines,
               letter_fate_name(fate));
        if (res->unsettled > 0)
            printf("%" PRIu64 " left: their frames are still in the queue and come again by themselves\n",
                   res->unsettled);
        if (res->foreign > 0)
            printf("%" PRIu64 " left: they were made for another type of output\n", res->foreign);
        if (res->damaged > 0)
            printf("%" PRIu64 " left: they cannot be read\n", res->damaged);
    }
    if (unknown > 0)
        fprintf(stderr, "tailrace queue: %" PRIu64 " of the letters named are not there\n", unknown);
    if (r < 0)
        fprintf(stderr, "tailrace queue: stopped: %s\n", r == -ENOSPC ? "the queue is full" : strerrordesc_np(-r));
    return r < 0 || unknown > 0 || res->damaged > 0 ? EXIT_FAILED : EXIT_FINE;
}

static int parse_letters(const struct queue_cmd *cmd, struct picked *p)
{
    size_t n = (size_t)(cmd->n_names - 1);
    p->ids = calloc(n + 1, sizeof(*p->ids));
    p->is_seen = calloc(n + 1, sizeof(*p->is_seen));
    if (p->ids == NULL || p->is_seen == NULL)
        return EXIT_FAILED;
    for (size_t i = 0; i < n; i++)
        if (!parse_letter(cmd->names[i + 1], &p->ids[i]))
            return cli_misuse("queue", "'%s' is no dead letter: say FILE:SEQ as `dead ls` does", cmd->names[i + 1]);
    p->n = n;
    return EXIT_FINE;
}

int queue_cmd_settle(const struct queue_cmd *cmd, enum letter_fate fate)
{
    struct picked p = { .cmd = cmd };
    struct letters_result res;
    struct queue *q;
    int i = queue_cmd_output(cmd);
    if (i < 0)
        return EXIT_MISUSE;
    if (cmd->n_names == 1 && !cmd->is_all && cmd->reason == NULL)
        return cli_misuse("queue", "say which: letters as `dead ls` names them, --reason R, or --all");
    int status = parse_letters(cmd, &p);
    if (status == EXIT_FINE)
        status = open_queue(cmd, i, &q) < 0 ? EXIT_FAILED : EXIT_FINE;
    if (status == EXIT_FINE) {
        int r = queue_letters_settle(q, fate, wants, &p, &res);
        queue_close(q);
        status = report(cmd, &p, fate, &res, r);
    }
    free(p.ids);
    free(p.is_seen);
    return status;
}

int queue_cmd_skip(const struct queue_cmd *cmd)
{
    uint64_t seq;
    uint32_t lines = 0;
    struct queue *q;
    if (cmd->n_names != 2 || !slice_to_u64(slice_cstr(cmd->names[1]), &seq) || seq == 0)
        return cli_misuse("queue", "say the output and the seq of the frame");
    const struct queue_cmd one = { .conf = cmd->conf, .names = cmd->names, .n_names = 1 };
    int i = queue_cmd_output(&one);
    if (i < 0)
        return EXIT_MISUSE;
    if (open_queue(cmd, i, &q) < 0)
        return EXIT_FAILED;
    int r = queue_skip(q, seq, &lines);
    queue_close(q);
    if (r < 0) {
        fprintf(stderr, "tailrace queue: seq %" PRIu64 ": %s\n", seq,
                r == -ENOENT   ? "no frame of this number waits"
                : r == -ERANGE ? "too far beyond the cursor: frames before it are to be delivered or skipped first"
                               : strerrordesc_np(-r));
        return EXIT_FAILED;
    }
    if (cmd->is_json)
        printf("{\"output\":\"%s\",\"seq\":%" PRIu64 ",\"lines\":%u}\n", cmd->names[0], seq, lines);
    else
        printf("%s: frame %" PRIu64 " is passed over; its %u lines are counted lost, a copy is in quarantine/\n",
               cmd->names[0], seq, lines);
    return EXIT_FINE;
}
