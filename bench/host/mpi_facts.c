/* Which MPI this is and how it is set in this run, by its own account: MPI's tool interface. Only
 * reads. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"

/* The name of a value, if it has one; else its digits. */
static void name_value(MPI_T_enum names, int value, char *text, size_t bytes)
{
    char type[64];
    int count = 0, type_length = sizeof type;

    snprintf(text, bytes, "%d", value);
    if (names == MPI_T_ENUM_NULL ||
        MPI_T_enum_get_info(names, &count, type, &type_length) != MPI_SUCCESS)
        return;
    for (int item = 0; item < count; item++) {
        char name[32];
        int item_value = 0, length = sizeof name;

        if (MPI_T_enum_get_item(names, item, &item_value, name, &length) == MPI_SUCCESS &&
            item_value == value)
            snprintf(text, bytes, "%s", name);
    }
}

/* A control variable with an integer, boolean or named value, as text. */
static void read_variable(const char *name, char *text, size_t bytes)
{
    int index, length = 0, verbosity, bind, scope, count = 0, value = 0;
    MPI_Datatype type;
    MPI_T_enum names = MPI_T_ENUM_NULL;
    MPI_T_cvar_handle handle;

    if (MPI_T_cvar_get_index(name, &index) != MPI_SUCCESS ||
        MPI_T_cvar_get_info(index, NULL, &length, &verbosity, &type, &names, NULL, &length, &bind,
                            &scope) != MPI_SUCCESS ||
        MPI_T_cvar_handle_alloc(index, NULL, &handle, &count) != MPI_SUCCESS)
        return;
    if (count == 1 && MPI_T_cvar_read(handle, &value) == MPI_SUCCESS)
        name_value(names, value, text, bytes);
    MPI_T_cvar_handle_free(&handle);
}

static void read_version(char *text, size_t bytes)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;

    if (MPI_Get_library_version(version, &length) == MPI_SUCCESS)
        snprintf(text, bytes, "%.*s", (int)strcspn(version, ",\n"), version);
    for (char *at = text; *at != '\0'; at++)
        *at = *at == '\t' ? ' ' : *at;
}

void mpi_facts_read(struct mpi_facts *facts)
{
    int provided;

    *facts = (struct mpi_facts){.single_copy = "unknown", .yields = "unknown"};
#ifdef OPEN_MPI
    facts->name = "Open MPI";
    facts->key = "open_mpi";
#else
    facts->name = "MPICH";
    facts->key = "mpich";
#endif
    read_version(facts->version, sizeof facts->version);
    if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS)
        return;
    read_variable("btl_vader_single_copy_mechanism", facts->single_copy, sizeof facts->single_copy);
    read_variable("mpi_yield_when_idle", facts->yields, sizeof facts->yields);
    MPI_T_finalize();
}
