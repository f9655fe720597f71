/* The file of measurements, and the choice it makes. */
#include "select/tuned.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/environment.h"
#include "base/number.h"
#include "collective/collective.h"

static const char first_line[] = "zerocta tune 2";

/* ---- Built in ---- */

/* Two NVLinked H200, NCCL 2.28.3 with its kernels on symmetric windows, driver for CUDA 13.0:
 * bench/gpu/results/h200-x2/in-place.json. NCCL's kernels win up to 4 MiB of output. */
static const struct zc_tuned h200 = {
    .key = {.gpu = "NVIDIA H200", .driver_version = 13000, .nccl_version = 22803},
    .row_count = 11,
    .rows = {{ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 512, 11.0, 6.0},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 2048, 11.0, 6.0},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 8192, 11.1, 6.2},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 32768, 11.2, 6.5},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 131072, 11.5, 6.9},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 524288, 12.6, 8.4},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 2097152, 19.9, 17.0},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 8388608, 36.9, 39.7},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 33554432, 101.2, 117.6},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 134217728, 357.9, 430.3},
             {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 536870912, 1384.4, 1671.2}},
};

const struct zc_tuned *zc_tuned_built_in(const char *gpu)
{
    return strcmp(gpu, h200.key.gpu) == 0 ? &h200 : NULL;
}

/* ---- Where ---- */

bool zc_tuned_path(const char *gpu, char *path, size_t bytes)
{
    const char *told = zc_environment("ZEROCTA_TUNE_FILE");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length;

    if (told != NULL && told[0] != '\0')
        length = snprintf(path, bytes, "%s", told);
    else if (cache != NULL && cache[0] == '/')
        length = snprintf(path, bytes, "%s/zerocta/tune-%s.txt", cache, gpu);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, bytes, "%s/.cache/zerocta/tune-%s.txt", home, gpu);
    else
        return false;
    if (length < 0 || (size_t)length >= bytes)
        return false;
    if (told == NULL || told[0] == '\0')
        for (char *at = strrchr(path, '/') + 1; *at != '\0'; at++)
            if (*at == ' ')
                *at = '-';
    return true;
}

/* ---- Form ---- */

static bool is_comment(const char *text)
{
    return text[0] == '#' || text[0] == '\n' || text[0] == '\0';
}

/* The next number of a row, up to `most`; advances *at. */
static bool read_number(const char **at, uint64_t most, uint64_t *value)
{
    char *end = NULL;

    errno = 0;
    *value = strtoull(*at, &end, 10);
    if (end == *at || errno != 0 || **at == '-' || *value > most)
        return false;
    *at = end + strspn(end, " ");
    return true;
}

static bool read_time(const char **at, double *us)
{
    char *end = NULL;

    *us = zc_number_read(*at, &end);
    if (end == *at || !(*us > 0 && *us < 1e12))
        return false;
    *at = end + strspn(end, " \n");
    return true;
}

static bool read_row(const char *text, struct zc_tuned_row *row)
{
    const size_t name = strcspn(text, " ");
    const struct zc_collective *collective = zc_collective_named(text, name);
    uint64_t ranks, policy, in_place;

    if (collective == NULL)
        return false;
    text += name;
    if (!read_number(&text, UINT32_MAX, &ranks) || ranks == 0 ||
        !read_number(&text, ZCTA_POLICY_ZERO, &policy) || policy == ZCTA_POLICY_UNSET ||
        !read_number(&text, 1, &in_place) || !read_number(&text, UINT64_MAX, &row->bytes) ||
        !read_time(&text, &row->ce_us) || !read_time(&text, &row->nccl_us) || *text != '\0')
        return false;
    row->collective = collective->id;
    row->rank_count = (uint32_t)ranks;
    row->policy = (zcta_policy)policy;
    row->in_place = in_place == 1;
    return true;
}

/* "NAME NUMBER" */
static bool read_version(const char *text, const char *name, int *version)
{
    uint64_t value;

    if (strncmp(text, name, strlen(name)) != 0)
        return false;
    text += strlen(name);
    if (!read_number(&text, INT32_MAX, &value))
        return false;
    *version = (int)value;
    return true;
}

static bool read_own_version(const char *text, uint32_t *version)
{
    int value = 0;

    if (!read_version(text, "zerocta ", &value))
        return false;
    *version = (uint32_t)value;
    return true;
}

static bool read_line(const char *text, uint32_t line, struct zc_tuned *tuned)
{
    struct zc_tuned_key *key = &tuned->key;

    if (line == 1)
        return strncmp(text, first_line, sizeof first_line - 1) == 0;
    if (strncmp(text, "gpu ", 4) == 0) {
        snprintf(key->gpu, sizeof key->gpu, "%.*s", (int)strcspn(text + 4, "\n"), text + 4);
        return true;
    }
    if (is_comment(text) || read_version(text, "driver ", &key->driver_version) ||
        read_version(text, "nccl ", &key->nccl_version) ||
        read_own_version(text, &key->zerocta_version))
        return true;
    if (tuned->row_count == ZC_TUNED_ROWS_MOST || !read_row(text, &tuned->rows[tuned->row_count]))
        return false;
    tuned->row_count++;
    return true;
}

bool zc_tuned_read(FILE *in, struct zc_tuned *tuned, char *why, size_t bytes)
{
    char text[256];
    uint32_t line = 0;

    memset(tuned, 0, sizeof *tuned);
    while (fgets(text, sizeof text, in) != NULL)
        if (!read_line(text, ++line, tuned)) {
            snprintf(why, bytes, "line %" PRIu32 " is not of the form that zerocta tune writes",
                     line);
            return false;
        }
    if (line == 0)
        snprintf(why, bytes, "the file is empty");
    return line > 0;
}

bool zc_tuned_write(FILE *out, const struct zc_tuned *tuned)
{
    fprintf(out, "%s\ngpu %s\ndriver %d\nnccl %d\nzerocta %" PRIu32 "\n", first_line,
            tuned->key.gpu, tuned->key.driver_version, tuned->key.nccl_version,
            tuned->key.zerocta_version);
    fprintf(out,
            "# collective, ranks, policy (1 DEFAULT, 2 EFFICIENCY, 3 ZERO), in place, bytes a\n"
            "# share, us a call by ce, by nccl\n");
    for (uint32_t i = 0; i < tuned->row_count; i++) {
        const struct zc_tuned_row *row = &tuned->rows[i];

        char times[64];

        zc_format(times, sizeof times, "%.3f %.3f", row->ce_us, row->nccl_us);
        fprintf(out, "%s %" PRIu32 " %d %d %" PRIu64 " %s\n",
                zc_collective_of(row->collective)->name, row->rank_count, (int)row->policy,
                row->in_place, row->bytes, times);
    }
    return fflush(out) == 0 && ferror(out) == 0;
}

/* ---- Choice ---- */

/* How far apart two sizes are, as a ratio of at least 1. */
static double distance(uint64_t a, uint64_t b)
{
    const double x = (double)(a > 0 ? a : 1), y = (double)(b > 0 ? b : 1);

    return x > y ? x / y : y / x;
}

bool zc_tuned_prefers_nccl(const struct zc_tuned *tuned, zcta_collective collective,
                           uint32_t rank_count, zcta_policy policy, bool in_place, uint64_t bytes,
                           const struct zc_tuned_row **row)
{
    *row = NULL;
    for (uint32_t i = 0; tuned != NULL && i < tuned->row_count; i++) {
        const struct zc_tuned_row *at = &tuned->rows[i];

        if (at->collective != collective || at->rank_count != rank_count || at->policy != policy ||
            at->in_place != in_place)
            continue;
        if (*row == NULL || distance(at->bytes, bytes) < distance((*row)->bytes, bytes))
            *row = at;
    }
    return *row != NULL && (*row)->nccl_us < (*row)->ce_us;
}

uint64_t zc_tuned_digest(const struct zc_tuned *tuned)
{
    unsigned char hash[16];
    uint64_t digest;

    if (tuned == NULL)
        return 0;
    crypto_generichash(hash, sizeof hash, (const unsigned char *)tuned, sizeof *tuned, NULL, 0);
    memcpy(&digest, hash, sizeof digest);
    return digest | 1;
}
