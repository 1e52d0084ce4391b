/* The inputs of a configuration. */
#include <errno.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/suggest.h"
#include "conf/apply.h"
#include "conf/size.h"

static const char *const format_choices[] = { "auto", "json", "cri", "docker", "text", NULL };

static const struct setting keys_settings[] = {
    { .key = "level",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, level_keys),
      .help = "Keys of the level, before the known ones." },
    { .key = "module",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, module_keys),
      .help = "Keys of the module." },
    { .key = "time",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, time_keys),
      .help = "Keys of the time." },
    { .key = "message",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, message_keys),
      .help = "Keys of the message." },
    { .key = "tenant",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, tenant_keys),
      .help = "Keys of the tenant, for {record.tenant}." },
    SETTING_END,
};

const struct setting input_settings[] = {
    { .key = "include",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, include),
      .help =
          "Absolute path patterns: * ? [a-z], ** for any folders, <name> captures a part as {path.name}." },
    { .key = "exclude",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, exclude),
      .help = "Absolute path patterns of files that are left out." },
    { .key = "ignore_older",
      .type = SETTING_DURATION,
      .offset = offsetof(struct conf_input, ignore_older_ns),
      .def = "0s",
      .help = "Files never seen whose last change is older are left out, said aloud; 0 takes all." },
    { .key = "format",
      .type = SETTING_ENUM,
      .offset = offsetof(struct conf_input, format),
      .def = "auto",
      .choices = format_choices,
      .help = "How lines are framed; auto decides per line." },
    { .key = "timezone",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf_input, timezone),
      .def = "local",
      .help = "Of times without an offset: local, UTC, +02:00 or a name such as Europe/Berlin." },
    { .key = "keys",
      .type = SETTING_SECTION,
      .section = keys_settings,
      .help = "What this logger calls things." },
    SETTING_END,
};

static const char *const missing_choices[] = { "auto", "hold", "fallback", NULL };

const struct setting pods_settings[] = {
    { .key = "metadata_wait",
      .type = SETTING_DURATION,
      .offset = offsetof(struct conf_input, metadata_wait_ns),
      .def = "2s",
      .max = 300 * NS_PER_SEC,
      .help = "Lines of a pod that is not known yet wait so long for its labels, then go without." },
    { .key = "metadata_missing",
      .type = SETTING_ENUM,
      .offset = offsetof(struct conf_input, metadata_missing),
      .def = "auto",
      .choices = missing_choices,
      .help = "What is held beyond that: auto: files whose tenant or route depends on it, and while the API server "
              "answers those that may be excluded; hold: the latter always; fallback: nothing." },
    { .key = "allow_annotations",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf_input, allow_annotations),
      .def = "[exclude, levels, format, service]",
      .help = "Which of tailrace.io/exclude, levels, tenant, format, service a pod may set; [] for none." },
    SETTING_END,
};

const char *const annotation_names[ANNOTATIONS + 1] = { "exclude", "levels", "tenant", "format", "service", NULL };

/* ---- patterns and captures
 * ------------------------------------------------------------------------------------------ */

static bool is_capture_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
              (i > 0 && c >= '0' && c <= '9')))
            return false;
    }
    return s.len > 0;
}

/* The next <name> at or after *pos; false at the end or at one that is wrong (then *ret_wrong). */
static bool next_capture(struct slice pattern, size_t *pos, struct slice *ret_name, bool *ret_wrong)
{
    struct slice rest = slice_from(pattern, *pos);
    ptrdiff_t open = slice_find_byte(rest, '<');
    if (open < 0)
        return false;
    rest = slice_from(rest, (size_t)open + 1);
    ptrdiff_t close = slice_find_byte(rest, '>');
    *ret_name = close < 0 ? rest : slice_first(rest, (size_t)close);
    *ret_wrong = close < 0 || !is_capture_name(*ret_name);
    *pos += (size_t)open + 2 + ret_name->len;
    return !*ret_wrong;
}

static const char *pattern_mistake(struct slice p)
{
    if (p.len == 0 || p.ptr[0] != '/')
        return "expected an absolute path pattern, beginning with /";
    if (p.len >= PATH_MAX)
        return "the pattern is longer than a path can be";
    if (p.ptr[p.len - 1] == '/')
        return "names a folder; expected a pattern of files, such as one that ends with /*.log";
    if (slice_find(p, SLICE("/../")) >= 0 || slice_ends(p, SLICE("/..")) ||
        slice_find(p, SLICE("/./")) >= 0 || slice_find(p, SLICE("//")) >= 0)
        return "expected a path without . and .. and empty parts";
    size_t pos = 0;
    struct slice name;
    bool is_wrong = false;
    while (next_capture(p, &pos, &name, &is_wrong)) {
        size_t again = pos;
        struct slice other;
        while (next_capture(p, &again, &other, &is_wrong))
            if (slice_eq(name, other))
                return "captures the same name twice";
    }
    return is_wrong ? "a <name> is not closed, or not of letters, digits and _" : NULL;
}

static void check_patterns(struct loader *ld, const struct node *n, struct slice key, struct slices patterns)
{
    size_t at = report_enter(&ld->rep, key);
    for (size_t i = 0; i < patterns.n; i++) {
        const char *mistake = pattern_mistake(patterns.items[i]);
        const struct node *item = n->kind == NODE_LIST ? n->items[i] : n;
        size_t in = n->kind == NODE_LIST ? report_enter_index(&ld->rep, i) : ld->rep.path_len;
        if (mistake != NULL)
            report_error(&ld->rep, item->mark, "\"%.*s\": %s", QUOTED(patterns.items[i]), mistake);
        report_leave(&ld->rep, in);
    }
    report_leave(&ld->rep, at);
}

/* A template that reads {path.X} where no pattern has <X> reads nothing, ever. */
static void check_captures(struct loader *ld, const struct conf_input *in, const struct template *t,
                           struct mark mark)
{
    const struct var *v;
    for (size_t i = 0; (v = template_var(t, i)) != NULL; i++) {
        bool found = v->kind != VAR_PATH;
        struct suggestion s;
        suggest_init(&s, v->key);
        for (size_t p = 0; p < in->include.n && !found; p++) {
            size_t pos = 0;
            struct slice name;
            bool is_wrong;
            while (!found && next_capture(in->include.items[p], &pos, &name, &is_wrong)) {
                found = slice_eq(name, v->key);
                suggest_offer(&s, name);
            }
        }
        if (!found)
            report_warning(&ld->rep, mark, "{path.%.*s} is empty: no include pattern has <%.*s>%s%.*s%s",
                           QUOTED(v->key), QUOTED(v->key), s.best.len > 0 ? "; did you mean {path." : "",
                           QUOTED(s.best), s.best.len > 0 ? "}?" : "");
    }
}

/* ---- single keys
 * ---------------------------------------------------------------------------------------------------- */

const struct slice input_types[] = { [INPUT_FILE] = SLICE_INIT("file"),
                                     [INPUT_KUBERNETES] = SLICE_INIT("kubernetes"),
                                     [INPUT_DOCKER] = SLICE_INIT("docker") };

static void apply_type(struct loader *ld, const struct node *map, struct conf_input *in)
{
    const struct node *n = node_get(map, SLICE("type"));
    struct slice text;
    size_t at = report_enter(&ld->rep, SLICE("type"));
    if (n == NULL)
        report_error(&ld->rep, map->mark, "missing; expected file, kubernetes or docker");
    else if (apply_text(ld, n, &text)) {
        struct suggestion s;
        suggest_init(&s, text);
        for (size_t i = 0; i < ARRAY_LEN(input_types); i++) {
            suggest_offer(&s, input_types[i]);
            if (slice_eq(text, input_types[i])) {
                in->type = (enum input_type)i;
                report_leave(&ld->rep, at);
                return;
            }
        }
        report_error(&ld->rep, n->mark, "\"%.*s\" is no type of input; %s%.*s%s", QUOTED(text),
                     s.best.len > 0 ? "did you mean \"" : "expected file, kubernetes or docker", QUOTED(s.best),
                     s.best.len > 0 ? "\"?" : "");
    }
    report_leave(&ld->rep, at);
}

static void apply_read_from(struct loader *ld, const struct node *n, struct conf_input *in)
{
    struct slice text;
    if (!apply_text(ld, n, &text))
        return;
    if (slice_eq(text, SLICE("beginning")))
        in->read_from = READ_FROM_BEGINNING;
    else if (slice_eq(text, SLICE("end")))
        in->read_from = READ_FROM_END;
    else if (duration_parse(text, &in->read_from_ns))
        in->read_from = READ_FROM_AGE;
    else if (wall_time_parse(text, &in->read_from_ns))
        in->read_from = READ_FROM_TIME;
    else
        report_error(&ld->rep, n->mark,
                     "\"%.*s\" is none of beginning, end, an age such as 24h, a time such as "
                     "2026-01-31T00:00:00Z",
                     QUOTED(text));
}

static void check_regex(struct loader *ld, const struct node *n, struct slice pattern)
{
    regex_t re;
    char why[200], *text = slice_dup(pattern);
    if (text == NULL) {
        ld->failed = -ENOMEM;
        return;
    }
    int r = pattern.len > 4096 ? REG_ESPACE : regcomp(&re, text, REG_EXTENDED | REG_NOSUB);
    free(text);
    if (r == 0) {
        regfree(&re);
        return;
    }
    (void)regerror(r, NULL, why, sizeof(why)); /* without a pattern to blame it needs none */
    report_error(&ld->rep, n->mark, "\"%.*s\" is not an extended regular expression: %s", QUOTED(pattern),
                 why);
}

static void apply_multiline(struct loader *ld, const struct node *n, struct conf_input *in)
{
    static const struct slice known[] = { SLICE_INIT("start") };
    struct slice text;
    if (n->kind == NODE_MAP) {
        const struct node *start = node_get(n, SLICE("start"));
        apply_check_keys(ld, n, &(struct keyset){ .more = known, .n_more = 1 });
        size_t at = report_enter(&ld->rep, SLICE("start"));
        if (start == NULL)
            report_error(&ld->rep, n->mark, "missing; expected a regular expression that first lines match");
        else if (apply_text(ld, start, &in->multiline_start)) {
            in->multiline = MULTILINE_START;
            check_regex(ld, start, in->multiline_start);
        }
        report_leave(&ld->rep, at);
        return;
    }
    if (!apply_text(ld, n, &text))
        return;
    if (slice_eq(text, SLICE("off")) || slice_eq(text, SLICE("auto")))
        in->multiline = slice_eq(text, SLICE("off")) ? MULTILINE_OFF : MULTILINE_AUTO;
    else
        report_error(&ld->rep, n->mark, "\"%.*s\" is none of auto, off, { start: REGEX }", QUOTED(text));
}

static bool is_offset(struct slice s)
{
    uint64_t h, m;
    return s.len == 6 && (s.ptr[0] == '+' || s.ptr[0] == '-') && s.ptr[3] == ':' &&
           slice_to_u64(slice_of(s.ptr + 1, 2), &h) && slice_to_u64(slice_from(s, 4), &m) && h <= 23 &&
           m <= 59;
}

/* Zone files must be there when the parser wants them: better said now than as hours that are off by two. */
static bool is_zone(struct slice s)
{
    const char *folder = getenv("TZDIR");
    char path[PATH_MAX];
    if (s.len == 0 || s.len > 200 || s.ptr[0] == '/' || slice_find(s, SLICE("..")) >= 0)
        return false;
    (void)snprintf(path, sizeof(path), "%.2000s/%.*s", folder == NULL ? "/usr/share/zoneinfo" : folder,
                   SLICE_ARGS(s));
    return access(path, R_OK) == 0;
}

static void check_timezone(struct loader *ld, const struct node *map, struct slice zone)
{
    const struct node *n = node_get(map, SLICE("timezone"));
    if (n == NULL || zone.ptr == NULL || slice_eq(zone, SLICE("local")) || slice_eq(zone, SLICE("UTC")) ||
        is_offset(zone) || is_zone(zone))
        return;
    size_t at = report_enter(&ld->rep, SLICE("timezone"));
    report_error(&ld->rep, n->mark,
                 "\"%.*s\" is not a time zone known here; expected local, UTC, +02:00 or a name such as "
                 "Europe/Berlin (these need the package tzdata)",
                 QUOTED(zone));
    report_leave(&ld->rep, at);
}

static struct template *apply_tenant(struct loader *ld, const struct node *n)
{
    struct template *t = loader_template(ld, n, false);
    if (t != NULL && template_uses(t, VAR_TENANT))
        report_error(&ld->rep, n->mark,
                     "a tenant cannot be made of {tenant}; expected for example "
                     "\"{record.tenant|path.tenant|'default'}\"");
    return t;
}

/* ---- fields
 * ---------------------------------------------------------------------------------------------------------
 */

static const char *first_changing(const struct template *t)
{
    static const char *const names[] = { [VAR_STREAM] = "stream",
                                         [VAR_TENANT] = "tenant",
                                         [VAR_LEVEL] = "level",
                                         [VAR_MODULE] = "module",
                                         [VAR_MESSAGE] = "message",
                                         [VAR_RECORD] = "record.…",
                                         [VAR_RECORD_TENANT] = "record.tenant" };
    const struct var *v;
    for (size_t i = 0; (v = template_var(t, i)) != NULL; i++)
        if (!var_is_static(v))
            return names[v->kind];
    return NULL;
}

static void apply_field(struct loader *ld, const struct member *m, struct conf_input *in,
                        struct named_template *items)
{
    struct template *t = NULL;
    size_t at = report_enter(&ld->rep, m->key);
    if (field_is_reserved(m->key))
        report_error(&ld->rep, m->mark, "is not a field: each record has its own%s",
                     slice_eq(m->key, SLICE("tenant")) ? "; set `tenant` beside `fields`" : "");
    else if (loader_check_name(ld, m->key, m->mark))
        t = loader_template(ld, m->value, false);
    if (t != NULL && !template_is_static(t))
        report_error(&ld->rep, m->value->mark,
                     "{%s} changes from record to record; a field is the same for a whole file",
                     first_changing(t));
    else if (t != NULL)
        items[in->fields.n++] = (struct named_template){ m->key, t };
    if (t != NULL)
        check_captures(ld, in, t, m->value->mark);
    report_leave(&ld->rep, at);
}

static bool has_field(const struct conf_input *in, struct slice name)
{
    for (size_t i = 0; i < in->fields.n; i++)
        if (slice_eq(in->fields.items[i].name, name))
            return true;
    return false;
}

/* A text that the template grammar reads as itself. */
static struct template *constant(struct loader *ld, struct slice text)
{
    CLEANUP(buf_deinit) struct buf quoted;
    buf_init(&quoted, 2 * TEMPLATE_OUT_MAX);
    int r = 0;
    for (size_t i = 0; i < text.len && r == 0; i++) {
        bool is_brace = text.ptr[i] == '{' || text.ptr[i] == '}';
        r = is_brace ? buf_append_byte(&quoted, text.ptr[i]) : 0;
        if (r == 0)
            r = buf_append_byte(&quoted, text.ptr[i]);
    }
    struct node n = { .kind = NODE_SCALAR, .is_quoted = true, .text = buf_slice(&quoted) };
    if (n.text.ptr == NULL)
        n.text = SLICE("");
    return r < 0 ? NULL : loader_template(ld, &n, false);
}

/* `fields` at the top that name a trusted field (namespace: vm) hold for every file input that does not say
 * its own. Pods keep what their path says; host, node and cluster are set for all by root.c. */
static void add_common_fields(struct loader *ld, struct conf_input *in, struct named_template *items)
{
    const struct pairs *common = &ld->conf->fields;
    for (size_t i = 0; in->type == INPUT_FILE && i < common->n; i++) {
        struct slice name = common->items[i].name;
        bool is_global = slice_eq(name, SLICE("host")) || slice_eq(name, SLICE("node")) ||
                         slice_eq(name, SLICE("cluster"));
        if (!field_is_settable(name) || is_global || has_field(in, name))
            continue;
        struct template *t = constant(ld, common->items[i].value);
        if (t != NULL)
            items[in->fields.n++] = (struct named_template){ name, t };
    }
}

static void apply_fields(struct loader *ld, const struct node *map, struct conf_input *in)
{
    const struct node *n = node_get(map, SLICE("fields"));
    size_t at = report_enter(&ld->rep, SLICE("fields"));
    size_t own = n != NULL && apply_is_map(ld, n) && n->kind == NODE_MAP ? n->n : 0;
    struct named_template *items = loader_alloc(ld, (own + ld->conf->fields.n + 1) * sizeof(*items));
    if (items != NULL) {
        in->fields.items = items;
        for (size_t i = 0; i < own; i++)
            apply_field(ld, &n->members[i], in, items);
        add_common_fields(ld, in, items);
    }
    report_leave(&ld->rep, at);
}

/* ---- overrides
 * ------------------------------------------------------------------------------------------------------ */

static void apply_override(struct loader *ld, const struct node *n, struct conf_input *in)
{
    static const struct slice known[] = { SLICE_INIT("match"), SLICE_INIT("levels"), SLICE_INIT("tenant") };
    struct conf_override *o = &in->overrides[in->n_overrides++];
    if (!apply_is_map(ld, n))
        return;
    apply_check_keys(ld, n, &(struct keyset){ .more = known, .n_more = ARRAY_LEN(known) });
    const struct node *match = node_get(n, SLICE("match")), *levels = node_get(n, SLICE("levels")),
                      *tenant = node_get(n, SLICE("tenant"));

    size_t at = report_enter(&ld->rep, SLICE("match"));
    if (match != NULL)
        o->match = loader_match(ld, match);
    report_leave(&ld->rep, at);
    at = report_enter(&ld->rep, SLICE("levels"));
    if (levels != NULL)
        o->levels = loader_levels(ld, levels);
    report_leave(&ld->rep, at);
    at = report_enter(&ld->rep, SLICE("tenant"));
    if (tenant != NULL) {
        o->tenant = apply_tenant(ld, tenant);
        if (o->tenant != NULL)
            check_captures(ld, in, o->tenant, tenant->mark);
        if (!match_is_static(o->match))
            report_error(&ld->rep, tenant->mark,
                         "can be set only where the match is on namespace, pod, container, service "
                         "or input: a file's tenant must not change from record to record");
    }
    report_leave(&ld->rep, at);
    if (match == NULL)
        report_error(&ld->rep, n->mark, "match is missing; expected what the override is for");
    else if (levels == NULL && tenant == NULL)
        report_error(&ld->rep, n->mark, "overrides nothing; expected levels or tenant beside match");
}

static void apply_overrides(struct loader *ld, const struct node *n, struct conf_input *in)
{
    if (node_is_null(n) || n->is_bad)
        return;
    if (n->kind != NODE_LIST) {
        report_error(&ld->rep, n->mark, "expected a list of { match, levels, tenant }, found %s",
                     node_what(n));
        return;
    }
    in->overrides = loader_alloc(ld, MAX(n->n, 1) * sizeof(*in->overrides));
    for (size_t i = 0; in->overrides != NULL && i < n->n; i++) {
        size_t at = report_enter_index(&ld->rep, i);
        apply_override(ld, n->items[i], in);
        report_leave(&ld->rep, at);
    }
}

/* ---- inputs
 * ---------------------------------------------------------------------------------------------------------
 */

static void set_include(struct loader *ld, const struct node *map, struct conf_input *in)
{
    static const struct slice defaults[] = {
        [INPUT_KUBERNETES] = SLICE_INIT("/var/log/pods/*/*/*.log"),
        [INPUT_DOCKER] = SLICE_INIT("/var/lib/docker/containers/*/*-json.log"),
    };
    const struct node *include = node_get(map, SLICE("include")), *exclude = node_get(map, SLICE("exclude"));
    if (include != NULL && in->include.n > 0)
        check_patterns(ld, include, SLICE("include"), in->include);
    if (exclude != NULL && in->exclude.n > 0)
        check_patterns(ld, exclude, SLICE("exclude"), in->exclude);
    bool is_empty =
        include == NULL || node_is_null(include) || (include->kind == NODE_LIST && include->n == 0);
    if (is_empty && in->type != INPUT_FILE)
        in->include = (struct slices){ &defaults[in->type], 1 };
    else if (is_empty)
        report_error(&ld->rep, map->mark, "include is missing; expected at least one absolute path pattern");
}

/* Nothing that a line says of itself decides whose it is, unless the configuration says so. */
static const struct slice tenant_defaults[] = {
    [INPUT_FILE] = SLICE_INIT("{path.tenant|'default'}"),
    [INPUT_KUBERNETES] = SLICE_INIT("{namespace}"),
    [INPUT_DOCKER] = SLICE_INIT("{namespace|'default'}"),
};

static void set_tenant(struct loader *ld, const struct node *map, struct conf_input *in)
{
    const struct node *n = node_get(map, SLICE("tenant"));
    size_t at = report_enter(&ld->rep, SLICE("tenant"));
    if (n != NULL) {
        in->tenant = apply_tenant(ld, n);
        if (in->tenant != NULL && !slice_eq(template_text(in->tenant), tenant_defaults[in->type]))
            check_captures(ld, in, in->tenant, n->mark);
    } else {
        struct node def = { .kind = NODE_SCALAR, .is_quoted = true, .text = tenant_defaults[in->type] };
        in->tenant = loader_template(ld, &def, false);
    }
    report_leave(&ld->rep, at);
    if (in->tenant_keys.n > 0 && in->tenant != NULL && !template_uses(in->tenant, VAR_RECORD_TENANT))
        report_warning(&ld->rep, map->mark, "keys.tenant has no effect: tenant does not use {record.tenant}");
}

static void apply_annotations(struct loader *ld, const struct node *map, struct conf_input *in)
{
    const struct node *n = node_get(map, SLICE("allow_annotations"));
    for (size_t i = 0; i < in->allow_annotations.n; i++) {
        struct slice name = in->allow_annotations.items[i];
        struct suggestion s;
        size_t k = 0;
        suggest_init(&s, name);
        while (k < ANNOTATIONS && !slice_eq(slice_cstr(annotation_names[k]), name))
            suggest_offer(&s, slice_cstr(annotation_names[k++]));
        if (k < ANNOTATIONS) {
            in->annotations |= 1u << k;
            continue;
        }
        size_t at = report_enter(&ld->rep, SLICE("allow_annotations"));
        report_error(&ld->rep, n != NULL ? n->mark : map->mark, "there is no annotation \"%.*s\"; %s%.*s%s", QUOTED(name),
                     s.best.len > 0 ? "did you mean \"" : "expected exclude, levels, tenant, format or service",
                     QUOTED(s.best), s.best.len > 0 ? "\"?" : "");
        report_leave(&ld->rep, at);
    }
}

static void apply_own_keys(struct loader *ld, const struct node *map, struct conf_input *in)
{
    static const struct {
        struct slice key;
        void (*apply)(struct loader *ld, const struct node *n, struct conf_input *in);
    } own[] = { { SLICE_INIT("read_from"), apply_read_from },
                { SLICE_INIT("multiline"), apply_multiline },
                { SLICE_INIT("overrides"), apply_overrides } };
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        const struct node *n = node_get(map, own[i].key);
        size_t at = report_enter(&ld->rep, own[i].key);
        if (n != NULL)
            own[i].apply(ld, n, in);
        report_leave(&ld->rep, at);
    }
    const struct node *levels = node_get(map, SLICE("levels"));
    size_t at = report_enter(&ld->rep, SLICE("levels"));
    if (levels != NULL)
        in->levels = loader_levels(ld, levels);
    report_leave(&ld->rep, at);
}

static void apply_input(struct loader *ld, const struct node *map, struct conf_input *in)
{
    static const struct slice more[] = { SLICE_INIT("type"),      SLICE_INIT("read_from"),
                                         SLICE_INIT("multiline"), SLICE_INIT("tenant"),
                                         SLICE_INIT("fields"),    SLICE_INIT("levels"),
                                         SLICE_INIT("overrides") };
    if (map->kind != NODE_MAP) {
        if (!map->is_bad)
            report_error(&ld->rep, map->mark, "expected a map with type and include, found %s",
                         node_what(map));
        return;
    }
    apply_type(ld, map, in);
    const struct setting *pods = in->type == INPUT_KUBERNETES ? pods_settings : NULL;
    apply_check_keys(ld, map, &(struct keyset){ .tables = { input_settings, pods }, .more = more, .n_more = ARRAY_LEN(more) });
    apply_table(ld, input_settings, map, in);
    if (pods != NULL)
        apply_table(ld, pods, map, in);
    apply_annotations(ld, map, in);
    if (ld->failed != 0)
        return;
    set_include(ld, map, in);
    check_timezone(ld, map, in->timezone);
    set_tenant(ld, map, in);
    apply_fields(ld, map, in);
    apply_own_keys(ld, map, in);
}

void inputs_apply(struct loader *ld, const struct node *root)
{
    const struct node *inputs = node_get(root, SLICE("inputs"));
    struct conf *c = ld->conf;
    size_t at = report_enter(&ld->rep, SLICE("inputs"));
    size_t errors = report_count(&ld->rep);
    if (inputs != NULL && apply_is_map(ld, inputs) && inputs->kind == NODE_MAP) {
        c->inputs = loader_alloc(ld, MAX(inputs->n, 1) * sizeof(*c->inputs));
        for (size_t i = 0; c->inputs != NULL && i < inputs->n && ld->failed == 0; i++) {
            const struct member *m = &inputs->members[i];
            if (slice_starts(m->key, SLICE("x-")))
                continue;
            size_t in = report_enter(&ld->rep, m->key);
            if (c->n_inputs == INPUTS_MAX) {
                report_error(&ld->rep, m->mark, "one input too many: at most %d", INPUTS_MAX);
            } else if (loader_check_name(ld, m->key, m->mark)) {
                c->inputs[c->n_inputs].name = m->key;
                apply_input(ld, m->value, &c->inputs[c->n_inputs++]);
            }
            report_leave(&ld->rep, in);
        }
    }
    if (c->n_inputs == 0 && report_count(&ld->rep) == errors)
        report_error(&ld->rep, inputs != NULL ? inputs->mark : root->mark,
                     "none; expected at least one input");
    report_leave(&ld->rep, at);
}
