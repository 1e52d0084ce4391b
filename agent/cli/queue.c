#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/clock.h"
#include "agent/cli/cli.h"
#include "agent/queue/inspect.h"
#include "agent/registry.h"
#include "outputs/output.h"

#define LINES_MAX (64 * MIB)

static const char help[] =
    "usage: tailrace queue ls     [-c FILE|DIR] [OUTPUT...]\n"
    "       tailrace queue verify [-c FILE|DIR] [OUTPUT...]\n"
    "       tailrace queue cat    [-c FILE|DIR] [--dead|--parked|--all] OUTPUT\n"
    "       tailrace queue export [-c FILE|DIR] OUTPUT > LINES\n\n"
    "Looks into the queues on disk; reads only, safe beside a running agent.\n\n"
    "  ls       segments, cursor, lines and bytes waiting, parked frames, dead letters\n"
    "  verify   every checksum and the chain of positions; exit status 1 when there are problems\n"
    "  cat      the lines that wait, as JSON; before each frame a comment line with its seq and route\n"
    "  export   the lines that were not delivered (waiting and parked), one JSON object a line\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "      --dead             with cat: dead letters, with status and reason\n"
    "      --parked           with cat: parked frames\n"
    "      --all              with cat: delivered frames too, as long as they are on disk\n"
    "  -h, --help\n";

struct walk {
    struct output *output;   /* to decode with */
    unsigned places;         /* 1 << enum queue_place */
    bool with_heads;
    uint64_t undecoded;
    struct buf text;
};

static int queue_dir(const struct conf *c, struct slice output, char *dir, size_t size)
{
    int n = snprintf(dir, size, "%.*s/queue/%.*s", SLICE_ARGS(c->state_dir), SLICE_ARGS(output));
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static void print_head(const struct queue_frame *f, const struct frame_meta *m)
{
    struct buf when;
    buf_init(&when, 64);
    if (clock_append_rfc3339(&when, f->head.built_ns, 3) < 0)
        buf_reset(&when);
    printf("# seq %llu, %s, route '%.*s', %u lines, %u bytes, built %.*s, in %s", (unsigned long long)f->head.seq,
           queue_place_name(f->place), SLICE_ARGS(m->route), f->head.lines, f->head.body_len,
           SLICE_ARGS(buf_slice(&when)), f->file);
    if (m->orig.seq != 0)
        printf(", status %d, reason %.*s: %.*s", m->orig.status, SLICE_ARGS(m->orig.reason), SLICE_ARGS(m->orig.text));
    printf("%s\n", f->is_whole ? "" : " (damaged)");
    buf_deinit(&when);
}

static int each_frame(void *ctx, const struct queue_frame *f)
{
    struct walk *w = ctx;
    struct frame_row rows[256];
    struct frame_meta m = { 0 };
    struct items items = { 0 };
    if ((w->places & (1u << f->place)) == 0)
        return 0;
    int r = frame_meta_parse(f->meta, rows, ARRAY_LEN(rows), &m);
    if (w->with_heads && r == 0)
        print_head(f, &m);
    if (r == 0 && f->is_whole)
        r = w->output->ops->items(w->output, f->body, m.route, &items);
    buf_reset(&w->text);
    if (r == 0 && f->is_whole)
        r = w->output->ops->print(w->output, &items, &w->text);
    items_deinit(&items);
    if (r < 0 || !f->is_whole) {
        w->undecoded++;
        return 0; /* the other frames are good all the same */
    }
    return fwrite(w->text.ptr, 1, w->text.len, stdout) == w->text.len ? 0 : -EIO;
}

/* Lines of one output's queue, decoded by the output itself. */
static int print_lines(const struct conf *c, size_t i, unsigned places, bool with_heads)
{
    char dir[4096];
    struct err err = { 0 };
    struct walk w = { .places = places, .with_heads = with_heads };
    int r = queue_dir(c, c->outputs[i].name, dir, sizeof(dir));
    buf_init(&w.text, LINES_MAX);
    if (r == 0)
        r = registry_ops(c->outputs[i].type)->open(&c->outputs[i], &w.output, &err);
    if (r == 0)
        r = queue_inspect_each_frame(dir, each_frame, &w, &err);
    if (r < 0)
        fprintf(stderr, "tailrace queue: %s\n", err.text[0] != '\0' ? err.text : strerrordesc_np(-r));
    if (w.undecoded > 0)
        fprintf(stderr, "tailrace queue: %llu frames could not be read\n", (unsigned long long)w.undecoded);
    if (w.output != NULL)
        w.output->ops->close(w.output);
    buf_deinit(&w.text);
    return r < 0 || w.undecoded > 0 ? EXIT_FAILED : EXIT_FINE;
}

typedef int report_fn(const char *dir, struct buf *text, struct err *err);

static int report(const struct conf *c, struct slice output, report_fn *fn)
{
    char dir[4096];
    struct err err = { 0 };
    struct buf text;
    buf_init(&text, LINES_MAX);
    int r = queue_dir(c, output, dir, sizeof(dir));
    if (r == 0)
        r = fn(dir, &text, &err);
    printf("%.*s: %s\n%.*s", SLICE_ARGS(output), dir, SLICE_ARGS(buf_slice(&text)));
    if (r < 0)
        printf("%s\n", err.text[0] != '\0' ? err.text : strerrordesc_np(-r));
    buf_deinit(&text);
    return r == 0 ? EXIT_FINE : EXIT_FAILED;
}

static bool is_configured(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_outputs; i++)
        if (slice_eq(c->outputs[i].name, slice_cstr(name)))
            return true;
    return false;
}

/* The named outputs; without names all configured ones, and those on disk that are configured no more. */
static int report_all(const struct conf *c, char **names, int n_names, report_fn *fn)
{
    char root[4096];
    int status = EXIT_FINE;
    for (int i = 0; i < n_names; i++)
        status |= report(c, slice_cstr(names[i]), fn);
    if (n_names > 0)
        return status;
    for (size_t i = 0; i < c->n_outputs; i++)
        status |= report(c, c->outputs[i].name, fn);
    (void)snprintf(root, sizeof(root), "%.*s/queue", SLICE_ARGS(c->state_dir));
    DIR *d = opendir(root);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || is_configured(c, e->d_name))
            continue;
        printf("(orphan: no output of this name is configured)\n");
        status |= report(c, slice_cstr(e->d_name), fn);
    }
    if (d != NULL)
        (void)closedir(d);
    return status;
}

static int lines_of(const struct conf *c, char **names, int n_names, unsigned places, bool with_heads)
{
    if (n_names != 1)
        return cli_misuse("queue", "name one output");
    for (size_t i = 0; i < c->n_outputs; i++)
        if (slice_eq(c->outputs[i].name, slice_cstr(names[0])))
            return print_lines(c, i, places, with_heads);
    return cli_misuse("queue", "there is no output '%s'", names[0]);
}

static int dispatch(const struct conf *c, const char *what, char **names, int n_names, unsigned places)
{
    if (strcmp(what, "ls") == 0)
        return report_all(c, names, n_names, queue_inspect_ls);
    if (strcmp(what, "verify") == 0)
        return report_all(c, names, n_names, queue_inspect_verify);
    if (strcmp(what, "cat") == 0)
        return lines_of(c, names, n_names, places, true);
    if (strcmp(what, "export") == 0)
        return lines_of(c, names, n_names, 1u << QUEUE_PLACE_QUEUED | 1u << QUEUE_PLACE_PARKED, false);
    return cli_misuse("queue", "there is no '%s'", what);
}

int cmd_queue(int argc, char **argv)
{
    enum { OPT_DEAD = 256, OPT_PARKED, OPT_ALL };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "dead", no_argument, NULL, OPT_DEAD },
                                           { "parked", no_argument, NULL, OPT_PARKED },
                                           { "all", no_argument, NULL, OPT_ALL },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    const char *config = DEFAULT_CONFIG;
    unsigned places = 1u << QUEUE_PLACE_QUEUED;
    struct conf *c;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = optarg;
            break;
        case OPT_DEAD:
            places = 1u << QUEUE_PLACE_DEAD;
            break;
        case OPT_PARKED:
            places = 1u << QUEUE_PLACE_PARKED;
            break;
        case OPT_ALL:
            places = 1u << QUEUE_PLACE_QUEUED | 1u << QUEUE_PLACE_ACKED | 1u << QUEUE_PLACE_PARKED;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_MISUSE;
        }
    }
    if (optind >= argc)
        return cli_misuse("queue", "say ls, verify, cat or export");
    int status = cli_load(config, &c);
    if (status != EXIT_FINE)
        return status;
    status = dispatch(c, argv[optind], argv + optind + 1, argc - optind - 1, places);
    conf_free(c);
    return status;
}
