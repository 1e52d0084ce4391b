#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/array.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "agent/cli/cli.h"
#include "outputs/file_archive.h"
#include "outputs/file_journal.h"

static const char help[] =
    "usage: tailrace archive ls     [-c FILE|DIR] [-o OUTPUT] [--tenant T] [--from DAY] [--to DAY]\n"
    "       tailrace archive export [-c FILE|DIR] [-o OUTPUT] [--tenant T] [--from DAY] [--to DAY]\n"
    "                               [--format ndjson|json] > LINES\n"
    "       tailrace archive verify [-c FILE|DIR] [-o OUTPUT] [--tenant T] [--from DAY] [--to DAY] [--hash HEX]...\n\n"
    "Reads what an output of type file has written, compressed or not; safe beside a running agent.\n\n"
    "  ls      the files, and how many lines and links each holds\n"
    "  export  the lines, oldest file first, without the links; exit status 1 when the chain does not hold\n"
    "  verify  the chain of an output with `chain: true`: that no line was removed, changed or put in, within files and\n"
    "          between them. Exit status 1 when one was, with file and lines\n\n"
    "  -c, --config FILE|DIR  the configuration (default " DEFAULT_CONFIG ")\n"
    "  -o, --output OUTPUT    which output, when several are of type file\n"
    "      --tenant T         only this tenant's; the path must have {tenant}\n"
    "      --from DAY         from this day of arrival on, as 2026-11-21 (UTC); the path must have a date\n"
    "      --to DAY           up to this day, which is included\n"
    "      --format F         ndjson: an object a line (default); json: one array\n"
    "      --hash HEX         this hash, kept from an event file.chained, must be a link of the chain\n"
    "  -h, --help\n";

#define HASHES_MAX 64

struct command {
    const char *what, *config, *output;
    bool is_json;
    struct archive_select select;
    struct chain_hash hashes[HASHES_MAX];
    size_t n_hashes;
    const struct output_conf *out;
    struct archive_conf archive;
    struct slice state_dir;
};

/* What was found, in all files. */
struct found {
    struct chain_hash *links; /* sorted by chain_order() once all are read */
    size_t n_links, cap_links;
    uint64_t lines, problems;
    bool is_export, is_json, has_line;
    bool is_judged; /* problems are told and count */
};

static void problem(void *ctx, const struct archive_file *f, const char *text)
{
    struct found *found = ctx;
    found->problems++;
    fprintf(found->is_export ? stderr : stdout, "%s: %s\n", f->path, text);
}

/* ---- reading ---- */

static int on_link(void *ctx, const struct chain_hash *hash)
{
    struct found *found = ctx;
    struct chain_hash *more = array_room(found->links, found->n_links, &found->cap_links, sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    found->links = more;
    found->links[found->n_links++] = *hash;
    return 0;
}

static int on_line(void *ctx, struct slice line)
{
    struct found *found = ctx;
    if (found->is_json && fputs(found->has_line ? ",\n" : "[\n", stdout) < 0)
        return -EIO;
    found->has_line = true;
    if (fwrite(line.ptr, 1, line.len, stdout) != line.len || (!found->is_json && putchar('\n') == EOF))
        return -EIO;
    return 0;
}

/* One that cannot be read is a problem; the others are read all the same. Out of output is the end. */
static int read_files(struct archive_files *files, struct found *found)
{
    const struct archive_reader to = { .line = found->is_export ? on_line : NULL, .link = on_link, .ctx = found,
                                       .problem = found->is_judged ? problem : NULL };
    for (size_t i = 0; i < files->n; i++) {
        struct err err = { 0 };
        int r = archive_read(&files->items[i], &to, &err);
        found->lines += files->items[i].lines;
        if (r < 0) {
            found->problems++;
            fprintf(found->is_export ? stderr : stdout, "%s\n", err.text);
        }
        if (ferror(stdout))
            return -EIO;
    }
    return 0;
}

/* ---- ls and export ---- */

static int list(struct archive_files *files, struct found *found)
{
    (void)!read_files(files, found);
    for (size_t i = 0; i < files->n; i++) {
        const struct archive_file *f = &files->items[i];
        printf("%s  %llu lines, %llu links\n", f->path, (unsigned long long)f->lines, (unsigned long long)f->links);
    }
    return EXIT_FINE;
}

static int export(const struct command *cmd, struct archive_files *files, struct found *found)
{
    found->is_export = true;
    found->is_judged = cmd->archive.chain;
    found->is_json = cmd->is_json;
    int r = read_files(files, found);
    if (r == 0 && found->is_json)
        fputs(found->has_line ? "\n]\n" : "[]\n", stdout);
    if (r < 0 || fflush(stdout) != 0) {
        fprintf(stderr, "tailrace archive: cannot write: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    return found->problems > 0 ? EXIT_FAILED : EXIT_FINE;
}

/* ---- verify: between files, and against what the agent knows ---- */

static int chain_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct chain_hash));
}

static bool is_link(const struct found *found, const struct chain_hash *h)
{
    return found->n_links > 0 && bsearch(h, found->links, found->n_links, sizeof(*h), chain_order) != NULL;
}

static struct slice folder_of(const char *path)
{
    return slice_first(slice_cstr(path), (size_t)(strrchr(path, '/') - path));
}

/* The first file of a folder may go on from one that was deleted long ago; any other goes on from one that is there. */
static void judge_starts(const struct archive_files *files, struct found *found)
{
    for (size_t i = 0; i < files->n; i++) {
        const struct archive_file *f = &files->items[i];
        bool is_first = true;
        for (size_t k = 0; k < i && is_first; k++)
            is_first = !slice_eq(folder_of(files->items[k].path), folder_of(f->path));
        if (!f->is_chained || is_link(found, &f->first_prev))
            continue;
        if (is_first && !chain_hash_is_zero(&f->first_prev))
            printf("%s: goes on from a file that is not here: deleted by the retention, or not asked for\n", f->path);
        else if (!is_first && chain_hash_is_zero(&f->first_prev))
            problem(found, f, "its chain begins anew: the file before it was changed or the agent's state was lost");
        else if (!is_first)
            problem(found, f, "goes on from a file or a block that is not there: it was removed");
    }
}

struct knowledge {
    const struct command *cmd;
    const struct archive_files *files;
    struct found *found;
    struct buf series; /* struct chain_hash and folder, from the journal as it was before the files were read */
};

static bool was_read(const struct knowledge *k, struct slice folder)
{
    for (size_t i = 0; i < k->files->n; i++)
        if (slice_eq(folder_of(k->files->items[i].path), folder))
            return true;
    return false;
}

/* What may be gone by the retention proves nothing. */
static bool may_be_deleted(const struct archive_conf *a, int64_t written_ns)
{
    return a->retain_bytes > 0 || (a->retain_ns > 0 && clock_wall_ns() - written_ns > a->retain_ns);
}

static int take_series(void *ctx, const struct file_journal_series *s)
{
    struct knowledge *k = ctx;
    const uint16_t len = (uint16_t)s->folder.len;
    if (chain_hash_is_zero(&s->last) || may_be_deleted(&k->cmd->archive, s->written_ns))
        return 0;
    int r = buf_append(&k->series, s->last.bytes, sizeof(s->last.bytes));
    if (r == 0)
        r = buf_append(&k->series, (const char *)&len, sizeof(len));
    return r < 0 ? r : buf_append_slice(&k->series, s->folder);
}

/* Before the files are read: the agent may write meanwhile. */
static void read_journal(struct knowledge *k)
{
    const struct file_journal_reader reader = { .series = take_series, .ctx = k };
    char path[4096];
    struct buf content;
    uint64_t seq;
    buf_init(&content, FILE_JOURNAL_BYTES_MAX);
    (void)snprintf(path, sizeof(path), "%.*s/queue/%.*s/files.state", SLICE_ARGS(k->cmd->state_dir),
                   SLICE_ARGS(k->cmd->out->name));
    if (io_read_file(AT_FDCWD, path, &content, NULL) < 0 || file_journal_read(buf_slice(&content), &reader, &seq) < 0) {
        buf_reset(&k->series);
        printf("%s: cannot be read; whether the end of the archive is missing is not known\n", path);
    }
    buf_deinit(&content);
}

/* The last link that the agent knows to be durable must be there: else the end was cut off. */
static void judge_ends(struct knowledge *k)
{
    struct slice rest = buf_slice(&k->series);
    const bool has_all = k->cmd->select.tenant.len == 0;
    while (rest.len > 0) {
        struct chain_hash last;
        uint16_t len;
        memcpy(last.bytes, rest.ptr, sizeof(last.bytes));
        memcpy(&len, rest.ptr + sizeof(last.bytes), sizeof(len));
        rest = slice_from(rest, sizeof(last.bytes) + sizeof(len));
        const struct slice folder = slice_first(rest, len);
        rest = slice_from(rest, len);
        if (is_link(k->found, &last) || !(has_all || was_read(k, folder)))
            continue;
        k->found->problems++;
        printf("%.*s: the last link that was written is not there: the end of a file, or all of it, was removed\n",
               SLICE_ARGS(folder));
    }
}

static void judge_hashes(const struct command *cmd, struct found *found)
{
    char hex[CHAIN_HEX_BYTES + 1];
    for (size_t i = 0; i < cmd->n_hashes; i++) {
        if (is_link(found, &cmd->hashes[i]))
            continue;
        chain_hash_hex(&cmd->hashes[i], hex);
        found->problems++;
        printf("%s: no link has this hash: the archive is not the one it was taken from\n", hex);
    }
}

static int verify(const struct command *cmd, struct archive_files *files, struct found *found)
{
    struct knowledge k = { .cmd = cmd, .files = files, .found = found };
    buf_init(&k.series, FILE_JOURNAL_BYTES_MAX);
    found->is_judged = true;
    if (!cmd->archive.chain)
        printf("output %.*s has no `chain: true`: nothing is added to its chain\n", SLICE_ARGS(cmd->out->name));
    else if (cmd->select.last_day == INT64_MAX)
        read_journal(&k);
    (void)!read_files(files, found);
    if (found->n_links > 0)
        qsort(found->links, found->n_links, sizeof(found->links[0]), chain_order);
    judge_starts(files, found);
    judge_ends(&k);
    judge_hashes(cmd, found);
    buf_deinit(&k.series);
    printf("%zu files, %llu lines, %zu links: %s\n", files->n, (unsigned long long)found->lines, found->n_links,
           found->problems == 0 ? "the chain holds" : "the chain does not hold");
    return found->problems == 0 ? EXIT_FINE : EXIT_FAILED;
}

/* ---- the command line ---- */

static bool parse_day(const char *text, int64_t *ret)
{
    unsigned year, month, day;
    int end = 0;
    if (sscanf(text, "%4u-%2u-%2u%n", &year, &month, &day, &end) != 3 || text[end] != '\0' || month < 1 || month > 12 ||
        day < 1 || day > 31)
        return false;
    *ret = clock_days_from_civil(year, month, day);
    return true;
}

enum { OPT_TENANT = 256, OPT_FROM, OPT_TO, OPT_FORMAT, OPT_HASH };

static int parse_option(int opt, struct command *cmd)
{
    switch (opt) {
    case 'c':
        cmd->config = optarg;
        return EXIT_FINE;
    case 'o':
        cmd->output = optarg;
        return EXIT_FINE;
    case OPT_TENANT:
        cmd->select.tenant = slice_cstr(optarg);
        return EXIT_FINE;
    case OPT_FROM:
    case OPT_TO:
        if (!parse_day(optarg, opt == OPT_FROM ? &cmd->select.first_day : &cmd->select.last_day))
            return cli_misuse("archive", "'%s' is no day, such as 2026-11-21", optarg);
        return EXIT_FINE;
    case OPT_FORMAT:
        cmd->is_json = strcmp(optarg, "json") == 0;
        if (!cmd->is_json && strcmp(optarg, "ndjson") != 0)
            return cli_misuse("archive", "--format is ndjson or json, not '%s'", optarg);
        return EXIT_FINE;
    case OPT_HASH:
        if (cmd->n_hashes == HASHES_MAX || !chain_hash_parse(slice_cstr(optarg), &cmd->hashes[cmd->n_hashes++]))
            return cli_misuse("archive", "'%s' is no hash of %d hex digits, or one too many", optarg, CHAIN_HEX_BYTES);
        return EXIT_FINE;
    case 'h':
        fputs(help, stdout);
        return EXIT_FAILED;
    default:
        return EXIT_MISUSE;
    }
}

/* EXIT_FINE, EXIT_FAILED after help, or EXIT_MISUSE. */
static int parse(int argc, char **argv, struct command *cmd)
{
    static const struct option longs[] = { { "config", required_argument, NULL, 'c' },
                                           { "output", required_argument, NULL, 'o' },
                                           { "tenant", required_argument, NULL, OPT_TENANT },
                                           { "from", required_argument, NULL, OPT_FROM },
                                           { "to", required_argument, NULL, OPT_TO },
                                           { "format", required_argument, NULL, OPT_FORMAT },
                                           { "hash", required_argument, NULL, OPT_HASH },
                                           { "help", no_argument, NULL, 'h' },
                                           { NULL, 0, NULL, 0 } };
    int opt, status = EXIT_FINE;
    while (status == EXIT_FINE && (opt = getopt_long(argc, argv, "c:o:h", longs, NULL)) != -1)
        status = parse_option(opt, cmd);
    if (status != EXIT_FINE)
        return status;
    if (optind + 1 != argc || (strcmp(argv[optind], "ls") != 0 && strcmp(argv[optind], "export") != 0 &&
                               strcmp(argv[optind], "verify") != 0))
        return cli_misuse("archive", "say ls, export or verify");
    cmd->what = argv[optind];
    return EXIT_FINE;
}

/* The one that is named, or the only one. */
static int find_output(struct command *cmd, const struct conf *c)
{
    struct err err = { 0 };
    for (size_t i = 0; i < c->n_outputs; i++) {
        const struct output_conf *out = &c->outputs[i];
        const bool is_named = cmd->output != NULL && slice_eq(out->name, slice_cstr(cmd->output));
        if (!is_named && (cmd->output != NULL || strcmp(out->type->name, "file") != 0))
            continue;
        if (cmd->out != NULL)
            return cli_misuse("archive", "several outputs are of type file: name one with --output");
        cmd->out = out;
    }
    if (cmd->out == NULL)
        return cmd->output != NULL ? cli_misuse("archive", "there is no output '%s'", cmd->output)
                                   : cli_misuse("archive", "no output is of type file");
    if (archive_conf_of(cmd->out, &cmd->archive, &err) < 0)
        return cli_misuse("archive", "%s", err.text);
    cmd->state_dir = c->state_dir;
    return EXIT_FINE;
}

static int run(const struct command *cmd)
{
    struct archive_files files;
    struct found found = { 0 };
    struct err err = { 0 };
    int r = archive_list(&cmd->archive.shape, &cmd->select, &files, &err);
    if (r < 0) {
        fprintf(stderr, "tailrace archive: %s\n", err.text);
        return r == -EINVAL ? EXIT_MISUSE : EXIT_FAILED;
    }
    int status = strcmp(cmd->what, "ls") == 0       ? list(&files, &found)
                 : strcmp(cmd->what, "export") == 0 ? export(cmd, &files, &found)
                                                    : verify(cmd, &files, &found);
    free(found.links);
    archive_free(&files);
    return status;
}

int cmd_archive(int argc, char **argv)
{
    struct command cmd = { .config = DEFAULT_CONFIG, .select = { .first_day = INT64_MIN, .last_day = INT64_MAX } };
    struct conf *c;
    int status = parse(argc, argv, &cmd);
    if (status != EXIT_FINE)
        return status == EXIT_FAILED ? EXIT_FINE : status; /* help was asked for */
    status = cli_load(cmd.config, &c);
    if (status != EXIT_FINE)
        return status;
    status = find_output(&cmd, c);
    if (status == EXIT_FINE)
        status = run(&cmd);
    conf_free(c);
    return status;
}
