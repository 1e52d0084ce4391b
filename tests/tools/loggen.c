/*
 * loggen: writes lines as five loggers write them, fast, into many files that are rotated by rename.
 *
 * Build: cc -std=c17 -D_GNU_SOURCE -O2 -Wall -Wextra -Wshadow -Wconversion -Werror loggen.c -o loggen
 *
 * loggen DIR [options]; file k is DIR/PREFIX-kkk.log and belongs to logger k % 5 (tracing pino structlog
 * pythonjson zap). Line i goes to file i % FILES and carries the id "S" and ten digits of i, once, in the
 * field seq. Times are of now and never fall. Level, module and tenant follow from the seed and i. At the end
 * a JSON summary of what was written goes to stdout. --index FILE leaves four bytes a line: logger, level,
 * module, tenant.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOGGERS = 5, LEVELS = 6, MODULES = 4, MAX_FILES = 20000, MAX_TENANTS = 255, LINE_MAX_BYTES = 4096 };

static const char *const loggers[LOGGERS] = { "tracing", "pino", "structlog", "pythonjson", "zap" };
static const char *const levels[LEVELS] = { "trace", "debug", "info", "warn", "error", "fatal" };
static const char *const modules[LOGGERS][MODULES] = {
    { "kv_consensus", "kv_storage", "kv_storage::wal", "kv_server::http" },
    { "http", "cache", "discovery", "auth" },
    { "registry.api", "federation.peer", "layer", "registry.api.v2" },
    { "app.db", "app.web", "celery.worker", "app.web.forms" },
    { "controller", "controller.pods", "scheduler", "scheduler.queue" },
};
/* how each logger spells our levels; the same spelling twice: it has no level of its own for it */
static const char *const spelled[LOGGERS][LEVELS] = {
    { "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "ERROR" },
    { "10", "20", "30", "40", "50", "60" },
    { "debug", "debug", "info", "warning", "error", "critical" },
    { "DEBUG", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL" },
    { "debug", "debug", "info", "warn", "error", "fatal" },
};
/* the level that a reader can tell from the spelling */
static const uint8_t meant[LOGGERS][LEVELS] = {
    { 0, 1, 2, 3, 4, 4 }, { 0, 1, 2, 3, 4, 5 }, { 1, 1, 2, 3, 4, 5 },
    { 1, 1, 2, 3, 4, 5 }, { 1, 1, 2, 3, 4, 5 },
};
static const char *const words[] = {
    "request",  "connection", "leader",    "commit",     "view",       "replica", "cache", "miss",
    "hit",      "replicate",  "peer",      "discovered", "index",      "query",   "apply", "projection",
    "lag",      "prepare",    "timeout",   "retry",      "failed",     "success", "token", "agent",
    "register", "federation", "heartbeat", "snapshot",   "compaction", "flush",   "lease", "quorum",
};
enum { WORDS = sizeof words / sizeof words[0] };

struct options {
    const char *dir, *prefix, *index;
    uint64_t lines, first, rotate, rate, seed;
    size_t block;
    unsigned files, tenants, keep;
    bool cri, torn, late, append;
};

struct file {
    char name[64];
    int fd;
    bool reopen; /* renamed: the next block still goes to the old file, then a new one is opened */
    unsigned rotations;
    uint64_t size; /* bytes in the present file */
    char *buf;
    size_t len;
};

static struct options opt = {
    .prefix = "app",
    .lines = 1000000,
    .rotate = 1 << 20,
    .files = 50,
    .block = 8192,
    .seed = 1,
};
static int dirfd_;
static struct file *files;
static uint64_t by_logger[LOGGERS][LEVELS], by_module[LOGGERS][MODULES], by_tenant[MAX_TENANTS + 1];
static uint64_t bytes_written, rotations, deleted, random_state;

static void die(const char *what)
{
    fprintf(stderr, "loggen: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static unsigned draw(unsigned below)
{
    random_state = mix(random_state);
    return (unsigned)(random_state >> 33) % below;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- files ---- */

static void open_new(struct file *f)
{
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (opt.append ? 0 : O_EXCL);
    f->fd = openat(dirfd_, f->name, flags, 0644);
    if (f->fd < 0)
        die(f->name);
    f->size = 0;
}

static void write_all(struct file *f, size_t len)
{
    size_t at = 0;
    while (at < len) {
        ssize_t n = write(f->fd, f->buf + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die(f->name);
        at += (size_t)n;
    }
    f->size += len;
    bytes_written += len;
    memmove(f->buf, f->buf + len, f->len - len);
    f->len -= len;
}

/* NAME.2 -> NAME.3, NAME.1 -> NAME.2, NAME -> NAME.1, as logrotate numbers them */
static void rename_chain(struct file *f)
{
    char from[96], to[96];
    unsigned top = f->rotations;
    if (opt.keep > 0 && top >= opt.keep) {
        snprintf(from, sizeof from, "%s.%u", f->name, opt.keep);
        if (unlinkat(dirfd_, from, 0) < 0)
            die(from);
        deleted++;
        top = opt.keep - 1;
    }
    for (unsigned i = top; i > 0; i--) {
        snprintf(from, sizeof from, "%s.%u", f->name, i);
        snprintf(to, sizeof to, "%s.%u", f->name, i + 1);
        if (renameat(dirfd_, from, dirfd_, to) < 0)
            die(from);
    }
    snprintf(to, sizeof to, "%s.1", f->name);
    if (renameat(dirfd_, f->name, dirfd_, to) < 0)
        die(f->name);
    f->rotations++;
    rotations++;
}

static void reopen_if_renamed(struct file *f)
{
    if (f->reopen) {
        close(f->fd);
        open_new(f);
        f->reopen = false;
    }
}

/* whole: all that is buffered; else, with --torn, all but a random part of the last line */
static void flush_file(struct file *f, bool whole)
{
    size_t len = f->len;
    if (opt.torn && !whole && !f->reopen && len > 100) /* never torn between two files */
        len -= draw(100);
    if (len > 0)
        write_all(f, len);
    reopen_if_renamed(f);
}

static void rotate_if_due(struct file *f)
{
    if (opt.rotate == 0 || f->size + f->len < opt.rotate || f->reopen)
        return;
    flush_file(f, true); /* lines are never torn between two files */
    rename_chain(f);
    if (opt.late) {
        f->reopen = true;
    } else {
        close(f->fd);
        open_new(f);
    }
}

/* ---- lines ---- */

__attribute__((format(printf, 3, 4))) static size_t put(char *out, size_t at, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(out + at, LINE_MAX_BYTES - at, format, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= LINE_MAX_BYTES - at) {
        fprintf(stderr, "loggen: a line longer than %d bytes\n", LINE_MAX_BYTES);
        exit(1);
    }
    return at + (size_t)n;
}

/* "2026-01-02?03:04:05" of the second, cached */
static const char *second_text(uint64_t ns, char separator)
{
    static uint64_t cached = UINT64_MAX;
    static char text[32];
    uint64_t second = ns / 1000000000u;
    if (second != cached) {
        time_t t = (time_t)second;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        cached = second;
    }
    text[10] = separator;
    return text;
}

static void put_words(char *out, size_t size, char separator)
{
    size_t at = 0;
    unsigned n = 4 + draw(7);
    for (unsigned i = 0; i < n; i++) {
        const char *w = words[draw(WORDS)];
        size_t len = strlen(w);
        if (at + len + 2 > size)
            break;
        memcpy(out + at, w, len);
        at += len;
        out[at++] = separator;
    }
    out[at - 1] = '\0';
}

static size_t make_line(char *out, unsigned logger, unsigned level, unsigned module, unsigned tenant,
                        uint64_t seq, uint64_t ns)
{
    char text[160], extra[32] = "";
    const char *lv = spelled[logger][level], *mod = modules[logger][module];
    unsigned sub = (unsigned)(ns % 1000000000u);
    size_t at = 0;
    if (opt.cri)
        at = put(out, at, "%s.%09uZ stdout F ", second_text(ns, 'T'), sub);
    if (opt.tenants > 0)
        snprintf(extra, sizeof extra, ",\"tenant\":\"t%02u\"", tenant);
    put_words(text, sizeof text, logger == 2 ? '_' : ' ');
    switch (logger) {
    case 0:
        at = put(
            out, at,
            "{\"timestamp\":\"%s.%06uZ\",\"level\":\"%s\",\"fields\":{\"message\":\"%s\",\"seq\":\"S%"
            "010" PRIu64
            "\",\"view\":%u,\"latency_us\":%u},\"target\":\"%s\",\"threadName\":\"tokio-runtime-worker\"%s}",
            second_text(ns, 'T'), sub / 1000, lv, text, seq, draw(9), draw(90000), mod, extra);
        break;
    case 1:
        at = put(out, at,
                 "{\"level\":%s,\"time\":%" PRIu64
                 ",\"pid\":%u,\"hostname\":\"kv-%u\",\"module\":\"%s\",\"seq\":\"S%010" PRIu64
                 "\",\"req\":{\"id\":\"%08x%08x\",\"method\":\"GET\",\"url\":\"/kv/"
                 "%u\"},\"responseTime\":%u.%03u%s,"
                 "\"msg\":\"%s\"}",
                 lv, ns / 1000000, 1 + draw(999), draw(10), mod, seq, draw(1u << 30), draw(1u << 30),
                 draw(100000), draw(100), draw(1000), extra, text);
        break;
    case 2:
        at = put(out, at,
                 "{\"agent_id\": \"did:key:%08x\", \"seq\": \"S%010" PRIu64
                 "\", \"event\": \"%s\", \"level\": \"%s\", "
                 "\"logger\": \"%s\", \"timestamp\": \"%s.%06uZ\", \"trace_id\": \"%08x%08x\"%s}",
                 draw(1u << 30), seq, text, lv, mod, second_text(ns, 'T'), sub / 1000, draw(1u << 30),
                 draw(1u << 30), extra);
        break;
    case 3:
        at = put(out, at,
                 "{\"asctime\": \"%s,%03u\", \"levelname\": \"%s\", \"name\": \"%s\", \"seq\": \"S%010" PRIu64
                 "\", \"message\": \"%s\", \"user\": %u%s}",
                 second_text(ns, ' '), sub / 1000000, lv, mod, seq, text, draw(1000), extra);
        break;
    default:
        at = put(out, at,
                 "{\"level\":\"%s\",\"ts\":%" PRIu64
                 ".%06u,\"logger\":\"%s\",\"caller\":\"db/pg.go:%u\",\"msg\":\"%s\","
                 "\"seq\":\"S%010" PRIu64 "\"%s}",
                 lv, ns / 1000000000u, sub / 1000, mod, draw(999), text, seq, extra);
        break;
    }
    out[at++] = '\n';
    return at;
}

static unsigned level_of(uint64_t h)
{
    unsigned p = (unsigned)(h % 100); /* 2 % trace, 18 debug, 62 info, 12 warn, 5 error, 1 fatal */
    return p < 2 ? 0 : p < 20 ? 1 : p < 82 ? 2 : p < 94 ? 3 : p < 99 ? 4 : 5;
}

static void keep_pace(uint64_t done, uint64_t start)
{
    uint64_t due = start + done * 1000000000u / opt.rate;
    struct timespec t = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };
    if (due > now_ns())
        clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL);
}

static void write_lines(FILE *index, uint64_t *first_ts, uint64_t *last_ts)
{
    uint64_t start = now_ns(), last = 0;
    for (uint64_t i = 0; i < opt.lines; i++) {
        uint64_t seq = opt.first + i, h = mix(opt.seed * 1000003u + seq);
        struct file *f = &files[i % opt.files];
        unsigned logger = (unsigned)(i % opt.files) % LOGGERS;
        unsigned level = level_of(h), module = (unsigned)((h >> 20) % MODULES);
        unsigned tenant = opt.tenants > 0 ? (unsigned)((h >> 32) % opt.tenants) : 0;
        uint64_t ns = now_ns();
        last = ns > last ? ns : last + 1;
        if (i == 0)
            *first_ts = last;
        random_state = h;
        f->len += make_line(f->buf + f->len, logger, level, module, tenant, seq, last);
        level = meant[logger][level];
        by_logger[logger][level]++;
        by_module[logger][module]++;
        by_tenant[tenant]++;
        if (index) {
            uint8_t row[4] = { (uint8_t)logger, (uint8_t)level, (uint8_t)module, (uint8_t)tenant };
            if (fwrite(row, sizeof row, 1, index) != 1)
                die(opt.index);
        }
        if (f->len >= opt.block)
            flush_file(f, false);
        rotate_if_due(f);
        if (opt.rate > 0 && i % 64 == 63) {
            for (unsigned k = 0; k < opt.files; k++) /* a slow writer's lines are seen as they come */
                if (files[k].len > 0)
                    flush_file(&files[k], false);
            keep_pace(i + 1, start);
        }
    }
    for (unsigned k = 0; k < opt.files; k++) {
        flush_file(&files[k], true);
        close(files[k].fd);
    }
    *last_ts = last;
}

static void print_numbers(const uint64_t *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        printf("%s%" PRIu64, i ? "," : "[", v[i]);
    printf("]");
}

static void print_names(const char *const *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        printf("%s\"%s\"", i ? "," : "[", v[i]);
    printf("]");
}

static void summary(uint64_t first_ts, uint64_t last_ts, double seconds)
{
    printf("{\"lines\":%" PRIu64 ",\"first\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"files\":%u,\"rotations\":%" PRIu64 ",\"deleted\":%" PRIu64 ",\"first_ts\":%" PRIu64
           ",\"last_ts\":%" PRIu64 ",\"seconds\":%.3f,\"loggers\":",
           opt.lines, opt.first, bytes_written, opt.files, rotations, deleted, first_ts, last_ts, seconds);
    print_names(loggers, LOGGERS);
    printf(",\"levels\":");
    print_names(levels, LEVELS);
    printf(",\"modules\":{");
    for (unsigned i = 0; i < LOGGERS; i++) {
        printf("%s\"%s\":", i ? "," : "", loggers[i]);
        print_names(modules[i], MODULES);
    }
    printf("},\"by_level\":{");
    for (unsigned i = 0; i < LOGGERS; i++) {
        printf("%s\"%s\":", i ? "," : "", loggers[i]);
        print_numbers(by_logger[i], LEVELS);
    }
    printf("},\"by_module\":{");
    for (unsigned i = 0; i < LOGGERS; i++) {
        printf("%s\"%s\":", i ? "," : "", loggers[i]);
        print_numbers(by_module[i], MODULES);
    }
    printf("},\"by_tenant\":");
    print_numbers(by_tenant, opt.tenants > 0 ? opt.tenants : 1);
    printf("}\n");
}

static const char usage[] =
    "loggen DIR [--lines N] [--files M] [--rotate BYTES, 0 never] [--tenants T] [--first ID] [--seed S]\n"
    "    [--rate LINES/s] [--block BYTES a write] [--keep ROTATED, 0 all] [--index FILE] [--prefix NAME]\n"
    "    [--cri]      frame each line as a container runtime does\n"
    "    [--torn]     writes end in the middle of lines\n"
    "    [--late]     after a rename one more block goes to the old file\n"
    "    [--append]   into files that are there already\n";

static uint64_t number(const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high) {
        fprintf(stderr, "loggen: %s: expected a number from %" PRIu64 " to %" PRIu64 "\n", text, low, high);
        exit(2);
    }
    return v;
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        { "lines", 1, NULL, 'n' },   { "files", 1, NULL, 'f' },  { "rotate", 1, NULL, 'r' },
        { "tenants", 1, NULL, 't' }, { "first", 1, NULL, '1' },  { "seed", 1, NULL, 's' },
        { "rate", 1, NULL, 'R' },    { "block", 1, NULL, 'b' },  { "keep", 1, NULL, 'k' },
        { "index", 1, NULL, 'i' },   { "prefix", 1, NULL, 'p' }, { "cri", 0, NULL, 'c' },
        { "torn", 0, NULL, 'T' },    { "late", 0, NULL, 'l' },   { "append", 0, NULL, 'a' },
        { NULL, 0, NULL, 0 },
    };
    int c;
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'n':
            opt.lines = number(optarg, 0, 9999999999u);
            break;
        case 'f':
            opt.files = (unsigned)number(optarg, 1, MAX_FILES);
            break;
        case 'r':
            opt.rotate = number(optarg, 0, UINT64_MAX);
            break;
        case 't':
            opt.tenants = (unsigned)number(optarg, 0, MAX_TENANTS);
            break;
        case '1':
            opt.first = number(optarg, 0, 9999999999u);
            break;
        case 's':
            opt.seed = number(optarg, 0, UINT32_MAX);
            break;
        case 'R':
            opt.rate = number(optarg, 0, 100000000);
            break;
        case 'b':
            opt.block = (size_t)number(optarg, 1, 1 << 24);
            break;
        case 'k':
            opt.keep = (unsigned)number(optarg, 0, 100000);
            break;
        case 'i':
            opt.index = optarg;
            break;
        case 'p':
            opt.prefix = optarg;
            break;
        case 'c':
            opt.cri = true;
            break;
        case 'T':
            opt.torn = true;
            break;
        case 'l':
            opt.late = true;
            break;
        case 'a':
            opt.append = true;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind != argc - 1 || strlen(opt.prefix) > 40) {
        fputs(usage, stderr);
        exit(2);
    }
    opt.dir = argv[optind];
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    dirfd_ = open(opt.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd_ < 0)
        die(opt.dir);
    files = calloc(opt.files, sizeof *files);
    if (!files)
        die("memory");
    for (unsigned k = 0; k < opt.files; k++) {
        snprintf(files[k].name, sizeof files[k].name, "%s-%03u.log", opt.prefix, k);
        files[k].buf = malloc(opt.block + LINE_MAX_BYTES + 1);
        if (!files[k].buf)
            die("memory");
        open_new(&files[k]);
    }
    FILE *index = opt.index ? fopen(opt.index, "wb") : NULL;
    if (opt.index && !index)
        die(opt.index);
    uint64_t first_ts = 0, last_ts = 0, start = now_ns();
    write_lines(index, &first_ts, &last_ts);
    if (index && fclose(index) != 0)
        die(opt.index);
    summary(first_ts, last_ts, (double)(now_ns() - start) / 1e9);
    for (unsigned k = 0; k < opt.files; k++)
        free(files[k].buf);
    free(files);
    return fflush(stdout) == 0 ? 0 : 1;
}
