#include <curl/curl.h>
#include <libdeflate.h>
#include <microhttpd.h>
#include <stdio.h>
#include <yajl/yajl_version.h>
#include <zlib.h>

#include "agent/cli/cli.h"

int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("tailrace %s\n", TAILRACE_VERSION);
    printf("  %s\n  yajl %d.%d.%d, zlib %s, libdeflate %s, libmicrohttpd %s\n", curl_version(), YAJL_MAJOR, YAJL_MINOR,
           YAJL_MICRO, zlibVersion(), LIBDEFLATE_VERSION_STRING, MHD_get_version());
    return EXIT_FINE;
}
