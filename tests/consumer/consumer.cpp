// The library from C++: the header must compile there, and its calls must link.
#include <cstdio>
#include <cstring>
#include <vector>

#include <zerocta/zerocta.h>

static bool gather(zcta_context *context)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    std::vector<unsigned char> mine(100, static_cast<unsigned char>(rank + 1));
    zcta_window *window = nullptr;

    if (zcta_window_alloc(world, mine.size() * count, &window) != ZCTA_OK)
        return false;
    const unsigned char *all = static_cast<unsigned char *>(zcta_window_base(window));
    if (zcta_all_gather(world, mine.data(), zcta_window_base(window), mine.size(), nullptr,
                        nullptr) != ZCTA_OK)
        return false;
    size_t wrong = 0;
    for (size_t i = 0; i < mine.size() * count; i++)
        wrong += all[i] != i / mine.size() + 1;
    std::printf("rank %u of %u: %zu wrong\n", rank, count, wrong);
    return wrong == 0;
}

int main()
{
    zcta_context *context = nullptr;

    if (zcta_init(nullptr, &context) != ZCTA_OK)
        return 1;
    const bool good = gather(context);
    return zcta_finalize(&context) == ZCTA_OK && good ? 0 : 1;
}
