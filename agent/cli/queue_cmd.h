/*
 * queue_cmd.h - inside `tailrace queue`: what its parts know of the command line.
 */
#ifndef TAILRACE_CLI_QUEUE_CMD_H
#define TAILRACE_CLI_QUEUE_CMD_H

#include <stdbool.h>

#include "agent/cli/cli.h"
#include "agent/queue/inspect.h"

struct queue_cmd {
    const struct conf *conf;
    char **names;          /* what follows the command */
    int n_names;
    bool is_json, is_all;
    unsigned places;       /* 1 << enum queue_place */
    const char *reason;    /* of dead letters; NULL: any */
};

/* state_dir/queue/<output>. -ENAMETOOLONG. */
NODISCARD int queue_cmd_dir(const struct conf *c, struct slice output, char *dir, size_t size);
/* The output that names[0] says, as an index; negative: said on stderr. */
int queue_cmd_output(const struct queue_cmd *cmd);

/* Each returns the exit status. */
int queue_cmd_cat(const struct queue_cmd *cmd);
int queue_cmd_export(const struct queue_cmd *cmd);
int queue_cmd_dead_ls(const struct queue_cmd *cmd);
int queue_cmd_settle(const struct queue_cmd *cmd, enum letter_fate fate);
int queue_cmd_skip(const struct queue_cmd *cmd);

#endif
