#include <curl/curl.h>
#include <getopt.h>
#include <isa-l.h>
#include <libdeflate.h>
#include <microhttpd.h>
#include <stdio.h>
#include <yajl/yajl_version.h>
#include <zlib.h>

#include "agent/cli/cli.h"

static const char help[] = "usage: tailrace version\n\nPrints the version, and those of its libraries.\n\n  -h, --help\n";

int cmd_version(int argc, char **argv)
{
    static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    int opt;
    while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (opt != 'h')
            return EXIT_MISUSE;
        fputs(help, stdout);
        return EXIT_FINE;
    }
    if (optind < argc)
        return cli_misuse("version", "unexpected '%s'", argv[optind]);
    printf("tailrace %s\n", TAILRACE_VERSION);
    printf("  %s\n  yajl %d.%d.%d, zlib %s, ISA-L %d.%d.%d, libdeflate %s, libmicrohttpd %s\n", curl_version(), YAJL_MAJOR,
           YAJL_MINOR, YAJL_MICRO, zlibVersion(), ISAL_MAJOR_VERSION, ISAL_MINOR_VERSION, ISAL_PATCH_VERSION,
           LIBDEFLATE_VERSION_STRING, MHD_get_version());
    return EXIT_FINE;
}
