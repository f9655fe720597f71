/* Resolves names with a deadline; see names.h. */
#include "rendezvous/names.h"

#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "rendezvous/text.h"

/* Shared by who asks and the thread that asks the system; the last of them frees it. */
struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered; /* on CLOCK_MONOTONIC */
    char host[256], service[8];
    int users;
    bool done;
    int result; /* of getaddrinfo() */
    struct zc_endpoint endpoint;
};

static struct question *question_create(const char *host, uint16_t port)
{
    struct question *question = calloc(1, sizeof *question);
    pthread_condattr_t attributes;

    if (question == NULL)
        return NULL;
    pthread_mutex_init(&question->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&question->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    snprintf(question->host, sizeof question->host, "%s", host);
    snprintf(question->service, sizeof question->service, "%u", (unsigned)port);
    question->users = 2;
    return question;
}

/* With the lock held, which is given up. */
static void leave(struct question *question)
{
    const int left = --question->users;

    pthread_mutex_unlock(&question->lock);
    if (left > 0)
        return;
    pthread_cond_destroy(&question->answered);
    pthread_mutex_destroy(&question->lock);
    free(question);
}

static void *ask(void *data)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct question *question = data;
    struct addrinfo *found = NULL;
    const int result = getaddrinfo(question->host, question->service, &hints, &found);

    pthread_mutex_lock(&question->lock);
    question->result = result;
    if (result == 0) {
        memcpy(&question->endpoint.address, found->ai_addr, found->ai_addrlen);
        question->endpoint.length = found->ai_addrlen;
        freeaddrinfo(found);
    }
    question->done = true;
    pthread_cond_signal(&question->answered);
    leave(question);
    return NULL;
}

static int start(struct question *question)
{
    pthread_t thread;
    const int error = zc_thread_start(&thread, ask, question);

    if (error == 0)
        pthread_detach(thread);
    return error;
}

zcta_status zc_names_resolve(const char *host, uint16_t port, uint64_t deadline,
                             struct zc_diag *diag, struct zc_endpoint *endpoint)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u),
                                   .tv_nsec = (long)(deadline % 1000000000u)};
    struct question *question;
    uint64_t begun = zc_now_ns();
    zcta_status status = ZCTA_OK;
    char within[24];
    int error;

    if (zc_net_resolve(host, port, endpoint))
        return ZCTA_OK;
    question = question_create(host, port);
    if (question == NULL)
        return zc_fail(diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to resolve the root's host %.100s", host);
    error = start(question);
    pthread_mutex_lock(&question->lock);
    if (error != 0) {
        question->users--;
        status = zc_fail(diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                         "the thread that resolves the root's host %.100s cannot start: %s; raise "
                         "`ulimit -u`",
                         host, strerror(error));
        goto out;
    }
    while (!question->done && zc_time_left_ns(deadline) > 0)
        pthread_cond_timedwait(&question->answered, &question->lock, &until);
    zc_text_seconds(within, zc_now_ns() - begun);
    if (!question->done)
        status = zc_fail(diag, ZCTA_ERR_TIMEOUT, "zcta_init", 0,
                         "the root's host %.100s was not resolved within %s: give its numeric "
                         "address, or mend this machine's resolver",
                         host, within);
    else if (question->result != 0)
        status = zc_fail(diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", question->result,
                         "the root's host %.100s cannot be resolved: %s; give its numeric address",
                         host, gai_strerror(question->result));
    else
        *endpoint = question->endpoint;
out:
    leave(question);
    return status;
}
