// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote.h"

int ssh_start(const struct remote_how *how, const char *command, struct remote_conn *c,
	      struct cancel *cancel, struct error *err)
{
	(void)command;
	(void)c;
	(void)cancel;
	err_set(err, ST_UNSUPPORTED, "%s: without --rsh it is not built yet", how->uri->text);
	return err_hint(err, "--rsh ssh");
}
