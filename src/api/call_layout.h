/* A layout of a call that nobody makes: for tools that look at plans. */
#ifndef ZC_CALL_LAYOUT_H
#define ZC_CALL_LAYOUT_H

#include "collective/collective.h"

/* The layout, derived, of rank `self` among `ranks`. The caller frees it with
 * zc_call_layout_free(). Errors: ERR_INVALID, ERR_NO_MEMORY; the calling thread's last error says
 * why. */
zcta_status zc_call_layout(const zcta_call *call, uint32_t ranks, uint32_t self,
                           struct zc_layout **layout);
void zc_call_layout_free(struct zc_layout *layout); /* NULL is fine */

#endif
