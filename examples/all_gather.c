/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest useful program: every rank gives 1 KiB, every rank gets everybody's.
 *
 *     zerocta run -n 4 -- ./all_gather
 */
#include <stdio.h>
#include <string.h>
#include <zerocta/zerocta.h>

enum { BYTES = 1024 }; /* one rank's share */

static int complain(zcta_context *context, const char *what)
{
    zcta_error error = {0};

    zcta_last_error(context, &error);
    fprintf(stderr, "%s: %s (%s)\n", what, error.message, zcta_status_name(error.status));
    return 1;
}

/* Rank r's share consists of bytes r. */
static size_t count_wrong(const unsigned char *all, uint32_t rank_count)
{
    size_t wrong = 0;

    for (size_t i = 0; i < (size_t)BYTES * rank_count; i++)
        wrong += all[i] != (unsigned char)(i / BYTES);
    return wrong;
}

static int gather(zcta_context *context)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), rank_count = zcta_team_rank_count(world);
    zcta_window *window = NULL;
    unsigned char *all, *mine;
    size_t wrong;

    if (zcta_window_alloc(world, (size_t)BYTES * rank_count, &window) != ZCTA_OK)
        return complain(context, "no window");
    all = zcta_window_base(window);
    mine = all + (size_t)BYTES * rank;
    memset(mine, (int)rank, BYTES);
    if (zcta_all_gather(world, mine, all, BYTES, NULL, NULL) != ZCTA_OK) /* in place */
        return complain(context, "no allgather");

    wrong = count_wrong(all, rank_count);
    printf("rank %u of %u: %zu bytes gathered, %zu wrong\n", rank, rank_count,
           (size_t)BYTES * rank_count, wrong);
    return wrong != 0;
}

int main(void)
{
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params, .error = &error};
    zcta_context *context = NULL;
    int failed;

    if (zcta_init(&params, &context) != ZCTA_OK) {
        fprintf(stderr, "no context: %s\n", error.message);
        return 1;
    }
    failed = gather(context);
    if (zcta_finalize(&context) != ZCTA_OK) /* frees the window too */
        failed = 1;
    return failed;
}
