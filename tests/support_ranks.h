/* Ranks for tests, as threads of this process or as processes. */
#ifndef SUPPORT_RANKS_H
#define SUPPORT_RANKS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "zerocta/zerocta.h"

/* What a rank does; it runs between zcta_init() and zcta_finalize(), which the support makes. */
typedef void rank_fn(zcta_context *context, void *data);

struct ranks_options {
    uint64_t timeout_ns; /* 0: 20 s */
    zcta_device device;  /* AUTO: the host */
    uint32_t check;
    uint32_t closed; /* bit i: a rank that is a process closes its descriptor i before it joins */
    uint32_t node_ranks;       /* so many ranks are told to be on one node; 0: nothing is told */
    bool may_fail_to_finalize; /* some rank will not be there at the end */
    bool may_fail_to_init;     /* nor at the beginning; then the rank ends without a word */
};

/* Runs `function` on `count` ranks and expects all of them to end well. */
void run_as_threads(uint32_t count, rank_fn *function, void *data);
void run_as_processes(uint32_t count, rank_fn *function, void *data);
void run_as_threads_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                         void *data);
void run_as_processes_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                           void *data);

/* The same in two halves, for tests that do something to the processes meanwhile. */
void start_processes(uint32_t count, const struct ranks_options *options, rank_fn *function,
                     void *data, pid_t *pids);
/* Exit status, or 256 + signal. A process that still runs after `seconds` fails the test. */
int wait_process(pid_t pid, double seconds);

/* Zeroed memory that processes started later share. */
void *shared_zeroed(size_t bytes);

uint64_t now_ns(void);
void sleep_ms(uint32_t ms);

/* Open descriptors, and mappings of shared memory, of this process. */
uint32_t count_fds(void);
uint32_t count_shared_mappings(void);

/* How much longer things take under a sanitizer. ThreadSanitizer sees nothing of other processes,
 * so tests of these are short under it. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
#define SLOWNESS               5
#elif defined(__SANITIZE_ADDRESS__)
#define UNDER_THREAD_SANITIZER 0
#define SLOWNESS               3
#else
#define UNDER_THREAD_SANITIZER 0
#define SLOWNESS               1
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef UNDER_THREAD_SANITIZER
#undef SLOWNESS
#define UNDER_THREAD_SANITIZER 1
#define SLOWNESS               5
#endif
#endif

/* Inside a rank: like an assert that also works in threads and children. */
#define EXPECT(condition)                                                                          \
    ((condition) ? (void)0 : expectation_failed(#condition, __FILE__, __LINE__))
_Noreturn void expectation_failed(const char *condition, const char *file, int line);

/* The word of a team's failure travels: waits until it has come. Returns the team's status. */
zcta_status await_failure(zcta_team *team);

/* Expects a status and, if `text` is not NULL, a part of the last error's sentence. */
void expect_error(zcta_context *context, zcta_status got, zcta_status wanted, const char *text);
#define EXPECT_OK(context, call) expect_error(context, call, ZCTA_OK, NULL)

/* Whether the environment forbids ranks to reach each other's memory. */
bool are_kept_apart(void);

/* How often a path was taken, 0 if never; also how often as a fall-back, unless that is NULL. */
uint64_t path_calls(zcta_team *team, const char *path, uint64_t *fallbacks);

/* An allgather as a descriptor; `params` may be NULL. */
zcta_call all_gather_call(const void *send, void *recv, size_t bytes,
                          const zcta_call_params *params);
/* Prepared, and explained: `report` needs no size. */
zcta_status plan_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                            const zcta_call_params *params, zcta_plan **plan);
zcta_status explain_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                               const zcta_call_params *params, zcta_report *report);

/* The model: byte `i` of rank `rank`'s share in call `call`. */
static inline unsigned char model_byte(uint32_t call, uint32_t rank, size_t i)
{
    return (unsigned char)(1 + call * 101 + rank * 31 + i * 7 + (i >> 8) * 3);
}

void model_fill(unsigned char *share, uint32_t call, uint32_t rank, size_t bytes);
/* Number of wrong bytes in a gathered output. */
size_t model_wrong(const unsigned char *output, uint32_t call, uint32_t count, size_t bytes);

/* Fills this rank's share in place, gathers it on `team`, checks every byte of `recv`. */
void gather_checked(zcta_context *context, zcta_team *team, void *recv, size_t bytes,
                    uint32_t call);

#endif
