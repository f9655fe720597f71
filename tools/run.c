/* zerocta run: starts the ranks of a job on this machine. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "launch.h"
#include "options.h"
#include "rendezvous/rendezvous.h"

struct settings {
    uint64_t rank_count;
    uint64_t nodes, node;
    const char *root;
    uint64_t grace_ns, timeout_ns;
    uint64_t pty; /* an enum pty */
    bool keep_going, no_prefix;
};

/* When a rank's standard output is a terminal. */
enum pty { PTY_AUTO, PTY_ALWAYS, PTY_NEVER };
static const char *const pty_choices[] = {"auto", "always", "never", NULL};

#define GRACE_DEFAULT_NS 1000000000ull
#define YEAR_NS          (1000000000ull * 86400 * 365)

static const struct zc_option options[] = {
    {.name = "ranks",
     .letter = 'n',
     .argument = "RANKS",
     .help = "how many ranks to start on this machine (needed)",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rank_count),
     .min = 1,
     .max = ZC_MAX_RANKS},
    {.name = "nodes",
     .argument = "NODES",
     .help = "how many machines the job has, each with RANKS ranks; start this command on each",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, nodes),
     .min = 1,
     .max = ZC_MAX_RANKS},
    {.name = "node",
     .argument = "NODE",
     .help = "which of them this machine is, from 0",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, node),
     .min = 0,
     .max = ZC_MAX_RANKS - 1},
    {.name = "root",
     .argument = "HOST:PORT",
     .help = "an address of machine 0 and a port free there, the same on all machines",
     .kind = ZC_OPTION_TEXT,
     .offset = offsetof(struct settings, root)},
    {.name = "timeout",
     .letter = 't',
     .argument = "SECONDS",
     .help = "end the job after so long, with exit status 124; without it there is no limit",
     .kind = ZC_OPTION_SECONDS,
     .offset = offsetof(struct settings, timeout_ns),
     .min = 1000000,
     .max = YEAR_NS},
    {.name = "keep-going",
     .letter = 'k',
     .help = "a rank that fails ends no other: the rest runs on, and may form teams without it",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, keep_going)},
    {.name = "grace",
     .argument = "SECONDS",
     .help = "how long the others may run on after a rank has failed; 1 if not given",
     .kind = ZC_OPTION_SECONDS,
     .offset = offsetof(struct settings, grace_ns),
     .min = 1000000,
     .max = YEAR_NS},
    {.name = "pty",
     .argument = "WHEN",
     .help = "a terminal for each rank's standard output, instead of a pipe, so that most programs "
             "write each line at once; auto: if this command's is a terminal",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, pty),
     .choices = pty_choices},
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
               "LOCAL_WORLD_SIZE, GROUP_RANK, MASTER_ADDR, MASTER_PORT). Over several machines it "
               "does that on each of them, with --nodes, --node and --root.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .stop_at_operand = true,
    .operands_min = 1,
    .operands_max = UINT32_MAX,
    .operand_name = "the program to start",
    .notes =
        "Over several machines ZEROCTA_TOKEN must hold the same secret everywhere; MASTER_PORT is "
        "the port behind the root's. When a rank fails, its own machine's others are ended, and "
        "zerocta tells those elsewhere.\n"
        "\n"
        "Output comes line by line, never mixed; a line over 64 KiB comes in pieces. Most programs "
        "write lines at once to a terminal only, and else when some KiB have come together or when "
        "they end. So a rank's standard output is a terminal if this command's is (--pty). Where "
        "it is a pipe, programs can be told: `stdbuf -oL PROGRAM`, `python -u`, setvbuf().\n"
        "Rank 0 reads standard input unless that is a terminal; the others read nothing.\n"
        "\n"
        "Signals (INT, TERM, HUP, QUIT, USR1, USR2, TSTP, CONT) are passed on to every rank; a "
        "second INT, TERM, HUP or QUIT kills the ranks.\n"
        "When a rank fails (ends by a signal, or with a status that is not 0), the others have a "
        "second (--grace) to end by themselves, then get SIGTERM, and SIGKILL five seconds later. "
        "With --keep-going they run on. What a rank leaves in its process group ends with it.\n"
        "When some ranks have ended and others have not for 5 s, those are named, again after "
        "twice as long each time; they are waited for. --timeout bounds the whole job.\n",
    .exit_status =
        "0 if every rank returned 0, else that of the first that failed (128 + the "
        "number of the signal that ended it); 124 after the timeout; 126 if PROGRAM "
        "cannot be executed, 127 if it does not exist; 1 if the job could not be started",
};

/* False: *status is the exit status, after it was said why. */
static bool nodes_make_sense(const struct settings *settings, int *status)
{
    const char *token = getenv("ZEROCTA_TOKEN");

    *status = 0;
    if (settings->nodes <= 1) {
        if (settings->node != 0 || settings->root != NULL)
            *status = zc_usage_error("run", "--node and --root are for several machines: say how "
                                            "many with --nodes");
    } else if (settings->root == NULL || strrchr(settings->root, ':') == NULL) {
        *status = zc_usage_error("run", "--nodes needs --root HOST:PORT, an address of machine 0 "
                                        "and a port that is free there");
    } else if (settings->node >= settings->nodes) {
        *status = zc_usage_error("run", "--node counts from 0: the last of %llu is %llu",
                                 (unsigned long long)settings->nodes,
                                 (unsigned long long)settings->nodes - 1);
    } else if (settings->nodes * settings->rank_count > ZC_MAX_RANKS) {
        *status = zc_usage_error("run", "a job has at most %u ranks", ZC_MAX_RANKS);
    } else if (token == NULL || token[0] == '\0') {
        *status = zc_failure("run", "several machines need a secret: set ZEROCTA_TOKEN to the same "
                                    "text on all of them");
    }
    return *status == 0;
}

static bool wants_terminals(const struct settings *settings)
{
    return settings->pty == PTY_ALWAYS || (settings->pty == PTY_AUTO && isatty(STDOUT_FILENO));
}

int zc_command_run(int argc, char **argv)
{
    struct settings settings = {.grace_ns = GRACE_DEFAULT_NS};
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (settings.rank_count == 0)
        return zc_usage_error("run", "-n is missing: how many ranks to start, from 1 to %u",
                              ZC_MAX_RANKS);
    if (!nodes_make_sense(&settings, &status))
        return status;
    return zc_launch_run(&(struct zc_launch){.command = "run",
                                             .rank_count = (uint32_t)settings.rank_count,
                                             .nodes = (uint32_t)settings.nodes,
                                             .node = (uint32_t)settings.node,
                                             .root = settings.root,
                                             .argv = argv + first,
                                             .prefix = !settings.no_prefix,
                                             .keep_going = settings.keep_going,
                                             .terminals = wants_terminals(&settings),
                                             .grace_ns = settings.grace_ns,
                                             .timeout_ns = settings.timeout_ns});
}
