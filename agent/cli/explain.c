#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/tenants.h"
#include "agent/cli/cli.h"
#include "agent/cli/explain.h"
#include "agent/pipeline.h"
#include "agent/registry.h"
#include "agent/tail/tail.h"

static const char help[] =
    "usage: tailrace explain [-c FILE|DIR] [--input NAME] [--path PATH] [POD] < LINES\n"
    "       tailrace explain [-c FILE|DIR] --file PATH [--lines N] [POD]\n\n"
    "Shows what each step makes of a line: format, level, module, time, tenant, kept or dropped and by which\n"
    "directive, route, and what each output would send. Nothing is sent. Of a pod's file also what is known of the pod:\n"
    "what the agent has in state_dir (only read), with what POD says over it. Levels that are set for a time are not seen.\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "      --input NAME       as which input the lines are read (default: the one that takes PATH, else the first)\n"
    "      --path PATH        from which file they are said to be\n"
    "      --file PATH        which input takes this file, or why none does; then its first lines\n"
    "      --lines N          how many of them (default 3)\n"
    "POD:  --labels NAME=VALUE,…     labels of its pod\n"
    "      --annotation NAME=VALUE   an annotation of its pod; again for each\n"
    "  -h, --help\n";

struct explain {
    struct conf *conf;
    struct feeder feeders[OUTPUTS_MAX];
    struct tallies *tallies;
    struct pipeline *pipeline;
    struct source *source;
    uint32_t input;
    struct slice path;
    struct pairs captures;
    struct buf text;
    struct explain_said said;
};

static const char *const stream_names[] = { "", "stdout", "stderr" };

/* A line may hold what a terminal obeys: control bytes (C0, DEL, C1) and what is no UTF-8 are shown as \xNN. */
static void print_tame(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        struct slice rest = slice_from(s, i);
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_c1 = c == 0xc2 && rest.len > 1 && (unsigned char)rest.ptr[1] < 0xa0;
        size_t valid = c < 0x80 ? 1 : slice_utf8_valid(slice_first(rest, MIN(rest.len, c < 0xe0 ? 2u : c < 0xf0 ? 3u : 4u)));
        if (valid == 0 || is_c1 || (c < 0x20 && c != '\t') || c == 0x7f) {
            printf("\\x%02x", c);
            continue;
        }
        (void)fwrite(rest.ptr, 1, valid, stdout);
        i += valid - 1;
    }
}

void explain_show(const char *step, const char *fmt, ...)
{
    va_list args;
    char *words = NULL;
    printf("  %-9s", step);
    va_start(args, fmt);
    if (vasprintf(&words, fmt, args) >= 0)
        print_tame(slice_cstr(words));
    va_end(args);
    free(words);
    putchar('\n');
}

static void show_time(const struct record *rec, bool frame_has_time)
{
    struct buf t;
    buf_init(&t, 64);
    if (clock_append_rfc3339(&t, rec->time_ns, 9) == 0)
        explain_show("time", "%.*s, %s%s", SLICE_ARGS(buf_slice(&t)),
                     (rec->flags & RECORD_HAS_TIME) == 0 ? "the time of reading"
                     : frame_has_time                    ? "the record's own or its container frame's"
                                                         : "the record's own",
                     (rec->flags & RECORD_BAD_TIME) != 0 ? " (its time key could not be understood)" : "");
    buf_deinit(&t);
}

static void show_record(const struct record *rec, const struct framed *fr)
{
    explain_show("format", "%s%s%s%s%s", fr->is_framed ? "container frame, " : "",
                 rec->kind == RECORD_JSON ? "JSON object" : "text",
                 rec->stream != STREAM_NONE ? ", " : "", stream_names[rec->stream],
                 (rec->flags & RECORD_BAD_JSON) != 0 ? " (begins like JSON, but is not valid)" : "");
    explain_show("level", "%.*s", SLICE_ARGS(level_name(rec->level)));
    explain_show("module", "%.*s%s", SLICE_ARGS(rec->module), rec->module.len == 0 ? "(none)" : "");
}

static void show_details(const struct explain *x, const struct record *rec, const struct framed *fr)
{
    struct buf m;
    show_time(rec, fr->has_time);
    buf_init(&m, 4096);
    if (buf_append_json_string(&m, slice_first(rec->message, 200)) == 0)
        explain_show("message", "%.*s", SLICE_ARGS(buf_slice(&m)));
    buf_deinit(&m);
    for (size_t i = 0; i < rec->n_suspects; i++)
        explain_show("clash", "the payload has '%.*s', which is near one of our names: see the outputs",
                     SLICE_ARGS(rec->suspects[i].key));
    if ((rec->flags & RECORD_DUPLICATE_KEYS) != 0)
        explain_show("clash", "a key occurs twice");
    for (size_t i = 0; i < x->conf->wanted.n; i++)
        if (rec->values[i].kind != VALUE_MISSING)
            explain_show("key", "record.%.*s = %.*s", SLICE_ARGS(x->conf->wanted.paths[i]), SLICE_ARGS(rec->values[i].text));
}

static void show_levels(const struct decision *d, const struct record *rec)
{
    bool is_dropped = d->is_out_early || d->is_dropped_by_level;
    if (d->levels == NULL) {
        explain_show("levels", "none said: kept");
        return;
    }
    struct slice directive = levels_directive(d->levels, rec->module);
    if (directive.len == 0)
        explain_show("levels", "\"%.*s\": no directive covers it: kept", SLICE_ARGS(levels_text(d->levels)));
    else
        explain_show("levels", "\"%.*s\": directive '%.*s' %s it%s", SLICE_ARGS(levels_text(d->levels)), SLICE_ARGS(directive),
                     is_dropped ? "drops" : "keeps", d->is_out_early ? " (the rest of the line is not parsed)" : "");
}

static void show_routes(const struct explain *x, const struct decision *d)
{
    for (size_t i = 0; i < d->n_routes; i++) {
        const struct conf_route *r = &x->conf->routes[d->routes[i].route];
        if (d->routes[i].is_dropped_by_level) {
            explain_show("route", "#%u matches; its levels drop the record", d->routes[i].route + 1);
        } else if (r->is_drop) {
            explain_show("route", "#%u matches and drops", d->routes[i].route + 1);
        } else {
            printf("  route    #%u matches, to", d->routes[i].route + 1);
            for (uint32_t m = r->outputs; m != 0; m &= m - 1)
                printf(" %.*s", SLICE_ARGS(x->conf->outputs[__builtin_ctz(m)].name));
            printf("%s\n", r->is_continue ? ", and goes on" : "");
        }
    }
    if (d->outputs == 0)
        explain_show("result", d->is_dropped_by_rule ? "dropped by a route: counted filtered{rule}"
                               : d->n_routes == 0    ? "no route takes it: counted filtered{unrouted}"
                                                     : "dropped by levels: counted filtered{level}");
}

static void show_outputs(struct explain *x, const struct decision *d, const struct record *rec)
{
    for (uint32_t m = d->outputs; m != 0; m &= m - 1) {
        struct output *out = x->feeders[__builtin_ctz(m)].output;
        buf_reset(&x->text);
        if (out->ops->explain == NULL || out->ops->explain(out, rec, &x->text) < 0)
            continue;
        printf("  output   %.*s (%s)\n", SLICE_ARGS(out->conf->name), out->ops->type->name);
        struct slice rest = slice_trim(buf_slice(&x->text));
        while (rest.len > 0) {
            ptrdiff_t lf = slice_find_byte(rest, '\n');
            struct slice line = lf < 0 ? rest : slice_first(rest, (size_t)lf);
            printf("             ");
            print_tame(line);
            putchar('\n');
            rest = lf < 0 ? slice_first(rest, 0) : slice_from(rest, (size_t)lf + 1);
        }
    }
}

static void explain_line(struct explain *x, struct slice line, uint64_t off)
{
    static struct decision d;
    static struct record rec;
    struct framed fr;
    int64_t now = clock_wall_ns();
    print_tame(slice_first(line, 300));
    printf("%s\n", line.len > 300 ? "…" : "");
    explain_show("input", "%.*s, file %.*s, offset %llu", SLICE_ARGS(x->conf->inputs[x->input].name), SLICE_ARGS(x->path),
                 (unsigned long long)off);
    explain_pod_show(x->conf, x->source);
    parser_frame(pipeline_parser(x->pipeline, x->input), line, now, &fr);
    if (fr.is_partial)
        explain_show("partial", "the rest of this record follows in the next line of its stream");
    rec = (struct record){ .origin = x->source->origin, .offset = off, .read_ns = now, .stream = fr.stream,
                           .line = fr.content, .incarnation = 1 };
    if (fr.has_time) {
        rec.flags = RECORD_HAS_TIME;
        rec.time_ns = fr.time_ns;
    }
    pipeline_decide(x->pipeline, x->source, &rec, &d);
    show_record(&rec, &fr);
    if (!d.is_out_early)
        show_details(x, &rec, &fr);
    explain_show("tenant", "%.*s", SLICE_ARGS(rec.tenant));
    show_levels(&d, &rec);
    if (x->source->metadata.choices.is_excluded)
        explain_show("result", "the pod asks to be excluded (" ANNOTATION_PREFIX "exclude): counted filtered{rule}");
    else if (d.is_out_early || d.is_dropped_by_level)
        explain_show("result", "dropped: counted filtered{level}");
    else {
        show_routes(x, &d);
        show_outputs(x, &d, &rec);
    }
    putchar('\n');
}

static int open_outputs(struct explain *x, struct err *err)
{
    x->tallies = tallies_new(x->conf);
    if (x->tallies == NULL)
        return err_set(err, -ENOMEM, "cannot explain");
    for (size_t i = 0; i < x->conf->n_outputs; i++) {
        struct output *out = NULL;
        int r = registry_ops(x->conf->outputs[i].type)->open(&x->conf->outputs[i], &out, err);
        if (r < 0)
            return r;
        feeder_init(&x->feeders[i], out, NULL, x->tallies, 0);
    }
    struct pipeline_conf pc = { .conf = x->conf, .feeders = x->feeders, .n_feeders = x->conf->n_outputs,
                                .tallies = x->tallies };
    return pipeline_new(&pc, &x->pipeline, err);
}

static int make_source(struct explain *x)
{
    struct file_ident ident = { .incarnation = 1, .path = x->path, .input = x->conf->inputs[x->input].name };
    struct tail_file_info info = { .input_index = x->input, .ident = &ident, .captures = x->captures };
    x->source = source_new(x->conf, NULL, NULL, &info);
    return x->source == NULL ? -ENOMEM : 0;
}

static void close_all(struct explain *x)
{
    source_free(x->source);
    pipeline_free(x->pipeline);
    for (size_t i = 0; i < OUTPUTS_MAX; i++)
        if (x->feeders[i].output != NULL)
            x->feeders[i].output->ops->close(x->feeders[i].output);
    tallies_free(x->tallies);
    buf_deinit(&x->text);
    conf_free(x->conf);
}

/* Its bytes in the file, 0 at the end; of a longer line only the first LINE_BYTES_MAX are kept. */
static uint64_t read_line(FILE *in, struct buf *line)
{
    uint64_t n = 0;
    int c;
    buf_reset(line);
    while ((c = getc_unlocked(in)) != EOF) {
        n++;
        if (c == '\n')
            break;
        if (line->len < LINE_BYTES_MAX && buf_append_byte(line, (char)c) < 0)
            return 0;
    }
    return n;
}

static int explain_stream(struct explain *x, FILE *in, uint64_t max_lines)
{
    uint64_t off = 0, n;
    struct buf line;
    buf_init(&line, 2 * LINE_BYTES_MAX);
    if (buf_reserve(&line, 1) < 0)
        return EXIT_FAILED;
    for (uint64_t i = 0; i < max_lines && (n = read_line(in, &line)) > 0; i++) {
        explain_line(x, buf_slice(&line), off);
        off += n;
    }
    buf_deinit(&line);
    return EXIT_FINE;
}

static int choose_input(struct explain *x, const char *input, const char *path, bool must_be_taken)
{
    int r = tail_explain(x->conf, path, &x->text, &x->input, &x->captures);
    if (must_be_taken) {
        printf("%s\n%.*s\n\n", path, SLICE_ARGS(slice_trim(buf_slice(&x->text))));
        if (r < 0)
            return EXIT_FAILED;
    }
    if (r < 0)
        x->input = 0;
    for (uint32_t i = 0; input != NULL && i <= x->conf->n_inputs; i++) {
        if (i == x->conf->n_inputs)
            return cli_misuse("explain", "there is no input '%s'", input);
        if (slice_eq(x->conf->inputs[i].name, slice_cstr(input))) {
            x->input = i;
            break;
        }
    }
    x->path = slice_cstr(path);
    return EXIT_FINE;
}

static int explain(struct explain *x, const char *input, const char *path, const char *file, uint64_t lines)
{
    struct err err = { 0 };
    int status = choose_input(x, input, file != NULL ? file : path, file != NULL);
    if (status != EXIT_FINE)
        return status;
    if (open_outputs(x, &err) < 0 || make_source(x) < 0) {
        fprintf(stderr, "tailrace explain: %s\n", err.text[0] != '\0' ? err.text : "out of memory");
        return EXIT_FAILED;
    }
    status = explain_pod_set(x->conf, x->source, &x->said);
    if (status != EXIT_FINE)
        return status;
    if (file == NULL)
        return explain_stream(x, stdin, UINT64_MAX);
    FILE *in = fopen(file, "re");
    if (in == NULL) {
        fprintf(stderr, "tailrace explain: cannot open %s: %s\n", file, strerrordesc_np(errno));
        return EXIT_FAILED;
    }
    status = explain_stream(x, in, lines);
    (void)fclose(in);
    return status;
}

int cmd_explain(int argc, char **argv)
{
    enum { OPT_INPUT = 256, OPT_PATH, OPT_FILE, OPT_LINES, OPT_LABELS, OPT_ANNOTATION };
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "input", required_argument, NULL, OPT_INPUT },
                                           { "path", required_argument, NULL, OPT_PATH },
                                           { "file", required_argument, NULL, OPT_FILE },
                                           { "lines", required_argument, NULL, OPT_LINES },
                                           { "labels", required_argument, NULL, OPT_LABELS },
                                           { "annotation", required_argument, NULL, OPT_ANNOTATION },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    static struct explain x;
    const char *config = DEFAULT_CONFIG, *input = NULL, *path = "/var/log/stdin.log", *file = NULL;
    uint64_t lines = 3;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = optarg;
            break;
        case OPT_INPUT:
            input = optarg;
            break;
        case OPT_PATH:
            path = optarg;
            break;
        case OPT_FILE:
            file = optarg;
            break;
        case OPT_LINES:
            if (!slice_to_u64(slice_cstr(optarg), &lines) || lines > 1000000)
                return cli_misuse("explain", "--lines takes a number, not '%s'", optarg);
            break;
        case OPT_LABELS:
            if (!explain_say_labels(&x.said, slice_cstr(optarg)))
                return cli_misuse("explain", "--labels takes NAME=VALUE,…, not '%s'", optarg);
            break;
        case OPT_ANNOTATION:
            if (!explain_say_annotation(&x.said, slice_cstr(optarg)))
                return cli_misuse("explain", "--annotation takes NAME=VALUE, not '%s'", optarg);
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return EXIT_MISUSE;
        }
    }
    if (optind < argc)
        return cli_misuse("explain", "unexpected '%s'; lines come on standard input", argv[optind]);
    int status = cli_load(config, &x.conf);
    if (status != EXIT_FINE)
        return status;
    buf_init(&x.text, 8 * MIB);
    status = explain(&x, input, path, file, lines);
    close_all(&x);
    return status;
}
