/* A device opened by a process alone, to ask it or to try it. */
#ifndef ZC_ALONE_H
#define ZC_ALONE_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "select/select.h"
#include "zerocta/zerocta.h"

/* For a command that can also do its work on the host: what its user may do where there is no GPU.
 */
#define ZC_ADVISE_HOST "; --device host needs no GPU"

/* A context of one rank on this device, for questions. NULL after it was said why there is none; if
 * the device is CUDA, `advice` follows. */
zcta_context *zc_open_alone(const char *command, zcta_device device, const char *advice);

/* Opens the device for a moment, in a process of its own: drivers start threads and open files,
 * which a process that starts others does without. Returns an exit status, having said why it
 * cannot, and if the device is CUDA, `advice`. */
int zc_try_device(const char *command, zcta_device device, const char *advice);

/* What the host device can do. Says on stderr why it cannot be opened. */
bool zc_host_caps(const char *command, uint32_t rank_count, struct zc_device_caps *caps);

/* What the selector has to know of a call of a team of so many ranks, each on a device like this
 * one, on one node, under policy DEFAULT. `in_place` counts where all ranks are or none is. */
struct zc_facts zc_alone_facts(zcta_context *context, const struct zc_layout *layout, bool in_place,
                               zcta_engine engine);

#endif
