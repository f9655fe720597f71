/* The verifier: which event happens before which. See verify_internal.h for how. */
#include "verify/verify_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    SIGNALS_A_BLOCK = 4096,
    QUESTIONS_MOST = 1 << 18, /* open ones; more are answered before the execution goes on */
    COLUMNS_MOST = 64,        /* lanes asked about that one execution counts */
};

#define CLOCK_BYTES_MOST                                                                           \
    ((uint64_t)256 << 20) /* of the sent signals of an execution that answers */

/* Where its event is to be looked at, because a question's view is there. */
struct visit {
    struct zc_event at;
    uint32_t question;
};

struct zc_answers {
    struct zc_questions *questions;
    uint32_t *column_of;  /* by lane: the clocks' entry, from 1 on; 0: it has none */
    struct visit *visits; /* by lane and tick */
    uint32_t visit_count, left;
    uint32_t *next; /* by lane: its next visit */
};

/* ---- Clocks ---- */

static uint32_t *clock_of(struct zc_execution *e, uint32_t lane)
{
    return e->clocks + (size_t)lane * e->width;
}

static void merge(const struct zc_execution *e, uint32_t *into, const uint32_t *from)
{
    for (uint32_t i = 0; i < e->width; i++)
        into[i] = into[i] < from[i] ? from[i] : into[i];
}

/* The views that are at this event. */
static void visit(struct zc_execution *e, uint32_t lane)
{
    struct zc_answers *answers = e->answers;
    const uint32_t *clock = clock_of(e, lane);
    uint32_t *next = &answers->next[lane];

    while (*next < answers->visit_count && answers->visits[*next].at.lane == lane &&
           answers->visits[*next].at.tick == e->ticks[lane]) {
        struct zc_question *question = &answers->questions->list[answers->visits[*next].question];
        const uint32_t column = answers->column_of[question->before.lane] - 1;

        question->answered |= clock[column] >= question->before.tick;
        answers->left--;
        (*next)++;
    }
}

uint32_t zc_order_tick(struct zc_execution *e, uint32_t lane)
{
    const uint32_t now = ++e->ticks[lane];

    if (e->answers == NULL) {
        clock_of(e, lane)[lane % e->v->lanes] = now;
    } else {
        const uint32_t column = e->answers->column_of[lane];

        if (column != 0)
            clock_of(e, lane)[column - 1] = now;
        visit(e, lane);
    }
    return now;
}

void zc_order_fork(struct zc_execution *e, uint32_t lane, uint32_t forked)
{
    zc_order_tick(e, lane);
    merge(e, clock_of(e, forked), clock_of(e, lane));
    zc_order_tick(e, forked);
}

void zc_order_join(struct zc_execution *e, uint32_t lane, uint32_t joined)
{
    merge(e, clock_of(e, lane), clock_of(e, joined));
    zc_order_tick(e, lane);
}

void zc_order_begin_group(struct zc_execution *e, uint32_t lane, struct zc_group *group)
{
    group->event = (struct zc_event){lane, zc_order_tick(e, lane)};
    memcpy(group->clock, clock_of(e, lane), e->width * sizeof *group->clock);
}

/* In the first execution a clock counts only its own rank's lanes. */
void zc_order_receive(struct zc_execution *e, uint32_t lane, const struct zc_message *message)
{
    if (e->answers != NULL)
        merge(e, clock_of(e, lane), message->clock);
}

/* ---- Signals ---- */

static struct zc_sent_signal *sent_at(const struct zc_execution *e, uint32_t number)
{
    const uint32_t at = number - 1;

    return (void *)(e->sent.blocks[at / SIGNALS_A_BLOCK] + at % SIGNALS_A_BLOCK * e->sent.stride);
}

/* A sent signal's number; 0: there is no memory. */
static uint32_t take_sent(struct zc_execution *e)
{
    struct zc_sent_signals *sent = &e->sent;
    const uint32_t idle = sent->idle;

    if (idle != 0) {
        sent->idle = sent_at(e, idle)->next;
        return idle;
    }
    if (sent->made % SIGNALS_A_BLOCK == 0) {
        if (!zc_verify_reserve(e->v, &sent->blocks, sent->block_count, &sent->block_capacity,
                               sizeof *sent->blocks))
            return 0;
        sent->blocks[sent->block_count] = malloc(SIGNALS_A_BLOCK * sent->stride);
        if (sent->blocks[sent->block_count] == NULL) {
            e->v->status = ZCTA_ERR_NO_MEMORY;
            return 0;
        }
        sent->block_count++;
    }
    return ++sent->made;
}

static void give_sent_back(struct zc_execution *e, uint32_t number)
{
    if (number == 0)
        return;
    sent_at(e, number)->next = e->sent.idle;
    e->sent.idle = number;
}

static struct zc_channel_state *channel_of(const struct zc_execution *e, uint32_t from, uint32_t to,
                                           uint32_t channel)
{
    return &e->channels[((size_t)from * e->v->ranks + to) * ZC_CHANNELS + channel];
}

static const struct zc_sent_signal *latest_of(const struct zc_execution *e,
                                              const struct zc_channel_state *channel)
{
    const uint32_t number = channel->first != 0 ? channel->last : channel->taken;

    return number == 0 ? NULL : sent_at(e, number);
}

/* A call's first signal on a channel: by now the word of the calls before has been put back. */
static void check_put_back(struct zc_execution *e, const struct zc_channel_state *channel,
                           const struct zc_view *now, uint32_t to, struct zc_subject subject)
{
    const struct zc_sent_signal *taken;

    subject.kind = ZC_ASK_REPLAY;
    subject.rank = to;
    if (channel->first != 0)
        zc_verify_defect(
            e->v,
            "call %u: rank %u, step %u signals rank %u, which has not yet awaited the "
            "signals of call %u: replayed, it would write a word that is put back after"
            " that",
            subject.call[1], now->event.lane / e->v->lanes, subject.step[1], to, subject.call[0]);
    else if (channel->taken != 0) {
        taken = sent_at(e, channel->taken);
        zc_order_ask(e->v, taken->taken, now, 1, subject);
    }
}

static void check_signal(struct zc_execution *e, const struct zc_channel_state *channel,
                         const struct zc_view *now, uint32_t to, struct zc_subject subject)
{
    const struct zc_sent_signal *latest = latest_of(e, channel);

    if (latest == NULL)
        return;
    subject.call[0] = latest->call;
    zc_order_ask(e->v, latest->sent, now, 1, subject);
    if (e->v->options->replayed && latest->call != subject.call[1])
        check_put_back(e, channel, now, to, subject);
}

void zc_order_signal(struct zc_execution *e, uint32_t lane, uint32_t from,
                     const struct zc_step *step, uint32_t call)
{
    struct zc_channel_state *channel = channel_of(e, from, step->peer, step->channel);
    const uint32_t tick = zc_order_tick(e, lane), number = take_sent(e);
    const struct zc_view now = zc_view_now(e, lane);
    struct zc_sent_signal *sent;

    if (number == 0)
        return;
    if (e->answers == NULL)
        check_signal(e, channel, &now, step->peer,
                     (struct zc_subject){.kind = ZC_ASK_SIGNALS,
                                         .call = {0, call},
                                         .step = {0, e->ranks[from].cursor[lane % e->v->lanes]}});
    sent = sent_at(e, number);
    sent->next = 0;
    sent->call = call;
    sent->sent = (struct zc_event){lane, tick};
    memcpy(sent->clock, now.own, e->width * sizeof *sent->clock);
    if (channel->first == 0)
        channel->first = number;
    else
        sent_at(e, channel->last)->next = number;
    channel->last = number;
}

static void check_wait(struct zc_execution *e, const struct zc_channel_state *channel,
                       const struct zc_sent_signal *sent, const struct zc_view *now, uint32_t from,
                       uint32_t call)
{
    const struct zc_subject subject = {.kind = ZC_ASK_WAITS, .call = {0, call}};

    if (channel->taken != 0)
        zc_order_ask(e->v, sent_at(e, channel->taken)->taken, now, 1, subject);
    if (e->v->options->replayed && sent->call != call)
        zc_verify_defect(e->v,
                         "call %u: rank %u awaits a signal that rank %u sent in call %u: replayed, "
                         "it would wait for another value than that",
                         call, now->event.lane / e->v->lanes, from, sent->call);
}

bool zc_order_wait(struct zc_execution *e, uint32_t lane, uint32_t to, const struct zc_step *step,
                   uint32_t call)
{
    struct zc_channel_state *channel = channel_of(e, step->peer, to, step->channel);
    const uint32_t number = channel->first;
    struct zc_view before;
    struct zc_sent_signal *sent;

    if (number == 0)
        return false;
    sent = sent_at(e, number);
    before = zc_view_now(e, lane);
    channel->first = sent->next;
    if (e->answers == NULL) {
        check_wait(e, channel, sent, &before, step->peer, call);
        give_sent_back(e, channel->taken);
        channel->taken = number;
    } else {
        merge(e, clock_of(e, lane), sent->clock);
        give_sent_back(e, number);
    }
    sent->taken = (struct zc_event){lane, zc_order_tick(e, lane)};
    return true;
}

void zc_order_check_channels(struct zc_execution *e)
{
    for (uint32_t from = 0; from < e->v->ranks; from++)
        for (uint32_t to = 0; to < e->v->ranks; to++)
            for (uint32_t channel = 0; channel < ZC_CHANNELS; channel++)
                if (channel_of(e, from, to, channel)->first != 0)
                    zc_verify_defect(e->v, "a signal from rank %u to rank %u is never waited for",
                                     from, to);
}

/* ---- Questions ---- */

/* By the order of the rank's own lanes, or by the latest signal from that rank. */
static bool is_near(const struct zc_execution *e, struct zc_event before,
                    const struct zc_view *view)
{
    const uint32_t lanes = e->v->lanes;
    const uint32_t from = before.lane / lanes, to = view->event.lane / lanes;

    if (from == to)
        return view->own[before.lane % lanes] >= before.tick;
    for (uint32_t i = 0; i < ZC_CHANNELS; i++) {
        const uint32_t number = channel_of(e, from, to, i)->taken;
        const struct zc_sent_signal *sent = number == 0 ? NULL : sent_at(e, number);

        if (sent != NULL && sent->clock[before.lane % lanes] >= before.tick &&
            view->own[sent->taken.lane % lanes] >= sent->taken.tick)
            return true;
    }
    return false;
}

void zc_order_ask(struct zc_verifier *v, struct zc_event before, const struct zc_view *views,
                  uint32_t view_count, struct zc_subject subject)
{
    struct zc_questions *questions = &v->questions;
    struct zc_question question = {.subject = subject, .before = before};

    for (uint32_t i = 0; i < view_count; i++) {
        if (!v->options->by_clocks && is_near(&v->first, before, &views[i]))
            return;
        question.views[i] = views[i].event;
    }
    if (v->status != ZCTA_OK || !zc_verify_reserve(v, &questions->list, questions->count,
                                                   &questions->capacity, sizeof question))
        return;
    questions->list[questions->count++] = question;
    if (questions->count == QUESTIONS_MOST)
        zc_order_answer(v);
}

/* ---- Answers ---- */

bool zc_answers_complete(const struct zc_answers *answers)
{
    return answers->left == 0;
}

static int by_event(const void *left, const void *right)
{
    const struct visit *a = left, *b = right;

    if (a->at.lane != b->at.lane)
        return a->at.lane < b->at.lane ? -1 : 1;
    return a->at.tick < b->at.tick ? -1 : a->at.tick > b->at.tick;
}

/* The visits of the questions whose lanes have a column, and each lane's first of them. */
static void list_visits(const struct zc_verifier *v, struct zc_answers *answers)
{
    const uint32_t lanes = v->ranks * v->lanes;

    answers->visit_count = 0;
    for (uint32_t i = 0; i < v->questions.count; i++) {
        const struct zc_question *question = &v->questions.list[i];

        for (uint32_t j = 0; j < 2; j++)
            if (answers->column_of[question->before.lane] != 0 && question->views[j].tick != 0)
                answers->visits[answers->visit_count++] = (struct visit){question->views[j], i};
    }
    qsort(answers->visits, answers->visit_count, sizeof *answers->visits, by_event);
    for (uint32_t i = 0; i < lanes; i++)
        answers->next[i] = answers->visit_count;
    for (uint32_t i = answers->visit_count; i-- > 0;)
        answers->next[answers->visits[i].at.lane] = i;
    answers->left = answers->visit_count;
}

/* How many lanes one execution can count in the memory that is set apart for it. */
static uint32_t columns_most(const struct zc_verifier *v)
{
    const uint64_t fit =
        CLOCK_BYTES_MOST / sizeof(uint32_t) / (v->first.sent.made == 0 ? 1 : v->first.sent.made);

    return fit == 0 ? 1 : fit < COLUMNS_MOST ? (uint32_t)fit : COLUMNS_MOST;
}

/* Gives columns to the next lanes that questions are about, from *lane on; false: there are none.
 */
static bool choose_columns(const struct zc_verifier *v, struct zc_answers *answers,
                           const bool *asked, uint32_t *lane, uint32_t *width)
{
    const uint32_t lanes = v->ranks * v->lanes, most = columns_most(v);

    memset(answers->column_of, 0, lanes * sizeof *answers->column_of);
    *width = 0;
    for (; *lane < lanes && *width < most; (*lane)++)
        if (asked[*lane])
            answers->column_of[*lane] = ++*width;
    return *width > 0;
}

static void answer_all(struct zc_verifier *v, struct zc_answers *answers, bool *asked)
{
    uint32_t lane = 0, width = 0;

    for (uint32_t i = 0; i < v->questions.count; i++)
        asked[v->questions.list[i].before.lane] = true;
    while (v->status == ZCTA_OK && choose_columns(v, answers, asked, &lane, &width)) {
        struct zc_execution again = {.answers = answers};

        list_visits(v, answers);
        if (zc_execution_begin(&again, v, width))
            zc_execute(&again);
        zc_execution_end(&again);
    }
}

static void tell_no(struct zc_verifier *v, const struct zc_question *question)
{
    const struct zc_subject *s = &question->subject;
    const uint32_t first = question->before.lane / v->lanes;
    const uint32_t second = question->views[0].lane / v->lanes;

    switch (s->kind) {
    case ZC_ASK_ENTERED:
        zc_verify_defect(
            v, "call %u: rank %u, step %u touches rank %u's buffer before that rank has entered",
            s->call[1], second, s->step[1], s->rank);
        break;
    case ZC_ASK_LEFT:
        zc_verify_defect(
            v, "call %u: rank %u, step %u may touch rank %u's buffer after that rank left",
            s->call[0], first, s->step[0], s->rank);
        break;
    case ZC_ASK_RACE:
        zc_verify_defect(v,
                         "rank %u (call %u, step %u) and rank %u (call %u, step %u) touch the same "
                         "bytes of rank %u in no order",
                         first, s->call[0], s->step[0], second, s->call[1], s->step[1], s->rank);
        break;
    case ZC_ASK_SIGNALS:
        zc_verify_defect(v, "rank %u sends two signals on one channel in no order", second);
        break;
    case ZC_ASK_WAITS:
        zc_verify_defect(v, "rank %u waits twice on one channel in no order", second);
        break;
    case ZC_ASK_MEETING:
        zc_verify_defect(v, "call %u: rank %u may leave before rank %u has come", s->call[1],
                         second, first);
        break;
    case ZC_ASK_REPLAY:
        zc_verify_defect(
            v,
            "call %u: rank %u, step %u may signal rank %u before that rank's last wait "
            "for it in call %u: replayed, it would write a word that is put back after "
            "that",
            s->call[1], second, s->step[1], s->rank, s->call[0]);
        break;
    }
}

/* What was asked came before whatever else is wrong by now. */
void zc_order_answer(struct zc_verifier *v)
{
    const size_t lanes = (size_t)v->ranks * v->lanes;
    const zcta_status so_far = v->status;
    struct zc_answers answers = {.questions = &v->questions};
    bool *asked = NULL;

    if (v->questions.count == 0 || so_far == ZCTA_ERR_NO_MEMORY)
        return;
    v->status = ZCTA_OK;
    answers.column_of = calloc(lanes, sizeof *answers.column_of);
    answers.next = calloc(lanes, sizeof *answers.next);
    answers.visits = calloc((size_t)v->questions.count * 2, sizeof *answers.visits);
    asked = calloc(lanes, sizeof *asked);
    if (answers.column_of == NULL || answers.next == NULL || answers.visits == NULL ||
        asked == NULL)
        v->status = ZCTA_ERR_NO_MEMORY;
    else
        answer_all(v, &answers, asked);
    for (uint32_t i = 0; i < v->questions.count && v->status == ZCTA_OK; i++)
        if (!v->questions.list[i].answered)
            tell_no(v, &v->questions.list[i]);
    if (v->status == ZCTA_OK || so_far != ZCTA_OK)
        v->status = v->status == ZCTA_ERR_INVALID ? ZCTA_ERR_INVALID : so_far;
    v->questions.count = 0;
    free(answers.column_of);
    free(answers.next);
    free(answers.visits);
    free(asked);
}
