#include "outputs/file_chain.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/io.h"

bool chain_hash_is_zero(const struct chain_hash *h)
{
    static const struct chain_hash zero;
    return chain_hash_eq(h, &zero);
}

void chain_hash_hex(const struct chain_hash *h, char hex[CHAIN_HEX_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof(h->bytes); i++) {
        hex[2 * i] = digits[h->bytes[i] >> 4];
        hex[2 * i + 1] = digits[h->bytes[i] & 0x0f];
    }
    hex[CHAIN_HEX_BYTES] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool chain_hash_parse(struct slice hex, struct chain_hash *ret)
{
    if (hex.len != CHAIN_HEX_BYTES)
        return false;
    for (size_t i = 0; i < sizeof(ret->bytes); i++) {
        const int high = hex_value(hex.ptr[2 * i]), low = hex_value(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* ---- hashing ---- */

struct chain_block {
    EVP_MD_CTX *ctx;
};

static int begin(struct chain_block *b)
{
    return EVP_DigestInit_ex(b->ctx, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

int chain_block_new(struct chain_block **ret_block)
{
    struct chain_block *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    b->ctx = EVP_MD_CTX_new();
    if (b->ctx == NULL || begin(b) < 0) {
        chain_block_free(b);
        return -ENOMEM;
    }
    *ret_block = b;
    return 0;
}

void chain_block_free(struct chain_block *b)
{
    if (b == NULL)
        return;
    EVP_MD_CTX_free(b->ctx);
    free(b);
}

int chain_block_add(struct chain_block *b, struct slice bytes)
{
    return EVP_DigestUpdate(b->ctx, bytes.ptr, bytes.len) == 1 ? 0 : -ENOMEM;
}

int chain_block_end(struct chain_block *b, const struct chain_hash *prev, struct chain_hash *ret)
{
    struct chain_hash digest;
    const bool is_done = EVP_DigestFinal_ex(b->ctx, digest.bytes, NULL) == 1 && begin(b) == 0 &&
                         EVP_DigestUpdate(b->ctx, prev->bytes, sizeof(prev->bytes)) == 1 &&
                         EVP_DigestUpdate(b->ctx, digest.bytes, sizeof(digest.bytes)) == 1 &&
                         EVP_DigestFinal_ex(b->ctx, ret->bytes, NULL) == 1 && begin(b) == 0;
    return is_done ? 0 : -ENOMEM;
}

static int hash_block(const struct chain_hash *prev, struct slice block, struct chain_hash *ret)
{
    struct chain_block *b;
    int r = chain_block_new(&b);
    if (r < 0)
        return r;
    r = chain_block_add(b, block);
    if (r == 0)
        r = chain_block_end(b, prev, ret);
    chain_block_free(b);
    return r;
}

/* ---- links ---- */

static uint64_t count_lines(struct slice block)
{
    uint64_t n = 0;
    for (ptrdiff_t lf; (lf = slice_find_byte(block, '\n')) >= 0; n++)
        block = slice_from(block, (size_t)lf + 1);
    return n;
}

static int print_link(const struct chain_link *l, char text[CHAIN_LINK_MAX])
{
    char prev[CHAIN_HEX_BYTES + 1], hash[CHAIN_HEX_BYTES + 1];
    chain_hash_hex(&l->prev, prev);
    chain_hash_hex(&l->hash, hash);
    return snprintf(text, CHAIN_LINK_MAX, "{\"@chain\":{\"lines\":%llu,\"bytes\":%llu,\"prev\":\"%s\",\"hash\":\"%s\"}}",
                    (unsigned long long)l->lines, (unsigned long long)l->bytes, prev, hash);
}

int chain_close_block(struct buf *b, struct chain_hash *hash)
{
    const struct slice block = buf_slice(b);
    struct chain_link l = { .lines = count_lines(block), .bytes = block.len, .prev = *hash };
    char text[CHAIN_LINK_MAX];
    int r = hash_block(hash, block, &l.hash);
    if (r == 0) {
        const int n = print_link(&l, text);
        text[n] = '\n';
        r = buf_append(b, text, (size_t)n + 1);
    }
    if (r == 0)
        *hash = l.hash;
    return r;
}

/* Takes up to the next `end`; false when there is none. */
static bool take_until(struct slice *rest, char end, struct slice *ret)
{
    const ptrdiff_t at = slice_find_byte(*rest, end);
    if (at < 0)
        return false;
    *ret = slice_first(*rest, (size_t)at);
    *rest = slice_from(*rest, (size_t)at + 1);
    return true;
}

bool chain_parse_link(struct slice line, struct chain_link *ret)
{
    static const struct slice head = SLICE_INIT("{\"@chain\":{\"lines\":");
    struct slice part, rest = line;
    char again[CHAIN_LINK_MAX];
    if (line.len >= CHAIN_LINK_MAX || !slice_starts(line, head))
        return false;
    rest = slice_from(rest, head.len);
    if (!take_until(&rest, ',', &part) || !slice_to_u64(part, &ret->lines) || !take_until(&rest, ':', &part) ||
        !take_until(&rest, ',', &part) || !slice_to_u64(part, &ret->bytes) || !take_until(&rest, ':', &part) ||
        !take_until(&rest, '"', &part) || !take_until(&rest, '"', &part) || !chain_hash_parse(part, &ret->prev) ||
        !take_until(&rest, ':', &part) || !take_until(&rest, '"', &part) || !take_until(&rest, '"', &part) ||
        !chain_hash_parse(part, &ret->hash))
        return false;
    const int n = print_link(ret, again); /* nothing else stands in it */
    return slice_eq(line, slice_of(again, (size_t)n));
}

int chain_last(int fd, uint64_t len, struct chain_hash *ret)
{
    char end[CHAIN_LINK_MAX + 1];
    struct chain_link l;
    const size_t want = (size_t)MIN(len, (uint64_t)sizeof(end));
    const ssize_t n = io_pread_full(fd, end, want, len - want);
    if (n < 0)
        return (int)n;
    if ((size_t)n != want || want < 2 || end[want - 1] != '\n')
        return 0;
    struct slice line = slice_of(end, want - 1);
    line = slice_from(line, (size_t)(slice_rfind_byte(line, '\n') + 1));
    if (!chain_parse_link(line, &l))
        return 0;
    *ret = l.hash;
    return 1;
}
