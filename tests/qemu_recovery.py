#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Breaks a postcopy into a real QEMU at random points, again and again, and recovers it.

qemu_recovery.py [--count N] [--seed N] [--only MODE] [--migtool PATH] [--dir DIR] [--guest DIR]

The guest is Linux; in it a program looks at every page of its memory over and over (tests/guest/pages.c):
number, generation, checksum. It was saved once, into --guest if that is given and has no guest yet, and in each
round a QEMU gets it by `send --cap postcopy-ram`. Up to four times in a round, at N random points in all, the
postcopy ends: the link between the two is reset, closed or silent, or the source is killed, or told to leave,
or the destination pauses. Each time the QEMU is told to listen again, and `send --resume` goes on. Then all of
the memory is there, and the guest looks at all of it: not one page may be wrong, no page zero that should
not be. A link that breaks before the guest was given up ends that QEMU; the guest must not have run there, and
the round begins anew. Prints the seed, a line a failure, how often what was done, and the pages that were
looked at; the status is 1 if there was any failure.

When a link breaks while the QEMU loads the devices, it exits, or hangs if one of these wants memory that has
not come; the guest has not run then. A QEMU before 8.2 dies, of a null pointer, if a recovery breaks before it
has begun (RESUME_ACK), whoever the source is; so a link that recovers breaks behind that.
"""
import argparse
import collections
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY, PAGES = 96, 32  # MiB: the guest's, and what is filled of it
PACKAGED, RESUME_ACK = "0800070004", "0006000400000001"
RECOVERY = 20000  # bytes, more than a recovery begins with
MODES = {
    "plain": [],
    "after": ["--postcopy-after=50"],
    "preempt": ["--cap", "postcopy-preempt"],
    "tls": ["--cap", "postcopy-preempt"],
}
LINK = ["reset", "reset", "close", "drop"]
OURS = ["kill", "kill", "term", "pause"]


class Failure(Exception):
    pass


def too_long(_signal, _frame):
    raise Failure("it takes too long: somebody waits for ever")


def links_in(path):
    for name in os.listdir(path):
        try:
            yield os.readlink(os.path.join(path, name))
        except FileNotFoundError:
            pass


class Monitor:
    """QMP, of a QEMU whose main thread may wait for memory: by events, and commands out of band."""

    def __init__(self, process, path):
        self.process, self.data = process, b""
        self.status = "none"  # of the migration
        self.answers = []
        self.sock = socket.socket(socket.AF_UNIX)
        while self.sock.connect_ex(path):
            if process.poll() is not None:
                raise Failure("QEMU does not start")
            time.sleep(0.01)
        self.do("qmp_capabilities", enable=["oob"])

    def listen(self, seconds):
        """False: nothing more has come, or it has gone."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return False
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        *lines, self.data = (self.data + data).split(b"\n")
        for said in map(json.loads, lines):
            if said.get("event") == "MIGRATION":
                self.status = said["data"]["status"]
            elif "return" in said or "error" in said:
                self.answers.append(said)
        return bool(data)

    def do(self, command, how="execute", **arguments):
        self.answers.clear()
        try:
            self.sock.sendall(json.dumps({how: command, "arguments": arguments}).encode() + b"\n")
        except OSError as e:
            raise Failure(f"{command}: QEMU has gone") from e
        while not self.answers:
            if not self.listen(60):
                raise Failure(f"{command}: QEMU says nothing")
        if "error" in self.answers[0]:
            raise Failure(f"{command}: {self.answers[0]['error']['desc']}")


class Qemu:
    """The guest's machine, in which it runs or is to run."""

    def __init__(self, soak, work, *args):
        self.serial = os.path.join(work, "serial")
        self.errors = os.path.join(work, "qemu.err")
        self.ports = set()  # where it has listened
        path = os.path.join(work, "qmp")
        for old in (self.serial, path):
            if os.path.exists(old):
                os.unlink(old)
        with open(self.errors, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                 "-machine", "pc,accel=tcg", "-m", str(MEMORY), "-serial", f"file:{self.serial}",
                 "-qmp", f"unix:{path},server=on,wait=off",
                 "-kernel", os.path.join(soak.guest, "vmlinuz"),
                 "-initrd", os.path.join(soak.guest, "initramfs"),
                 "-append", f"console=ttyS0 quiet no_timer_check pages={PAGES}", *args],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self.monitor = Monitor(self.process, path)
        self.do = self.monitor.do

    def oob(self, command, **arguments):
        self.do(command, "exec-oob", **arguments)

    def ended(self):
        return self.process.poll() is not None

    def status(self):
        while self.monitor.listen(0):
            pass
        return self.monitor.status

    def await_status(self, *names):
        """Which of these the migration's comes to be; None: it has gone, or nothing happens."""
        deadline = time.monotonic() + 30
        while self.status() not in names:
            if self.ended() or time.monotonic() > deadline:
                return None
            self.monitor.listen(0.05)
        return self.monitor.status

    def recover(self):
        self.monitor.status = "none"
        self.oob("migrate-recover", uri="tcp:127.0.0.1:0")

    def port(self):
        """Where it listens. By /proc: its main thread may be waiting, and answers no query."""
        for _ in range(1000):
            ours = set(links_in(f"/proc/{self.process.pid}/fd"))
            with open("/proc/net/tcp", encoding="ascii") as f:
                rows = [line.split() for line in f][1:]
            for row in rows:
                port = int(row[1].partition(":")[2], 16)
                if row[3] == "0A" and f"socket:[{row[9]}]" in ours and port not in self.ports:
                    self.ports.add(port)
                    return port
            time.sleep(0.01)
        raise Failure("QEMU does not listen")

    def said(self):
        with open(self.serial, encoding="latin-1") as f:
            return f.read()

    def last_pass(self):
        """(pass, pages, wrong, zero) of the last whole line."""
        found = re.findall(r"^pass (\d+): (\d+) pages, (\d+) wrong, (\d+) zero\r?\n", self.said(), re.M)
        return tuple(map(int, found[-1])) if found else None

    def await_pass(self, number):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not self.ended():
            last = self.last_pass()
            if last and last[0] >= number:
                return last
            time.sleep(0.01)
        raise Failure(f"the guest does not come to pass {number}; it says '{self.said()[-200:]}'")

    def clean(self):
        if not self.ended():
            self.process.kill()
        self.process.wait()


class Link:
    """What stands between the two, and breaks where it is told to."""

    def __init__(self, port, point):
        self.process = subprocess.Popen(
            [os.path.join(HERE, "tools", "cut_proxy.py"), str(port), point],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.uri = f"tcp:127.0.0.1:{int(self.process.stdout.readline())}"

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Round:
    def __init__(self, soak, mode, work):
        self.soak, self.mode, self.random, self.work = soak, mode, soak.random, work
        self.errors = os.path.join(work, "errors")
        self.result = os.path.join(work, "result")
        self.qemu = self.link = self.send = None
        self.rate = self.random.choice(["20M", "40M", "1G"])
        self.left = soak.size
        self.struck_here = 0

    # ---- processes ----

    def start_qemu(self):
        args = ["-incoming", "defer"]
        if self.mode == "tls":
            args += ["-object", f"tls-creds-psk,id=tls0,dir={self.soak.keys},endpoint=server"]
        self.qemu = Qemu(self.soak, self.work, *args)
        on = ["events", "postcopy-ram"] + ["postcopy-preempt"] * (self.mode in ("preempt", "tls"))
        self.qemu.do("migrate-set-capabilities",
                     capabilities=[{"capability": name, "state": True} for name in on])
        if self.mode == "tls":
            self.qemu.do("migrate-set-parameters", **{"tls-creds": "tls0"})
        self.qemu.do("migrate-incoming", uri="tcp:127.0.0.1:0")

    def start_send(self, resume, how, point):
        port = self.qemu.port()
        self.link = Link(port, point) if point else None
        args = ["--resume"] if resume else []
        if self.mode == "tls":
            args += ["--param", f"tls-creds={self.soak.keys}"]
        with open(self.errors, "a", encoding="utf-8") as errors, \
                open(self.result, "w", encoding="utf-8") as result:
            self.send = subprocess.Popen(
                [self.soak.migtool, "send", "--json", "--progress=none", "--peer", "qemu", "--cap",
                 "postcopy-ram", "--timeout", "5" if how == "drop" else "30", "--param",
                 f"max-postcopy-bandwidth={self.rate}", *MODES[self.mode], *args,
                 self.soak.image, self.link.uri if self.link else f"tcp:127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL, stdout=result, stderr=errors)

    def said(self):
        with open(self.errors, encoding="utf-8") as errors:
            return errors.read()

    def owner(self):
        with open(self.result, encoding="utf-8") as f:
            lines = f.read().splitlines()
        return json.loads(lines[-1])["owner"] if lines else "killed"

    def end(self):
        """send's status."""
        try:
            return self.send.wait(timeout=60)
        except subprocess.TimeoutExpired as e:
            raise Failure("send does not end") from e

    # ---- what happens to it ----

    def point(self, resume):
        """Where a link breaks: mostly behind the switch, now and then in what goes before."""
        early = self.random.random() < 0.2
        count = self.random.randrange(20000 if early else max(self.left, 20000))
        self.left -= count
        if self.mode == "tls":
            return str(count + (RECOVERY if resume else 1))
        if resume:
            return f"={RESUME_ACK}+{count}"
        return str(count + 1) if early and self.random.random() < 0.5 else f"={PACKAGED}+{count}"

    def strike(self, resume):
        """One try, which ends at some point. What was done; None: it had ended by itself."""
        how = self.random.choice(LINK + OURS)
        self.start_send(resume, how, f"{self.point(resume)}:{how}" if how in LINK else None)
        if how in OURS and not self.own(how, resume):
            how = None
        status = self.end()
        if how == "drop":
            # nobody tells the destination: the one who looks after it does, or its keepalive in the end
            if self.qemu.status() == "postcopy-active":
                self.qemu.oob("migrate-pause")
        if self.link:
            self.link.end()
        if status not in ((0, 10, 30, 50, -signal.SIGKILL, -signal.SIGTERM, 20) if how else (0,)):
            raise Failure(f"{how}: send ends with {status}")
        return how if status else None

    def own(self, how, resume):
        """A while behind the switch: to the source or to the destination itself."""
        if self.qemu.await_status("postcopy-active", "completed") != "postcopy-active":
            return resume  # it may have missed that it was
        time.sleep(self.random.random() ** 2 * 1.5)
        if self.send.poll() is not None:
            return False
        if how == "pause":
            try:
                self.qemu.oob("migrate-pause")
            except Failure:
                return False  # all has come
        elif how == "kill":
            self.send.kill()
        else:
            for _ in range(200):
                self.send.send_signal(signal.SIGTERM)
                time.sleep(0.01)
                if self.send.poll() is not None:
                    break
        return True

    def struck(self, how):
        """True: the guest waits, False: it is whole, or was not given up and is to be sent anew."""
        status = self.qemu.await_status("postcopy-paused", "completed")
        owner = self.owner()
        if status == "postcopy-paused":
            if owner not in ("destination", "unknown", "killed"):
                raise Failure(f"{how}: the guest is the destination's, and send says {owner}")
            self.soak.counts[f"{self.mode}, {how}"] += 1
            self.soak.struck += 1
            self.struck_here += 1
            return True
        if status is None:
            # one that waits for memory in the middle of the devices cannot even exit
            if self.qemu.said():
                raise Failure(f"{how}: the destination is {self.qemu.monitor.status}, its status "
                              f"{self.qemu.process.poll()}, and the guest ran there")
            if owner == "destination":
                raise Failure(f"{how}: the destination never had the guest, and send says it has")
            self.soak.before += 1
            self.qemu.clean()
            self.start_qemu()
        return False

    def run(self):
        strikes = self.random.randrange(1, 5)
        waits = False
        self.start_qemu()
        for _ in range(strikes):
            if self.soak.struck >= self.soak.wanted:
                break
            if waits:
                self.qemu.recover()
            how = self.strike(waits)
            if not how:
                return self.undisturbed()
            waits = self.struck(how)
            if not waits and self.qemu.status() == "completed":
                return self.undisturbed()
        if waits:
            self.qemu.recover()
        self.start_send(waits, None, None)
        status = self.end()
        if status:
            raise Failure(f"the last send ends with {status}")
        return self.undisturbed()

    def undisturbed(self):
        """All has come; the guest looks at all of it, and nothing was or is wrong."""
        if self.qemu.await_status("completed") != "completed":
            raise Failure(f"the destination stays {self.qemu.monitor.status}, "
                          f"its status {self.qemu.process.poll()}")
        last = self.qemu.last_pass() or self.soak.saved
        _, pages, wrong, zero = self.qemu.await_pass(last[0] + 2)
        self.soak.pages += pages - self.soak.saved[1]
        self.soak.wrong += wrong
        self.soak.zeros += zero
        if wrong or zero:
            raise Failure(f"{wrong} pages are wrong, {zero} of them zero")
        self.soak.recovered += self.struck_here

    def clean(self):
        if self.send and self.send.poll() is None:
            self.send.kill()
            self.send.wait()
        if self.link and self.link.process.poll() is None:
            self.link.end()
        if self.qemu:
            self.qemu.clean()


class Soak:
    def __init__(self, args, work):
        self.migtool, self.work, self.wanted = args.migtool, work, args.count
        self.random = random.Random(args.seed)
        self.modes = [m for m in MODES if args.only in m]
        self.guest = args.guest or os.path.join(work, "guest")
        self.image = os.path.join(self.guest, "image")
        self.keys = os.path.join(work, "keys")
        self.counts = collections.Counter()
        self.failures = self.pages = self.wrong = self.zeros = 0
        self.struck = self.before = self.recovered = self.rounds = 0
        os.mkdir(self.keys)
        subprocess.run([self.migtool, "psk", os.path.join(self.keys, "keys.psk")], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not os.path.exists(os.path.join(self.guest, "saved")):
            self.save()
        with open(os.path.join(self.guest, "saved"), encoding="utf-8") as f:
            self.saved = tuple(json.load(f))
        self.size = os.stat(os.path.join(self.image, "ram", "pc.ram")).st_blocks * 512

    def save(self):
        """Boots the guest, and saves it when it has looked at its pages a few times."""
        program = os.path.join(os.path.dirname(self.migtool), "guest", "pages")
        subprocess.run([os.path.join(HERE, "guest", "make-linux"), self.guest, program], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        work = tempfile.mkdtemp(dir=self.work)
        qemu = Qemu(self, work)
        recv = None
        try:
            qemu.await_pass(3)
            qemu.do("stop")
            path = os.path.join(work, "socket")
            recv = subprocess.Popen([self.migtool, "recv", "-q", f"unix:{path}", self.image],
                                    stdin=subprocess.DEVNULL)
            while not os.path.exists(path) and recv.poll() is None:
                time.sleep(0.01)
            qemu.do("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            qemu.do("migrate", uri=f"unix:{path}")
            if recv.wait(timeout=60):
                raise Failure("the guest cannot be saved")
            with open(os.path.join(self.guest, "saved"), "w", encoding="utf-8") as f:
                json.dump(qemu.last_pass(), f)
        finally:
            qemu.clean()
            if recv and recv.poll() is None:
                recv.kill()
        shutil.rmtree(work)

    def round(self):
        mode = self.modes[self.rounds % len(self.modes)]
        self.rounds += 1
        work = tempfile.mkdtemp(dir=self.work)
        r = Round(self, mode, work)
        signal.alarm(200)
        try:
            r.run()
        except (Failure, OSError) as e:
            self.failures += 1
            print(f"FAILED: round {self.rounds}, {mode}: {e}\n{r.said()}", flush=True)
            with open(r.qemu.errors, encoding="utf-8") as f:
                print(f.read(), flush=True)
        finally:
            signal.alarm(0)
            r.clean()
        shutil.rmtree(work)


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--only", default="", help=f"one of {', '.join(MODES)}")
    p.add_argument("--migtool", default="build/migtool")
    p.add_argument("--dir", default="/dev/shm")
    p.add_argument("--guest", help="where the guest is, or will be, for other runs")
    args = p.parse_args()
    args.migtool = os.path.abspath(args.migtool)
    print(f"SEED={args.seed}, {args.count} points", flush=True)
    signal.signal(signal.SIGALRM, too_long)
    work = tempfile.mkdtemp(prefix="migtool-qemu-", dir=args.dir)
    try:
        soak = Soak(args, work)
        while soak.struck < args.count and soak.failures < 10:
            soak.round()
    finally:
        shutil.rmtree(work)
    for what, n in sorted(soak.counts.items()):
        print(f"  {what:22} {n:4} times")
    print(f"{soak.rounds} guests, recovered {soak.recovered} times; "
          f"broken before one was given up: {soak.before} times")
    print(f"{soak.pages} pages looked at, {soak.wrong} wrong, {soak.zeros} zero")
    print(f"{soak.struck} points, {soak.failures} failures")
    sys.exit(1 if soak.failures else 0)


if __name__ == "__main__":
    main()
