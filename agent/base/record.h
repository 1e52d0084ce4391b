/*
 * record.h - one log record on its way from a file to the outputs, and where it comes from.
 *
 * All slices are borrowed: from the read buffer, the scanner's arena, or the origin; they live until the next record
 * is begun. An origin is made once per file and metadata state, and is read-only.
 */
#ifndef TAILRACE_BASE_RECORD_H
#define TAILRACE_BASE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/base/level.h"
#include "agent/base/limits.h"
#include "agent/base/slice.h"

struct pair {
    struct slice name, value;
};

struct pairs {
    const struct pair *items;
    size_t n;
};

/* The value of name, or the empty slice. */
struct slice pairs_get(struct pairs p, struct slice name);

/* What is known of a file's lines before any of them is read. */
struct origin {
    uint64_t id;          /* never reused in a process: caches are keyed by it */
    uint32_t input_index; /* conf->inputs[] */
    struct slice input, file, file_stem, host, node, cluster;
    struct slice pod, uid, namespace_, container, workload, workload_kind, image, service;
    struct pairs path;        /* captures of the include pattern: {path.NAME} */
    struct pairs fields;      /* constants that are not one of the names above: {field.NAME} */
    struct pairs labels, annotations, namespace_labels;
};

enum record_kind { RECORD_TEXT, RECORD_JSON };
enum record_stream { STREAM_NONE, STREAM_STDOUT, STREAM_STDERR };
enum value_kind { VALUE_MISSING, VALUE_NULL, VALUE_BOOL, VALUE_NUMBER, VALUE_STRING, VALUE_OBJECT, VALUE_ARRAY };

/* One JSON value. text: strings decoded, numbers and booleans as written; empty for null, objects and arrays. */
struct value {
    enum value_kind kind;
    struct slice text;
};

/* A top-level member that may clash with a trusted name: whole member, as offsets into record.line. */
struct suspect {
    uint32_t key_start, key_end;     /* with the quotes */
    uint32_t value_start, value_end; /* value_end is one behind the value */
    struct slice key;                /* decoded */
    struct value value;
};

enum record_flag {
    RECORD_CUT = 1 << 0,            /* longer than LINE_BYTES_MAX; line holds the first part */
    RECORD_BAD_JSON = 1 << 1,       /* begins like JSON but is not: kind is RECORD_TEXT */
    RECORD_DUPLICATE_KEYS = 1 << 2, /* at any depth, decoded */
    RECORD_BAD_TIME = 1 << 3,       /* a time key was there and could not be understood */
    RECORD_MANY_SUSPECTS = 1 << 4,  /* more than SUSPECT_KEYS_MAX: treat as text */
    RECORD_HAS_TIME = 1 << 5,       /* time_ns is the record's own (or its CRI/Docker frame's) */
    RECORD_MULTILINE = 1 << 6,      /* line was joined of several */
    RECORD_UNFINISHED = 1 << 7,     /* the file ended without a newline */
    RECORD_SPLIT = 1 << 8           /* the end of a line in parts never came, or stands in a third file */
};

struct record {
    const struct origin *origin;
    uint64_t incarnation; /* of the file */
    uint64_t offset;      /* where its first raw line starts */
    int64_t read_ns;      /* wall clock of the read */

    enum record_kind kind;
    enum record_stream stream;
    uint32_t flags; /* enum record_flag */
    struct slice line; /* the payload without CRI or Docker frame and without the newline; may hold newlines if joined */

    enum level level;
    struct slice module;
    struct slice message; /* decoded; of text, what follows the leading time and level, else the line */
    int64_t time_ns;      /* UTC; read_ns when !RECORD_HAS_TIME */
    struct value tenant_key;    /* the first of the input's tenant keys: {record.tenant} */
    struct value values[WANTED_KEYS_MAX]; /* {record.KEY}, by index in struct wanted_keys */

    struct suspect suspects[SUSPECT_KEYS_MAX];
    size_t n_suspects;

    /* Set by the pipeline after parsing. */
    struct slice tenant;  /* allowed name, as labels see it */
    uint32_t tenant_id;   /* dense, for ledger rows and caches */
};

#endif
