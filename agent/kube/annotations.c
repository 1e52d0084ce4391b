#include "agent/kube/annotations.h"

#include <errno.h>

#include "agent/base/log.h"
#include "agent/base/stats.h"

static bool is_plain(struct slice s, size_t max)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
              c == '.'))
            return false;
    }
    return s.len > 0 && s.len <= max;
}

static bool are_levels(struct slice value, struct err *err)
{
    struct levels *l;
    if (levels_parse(value, &l, err) < 0)
        return false;
    levels_free(l);
    return true;
}

bool annotation_is_valid(enum annotation which, struct slice value, struct err *err)
{
    switch (which) {
    case ANNOTATION_EXCLUDE:
        if (slice_eq(value, SLICE("true")) || slice_eq(value, SLICE("false")))
            return true;
        (void)err_say(err, -EINVAL, "expected true or false");
        return false;
    case ANNOTATION_LEVELS:
        return are_levels(value, err);
    case ANNOTATION_TENANT:
        if (is_plain(value, TENANT_BYTES_MAX) && !slice_eq(value, SLICE(".")) && !slice_eq(value, SLICE("..")))
            return true;
        (void)err_say(err, -EINVAL, "expected 1 to %d of letters, digits, - _ .", TENANT_BYTES_MAX);
        return false;
    case ANNOTATION_FORMAT:
        if (slice_eq(value, SLICE("auto")) || slice_eq(value, SLICE("json")) || slice_eq(value, SLICE("text")))
            return true;
        (void)err_say(err, -EINVAL, "expected auto, json or text");
        return false;
    case ANNOTATION_SERVICE:
        if (is_plain(value, 253))
            return true;
        (void)err_say(err, -EINVAL, "expected 1 to 253 of letters, digits, - _ .");
        return false;
    case ANNOTATIONS:
        break;
    }
    return false;
}

bool annotation_parse(struct slice name, enum annotation *ret_which, struct slice *ret_container)
{
    if (!slice_starts(name, SLICE(ANNOTATION_PREFIX)))
        return false;
    struct slice rest = slice_from(name, sizeof(ANNOTATION_PREFIX) - 1);
    ptrdiff_t dot = slice_find_byte(rest, '.');
    struct slice word = dot < 0 ? rest : slice_first(rest, (size_t)dot);
    *ret_container = dot < 0 ? SLICE("") : slice_from(rest, (size_t)dot + 1);
    for (int i = 0; i < ANNOTATIONS; i++)
        if (slice_eq(word, slice_cstr(annotation_names[i]))) {
            *ret_which = (enum annotation)i;
            return true;
        }
    return false;
}

struct choices annotations_choose(const struct pod *pod, struct slice container, uint32_t allowed)
{
    struct slice chosen[ANNOTATIONS] = { { 0 } };
    bool is_own[ANNOTATIONS] = { false };
    for (size_t i = 0; i < pod->annotations.n; i++) {
        enum annotation which;
        struct slice of, value = pod->annotations.items[i].value;
        if (!annotation_parse(pod->annotations.items[i].name, &which, &of) || (allowed & 1u << which) == 0 ||
            (of.len > 0 ? !slice_eq(of, container) : is_own[which]) || !annotation_is_valid(which, value, NULL))
            continue;
        chosen[which] = value;
        is_own[which] = of.len > 0;
    }
    return (struct choices){ .is_excluded = slice_eq(chosen[ANNOTATION_EXCLUDE], SLICE("true")),
                             .is_text = slice_eq(chosen[ANNOTATION_FORMAT], SLICE("text")),
                             .levels = chosen[ANNOTATION_LEVELS],
                             .tenant = chosen[ANNOTATION_TENANT],
                             .service = chosen[ANNOTATION_SERVICE] };
}

void annotations_report(const struct pod *pod, const struct pod *before)
{
    for (size_t i = 0; i < pod->annotations.n; i++) {
        const struct pair *a = &pod->annotations.items[i];
        struct err err = { 0 };
        enum annotation which;
        struct slice of;
        if (!annotation_parse(a->name, &which, &of) || annotation_is_valid(which, a->value, &err) ||
            (before != NULL && slice_eq(pairs_get(before->annotations, a->name), a->value)))
            continue;
        counter_add(&stats.kube.annotation_errors[which], 1);
        log_warn("kube", "annotation.invalid", "an annotation is not understood and has no effect",
                 LOG_SLICE("pod", pod->name), LOG_SLICE("namespace", pod->namespace_), LOG_SLICE("annotation", a->name),
                 LOG_SLICE("value", slice_first(a->value, 100)), LOG_CSTR("error", err.text));
    }
}
