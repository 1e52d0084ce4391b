/*
 * file_archive.h - an archive read back: which files it has, their lines, and whether the chain through them holds.
 *
 * Threads: the caller's. Reads only; safe beside a running agent, whose last block may be found without its link.
 */
#ifndef TAILRACE_OUTPUTS_FILE_ARCHIVE_H
#define TAILRACE_OUTPUTS_FILE_ARCHIVE_H

#include <stdbool.h>

#include "agent/base/output_conf.h"
#include "outputs/file_chain.h"
#include "outputs/file_path.h"

#define ARCHIVE_LINE_MAX (64 * MIB)

struct archive_file {
    char *path;
    size_t name_len;      /* of the path without .gz or .N.gz */
    int64_t day;          /* since 1970-01-01, as the name says; 0 without a date */
    unsigned part;        /* in the order of writing: NAME.gz 0, NAME.1.gz 1 … NAME last */
    /* archive_read: */
    uint64_t lines, links;
    uint64_t loose_lines; /* at the end, without a link */
    bool is_chained, is_fresh; /* is_fresh: written to within the last minute */
    struct chain_hash first_prev, last;
};

struct archive_files {
    struct archive_file *items;
    size_t n;
};

struct archive_select {
    struct slice tenant;         /* empty: any */
    int64_t first_day, last_day; /* INT64_MIN, INT64_MAX: any */
};

/* What an output of type file is set to. */
struct archive_conf {
    struct file_shape shape;
    bool chain;
    int64_t retain_ns;     /* 0: for ever */
    uint64_t retain_bytes; /* 0: no limit */
};
NODISCARD int archive_conf_of(const struct output_conf *conf, struct archive_conf *ret, struct err *err);
/* The output's files that were chosen, by day, name and part; freed by archive_free. -EINVAL with a sentence: the template
 * lacks the tenant or the date that is asked for. */
NODISCARD int archive_list(const struct file_shape *shape, const struct archive_select *select,
                           struct archive_files *ret_files, struct err *err);
void archive_free(struct archive_files *files);

struct archive_reader {
    /* Each may be NULL. line is without its newline; links are no lines. A negative return ends the reading with it. */
    int (*line)(void *ctx, struct slice line);
    int (*link)(void *ctx, const struct chain_hash *hash);
    void (*problem)(void *ctx, const struct archive_file *f, const char *text);
    void *ctx;
};

/* Reads f to its end and fills in what it holds. What is wrong with the chain goes to problem(); an error is one of reading. */
NODISCARD int archive_read(struct archive_file *f, const struct archive_reader *to, struct err *err);

#endif
