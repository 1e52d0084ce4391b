#include "parsers/shapes.h"

#include <errno.h>

/* protocols.md has the table of loggers this follows. */

static const struct {
    struct slice path;
    enum level_kind kind;
} level_names[] = {
    { SLICE_INIT("level"), LEVEL_KEY_WORD },     /* tracing pino bunyan winston zap zerolog logrus slog structlog … */
    { SLICE_INIT("log.level"), LEVEL_KEY_WORD }, /* ECS, flat or nested */
    { SLICE_INIT("severity"), LEVEL_KEY_SEVERITY }, /* GCP: words; syslog gateways: 0..7 */
    { SLICE_INIT("levelname"), LEVEL_KEY_WORD },    /* python-json-logger */
    { SLICE_INIT("lvl"), LEVEL_KEY_WORD },
    { SLICE_INIT("loglevel"), LEVEL_KEY_WORD },
    { SLICE_INIT("log_level"), LEVEL_KEY_WORD },
    { SLICE_INIT("level_name"), LEVEL_KEY_WORD }, /* Monolog */
    { SLICE_INIT("@l"), LEVEL_KEY_WORD },         /* Serilog compact */
    { SLICE_INIT("LogLevel"), LEVEL_KEY_WORD },   /* .NET */
    { SLICE_INIT("Level"), LEVEL_KEY_WORD },
    { SLICE_INIT("LEVEL"), LEVEL_KEY_WORD },
    { SLICE_INIT("Severity"), LEVEL_KEY_SEVERITY },
    { SLICE_INIT("SEVERITY"), LEVEL_KEY_SEVERITY },
    { SLICE_INIT("severity_text"), LEVEL_KEY_WORD }, /* OpenTelemetry */
    { SLICE_INIT("severityText"), LEVEL_KEY_WORD },
    { SLICE_INIT("SeverityText"), LEVEL_KEY_WORD },
    { SLICE_INIT("severity_number"), LEVEL_KEY_OTEL },
    { SLICE_INIT("severityNumber"), LEVEL_KEY_OTEL },
    { SLICE_INIT("SeverityNumber"), LEVEL_KEY_OTEL },
    { SLICE_INIT("PRIORITY"), LEVEL_KEY_SEVERITY }, /* journald */
};

static const struct slice module_names[] = {
    SLICE_INIT("target"),       /* Rust tracing */
    SLICE_INIT("logger"),       /* zap structlog klog */
    SLICE_INIT("logger_name"),  /* logback */
    SLICE_INIT("loggerName"),   /* log4j2 */
    SLICE_INIT("log.logger"),   /* ECS */
    SLICE_INIT("name"),         /* pino bunyan python semantic_logger */
    SLICE_INIT("module"),       /* dockerd */
    SLICE_INIT("Category"),     /* .NET */
    SLICE_INIT("SourceContext"), /* Serilog */
    SLICE_INIT("channel"),      /* Monolog */
    SLICE_INIT("SYSLOG_IDENTIFIER"),
    SLICE_INIT("_SYSTEMD_UNIT"),
};

/* In the order of their rank: the more surely it is the record's own time, the earlier. */
static const struct {
    struct slice path;
    enum time_kind kind; /* seconds and nanos share a rank when they stand side by side */
} time_names[] = {
    { SLICE_INIT("@timestamp"), TIME_KEY_WHOLE },
    { SLICE_INIT("timestamp"), TIME_KEY_WHOLE },
    { SLICE_INIT("timestamp.seconds"), TIME_KEY_SECONDS }, /* GCP */
    { SLICE_INIT("timestamp.nanos"), TIME_KEY_NANOS },
    { SLICE_INIT("timestampSeconds"), TIME_KEY_SECONDS },
    { SLICE_INIT("timestampNanos"), TIME_KEY_NANOS },
    { SLICE_INIT("@t"), TIME_KEY_WHOLE },
    { SLICE_INIT("instant.epochSecond"), TIME_KEY_SECONDS }, /* log4j2 JsonLayout */
    { SLICE_INIT("instant.nanoOfSecond"), TIME_KEY_NANOS },
    { SLICE_INIT("timeMillis"), TIME_KEY_WHOLE },
    { SLICE_INIT("__REALTIME_TIMESTAMP"), TIME_KEY_WHOLE },
    { SLICE_INIT("Timestamp"), TIME_KEY_WHOLE },
    { SLICE_INIT("time"), TIME_KEY_WHOLE },
    { SLICE_INIT("ts"), TIME_KEY_WHOLE },
    { SLICE_INIT("asctime"), TIME_KEY_WHOLE },
    { SLICE_INIT("datetime"), TIME_KEY_WHOLE }, /* Monolog */
    { SLICE_INIT("time_iso8601"), TIME_KEY_WHOLE }, /* nginx */
    { SLICE_INIT("msec"), TIME_KEY_WHOLE },
    { SLICE_INIT("time_local"), TIME_KEY_WHOLE },
    { SLICE_INIT("t.$date"), TIME_KEY_WHOLE },  /* mongod */
    { SLICE_INIT("start_time"), TIME_KEY_WHOLE }, /* Envoy */
};

static const struct slice message_names[] = {
    SLICE_INIT("message"), SLICE_INIT("msg"),     SLICE_INIT("fields.message"), SLICE_INIT("@m"),
    SLICE_INIT("Message"), SLICE_INIT("MESSAGE"), SLICE_INIT("short_message"),  SLICE_INIT("event"),
    SLICE_INIT("@mt"),
};

static const struct slice tenant_names[] = { SLICE_INIT("tenant"), SLICE_INIT("tenant_id"), SLICE_INIT("tenantId") };

static const struct {
    struct slice key;
    enum shape_mark mark;
} mark_names[] = {
    { SLICE_INIT("@t"), SHAPE_SERILOG_TIME }, { SLICE_INIT("@m"), SHAPE_SERILOG_TEXT },
    { SLICE_INIT("@mt"), SHAPE_SERILOG_TEXT }, { SLICE_INIT("v"), SHAPE_KLOG_V },
    { SLICE_INIT("err"), SHAPE_KLOG_ERR },    { SLICE_INIT("msg"), SHAPE_MSG },
};

/* ---- building ----------------------------------------------------------------------------------------------------- */

enum role { ROLE_LEVEL, ROLE_MODULE, ROLE_TIME, ROLE_MESSAGE, ROLE_TENANT };

/* Earlier names keep their place: a configured name may be a known one too. */
static void assign(struct key_node *node, enum role role, unsigned kind, uint16_t rank)
{
    node->has_use = true;
    switch (role) {
    case ROLE_LEVEL:
        if (node->level == LEVEL_KEY_NONE)
            node->level = (uint8_t)kind;
        break;
    case ROLE_MODULE:
        node->is_module = true;
        break;
    case ROLE_TIME:
        if (node->time_rank == 0) {
            node->time = (uint8_t)kind;
            node->time_rank = rank;
        }
        break;
    case ROLE_MESSAGE:
        if (node->message_rank == 0)
            node->message_rank = rank;
        break;
    case ROLE_TENANT:
        if (node->tenant_rank == 0)
            node->tenant_rank = rank;
        break;
    }
}

static int add(struct keys *k, struct slice path, enum role role, unsigned kind, size_t rank)
{
    uint32_t flat, nested;
    int r = keys_add(k, KEY_ROOT, path, &flat);
    if (r == 0)
        r = keys_add_nested(k, path, &nested);
    if (r < 0)
        return r;
    uint16_t rank16 = (uint16_t)MIN(rank, (size_t)UINT16_MAX);
    assign(&k->nodes[flat], role, kind, rank16);
    assign(&k->nodes[nested], role, kind, rank16);
    return 0;
}

/* *rank: the last one given so far. */
static int add_all(struct keys *k, const struct slice *paths, size_t n, enum role role, unsigned kind, size_t *rank)
{
    for (size_t i = 0; i < n; i++) {
        int r = add(k, paths[i], role, kind, ++*rank);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_levels(struct keys *k, const struct parser_conf *conf)
{
    size_t rank = 0;
    /* A known name that is configured again keeps its kind. */
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        int r = add(k, level_names[i].path, ROLE_LEVEL, level_names[i].kind, 1);
        if (r < 0)
            return r;
    }
    return add_all(k, conf->level_keys.items, conf->level_keys.n, ROLE_LEVEL, LEVEL_KEY_WORD, &rank);
}

static int add_times(struct keys *k, const struct parser_conf *conf)
{
    size_t rank = 0;
    int r = add_all(k, conf->time_keys.items, conf->time_keys.n, ROLE_TIME, TIME_KEY_WHOLE, &rank);
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(time_names); i++) {
        if (time_names[i].kind != TIME_KEY_NANOS)
            rank++;
        r = add(k, time_names[i].path, ROLE_TIME, time_names[i].kind, rank);
    }
    return r;
}

static int add_ranked(struct keys *k, enum role role, struct slices own, const struct slice *known, size_t n_known)
{
    size_t rank = 0;
    int r = add_all(k, own.items, own.n, role, 0, &rank);
    return r < 0 ? r : add_all(k, known, n_known, role, 0, &rank);
}

static int add_wanted(struct keys *k, const struct wanted_keys *wanted)
{
    for (size_t i = 0; wanted != NULL && i < wanted->n; i++) {
        uint32_t flat, nested;
        int r = keys_add(k, KEY_ROOT, wanted->paths[i], &flat);
        if (r == 0)
            r = keys_add_nested(k, wanted->paths[i], &nested);
        if (r < 0)
            return r;
        k->nodes[nested].wanted = (int16_t)i;
        k->nodes[nested].is_nested = nested != flat;
        k->nodes[nested].has_use = true;
        k->nodes[flat].wanted = (int16_t)i;
        k->nodes[flat].is_nested = false;
        k->nodes[flat].has_use = true;
    }
    return 0;
}

static int add_marks(struct keys *k)
{
    for (size_t i = 0; i < ARRAY_LEN(mark_names); i++) {
        uint32_t node;
        int r = keys_add(k, KEY_ROOT, mark_names[i].key, &node);
        if (r < 0)
            return r;
        k->nodes[node].marks |= (uint8_t)mark_names[i].mark;
        k->nodes[node].has_use = true;
    }
    return 0;
}

static int add_trusted(struct keys *k, const struct slice *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct slice segment = key_first_segment(names[i]);
        uint32_t node;
        int r = keys_add(k, KEY_ROOT, segment, &node);
        if (r < 0)
            return r;
        k->nodes[node].is_trusted = true;
        if (segment.len > 0)
            k->trusted_first[(unsigned char)segment.ptr[0]] = true;
    }
    return 0;
}

int shapes_build(struct keys *k, const struct parser_conf *conf)
{
    int r = add_levels(k, conf);
    if (r == 0)
        r = add_times(k, conf);
    if (r == 0)
        r = add_ranked(k, ROLE_MODULE, conf->module_keys, module_names, ARRAY_LEN(module_names));
    if (r == 0)
        r = add_ranked(k, ROLE_MESSAGE, conf->message_keys, message_names, ARRAY_LEN(message_names));
    if (r == 0)
        r = add_ranked(k, ROLE_TENANT, conf->tenant_keys, tenant_names, ARRAY_LEN(tenant_names));
    if (r == 0)
        r = add_marks(k);
    if (r == 0)
        r = add_wanted(k, conf->wanted);
    return r < 0 ? r : add_trusted(k, conf->trusted, conf->n_trusted);
}

/* ---- levels ------------------------------------------------------------------------------------------------------- */

enum level shapes_default_level(unsigned marks)
{
    if ((marks & SHAPE_SERILOG_TIME) != 0 && (marks & SHAPE_SERILOG_TEXT) != 0)
        return LEVEL_INFO;
    if ((marks & SHAPE_MSG) == 0 || (marks & SHAPE_EPOCH) == 0)
        return LEVEL_UNKNOWN;
    if ((marks & SHAPE_KLOG_V) != 0)
        return LEVEL_INFO;
    return (marks & SHAPE_KLOG_ERR) != 0 ? LEVEL_ERROR : LEVEL_UNKNOWN;
}

/* OpenTelemetry's severity numbers: four steps to each name. */
static enum level level_from_otel(int64_t n)
{
    if (n < 1 || n > 24)
        return LEVEL_UNKNOWN;
    static const enum level by_four[] = { LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR, LEVEL_FATAL };
    return by_four[(n - 1) / 4];
}

/* Monolog's RFC 5424 steps, which come before its level_name. */
static enum level level_from_monolog(int64_t n)
{
    return n >= 500 ? LEVEL_FATAL : n >= 400 ? LEVEL_ERROR : n >= 300 ? LEVEL_WARN : n >= 200 ? LEVEL_INFO : LEVEL_DEBUG;
}

enum level shapes_level(enum level_kind kind, struct value value)
{
    int64_t n;
    if (!slice_to_i64(value.text, &n)) /* words, and also "3" and "30" as strings */
        return level_from_name(value.text);
    switch (kind) {
    case LEVEL_KEY_SEVERITY:
        return n >= 0 && n <= 7 ? level_from_severity(n) : level_from_number(n);
    case LEVEL_KEY_OTEL:
        return level_from_otel(n);
    case LEVEL_KEY_WORD:
    case LEVEL_KEY_NONE:
        break;
    }
    return n >= 100 && n <= 600 ? level_from_monolog(n) : level_from_number(n);
}
