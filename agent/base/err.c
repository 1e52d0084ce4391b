#include "agent/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static size_t used(const struct err *err)
{
    return strnlen(err->text, sizeof(err->text) - 1);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (err == NULL)
        return code;
    char reason[128];
    va_list args;
    err->code = code;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, args); /* a cut sentence is still a sentence */
    va_end(args);
    size_t n = used(err);
    (void)snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror_r(-code, reason, sizeof(reason)));
    return code;
}

int err_say(struct err *err, int code, const char *fmt, ...)
{
    if (err == NULL)
        return code;
    va_list args;
    err->code = code;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    return code;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    if (err == NULL)
        return 0;
    char old[ERR_TEXT_MAX];
    memcpy(old, err->text, sizeof(old));
    old[sizeof(old) - 1] = '\0';
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    size_t n = used(err);
    (void)snprintf(err->text + n, sizeof(err->text) - n, ": %.*s", (int)(sizeof(old) - 1), old);
    return err->code;
}
