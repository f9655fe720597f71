/* Claims a rank's seat; see claim.h. The seat's name is a keyed hash of what the job says of
 * itself, so who does not know the token cannot find it. */
#include "rendezvous/claim.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "rendezvous/net.h"

/* How often, and how long in all, a name is tried that somebody has but nobody listens at: its
 * owner is about to, or about to go. */
#define PAUSE_NS UINT64_C(1000000)
#define TRY_NS   UINT64_C(1000000000)

enum holder { HOLDER_GONE, HOLDER_FINE, HOLDER_CONFLICT };

enum { PROOF = 8 }; /* bytes of a caller's name that only who has the key can know */

/* The seat's name, and the beginning of the name of whoever calls there because it wants it: others
 * may call at any socket that they find, and mean nothing. */
static void make_names(const struct zc_job *job, uint8_t seat[16], uint8_t rival[16])
{
    char facts[sizeof job->root + 64];

    memset(facts, 0, sizeof facts);
    snprintf(facts, sizeof facts, "seat %" PRIu32 " of %" PRIu32 " at %s", job->rank,
             job->rank_count, job->root);
    crypto_generichash(seat, 16, (const unsigned char *)facts, sizeof facts, job->key,
                       sizeof job->key);
    facts[0] = 'r'; /* "reat 3 of 8 ...": other facts for the other name */
    crypto_generichash(rival, 16, (const unsigned char *)facts, sizeof facts, job->key,
                       sizeof job->key);
}

zcta_status zc_claim_fail(struct zc_diag *diag, uint32_t rank, const char *root, int64_t first,
                          int64_t second)
{
    char who[64] = "two processes";

    if (first > 0 && second > 0)
        snprintf(who, sizeof who, "processes %" PRId64 " and %" PRId64, first, second);
    return zc_fail_rank(diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", ZC_CLAIM_TAKEN,
                        "%s are both rank %" PRIu32 " of a job at %s: two launches use one root, "
                        "or an earlier one has not ended, and nobody can tell whose ranks are "
                        "whose; end one of them, or give each launch a port (MASTER_PORT, "
                        "ZEROCTA_PORT, root) or a name (ZEROCTA_JOB) of its own",
                        who, rank, root);
}

/* The process that took the seat is not there any more and has left it to a child that it forked,
 * who knows nothing of it. Had it ended just now, the call at its seat would have been cut. */
static bool has_ended(int fd, int64_t pid)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH && zc_net_poll(&one, 1, 0) == 0;
}

/* Calls at the seat; whoever holds it sees that. */
static enum holder ask_holder(const uint8_t seat[16], uint8_t rival[16], int64_t *pid)
{
    enum holder holder = HOLDER_CONFLICT;
    uint32_t uid = 0;
    int error, fd = -1;

    *pid = 0;
    randombytes_buf(rival + PROOF, 16 - PROOF);
    error = zc_net_connect_unix_as(rival, seat, &fd);
    if (error == ECONNREFUSED || error == ENOENT)
        return HOLDER_GONE;
    if (error != 0)
        return HOLDER_CONFLICT; /* its queue is full of such calls */
    if (zc_net_peer(fd, pid, &uid) && (uid != geteuid() || *pid == getpid() || has_ended(fd, *pid)))
        holder = HOLDER_FINE;
    close(fd);
    return holder;
}

zcta_status zc_claim_take(const struct zc_job *job, struct zc_diag *diag, int *fd)
{
    const uint64_t until = zc_deadline_in(TRY_NS);
    enum holder holder = HOLDER_GONE;
    int64_t pid = 0;
    uint8_t seat[16], rival[16];
    int error;

    *fd = -1;
    make_names(job, seat, rival);
    do {
        error = zc_net_listen_unix(seat, fd);
        if (error == EADDRINUSE)
            holder = ask_holder(seat, rival, &pid);
        if (error == EADDRINUSE && holder == HOLDER_GONE)
            zc_net_sleep(PAUSE_NS);
    } while (error == EADDRINUSE && holder == HOLDER_GONE && zc_time_left_ns(until) > 0);
    if (error == 0 || (error == EADDRINUSE && holder == HOLDER_FINE))
        return ZCTA_OK;
    if (error == EADDRINUSE)
        return zc_claim_fail(diag, job->rank, job->root, pid, getpid());
    return zc_fail(diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                   "rank %" PRIu32 " cannot open a Unix socket: %s%s", job->rank, strerror(error),
                   error == EMFILE ? "; raise `ulimit -n`" : "");
}

zcta_status zc_claim_look(const struct zc_job *job, struct zc_diag *diag, int fd)
{
    uint8_t seat[16], rival[16], name[16];

    make_names(job, seat, rival);
    for (;;) {
        const int came = zc_fd_lift(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
        int64_t pid = 0;
        uint32_t uid = 0;
        bool known;

        if (came < 0)
            return ZCTA_OK;
        known = zc_net_peer(came, &pid, &uid) && zc_net_peer_name(came, name) &&
                sodium_memcmp(name, rival, PROOF) == 0;
        close(came);
        if (known && uid == geteuid() && pid != getpid())
            return zc_claim_fail(diag, job->rank, job->root, pid, getpid());
    }
}
