/* Names and texts of the statuses, and the library's version. */
#include "zerocta/zerocta.h"

const char *zcta_status_name(zcta_status status)
{
    switch (status) {
#define STATUS_NAME(name, value, text)                                                             \
    case ZCTA_##name:                                                                              \
        return "ZCTA_" #name;
        ZCTA_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "ZCTA_(unknown status)";
}

const char *zcta_status_text(zcta_status status)
{
    switch (status) {
#define STATUS_TEXT(name, value, text)                                                             \
    case ZCTA_##name:                                                                              \
        return text;
        ZCTA_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

uint32_t zcta_version(void)
{
    return ZCTA_VERSION_MAJOR << 16 | ZCTA_VERSION_MINOR << 8 | ZCTA_VERSION_PATCH;
}
