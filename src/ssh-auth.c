// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A server counts what it refuses and hangs up (sshd after six), so the likeliest comes first and a
 * key is not signed with, nor its passphrase asked for, before the server said that it would take
 * it. What was tried goes into one list for the message.
 *
 * What worked is remembered, and is all that a further connection tries at first: nobody is asked
 * then, and many can log in at the same time. Only where that fails do they go the whole way, one
 * at a time.
 */
#include "ssh-auth.h"

#include "byteorder.h"
#include "log.h"
#include "ssh-agent.h"
#include "terminal.h"
#include "transport-io.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_TIMES 3

enum outcome { LOGGED_IN, NOT_TAKEN, BROKEN };

struct auth {
	struct ssh_login *g;
	struct ssh_link *l;
	struct error *err;
	struct agent agent;
	bool have_agent;
	const struct agent_key *signer; /* whose turn it is */
	bool would_take;		/* the server would take the key that was shown */
	bool rsa_refused;
	bool asked; /* the terminal, this time */
	bool no_terminal;
	bool quick;	      /* nobody is to be asked */
	struct login_way way; /* as it was before this login, then what it did */
	char typed[LOGIN_SECRET_MAX];
	unsigned rounds; /* of keyboard-interactive */
	char methods[256];
	char tried[640];
};

static void tried(struct auth *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tried(struct auth *a, const char *fmt, ...)
{
	size_t n = strlen(a->tried);
	va_list ap;

	if (n)
		n += (size_t)snprintf(a->tried + n, sizeof(a->tried) - n, "; ");
	if (n >= sizeof(a->tried) - 1)
		return;
	va_start(ap, fmt);
	vsnprintf(a->tried + n, sizeof(a->tried) - n, fmt, ap);
	va_end(ap);
}

/* What a call of libssh2's says, once it is through. */
static enum outcome outcome(struct auth *a, int rc)
{
	if (!rc)
		return LOGGED_IN;
	if (rc == LIBSSH2_ERROR_EAGAIN)
		return BROKEN;
	if (a->l->said[0] || a->l->errnum || a->l->in_eof || rc == LIBSSH2_ERROR_ALLOC ||
	    rc == LIBSSH2_ERROR_SOCKET_SEND || rc == LIBSSH2_ERROR_SOCKET_RECV ||
	    rc == LIBSSH2_ERROR_SOCKET_DISCONNECT) {
		ssh_link_failed(a->l, rc, "logging in", ST_SOCKET, a->err);
		return BROKEN;
	}
	return NOT_TAKEN;
}

/* ---- keys ---- */

/*
 * The algorithm that libssh2 chose stands in what is to be signed: session id, message, user,
 * service, "publickey", TRUE, algorithm. An RSA key's agent has to be told.
 */
static uint32_t sign_flags(const uint8_t *p, size_t len)
{
	static const unsigned skip[] = { 0, 1, 0, 0, 1 }; /* bytes between the strings */

	for (unsigned i = 0; i < 5; i++) {
		uint32_t n;

		if (len < skip[i] + 4u)
			return 0;
		p += skip[i];
		len -= skip[i];
		n = get_be32(p);
		if (n > len - 4)
			return 0;
		if (i == 4)
			return n == 12 && !memcmp(p + 4, "rsa-sha2-512", 12)   ? 4
			       : n == 12 && !memcmp(p + 4, "rsa-sha2-256", 12) ? 2
									       : 0;
		p += 4 + n;
		len -= 4 + n;
	}
	return 0;
}

static int sign_by_agent(LIBSSH2_SESSION *s, unsigned char **sig, size_t *siglen,
			 const unsigned char *data, size_t len, void **abstract)
{
	struct auth *a = *abstract;

	(void)s;
	a->would_take = true;
	return agent_sign(&a->agent, a->signer, data, len, sign_flags(data, len), sig, siglen,
			  a->err);
}

/* Only to see whether the server would take it. */
static int sign_not(LIBSSH2_SESSION *s, unsigned char **sig, size_t *siglen,
		    const unsigned char *data, size_t len, void **abstract)
{
	(void)s;
	(void)sig;
	(void)siglen;
	(void)data;
	(void)len;
	((struct auth *)*abstract)->would_take = true;
	return -1;
}

/* What libssh2 can sign with; the rest costs an attempt and says nothing. */
static bool type_usable(const char *type)
{
	return !strncmp(type, "ssh-", 4)
		       ? !strstr(type, "-cert-")
		       : !strncmp(type, "ecdsa-sha2-", 11) && !strstr(type, "-cert-");
}

static const char *why_not(struct auth *a, const char *type)
{
	if (strcmp(type, "ssh-rsa"))
		return "not accepted";
	a->rsa_refused = !ssh_link_knows(a->l, LIBSSH2_METHOD_HOSTKEY, "rsa-sha2-256");
	return a->rsa_refused ? "not accepted, as RSA with SHA-1" : "not accepted";
}

static enum outcome try_agent_key(struct auth *a, const struct agent_key *key)
{
	void *abstract = a;
	enum outcome o;
	int rc;

	a->signer = key;
	a->would_take = false;
	err_clear(a->err);
	SSH_LINK_RUN(a->l, rc,
		     libssh2_userauth_publickey(a->l->s, a->g->user, key->blob, key->len,
						sign_by_agent, &abstract),
		     a->err);
	o = outcome(a, rc);
	if (o == NOT_TAKEN && cancel_fired(a->agent.cancel))
		return BROKEN;
	if (o == LOGGED_IN && key->len <= sizeof(a->way.blob)) {
		a->way.kind = WAY_AGENT;
		a->way.len = key->len;
		memcpy(a->way.blob, key->blob, key->len);
	}
	if (o == NOT_TAKEN && a->would_take && a->err->msg[0])
		tried(a, "the agent's key %s (%s): %s", key->comment, key->type, a->err->msg);
	else if (o == NOT_TAKEN)
		tried(a, "the agent's key %s (%s): %s", key->comment, key->type,
		      why_not(a, key->type));
	return o;
}

static bool same_key(const struct agent_key *a, const struct login_key *k)
{
	return k->seen.len == a->len && !memcmp(k->seen.blob, a->blob, a->len);
}

static bool in_agent(const struct auth *a, const struct login_key *k)
{
	for (unsigned i = 0; a->have_agent && i < a->agent.n; i++)
		if (same_key(&a->agent.keys[i], k))
			return true;
	return false;
}

static bool chosen(const struct auth *a, const struct agent_key *key)
{
	for (unsigned i = 0; i < a->g->nkeys; i++)
		if (same_key(key, &a->g->keys[i]))
			return true;
	return !a->g->chosen;
}

/* RSA goes last where it can only be refused: the attempts are counted. */
static enum outcome try_agent(struct auth *a)
{
	bool rsa_last = !ssh_link_knows(a->l, LIBSSH2_METHOD_HOSTKEY, "rsa-sha2-256");

	for (int rsa = 0; rsa < 2; rsa++)
		for (unsigned i = 0; a->have_agent && i < a->agent.n; i++) {
			const struct agent_key *key = &a->agent.keys[i];
			enum outcome o;

			if (!chosen(a, key) ||
			    (rsa_last && !strcmp(key->type, "ssh-rsa")) != (rsa == 1))
				continue;
			if (!type_usable(key->type)) {
				if (!rsa)
					tried(a,
					      "the agent's key %s (%s): libssh2 %s cannot use it",
					      key->comment, key->type, libssh2_version(0));
				continue;
			}
			o = try_agent_key(a, key);
			if (o != NOT_TAKEN)
				return o;
		}
	return NOT_TAKEN;
}

/* ---- asking ---- */

/* The time that a person takes is not the server's. */
static int ask(struct auth *a, const char *prompt, bool echo, char *buf)
{
	int64_t before = io_now_ms();
	int rc = terminal_ask(prompt, echo, buf, LOGIN_SECRET_MAX, a->l->tcp->cancel, a->err);

	if (a->l->deadline >= 0)
		a->l->deadline += io_now_ms() - before;
	if (rc)
		a->no_terminal = a->err->status == ST_UNSUPPORTED;
	return rc;
}

/* ---- key files ---- */

static void remember(struct auth *a, int kind, const char *secret)
{
	a->way.kind = kind;
	snprintf(a->way.secret, sizeof(a->way.secret), "%s", secret ? secret : "");
}

static enum outcome login_with_file(struct auth *a, const struct login_key *k,
				    const char *passphrase, bool *unreadable)
{
	enum outcome o;
	int rc;

	SSH_LINK_RUN(a->l, rc,
		     libssh2_userauth_publickey_frommemory(a->l->s, a->g->user, strlen(a->g->user),
							   NULL, 0, k->text, k->len, passphrase),
		     a->err);
	/* before a byte was sent: it cannot be read, or the passphrase is wrong */
	*unreadable = rc && rc != LIBSSH2_ERROR_EAGAIN &&
		      rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED &&
		      rc != LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED;
	o = outcome(a, rc);
	if (o == LOGGED_IN) {
		remember(a, WAY_FILE, passphrase);
		a->way.key = (unsigned)(k - a->g->keys);
	}
	return o;
}

/* Whether the server would take it, asked before a person is; unknown counts as yes. */
static enum outcome probe(struct auth *a, const struct login_key *k)
{
	void *abstract = a;
	enum outcome o;
	int rc;

	a->would_take = !k->seen.len;
	if (!k->seen.len)
		return NOT_TAKEN;
	SSH_LINK_RUN(a->l, rc,
		     libssh2_userauth_publickey(a->l->s, a->g->user, k->seen.blob, k->seen.len,
						sign_not, &abstract),
		     a->err);
	o = outcome(a, rc);
	return o;
}

static enum outcome ask_and_login(struct auth *a, struct login_key *k)
{
	enum outcome o = NOT_TAKEN;
	bool unreadable = true;
	char prompt[640];

	snprintf(prompt, sizeof(prompt), "passphrase of %s: ", k->path);
	for (int i = 0; i < ASK_TIMES && unreadable; i++) {
		if (ask(a, prompt, false, k->passphrase)) {
			if (!a->no_terminal)
				return BROKEN;
			tried(a, "%s (%s): its passphrase cannot be asked for: %s", k->path,
			      k->seen.type, a->err->msg);
			return NOT_TAKEN;
		}
		if (!k->passphrase[0])
			break;
		o = login_with_file(a, k, k->passphrase, &unreadable);
		k->asked = !unreadable;
		if (o != NOT_TAKEN)
			return o;
	}
	tried(a, "%s (%s): %s", k->path, k->seen.type,
	      unreadable ? "the passphrase is wrong" : why_not(a, k->seen.type));
	return o;
}

static enum outcome try_file(struct auth *a, struct login_key *k)
{
	const char *type = k->seen.type[0] ? k->seen.type : "of unknown type";
	bool unreadable;
	enum outcome o;

	if (k->seen.type[0] && strcmp(k->seen.type, "ecdsa") && !type_usable(k->seen.type)) {
		tried(a, "%s (%s): libssh2 %s cannot use it", k->path, type, libssh2_version(0));
		return NOT_TAKEN;
	}
	if (k->seen.encrypted && !k->asked) {
		o = probe(a, k);
		if (o != NOT_TAKEN)
			return o;
		if (a->would_take)
			return ask_and_login(a, k);
		tried(a, "%s (%s): %s", k->path, type, why_not(a, k->seen.type));
		return NOT_TAKEN;
	}
	o = login_with_file(a, k, k->seen.encrypted ? k->passphrase : NULL, &unreadable);
	if (o == NOT_TAKEN)
		tried(a, "%s (%s): %s", k->path, type,
		      unreadable ? "libssh2 cannot read it" : why_not(a, k->seen.type));
	return o;
}

static enum outcome try_files(struct auth *a)
{
	for (unsigned i = 0; i < a->g->nkeys; i++) {
		struct login_key *k = &a->g->keys[i];
		enum outcome o = in_agent(a, k) ? NOT_TAKEN : try_file(a, k);

		if (o != NOT_TAKEN)
			return o;
	}
	return NOT_TAKEN;
}

static enum outcome try_keys(struct auth *a)
{
	struct error none;
	enum outcome o;

	a->have_agent = !agent_open(&a->agent, a->l->tcp->cancel, &none);
	if (!a->have_agent && cancel_fired(a->l->tcp->cancel)) {
		*a->err = none;
		return BROKEN;
	}
	if (!a->have_agent)
		tried(a, "%s", none.msg);
	else if (!a->agent.n)
		tried(a, "the ssh-agent has no key");
	o = try_agent(a);
	if (o == NOT_TAKEN)
		o = try_files(a);
	if (o == NOT_TAKEN && !a->g->nkeys)
		tried(a, "no key file (~/.ssh/id_ed25519, id_ecdsa, id_rsa)");
	if (a->have_agent)
		agent_close(&a->agent);
	return o;
}

/* ---- passwords ---- */

/*
 * One prompt without echo is taken for the password's, so that further connections need not ask
 * again; more than that is asked each time.
 */
static void answer(const char *name, int nlen, const char *text, int tlen, int n,
		   const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompts,
		   LIBSSH2_USERAUTH_KBDINT_RESPONSE *responses, void **abstract)
{
	struct ssh_link *l = *abstract;
	struct auth *a = l->user;
	char prompt[512];

	(void)name;
	(void)nlen;
	a->rounds++;
	for (int i = 0; i < n; i++) {
		bool password = n == 1 && !prompts[i].echo && a->rounds == 1;

		if (password && a->way.kind == WAY_INTERACTIVE && a->way.secret[0]) {
			strcpy(a->typed, a->way.secret);
		} else if (a->quick) {
			return;
		} else {
			snprintf(prompt, sizeof(prompt), "%s: %.*s%s%.*s", l->name,
				 tlen > 200 ? 200 : tlen, tlen ? text : "", tlen ? " " : "",
				 prompts[i].length > 200 ? 200 : (int)prompts[i].length,
				 prompts[i].text);
			if (ask(a, prompt, prompts[i].echo, a->typed))
				return;
			a->asked = true;
		}
		responses[i].text = strdup(a->typed);
		responses[i].length = responses[i].text ? (unsigned)strlen(a->typed) : 0;
		if (!password)
			explicit_bzero(a->typed, sizeof(a->typed));
	}
}

static int interactive_once(struct auth *a)
{
	int rc;

	a->rounds = 0;
	a->l->user = a;
	SSH_LINK_RUN(a->l, rc,
		     libssh2_userauth_keyboard_interactive_ex(a->l->s, a->g->user,
							      (unsigned)strlen(a->g->user), answer),
		     a->err);
	return rc;
}

static int password_once(struct auth *a)
{
	char prompt[512];
	int rc;

	if (a->way.kind == WAY_PASSWORD) {
		strcpy(a->typed, a->way.secret);
	} else {
		snprintf(prompt, sizeof(prompt), "password of %s on %s: ", a->g->user, a->l->name);
		if (ask(a, prompt, false, a->typed))
			return a->no_terminal ? LIBSSH2_ERROR_AUTHENTICATION_FAILED
					      : LIBSSH2_ERROR_EAGAIN;
		a->asked = true;
	}
	SSH_LINK_RUN(a->l, rc,
		     libssh2_userauth_password_ex(a->l->s, a->g->user, (unsigned)strlen(a->g->user),
						  a->typed, (unsigned)strlen(a->typed), NULL),
		     a->err);
	return rc;
}

static enum outcome try_typing(struct auth *a, const char *what, int (*once)(struct auth *a))
{
	for (int i = 0; i < ASK_TIMES; i++) {
		enum outcome o;

		a->asked = false;
		o = outcome(a, once(a));
		if (o == LOGGED_IN)
			remember(a, once == password_once ? WAY_PASSWORD : WAY_INTERACTIVE,
				 a->typed);
		else
			a->way.kind = WAY_NONE; /* it is not right any more */
		explicit_bzero(a->typed, sizeof(a->typed));
		if (cancel_fired(a->l->tcp->cancel)) {
			cancel_reason(a->l->tcp->cancel, a->err);
			return BROKEN;
		}
		if (o != NOT_TAKEN)
			return o;
		if (a->no_terminal) {
			tried(a, "%s: %s", what, "no terminal to ask on");
			return o;
		}
		if (!a->asked)
			break;
	}
	tried(a, "%s: not accepted", what);
	return NOT_TAKEN;
}

/* ---- all of it ---- */

/* What the server takes now; after a key it may want more. LOGGED_IN: nothing at all. */
static enum outcome ask_methods(struct auth *a)
{
	const char *list;
	int rc;

	do {
		list = libssh2_userauth_list(a->l->s, a->g->user, (unsigned)strlen(a->g->user));
		rc = list ? 0 : libssh2_session_last_errno(a->l->s);
		if (!list && libssh2_userauth_authenticated(a->l->s))
			return LOGGED_IN;
	} while (rc == LIBSSH2_ERROR_EAGAIN && ssh_link_turn(a->l, a->err) == 0);
	if (rc) {
		ssh_link_failed(a->l, rc, "logging in", ST_REFUSED, a->err);
		return BROKEN;
	}
	snprintf(a->methods, sizeof(a->methods), "%s", list);
	return NOT_TAKEN;
}

static bool takes(const struct auth *a, const char *method)
{
	const char *at = strstr(a->methods, method);
	size_t n = strlen(method);

	return at && (at == a->methods || at[-1] == ',') && (!at[n] || at[n] == ',');
}

static enum outcome run(struct auth *a)
{
	enum outcome o = ask_methods(a);

	if (o == NOT_TAKEN && takes(a, "publickey")) {
		o = try_keys(a);
		if (o == NOT_TAKEN)
			o = ask_methods(a);
	}
	if (o == NOT_TAKEN && takes(a, "keyboard-interactive"))
		o = try_typing(a, "keyboard-interactive", interactive_once);
	if (o == NOT_TAKEN && takes(a, "password"))
		o = try_typing(a, "password", password_once);
	return o;
}

static int refused(struct auth *a)
{
	struct ssh_login *g = a->g;

	err_set(a->err, ST_REFUSED, "%s refused the login of %s, which it takes by %s. Tried: %s",
		a->l->name, g->user, a->methods, a->tried[0] ? a->tried : "nothing");
	if (a->rsa_refused)
		return err_hint(a->err,
				"libssh2 %s signs with RSA keys only by SHA-1, which today's sshd "
				"refuses: use an ed25519 key (ssh-keygen -t ed25519), or the "
				"OpenSSH client (--rsh ssh)",
				libssh2_version(0));
	return err_hint(a->err,
			"put a key that %s knows into an ssh-agent, or name it with "
			"-i FILE; or use the OpenSSH client: --rsh ssh",
			a->l->name);
}

static enum outcome try_way(struct auth *a)
{
	enum outcome o = NOT_TAKEN;
	struct error none;
	bool unreadable;

	switch (a->way.kind) {
	case WAY_NONE:
		break;
	case WAY_AGENT:
		a->have_agent = !agent_open(&a->agent, a->l->tcp->cancel, &none);
		for (unsigned i = 0; a->have_agent && i < a->agent.n; i++)
			if (a->agent.keys[i].len == a->way.len &&
			    !memcmp(a->agent.keys[i].blob, a->way.blob, a->way.len)) {
				o = try_agent_key(a, &a->agent.keys[i]);
				break;
			}
		if (a->have_agent)
			agent_close(&a->agent);
		break;
	case WAY_FILE:
		o = login_with_file(a, &a->g->keys[a->way.key],
				    a->way.secret[0] ? a->way.secret : NULL, &unreadable);
		break;
	case WAY_INTERACTIVE:
		if (a->way.secret[0])
			o = outcome(a, interactive_once(a));
		break;
	case WAY_PASSWORD:
		o = outcome(a, password_once(a));
		break;
	}
	explicit_bzero(a->typed, sizeof(a->typed));
	return o;
}

/* The way that worked last, beside other connections; else all ways, one connection at a time. */
static enum outcome log_in(struct auth *a)
{
	enum outcome o;

	pthread_mutex_lock(&a->g->lock);
	a->way = a->g->way;
	pthread_mutex_unlock(&a->g->lock);
	a->quick = true;
	o = try_way(a);
	a->quick = false;
	if (o != NOT_TAKEN)
		return o;
	a->tried[0] = '\0';
	a->way.kind = WAY_NONE;
	pthread_mutex_lock(&a->g->lock);
	o = run(a);
	if (o == LOGGED_IN)
		a->g->way = a->way;
	pthread_mutex_unlock(&a->g->lock);
	return o;
}

int ssh_auth(struct ssh_login *g, struct ssh_link *l, struct error *err)
{
	struct auth a = { .g = g, .l = l, .err = err };
	enum outcome o = log_in(&a);

	explicit_bzero(&a.way, sizeof(a.way));
	if (o == LOGGED_IN) {
		log_verbose("logged in to %s as %s", l->name, g->user);
		return 0;
	}
	if (o == NOT_TAKEN)
		return refused(&a);
	if (err->status == ST_SOCKET) {
		err->status = l->said[0] ? ST_REFUSED : ST_CONNECT;
		if (a.tried[0])
			err_hint(err, "tried: %s. -i FILE chooses one key", a.tried);
	}
	return -1;
}
