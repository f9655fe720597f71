/* The public face of the host device's streams. */
#include "api/objects.h"
#include "device/host/host.h"

zcta_status zcta_host_stream_create(zcta_context *context, zcta_host_stream **stream)
{
    if (context == NULL || stream == NULL)
        return zc_fail_null(context != NULL ? &context->diag : NULL, "zcta_host_stream_create",
                            context == NULL ? "context" : "stream");
    if (!zc_diag_is_here(&context->diag))
        return zc_check_process(&context->diag, "zcta_host_stream_create");
    if (context->ops != &zc_device_host)
        return zc_fail(&context->diag, ZCTA_ERR_UNSUPPORTED, "zcta_host_stream_create", 0,
                       "this context's device is %s, whose streams are its own",
                       context->caps.name);
    return zc_host_stream_create(context->device, stream);
}

zcta_status zcta_host_stream_call(zcta_host_stream *stream, void (*function)(void *data),
                                  void *data)
{
    if (stream == NULL || function == NULL)
        return zc_fail_null(NULL, "zcta_host_stream_call", stream == NULL ? "stream" : "function");
    if (!zc_diag_is_here(zc_host_stream_diag(stream)))
        return zc_check_process(zc_host_stream_diag(stream), "zcta_host_stream_call");
    zc_host_stream_call(stream, function, data);
    return ZCTA_OK;
}

zcta_status zcta_host_stream_synchronize(zcta_host_stream *stream)
{
    if (stream == NULL)
        return zc_fail_null(NULL, "zcta_host_stream_synchronize", "stream");
    if (!zc_diag_is_here(zc_host_stream_diag(stream)))
        return zc_check_process(zc_host_stream_diag(stream), "zcta_host_stream_synchronize");
    return zc_host_stream_synchronize(stream, "zcta_host_stream_synchronize");
}

zcta_status zcta_host_stream_destroy(zcta_host_stream **stream)
{
    zcta_status status;

    if (stream == NULL || *stream == NULL)
        return zc_fail_null(NULL, "zcta_host_stream_destroy", "stream, or what it points to,");
    if (!zc_diag_is_here(zc_host_stream_diag(*stream)))
        return zc_check_process(zc_host_stream_diag(*stream), "zcta_host_stream_destroy");
    status = zc_host_stream_synchronize(*stream, "zcta_host_stream_destroy");
    zc_host_stream_destroy(*stream);
    *stream = NULL;
    return status;
}

void zc_streams_end(zcta_context *context)
{
    if (context->ops == &zc_device_host)
        zc_host_streams_end(context->device);
}
