/* Direct push, for every collective: each flow goes straight from its sender's input into its
 * receiver's output. And what says *ready* early for it. */
#include "plan/plan.h"

/* Say ready to whoever has something for this rank, push each flow as soon as its receiver is
 * ready, say done, and wait for what comes. The own share is copied on a lane of its own where the
 * device has one, never between the pushes. */
static void push_directly(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks;
    bool aside;

    zc_plan_say_ready(plan);
    aside = zc_plan_copy_own_aside(plan);
    zc_plan_push(plan, !aside && !request->bounced);
    if (request->bounced)
        zc_plan_bounce_own(plan);
    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_await_done(plan, (request->rank + ranks - hop) % ranks);
    if (aside)
        zc_plan_join(plan, 1);
}

const struct zc_algorithm zc_direct_push = {
    .name = "direct-push",
    .lacks = ZC_NO_DATA,
    .traits = ZC_SAYS_READY | ZC_GROUPS | ZC_COPIES_OWN | ZC_BOUNCES_OWN,
    .make = push_directly,
};

/* What a released plan's run leaves out, sent on its own as soon as the output may be written. Two
 * ranks of which one has something for the other tell each other, so that both have sent and
 * awaited as many. */
static void say_ready_early(struct zc_plan *plan)
{
    const uint32_t ranks = plan->request.layout->ranks;

    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (plan->request.rank + hop) % ranks;

        if (zc_plan_in(plan, peer).bytes > 0 || zc_plan_out(plan, peer).bytes > 0)
            zc_plan_signal(plan, 0, peer, ZC_CHANNEL_RELEASED);
    }
}

/* Releases are numbered for as long as the team lives, so a graph cannot hold them. */
const struct zc_algorithm zc_early_ready = {
    .name = "early-ready",
    .lacks = ZC_NO_DATA,
    .traits = ZC_OPENS | ZC_EAGER_ONLY,
    .make = say_ready_early,
};
