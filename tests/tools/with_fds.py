#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands with descriptors that a shell cannot give them.

with_fds.py pair COMMAND... --- COMMAND...     both ends of a socketpair
with_fds.py pipe COMMAND... --- COMMAND...     the first writes, the second reads
with_fds.py listen ADDRESS COMMAND...          a socket that listens on a path, or on HOST:PORT
with_fds.py vsock                              nothing: can this host reach itself by vsock?

The descriptor is 3 in each. With `pair` and `pipe` the exit statuses are printed as "FIRST SECOND"
behind what the commands say themselves. With `listen` the command takes this process's place, as
under a service manager: LISTEN_FDS is 1, LISTEN_PID is right.
"""

import os
import socket
import subprocess
import sys


def start(command, fd):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL,
                            pass_fds=(3,), preexec_fn=lambda: os.dup2(fd, 3))


def both(first, second, first_fd, second_fd):
    # Above 3, so that the dup2 above never meets its own target.
    os.set_inheritable(3, True)
    a, b = start(first, first_fd), start(second, second_fd)
    os.close(first_fd)
    os.close(second_fd)
    print(a.wait(), b.wait())


def listen(address, command):
    if "/" not in address and ":" in address:
        host, port = address.rsplit(":", 1)
        sock = socket.create_server((host, int(port)))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
        sock.listen()
    os.dup2(sock.fileno(), 3)
    os.set_inheritable(3, True)  # if that was its number already
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execvp(command[0], command)


def vsock_loops():
    try:
        server, client = (socket.socket(socket.AF_VSOCK) for _ in range(2))
        server.bind((1, socket.VMADDR_PORT_ANY))
        server.listen()
        client.connect(server.getsockname())
        return True
    except (AttributeError, OSError):
        return False


def main():
    if sys.argv[1:] == ["vsock"]:
        sys.exit(not vsock_loops())
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    how, rest = sys.argv[1], sys.argv[2:]
    if how == "listen":
        listen(rest[0], rest[1:])
    cut = rest.index("---")
    # Descriptor 3 has to be taken, or else one of ours would be given that number.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
    if how == "pair":
        a, b = socket.socketpair()
        both(rest[:cut], rest[cut + 1:], a.detach(), b.detach())
    else:
        r, w = os.pipe()
        both(rest[:cut], rest[cut + 1:], w, r)


if __name__ == "__main__":
    main()
