/* The routes of a configuration: the first that matches wins, `continue` goes on. */
#include <stdlib.h>

#include "agent/base/suggest.h"
#include "conf/apply.h"

static const struct slice known[] = { SLICE_INIT("match"), SLICE_INIT("to"), SLICE_INIT("levels"),
                                      SLICE_INIT("drop"), SLICE_INIT("continue") };

/* The bit of an output; 0: reported. */
static uint32_t output_bit(struct loader *ld, const struct node *n, struct slice name)
{
    struct suggestion s;
    suggest_init(&s, name);
    for (size_t i = 0; i < ld->conf->n_outputs; i++) {
        if (slice_eq(ld->conf->outputs[i].name, name))
            return UINT32_C(1) << i;
        suggest_offer(&s, ld->conf->outputs[i].name);
    }
    report_error(&ld->rep, n->mark, "there is no output \"%.*s\"%s%.*s%s", QUOTED(name),
                 s.best.len > 0 ? "; did you mean \"" : "", QUOTED(s.best), s.best.len > 0 ? "\"?" : "");
    return 0;
}

static void apply_to(struct loader *ld, const struct node *n, struct conf_route *route)
{
    struct slices names = { 0 };
    size_t at = report_enter(&ld->rep, SLICE("to"));
    if (apply_strings(ld, n, &names)) {
        for (size_t i = 0; i < names.n; i++)
            route->outputs |= output_bit(ld, n->kind == NODE_LIST ? n->items[i] : n, names.items[i]);
        if (names.n == 0)
            report_error(&ld->rep, n->mark, "the list is empty; expected names of outputs, or drop: true");
    }
    report_leave(&ld->rep, at);
}

static void apply_flag(struct loader *ld, const struct node *map, struct slice key, bool *ret_flag)
{
    const struct node *n = node_get(map, key);
    size_t at = report_enter(&ld->rep, key);
    if (n != NULL)
        (void)apply_bool(ld, n, ret_flag); /* it reports */
    report_leave(&ld->rep, at);
}

static void apply_route(struct loader *ld, const struct node *n, struct conf_route *route)
{
    route->file_line = n->mark.line;
    if (n->kind != NODE_MAP) {
        if (!n->is_bad)
            report_error(&ld->rep, n->mark, "expected { match, to }, found %s", node_what(n));
        return;
    }
    apply_check_keys(ld, n, &(struct keyset){ .more = known, .n_more = ARRAY_LEN(known) });
    const struct node *match = node_get(n, SLICE("match")), *to = node_get(n, SLICE("to")),
                      *levels = node_get(n, SLICE("levels"));
    size_t at = report_enter(&ld->rep, SLICE("match"));
    if (match != NULL)
        route->match = loader_match(ld, match);
    report_leave(&ld->rep, at);
    if (to != NULL)
        apply_to(ld, to, route);
    at = report_enter(&ld->rep, SLICE("levels"));
    if (levels != NULL)
        route->levels = loader_levels(ld, levels);
    report_leave(&ld->rep, at);
    apply_flag(ld, n, SLICE("drop"), &route->is_drop);
    apply_flag(ld, n, SLICE("continue"), &route->is_continue);

    if (route->is_drop && to != NULL)
        report_error(&ld->rep, n->mark, "says both drop and to; expected one of them");
    else if (route->is_drop && route->is_continue)
        report_error(&ld->rep, n->mark, "says both drop and continue; what is dropped goes nowhere else");
    else if (!route->is_drop && to == NULL)
        report_error(&ld->rep, n->mark, "goes nowhere; expected to: [OUTPUT] or drop: true");
}

/* What an operator would only notice when lines are missing. */
static void warn_of_gaps(struct loader *ld, const struct node *routes)
{
    const struct conf *c = ld->conf;
    uint32_t fed = 0;
    bool is_closed = false;
    for (size_t i = 0; i < c->n_routes; i++) {
        size_t at = report_enter_index(&ld->rep, i);
        if (is_closed)
            report_warning(&ld->rep, routes->items[i]->mark,
                           "is never reached: a route above it takes every record");
        report_leave(&ld->rep, at);
        fed |= is_closed ? 0 : c->routes[i].outputs;
        is_closed |= c->routes[i].match == NULL && !c->routes[i].is_continue;
    }
    const struct conf_route *last = &c->routes[c->n_routes - 1];
    if (!is_closed && last->match != NULL)
        report_warning(&ld->rep, routes->items[c->n_routes - 1]->mark,
                       "records that match none of the %zu routes are "
                       "discarded (counted as unrouted); end with a route without match",
                       c->n_routes);
    for (size_t i = 0; i < c->n_outputs; i++)
        if ((fed & UINT32_C(1) << i) == 0)
            report_warning(&ld->rep, routes->mark, "no route leads to the output \"%.*s\"",
                           QUOTED(c->outputs[i].name));
}

static void send_all_to_all(struct loader *ld)
{
    struct conf *c = ld->conf;
    c->routes = loader_alloc(ld, sizeof(*c->routes));
    if (c->routes == NULL)
        return;
    c->n_routes = 1;
    for (size_t i = 0; i < c->n_outputs; i++)
        c->routes[0].outputs |= UINT32_C(1) << i;
}

void routes_apply(struct loader *ld, const struct node *root)
{
    const struct node *routes = node_get(root, SLICE("routes"));
    struct conf *c = ld->conf;
    if (routes == NULL || node_is_null(routes) || (routes->kind == NODE_LIST && routes->n == 0)) {
        send_all_to_all(ld);
        return;
    }
    size_t at = report_enter(&ld->rep, SLICE("routes"));
    size_t errors = report_count(&ld->rep);
    if (routes->kind != NODE_LIST && !routes->is_bad)
        report_error(&ld->rep, routes->mark, "expected a list of { match, to }, found %s", node_what(routes));
    else if (routes->n > ROUTES_MAX)
        report_error(&ld->rep, routes->mark, "%zu routes; expected at most %d", routes->n, ROUTES_MAX);
    else if (routes->kind == NODE_LIST)
        c->routes = loader_alloc(ld, routes->n * sizeof(*c->routes));
    for (size_t i = 0; c->routes != NULL && i < routes->n; i++) {
        size_t in = report_enter_index(&ld->rep, i);
        apply_route(ld, routes->items[i], &c->routes[c->n_routes++]);
        report_leave(&ld->rep, in);
    }
    if (report_count(&ld->rep) == errors && c->n_routes > 0)
        warn_of_gaps(ld, routes);
    report_leave(&ld->rep, at);
}
