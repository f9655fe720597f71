/* The report that programs read: the same rows as the table's, and the machine. */
#include "perf.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#ifdef ZC_HAVE_JANSSON
#include <jansson.h>
#endif

#include "choices.h"
#include "machine.h"
#include "options.h"

#ifdef ZC_HAVE_JANSSON

static json_t *make_command(const struct zc_perf *perf)
{
    json_t *words = json_pack("[s]", "zerocta");

    for (int i = 0; i < perf->argc; i++)
        json_array_append_new(words, json_stringn_nocheck(perf->argv[i], strlen(perf->argv[i])));
    return words;
}

static json_t *make_machine(void)
{
    struct zc_machine machine;

    zc_machine_read(&machine);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "cpu", machine.cpu, "kernel",
                     machine.kernel, "usable_cpus", (json_int_t)machine.usable_cpus, "cores",
                     (json_int_t)machine.cores, "numa_nodes", (json_int_t)machine.numa_nodes,
                     "memory_bytes", (json_int_t)machine.memory_bytes, "l1d_bytes",
                     (json_int_t)machine.l1d_bytes, "l2_bytes", (json_int_t)machine.l2_bytes,
                     "l3_bytes", (json_int_t)machine.l3_bytes);
}

static json_t *make_peers(const struct zc_perf_row *row)
{
    json_t *peers = json_object();

    for (uint32_t i = 0; i < row->peer_count; i++)
        json_object_set_new(peers, row->peers[i].name,
                            json_pack("{s:f, s:f}", "time_us", row->peers[i].time_us, "submit_us",
                                      row->peers[i].submit_us));
    return peers;
}

static json_t *make_row(const struct zc_perf *perf, const struct zc_perf_row *row)
{
    return json_pack("{s:I, s:I, s:b, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:s, s:b, s:o}",
                     "bytes", (json_int_t)row->bytes, "bytes_per_rank", (json_int_t)row->share,
                     "in_place", (int)perf->in_place, "timings", (json_int_t)row->samples,
                     "calls_per_timing", (json_int_t)row->batch, "time_us", row->time_us, "p99_us",
                     row->p99_us, "min_us", row->min_us, "submit_us", row->submit_us, "algbw_GBps",
                     row->algbw, "busbw_GBps", row->busbw, "wrong_bytes",
                     (json_int_t)row->wrong_bytes, "path", row->path, "sms", (int)row->sms, "peers",
                     make_peers(row));
}

static json_t *make_rows(const struct zc_perf *perf, const struct zc_perf_result *result)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < result->row_count; i++)
        json_array_append_new(rows, make_row(perf, &result->rows[i]));
    return rows;
}

static json_t *make_report(const struct zc_perf *perf, const struct zc_perf_result *result)
{
    const uint32_t version = zcta_version();
    const time_t now = time(NULL);
    char version_text[32], date[32] = "", counts[ZC_COUNTS_TEXT_BYTES];
    struct tm utc;

    snprintf(version_text, sizeof version_text, "%u.%u.%u", version >> 16, version >> 8 & 255u,
             version & 255u);
    if (gmtime_r(&now, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    /* An "o" takes the reference, and json_pack() fails as a whole if one is NULL. */
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:s, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:b, s:o, s:I, s:s}",
        "version", version_text, "date", date, "command", make_command(perf), "machine",
        make_machine(), "collective", perf->shape.info.name, "root", (json_int_t)perf->shape.root,
        "counts", zc_counts_text(&perf->shape, counts), "ranks", (json_int_t)result->rank_count,
        "ranks_are", result->ranks_are, "device", result->device, "policy",
        zc_policy_choices[perf->policy], "engine", zc_engine_choices[perf->engine], "graph",
        (int)perf->graph, "rows", make_rows(perf, result), "wrong_bytes",
        (json_int_t)result->wrong_bytes, "result", result->wrong_bytes == 0 ? "OK" : "FAILED");
}

bool zc_perf_json_write(const struct zc_perf *perf, const struct zc_perf_result *result)
{
    return zc_json_write(perf->command, &perf->json, make_report(perf, result));
}

#else

bool zc_perf_json_write(const struct zc_perf *perf, const struct zc_perf_result *result)
{
    (void)result;
    return zc_json_write(perf->command, &perf->json, NULL);
}

#endif
