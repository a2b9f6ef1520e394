#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""on-terminal.py [PROMPT=ANSWER]... -- COMMAND [ARG]...

Runs a command on a terminal of its own, as its controlling one. Each time its output ends in a
PROMPT (a part of it is enough), that answer is typed, in the order given; ^C stands for that key.
All that was on the terminal is printed at the end, behind "echo:" if the terminal would have shown
what was typed last. The status is the command's; 99 if answers are left over, 98 after 60 s."""

import os
import pty
import select
import sys
import termios
import time

split = sys.argv.index("--")
answers = [a.split("=", 1) for a in sys.argv[1:split]]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[split + 1], sys.argv[split + 1:])

seen, new, shown = b"", b"", []
end = time.monotonic() + 60
while time.monotonic() < end:
    if not select.select([fd], [], [], 1)[0]:
        continue
    try:
        piece = os.read(fd, 4096)
    except OSError:  # the last process has closed it
        break
    if not piece:
        break
    seen += piece
    new += piece
    if answers and answers[0][0].encode() in new and new.rstrip(b"\r\n").endswith(b": "):
        _, answer = answers.pop(0)
        shown.append(bool(termios.tcgetattr(fd)[3] & termios.ECHO))
        os.write(fd, b"\x03" if answer == "^C" else answer.encode() + b"\n")
        new = b""
else:
    os.kill(pid, 9)
    sys.stdout.write(seen.decode(errors="replace"))
    sys.exit(98)

status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stdout.write(("echo:" if any(shown) else "") + seen.decode(errors="replace"))
sys.exit(99 if answers else status)
