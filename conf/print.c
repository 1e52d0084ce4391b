/* The effective configuration as YAML: every default said, secrets masked. What is printed loads again to the
 * same. */
#include <errno.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "conf/loader.h"
#include "conf/size.h"

/* Errors are sticky: the first one ends the writing, and is returned once. */
struct printer {
    struct buf *out;
    unsigned indent;
    int error;
};

static void put(struct printer *p, struct slice s)
{
    if (p->error == 0)
        p->error = buf_append_slice(p->out, s);
}

static void put_cstr(struct printer *p, const char *s)
{
    put(p, slice_cstr(s));
}

static void put_indent(struct printer *p)
{
    if (p->error == 0)
        p->error = buf_append_fill(p->out, ' ', (size_t)2 * p->indent);
}

/* ---- scalars
 * -------------------------------------------------------------------------------------------------------- */

/* libyaml reads these as they are; everything else of Unicode wants an escape. */
static bool is_printable(uint32_t c)
{
    return (c >= 0x20 && c <= 0x7e) || c == 0x85 || (c >= 0xa0 && c <= 0xd7ff) ||
           (c >= 0xe000 && c <= 0xfffd && c != 0xfeff) || (c >= 0x10000 && c <= 0x10ffff);
}

static size_t decode(struct slice s, uint32_t *ret_char)
{
    unsigned char b = (unsigned char)s.ptr[0];
    size_t len = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    uint32_t c = len == 1 ? b : b & (0xffu >> (len + 1));
    if (len > s.len) /* texts of a configuration are UTF-8; a broken one is printed byte by byte */
        len = 1;
    for (size_t i = 1; i < len; i++)
        c = c << 6 | ((unsigned char)s.ptr[i] & 0x3f);
    *ret_char = c;
    return len;
}

/* In double quotes; a dollar is doubled, so that it is not taken for a variable. */
static void put_text(struct printer *p, struct slice s)
{
    put_cstr(p, "\"");
    while (s.len > 0 && p->error == 0) {
        uint32_t c;
        size_t len = decode(s, &c);
        if (c == '"' || c == '\\')
            p->error = buf_printf(p->out, "\\%c", (int)c);
        else if (c == '$')
            put_cstr(p, "$$");
        else if (c == '\n')
            put_cstr(p, "\\n");
        else if (is_printable(c) && c != 0x85)
            put(p, slice_first(s, len));
        else
            p->error = buf_printf(p->out, c > 0xffff ? "\\U%08x" : "\\u%04x", c);
        s = slice_from(s, len);
    }
    put_cstr(p, "\"");
}

static void put_secret(struct printer *p, struct slice s)
{
    put_text(p, s.len == 0 ? s : SLICE("***"));
}

/* Users, passwords: what stands before the @ of an address. */
static void put_url(struct printer *p, struct slice url)
{
    ptrdiff_t scheme = slice_find(url, SLICE("://"));
    ptrdiff_t at = slice_rfind_byte(url, '@');
    if (scheme < 0 || at < scheme) {
        put_text(p, url);
        return;
    }
    CLEANUP(buf_deinit) struct buf b;
    buf_init(&b, 64 * KIB);
    int r = buf_append(&b, url.ptr, (size_t)scheme + 3);
    if (r == 0)
        r = buf_append_lit(&b, "***");
    if (r == 0)
        r = buf_append_slice(&b, slice_from(url, (size_t)at));
    if (r < 0)
        p->error = r;
    else
        put_text(p, buf_slice(&b));
}

static void put_list(struct printer *p, struct slices list)
{
    put_cstr(p, "[");
    for (size_t i = 0; i < list.n; i++) {
        if (i > 0)
            put_cstr(p, ", ");
        put_text(p, list.items[i]);
    }
    put_cstr(p, "]");
}

static void put_size(struct printer *p, uint64_t bytes)
{
    if (p->error == 0)
        p->error = size_append(p->out, bytes);
}

static void put_duration(struct printer *p, int64_t ns)
{
    if (p->error == 0)
        p->error = duration_append(p->out, ns);
}

/* "key: ", at the line's start. Names that are not plainly text are quoted. */
static void put_key(struct printer *p, struct slice key)
{
    bool is_plain =
        key.len > 0 && ((key.ptr[0] >= 'a' && key.ptr[0] <= 'z') || (key.ptr[0] >= 'A' && key.ptr[0] <= 'Z'));
    for (size_t i = 0; i < key.len && is_plain; i++) {
        char c = key.ptr[i];
        is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                   c == '-' || c == '.';
    }
    put_indent(p);
    if (is_plain) {
        put(p, key);
    } else { /* keys are not expanded: their dollars stay single */
        size_t start = p->out->len;
        put_text(p, key);
        for (size_t i = start; p->error == 0 && i + 1 < p->out->len; i++) {
            if (p->out->ptr[i] == '$' && p->out->ptr[i + 1] == '$') {
                memmove(p->out->ptr + i, p->out->ptr + i + 1, p->out->len - i - 1);
                p->out->len--;
            }
        }
    }
    put_cstr(p, ": ");
}

/* The one behind a key's colon, when what follows stands on lines of its own. */
static void drop_blank(struct printer *p)
{
    if (p->error == 0)
        p->out->len--;
}

static void put_pair(struct printer *p, const char *key, struct slice text)
{
    put_key(p, slice_cstr(key));
    put_text(p, text);
    put_cstr(p, "\n");
}

/* A section header whose body may turn out to be empty: then both are taken back. */
static size_t section_begin(struct printer *p, struct slice key, size_t *ret_body)
{
    size_t start = p->out->len;
    put_key(p, key);
    drop_blank(p);
    put_cstr(p, "\n");
    p->indent++;
    *ret_body = p->out->len;
    return start;
}

static void section_end(struct printer *p, size_t start, size_t body)
{
    p->indent--;
    if (p->error == 0 && p->out->len == body)
        p->out->len = start;
}

/* ---- tables
 * ---------------------------------------------------------------------------------------------------------
 */

static void put_templates(struct printer *p, const struct template_map *map)
{
    put_cstr(p, map->is_off ? "off\n" : map->n == 0 ? "{}\n" : "");
    if (map->n == 0 || map->is_off)
        return;
    drop_blank(p);
    put_cstr(p, "\n");
    p->indent++;
    for (size_t i = 0; i < map->n; i++) {
        put_key(p, map->items[i].name);
        put_text(p, template_text(map->items[i].template));
        put_cstr(p, "\n");
    }
    p->indent--;
}

/* Headers carry tokens under names of the user's choice: when in doubt a value is a secret. */
static bool is_secret_name(struct slice name)
{
    static const struct slice words[] = { SLICE_INIT("auth"),      SLICE_INIT("token"),
                                          SLICE_INIT("key"),       SLICE_INIT("secret"),
                                          SLICE_INIT("password"),  SLICE_INIT("cookie"),
                                          SLICE_INIT("credential") };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        for (size_t at = 0; at + words[i].len <= name.len; at++)
            if (slice_ieq(slice_of(name.ptr + at, words[i].len), words[i]))
                return true;
    return false;
}

static void put_pairs(struct printer *p, const struct pairs *pairs, bool is_secret)
{
    if (pairs->n == 0) {
        put_cstr(p, "{}\n");
        return;
    }
    drop_blank(p);
    put_cstr(p, "\n");
    p->indent++;
    for (size_t i = 0; i < pairs->n; i++) {
        put_key(p, pairs->items[i].name);
        if (is_secret || is_secret_name(pairs->items[i].name))
            put_secret(p, pairs->items[i].value);
        else
            put_text(p, pairs->items[i].value);
        put_cstr(p, "\n");
    }
    p->indent--;
}

static void put_table(struct printer *p, const struct setting *table, const void *from);

/* False: there is nothing to say, the key is left out. */
static bool has_value(const struct setting *st, const void *at)
{
    if (st->type == SETTING_STRING)
        return ((const struct slice *)at)->ptr != NULL;
    if (st->type == SETTING_TEMPLATE)
        return *(struct template *const *)at != NULL;
    return true;
}

static void put_value(struct printer *p, const struct setting *st, const void *at)
{
    switch (st->type) {
    case SETTING_STRING:
        if (st->is_secret)
            put_secret(p, *(const struct slice *)at);
        else if (strcmp(st->key, "proxy") == 0)
            put_url(p, *(const struct slice *)at);
        else
            put_text(p, *(const struct slice *)at);
        break;
    case SETTING_BOOL:
        put_cstr(p, *(const bool *)at ? "true" : "false");
        break;
    case SETTING_INT:
        if (p->error == 0)
            p->error = buf_append_i64(p->out, *(const int64_t *)at);
        break;
    case SETTING_SIZE:
        put_size(p, *(const uint64_t *)at);
        break;
    case SETTING_DURATION:
        put_duration(p, *(const int64_t *)at);
        break;
    case SETTING_ENUM:
        put_text(p, slice_cstr(st->choices[*(const int *)at]));
        break;
    case SETTING_TEMPLATE:
        put_text(p, template_text(*(struct template *const *)at));
        break;
    case SETTING_TEMPLATES:
        put_templates(p, at);
        return;
    case SETTING_STRINGS:
        put_list(p, *(const struct slices *)at);
        break;
    case SETTING_STRING_MAP:
        put_pairs(p, at, st->is_secret);
        return;
    case SETTING_SECTION:
        return; /* put_setting's */
    }
    put_cstr(p, "\n");
}

/* A section that was left out has its defaults and lacks what it would have to say: it stays left out. */
static bool is_said(const struct setting *section, const void *from)
{
    for (const struct setting *st = section; st->key != NULL; st++)
        if (st->is_required && !has_value(st, (const char *)from + st->offset))
            return false;
    return true;
}

static void put_setting(struct printer *p, const struct setting *st, const void *from)
{
    const void *at = (const char *)from + st->offset;
    if (st->type == SETTING_SECTION && !is_said(st->section, from))
        return;
    if (st->type == SETTING_SECTION) {
        size_t body, start = section_begin(p, slice_cstr(st->key), &body);
        put_table(p, st->section, from);
        section_end(p, start, body);
    } else if (has_value(st, at)) {
        put_key(p, slice_cstr(st->key));
        put_value(p, st, at);
    }
}

static void put_table(struct printer *p, const struct setting *table, const void *from)
{
    for (const struct setting *st = table; st->key != NULL; st++)
        put_setting(p, st, from);
}

static const struct setting *section_of(const struct setting *table, const char *key)
{
    while (strcmp(table->key, key) != 0)
        table++;
    return table->section;
}

/* ---- sections
 * ------------------------------------------------------------------------------------------------------- */

/* `fields` at the top: constants in the grammar of templates, so their braces are doubled. */
static void put_constants(struct printer *p, const struct pairs *fields)
{
    size_t body, start = section_begin(p, SLICE("fields"), &body);
    CLEANUP(buf_deinit) struct buf b;
    buf_init(&b, 2 * TEMPLATE_OUT_MAX);
    for (size_t i = 0; i < fields->n && p->error == 0; i++) {
        struct slice value = fields->items[i].value;
        buf_reset(&b);
        for (size_t k = 0; k < value.len && p->error == 0; k++) {
            if (value.ptr[k] == '{' || value.ptr[k] == '}')
                p->error = buf_append_byte(&b, value.ptr[k]);
            if (p->error == 0)
                p->error = buf_append_byte(&b, value.ptr[k]);
        }
        put_key(p, fields->items[i].name);
        put_text(p, b.len == 0 ? SLICE("") : buf_slice(&b));
        put_cstr(p, "\n");
    }
    section_end(p, start, body);
}

static void put_root(struct printer *p, const struct conf *c, const struct conf_private *own)
{
    static const char *const sections[] = { "limits", "tenants" };
    size_t body, start;
    put_pair(p, "state_dir", c->state_dir);
    put_cstr(p, "admin:\n");
    p->indent++;
    put_pair(p, "listen", c->admin_listen.len == 0 ? SLICE("off") : c->admin_listen);
    p->indent--;
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        start = section_begin(p, slice_cstr(sections[i]), &body);
        put_table(p, section_of(root_settings, sections[i]), c);
        put_table(p, section_of(root_raw_settings, sections[i]), &own->root);
        section_end(p, start, body);
    }
    start = section_begin(p, SLICE("metrics"), &body);
    put_table(p, section_of(root_raw_settings, "metrics"), &own->root);
    section_end(p, start, body);
    start = section_begin(p, SLICE("kubernetes"), &body);
    put_table(p, section_of(root_settings, "kubernetes"), c);
    section_end(p, start, body);
    put_constants(p, &c->fields);
}

static void put_read_from(struct printer *p, const struct conf_input *in)
{
    put_key(p, SLICE("read_from"));
    switch (in->read_from) {
    case READ_FROM_BEGINNING:
        put_cstr(p, "beginning");
        break;
    case READ_FROM_END:
        put_cstr(p, "end");
        break;
    case READ_FROM_AGE:
        put_duration(p, in->read_from_ns);
        break;
    case READ_FROM_TIME:
        if (p->error == 0)
            p->error = clock_append_rfc3339(p->out, in->read_from_ns, 9);
        break;
    }
    put_cstr(p, "\n");
}

static void put_multiline(struct printer *p, const struct conf_input *in)
{
    put_key(p, SLICE("multiline"));
    switch (in->multiline) {
    case MULTILINE_AUTO:
        put_cstr(p, "auto");
        break;
    case MULTILINE_OFF:
        put_cstr(p, "off");
        break;
    case MULTILINE_START:
        put_cstr(p, "{ start: ");
        put_text(p, in->multiline_start);
        put_cstr(p, " }");
        break;
    }
    put_cstr(p, "\n");
}

/* The conditions of one polarity; `not` is a map inside the match. */
static void put_conditions(struct printer *p, const struct match *m, bool is_not)
{
    struct slice name;
    const struct slice *globs;
    size_t n;
    bool negated;
    for (size_t i = 0; match_condition(m, i, &name, &globs, &n, &negated); i++) {
        if (negated != is_not)
            continue;
        put_key(p, name);
        put_list(p, (struct slices){ globs, n });
        put_cstr(p, "\n");
    }
}

static void put_match(struct printer *p, const struct match *m)
{
    size_t body, start = section_begin(p, SLICE("match"), &body), not_body;
    put_conditions(p, m, false);
    size_t not_start = section_begin(p, SLICE("not"), &not_body);
    put_conditions(p, m, true);
    section_end(p, not_start, not_body);
    section_end(p, start, body);
}

/* An item of a block list: its map is written one level deeper, then its first line gets the dash. */
static size_t item_begin(struct printer *p)
{
    p->indent++;
    return p->out->len;
}

static void item_end(struct printer *p, size_t start)
{
    p->indent--;
    if (p->error == 0 && p->out->len > start)
        p->out->ptr[start + (size_t)2 * p->indent] = '-';
}

static void put_overrides(struct printer *p, const struct conf_input *in)
{
    size_t body, start = section_begin(p, SLICE("overrides"), &body);
    for (size_t i = 0; i < in->n_overrides; i++) {
        const struct conf_override *o = &in->overrides[i];
        size_t item = item_begin(p);
        if (o->match == NULL) {
            put_key(p, SLICE("match"));
            put_cstr(p, "{}\n");
        }
        put_match(p, o->match);
        if (o->levels != NULL)
            put_pair(p, "levels", levels_text(o->levels));
        if (o->tenant != NULL)
            put_pair(p, "tenant", template_text(o->tenant));
        item_end(p, item);
    }
    section_end(p, start, body);
}

static void put_input(struct printer *p, const struct conf_input *in)
{
    size_t body, start = section_begin(p, in->name, &body);
    put_pair(p, "type", input_types[in->type]);
    put_table(p, input_settings, in);
    if (in->type == INPUT_KUBERNETES)
        put_table(p, pods_settings, in);
    put_read_from(p, in);
    put_multiline(p, in);
    put_pair(p, "tenant", template_text(in->tenant));
    put_key(p, SLICE("fields"));
    put_templates(p, &in->fields);
    if (in->levels != NULL)
        put_pair(p, "levels", levels_text(in->levels));
    put_overrides(p, in);
    section_end(p, start, body);
}

static void put_output(struct printer *p, const struct output_conf *out, const struct queue_raw *queue)
{
    size_t body, start = section_begin(p, out->name, &body), queue_body;
    put_pair(p, "type", slice_cstr(out->type->name));
    if (out->type->is_http) {
        put_key(p, SLICE("urls"));
        put_list(p, out->http.urls);
        put_cstr(p, "\n");
    }
    if (out->type->settings != NULL)
        put_table(p, out->type->settings, out->settings);
    if (out->type->is_http)
        put_table(p, http_settings, &out->http);
    size_t queue_start = section_begin(p, SLICE("queue"), &queue_body);
    put_table(p, queue_settings, queue);
    section_end(p, queue_start, queue_body);
    section_end(p, start, body);
}

static void put_route(struct printer *p, const struct conf *c, const struct conf_route *route)
{
    size_t item = item_begin(p);
    if (route->match != NULL)
        put_match(p, route->match);
    if (!route->is_drop) {
        struct slice names[OUTPUTS_MAX];
        size_t n = 0;
        for (size_t i = 0; i < c->n_outputs; i++)
            if ((route->outputs & UINT32_C(1) << i) != 0)
                names[n++] = c->outputs[i].name;
        put_key(p, SLICE("to"));
        put_list(p, (struct slices){ names, n });
        put_cstr(p, "\n");
    }
    if (route->levels != NULL)
        put_pair(p, "levels", levels_text(route->levels));
    if (route->is_drop)
        put_pair(p, "drop", SLICE("true"));
    if (route->is_continue)
        put_pair(p, "continue", SLICE("true"));
    item_end(p, item);
}

static void put_counter(struct printer *p, const struct conf_counter *counter)
{
    size_t item = item_begin(p);
    put_table(p, counter_settings, counter);
    if (counter->match != NULL)
        put_match(p, counter->match);
    item_end(p, item);
}

int conf_print(const struct conf *c, struct buf *out)
{
    const struct conf_private *own = c->private_;
    struct printer p = { .out = out };
    size_t start = out->len;
    /* The printing works on what is there already: a buffer without memory has nothing to take back from. */
    int r = buf_reserve(out, 1);
    if (r < 0)
        return r;
    put_root(&p, c, own);
    put_cstr(&p, "inputs:\n");
    p.indent++;
    for (size_t i = 0; i < c->n_inputs; i++)
        put_input(&p, &c->inputs[i]);
    p.indent--;
    put_cstr(&p, "outputs:\n");
    p.indent++;
    for (size_t i = 0; i < c->n_outputs; i++)
        put_output(&p, &c->outputs[i], &own->queues[i]);
    p.indent--;
    put_cstr(&p, "routes:\n");
    p.indent++;
    for (size_t i = 0; i < c->n_routes; i++)
        put_route(&p, c, &c->routes[i]);
    if (c->n_counters > 0)
        put_cstr(&p, "counters:\n");
    for (size_t i = 0; i < c->n_counters; i++)
        put_counter(&p, &c->counters[i]);
    if (p.error < 0)
        out->len = start;
    return p.error;
}
