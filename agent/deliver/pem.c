#include "agent/deliver/pem.h"

#include <errno.h>

#include "agent/base/base64.h"
#include "agent/base/clock.h"

enum der_tag { DER_INTEGER = 0x02, DER_UTC_TIME = 0x17, DER_GENERALIZED_TIME = 0x18, DER_SEQUENCE = 0x30,
               DER_VERSION = 0xa0 };

/* Takes one element off the front of in: its tag and content. */
static int der_next(struct slice *in, uint8_t *ret_tag, struct slice *ret_content)
{
    const uint8_t *p = (const uint8_t *)in->ptr;
    if (in->len < 2)
        return -EBADMSG;
    size_t len = p[1], head = 2;
    if (len >= 0x80) {
        const size_t n = len & 0x7f;
        if (n == 0 || n > 4 || in->len < 2 + n)
            return -EBADMSG;
        len = 0;
        for (size_t i = 0; i < n; i++)
            len = len << 8 | p[2 + i];
        head = 2 + n;
    }
    if (len > in->len - head)
        return -EBADMSG;
    *ret_tag = p[0];
    *ret_content = slice_of(in->ptr + head, len);
    *in = slice_from(*in, head + len);
    return 0;
}

static int der_expect(struct slice *in, uint8_t tag, struct slice *ret_content)
{
    uint8_t t = 0;
    int r = der_next(in, &t, ret_content);
    return r < 0 ? r : t == tag ? 0 : -EBADMSG;
}

static bool two_digits(struct slice s, size_t at, unsigned *ret)
{
    uint64_t v = 0;
    if (at + 2 > s.len || !slice_to_u64(slice_first(slice_from(s, at), 2), &v))
        return false;
    *ret = (unsigned)v;
    return true;
}

/* YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ, as RFC 5280 has them. */
static int time_parse(uint8_t tag, struct slice s, int64_t *ret_unix_s)
{
    unsigned century = 0, part[6] = { 0 };
    size_t at = 0;
    if (tag == DER_GENERALIZED_TIME) {
        if (!two_digits(s, 0, &century))
            return -EBADMSG;
        at = 2;
    } else if (tag != DER_UTC_TIME) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < 6; i++, at += 2)
        if (!two_digits(s, at, &part[i]))
            return -EBADMSG;
    if (tag == DER_UTC_TIME)
        century = part[0] >= 50 ? 19 : 20;
    if (part[1] < 1 || part[1] > 12 || part[2] < 1 || part[2] > 31)
        return -EBADMSG;
    const int64_t days = clock_days_from_civil((int64_t)century * 100 + part[0], part[1], part[2]);
    *ret_unix_s = days * 86400 + (int64_t)part[3] * 3600 + (int64_t)part[4] * 60 + part[5];
    return 0;
}

/* Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, Validity { notBefore, notAfter } … } … } */
static int der_not_after(struct slice der, int64_t *ret_unix_s)
{
    struct slice cert, tbs, skipped, validity, when;
    uint8_t tag = 0;
    int r = der_expect(&der, DER_SEQUENCE, &cert);
    if (r == 0)
        r = der_expect(&cert, DER_SEQUENCE, &tbs);
    if (r == 0 && tbs.len > 0 && (uint8_t)tbs.ptr[0] == DER_VERSION)
        r = der_next(&tbs, &tag, &skipped);
    if (r == 0)
        r = der_expect(&tbs, DER_INTEGER, &skipped);
    for (int i = 0; r == 0 && i < 2; i++)
        r = der_expect(&tbs, DER_SEQUENCE, &skipped);
    if (r == 0)
        r = der_expect(&tbs, DER_SEQUENCE, &validity);
    if (r == 0)
        r = der_next(&validity, &tag, &skipped);
    if (r == 0)
        r = der_next(&validity, &tag, &when);
    return r < 0 ? r : time_parse(tag, when, ret_unix_s);
}

int pem_not_after(struct slice pem, int64_t *ret_unix_s)
{
    const struct slice begin = SLICE("-----BEGIN CERTIFICATE-----"), end = SLICE("-----END CERTIFICATE-----");
    const ptrdiff_t from = slice_find(pem, begin);
    if (from < 0)
        return -EBADMSG;
    struct slice text = slice_from(pem, (size_t)from + begin.len);
    const ptrdiff_t to = slice_find(text, end);
    if (to < 0)
        return -EBADMSG;
    text = slice_first(text, (size_t)to);

    CLEANUP(buf_deinit) struct buf der;
    buf_init(&der, text.len);
    const int r = base64_decode(text, &der);
    return r < 0 ? r : der_not_after(buf_slice(&der), ret_unix_s);
}
