/*
 * Goal: loggers' level words and numbers, and level directives that decide as tracing-subscriber's EnvFilter
 * does wherever one of them covers the module. Method: tables; and, when TAILRACE_LEVELS_CRATE names the
 * program of tests/levels-crate, random specs whose every decision is compared with the crate's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/level.h"

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum level want;
    } cases[] = {
        { "trace", LEVEL_TRACE },
        { "TRACE", LEVEL_TRACE },
        { "Verbose", LEVEL_TRACE },
        { "fine", LEVEL_TRACE },
        { "FINEST", LEVEL_TRACE },
        { "debug", LEVEL_DEBUG },
        { "DEBUG-4", LEVEL_TRACE },
        { "DEBUG+2", LEVEL_DEBUG },
        { "Info", LEVEL_INFO },
        { "INFO+2", LEVEL_INFO },
        { "INFO-1", LEVEL_DEBUG },
        { "Information", LEVEL_INFO },
        { "notice", LEVEL_INFO },
        { "DEFAULT", LEVEL_INFO },
        { "WARN", LEVEL_WARN },
        { "warning", LEVEL_WARN },
        { "WARN+3", LEVEL_WARN },
        { "ERROR", LEVEL_ERROR },
        { "err", LEVEL_ERROR },
        { "SEVERE", LEVEL_ERROR },
        { "ERROR+4", LEVEL_FATAL },
        { "fatal", LEVEL_FATAL },
        { "CRITICAL", LEVEL_FATAL },
        { "crit", LEVEL_FATAL },
        { "panic", LEVEL_FATAL },
        { "dpanic", LEVEL_FATAL },
        { "alert", LEVEL_FATAL },
        { "emerg", LEVEL_FATAL },
        { "emergency", LEVEL_FATAL },
        { "I", LEVEL_INFO },
        { "W", LEVEL_WARN },
        { "E", LEVEL_ERROR },
        { "F", LEVEL_FATAL },
        { "D", LEVEL_DEBUG },
        { " info ", LEVEL_INFO },
        { "", LEVEL_UNKNOWN },
        { "inf", LEVEL_UNKNOWN },
        { "infos", LEVEL_UNKNOWN },
        { "INFO+", LEVEL_UNKNOWN },
        { "INFO+x", LEVEL_UNKNOWN },
        { "+2", LEVEL_UNKNOWN },
        { "off", LEVEL_UNKNOWN },
        { "unknown", LEVEL_UNKNOWN },
        { "notset", LEVEL_UNKNOWN },
        { "INFO+99999999999999999", LEVEL_UNKNOWN },
        { "informationinformationinformation", LEVEL_UNKNOWN },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum level got = level_from_name(slice_cstr(cases[i].name));
        if (got != cases[i].want)
            fail_msg("\"%s\" is %s", cases[i].name, level_name(got).ptr);
    }
    assert_int_equal(level_from_name(slice_of("info\0", 5)), LEVEL_UNKNOWN);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        enum level want;
    } cases[] = {
        { 10, LEVEL_TRACE },          { 20, LEVEL_DEBUG },      { 30, LEVEL_INFO },
        { 35, LEVEL_INFO },           { 40, LEVEL_WARN },       { 50, LEVEL_ERROR },
        { 60, LEVEL_FATAL },          { 70, LEVEL_FATAL },      { 9, LEVEL_UNKNOWN },
        { 0, LEVEL_UNKNOWN },         { -30, LEVEL_UNKNOWN },   { 100, LEVEL_UNKNOWN },
        { 4999, LEVEL_UNKNOWN },      { 5000, LEVEL_TRACE },    { 10000, LEVEL_DEBUG },
        { 20000, LEVEL_INFO },        { 30000, LEVEL_WARN },    { 40000, LEVEL_ERROR },
        { 50000, LEVEL_FATAL },       { 50001, LEVEL_UNKNOWN }, { INT64_MAX, LEVEL_UNKNOWN },
        { INT64_MIN, LEVEL_UNKNOWN },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(level_from_number(cases[i].n), cases[i].want);

    static const enum level severities[] = { LEVEL_FATAL, LEVEL_FATAL, LEVEL_FATAL, LEVEL_ERROR,
                                             LEVEL_WARN,  LEVEL_INFO,  LEVEL_INFO,  LEVEL_DEBUG };
    for (int i = 0; i < 8; i++)
        assert_int_equal(level_from_severity(i), severities[i]);
    assert_int_equal(level_from_severity(8), LEVEL_UNKNOWN);
    assert_int_equal(level_from_severity(-1), LEVEL_UNKNOWN);
}

static void thresholds(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *module;
        enum level want; /* LEVEL_UNKNOWN: no directive covers it */
    } cases[] = {
        { "", "a", LEVEL_UNKNOWN },
        { ",,", "a", LEVEL_UNKNOWN },
        { "info", "a", LEVEL_INFO },
        { "info", "", LEVEL_INFO },
        { "INFO", "a", LEVEL_INFO },
        { "0", "a", LEVEL_OFF },
        { "1", "a", LEVEL_ERROR },
        { "5", "a", LEVEL_TRACE },
        { "003", "a", LEVEL_INFO },
        { "a=+3", "a", LEVEL_INFO },
        { "6", "6six", LEVEL_TRACE }, /* not a level, so a module */
        { "warning", "a", LEVEL_WARN },
        { "notice", "a", LEVEL_INFO },
        { "critical", "a", LEVEL_FATAL },
        { "a=fatal", "a", LEVEL_FATAL },
        { "app", "app::x", LEVEL_TRACE },
        { "app", "apple", LEVEL_TRACE }, /* plain prefix */
        { "app", "ap", LEVEL_UNKNOWN },
        { "app=", "app", LEVEL_TRACE },
        { "app=oFf", "app", LEVEL_OFF },
        { "off,kmb=debug", "kmb", LEVEL_DEBUG },
        { "off,kmb=debug", "other", LEVEL_OFF },
        { "info,hyper=warn,hyper::proto=off", "hyper::proto::h1", LEVEL_OFF },
        { "hyper::proto=off,hyper=warn,info", "hyper::client", LEVEL_WARN },
        { "a=info,a=debug", "a", LEVEL_DEBUG }, /* the later one */
        { "info,warn,error", "a", LEVEL_ERROR },
        { "registry.api=off,info", "registry.api.v1", LEVEL_OFF },
        { " info", "a", LEVEL_UNKNOWN }, /* the module " info", as EnvFilter has it */
        { "foo bar=info", "foo bar", LEVEL_INFO },
        { "-x=info,:y=warn,_z=error", ":y", LEVEL_WARN },
        { "caf\xc3\xa9=warn", "caf\xc3\xa9::x", LEVEL_WARN },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct levels *l = NULL;
        struct err err = { 0 };
        if (levels_parse(slice_cstr(cases[i].spec), &l, &err) < 0)
            fail_msg("\"%s\" is refused: %s", cases[i].spec, err.text);
        enum level got = levels_threshold(l, slice_cstr(cases[i].module));
        if (got != cases[i].want)
            fail_msg("\"%s\" for \"%s\" is %s", cases[i].spec, cases[i].module, level_name(got).ptr);
        assert_true(slice_eq(levels_text(l), slice_cstr(cases[i].spec)));
        levels_free(l);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *words;
    } cases[] = {
        { "a=lots", "\"lots\" is not a level" },
        { "a=6", "is not a level" },
        { "a=info=debug", "is not a level" },
        { "=info", "expected a level" },
        { "info,*=debug", "expected a level" },
        { "info, a=debug", "blanks" },
        { "a=debug ", "blanks" },
        { " ", "blank" },
        { "info, ", "blank" },
        { "[span]=info", "spans" },
        { "app[span]=info", "spans" },
        { "app[{user}]=info", "spans" },
        { "app{user}=info", "fields" },
        { "[{a,b}]=info", "spans" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct levels *l = NULL;
        struct err err = { 0 };
        assert_int_equal(levels_parse(slice_cstr(cases[i].spec), &l, &err), -22);
        assert_null(l);
        if (strstr(err.text, cases[i].words) == NULL)
            fail_msg("\"%s\" says: %s", cases[i].spec, err.text);
        assert_int_equal(levels_parse(slice_cstr(cases[i].spec), &l, NULL), -22);
    }
}

static struct levels *parsed(const char *spec)
{
    struct levels *l = NULL;
    assert_int_equal(levels_parse(slice_cstr(spec), &l, NULL), 0);
    return l;
}

static void what_nobody_spoke_of_is_kept(void **state)
{
    (void)state;
    struct levels *l = parsed("a=warn,b=off");
    assert_true(levels_keep(l, LEVEL_TRACE, SLICE("c"))); /* no directive covers it */
    assert_true(levels_keep(l, LEVEL_TRACE, SLICE("")));
    assert_true(levels_keep(l, LEVEL_UNKNOWN, SLICE("a"))); /* a panic has no level */
    assert_false(levels_keep(l, LEVEL_UNKNOWN, SLICE("b")));
    assert_false(levels_keep(l, LEVEL_FATAL, SLICE("b")));
    assert_false(levels_keep(l, LEVEL_INFO, SLICE("a")));
    assert_true(levels_keep(l, LEVEL_WARN, SLICE("a")));
    assert_true(levels_keep(l, LEVEL_FATAL, SLICE("a")));
    assert_false(levels_has_bare(l));
    assert_true(levels_keep(NULL, LEVEL_TRACE, SLICE("a")));
    assert_false(levels_has_bare(NULL));
    assert_false(levels_drops_all(NULL, LEVEL_TRACE));
    assert_int_equal(levels_threshold(NULL, SLICE("a")), LEVEL_UNKNOWN);
    levels_free(l);
    levels_free(NULL);
}

static void drops_all(void **state)
{
    (void)state;
    struct levels *l = parsed("info,a=warn");
    assert_true(levels_drops_all(l, LEVEL_DEBUG));
    assert_false(levels_drops_all(l, LEVEL_INFO)); /* in other modules it is kept */
    assert_false(levels_drops_all(l, LEVEL_UNKNOWN));
    assert_true(levels_has_bare(l));
    levels_free(l);

    l = parsed("a=off"); /* nothing bare: other modules are kept */
    assert_false(levels_drops_all(l, LEVEL_TRACE));
    levels_free(l);

    l = parsed("off");
    assert_true(levels_drops_all(l, LEVEL_FATAL));
    assert_true(levels_drops_all(l, LEVEL_UNKNOWN));
    levels_free(l);

    l = parsed("");
    assert_false(levels_drops_all(l, LEVEL_TRACE));
    levels_free(l);
}

static void directives_are_quoted(void **state)
{
    (void)state;
    struct levels *l = parsed("info,hyper=warn,Hyper");
    assert_true(slice_eq(levels_directive(l, SLICE("hyper::x")), SLICE("hyper=warn")));
    assert_true(slice_eq(levels_directive(l, SLICE("x")), SLICE("info")));
    assert_true(slice_eq(levels_directive(l, SLICE("Hyper")), SLICE("Hyper")));
    levels_free(l);
    l = parsed("a=info");
    assert_int_equal(levels_directive(l, SLICE("b")).len, 0);
    levels_free(l);
}

/* ---- against the crate
 * ------------------------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;
static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % n;
}

static const char *const words[] = { "app",      "app::db", "app::db::pool",
                                     "appl",     "hyper",   "hyper::proto",
                                     "h",        "a-b",     "registry.api",
                                     "registry", "_x",      ":y",
                                     "X",        "App",     "6",
                                     "-",        "7seven" };
static const char *const level_words[] = { "off",   "error", "warn", "info",  "debug", "trace", "OFF",
                                           "Error", "WARN",  "Info", "dEbUg", "TRACE", "0",     "1",
                                           "2",     "3",     "4",    "5",     "03" };
static const char *const odd_words[] = { "",     " ",     "  ",    "6",        "99999999999999999999",
                                         "lots", "info ", " info", "\xc3\xa9", "*",
                                         "=",    "==",    "a b",   "+3",       "-1",
                                         "(",    "/",     "info=", "." };

static const char *pick(const char *const *from, size_t n)
{
    return from[below((unsigned)n)];
}

static void random_directive(char *to, size_t cap)
{
    unsigned dice = below(100);
    const char *word = pick(words, ARRAY_LEN(words)), *level = pick(level_words, ARRAY_LEN(level_words));
    const char *odd = pick(odd_words, ARRAY_LEN(odd_words));
    if (dice < 20)
        (void)snprintf(to, cap, "%s", level);
    else if (dice < 30)
        (void)snprintf(to, cap, "%s", word);
    else if (dice < 36)
        (void)snprintf(to, cap, "%s=", word);
    else if (dice < 90)
        (void)snprintf(to, cap, "%s=%s", word, level);
    else if (dice < 93)
        (void)snprintf(to, cap, "%s", odd);
    else if (dice < 96)
        (void)snprintf(to, cap, "%s=%s", word, odd);
    else if (dice < 98)
        (void)snprintf(to, cap, "%s=%s", odd, level);
    else
        (void)snprintf(to, cap, " %s=%s ", word, level);
}

static void random_spec(char *to, size_t cap)
{
    size_t len = 0;
    for (unsigned n = 1 + below(6); n > 0; n--) {
        char directive[64];
        random_directive(directive, sizeof(directive));
        len += (size_t)snprintf(to + len, cap - len, "%s%s", len > 0 ? "," : "", directive);
    }
}

#define SPECS 1000
static const char *const modules[] = { "app",
                                       "app::db",
                                       "app::db::pool::x",
                                       "apple",
                                       "hyper::proto::h1",
                                       "hyper",
                                       "registry.api.v1",
                                       "registry",
                                       "x",
                                       "X",
                                       "App",
                                       "a-b",
                                       "_xy",
                                       ":y",
                                       "6six",
                                       "6",
                                       "-",
                                       "",
                                       " info",
                                       "info",
                                       "a b",
                                       "\xc3\xa9t\xc3\xa9",
                                       "7seven" };
static const struct {
    const char *name;
    enum level level;
} record_levels[] = { { "trace", LEVEL_TRACE },
                      { "debug", LEVEL_DEBUG },
                      { "info", LEVEL_INFO },
                      { "warn", LEVEL_WARN },
                      { "error", LEVEL_ERROR } };

/* The crate's word on one line: it has no rule for uncovered modules but silence, which is where we differ.
 */
static void compare(const char *spec, const char *module, enum level level, char crate)
{
    struct levels *l = NULL;
    int r = levels_parse(slice_cstr(spec), &l, NULL);
    if ((r < 0) != (crate == 'E'))
        fail_msg("\"%s\": we say %d, the crate %c", spec, r, crate);
    if (r < 0)
        return;
    bool is_covered = levels_threshold(l, slice_cstr(module)) != LEVEL_UNKNOWN;
    bool kept = levels_keep(l, level, slice_cstr(module));
    bool agree = is_covered ? kept == (crate == '1') : kept && crate == '0';
    if (!agree)
        fail_msg("\"%s\" for \"%s\" at %s: kept %d, covered %d, the crate %c", spec, module,
                 level_name(level).ptr, kept, is_covered, crate);
    levels_free(l);
}

static void agrees_with_the_crate(void **state)
{
    (void)state;
    /* Without the crate its answers of another day, for the specs of the first seed:
     * TAILRACE_LEVELS_KEEP=FILE keeps those of a run, gzip -9 makes them the golden file. */
    const char *crate = getenv("TAILRACE_LEVELS_CRATE"), *keep = getenv("TAILRACE_LEVELS_KEEP");
    const char *given = crate == NULL || *crate == '\0' ? NULL : getenv("TAILRACE_SEED");
    if (given != NULL)
        seed = strtoull(given, NULL, 10) * 2 + 1;

    char in_path[] = "/tmp/tailrace-levels-XXXXXX";
    int fd = mkstemp(in_path);
    assert_true(fd >= 0);
    FILE *in = fdopen(fd, "w");
    static char specs[SPECS][512];
    for (size_t s = 0; s < SPECS; s++) {
        random_spec(specs[s], sizeof(specs[s]));
        for (size_t m = 0; m < ARRAY_LEN(modules); m++)
            for (size_t i = 0; i < ARRAY_LEN(record_levels); i++)
                fprintf(in, "%s\t%s\t%s\n", specs[s], modules[m], record_levels[i].name);
    }
    assert_int_equal(fclose(in), 0);

    char command[4096];
    if (crate == NULL || *crate == '\0')
        (void)snprintf(command, sizeof(command), "gzip -dc tests/golden/levels.answers.gz");
    else
        (void)snprintf(command, sizeof(command), "'%s' < %s | tee %s", crate, in_path,
                       keep != NULL ? keep : "/dev/null");
    FILE *out = popen(command, "r");
    assert_non_null(out);
    size_t refused_specs = 0;
    for (size_t s = 0; s < SPECS; s++) {
        int answer = 0;
        for (size_t m = 0; m < ARRAY_LEN(modules); m++)
            for (size_t i = 0; i < ARRAY_LEN(record_levels); i++) {
                answer = fgetc(out);
                assert_true(answer == '0' || answer == '1' || answer == 'E');
                assert_int_equal(fgetc(out), '\n');
                compare(specs[s], modules[m], record_levels[i].level, (char)answer);
            }
        refused_specs += answer == 'E';
    }
    assert_int_equal(pclose(out), 0);
    (void)unlink(in_path);
    print_message("%d specs, %zu of them refused by both, agree with the crate\n", SPECS, refused_specs);
    assert_true(refused_specs < SPECS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(numbers),
        cmocka_unit_test(thresholds),
        cmocka_unit_test(refused),
        cmocka_unit_test(what_nobody_spoke_of_is_kept),
        cmocka_unit_test(drops_all),
        cmocka_unit_test(directives_are_quoted),
        cmocka_unit_test(agrees_with_the_crate),
    };
    return cmocka_run_group_tests_name("base/level", tests, NULL, NULL);
}
