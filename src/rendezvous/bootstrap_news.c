/* What ranks tell each other between the table and the mesh. The connections of the TCP bootstrap
 * stay open until then: a rank tells rank 0 that it has connected to everybody, or why it has
 * failed. Rank 0 tells all others what failed first, or that all are ready: so nobody waits for who
 * will not come, and all have the same sentence. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/bootstrap.h"
#include "rendezvous/claim.h"
#include "rendezvous/text.h"

/* A message is small and has been sent at once: its rest is here, or it is not one. */
#define MESSAGE_NS UINT64_C(200000000)

/* So often rank 0 looks at what the others tell, as long as it still connects itself. */
#define LOOK_MS 5

enum zc_news zc_line_hear(const struct zc_line *line, const uint8_t key[ZC_WIRE_KEY],
                          zcta_error *error)
{
    const uint64_t until = zc_deadline_in(MESSAGE_NS);
    uint8_t head[ZC_WIRE_REPLY], body[ZC_WIRE_FAILURE];
    struct zc_reply reply;

    if (zc_net_read(line->fd, head, sizeof head, until) != 0 ||
        zc_wire_reply_open(head, line->session, key, &reply) != ZC_WIRE_OK)
        return ZC_NEWS_END;
    if (reply.code == ZC_REPLY_READY)
        return ZC_NEWS_READY;
    if (reply.code != ZC_REPLY_FAILED || zc_net_read(line->fd, body, sizeof body, until) != 0 ||
        zc_wire_failure_open(body, line->session, key, error) != ZC_WIRE_OK)
        return ZC_NEWS_END;
    return ZC_NEWS_FAILED;
}

void zc_line_tell(const struct zc_line *line, const uint8_t key[ZC_WIRE_KEY],
                  const zcta_error *error)
{
    const struct zc_reply reply = {.code = error == NULL ? ZC_REPLY_READY : ZC_REPLY_FAILED};
    uint8_t bytes[ZC_WIRE_REPLY + ZC_WIRE_FAILURE];

    zc_wire_reply_seal(bytes, &reply, line->session, key);
    if (error != NULL)
        zc_wire_failure_seal(bytes + ZC_WIRE_REPLY, error, line->session, key);
    /* If it does not get through, the end of the connection tells the rest. */
    (void)zc_net_send_small(line->fd, bytes, error != NULL ? sizeof bytes : ZC_WIRE_REPLY);
}

zcta_status zc_bootstrap_fail_as(const struct zc_bootstrap *bootstrap, const zcta_error *error)
{
    return zc_fail_rank(bootstrap->diag, error->status, error->rank, error->call, error->native,
                        "%s", error->message);
}

size_t zc_bootstrap_poll_limit(const struct zc_bootstrap *bootstrap)
{
    return 1 + (size_t)bootstrap->line_count;
}

size_t zc_bootstrap_poll_set(struct zc_bootstrap *bootstrap, bool connected, struct pollfd *set,
                             int *timeout_ms)
{
    const bool all =
        connected || bootstrap->line_count == 1 || zc_time_left_ns(bootstrap->look_at) == 0;
    size_t count = 1;

    set[0] = (struct pollfd){.fd = bootstrap->claim_fd, .events = POLLIN};
    if (connected && bootstrap->job->rank != 0 && bootstrap->line_count == 1 &&
        !bootstrap->lines[0].ready) {
        bootstrap->lines[0].ready = true;
        zc_line_tell(&bootstrap->lines[0], bootstrap->key, NULL);
    }
    if (all)
        bootstrap->look_at = zc_deadline_in(LOOK_MS * UINT64_C(1000000));
    else if (*timeout_ms > LOOK_MS)
        *timeout_ms = LOOK_MS;
    for (uint32_t i = 0; i < bootstrap->line_count; i++)
        set[count++] = (struct pollfd){.fd = all ? bootstrap->lines[i].fd : -1, .events = POLLIN};
    return count;
}

static zcta_status serve_line(struct zc_bootstrap *bootstrap, struct zc_line *line)
{
    zcta_error error;

    switch (zc_line_hear(line, bootstrap->key, &error)) {
    case ZC_NEWS_READY:
        bootstrap->awaited -= bootstrap->job->rank != 0 || !line->ready;
        line->ready = true;
        return ZCTA_OK;
    case ZC_NEWS_FAILED:
        return zc_bootstrap_fail_as(bootstrap, &error);
    case ZC_NEWS_END:
        break;
    }
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, line->rank, "zcta_init", 0,
                        "rank %" PRIu32 " (pid %" PRId64
                        ") ended before all ranks were connected: see its own output",
                        line->rank, bootstrap->table[line->rank].pid);
}

zcta_status zc_bootstrap_serve(struct zc_bootstrap *bootstrap, const struct pollfd *set)
{
    zcta_status status = ZCTA_OK;

    if (set[0].revents != 0)
        status = zc_claim_look(bootstrap->job, bootstrap->diag, bootstrap->claim_fd);
    for (uint32_t i = 0; i < bootstrap->line_count && status == ZCTA_OK; i++)
        if (set[1 + i].revents != 0)
            status = serve_line(bootstrap, &bootstrap->lines[i]);
    return status;
}

zcta_status zc_bootstrap_wait(struct zc_bootstrap *bootstrap, int fd, uint64_t until)
{
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK) {
        struct pollfd set[2] = {{.fd = bootstrap->claim_fd, .events = POLLIN},
                                {.fd = fd, .events = POLLIN}};

        zc_net_poll(set, 2, zc_net_poll_ms(until, 60000));
        if (set[0].revents != 0)
            status = zc_claim_look(bootstrap->job, bootstrap->diag, bootstrap->claim_fd);
        if (set[1].revents != 0 || zc_time_left_ns(until) == 0)
            break;
    }
    return status;
}

zcta_status zc_bootstrap_better_word(struct zc_bootstrap *bootstrap, zcta_status status)
{
    const uint64_t until = zc_deadline_in(MESSAGE_NS);
    const struct zc_line *line = bootstrap->lines;
    zcta_error own, told;

    zc_diag_last(bootstrap->diag, &own);
    if (bootstrap->line_count != 1 || line->fd < 0 || own.rank == bootstrap->job->rank)
        return status;
    if (!zc_net_wait(line->fd, POLLIN, until) ||
        zc_line_hear(line, bootstrap->key, &told) != ZC_NEWS_FAILED)
        return status;
    return zc_bootstrap_fail_as(bootstrap, &told);
}

bool zc_bootstrap_is_settled(const struct zc_bootstrap *bootstrap)
{
    return bootstrap->awaited == 0;
}

zcta_status zc_bootstrap_fail_awaited(const struct zc_bootstrap *bootstrap)
{
    uint32_t silent[ZC_TEXT_RANKS] = {0}, count = 0;
    char within[24], who[120];

    for (uint32_t i = 0; i < bootstrap->line_count && count < ZC_TEXT_RANKS; i++)
        if (bootstrap->lines[i].fd >= 0 &&
            (bootstrap->job->rank != 0 || !bootstrap->lines[i].ready))
            silent[count++] = bootstrap->lines[i].rank;
    zc_text_ranks(who, silent, count < ZC_TEXT_RANKS ? count : bootstrap->awaited);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_TIMEOUT, silent[0], "zcta_init", 0,
                        "%s did not say within %s that all is connected (the first has pid %" PRId64
                        "): stopped, or very slow?",
                        who, within, bootstrap->table[silent[0]].pid);
}

zcta_status zc_bootstrap_open_lines(struct zc_bootstrap *bootstrap, uint32_t count)
{
    free(bootstrap->lines); /* of an attempt before */
    bootstrap->lines = calloc(count, sizeof *bootstrap->lines);
    if (bootstrap->lines == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the connections to %" PRIu32 " ranks", count);
    for (uint32_t i = 0; i < count; i++)
        bootstrap->lines[i].fd = -1;
    bootstrap->line_count = count;
    return ZCTA_OK;
}

void zc_bootstrap_end(struct zc_bootstrap *bootstrap, zcta_status status)
{
    zcta_error error;

    zc_diag_last(bootstrap->diag, &error);
    for (uint32_t i = 0; i < bootstrap->line_count; i++) {
        const struct zc_line *line = &bootstrap->lines[i];

        if (line->fd < 0)
            continue;
        if (status != ZCTA_OK || bootstrap->job->rank == 0)
            zc_line_tell(line, bootstrap->key, status != ZCTA_OK ? &error : NULL);
        close(line->fd);
    }
    free(bootstrap->lines);
    bootstrap->lines = NULL;
    bootstrap->line_count = bootstrap->awaited = 0;
}
