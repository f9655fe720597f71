/* The command's parsers of numbers, sizes and durations, and a whole command line. */
#include <inttypes.h>
#include <string.h>

#include "fuzz.h"
#include "options.h"

struct settings {
    bool flag;
    uint64_t number, size, time, choice;
    const char *text;
};

static const char *const choices[] = {"auto", "host", "cuda", NULL};

static const struct zc_option options[] = {
    {"flag", 'f', NULL, "flag", ZC_OPTION_FLAG, offsetof(struct settings, flag), 0, 0, NULL},
    {"number", 'n', "N", "number", ZC_OPTION_NUMBER, offsetof(struct settings, number), 1, 9, NULL},
    {"size", 's', "S", "size", ZC_OPTION_SIZE, offsetof(struct settings, size), 0, 1 << 30, NULL},
    {"time", 't', "T", "time", ZC_OPTION_SECONDS, offsetof(struct settings, time), 5, 0, NULL},
    {"choice", 0, "C", "choice", ZC_OPTION_CHOICE, offsetof(struct settings, choice), 0, 0,
     choices},
    {"text", 0, "X", "text", ZC_OPTION_TEXT, offsetof(struct settings, text), 0, 0, NULL},
};

static const struct zc_command_line line = {
    .command = "fuzz",
    .synopsis = "",
    .purpose = "",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 0,
    .operands_max = 2,
    .operand_name = "an operand",
};

/* What is printed for a number or a size must read back as the same. */
static void check_values(const char *text)
{
    char printed[ZC_SIZE_TEXT_BYTES];
    uint64_t value, again;

    if (zc_parse_number(text, &value)) {
        snprintf(printed, sizeof printed, "%" PRIu64, value);
        FUZZ_REQUIRE(zc_parse_number(printed, &again) && again == value);
        FUZZ_REQUIRE(zc_parse_size(text, &again) && again == value);
    }
    if (zc_parse_size(text, &value))
        FUZZ_REQUIRE(zc_parse_size(zc_size_text(value, printed), &again) && again == value);
    zc_parse_seconds(text, &value);
}

static void check_line(char *text)
{
    struct settings settings = {0};
    char *argv[18] = {"fuzz"};
    int argc = 1, first = 0, status = -1;

    for (char *word = strtok(text, "\n"); word != NULL && argc < 17; word = strtok(NULL, "\n"))
        argv[argc++] = word;
    if (zc_options_parse(&line, argc, argv, &settings, &first, &status)) {
        FUZZ_REQUIRE(status == 0);
        FUZZ_REQUIRE(first >= 1 && first <= argc && argc - first <= 2);
        FUZZ_REQUIRE(settings.number <= 9 && settings.choice < 3 && settings.size <= 1 << 30);
    } else {
        FUZZ_REQUIRE(status == 0 || status == 2);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);

    if (text == NULL)
        return 0;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    check_values(text);
    check_line(text);
    free(text);
    return 0;
}
