#include "agent/tail/pattern.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define TOKENS_MAX 64 /* of one part */

enum token_kind { TOKEN_TEXT, TOKEN_ANY, TOKEN_CLASS, TOKEN_STAR, TOKEN_CAPTURE };

struct token {
    enum token_kind kind;
    struct slice text; /* TEXT: unescaped; CLASS: between the brackets; CAPTURE: the name */
};

struct part {
    bool is_any_depth;
    struct token *tokens;
    size_t n_tokens;
};

struct pattern {
    struct slice text;
    char *memory; /* what the slices point into */
    struct part *parts;
    size_t n_parts;
    size_t n_captures;
};

/* ---- parsing ---- */

void pattern_free(struct pattern *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_parts; i++)
        free(p->parts[i].tokens);
    free(p->parts);
    free(p->memory);
    free(p);
}

/* The end of a class that opens at text[i], or 0: "[]a]" and "[!]a]" hold a bracket. */
static size_t class_end(struct slice text, size_t i)
{
    size_t j = i + 1;
    if (j < text.len && (text.ptr[j] == '!' || text.ptr[j] == '^'))
        j++;
    if (j < text.len && text.ptr[j] == ']')
        j++;
    while (j < text.len && text.ptr[j] != ']')
        j++;
    return j < text.len ? j : 0;
}

static bool is_capture_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return s.len > 0;
}

/* One special token at text[*i]; moves *i behind it. TOKEN_TEXT: not a special one. */
static int parse_special(struct slice text, size_t *i, struct token *tok, struct err *err)
{
    char c = text.ptr[*i];
    *tok = (struct token){ .kind = TOKEN_TEXT };
    if (c == '*') {
        tok->kind = TOKEN_STAR;
        while (*i < text.len && text.ptr[*i] == '*')
            (*i)++;
    } else if (c == '?') {
        tok->kind = TOKEN_ANY;
        (*i)++;
    } else if (c == '[' && class_end(text, *i) > 0) {
        size_t end = class_end(text, *i);
        *tok = (struct token){ TOKEN_CLASS, slice_of(text.ptr + *i + 1, end - *i - 1) };
        *i = end + 1;
    } else if (c == '<') {
        ptrdiff_t len = slice_find_byte(slice_from(text, *i + 1), '>');
        struct slice name = slice_of(text.ptr + *i + 1, len < 0 ? 0 : (size_t)len);
        if (!is_capture_name(name))
            return err_say(err, -EINVAL,
                           "'<' begins a name such as <service>; write \\< for the character itself");
        *tok = (struct token){ TOKEN_CAPTURE, name };
        *i += name.len + 2;
    }
    return 0;
}

/* Tokens of one part; literal text is unescaped in place, inside `text`'s memory (ours). */
static int parse_part(char *ptr, size_t len, struct token *toks, size_t *ret_n, struct err *err)
{
    struct slice text = { ptr, len };
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        if (n == TOKENS_MAX)
            return err_say(err, -EINVAL, "more than %d wildcards in one part of a path", TOKENS_MAX / 2);
        struct token tok;
        int r = parse_special(text, &i, &tok, err);
        if (r < 0)
            return r;
        if (tok.kind == TOKEN_TEXT) {
            char *out = ptr + i;
            tok.text = slice_of(out, 0);
            bool is_first = true;
            while (i < len &&
                   (is_first || (ptr[i] != '*' && ptr[i] != '?' && ptr[i] != '[' && ptr[i] != '<'))) {
                if (ptr[i] == '\\' && i + 1 < len)
                    i++;
                *out++ = ptr[i++];
                is_first = false;
            }
            tok.text.len = (size_t)(out - tok.text.ptr);
        }
        toks[n++] = tok;
    }
    *ret_n = n;
    return 0;
}

static int add_part(struct pattern *p, char *ptr, size_t len, struct err *err)
{
    if (p->n_parts == PATTERN_PARTS_MAX)
        return err_say(err, -EINVAL, "more than %d folders deep", PATTERN_PARTS_MAX);
    struct part *part = &p->parts[p->n_parts];
    *part = (struct part){ .is_any_depth = len == 2 && memcmp(ptr, "**", 2) == 0 };
    if (part->is_any_depth) {
        if (p->n_parts == 0 || !p->parts[p->n_parts - 1].is_any_depth)
            p->n_parts++; /* two in a row mean the same as one */
        return 0;
    }
    struct token toks[TOKENS_MAX];
    size_t n = 0;
    int r = parse_part(ptr, len, toks, &n, err);
    if (r < 0)
        return r;
    part->tokens = malloc(MAX(n, (size_t)1) * sizeof(*toks));
    if (part->tokens == NULL)
        return err_set(err, -ENOMEM, "cannot compile a pattern");
    memcpy(part->tokens, toks, n * sizeof(*toks));
    part->n_tokens = n;
    p->n_parts++;
    for (size_t i = 0; i < n; i++)
        p->n_captures += toks[i].kind == TOKEN_CAPTURE;
    if (p->n_captures > PATTERN_CAPTURES_MAX)
        return err_say(err, -EINVAL, "more than %d names in <>", PATTERN_CAPTURES_MAX);
    return 0;
}

static int parse_parts(struct pattern *p, char *text, size_t len, struct err *err)
{
    for (size_t i = 0; i < len;) {
        if (text[i] == '/') {
            i++;
            continue;
        }
        size_t start = i;
        while (i < len && text[i] != '/')
            i++;
        if (i - start == 1 && text[start] == '.')
            continue;
        int r = add_part(p, text + start, i - start, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int pattern_parse(struct slice glob, struct pattern **ret_pattern, struct err *err)
{
    static const char STAR[] = "*";
    if (glob.len == 0 || glob.len >= PATH_MAX || slice_find_byte(glob, '\0') >= 0)
        return err_say(err, -EINVAL, "a path pattern is empty or too long");
    struct pattern *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return err_set(err, -ENOMEM, "cannot compile a pattern");
    int r = 0;
    /* Twice: once as it was written, once to be unescaped in place; and room for the parts we add. */
    p->memory = malloc(glob.len * 2 + 8);
    p->parts = calloc(PATTERN_PARTS_MAX + 1, sizeof(*p->parts));
    if (p->memory == NULL || p->parts == NULL) {
        r = err_set(err, -ENOMEM, "cannot compile a pattern");
        goto fail;
    }
    memcpy(p->memory, glob.ptr, glob.len);
    p->text = slice_of(p->memory, glob.len);
    char *work = p->memory + glob.len;
    memcpy(work, glob.ptr, glob.len);
    char *extra = work + glob.len;
    memcpy(extra, "***", 3);

    if (glob.ptr[0] != '/')
        r = add_part(p, extra, 2, err);
    if (r == 0)
        r = parse_parts(p, work, glob.len, err);
    if (r == 0 && p->n_parts > 0 && p->parts[p->n_parts - 1].is_any_depth)
        r = add_part(p, extra + 2, sizeof(STAR) - 1, err); /* "/var/log/" + "**" is every file below */
    if (r == 0 && p->n_parts == 0)
        r = err_say(err, -EINVAL, "a path pattern without a name");
    if (r < 0)
        goto fail;
    *ret_pattern = p;
    return 0;
fail:
    pattern_free(p);
    return r;
}

/* ---- asking ---- */

struct slice pattern_text(const struct pattern *p)
{
    return p->text;
}

size_t pattern_n_parts(const struct pattern *p)
{
    return p->n_parts;
}

bool pattern_part_is_any_depth(const struct pattern *p, size_t part)
{
    return p->parts[part].is_any_depth;
}

bool pattern_part_is_constant(const struct pattern *p, size_t part)
{
    const struct part *pt = &p->parts[part];
    return !pt->is_any_depth && pt->n_tokens == 1 && pt->tokens[0].kind == TOKEN_TEXT;
}

struct slice pattern_part_text(const struct pattern *p, size_t part)
{
    assert(pattern_part_is_constant(p, part));
    return p->parts[part].tokens[0].text;
}

/* ---- matching one part ---- */

struct
try {
    const struct part *part;
    struct slice text;
    uint8_t failed[(TOKENS_MAX + 1) * (NAME_MAX + 1) / 8 +
                   1]; /* (token, place) that lead nowhere: no second visit */
    struct slice values[TOKENS_MAX];
};

static bool class_holds(struct slice cls, unsigned char c)
{
    size_t i = 0;
    bool is_not = cls.len > 0 && (cls.ptr[0] == '!' || cls.ptr[0] == '^');
    bool holds = false;
    for (i = is_not; i < cls.len; i++) {
        unsigned char lo = (unsigned char)cls.ptr[i], hi = lo;
        if (i + 2 < cls.len && cls.ptr[i + 1] == '-') {
            hi = (unsigned char)cls.ptr[i + 2];
            i += 2;
        }
        holds = holds || (c >= lo && c <= hi);
    }
    return holds != is_not;
}

static bool try_from(struct try *m, size_t ti, size_t at);

/* A run of at least `least` bytes, as long as possible. */
static bool try_run(struct try *m, size_t ti, size_t at, size_t least)
{
    for (size_t end = m->text.len; end >= at + least; end--) {
        if (try_from(m, ti + 1, end)) {
            m->values[ti] = slice_of(m->text.ptr + at, end - at);
            return true;
        }
        if (end == 0)
            break;
    }
    return false;
}

static bool try_from(struct try *m, size_t ti, size_t at)
{
    if (ti == m->part->n_tokens)
        return at == m->text.len;
    size_t bit = ti * (NAME_MAX + 1) + at;
    if (m->failed[bit / 8] & (1u << (bit % 8)))
        return false;
    const struct token *tok = &m->part->tokens[ti];
    bool ok = false;
    switch (tok->kind) {
    case TOKEN_TEXT:
        ok = slice_starts(slice_from(m->text, at), tok->text) && try_from(m, ti + 1, at + tok->text.len);
        break;
    case TOKEN_ANY:
        ok = at < m->text.len && try_from(m, ti + 1, at + 1);
        break;
    case TOKEN_CLASS:
        ok = at < m->text.len && class_holds(tok->text, (unsigned char)m->text.ptr[at]) &&
             try_from(m, ti + 1, at + 1);
        break;
    case TOKEN_STAR:
        ok = try_run(m, ti, at, 0);
        break;
    case TOKEN_CAPTURE:
        ok = try_run(m, ti, at, 1);
        break;
    }
    if (!ok)
        m->failed[bit / 8] = (uint8_t)(m->failed[bit / 8] | (1u << (bit % 8)));
    return ok;
}

/* caps: where the next capture goes, *n their number so far; NULL = not wanted. */
static bool match_part(const struct part *part, struct slice name, struct pair *caps, size_t *n)
{
    if (name.len > NAME_MAX || name.len == 0)
        return false;
    if (part->n_tokens == 1 && part->tokens[0].kind == TOKEN_TEXT)
        return slice_eq(part->tokens[0].text, name);
    struct try m;
    m.part = part;
    m.text = name;
    memset(m.failed, 0, ((part->n_tokens + 1) * (NAME_MAX + 1)) / 8 + 1);
    if (!try_from(&m, 0, 0))
        return false;
    for (size_t i = 0; caps != NULL && i < part->n_tokens; i++)
        if (part->tokens[i].kind == TOKEN_CAPTURE)
            caps[(*n)++] = (struct pair){ part->tokens[i].text, m.values[i] };
    return true;
}

bool pattern_part_matches(const struct pattern *p, size_t part, struct slice name)
{
    return match_part(&p->parts[part], name, NULL, NULL);
}

/* ---- matching a path ---- */

static size_t split(struct slice path, struct slice *names, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < path.len;) {
        if (path.ptr[i] == '/') {
            i++;
            continue;
        }
        size_t start = i;
        while (i < path.len && path.ptr[i] != '/')
            i++;
        if (n == max)
            return max + 1;
        names[n++] = slice_of(path.ptr + start, i - start);
    }
    return n;
}

#define NAMES_MAX 128

struct walk {
    const struct pattern *p;
    const struct slice *names;
    size_t n_names;
    uint8_t failed[(PATTERN_PARTS_MAX + 1) * (NAMES_MAX + 1)];
    struct pair *caps;
};

static bool walk_from(struct walk *w, size_t part, size_t name, size_t n_caps, size_t *ret_n_caps)
{
    if (part == w->p->n_parts) {
        *ret_n_caps = n_caps;
        return name == w->n_names;
    }
    uint8_t *failed = &w->failed[part * (NAMES_MAX + 1) + name];
    if (*failed)
        return false;
    bool ok = false;
    if (w->p->parts[part].is_any_depth) {
        for (size_t skip = name; !ok && skip <= w->n_names; skip++)
            ok = walk_from(w, part + 1, skip, n_caps, ret_n_caps);
    } else if (name < w->n_names) {
        size_t n = n_caps;
        ok = match_part(&w->p->parts[part], w->names[name], w->caps, &n) &&
             walk_from(w, part + 1, name + 1, n, ret_n_caps);
    }
    *failed = !ok;
    return ok;
}

static bool match_names(const struct pattern *p, const struct slice *names, size_t n, struct pair *caps,
                        size_t *ret_n_caps)
{
    struct walk w = { .p = p, .names = names, .n_names = n, .caps = caps };
    return walk_from(&w, 0, 0, 0, ret_n_caps);
}

bool pattern_match(const struct pattern *p, struct slice path, struct pair *caps, size_t *ret_n_caps)
{
    struct slice names[NAMES_MAX];
    size_t unused, n = split(path, names, NAMES_MAX);
    return n <= NAMES_MAX && match_names(p, names, n, caps, ret_n_caps == NULL ? &unused : ret_n_caps);
}

bool pattern_covers(const struct pattern *p, struct slice path)
{
    struct slice names[NAMES_MAX];
    size_t unused, n = split(path, names, NAMES_MAX);
    if (n > NAMES_MAX)
        return false;
    for (size_t k = n; k > 0; k--)
        if (match_names(p, names, k, NULL, &unused))
            return true;
    return false;
}
