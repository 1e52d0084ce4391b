#include "parsers/text.h"

#include "parsers/logfmt.h"

#define HEAD_BYTES_MAX 160 /* a level further inside is part of a sentence */
#define HEAD_TOKENS_MAX 7

/* ---- words -------------------------------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static struct slice skip_blanks(struct slice s)
{
    size_t i = 0;
    while (i < s.len && is_blank(s.ptr[i]))
        i++;
    return slice_from(s, i);
}

/* What text logs say and level_from_name does not know, or knows in another sense. */
static const struct {
    struct slice name;
    enum level level;
} words[] = {
    { SLICE_INIT("LOG"), LEVEL_INFO },     { SLICE_INIT("NOTE"), LEVEL_INFO },    { SLICE_INIT("SYSTEM"), LEVEL_INFO },
    { SLICE_INIT("DEBUG1"), LEVEL_DEBUG }, { SLICE_INIT("DEBUG2"), LEVEL_DEBUG }, { SLICE_INIT("DEBUG3"), LEVEL_TRACE },
    { SLICE_INIT("DEBUG4"), LEVEL_TRACE }, { SLICE_INIT("DEBUG5"), LEVEL_TRACE }, { SLICE_INIT("FAIL"), LEVEL_ERROR },
    { SLICE_INIT("DBUG"), LEVEL_DEBUG },   { SLICE_INIT("TRCE"), LEVEL_TRACE },
};

enum level text_level_word(struct slice word)
{
    if (word.len < 3 || word.len > 11) /* single letters are klog's, in their own form only */
        return LEVEL_UNKNOWN;
    for (size_t i = 0; i < word.len; i++)
        if (!is_upper(word.ptr[i]) && !is_lower(word.ptr[i]) && !is_digit(word.ptr[i]))
            return LEVEL_UNKNOWN;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (slice_ieq(word, words[i].name))
            return words[i].level;
    /* Too often plain English to stand for a level in text. */
    if (slice_ieq(word, SLICE("default")) || slice_ieq(word, SLICE("fine")) || slice_ieq(word, SLICE("information")))
        return LEVEL_UNKNOWN;
    return level_from_name(word);
}

static bool is_all_upper(struct slice word)
{
    for (size_t i = 0; i < word.len; i++)
        if (is_lower(word.ptr[i]))
            return false;
    return true;
}

/* A word that is no level on its own when it is bare: it needs a colon or brackets. */
static bool needs_mark(struct slice word)
{
    return slice_ieq(word, SLICE("LOG")) || slice_ieq(word, SLICE("NOTE")) || slice_ieq(word, SLICE("SYSTEM")) ||
           slice_ieq(word, SLICE("FAIL"));
}

/* Lower-case words that may open a line with a colon; "panic:" is Go's, which has no level. */
static bool is_opening_word(struct slice word)
{
    static const struct slice names[] = { SLICE_INIT("error"), SLICE_INIT("warning"), SLICE_INIT("warn"),
                                          SLICE_INIT("info"),  SLICE_INIT("debug"),   SLICE_INIT("notice"),
                                          SLICE_INIT("fatal"), SLICE_INIT("critical"), SLICE_INIT("crit"),
                                          SLICE_INIT("err"),   SLICE_INIT("trace"),   SLICE_INIT("fail"),
                                          SLICE_INIT("dbug"),  SLICE_INIT("trce") };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_ieq(word, names[i]))
            return true;
    return false;
}

/* ---- the head, token by token ------------------------------------------------------------------------------------- */

/* "- ", "-- : ", "| ", ": ": runs of separators, each before a blank. */
static struct slice skip_separators(struct slice s)
{
    for (;;) {
        s = skip_blanks(s);
        size_t i = 0;
        while (i < s.len && (s.ptr[i] == '-' || s.ptr[i] == ':' || s.ptr[i] == '|'))
            i++;
        if (i == 0 || i == s.len || !is_blank(s.ptr[i]))
            return s;
        s = slice_from(s, i);
    }
}

/* The bytes up to the next blank. */
static struct slice token_of(struct slice s)
{
    size_t i = 0;
    while (i < s.len && !is_blank(s.ptr[i]))
        i++;
    return slice_first(s, i);
}

/* [inside] at the start of s; at most HEAD_BYTES_MAX long. */
static bool bracket_of(struct slice s, struct slice *ret_inside)
{
    if (s.len == 0 || s.ptr[0] != '[')
        return false;
    ptrdiff_t end = slice_find_byte(slice_first(s, HEAD_BYTES_MAX), ']');
    if (end < 0)
        return false;
    *ret_inside = slice_of(s.ptr + 1, (size_t)end - 1);
    return true;
}

/* shop::db, shop */
static bool is_rust_path(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_lower(s.ptr[i]) && !is_digit(s.ptr[i]) && s.ptr[i] != '_' && s.ptr[i] != ':')
            return false;
    return s.len > 0 && is_lower(s.ptr[0]);
}

/* Things that stand before a level and are not words of a sentence: 123, 7#7:, *1, user@db, a.b.Class, k=v, x[12]. */
static bool is_head_like(struct slice token)
{
    bool has_digit = false, has_other = false;
    for (size_t i = 0; i < token.len; i++) {
        char c = token.ptr[i];
        if (is_digit(c))
            has_digit = true;
        else if (c == '@' || c == '=' || c == '[' || c == '/' || (c == '.' && i + 1 < token.len))
            return true;
        else if (c != '#' && c != ':' && c != '*' && c != ',')
            has_other = true;
    }
    return has_digit && !has_other;
}

/* name[DEBUG]: as cloud-init writes, or a level between the brackets of the token. */
static enum level level_in_token(struct slice token)
{
    ptrdiff_t open = slice_find_byte(token, '[');
    struct slice inside;
    if (open <= 0 || !bracket_of(slice_from(token, (size_t)open), &inside) || !is_all_upper(inside))
        return LEVEL_UNKNOWN;
    return text_level_word(inside);
}

/* [warn], [INFO ], [core:error] */
static enum level level_in_bracket(struct slice inside)
{
    inside = slice_trim(inside);
    ptrdiff_t colon = slice_rfind_byte(inside, ':');
    return text_level_word(slice_from(inside, (size_t)(colon + 1)));
}

/* The target behind a bare level: "INFO shop::db: msg". Moves *s behind it. */
static void read_rust_target(struct slice *s, struct text *t)
{
    struct slice token = token_of(*s);
    if (token.len < 2 || token.ptr[token.len - 1] != ':' || token.len == s->len)
        return;
    struct slice path = slice_first(token, token.len - 1);
    if (!is_rust_path(path) || slice_ends(path, SLICE(":")))
        return;
    t->module = path;
    *s = skip_blanks(slice_from(*s, token.len));
}

/* WARNING:root:msg, Python's basicConfig. */
static bool read_python_default(struct slice s, struct text *t, struct slice *ret_rest)
{
    ptrdiff_t first = slice_find_byte(slice_first(s, 12), ':');
    if (first < 3)
        return false;
    struct slice word = slice_first(s, (size_t)first), rest = slice_from(s, (size_t)first + 1);
    ptrdiff_t second = slice_find_byte(slice_first(token_of(rest), HEAD_BYTES_MAX), ':');
    if (second < 1 || !is_all_upper(word) || needs_mark(word) || text_level_word(word) == LEVEL_UNKNOWN)
        return false;
    t->level = text_level_word(word);
    t->module = slice_first(rest, (size_t)second);
    *ret_rest = slice_from(rest, (size_t)second + 1);
    return true;
}

/* level=warn among the tokens of a head. */
static enum level level_in_pair(struct slice token)
{
    if (slice_starts(token, SLICE("level=")))
        return level_from_name(slice_from(token, 6));
    return slice_starts(token, SLICE("lvl=")) ? level_from_name(slice_from(token, 4)) : LEVEL_UNKNOWN;
}

/* The level a token stands for. is_first: nothing stands before it, so "error:" will do. */
static enum level level_of_token(struct slice token, bool is_first, bool has_time)
{
    enum level level = level_in_pair(token);
    if (level != LEVEL_UNKNOWN)
        return level;
    bool has_colon = token.ptr[token.len - 1] == ':';
    struct slice word = has_colon ? slice_first(token, token.len - 1) : token;
    if (is_all_upper(word)) {
        bool is_marked = has_colon && has_time; /* "LOG:" is a level behind PostgreSQL's time only */
        bool is_usual = has_time || has_colon || is_opening_word(word); /* "EMERGENCY exit blocked" is a sentence */
        return !is_usual || (needs_mark(word) && !is_marked) ? LEVEL_UNKNOWN : text_level_word(word);
    }
    if (is_first && has_colon && is_opening_word(word))
        return text_level_word(word);
    return level_in_token(token);
}

/* A name between separators: "- app - INFO". */
static bool is_between_separators(struct slice before, struct slice at, struct slice token)
{
    struct slice next = skip_blanks(slice_from(at, token.len));
    return before.ptr != at.ptr && next.len > 1 && (next.ptr[0] == '-' || next.ptr[0] == '|') &&
           skip_separators(next).ptr != next.ptr;
}

/* What follows a level found at the end of `taken` bytes. */
static struct slice behind_level(struct slice s, size_t taken, bool is_bare, struct text *t)
{
    s = slice_from(s, taken);
    struct slice inside;
    if (bracket_of(s, &inside)) { /* Elasticsearch: [INFO ][o.e.n.Node] */
        t->module = slice_trim(inside);
        s = slice_from(s, inside.len + 2);
    }
    s = skip_separators(s);
    if (is_bare && t->has_time && t->module.len == 0)
        read_rust_target(&s, t);
    return s;
}

/* Looks for the level in the head; returns what follows it, or s when there is none. */
static struct slice read_level(struct slice s, struct text *t)
{
    struct slice rest = s, inside;
    if (read_python_default(s, t, &rest))
        return rest;
    const char *end = s.ptr + MIN(s.len, (size_t)HEAD_BYTES_MAX);
    int tokens_max = t->has_time ? HEAD_TOKENS_MAX : 1;
    for (int n = 0; n < tokens_max; n++) {
        struct slice before = skip_blanks(rest);
        rest = t->has_time ? skip_separators(rest) : before;
        if (rest.len == 0 || rest.ptr >= end)
            return s;
        if (bracket_of(rest, &inside)) {
            enum level level = level_in_bracket(inside);
            if (level != LEVEL_UNKNOWN) {
                t->level = level;
                return behind_level(rest, inside.len + 2, false, t);
            }
            rest = slice_from(rest, inside.len + 2);
            continue;
        }
        struct slice token = token_of(rest);
        enum level level = level_of_token(token, n == 0, t->has_time);
        if (level != LEVEL_UNKNOWN) {
            t->level = level;
            return behind_level(rest, token.len, token.ptr[token.len - 1] != ':', t);
        }
        if (!is_head_like(token) && !is_between_separators(before, rest, token))
            return s;
        rest = slice_from(rest, token.len);
    }
    return s;
}

/* ---- particular heads --------------------------------------------------------------------------------------------- */

/* I0102 15:04:05.678901   12345 file.go:12] msg */
static bool read_klog(const struct timestamp_env *env, struct slice s, struct text *t, struct slice *ret_rest)
{
    if (s.len < 20 || memchr("IWEFD", s.ptr[0], 5) == NULL)
        return false;
    int64_t ns;
    size_t n = timestamp_scan_klog(env, slice_from(s, 1), &ns);
    if (n == 0 || 1 + n >= s.len || !is_blank(s.ptr[1 + n]))
        return false;
    t->level = level_from_name(slice_first(s, 1));
    t->has_time = true;
    t->time_ns = ns;
    struct slice rest = skip_blanks(slice_from(s, 1 + n));
    ptrdiff_t end = slice_find(slice_first(rest, HEAD_BYTES_MAX), SLICE("] "));
    *ret_rest = end < 0 ? rest : slice_from(rest, (size_t)end + 2);
    return true;
}

/* <34>: facility * 8 + severity. */
static struct slice read_pri(struct slice s, struct text *t, bool *ret_has_pri)
{
    uint64_t pri;
    *ret_has_pri = false;
    if (s.len < 3 || s.ptr[0] != '<')
        return s;
    ptrdiff_t end = slice_find_byte(slice_first(s, 5), '>');
    if (end < 2 || !slice_to_u64(slice_of(s.ptr + 1, (size_t)end - 1), &pri) || pri > 191)
        return s;
    t->level = level_from_severity((int64_t)(pri & 7));
    *ret_has_pri = true;
    return slice_from(s, (size_t)end + 1);
}

/* sshd[12]: or kernel: at the start of s; the bytes with the colon, 0 = no tag. */
static size_t tag_of(struct slice s, bool needs_pid, struct slice *ret_program)
{
    struct slice token = token_of(slice_first(s, HEAD_BYTES_MAX));
    if (token.len < 2 || token.ptr[token.len - 1] != ':')
        return 0;
    struct slice name = slice_first(token, token.len - 1);
    ptrdiff_t open = slice_find_byte(name, '[');
    bool has_pid = open > 0 && name.ptr[name.len - 1] == ']';
    if (has_pid) {
        struct slice pid = slice_of(name.ptr + open + 1, name.len - (size_t)open - 2);
        uint64_t number;
        has_pid = slice_to_u64(pid, &number);
        name = slice_first(name, (size_t)open);
    }
    if (needs_pid && !has_pid)
        return 0;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!is_upper(c) && !is_lower(c) && !is_digit(c) && memchr("_-./()@", c, 7) == NULL)
            return 0;
    }
    if (text_level_word(name) != LEVEL_UNKNOWN)
        return 0;
    *ret_program = name;
    return token.len;
}

/* "host sshd[12]: " or "sshd[12]: " behind syslog's time. is_loose: the time was RFC 3164's, or rsyslog's own form, so
 * a tag without a pid will do. Returns what follows, or s. */
static struct slice read_syslog_tag(struct slice s, bool is_loose, struct text *t)
{
    struct slice program, rest = skip_blanks(s);
    size_t n = tag_of(rest, !is_loose, &program);
    if (n == 0) {
        struct slice host = token_of(slice_first(rest, 256));
        if (host.len == 0 || host.len == rest.len || text_level_word(host) != LEVEL_UNKNOWN || host.ptr[0] == '[')
            return s;
        rest = skip_blanks(slice_from(rest, host.len));
        n = tag_of(rest, !is_loose, &program);
    }
    if (n == 0)
        return s;
    t->module = program;
    return skip_blanks(slice_from(rest, n));
}

/* rsyslog's default: 2026-01-02T15:04:05.678901+01:00, six digits and a numeric offset. */
static bool is_rsyslog_time(struct slice time)
{
    return time.len == 32 && time.ptr[10] == 'T' && time.ptr[19] == '.' && (time.ptr[26] == '+' || time.ptr[26] == '-');
}

/* Behind <PRI>1 and the time: host app procid msgid, then - or [structured data]. */
static struct slice read_rfc5424(struct slice s, struct text *t)
{
    for (int field = 0; field < 4; field++) {
        s = skip_blanks(s);
        struct slice token = token_of(s);
        if (field == 1 && !slice_eq(token, SLICE("-")))
            t->module = token;
        s = slice_from(s, token.len);
    }
    s = skip_blanks(s);
    if (slice_starts(s, SLICE("-"))) {
        s = slice_from(s, 1);
    } else {
        bool is_quoted = false;
        size_t i = 0;
        while (i < s.len && (is_quoted || s.ptr[i] == '[' || (i > 0 && s.ptr[i - 1] != ']'))) {
            if (s.ptr[i] == '\\' && is_quoted)
                i++;
            else if (s.ptr[i] == '"')
                is_quoted = !is_quoted;
            i++;
        }
        s = slice_from(s, i); /* slice_from stays inside */
    }
    s = skip_blanks(s);
    return slice_starts(s, SLICE("\xEF\xBB\xBF")) ? slice_from(s, 3) : s;
}

/* [2026-01-02T15:04:05Z INFO  shop::db] msg, [2026-01-02T15:04:05,678][INFO ], Ruby's I, [2026-… #12]  INFO -- : msg */
static bool read_bracketed_time(const struct timestamp_env *env, struct slice s, struct text *t, struct slice *ret_rest)
{
    if (s.len > 4 && is_upper(s.ptr[0]) && s.ptr[1] == ',' && s.ptr[2] == ' ' && s.ptr[3] == '[')
        s = slice_from(s, 3);
    struct slice inside;
    if (!bracket_of(s, &inside))
        return false;
    size_t n = timestamp_scan(env, inside, &t->time_ns);
    if (n == 0)
        return false;
    t->has_time = true;
    *ret_rest = slice_from(s, inside.len + 2);
    struct slice token = token_of(skip_blanks(slice_from(inside, n)));
    if (token.len == 0 || text_level_word(token) == LEVEL_UNKNOWN)
        return true;
    t->level = text_level_word(token);
    t->module = slice_trim(slice_from(inside, (size_t)(token.ptr + token.len - inside.ptr)));
    return true;
}

/* 12:M 02 Jan 2026 15:04:05.678 * msg: Redis, whose levels are . - * # */
static bool read_redis(const struct timestamp_env *env, struct slice s, struct text *t, struct slice *ret_rest)
{
    size_t i = 0;
    while (i < s.len && i < 10 && is_digit(s.ptr[i]))
        i++;
    if (i == 0 || s.len - i < 4 || s.ptr[i] != ':' || memchr("MSCX", s.ptr[i + 1], 4) == NULL || s.ptr[i + 2] != ' ')
        return false;
    struct slice time = slice_from(s, i + 3);
    size_t n = timestamp_scan(env, time, &t->time_ns);
    if (n == 0)
        return false;
    t->has_time = true;
    struct slice rest = skip_blanks(slice_from(time, n));
    if (rest.len > 1 && is_blank(rest.ptr[1])) {
        char c = rest.ptr[0];
        t->level = c == '.' ? LEVEL_DEBUG : c == '-' || c == '*' ? LEVEL_INFO : c == '#' ? LEVEL_WARN : LEVEL_UNKNOWN;
        rest = t->level == LEVEL_UNKNOWN ? rest : skip_blanks(slice_from(rest, 1));
    }
    *ret_rest = rest;
    return true;
}

/* … [02/Jan/2026:15:04:05 +0000] "GET …: an access log holds its time further inside. */
static void read_access_log(const struct timestamp_env *env, struct slice line, struct text *t)
{
    struct slice head = slice_first(line, 256);
    ptrdiff_t open = slice_find(head, SLICE(" ["));
    if (open < 0 || (size_t)open + 10 > head.len)
        return;
    struct slice inside = slice_from(head, (size_t)open + 2);
    int64_t ns;
    size_t n = inside.ptr[2] == '/' ? timestamp_scan(env, inside, &ns) : 0;
    if (n == 0 || n >= inside.len || inside.ptr[n] != ']')
        return;
    t->has_time = true;
    t->time_ns = ns;
}

/* ---- the line ----------------------------------------------------------------------------------------------------- */

/* What follows the leading time, with level and module if the head gave them; *ret_is_done: nothing more to look for. */
static struct slice read_head(const struct timestamp_env *env, struct slice line, struct text *t, bool *ret_is_done)
{
    bool has_pri;
    struct slice rest, s = read_pri(line, t, &has_pri);
    *ret_is_done = true;
    if (read_klog(env, s, t, &rest) || read_redis(env, s, t, &rest))
        return rest;
    *ret_is_done = false;
    if (read_bracketed_time(env, s, t, &rest)) {
        *ret_is_done = t->level != LEVEL_UNKNOWN;
        return rest;
    }
    bool is_5424 = has_pri && slice_starts(s, SLICE("1 "));
    if (is_5424)
        s = slice_from(s, 2);
    size_t n = timestamp_scan(env, s, &t->time_ns);
    if (n == 0)
        return s;
    t->has_time = true;
    struct slice time = slice_first(s, n);
    s = slice_from(s, n);
    *ret_is_done = has_pri;
    if (is_5424)
        return read_rfc5424(s, t);
    bool is_loose = has_pri || is_upper(time.ptr[0]) || is_rsyslog_time(time);
    return read_syslog_tag(s, is_loose, t);
}

/* The level, and what else the body's own head says. */
static struct slice read_body(const struct timestamp_env *env, struct slice s, struct buf *scratch, struct text *t)
{
    struct slice rest = skip_blanks(s);
    t->message = rest;
    if (rest.len > 0 && (is_lower(rest.ptr[0]) || is_upper(rest.ptr[0]))) {
        if (logfmt_read(env, rest, scratch, t))
            return t->message;
        struct text inner = *t;
        if (t->has_time && read_klog(env, rest, &inner, &rest)) { /* kubelet[12]: I0102 … */
            t->level = inner.level;
            return rest;
        }
    }
    /* Behind syslog's tag only the first word can be the level: t->has_time would let read_level look further. */
    bool is_syslog = t->has_time && t->module.len > 0;
    if (!is_syslog)
        return read_level(rest, t);
    struct text inner = { .level = LEVEL_UNKNOWN };
    rest = read_level(rest, &inner);
    t->level = inner.level;
    return rest;
}

void text_read(const struct timestamp_env *env, struct slice line, struct buf *scratch, struct text *ret_text)
{
    struct text t = { .level = LEVEL_UNKNOWN };
    buf_reset(scratch);
    bool is_done = line.len == 0 || is_blank(line.ptr[0]); /* an indented line has no head */
    struct slice rest = line;
    if (!is_done) {
        rest = read_head(env, line, &t, &is_done);
        if (!is_done)
            rest = read_body(env, rest, scratch, &t);
        if (!t.has_time)
            read_access_log(env, line, &t);
        rest = skip_blanks(rest);
    }
    t.message = rest.len > 0 ? rest : line;
    *ret_text = t;
}
