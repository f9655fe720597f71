/* What the commands about a collective share: its name on the command line, the choices of their
 * options, and the step from the whole output to one rank's share. Runs no collective. */
#ifndef ZC_TOOL_COLLECTIVE_H
#define ZC_TOOL_COLLECTIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "plan/plan.h"

/* Choices for options; an index is the enum's value, for policies one less. */
extern const char *const zc_policy_choices[]; /* + 1: zcta_policy */
extern const char *const zc_engine_choices[]; /* zcta_engine */
extern const char *const zc_device_choices[]; /* zcta_device */

/* The largest output that the commands take, so that rounding up never overflows. */
#define ZC_OUTPUT_BYTES_MAX ((uint64_t)1 << 60)

/* True if `name` is a collective that the commands take; otherwise says so, for ZC_EXIT_USAGE. */
bool zc_check_collective(const char *command, const char *name);

/* `bytes` rounded up to the next size that `rank_count` equal shares make. */
uint64_t zc_round_output(uint64_t bytes, uint32_t rank_count);

/* One rank's share of an output of `bytes`, which is rounded up if it must be; a note on stderr
 * then says so. */
uint64_t zc_share_of(const char *command, uint64_t bytes, uint32_t rank_count);

/* "all_gather: 8 ranks x 131072 bytes (1M in all), out of place" */
#define ZC_CALL_TEXT_BYTES 128
const char *zc_call_text(uint32_t rank_count, uint64_t share, bool in_place,
                         char text[ZC_CALL_TEXT_BYTES]);

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

#endif
