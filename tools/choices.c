/* The choices of options that several commands have. */
#include "choices.h"

#include <stddef.h>

const char *const zc_policy_choices[] = {"default", "efficiency", "zero", NULL};
const char *const zc_engine_choices[] = {"auto", "ce", "nccl", NULL};
const char *const zc_device_choices[] = {"auto", "host", "cuda", NULL};
