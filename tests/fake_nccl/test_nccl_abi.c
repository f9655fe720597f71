/* The declarations in nccl_api.h against NVIDIA's own: values, sizes and places. */
#include <nccl.h>
#include <stddef.h>
#include <stdio.h>

#include "engine/nccl/nccl_api.h"

#define SAME(ours, theirs)                                                                         \
    _Static_assert((long long)(ours) == (long long)(theirs), #ours " is not " #theirs)
#define SAME_PLACE(ours, theirs)                                                                   \
    SAME(offsetof(struct zc_nccl_config, ours), offsetof(ncclConfig_t, theirs))

SAME(ZC_NCCL_SUCCESS, ncclSuccess);
SAME(ZC_NCCL_CUDA_ERROR, ncclUnhandledCudaError);
SAME(ZC_NCCL_IN_PROGRESS, ncclInProgress);
SAME(ZC_NCCL_INT8, ncclInt8);
SAME(sizeof(struct zc_nccl_id), sizeof(ncclUniqueId));

#if NCCL_VERSION_CODE >= 22800
SAME(ZC_NCCL_WINDOW_SYMMETRIC, NCCL_WIN_COLL_SYMMETRIC);
SAME(ZC_NCCL_POLICY_DEFAULT, NCCL_CTA_POLICY_DEFAULT);
SAME(ZC_NCCL_POLICY_EFFICIENCY, NCCL_CTA_POLICY_EFFICIENCY);
SAME(ZC_NCCL_POLICY_ZERO, NCCL_CTA_POLICY_ZERO);
SAME(ZC_NCCL_CONFIG_UNSET, NCCL_CONFIG_UNDEF_INT);
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
SAME_PLACE(traffic_class, trafficClass);
SAME_PLACE(comm_name, commName);
SAME_PLACE(collnet, collnetEnable);
SAME_PLACE(cta_policy, CTAPolicy);
SAME_PLACE(shrink_share, shrinkShare);
SAME_PLACE(nvls_ctas, nvlsCTAs);
SAME_PLACE(channels_per_net_peer, nChannelsPerNetPeer);
SAME_PLACE(nvlink_centric, nvlinkCentricSched);
#endif

int main(void)
{
    const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;

    if (theirs.magic != (unsigned)ZC_NCCL_CONFIG_MAGIC) {
        puts("the magic number of a configuration is another");
        return 1;
    }
    puts("as in nccl.h: the rest was compared when this was compiled");
    return 0;
}
