#include <getopt.h>
#include <stdio.h>

#include "agent/cli/cli.h"
#include "agent/deliver/sender.h"
#include "agent/registry.h"

static const char help[] =
    "usage: tailrace check [-c FILE|DIR] [--connect] [--quiet]\n\n"
    "Validates the configuration and prints what is in effect, every default included, secrets masked.\n"
    "All mistakes are reported at once, each with its place.\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "      --connect          also try each output: DNS, TLS, certificate days, authentication, tenant\n"
    "      --quiet            print mistakes and warnings only\n"
    "  -h, --help\n\n"
    "Exit status: 0 fine, 1 an output cannot be reached or refuses us, 2 the configuration is wrong.\n";

static int connect_outputs(const struct conf *c)
{
    int status = EXIT_FINE;
    for (size_t i = 0; i < c->n_outputs; i++) {
        const struct output_ops *ops = registry_ops(c->outputs[i].type);
        struct output *out = NULL;
        struct err err = { 0 };
        struct buf text;
        if (ops == NULL || !c->outputs[i].type->is_http)
            continue;
        buf_init(&text, 64 * KIB);
        int r = ops->open(&c->outputs[i], &out, &err);
        if (r == 0)
            r = sender_probe(out, &text);
        else
            (void)!buf_append_cstr(&text, err.text);
        fprintf(stderr, "outputs.%.*s: %s\n%.*s\n", SLICE_ARGS(c->outputs[i].name), r == 0 ? "reachable" : "FAILED",
                SLICE_ARGS(slice_trim(buf_slice(&text))));
        if (r < 0)
            status = EXIT_FAILED;
        ops->close(out);
        buf_deinit(&text);
    }
    return status;
}

static int print(const struct conf *c)
{
    struct buf out;
    buf_init(&out, 16 * MIB);
    int r = conf_print(c, &out);
    if (r == 0)
        printf("%.*s", SLICE_ARGS(buf_slice(&out)));
    buf_deinit(&out);
    return r < 0 ? EXIT_FAILED : EXIT_FINE;
}

int cmd_check(int argc, char **argv)
{
    enum { OPT_CONNECT = 256, OPT_QUIET };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "connect", no_argument, NULL, OPT_CONNECT },
                                           { "quiet", no_argument, NULL, OPT_QUIET },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    const char *config = DEFAULT_CONFIG;
    bool connects = false, is_quiet = false;
    struct conf *c;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = optarg;
            break;
        case OPT_CONNECT:
            connects = true;
            break;
        case OPT_QUIET:
            is_quiet = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_MISUSE;
        }
    }
    if (optind < argc)
        return cli_misuse("check", "unexpected '%s'", argv[optind]);
    int status = cli_load(config, &c);
    if (status != EXIT_FINE)
        return status;
    for (size_t i = 0; i < c->warnings.n; i++)
        fprintf(stderr, "warning: %.*s\n", SLICE_ARGS(c->warnings.items[i]));
    if (!is_quiet)
        status = print(c);
    if (connects && status == EXIT_FINE)
        status = connect_outputs(c);
    conf_free(c);
    return status;
}
