/* Runs a fuzz target over every file of the folders it is given: the corpus as an ordinary test,
 * with any compiler. Fails when there is nothing to run. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define INPUT_BYTES_MAX (1u << 20)

static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_BYTES_MAX), *exact = NULL;
    bool done = false;
    size_t bytes;

    if (file == NULL || data == NULL)
        goto out;
    bytes = fread(data, 1, INPUT_BYTES_MAX, file);
    if (ferror(file))
        goto out;
    /* A block of exactly this size, so that AddressSanitizer sees a read past its end. */
    exact = malloc(bytes > 0 ? bytes : 1);
    if (exact == NULL)
        goto out;
    memcpy(exact, data, bytes);
    LLVMFuzzerTestOneInput(exact, bytes);
    done = true;
out:
    if (!done)
        fprintf(stderr, "cannot run %s: %s\n", path, strerror(errno));
    free(exact);
    free(data);
    if (file != NULL)
        fclose(file);
    return done;
}

/* Returns how many inputs ran, or -1. */
static int run_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[4096];
    int count = 0;

    if (dir == NULL) {
        fprintf(stderr, "cannot open %s: %s\n", folder, strerror(errno));
        return -1;
    }
    while (count >= 0 && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        count = run_file(path) ? count + 1 : -1;
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;

    for (int i = 1; i < argc; i++) {
        const int count = run_folder(argv[i]);

        if (count < 0)
            return 1;
        total += count;
    }
    printf("%d inputs\n", total);
    return total == 0;
}
