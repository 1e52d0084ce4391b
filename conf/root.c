/* The keys at the top of the configuration that are not inputs, outputs or routes. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/apply.h"
#include "conf/size.h"

static const struct setting admin_settings[] = {
    { .key = "listen",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, admin_listen),
      .def = "\"127.0.0.1:9746\"",
      .help = "Address and port of metrics, health and status; off for none. On Kubernetes \":9746\"." },
    SETTING_END,
};

static const struct setting held_settings[] = {
    { .key = "max_bytes",
      .type = SETTING_SIZE,
      .offset = offsetof(struct conf, held_max_bytes),
      .def = "2GiB",
      .help = "Bytes of deleted files that are held open for a blocked output before the oldest is let go." },
    SETTING_END,
};

static const struct setting limits_settings[] = {
    { .key = "memory",
      .type = SETTING_SIZE,
      .offset = offsetof(struct conf, memory_bytes),
      .def = "32MiB",
      .min = 8 << 20,
      .help = "Resident memory to keep to: batches and requests wait when it is used up." },
    { .key = "held", .type = SETTING_SECTION, .section = held_settings, .help = "Deleted files held open." },
    SETTING_END,
};

static const struct setting tenants_settings[] = {
    { .key = "allow",
      .type = SETTING_STRINGS,
      .offset = offsetof(struct conf, tenants_allow),
      .def = "[\"*\"]",
      .help = "Globs of tenant names; what is not allowed goes to `other`." },
    { .key = "other",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, tenants_other),
      .def = "unassigned",
      .help = "The tenant of what is not allowed, empty, too long, or beyond `max`." },
    SETTING_END,
};

static const struct setting kubernetes_settings[] = {
    { .key = "api",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, kubernetes.api),
      .def = "auto",
      .help = "The API server: auto (a pod finds its own cluster's), off, or https://HOST:PORT." },
    { .key = "kubeconfig",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, kubernetes.kubeconfig),
      .def = "\"\"",
      .help = "A kubeconfig file instead: server, authority, token or client certificate of its current context." },
    { .key = "token_file",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, kubernetes.token_file),
      .def = "/var/run/secrets/kubernetes.io/serviceaccount/token",
      .help = "The bearer token; read again for each request, for it changes." },
    { .key = "ca_file",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, kubernetes.ca_file),
      .def = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
      .help = "The authority of the server's certificate; read again like the token." },
    { .key = "kubelet",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, kubernetes.kubelet),
      .def = "\"\"",
      .help = "https://NODE:10250: its /pods is asked while the API server does not answer; empty for never." },
    { .key = "kubelet_insecure_skip_verify",
      .type = SETTING_BOOL,
      .offset = offsetof(struct conf, kubernetes.kubelet_insecure),
      .def = "false",
      .help = "Many kubelets sign their own certificate: true takes any." },
    { .key = "requests_per_minute",
      .type = SETTING_INT,
      .offset = offsetof(struct conf, kubernetes.requests_per_minute),
      .def = "60",
      .min = 6,
      .max = 6000,
      .help = "Requests to the API server at most; most minutes have none, for a watch is one." },
    SETTING_END,
};

const struct setting root_settings[] = {
    { .key = "state_dir",
      .type = SETTING_STRING,
      .offset = offsetof(struct conf, state_dir),
      .def = "/var/lib/tailrace",
      .help = "Queues, positions and archives' state; owned by one agent." },
    { .key = "admin", .type = SETTING_SECTION, .section = admin_settings, .help = "The admin endpoint." },
    { .key = "limits", .type = SETTING_SECTION, .section = limits_settings, .help = "Bounds." },
    { .key = "tenants",
      .type = SETTING_SECTION,
      .section = tenants_settings,
      .help = "Which tenants there are." },
    { .key = "kubernetes",
      .type = SETTING_SECTION,
      .section = kubernetes_settings,
      .help = "Where labels and annotations of pods come from." },
    SETTING_END,
};

/* The same sections again, for keys whose values are kept elsewhere first. */
static const struct setting limits_raw_settings[] = {
    { .key = "min_free",
      .type = SETTING_STRING,
      .offset = offsetof(struct root_raw, min_free),
      .def = "512MiB",
      .help = "Free space of the state's disk, bytes or percent, below which held files are let go." },
    { .key = "cpu",
      .type = SETTING_STRING,
      .offset = offsetof(struct root_raw, cpu),
      .def = "off",
      .help = "Share of one core that the agent keeps to, such as 50%: files are read more slowly." },
    SETTING_END,
};

static const struct setting tenants_raw_settings[] = {
    { .key = "max",
      .type = SETTING_INT,
      .offset = offsetof(struct root_raw, tenants_max),
      .def = "1000",
      .min = 1,
      .max = 100000,
      .help = "Distinct tenants at a time; later ones go to `other`, counted." },
    SETTING_END,
};

static const struct setting metrics_settings[] = {
    { .key = "max_tenants",
      .type = SETTING_INT,
      .offset = offsetof(struct root_raw, metrics_max_tenants),
      .def = "100",
      .min = 1,
      .max = 10000,
      .help = "Tenants with metrics of their own; the rest is summed up as _other." },
    { .key = "max_series",
      .type = SETTING_INT,
      .offset = offsetof(struct root_raw, metrics_max_series),
      .def = "1000",
      .min = 1,
      .max = 100000,
      .help = "Series of each counter of log lines; the rest counts as _other." },
    SETTING_END,
};

const struct setting root_raw_settings[] = {
    { .key = "limits", .type = SETTING_SECTION, .section = limits_raw_settings },
    { .key = "tenants", .type = SETTING_SECTION, .section = tenants_raw_settings },
    { .key = "metrics", .type = SETTING_SECTION, .section = metrics_settings, .help = "Bounds of /metrics." },
    SETTING_END,
};

/* ---- sections whose keys stand in two tables
 * ----------------------------------------------------------------------- */

static const struct setting *section_of(const struct setting *table, struct slice key)
{
    for (; table->key != NULL; table++)
        if (slice_eq(slice_cstr(table->key), key))
            return table->section;
    return NULL;
}

static void apply_root_section(struct loader *ld, const struct node *root, struct slice key)
{
    const struct node *n = node_get(root, key);
    const struct setting *plain = section_of(root_settings, key), *raw = section_of(root_raw_settings, key);
    struct keyset keys = { .tables = { plain != NULL ? plain : raw, plain != NULL ? raw : NULL } };
    size_t at = report_enter(&ld->rep, key);
    if (!apply_is_map(ld, n))
        n = NULL;
    if (n != NULL)
        apply_check_keys(ld, n, &keys);
    if (plain != NULL)
        apply_table(ld, plain, n, ld->conf);
    if (raw != NULL)
        apply_table(ld, raw, n, &ld->own->root);
    report_leave(&ld->rep, at);
}

/* ---- checks
 * -------------------------------------------------------------------------------------------------------- */

/* The place of a key that may not be there: then of the whole. */
static struct mark mark_of(const struct node *root, struct slice section, struct slice key)
{
    const struct node *n = node_get(root, section);
    const struct node *k = n == NULL || key.len == 0 ? n : node_get(n, key);
    return k != NULL ? k->mark : n != NULL ? n->mark : root->mark;
}

static bool is_address(struct slice host)
{
    char text[64];
    struct in_addr v4;
    struct in6_addr v6;
    if (host.len == 0)
        return true;
    bool is_v6 = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    if (is_v6)
        host = slice_of(host.ptr + 1, host.len - 2);
    if (host.len >= sizeof(text))
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    return is_v6 ? inet_pton(AF_INET6, text, &v6) == 1 : inet_pton(AF_INET, text, &v4) == 1;
}

static void check_listen(struct loader *ld, const struct node *root)
{
    struct slice *listen = &ld->conf->admin_listen;
    struct mark mark = mark_of(root, SLICE("admin"), SLICE("listen"));
    if (slice_eq(*listen, SLICE("off"))) {
        *listen = SLICE("");
        return;
    }
    ptrdiff_t colon = slice_rfind_byte(*listen, ':');
    struct slice host = colon < 0 ? *listen : slice_first(*listen, (size_t)colon);
    uint64_t port = 0;
    bool is_port = colon >= 0 && slice_to_u64(slice_from(*listen, (size_t)colon + 1), &port) && port <= 65535;
    if (slice_eq(host, SLICE("localhost")) && is_port) {
        struct buf b;
        buf_init(&b, 64);
        if (buf_append_lit(&b, "127.0.0.1:") == 0 && buf_append_u64(&b, port) == 0)
            *listen = loader_copy(ld, buf_slice(&b));
        buf_deinit(&b);
        return;
    }
    if (listen->len > 0 && (!is_port || !is_address(host)))
        report_error_at(&ld->rep, mark, "admin.listen",
                        "\"%.*s\" is not an address; expected 127.0.0.1:9746, :9746, [::1]:9746 "
                        "or off",
                        QUOTED(*listen));
}

static void check_min_free(struct loader *ld, const struct node *root)
{
    struct slice text = ld->own->root.min_free;
    struct conf_size_or_percent *out = &ld->conf->min_free;
    bool is_percent = slice_ends(text, SLICE("%"));
    bool good =
        is_percent ? percent_parse(text, &out->percent) && out->percent < 100 : size_parse(text, &out->bytes);
    if (!good && ld->failed == 0 && text.ptr != NULL)
        report_error_at(&ld->rep, mark_of(root, SLICE("limits"), SLICE("min_free")), "limits.min_free",
                        "\"%.*s\" is neither a size, such as 512MiB, nor a percentage, such as 15%%",
                        QUOTED(text));
}

static void check_cpu(struct loader *ld, const struct node *root)
{
    struct slice text = ld->own->root.cpu;
    unsigned percent = 0;
    bool good = slice_eq(text, SLICE("off")) || (slice_ends(text, SLICE("%")) && percent_parse(text, &percent) && percent > 0);
    ld->conf->cpu_percent = percent;
    if (!good && ld->failed == 0 && text.ptr != NULL)
        report_error_at(&ld->rep, mark_of(root, SLICE("limits"), SLICE("cpu")), "limits.cpu",
                        "\"%.*s\" is no share of a core; expected 1%% to 100%%, or off", QUOTED(text));
}

static void check_tenants(struct loader *ld, const struct node *root)
{
    struct mark mark = mark_of(root, SLICE("tenants"), SLICE("other"));
    size_t at = report_enter(&ld->rep, SLICE("tenants.other"));
    if (ld->conf->tenants_other.ptr != NULL)
        (void)loader_check_name(ld, ld->conf->tenants_other, mark); /* it reports */
    report_leave(&ld->rep, at);
}

static void check_kubernetes(struct loader *ld, const struct node *root)
{
    const struct {
        struct slice key, url;
    } urls[] = { { SLICE("api"), ld->conf->kubernetes.api }, { SLICE("kubelet"), ld->conf->kubernetes.kubelet } };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct slice url = urls[i].url;
        bool is_word = i == 0 ? slice_eq(url, SLICE("auto")) || slice_eq(url, SLICE("off")) : url.len == 0;
        if (is_word || slice_starts(url, SLICE("https://")) || slice_starts(url, SLICE("http://127.0.0.1:")))
            continue;
        size_t at = report_enter(&ld->rep, SLICE("kubernetes"));
        report_enter(&ld->rep, urls[i].key);
        report_error(&ld->rep, mark_of(root, SLICE("kubernetes"), urls[i].key),
                     "\"%.*s\" is not an address; expected %shttps://HOST:PORT", QUOTED(url), i == 0 ? "auto, off or " : "");
        report_leave(&ld->rep, at);
    }
}

static void check_state_dir(struct loader *ld, const struct node *root)
{
    struct slice dir = ld->conf->state_dir;
    if (dir.ptr != NULL && (dir.len == 0 || dir.len > PATH_MAX / 2))
        report_error_at(&ld->rep, mark_of(root, SLICE("state_dir"), SLICE("")), "state_dir",
                        "expected the path of a folder");
}

/* ---- fields and names
 * ---------------------------------------------------------------------------------------------- */

bool field_is_settable(struct slice name)
{
    static const struct slice names[] = { SLICE_INIT("pod"),       SLICE_INIT("namespace"),
                                          SLICE_INIT("container"), SLICE_INIT("service"),
                                          SLICE_INIT("node"),      SLICE_INIT("host"),
                                          SLICE_INIT("workload"),  SLICE_INIT("cluster"),
                                          SLICE_INIT("uid") };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_eq(name, names[i]))
            return true;
    return false;
}

bool field_is_reserved(struct slice name)
{
    static const struct slice names[] = { SLICE_INIT("input"),  SLICE_INIT("file"),   SLICE_INIT("file_stem"),
                                          SLICE_INIT("stream"), SLICE_INIT("level"),  SLICE_INIT("module"),
                                          SLICE_INIT("tenant"), SLICE_INIT("message") };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_eq(name, names[i]))
            return true;
    return false;
}

static void apply_field(struct loader *ld, const struct member *m, struct pair *items, size_t *n)
{
    const struct template *t = NULL;
    size_t at = report_enter(&ld->rep, m->key);
    if (field_is_reserved(m->key))
        report_error(&ld->rep, m->mark, "is not a field: each record has its own%s",
                     slice_eq(m->key, SLICE("tenant")) ? "; set `tenant` at the input" : "");
    else if (loader_check_name(ld, m->key, m->mark))
        t = loader_template(ld, m->value, false);
    if (t != NULL && !template_is_constant(t)) {
        report_error(&ld->rep, m->value->mark, "expected a constant; fields with {names} belong to an input");
    } else if (t != NULL) {
        CLEANUP(buf_deinit) struct buf value;
        buf_init(&value, TEMPLATE_OUT_MAX);
        if (template_eval(t, &(const struct record){ 0 }, &value) < 0)
            ld->failed = -ENOMEM;
        else
            items[(*n)++] = (struct pair){ m->key, loader_copy(ld, buf_slice(&value)) };
    }
    report_leave(&ld->rep, at);
}

static void apply_fields(struct loader *ld, const struct node *root)
{
    const struct node *fields = node_get(root, SLICE("fields"));
    size_t at = report_enter(&ld->rep, SLICE("fields"));
    if (fields != NULL && apply_is_map(ld, fields) && fields->kind == NODE_MAP) {
        struct pair *items = loader_alloc(ld, MAX(fields->n, 1) * sizeof(*items));
        size_t n = 0;
        for (size_t i = 0; items != NULL && i < fields->n; i++)
            apply_field(ld, &fields->members[i], items, &n);
        ld->conf->fields = (struct pairs){ items, n };
    }
    report_leave(&ld->rep, at);
}

static void set_names(struct loader *ld)
{
    struct conf *c = ld->conf;
    char host[HOST_NAME_MAX + 1] = "";
    if (gethostname(host, sizeof(host) - 1) < 0)
        host[0] = '\0'; /* cannot happen with this size; then the name is "localhost" */
    const char *node = getenv("NODE_NAME");
    c->host = pairs_get(c->fields, SLICE("host"));
    c->node = pairs_get(c->fields, SLICE("node"));
    c->cluster = pairs_get(c->fields, SLICE("cluster"));
    if (c->host.len == 0)
        c->host = loader_copy(ld, slice_cstr(host[0] == '\0' ? "localhost" : host));
    if (c->node.len == 0)
        c->node = node == NULL || node[0] == '\0' ? c->host : loader_copy(ld, slice_cstr(node));
}

void root_apply(struct loader *ld, const struct node *root)
{
    struct conf *c = ld->conf;
    static const struct setting only_state_dir[] = {
        { .key = "state_dir",
          .type = SETTING_STRING,
          .offset = offsetof(struct conf, state_dir),
          .def = "/var/lib/tailrace" },
        SETTING_END,
    };
    apply_table(ld, only_state_dir, root, c);
    apply_root_section(ld, root, SLICE("admin"));
    apply_root_section(ld, root, SLICE("limits"));
    apply_root_section(ld, root, SLICE("tenants"));
    apply_root_section(ld, root, SLICE("metrics"));
    apply_root_section(ld, root, SLICE("kubernetes"));
    check_kubernetes(ld, root);
    c->tenants_max = (uint32_t)ld->own->root.tenants_max;
    c->metrics_max_tenants = (uint32_t)ld->own->root.metrics_max_tenants;
    c->metrics_max_series = (uint32_t)ld->own->root.metrics_max_series;
    check_state_dir(ld, root);
    check_listen(ld, root);
    check_min_free(ld, root);
    check_cpu(ld, root);
    check_tenants(ld, root);
    apply_fields(ld, root);
    set_names(ld);
}
