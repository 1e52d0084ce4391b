/*
 * countserver: a fast HTTP server on loopback that takes Loki pushes and Elasticsearch bulks and counts them.
 *
 * Build: cc -std=c17 -D_GNU_SOURCE -O2 -Wall -Wextra -Wshadow -Wconversion -Werror countserver.c -lsnappy
 * -ldeflate -lm -o countserver
 *
 * countserver [--port P] [--latency MS] [--check] [--raw] [--delays]   prints "READY PORT"; ends on SIGTERM
 *   POST /loki/api/v1/push   204            POST /_bulk, /INDEX/_bulk   200, every item 201
 *   GET /report              JSON of what came; ?first=A&lines=N also counts the ids of [A, A+N) that did not
 *   GET /ids/loki, /ids/bulk the ids seen as a bitmap, bit n of byte n/8 first
 *   POST /reset              204, forgets all        GET /, /ready, /_cluster/health, /_license   what clients ask first
 *   POST /reset?mark_loki=N&mark_bulk=M   also notes when that many lines were there: mark_ns in the report, on the
 *                            clock that does not jump; last_ns is that of the last request
 * --latency: each answer goes out that much later. --check: finds the id of each line ("S" and ten digits,
 * see loggen.c). --raw: counts requests and bytes only, decodes nothing (a bulk is then answered with no
 * items). --delays: how long after its own time each Loki entry came, by tenant, in the report.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <libdeflate.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <snappy-c.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_TENANTS = 4096,
    NAME_BYTES = 160,
    HEAD_BYTES = 65536,
    BODY_BYTES = 128 << 20,
    DECODED_BYTES = 512 << 20
};
/* Delay bins: the k-th begins at 100 us * 1.02^k. */
enum { DELAYS = 800 };
static const uint64_t MAX_IDS = 1u << 30;

struct buffer {
    uint8_t *data;
    size_t len, cap;
};

struct tenant {
    char name[NAME_BYTES];
    uint64_t requests, lines, bytes;
    uint32_t *delays; /* DELAYS of them, with --delays */
};

struct ids {
    uint8_t *bits;
    uint64_t size; /* bits there is room for */
    uint64_t distinct, duplicates, without;
};

/* what came for one protocol */
struct tally {
    uint64_t requests, lines, line_bytes, body_bytes, decoded_bytes, refused, unsorted;
    uint64_t mark, mark_ns, last_ns; /* lines to wait for, and when they were there */
    struct tenant *tenants;
    unsigned tenant_count;
    struct ids ids;
};

struct conn {
    int fd;
    bool gone; /* closed; freed when the events of this turn are done */
    bool busy; /* an answer is being prepared or sent */
    bool close_after;
    bool continued; /* 100 Continue was sent for the present request */
    struct buffer in, out;
    size_t out_at;
    uint64_t due; /* when the answer goes out */
    struct conn *next_due, *next_gone;
};

struct request {
    const char *method, *target;
    char tenant[NAME_BYTES];
    bool gzip, expect, close, chunked;
    size_t head, length;
};

static struct {
    unsigned port;
    uint64_t latency_ns;
    bool check, raw, delays;
} opt;
static struct tally loki, bulk;
static struct buffer decoded;
static struct conn *due_first, *due_last, *gone_first;
static int epoll_fd;

/* ---- small things ---- */

static void die(const char *what)
{
    fprintf(stderr, "countserver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void reserve(struct buffer *b, size_t more)
{
    if (b->cap - b->len >= more)
        return;
    size_t cap = b->cap ? b->cap : 4096;
    while (cap - b->len < more)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        die("memory");
    b->data = data;
    b->cap = cap;
}

static void append(struct buffer *b, const void *data, size_t len)
{
    reserve(b, len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

__attribute__((format(printf, 2, 3))) static void appendf(struct buffer *b, const char *format, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        die("a text too long");
    append(b, text, (size_t)n);
}

/* ---- counting ---- */

static struct tenant *tenant_of(struct tally *t, const char *name)
{
    static const char others[] = "(others)";
    for (unsigned i = 0; i < t->tenant_count; i++)
        if (strcmp(t->tenants[i].name, name) == 0)
            return &t->tenants[i];
    if (t->tenant_count == MAX_TENANTS)
        return tenant_of(t, others); /* the last place is kept for it, see below */
    if (t->tenant_count == MAX_TENANTS - 1)
        name = others;
    struct tenant *n = &t->tenants[t->tenant_count++];
    *n = (struct tenant){ 0 };
    snprintf(n->name, sizeof n->name, "%s", name);
    return n;
}

static void mark(struct ids *ids, uint64_t id)
{
    if (id >= MAX_IDS) {
        ids->without++;
        return;
    }
    if (id >= ids->size) {
        uint64_t size = ids->size ? ids->size : 1u << 20;
        while (size <= id)
            size *= 2;
        uint8_t *bits = realloc(ids->bits, size / 8);
        if (!bits)
            die("memory");
        memset(bits + ids->size / 8, 0, (size - ids->size) / 8);
        ids->bits = bits;
        ids->size = size;
    }
    uint8_t bit = (uint8_t)(1u << (id & 7));
    if (ids->bits[id / 8] & bit)
        ids->duplicates++;
    else
        ids->distinct++;
    ids->bits[id / 8] |= bit;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* the first "S" and exactly ten digits, with nothing alphanumeric around */
static void find_id(struct ids *ids, const uint8_t *line, size_t len)
{
    for (const uint8_t *p = line, *end = line + len; (p = memchr(p, 'S', (size_t)(end - p))) != NULL; p++) {
        uint64_t id = 0;
        size_t n = 0;
        while (n < 10 && (size_t)(end - p) > n + 1 && is_digit(p[n + 1])) {
            id = id * 10 + (uint64_t)(p[n + 1] - '0');
            n++;
        }
        bool longer = n == 10 && end - p > 11 && is_digit(p[11]);
        bool inside = p > line && (is_digit(p[-1]) || ((p[-1] | 32) >= 'a' && (p[-1] | 32) <= 'z'));
        if (n == 10 && !longer && !inside) {
            mark(ids, id);
            return;
        }
    }
    ids->without++;
}

/* From the time in the entry to now. */
static void count_delay(struct tenant *tenant, uint64_t ts_ns)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    const double us = ((double)now.tv_sec * 1e9 + (double)now.tv_nsec - (double)ts_ns) / 1e3;
    const double bin = us > 100 ? log(us / 100) / log(1.02) : 0;
    if (!tenant->delays && !(tenant->delays = calloc(DELAYS, sizeof *tenant->delays)))
        die("memory");
    tenant->delays[bin < DELAYS - 1 ? (unsigned)bin : DELAYS - 1]++;
}

static void count_line(struct tally *t, struct tenant *tenant, const uint8_t *line, size_t len)
{
    t->lines++;
    t->line_bytes += len;
    tenant->lines++;
    tenant->bytes += len;
    if (opt.check)
        find_id(&t->ids, line, len);
}

static void note_time(struct tally *t)
{
    t->last_ns = now_ns();
    if (t->mark > 0 && t->mark_ns == 0 && t->lines >= t->mark)
        t->mark_ns = t->last_ns;
}

/* ---- Loki: snappy, protobuf ---- */

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return true;
    }
    return false;
}

/* the next field; for length-delimited ones value is the length and *p stands behind the data */
static bool field(const uint8_t **p, const uint8_t *end, unsigned *number, unsigned *type, uint64_t *value,
                  const uint8_t **data)
{
    uint64_t key;
    if (!varint(p, end, &key) || key >> 3 == 0 || key >> 3 > 536870911)
        return false;
    *number = (unsigned)(key >> 3);
    *type = (unsigned)(key & 7);
    *data = *p;
    if (*type == 0)
        return varint(p, end, value);
    if (*type == 2) {
        if (!varint(p, end, value) || *value > (uint64_t)(end - *p))
            return false;
        *data = *p;
        *p += *value;
        return true;
    }
    size_t width = *type == 1 ? 8 : *type == 5 ? 4 : 0;
    if (width == 0 || width > (size_t)(end - *p))
        return false;
    *p += width;
    *value = 0;
    return true;
}

static bool timestamp(const uint8_t *p, size_t len, uint64_t *ns)
{
    uint64_t seconds = 0, nanos = 0, v;
    const uint8_t *end = p + len, *data;
    unsigned number, type;
    while (p < end) {
        if (!field(&p, end, &number, &type, &v, &data))
            return false;
        if (number == 1)
            seconds = v;
        else if (number == 2)
            nanos = v;
    }
    *ns = seconds * 1000000000u + nanos;
    return nanos < 1000000000u;
}

static bool entry(struct tenant *tenant, const uint8_t *p, size_t len, uint64_t *last_ts, bool count)
{
    const uint8_t *end = p + len, *data, *line = p;
    size_t line_len = 0;
    uint64_t v, ts = 0;
    unsigned number, type;
    while (p < end) {
        if (!field(&p, end, &number, &type, &v, &data))
            return false;
        if (number == 1 && (type != 2 || !timestamp(data, (size_t)v, &ts)))
            return false;
        if (number == 2) {
            if (type != 2)
                return false;
            line = data;
            line_len = (size_t)v;
        }
    }
    if (!count)
        return true;
    if (ts < *last_ts)
        loki.unsorted++;
    *last_ts = ts;
    if (opt.delays)
        count_delay(tenant, ts);
    count_line(&loki, tenant, line, line_len);
    return true;
}

static bool stream(struct tenant *tenant, const uint8_t *p, size_t len, bool count)
{
    const uint8_t *end = p + len, *data;
    uint64_t v, last_ts = 0;
    unsigned number, type;
    bool labels = false;
    while (p < end) {
        if (!field(&p, end, &number, &type, &v, &data))
            return false;
        if (number == 1 && type == 2)
            labels = v > 2 && data[0] == '{' && data[v - 1] == '}';
        if (number == 2 && (type != 2 || !entry(tenant, data, (size_t)v, &last_ts, count)))
            return false;
    }
    return labels;
}

/* once to see that it is whole, once to count: a refused request counts nothing */
static bool take_push(const struct request *r, const uint8_t *body)
{
    size_t len;
    if (snappy_uncompressed_length((const char *)body, r->length, &len) != SNAPPY_OK || len > DECODED_BYTES)
        return false;
    decoded.len = 0;
    reserve(&decoded, len + 1);
    if (snappy_uncompress((const char *)body, r->length, (char *)decoded.data, &len) != SNAPPY_OK)
        return false;
    struct tenant *tenant = tenant_of(&loki, r->tenant);
    for (int count = 0; count < 2; count++) {
        const uint8_t *p = decoded.data, *end = p + len, *data;
        uint64_t v;
        unsigned number, type;
        while (p < end) {
            if (!field(&p, end, &number, &type, &v, &data) || number != 1 || type != 2 ||
                !stream(tenant, data, (size_t)v, count == 1))
                return false;
        }
    }
    loki.decoded_bytes += len;
    tenant->requests++;
    note_time(&loki);
    return true;
}

/* ---- Elasticsearch: gzip, lines ---- */

/* all members into `decoded`; by libdeflate, for a server that is measured beside must be cheap */
static bool gunzip(const uint8_t *body, size_t len)
{
    static struct libdeflate_decompressor *d;
    if (!d && !(d = libdeflate_alloc_decompressor()))
        die("memory");
    decoded.len = 0;
    while (len > 0) {
        size_t in, out;
        reserve(&decoded, 1 << 20);
        enum libdeflate_result r = libdeflate_gzip_decompress_ex(d, body, len, decoded.data + decoded.len,
                                                                 decoded.cap - decoded.len, &in, &out);
        if (r == LIBDEFLATE_INSUFFICIENT_SPACE && decoded.cap < DECODED_BYTES) {
            reserve(&decoded, decoded.cap - decoded.len + 1); /* twice as much, and once more */
            continue;
        }
        if (r != LIBDEFLATE_SUCCESS)
            return false;
        decoded.len += out;
        body += in;
        len -= in;
    }
    return decoded.len > 0;
}

static bool starts(const uint8_t *p, size_t len, const char *text)
{
    return len >= strlen(text) && memcmp(p, text, strlen(text)) == 0;
}

/* the value of "_index" in an action line, else the target of the path */
static void index_name(const uint8_t *action, size_t len, const char *fallback, char out[NAME_BYTES])
{
    static const char key[] = "\"_index\":\"";
    const uint8_t *p = memmem(action, len, key, sizeof key - 1);
    if (!p) {
        snprintf(out, NAME_BYTES, "%s", fallback);
        return;
    }
    p += sizeof key - 1;
    const uint8_t *end = memchr(p, '"', (size_t)(action + len - p));
    size_t n = end ? (size_t)(end - p) : 0;
    n = n < NAME_BYTES ? n : NAME_BYTES - 1;
    memcpy(out, p, n);
    out[n] = '\0';
}

/* once to see that it is whole, once (answer given) to count and to answer */
static bool walk_bulk(const uint8_t *p, size_t len, const char *target, struct buffer *answer)
{
    char name[NAME_BYTES], last[NAME_BYTES] = "";
    struct tenant *tenant = NULL;
    bool first = true;
    for (const uint8_t *end = p + len; p < end;) {
        const uint8_t *action_end = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)(action_end - p);
        bool create = starts(p, n, "{\"create\":");
        if (!create && !starts(p, n, "{\"index\":"))
            return false;
        const uint8_t *doc = action_end + 1;
        const uint8_t *doc_end = doc < end ? memchr(doc, '\n', (size_t)(end - doc)) : NULL;
        if (!doc_end)
            return false;
        if (answer) {
            index_name(p, n, target, name);
            if (!tenant || strcmp(name, last) != 0) {
                tenant = tenant_of(&bulk, name);
                snprintf(last, sizeof last, "%s", name);
                tenant->requests++;
            }
            count_line(&bulk, tenant, doc, (size_t)(doc_end - doc));
            static const char created[] = ",{\"create\":{\"status\":201}}", indexed[] = ",{\"index\":{\"status\":201}}";
            const char *item = create ? created : indexed;
            append(answer, item + first, (create ? sizeof created : sizeof indexed) - 1 - first);
            first = false;
        }
        p = doc_end + 1;
    }
    return true;
}

static bool take_bulk(const struct request *r, const uint8_t *body, struct buffer *answer)
{
    const uint8_t *p = body;
    size_t len = r->length;
    if (r->gzip) {
        if (!gunzip(body, len))
            return false;
        p = decoded.data;
        len = decoded.len;
    }
    char target[NAME_BYTES] = "";
    sscanf(r->target, "/%150[^/?]", target);
    if (len == 0 || p[len - 1] != '\n' || !walk_bulk(p, len, target, NULL))
        return false;
    bulk.decoded_bytes += len;
    bool is_filtered = strstr(r->target, "filter_path=errors,items") != NULL; /* as the real one does */
    appendf(answer, "{%s\"errors\":false,\"items\":[", is_filtered ? "" : "\"took\":1,");
    bool whole = walk_bulk(p, len, target, answer);
    note_time(&bulk);
    appendf(answer, "]}");
    return whole;
}

/* ---- the report ---- */

static uint64_t parameter(const char *target, const char *name)
{
    const char *p = strstr(target, name);
    return p ? strtoull(p + strlen(name), NULL, 10) : 0;
}

static void report_ids(struct buffer *out, const struct ids *ids, uint64_t first, uint64_t lines)
{
    uint64_t missing = 0, foreign = ids->distinct;
    struct buffer examples = { 0 };
    for (uint64_t id = first; id < first + lines; id++) {
        if (id < ids->size && (ids->bits[id / 8] >> (id & 7) & 1)) {
            foreign--;
            continue;
        }
        if (missing++ < 10)
            appendf(&examples, "%s%" PRIu64, missing > 1 ? "," : "", id);
    }
    appendf(out, ",\"ids\":{\"distinct\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"without\":%" PRIu64,
            ids->distinct, ids->duplicates, ids->without);
    if (lines > 0) {
        appendf(out, ",\"missing\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"first_missing\":[", missing,
                foreign);
        append(out, examples.data ? examples.data : (const uint8_t *)"", examples.len);
        appendf(out, "]");
    }
    appendf(out, "}");
    free(examples.data);
}

/* "delays":[[us, lines], ..] of the bins that are not empty; closes the tenant. */
static void report_delays(struct buffer *out, const struct tenant *n)
{
    if (n->delays) {
        appendf(out, ",\"delays\":[");
        for (unsigned k = 0, some = 0; k < DELAYS; k++)
            if (n->delays[k] > 0)
                appendf(out, "%s[%.0f,%u]", some++ ? "," : "", 100 * pow(1.02, k + 1), n->delays[k]);
        appendf(out, "]");
    }
    appendf(out, "}");
}

static void report_tally(struct buffer *out, const char *name, const struct tally *t, uint64_t first,
                         uint64_t lines)
{
    appendf(out,
            "\"%s\":{\"requests\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"line_bytes\":%" PRIu64
            ",\"body_bytes\":%" PRIu64 ",\"decoded_bytes\":%" PRIu64 ",\"refused\":%" PRIu64
            ",\"unsorted\":%" PRIu64 ",\"mark_ns\":%" PRIu64 ",\"last_ns\":%" PRIu64 ",\"tenants\":{",
            name, t->requests, t->lines, t->line_bytes, t->body_bytes, t->decoded_bytes, t->refused,
            t->unsorted, t->mark_ns, t->last_ns);
    for (unsigned i = 0; i < t->tenant_count; i++) {
        const struct tenant *n = &t->tenants[i];
        appendf(out, "%s\"%s\":{\"requests\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"bytes\":%" PRIu64, i ? "," : "", n->name,
                n->requests, n->lines, n->bytes);
        report_delays(out, n);
    }
    appendf(out, "}");
    if (opt.check)
        report_ids(out, &t->ids, first, lines);
    appendf(out, "}");
}

static void forget(struct tally *t)
{
    struct tenant *tenants = t->tenants;
    for (unsigned i = 0; i < t->tenant_count; i++)
        free(tenants[i].delays);
    free(t->ids.bits);
    *t = (struct tally){ .tenants = tenants };
}

/* ---- requests ---- */

static void reply(struct conn *c, int status, const char *type, const void *body, size_t len)
{
    appendf(&c->out, "HTTP/1.1 %d X\r\n", status);
    if (status != 204)
        appendf(&c->out, "Content-Length: %zu\r\nContent-Type: %s\r\n", len, type);
    if (c->close_after)
        appendf(&c->out, "Connection: close\r\n");
    append(&c->out, "\r\n", 2);
    if (len > 0)
        append(&c->out, body, len);
}

static void reply_json(struct conn *c, int status, const char *text)
{
    reply(c, status, "application/json", text, strlen(text));
}

static void answer_get(struct conn *c, const char *target)
{
    struct buffer out = { 0 };
    if (strncmp(target, "/report", 7) == 0) {
        uint64_t first = parameter(target, "first="), lines = parameter(target, "lines=");
        appendf(&out, "{");
        report_tally(&out, "loki", &loki, first, lines < MAX_IDS ? lines : MAX_IDS);
        appendf(&out, ",");
        report_tally(&out, "bulk", &bulk, first, lines < MAX_IDS ? lines : MAX_IDS);
        appendf(&out, "}\n");
        reply(c, 200, "application/json", out.data, out.len);
    } else if (strcmp(target, "/ids/loki") == 0 || strcmp(target, "/ids/bulk") == 0) {
        const struct ids *ids = target[5] == 'l' ? &loki.ids : &bulk.ids;
        reply(c, 200, "application/octet-stream", ids->bits, ids->size / 8);
    } else if (strcmp(target, "/ready") == 0) {
        reply(c, 200, "text/plain", "ready\n", 6);
    } else if (strncmp(target, "/_cluster/health", 16) == 0) {
        reply_json(c, 200, "{\"status\":\"green\",\"timed_out\":false}");
    } else if (strncmp(target, "/_license", 9) == 0) {
        reply_json(c, 200, "{\"license\":{\"status\":\"active\",\"uid\":\"countserver\",\"type\":\"basic\"}}");
    } else if (strcmp(target, "/") == 0) {
        reply_json(
            c, 200,
            "{\"name\":\"countserver\",\"cluster_name\":\"countserver\",\"version\":{\"number\":\"8.19.21\"},"
            "\"tagline\":\"You Know, for Search\"}");
    } else {
        reply_json(c, 404, "{\"error\":\"not found\",\"status\":404}");
    }
    free(out.data);
}

static void answer_post(struct conn *c, const struct request *r, const uint8_t *body)
{
    static struct buffer items;
    size_t path = strcspn(r->target, "?");
    if (path == 17 && strncmp(r->target, "/loki/api/v1/push", path) == 0) {
        loki.requests++;
        loki.body_bytes += r->length;
        if (opt.raw || take_push(r, body)) {
            reply(c, 204, "", NULL, 0);
        } else {
            loki.refused++;
            reply(c, 400, "text/plain", "not a push request\n", 19);
        }
    } else if (path >= 6 && strncmp(r->target + path - 6, "/_bulk", 6) == 0) {
        bulk.requests++;
        bulk.body_bytes += r->length;
        items.len = 0;
        if (opt.raw) {
            reply_json(c, 200, "{\"took\":1,\"errors\":false,\"items\":[]}");
        } else if (take_bulk(r, body, &items)) {
            reply(c, 200, "application/json", items.data, items.len);
        } else {
            bulk.refused++;
            reply_json(c, 400, "{\"error\":{\"type\":\"illegal_argument_exception\"},\"status\":400}");
        }
    } else if (strncmp(r->target, "/reset", path) == 0 && path == 6) {
        forget(&loki);
        forget(&bulk);
        loki.mark = parameter(r->target, "mark_loki=");
        bulk.mark = parameter(r->target, "mark_bulk=");
        reply(c, 204, "", NULL, 0);
    } else {
        reply_json(c, 404, "{\"error\":\"not found\",\"status\":404}");
    }
}

static void header(struct request *r, char *name, char *value)
{
    if (strcasecmp(name, "Content-Length") == 0)
        r->length = (size_t)strtoull(value, NULL, 10);
    else if (strcasecmp(name, "Content-Encoding") == 0)
        r->gzip = strcasecmp(value, "gzip") == 0;
    else if (strcasecmp(name, "X-Scope-OrgID") == 0)
        snprintf(r->tenant, sizeof r->tenant, "%s", value);
    else if (strcasecmp(name, "Expect") == 0)
        r->expect = true;
    else if (strcasecmp(name, "Connection") == 0)
        r->close = strcasecmp(value, "close") == 0;
    else if (strcasecmp(name, "Transfer-Encoding") == 0)
        r->chunked = true;
}

/* 1 a whole head, 0 more is needed, -1 nonsense. The head is copied to `copy`, where r points to. */
static int parse_head(const struct conn *c, struct request *r, char copy[HEAD_BYTES])
{
    size_t seen = c->in.len < HEAD_BYTES ? c->in.len : HEAD_BYTES - 1;
    const uint8_t *end = seen ? memmem(c->in.data, seen, "\r\n\r\n", 4) : NULL;
    if (!end)
        return c->in.len >= HEAD_BYTES ? -1 : 0;
    *r = (struct request){ .head = (size_t)(end - c->in.data) + 4 };
    memcpy(copy, c->in.data, r->head - 2);
    copy[r->head - 2] = '\0';
    char *save, *line = strtok_r(copy, "\r\n", &save);
    char *space = line ? strchr(line, ' ') : NULL;
    char *space2 = space ? strchr(space + 1, ' ') : NULL;
    if (!space2)
        return -1;
    *space = *space2 = '\0';
    r->method = line;
    r->target = space + 1;
    while ((line = strtok_r(NULL, "\r\n", &save)) != NULL) {
        char *colon = strchr(line, ':');
        if (!colon)
            return -1;
        *colon++ = '\0';
        header(r, line, colon + strspn(colon, " \t"));
    }
    for (char *p = r->tenant; *p; p++) /* it goes into JSON as it is */
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 32)
            *p = '_';
    return r->length > BODY_BYTES ? -1 : 1;
}

/* ---- connections ---- */

static void watch(struct conn *c, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    if (!c->gone && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e) < 0)
        die("epoll_ctl");
}

static void drop(struct conn *c)
{
    if (c->gone)
        return;
    c->gone = true;
    close(c->fd);
    if (c->due == 0) { /* else the list of answers due still holds it */
        c->next_gone = gone_first;
        gone_first = c;
    }
}

static void free_gone(void)
{
    while (gone_first) {
        struct conn *c = gone_first;
        gone_first = c->next_gone;
        free(c->in.data);
        free(c->out.data);
        free(c);
    }
}

static void send_out(struct conn *c)
{
    while (!c->gone && c->out_at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLOUT);
            return;
        }
        if (n < 0) {
            drop(c);
            return;
        }
        c->out_at += (size_t)n;
    }
    if (c->gone)
        return;
    c->out.len = c->out_at = 0;
    c->busy = false;
    if (c->close_after)
        drop(c);
    else
        watch(c, EPOLLIN);
}

static void answer_later(struct conn *c)
{
    c->due = now_ns() + opt.latency_ns;
    c->next_due = NULL;
    if (due_last)
        due_last->next_due = c;
    else
        due_first = c;
    due_last = c;
    watch(c, 0);
}

/* Takes whole requests out of the input, one at a time. */
static void serve(struct conn *c)
{
    static char head[HEAD_BYTES];
    while (!c->gone && !c->busy) {
        struct request r;
        int have = parse_head(c, &r, head);
        if (have < 0) {
            drop(c);
            return;
        }
        if (have == 0)
            return;
        if (r.chunked) {
            c->close_after = c->busy = true;
            reply_json(c, 411, "{\"error\":\"Content-Length is needed\",\"status\":411}");
            send_out(c);
            return;
        }
        if (c->in.len < r.head + r.length) {
            if (r.expect && !c->continued) {
                static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
                c->continued = true;
                if (send(c->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) != (ssize_t)sizeof go_on - 1) {
                    drop(c);
                    return;
                }
            }
            reserve(&c->in, r.head + r.length - c->in.len);
            return;
        }
        c->busy = true;
        c->continued = false;
        c->close_after = r.close;
        if (strcmp(r.method, "POST") == 0 || strcmp(r.method, "PUT") == 0)
            answer_post(c, &r, c->in.data + r.head);
        else
            answer_get(c, r.target);
        size_t used = r.head + r.length;
        memmove(c->in.data, c->in.data + used, c->in.len - used);
        c->in.len -= used;
        if (opt.latency_ns > 0 && strncmp(r.target, "/re", 3) != 0)
            answer_later(c);
        else
            send_out(c);
    }
}

static void receive(struct conn *c)
{
    for (int turn = 0; turn < 16 && !c->gone && !c->busy; turn++) {
        reserve(&c->in, 65536);
        ssize_t n = recv(c->fd, c->in.data + c->in.len, c->in.cap - c->in.len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->in.len += (size_t)n;
        serve(c);
    }
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                return;
            die("accept");
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            die("memory");
        c->fd = fd;
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
            die("epoll_ctl");
    }
}

/* sends what is due; returns the milliseconds until the next, -1 for none */
static int send_due(void)
{
    uint64_t now = now_ns();
    while (due_first && due_first->due <= now) {
        struct conn *c = due_first;
        due_first = c->next_due;
        if (!due_first)
            due_last = NULL;
        c->due = 0;
        if (c->gone) {
            c->next_gone = gone_first;
            gone_first = c;
            continue;
        }
        send_out(c);
        serve(c); /* what was pipelined */
    }
    return due_first ? (int)((due_first->due - now) / 1000000) + 1 : -1;
}

static int listen_on(unsigned port, unsigned *got)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 256) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("listen");
    *got = ntohs(a.sin_port);
    return fd;
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        { "port", 1, NULL, 'p' }, { "latency", 1, NULL, 'l' }, { "check", 0, NULL, 'c' }, { "delays", 0, NULL, 'd' },
        { "raw", 0, NULL, 'r' },  { NULL, 0, NULL, 0 },
    };
    int o;
    while ((o = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (o) {
        case 'p':
            opt.port = (unsigned)strtoul(optarg, NULL, 10) & 65535;
            break;
        case 'l':
            opt.latency_ns = strtoull(optarg, NULL, 10) * 1000000u;
            break;
        case 'c':
            opt.check = true;
            break;
        case 'r':
            opt.raw = true;
            break;
        case 'd':
            opt.delays = true;
            break;
        default:
            fputs("countserver [--port P] [--latency MS] [--check] [--raw] [--delays]\n", stderr);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    loki.tenants = calloc(MAX_TENANTS, sizeof *loki.tenants);
    bulk.tenants = calloc(MAX_TENANTS, sizeof *bulk.tenants);
    if (!loki.tenants || !bulk.tenants)
        die("memory");
    unsigned port;
    int listener = listen_on(opt.port, &port);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on_accept = { .events = EPOLLIN, .data.ptr = &listener };
    struct epoll_event on_signal = { .events = EPOLLIN, .data.ptr = &signals };
    if (signals < 0 || epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &on_accept) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, signals, &on_signal) < 0)
        die("epoll");
    printf("READY %u\n", port);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll_fd, events, 64, send_due());
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            void *who = events[i].data.ptr;
            if (who == &signals)
                return 0;
            if (who == &listener) {
                accept_all(listener);
                continue;
            }
            struct conn *c = who;
            if (c->gone)
                continue;
            if (c->busy && (events[i].events & EPOLLOUT)) {
                send_out(c);
                serve(c);
            } else if (c->busy && (events[i].events & (EPOLLHUP | EPOLLERR))) {
                drop(c);
            } else {
                receive(c);
            }
        }
        free_gone();
    }
}
