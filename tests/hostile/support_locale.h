/* A locale that writes numbers with a comma. */
#ifndef SUPPORT_LOCALE_H
#define SUPPORT_LOCALE_H

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Makes the German locale in a folder of its own; a machine may have none. */
static inline bool become_german(void)
{
    char folder[] = "/tmp/zerocta-locale-XXXXXX", command[256];
    bool german;

    if (mkdtemp(folder) == NULL)
        return false;
    snprintf(command, sizeof command,
             "localedef -i de_DE -f ISO-8859-1 '%s/de_DE.ISO-8859-1' >/dev/null 2>&1", folder);
    (void)!system(command); /* NOLINT(cert-env33-c): the test's own folder */
    setenv("LOCPATH", folder, 1);
    german = setlocale(LC_ALL, "de_DE.ISO-8859-1") != NULL;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    (void)!system(command); /* NOLINT(cert-env33-c): the test's own folder */
    unsetenv("LOCPATH");
    return german;
}

#endif
