/*
 * Goal: the text of a .gz reads like a plain file, forward and back, and damage ends it without harm.
 * Method: files made by zlib, in one member and in several, cut at every byte, and with every byte changed.
 */
#include "world.h"

#include "agent/tail/gz.h"

static char text[20000];

static size_t make(struct world *w, const char *name, int members)
{
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + (i * i + i / 7) % 26);
    size_t each = sizeof(text) / (size_t)members;
    for (int m = 0; m < members; m++) {
        gzFile out = gzopen(w_path(w, name), m == 0 ? "wb" : "ab");
        assert_non_null(out);
        assert_int_equal(each, gzwrite(out, text + each * (size_t)m, (unsigned)each));
        assert_int_equal(Z_OK, gzclose(out));
    }
    return each * (size_t)members;
}

static void test_reads_anywhere(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    for (int members = 1; members <= 3; members++) {
        size_t len = make(w, "x.gz", members);
        int fd = open(w_path(w, "x.gz"), O_RDONLY | O_CLOEXEC);
        struct gz *gz;
        char *raw = malloc(sizeof(text) + 10);
        assert_int_equal(0, gz_open(fd, &gz));
        static const size_t places[] = { 0, 1, 4095, 4096, 10000, 5, 0, 19000 };
        for (size_t i = 0; i < ARRAY_LEN(places); i++) {
            ssize_t n = gz_pread(gz, raw, sizeof(text) + 10, places[i]);
            assert_int_equal(len - places[i], n);
            assert_memory_equal(text + places[i], raw, (size_t)n);
            assert_true(gz_is_whole(gz));
        }
        assert_int_equal(0, gz_pread(gz, raw, 10, len));
        assert_int_equal(0, gz_pread(gz, raw, 10, len + 1000));
        gz_close(gz);
        close(fd);
        free(raw);
    }
    world_free(w);
}

static void test_cut_and_changed(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    (void)make(w, "x.gz", 1);
    char gzipped[20000], *raw = malloc(sizeof(text));
    int in = open(w_path(w, "x.gz"), O_RDONLY | O_CLOEXEC);
    ssize_t size = read(in, gzipped, sizeof(gzipped));
    close(in);
    assert_true(size > 100);
    for (ssize_t cut = 0; cut < size; cut += cut < 40 || cut > size - 40 ? 1 : 97) {
        int fd = memfd_create("cut", MFD_CLOEXEC);
        struct gz *gz;
        assert_int_equal(cut, write(fd, gzipped, (size_t)cut));
        assert_int_equal(0, gz_open(fd, &gz));
        ssize_t n = gz_pread(gz, raw, sizeof(text), 0);
        assert_true(n >= 0);
        assert_memory_equal(text, raw, (size_t)n);
        assert_false(gz_is_whole(gz));
        /* What is missing comes: the reader goes on. */
        assert_int_equal(size - cut, pwrite(fd, gzipped + cut, (size_t)(size - cut), cut));
        ssize_t m = gz_pread(gz, raw, sizeof(text), (uint64_t)n);
        assert_int_equal((ssize_t)sizeof(text) - n, m);
        assert_int_equal(0, gz_pread(gz, raw, 1, sizeof(text)));
        assert_true(gz_is_whole(gz));
        gz_close(gz);
        close(fd);
    }
    for (ssize_t at = 0; at < size; at += 31) {
        int fd = memfd_create("changed", MFD_CLOEXEC);
        struct gz *gz;
        assert_int_equal(size, write(fd, gzipped, (size_t)size));
        char c = (char)(gzipped[at] ^ 0x55);
        assert_int_equal(1, pwrite(fd, &c, 1, at));
        assert_int_equal(0, gz_open(fd, &gz));
        ssize_t n = gz_pread(gz, raw, sizeof(text), 0);
        assert_true(n == -EBADMSG || n >= 0);
        gz_close(gz);
        close(fd);
    }
    free(raw);
    world_free(w);
}

static void test_not_gzip(void **state)
{
    (void)state;
    int fd = memfd_create("text", MFD_CLOEXEC);
    struct gz *gz;
    char raw[64];
    assert_int_equal(10, write(fd, "not a gzip", 10));
    assert_int_equal(0, gz_open(fd, &gz));
    assert_int_equal(-EBADMSG, gz_pread(gz, raw, sizeof(raw), 0));
    gz_close(gz);
    gz_close(NULL);
    close(fd);
}

/* As tapes and block devices leave them; other bytes behind a member are damage. */
static void test_padding(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    size_t len = make(w, "x.gz", 1);
    char *raw = malloc(sizeof(text));
    static const struct {
        const char *bytes;
        size_t n;
        bool is_good;
    } behind[] = { { "\0", 1, true }, { "\0\0\0\0\0\0\0\0", 8, true }, { "words", 5, false } };
    for (size_t i = 0; i < ARRAY_LEN(behind); i++) {
        int in = open(w_path(w, "x.gz"), O_RDWR | O_CLOEXEC), fd = memfd_create("padded", MFD_CLOEXEC);
        char gzipped[20000];
        struct gz *gz;
        ssize_t size = read(in, gzipped, sizeof(gzipped));
        close(in);
        assert_int_equal(size, write(fd, gzipped, (size_t)size));
        assert_int_equal(behind[i].n, write(fd, behind[i].bytes, behind[i].n));
        assert_int_equal(0, gz_open(fd, &gz));
        ssize_t n = gz_pread(gz, raw, sizeof(text), 0);
        assert_int_equal(len, n);
        assert_memory_equal(text, raw, (size_t)n);
        n = gz_pread(gz, raw, 10, len);
        assert_int_equal(n, behind[i].is_good ? 0 : -EBADMSG);
        gz_close(gz);
        close(fd);
    }
    free(raw);
    world_free(w);
}

/* CRC and length at the end are for whoever compares; a file too short to have them has none. */
static void test_trailer(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    size_t len = make(w, "x.gz", 1);
    struct stat st;
    uint32_t crc = 0, said = 0;
    int fd = open(w_path(w, "x.gz"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(0, fstat(fd, &st));
    assert_int_equal(0, gz_trailer(fd, (uint64_t)st.st_size, &crc, &said));
    assert_int_equal(said, len);
    assert_int_equal(crc, crc32(0, (const unsigned char *)text, (unsigned)len));
    for (uint64_t size = 0; size < 18; size++)
        assert_int_equal(-EBADMSG, gz_trailer(fd, size, &crc, &said));
    assert_int_equal(-EBADMSG, gz_trailer(fd, (uint64_t)st.st_size + 100, &crc, &said)); /* cut since */
    assert_true(gz_trailer(-1, 100, &crc, &said) < 0);
    close(fd);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_anywhere),
        cmocka_unit_test(test_cut_and_changed),
        cmocka_unit_test(test_not_gzip),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_trailer),
    };
    return cmocka_run_group_tests_name("tail/gz", tests, NULL, NULL);
}
