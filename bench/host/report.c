/* Rank 0's report: a table as the rows come, and all times in JSON. Each row is a line of the JSON
 * file, with its numbers before its lists, so that bench/host/run finds them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "machine.h"

struct report {
    const struct bench *bench;
    struct mpi_facts mpi;
    const char *file_name;
    FILE *file; /* NULL: no JSON is wanted */
    uint32_t batches, rows;
};

/* ---- JSON ---- */

static void write_string(FILE *file, const char *key, const char *value, const char *after)
{
    fprintf(file, "\"%s\": \"", key);
    for (; *value != '\0'; value++)
        if (*value == '"' || *value == '\\')
            fprintf(file, "\\%c", *value);
        else if ((unsigned char)*value < ' ')
            fprintf(file, "\\u%04x", (unsigned)*value);
        else
            fputc(*value, file);
    fprintf(file, "\"%s", after);
}

static void write_machine(FILE *file, const struct zc_machine *machine)
{
    double load = 0;

    fprintf(file, "  \"machine\": {");
    write_string(file, "cpu", machine->cpu, ", ");
    fprintf(file, "\"cores\": %" PRIu32 ", \"cpus_of_rank_0\": %" PRIu32 ", ", machine->cores,
            machine->usable_cpus);
    fprintf(file, "\"memory_bytes\": %" PRIu64 ", \"l3_bytes\": %" PRIu64 ", ",
            machine->memory_bytes, machine->l3_bytes);
    write_string(file, "kernel", machine->kernel, ", ");
    fprintf(file, "\"load_at_start\": %.2f},\n", getloadavg(&load, 1) == 1 ? load : 0);
}

static void write_head(const struct report *report, const struct zc_machine *machine,
                       const char *command)
{
    const struct mpi_facts *mpi = &report->mpi;
    const time_t now = time(NULL);
    char date[32] = "";
    struct tm utc;

    if (gmtime_r(&now, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(report->file, "{\n  ");
    write_string(report->file, "date", date, ",\n  ");
    write_string(report->file, "command", command, ",\n");
    write_machine(report->file, machine);
    fprintf(report->file, "  \"mpi\": {");
    write_string(report->file, "name", mpi->name, ", ");
    write_string(report->file, "version", mpi->version, ", ");
    write_string(report->file, "single_copy", mpi->single_copy, ", ");
    write_string(report->file, "yield_when_idle", mpi->yields, "},\n");
    fprintf(report->file, "  \"ranks\": %" PRIu32 ",\n  \"batches\": %" PRIu32 ",\n  \"rows\": [",
            report->bench->rank_count, report->batches);
}

static void write_row(const struct report *report, const struct row *row)
{
    const struct bench *bench = report->bench;
    FILE *file = report->file;

    fprintf(file, "%s\n    {", report->rows == 0 ? "" : ",");
    write_string(file, "collective", bench->shape.info.name, ", ");
    write_string(file, "mpi", report->mpi.key, ", ");
    fprintf(file, "\"bytes\": %" PRIu64 ", \"ranks\": %" PRIu32 ", \"in_place\": %s", row->bytes,
            bench->rank_count, bench->in_place ? "true" : "false");
    for (uint32_t i = 0; i < VARIANTS; i++)
        fprintf(file, ", \"%s_us\": %.4f, \"%s_wrong_bytes\": %" PRIu64, variants[i].key,
                row->results[i].median_us, variants[i].key, row->results[i].wrong_bytes);
    fprintf(file, ", ");
    write_string(file, "path", row->path, "");
    for (uint32_t i = 0; i < VARIANTS; i++) {
        fprintf(file, ", \"%s_calls\": %" PRIu32 ", \"%s_batches_us\": [", variants[i].key,
                row->results[i].calls, variants[i].key);
        for (uint32_t batch = 0; batch < report->batches; batch++)
            fprintf(file, "%s%.4f", batch == 0 ? "" : ", ", row->results[i].batches_us[batch]);
        fprintf(file, "]");
    }
    fprintf(file, "}");
}

/* ---- Table ---- */

static void print_head(const struct report *report, const struct zc_machine *machine)
{
    const struct mpi_facts *mpi = &report->mpi;

    printf("%" PRIu32 " ranks on %s, %" PRIu32 " cores; %s (single copy: %s, yield when idle: %s); "
           "medians of %" PRIu32 " batches in turns.\n\n",
           report->bench->rank_count, machine->cpu, machine->cores, mpi->version, mpi->single_copy,
           mpi->yields, report->batches);
    printf("%-13s %10s %-5s %12s %12s %9s %12s %12s  %s\n", "collective", "bytes", "place",
           "zerocta", mpi->name, "ratio", "floor", "in step", "path");
    printf("%-13s %10s %-5s %13s %13s %9s %13s %13s\n", "", "", "", "µs", "µs", "", "µs", "µs");
    fflush(stdout);
}

static void print_row(const struct report *report, const struct row *row)
{
    const struct bench *bench = report->bench;
    const struct result *results = row->results;

    printf("%-13s %10" PRIu64 " %-5s %12.2f %12.2f %9.2f %12.2f %12.2f  %s\n",
           bench->shape.info.name, row->bytes, bench->in_place ? "in" : "out",
           results[AT_ZEROCTA].median_us, results[AT_MPI].median_us,
           results[AT_MPI].median_us / results[AT_ZEROCTA].median_us, results[AT_FLOOR].median_us,
           results[AT_STEP_FLOOR].median_us, row->path);
    for (uint32_t i = 0; i < VARIANTS; i++)
        if (results[i].wrong_bytes != 0)
            printf("WRONG: %" PRIu64 " bytes that %s delivered in this configuration\n",
                   results[i].wrong_bytes, variants[i].key);
    fflush(stdout);
}

/* ---- Public ---- */

struct report *report_open(const struct bench *bench, const char *json, const char *command,
                           uint32_t batches)
{
    struct report *report = calloc(1, sizeof *report);
    struct zc_machine machine = {0};

    if (report == NULL) {
        bench_die(bench, "report", "out of memory");
        return NULL;
    }
    *report = (struct report){.bench = bench, .file_name = json, .batches = batches};
    if (json != NULL && (report->file = fopen(json, "we")) == NULL)
        bench_die(bench, json, strerror(errno));
    zc_machine_read(&machine);
    mpi_facts_read(&report->mpi);
    if (report->file != NULL)
        write_head(report, &machine, command);
    print_head(report, &machine);
    return report;
}

void report_row(struct report *report, const struct row *row)
{
    if (report == NULL)
        return;
    if (report->file != NULL)
        write_row(report, row);
    print_row(report, row);
    report->rows++;
}

bool report_close(struct report *report)
{
    bool written = true;

    if (report == NULL)
        return true;
    if (report->file != NULL) {
        fprintf(report->file, "\n  ]\n}\n");
        written = ferror(report->file) == 0;
        if (fclose(report->file) != 0 || !written) {
            written = false;
            fprintf(stderr, "host_bench: cannot write %s: %s\n", report->file_name,
                    strerror(errno));
        }
    }
    free(report);
    return written;
}
