/*
 * main.c - tailrace COMMAND [options]: finds the command, nothing else.
 */
#include <stdio.h>
#include <string.h>

#include "agent/cli/cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    { "run", cmd_run, "follow files and ship their lines, until stopped" },
    { "check", cmd_check, "validate a configuration and print what is in effect" },
    { "explain", cmd_explain, "what each step makes of a line, or why a file is not followed" },
    { "health", cmd_health, "how the running agent is, with reasons" },
    { "status", cmd_status, "inputs, files, positions, queues and outputs of the running agent" },
    { "levels", cmd_levels, "set the levels of some pods for a time: set, ls, clear" },
    { "queue", cmd_queue, "look into the queues on disk: ls, cat, verify, export" },
    { "archive", cmd_archive, "what a file output has written: ls, export, verify" },
    { "version", cmd_version, "the version and its libraries" },
};

static int usage(FILE *to, int status)
{
    fputs("tailrace - ships structured logs from files to Loki and Elasticsearch\n\n"
          "usage: tailrace COMMAND [options]\n\n",
          to);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].help);
    fputs("\n`tailrace COMMAND --help` tells more. The configuration is " DEFAULT_CONFIG
          " unless -c names another.\nExit status: 0 fine, 1 failed, 2 misuse or bad configuration.\n",
          to);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, EXIT_MISUSE);
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return usage(stdout, EXIT_FINE);
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "tailrace: there is no command '%s'; see tailrace --help\n", name);
    return EXIT_MISUSE;
}
