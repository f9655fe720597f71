/* The text form of plans: whatever is read is well formed, prints back, and reads as the same
 * again; and the verifier checks it without harm. */
#include <string.h>

#include "fuzz.h"
#include "verify/verify.h"

enum { MOST_VERIFIED_STEPS = 64, REASON = 256 };

static char *print(const struct zc_plan *plan, size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);

    FUZZ_REQUIRE(out != NULL);
    zc_plan_print(plan, out);
    FUZZ_REQUIRE(fclose(out) == 0);
    return text;
}

static void check_round_trip(const struct zc_plan *plan)
{
    struct zc_plan *again = NULL;
    char reason[REASON];
    size_t length, length_again;
    char *text = print(plan, &length), *text_again;

    FUZZ_REQUIRE(zc_plan_parse(text, length, &again, reason, sizeof reason) == ZCTA_OK);
    FUZZ_REQUIRE(again->step_count == plan->step_count && again->lane_count == plan->lane_count);
    text_again = print(again, &length_again);
    FUZZ_REQUIRE(length == length_again && memcmp(text, text_again, length) == 0);
    zc_plan_destroy(again);
    free(text_again);
    free(text);
}

/* Together with the plans that the other ranks would have made. They need not fit; the verifier
 * must bear that. */
static void check_result(const struct zc_plan *plan)
{
    const struct zc_plan *plans[3] = {NULL};
    struct zc_plan *others[3] = {NULL};
    const struct zc_verify_call calls[2] = {{plans}, {plans}};
    struct zc_request request = plan->request;
    const struct zc_layout *layout = request.layout;
    char reason[REASON] = "";
    zcta_status status = ZCTA_OK;

    if (layout->ranks > 3 || plan->step_count > MOST_VERIFIED_STEPS ||
        (request.block_bytes > 0 && layout->share / request.block_bytes > MOST_VERIFIED_STEPS))
        return;
    for (uint32_t rank = 0; rank < layout->ranks && status == ZCTA_OK; rank++) {
        request.rank = rank;
        if (rank != plan->request.rank)
            status = zc_plan_make(&request, &others[rank]);
        plans[rank] = rank == plan->request.rank ? plan : others[rank];
    }
    if (status == ZCTA_OK) {
        status = zc_verify(calls, 2, NULL, reason, sizeof reason);
        FUZZ_REQUIRE(status == ZCTA_OK || status == ZCTA_ERR_INVALID ||
                     status == ZCTA_ERR_NO_MEMORY);
        FUZZ_REQUIRE((status == ZCTA_ERR_INVALID) == (reason[0] != '\0'));
    }
    for (uint32_t rank = 0; rank < 3; rank++)
        zc_plan_destroy(others[rank]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct zc_plan *plan = NULL;
    char reason[REASON] = "";
    /* A copy of the exact size, so that reading past its end is noticed. */
    char *source = malloc(bytes + (bytes == 0));
    zcta_status status;

    FUZZ_REQUIRE(source != NULL);
    if (bytes > 0)
        memcpy(source, data, bytes);
    status = zc_plan_parse(source, bytes, &plan, reason, sizeof reason);
    FUZZ_REQUIRE((status == ZCTA_OK) == (plan != NULL));
    FUZZ_REQUIRE(status != ZCTA_ERR_INVALID || reason[0] != '\0');
    if (plan != NULL) {
        FUZZ_REQUIRE(zc_plan_defect(plan, reason, sizeof reason) == NULL);
        check_round_trip(plan);
        check_result(plan);
    }
    zc_plan_destroy(plan);
    free(source);
    return 0;
}
