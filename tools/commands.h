/* The commands of `zerocta`. One list; main.c makes its table of it. */
#ifndef ZC_COMMANDS_H
#define ZC_COMMANDS_H

#define ZC_COMMAND_LIST(X)                                                                         \
    X(run, "start the ranks of a job on this machine")                                             \
    X(perf, "measure a collective and check every byte")                                           \
    X(info, "say what this build and this machine have, and what is missing")                      \
    X(explain, "say which path a call would take, and why not the others")                         \
    X(plan, "print what each rank does in a collective")                                           \
    X(tune, "measure which engine is faster here, for --engine auto")                              \
    X(overlap, "run GEMMs beside a collective, and see what each loses")                           \
    X(setup, "measure how long joining and making windows takes")                                  \
    X(hostage, "hold every SM and see which paths finish all the same")

/* Exit statuses, the same for every command. */
enum zc_exit {
    ZC_EXIT_OK = 0,
    ZC_EXIT_FAILED = 1, /* a check failed, or the work could not be done */
    ZC_EXIT_USAGE = 2,  /* a wrong option or value */
};

/* Each gets its own name as argv[0] and returns the exit status of the process. */
#define ZC_COMMAND_DECLARE(name, purpose) int zc_command_##name(int argc, char **argv);
ZC_COMMAND_LIST(ZC_COMMAND_DECLARE)
#undef ZC_COMMAND_DECLARE

#endif
