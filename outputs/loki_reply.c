/*
 * What Loki's replies mean (queue.md §4). Loki stores what it does not complain of: a 400 from its validation
 * names entries, and the rest is there. A 400 from its parser means that nothing is. Part of loki.h.
 *
 * The words matched here are those of Loki 2.x and 3.x; older releases begin some of them with a capital
 * letter, so the first letter is never part of a match.
 */
#include "outputs/loki.h"

#include <errno.h>
#include <stdio.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"

/* ---- small readers ---- */

static bool has(struct slice s, struct slice needle)
{
    return slice_find(s, needle) >= 0;
}

/* What follows needle in s; empty with a NULL ptr when it is not there. */
static struct slice after(struct slice s, struct slice needle)
{
    ptrdiff_t at = slice_find(s, needle);
    return at < 0 ? (struct slice){ NULL, 0 } : slice_from(s, (size_t)at + needle.len);
}

/* The digits that s begins with; false when there are none. */
static bool leading_number(struct slice s, uint64_t *ret)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return slice_to_u64(slice_first(s, n), ret);
}

static bool number_after(struct slice s, struct slice needle, uint64_t *ret)
{
    struct slice rest = after(s, needle);
    return rest.ptr != NULL && leading_number(rest, ret);
}

/* "3MB", "1.5KB", "900": as Loki prints byte sizes. 0 when it is none. */
static double size_after(struct slice s, struct slice needle)
{
    struct slice rest = after(s, needle);
    double v = 0, scale = 0;
    size_t i = 0;
    for (; i < rest.len && ((rest.ptr[i] >= '0' && rest.ptr[i] <= '9') || (rest.ptr[i] == '.' && scale == 0));
         i++) {
        if (rest.ptr[i] == '.') {
            scale = 1;
            continue;
        }
        scale /= 10;
        double digit = (double)(rest.ptr[i] - '0');
        v = scale > 0 ? v + digit * scale : v * 10 + digit;
    }
    char unit = i < rest.len ? rest.ptr[i] : 'B';
    return unit == 'k' || unit == 'K' ? v * 1024
           : unit == 'M'              ? v * 1024 * 1024
           : unit == 'G'              ? v * 1024 * 1024 * 1024
                                      : v;
}

/* A fixed number of digits; -1 when they are not there. */
static int64_t digits(struct slice s, size_t at, size_t n)
{
    uint64_t v;
    if (at > s.len || n > s.len - at || !slice_to_u64(slice_of(s.ptr + at, n), &v))
        return -1;
    return (int64_t)v;
}

/* Fraction and zone of a time in Go's two spellings: ".123456789 +0000 UTC" and "Z" or "+02:00". */
static int64_t fraction_and_zone(struct slice s)
{
    int64_t ns = 0, unit = NS_PER_SEC / 10;
    size_t i = 0;
    if (s.len > 0 && s.ptr[0] == '.')
        for (i = 1; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9'; i++, unit /= 10)
            ns += (s.ptr[i] - '0') * unit;
    if (i < s.len && s.ptr[i] == ' ')
        i++;
    if (i < s.len && (s.ptr[i] == '+' || s.ptr[i] == '-')) {
        bool has_colon = i + 3 < s.len && s.ptr[i + 3] == ':';
        int64_t h = digits(s, i + 1, 2), m = digits(s, i + (has_colon ? 4 : 3), 2);
        if (h >= 0 && m >= 0)
            ns -= (s.ptr[i] == '-' ? -1 : 1) * (h * 60 + m) * 60 * NS_PER_SEC;
    }
    return ns;
}

/* "2026-01-02 03:04:05.6 +0000 UTC" and "2026-01-02T03:04:05Z" at the start of s. */
static bool leading_time(struct slice s, int64_t *ret_ns)
{
    int64_t year = digits(s, 0, 4), month = digits(s, 5, 2), day = digits(s, 8, 2);
    int64_t hour = digits(s, 11, 2), minute = digits(s, 14, 2), second = digits(s, 17, 2);
    if (year < 1700 || year > 2250 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
        minute < 0 || second < 0)
        return false;
    int64_t days = clock_days_from_civil(year, (unsigned)month, (unsigned)day);
    int64_t seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    *ret_ns = seconds * NS_PER_SEC + fraction_and_zone(slice_from(s, 19));
    return true;
}

/* ---- the verdict for the whole request ---- */

static void say(struct judgement *j, enum verdict verdict, const char *reason)
{
    j->verdict = verdict;
    (void)snprintf(j->reason, sizeof(j->reason), "%s", reason);
}

/* The server's words on one line of printable text; cut between characters. */
static void keep_text(struct judgement *j, const struct http_reply *reply)
{
    struct slice s = slice_trim(reply->status == 0 ? reply->failure_text : reply->body);
    size_t n = 0;
    for (size_t i = 0; i < s.len && n + 1 < sizeof(j->text); i++) {
        char c = s.ptr[i];
        bool is_control = (unsigned char)c < 0x20 || c == 0x7f;
        j->text[n++] = is_control ? (char)' ' : c;
    }
    n = slice_utf8_valid(slice_of(j->text, n)); /* ends a cut or foreign text where it stops being text */
    j->text[n] = '\0';
}

/* No complete reply. */
static void judge_failure(const struct http_reply *reply, struct judgement *ret)
{
    const char *failure = reply->failure == NULL ? "failed" : reply->failure;
    bool is_tls = slice_eq(slice_cstr(failure), SLICE("tls"));
    say(ret, is_tls ? VERDICT_HOLD : VERDICT_RETRY, failure);
}

/* Loki answers a push with 204 and nothing else; an empty 200 is what some proxies make of it. */
static void judge_success(const struct http_reply *reply, struct judgement *ret)
{
    bool is_page = has(reply->content_type, SLICE("text/html")) || slice_trim(reply->body).len > 0 || reply->is_cut;
    if (reply->status == 260 && !BUG(39))
        say(ret, VERDICT_HOLD, "ingestion_blocked");
    else if (reply->status != 200 && reply->status != 204 && !BUG(39))
        say(ret, VERDICT_HOLD, "unexpected_status");
    else if (is_page && !BUG(28))
        say(ret, VERDICT_HOLD, "not_loki");
    else
        say(ret, VERDICT_SENT, "");
}

/* What only a change of a configuration, ours or the server's, can mend. */
static const struct {
    struct slice words;
    const char *reason;
} config_words[] = {
    { SLICE_INIT("structured metadata, but this feature is disallowed"), "metadata_disallowed" },
    { SLICE_INIT("label names; limit"), "too_many_labels" },
    { SLICE_INIT("issing required labels"), "missing_labels" },
    { SLICE_INIT("multiple org IDs present"), "tenant" },
    { SLICE_INIT("enant ID '"), "tenant" },
    { SLICE_INIT("enant ID is too long"), "tenant" },
    { SLICE_INIT("no org id"), "tenant" },
};

/* Loki's validation: the rest of the request is stored. */
static const struct slice validation_words[] = {
    SLICE_INIT("has timestamp too old"),
    SLICE_INIT("has timestamp too new"),
    SLICE_INIT("ax entry size '"),
    SLICE_INIT("has label name too long"),
    SLICE_INIT("has label value too long"),
    SLICE_INIT("has duplicate label name"),
    SLICE_INIT("has structured metadata too large"),
    SLICE_INIT("has too many structured metadata labels"),
    SLICE_INIT("rror parsing labels '"),
    SLICE_INIT("at least one label pair is required"),
    SLICE_INIT("entry too far behind"),
    SLICE_INIT("entry out of order"),
};

static void judge_400(struct slice body, struct judgement *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(config_words); i++)
        if (has(body, config_words[i].words)) {
            say(ret, VERDICT_HOLD, config_words[i].reason);
            return;
        }
    for (size_t i = 0; i < ARRAY_LEN(validation_words); i++)
        if (has(body, validation_words[i])) {
            say(ret, VERDICT_ITEMS, "validation");
            return;
        }
    say(ret, VERDICT_BISECT, "bad_request");
}

/*
 * The tenant's rate: the reply tells the rate, not the burst. A request of several lines above the rate is
 * halved, which helps in any case. One line is tried for ever: as the burst is no less than the rate, it
 * passes when the bucket is full.
 */
static bool is_above_rate(struct slice body)
{
    uint64_t limit, lines, bytes;
    if (number_after(body, SLICE("(limit: "), &limit) && number_after(body, SLICE("to ingest '"), &lines) &&
        number_after(body, SLICE("lines totaling '"), &bytes))
        return lines > 1 && bytes > limit;
    double stream_limit = size_after(body, SLICE("(limit: ")),
           stream_bytes = size_after(body, SLICE("' totaling "));
    return stream_limit > 0 && stream_bytes > stream_limit && number_after(body, SLICE(" out of "), &lines) &&
           lines > 1;
}

static void judge_429(struct slice body, struct judgement *ret)
{
    if (is_above_rate(body))
        say(ret, VERDICT_SPLIT, "above_rate");
    else if (has(body, SLICE("aximum active stream limit")))
        say(ret, VERDICT_RETRY, "stream_limit");
    else
        say(ret, VERDICT_RETRY, "rate_limited");
}

static void judge_client_error(const struct http_reply *reply, struct judgement *ret)
{
    switch (reply->status) {
    case 400:
        judge_400(reply->body, ret);
        return;
    case 401:
        say(ret, VERDICT_HOLD, "unauthorized");
        return;
    case 403:
        say(ret, VERDICT_HOLD, "forbidden");
        return;
    case 404:
        say(ret, VERDICT_HOLD, "not_found");
        return;
    case 408:
        say(ret, VERDICT_RETRY, "timeout");
        return;
    case 413:
        say(ret, VERDICT_SPLIT, "too_large");
        return;
    case 425:
        say(ret, VERDICT_RETRY, "too_early");
        return;
    case 429:
        judge_429(reply->body, ret);
        return;
    case 499:
        say(ret, VERDICT_RETRY, "canceled");
        return; /* Loki's own time ran out */
    }
    say(ret, VERDICT_HOLD, "unexpected_status"); /* 405, 407, 415, 422 …: nobody but a person can mend it */
}

static void judge_server_error(const struct http_reply *reply, struct judgement *ret)
{
    if (has(reply->body, SLICE("larger than max")))
        say(ret, VERDICT_SPLIT, "too_large");
    else
        say(ret, VERDICT_RETRY, reply->status == 500 ? "server_error" : "unavailable");
}

void loki_judge(struct output *out, const struct http_reply *reply, struct slice wire, struct judgement *ret)
{
    (void)out;
    (void)wire;
    keep_text(ret, reply);
    ret->partly_stored = false;
    if (reply->status < 200)
        judge_failure(reply, ret);
    else if (reply->status < 300)
        judge_success(reply, ret);
    else if (reply->status < 400)
        say(ret, VERDICT_HOLD, "redirect");
    else if (reply->status < 500)
        judge_client_error(reply, ret);
    else
        judge_server_error(reply, ret);
}

/* ---- which lines of ours does a 400 speak of? ---- */

/* A complaint about one stream, and what it says of its entries. */
enum complaint_kind {
    COMPLAINT_STREAM,   /* all of them */
    COMPLAINT_SECOND,   /* those in the second of `number` (ns) */
    COMPLAINT_LENGTH,   /* lines of `number` bytes */
    COMPLAINT_METADATA, /* metadata of `number` bytes in names and values */
    COMPLAINT_PAIRS,    /* `number` pairs */
    COMPLAINT_TIME,     /* the very time */
    COMPLAINT_BEFORE    /* older than `number` */
};

struct complaint {
    enum complaint_kind kind;
    const char *reason;
    struct slice labels;
    int64_t number;
};

struct reading {
    const struct items *items;
    struct judgement *j;
};

static bool values_equal(struct slice ours, struct slice theirs)
{
    if (slice_eq(ours, theirs))
        return true;
    size_t io = 0, it = 0;
    while (io < ours.len && it < theirs.len) {
        char co[4], ct[4];
        size_t no = loki_unescape(ours, &io, co), nt = loki_unescape(theirs, &it, ct);
        while (no < nt && io < ours.len) /* we write the bytes of a character one by one, they may write \u00e9 */
            co[no++] = ours.ptr[io++];
        if (no != nt || memcmp(co, ct, no) != 0)
            return false;
    }
    return io == ours.len && it == theirs.len;
}

/* Loki adds service_name and labels of its own (__x__) to ours; all are sorted by name. */
static bool labels_match(struct slice ours, struct slice theirs)
{
    if (slice_eq(ours, theirs))
        return true;
    size_t io = 0, it = 0;
    struct slice no, vo, nt, vt;
    bool has_ours = loki_next_label(ours, &io, &no, &vo);
    while (loki_next_label(theirs, &it, &nt, &vt)) {
        if (has_ours && slice_eq(no, nt)) {
            if (!values_equal(vo, vt))
                return false;
            has_ours = loki_next_label(ours, &io, &no, &vo);
        } else if (!slice_eq(nt, SLICE("service_name")) && !slice_starts(nt, SLICE("__"))) {
            return false;
        }
    }
    return !has_ours;
}

static int64_t floor_second(int64_t ns)
{
    int64_t s = ns / NS_PER_SEC;
    return ns % NS_PER_SEC < 0 ? s - 1 : s;
}

static bool entry_matches(const struct item *item, const struct complaint *c)
{
    struct loki_entry e;
    switch (c->kind) {
    case COMPLAINT_STREAM:
        return true;
    case COMPLAINT_SECOND:
        return floor_second(item->time_ns) == floor_second(c->number);
    case COMPLAINT_TIME:
        return item->time_ns == c->number;
    case COMPLAINT_BEFORE:
        return item->time_ns < c->number;
    case COMPLAINT_LENGTH:
    case COMPLAINT_METADATA:
    case COMPLAINT_PAIRS:
        break;
    }
    if (loki_read_entry(item->data, &e, NULL, NULL) < 0)
        return false;
    size_t have = c->kind == COMPLAINT_LENGTH     ? e.line.len
                  : c->kind == COMPLAINT_METADATA ? e.metadata_bytes
                                                  : e.metadata_pairs;
    return have == (size_t)c->number;
}

static void mark_dead(const struct reading *rd, size_t i, const char *reason)
{
    rd->j->items[i] = ITEM_DEAD;
    if (rd->j->item_reasons != NULL)
        (void)snprintf(rd->j->item_reasons[i], sizeof(rd->j->item_reasons[i]), "%s", reason);
}

/* How many entries it means; marks them when mark is set. */
static size_t apply(const struct reading *rd, const struct complaint *c, bool mark)
{
    struct slice last = { NULL, 0 };
    bool last_matches = false;
    size_t n = 0;
    for (size_t i = 0; i < rd->items->n; i++) {
        const struct item *item = &rd->items->item[i];
        if (item->head.ptr != last.ptr) {
            last = item->head;
            last_matches = labels_match(last, c->labels);
        }
        if (!last_matches || !entry_matches(item, c))
            continue;
        n++;
        if (mark)
            mark_dead(rd, i, c->reason);
    }
    return n;
}

/* The whole stream when the complaint fits no entry of it. */
static bool settle(const struct reading *rd, struct complaint c)
{
    if (apply(rd, &c, true) > 0)
        return true;
    c.kind = COMPLAINT_STREAM;
    rd->j->partly_stored = true;
    return apply(rd, &c, true) > 0;
}

/*
 *   entry with timestamp 2026-01-02 03:04:05.6 +0000 UTC ignored, reason: 'entry too far behind, entry
 *       timestamp is: A, oldest acceptable timestamp is: B',\n
 *   user 'x', total ignored: N out of M for stream: {…}
 *
 * The first of these stands there at most ten times.
 * With more than those listed, all that is older than B; when those are not N either, they cannot be told
 * apart.
 */
static bool settle_far_behind(const struct reading *rd, struct slice group, struct slice labels)
{
    struct complaint c = { COMPLAINT_TIME, "too_far_behind", labels, 0 };
    int64_t cutoff = INT64_MIN, t;
    uint64_t total = 0;
    size_t marked = 0;
    struct slice rest = group;
    while ((rest = after(rest, SLICE("entry with timestamp "))).ptr != NULL) {
        if (leading_time(rest, &c.number))
            marked += apply(rd, &c, true);
        struct slice oldest = after(slice_first(rest, 400), SLICE("oldest acceptable timestamp is: "));
        if (oldest.ptr != NULL && leading_time(oldest, &t) && t > cutoff)
            cutoff = t;
    }
    bool has_total = number_after(group, SLICE("total ignored: "), &total);
    if (total > 0 && marked == total)
        return true;
    if (cutoff != INT64_MIN) {
        c.kind = COMPLAINT_BEFORE;
        c.number = cutoff; /* Loki says whole seconds: an entry within the last one may be refused as well */
        size_t n = apply(rd, &c, false);
        if (!has_total || n != total) {
            c.number += NS_PER_SEC;
            n = apply(rd, &c, false);
            rd->j->partly_stored = rd->j->partly_stored || !has_total || n != total;
        }
        if (n > 0 && (!has_total || n >= total)) {
            (void)apply(rd, &c, true);
            return true;
        }
    }
    c.kind = COMPLAINT_STREAM;
    rd->j->partly_stored = true;
    return apply(rd, &c, true) > 0;
}

/* What stands behind the labels of a stream, and what it means. The number, if any, follows the words. */
static const struct {
    struct slice words;
    enum complaint_kind kind;
    const char *reason;
} stream_words[] = {
    { SLICE_INIT("' has timestamp too old: "), COMPLAINT_SECOND, "too_old" },
    { SLICE_INIT("' has timestamp too new: "), COMPLAINT_SECOND, "too_new" },
    { SLICE_INIT("' while adding an entry with length '"), COMPLAINT_LENGTH, "line_too_long" },
    { SLICE_INIT("' has structured metadata too large: '"), COMPLAINT_METADATA, "metadata_too_large" },
    { SLICE_INIT("' has too many structured metadata labels: '"), COMPLAINT_PAIRS, "metadata_too_many" },
    { SLICE_INIT("' has label name too long"), COMPLAINT_STREAM, "invalid_labels" },
    { SLICE_INIT("' has label value too long"), COMPLAINT_STREAM, "invalid_labels" },
    { SLICE_INIT("' has duplicate label name"), COMPLAINT_STREAM, "invalid_labels" },
    { SLICE_INIT("' with error: "), COMPLAINT_STREAM, "invalid_labels" },
};

/* before: the text since the last label set; behind: what follows this one. False: it is about no line of
 * ours. */
static bool settle_label_set(const struct reading *rd, struct slice before, struct slice labels,
                             struct slice behind)
{
    if (slice_ends(before, SLICE("for stream: ")) && has(before, SLICE("entry with timestamp ")))
        return settle_far_behind(rd, before, labels);
    struct complaint c = { COMPLAINT_STREAM, "refused", labels, 0 };
    for (size_t i = 0; i < ARRAY_LEN(stream_words); i++) {
        if (!slice_starts(behind, stream_words[i].words))
            continue;
        struct slice rest = slice_from(behind, stream_words[i].words.len);
        uint64_t number = 0;
        c.kind = stream_words[i].kind;
        c.reason = stream_words[i].reason;
        bool is_read =
            c.kind == COMPLAINT_STREAM ||
            (c.kind == COMPLAINT_SECOND ? leading_time(rest, &c.number) : leading_number(rest, &number));
        if (number > 0)
            c.number = (int64_t)MIN(number, (uint64_t)INT64_MAX);
        if (!is_read) { /* which of them is not to be known */
            c.kind = COMPLAINT_STREAM;
            rd->j->partly_stored = true;
        }
        return settle(rd, c);
    }
    rd->j->partly_stored = true;
    return settle(rd, c);
}

/* Length of the label set at the start of s, or 0. */
static size_t label_set_length(struct slice s)
{
    size_t at = 0;
    struct slice name, value;
    while (loki_next_label(s, &at, &name, &value)) {
    }
    return at;
}

/* Complaints whose stream cannot be read from the text. */
static bool has_nameless(struct slice text)
{
    struct slice rest = text;
    while ((rest = after(rest, SLICE("rror parsing labels '"))).ptr != NULL)
        if (label_set_length(rest) == 0)
            return true;
    return has(text, SLICE("at least one label pair is required"));
}

/* Walks the label sets in the text. False when a complaint was met that fits no line of ours, or there was
 * none. */
static bool read_complaints(const struct reading *rd, struct slice text)
{
    bool is_clear = true;
    size_t n = 0, start = 0;
    for (size_t i = 0; i < text.len;) {
        size_t len = text.ptr[i] == '{' ? label_set_length(slice_from(text, i)) : 0;
        if (len == 0) {
            i++;
            continue;
        }
        n++;
        struct slice before = slice_of(text.ptr + start, i - start);
        if (!settle_label_set(rd, before, slice_of(text.ptr + i, len), slice_from(text, i + len)))
            is_clear = false;
        i += len;
        start = i;
    }
    return is_clear && n > 0 && !has_nameless(text);
}

/* All lines are dead that are not yet: they cannot be told apart from the refused ones. */
static void mark_all(const struct reading *rd)
{
    for (size_t i = 0; i < rd->items->n; i++)
        if (rd->j->items[i] != ITEM_DEAD)
            mark_dead(rd, i, "refused");
    rd->j->partly_stored = true;
}

void loki_judge_items(struct output *out, const struct http_reply *reply, const struct items *items,
                      struct judgement *ret)
{
    (void)out;
    struct reading rd = { items, ret };
    for (size_t i = 0; i < items->n; i++)
        ret->items[i] = ITEM_DONE;
    if (!read_complaints(&rd, reply->body) || reply->is_cut)
        mark_all(&rd);
}
