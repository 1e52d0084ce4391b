/*
 * followed.h - stand.h, and a real tail over one file, a.log, which holds "one\n"; its sink takes everything. A feeder between them.
 */
#ifndef TAILRACE_TESTS_AGENT_FOLLOWED_H
#define TAILRACE_TESTS_AGENT_FOLLOWED_H

#include "tests/unit/agent/stand.h"

#include <fcntl.h>

#include "agent/feeder.h"

struct followed {
    struct stand *s;
    struct conf *conf;
    struct tallies *tallies;
    struct tail *tail;
    struct feeder f;
    int64_t now;
    uint64_t incarnation; /* of the file */
};

static void *followed_sink_new(void *ctx, struct tail_file *f, const struct tail_file_info *info)
{
    (void)f;
    ((struct followed *)ctx)->incarnation = info->ident->incarnation;
    return ctx;
}

static void followed_sink_free(void *ctx, void *file)
{
    (void)ctx;
    (void)file;
}

static size_t followed_sink_feed(void *ctx, void *file, struct tail_pass *pass, const struct feed *feed)
{
    (void)ctx;
    (void)file;
    (void)pass;
    return feed->bytes.len;
}

static uint8_t followed_sink_parts(void *ctx, const struct tail_pass *pass, struct position_part *parts)
{
    (void)ctx;
    (void)pass;
    (void)parts;
    return 0;
}

static inline void followed_write(const struct followed *w, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/a.log", w->s->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static inline void followed_read(struct followed *w)
{
    tail_on_events(w->tail);
    while (tail_turn(w->tail, w->now))
        ;
}

static inline void followed_init(struct followed *w)
{
    static const struct output_type types[] = { { .name = "stand" }, { .name = NULL } };
    static const struct queue_recovery fresh = { .is_new = true };
    const struct queue_recovery *recovered = &fresh;
    struct buf yaml, errors;
    struct err err = { 0 };
    *w = (struct followed){ .s = stand_new(), .now = clock_mono_ns() };
    followed_write(w, "one\n");
    buf_init(&yaml, 4096);
    buf_init(&errors, 4096);
    assert_int_equal(buf_printf(&yaml, "state_dir: %s/state\ninputs: { in: { type: file, include: \"%s/*.log\" } }\n"
                                       "outputs: { out: { type: stand } }\n",
                                w->s->dir, w->s->dir),
                     0);
    if (conf_load_text("t", buf_slice(&yaml), types, &w->conf, &errors) < 0)
        fail_msg("%.*s", SLICE_ARGS(buf_slice(&errors)));
    buf_deinit(&yaml);
    buf_deinit(&errors);
    w->tallies = tallies_new(w->conf);
    struct tail_sink sink = { .file_new = followed_sink_new, .file_free = followed_sink_free, .feed = followed_sink_feed,
                              .parts = followed_sink_parts };
    sink.ctx = w;
    struct tail_conf tc = { w->conf, 1, 1 };
    if (tail_open(&tc, &sink, &recovered, 1, &w->tail, &err) < 0)
        fail_msg("%s", err.text);
    feeder_init(&w->f, &w->s->out, w->s->writer, w->tallies, w->now);
}

static inline void followed_deinit(struct followed *w)
{
    tail_close(w->tail);
    feeder_deinit(&w->f);
    tallies_free(w->tallies);
    conf_free(w->conf);
    stand_free(w->s);
}

#endif
