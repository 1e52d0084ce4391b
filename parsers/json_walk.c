/*
 * json_walk.c - a line as loggers write them, read in one pass without yajl: strings by 16 bytes at a time,
 * no table, no call back for what nobody wants. It takes JSON strictly as RFC 8259 has it and gives up at the
 * first byte it is not sure of; yajl, the reference, then reads the line from its start.
 * tests/unit/parsers/test_json.c holds both together on random and broken lines, tests/fuzz on whatever a
 * fuzzer finds.
 *
 * The line ends with a brace, or is left to yajl at once: so every scan for "the next byte that is not X"
 * stops inside it, and only strings look at the end.
 */
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "parsers/json_events.h"

struct walk {
    const char *at, *end;
    unsigned high; /* not 0: bytes beyond ASCII were near, UTF-8 is to be checked */
};

/* Loggers write the same few keys in every line. What was looked up once is kept here by the key's own bytes, so that a
 * key of up to 15 of them costs one comparison. */
#define KNOWN_KEYS 128
#define KNOWN_BYTES 16

struct known_key {
    char text[KNOWN_BYTES]; /* zeros behind it: no key holds one */
    bool is_used;
    struct json_key key;
};

struct json_shape {
    struct known_key known[KNOWN_KEYS];
};

struct json_shape *json_shape_new(void)
{
    return calloc(1, sizeof(struct json_shape));
}

/* ---- tokens
 * ---------------------------------------------------------------------------------------------------------
 */

static inline bool is_string_end(unsigned char c)
{
    return c == '"' || c == '\\' || c < 0x20;
}

#ifdef __SSE2__
/* The bits of the quotes, backslashes and control bytes in v. */
static inline unsigned string_ends(__m128i v)
{
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    __m128i ends = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)),
                                _mm_cmpeq_epi8(_mm_min_epu8(v, control), v));
    return (unsigned)_mm_movemask_epi8(ends);
}
#endif

/* From p to the next quote, backslash or control byte; w->end when there is none. */
static inline const char *string_run(struct walk *w, const char *p)
{
#ifdef __SSE2__
    for (; w->end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned ends = string_ends(v);
        w->high |= (unsigned)_mm_movemask_epi8(v);
        if (ends != 0)
            return p + __builtin_ctz(ends);
    }
#endif
    for (; p < w->end && !is_string_end((unsigned char)*p); p++)
        w->high |= (unsigned char)*p & 0x80;
    return p;
}

static inline bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* p behind a backslash; behind the escape, or NULL. */
static const char *escape_end(const struct walk *w, const char *p)
{
    if (w->end - p < 6) /* an escape, a quote, a brace: the shortest line has no room for \uXXXX here */
        return p < w->end && *p != 'u' && memchr("\"\\/bfnrt", *p, 8) != NULL ? p + 1 : NULL;
    if (*p != 'u')
        return memchr("\"\\/bfnrt", *p, 8) != NULL ? p + 1 : NULL;
    return is_hex(p[1]) && is_hex(p[2]) && is_hex(p[3]) && is_hex(p[4]) ? p + 5 : NULL;
}

/* w->at on the opening quote; then behind the closing one. */
static inline bool take_string(struct walk *w, struct json_text *ret_text)
{
    const char *start = w->at + 1, *p = start;
    bool is_escaped = false;
    for (;;) {
        p = string_run(w, p);
        if (p == w->end)
            return false;
        if (*p == '"')
            break;
        p = *p == '\\' ? escape_end(w, p + 1) : NULL;
        if (p == NULL)
            return false;
        is_escaped = true;
    }
    *ret_text = (struct json_text){ .raw = slice_of(start, (size_t)(p - start)), .is_escaped = is_escaped };
    w->at = p + 1;
    return true;
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline const char *digits_end(const char *p)
{
    while (is_digit(*p))
        p++;
    return p;
}

/* A number as JSON has it: no sign but minus, no leading zero, digits on both sides of the point. */
static inline bool take_number(struct walk *w, struct slice *ret_text)
{
    const char *start = w->at, *p = start + (*start == '-');
    if (!is_digit(*p))
        return false;
    p = *p == '0' ? p + 1 : digits_end(p);
    if (*p == '.') {
        if (!is_digit(p[1]))
            return false;
        p = digits_end(p + 1);
    }
    if (*p == 'e' || *p == 'E') {
        p += p[1] == '+' || p[1] == '-' ? 2 : 1;
        if (!is_digit(*p))
            return false;
        p = digits_end(p);
    }
    *ret_text = slice_of(start, (size_t)(p - start));
    w->at = p;
    return true;
}

static inline bool take_word(struct walk *w, struct slice word)
{
    if ((size_t)(w->end - w->at) <= word.len || memcmp(w->at, word.ptr, word.len) != 0)
        return false;
    w->at += word.len;
    return true;
}

static inline void skip_blanks(struct walk *w)
{
    while (*w->at == ' ' || *w->at == '\t' || *w->at == '\n' || *w->at == '\r')
        w->at++;
}

/* ---- structure
 * ------------------------------------------------------------------------------------------------------ */

static inline bool scan_key(struct json *j, struct walk *w)
{
    struct json_text text;
    return take_string(w, &text) && json_on_key(j, text);
}

#ifdef __SSE2__
/* The place of the key that stands at w->at, in *text its bytes; NULL: it is longer, or not as plain. */
static inline struct known_key *known_place(const struct json *j, struct walk *w, uint32_t parent, __m128i *text,
                                            size_t *ret_len)
{
    static const char ones[2 * KNOWN_BYTES] = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };
    const char *p = w->at + 1;
    if (w->end - p < KNOWN_BYTES)
        return NULL;
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    unsigned ends = string_ends(v);
    if (ends == 0)
        return NULL;
    size_t len = (size_t)__builtin_ctz(ends);
    if (p[len] != '"')
        return NULL;
    w->high |= (unsigned)_mm_movemask_epi8(v);
    *ret_len = len;
    *text = _mm_and_si128(v, _mm_loadu_si128((const __m128i *)(const void *)(ones + KNOWN_BYTES - len)));
    uint64_t half[2];
    memcpy(half, text, sizeof(half));
    uint64_t hash = (half[0] ^ half[1] << 1 ^ parent) * UINT64_C(0x9E3779B97F4A7C15);
    return &j->shape->known[hash >> 57];
}

static inline bool is_known(const struct known_key *k, uint32_t parent, __m128i text)
{
    __m128i known = _mm_loadu_si128((const __m128i *)(const void *)k->text);
    return _mm_movemask_epi8(_mm_cmpeq_epi8(known, text)) == 0xffff && k->is_used && k->key.parent == parent;
}

/* Like scan_key(), by what is known of such keys. */
static inline bool take_key(struct json *j, struct walk *w)
{
    const uint32_t parent = j->stack[j->depth].node;
    __m128i bytes;
    size_t len = 0;
    if (parent == KEY_NONE && !j->find_duplicates)
        return scan_key(j, w);
    struct known_key *k = known_place(j, w, parent, &bytes, &len);
    if (k == NULL)
        return scan_key(j, w);
    struct slice text = slice_of(w->at + 1, len);
    if (!is_known(k, parent, bytes)) {
        k->key = json_look_up(j, parent, text);
        k->is_used = true;
        memcpy(k->text, &bytes, sizeof(bytes));
    }
    json_take_key(j, &k->key, text, text);
    w->at += len + 2;
    return true;
}
#else
#define take_key scan_key
#endif

static inline bool walk_key(struct json *j, struct walk *w)
{
    if (*w->at != '"' || !take_key(j, w) || w->at == w->end)
        return false;
    skip_blanks(w);
    if (*w->at != ':')
        return false;
    w->at++;
    skip_blanks(w);
    return true;
}

static bool walk_word(struct json *j, struct walk *w)
{
    const char *start = w->at;
    enum value_kind kind = *start == 'n' ? VALUE_NULL : VALUE_BOOL;
    struct slice word = *start == 't' ? SLICE("true") : *start == 'f' ? SLICE("false") : SLICE("null");
    return take_word(w, word) && json_on_word(j, kind, slice_of(start, word.len));
}

/* A scalar, or the start of an object or array: then *ret_is_open. */
static inline bool walk_value(struct json *j, struct walk *w, bool *ret_is_open)
{
    struct json_text text;
    struct slice number;
    *ret_is_open = false;
    switch (*w->at) {
    case '"':
        return take_string(w, &text) && json_on_string(j, text);
    case '{':
    case '[':
        *ret_is_open = true;
        w->at++;
        return json_on_open(j, w->at[-1] == '{' ? VALUE_OBJECT : VALUE_ARRAY, w->at - 1);
    case 't':
    case 'f':
    case 'n':
        return walk_word(j, w);
    default:
        return take_number(w, &number) && json_on_number(j, number);
    }
}

/* Behind a value: closes what ends here, up to the comma before the next value or the end of the line's
 * object. */
static inline bool walk_ends(struct json *j, struct walk *w)
{
    for (;;) {
        if (w->at == w->end)
            return false;
        skip_blanks(w);
        char c = *w->at++;
        if (c == ',')
            break;
        if (c != (j->stack[j->depth].is_object ? '}' : ']'))
            return false;
        json_on_close(j, w->at);
        if (j->depth == 0)
            return w->at == w->end;
    }
    if (w->at == w->end)
        return false;
    skip_blanks(w);
    return true;
}

/* Behind an opening bracket; true: nothing is in it, and it is left to walk_ends(). */
static inline bool is_empty_here(const struct json *j, struct walk *w)
{
    skip_blanks(w);
    return *w->at == (j->stack[j->depth].is_object ? '}' : ']');
}

static bool walk_all(struct json *j, struct walk *w)
{
    bool is_open;
    if (!walk_value(j, w, &is_open)) /* the line's own brace */
        return false;
    while (j->depth > 0) {
        if (is_open && w->at == w->end)
            return false;
        if (!is_open || !is_empty_here(j, w)) {
            if (j->stack[j->depth].is_object && !walk_key(j, w))
                return false;
            if (!walk_value(j, w, &is_open))
                return false;
            if (is_open)
                continue;
        }
        is_open = false;
        if (!walk_ends(j, w))
            return false;
    }
    return true;
}

enum json_result json_walk(struct json *j)
{
    struct walk w = { .at = j->line.ptr, .end = j->line.ptr + j->line.len };
    if (j->line.len < 2 || w.end[-1] != '}')
        return JSON_BAD;
    if (!walk_all(j, &w))
        return j->result;
    return w.high != 0 && slice_utf8_valid(j->line) != j->line.len ? JSON_BAD : JSON_OBJECT;
}
