#include "agent/kube/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <yajl/yajl_tree.h>

#include "agent/base/io.h"

static struct slice text_at(yajl_val v, const char *a, const char *b)
{
    const char *path[] = { a, b, NULL };
    return slice_cstr(YAJL_GET_STRING(yajl_tree_get(v, path, yajl_t_string)));
}

/* At most EVENT_PAIRS_MAX, none longer than a pod's. */
static struct pairs labels_of(yajl_val root, struct pair items[EVENT_PAIRS_MAX])
{
    const char *path[] = { "Config", "Labels", NULL };
    yajl_val v = yajl_tree_get(root, path, yajl_t_object);
    struct pairs p = { items, 0 };
    for (size_t i = 0; v != NULL && i < YAJL_GET_OBJECT(v)->len && p.n < EVENT_PAIRS_MAX; i++) {
        struct slice name = slice_cstr(YAJL_GET_OBJECT(v)->keys[i]);
        struct slice value = slice_cstr(YAJL_GET_STRING(YAJL_GET_OBJECT(v)->values[i]));
        if (name.len > 0 && name.len <= EVENT_VALUE_MAX && value.len <= EVENT_VALUE_MAX)
            items[p.n++] = (struct pair){ name, value };
    }
    return p;
}

struct pod *docker_parse(struct slice config)
{
    struct pair labels[EVENT_PAIRS_MAX], image;
    char why[128], *text = slice_dup(config);
    yajl_val root = text == NULL ? NULL : yajl_tree_parse(text, why, sizeof(why));
    free(text);
    if (root == NULL)
        return NULL;
    struct pod p = { .name = text_at(root, "Name", NULL), .uid = text_at(root, "ID", NULL) };
    if (slice_starts(p.name, SLICE("/"))) /* Docker keeps them so, from the time of links */
        p.name = slice_from(p.name, 1);
    p.path_uid = p.uid;
    p.labels = labels_of(root, labels);
    p.namespace_ = pairs_get(p.labels, SLICE("com.docker.compose.project"));
    p.workload = pairs_get(p.labels, SLICE("com.docker.compose.service"));
    image = (struct pair){ p.name, text_at(root, "Config", "Image") };
    p.images = (struct pairs){ &image, 1 };
    struct pod *pod = p.name.len == 0 ? NULL : pod_pack(&p);
    yajl_tree_free(root);
    return pod;
}

struct pod *docker_container(struct slice log_path)
{
    static const char file[] = "/config.v2.json";
    ptrdiff_t slash = slice_rfind_byte(log_path, '/');
    CLEANUP(buf_deinit) struct buf path, config;
    buf_init(&path, 8 * KIB);
    buf_init(&config, DOCKER_CONFIG_MAX);
    if (slash < 0 || buf_append_slice(&path, slice_first(log_path, (size_t)slash)) < 0 ||
        buf_append_lit(&path, file) < 0 || buf_terminate(&path) < 0 ||
        io_read_file(AT_FDCWD, path.ptr, &config, NULL) < 0)
        return NULL;
    return docker_parse(buf_slice(&config));
}
