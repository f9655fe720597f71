/* Communicators and their threads.
 *
 * The communicator is named and made by its own thread, because neither can be ended from outside
 * if it hangs: it is left to that thread. All later calls are made by the team's thread, which is
 * `busy` meanwhile; the communicator's thread watches how long they take, and aborts. NCCL lets an
 * abort come from another thread: it is what ends a call that waits for a dead rank. */
#include "engine/nccl/nccl_comm.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/number.h"
#include "base/thread.h"
#include "engine/nccl/nccl_log.h"

#define LOOK_NS           UINT64_C(100000000)
#define ABORT_PATIENCE_NS UINT64_C(1000000000)

struct window {
    struct window *next;
    const void *base;
    void *handle;
};

struct zc_nccl_comm {
    struct zc_nccl nccl; /* a reference of its own: the thread may outlive the team */
    const struct zc_group *group;
    struct zc_guard *guard;
    uint64_t timeout_ns;
    int rank, rank_count, policy;

    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct window *windows; /* a window of another team may go on another thread */
    struct zc_nccl_id id;
    zc_nccl_handle handle; /* NULL: not made yet, or gone */
    bool busy;             /* somebody calls NCCL with the handle; an abort waits, not for ever */
    int named;             /* NCCL's result of naming it, on rank 0; IN_PROGRESS at first */
    bool agreed;           /* all ranks have the name: it can be made */
    int made;              /* NCCL's result of making it; IN_PROGRESS at first */
    uint64_t since;        /* when the team's thread went into NCCL; 0: it is not there */
    bool aborting;         /* asked for; done once `handle` is NULL */
    bool ending;           /* the thread shall end */
    bool ended;            /* it has, but for its return */
    bool abandoned;        /* nobody else has the communicator any more: the thread frees it */
};

/* NCCL's error ends the team at once, so that all ranks learn of it in NCCL's own words, before
 * they hear in some round that this rank could not go on. */
static zcta_status check(const struct zc_nccl_comm *comm, int result, const char *what,
                         const char *doing)
{
    const zcta_status status =
        zc_nccl_status(&comm->nccl, comm->group->diag, NULL, result, what, doing);
    zcta_error error;

    if (status == ZCTA_OK)
        return status;
    zc_diag_last(comm->group->diag, &error);
    comm->guard->on_broken(comm->guard->data, error.message);
    return status;
}

/* ---- Who calls NCCL ---- */

static struct timespec moment(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

static void leave_nccl(struct zc_nccl_comm *comm)
{
    pthread_mutex_lock(&comm->lock);
    comm->since = 0;
    comm->busy = false;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
}

/* The handle, held by the team's thread until leave_nccl(); NULL if there is none any more. */
static zc_nccl_handle enter_nccl(struct zc_nccl_comm *comm)
{
    zc_nccl_handle handle;

    pthread_mutex_lock(&comm->lock);
    while (comm->busy && !comm->aborting)
        pthread_cond_wait(&comm->changed, &comm->lock);
    handle = comm->aborting ? NULL : comm->handle;
    if (handle != NULL) {
        comm->busy = true;
        comm->since = zc_now_ns();
    }
    pthread_mutex_unlock(&comm->lock);
    return handle;
}

/* The handle, for the communicator's thread to end it: nobody gets it any more. Waits for who is
 * in NCCL, but not for long if `aborts`: a call that is stuck there is let go only by the abort. */
static zc_nccl_handle take_handle(struct zc_nccl_comm *comm, bool aborts)
{
    const struct timespec until =
        moment(zc_deadline_in(aborts ? ABORT_PATIENCE_NS : comm->timeout_ns));
    zc_nccl_handle handle;

    pthread_mutex_lock(&comm->lock);
    while (comm->busy && pthread_cond_timedwait(&comm->changed, &comm->lock, &until) == 0)
        continue;
    handle = comm->handle;
    comm->handle = NULL;
    pthread_mutex_unlock(&comm->lock);
    return handle;
}

/* ---- The thread ---- */

static void abort_now(struct zc_nccl_comm *comm)
{
    zc_nccl_handle handle = take_handle(comm, true);

    if (handle != NULL)
        comm->nccl.ncclCommAbort(handle);
}

/* Whoever ends the communicator waits for this thread, for a while: what the team has may be used
 * until a call of NCCL's took so long that this is true. */
static bool is_ending(struct zc_nccl_comm *comm)
{
    bool ending;

    pthread_mutex_lock(&comm->lock);
    ending = comm->ending;
    pthread_mutex_unlock(&comm->lock);
    return ending;
}

/* What NCCL found out by itself, a broken connection say, ends the team. */
static void look_for_errors(struct zc_nccl_comm *comm)
{
    int result = ZC_NCCL_SUCCESS;
    zc_nccl_handle handle;
    char why[300];

    pthread_mutex_lock(&comm->lock);
    handle = comm->busy ? NULL : comm->handle;
    comm->busy = comm->busy || handle != NULL;
    pthread_mutex_unlock(&comm->lock);
    if (handle == NULL)
        return;
    if (comm->nccl.ncclCommGetAsyncError(handle, &result) != ZC_NCCL_SUCCESS)
        result = ZC_NCCL_SUCCESS;
    leave_nccl(comm);
    if (result == ZC_NCCL_SUCCESS || result == ZC_NCCL_IN_PROGRESS || is_ending(comm))
        return;
    snprintf(why, sizeof why, "NCCL reports %.100s (error %d): %.150s",
             comm->nccl.ncclGetErrorString(result), result, comm->nccl.ncclGetLastError(NULL));
    comm->guard->on_broken(comm->guard->data, why);
}

static void look_for_delay(struct zc_nccl_comm *comm, uint64_t since)
{
    char why[160];

    if (since == 0 || zc_now_ns() - since < comm->timeout_ns)
        return;
    zc_format(why, sizeof why,
              "a call of NCCL's has not come back within %.3g s: a rank is missing there, and NCCL "
              "does not say which",
              (double)comm->timeout_ns / 1e9);
    comm->guard->on_broken(comm->guard->data, why);
}

static void free_comm(struct zc_nccl_comm *comm)
{
    while (comm->windows != NULL) {
        struct window *next = comm->windows->next;

        free(comm->windows);
        comm->windows = next;
    }
    zc_nccl_unload(&comm->nccl);
    pthread_cond_destroy(&comm->changed);
    pthread_mutex_destroy(&comm->lock);
    free(comm);
}

/* The team's device, for the making. An abandoned communicator has no team any more: whoever
 * abandons it holds the lock, so either this comes first or it is seen here. */
static bool enter_device(struct zc_nccl_comm *comm)
{
    bool entered = false;

    pthread_mutex_lock(&comm->lock);
    if (!comm->abandoned)
        entered = comm->group->ops->enter(comm->group->device) == ZCTA_OK;
    pthread_mutex_unlock(&comm->lock);
    return entered;
}

/* NCCL looks for its network then, which takes what it takes. */
static void make_name(struct zc_nccl_comm *comm)
{
    struct zc_nccl_id id = {{0}};
    const int result = comm->nccl.ncclGetUniqueId(&id);

    pthread_mutex_lock(&comm->lock);
    comm->id = id;
    comm->named = result;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
}

/* Whether it shall be made. */
static bool await_agreement(struct zc_nccl_comm *comm)
{
    bool agreed;

    pthread_mutex_lock(&comm->lock);
    while (!comm->agreed && !comm->ending)
        pthread_cond_wait(&comm->changed, &comm->lock);
    agreed = comm->agreed;
    pthread_mutex_unlock(&comm->lock);
    return agreed;
}

static void make_handle(struct zc_nccl_comm *comm)
{
    struct zc_nccl_config config = zc_nccl_config(comm->nccl.version, comm->policy);
    zc_nccl_handle handle = NULL;
    int result = ZC_NCCL_CUDA_ERROR;

    if (enter_device(comm))
        result = comm->nccl.ncclCommInitRankConfig(&handle, comm->rank_count, comm->id, comm->rank,
                                                   &config);
    pthread_mutex_lock(&comm->lock);
    comm->handle = result == ZC_NCCL_SUCCESS || result == ZC_NCCL_IN_PROGRESS ? handle : NULL;
    /* Its calls would not wait, whatever it was told; it is only there to be aborted. */
    comm->made = result == ZC_NCCL_IN_PROGRESS ? ZC_NCCL_INVALID_USAGE : result;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
}

/* Until the end is asked for. The lock is held here, but not where NCCL or the team is called. */
static void serve(struct zc_nccl_comm *comm)
{
    pthread_mutex_lock(&comm->lock);
    while (!comm->ending) {
        const struct timespec until = moment(zc_deadline_in(LOOK_NS));

        if (comm->aborting && comm->handle != NULL) {
            pthread_mutex_unlock(&comm->lock);
            abort_now(comm);
        } else if (pthread_cond_timedwait(&comm->changed, &comm->lock, &until) != 0) {
            const uint64_t since = comm->since;

            pthread_mutex_unlock(&comm->lock);
            look_for_errors(comm);
            if (!is_ending(comm))
                look_for_delay(comm, since);
        } else {
            continue;
        }
        pthread_mutex_lock(&comm->lock);
    }
    pthread_mutex_unlock(&comm->lock);
}

/* In peace, by destroying, which waits for the other ranks; else by aborting. */
static void end_handle(struct zc_nccl_comm *comm)
{
    zc_nccl_handle handle;
    bool aborts;

    pthread_mutex_lock(&comm->lock);
    aborts = comm->aborting || comm->abandoned;
    pthread_mutex_unlock(&comm->lock);
    if (aborts) {
        abort_now(comm);
        return;
    }
    handle = take_handle(comm, false);
    if (handle != NULL)
        comm->nccl.ncclCommDestroy(handle);
}

static void *run_thread(void *data)
{
    struct zc_nccl_comm *comm = data;
    bool abandoned;

    if (comm->rank == 0)
        make_name(comm);
    if (await_agreement(comm))
        make_handle(comm);
    serve(comm);
    end_handle(comm);
    pthread_mutex_lock(&comm->lock);
    abandoned = comm->abandoned;
    comm->ended = true;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
    if (abandoned)
        free_comm(comm);
    return NULL;
}

static zcta_status start_thread(struct zc_nccl_comm *comm)
{
    const int error = zc_thread_start(&comm->thread, run_thread, comm);

    if (error != 0)
        return zc_fail(comm->group->diag, ZCTA_ERR_SYSTEM, "pthread_create", error,
                       "cannot start a thread for NCCL: %s", strerror(error));
    return ZCTA_OK;
}

/* ---- Making ---- */

/* What all ranks must have alike for NCCL to choose alike. */
struct offer {
    uint64_t status, version, policy;
    struct zc_nccl_id id; /* rank 0's counts */
};

static zcta_status compare(const struct zc_group *group, const struct offer *offers)
{
    const size_t stride = sizeof *offers / sizeof(uint64_t);
    char mine[16], theirs[16];
    uint32_t common, odd;

    for (uint32_t i = 0; i < group->count; i++)
        if (offers[i].status != ZCTA_OK)
            return zc_fail_rank(group->diag, (zcta_status)offers[i].status, group->ranks[i], "NCCL",
                                0,
                                "rank %" PRIu32 " cannot use NCCL: %s (its own message says why)",
                                group->ranks[i], zcta_status_text((zcta_status)offers[i].status));
    odd = zc_group_outlier(&offers[0].version, stride, group->count, &common);
    if (offers[odd].version != offers[common].version)
        return zc_fail_rank(
            group->diag, ZCTA_ERR_MISMATCH, group->ranks[odd], "NCCL", 0,
            "rank %" PRIu32 " has NCCL %s, rank %" PRIu32 " has %s; install one version everywhere",
            group->ranks[odd], zc_nccl_version_text((int)offers[odd].version, mine),
            group->ranks[common], zc_nccl_version_text((int)offers[common].version, theirs));
    odd = zc_group_outlier(&offers[0].policy, stride, group->count, &common);
    if (offers[odd].policy != offers[common].policy)
        return zc_fail_rank(group->diag, ZCTA_ERR_MISMATCH, group->ranks[odd], "NCCL", 0,
                            "rank %" PRIu32 " wants CTA policy %" PRIu64 " of NCCL, rank %" PRIu32
                            " wants %" PRIu64,
                            group->ranks[odd], offers[odd].policy, group->ranks[common],
                            offers[common].policy);
    return ZCTA_OK;
}

/* Waits for a result of the thread's; IN_PROGRESS if it does not come in time. */
static int await_result(struct zc_nccl_comm *comm, const int *result, uint64_t timeout_ns)
{
    const uint64_t deadline = zc_deadline_in(timeout_ns);
    int found;

    pthread_mutex_lock(&comm->lock);
    while (*result == ZC_NCCL_IN_PROGRESS && zc_time_left_ns(deadline) > 0 &&
           !zc_guard_failed(comm->guard)) {
        const struct timespec until = moment(zc_deadline_in(LOOK_NS));

        pthread_cond_timedwait(&comm->changed, &comm->lock, &until);
    }
    found = *result;
    pthread_mutex_unlock(&comm->lock);
    return found;
}

/* The others wait for this rank's word meanwhile, so it comes before their time is up. */
static zcta_status await_name(struct zc_nccl_comm *comm)
{
    const uint64_t timeout = comm->timeout_ns / 2;
    const int named = await_result(comm, &comm->named, timeout);

    if (named == ZC_NCCL_IN_PROGRESS)
        return zc_fail(comm->group->diag, ZCTA_ERR_TIMEOUT, "ncclGetUniqueId", 0,
                       "NCCL has not named a communicator within %.3g s: it looks for its network, "
                       "see NCCL_SOCKET_IFNAME",
                       (double)timeout / 1e9);
    return check(comm, named, "ncclGetUniqueId", "naming a communicator");
}

/* Everybody's version and policy, and the identity that rank 0 made. */
static zcta_status meet(struct zc_nccl_comm *comm, zcta_status own)
{
    const struct zc_group *group = comm->group;
    struct offer mine = {.status = (uint64_t)own,
                         .version = (uint64_t)comm->nccl.version,
                         .policy = (uint64_t)comm->policy};
    struct offer *offers = calloc(group->count, sizeof *offers);
    zcta_status status;

    if (offers == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    if (own == ZCTA_OK && group->self == 0)
        own = await_name(comm);
    if (own == ZCTA_OK)
        mine.id = comm->id; /* the thread does not touch it any more */
    mine.status = (uint64_t)own;
    status = zc_group_exchange(group, "NCCL", "did not come to make NCCL's communicator",
                               ZC_TOPIC_NCCL, &mine, offers, sizeof mine);
    if (status == ZCTA_OK)
        status = own != ZCTA_OK ? own : compare(group, offers);
    pthread_mutex_lock(&comm->lock);
    comm->id = status == ZCTA_OK ? offers[0].id : comm->id;
    comm->agreed = status == ZCTA_OK;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
    free(offers);
    return status;
}

/* The policy that NCCL's log tells of; -1 if it tells none. First NCCL notes what it was given,
 * then whether NCCL_CTA_POLICY, from the environment or from a file of NCCL's, takes its place.
 * That is read once, so it holds for every communicator of the process. */
static int policy_told(const struct zc_nccl_comm *comm, size_t mark)
{
    static const char given[] = "CTA policy flags set to ";
    static const char forced[] = "CTAPolicy reset to NCCL_CTA_POLICY=";
    char line[64];

    for (int policy = 0; policy <= ZC_NCCL_POLICIES; policy++) {
        snprintf(line, sizeof line, "%s%d\n", forced, policy);
        if (zc_nccl_log_count(mark, line) > 0)
            return zc_nccl_policy_of(policy);
    }
    if (zc_nccl_log_count(mark, forced) > 0)
        return ZC_NCCL_POLICY_DEFAULT; /* what NCCL makes of a number that is no policy */
    snprintf(line, sizeof line, "%s%d\n", given, comm->policy);
    return zc_nccl_log_count(mark, line) > 0 ? comm->policy : -1;
}

static zcta_status check_policy(const struct zc_nccl_comm *comm, size_t mark)
{
    int told;

    if (comm->nccl.version < ZC_NCCL_HAS_POLICIES || !zc_nccl_log_is_ours())
        return ZCTA_OK;
    told = policy_told(comm, mark);
    if (told < 0 || told == comm->policy)
        return ZCTA_OK;
    zc_log(comm->group->diag, ZC_LOG_WARN,
           "NCCL made a communicator with CTA policy %d instead of %d: NCCL_CTA_POLICY in the "
           "environment or in nccl.conf overrides the team's",
           told, comm->policy);
    if (comm->policy != ZC_NCCL_POLICY_ZERO)
        return ZCTA_OK;
    return zc_fail(comm->group->diag, ZCTA_ERR_POLICY, "NCCL", told,
                   "NCCL made this team's communicator with CTA policy %d instead of ZERO: "
                   "NCCL_CTA_POLICY in the environment or in nccl.conf overrides it; unset that",
                   told);
}

static zcta_status await_handle(struct zc_nccl_comm *comm)
{
    const int made = await_result(comm, &comm->made, comm->timeout_ns);

    if (made == ZC_NCCL_IN_PROGRESS)
        return zc_fail(comm->group->diag, ZCTA_ERR_TIMEOUT, "ncclCommInitRankConfig", 0,
                       "NCCL has not made a communicator within %.3g s: a rank is missing there, "
                       "and NCCL does not say which",
                       (double)comm->timeout_ns / 1e9);
    return check(comm, made, "ncclCommInitRankConfig",
                 made == ZC_NCCL_INVALID_USAGE
                     ? "making a communicator (is NCCL_COMM_BLOCKING=0 in nccl.conf?)"
                     : "making a communicator");
}

static void init_locks(struct zc_nccl_comm *comm)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&comm->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&comm->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static struct zc_nccl_comm *new_comm(const struct zc_group *group, struct zc_guard *guard,
                                     int policy)
{
    struct zc_nccl_comm *made = calloc(1, sizeof *made);

    if (made == NULL)
        return NULL;
    init_locks(made);
    made->group = group;
    made->guard = guard;
    made->timeout_ns = group->timeout_ns;
    made->rank = (int)group->self;
    made->rank_count = (int)group->count;
    made->policy = policy;
    made->named = made->made = ZC_NCCL_IN_PROGRESS;
    return made;
}

zcta_status zc_nccl_comm_open(const struct zc_group *group, struct zc_guard *guard, int policy,
                              struct zc_nccl_comm **comm)
{
    struct zc_nccl_comm *made = new_comm(group, guard, policy);
    const size_t mark = zc_nccl_log_mark();
    bool started = false;
    zcta_status status;

    if (made == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    status = zc_nccl_load(group->diag, &made->nccl);
    if (status == ZCTA_OK)
        status = start_thread(made);
    started = status == ZCTA_OK;
    status = meet(made, status);
    if (status != ZCTA_OK)
        goto fail;
    status = await_handle(made);
    if (status == ZCTA_OK)
        status = check_policy(made, mark);
    /* Whoever has met the others also tells them how it went on. */
    status = zc_group_confirm(group, "NCCL", "did not make NCCL's communicator", status);
    if (status != ZCTA_OK)
        goto fail;
    *comm = made;
    return ZCTA_OK;
fail:
    if (started) {
        zc_nccl_comm_abort(made);
        zc_nccl_comm_close(made);
    } else {
        free_comm(made);
    }
    return status;
}

/* ---- The team's thread in NCCL ---- */

static zcta_status fail_aborted(const struct zc_nccl_comm *comm)
{
    return zc_fail(comm->group->diag, ZCTA_ERR_PEER, "NCCL", 0,
                   "the communicator has been aborted because its team has failed");
}

/* To and from one peer, which may be this rank: what is in place there stays where it is. */
static int run_flows(const struct zc_nccl_comm *comm, zc_nccl_handle handle,
                     const struct zc_layout *layout, uint32_t to, uint32_t from, const char *send,
                     char *recv, zcta_stream stream)
{
    const struct zc_nccl *nccl = &comm->nccl;
    const uint32_t self = (uint32_t)comm->rank;
    const struct zc_flow out = zc_flow_between(layout, self, to);
    const struct zc_flow in = zc_flow_between(layout, from, self);
    int result = ZC_NCCL_SUCCESS;

    if (to == self && (uintptr_t)send + out.from_at == (uintptr_t)recv + out.to_at)
        return result;
    if (out.bytes > 0)
        result =
            nccl->ncclSend(send + out.from_at, out.bytes, ZC_NCCL_INT8, (int)to, handle, stream);
    if (result == ZC_NCCL_SUCCESS && in.bytes > 0)
        result = nccl->ncclRecv(recv + in.to_at, in.bytes, ZC_NCCL_INT8, (int)from, handle, stream);
    return result;
}

/* One group, so that no rank waits for another's turn. The group is ended whatever happened in it.
 */
static int run_group(const struct zc_nccl_comm *comm, zc_nccl_handle handle,
                     const struct zc_layout *layout, const void *send, void *recv,
                     zcta_stream stream)
{
    const uint32_t ranks = layout->ranks, self = (uint32_t)comm->rank;
    int result = comm->nccl.ncclGroupStart(), ended;

    if (result != ZC_NCCL_SUCCESS)
        return result;
    for (uint32_t hop = 0; hop < ranks && result == ZC_NCCL_SUCCESS; hop++)
        result = run_flows(comm, handle, layout, (self + hop) % ranks, (self + ranks - hop) % ranks,
                           send, recv, stream);
    ended = comm->nccl.ncclGroupEnd();
    return result == ZC_NCCL_SUCCESS ? ended : result;
}

zcta_status zc_nccl_comm_run(struct zc_nccl_comm *comm, const struct zc_layout *layout,
                             const void *send, void *recv, zcta_stream stream)
{
    const struct zc_collective *collective = layout->collective;
    const bool own = zc_nccl_has_own_call(&comm->nccl, collective);
    zc_nccl_handle handle = enter_nccl(comm);
    int result;

    if (handle == NULL)
        return fail_aborted(comm);
    result = own ? zc_nccl_own_call(&comm->nccl, collective, handle, send, recv, layout->bytes,
                                    layout->root, stream)
                 : run_group(comm, handle, layout, send, recv, stream);
    leave_nccl(comm);
    return check(comm, result, own ? collective->nccl : "ncclGroupEnd", "enqueueing a collective");
}

static int run_transfers(const struct zc_nccl *nccl, zc_nccl_handle handle,
                         const struct zc_transfer *transfers, uint32_t count, uint32_t ranks_each,
                         zcta_stream stream)
{
    int result = nccl->ncclGroupStart(), ended;

    if (result != ZC_NCCL_SUCCESS)
        return result;
    for (uint32_t i = 0; i < count && result == ZC_NCCL_SUCCESS; i++) {
        const struct zc_transfer *t = &transfers[i];
        const int peer = (int)(t->peer / ranks_each);

        result = t->sends
                     ? nccl->ncclSend(t->address, t->bytes, ZC_NCCL_INT8, peer, handle, stream)
                     : nccl->ncclRecv(t->address, t->bytes, ZC_NCCL_INT8, peer, handle, stream);
    }
    ended = nccl->ncclGroupEnd();
    return result == ZC_NCCL_SUCCESS ? ended : result;
}

zcta_status zc_nccl_comm_transfer(struct zc_nccl_comm *comm, const struct zc_transfer *transfers,
                                  uint32_t count, uint32_t ranks_each, zcta_stream stream)
{
    zc_nccl_handle handle = enter_nccl(comm);
    int result;

    if (handle == NULL)
        return fail_aborted(comm);
    result = run_transfers(&comm->nccl, handle, transfers, count, ranks_each, stream);
    leave_nccl(comm);
    return check(comm, result, "ncclGroupEnd", "enqueueing an exchange between nodes");
}

/* ---- Windows ---- */

static zcta_status add_window(struct zc_nccl_comm *comm, void *base, size_t bytes)
{
    struct window *window = calloc(1, sizeof *window);
    zc_nccl_handle handle;
    int result;

    if (window == NULL)
        return zc_fail(comm->group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    handle = enter_nccl(comm);
    if (handle == NULL) {
        free(window);
        return fail_aborted(comm);
    }
    result = comm->nccl.ncclCommWindowRegister(handle, base, bytes, &window->handle,
                                               ZC_NCCL_WINDOW_SYMMETRIC);
    leave_nccl(comm);
    if (result != ZC_NCCL_SUCCESS) {
        free(window);
        return check(comm, result, "ncclCommWindowRegister", "making a window known to NCCL");
    }
    window->base = base;
    pthread_mutex_lock(&comm->lock);
    window->next = comm->windows;
    comm->windows = window;
    pthread_mutex_unlock(&comm->lock);
    return ZCTA_OK;
}

bool zc_nccl_comm_has_window(struct zc_nccl_comm *comm, const void *base)
{
    const struct window *window;

    pthread_mutex_lock(&comm->lock);
    window = comm->windows;
    while (window != NULL && window->base != base)
        window = window->next;
    pthread_mutex_unlock(&comm->lock);
    return window != NULL;
}

zcta_status zc_nccl_comm_register(struct zc_nccl_comm *comm, void *base, size_t bytes)
{
    const struct zc_group *group = comm->group;
    zcta_status status;

    if (zc_nccl_comm_has_window(comm, base))
        return ZCTA_OK;
    status = group->ops->enter(group->device);
    if (status == ZCTA_OK) {
        status = add_window(comm, base, bytes);
        group->ops->leave(group->device);
    }
    return zc_group_confirm(group, "NCCL", "did not make the window known to NCCL", status);
}

/* The window that begins at `base`, or any for NULL; it is the caller's then. */
static struct window *take_window(struct zc_nccl_comm *comm, const void *base)
{
    struct window **at, *taken;

    pthread_mutex_lock(&comm->lock);
    at = &comm->windows;
    while (*at != NULL && base != NULL && (*at)->base != base)
        at = &(*at)->next;
    taken = *at;
    if (taken != NULL)
        *at = taken->next;
    pthread_mutex_unlock(&comm->lock);
    return taken;
}

static void deregister(struct zc_nccl_comm *comm, struct window *window)
{
    const struct zc_group *group = comm->group;
    zc_nccl_handle handle;

    /* NCCL gives no handle where it makes nothing of the window. */
    if (window->handle != NULL && group->ops->enter(group->device) == ZCTA_OK) {
        handle = enter_nccl(comm);
        if (handle != NULL) {
            comm->nccl.ncclCommWindowDeregister(handle, window->handle);
            leave_nccl(comm);
        }
        group->ops->leave(group->device);
    }
    free(window);
}

void zc_nccl_comm_deregister(struct zc_nccl_comm *comm, const void *base)
{
    struct window *window = take_window(comm, base);

    if (window != NULL)
        deregister(comm, window);
}

/* ---- Ending ---- */

void zc_nccl_comm_abort(struct zc_nccl_comm *comm)
{
    pthread_mutex_lock(&comm->lock);
    comm->aborting = true;
    pthread_cond_broadcast(&comm->changed);
    pthread_mutex_unlock(&comm->lock);
}

/* It may be in a call that nobody can end. */
static bool is_in_the_making(const struct zc_nccl_comm *comm)
{
    return comm->agreed ? comm->made == ZC_NCCL_IN_PROGRESS
                        : comm->rank == 0 && comm->named == ZC_NCCL_IN_PROGRESS;
}

/* The thread shall end. It is waited for unless NCCL keeps it; then it frees what it uses. */
static void end_thread(struct zc_nccl_comm *comm)
{
    const struct timespec until = moment(zc_deadline_in(comm->timeout_ns));
    const pthread_t thread = comm->thread;
    bool ended;

    pthread_mutex_lock(&comm->lock);
    comm->ending = true;
    pthread_cond_broadcast(&comm->changed);
    while (!comm->ended && !is_in_the_making(comm) &&
           pthread_cond_timedwait(&comm->changed, &comm->lock, &until) == 0)
        continue;
    ended = comm->ended;
    comm->abandoned = !ended;
    pthread_mutex_unlock(&comm->lock);
    if (!ended) {
        pthread_detach(thread);
        return;
    }
    pthread_join(thread, NULL);
    free_comm(comm);
}

void zc_nccl_comm_close(struct zc_nccl_comm *comm)
{
    struct window *window;

    if (comm == NULL)
        return;
    if (!zc_guard_failed(comm->guard))
        while ((window = take_window(comm, NULL)) != NULL)
            deregister(comm, window);
    else
        zc_nccl_comm_abort(comm);
    end_thread(comm);
}
