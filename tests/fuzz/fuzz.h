/*
 * fuzz.h - what every fuzz target shares. A target is one file fuzz_NAME.c with one function fuzz_NAME(); libFuzzer runs it
 * through driver.c, and tests/unit/fuzz/test_replay.c feeds it what lies in corpus/NAME and found/NAME.
 *
 * A target takes any bytes, keeps nothing from one input to the next that could change what the next one does, and ends the
 * process by fuzz_fail() when a promise is broken: then the input is a finding.
 */
#ifndef TAILRACE_TESTS_FUZZ_FUZZ_H
#define TAILRACE_TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "agent/base/slice.h"

/* All targets, for the replay. A name is that of the file, of the folders and of `make fuzz-NAME`. */
#define FUZZ_TARGETS(X) \
    X(codec) X(config) X(es_reply) X(frame) X(glob) X(json) X(kube) X(levels) X(line) X(loki_reply) X(queue) X(template) X(text) \
    X(timestamp) X(zone)

#define FUZZ_DECLARE(name) int fuzz_##name(const uint8_t *data, size_t size);
FUZZ_TARGETS(FUZZ_DECLARE)

#define fuzz_fail(...)                                                       \
    do {                                                                     \
        (void)fprintf(stderr, "fuzz: %s:%d: %s: ", __FILE__, __LINE__, __func__); \
        (void)fprintf(stderr, __VA_ARGS__);                                  \
        (void)fputc('\n', stderr);                                           \
        abort();                                                             \
    } while (0)

#define fuzz_check(condition, ...)   \
    do {                             \
        if (!(condition))            \
            fuzz_fail(__VA_ARGS__);  \
    } while (0)

/* Takes bytes off the front of the input, for targets that need a choice beside the text. */
static inline unsigned fuzz_take_byte(struct slice *in)
{
    if (in->len == 0)
        return 0;
    unsigned b = (unsigned char)in->ptr[0];
    *in = slice_from(*in, 1);
    return b;
}

/* The part up to the next `separator`, which is taken off too; all of it when there is none. */
static inline struct slice fuzz_take_until(struct slice *in, char separator)
{
    ptrdiff_t at = slice_find_byte(*in, separator);
    struct slice part = at < 0 ? *in : slice_first(*in, (size_t)at);
    *in = slice_from(*in, part.len + 1);
    return part;
}

#endif
