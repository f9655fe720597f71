/* The table-driven reading of command lines, on top of getopt_long(). Prints help and the one
 * sentence about a mistake; decides nothing about what the options mean. */
#include "options.h"

#include <assert.h>
#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"

#define OPTIONS_MAX 32
#define LONG_BASE   256 /* getopt_long() values of options: above every letter */
#define HELP_WIDTH  92
#define HELP_COLUMN 28

static const struct zc_option help_option = {
    .name = "help", .letter = 'h', .help = "print this and exit", .kind = ZC_OPTION_FLAG};

/* One line whatever the arguments hold: a newline or an escape sequence in a value becomes '?'. */
__attribute__((format(printf, 2, 0))) static void complain(const char *command, const char *format,
                                                           va_list args)
{
    char sentence[1024];

    vsnprintf(sentence, sizeof sentence, format, args);
    for (char *at = sentence; *at != '\0'; at++)
        if (iscntrl((unsigned char)*at))
            *at = '?';
    fprintf(stderr, "zerocta%s%s: %s\n", command != NULL ? " " : "", command != NULL ? command : "",
            sentence);
}

int zc_usage_error(const char *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(command, format, args);
    va_end(args);
    return ZC_EXIT_USAGE;
}

int zc_failure(const char *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain(command, format, args);
    va_end(args);
    return ZC_EXIT_FAILED;
}

/* ---- Values ---- */

/* Reads digits; returns where they end, NULL if there are none or the number is too large. */
static const char *read_digits(const char *text, uint64_t *value)
{
    uint64_t number = 0;

    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return NULL;
    }
    *value = number;
    return text;
}

bool zc_parse_number(const char *text, uint64_t *value)
{
    uint64_t number;
    const char *end = read_digits(text, &number);

    if (end == NULL || *end != '\0')
        return false;
    *value = number;
    return true;
}

static const char size_letters[] = "KMGTPE";

bool zc_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t number;
    const char *end = read_digits(text, &number);

    if (end == NULL)
        return false;
    if (*end != '\0') {
        const char upper = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
        const char *letter = strchr(size_letters, upper);

        if (letter == NULL || end[1] != '\0')
            return false;
        if (__builtin_mul_overflow(number, 1ull << (10 * (letter - size_letters + 1)), &number))
            return false;
    }
    *bytes = number;
    return true;
}

bool zc_parse_seconds(const char *text, uint64_t *nanoseconds)
{
    uint64_t number, digit_ns = 100000000;
    const char *end = read_digits(text, &number);

    if (end == NULL || __builtin_mul_overflow(number, 1000000000u, &number))
        return false;
    if (*end == '.') {
        for (end++; *end >= '0' && *end <= '9'; end++, digit_ns /= 10)
            if (__builtin_add_overflow(number, digit_ns * (uint64_t)(*end - '0'), &number))
                return false;
        if (end[-1] == '.')
            return false;
    }
    if (*end != '\0')
        return false;
    *nanoseconds = number;
    return true;
}

const char *zc_size_text(uint64_t bytes, char text[ZC_SIZE_TEXT_BYTES])
{
    char suffix[2] = "";
    size_t power = 0;

    while (bytes != 0 && bytes % 1024 == 0 && power < sizeof size_letters - 1) {
        bytes /= 1024;
        power++;
    }
    suffix[0] = power == 0 ? '\0' : size_letters[power - 1];
    snprintf(text, ZC_SIZE_TEXT_BYTES, "%llu%s", (unsigned long long)bytes, suffix);
    return text;
}

/* ---- What is allowed ---- */

static void bound_text(const struct zc_option *option, uint64_t bound,
                       char text[ZC_SIZE_TEXT_BYTES])
{
    if (option->kind == ZC_OPTION_SIZE)
        zc_size_text(bound, text);
    else if (option->kind == ZC_OPTION_SECONDS)
        snprintf(text, ZC_SIZE_TEXT_BYTES, "%.9g", (double)bound / 1e9);
    else
        snprintf(text, ZC_SIZE_TEXT_BYTES, "%llu", (unsigned long long)bound);
}

/* "a number from 1 to 4096", "one of auto, host, cuda" */
static void allowed_text(const struct zc_option *option, char *text, size_t bytes)
{
    static const char *const nouns[] = {
        [ZC_OPTION_NUMBER] = "a whole number",
        [ZC_OPTION_SIZE] = "a size such as 4096, 4K, 1M or 2G",
        [ZC_OPTION_SECONDS] = "a number of seconds such as 2 or 0.5",
        [ZC_OPTION_TEXT] = "a text that is not empty",
    };
    char low[ZC_SIZE_TEXT_BYTES], high[ZC_SIZE_TEXT_BYTES];
    size_t used;

    if (option->kind == ZC_OPTION_CHOICE) {
        used = (size_t)snprintf(text, bytes, "one of");
        for (const char *const *choice = option->choices; *choice != NULL && used < bytes; choice++)
            used += (size_t)snprintf(text + used, bytes - used, "%s %s",
                                     choice == option->choices ? "" : ",", *choice);
        return;
    }
    bound_text(option, option->min, low);
    bound_text(option, option->max, high);
    if (option->kind == ZC_OPTION_TEXT || (option->min == 0 && option->max == 0))
        snprintf(text, bytes, "%s", nouns[option->kind]);
    else if (option->max == 0)
        snprintf(text, bytes, "%s, at least %s", nouns[option->kind], low);
    else
        snprintf(text, bytes, "%s, from %s to %s", nouns[option->kind], low, high);
}

static bool read_value(const struct zc_option *option, const char *text, uint64_t *value)
{
    bool read = false;

    switch (option->kind) {
    case ZC_OPTION_FLAG:
    case ZC_OPTION_TEXT:
        return *text != '\0';
    case ZC_OPTION_NUMBER:
        read = zc_parse_number(text, value);
        break;
    case ZC_OPTION_SIZE:
        read = zc_parse_size(text, value);
        break;
    case ZC_OPTION_SECONDS:
        read = zc_parse_seconds(text, value);
        break;
    case ZC_OPTION_CHOICE:
        for (*value = 0; option->choices[*value] != NULL; ++*value)
            if (strcmp(option->choices[*value], text) == 0)
                return true;
        return false;
    }
    return read && *value >= option->min && (option->max == 0 || *value <= option->max);
}

/* "-n/--ranks" */
#define LABEL_BYTES 48
static const char *label(const struct zc_option *option, char text[LABEL_BYTES])
{
    if (option->letter != 0)
        snprintf(text, LABEL_BYTES, "-%c/--%s", option->letter, option->name);
    else
        snprintf(text, LABEL_BYTES, "--%s", option->name);
    return text;
}

static bool store_value(const struct zc_command_line *line, const struct zc_option *option,
                        const char *text, void *settings)
{
    void *field = (char *)settings + option->offset;
    char allowed[256], name[LABEL_BYTES];
    uint64_t value = 0;

    if (option->kind == ZC_OPTION_FLAG) {
        memcpy(field, &(bool){true}, sizeof(bool));
        return true;
    }
    if (!read_value(option, text, &value)) {
        allowed_text(option, allowed, sizeof allowed);
        zc_usage_error(line->command, "%s cannot be '%s'; it takes %s", label(option, name), text,
                       allowed);
        return false;
    }
    if (option->kind == ZC_OPTION_TEXT)
        memcpy(field, &text, sizeof text);
    else
        memcpy(field, &value, sizeof value);
    return true;
}

/* ---- Help ---- */

void zc_print_wrapped(const char *text, size_t from, size_t indent)
{
    size_t column = from;

    while (*text != '\0') {
        const size_t word = strcspn(text, " ");

        if (column > indent && column + 1 + word > HELP_WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        column += (size_t)printf("%s%.*s", column > indent ? " " : "", (int)word, text);
        text += word;
        text += strspn(text, " ");
    }
    printf("\n");
}

static void print_option(const struct zc_option *option)
{
    char left[64], help[512], allowed[256];
    size_t used;

    if (option->letter != 0)
        used = (size_t)snprintf(left, sizeof left, "  -%c, --%s", option->letter, option->name);
    else
        used = (size_t)snprintf(left, sizeof left, "      --%s", option->name);
    if (option->argument != NULL)
        used += (size_t)snprintf(left + used, sizeof left - used, " %s", option->argument);
    printf("%s", left);
    if (used + 2 > HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", (int)(HELP_COLUMN - used), "");

    if (option->kind == ZC_OPTION_CHOICE) {
        allowed_text(option, allowed, sizeof allowed);
        snprintf(help, sizeof help, "%s: %s", option->help, allowed);
        zc_print_wrapped(help, HELP_COLUMN, HELP_COLUMN);
    } else {
        zc_print_wrapped(option->help, HELP_COLUMN, HELP_COLUMN);
    }
}

static void print_help(const struct zc_command_line *line)
{
    printf("usage: zerocta %s%s%s\n\n", line->command, line->synopsis[0] != '\0' ? " " : "",
           line->synopsis);
    zc_print_wrapped(line->purpose, 0, 0);
    printf("\n");
    for (size_t i = 0; i < line->option_count; i++)
        print_option(&line->options[i]);
    print_option(&help_option);
    if (line->notes != NULL)
        printf("\n%s\n", line->notes);
}

/* ---- Parsing ---- */

static const struct zc_option *option_at(const struct zc_command_line *line, size_t index)
{
    return index < line->option_count ? &line->options[index] : &help_option;
}

struct getopt_tables {
    struct option longs[OPTIONS_MAX + 2];
    char shorts[2 * OPTIONS_MAX + 8];
};

static void make_tables(const struct zc_command_line *line, struct getopt_tables *tables)
{
    size_t used = 0;

    assert(line->option_count <= OPTIONS_MAX);
    memset(tables, 0, sizeof *tables);
    if (line->stop_at_operand)
        tables->shorts[used++] = '+';
    tables->shorts[used++] = ':';
    for (size_t i = 0; i <= line->option_count; i++) {
        const struct zc_option *option = option_at(line, i);
        const bool takes_value = option->kind != ZC_OPTION_FLAG;

        tables->longs[i] = (struct option){
            .name = option->name, .has_arg = takes_value, .val = LONG_BASE + (int)i};
        if (option->letter == 0)
            continue;
        tables->shorts[used++] = option->letter;
        if (takes_value)
            tables->shorts[used++] = ':';
    }
}

/* The option behind a value of getopt_long(), or NULL. */
static const struct zc_option *find_option(const struct zc_command_line *line, int value)
{
    if (value >= LONG_BASE)
        return option_at(line, (size_t)(value - LONG_BASE));
    for (size_t i = 0; value != 0 && i <= line->option_count; i++)
        if (option_at(line, i)->letter == value)
            return option_at(line, i);
    return NULL;
}

static void complain_unknown(const struct zc_command_line *line, const char *given)
{
    char names[512];
    size_t used = 0;

    for (size_t i = 0; i <= line->option_count && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s--%s", i == 0 ? "" : ", ",
                                 option_at(line, i)->name);
    zc_usage_error(line->command, "there is no option %s (or it is not complete); there are %s",
                   given, names);
}

/* `code` is '?' or ':', what getopt_long() returns for a mistake. */
static void complain_getopt(const struct zc_command_line *line, int code, char **argv)
{
    const struct zc_option *option = find_option(line, optopt);
    const char letter[] = {'-', (char)optopt, '\0'};
    char allowed[256], name[LABEL_BYTES];

    if (option != NULL && code == ':') {
        allowed_text(option, allowed, sizeof allowed);
        zc_usage_error(line->command, "%s needs a value: %s", label(option, name), allowed);
    } else if (option != NULL) {
        zc_usage_error(line->command, "%s takes no value, but one was given: %s",
                       label(option, name), argv[optind - 1]);
    } else {
        complain_unknown(line, optopt != 0 ? letter : argv[optind - 1]);
    }
}

static bool check_operands(const struct zc_command_line *line, int argc, char **argv)
{
    const uint32_t given = (uint32_t)(argc - optind);

    if (given < line->operands_min) {
        zc_usage_error(line->command, "%s is missing; see `zerocta %s --help`", line->operand_name,
                       line->command);
        return false;
    }
    if (given > line->operands_max) {
        zc_usage_error(line->command, "unexpected argument '%s'; see `zerocta %s --help`",
                       argv[optind + (int)line->operands_max], line->command);
        return false;
    }
    return true;
}

bool zc_options_parse(const struct zc_command_line *line, int argc, char **argv, void *settings,
                      int *first_operand, int *exit_status)
{
    struct getopt_tables tables;
    int code;

    make_tables(line, &tables);
    *exit_status = ZC_EXIT_USAGE;
    opterr = 0;
    optind = 0; /* makes getopt_long() start afresh */
    while ((code = getopt_long(argc, argv, tables.shorts, tables.longs, NULL)) != -1) {
        const struct zc_option *option = find_option(line, code);

        if (option == NULL) {
            complain_getopt(line, code, argv);
            return false;
        }
        if (option == &help_option) {
            print_help(line);
            *exit_status = ZC_EXIT_OK;
            return false;
        }
        if (!store_value(line, option, optarg, settings))
            return false;
    }
    if (!check_operands(line, argc, argv))
        return false;
    *first_operand = optind;
    *exit_status = ZC_EXIT_OK;
    return true;
}
