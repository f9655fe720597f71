/* Whether this process is a rank already; as the library sees it. */
#include "launch.h"
#include "rendezvous/launchers.h"

bool zc_launch_is_rank(void)
{
    return zc_launched_as_rank();
}
