/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIGTOOL_BACKGROUND_H
#define MIGTOOL_BACKGROUND_H

/*
 * The calling thread only fills the background from here on, for as long as it lives: whoever else
 * has something to do gets its core. Threads that it starts later are no better. Best effort.
 */
void background_thread(void);

#endif
