#include "agent/kube/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "agent/base/arena.h"
#include "agent/base/base64.h"
#include "agent/base/io.h"
#include "conf/yaml.h"

#define FILE_BYTES_MAX (256 * KIB)

void access_init(struct access *a)
{
    struct buf *all[] = { &a->server, &a->kubelet, &a->token, &a->ca, &a->cert, &a->key };
    *a = (struct access){ 0 };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        buf_init(all[i], FILE_BYTES_MAX);
}

void access_deinit(struct access *a)
{
    struct buf *all[] = { &a->server, &a->kubelet, &a->token, &a->ca, &a->cert, &a->key };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i]->ptr != NULL)
            explicit_bzero(all[i]->ptr, all[i]->cap);
        buf_deinit(all[i]);
    }
}

static bool is_auto(const struct conf_kubernetes *conf)
{
    return slice_eq(conf->api, SLICE("auto"));
}

bool access_is_wanted(const struct conf_kubernetes *conf)
{
    if (conf->kubeconfig.len > 0)
        return true;
    const char *host = getenv("KUBERNETES_SERVICE_HOST");
    return is_auto(conf) ? host != NULL && host[0] != '\0' : !slice_eq(conf->api, SLICE("off"));
}

static int read_file(struct slice path, struct buf *to, struct err *err)
{
    char *name = slice_dup(path);
    if (name == NULL)
        return err_set(err, -ENOMEM, "cannot read a file");
    buf_reset(to);
    int r = io_read_file(AT_FDCWD, name, to, err);
    free(name);
    return r;
}

static void trim(struct buf *b)
{
    struct slice s = slice_trim(buf_slice(b));
    buf_consume(b, (size_t)(s.ptr - (const char *)b->ptr));
    b->len = s.len;
}

/* ---- kubeconfig ---- */

/* The item of a list of { name: NAME, KIND: {…} }. */
static const struct node *named(const struct node *root, struct slice list, struct slice name, struct slice kind)
{
    const struct node *items = node_get(root, list);
    for (size_t i = 0; items != NULL && items->kind == NODE_LIST && i < items->n; i++) {
        const struct node *n = items->items[i]->kind == NODE_MAP ? node_get(items->items[i], SLICE("name")) : NULL;
        if (n != NULL && slice_eq(n->text, name))
            return node_get(items->items[i], kind);
    }
    return NULL;
}

static struct slice text_of(const struct node *map, struct slice key)
{
    const struct node *n = map == NULL || map->kind != NODE_MAP ? NULL : node_get(map, key);
    return n == NULL || n->kind != NODE_SCALAR ? SLICE("") : n->text;
}

/* A value is there as KEY-data in base64, or as the file KEY, beside the kubeconfig when it is a relative path. */
static int load_part(const struct node *map, struct slice key, struct slice data_key, struct slice dir, struct buf *to,
                     struct err *err)
{
    struct slice data = text_of(map, data_key), file = text_of(map, key);
    buf_reset(to);
    if (data.len > 0)
        return base64_decode(data, to) < 0 ? err_say(err, -EINVAL, "%.*s is not base64", SLICE_ARGS(data_key)) : 0;
    if (file.len == 0)
        return 0;
    if (file.ptr[0] == '/')
        return read_file(file, to, err);
    CLEANUP(buf_deinit) struct buf path;
    buf_init(&path, 8 * KIB);
    int r = buf_printf(&path, "%.*s/%.*s", SLICE_ARGS(dir), SLICE_ARGS(file));
    return r < 0 ? err_set(err, r, "cannot read a file") : read_file(buf_slice(&path), to, err);
}

static int load_context(struct access *a, const struct node *root, struct slice dir, struct err *err)
{
    const struct node *context =
        named(root, SLICE("contexts"), text_of(root, SLICE("current-context")), SLICE("context"));
    const struct node *cluster = named(root, SLICE("clusters"), text_of(context, SLICE("cluster")), SLICE("cluster"));
    const struct node *user = named(root, SLICE("users"), text_of(context, SLICE("user")), SLICE("user"));
    struct slice server = text_of(cluster, SLICE("server"));
    if (server.len == 0)
        return err_say(err, -EINVAL, "its current context names no cluster with a server");
    while (server.len > 0 && server.ptr[server.len - 1] == '/')
        server.len--;
    buf_reset(&a->server);
    int r = buf_append_slice(&a->server, server);
    if (r < 0)
        return err_set(err, r, "cannot read it");
    a->is_insecure = slice_eq(text_of(cluster, SLICE("insecure-skip-tls-verify")), SLICE("true"));
    r = load_part(cluster, SLICE("certificate-authority"), SLICE("certificate-authority-data"), dir, &a->ca, err);
    r = r < 0 ? r : load_part(user, SLICE("client-certificate"), SLICE("client-certificate-data"), dir, &a->cert, err);
    r = r < 0 ? r : load_part(user, SLICE("client-key"), SLICE("client-key-data"), dir, &a->key, err);
    r = r < 0 ? r : load_part(user, SLICE("tokenFile"), SLICE(""), dir, &a->token, err);
    if (r == 0 && a->token.len == 0)
        r = buf_append_slice(&a->token, text_of(user, SLICE("token")));
    trim(&a->token);
    if (r == 0 && a->token.len == 0 && a->cert.len == 0)
        return err_say(err, -EINVAL, "its user has neither token nor client certificate (exec plugins are not run)");
    return r;
}

static int load_kubeconfig(struct access *a, struct slice path, struct err *err)
{
    CLEANUP(buf_deinit) struct buf text;
    struct arena arena;
    struct report rep;
    struct node *root;
    uint64_t hash = 0;
    buf_init(&text, FILE_BYTES_MAX);
    int r = read_file(path, &text, err);
    if (r < 0)
        return r;
    arena_init(&arena, 8 * MIB);
    ptrdiff_t slash = slice_rfind_byte(path, '/');
    struct slice dir = slash < 0 ? SLICE(".") : slice_first(path, (size_t)slash);
    r = report_init(&rep, &arena);
    r = r < 0 ? r : yaml_parse(&rep, "kubeconfig", buf_slice(&text), NULL, &hash, &root);
    r = r < 0 ? err_say(err, r, "it is not YAML") : load_context(a, root, dir, err);
    arena_deinit(&arena);
    if (text.ptr != NULL)
        explicit_bzero(text.ptr, text.cap);
    return r < 0 ? err_prefix(err, "kubeconfig %.*s", SLICE_ARGS(path)) : 0;
}

/* ---- the service account ---- */

static int set_server(struct access *a, const struct conf_kubernetes *conf)
{
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    struct slice url = conf->api;
    buf_reset(&a->server);
    if (is_auto(conf)) {
        bool is_v6 = host != NULL && strchr(host, ':') != NULL;
        return buf_printf(&a->server, "https://%s%s%s:%s", is_v6 ? "[" : "", host == NULL ? "" : host, is_v6 ? "]" : "",
                          port == NULL || port[0] == '\0' ? "443" : port);
    }
    while (url.len > 0 && url.ptr[url.len - 1] == '/')
        url.len--;
    return buf_append_slice(&a->server, url);
}

int access_load(struct access *a, const struct conf_kubernetes *conf, bool is_kubelet, struct err *err)
{
    int r = buf_append_slice(&a->kubelet, is_kubelet ? conf->kubelet : SLICE(""));
    if (r == 0 && conf->kubeconfig.len > 0)
        r = load_kubeconfig(a, conf->kubeconfig, err);
    else if (r == 0) {
        r = set_server(a, conf);
        if (r < 0)
            return err_set(err, r, "cannot make the server's address");
        r = conf->token_file.len > 0 ? read_file(conf->token_file, &a->token, err) : 0;
        trim(&a->token);
        if (r == 0 && conf->ca_file.len > 0)
            r = read_file(conf->ca_file, &a->ca, err);
    }
    if (is_kubelet)
        a->is_insecure = conf->kubelet_insecure;
    return r;
}
