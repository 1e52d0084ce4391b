#include "agent/kube/pods.h"

/* The last '/'-separated part of *path; *path becomes what is before it. */
static struct slice take_last_part(struct slice *path)
{
    ptrdiff_t slash = slice_rfind_byte(*path, '/');
    struct slice part = slash < 0 ? *path : slice_from(*path, (size_t)slash + 1);
    *path = slash < 0 ? slice_first(*path, 0) : slice_first(*path, (size_t)slash);
    return part;
}

/* Neither namespaces nor pods hold '_': exactly two of them in "<a>_<b>_<c>". */
static bool split_three(struct slice s, struct slice *a, struct slice *b, struct slice *c)
{
    ptrdiff_t first = slice_find_byte(s, '_');
    if (first <= 0)
        return false;
    struct slice rest = slice_from(s, (size_t)first + 1);
    ptrdiff_t second = slice_find_byte(rest, '_');
    if (second <= 0)
        return false;
    *a = slice_first(s, (size_t)first);
    *b = slice_first(rest, (size_t)second);
    *c = slice_from(rest, (size_t)second + 1);
    return c->len > 0 && slice_find_byte(*c, '_') < 0;
}

static bool is_hex(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= '0' && s.ptr[i] <= '9') || (s.ptr[i] >= 'a' && s.ptr[i] <= 'f')))
            return false;
    return s.len > 0;
}

/* The symlink's name is cut to 255 bytes, so the id may be shorter than 64; it is behind the last '-'. */
static bool parse_containers_form(struct slice file, struct pod_path *ret)
{
    struct slice pod, namespace_, rest;
    if (!slice_ends(file, SLICE(".log")) || !split_three(file, &pod, &namespace_, &rest))
        return false;
    rest.len -= 4;
    ptrdiff_t dash = slice_rfind_byte(rest, '-');
    if (dash <= 0 || !is_hex(slice_from(rest, (size_t)dash + 1)))
        return false;
    *ret = (struct pod_path){ .namespace_ = namespace_, .pod = pod, .container = slice_first(rest, (size_t)dash) };
    return true;
}

bool pod_path_parse(struct slice path, struct pod_path *ret)
{
    struct slice rest = path;
    struct slice file = take_last_part(&rest);
    if (slice_ends(rest, SLICE("/containers")))
        return parse_containers_form(file, ret);
    struct slice container = take_last_part(&rest), pod = take_last_part(&rest);
    struct pod_path p = { .container = container };
    if (container.len == 0 || !split_three(pod, &p.namespace_, &p.pod, &p.uid))
        return false;
    *ret = p;
    return true;
}

static bool is_pod_hash(struct slice s, size_t min, size_t max)
{
    /* Kubernetes' SafeEncodeString draws from these, and hex for ReplicaSet hashes of old. */
    for (size_t i = 0; i < s.len; i++)
        if (memchr("bcdfghjklmnpqrstvwxz2456789013aeu", s.ptr[i], 33) == NULL)
            return false;
    return s.len >= min && s.len <= max;
}

static bool is_number(struct slice s)
{
    uint64_t n;
    return slice_to_u64(s, &n) && s.len <= 4;
}

struct slice pod_workload(struct slice pod)
{
    ptrdiff_t dash = slice_rfind_byte(pod, '-');
    if (dash <= 0)
        return pod;
    struct slice last = slice_from(pod, (size_t)dash + 1), head = slice_first(pod, (size_t)dash);
    if (is_number(last)) /* StatefulSet */
        return head;
    if (!is_pod_hash(last, 5, 5))
        return pod;
    dash = slice_rfind_byte(head, '-'); /* Deployment: the ReplicaSet's hash before it; else DaemonSet, Job */
    if (dash > 0 && is_pod_hash(slice_from(head, (size_t)dash + 1), 6, 10))
        return slice_first(head, (size_t)dash);
    return head;
}
