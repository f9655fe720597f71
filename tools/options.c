/* The table-driven reading of command lines. Prints help and the one sentence about a mistake;
 * decides nothing about what the options mean. */
#include "options.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "commands.h"
#include "guess.h"
#include "values.h"

#define WIDTH_MOST  92
#define WIDTH_LEAST 40
#define HELP_WIDTH  80 /* at most */
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
            if (strcasecmp(option->choices[*value], text) == 0)
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

size_t zc_print_width(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 ||
        size.ws_col == 0 || size.ws_col > WIDTH_MOST)
        return WIDTH_MOST;
    return size.ws_col < WIDTH_LEAST ? WIDTH_LEAST : size.ws_col;
}

void zc_print_wrapped(const char *text, size_t width, size_t from, size_t indent)
{
    size_t column = from;

    while (*text != '\0') {
        const size_t word = strcspn(text, " ");

        if (column > indent && column + 1 + word > width) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        column += (size_t)printf("%s%.*s", column > indent ? " " : "", (int)word, text);
        text += word;
        text += strspn(text, " ");
    }
    printf("\n");
}

static size_t help_width(void)
{
    const size_t width = zc_print_width();

    return width < HELP_WIDTH ? width : HELP_WIDTH;
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
        zc_print_wrapped(help, help_width(), HELP_COLUMN, HELP_COLUMN);
    } else {
        zc_print_wrapped(option->help, help_width(), HELP_COLUMN, HELP_COLUMN);
    }
}

static void print_paragraph(const char *text)
{
    const char *gap = strstr(text, "  ");
    const size_t term = gap == NULL ? 0 : (size_t)(gap - text);
    const size_t indent = gap == NULL ? 0 : term + strspn(gap, " ");

    if (indent > 0)
        printf("%.*s%*s", (int)term, text, (int)(indent - term), "");
    zc_print_wrapped(text + indent, help_width(), indent, indent);
}

static void print_notes(const char *notes)
{
    char paragraph[1024];

    for (const char *line = notes; *line != '\0'; line += line[0] == '\n') {
        const size_t length = strcspn(line, "\n");

        assert(length < sizeof paragraph);
        snprintf(paragraph, sizeof paragraph, "%.*s", (int)length, line);
        print_paragraph(paragraph);
        line += length;
    }
    printf("\n");
}

static void print_help(const struct zc_command_line *line)
{
    char status[512];

    printf("usage: zerocta %s%s%s\n\n", line->command, line->synopsis[0] != '\0' ? " " : "",
           line->synopsis);
    zc_print_wrapped(line->purpose, help_width(), 0, 0);
    printf("\n");
    for (size_t i = 0; i < line->option_count; i++)
        print_option(&line->options[i]);
    print_option(&help_option);
    printf("\n");
    if (line->notes != NULL)
        print_notes(line->notes);
    snprintf(status, sizeof status, "Exit status: %s, 2 for a wrong option or value.",
             line->exit_status != NULL ? line->exit_status : "0 if all went well, 1 if not");
    zc_print_wrapped(status, help_width(), 0, 0);
}

/* ---- Parsing ---- */

/* A walk over the words of a command line. What is behind `at` has not been looked at; operands so
 * far stand together from `first` on, the options before them. */
struct walk {
    const struct zc_command_line *line;
    char **argv;
    int argc, at, first;
    void *settings;
    bool help; /* was asked for */
};

static const struct zc_option *option_at(const struct zc_command_line *line, size_t index)
{
    return index < line->option_count ? &line->options[index] : &help_option;
}

/* A name counts only whole: what a beginning of it means would change with the next option. */
static const struct zc_option *find_name(const struct zc_command_line *line, const char *name,
                                         size_t length)
{
    for (size_t i = 0; i <= line->option_count; i++) {
        const struct zc_option *option = option_at(line, i);

        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    }
    return NULL;
}

static const struct zc_option *find_letter(const struct zc_command_line *line, char letter)
{
    for (size_t i = 0; i <= line->option_count; i++)
        if (option_at(line, i)->letter == letter)
            return option_at(line, i);
    return NULL;
}

/* `given` with its dashes, `length` of it. */
static bool refuse_unknown(const struct zc_command_line *line, const char *given, size_t length)
{
    char names[512], name[ZC_GUESS_TEXT_BYTES], meant[ZC_GUESS_TEXT_BYTES];
    struct zc_guess guess = {.given = name};
    size_t used = 0;

    snprintf(name, sizeof name, "%.*s", length > 2 ? (int)length - 2 : 0, given + 2);
    for (size_t i = 0; i <= line->option_count && used < sizeof names; i++) {
        zc_guess_try(&guess, option_at(line, i)->name);
        used += (size_t)snprintf(names + used, sizeof names - used, "%s--%s", i == 0 ? "" : ", ",
                                 option_at(line, i)->name);
    }
    zc_usage_error(line->command, "there is no option %.*s%s; there are %s", (int)length, given,
                   zc_guess_text(&guess, "--", meant), names);
    return false;
}

/* Takes an option, and its value: what follows it in its word, or else the next word. */
static bool take(struct walk *walk, const struct zc_option *option, const char *value)
{
    char allowed[256], name[LABEL_BYTES];

    if (option == &help_option)
        walk->help = true;
    if (option->kind == ZC_OPTION_FLAG)
        return option == &help_option || store_value(walk->line, option, NULL, walk->settings);
    if (value == NULL && walk->at < walk->argc)
        value = walk->argv[walk->at++];
    if (value != NULL)
        return store_value(walk->line, option, value, walk->settings);
    allowed_text(option, allowed, sizeof allowed);
    zc_usage_error(walk->line->command, "%s needs a value: %s", label(option, name), allowed);
    return false;
}

/* "--ranks" or "--ranks=2" */
static bool take_long(struct walk *walk, const char *word)
{
    const size_t length = strcspn(word, "=");
    const struct zc_option *option = find_name(walk->line, word + 2, length - 2);
    char name[LABEL_BYTES];

    if (option == NULL)
        return refuse_unknown(walk->line, word, length);
    if (word[length] == '\0')
        return take(walk, option, NULL);
    if (option->kind != ZC_OPTION_FLAG)
        return take(walk, option, word + length + 1);
    zc_usage_error(walk->line->command, "%s takes no value, but one was given: %s",
                   label(option, name), word);
    return false;
}

/* "-k", "-n2", or several flags in one word */
static bool take_letters(struct walk *walk, const char *word)
{
    for (const char *letter = word + 1; *letter != '\0'; letter++) {
        const struct zc_option *option = find_letter(walk->line, *letter);
        const char unknown[] = {'-', *letter, '\0'};

        if (option == NULL)
            return refuse_unknown(walk->line, unknown, 2);
        if (option->kind != ZC_OPTION_FLAG)
            return take(walk, option, letter[1] != '\0' ? letter + 1 : NULL);
        if (!take(walk, option, NULL))
            return false;
    }
    return true;
}

/* Moves the words of an option, which begin at `from`, in front of the operands before them. */
static void move_before_operands(struct walk *walk, int from)
{
    const size_t words = (size_t)(walk->at - from), operands = (size_t)(from - walk->first);
    char **first = walk->argv + walk->first;
    char *option[2];

    assert(words <= 2);
    memcpy(option, walk->argv + from, words * sizeof *option);
    memmove(first + words, first, operands * sizeof *first);
    memcpy(first, option, words * sizeof *option);
    walk->first += (int)words;
}

/* Goes on until the operands stand from `first` to the end. False after a mistake, or for help. */
static bool take_words(struct walk *walk)
{
    while (walk->at < walk->argc) {
        const int from = walk->at;
        const char *word = walk->argv[from];
        const bool last = strcmp(word, "--") == 0;

        if (word[0] != '-' || word[1] == '\0') {
            if (walk->line->stop_at_operand)
                break;
            walk->at++;
            continue;
        }
        walk->at++;
        if (!last && !(word[1] == '-' ? take_long(walk, word) : take_letters(walk, word)))
            return false;
        if (walk->help)
            return false;
        move_before_operands(walk, from);
        if (last)
            break;
    }
    return true;
}

static bool check_operands(const struct walk *walk)
{
    const struct zc_command_line *line = walk->line;
    const uint32_t given = (uint32_t)(walk->argc - walk->first);

    if (given < line->operands_min) {
        zc_usage_error(line->command, "%s is missing%s%s; see `zerocta %s --help`",
                       line->operand_name, line->operand_words != NULL ? ":" : "",
                       line->operand_words != NULL ? line->operand_words : "", line->command);
        return false;
    }
    if (given > line->operands_max) {
        zc_usage_error(line->command, "unexpected argument '%s'; see `zerocta %s --help`",
                       walk->argv[walk->first + (int)line->operands_max], line->command);
        return false;
    }
    return true;
}

bool zc_options_parse(const struct zc_command_line *line, int argc, char **argv, void *settings,
                      int *first_operand, int *exit_status)
{
    struct walk walk = {
        .line = line, .argv = argv, .argc = argc, .at = 1, .first = 1, .settings = settings};

    *exit_status = ZC_EXIT_USAGE;
    if (!take_words(&walk)) {
        if (walk.help) {
            print_help(line);
            *exit_status = ZC_EXIT_OK;
        }
        return false;
    }
    if (!check_operands(&walk))
        return false;
    *first_operand = walk.first;
    *exit_status = ZC_EXIT_OK;
    return true;
}
