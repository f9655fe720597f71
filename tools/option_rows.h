/* Rows of option tables (options.h) for what several commands are asked. `at` is the offset of the
 * value in the command's settings; `unless` is the default, in words. */
#ifndef ZC_OPTION_ROWS_H
#define ZC_OPTION_ROWS_H

#include "choices.h"
#include "collective.h"
#include "options.h"
#include "rendezvous/rendezvous.h" /* ZC_MAX_RANKS */

/* Initialisers and texts that are joined take no parentheses.
 * NOLINTBEGIN(bugprone-macro-parentheses) */
#define ZC_ROW_FLAG(called, at, what)                                                              \
    {                                                                                              \
        .name = called, .help = what, .kind = ZC_OPTION_FLAG, .offset = at                         \
    }
#define ZC_ROW_CHOICE(called, word, at, what, names)                                               \
    {                                                                                              \
        .name = called, .argument = word, .help = what, .kind = ZC_OPTION_CHOICE, .offset = at,    \
        .choices = names                                                                           \
    }
#define ZC_ROW_SIZE(called, key, at, what, least)                                                  \
    {                                                                                              \
        .name = called, .letter = key, .argument = "SIZE", .help = what, .kind = ZC_OPTION_SIZE,   \
        .offset = at, .min = least, .max = ZC_OUTPUT_BYTES_MAX                                     \
    }
#define ZC_ROW_NUMBER(called, key, word, at, what, least, most)                                    \
    {                                                                                              \
        .name = called, .letter = key, .argument = word, .help = what, .kind = ZC_OPTION_NUMBER,   \
        .offset = at, .min = least, .max = most                                                    \
    }

#define ZC_ROW_RANKS(at, what, least, most)                                                        \
    ZC_ROW_NUMBER("ranks", 'n', "RANKS", at, what, least, most)
#define ZC_ROW_MIN(at, unless)                                                                     \
    ZC_ROW_SIZE("min", 'b', at, "the smallest size; " unless " if not given", 1)
#define ZC_ROW_MAX(at, unless, least)                                                              \
    ZC_ROW_SIZE("max", 'e', at, "no size is larger; " unless " if not given", least)
#define ZC_ROW_FACTOR(at, unless)                                                                  \
    ZC_ROW_NUMBER("factor", 'f', "FACTOR", at,                                                     \
                  "from one size to the next; " unless " if not given", 2, 1u << 20)
#define ZC_ROW_ITERATIONS(at, what, most) ZC_ROW_NUMBER("iterations", 0, "COUNT", at, what, 1, most)
#define ZC_ROW_IN_PLACE(at)                                                                        \
    ZC_ROW_FLAG("in-place", at, "the share that a rank keeps lies in its output already")
#define ZC_ROW_ROOT(at)                                                                            \
    ZC_ROW_NUMBER("root", 0, "RANK", at,                                                           \
                  "the root of a broadcast, gather or scatter; 0 if not given", 0,                 \
                  ZC_MAX_RANKS - 1)
#define ZC_ROW_COUNTS(at)                                                                          \
    {                                                                                              \
        .name = "counts", .argument = "KIND", .kind = ZC_OPTION_TEXT, .offset = at,                \
        .help = "the shares of those that end in _v: even, skewed (rank r's is r + 1 times rank "  \
                "0's), one-hot (one rank gives or gets everything) or random:SEED; even if not "   \
                "given"                                                                            \
    }
#define ZC_ROW_THREADS(at) ZC_ROW_FLAG("threads", at, "ranks are threads of one process")
#define ZC_ROW_POLICY(at)                                                                          \
    ZC_ROW_CHOICE("policy", "POLICY", at, "the CTA policy of our calls", zc_policy_choices)
#define ZC_ROW_ENGINE(at, what) ZC_ROW_CHOICE("engine", "ENGINE", at, what, zc_engine_choices)
#define ZC_ROW_DEVICE(at, what) ZC_ROW_CHOICE("device", "DEVICE", at, what, zc_device_choices)
#define ZC_ROW_JSON(at, what)                                                                      \
    {                                                                                              \
        .name = "json", .argument = "FILE", .kind = ZC_OPTION_TEXT, .offset = at,                  \
        .help = "write " what " there as well; - is standard output, and what else is printed "    \
                "then goes to standard error"                                                      \
    }

/* The end of a table of a command about a collective, for its notes. */
#define ZC_NOTE_COLLECTIVES "COLLECTIVE  one of" ZC_COLLECTIVE_WORDS "\n"
#define ZC_NOTE_SIZE                                                                               \
    "SIZE        a number of bytes, or of K, M, G (1024 each time): the largest output or the "    \
    "largest input of a rank, whichever is larger. One that is no whole number of equal shares "   \
    "is rounded up.\n"
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
