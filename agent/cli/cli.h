/*
 * cli.h - the commands of the program. Each gets its own arguments (argv[0] is the command's name) and returns the exit
 * status: 0 fine, 1 failed, 2 misuse or bad configuration (health: architecture of levels, see health.c).
 */
#ifndef TAILRACE_CLI_CLI_H
#define TAILRACE_CLI_CLI_H

#include "agent/base/buf.h"
#include "conf/conf.h"

#define EXIT_FINE 0
#define EXIT_FAILED 1
#define EXIT_MISUSE 2
#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_levels(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_archive(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* Loads with the registry's types; on failure prints every error, one a line, to stderr and returns EXIT_MISUSE. */
int cli_load(const char *path, struct conf **ret_conf);
/* "tailrace COMMAND: …" and a hint to --help on stderr; returns EXIT_MISUSE. */
int cli_misuse(const char *command, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* GET path from the admin endpoint of the configuration (state_dir/admin.addr, else admin.listen) with a short timeout:
 * the HTTP status and the body; negative errno when it cannot be asked. */
NODISCARD int cli_ask_admin(const char *config_path, const char *path, struct buf *body);
/* The same by state_dir/admin.sock, with any method: what may change something. -EACCES: it is another user's. */
NODISCARD int cli_ask_local(const char *config_path, const char *method, const char *path, struct buf *body);

#endif
