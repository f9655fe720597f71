/* Letters in order of arrival; see mailbox.h. */
#include "rendezvous/mailbox.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct zc_letter *zc_letter_create(uint64_t tag, const void *data, uint32_t bytes)
{
    struct zc_letter *letter = malloc(sizeof *letter + bytes);

    if (letter == NULL)
        return NULL;
    *letter = (struct zc_letter){.tag = tag, .bytes = bytes, .fd = -1};
    memcpy(letter->data, data, bytes);
    return letter;
}

void zc_letter_destroy(struct zc_letter *letter)
{
    if (letter == NULL)
        return;
    if (letter->fd >= 0)
        close(letter->fd);
    free(letter);
}

bool zc_mailbox_put(struct zc_mailbox *mailbox, struct zc_letter *letter)
{
    if (mailbox->count >= ZC_MAILBOX_LETTERS || mailbox->bytes + letter->bytes > ZC_MAILBOX_BYTES)
        return false;
    if (mailbox->first == NULL)
        mailbox->first = letter;
    else
        mailbox->last->next = letter;
    mailbox->last = letter;
    mailbox->count++;
    mailbox->bytes += letter->bytes;
    return true;
}

struct zc_letter *zc_mailbox_take(struct zc_mailbox *mailbox, uint64_t tag)
{
    struct zc_letter *before = NULL, *letter = mailbox->first;

    while (letter != NULL && letter->tag != tag) {
        before = letter;
        letter = letter->next;
    }
    if (letter == NULL)
        return NULL;
    if (before == NULL)
        mailbox->first = letter->next;
    else
        before->next = letter->next;
    if (mailbox->last == letter)
        mailbox->last = before;
    mailbox->count--;
    mailbox->bytes -= letter->bytes;
    letter->next = NULL;
    return letter;
}

void zc_mailbox_clear(struct zc_mailbox *mailbox)
{
    while (mailbox->first != NULL) {
        struct zc_letter *letter = mailbox->first;

        mailbox->first = letter->next;
        zc_letter_destroy(letter);
    }
    *mailbox = (struct zc_mailbox){0};
}
