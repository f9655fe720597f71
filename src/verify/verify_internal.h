/* Inside the verifier.
 *
 * Waits are satisfied by count, so one execution in any order that the plans allow fixes the whole
 * partial order of events. The verifier executes all plans (verify_execute.c), follows where every
 * byte came from, and looks at every access when it happens (verify_bytes.c): it must come after
 * what touched the same bytes before.
 *
 * Whether one event happens before another is a question to verify_order.c. Clocks of all lanes
 * would answer any, but they take the number of ranks for every step. Nearly always the answer is
 * near at hand: the latest signal that the one rank had from the other was sent behind the first
 * event and awaited before the second. So that is looked at first, and it takes no more than each
 * pair of ranks' latest signal, and for each lane a clock of its own rank's lanes alone. What is
 * not proved that way stays an open question. Open questions are answered by executing the plans
 * again with true clocks, which this time count only the lanes asked about, a few at a time; what
 * even these do not prove is a defect. So the result is that of full clocks.
 *
 * The files call each other in a circle, because the parts of the problem do: an execution asks for
 * the order, and an order that stays open is found by executing once more. All of them report
 * through verify.c, which begins and ends the whole. */
#ifndef ZC_VERIFY_INTERNAL_H
#define ZC_VERIFY_INTERNAL_H

#include "verify/verify.h"

/* The tick-th event of a lane; lanes are numbered through all ranks. Tick 0: none. */
struct zc_event {
    uint32_t lane, tick;
};

/* From where one looks back: an event, and how far its own rank's lanes had come for it. */
struct zc_view {
    struct zc_event event;
    const uint32_t *own;
};

/* ---- Open questions ---- */

enum zc_question_kind {
    ZC_ASK_ENTERED, /* a rank had entered when its buffer was touched */
    ZC_ASK_LEFT,    /* what touched a rank's buffer had ended when that rank left */
    ZC_ASK_RACE,
    ZC_ASK_SIGNALS, /* two on one channel */
    ZC_ASK_WAITS,
    ZC_ASK_MEETING, /* a rank had come when another left */
    ZC_ASK_REPLAY,  /* a word had been put back when it was written again */
};

/* What is asked about; [0] is the earlier one. */
struct zc_subject {
    enum zc_question_kind kind;
    uint32_t rank; /* whose buffer */
    uint32_t call[2], step[2];
};

/* Whether `before` happens before one of the views (the second one may be missing). */
struct zc_question {
    struct zc_subject subject;
    struct zc_event before, views[2];
    bool answered;
};

struct zc_questions {
    struct zc_question *list;
    uint32_t count, capacity;
};

/* ---- What buffers hold, and who touched it last ---- */

struct zc_mark {
    struct zc_event event; /* the end of the access */
    uint32_t call, step;
};

struct zc_marks {
    struct zc_mark *list;
    uint32_t count, capacity;
};

#define ZC_NO_CALL UINT32_MAX

/* Bytes that have the same history. */
struct zc_segment {
    uint64_t offset, bytes;
    uint64_t origin_offset; /* they came from there in rank `origin`'s share of call `call` */
    uint32_t origin, call;  /* ZC_NO_CALL: nobody knows */
    struct zc_mark written;
    struct zc_marks reads; /* since then, the latest of each lane */
};

/* In ascending order; between them lies what nobody has touched. */
struct zc_content {
    struct zc_segment *segments;
    uint32_t count, capacity;
    uint32_t latest; /* where something was looked for last; the next time it is often near that */
};

struct zc_bytes {
    struct zc_content *contents; /* [rank][buffer] */
    uint64_t *written;           /* [rank]: bytes written to its output in this call */
    struct zc_content carried;   /* on their way from a source to where they are written */
};

/* ---- Executions ---- */

/* A signal under way, or the latest one that was awaited; [width] entries of clock follow. */
struct zc_sent_signal {
    uint32_t next;
    uint32_t call;
    struct zc_event sent, taken;
    uint32_t clock[];
};

/* Letters are numbered from 1 and lie in blocks, so that none moves. */
struct zc_sent_signals {
    unsigned char **blocks;
    uint32_t block_count, block_capacity;
    uint32_t made, idle; /* idle: the first of those that can be taken again */
    size_t stride;
};

/* A channel between two ranks: numbers of sent signals, 0 for none. */
struct zc_channel_state {
    uint32_t first, last; /* under way */
    uint32_t taken;       /* the latest that was awaited; not kept when questions are answered */
};

/* What one rank has sent to another over the network, until that one takes it. */
struct zc_message {
    struct zc_message *next;
    uint32_t from, call;
    uint64_t bytes;
    struct zc_event event;     /* where the sender's group begins */
    struct zc_content content; /* from offset 0 on; in the first execution only */
    uint32_t clock[];          /* [width], of that event */
};

/* Sends and receives that a rank has begun at once, and not yet ended. */
struct zc_group {
    bool begun;
    struct zc_event event; /* its begin; and [width] entries of that event's clock */
    uint32_t *clock;
};

struct zc_rank_state {
    uint32_t call;
    bool inside;
    uint32_t cursor[ZC_MAX_LANES];
    bool running[ZC_MAX_LANES];
    struct zc_group group;
    struct zc_message *inbox; /* in the order of sending */
    struct zc_message **inbox_end;
};

struct zc_answers;

struct zc_execution {
    struct zc_verifier *v;
    struct zc_answers *answers; /* NULL: the first execution, which asks and follows bytes */
    uint32_t width;             /* entries of a clock: a rank's lanes, or the lanes asked about */
    uint32_t *ticks;            /* by lane */
    uint32_t *clocks;           /* by lane; [width] */
    struct zc_rank_state *ranks;
    struct zc_channel_state *channels; /* [from][to][channel] */
    int32_t *ahead; /* [from][to]: sends begun over the network, less receives begun */
    struct zc_sent_signals sent;
};

/* What came of trying a step. MOVED: it has begun, and not ended. */
enum zc_progress_kind { ZC_STUCK, ZC_MOVED, ZC_PASSED };

struct zc_verifier {
    const struct zc_verify_call *calls;
    uint32_t call_count, ranks, lanes; /* lanes: of a rank */
    const struct zc_verify_options *options;
    struct zc_execution first;
    struct zc_bytes bytes;
    struct zc_questions questions;
    uint32_t *entered; /* [call][rank]: the tick of lane 0 */
    uint64_t steps_done, steps_total;
    zcta_status status;
    char *text;
    size_t text_bytes;
};

static inline const struct zc_plan *zc_plan_of(const struct zc_verifier *v, uint32_t call,
                                               uint32_t rank)
{
    return v->calls[call].plans[rank];
}

static inline struct zc_view zc_view_now(const struct zc_execution *e, uint32_t lane)
{
    return (struct zc_view){.event = {lane, e->ticks[lane]},
                            .own = e->clocks + (size_t)lane * e->width};
}

/* ---- verify.c ---- */

__attribute__((format(printf, 2, 3))) void zc_verify_defect(struct zc_verifier *v,
                                                            const char *format, ...);
/* Makes room for one more element in the array whose pointer stands at `array`; false: there is no
 * memory, and v->status says so. */
bool zc_verify_reserve(struct zc_verifier *v, void *array, uint32_t count, uint32_t *capacity,
                       size_t size);
void zc_verify_count_step(struct zc_verifier *v);

/* ---- verify_execute.c ---- */

/* `width`: see struct zc_execution. False: there is no memory. */
bool zc_execution_begin(struct zc_execution *e, struct zc_verifier *v, uint32_t width);
void zc_execution_end(struct zc_execution *e);
/* Runs all calls of all ranks, or until something is wrong, or all questions are answered. */
void zc_execute(struct zc_execution *e);

/* ---- verify_network.c ---- */

/* Begins or ends the group whose first step the lane's cursor is on; behind that it is on the
 * last. `lane` is of the rank. */
enum zc_progress_kind zc_network_run(struct zc_execution *e, uint32_t rank, uint32_t lane);
/* A group that cannot end becomes the defect. */
void zc_network_report_stuck(struct zc_execution *e, uint32_t rank, uint32_t lane);
void zc_network_end(struct zc_execution *e);

/* ---- verify_order.c ---- */

uint32_t zc_order_tick(struct zc_execution *e, uint32_t lane);
void zc_order_fork(struct zc_execution *e, uint32_t lane, uint32_t forked);
void zc_order_join(struct zc_execution *e, uint32_t lane, uint32_t joined);
void zc_order_signal(struct zc_execution *e, uint32_t lane, uint32_t from,
                     const struct zc_step *step, uint32_t call);
/* False: the signal is not there yet. */
bool zc_order_wait(struct zc_execution *e, uint32_t lane, uint32_t to, const struct zc_step *step,
                   uint32_t call);
void zc_order_begin_group(struct zc_execution *e, uint32_t lane, struct zc_group *group);
/* The lane ends a group in which it gets this. */
void zc_order_receive(struct zc_execution *e, uint32_t lane, const struct zc_message *message);
void zc_order_check_channels(struct zc_execution *e);
/* In the first execution only. */
void zc_order_ask(struct zc_verifier *v, struct zc_event before, const struct zc_view *views,
                  uint32_t view_count, struct zc_subject subject);
/* Answers the open questions. One that has to be answered with no becomes the defect. */
void zc_order_answer(struct zc_verifier *v);
bool zc_answers_complete(const struct zc_answers *answers);

/* ---- verify_bytes.c: in the first execution only ---- */

bool zc_bytes_begin(struct zc_verifier *v);
void zc_bytes_end(struct zc_verifier *v);
void zc_bytes_enter(struct zc_verifier *v, uint32_t rank, uint32_t call);
void zc_bytes_leave(struct zc_verifier *v, uint32_t rank, uint32_t call);
void zc_bytes_copy(struct zc_verifier *v, const struct zc_step *step, struct zc_mark mark);
/* What a send takes, as its group begins. */
void zc_bytes_take(struct zc_verifier *v, const struct zc_step *step, struct zc_message *message);
/* A group ends at `mark`: until then it read what it sends, and wrote what it gets. */
void zc_bytes_send(struct zc_verifier *v, const struct zc_step *step, const struct zc_group *group,
                   struct zc_mark mark);
void zc_bytes_receive(struct zc_verifier *v, const struct zc_step *step,
                      const struct zc_group *group, const struct zc_message *message,
                      struct zc_mark mark);
void zc_content_free(struct zc_content *content);

#endif
