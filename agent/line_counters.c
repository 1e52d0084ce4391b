#include "agent/line_counters.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/tenants.h"

struct line_counters {
    const struct conf *conf;
    struct series_family *lines;
    struct series_family **rules; /* by conf->counters */
    struct buf text;              /* of the label values in work */
};

static struct series_family *rule_family(const struct conf_counter *c)
{
    char name[128];
    struct slice labels[SERIES_LABELS_MAX];
    const int n = snprintf(name, sizeof(name), "tailrace_log_%.*s_total", SLICE_ARGS(c->name));
    for (size_t i = 0; i < c->labels.n; i++)
        labels[i] = c->labels.items[i].name;
    return series_family(slice_of(name, (size_t)n), c->help, labels, c->labels.n);
}

int line_counters_new(const struct conf *conf, struct line_counters **ret_lc, struct err *err)
{
    static const struct slice labels[] = { SLICE_INIT("input"), SLICE_INIT("tenant"), SLICE_INIT("service"),
                                           SLICE_INIT("level") };
    struct line_counters *lc = calloc(1, sizeof(*lc));
    if (lc == NULL)
        return err_set(err, -ENOMEM, "cannot make the counters");
    lc->conf = conf;
    buf_init(&lc->text, SERIES_LABELS_MAX * (TEMPLATE_OUT_MAX + 1));
    lc->rules = calloc(MAX(conf->n_counters, (size_t)1), sizeof(struct series_family *));
    lc->lines = series_family(SLICE("tailrace_log_lines_total"), SLICE("Lines by what they say, kept or not."), labels,
                              ARRAY_LEN(labels));
    int r = lc->rules == NULL || lc->lines == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < conf->n_counters && r == 0; i++)
        if ((lc->rules[i] = rule_family(&conf->counters[i])) == NULL)
            r = -ENFILE;
    if (r < 0) {
        line_counters_free(lc);
        return err_set(err, r, "cannot make the counters: too many different ones since the start");
    }
    *ret_lc = lc;
    return 0;
}

void line_counters_free(struct line_counters *lc)
{
    if (lc == NULL)
        return;
    if (lc->lines != NULL)
        series_hide(lc->lines);
    for (size_t i = 0; lc->rules != NULL && i < lc->conf->n_counters; i++)
        if (lc->rules[i] != NULL)
            series_hide(lc->rules[i]);
    free(lc->rules);
    buf_deinit(&lc->text);
    free(lc);
}

void line_counters_level(struct line_counters *lc, struct source *s, const struct record *rec)
{
    struct line_series *of = &s->line_series;
    if (of->tenant != rec->tenant_id || of->origin != rec->origin->id)
        *of = (struct line_series){ .tenant = rec->tenant_id, .origin = rec->origin->id };
    struct series **series = &of->by_level[rec->level];
    if (*series == NULL) {
        const struct slice values[] = { s->input->name, rec->tenant, rec->origin->service, level_name(rec->level) };
        *series = series_get(lc->lines, values, lc->conf->metrics_max_series);
    }
    counter_bump(&(*series)->value, 1);
}

static void add_rule(struct line_counters *lc, size_t i, const struct record *rec)
{
    const struct conf_counter *c = &lc->conf->counters[i];
    struct slice values[SERIES_LABELS_MAX] = { 0 };
    size_t ends[SERIES_LABELS_MAX + 1] = { 0 };
    buf_reset(&lc->text);
    for (size_t k = 0; k < c->labels.n; k++) {
        if (template_eval(c->labels.items[k].template, rec, &lc->text) < 0)
            lc->text.len = ends[k]; /* no memory: an empty value */
        ends[k + 1] = lc->text.len;
    }
    for (size_t k = 0; k < c->labels.n; k++)
        values[k] = slice_of(lc->text.ptr + ends[k], ends[k + 1] - ends[k]);
    counter_bump(&series_get(lc->rules[i], values, lc->conf->metrics_max_series)->value, 1);
}

void line_counters_rules(struct line_counters *lc, const struct record *rec)
{
    for (size_t i = 0; i < lc->conf->n_counters; i++)
        if (match_eval(lc->conf->counters[i].match, rec))
            add_rule(lc, i, rec);
}
