#include "outputs/file_series.h"

#include <errno.h>
#include <stdlib.h>

struct file_series {
    char *folder; /* without the last '/' */
    uint64_t hash_of_folder;
    struct chain_hash last;
    int64_t written_ns;
};

static struct slice folder_of(struct slice path)
{
    return slice_first(path, (size_t)MAX(slice_rfind_byte(path, '/'), (ptrdiff_t)0));
}

static struct file_series *find(const struct file_store *s, struct slice folder)
{
    const uint64_t hash = slice_hash(folder);
    for (size_t i = 0; i < s->n_series; i++)
        if (s->series[i]->hash_of_folder == hash && slice_eq(slice_cstr(s->series[i]->folder), folder))
            return s->series[i];
    return NULL;
}

static void free_one(struct file_series *series)
{
    free(series->folder);
    free(series);
}

static void drop_oldest(struct file_store *s)
{
    size_t oldest = 0;
    for (size_t i = 1; i < s->n_series; i++)
        if (s->series[i]->written_ns < s->series[oldest]->written_ns)
            oldest = i;
    free_one(s->series[oldest]);
    s->series[oldest] = s->series[--s->n_series];
}

static struct file_series *add(struct file_store *s, struct slice folder)
{
    if (s->series == NULL && (s->series = calloc(FILE_ENTRIES_MAX, sizeof(struct file_series *))) == NULL)
        return NULL;
    struct file_series *series = calloc(1, sizeof(*series));
    if (series == NULL || (series->folder = slice_dup(folder)) == NULL) {
        free(series);
        return NULL;
    }
    series->hash_of_folder = slice_hash(folder);
    if (s->n_series == FILE_ENTRIES_MAX)
        drop_oldest(s);
    s->series[s->n_series++] = series;
    return series;
}

struct file_series *file_series_get(struct file_store *s, struct slice path)
{
    struct file_series *series = find(s, folder_of(path));
    return series != NULL ? series : add(s, folder_of(path));
}

void file_series_wrote(struct file_series *series, const struct chain_hash *hash, int64_t written_ns)
{
    series->last = *hash;
    series->written_ns = written_ns;
}

const struct chain_hash *file_series_last(const struct file_series *series)
{
    return &series->last;
}

int file_series_load(void *ctx, const struct file_journal_series *from)
{
    struct file_store *s = ctx;
    if (!s->conf.chain)
        return 0; /* switched off: forgotten by the next snapshot */
    struct file_series *series = find(s, from->folder);
    if (series == NULL)
        series = add(s, from->folder);
    if (series == NULL)
        return -ENOMEM;
    file_series_wrote(series, &from->last, from->written_ns);
    return 0;
}

int file_series_put_all(const struct file_store *s, struct buf *out)
{
    int r = 0;
    for (size_t i = 0; i < s->n_series && r == 0; i++)
        r = file_journal_put_series(out, &(struct file_journal_series){ .folder = slice_cstr(s->series[i]->folder),
                                                                        .last = s->series[i]->last,
                                                                        .written_ns = s->series[i]->written_ns });
    return r;
}

void file_series_free_all(struct file_store *s)
{
    for (size_t i = 0; i < s->n_series; i++)
        free_one(s->series[i]);
    free(s->series);
    s->series = NULL;
    s->n_series = 0;
}
