/*
 * sim --from A --to B [--jobs N] [--done FILE] [--chunk N] [--keep-going]
 *     a range of seeds on all cores, N for each process; ends when one fails. FILE remembers which were clean.
 *     --known FILE: seeds that are left out, with their reasons (tests/sim/known.txt)
 * sim --seed S [--trace] [--calls]               one seed; --trace tells its story, --calls with each call to the disk
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/tenants.h"
#include "tests/sim/sim.h"

struct options {
    uint64_t from, to;
    bool has_seed, is_traced, keeps_going, is_quiet;
    unsigned jobs;
    const char *done, *known;
    uint64_t chunk;  /* seeds for one child */
};

static bool log_nothing(enum log_level level, const char *target)
{
    (void)level;
    (void)target;
    return false;
}

static bool log_most(enum log_level level, const char *target)
{
    (void)target;
    return level >= LOG_INFO;
}

/* Before the first seed: ids are given in the order in which names come. */
static void settle_process(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    (void)mallopt(M_TOP_PAD, 16 << 20);
    (void)tenant_intern(SLICE("default"));
    (void)tenant_intern(SLICE("t0"));
    (void)tenant_intern(SLICE("t1"));
    (void)tenant_intern(SLICE("t2"));
    log_set_filter(log_nothing);
}

/* ---- shrinking ---- */

static bool still_fails(struct plan *p)
{
    return !sim_run(p, false);
}

/* Leaves out runs of actions, long ones first, then single ones, then the time between, while it still fails. */
static void shrink(struct plan *p)
{
    for (size_t len = p->n / 2; len >= 1; len = len == 1 ? 0 : len / 2)
        for (size_t at = 0; at < p->n; at += len) {
            const struct plan before = *p;
            bool any = false;
            for (size_t i = at; i < MIN(at + len, p->n); i++) {
                any |= !p->acts[i].is_out;
                p->acts[i].is_out = true;
            }
            if (any && !still_fails(p))
                *p = before;
        }
    for (size_t i = 0; i < p->n; i++) {
        const struct plan before = *p;
        if (p->acts[i].is_out || p->acts[i].run_ns == 0)
            continue;
        p->acts[i].run_ns = 0;
        if (!still_fails(p))
            *p = before;
    }
    for (size_t i = 0; i < p->n; i++)
        while (!p->acts[i].is_out && p->acts[i].kind == ACT_APPEND && p->acts[i].n > 1) {
            const struct plan before = *p;
            p->acts[i].n /= 2;
            if (!still_fails(p)) {
                *p = before;
                break;
            }
        }
}

static void tell(struct plan *p)
{
    log_set_filter(log_most);
    log_set_fd(1);
    plan_print_shape(p);
    (void)sim_run(p, true);
    log_set_filter(log_nothing);
}

static int run_seed(const struct options *o)
{
    static struct plan p;
    plan_make(o->from, &p);
    if (o->is_traced) {
        tell(&p);
        return sim.has_failed;
    }
    const bool ok = sim_run(&p, false);
    if (!ok) {
        printf("seed %llu FAILED: %s\n", (unsigned long long)o->from, sim.failure);
        shrink(&p);
        (void)sim_run(&p, false);
        printf("shrunk, it is: %s\n", sim.failure);
        tell(&p);
    } else if (!o->is_quiet) {
        printf("seed %llu: ok, %zu lines, %llu turns, %llu disk calls, %u starts\n", (unsigned long long)o->from,
               sim.n_lines, (unsigned long long)sim.turns, (unsigned long long)disk_calls(sim.disk), sim.starts);
    }
    return !ok;
}

/* ---- ranges ---- */


/* Seeds that fail for a reason that is written down: "SEED why" each line. */
static bool is_known(const struct options *o, uint64_t seed)
{
    static uint64_t seeds[1000];
    static size_t n;
    static bool is_read;
    FILE *f = is_read || o->known == NULL ? NULL : fopen(o->known, "r");
    char line[400];
    while (f != NULL && n < ARRAY_LEN(seeds) && fgets(line, sizeof(line), f) != NULL)
        if (line[0] >= '0' && line[0] <= '9')
            seeds[n++] = strtoull(line, NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    is_read = true;
    for (size_t i = 0; i < n; i++)
        if (seeds[i] == seed)
            return true;
    return false;
}

/* A child runs the seeds of a chunk; it ends with 1 when one fails. */
static int run_chunk(const struct options *o, uint64_t from, uint64_t to)
{
    static struct plan p;
    int r = 0;
    for (uint64_t s = from; s < to; s++) {
        plan_make(s, &p);
        if (is_known(o, s) || sim_run(&p, false))
            continue;
        printf("seed %llu FAILED: %s\n", (unsigned long long)s, sim.failure);
        (void)fflush(stdout);
        r = 1;
        if (!o->keeps_going)
            break;
    }
    return r;
}

struct child {
    pid_t pid;
    uint64_t from, to;
};

static bool is_done(const struct options *o, uint64_t from)
{
    if (o->done == NULL)
        return false;
    FILE *f = fopen(o->done, "r");
    unsigned long long a, b;
    bool found = false;
    while (f != NULL && !found && fscanf(f, "%llu %llu", &a, &b) == 2)
        found = from >= a && from < b;
    if (f != NULL)
        (void)fclose(f);
    return found;
}

static void note_done(const struct options *o, const struct child *c)
{
    FILE *f = o->done == NULL ? NULL : fopen(o->done, "a");
    if (f == NULL)
        return;
    (void)fprintf(f, "%llu %llu\n", (unsigned long long)c->from, (unsigned long long)c->to);
    (void)fclose(f);
}

static void spawn(const struct options *o, struct child *c, uint64_t from, uint64_t to)
{
    (void)fflush(stdout);
    *c = (struct child){ .pid = fork(), .from = from, .to = to };
    if (c->pid != 0)
        return;
    const int r = run_chunk(o, from, to);
    sim_free();
    exit(r); /* not _exit: coverage is written at an orderly end */
}

static int run_range(const struct options *o)
{
    struct child children[64] = { 0 };
    uint64_t next = o->from, ran = 0;
    unsigned running = 0;
    int bad = 0;
    for (;;) {
        while (next < o->to && is_done(o, next))
            next += o->chunk;
        for (unsigned i = 0; i < o->jobs && next < o->to && (!bad || o->keeps_going); i++)
            if (children[i].pid == 0) {
                const uint64_t to = MIN(next + o->chunk, o->to);
                spawn(o, &children[i], next, to);
                running++;
                next = to;
                break;
            }
        if (running == 0)
            break;
        if (running < o->jobs && next < o->to && (!bad || o->keeps_going))
            continue;
        int status = 0;
        const pid_t pid = wait(&status);
        for (unsigned i = 0; i < o->jobs; i++)
            if (children[i].pid == pid) {
                if (status == 0) {
                    note_done(o, &children[i]);
                    ran += children[i].to - children[i].from;
                } else {
                    bad = 1;
                    if (WIFSIGNALED(status))
                        printf("seeds %llu … %llu: killed by signal %d\n", (unsigned long long)children[i].from,
                               (unsigned long long)children[i].to - 1, WTERMSIG(status));
                }
                children[i].pid = 0;
                running--;
            }
    }
    printf("%s: %llu seeds clean\n", bad ? "FAILED" : "ok", (unsigned long long)ran);
    return bad;
}

static uint64_t number(const char *s)
{
    char *end;
    errno = 0;
    const uint64_t v = s == NULL ? 0 : strtoull(s, &end, 10);
    if (s == NULL || errno != 0 || *end != '\0') {
        fprintf(stderr, "sim: a number is expected, not %s\n", s == NULL ? "nothing" : s);
        exit(2);
    }
    return v;
}

static uint64_t number_between(const char *s, uint64_t least, uint64_t most)
{
    const uint64_t v = number(s);
    return MIN(MAX(v, least), most);
}

int main(int argc, char **argv)
{
    struct options o = { .to = 2000, .chunk = 250, .jobs = (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L) };
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--calls") == 0)
            sim.shows_calls = true;
        else if (strcmp(a, "--trace") == 0)
            o.is_traced = true;
        else if (strcmp(a, "--keep-going") == 0)
            o.keeps_going = true;
        else if (strcmp(a, "--from") == 0)
            o.from = number(argv[++i]);
        else if (strcmp(a, "--to") == 0)
            o.to = number(argv[++i]);
        else if (strcmp(a, "--jobs") == 0)
            o.jobs = (unsigned)number_between(argv[++i], 1, 64);
        else if (strcmp(a, "--known") == 0 && i + 1 < argc)
            o.known = argv[++i];
        else if (strcmp(a, "--chunk") == 0)
            o.chunk = number_between(argv[++i], 1, 1000000);
        else if (strcmp(a, "--done") == 0 && i + 1 < argc)
            o.done = argv[++i];
        else if (strcmp(a, "--seed") == 0) {
            o.has_seed = true;
            o.from = number(argv[++i]);
        } else {
            fprintf(stderr, "usage: sim --seed S [--trace] [--calls] | --from A --to B [--jobs N] [--done FILE] [--chunk N] "
                            "[--keep-going]\n");
            return 2;
        }
    }
    settle_process();
    const int r = o.has_seed ? run_seed(&o) : run_range(&o);
    sim_free();
    return r;
}
