/*
 * err.h - a sentence for a person, beside the negative errno that the function returns.
 */
#ifndef TAILRACE_BASE_ERR_H
#define TAILRACE_BASE_ERR_H

#include "agent/base/macros.h"

#define ERR_TEXT_MAX 1024

struct err {
    int code; /* negative errno, 0 = none */
    char text[ERR_TEXT_MAX];
};

/* Stores the sentence and ": strerror(-code)"; returns code. err may be NULL. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same without strerror, for errors whose sentence says it all. */
int err_say(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts "words: " before the sentence that is there. Returns err->code. */
int err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
