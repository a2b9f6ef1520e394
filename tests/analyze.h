/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included by tests/analyze before every file: an analyzer looks at one file at a time and cannot
 * know that these always return -1, so it would follow each error path as if it were a success.
 */
#include "cancel.h"
#include "error.h"

#define err_set(...)	   ((err_set)(__VA_ARGS__), -1)
#define err_sys(...)	   ((err_sys)(__VA_ARGS__), -1)
#define err_prefix(...)	   ((err_prefix)(__VA_ARGS__), -1)
#define err_hint(...)	   ((err_hint)(__VA_ARGS__), -1)
#define cancel_reason(...) ((cancel_reason)(__VA_ARGS__), -1)
