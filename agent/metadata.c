#include "agent/metadata.h"

#include <stdatomic.h>

#include "agent/base/log.h"
#include "agent/base/stats.h"
#include "agent/kube/docker.h"
#include "agent/temporary.h"

/* Waiting lines are asked about so often: soon at first, then the pod's news can be late by a second. */
#define SOON_NS (50 * NS_PER_MS)
#define LATER_NS NS_PER_SEC

/* *ret_look's pods are held. False: the path names no pod. */
static bool look(struct metadata *m, struct slice path, struct pod_look *ret_look)
{
    struct pod_path p;
    if (m->kube == NULL || !pod_path_parse(path, &p))
        return false;
    m->kube_version = kube_version(m->kube); /* first: what changes during the look is looked at again */
    kube_look(m->kube, &p, ret_look);
    return true;
}

static void take(struct metadata *m, const struct pod_look *l)
{
    pod_unref(m->pod);
    pod_unref(m->namespace_);
    m->pod = l->pod;
    m->namespace_ = l->namespace_;
    m->answer = l->answer;
    m->since_ns = l->since_ns;
    m->is_answering = l->is_answering;
}

void metadata_init(struct metadata *m, const struct conf *conf, uint32_t input, struct kube *k, struct slice path)
{
    const struct conf_input *in = &conf->inputs[input];
    struct pod_look l;
    *m = (struct metadata){ .kube = in->type == INPUT_KUBERNETES ? k : NULL, .answer = POD_KNOWN };
    m->temporary_version = temporary_version();
    if (in->type == INPUT_DOCKER) {
        m->pod = docker_container(path);
    } else if (look(m, path, &l)) {
        take(m, &l);
        m->decides = kube_decides(conf, in);
    } else {
        m->kube = NULL;
    }
}

static void unhold(struct metadata *m)
{
    if (m->is_held)
        gauge_add(&stats.kube.files_held, -1);
    m->is_held = false;
}

static _Atomic uint64_t levels_freed; /* by the reader; at a reload by who frees the old one's files beside the new reader */

uint64_t metadata_levels_freed(void)
{
    return atomic_load_explicit(&levels_freed, memory_order_relaxed);
}

static void drop_levels(struct metadata *m)
{
    if (m->levels != NULL)
        atomic_fetch_add_explicit(&levels_freed, 1, memory_order_relaxed);
    levels_free(m->levels);
    m->levels = NULL;
}

void metadata_deinit(struct metadata *m)
{
    unhold(m);
    pod_unref(m->pod);
    pod_unref(m->namespace_);
    drop_levels(m);
    *m = (struct metadata){ 0 };
}

bool metadata_is_stale(const struct metadata *m)
{
    return m->temporary_version != temporary_version() ||
           (m->kube != NULL && (m->answer != POD_KNOWN || m->kube_version != kube_version(m->kube)));
}

bool metadata_look(struct metadata *m, struct slice path)
{
    struct pod_look l;
    bool is_other = m->temporary_version != temporary_version();
    m->temporary_version = temporary_version();
    if (!look(m, path, &l))
        return is_other;
    if (l.pod == NULL && m->pod != NULL) { /* forgotten meanwhile: what was known is still right */
        pod_unref(l.namespace_);
        return is_other;
    }
    is_other |= l.pod != m->pod || l.namespace_ != m->namespace_ || l.answer != m->answer;
    take(m, &l);
    return is_other;
}

void metadata_restore(struct metadata *m, struct pod *pod_take, struct pod *namespace_take)
{
    pod_unref(m->pod);
    pod_unref(m->namespace_);
    m->pod = pod_take;
    m->namespace_ = namespace_take;
    m->kube_version = m->temporary_version = UINT64_MAX;
}

void metadata_choose(struct metadata *m, const struct conf_input *input, const struct origin *o)
{
    CLEANUP(buf_deinit) struct buf text;
    struct levels *levels = NULL;
    buf_init(&text, 8 * KIB);
    m->choices = (struct choices){ 0 };
    if (m->pod != NULL && input->type == INPUT_KUBERNETES)
        m->choices = annotations_choose(m->pod, o->container, input->annotations);
    struct slice spec = m->choices.levels;
    if (temporary_find(o->namespace_, o->pod.len > 0 ? o->pod : o->container, o->container, &text))
        spec = buf_slice(&text);
    bool is_same = m->levels == NULL ? spec.len == 0 : slice_eq(levels_text(m->levels), spec);
    if (is_same || (spec.len > 0 && levels_parse(spec, &levels, NULL) < 0)) /* no memory: as before */
        return;
    drop_levels(m);
    m->levels = levels;
}

bool metadata_is_unassigned(const struct metadata *m, const struct conf_input *input)
{
    return m->kube != NULL && m->answer == POD_ABSENT && m->pod == NULL && m->decides &&
           input->metadata_missing != MISSING_FALLBACK;
}

/* ---- waiting ---- */

static int64_t give_up(struct metadata *m, enum kube_wait how)
{
    unhold(m);
    m->is_given_up = true;
    counter_add(&stats.kube.waits[how], 1);
    return 0;
}

/* Beyond its time: may the lines not go without? */
static bool must_hold(const struct metadata *m, const struct conf_input *input)
{
    bool may_be_excluded = (input->annotations & 1u << ANNOTATION_EXCLUDE) != 0;
    if (input->metadata_missing == MISSING_FALLBACK)
        return false;
    return m->decides || (may_be_excluded && (input->metadata_missing == MISSING_HOLD || m->is_answering));
}

static void say_held(struct metadata *m, const struct conf_input *input, struct slice path, int64_t waited_ns)
{
    if (m->is_told)
        return;
    m->is_told = true;
    log_warn("kube", "file.held", "a file's lines wait until it is known what its pod is: exclusion, tenant or route depend on it",
             LOG_SLICE("input", input->name), LOG_SLICE("path", path), LOG_NUM("seconds", waited_ns / NS_PER_SEC));
}

int64_t metadata_holds(struct metadata *m, const struct conf_input *input, struct slice path, int64_t now_ns)
{
    if (m->kube == NULL || m->is_given_up)
        return 0;
    if (m->answer == POD_KNOWN) {
        if (m->is_held)
            counter_add(&stats.kube.waits[KUBE_WAIT_FOUND], 1);
        unhold(m);
        m->is_given_up = true; /* what is known is never waited for again */
        return 0;
    }
    if (m->answer == POD_ABSENT)
        return give_up(m, KUBE_WAIT_ABSENT);
    int64_t waited_ns = now_ns - m->since_ns;
    bool is_late = waited_ns >= input->metadata_wait_ns;
    if (is_late && !must_hold(m, input))
        return give_up(m, KUBE_WAIT_TIMEOUT);
    if (!m->is_held)
        gauge_add(&stats.kube.files_held, 1);
    m->is_held = true;
    if (is_late)
        say_held(m, input, path, waited_ns);
    return waited_ns < 10 * NS_PER_SEC ? SOON_NS : LATER_NS;
}
