/* What one peer has sent and nobody has asked for yet: messages in order of arrival, found by tag,
 * bounded. Not locked: the owner locks. */
#ifndef ZC_MAILBOX_H
#define ZC_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rendezvous/wire.h"

#define ZC_MAILBOX_LETTERS 4096u
#define ZC_MAILBOX_BYTES   (64u << 20)

struct zc_message {
    struct zc_message *next;
    uint64_t tag;
    uint32_t number, topic;
    bool stands; /* in place of older ones of its tag, until it is dropped */
    uint32_t bytes;
    int fd;       /* -1: none */
    bool fd_lost; /* one was sent, but this process had no descriptor free for it */
    uint8_t data[];
};

struct zc_mailbox {
    struct zc_message *first, *last;
    uint32_t count;
    size_t bytes;
};

/* NULL: out of memory. */
struct zc_message *zc_message_create(const struct zc_frame *frame, const void *data);
/* Closes the descriptor that nobody took. NULL is fine. */
void zc_message_destroy(struct zc_message *message);

/* False: the mailbox is full, the message is still the caller's. */
bool zc_mailbox_put(struct zc_mailbox *mailbox, struct zc_message *message);
/* The oldest message with this tag, now the caller's, or NULL. */
struct zc_message *zc_mailbox_take(struct zc_mailbox *mailbox, uint64_t tag);
/* The same, still the mailbox's. */
const struct zc_message *zc_mailbox_find(const struct zc_mailbox *mailbox, uint64_t tag);
/* Destroys the messages with this tag whose number is at most `last`. */
void zc_mailbox_drop(struct zc_mailbox *mailbox, uint64_t tag, uint32_t last);
void zc_mailbox_clear(struct zc_mailbox *mailbox);

#endif
