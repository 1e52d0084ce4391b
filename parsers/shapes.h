/*
 * shapes.h - what the known loggers call level, module, time, message and tenant; the names of the configuration go before.
 *
 * Level and module: the first top-level key in the order of the line that is among the names. Time, message and tenant: the
 * best-ranked name that holds something usable, whatever the order of the line; names of the configuration rank first, in
 * their order. A name a.b means the flat key and the nested path.
 */
#ifndef TAILRACE_PARSERS_SHAPES_H
#define TAILRACE_PARSERS_SHAPES_H

#include "parsers/keys.h"
#include "parsers/parser.h"

/* Members that tell loggers without a level key apart: marks of a record, or-ed together. */
enum shape_mark {
    SHAPE_SERILOG_TIME = 1 << 0, /* @t */
    SHAPE_SERILOG_TEXT = 1 << 1, /* @m, @mt */
    SHAPE_KLOG_V = 1 << 2,       /* v, a number: an info line of klog */
    SHAPE_KLOG_ERR = 1 << 3,     /* err: an error line of klog */
    SHAPE_MSG = 1 << 4,          /* msg */
    SHAPE_EPOCH = 1 << 5         /* set by the reader: ts is a number */
};

/* Fills empty keys from a parser's configuration and the known names. 0, -ENOMEM or -ENOSPC. */
NODISCARD int shapes_build(struct keys *k, const struct parser_conf *conf);

/* The level of a record that has no level key: Serilog and klog leave out what is usual. Else LEVEL_UNKNOWN. */
enum level shapes_default_level(unsigned marks);

/* The level that a value stands for under a key of this kind. */
enum level shapes_level(enum level_kind kind, struct value value);

#endif
