/* The zerocta command: finds the sub-command and hands over. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "commands.h"
#include "guess.h"
#include "options.h"
#include "zerocta/zerocta.h"

struct command {
    const char *name;
    const char *purpose;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
#define COMMAND(name, purpose) {#name, purpose, zc_command_##name},
    ZC_COMMAND_LIST(COMMAND)
#undef COMMAND
};
static const size_t command_count = sizeof commands / sizeof commands[0];

static int print_help(void)
{
    printf("usage: zerocta COMMAND [OPTIONS]\n\n"
           "Collectives that leave every SM to compute.\n\n");
    for (size_t i = 0; i < command_count; i++)
        printf("  %-9s %s\n", commands[i].name, commands[i].purpose);
    printf("\n`zerocta COMMAND --help` says more. `zerocta --version` prints the version.\n"
           "Exit status: 0 all well, 1 a check or the work failed, 2 a wrong option or value.\n");
    return ZC_EXIT_OK;
}

static int print_version(void)
{
    const uint32_t version = zcta_version();

    printf("zerocta %u.%u.%u\n", version >> 16, version >> 8 & 255u, version & 255u);
    return ZC_EXIT_OK;
}

static int complain(const char *what, const char *given)
{
    char names[128] = "", meant[ZC_GUESS_TEXT_BYTES];
    struct zc_guess guess = {.given = given};
    size_t used = 0;

    for (size_t i = 0; i < command_count && used < sizeof names; i++) {
        zc_guess_try(&guess, commands[i].name);
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ", ",
                                 commands[i].name);
    }
    return zc_usage_error(NULL, "%s%s%s; commands are %s, and there are --help and --version", what,
                          given, zc_guess_text(&guess, "", meant), names);
}

/* ---- Standard output ---- */

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

/* A reader that goes away makes writing fail instead of ending the process. Programs that this one
 * starts get the signal's own action back, which a handler, unlike ignoring, gives them. */
static void hear_of_lost_readers(void)
{
    const struct sigaction handler = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    struct sigaction before;

    if (sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_DFL)
        sigaction(SIGPIPE, &handler, NULL);
}

/* What was printed must have arrived: a full disk or a reader that went away is a failure, of any
 * command. Closing tells what some file systems tell only then. */
static int finish_output(const char *command, int status)
{
    const bool failed = ferror(stdout) != 0;

    if (fclose(stdout) == 0 && !failed)
        return status;
    zc_failure(command, "cannot write to standard output%s%s", failed ? "" : ": ",
               failed ? "" : strerror(errno));
    return status == ZC_EXIT_OK ? ZC_EXIT_FAILED : status;
}

static int run_command(int argc, char **argv)
{
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return finish_output(argv[0], commands[i].run(argc, argv));
    return complain("there is no command ", argv[0]);
}

int main(int argc, char **argv)
{
    char help[] = "--help";

    zc_fd_hold_standard();
    hear_of_lost_readers();
    if (argc < 2)
        return complain("a command is missing", "");
    if (strcmp(argv[1], "help") == 0 && argc > 2)
        return run_command(2, (char *[]){argv[2], help, NULL});
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return finish_output(NULL, print_help());
    if (strcmp(argv[1], "--version") == 0)
        return finish_output(NULL, print_version());
    return run_command(argc - 1, argv + 1);
}
