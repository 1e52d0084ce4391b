/*
 * auth.h - the Authorization header of an output, from literals or from files that may change while we run.
 *
 * Files are looked at no more than once a second and read again when their identity, size or time differs: secrets
 * that Kubernetes swaps by symlink are followed. A file that cannot be read leaves the last good value in force.
 */
#ifndef TAILRACE_DELIVER_AUTH_H
#define TAILRACE_DELIVER_AUTH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/output_conf.h"

/* What tells one version of a file from the next. */
struct file_stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    int64_t mtime_ns;
};

/* True when the file is another than at the last call (or has vanished, or came back). */
bool file_stamp_changed(struct file_stamp *st, const char *path);

struct auth {
    const struct http_conf *conf; /* borrowed */
    char *path;                   /* the secret file, NULL = none */
    struct file_stamp stamp;
    int64_t looked_mono_ns;       /* 0 = never */
    struct buf header;            /* "Authorization: …", empty = none */
};

NODISCARD int auth_init(struct auth *a, const struct http_conf *conf);
void auth_deinit(struct auth *a);
/* Brings the header up to date. 0, or the error of the file: the header is as before. */
NODISCARD int auth_refresh(struct auth *a, struct err *err);
/* The next refresh reads whatever the stamps say. */
void auth_distrust(struct auth *a);

#endif
