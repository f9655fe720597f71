/* Plans of a whole team, for tests. */
#include "support_plans.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct zc_layout even_layout(const struct zc_collective *collective, uint32_t ranks, uint64_t bytes,
                             uint32_t root)
{
    struct zc_layout layout = {
        .collective = collective, .ranks = ranks, .root = root, .bytes = bytes};

    assert_null(zc_layout_derive(&layout));
    return layout;
}

const struct zc_collective *usual_collective(const struct zc_algorithm *algorithm)
{
    const struct zc_collective *collective = &zc_all_gather;

    for (int id = 1; !zc_algorithm_serves(algorithm, collective); id++) {
        collective = zc_collective_of((zcta_collective)id);
        assert_non_null(collective);
    }
    return collective;
}

struct zc_request usual_request(const struct zc_algorithm *algorithm,
                                const struct zc_layout *layout, bool in_place)
{
    const bool host = zc_has(algorithm, ZC_USES_HOST);

    return (struct zc_request){.layout = layout,
                               .algorithm = algorithm,
                               .in_place = in_place,
                               .scratch_bytes = layout->input,
                               .host_bytes = host ? layout->input + layout->output : 0,
                               .ring_bytes = host ? layout->input + layout->output + 64 : 0,
                               .lanes = 2};
}

void make_plans(struct team_plans *team, struct zc_request request)
{
    team->layout = *request.layout;
    team->count = team->layout.ranks;
    request.layout = &team->layout;
    for (request.rank = 0; request.rank < team->count; request.rank++)
        assert_int_equal(zc_plan_make(&request, &team->plans[request.rank]), ZCTA_OK);
}

void free_plans(struct team_plans *team)
{
    for (uint32_t i = 0; i < team->count; i++)
        zc_plan_destroy(team->plans[i]);
}

static zcta_status verify(const struct team_plans *calls, uint32_t call_count,
                          struct zc_verify_options options, char *text, size_t bytes)
{
    enum { SMALL = 6 };
    struct zc_verify_call given[6];
    zcta_status status;

    assert_true(call_count <= 6);
    for (uint32_t i = 0; i < call_count; i++)
        given[i].plans = (const struct zc_plan *const *)calls[i].plans;
    status = zc_verify(given, call_count, &options, text, bytes);
    options.by_clocks = true;
    if (calls[0].count <= SMALL)
        assert_int_equal(zc_verify(given, call_count, &options, (char[256]){""}, 256), status);
    return status;
}

zcta_status verify_calls(const struct team_plans *calls, uint32_t call_count, char *text,
                         size_t bytes)
{
    return verify(calls, call_count, (struct zc_verify_options){0}, text, bytes);
}

zcta_status verify_replayed(const struct team_plans *calls, uint32_t call_count, char *text,
                            size_t bytes)
{
    return verify(calls, call_count, (struct zc_verify_options){.replayed = true}, text, bytes);
}
