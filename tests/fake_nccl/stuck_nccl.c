/* A libnccl.so.2 whose loading takes until the program opens its gate: a library may look for its
 * network, or lie on a file system that does not answer. */
#include <dlfcn.h>
#include <string.h>

__attribute__((constructor)) static void wait_at_gate(void)
{
    void *found = dlsym(RTLD_DEFAULT, "stuck_nccl_gate");
    void (*gate)(void);

    memcpy(&gate, &found, sizeof gate);
    if (found != NULL)
        gate();
}
