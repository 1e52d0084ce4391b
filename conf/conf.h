/*
 * conf.h - YAML -> one validated, read-only struct conf.
 *
 * A configuration is one file and the YAML files of conf.d/ beside it, or a folder of them and its conf.d/, in the
 * order of their names. Maps at the top merge, routes follow one another, the same name twice is an error. Errors are
 * collected: all are reported at once, each as "FILE:LINE:COL: path.to.key: what, and what was expected", with "did
 * you mean", sorted by file and line.
 * ${VAR}, ${VAR:-default} and $$ are expanded in scalars after parsing. Keys x-* and anchors are allowed.
 *
 * Owns:    everything reachable from struct conf, until conf_free.
 * Threads: read-only after conf_load, so any.
 */
#ifndef TAILRACE_CONF_CONF_H
#define TAILRACE_CONF_CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/level.h"
#include "agent/base/match.h"
#include "agent/base/output_conf.h"
#include "agent/base/template.h"

enum input_type { INPUT_FILE, INPUT_KUBERNETES, INPUT_DOCKER };
enum input_format { FORMAT_AUTO, FORMAT_JSON, FORMAT_CRI, FORMAT_DOCKER, FORMAT_TEXT };
enum read_from { READ_FROM_BEGINNING, READ_FROM_END, READ_FROM_AGE, READ_FROM_TIME };
enum multiline_mode { MULTILINE_AUTO, MULTILINE_OFF, MULTILINE_START };

/* What to do with a pod's lines when it is not known what it is: hold them while their tenant or route may depend on it, and
 * while the API server answers also for an exclusion (auto); for an exclusion always (hold); never (fallback). */
enum metadata_missing { MISSING_AUTO, MISSING_HOLD, MISSING_FALLBACK };

/* Bits of conf_input.annotations: tailrace.io/NAME. */
enum annotation { ANNOTATION_EXCLUDE, ANNOTATION_LEVELS, ANNOTATION_TENANT, ANNOTATION_FORMAT, ANNOTATION_SERVICE,
                  ANNOTATIONS };
extern const char *const annotation_names[ANNOTATIONS + 1]; /* "exclude" …, NULL */

/* Where labels and annotations come from: the top-level section `kubernetes`. */
struct conf_kubernetes {
    struct slice api;        /* "auto": in a pod its own cluster, else nowhere; "off"; https://HOST:PORT */
    struct slice kubeconfig; /* a file; wins over api */
    struct slice token_file, ca_file;
    struct slice kubelet;    /* https://NODE:10250, a second source; empty = none */
    bool kubelet_insecure;
    int64_t requests_per_minute;
};

struct conf_override {
    struct match *match;
    struct levels *levels;    /* NULL = not said */
    struct template *tenant;  /* NULL = not said; only with a static match */
};

struct conf_input {
    struct slice name;
    enum input_type type;
    struct slices include, exclude; /* absolute globs; <name> captures one path part; ** any folders */
    enum read_from read_from;
    int64_t read_from_ns;           /* age, or wall clock time */
    int64_t ignore_older_ns;        /* 0 = never */
    enum input_format format;
    struct slice timezone;          /* "local", "UTC", "+02:00", an IANA name */
    enum multiline_mode multiline;
    struct slice multiline_start;   /* POSIX extended regex */
    struct slices level_keys, module_keys, time_keys, message_keys, tenant_keys; /* before the known names */
    struct template *tenant;
    struct template_map fields;     /* pod namespace container service node … and constants; static templates */
    struct levels *levels;          /* NULL = keep all */
    struct conf_override *overrides;
    size_t n_overrides;
    /* INPUT_KUBERNETES */
    int64_t metadata_wait_ns;       /* lines of a pod that is not known wait so long */
    int metadata_missing;           /* enum metadata_missing */
    struct slices allow_annotations;
    uint32_t annotations;           /* the same, as bits */
};

struct conf_route {
    struct match *match;   /* NULL = every record */
    uint32_t outputs;      /* mask of output indexes; 0 with is_drop */
    bool is_drop, is_continue;
    struct levels *levels; /* NULL = keep all */
    int64_t file_line;
};

/* counters: tailrace_log_NAME_total of the lines that match. */
struct conf_counter {
    struct slice name, help;
    struct match *match; /* NULL = every line */
    struct template_map labels;
};

struct conf_size_or_percent {
    uint64_t bytes;
    unsigned percent; /* 0: bytes count */
};

struct conf {
    struct slice path;             /* as given */
    struct slice state_dir;
    struct slice admin_listen;     /* "127.0.0.1:9746", ":9746", "[::1]:0"; empty = off */
    uint64_t memory_bytes;         /* limits.memory */
    unsigned cpu_percent;          /* limits.cpu, of one core; 0 = off */
    uint64_t held_max_bytes;       /* limits.held.max_bytes */
    struct conf_size_or_percent min_free;
    struct slices tenants_allow;   /* globs */
    uint32_t tenants_max;
    struct slice tenants_other;
    uint32_t metrics_max_tenants;  /* 100 */
    uint32_t metrics_max_series;   /* 1000, of each counter of log lines */
    struct pairs fields;           /* constants for every record */
    struct conf_kubernetes kubernetes;
    struct slice host, node, cluster; /* hostname; NODE_NAME or the hostname; fields.cluster */
    struct wanted_keys wanted;
    struct conf_input *inputs;
    size_t n_inputs;
    struct output_conf *outputs;
    size_t n_outputs;
    struct conf_route *routes;     /* never empty: without `routes` one that sends all to all */
    size_t n_routes;
    struct conf_counter *counters;
    size_t n_counters;
    struct slices warnings;        /* sentences with FILE:LINE:COL, for `check` and the log */
    struct slices watched_files;   /* every file read (config, conf.d/, secrets) and the folders looked in; a change reloads */
    uint64_t fingerprint;          /* of all files' bytes, secrets included, and expanded variables; in this process only */
    void *private_;
};

/* A list of error lines, newline-separated, in *errors. 0, or -EINVAL (errors in the text), or the errno of the first
 * file. types ends with a NULL name and must outlive the configuration. */
NODISCARD int conf_load(const char *path, const struct output_type *types, struct conf **ret_conf, struct buf *errors);
/* The same from memory (tests, `run --stdout`): name is what messages call it. */
NODISCARD int conf_load_text(const char *name, struct slice yaml, const struct output_type *types,
                             struct conf **ret_conf, struct buf *errors);
void conf_free(struct conf *c);

/* The effective configuration as YAML with every default and secrets masked as "***". */
NODISCARD int conf_print(const struct conf *c, struct buf *out);

/* Does any template read this variable, such as {label.app}? key.ptr NULL: of any key. */
bool conf_reads(const struct conf *c, enum var_kind kind, struct slice key);
/* Of all labels and annotations that templates read: another number, others. The same in another process. */
uint64_t conf_reads_hash(const struct conf *c);

/* What a reload cannot change, as a sentence; NULL when the change is fine. */
const char *conf_reload_obstacle(const struct conf *old_conf, const struct conf *new_conf);

#endif
