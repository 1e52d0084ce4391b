#include "parsers/logfmt.h"

#include "parsers/json_string.h"

#define PAIRS_MAX 32 /* level, time and message come early */

static bool is_key_byte(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' || c == '.' || c == '@' ||
           c == '-' || c == '/';
}

/* key= and its value at *pos. value: without its quotes, escapes in place. */
static bool next_pair(struct slice s, size_t *pos, struct slice *ret_key, struct slice *ret_value, bool *ret_has_escape)
{
    size_t i = *pos;
    while (i < s.len && (s.ptr[i] == ' ' || s.ptr[i] == '\t'))
        i++;
    size_t key = i;
    while (i < s.len && is_key_byte(s.ptr[i]))
        i++;
    if (i == key || i == s.len || s.ptr[i] != '=')
        return false;
    *ret_key = slice_of(s.ptr + key, i - key);
    i++;
    *ret_has_escape = false;
    if (i == s.len || s.ptr[i] != '"') {
        size_t value = i;
        while (i < s.len && s.ptr[i] != ' ' && s.ptr[i] != '\t')
            i++;
        *ret_value = slice_of(s.ptr + value, i - value);
        *pos = i;
        return true;
    }
    size_t value = ++i;
    for (; i < s.len && s.ptr[i] != '"'; i++) {
        if (s.ptr[i] == '\\') {
            *ret_has_escape = true;
            i++;
        }
    }
    if (i >= s.len)
        return false; /* no closing quote */
    *ret_value = slice_of(s.ptr + value, i - value);
    *pos = i + 1;
    return true;
}

static bool is_one_of(struct slice key, const char *const *names)
{
    for (; *names != NULL; names++)
        if (slice_ieq(key, slice_cstr(*names)))
            return true;
    return false;
}

/* Go's own escapes (\x1b) are not JSON's: such a message stays as it is written. */
static struct slice decoded(struct slice raw, bool has_escape, struct buf *scratch)
{
    if (!has_escape || buf_reserve(scratch, raw.len) < 0)
        return raw;
    char *out = scratch->ptr + scratch->len;
    ssize_t n = json_unescape(raw, out);
    if (n < 0)
        return raw;
    scratch->len += (size_t)n;
    return slice_of(out, (size_t)n);
}

bool logfmt_read(const struct timestamp_env *env, struct slice line, struct buf *scratch, struct text *text)
{
    static const char *const levels[] = { "level", "lvl", "severity", NULL };
    static const char *const times[] = { "ts", "time", "timestamp", "t", NULL };
    static const char *const messages[] = { "msg", "message", NULL };
    static const char *const modules[] = { "logger", "target", "module", NULL };

    struct text t = *text;
    struct slice key, value;
    bool has_escape, has_level = false, has_message = false, has_module = false, has_own_time = false;
    size_t pos = 0;
    for (int n = 0; n < PAIRS_MAX && next_pair(line, &pos, &key, &value, &has_escape); n++) {
        if (!has_level && is_one_of(key, levels)) {
            has_level = true;
            t.level = level_from_name(value);
        } else if (!has_message && is_one_of(key, messages)) {
            has_message = true;
            t.message = decoded(value, has_escape, scratch);
        } else if (!has_own_time && is_one_of(key, times) && timestamp_parse(env, value, &t.time_ns)) {
            has_own_time = true;
            t.has_time = true;
        } else if (!has_module && value.len > 0 && is_one_of(key, modules)) {
            has_module = true;
            t.module = value;
        }
    }
    if (!has_level && !has_message)
        return false;
    *text = t;
    return true;
}
