/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --retry: one more try in the same process, after a link died. */
#ifndef MIGTOOL_SESSION_RETRY_H
#define MIGTOOL_SESSION_RETRY_H

#include "session.h"

/* Can there be a second try at all: two ways, and a connection that can be made again? ST_USAGE. */
int session_check_retry(const struct session *ss, struct error *err);

/*
 * After a try that failed with *err, its roles being gone: says so, waits, and makes the session as
 * it was before. False: there is no further try; *err is the error that stays.
 */
bool session_prepare_again(struct session *ss, struct error *err);

#endif
