#include "conf/apply.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/suggest.h"
#include "conf/size.h"

static bool is_extension(struct slice key)
{
    return slice_starts(key, SLICE("x-"));
}

/* ---- keys
 * -------------------------------------------------------------------------------------------------------- */

static bool is_known(const struct keyset *keys, struct slice key)
{
    for (size_t t = 0; t < ARRAY_LEN(keys->tables) && keys->tables[t] != NULL; t++)
        for (const struct setting *st = keys->tables[t]; st->key != NULL; st++)
            if (slice_eq(key, slice_cstr(st->key)))
                return true;
    for (size_t i = 0; i < keys->n_more; i++)
        if (slice_eq(key, keys->more[i]))
            return true;
    return false;
}

static void offer_keys(const struct keyset *keys, struct suggestion *s)
{
    for (size_t t = 0; t < ARRAY_LEN(keys->tables) && keys->tables[t] != NULL; t++)
        for (const struct setting *st = keys->tables[t]; st->key != NULL; st++)
            suggest_offer(s, slice_cstr(st->key));
    for (size_t i = 0; i < keys->n_more; i++)
        suggest_offer(s, keys->more[i]);
}

/* A section may have keys in two tables; it is one word all the same. */
static bool is_in_earlier(const struct keyset *keys, size_t table, const char *key)
{
    for (size_t t = 0; t < table; t++)
        for (const struct setting *st = keys->tables[t]; st->key != NULL; st++)
            if (strcmp(st->key, key) == 0)
                return true;
    return false;
}

static void list_keys(const struct keyset *keys, struct buf *out)
{
    int r = 0;
    for (size_t t = 0; t < ARRAY_LEN(keys->tables) && keys->tables[t] != NULL && r == 0; t++)
        for (const struct setting *st = keys->tables[t]; st->key != NULL && r == 0; st++)
            if (!is_in_earlier(keys, t, st->key))
                r = buf_printf(out, "%s%s", out->len > 0 ? ", " : "", st->key);
    for (size_t i = 0; i < keys->n_more && r == 0; i++)
        r = buf_printf(out, "%s%.*s", out->len > 0 ? ", " : "", QUOTED(keys->more[i]));
}

static void report_unknown(struct loader *ld, const struct member *m, const struct keyset *keys)
{
    struct suggestion s;
    suggest_init(&s, m->key);
    offer_keys(keys, &s);
    size_t at = report_enter(&ld->rep, m->key);
    if (s.best.len > 0) {
        report_error(&ld->rep, m->mark, "unknown key; did you mean \"%.*s\"?", QUOTED(s.best));
    } else {
        CLEANUP(buf_deinit) struct buf list;
        buf_init(&list, 1 * KIB);
        list_keys(keys, &list);
        struct slice text = buf_slice(&list);
        report_error(&ld->rep, m->mark, "unknown key; expected one of %.*s", (int)text.len,
                     text.len == 0 ? "" : text.ptr);
    }
    report_leave(&ld->rep, at);
}

void apply_check_keys(struct loader *ld, const struct node *map, const struct keyset *keys)
{
    for (size_t i = 0; i < map->n && map->kind == NODE_MAP; i++) {
        const struct slice key = map->members[i].key;
        if (!is_extension(key) && !is_known(keys, key))
            report_unknown(ld, &map->members[i], keys);
    }
}

bool apply_is_map(struct loader *ld, const struct node *n)
{
    if (n == NULL || n->kind == NODE_MAP || node_is_null(n))
        return true;
    if (!n->is_bad)
        report_error(&ld->rep, n->mark, "expected a map of keys, found %s", node_what(n));
    return false;
}

/* ---- single values
 * ----------------------------------------------------------------------------------------------- */

/* {x} without quotes is a map with a key and nothing behind it. */
static bool looks_like_template(const struct node *n)
{
    return n->kind == NODE_MAP && n->n == 1 && node_is_null(n->members[0].value);
}

bool apply_text(struct loader *ld, const struct node *n, struct slice *ret_text)
{
    if (n->is_bad)
        return false;
    if (n->kind == NODE_SCALAR && !node_is_null(n)) {
        *ret_text = n->text;
        return true;
    }
    if (looks_like_template(n))
        report_error(&ld->rep, n->mark, "expected text, found a map; put it in quotes: \"{%.*s}\"",
                     QUOTED(n->members[0].key));
    else
        report_error(&ld->rep, n->mark, "expected text, found %s", node_what(n));
    return false;
}

bool apply_bool(struct loader *ld, const struct node *n, bool *ret_value)
{
    static const struct {
        struct slice word;
        bool value;
    } words[] = {
        { SLICE_INIT("true"), true }, { SLICE_INIT("false"), false }, { SLICE_INIT("yes"), true },
        { SLICE_INIT("no"), false },  { SLICE_INIT("on"), true },     { SLICE_INIT("off"), false }
    };
    struct slice text;
    if (!apply_text(ld, n, &text))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (slice_ieq(text, words[i].word)) {
            *ret_value = words[i].value;
            return true;
        }
    }
    report_error(&ld->rep, n->mark, "expected true or false, found \"%.*s\"", QUOTED(text));
    return false;
}

bool apply_strings(struct loader *ld, const struct node *n, struct slices *ret_strings)
{
    bool is_list = n->kind == NODE_LIST;
    size_t count = is_list ? n->n : 1;
    struct slice *items = loader_alloc(ld, MAX(count, 1) * sizeof(*items));
    if (items == NULL)
        return false;
    bool good = true;
    for (size_t i = 0; i < count; i++) {
        if (!is_list) {
            good = apply_text(ld, n, &items[i]);
            break;
        }
        size_t at = report_enter_index(&ld->rep, i);
        good = apply_text(ld, n->items[i], &items[i]) && good;
        report_leave(&ld->rep, at);
    }
    if (good)
        *ret_strings = (struct slices){ items, count };
    return good;
}

/* "expected from 1MiB to 64MiB" in the words of append. */
static void report_range(struct loader *ld, const struct setting *st, const struct node *n, struct slice text,
                         int (*append)(struct buf *b, int64_t v))
{
    CLEANUP(buf_deinit) struct buf range;
    buf_init(&range, 256);
    int r = append(&range, st->min);
    if (r == 0 && st->max != 0)
        r = buf_append_lit(&range, " to ");
    if (r == 0 && st->max != 0)
        r = append(&range, st->max);
    if (r == 0 && st->max == 0)
        r = buf_append_lit(&range, " up");
    if (r == 0)
        r = buf_terminate(&range);
    report_error(&ld->rep, n->mark, "%.*s is out of range; expected from %s", QUOTED(text),
                 r == 0 ? range.ptr : "?");
}

static void apply_int(struct loader *ld, const struct setting *st, const struct node *n, int64_t *target)
{
    struct slice text;
    int64_t v;
    if (!apply_text(ld, n, &text))
        return;
    if (!slice_to_i64(text, &v))
        report_error(&ld->rep, n->mark, "expected a whole number, found \"%.*s\"", QUOTED(text));
    else if (v < st->min || (st->max != 0 && v > st->max))
        report_range(ld, st, n, text, buf_append_i64);
    else
        *target = v;
}

static int append_size(struct buf *b, int64_t v)
{
    return size_append(b, (uint64_t)v);
}

static void apply_size(struct loader *ld, const struct setting *st, const struct node *n, uint64_t *target)
{
    struct slice text;
    uint64_t v;
    if (!apply_text(ld, n, &text))
        return;
    if (!size_parse(text, &v))
        report_error(&ld->rep, n->mark,
                     "\"%.*s\" is not a size; expected a number with KiB, MiB, GiB (1024) or kB, MB, GB "
                     "(1000)",
                     QUOTED(text));
    else if (v < (uint64_t)st->min || (st->max != 0 && v > (uint64_t)st->max))
        report_range(ld, st, n, text, append_size);
    else
        *target = v;
}

static void apply_duration(struct loader *ld, const struct setting *st, const struct node *n, int64_t *target)
{
    struct slice text;
    int64_t v;
    if (!apply_text(ld, n, &text))
        return;
    if (!duration_parse(text, &v))
        report_error(&ld->rep, n->mark,
                     "\"%.*s\" is not a duration; expected a number with ms, s, m, h or d, such as 10m",
                     QUOTED(text));
    else if (v < st->min || (st->max != 0 && v > st->max))
        report_range(ld, st, n, text, duration_append);
    else
        *target = v;
}

static void apply_enum(struct loader *ld, const struct setting *st, const struct node *n, int *target)
{
    struct slice text;
    if (!apply_text(ld, n, &text))
        return;
    struct suggestion s;
    suggest_init(&s, text);
    CLEANUP(buf_deinit) struct buf all;
    buf_init(&all, 1 * KIB);
    int r = 0;
    for (int i = 0; st->choices[i] != NULL; i++) {
        struct slice choice = slice_cstr(st->choices[i]);
        if (slice_eq(text, choice)) {
            *target = i;
            return;
        }
        suggest_offer(&s, choice);
        if (r == 0)
            r = buf_printf(&all, "%s%s", i > 0 ? ", " : "", st->choices[i]);
    }
    if (s.best.len > 0)
        report_error(&ld->rep, n->mark, "\"%.*s\" is none of %.*s; did you mean \"%.*s\"?", QUOTED(text),
                     (int)all.len, all.ptr, QUOTED(s.best));
    else
        report_error(&ld->rep, n->mark, "\"%.*s\" is none of %.*s", QUOTED(text), (int)all.len, all.ptr);
}

static void apply_templates(struct loader *ld, const struct node *n, struct template_map *target)
{
    *target = (struct template_map){ 0 };
    if (n->kind == NODE_SCALAR && slice_ieq(n->text, SLICE("off"))) {
        target->is_off = true;
        return;
    }
    if (node_is_null(n))
        return;
    if (n->kind != NODE_MAP) {
        if (!n->is_bad)
            report_error(&ld->rep, n->mark, "expected a map of names and templates, or off; found %s",
                         node_what(n));
        return;
    }
    struct named_template *items = loader_alloc(ld, MAX(n->n, 1) * sizeof(*items));
    if (items == NULL)
        return;
    target->items = items;
    for (size_t i = 0; i < n->n; i++) {
        const struct member *m = &n->members[i];
        size_t at = report_enter(&ld->rep, m->key);
        struct template *t = m->key.len == 0 ? NULL : loader_template(ld, m->value, false);
        if (m->key.len == 0)
            report_error(&ld->rep, m->mark, "a name is missing before the colon");
        if (t != NULL)
            items[target->n++] = (struct named_template){ m->key, t };
        report_leave(&ld->rep, at);
    }
}

static void apply_string_map(struct loader *ld, const struct node *n, struct pairs *target)
{
    *target = (struct pairs){ 0 };
    if (!apply_is_map(ld, n) || n->kind != NODE_MAP)
        return;
    struct pair *items = loader_alloc(ld, MAX(n->n, 1) * sizeof(*items));
    if (items == NULL)
        return;
    target->items = items;
    for (size_t i = 0; i < n->n; i++) {
        size_t at = report_enter(&ld->rep, n->members[i].key);
        struct slice text;
        if (apply_text(ld, n->members[i].value, &text))
            items[target->n++] = (struct pair){ n->members[i].key, text };
        report_leave(&ld->rep, at);
    }
}

/* ---- tables
 * ------------------------------------------------------------------------------------------------------ */

static void apply_section(struct loader *ld, const struct setting *table, const struct node *n, void *target)
{
    if (!apply_is_map(ld, n))
        n = NULL;
    if (n != NULL)
        apply_check_keys(ld, n, &(struct keyset){ .tables = { table } });
    apply_table(ld, table, n, target);
}

static void apply_value(struct loader *ld, const struct setting *st, const struct node *n, void *target)
{
    void *to = (char *)target + st->offset;
    switch (st->type) {
    case SETTING_STRING: {
        struct slice text;
        if (apply_text(ld, n, &text))
            *(struct slice *)to = text;
        return;
    }
    case SETTING_BOOL:
        (void)apply_bool(ld, n, to);
        return; /* it reports, and leaves the default */
    case SETTING_INT:
        apply_int(ld, st, n, to);
        return;
    case SETTING_SIZE:
        apply_size(ld, st, n, to);
        return;
    case SETTING_DURATION:
        apply_duration(ld, st, n, to);
        return;
    case SETTING_ENUM:
        apply_enum(ld, st, n, to);
        return;
    case SETTING_TEMPLATE: {
        struct template *t = loader_template(ld, n, true);
        if (t != NULL)
            *(struct template **)to = t;
        return;
    }
    case SETTING_TEMPLATES:
        apply_templates(ld, n, to);
        return;
    case SETTING_STRINGS:
        (void)apply_strings(ld, n, to);
        return;
    case SETTING_STRING_MAP:
        apply_string_map(ld, n, to);
        return;
    case SETTING_SECTION:
        apply_section(ld, st->section, n, target);
        return;
    }
}

/* Defaults are written as they would stand in YAML, and read the same way. One can still be refused: when it
 * names one record key too many. It has no place in a file then, only its path. */
static void apply_default(struct loader *ld, const struct setting *st, void *target)
{
    struct node *n = NULL;
    uint64_t unused = 0;
    if (yaml_parse(&ld->rep, NULL, slice_cstr(st->def), NULL, &unused, &n) == -ENOMEM) {
        ld->failed = -ENOMEM;
        return;
    }
    assert(n != NULL);        /* a default that is not YAML is our own mistake */
    if (st->def[0] == '\0') { /* an empty document is a map; here it is empty text */
        n->kind = NODE_SCALAR;
        n->is_quoted = true;
        n->text = SLICE("");
    }
    apply_value(ld, st, n, target);
}

void apply_table(struct loader *ld, const struct setting *table, const struct node *map, void *target)
{
    for (const struct setting *st = table; st->key != NULL && ld->failed == 0; st++) {
        struct slice key = slice_cstr(st->key);
        const struct node *n = map == NULL ? NULL : node_get(map, key);
        size_t at = report_enter(&ld->rep, key);
        if (n != NULL)
            apply_value(ld, st, n, target);
        else if (st->is_required && map != NULL)
            report_error(&ld->rep, map->mark, "missing. %s",
                         st->help == NULL ? "It must be given." : st->help);
        else if (st->type == SETTING_SECTION)
            apply_table(ld, st->section, NULL, target);
        else if (st->def != NULL)
            apply_default(ld, st, target);
        report_leave(&ld->rep, at);
    }
}
