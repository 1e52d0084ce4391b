/*
 * output_conf.h - what every output's section holds, and how a type of output announces its own keys.
 */
#ifndef TAILRACE_BASE_OUTPUT_CONF_H
#define TAILRACE_BASE_OUTPUT_CONF_H

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/setting.h"

enum queue_sync { QUEUE_SYNC_INTERVAL, QUEUE_SYNC_EACH, QUEUE_SYNC_NEVER };
enum queue_full { QUEUE_FULL_BLOCK, QUEUE_FULL_DROP_OLDEST };

struct queue_conf {
    uint64_t max_bytes;       /* 1 GiB; ≥ 64 MiB */
    uint64_t batch_bytes;     /* 1 MiB raw: a body is full */
    int64_t batch_wait_ns;    /* 1 s: all open bodies are closed */
    enum queue_sync sync;
    int64_t sync_interval_ns; /* 200 ms */
    enum queue_full on_full;
    unsigned key_share_percent; /* 25: of max_bytes, for the parked frames of one route key */
    uint64_t dead_max_bytes;    /* 256 MiB */
    uint64_t group_bytes;       /* raw bytes of all open bodies that close the group; derived: ≤ segment/4, ≤ 4 MiB */
};

/* Secrets are read from files again when those change; literal values come from ${VAR}. */
struct http_conf {
    struct slices urls;
    struct slice username, password, password_file;
    struct slice bearer, bearer_file;
    struct slice api_key, api_key_file;
    struct slice ca_file, cert_file, key_file, server_name, min_version;
    bool insecure_skip_verify;
    struct pairs headers;
    struct slice proxy; /* env | none | URL */
    int64_t timeout_ns; /* 60 s, of one request */
    int64_t concurrency; /* 16, requests in flight of one output */
};

struct output_type;

struct output_conf {
    struct slice name;
    const struct output_type *type;
    uint32_t index; /* in conf->outputs, < OUTPUTS_MAX; also its bit in masks */
    struct queue_conf queue;
    struct http_conf http;   /* zero when !type->is_http */
    void *settings;          /* the type's own struct, settings_size bytes */
    struct slice host;       /* this machine's name */
    struct slice state_dir;
    int64_t file_line;       /* where its section stands, for messages */
};

/* A row of the registry, as conf/ sees it. */
struct output_type {
    const char *name; /* "loki" */
    bool is_http;
    const struct setting *settings;
    size_t settings_size;
    /* Cross-key checks after all keys are read; may complete defaults. Warnings go to warn(). May be NULL. */
    int (*validate)(struct output_conf *conf, void (*warn)(void *ctx, const char *text), void *ctx, struct err *err);
    /* A glob over the files that it writes, appended: no input may follow them, or each line would come round again. NULL:
     * it writes none. settings as above. */
    int (*own_files)(const void *settings, struct buf *glob);
};

#endif
