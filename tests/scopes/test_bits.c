/*
 * Goal: one bad bit anywhere in a queue's folder costs at most the frame it stands in, is counted exactly, and open ends
 * soon. Method: the folder of folder.h; every bit of every file is flipped, one at a time, and the queue lives through it.
 */
#include "tests/scopes/folder.h"

static struct scope s;
static struct map map;
static char files[32][96];
static size_t n_files;
static char current_dir[64];

static void add_file(void *ctx, const char *name)
{
    (void)ctx;
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/%s", current_dir, name);
    struct stat st;
    assert_int_equal(fs_current()->stat(AT_FDCWD, path, &st, false), 0);
    if (S_ISREG(st.st_mode))
        memcpy(files[n_files++], path, sizeof(path));
}

static void list_files(void)
{
    static const char *const dirs[] = { DIR, DIR "/dead", DIR "/parked", DIR "/quarantine" };
    n_files = 0;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        (void)snprintf(current_dir, sizeof(current_dir), "%s", dirs[i]);
        assert_int_equal(disk_each(s.d, dirs[i], add_file, NULL), 0);
    }
}

/* What a bit in this place may cost. */
struct cost {
    unsigned first, last; /* these lines may be lost */
    bool may_repeat;      /* lines that were done may come out again */
    bool is_dead_letter;  /* the letter may be gone */
};

static struct cost cost_of(const char *path, const struct piece *p)
{
    struct cost c = { .first = 1, .last = 0 };
    if (path_is(path, "/cursor")) {
        c.may_repeat = true; /* from where the other slot stands */
    } else if (path_is(path, "/dead/")) {
        c.is_dead_letter = true;
    } else if (p != NULL && p->first != 0) {
        c.first = p->first;
        c.last = p->last;
    }
    return c;
}

/* The first few mistakes of each place are told; all fail the test at the end. */
static unsigned n_mistakes;

static void mistake(const struct piece *p, const char *where, const char *what, uint64_t n)
{
    static const struct piece *told[16];
    size_t i = 0;
    n_mistakes++;
    while (i < ARRAY_LEN(told) && told[i] != NULL && told[i] != p)
        i++;
    if (i == ARRAY_LEN(told) || (told[i] == p && n_mistakes > 4))
        return;
    told[i] = p;
    print_error("%s: %s %llu\n", where, what, (unsigned long long)n);
}

static void check(const char *path, uint64_t off, unsigned bit, const struct account *a)
{
    const struct piece *p = map_at(&map, path, off);
    struct cost c = cost_of(path, p);
    uint64_t out = 0, done = 0;
    char where[160];
    (void)snprintf(where, sizeof(where), "%s byte %llu bit %u (type %d at %llu)", path, (unsigned long long)off, bit,
                   p == NULL || !p->is_frame ? -1 : p->h.type, p == NULL ? 0 : (unsigned long long)p->off);
    for (unsigned n = 1; n <= FOLDER_LINES; n++) {
        if (a->out[n] > (folder_is_done(n) && !c.may_repeat ? 0u : 1u))
            mistake(p, where, "came out twice, or although it was done: line", n);
        done += folder_is_done(n) && a->out[n] == 0;
        out += a->out[n];
        bool may_miss = folder_is_done(n) || (n >= c.first && n <= c.last) || n == 4;
        if (a->out[n] == 0 && !may_miss)
            mistake(p, where, "is gone: line", n);
    }
    uint64_t total = out + done + a->lost + a->dead + (c.is_dead_letter && a->dead == 0);
    if (total != FOLDER_LINES)
        mistake(p, where, "all lines that are done, came out, are dead or counted as lost:", total);
}

static void flip(const char *path, uint64_t off, unsigned bit)
{
    uint8_t byte;
    assert_int_equal(disk_read(s.d, path, &byte, 1, off), 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(disk_poke(s.d, path, off, &byte, 1), 0);
}

static void every_bit(void **state)
{
    (void)state;
    scope_init(&s, 7);
    folder_make(&s);
    map_make(&map, s.d);
    list_files();
    struct disk_image *im = disk_image_take(s.d);
    struct account a;
    scope_live(&s, FOLDER_LINES, &a);
    check("nothing", 0, 0, &a);
    assert_int_equal(a.lost, 0);
    assert_int_equal(a.dead, 1);
    uint64_t i = 0, n = 0;
    for (size_t f = 0; f < n_files; f++) {
        disk_image_put(s.d, im);
        uint64_t size = (uint64_t)disk_size(s.d, files[f]);
        for (uint64_t bit = 0; bit < size * 8; bit++, i++) {
            if (scope_skips(i, 97))
                continue;
            disk_image_put(s.d, im);
            flip(files[f], bit / 8, (unsigned)(bit % 8));
            scope_live(&s, FOLDER_LINES, &a);
            check(files[f], bit / 8, (unsigned)(bit % 8), &a);
            n++;
        }
    }
    print_message("%llu bits of %zu files\n", (unsigned long long)n, n_files);
    assert_int_equal(n_mistakes, 0);
    disk_image_free(im);
    scope_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_bit) };
    return cmocka_run_group_tests_name("scopes/bits", tests, NULL, NULL);
}
