/* A rank of test_machines.sh: two teams of two, one a machine, gather; with an argument, rank 3
 * then ends without a word and the others say what they see. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zerocta/zerocta.h>

int main(int argc, char **argv)
{
    zcta_context *context = NULL;
    zcta_team *part = NULL;
    zcta_window *window = NULL;
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params, .error = &error};

    (void)argv;
    if (zcta_init(&params, &context) != ZCTA_OK)
        return fprintf(stderr, "%s\n", error.message), 1;
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    if (zcta_team_split(zcta_world(context), (int32_t)rank / 2, 0, NULL, &part) != ZCTA_OK ||
        zcta_window_alloc(part, 200, &window) != ZCTA_OK)
        return 1;
    char *all = zcta_window_base(window), *mine = all + 100 * zcta_team_rank(part);
    for (int call = 0; call < 100; call++) {
        memset(mine, (int)rank + call, 100);
        if (zcta_all_gather(part, mine, all, 100, NULL, NULL) != ZCTA_OK)
            return 1;
        for (uint32_t i = 0; i < 200; i++)
            if (all[i] != (char)(rank / 2 * 2 + i / 100 + (uint32_t)call))
                return 2;
    }
    /* Nobody goes before all have gathered. */
    zcta_team *none = NULL;
    if (zcta_team_split(zcta_world(context), -1, 0, NULL, &none) != ZCTA_OK)
        return 3;
    if (argc > 1 && rank == 3)
        _exit(9);
    while (argc > 1 && zcta_team_status(zcta_world(context)) == ZCTA_OK)
        usleep(10000);
    if (argc > 1) {
        zcta_team_failure(zcta_world(context), &error);
        printf("rank %u sees: %s\n", rank, error.message);
    }
    return zcta_finalize(&context) == ZCTA_OK || argc > 1 ? 0 : 1;
}
