#include "parsers/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/io.h"
#include "parsers/zone_rule.h"

#define TZIF_BYTES_MAX (256 * KIB) /* the largest real one is below 4 KiB */
#define TRANSITIONS_MAX 4096u
#define RULE_YEARS_FROM 1970
#define RULE_YEARS_TO 2200
#define TYPES_MAX 64u
#define ABBREVIATION_MAX 8u
#define OFFSET_MAX_S (26 * 3600) /* RFC 8536; the arithmetic of whoever asks relies on it */

struct zone_type {
    int32_t offset;
    char name[ABBREVIATION_MAX];
};

struct zone {
    struct zone_type types[TYPES_MAX];
    uint32_t n_types;
    uint32_t n;           /* transitions */
    uint8_t first_type;   /* before the first transition */
    int64_t *at;          /* UTC seconds, ascending; one allocation with `to` behind it */
    uint8_t *to;          /* index in types from then on */
};

/* ---- questions ---------------------------------------------------------------------------------------------------- */

int32_t zone_offset(const struct zone *z, int64_t utc_s)
{
    uint32_t low = 0, high = z->n; /* the number of transitions at or before utc_s */
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (z->at[mid] <= utc_s)
            low = mid + 1;
        else
            high = mid;
    }
    return z->types[low == 0 ? z->first_type : z->to[low - 1]].offset;
}

int64_t zone_to_utc(const struct zone *z, int64_t local_s)
{
    if (z->n == 0)
        return local_s - z->types[z->first_type].offset;
    int32_t before = zone_offset(z, local_s - 86400), after = zone_offset(z, local_s + 86400);
    int64_t utc = local_s - before;
    if (zone_offset(z, utc) == before)
        return utc;
    int64_t utc_after = local_s - after;
    return zone_offset(z, utc_after) == after ? utc_after : utc;
}

bool zone_abbreviation(const struct zone *z, struct slice abbreviation, int32_t *ret_offset)
{
    for (uint32_t i = 0; i < z->n_types; i++) {
        if (slice_eq(slice_cstr(z->types[i].name), abbreviation)) {
            *ret_offset = z->types[i].offset;
            return true;
        }
    }
    return false;
}

/* ---- building ----------------------------------------------------------------------------------------------------- */

static struct zone *zone_new(uint32_t n_max)
{
    struct zone *z = calloc(1, sizeof(*z));
    if (z == NULL)
        return NULL;
    z->at = calloc((size_t)n_max + 1, sizeof(*z->at) + sizeof(*z->to));
    if (z->at == NULL) {
        free(z);
        return NULL;
    }
    z->to = (uint8_t *)(z->at + n_max + 1);
    return z;
}

void zone_free(struct zone *z)
{
    if (z == NULL)
        return;
    free(z->at);
    free(z);
}

/* Index of the type, added when new; the last one when there is no room. */
static uint8_t type_index(struct zone *z, int32_t offset, struct slice name)
{
    name = slice_first(name, ABBREVIATION_MAX - 1);
    for (uint32_t i = 0; i < z->n_types; i++)
        if (z->types[i].offset == offset && slice_eq(slice_cstr(z->types[i].name), name))
            return (uint8_t)i;
    if (z->n_types == TYPES_MAX)
        return TYPES_MAX - 1;
    struct zone_type *t = &z->types[z->n_types];
    t->offset = offset;
    if (name.len > 0)
        memcpy(t->name, name.ptr, name.len);
    return (uint8_t)z->n_types++;
}

static struct zone *zone_fixed(int32_t offset, struct slice name)
{
    struct zone *z = zone_new(0);
    if (z != NULL)
        z->first_type = type_index(z, offset, name);
    return z;
}

static void add_transition(struct zone *z, uint32_t n_max, int64_t at, uint8_t to)
{
    if (z->n == n_max || (z->n > 0 && at <= z->at[z->n - 1]))
        return;
    z->at[z->n] = at;
    z->to[z->n] = to;
    z->n++;
}

/* The transitions of the rule that lie behind the table's last one. */
static void expand_rule(struct zone *z, uint32_t n_max, const struct zone_rule *rule)
{
    uint8_t std = type_index(z, rule->std_offset, rule->std_name);
    if (!rule->has_dst) {
        if (z->n == 0)
            z->first_type = std;
        return;
    }
    uint8_t dst = type_index(z, rule->dst_offset, rule->dst_name);
    if (z->n == 0)
        z->first_type = std;
    for (int64_t year = RULE_YEARS_FROM; year <= RULE_YEARS_TO; year++) {
        int64_t start = zone_rule_at(&rule->start, year) - rule->std_offset;
        int64_t end = zone_rule_at(&rule->end, year) - rule->dst_offset;
        add_transition(z, n_max, MIN(start, end), start < end ? dst : std);
        add_transition(z, n_max, MAX(start, end), start < end ? std : dst);
    }
}

/* ---- TZif --------------------------------------------------------------------------------------------------------- */
/*
 * RFC 8536, big-endian:
 *   off size field
 *     0    4 "TZif"      4 1 version      5 15 reserved
 *    20    4 isutcnt    24 4 isstdcnt    28 4 leapcnt   32 4 timecnt   36 4 typecnt   40 4 charcnt
 *    44      timecnt times (4 bytes; 8 in the second block), timecnt type indexes, typecnt x {4 offset, 1 dst, 1 name},
 *            charcnt name bytes, leapcnt x (time + 4), isstdcnt, isutcnt
 * Version 2 and up: a second such block with 8-byte times, then "\n", a POSIX TZ rule, "\n".
 */
#define TZIF_HEAD 44u

struct tzif_head {
    uint32_t isutcnt, isstdcnt, leapcnt, timecnt, typecnt, charcnt;
};

static uint32_t be32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static int64_t be_time(const char *p, size_t size)
{
    if (size == 4)
        return (int32_t)be32(p);
    return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

/* Bytes of the block's body, or 0 when the header is not one. */
static size_t tzif_head_read(struct slice s, size_t time_size, struct tzif_head *ret_head)
{
    if (s.len < TZIF_HEAD || !slice_starts(s, SLICE("TZif")))
        return 0;
    struct tzif_head h = { be32(s.ptr + 20), be32(s.ptr + 24), be32(s.ptr + 28),
                           be32(s.ptr + 32), be32(s.ptr + 36), be32(s.ptr + 40) };
    if (h.timecnt > TRANSITIONS_MAX || h.typecnt == 0 || h.typecnt > 256 || h.charcnt > 4096 || h.leapcnt > 4096 ||
        h.isstdcnt > 256 || h.isutcnt > 256)
        return 0;
    *ret_head = h;
    return h.timecnt * (time_size + 1) + h.typecnt * (size_t)6 + h.charcnt + h.leapcnt * (time_size + 4) + h.isstdcnt +
           h.isutcnt;
}

/* Fills the table from a block whose body is at `body`; every index is checked. */
static int tzif_body_read(struct zone *z, uint32_t n_max, const struct tzif_head *h, const char *body, size_t time_size)
{
    const char *indexes = body + h->timecnt * time_size;
    const char *types = indexes + h->timecnt;
    const char *names = types + h->typecnt * (size_t)6;
    uint8_t map[256];
    for (uint32_t i = 0; i < h->typecnt; i++) {
        const char *t = types + i * (size_t)6;
        uint8_t at = (uint8_t)t[5];
        int32_t offset = (int32_t)be32(t);
        if (at >= h->charcnt || offset < -OFFSET_MAX_S || offset > OFFSET_MAX_S)
            return -EBADMSG;
        struct slice name = slice_of(names + at, strnlen(names + at, h->charcnt - at));
        map[i] = type_index(z, offset, name);
    }
    z->first_type = map[0];
    for (uint32_t i = 0; i < h->timecnt; i++) {
        uint8_t type = (uint8_t)indexes[i];
        if (type >= h->typecnt)
            return -EBADMSG;
        add_transition(z, n_max, be_time(body + i * time_size, time_size), map[type]);
    }
    return 0;
}

int zone_from_tzif(struct slice tzif, struct zone **ret_zone)
{
    struct tzif_head head;
    size_t time_size = 4, body = tzif_head_read(tzif, time_size, &head);
    if (body == 0 || tzif.len - TZIF_HEAD < body)
        return -EBADMSG;
    struct slice footer = { "", 0 };
    if (tzif.ptr[4] >= '2') {
        tzif = slice_from(tzif, TZIF_HEAD + body);
        time_size = 8;
        body = tzif_head_read(tzif, time_size, &head);
        if (body == 0 || tzif.len - TZIF_HEAD < body)
            return -EBADMSG;
        footer = slice_trim(slice_from(tzif, TZIF_HEAD + body));
    }
    uint32_t n_max = head.timecnt + 2 * (RULE_YEARS_TO - RULE_YEARS_FROM + 1);
    struct zone *z = zone_new(n_max);
    if (z == NULL)
        return -ENOMEM;
    int r = tzif_body_read(z, n_max, &head, tzif.ptr + TZIF_HEAD, time_size);
    if (r < 0) {
        zone_free(z);
        return r;
    }
    struct zone_rule rule;
    if (footer.len > 0 && zone_rule_parse(footer, &rule))
        expand_rule(z, n_max, &rule);
    *ret_zone = z;
    return 0;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

/* Europe/Berlin, Etc/GMT+3, America/Argentina/Ushuaia: nothing that climbs out of the folder. */
static bool is_zone_name(struct slice s)
{
    if (s.len == 0 || s.len > 100 || s.ptr[0] == '/' || s.ptr[0] == '.')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_word && c != '/' && c != '_' && c != '-' && c != '+')
            return false;
    }
    return true;
}

static int read_tzif(const char *path, struct zone **ret_zone)
{
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    char *bytes = malloc(TZIF_BYTES_MAX);
    if (bytes == NULL)
        return -ENOMEM;
    ssize_t len = io_pread_full(fd, bytes, TZIF_BYTES_MAX, 0);
    int r = len < 0 ? (int)len : zone_from_tzif(slice_of(bytes, (size_t)len), ret_zone);
    free(bytes);
    return r;
}

static int load_named(struct slice name, struct zone **ret_zone, struct err *err)
{
    const char *dir = getenv("TZDIR");
    char path[512];
    int n = snprintf(path, sizeof(path), "%s/%.*s", dir != NULL && dir[0] == '/' ? dir : "/usr/share/zoneinfo",
                     SLICE_ARGS(name));
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_say(err, -EINVAL, "timezone '%.*s' is too long", SLICE_ARGS(name));
    int r = read_tzif(path, ret_zone);
    if (r == -ENOENT)
        return err_say(err, r, "timezone '%.*s' is not in %s (package tzdata)", SLICE_ARGS(name),
                       dir != NULL ? dir : "/usr/share/zoneinfo");
    return r < 0 ? err_set(err, r, "cannot read timezone file %s", path) : 0;
}

/* +02:00 -0330 +2 */
static bool fixed_offset(struct slice s, int32_t *ret_offset)
{
    if (s.len < 2 || (s.ptr[0] != '+' && s.ptr[0] != '-'))
        return false;
    struct slice digits = slice_from(s, 1), minutes = SLICE("0");
    ptrdiff_t colon = slice_find_byte(digits, ':');
    if (colon >= 0) {
        minutes = slice_from(digits, (size_t)colon + 1);
        digits = slice_first(digits, (size_t)colon);
    } else if (digits.len == 4) {
        minutes = slice_from(digits, 2);
        digits = slice_first(digits, 2);
    }
    uint64_t h, m;
    if (digits.len > 2 || minutes.len > 2 || !slice_to_u64(digits, &h) || !slice_to_u64(minutes, &m) || h > 15 || m > 59)
        return false;
    *ret_offset = (int32_t)(h * 3600 + m * 60) * (s.ptr[0] == '-' ? -1 : 1);
    return true;
}

/* What the C library would take: TZ (":name", a name, a rule), then /etc/localtime, then UTC. */
static int load_local(struct zone **ret_zone, struct err *err)
{
    const char *tz = getenv("TZ");
    if (tz != NULL && tz[0] == ':')
        tz++;
    if (tz == NULL || tz[0] == '\0' || tz[0] == '/') {
        const char *path = tz == NULL || tz[0] == '\0' ? "/etc/localtime" : tz;
        int r = tz != NULL && tz[0] == '\0' ? -ENOENT : read_tzif(path, ret_zone);
        if (r != -ENOENT)
            return r < 0 ? err_set(err, r, "cannot read timezone file %s", path) : 0;
        *ret_zone = zone_fixed(0, SLICE("UTC"));
        return *ret_zone == NULL ? -ENOMEM : 0;
    }
    struct slice name = slice_cstr(tz);
    if (is_zone_name(name) && load_named(name, ret_zone, NULL) == 0)
        return 0;
    struct zone_rule rule;
    if (!zone_rule_parse(name, &rule))
        return err_say(err, -EINVAL, "TZ holds '%s', which is neither a timezone nor a rule", tz);
    uint32_t n_max = 2 * (RULE_YEARS_TO - RULE_YEARS_FROM + 1);
    *ret_zone = zone_new(n_max);
    if (*ret_zone == NULL)
        return -ENOMEM;
    expand_rule(*ret_zone, n_max, &rule);
    return 0;
}

int zone_load(struct slice name, struct zone **ret_zone, struct err *err)
{
    int32_t offset = 0;
    if (name.len == 0 || slice_ieq(name, SLICE("local")))
        return load_local(ret_zone, err);
    bool is_utc = slice_ieq(name, SLICE("UTC")) || slice_eq(name, SLICE("Z"));
    if (is_utc || fixed_offset(name, &offset)) {
        struct zone *z = zone_fixed(offset, is_utc ? SLICE("UTC") : SLICE(""));
        if (z == NULL)
            return err_set(err, -ENOMEM, "cannot load timezone");
        *ret_zone = z;
        return 0;
    }
    if (!is_zone_name(name))
        return err_say(err, -EINVAL, "'%.*s' is not a timezone: expected local, UTC, +02:00 or a name such as Europe/Berlin",
                       SLICE_ARGS(name));
    return load_named(name, ret_zone, err);
}
