/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the command line says, parsed and nothing else: no defaults that depend on the host. Its
 * strings point into argv; only options_free gives anything back.
 */
#ifndef MIGTOOL_CONFIG_H
#define MIGTOOL_CONFIG_H

#include "caps.h"
#include "params.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

enum command { CMD_SEND, CMD_RECV, CMD_CHECK, CMD_CAPS, CMD_PARAMS, CMD_PSK, CMD_JOIN, CMD__MAX };
enum peer_kind { PEER_UNSET, PEER_MIGTOOL, PEER_QEMU };
enum progress_mode { PROGRESS_AUTO, PROGRESS_TTY, PROGRESS_JSON, PROGRESS_NONE };

/* Values of a repeatable option, in order. */
#define CONFIG_LIST_MAX 16
struct config_list {
	const char *v[CONFIG_LIST_MAX];
	unsigned n;
};

struct config {
	enum command command;
	const char *image; /* IMAGE, FILE of psk, ID of join */
	const char *uri;
	char **argv; /* what stands behind the first `--`, NULL-terminated, or NULL */

	struct cap_set caps;
	struct params params;

	const char *block_name; /* NULL: not given */
	const char *machine;
	const char *uuid;   /* validated text form */
	uint32_t page_size; /* the target's; 0: not given */
	enum peer_kind peer;
	const char *peer_version; /* of --peer qemu:VERSION, or NULL */
	bool listen, connect, one_way;
	const char *device_state;
	const char *base;
	bool delta, resume, force, in_place, dry_run;
	unsigned retry;
	bool json;
	enum progress_mode progress;
	int verbosity;		    /* -v counts up, -q down */
	int64_t timeout;	    /* seconds, 0: never, -1: not given (60) */
	unsigned postcopy_after;    /* per cent of the memory, 0: at once */
	int ready_fd, continue_fd;  /* -1: none */
	const char *rsh;	    /* --rsh CMD: a remote shell, NULL: the library */
	const char *remote_command; /* what starts migtool on the far host; NULL: migtool */
	unsigned ssh_port;	    /* -p, 0: not given */
	struct config_list identities, ssh_options; /* -i, -o */
	bool far; /* --far: started by the other end through a remote shell */
	bool no_sandbox;
	pid_t guest;		   /* a process that runs already; 0: none */
	const char *uffd_socket;   /* where a VMM hands its userfaultfd over */
	bool push_off, push_given; /* --push: whether the rest of the memory follows by itself */
	bool notify;		   /* COMMAND says READY=1 on NOTIFY_SOCKET */
	bool kill_on_loss;	   /* --on-loss: end a guest that cannot be served on */
	const char *record, *prefetch; /* the order of first needs */
	const char *replay_dirty; /* --x-replay-dirty FILE: the recorded dirty rounds of a test */
};

/* recv: does a guest run here before its memory has arrived? */
static inline bool config_has_guest(const struct config *cfg)
{
	bool image = cfg->uri && !strncmp(cfg->uri, "image:", 6);

	return cfg->command == CMD_RECV &&
	       (cfg->uffd_socket || cfg->guest ||
		(cfg->argv && (image || cfg->caps.on[CAP_POSTCOPY_RAM])));
}

#endif
