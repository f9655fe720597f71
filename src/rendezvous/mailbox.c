/* Letters in order of arrival; see mailbox.h. */
#include "rendezvous/mailbox.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct zc_letter *zc_letter_create(const struct zc_frame *frame, const void *data)
{
    struct zc_letter *letter = malloc(sizeof *letter + frame->bytes);

    if (letter == NULL)
        return NULL;
    *letter = (struct zc_letter){.tag = frame->tag,
                                 .number = frame->number,
                                 .topic = frame->topic,
                                 .stands = frame->stands,
                                 .bytes = frame->bytes,
                                 .fd = -1};
    memcpy(letter->data, data, frame->bytes);
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
    if (letter->stands)
        zc_mailbox_drop(mailbox, letter->tag, UINT32_MAX);
    if (mailbox->count >= ZC_MAILBOX_LETTERS || mailbox->bytes + letter->bytes > ZC_MAILBOX_BYTES)
        return false;
    if (mailbox->last == NULL)
        mailbox->first = letter;
    else
        mailbox->last->next = letter;
    mailbox->last = letter;
    mailbox->count++;
    mailbox->bytes += letter->bytes;
    return true;
}

/* Takes out the letter that stands behind `before`, which is NULL for the first. */
static struct zc_letter *take_behind(struct zc_mailbox *mailbox, struct zc_letter *before)
{
    struct zc_letter *letter = before == NULL ? mailbox->first : before->next;

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

struct zc_letter *zc_mailbox_take(struct zc_mailbox *mailbox, uint64_t tag)
{
    struct zc_letter *before = NULL, *letter = mailbox->first;

    while (letter != NULL && letter->tag != tag) {
        before = letter;
        letter = letter->next;
    }
    return letter != NULL ? take_behind(mailbox, before) : NULL;
}

const struct zc_letter *zc_mailbox_find(const struct zc_mailbox *mailbox, uint64_t tag)
{
    const struct zc_letter *letter = mailbox->first;

    while (letter != NULL && letter->tag != tag)
        letter = letter->next;
    return letter;
}

void zc_mailbox_drop(struct zc_mailbox *mailbox, uint64_t tag, uint32_t last)
{
    struct zc_letter *before = NULL, *letter = mailbox->first;

    while (letter != NULL) {
        struct zc_letter *const next = letter->next;

        if (letter->tag == tag && letter->number <= last)
            zc_letter_destroy(take_behind(mailbox, before));
        else
            before = letter;
        letter = next;
    }
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
