/* The choices of options that several commands have; an index is the enum's value, for policies one
 * less. Each list ends with NULL. */
#ifndef ZC_CHOICES_H
#define ZC_CHOICES_H

extern const char *const zc_policy_choices[]; /* + 1: zcta_policy */
extern const char *const zc_engine_choices[]; /* zcta_engine */
extern const char *const zc_device_choices[]; /* zcta_device */

#endif
