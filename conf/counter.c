/* Counters of log lines: a name, what must match, and labels. */
#include "agent/base/series.h"
#include "conf/apply.h"

const struct setting counter_settings[] = {
    { .key = "name",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf_counter, name),
      .is_required = true,
      .help = "The metric is tailrace_log_NAME_total." },
    { .key = "help",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf_counter, help),
      .def = "Lines that match.",
      .help = "The metric's HELP." },
    { .key = "labels",
      .type = SETTING_TEMPLATES,
      .offset = offsetof(struct conf_counter, labels),
      .def = "{}",
      .help = "Label names and templates of their values; at most 8." },
    SETTING_END,
};

static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9')))
            return false;
    }
    return s.len > 0 && s.len <= 64;
}

static void check(struct loader *ld, const struct node *n, const struct conf_counter *c)
{
    if (c->name.len > 0 && (!is_name(c->name) || slice_eq(c->name, SLICE("lines"))))
        report_error(&ld->rep, n->mark, "\"%.*s\" cannot be the name of a counter; expected letters, digits and _, up to 64, "
                                        "and not lines", QUOTED(c->name));
    for (const struct conf_counter *other = ld->conf->counters; other < c; other++)
        if (slice_eq(other->name, c->name))
            report_error(&ld->rep, n->mark, "there is a counter \"%.*s\" already", QUOTED(c->name));
    if (c->labels.n > SERIES_LABELS_MAX)
        report_error(&ld->rep, n->mark, "%zu labels; expected at most %d", c->labels.n, SERIES_LABELS_MAX);
    for (size_t i = 0; i < c->labels.n; i++)
        if (!is_name(c->labels.items[i].name) || slice_starts(c->labels.items[i].name, SLICE("__")))
            report_error(&ld->rep, n->mark, "\"%.*s\" cannot be the name of a label; expected letters, digits and _",
                         QUOTED(c->labels.items[i].name));
}

static void apply_counter(struct loader *ld, const struct node *n, struct conf_counter *c)
{
    static const struct slice match_key = SLICE_INIT("match");
    if (n->kind != NODE_MAP) {
        if (!n->is_bad)
            report_error(&ld->rep, n->mark, "expected { name, match, labels }, found %s", node_what(n));
        return;
    }
    apply_check_keys(ld, n, &(struct keyset){ .tables = { counter_settings }, .more = &match_key, .n_more = 1 });
    apply_table(ld, counter_settings, n, c);
    const struct node *match = node_get(n, match_key);
    size_t at = report_enter(&ld->rep, match_key);
    if (match != NULL)
        c->match = loader_match(ld, match);
    report_leave(&ld->rep, at);
    check(ld, n, c);
}

void counters_apply(struct loader *ld, const struct node *root)
{
    const struct node *list = node_get(root, SLICE("counters"));
    struct conf *c = ld->conf;
    if (list == NULL || node_is_null(list))
        return;
    size_t at = report_enter(&ld->rep, SLICE("counters"));
    if (list->kind != NODE_LIST && !list->is_bad)
        report_error(&ld->rep, list->mark, "expected a list of { name, match, labels }, found %s", node_what(list));
    else if (list->kind == NODE_LIST && list->n > COUNTERS_MAX)
        report_error(&ld->rep, list->mark, "%zu counters; expected at most %d", list->n, COUNTERS_MAX);
    else if (list->kind == NODE_LIST)
        c->counters = loader_alloc(ld, list->n * sizeof(*c->counters));
    for (size_t i = 0; c->counters != NULL && i < list->n; i++) {
        size_t in = report_enter_index(&ld->rep, i);
        apply_counter(ld, list->items[i], &c->counters[c->n_counters++]);
        report_leave(&ld->rep, in);
    }
    report_leave(&ld->rep, at);
}
