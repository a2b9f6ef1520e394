// SPDX-License-Identifier: GPL-2.0-or-later
#include "text.h"

#include <string.h>

void text_wrap(FILE *out, unsigned at, unsigned indent, const char *text)
{
	const char *gap = "";

	while (*(text += strspn(text, " "))) {
		unsigned n = (unsigned)strcspn(text, " ");

		if (at > indent && at + strlen(gap) + n > TEXT_WIDTH) {
			fprintf(out, "\n%*s", (int)indent, "");
			at = indent;
			gap = "";
		}
		fprintf(out, "%s%.*s", gap, (int)n, text);
		at += (unsigned)strlen(gap) + n;
		gap = " ";
		text += n;
	}
	fputc('\n', out);
}

void text_row(FILE *out, unsigned margin, unsigned indent, const char *left, const char *right)
{
	unsigned at = margin + (unsigned)strlen(left);

	fprintf(out, "%*s%s", (int)margin, "", left);
	if (at + 2 > indent)
		fprintf(out, "\n%*s", (int)indent, "");
	else
		fprintf(out, "%*s", (int)(indent - at), "");
	text_wrap(out, indent, indent, right);
}
