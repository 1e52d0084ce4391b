/* model_json.h - what stands between a line and jansson, who is stricter than most readers. */
#ifndef TAILRACE_TESTS_FUZZ_MODEL_JSON_H
#define TAILRACE_TESTS_FUZZ_MODEL_JSON_H

#include <jansson.h>

#include "tests/fuzz/fuzz.h"

static inline unsigned model_hex4(struct slice s, size_t at)
{
    unsigned v = 0;
    if (s.len < at + 4)
        return 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = s.ptr[i];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                         : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (unsigned)((c | 0x20) - 'a' + 10) : 16u;
        if (digit == 16)
            return 0;
        v = v * 16 + digit;
    }
    return v;
}

/* A copy in which every escape of a lone surrogate is \ufffd. Inside of strings or not: outside, a backslash is wrong anyway. */
static inline char *model_without_lone_surrogates(struct slice line)
{
    char *copy = slice_dup(line);
    fuzz_check(copy != NULL, "memory");
    for (size_t i = 0; i + 1 < line.len; i++) {
        if (line.ptr[i] != '\\')
            continue;
        unsigned c = line.ptr[i + 1] == 'u' ? model_hex4(line, i + 2) : 0;
        if (c < 0xD800 || c > 0xDFFF) {
            i++;
            continue;
        }
        bool has_next = i + 8 <= line.len && line.ptr[i + 6] == '\\' && line.ptr[i + 7] == 'u';
        unsigned next = has_next ? model_hex4(line, i + 8) : 0;
        if (c <= 0xDBFF && next >= 0xDC00 && next <= 0xDFFF)
            i += 11;
        else {
            memcpy(copy + i, "\\ufffd", 6);
            i += 5;
        }
    }
    return copy;
}

/* A tree, or NULL. *ret_is_judged: false when jansson says no to what is JSON all the same (see fuzz_json.c). */
static inline json_t *model_parse(struct slice text, size_t flags, bool *ret_is_judged)
{
    char *copy = model_without_lone_surrogates(text);
    json_error_t error;
    json_t *tree = json_loadb(copy, text.len, flags | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    enum json_error_code code = tree == NULL ? json_error_code(&error) : json_error_unknown;
    *ret_is_judged = tree != NULL || (code != json_error_numeric_overflow && code != json_error_null_byte_in_key &&
                                      code != json_error_stack_overflow);
    free(copy);
    return tree;
}

#endif
