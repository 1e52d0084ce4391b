#include "agent/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/base/bug.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/must.h"
#include "agent/base/tenants.h"
#include "agent/join.h"
#include "agent/line_counters.h"
#include "agent/pipeline_internal.h"
#include "agent/reread.h"

/* ---- levels ---- */

static enum level threshold_of(struct pipeline *p, const struct levels *levels, struct slice module)
{
    if (levels == NULL)
        return LEVEL_UNKNOWN;
    if (module.len > THRESHOLD_MODULE_MAX || !levels_asks_module(levels))
        return levels_threshold(levels, module);
    size_t i = (slice_hash(module) ^ ((uintptr_t)levels >> 4)) % THRESHOLDS;
    struct threshold *t = &p->thresholds[i];
    if (t->levels == levels && slice_eq(slice_of(t->module, t->len), module))
        return (enum level)t->threshold;
    enum level threshold = levels_threshold(levels, module);
    *t = (struct threshold){ .levels = levels, .threshold = (uint8_t)threshold, .len = (uint8_t)module.len };
    if (module.len > 0)
        memcpy(t->module, module.ptr, module.len);
    return threshold;
}

/* level.h: what no directive covers is kept; a record without a level is kept unless its directive is off. */
static bool level_is_kept(struct pipeline *p, const struct levels *levels, const struct record *rec)
{
    enum level threshold = threshold_of(p, levels, rec->module);
    if (threshold == LEVEL_UNKNOWN)
        return true;
    if (threshold == LEVEL_OFF)
        return false;
    return rec->level == LEVEL_UNKNOWN || rec->level >= threshold;
}

struct early {
    struct pipeline *p;
    const struct source *source;
};

/* Asked by the parser as soon as level or module is known. */
static bool is_out_early(void *ctx, const struct record *rec)
{
    struct early *e = ctx;
    if (e->source->levels == NULL || e->source->has_dynamic_overrides || rec->level == LEVEL_UNKNOWN)
        return false;
    if (rec->module.len == 0) /* the module may still come */
        return levels_drops_all(e->source->levels, rec->level);
    return !level_is_kept(e->p, e->source->levels, rec);
}

static const struct levels *levels_for(const struct source *s, const struct record *rec)
{
    const struct levels *levels = s->levels;
    if (!s->has_dynamic_overrides)
        return levels;
    levels = s->input->levels;
    for (size_t i = 0; i < s->input->n_overrides; i++)
        if (s->input->overrides[i].levels != NULL && match_eval(s->input->overrides[i].match, rec))
            levels = s->input->overrides[i].levels;
    return levels;
}

/* ---- tenant ---- */

static bool tenant_is_allowed(const struct conf *c, struct slice name)
{
    for (size_t i = 0; i < c->tenants_allow.n; i++)
        if (slice_glob(c->tenants_allow.items[i], name))
            return true;
    return false;
}

static uint32_t tenant_decide(struct pipeline *p, struct slice raw, bool *ret_is_overflow)
{
    const struct conf *c = p->conf.conf;
    *ret_is_overflow = false;
    if (raw.len == 0)
        return p->other_tenant;
    if (raw.len > TENANT_BYTES_MAX || !tenant_is_allowed(c, raw)) {
        *ret_is_overflow = true;
        return p->other_tenant;
    }
    if (tenant_count() >= c->tenants_max + 1) {
        /* The table is full: names that are in it already go on, new ones go to other. */
        for (uint32_t id = 1; id <= tenant_count(); id++)
            if (slice_eq(tenant_name(id), raw))
                return id;
        *ret_is_overflow = true;
        return p->other_tenant;
    }
    uint32_t id = tenant_intern(raw);
    return id != 0 ? id : p->other_tenant;
}

/* What its pod's annotation says, or that nobody can say it any more: both instead of the template. */
static bool decide_by_pod(struct pipeline *p, struct source *s)
{
    struct slice chosen = s->metadata.choices.tenant;
    if (metadata_is_unassigned(&s->metadata, s->input)) {
        s->static_tenant = p->other_tenant;
        s->is_static_overflow = false;
    } else if (chosen.len > 0) {
        s->static_tenant = tenant_decide(p, chosen, &s->is_static_overflow);
    }
    return s->static_tenant != 0;
}

static void set_tenant(struct pipeline *p, struct source *s, struct record *rec)
{
    if (s->static_tenant != 0 || decide_by_pod(p, s)) {
        rec->tenant_id = s->static_tenant;
        rec->tenant = tenant_name(rec->tenant_id);
        if (s->is_static_overflow)
            counter_bump(&stats.inputs[s->input_index].tenant_overflow, 1);
        return;
    }
    buf_reset(&p->tenant_text);
    if (template_eval(s->tenant, rec, &p->tenant_text) < 0)
        buf_reset(&p->tenant_text);
    struct slice raw = buf_slice(&p->tenant_text);
    struct tenant_slot *slot = &p->tenants[slice_hash(raw) % TENANT_SLOTS];
    bool is_overflow;
    if (slot->id != 0 && slice_eq(slice_of(slot->raw, slot->len), raw)) {
        rec->tenant_id = slot->id;
        is_overflow = slot->is_overflow;
    } else {
        rec->tenant_id = tenant_decide(p, raw, &is_overflow);
        if (raw.len <= TENANT_BYTES_MAX) {
            slot->id = rec->tenant_id;
            slot->is_overflow = is_overflow;
            slot->len = (uint32_t)raw.len;
            if (raw.len > 0)
                memcpy(slot->raw, raw.ptr, raw.len);
        }
    }
    if (is_overflow)
        counter_bump(&stats.inputs[s->input_index].tenant_overflow, 1);
    rec->tenant = tenant_name(rec->tenant_id);
    if (template_is_static(s->tenant)) {
        s->static_tenant = rec->tenant_id;
        s->is_static_overflow = is_overflow;
    }
}

/* ---- routes ---- */

struct routed {
    uint32_t outputs;
    bool met_level, met_drop; /* a matching route dropped it, by its levels or by `drop` */
};

static bool route_matches(const struct conf_route *route, const struct source *s, size_t i, const struct record *rec)
{
    if ((s->routes[i / 64] & (UINT64_C(1) << (i % 64))) == 0)
        return false;
    return route->match == NULL || match_is_static(route->match) || match_eval(route->match, rec);
}

static struct routed route(struct pipeline *p, const struct source *s, const struct record *rec, struct decision *d)
{
    struct routed r = { 0 };
    const struct conf *c = p->conf.conf;
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct conf_route *ro = &c->routes[i];
        if (!route_matches(ro, s, i, rec))
            continue;
        bool is_kept = level_is_kept(p, ro->levels, rec);
        if (d != NULL) {
            d->routes[d->n_routes].route = (uint32_t)i;
            d->routes[d->n_routes].outputs = is_kept && !ro->is_drop ? ro->outputs : 0;
            d->routes[d->n_routes].is_matched = true;
            d->routes[d->n_routes++].is_dropped_by_level = !is_kept;
        }
        if (ro->is_drop && is_kept)
            r.met_drop = true;
        else if (is_kept)
            r.outputs |= ro->outputs;
        else
            r.met_level = true;
        if (!ro->is_continue && (!ro->is_drop || is_kept))
            break;
    }
    return r;
}

static int outcome_of(struct routed r)
{
    if (r.outputs != 0)
        return TALLY_KEPT;
    if (r.met_drop)
        return FILTER_RULE;
    return r.met_level ? FILTER_LEVEL : FILTER_UNROUTED;
}

/* ---- one record ---- */

static void block_at(struct work *w, uint32_t output, uint64_t end, int except_stream, const struct record *unplaced)
{
    struct position_part parts[STREAMS_MAX];
    uint8_t n = join_parts(w->pass->state, except_stream, parts);
    bool skips = w->pass->skip_to_newline;
    if (unplaced != NULL) {
        if (unplaced->offset < end)
            parts[n++] = (struct position_part){ .stream = (uint8_t)unplaced->stream, .start = unplaced->offset };
        w->pass->skip_to_newline = false; /* it stands before the line that is cut, not inside it */
    }
    join_release(w->pass->state, output, unplaced != NULL);
    if (w->pass->is_again)
        reread_stop(w->pass, end, parts, n);
    else
        tail_block(w->source->file, w->pass, output, end, parts, n);
    w->pass->skip_to_newline = skips;
}

void pipeline_part(struct work *w, uint32_t output, uint64_t at, bool is_blocked)
{
    struct position_part parts[STREAMS_MAX];
    uint8_t n = join_parts(w->pass->state, -1, parts);
    bool skips = w->pass->skip_to_newline;
    assert(!w->pass->is_again);
    w->pass->skip_to_newline = false; /* as in block_at() */
    join_release(w->pass->state, output, true);
    if (is_blocked)
        tail_block(w->source->file, w->pass, output, at, parts, n);
    else
        tail_part(w->source->file, w->pass, output, at, parts, n);
    w->pass->skip_to_newline = skips;
}

enum appended { APPENDED, APPENDED_NOT /* filtered on purpose */, APPENDED_LEFT /* blocked: it reads this again */ };

static enum appended append_to(struct work *w, uint32_t output, const struct record *rec, struct place place,
                               uint32_t *altered)
{
    struct feeder *f = &w->p->conf.feeders[output];
    struct append_result res;
    bool waits = f->is_blocked || f->is_rereading != w->pass->is_again;
    if (waits || feeder_append(f, rec, w->p->mono_ns, &res) < 0) {
        if (BUG(13) && f->is_blocked)
            block_at(w, output, place.after, -1, NULL);
        else
            block_at(w, output, place.before, (int)rec->stream, rec);
        return APPENDED_LEFT;
    }
    *altered |= res.altered;
    if (f->is_blocked)
        block_at(w, output, place.after, -1, NULL);
    if (w->pass->is_again && !res.is_filtered)
        f->reread_lines++;
    if (!res.is_filtered || w->pass->is_again)
        return APPENDED;
    struct output_row *row = stats_output_row(output, rec->tenant_id);
    counter_add(&row->filtered_too_old, 1);
    return APPENDED_NOT;
}

static void count_altered(uint32_t input, const struct record *rec, uint32_t altered)
{
    static const struct {
        uint32_t flag;
        enum alter_reason reason;
    } of_flag[] = { { RECORD_CUT, ALTER_CUT },
                    { RECORD_BAD_JSON, ALTER_BAD_JSON },
                    { RECORD_BAD_TIME, ALTER_BAD_TIME },
                    { RECORD_SPLIT, ALTER_SPLIT } };
    for (size_t i = 0; i < ARRAY_LEN(of_flag); i++)
        if (rec->flags & of_flag[i].flag)
            altered |= 1u << of_flag[i].reason;
    for (; altered != 0; altered &= altered - 1)
        counter_bump(&stats.inputs[input].altered[__builtin_ctz(altered)], 1);
}

/* Is this record, read for these outputs, new to the agent's ledger? */
static bool is_first_time(const struct pipeline *p, struct source *s, const struct record *rec, uint32_t outputs,
                          uint64_t end)
{
    if (end > s->counted_off[rec->stream]) {
        s->counted_off[rec->stream] = end;
        return true;
    }
    if (end > s->behind_end[rec->stream] || end <= s->behind_off[rec->stream] ||
        (outputs & (1u << p->conf.reference)) == 0)
        return false;
    s->behind_off[rec->stream] = end;
    return true;
}

static struct tally *tally_of(const struct pipeline *p, struct source *s, uint32_t tenant)
{
    struct must must = { 0 };
    if (s->last_tally != NULL && s->last_tally->tenant == tenant)
        return s->last_tally;
    while ((s->last_tally = tallies_get(p->conf.tallies, s->input_index, tenant)) == NULL)
        must_wait(&must); /* the ledger has no holes */
    return s->last_tally;
}

static void count(struct work *w, const struct record *rec, uint32_t outputs, uint64_t end, uint64_t raw_bytes,
                  int outcome, uint32_t altered)
{
    struct source *s = w->source;
    if (w->pass->is_again)
        return; /* it was counted when it was read the first time */
    struct tally *t = tally_of(w->p, s, rec->tenant_id);
    bool is_first = is_first_time(w->p, s, rec, outputs, end);
    if (is_first && (altered != 0 || (rec->flags & (RECORD_CUT | RECORD_BAD_JSON | RECORD_BAD_TIME | RECORD_SPLIT)) != 0))
        count_altered(s->input_index, rec, altered);
    tally_count(t, outputs, is_first, raw_bytes, outcome);
    if (is_first)
        line_counters_level(w->p->line_counters, s, rec);
    if (is_first && outcome != FILTER_LEVEL && w->p->conf.conf->n_counters > 0)
        line_counters_rules(w->p->line_counters, rec);
}

static int make_parser(struct pipeline *p, size_t i, bool text_only, struct parser **ret_parser, struct err *err)
{
    static const enum frame_format frames[] = { [FORMAT_AUTO] = FRAME_AUTO,
                                                [FORMAT_JSON] = FRAME_PLAIN,
                                                [FORMAT_CRI] = FRAME_CRI,
                                                [FORMAT_DOCKER] = FRAME_DOCKER,
                                                [FORMAT_TEXT] = FRAME_PLAIN };
    const struct conf_input *in = &p->conf.conf->inputs[i];
    struct parser_conf pc = { .frame = frames[in->format],
                              .text_only = text_only,
                              .level_keys = in->level_keys,
                              .module_keys = in->module_keys,
                              .time_keys = in->time_keys,
                              .message_keys = in->message_keys,
                              .tenant_keys = in->tenant_keys,
                              .wanted = &p->conf.conf->wanted,
                              .trusted = p->trusted,
                              .n_trusted = p->n_trusted,
                              .find_duplicates = p->find_duplicates,
                              .timezone = in->timezone };
    return parser_new(&pc, ret_parser, err);
}

/* Apart from source_parser(), which every line passes: an err is large to clear. */
static struct parser *text_parser(struct pipeline *p, size_t i)
{
    struct err err = { 0 };
    if (p->text_parsers[i] == NULL && make_parser(p, i, true, &p->text_parsers[i], &err) < 0)
        return p->parsers[i]; /* no memory: as if it had not been chosen */
    return p->text_parsers[i];
}

static struct parser *source_parser(struct pipeline *p, const struct source *s)
{
    return s->metadata.choices.is_text ? text_parser(p, s->input_index) : p->parsers[s->input_index];
}

void pipeline_process(struct work *w, struct record *rec, uint64_t end, uint64_t raw_bytes, struct place place)
{
    struct pipeline *p = w->p;
    struct source *s = w->source;
    struct early early = { p, s };
    uint32_t standing = w->pass->mask, altered = 0;
    if (standing == 0)
        return; /* the record before made the last output leave */
    bool is_out = parser_record(source_parser(p, s), rec, is_out_early, &early) == PARSE_OUT;
    set_tenant(p, s, rec);
    if (s->metadata.choices.is_excluded) {
        count(w, rec, standing, end, raw_bytes, FILTER_RULE, 0);
        return;
    }
    if (is_out || !level_is_kept(p, levels_for(s, rec), rec)) {
        count(w, rec, standing, end, raw_bytes, FILTER_LEVEL, 0);
        return;
    }
    struct routed r = route(p, s, rec, NULL);
    bool all_filtered = r.outputs != 0 && (r.outputs & ~standing) == 0;
    for (uint32_t rest = r.outputs & standing; rest != 0; rest &= rest - 1) {
        uint32_t output = (uint32_t)__builtin_ctz(rest);
        enum appended a = append_to(w, output, rec, place, &altered);
        all_filtered &= a == APPENDED_NOT;
        if (a == APPENDED_LEFT)
            standing &= ~(1u << output);
    }
    /* When all have left before it, it was not read: it comes again, perhaps as part of a longer record. */
    if (standing != 0)
        count(w, rec, standing, end, raw_bytes, all_filtered ? (int)FILTER_TOO_OLD : outcome_of(r), altered);
}

void pipeline_skip(struct work *w, uint64_t start, uint64_t end)
{
    struct source *s = w->source;
    struct tally *t = s->last_tally; /* the line's own, most often */
    if (w->pass->is_again)
        return;
    if (t == NULL) {
        struct record rec = { .origin = s->origin };
        set_tenant(w->p, s, &rec);
        t = tally_of(w->p, s, rec.tenant_id);
    }
    uint64_t from = MAX(start, s->skipped_off);
    tally_skip(t, w->pass->mask, end - start, end > from ? end - from : 0);
    s->skipped_off = MAX(s->skipped_off, end);
}

/* ---- the sink ---- */

static int64_t sink_holds(void *ctx, void *file)
{
    struct pipeline *p = ctx;
    struct source *s = file;
    source_refresh(p->conf.conf, s);
    return metadata_holds(&s->metadata, s->input, s->origin->file, clock_mono_ns());
}

static size_t sink_feed(void *ctx, void *file, struct tail_pass *pass, const struct feed *feed)
{
    struct pipeline *p = ctx;
    if (p->levels_freed != metadata_levels_freed()) { /* new directives may stand where those stood: see threshold_of() */
        memset(p->thresholds, 0, sizeof(p->thresholds));
        p->levels_freed = metadata_levels_freed();
    }
    return lines_feed(p, file, pass, feed);
}

static int compare_counted(const void *a, const void *b)
{
    uint64_t x = ((const struct counted *)a)->incarnation, y = ((const struct counted *)b)->incarnation;
    return x < y ? -1 : x > y;
}

static void *sink_file_new(void *ctx, struct tail_file *f, const struct tail_file_info *info)
{
    struct pipeline *p = ctx;
    struct source *s = source_new(p->conf.conf, p->conf.kube, f, info);
    struct counted key = { .incarnation = info->ident->incarnation };
    const struct counted *known = p->n_counted == 0 ? NULL
                                                    : bsearch(&key, p->counted, p->n_counted, sizeof(key),
                                                              compare_counted);
    for (int i = 0; s != NULL && known != NULL && i < STREAMS_MAX; i++) {
        s->behind_off[i] = known->off[i];
        s->behind_end[i] = known->ahead[i];
        s->counted_off[i] = MAX(known->off[i], known->ahead[i]);
        s->skipped_off = MAX(s->skipped_off, s->counted_off[i]);
    }
    for (int i = 0; s != NULL && info->fed_to > 0 && i < STREAMS_MAX; i++) {
        s->counted_off[i] = s->skipped_off = MAX(s->counted_off[i], info->fed_to); /* counted for every output */
        s->behind_off[i] = s->behind_end[i] = 0;
        s->first_off[i] = 0; /* was seen: no line of another file goes on here */
    }
    return s;
}

static void sink_file_free(void *ctx, void *file)
{
    (void)ctx; /* may be gone: a reload closes the tail last */
    source_free(file);
}

static uint8_t sink_parts(void *ctx, const struct tail_pass *pass, struct position_part *parts)
{
    (void)ctx;
    return join_parts(pass->state, -1, parts);
}

static bool sink_is_bound(void *ctx, const struct tail_pass *pass)
{
    (void)ctx;
    return join_is_bound(pass->state);
}

static void sink_pass_free(void *ctx, struct tail_pass *pass)
{
    (void)ctx;
    join_free(pass->state);
    pass->state = NULL;
}

/* Bytes that no output will get: how many lines they were is not known, so bytes are counted. */
static void sink_lost(void *ctx, void *file, uint32_t mask, uint64_t start, uint64_t end, enum lost_reason reason)
{
    struct pipeline *p = ctx;
    struct source *s = file;
    struct record rec = { .origin = s->origin };
    set_tenant(p, s, &rec);
    for (; mask != 0; mask &= mask - 1) {
        uint32_t output = (uint32_t)__builtin_ctz(mask);
        struct output_row *row = stats_output_row(output, rec.tenant_id);
        counter_add(&row->lost_bytes[reason], end - start);
        feeder_lost(&p->conf.feeders[output],
                    &(struct lost_range){ s->incarnation, start, end, reason, rec.tenant });
        gauge_set(&stats.outputs[output].last_lost_wall_ns, clock_wall_ns());
        log_error("pipeline", "lines.lost", "bytes of a file were given up before they were read",
                  LOG_SLICE("file", s->origin->file), LOG_CSTR("reason", lost_reason_name(reason)),
                  LOG_SLICE("output", p->conf.feeders[output].output->conf->name), LOG_NUM("from", start),
                  LOG_NUM("to", end));
    }
}

struct tail_sink pipeline_sink(struct pipeline *p)
{
    return (struct tail_sink){ .ctx = p,
                               .file_new = sink_file_new,
                               .file_free = sink_file_free,
                               .holds = sink_holds,
                               .feed = sink_feed,
                               .parts = sink_parts,
                               .is_bound = sink_is_bound,
                               .pass_free = sink_pass_free,
                               .lost = sink_lost };
}

/* ---- life ---- */

static void add_trusted(struct pipeline *p, struct slice name)
{
    size_t have = 0;
    while (have < p->n_trusted && !slice_eq(p->trusted[have], name))
        have++;
    if (have == p->n_trusted && have < TRUSTED_MAX)
        p->trusted[p->n_trusted++] = name;
}

/* What the payload may not forge: the outputs' names, and the constants of the configuration. */
static bool collect_trusted(struct pipeline *p)
{
    const struct conf *c = p->conf.conf;
    bool find_duplicates = false;
    for (size_t i = 0; i < p->conf.n_feeders; i++) {
        const struct output *out = p->conf.feeders[i].output;
        size_t n = 0;
        const struct slice *names = out->ops->trusted == NULL ? NULL : out->ops->trusted(out, &n);
        find_duplicates |= out->ops->find_duplicates;
        for (size_t k = 0; k < n; k++)
            add_trusted(p, names[k]);
    }
    for (size_t i = 0; i < c->fields.n; i++)
        add_trusted(p, c->fields.items[i].name);
    for (size_t i = 0; i < c->n_inputs; i++)
        for (size_t k = 0; k < c->inputs[i].fields.n; k++)
            add_trusted(p, c->inputs[i].fields.items[k].name);
    return find_duplicates;
}

static int input_parser(struct pipeline *p, size_t i, struct err *err)
{
    const struct conf_input *in = &p->conf.conf->inputs[i];
    int r = make_parser(p, i, in->format == FORMAT_TEXT, &p->parsers[i], err);
    if (r == 0 && in->multiline != MULTILINE_OFF)
        r = multiline_new(in->multiline == MULTILINE_AUTO, in->multiline_start, &p->multilines[i], err);
    return r < 0 ? err_prefix(err, "inputs.%.*s", SLICE_ARGS(in->name)) : 0;
}

/* What was unfinished at a position was not counted. */
static void offs_of(const struct file_position *pos, uint64_t off[STREAMS_MAX])
{
    for (int s = 0; s < STREAMS_MAX; s++)
        off[s] = pos->end;
    for (uint8_t k = 0; k < pos->n_parts; k++)
        if (k < STREAMS_MAX && pos->parts[k].stream < STREAMS_MAX) /* it comes from the disk */
            off[pos->parts[k].stream] = pos->parts[k].start;
}

/* One entry a file; those of the same file are neighbours. */
static void merge_counted(struct pipeline *p)
{
    size_t n = 0;
    qsort(p->counted, p->n_counted, sizeof(*p->counted), compare_counted);
    for (size_t i = 0; i < p->n_counted; i++) {
        const struct counted *c = &p->counted[i];
        if (n == 0 || p->counted[n - 1].incarnation != c->incarnation) {
            p->counted[n++] = *c;
            continue;
        }
        for (int s = 0; s < STREAMS_MAX; s++) {
            p->counted[n - 1].off[s] = MAX(p->counted[n - 1].off[s], c->off[s]); /* the others' are zero */
            p->counted[n - 1].ahead[s] = MAX(p->counted[n - 1].ahead[s], c->ahead[s]);
        }
    }
    p->n_counted = n;
}

static int keep_counted(struct pipeline *p, const struct pipeline_conf *conf)
{
    size_t n = 0;
    for (size_t o = 0; conf->recovered != NULL && o < conf->n_feeders; o++)
        n += conf->recovered[o]->n_files;
    if (n == 0)
        return 0;
    p->counted = calloc(n, sizeof(*p->counted));
    if (p->counted == NULL)
        return -ENOMEM;
    for (size_t o = 0; o < conf->n_feeders; o++) {
        const struct queue_recovery *rec = conf->recovered[o];
        for (size_t i = 0; i < rec->n_files; i++) {
            struct counted *c = &p->counted[p->n_counted++];
            c->incarnation = rec->files[i].ident.incarnation;
            offs_of(&rec->files[i].position, o == conf->reference ? c->off : c->ahead);
        }
    }
    merge_counted(p);
    return 0;
}

int pipeline_new(const struct pipeline_conf *conf, struct pipeline **ret_pipeline, struct err *err)
{
    struct pipeline *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return err_set(err, -ENOMEM, "cannot make the pipeline");
    p->conf = *conf;
    buf_init(&p->tenant_text, TEMPLATE_OUT_MAX + 64);
    p->other_tenant = tenant_intern(conf->conf->tenants_other);
    p->find_duplicates = collect_trusted(p);
    int r = p->other_tenant == 0 || keep_counted(p, conf) < 0 ? err_set(err, -ENOMEM, "cannot make the pipeline") : 0;
    p->conf.recovered = NULL;
    for (size_t i = 0; r == 0 && i < conf->conf->n_inputs; i++)
        r = input_parser(p, i, err);
    if (r == 0)
        r = line_counters_new(conf->conf, &p->line_counters, err);
    if (r < 0) {
        pipeline_free(p);
        return r;
    }
    *ret_pipeline = p;
    return 0;
}

void pipeline_free(struct pipeline *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < INPUTS_MAX; i++) {
        parser_free(p->parsers[i]);
        parser_free(p->text_parsers[i]);
        multiline_free(p->multilines[i]);
    }
    buf_deinit(&p->tenant_text);
    line_counters_free(p->line_counters);
    free(p->counted);
    free(p);
}

struct parser *pipeline_parser(struct pipeline *p, uint32_t input)
{
    return p->parsers[input];
}

void pipeline_decide(struct pipeline *p, struct source *s, struct record *rec, struct decision *ret)
{
    struct early early = { p, s };
    *ret = (struct decision){ .levels = s->levels };
    ret->is_out_early = parser_record(source_parser(p, s), rec, is_out_early, &early) == PARSE_OUT;
    set_tenant(p, s, rec);
    if (ret->is_out_early)
        return;
    ret->levels = levels_for(s, rec);
    ret->is_dropped_by_level = !level_is_kept(p, ret->levels, rec);
    if (ret->is_dropped_by_level)
        return;
    struct routed r = route(p, s, rec, ret);
    ret->outputs = r.outputs;
    ret->is_dropped_by_rule = r.outputs == 0 && r.met_drop;
}
