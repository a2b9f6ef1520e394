#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""record_proxy.py [--cut N | --flip N] PORT FILE: a proxy to 127.0.0.1:PORT for any number of
connections. Prints its own port. All that passes, either way, is appended to FILE. When N bytes have
passed towards PORT every connection is closed (--cut), or a bit of the next one is changed (--flip)."""
import argparse
import os
import socket
import threading


class Proxy:
    def __init__(self, args):
        self.args = args
        self.lock = threading.Lock()
        self.record = open(args.file, "ab")
        self.passed = 0
        self.flipped = False

    def judge(self, data):
        """What becomes of data that goes to the destination."""
        with self.lock:
            self.passed += len(data)
            if self.args.cut and self.passed > self.args.cut:
                os._exit(0)  # the kernel closes everything at once
            if self.args.flip and self.passed > self.args.flip and not self.flipped:
                self.flipped = True
                return data[:-1] + bytes([data[-1] ^ 1])
        return data

    def pump(self, a, b, forward):
        try:
            while data := a.recv(65536):
                with self.lock:
                    self.record.write(data)
                    self.record.flush()
                b.sendall(self.judge(data) if forward else data)
        except OSError:
            pass
        for s, how in ((b, socket.SHUT_WR), (a, socket.SHUT_RD)):
            try:
                s.shutdown(how)
            except OSError:
                pass

    def serve(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.args.port))
                for x in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self.pump, args=x, daemon=True).start()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cut", type=int, default=0)
    p.add_argument("--flip", type=int, default=0)
    p.add_argument("port", type=int)
    p.add_argument("file")
    Proxy(p.parse_args()).serve()


if __name__ == "__main__":
    main()
