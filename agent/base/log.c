#include "agent/base/log.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/io.h"

#define LOG_LINE_MAX ((size_t)8 * KIB)
/* Places that are rate-limited apart; two that share a slot push each other out, which only writes more. */
#define PLACES 256

struct place {
    uint64_t key;
    int64_t last_ns;
    uint64_t suppressed;
};

static struct place places[PLACES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool (*filter)(enum log_level level, const char *target);
static int log_fd = 2;

bool log_enabled(enum log_level level, const char *target)
{
    return filter != NULL ? filter(level, target) : level >= LOG_INFO;
}

void log_set_filter(bool (*is_enabled)(enum log_level level, const char *target))
{
    filter = is_enabled;
}

void log_set_fd(int fd)
{
    log_fd = fd;
}

static struct slice level_word(enum log_level level)
{
    static const struct slice words[] = { SLICE_INIT("trace"), SLICE_INIT("trace"), SLICE_INIT("debug"),
                                          SLICE_INIT("info"),  SLICE_INIT("warn"),  SLICE_INIT("error") };
    return words[level];
}

/* Is this one to be written now? Under the lock. *ret_suppressed: how many were not since the last one. */
static bool may_write(enum log_level level, const char *event, const struct log_field *fields, size_t n_fields,
                      uint64_t *ret_suppressed)
{
    *ret_suppressed = 0;
    if (level < LOG_WARN) /* lifecycle and debug are few by nature */
        return true;
    uint64_t key = slice_hash(slice_cstr(event));
    bool has_thing = false; /* the first text says what it is about; the same key may be held by two outputs */
    for (size_t i = 1; i < n_fields; i++) {
        if (fields[i].kind != LOG_FIELD_STR || (has_thing && strcmp(fields[i].key, "output") != 0))
            continue;
        key ^= slice_hash(fields[i].str) * (has_thing ? 5 : 3);
        has_thing = true;
    }
    struct place *p = &places[key % PLACES];
    int64_t now = clock_mono_ns();
    if (p->key == key && now - p->last_ns < 60 * NS_PER_SEC) {
        p->suppressed++;
        return false;
    }
    *ret_suppressed = p->key == key ? p->suppressed : 0;
    *p = (struct place){ .key = key, .last_ns = now };
    return true;
}

static int append_field(struct buf *b, const struct log_field *f)
{
    int r = buf_append_json_string(b, slice_cstr(f->key));
    if (r == 0)
        r = buf_append_byte(b, ':');
    if (r < 0)
        return r;
    switch (f->kind) {
    case LOG_FIELD_STR:
        return buf_append_json_string(b, slice_first(f->str, 2048));
    case LOG_FIELD_INT:
        return buf_append_i64(b, f->num);
    case LOG_FIELD_FLOAT:
        return isfinite(f->real) ? buf_printf(b, "%.6g", f->real) : buf_append_lit(b, "null");
    }
    return 0;
}

static int append_head(struct buf *b, enum log_level level, const char *target, const char *event,
                       const char *message)
{
    const struct {
        const char *key;
        struct slice value;
    } parts[] = { { "\",\"level\":", level_word(level) },
                  { ",\"target\":", slice_cstr(target) },
                  { ",\"event\":", slice_cstr(event) },
                  { ",\"message\":", slice_cstr(message) } };
    int r = buf_append_lit(b, "{\"timestamp\":\"");
    if (r == 0)
        r = clock_append_rfc3339(b, clock_wall_ns(), 6);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(parts); i++) {
        r = buf_append_cstr(b, parts[i].key);
        if (r == 0)
            r = buf_append_json_string(b, parts[i].value);
    }
    return r;
}

/* Fields that do not fit are left out; the line stays JSON. */
static void append_fields(struct buf *b, const struct log_field *fields, size_t n_fields, uint64_t suppressed)
{
    bool is_first = true;
    if (buf_append_lit(b, ",\"fields\":{") < 0)
        return;
    for (size_t i = 1; i < n_fields; i++) {
        size_t before = b->len;
        /* The buffer may have grown into the reserve with a line before: then nothing fails, and the length tells. */
        if ((!is_first && buf_append_byte(b, ',') < 0) || append_field(b, &fields[i]) < 0 || b->len > b->max)
            b->len = before;
        else
            is_first = false;
    }
    b->max = LOG_LINE_MAX; /* the reserve for the end */
    (void)!buf_append_lit(b, "}");
    if (suppressed > 0)
        (void)!buf_printf(b, ",\"suppressed\":%llu", (unsigned long long)suppressed);
    (void)!buf_append_lit(b, "}\n");
}

void log_emit(enum log_level level, const char *target, const char *event, const char *message,
              const struct log_field *fields, size_t n_fields)
{
    static struct buf line; /* under the lock; kept for the life of the process */
    uint64_t suppressed;
    if (!log_enabled(level, target))
        return;
    pthread_mutex_lock(&lock);
    if (may_write(level, event, fields, n_fields, &suppressed)) {
        line.len = 0;
        line.max = LOG_LINE_MAX - 64;
        if (append_head(&line, level, target, event, message) == 0) {
            append_fields(&line, fields, n_fields, suppressed);
            (void)!io_write_full(log_fd, line.ptr, line.len); /* nobody to tell */
        }
    }
    pthread_mutex_unlock(&lock);
}
