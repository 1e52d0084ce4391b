/*
 * fuzz_config.c - any text as a configuration.
 *
 * Either it is taken: then what conf_print() writes is taken too, and printed again it is the same. Or it is refused: then every
 * line of the errors says FILE:LINE:COL within the text, and is one line of UTF-8. Warnings likewise.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/registry.h"
#include "conf/conf.h"
#include "tests/fuzz/fuzz.h"

#define FILE_NAME "fuzz.yaml"

static size_t count_lines(struct slice text)
{
    size_t n = 1;
    for (size_t i = 0; i < text.len; i++)
        n += text.ptr[i] == '\n' || text.ptr[i] == '\r' || (unsigned char)text.ptr[i] == 0xC2 || (unsigned char)text.ptr[i] == 0xE2;
    return n;
}

static uint64_t take_number(struct slice *s)
{
    size_t n = 0;
    uint64_t v = 0;
    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (!slice_to_u64(slice_first(*s, n), &v) || n == s->len || s->ptr[n] != ':')
        return 0;
    *s = slice_from(*s, n + 1);
    return v;
}

/* FILE:LINE:COL: words, or FILE: words about the whole. */
static void check_place(struct slice line, size_t lines, size_t bytes)
{
    struct slice rest = line;
    fuzz_check(slice_utf8_valid(line) == line.len, "words that are no UTF-8");
    for (size_t i = 0; i < line.len; i++)
        fuzz_check((unsigned char)line.ptr[i] >= 0x20 && line.ptr[i] != 0x7f, "a control byte in: %.*s", SLICE_ARGS(line));
    if (slice_starts(line, SLICE("… and ")))
        return;
    fuzz_check(slice_starts(rest, SLICE(FILE_NAME ":")), "no file: %.*s", SLICE_ARGS(line));
    rest = slice_from(rest, sizeof(FILE_NAME));
    if (rest.len > 0 && rest.ptr[0] >= '0' && rest.ptr[0] <= '9') {
        uint64_t at = take_number(&rest), col = take_number(&rest);
        fuzz_check(at >= 1 && at <= lines + 1 && col >= 1 && col <= bytes + 1, "no such place: %.*s", SLICE_ARGS(line));
    }
    fuzz_check(rest.len > 2 && rest.ptr[0] == ' ', "no words: %.*s", SLICE_ARGS(line));
}

static void check_refused(struct slice errors, struct slice yaml)
{
    fuzz_check(errors.len > 0 && slice_ends(errors, SLICE("\n")), "refused without a word");
    while (errors.len > 0)
        check_place(fuzz_take_until(&errors, '\n'), count_lines(yaml), yaml.len);
}

static void print_again(const struct conf *conf)
{
    struct buf first, second, errors;
    struct conf *again;
    buf_init(&first, 16 * MIB);
    buf_init(&second, 16 * MIB);
    buf_init(&errors, MIB);
    fuzz_check(conf_print(conf, &first) == 0, "print");
    /* Printed names and values may be long enough to pass the limit of a file. */
    if (first.len < 512 * KIB) {
        if (conf_load_text(FILE_NAME, buf_slice(&first), registry_types(), &again, &errors) < 0)
            fuzz_fail("what was printed is refused: %.*s\n%.*s", SLICE_ARGS(buf_slice(&errors)), SLICE_ARGS(buf_slice(&first)));
        fuzz_check(conf_print(again, &second) == 0, "print");
        fuzz_check(slice_eq(buf_slice(&first), buf_slice(&second)), "printed twice:\n%.*s\n----\n%.*s",
                   SLICE_ARGS(buf_slice(&first)), SLICE_ARGS(buf_slice(&second)));
        conf_free(again);
    }
    buf_deinit(&first);
    buf_deinit(&second);
    buf_deinit(&errors);
}

int fuzz_config(const uint8_t *data, size_t size)
{
    struct slice yaml = slice_of(data, size);
    struct buf errors;
    struct conf *conf;
    (void)setenv("FUZZ", "a: b\n- \"c\" # ${FUZZ} $$", 1);
    buf_init(&errors, MIB);
    int r = conf_load_text(FILE_NAME, yaml, registry_types(), &conf, &errors);
    if (r < 0) {
        fuzz_check(r == -EINVAL, "it fails with %d", r);
        check_refused(buf_slice(&errors), yaml);
    } else {
        fuzz_check(errors.len == 0, "taken, with errors");
        for (size_t i = 0; i < conf->warnings.n; i++)
            check_place(conf->warnings.items[i], count_lines(yaml), yaml.len);
        print_again(conf);
        conf_free(conf);
    }
    buf_deinit(&errors);
    return 0;
}
