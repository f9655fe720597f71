/* Letters in order of arrival; see mailbox.h. */
#include "rendezvous/mailbox.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct zc_message *zc_message_create(const struct zc_frame *frame, const void *data)
{
    struct zc_message *message = malloc(sizeof *message + frame->bytes);

    if (message == NULL)
        return NULL;
    *message = (struct zc_message){.tag = frame->tag,
                                   .number = frame->number,
                                   .topic = frame->topic,
                                   .stands = frame->stands,
                                   .bytes = frame->bytes,
                                   .fd = -1};
    memcpy(message->data, data, frame->bytes);
    return message;
}

void zc_message_destroy(struct zc_message *message)
{
    if (message == NULL)
        return;
    if (message->fd >= 0)
        close(message->fd);
    free(message);
}

bool zc_mailbox_put(struct zc_mailbox *mailbox, struct zc_message *message)
{
    if (message->stands)
        zc_mailbox_drop(mailbox, message->tag, UINT32_MAX);
    if (mailbox->count >= ZC_MAILBOX_LETTERS || mailbox->bytes + message->bytes > ZC_MAILBOX_BYTES)
        return false;
    if (mailbox->last == NULL)
        mailbox->first = message;
    else
        mailbox->last->next = message;
    mailbox->last = message;
    mailbox->count++;
    mailbox->bytes += message->bytes;
    return true;
}

/* Takes out the message that stands behind `before`, which is NULL for the first. */
static struct zc_message *take_behind(struct zc_mailbox *mailbox, struct zc_message *before)
{
    struct zc_message *message = before == NULL ? mailbox->first : before->next;

    if (before == NULL)
        mailbox->first = message->next;
    else
        before->next = message->next;
    if (mailbox->last == message)
        mailbox->last = before;
    mailbox->count--;
    mailbox->bytes -= message->bytes;
    message->next = NULL;
    return message;
}

struct zc_message *zc_mailbox_take(struct zc_mailbox *mailbox, uint64_t tag)
{
    struct zc_message *before = NULL, *message = mailbox->first;

    while (message != NULL && message->tag != tag) {
        before = message;
        message = message->next;
    }
    return message != NULL ? take_behind(mailbox, before) : NULL;
}

const struct zc_message *zc_mailbox_find(const struct zc_mailbox *mailbox, uint64_t tag)
{
    const struct zc_message *message = mailbox->first;

    while (message != NULL && message->tag != tag)
        message = message->next;
    return message;
}

void zc_mailbox_drop(struct zc_mailbox *mailbox, uint64_t tag, uint32_t last)
{
    struct zc_message *before = NULL, *message = mailbox->first;

    while (message != NULL) {
        struct zc_message *const next = message->next;

        if (message->tag == tag && message->number <= last)
            zc_message_destroy(take_behind(mailbox, before));
        else
            before = message;
        message = next;
    }
}

void zc_mailbox_clear(struct zc_mailbox *mailbox)
{
    while (mailbox->first != NULL) {
        struct zc_message *message = mailbox->first;

        mailbox->first = message->next;
        zc_message_destroy(message);
    }
    *mailbox = (struct zc_mailbox){0};
}
