#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory comes from another host (a send beside it), and that is broken at random points.

recovery_net.py [--kills N] [--cuts N] [--seed N] [--only KIND] [--migtool PATH] [--dir DIR]

KILLS rounds end recv up to five times, as recovery.py does, or send by SIGKILL; another recv takes the guest
up (--resume), another send goes on (--resume), unless the one that is left comes back by itself (--retry).
CUTS rounds cut the link up to three times, with --retry on both ends, which have to end with status 0.
The guest looks at every page while it touches it and again at the end: number, generation, checksum. Nothing
may be wrong, no page zero that should not be, and nothing may be left. Prints the seed, a line a failure, and
how often what was done; the status is 1 if there was any failure.
"""
import os
import signal
import subprocess
import sys
import threading
import time

import recovery
from recovery import Failure, KINDS, MIB, Round

CUT_PROXY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools", "cut_proxy.py")


class Sender:
    """The source: whenever it has ended before its time another one goes on."""

    def __init__(self, round_, uri, *options):
        self.round, self.uri, self.options = round_, uri, options
        self.errors = os.path.join(round_.dir, "send-errors")
        self.over = self.done = False
        self.process = self.start()
        self.thread = threading.Thread(target=self.tend, daemon=True)
        self.thread.start()

    def start(self, *options):
        with open(self.errors, "a", encoding="utf-8") as errors:
            return subprocess.Popen([self.round.soak.migtool, "send", "--cap", "postcopy-ram", *self.options,
                                     *options, self.round.soak.image, self.uri], stderr=errors,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def tend(self):
        while not self.over:
            if self.process.poll() == 0:
                self.done = True
                return
            if self.process.poll() is not None:
                time.sleep(0.03)
                self.process = self.start("--resume")
            time.sleep(0.005)

    def kill(self):
        self.process.kill()

    def end(self):
        """Nobody needs it any more. True: it knows that."""
        for _ in range(300):
            if self.done:
                return True
            time.sleep(0.01)
        self.close()
        return False

    def close(self):
        self.over = True
        self.thread.join()
        self.process.kill()
        self.process.wait()

    def said(self):
        with open(self.errors, encoding="utf-8") as errors:
            return errors.read()


class NetRound(Round):
    sender = proxy = None

    def guest_command(self):
        return [self.soak.vmm, "run", *KINDS[self.kind][0], "--seed", str(self.random.randrange(1000)),
                "--slow", self.random.choice(["0", "0", "20"])]

    def start_guest(self, listen, *options):
        """recv and the guest; the source comes when recv says where it listens."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        run = self.guest_command()
        if self.kind.startswith("vmm"):
            self.again = ["--uffd-socket", self.socket, listen]
            self.recv = self.migtool(*options, *self.again)
            self.await_words("listening on", self.recv)
            self.guest = subprocess.Popen([*run, self.socket, str(MIB)], **pipes)
            self.pid = self.guest.pid
        elif self.kind == "running":
            with open(self.copy, "wb") as f:
                f.truncate(MIB << 20)
            self.guest = subprocess.Popen([*run, self.copy, str(MIB)], **pipes)
            self.guest_line()
            self.again = ["--guest", str(self.pid), listen, self.copy]
            self.recv = self.migtool(*options, *self.again)
            self.await_words("listening on", self.recv)
        else:
            self.recv = self.migtool(*options, "--cap", "postcopy-ram", listen, self.copy, "--", *run, self.copy,
                                     str(MIB), **pipes)
            self.guest = self.recv
            self.await_words("listening on", self.recv)

    def start_source(self, uri, *options):
        """The guest is the destination's when it returns."""
        self.sender = Sender(self, uri, "--param", "max-postcopy-bandwidth=" +
                             self.random.choice(["10M", "40M", "0"]), *options)
        if self.guest is self.recv:
            self.guest_line()
            self.again = ["--guest", str(self.pid), f"unix:{self.dir}/link", self.copy]
        # a link may break between COMMIT and DONE
        self.await_words("the guest is here, and goes on|is there again, and the rest", self.recv)
        if self.kind == "running":
            self.guest.stdin.write("\n")
            self.guest.stdin.flush()

    def said(self):
        return super().said() + ("\n-- send:\n" + self.sender.said() if self.sender else "")

    def clean(self):
        if self.sender:
            self.sender.close()
        super().clean()
        if self.proxy:
            self.proxy.stdin.close()
            self.proxy.wait()


class KillRound(NetRound):
    def start(self):
        self.patience = self.random.choice([[], ["--retry", "3"]])
        self.blind = False
        uri = f"unix:{self.dir}/link"
        self.start_guest(uri, *self.patience)
        self.start_source(uri, *self.random.choice([[], ["--retry", "30"]]))

    def strike(self):
        if self.random.randrange(4):
            how = super().strike()
            self.blind = self.blind or how == "both"
            return how
        time.sleep(self.random.random() ** 2 * 0.12)
        if self.recv.poll() is not None:
            return None
        seen = self.taken_up_again()
        self.sender.kill()
        # this recv may not have met that one yet; then it sees no more than the next
        while self.recv.poll() is None and self.taken_up_again() == seen:
            time.sleep(0.002)
        if self.recv.poll() not in (None, 0, 50):
            raise Failure(f"recv ends with {self.recv.poll()}, its source killed")
        return "source" if self.recv.poll() is None else "source, and so recv"

    def take_up(self, last):
        if self.recv.poll() is None:
            return
        seen = self.taken_up_again()
        force = ["--force"] if self.blind else []
        self.recv = self.migtool("--resume", *force, *self.patience, *self.again)
        if last or self.random.random() < 0.7:
            self.await_new(seen)

    def taken_up_again(self):
        return self.said().count("is there again, and the rest")

    def run(self):
        strikes = self.random.randrange(1, 6)
        self.start()
        for i in range(strikes):
            how = self.strike()
            if not how:
                break
            self.soak.counts[f"{self.kind}, {how}"] += 1
            if not self.lives() or not self.needs():
                break
            self.soak.taken_up += 1
            self.take_up(i + 1 == strikes)
        self.undisturbed()
        if self.recv.poll() is None:
            status = self.end(self.recv, "the last recv")
            if status:
                raise Failure(f"the last recv ends with {status}")
        self.soak.counts["the source knows" if self.sender.end() else "the source does not know"] += 1


class CutRound(NetRound):
    def points(self):
        points = []
        for _ in range(self.random.randrange(1, 4)):
            where = str(int((MIB << 20) * 0.7 * self.random.random() ** 1.5) + 1)
            if self.random.randrange(6) == 0:
                # COMMIT, DONE, the end of the stream, READY
                where = self.random.choice(["=08400300000000", "=08400300000000+3", "=400300000000",
                                            "=400100000028"])
            points.append(f"{where}:{self.random.choice(['reset', 'close'])}")
        return points

    def run(self):
        points = self.points()
        self.start_guest("tcp:127.0.0.1:0", "--retry", "40")
        port = self.said().partition("listening on tcp:127.0.0.1:")[2].split()[0]
        self.proxy = subprocess.Popen([CUT_PROXY, port, *points], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        self.start_source(f"tcp:127.0.0.1:{int(self.proxy.stdout.readline())}", "--retry", "40")
        self.undisturbed()
        for process, name in ((self.recv, "recv"), (self.sender.process, "send")):
            status = self.end(process, name)
            if status:
                raise Failure(f"{name} ends with {status}, {' '.join(points)}")
        self.proxy.stdin.close()
        cuts = len(self.proxy.stdout.read().split())
        self.soak.counts[f"{self.kind}, {cuts} cuts"] += 1
        self.soak.taken_up += self.said().count("is there again, and the rest")


def main():
    p = recovery.arguments(__doc__)
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--cuts", type=int, default=100)
    args = p.parse_args()
    recovery.run_rounds(args, [KillRound] * args.kills + [CutRound] * args.cuts)


if __name__ == "__main__":
    main()
