/* Rank 0's report: a table in Markdown as the rows come, and all times in JSON. Each row is a line
 * of the JSON file, with its numbers before its lists, so that bench/host/run finds them. */
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
                       const struct open_mpi *open_mpi, const char *command)
{
    const time_t now = time(NULL);
    char date[32] = "";
    struct tm utc;

    if (gmtime_r(&now, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(report->file, "{\n  ");
    write_string(report->file, "date", date, ",\n  ");
    write_string(report->file, "command", command, ",\n");
    write_machine(report->file, machine);
    fprintf(report->file, "  \"open_mpi\": {");
    write_string(report->file, "version", open_mpi->version, ", ");
    write_string(report->file, "single_copy", open_mpi->single_copy, ", ");
    write_string(report->file, "yield_when_idle", open_mpi->yields, "},\n");
    fprintf(report->file, "  \"ranks\": %" PRIu32 ",\n  \"batches\": %" PRIu32 ",\n  \"rows\": [",
            report->bench->rank_count, report->batches);
}

static void write_row(const struct report *report, const struct row *row)
{
    FILE *file = report->file;

    fprintf(file, "%s\n    {\"bytes\": %zu, \"ranks\": %" PRIu32 ", \"in_place\": %s",
            report->rows == 0 ? "" : ",", row->bytes, report->bench->rank_count,
            row->in_place ? "true" : "false");
    for (uint32_t i = 0; i < CONTESTANTS; i++)
        fprintf(file, ", \"%s_us\": %.4f, \"%s_wrong_bytes\": %" PRIu64, contestants[i].key,
                row->results[i].median_us, contestants[i].key, row->results[i].wrong_bytes);
    fprintf(file, ", ");
    write_string(file, "path", row->path, "");
    for (uint32_t i = 0; i < CONTESTANTS; i++) {
        fprintf(file, ", \"%s_calls\": %" PRIu32 ", \"%s_batches_us\": [", contestants[i].key,
                row->results[i].calls, contestants[i].key);
        for (uint32_t batch = 0; batch < report->batches; batch++)
            fprintf(file, "%s%.4f", batch == 0 ? "" : ", ", row->results[i].batches_us[batch]);
        fprintf(file, "]");
    }
    fprintf(file, "}");
}

/* ---- Table ---- */

static void print_bytes(size_t bytes)
{
    if (bytes >= 1 << 20 && bytes % (1 << 20) == 0)
        printf("| %4zu MiB ", bytes >> 20);
    else if (bytes >= 1 << 10 && bytes % (1 << 10) == 0)
        printf("| %4zu KiB ", bytes >> 10);
    else
        printf("| %6zu B ", bytes);
}

static void print_head(const struct report *report, const struct zc_machine *machine,
                       const struct open_mpi *open_mpi)
{
    printf("%" PRIu32 " ranks on %s, %" PRIu32 " cores; %s (single copy: %s, yield when idle: %s); "
           "medians of %" PRIu32 " batches in turns.\n\n",
           report->bench->rank_count, machine->cpu, machine->cores, open_mpi->version,
           open_mpi->single_copy, open_mpi->yields, report->batches);
    printf("|    bytes | ranks | in place | zerocta µs | Open MPI µs | Open MPI / zerocta | floor "
           "µs | zerocta / floor | floor in step µs | zerocta / floor in step | path              "
           "|\n");
    printf("| -------: | ----: | :------- | ---------: | ----------: | -----------------: | "
           "-------: | --------------: | ---------------: | ----------------------: | "
           ":---------------- |\n");
    fflush(stdout);
}

static void print_row(const struct report *report, const struct row *row)
{
    const double zerocta = row->results[AT_ZEROCTA].median_us;
    const double open_mpi = row->results[AT_OPEN_MPI].median_us;
    const double floor_us = row->results[AT_FLOOR].median_us;
    const double step_floor_us = row->results[AT_STEP_FLOOR].median_us;

    print_bytes(row->bytes);
    printf("| %5" PRIu32
           " | %-8s | %10.2f | %11.2f | %18.2f | %8.2f | %15.2f | %16.2f | %23.2f | %-17s |\n",
           report->bench->rank_count, row->in_place ? "yes" : "no", zerocta, open_mpi,
           open_mpi / zerocta, floor_us, zerocta / floor_us, step_floor_us, zerocta / step_floor_us,
           row->path);
    for (uint32_t i = 0; i < CONTESTANTS; i++)
        if (row->results[i].wrong_bytes != 0)
            printf("WRONG: %" PRIu64 " bytes that %s delivered in this configuration\n",
                   row->results[i].wrong_bytes, contestants[i].name);
    fflush(stdout);
}

/* ---- Public ---- */

struct report *report_open(const struct bench *bench, const char *json, const char *command,
                           uint32_t batches)
{
    struct report *report = calloc(1, sizeof *report);
    struct zc_machine machine = {0};
    struct open_mpi open_mpi;

    if (report == NULL) {
        bench_die(bench, "report", "out of memory");
        return NULL;
    }
    *report = (struct report){.bench = bench, .file_name = json, .batches = batches};
    if (json != NULL && (report->file = fopen(json, "we")) == NULL)
        bench_die(bench, json, strerror(errno));
    zc_machine_read(&machine);
    open_mpi_read(&open_mpi);
    if (report->file != NULL)
        write_head(report, &machine, &open_mpi, command);
    print_head(report, &machine, &open_mpi);
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
