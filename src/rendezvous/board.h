/* What the ranks of one host decide together, in memory that all of them map: for each subject the
 * first proposal wins, for everybody. So that two ranks that see two causes at once name the same
 * one. Lock free; a rank that dies at any moment leaves nothing half done. */
#ifndef ZC_BOARD_H
#define ZC_BOARD_H

#include <stdint.h>

#include "rendezvous/rendezvous.h"

struct zc_board;

/* Makes a board, with the descriptor under which others map it, or maps one. `fd` stays the
 * caller's. Errors: ERR_SYSTEM, ERR_NO_MEMORY, ERR_PEER (what came is no board). */
zcta_status zc_board_create(struct zc_diag *diag, struct zc_board **board, int *fd);
zcta_status zc_board_map(struct zc_diag *diag, int fd, struct zc_board **board);
void zc_board_close(struct zc_board *board); /* NULL is fine */

/* The proposal that won for `subject`; neither is 0. With a NULL board, or when more subjects have
 * been decided than it has room for (16384), one's own. From any thread. */
uint64_t zc_board_decide(struct zc_board *board, uint64_t subject, uint64_t proposal);

#endif
