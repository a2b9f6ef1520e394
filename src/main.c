// SPDX-License-Identifier: GPL-2.0-or-later
#include "broker.h"
#include "commands.h"
#include "confine.h"
#include "log.h"
#include "options.h"
#include "signals.h"
#include "options-table.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

static int (*const commands[CMD__MAX])(const struct config *cfg, struct error *err) = {
	[CMD_SEND] = cmd_send, [CMD_RECV] = cmd_recv,	  [CMD_CHECK] = cmd_check,
	[CMD_CAPS] = cmd_caps, [CMD_PARAMS] = cmd_params, [CMD_JOIN] = cmd_join,
	[CMD_PSK] = cmd_psk,
};

static enum log_level level(int verbosity)
{
	int l = LOG_INFO + verbosity;

	return l < LOG_ERROR ? LOG_ERROR : l > LOG_DEBUG ? LOG_DEBUG : (enum log_level)l;
}

static int run(const struct config *cfg, struct error *err)
{
	const char *name = command_table[cfg->command].name;
	int r;

	log_init(level(cfg->verbosity), name);
	if (!commands[cfg->command])
		return err_set(err, ST_UNSUPPORTED, "command %s is not built yet", name);
	if (cfg->command == CMD_SEND || cfg->command == CMD_RECV)
		signals_hold();
	if (confine(cfg, err))
		return -1;
	r = commands[cfg->command](cfg, err);
	broker_stop();
	return r;
}

/*
 * What was printed but did not get out: a full disk behind > is no success. A reader that went away
 * has heard what it wanted (migtool caps | head): then there is a status and no message.
 */
static int flush_stdout(struct error *err)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	err_sys(err, ST_FILE, errno, "cannot write to stdout");
	if (errno == EPIPE)
		err->msg[0] = '\0';
	return -1;
}

int main(int argc, char **argv)
{
	struct error err = { 0 };
	struct config cfg;
	int r;

	signal(SIGPIPE, SIG_IGN);
	r = options_parse(&cfg, argc, argv, &err);
	if (r == 0)
		r = run(&cfg, &err);
	if (r >= 0)
		r = flush_stdout(&err);
	if (r < 0 && err.msg[0]) {
		log_error("%s", err.msg);
		if (err.hint[0])
			fprintf(stderr, "  hint: %s\n", err.hint);
	}
	options_free(&cfg);
	return r < 0 ? (int)err.status : 0;
}
