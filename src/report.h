/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said about a transfer: the final object of --json with query-migrate's names, the summary
 * for people, and the statistics that SIGUSR1 asks for. All three are made from one struct report.
 */
#ifndef MIGTOOL_REPORT_H
#define MIGTOOL_REPORT_H

#include "blocktime.h"
#include "caps.h"
#include "check.h"
#include "digest.h"
#include "events.h"
#include "latency.h"
#include "params.h"
#include "stats.h"

/* Who may run the guest, or for a static image: whose copy counts. */
enum owner { OWNER_SOURCE, OWNER_DESTINATION, OWNER_UNKNOWN };

const char *owner_name(enum owner owner);

/* Nothing is owned; pointers may be NULL where it says so. */
struct report {
	enum role role;
	enum migration_status status;
	const struct stats_snapshot *stats;
	const struct cap_set *caps;
	const struct params *params;
	const struct error *err; /* NULL or ST_OK: none */
	bool blocked;		 /* err says what blocks a migration: it never began */
	enum owner owner;
	bool complete;		      /* all memory is at the destination, durable */
	const struct digest *digest;  /* NULL: none was made */
	bool digest_verified;	      /* both ends agree */
	bool digest_recovered;	      /* of what came since the source was there again */
	bool one_way;		      /* the other end does not hear whether they do */
	const char *digest_why;	      /* why not verified: "a one-way transport"; NULL: no reason */
	const char *socket_address;   /* the URI that is listened on, or NULL */
	const struct latency *faults; /* of a guest that was served from `image`, or NULL */
	uint64_t blocked_ms;	      /* for how long it waited for pages */
	uint64_t around;	      /* pages that came beside those that it needed */
	uint64_t waiting;	      /* faults without an answer */
	const struct blocktime *threads; /* likewise its threads; with `faults` */
	bool since_recovery; /* another process has served it before: the numbers are ours alone */
	const char *image;   /* IMAGE as the user named it */
	const char *peer;    /* the other end's name, or NULL */
	uint32_t page_size;  /* the target's */
};

/* The object as one line to `fd`. ST_FILE, ST_NOMEM. */
int report_json(const struct report *r, int fd, struct error *err);

/*
 * Two or three lines at the end, at LOG_INFO: what moved and how fast, what that was on the wire,
 * the digest, and where the memory is now. The error itself is main's to print.
 */
void report_summary(const struct report *r);

/* The same numbers while it runs; printed whatever -q says, for somebody asked. */
void report_statistics(const struct report *r);

#endif
