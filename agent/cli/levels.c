#include <curl/curl.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#include "agent/cli/cli.h"
#include "conf/size.h"

static const char help[] =
    "usage: tailrace levels set NAMESPACE/POD[/CONTAINER] LEVELS --for TIME [-c FILE|DIR]\n"
    "       tailrace levels ls [--format text|json] [-c FILE|DIR]\n"
    "       tailrace levels clear NAMESPACE/POD[/CONTAINER] [-c FILE|DIR]\n\n"
    "Levels for some pods and for some time, in the running agent: they win over the configuration and annotations,\n"
    "end by themselves, and are not kept over a restart. Globs are fine: 'shop/api-*' 'debug,hyper=warn' --for 10m.\n"
    "By state_dir/admin.sock, so by the agent's user or root only.\n\n"
    "      --for TIME           10m, 2h, at most 7d\n"
    "  -c, --config FILE|DIR    the configuration (default " DEFAULT_CONFIG ")\n"
    "      --format text|json\n"
    "  -h, --help\n\n"
    "Exit status: 0 done, 1 refused or the agent does not answer, 2 misuse.\n";

/* "/levels?a=…&b=…" with what is given escaped. */
static char *make_path(const char *target, const char *levels, int64_t seconds)
{
    char *path = NULL, *t = target == NULL ? NULL : curl_easy_escape(NULL, target, 0);
    char *l = levels == NULL ? NULL : curl_easy_escape(NULL, levels, 0);
    int n = asprintf(&path, "/levels?target=%s&levels=%s&seconds=%lld", t == NULL ? "" : t, l == NULL ? "" : l,
                     (long long)seconds);
    curl_free(t);
    curl_free(l);
    return n < 0 ? NULL : path;
}

static const char *text_at(yajl_val v, const char *key)
{
    const char *path[] = { key, NULL };
    const char *s = YAJL_GET_STRING(yajl_tree_get(v, path, yajl_t_string));
    return s == NULL ? "" : s;
}

static void print_text(const char *json)
{
    char why[128];
    const char *list_path[] = { "levels", NULL }, *left_path[] = { "seconds_left", NULL };
    yajl_val v = yajl_tree_parse(json, why, sizeof(why));
    yajl_val list = v == NULL ? NULL : yajl_tree_get(v, list_path, yajl_t_array);
    for (size_t i = 0; list != NULL && i < YAJL_GET_ARRAY(list)->len; i++) {
        yajl_val item = YAJL_GET_ARRAY(list)->values[i], left = yajl_tree_get(item, left_path, yajl_t_number);
        printf("%-40s %-30s %lld s left\n", text_at(item, "target"), text_at(item, "levels"),
               left == NULL ? 0 : YAJL_GET_INTEGER(left));
    }
    yajl_tree_free(v);
}

static int report(int r, struct buf *body, bool is_json)
{
    if (r == 200 && buf_terminate(body) == 0) {
        if (is_json)
            fputs(body->ptr, stdout);
        else
            print_text(body->ptr);
        return EXIT_FINE;
    }
    if (r == -EINVAL)
        return EXIT_MISUSE; /* the configuration: spoken of */
    if (r > 0)
        fprintf(stderr, "tailrace levels: %.*s\n", SLICE_ARGS(slice_trim(buf_slice(body))));
    else
        fprintf(stderr, "tailrace levels: %s\n",
                r == -EACCES ? "admin.sock belongs to another user" : "the agent does not answer; is it running?");
    return EXIT_FAILED;
}

int cmd_levels(int argc, char **argv)
{
    enum { OPT_FORMAT = 256, OPT_FOR };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "format", required_argument, NULL, OPT_FORMAT },
                                           { "for", required_argument, NULL, OPT_FOR },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    const char *config = DEFAULT_CONFIG, *format = "text", *time = NULL;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (opt == 'h') {
            fputs(help, stdout);
            return EXIT_FINE;
        }
        if (opt == 'c')
            config = optarg;
        else if (opt == OPT_FORMAT)
            format = optarg;
        else if (opt == OPT_FOR)
            time = optarg;
        else
            return EXIT_MISUSE;
    }
    char **args = argv + optind;
    int n = argc - optind;
    bool is_json = strcmp(format, "json") == 0;
    const char *what = n > 0 ? args[0] : "", *method = "GET";
    int64_t ns = 0;
    if (!is_json && strcmp(format, "text") != 0)
        return cli_misuse("levels", "--format is text or json, not '%s'", format);
    if (strcmp(what, "set") == 0 && n == 3)
        method = "POST";
    else if (strcmp(what, "clear") == 0 && n == 2)
        method = "DELETE";
    else if (strcmp(what, "ls") != 0 || n != 1)
        return cli_misuse("levels", "expected set TARGET LEVELS --for TIME, ls, or clear TARGET");
    if (n == 3 && (time == NULL || !duration_parse(slice_cstr(time), &ns) || ns < NS_PER_SEC))
        return cli_misuse("levels", "--for wants a time, such as 10m");
    struct buf body;
    buf_init(&body, MIB);
    char *path = make_path(n > 1 ? args[1] : NULL, n > 2 ? args[2] : NULL, ns / NS_PER_SEC);
    int status = path == NULL ? EXIT_FAILED : report(cli_ask_local(config, method, path, &body), &body, is_json);
    free(path);
    buf_deinit(&body);
    return status;
}
