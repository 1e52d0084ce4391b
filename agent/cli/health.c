#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <yajl/yajl_tree.h>

#include "agent/cli/cli.h"

/* Exit statuses of the report; probes (live, ready) use 0 and 1. */
#define EXIT_DEGRADED 1
#define EXIT_UNHEALTHY 2
#define EXIT_NO_ANSWER 3
#define EXIT_HEALTH_MISUSE 64

static const char help[] =
    "usage: tailrace health [-c FILE|DIR] [--format text|json] [--watch]\n"
    "       tailrace health live|ready [-c FILE|DIR]\n\n"
    "Asks the running agent how it is: Optimal, Healthy, Degraded or Unhealthy, with reasons and what to do.\n"
    "live and ready are for probes.\n\n"
    "  -c, --config FILE|DIR    the configuration (default " DEFAULT_CONFIG ")\n"
    "      --format text|json\n"
    "      --watch              again every two seconds\n"
    "  -h, --help\n\n"
    "Exit status: 0 Optimal or Healthy, 1 Degraded, 2 Unhealthy, 3 the agent cannot be asked, 64 misuse;\n"
    "live and ready: 0 yes, 1 no.\n";

static const char *text_at(yajl_val v, const char *key)
{
    const char *path[] = { key, NULL };
    const char *s = YAJL_GET_STRING(yajl_tree_get(v, path, yajl_t_string));
    return s == NULL ? "" : s;
}

static int status_of(const char *level)
{
    if (strcmp(level, "Degraded") == 0)
        return EXIT_DEGRADED;
    if (strcmp(level, "Unhealthy") == 0)
        return EXIT_UNHEALTHY;
    return strcmp(level, "Optimal") == 0 || strcmp(level, "Healthy") == 0 ? EXIT_FINE : EXIT_NO_ANSWER;
}

static void print_text(yajl_val v)
{
    const char *checks_path[] = { "checks", NULL };
    yajl_val checks = yajl_tree_get(v, checks_path, yajl_t_array);
    printf("%s\n", text_at(v, "level"));
    for (size_t i = 0; checks != NULL && i < YAJL_GET_ARRAY(checks)->len; i++) {
        yajl_val c = YAJL_GET_ARRAY(checks)->values[i];
        printf("  %-9s %s: %s\n", text_at(c, "level"), text_at(c, "check"), text_at(c, "text"));
    }
}

static bool number_at(yajl_val v, const char *key, double *ret)
{
    const char *path[] = { key, NULL };
    yajl_val n = yajl_tree_get(v, path, yajl_t_number);
    if (n != NULL)
        *ret = YAJL_GET_DOUBLE(n);
    return n != NULL;
}

static void print_output(yajl_val o)
{
    const char *up_path[] = { "up", NULL };
    double n;
    printf("  %-9s %s: %s", "", text_at(o, "output"), YAJL_IS_TRUE(yajl_tree_get(o, up_path, yajl_t_any)) ? "up" : "down");
    if (number_at(o, "last_success_seconds", &n))
        printf(", last success %.0f s ago", n);
    if (number_at(o, "latency_mean_ms", &n))
        printf(", %.1f ms a request", n);
    if (number_at(o, "latency_p99_ms", &n))
        printf(" (99 %% within %.0f ms)", n);
    if (number_at(o, "certificate_days", &n))
        printf(", certificate %.0f days", n);
    if (number_at(o, "client_certificate_days", &n))
        printf(", client certificate %.0f days", n);
    putchar('\n');
}

static void print_more(yajl_val v)
{
    const char *outputs_path[] = { "outputs", NULL }, *room_path[] = { "room", NULL };
    yajl_val outputs = yajl_tree_get(v, outputs_path, yajl_t_array), room = yajl_tree_get(v, room_path, yajl_t_object);
    double free_bytes, least, open, limit;
    for (size_t i = 0; outputs != NULL && i < YAJL_GET_ARRAY(outputs)->len; i++)
        print_output(YAJL_GET_ARRAY(outputs)->values[i]);
    if (room != NULL && number_at(room, "state_free_bytes", &free_bytes) && number_at(room, "state_min_free_bytes", &least) &&
        number_at(room, "descriptors", &open) && number_at(room, "descriptors_limit", &limit))
        printf("  %-9s room: %.0f MiB free for the queues, limits.min_free is %.0f MiB; %.0f of %.0f descriptors open\n", "",
               free_bytes / 1048576, least / 1048576, open, limit);
}

static int no_answer(bool is_json)
{
    if (is_json)
        puts("{\"level\":\"Unhealthy\",\"overall_status\":\"unreachable\",\"checks\":[{\"level\":\"Unhealthy\","
             "\"check\":\"agent\",\"text\":\"the agent does not answer; is it running?\"}]}");
    else
        puts("Unhealthy\n  Unhealthy agent: the agent does not answer; is it running? (systemctl status tailrace)");
    return EXIT_NO_ANSWER;
}

static int report(const char *config, bool is_json)
{
    struct buf body;
    char why[128];
    buf_init(&body, MIB);
    int r = cli_ask_admin(config, "/health", &body);
    int status = EXIT_NO_ANSWER;
    yajl_val v = NULL;
    if (r > 0 && buf_terminate(&body) == 0)
        v = yajl_tree_parse(body.ptr, why, sizeof(why));
    if (v != NULL) {
        status = status_of(text_at(v, "level"));
        if (is_json) {
            printf("%.*s", SLICE_ARGS(buf_slice(&body)));
        } else {
            print_text(v);
            print_more(v);
        }
        yajl_tree_free(v);
    } else {
        status = no_answer(is_json);
    }
    (void)fflush(stdout);
    buf_deinit(&body);
    return status;
}

static int probe(const char *config, const char *what)
{
    struct buf body;
    buf_init(&body, MIB);
    int r = cli_ask_admin(config, strcmp(what, "live") == 0 ? "/health/live" : "/health/ready", &body);
    if (r == 200)
        puts("ok");
    else if (r > 0)
        printf("%.*s\n", SLICE_ARGS(slice_trim(buf_slice(&body))));
    else
        puts("the agent does not answer");
    buf_deinit(&body);
    return r == 200 ? EXIT_FINE : EXIT_FAILED;
}

int cmd_health(int argc, char **argv)
{
    enum { OPT_FORMAT = 256, OPT_WATCH };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "format", required_argument, NULL, OPT_FORMAT },
                                           { "watch", no_argument, NULL, OPT_WATCH },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    const char *config = DEFAULT_CONFIG, *format = "text";
    bool watch = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = optarg;
            break;
        case OPT_FORMAT:
            format = optarg;
            break;
        case OPT_WATCH:
            watch = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_HEALTH_MISUSE;
        }
    }
    bool is_json = strcmp(format, "json") == 0;
    if (!is_json && strcmp(format, "text") != 0) {
        (void)cli_misuse("health", "--format is text or json, not '%s'", format);
        return EXIT_HEALTH_MISUSE;
    }
    if (optind < argc) {
        if (optind + 1 == argc && (strcmp(argv[optind], "live") == 0 || strcmp(argv[optind], "ready") == 0))
            return probe(config, argv[optind]);
        (void)cli_misuse("health", "there is no probe '%s'", argv[optind]);
        return EXIT_HEALTH_MISUSE;
    }
    int status = report(config, is_json);
    while (watch) {
        (void)nanosleep(&(struct timespec){ .tv_sec = 2 }, NULL);
        status = report(config, is_json);
    }
    return status;
}
