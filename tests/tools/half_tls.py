#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""half_tls.py PORT COUNT: COUNT connections to 127.0.0.1 that say nothing, and COUNT that stop after
a part of a TLS client's first message. Prints a line when all are there, keeps them until killed."""
import signal
import socket
import ssl
import sys


def client_hello():
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(into, out, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise SystemExit("no handshake without an answer")


def main():
    port, count = int(sys.argv[1]), int(sys.argv[2])
    hello = client_hello()
    kept = []
    for i in range(2 * count):
        s = socket.create_connection(("127.0.0.1", port))
        if i % 2:
            s.sendall(hello[: len(hello) - i])
        kept.append(s)
    print("there", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
