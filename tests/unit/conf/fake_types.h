/* Two types of output that have a setting of every kind, for the tests of conf/. */
#ifndef TAILRACE_TESTS_FAKE_TYPES_H
#define TAILRACE_TESTS_FAKE_TYPES_H

#include <errno.h>

#include "conf/conf.h"

struct fake_settings {
    struct slice text, secret;
    bool flag;
    int64_t number;
    uint64_t size;
    int64_t duration;
    int choice;
    struct template *template;
    struct template_map labels;
    struct slices list;
    struct pairs map;
    struct {
        struct template *inner;
        int64_t depth;
    } nested;
};

#define F(field) offsetof(struct fake_settings, field)
static const char *const fake_choices[] = { "original", "enriched", NULL };

static const struct setting fake_nested[] = {
    { .key = "inner",
      .type = SETTING_TEMPLATE,
      .offset = F(nested.inner),
      .is_required = true,
      .help = "a template" },
    { .key = "depth", .type = SETTING_INT, .offset = F(nested.depth), .def = "3", .min = -5, .max = 5 },
    SETTING_END,
};

static const struct setting fake_settings_table[] = {
    { .key = "text", .type = SETTING_STRING, .offset = F(text), .def = "plain text" },
    { .key = "secret", .type = SETTING_STRING, .offset = F(secret), .is_secret = true },
    { .key = "flag", .type = SETTING_BOOL, .offset = F(flag), .def = "true" },
    { .key = "number", .type = SETTING_INT, .offset = F(number), .def = "7", .min = 1 },
    { .key = "size", .type = SETTING_SIZE, .offset = F(size), .def = "256KiB", .min = 1024, .max = 1 << 20 },
    { .key = "duration",
      .type = SETTING_DURATION,
      .offset = F(duration),
      .def = "168h",
      .max = 365 * 86400 * NS_PER_SEC },
    { .key = "choice",
      .type = SETTING_ENUM,
      .offset = F(choice),
      .def = "enriched",
      .choices = fake_choices },
    { .key = "template", .type = SETTING_TEMPLATE, .offset = F(template), .def = "\"{tenant}-%Y\"" },
    { .key = "labels",
      .type = SETTING_TEMPLATES,
      .offset = F(labels),
      .def = "{ a: \"{pod}\", b: \"{record.b}\" }" },
    { .key = "list", .type = SETTING_STRINGS, .offset = F(list), .def = "[x, y]" },
    { .key = "map", .type = SETTING_STRING_MAP, .offset = F(map) },
    { .key = "nested", .type = SETTING_SECTION, .section = fake_nested },
    SETTING_END,
};

static inline int fake_validate(struct output_conf *conf, void (*warn)(void *ctx, const char *text),
                                void *ctx, struct err *err)
{
    const struct fake_settings *set = conf->settings;
    if (template_is_constant(set->template)) /* real types look at their templates: there must be one */
        warn(ctx, "template: is the same for every record");
    if (slice_eq(set->text, SLICE("refuse me")))
        return err_say(err, -EINVAL, "text: expected something else");
    if (slice_eq(set->text, SLICE("warn me")))
        warn(ctx, "text: asks for a warning");
    return 0;
}

static const struct output_type fake_types[] = {
    { .name = "web",
      .is_http = true,
      .settings = fake_settings_table,
      .settings_size = sizeof(struct fake_settings),
      .validate = fake_validate },
    { .name = "local" },
    { .name = NULL },
};

/* One input and one output, to which a test adds what it is about. */
#define FAKE_INPUT "inputs: { i: { type: file, include: /var/log/a.log } }\n"
#define FAKE_OUTPUT "outputs: { o: { type: local } }\n"

#endif
