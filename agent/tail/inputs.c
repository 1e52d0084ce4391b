/* Which paths an input wants. */
#include <errno.h>
#include <stdlib.h>

#include "agent/tail/internal.h"

#define PODS_LOGS SLICE_INIT("/var/log/pods/*/*/*.log")

static int compile_list(struct slices globs, struct pattern ***ret, size_t *ret_n, struct err *err)
{
    if (globs.n == 0)
        return 0;
    *ret = calloc(globs.n, sizeof(**ret));
    if (*ret == NULL)
        return err_set(err, -ENOMEM, "cannot compile patterns");
    for (; *ret_n < globs.n; (*ret_n)++) {
        int r = pattern_parse(globs.items[*ret_n], &(*ret)[*ret_n], err);
        if (r < 0)
            return err_prefix(err, "%.*s", SLICE_ARGS(globs.items[*ret_n]));
    }
    return 0;
}

static void free_list(struct pattern **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pattern_free(list[i]);
    free(list);
}

void inputs_free(struct input_side *inputs, size_t n)
{
    for (size_t i = 0; inputs != NULL && i < n; i++) {
        free_list(inputs[i].include, inputs[i].n_include);
        free_list(inputs[i].exclude, inputs[i].n_exclude);
    }
    free(inputs);
}

/* Our archives: to follow them would feed them for ever. */
static int exclude_own(const struct conf *conf, struct input_side *in, struct err *err)
{
    struct buf glob;
    int r = 0;
    buf_init(&glob, 64 * KIB);
    for (size_t i = 0; r == 0 && i < conf->n_outputs; i++) {
        const struct output_conf *oc = &conf->outputs[i];
        if (oc->type == NULL || oc->type->own_files == NULL)
            continue;
        struct pattern **more = realloc(in->exclude, (in->n_exclude + 1) * sizeof(*more));
        buf_reset(&glob);
        if (more != NULL)
            in->exclude = more;
        r = more == NULL ? -ENOMEM : oc->type->own_files(oc->settings, &glob);
        if (r == 0)
            r = pattern_parse(buf_slice(&glob), &in->exclude[in->n_exclude], NULL);
        if (r == 0)
            in->n_exclude++;
        else
            (void)err_set(err, r, "cannot compile the pattern of the files of outputs.%.*s", SLICE_ARGS(oc->name));
    }
    buf_deinit(&glob);
    return r;
}

int inputs_compile(const struct conf *conf, struct input_side **ret, struct err *err)
{
    static const struct slice PODS = PODS_LOGS;
    struct input_side *in = calloc(MAX(conf->n_inputs, (size_t)1), sizeof(*in));
    int r = in == NULL ? err_set(err, -ENOMEM, "cannot compile patterns") : 0;
    for (size_t i = 0; r == 0 && i < conf->n_inputs; i++) {
        const struct conf_input *ci = &conf->inputs[i];
        struct slices include = ci->include;
        if (include.n == 0 && ci->type == INPUT_KUBERNETES)
            include = (struct slices){ &PODS, 1 };
        r = compile_list(include, &in[i].include, &in[i].n_include, err);
        if (r == 0)
            r = compile_list(ci->exclude, &in[i].exclude, &in[i].n_exclude, err);
        if (r == 0)
            r = exclude_own(conf, &in[i], err);
    }
    if (r < 0) {
        inputs_free(in, conf->n_inputs);
        return r;
    }
    *ret = in;
    return 0;
}

bool inputs_exclude(const struct input_side *in, struct slice path)
{
    for (size_t i = 0; i < in->n_exclude; i++)
        if (pattern_covers(in->exclude[i], path))
            return true;
    return false;
}

int inputs_match(const struct conf *conf, const struct input_side *inputs, struct slice path,
                 struct pair *caps, size_t *n_caps)
{
    for (size_t i = 0; i < conf->n_inputs; i++)
        for (size_t k = 0; k < inputs[i].n_include; k++)
            if (pattern_match(inputs[i].include[k], path, caps, n_caps)) {
                if (inputs_exclude(&inputs[i], path))
                    break;
                return (int)i;
            }
    return -1;
}

int input_of_path(const struct tail *t, struct slice path, struct pair *caps, size_t *n_caps)
{
    return inputs_match(t->conf, t->inputs, path, caps, n_caps);
}

bool is_compressed_name(struct slice path)
{
    static const struct slice ENDS[] = { SLICE_INIT(".gz"), SLICE_INIT(".bz2"), SLICE_INIT(".xz"),
                                         SLICE_INIT(".zst"), SLICE_INIT(".zip") };
    for (size_t i = 0; i < ARRAY_LEN(ENDS); i++)
        if (slice_ends(path, ENDS[i]))
            return true;
    return false;
}

bool path_is_own(const struct tail *t, const char *real)
{
    size_t len = t->state_dir == NULL ? 0 : strlen(t->state_dir);
    return len > 1 && strncmp(real, t->state_dir, len) == 0 && (real[len] == '/' || real[len] == '\0');
}
