/* What a context knows of NCCL and of measurements. Found out late, because a team that needs
 * neither shall not wait for the loading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"
#include "base/fd.h"

static void learn_nccl(zcta_context *context)
{
    struct zc_knowledge *knowledge = &context->knowledge;
    zcta_error error;

    if (zc_nccl_load(&context->diag, &knowledge->nccl) == ZCTA_OK) {
        zc_nccl_read_facts(&knowledge->nccl, &knowledge->facts);
        return;
    }
    zc_diag_last(&context->diag, &error);
    memcpy(knowledge->facts.why, error.message, sizeof knowledge->facts.why - 1);
}

const struct zc_nccl_facts *zc_load_nccl(zcta_context *context)
{
    pthread_mutex_lock(&context->knowledge.lock);
    if (!context->knowledge.knows_nccl)
        learn_nccl(context);
    context->knowledge.knows_nccl = true;
    pthread_mutex_unlock(&context->knowledge.lock);
    return &context->knowledge.facts;
}

/* NULL, with a line in the log, unless the file is there and right and was measured with what is
 * here now. */
static struct zc_tuned *read_tuned(zcta_context *context, const char *path)
{
    struct zc_tuned *tuned = malloc(sizeof *tuned);
    FILE *in = zc_fd_read_file(path);
    char why[100] = "";
    bool good = tuned != NULL && in != NULL;

    if (good && !zc_tuned_read(in, tuned, why, sizeof why)) {
        zc_log(&context->diag, ZC_LOG_WARN, "%s: %s; it is not used", path, why);
        good = false;
    }
    if (good && (strcmp(tuned->key.gpu, context->caps.model) != 0 ||
                 tuned->key.driver_version != context->caps.driver_version ||
                 tuned->key.zerocta_version != zcta_version())) {
        zc_log(&context->diag, ZC_LOG_INFO,
               "%s was measured with another GPU, driver or zerocta; `zerocta tune` measures anew",
               path);
        good = false;
    }
    if (in != NULL)
        fclose(in);
    if (!good) {
        free(tuned);
        tuned = NULL;
    }
    return tuned;
}

static struct zc_tuned *learn_tuned(zcta_context *context)
{
    char path[512];

    if (context->ops->kind != ZCTA_DEVICE_CUDA ||
        !zc_tuned_path(context->caps.model, path, sizeof path))
        return NULL;
    return read_tuned(context, path);
}

const struct zc_tuned *zc_load_tuned(zcta_context *context)
{
    struct zc_knowledge *knowledge = &context->knowledge;

    pthread_mutex_lock(&context->knowledge.lock);
    if (!knowledge->knows_tuned) {
        knowledge->tuned = learn_tuned(context);
        knowledge->nccl_at_hand = context->ops->kind == ZCTA_DEVICE_CUDA && zc_nccl_is_at_hand();
    }
    knowledge->knows_tuned = true;
    pthread_mutex_unlock(&context->knowledge.lock);
    /* Figures that come with the library are not worth loading NCCL for. They are those of its
     * symmetric kernels. */
    if (knowledge->tuned == NULL)
        return knowledge->nccl_at_hand && zc_load_nccl(context)->version != 0 &&
                       zc_load_nccl(context)->symmetric
                   ? zc_tuned_built_in(context->caps.model)
                   : NULL;
    return zc_load_nccl(context)->version == knowledge->tuned->key.nccl_version ? knowledge->tuned
                                                                                : NULL;
}

void zc_unload_all(zcta_context *context)
{
    zc_nccl_unload(&context->knowledge.nccl);
    free(context->knowledge.tuned);
}
