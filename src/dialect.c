// SPDX-License-Identifier: GPL-2.0-or-later
#include "dialect.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "…-7.2" or "7.2" to 702; -1: no version at the end. */
static int version_of(const char *name)
{
	const char *dash = strrchr(name, '-'), *text = dash ? dash + 1 : name;
	unsigned long major, minor;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -1;
	major = strtoul(text, &end, 10);
	if (end[0] != '.' || !isdigit((unsigned char)end[1]))
		return -1;
	minor = strtoul(end + 1, &end, 10);
	if (*end || major > 99 || minor > 99)
		return -1;
	return (int)(major * 100 + minor);
}

int dialect_for_qemu(struct dialect *d, const char *machine, const char *version, struct error *err)
{
	int v = machine[0] ? version_of(machine) : -1;

	memset(d, 0, sizeof(*d));
	if (v < 0 && version)
		v = version_of(version);
	if (v < 0) {
		err_set(err, ST_USAGE, "machine '%s' is no versioned class name", machine);
		return err_hint(err,
				"say --machine pc-i440fx-7.2 (what `pc` stands for in QEMU 7.2) "
				"or the name in the image's manifest, not an alias");
	}
	/* multifd-flush-after-each-section is forced on for machine types up to 8.0 */
	d->flush_word = v >= 801;
	d->preempt_late = v >= 800;
	return 0;
}
