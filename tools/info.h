/* What the parts of `zerocta info` share. */
#ifndef ZC_TOOL_INFO_H
#define ZC_TOOL_INFO_H

/* One line: a name, and what is to be said about it. */
__attribute__((format(printf, 2, 3))) void zc_info_say(const char *name, const char *format, ...);

/* The same for an environment variable. What could move a terminal's cursor becomes '?'. */
__attribute__((format(printf, 2, 3))) void zc_info_say_variable(const char *name,
                                                                const char *format, ...);

void zc_info_print_environment(void);

/* The driver and each GPU, or why there is none. */
void zc_info_print_gpus(void);

/* What each collective moves, and its paths on the host and on a GPU. Returns an exit status. */
int zc_info_print_collectives(void);

#endif
