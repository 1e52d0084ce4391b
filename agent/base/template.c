#include "agent/base/template.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/clock.h"

/*
 * A compiled template is a flat list. {a|b|'c'} becomes three parts, each but the last with `more`: a part
 * that gave something skips the rest of its group.
 */
enum part_kind { PART_LITERAL, PART_VAR, PART_TIME };
struct part {
    enum part_kind kind;
    bool more; /* the next part is the "else" of this one */
    char time; /* PART_TIME: the letter behind the percent sign */
    struct slice literal;
    struct var var;
};

struct template
{
    struct slice text; /* behind the parts, as written */
    size_t n;
    struct part parts[];
};

struct parse {
    struct template *t;
    struct slice text; /* the template's own copy: keys of variables borrow from it */
    size_t pos;
    bool has_time;
    char *scratch; /* where the next literal byte goes */
    char *literal; /* start of the literal in the making */
    struct wanted_keys *wanted;
    struct err *err;
};

static void add_part(struct parse *p, struct part part)
{
    p->t->parts[p->t->n++] = part;
}

static void flush_literal(struct parse *p)
{
    size_t len = (size_t)(p->scratch - p->literal);
    if (len > 0)
        add_part(p, (struct part){ .kind = PART_LITERAL, .literal = slice_of(p->literal, len) });
    p->literal = p->scratch;
}

static void skip_blanks(struct parse *p)
{
    while (p->pos < p->text.len && p->text.ptr[p->pos] == ' ')
        p->pos++;
}

/* 'constant', with '' for a quote inside; pos is behind the first quote. */
static int parse_constant(struct parse *p, struct part *ret_part)
{
    char *start = p->scratch;
    while (p->pos < p->text.len) {
        char c = p->text.ptr[p->pos++];
        if (c == '\'') {
            if (p->pos == p->text.len || p->text.ptr[p->pos] != '\'') {
                *ret_part = (struct part){ .kind = PART_LITERAL,
                                           .literal = slice_of(start, (size_t)(p->scratch - start)) };
                p->literal = p->scratch;
                return 0;
            }
            p->pos++;
        }
        *p->scratch++ = c;
    }
    return err_say(p->err, -EINVAL, "the constant is not closed: a ' is missing");
}

static int parse_name(struct parse *p, struct part *ret_part)
{
    size_t start = p->pos;
    while (p->pos < p->text.len && p->text.ptr[p->pos] != '|' && p->text.ptr[p->pos] != '}' &&
           p->text.ptr[p->pos] != '{' && p->text.ptr[p->pos] != '\'')
        p->pos++;
    if (p->pos < p->text.len && (p->text.ptr[p->pos] == '{' || p->text.ptr[p->pos] == '\''))
        return err_say(p->err, -EINVAL, "unexpected %c at byte %zu: expected | or }", p->text.ptr[p->pos],
                       p->pos);
    struct slice name = slice_trim(slice_of(p->text.ptr + start, p->pos - start));
    if (name.len == 0)
        return err_say(p->err, -EINVAL, "a name is missing at byte %zu, between { | }", start);
    ret_part->kind = PART_VAR;
    return var_parse(name, p->wanted, &ret_part->var, p->err);
}

/* {a|b|'c'}; pos is behind the brace. */
static int parse_group(struct parse *p)
{
    size_t open = p->pos;
    flush_literal(p);
    for (;;) {
        skip_blanks(p);
        struct part part = { 0 };
        int r;
        if (p->pos < p->text.len && p->text.ptr[p->pos] == '\'') {
            p->pos++;
            r = parse_constant(p, &part);
        } else {
            r = parse_name(p, &part);
        }
        if (r < 0)
            return r;
        skip_blanks(p);
        if (p->pos == p->text.len)
            return err_say(p->err, -EINVAL, "the { at byte %zu is not closed: a } is missing ({{ is a brace)",
                           open - 1);
        char c = p->text.ptr[p->pos++];
        if (c != '|' && c != '}')
            return err_say(p->err, -EINVAL, "unexpected %c at byte %zu: expected | or }", c, p->pos - 1);
        part.more = c == '|';
        add_part(p, part);
        if (c == '}')
            return 0;
    }
}

static int parse_time(struct parse *p)
{
    char c = p->pos < p->text.len ? p->text.ptr[p->pos++] : '\0';
    if (c == '%') {
        *p->scratch++ = '%';
        return 0;
    }
    if (c == '\0' || strchr("YmdHMSj", c) == NULL)
        return err_say(p->err, -EINVAL, "the %% at byte %zu is not followed by one of Y m d H M S j %%",
                       p->pos - (c == '\0' ? 1 : 2));
    flush_literal(p);
    add_part(p, (struct part){ .kind = PART_TIME, .time = c });
    return 0;
}

static int parse_all(struct parse *p)
{
    while (p->pos < p->text.len) {
        char c = p->text.ptr[p->pos++];
        bool doubled = p->pos < p->text.len && p->text.ptr[p->pos] == c;
        int r = 0;
        if ((c == '{' || c == '}') && doubled) {
            *p->scratch++ = c;
            p->pos++;
        } else if (c == '{') {
            r = parse_group(p);
        } else if (c == '}') {
            r = err_say(p->err, -EINVAL, "the } at byte %zu closes nothing (}} is a brace)", p->pos - 1);
        } else if (c == '%' && p->has_time) {
            r = parse_time(p);
        } else {
            *p->scratch++ = c;
        }
        if (r < 0)
            return r;
    }
    flush_literal(p);
    return 0;
}

int template_parse(struct slice text, bool has_time, struct wanted_keys *w, struct template **ret_template,
                   struct err *err)
{
    if (text.len > TEMPLATE_OUT_MAX)
        return err_say(err, -EINVAL, "the template is longer than %zu bytes", TEMPLATE_OUT_MAX);

    /* Each part needs at least one byte of text, and literals are never longer than what they were written
     * as. */
    struct template *t = calloc(1, sizeof(*t) + (text.len + 1) * sizeof(t->parts[0]) + 2 * text.len + 1);
    if (t == NULL)
        return err_set(err, -ENOMEM, "cannot keep a template");
    char *copy = (char *)&t->parts[text.len + 1];
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    t->text = slice_of(copy, text.len);

    struct parse p = { .t = t, .text = t->text, .has_time = has_time, .wanted = w, .err = err };
    p.scratch = p.literal = copy + text.len;
    int r = parse_all(&p);
    if (r < 0) {
        template_free(t);
        return r;
    }
    assert(t->n <= text.len + 1);
    *ret_template = t;
    return 0;
}

void template_free(struct template *t)
{
    free(t);
}

struct slice template_text(const struct template *t)
{
    return t->text;
}

bool template_is_static(const struct template *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->parts[i].kind == PART_TIME ||
            (t->parts[i].kind == PART_VAR && !var_is_static(&t->parts[i].var)))
            return false;
    return true;
}

bool template_is_constant(const struct template *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->parts[i].kind != PART_LITERAL)
            return false;
    return true;
}

bool template_uses(const struct template *t, enum var_kind kind)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->parts[i].kind == PART_VAR && t->parts[i].var.kind == kind)
            return true;
    return false;
}

const struct var *template_var(const struct template *t, size_t i)
{
    for (size_t part = 0; part < t->n; part++)
        if (t->parts[part].kind == PART_VAR && i-- == 0)
            return &t->parts[part].var;
    return NULL;
}

/* ---- evaluation
 * -------------------------------------------------------------------------------------------------- */

/* The last byte of a cut value must not be half a character: servers refuse labels that are not UTF-8. */
static size_t whole_chars(struct slice s, size_t len)
{
    size_t cut = len;
    while (cut > 0 && len - cut < 4 && ((unsigned char)s.ptr[cut] & 0xC0) == 0x80)
        cut--;
    return ((unsigned char)s.ptr[cut] & 0xC0) == 0x80 ? len : cut;
}

static int append_cut(struct buf *out, size_t *room, struct slice s)
{
    size_t len = s.len <= *room ? s.len : whole_chars(s, *room);
    *room = s.len <= *room ? *room - len : 0; /* nothing may follow a cut */
    return buf_append(out, s.ptr, len);
}

static void put_digits(char *to, unsigned width, int64_t value)
{
    for (unsigned i = width; i-- > 0; value /= 10)
        to[i] = (char)('0' + value % 10);
}

static int append_time(struct buf *out, size_t *room, char what, int64_t time_ns)
{
    int64_t s = time_ns / NS_PER_SEC - (time_ns % NS_PER_SEC < 0);
    int64_t days = s / 86400 - (s % 86400 < 0);
    int64_t of_day = s - days * 86400;
    int64_t year;
    unsigned month, day;
    clock_civil_from_days(days, &year, &month, &day);

    char text[4];
    unsigned width = what == 'Y' ? 4 : what == 'j' ? 3 : 2;
    int64_t value = 0;
    switch (what) {
    case 'Y':
        value = year;
        break; /* 64 bits of nanoseconds end between 1677 and 2262 */
    case 'm':
        value = month;
        break;
    case 'd':
        value = day;
        break;
    case 'H':
        value = of_day / 3600;
        break;
    case 'M':
        value = of_day / 60 % 60;
        break;
    case 'S':
        value = of_day % 60;
        break;
    case 'j':
        value = days - clock_days_from_civil(year, 1, 1) + 1;
        break;
    }
    put_digits(text, width, value);
    return append_cut(out, room, slice_of(text, width));
}

static struct slice part_value(const struct part *part, const struct record *rec)
{
    return part->kind == PART_LITERAL ? part->literal : var_get(&part->var, rec);
}

bool template_peek(const struct template *t, const struct record *rec, struct slice *ret_value)
{
    if (t->n != 1 || t->parts[0].kind == PART_TIME)
        return false;
    *ret_value = part_value(&t->parts[0], rec);
    return ret_value->len <= TEMPLATE_OUT_MAX;
}

int template_eval(const struct template *t, const struct record *rec, struct buf *out)
{
    size_t room = TEMPLATE_OUT_MAX;
    size_t start = out->len;
    for (size_t i = 0; i < t->n && room > 0; i++) {
        const struct part *part = &t->parts[i];
        int r;
        if (part->kind == PART_TIME) {
            r = append_time(out, &room, part->time, rec->time_ns);
        } else {
            struct slice value = part_value(part, rec);
            while (value.len == 0 && t->parts[i].more)
                value = part_value(&t->parts[++i], rec);
            while (t->parts[i].more)
                i++;
            r = append_cut(out, &room, value);
        }
        if (r < 0) {
            out->len = start;
            return r;
        }
    }
    return 0;
}
