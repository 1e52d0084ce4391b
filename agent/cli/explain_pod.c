#include "agent/cli/explain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/cli/cli.h"
#include "agent/kube/cache.h"
#include "agent/kube/pods.h"

#define LIST_BYTES_MAX (64 * KIB)

/* ---- what is said ---- */

/* The last one of a name counts. */
static bool put_pair(struct pair *items, size_t *n, struct pair p)
{
    size_t i = 0;
    while (i < *n && !slice_eq(items[i].name, p.name))
        i++;
    if (i == EVENT_PAIRS_MAX)
        return false;
    items[i] = p;
    *n = MAX(*n, i + 1);
    return true;
}

static bool put_text(struct pair *items, size_t *n, struct slice text)
{
    const ptrdiff_t equals = slice_find_byte(text, '=');
    if (equals <= 0)
        return false;
    return put_pair(items, n, (struct pair){ slice_first(text, (size_t)equals), slice_from(text, (size_t)equals + 1) });
}

bool explain_say_labels(struct explain_said *said, struct slice text)
{
    while (text.len > 0) {
        const ptrdiff_t comma = slice_find_byte(text, ',');
        if (!put_text(said->labels, &said->n_labels, comma < 0 ? text : slice_first(text, (size_t)comma)))
            return false;
        text = comma < 0 ? SLICE("") : slice_from(text, (size_t)comma + 1);
    }
    return true;
}

bool explain_say_annotation(struct explain_said *said, struct slice text)
{
    return put_text(said->annotations, &said->n_annotations, text);
}

/* ---- what is known ---- */

/* As the agent would find them after a start; *ret_pod and *ret_ns are held, or NULL. */
static int look_into_cache(const struct conf *conf, const struct pod_path *path, struct pod **ret_pod, struct pod **ret_ns)
{
    char dir[4128];
    struct podtable *t = podtable_new();
    if (t == NULL)
        return -ENOMEM;
    (void)snprintf(dir, sizeof(dir), "%.*s/kube", SLICE_ARGS(conf->state_dir));
    const int r = cache_peek(dir, t);
    if (r == 0) {
        *ret_pod = podtable_find(t, path->namespace_, path->pod, path->uid);
        *ret_ns = podtable_find(t, path->namespace_, SLICE(""), SLICE(""));
    }
    podtable_free(t);
    return r;
}

static struct pairs over(struct pairs known, const struct pair *said, size_t n_said, struct pair items[EVENT_PAIRS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < known.n; i++)
        (void)put_pair(items, &n, known.items[i]);
    for (size_t i = 0; i < n_said; i++)
        (void)put_pair(items, &n, said[i]);
    return (struct pairs){ items, n };
}

static struct pod *with_said(const struct pod *known, const struct pod_path *path, const struct explain_said *said)
{
    struct pair labels[EVENT_PAIRS_MAX], annotations[EVENT_PAIRS_MAX];
    struct pod p = { .namespace_ = path->namespace_, .name = path->pod, .uid = path->uid, .path_uid = path->uid };
    if (known != NULL) {
        p.workload_kind = known->workload_kind;
        p.workload = known->workload;
        p.images = known->images;
    }
    p.labels = over(known == NULL ? (struct pairs){ 0 } : known->labels, said->labels, said->n_labels, labels);
    p.annotations = over(known == NULL ? (struct pairs){ 0 } : known->annotations, said->annotations, said->n_annotations,
                         annotations);
    return pod_pack(&p);
}

/* Of no use is a cache that cannot be read, not an error: the agent itself would ask the API server then. */
static void tell_cache(const struct conf *conf, int r)
{
    if (r < 0 && r != -ENOENT)
        fprintf(stderr, "tailrace explain: what the agent knows of pods (%.*s/kube/pods) cannot be used: %s\n",
                SLICE_ARGS(conf->state_dir), r == -EBADMSG ? "it is damaged" : strerrordesc_np(-r));
}

int explain_pod_set(const struct conf *conf, struct source *s, const struct explain_said *said)
{
    struct pod_path path;
    struct pod *pod = NULL, *ns = NULL;
    const bool is_said = said->n_labels + said->n_annotations > 0;
    if (s->input->type != INPUT_KUBERNETES || !pod_path_parse(s->origin->file, &path))
        return !is_said ? EXIT_FINE
                        : cli_misuse("explain", "labels and annotations are a pod's: --path or --file is to be a pod's, of an "
                                                "input of type kubernetes");
    tell_cache(conf, look_into_cache(conf, &path, &pod, &ns));
    if (is_said) {
        struct pod *said_pod = with_said(pod, &path, said);
        pod_unref(pod);
        pod = said_pod;
    }
    if ((is_said && pod == NULL) || source_set_pod(conf, s, pod, ns) < 0) {
        fputs("tailrace explain: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    return EXIT_FINE;
}

/* ---- what is shown ---- */

static void show_pairs(const char *step, struct pairs p)
{
    CLEANUP(buf_deinit) struct buf text;
    int r = 0;
    buf_init(&text, LIST_BYTES_MAX);
    for (size_t i = 0; r == 0 && i < p.n; i++)
        r = buf_printf(&text, "%s%.*s=%.*s", i == 0 ? "" : ", ", SLICE_ARGS(p.items[i].name), SLICE_ARGS(p.items[i].value));
    if (text.len > 0)
        explain_show(step, "%.*s%s", SLICE_ARGS(buf_slice(&text)), r < 0 ? " …" : "");
}

/* What an unknown pod means for the line; agent/metadata.c does it. */
static void show_unknown(const struct conf *conf, const struct conf_input *in)
{
    const long long wait_ms = (long long)(in->metadata_wait_ns / NS_PER_MS);
    if (kube_decides(conf, in) && in->metadata_missing != MISSING_FALLBACK)
        explain_show("", "tenant or routes depend on it: its file is held until it is known (metadata_missing)");
    else
        explain_show("", "its lines wait for it for %lld ms (metadata_wait); then go with what the path says", wait_ms);
    explain_show("", "say what it has by --labels and --annotation");
}

static void show_annotation(const struct pair *a, struct slice container, uint32_t allowed)
{
    struct err err = { 0 };
    enum annotation which;
    struct slice of;
    if (!slice_starts(a->name, SLICE(ANNOTATION_PREFIX)))
        return;
    if (!annotation_parse(a->name, &which, &of))
        explain_show("ignored", "%.*s: there is no such annotation", SLICE_ARGS(a->name));
    else if ((allowed & 1u << which) == 0)
        explain_show("ignored", "%.*s: the input's `annotations` do not allow it", SLICE_ARGS(a->name));
    else if (of.len > 0 && !slice_eq(of, container))
        explain_show("ignored", "%.*s: of another container", SLICE_ARGS(a->name));
    else if (!annotation_is_valid(which, a->value, &err))
        explain_show("ignored", "%.*s: %s", SLICE_ARGS(a->name), err.text);
}

void explain_pod_show(const struct conf *conf, const struct source *s)
{
    const struct origin *o = s->origin;
    const struct pod *pod = s->metadata.pod;
    if (s->input->type != INPUT_KUBERNETES || o->pod.len == 0)
        return;
    explain_show("pod", "%.*s/%.*s, container %.*s%s%.*s%s%.*s%s", SLICE_ARGS(o->namespace_), SLICE_ARGS(o->pod),
                 SLICE_ARGS(o->container), o->workload_kind.len > 0 ? ", of " : "", SLICE_ARGS(o->workload_kind),
                 o->workload_kind.len > 0 ? " " : "", SLICE_ARGS(o->workload_kind.len > 0 ? o->workload : SLICE("")),
                 pod == NULL ? ": the agent does not know it so far" : "");
    if (pod == NULL) {
        show_unknown(conf, s->input);
        return;
    }
    show_pairs("labels", o->labels);
    show_pairs("annot.", o->annotations);
    for (size_t i = 0; i < o->annotations.n; i++)
        show_annotation(&o->annotations.items[i], o->container, s->input->annotations);
}
