/* zerocta run: starts the ranks of a job on this machine. */
#include "commands.h"
#include "launch.h"
#include "options.h"
#include "rendezvous/rendezvous.h"

struct settings {
    uint64_t rank_count;
    uint64_t timeout_ns;
    bool no_prefix;
};

static const struct zc_option options[] = {
    {.name = "ranks",
     .letter = 'n',
     .argument = "RANKS",
     .help = "how many ranks to start (needed)",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rank_count),
     .min = 1,
     .max = ZC_MAX_RANKS},
    {.name = "timeout",
     .letter = 't',
     .argument = "SECONDS",
     .help = "end the job after so long, with exit status 124; without it there is no limit",
     .kind = ZC_OPTION_SECONDS,
     .offset = offsetof(struct settings, timeout_ns),
     .min = 1000000,
     .max = 1000000000ull * 86400 * 365},
    {.name = "no-prefix",
     .help = "do not put [rank] before each line of output",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, no_prefix)},
};

static const struct zc_command_line line = {
    .command = "run",
    .synopsis = "-n RANKS [OPTIONS] [--] PROGRAM [ARGUMENTS]",
    .purpose = "Starts RANKS processes of PROGRAM on this machine and tells each who it is through "
               "its environment: zerocta's variables and torchrun's (RANK, WORLD_SIZE, LOCAL_RANK, "
               "LOCAL_WORLD_SIZE, GROUP_RANK, MASTER_ADDR, MASTER_PORT).",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .stop_at_operand = true,
    .operands_min = 1,
    .operands_max = UINT32_MAX,
    .operand_name = "the program to start",
    .notes =
        "Output comes line by line, never mixed; a line over 64 KiB comes in pieces.\n"
        "Rank 0 reads standard input unless that is a terminal; the others read nothing.\n"
        "Signals (INT, TERM, HUP, QUIT, USR1, USR2, TSTP, CONT) are passed on to every rank; a\n"
        "second INT, TERM, HUP or QUIT ends the ranks.\n"
        "When a rank fails, the others get a second to end by themselves, then SIGTERM, and\n"
        "SIGKILL five seconds later. What a rank leaves in its process group ends with it.\n"
        "Exit status: 0 if every rank returned 0, else that of the first that failed (128 + the\n"
        "number of the signal that ended it); 124 after the timeout; 126 if PROGRAM cannot be\n"
        "executed, 127 if it does not exist; 2 for a wrong option.",
};

int zc_command_run(int argc, char **argv)
{
    struct settings settings = {0};
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (settings.rank_count == 0)
        return zc_usage_error("run", "-n is missing: how many ranks to start, from 1 to %u",
                              ZC_MAX_RANKS);
    return zc_launch_run(&(struct zc_launch){.command = "run",
                                             .rank_count = (uint32_t)settings.rank_count,
                                             .argv = argv + first,
                                             .prefix = !settings.no_prefix,
                                             .timeout_ns = settings.timeout_ns});
}
