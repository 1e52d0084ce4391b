#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "agent/cli/cli.h"

static const char help[] = "usage: tailrace status [-c FILE|DIR]\n\n"
                           "Prints the running agent's /status as JSON: inputs, files and positions, queues, outputs\n"
                           "with their last errors, and the ledger. Exit status 1 when the agent does not answer,\n"
                           "2 when the configuration is wrong.\n\n"
                           "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
                           "  -h, --help\n";

int cmd_status(int argc, char **argv)
{
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    const char *config = DEFAULT_CONFIG;
    struct buf body;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (opt == 'h') {
            fputs(help, stdout);
            return EXIT_FINE;
        }
        if (opt != 'c')
            return EXIT_MISUSE;
        config = optarg;
    }
    if (optind < argc)
        return cli_misuse("status", "unexpected '%s'", argv[optind]);
    buf_init(&body, 64 * MIB);
    int r = cli_ask_admin(config, "/status", &body);
    if (r == 200)
        printf("%.*s", SLICE_ARGS(buf_slice(&body)));
    else if (r != -EINVAL) /* a configuration that is wrong was spoken of */
        fprintf(stderr, "tailrace status: the agent does not answer%s\n", r > 0 ? " as expected" : "; is it running?");
    buf_deinit(&body);
    return r == 200 ? EXIT_FINE : r == -EINVAL ? EXIT_MISUSE : EXIT_FAILED;
}
