/* What launchers tell the processes they start, and what follows from it.
 *
 * launchers.c is the table: which variables each launcher sets. launched.c reads the environment by
 * it, chooses the launcher that started this rank, and refuses what contradicts. For users the same
 * table stands in docs/launchers.md. */
#ifndef ZC_LAUNCHERS_H
#define ZC_LAUNCHERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"

enum zc_launcher_kind {
    ZC_LAUNCHER_RUN,
    ZC_LAUNCHER_TORCHRUN,
    ZC_LAUNCHER_OPEN_MPI,
    ZC_LAUNCHER_PMI,
    ZC_LAUNCHER_PALS,
    ZC_LAUNCHER_FLUX,
    ZC_LAUNCHER_PMIX,
    ZC_LAUNCHER_SLURM,
    ZC_LAUNCHER_KINDS
};

enum { ZC_LAUNCHER_NAMES = 3, ZC_LAUNCH_IDENTITY = 384 };

/* Where several names stand, the first that is set counts. */
struct zc_launcher {
    const char *name;
    const char *rank[ZC_LAUNCHER_NAMES];
    const char *count[ZC_LAUNCHER_NAMES];
    const char *local_rank[ZC_LAUNCHER_NAMES];
    /* A number, or a list of the ranks on each machine as Slurm writes it, "4(x2),3". */
    const char *local_count[ZC_LAUNCHER_NAMES];
    const char *machine;  /* this machine's place in that list */
    const char *machines; /* how many there are; for launchers that give no local count */

    /* Set by this launcher and by nobody else. NULL: so are the ranks. Without its mark the
     * variables are words that a script may have exported as well. */
    const char *mark;
    /* Set to a number in what this launcher starts, and not in the shell of its allocation, which
     * has the other variables too. NULL: there is no such shell. */
    const char *step;
    /* A launcher may stand inside one of greater depth, which then started it and not the ranks. */
    uint32_t depth;
    bool count_alone;  /* the count without a rank is a mistake */
    bool local_needed; /* the local rank as well */

    const char *identity[ZC_LAUNCHER_NAMES]; /* names the launch: no other has the same value */
    const char *attempt[ZC_LAUNCHER_NAMES];  /* tells apart several within it; all that are set */
    const char *no_identity;                 /* a value that names nothing */
    const char *ancestor; /* the process that starts all ranks of a machine names the launch */
};

extern const struct zc_launcher zc_launchers[ZC_LAUNCHER_KINDS];

/* What the environment says of this rank. */
struct zc_launched {
    const struct zc_launcher *launcher; /* NULL: none started it, the rank is alone */
    uint32_t rank, count, local_rank, local_count;
    bool spread;                       /* the ranks are certainly on several machines */
    char identity[ZC_LAUNCH_IDENTITY]; /* what tells this launch from others, or empty */
    bool named;                        /* no other launch has the same identity */
};

/* Errors: ERR_ENVIRONMENT (names the variables that are missing, wrong, or contradict). */
zcta_status zc_launched_find(struct zc_diag *diag, struct zc_launched *launched);

/* A launcher started this process as a rank, or its variables say so wrongly. */
bool zc_launched_as_rank(void);

/* The value of the first of these variables that is set, or NULL; *name is then its name. */
const char *zc_launcher_value(const char *const names[ZC_LAUNCHER_NAMES], const char **name);

/* Digits only, at most `most`. */
bool zc_launcher_parse(const char *text, uint32_t most, uint32_t *value);

/* A number from `least` to `most` of a variable that is set. Errors: ERR_ENVIRONMENT. */
zcta_status zc_launcher_number(struct zc_diag *diag, const char *name, uint32_t least,
                               uint32_t most, uint32_t *value);

/* *text is the variable's value. An error if it is not set, in the environment of a launcher that
 * sets it. */
zcta_status zc_launcher_need(struct zc_diag *diag, const struct zc_launcher *launcher,
                             const char *name, const char **text);

#endif
