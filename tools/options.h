/* Command line options in GNU form, from a table for each command. The table is the only place that
 * knows an option: parsing, checking and `--help` are made from it. */
#ifndef ZC_OPTIONS_H
#define ZC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "values.h"

enum zc_option_kind {
    ZC_OPTION_FLAG,    /* bool: true when given; takes no value */
    ZC_OPTION_NUMBER,  /* uint64_t between min and max */
    ZC_OPTION_SIZE,    /* uint64_t bytes between min and max; 4096, 4K, 1M, 2G, 1T */
    ZC_OPTION_SECONDS, /* uint64_t nanoseconds from "2" or "0.5"; min and max in nanoseconds */
    ZC_OPTION_CHOICE,  /* uint64_t index into `choices`; upper and lower case are the same */
    ZC_OPTION_TEXT,    /* const char * into argv */
};

struct zc_option {
    const char *name;     /* without the dashes */
    char letter;          /* 0: none */
    const char *argument; /* "RANKS"; NULL for a flag */
    const char *help;     /* a phrase, wrapped as needed */
    enum zc_option_kind kind;
    size_t offset;              /* of the value in the command's settings */
    uint64_t min, max;          /* max 0: no upper bound */
    const char *const *choices; /* ends with NULL */
};

struct zc_command_line {
    const char *command;  /* "perf" */
    const char *synopsis; /* what follows the command: "COLLECTIVE [OPTIONS]" */
    const char *purpose;  /* a paragraph for --help, wrapped as needed */
    const struct zc_option *options;
    size_t option_count;
    bool stop_at_operand; /* what follows the first operand belongs to another program */
    uint32_t operands_min, operands_max;
    const char *operand_name;  /* "a collective"; for messages */
    const char *operand_words; /* " all_gather broadcast", what there is; NULL: not told */
    /* Paragraphs for the end of --help, a line each, wrapped as needed; NULL: none. In "term  text"
     * further lines of the text stand below its first. */
    const char *notes;
    const char *exit_status; /* what it means; NULL: 0 if all went well, 1 if not */
};

/* Reads argv (argv[0] is the command's name; options may be moved before operands) into `settings`,
 * which holds the defaults before. Returns true to go on; operands then are argv[*first_operand] to
 * argv[argc - 1], in order. Returns false when the command is over, with its exit status: help was
 * printed, or one sentence on stderr said what is wrong. Options `--help` and `-h` are always
 * there. */
bool zc_options_parse(const struct zc_command_line *line, int argc, char **argv, void *settings,
                      int *first_operand, int *exit_status);

/* For mistakes that a table cannot know: prints "zerocta COMMAND: sentence" and returns
 * ZC_EXIT_USAGE. The format needs no newline. `command` may be NULL. */
int zc_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same for a failure that is no mistake in the command line: returns ZC_EXIT_FAILED. */
int zc_failure(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* How many columns a report should fill at most: the terminal's, but no more than 92. */
size_t zc_print_width(void);

/* Prints words on standard output, the first at column `from`, where the cursor is, in lines of
 * `width` columns; further lines are indented by `indent`. Ends the line. */
void zc_print_wrapped(const char *text, size_t width, size_t from, size_t indent);

#endif
