/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the catcher and who started it say to each other: packets of fixed size, some with a
 * descriptor. An order may come from a worker that was taken over: there is none that does more
 * than let COMMAND, which the user named, go on.
 */
#ifndef MIGTOOL_CATCH_MSG_H
#define MIGTOOL_CATCH_MSG_H

#include "catch.h"

enum catch_op {
	CATCH_OP_BLOCK = 1, /* with the file */
	CATCH_OP_GO,
	CATCH_OP_ACK,
	CATCH_OP_COMPLETE,
	CATCH_OP_KEEP,	 /* with a userfaultfd; token: its serial number */
	CATCH_OP_LEDGER, /* with its file */
	CATCH_OP_LEAVE,	 /* he goes, and has said so to people */
	CATCH_OP_NOTIFY, /* before GO: COMMAND is to say when it is ready */
	CATCH_OP_LET,	 /* a thread may go on, and there is no guest yet */
	CATCH_OP_OURS,	 /* there is */
	CATCH_OP_FOUND,	 /* with a userfaultfd, and the number that he had for it: he is gone */
};

struct catch_order {
	uint32_t op;
	uint32_t token; /* GO: whether to end the guest when he goes */
	uint64_t size;	/* of a block */
};

struct catch_report {
	uint32_t kind, token;
	int32_t pid, wstatus;
	struct catch_region region;
	struct error why;
};

/* With CATCH_FAILED for somebody who comes: nobody may, as long as another one serves. */
#define CATCH_SERVED 1

/* What a catcher listens on, by its pid. */
#define CATCH_NAME "migtool-catcher-%ld"

/* The catcher's process; `sock` is its end. Never returns. */
_Noreturn void catch_serve(const struct catch_plan *plan, int sock);

#endif
