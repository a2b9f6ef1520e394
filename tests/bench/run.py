#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""make bench: migtool beside what a user would pick instead.

run.py [--runs N] [--dir DIR] [--migtool PATH] [CASE]...

Each case has several contenders, which take turns run by run, so that a slow minute of the machine
meets all of them; what counts are the medians and their ratios. Images and destinations are on
tmpfs (DIR, default /dev/shm/migtool-bench), traffic is on loopback. Cases:

  plain     a real 2 GiB guest image (about a quarter data): migtool, nbdcopy into nbdkit, cp, QEMU
  zstd      the same, compressed: migtool multifd zstd, zstd | socat | zstd, QEMU multifd zstd
  zlib      migtool multifd zlib, QEMU multifd zlib
  random    2 GiB that do not compress: migtool, socat into a file, cp
  sparse    64 GiB with 1 % data: migtool, cp; beside it the same amount of data without holes
  ssh       through one sshd: the guest compressed, 512 MiB that do not compress, the same with
            50 ms of round trip: migtool, zstd | ssh | zstd, rsync, scp, ssh
  delta     an old copy of 2 GiB at the destination, one page in a hundred of which changed: migtool
            --delta, rsync's daemon, both in place and not
  tls       that with TLS (a pre-shared key), on 1, 2 and 4 connections; socat with OpenSSL
  postcopy  guests that run before their memory has come: what they wait for a page, served by
            migtool, by the smallest handler there can be, by QEMU; the first page; the background
  switchover  part of postcopy: how long a guest stands still, with switchover-ack and without
  sandbox   what the sandbox costs: plain and multifd zstd, with and without it
  limits    iperf3, memcpy
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import postcopy
import ssh
import switchover

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(TOP, "tests", "tools")
GIB = 1 << 30


def extents(fd):
    """(offset, length) of a file's data."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start


def covered(a, b):
    """Is every data extent of a the same in b?"""
    for start, length in extents(a):
        while length > 0:
            n = min(length, 1 << 20)
            if os.pread(a, n, start) != os.pread(b, n, start):
                return False
            start, length = start + n, length - n
    return True


def same(x, y):
    """Equal files, reading only data (cmp would read 64 GiB of holes)."""
    a, b = os.open(x, os.O_RDONLY), os.open(y, os.O_RDONLY)
    try:
        return (os.fstat(a).st_size == os.fstat(b).st_size and covered(a, b) and covered(b, a))
    finally:
        os.close(a)
        os.close(b)


class Bench:
    def __init__(self, args):
        self.runs = args.runs
        self.dir = args.dir
        self.migtool = os.path.abspath(args.migtool)
        os.makedirs(self.dir, exist_ok=True)
        self.port = 20000 + os.getpid() % 20000
        self.nstarted = 0
        self.travelled = self.at_destination = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def next_port(self):
        self.port += 1
        return self.port

    def start(self, argv, **kw):
        """
        Through time(1), which forks from its own small self: what Python forks inherits Python's
        peak memory.
        """
        self.nstarted += 1
        peak = self.path(f"peak.{self.nstarted}")
        if isinstance(argv, str):
            argv = ["sh", "-c", argv]
        return {"argv": argv, "start": time.monotonic(), "peak": peak,
                "popen": subprocess.Popen(["time", "-f", "%M", "-o", peak, *argv], **kw)}

    @staticmethod
    def peak(proc):
        """KiB; of a shell's pipeline the largest process."""
        with open(proc["peak"], encoding="ascii") as f:
            peak = int(f.read().split()[-1])
        os.unlink(proc["peak"])
        return peak

    def timed(self, procs, last, check=None):
        """
        Waits for the processes with the indices `last`, ends the others (servers). Seconds since
        the last one was started, their CPU seconds, the peak KiB of the largest of `last`.
        """
        start = max(p["start"] for p in procs)
        cpu = peak = 0
        for i in sorted(last):
            _, status, ru = os.wait4(procs[i]["popen"].pid, 0)
            procs[i]["popen"].returncode = status
            if status:
                raise SystemExit(f"{procs[i]['argv']} ended with {status}")
            cpu += ru.ru_utime + ru.ru_stime
        seconds = time.monotonic() - start
        for i in sorted(last):
            peak = max(peak, self.peak(procs[i]))
        for i, p in enumerate(procs):
            if i not in last:
                # time(1) ends when its child does
                subprocess.run(["pkill", "-TERM", "-P", str(p["popen"].pid)], check=True)
                _, p["popen"].returncode, ru = os.wait4(p["popen"].pid, 0)
                cpu += ru.ru_utime + ru.ru_stime
                os.unlink(p["peak"])
        if check and not same(*check):
            raise SystemExit(f"{procs[-1]['argv']}: the copy differs")
        return seconds, cpu, peak

    def wait_port(self, port):
        for _ in range(500):
            for table in ("/proc/net/tcp", "/proc/net/tcp6"):
                with open(table, encoding="ascii") as f:
                    if re.search(r":%04X 0+:0000 0A" % port, f.read()):
                        return
            time.sleep(0.01)
        raise SystemExit(f"nobody listens on {port}")

    def fresh(self):
        out = self.path("out.img")
        if os.path.exists(out):
            os.unlink(out)
        return out, self.next_port()

    # ---- contenders ----

    def run_migtool(self, image, *options, both=()):
        """options are the source's, `both` is for either end."""
        out, port = self.fresh()
        uri = f"tcp:127.0.0.1:{port}"
        recv = self.start([self.migtool, "recv", "-q", *both, uri, out])
        self.wait_port(port)
        send = self.start([self.migtool, "send", "-q", *both, *options, image, uri])
        return self.timed([recv, send], {0, 1}, (image, out))

    def run_cp(self, image, *options):
        out, _ = self.fresh()
        return self.timed([self.start(["cp", *options, image, out])], {0})

    def run_nbdcopy(self, image):
        out, port = self.fresh()
        with open(out, "wb") as f:
            f.truncate(os.path.getsize(image))
        server = self.start(["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "file", out])
        self.wait_port(port)
        copy = self.start(["nbdcopy", image, f"nbd://127.0.0.1:{port}"])
        return self.timed([server, copy], {1}, (image, out))

    def run_socat(self, image):
        out, port = self.fresh()
        recv = self.start(["socat", "-u", "-b1048576",
                           f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", f"CREATE:{out}"])
        self.wait_port(port)
        send = self.start(["socat", "-u", "-b1048576", f"FILE:{image}", f"TCP:127.0.0.1:{port}"])
        return self.timed([recv, send], {0, 1})

    def psk(self):
        """A key file of our own, the same for all runs."""
        name = self.path("keys.psk")
        if not os.path.exists(name):
            subprocess.run([self.migtool, "psk", name], stdout=subprocess.DEVNULL, check=True)
        return "--param=tls-creds=" + name

    def run_tls(self, image, *options):
        out, port = self.fresh()
        uri = f"tcp:127.0.0.1:{port}"
        recv = self.start([self.migtool, "recv", "-q", self.psk(), uri, out])
        self.wait_port(port)
        send = self.start([self.migtool, "send", "-q", self.psk(), *options, image, uri])
        return self.timed([recv, send], {0, 1}, (image, out))

    def run_socat_tls(self, image):
        """One certificate at both ends, as the manual of socat has it."""
        out, port = self.fresh()
        pem = self.path("socat.pem")
        if not os.path.exists(pem):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
                            "-subj", "/CN=localhost", "-keyout", pem, "-out", pem + ".crt"],
                           check=True, capture_output=True)
            with open(pem, "ab") as both, open(pem + ".crt", "rb") as cert:
                both.write(cert.read())
        recv = self.start(["socat", "-u", "-b1048576", f"OPENSSL-LISTEN:{port},bind=127.0.0.1,"
                           f"reuseaddr,cert={pem},cafile={pem}", f"CREATE:{out}"])
        self.wait_port(port)
        send = self.start(["socat", "-u", "-b1048576", f"FILE:{image}",
                           f"OPENSSL:localhost:{port},cert={pem},cafile={pem}"])
        return self.timed([recv, send], {0, 1})

    def run_zstd_pipe(self, image):
        out, port = self.fresh()
        recv = self.start(f"socat -u TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr - | "
                          f"zstd -q -d -o {out}")
        self.wait_port(port)
        send = self.start(f"zstd -q -1 -T2 -c {image} | socat -u - TCP:127.0.0.1:{port}")
        return self.timed([recv, send], {0, 1})

    # ---- an old copy: the two images take turns, so that each run finds the other one there ----

    def changed_image(self):
        image = self.path("changed.img")
        note = self.path("changed.bytes")
        if not os.path.exists(note):
            shutil.copyfile(self.random_image(), image)
            changed = subprocess.run([os.path.join(TOOLS, "change_image.py"), "--share", "1",
                                      "--kinds", "rb", image], capture_output=True, text=True,
                                     check=True).stdout
            with open(note, "w", encoding="ascii") as f:
                f.write(changed)
        with open(note, encoding="ascii") as f:
            return image, int(f.read())

    def next_image(self):
        """The image that is not at the destination; a whole copy of the other one is."""
        images = [self.random_image(), self.changed_image()[0]]
        out = self.path("old.img")
        if not os.path.exists(out):
            shutil.copyfile(images[0], out)
            self.at_destination = 0
        self.at_destination = 1 - self.at_destination
        return images[self.at_destination], out

    def run_delta(self, *options):
        image, out = self.next_image()
        uri = f"tcp:127.0.0.1:{self.next_port()}"
        recv = self.start([self.migtool, "recv", "-q", "--delta", *options, uri, out])
        self.wait_port(int(uri.rsplit(":", 1)[1]))
        with open(self.path("delta.json"), "w", encoding="ascii") as f:
            send = self.start([self.migtool, "send", "-q", "--json", image, uri], stdout=f)
            result = self.timed([recv, send], {0, 1}, (image, out))
        with open(self.path("delta.json"), encoding="ascii") as f:
            self.travelled = json.load(f)["ram"]["transferred"]
        return result

    def run_rsync_delta(self, *options):
        """Both images have other times of change, else rsync would not look at them."""
        image, out = self.next_image()
        port = self.next_port()
        config = self.path("rsyncd.conf")
        with open(config, "w", encoding="ascii") as f:
            f.write(f"use chroot = no\n[bench]\npath = {self.dir}\nread only = no\n"
                    f"uid = {os.getuid()}\ngid = {os.getgid()}\n")
        server = self.start(["rsync", "--daemon", "--no-detach", f"--config={config}",
                             "--address=127.0.0.1", f"--port={port}"])
        self.wait_port(port)
        copy = self.start(["rsync", "--ignore-times", "--no-whole-file", *options, image,
                           f"rsync://127.0.0.1:{port}/bench/{os.path.basename(out)}"])
        return self.timed([server, copy], {1}, (image, out))

    def run_iperf(self):
        port = self.next_port()
        server = self.start(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL)
        self.wait_port(port)
        out = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "4G", "-J"],
                             capture_output=True, text=True, check=True).stdout
        server["popen"].wait()
        os.unlink(server["peak"])
        got = json.loads(out)["end"]["sum_received"]
        return got["seconds"] * GIB / got["bytes"], 0, 0

    def run_memcpy(self):
        a = bytearray(os.urandom(1 << 20) * 256)
        b = bytearray(len(a))
        start = time.monotonic()
        for _ in range(4):
            b[:] = a
        return time.monotonic() - start, 0, 0

    # ---- QEMU: the guest loaded into one, migrated to a second; its own total-time ----

    def qmp(self, sock, *words):
        return subprocess.run([os.path.join(TOOLS, "qmp.py"), "--timeout", "120", sock, *words],
                              capture_output=True, text=True, check=True).stdout

    def qemu(self, name):
        sock = self.path(name + ".qmp")
        return sock, subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S",
             "-machine", "pc,accel=tcg", "-m", "2048", "-serial", "null",
             "-qmp", f"unix:{sock},server=on,wait=off", "-incoming", "defer"])

    def run_qemu(self, guest, *settings):
        first, second = self.next_port(), self.next_port()
        a_sock, a = self.qemu("a")
        b_sock, b = self.qemu("b")
        try:
            self.qmp(a_sock, "incoming", f"tcp:127.0.0.1:{first}")
            subprocess.run([self.migtool, "send", "-q", "--peer", "qemu", guest,
                            f"tcp:127.0.0.1:{first}"], check=True)
            self.qmp(a_sock, "wait", "completed")
            self.qmp(b_sock, "incoming", f"tcp:127.0.0.1:{second}", *settings)
            self.qmp(a_sock, "migrate", f"tcp:127.0.0.1:{second}", "max-bandwidth=100000000000",
                     *settings)
            info = json.loads(self.qmp(a_sock, "wait", "completed").splitlines()[-1])
            return info["total-time"] / 1000, 0, 0
        finally:
            for q in (a, b):
                q.terminate()
                q.wait()

    # ---- images ----

    def guest(self):
        """A real guest's directory image, kept from run to run."""
        guest = self.path("guest")
        if not os.path.exists(os.path.join(guest, "manifest.json")):
            shutil.rmtree(guest, ignore_errors=True)
            print("booting a Linux guest of 2 GiB, once ...", flush=True)
            subprocess.run([os.path.join(HERE, "make-guest"), guest, self.migtool], check=True)
        return guest

    def guest_ram(self):
        return os.path.join(self.guest(), "ram", "pc.ram")

    def random_image(self):
        image = self.path("random.img")
        if not os.path.exists(image):
            subprocess.run(f"head -c 2G /dev/urandom > {image}", shell=True, check=True)
        return image

    def sparse_image(self, dense):
        """1 % of 64 GiB in pieces of 64 KiB, all over it or one after the other."""
        image = self.path("dense.img" if dense else "sparse.img")
        if os.path.exists(image):
            return image
        piece, count = 65536, 64 * GIB // 100 // 65536
        step = piece if dense else (64 * GIB // count) & ~4095
        with open(image, "wb") as f:
            f.truncate(count * piece if dense else 64 * GIB)
            for i in range(count):
                os.pwrite(f.fileno(), os.urandom(piece), i * step)
        return image

    # ---- cases ----

    def compare(self, title, gib, contenders):
        """contenders: (name, function); ratios are the first one's time over theirs."""
        times = {name: [] for name, _ in contenders}
        for i in range(self.runs):
            for name, run in contenders:
                print(f"\r\033[K{title}: run {i + 1}/{self.runs}, {name}", end="",
                      file=sys.stderr)
                times[name].append(run())
        print("\r\033[K", end="", file=sys.stderr)
        first = statistics.median(t[0] for t in times[contenders[0][0]])
        print(f"\n{title}\n  {'':34}{'median s':>9}{'min':>8}{'max':>8}{'GiB/s':>8}"
              f"{'CPU s/GiB':>11}{'peak MiB':>10}{'ratio':>8}")
        for name, t in times.items():
            wall = [x[0] for x in t]
            mid = statistics.median(wall)
            cpu = statistics.median(x[1] for x in t) / gib
            peak = max(x[2] for x in t) / 1024
            print(f"  {name:34}{mid:9.3f}{min(wall):8.3f}{max(wall):8.3f}{gib / mid:8.2f}"
                  f"{f'{cpu:.2f}' if cpu else '-':>11}{f'{peak:.1f}' if peak else '-':>10}"
                  f"{first / mid:8.2f}", flush=True)

    def data_gib(self, image):
        return os.stat(image).st_blocks * 512 / GIB

    def case_plain(self):
        ram, guest = self.guest_ram(), self.guest()
        self.compare("(a) a real guest of 2 GiB, plain", self.data_gib(ram), [
            ("migtool", lambda: self.run_migtool(ram)),
            ("migtool multifd, 2 channels", lambda: self.run_migtool(ram, "--cap", "multifd=on")),
            ("nbdcopy into nbdkit file", lambda: self.run_nbdcopy(ram)),
            ("cp --sparse=always", lambda: self.run_cp(ram, "--sparse=always")),
            ("QEMU's total-time", lambda: self.run_qemu(guest)),
        ])

    def case_zstd(self):
        ram, guest = self.guest_ram(), self.guest()
        caps = ["--cap", "multifd=on", "--param", "multifd-compression=zstd"]
        self.compare("(a) the guest, multifd zstd, 2 channels", self.data_gib(ram), [
            ("migtool", lambda: self.run_migtool(ram, *caps)),
            ("zstd -1 -T2 | socat | zstd -d", lambda: self.run_zstd_pipe(ram)),
            ("QEMU's total-time",
             lambda: self.run_qemu(guest, "multifd", "multifd-compression=zstd")),
        ])

    def case_zlib(self):
        ram, guest = self.guest_ram(), self.guest()
        caps = ["--cap", "multifd=on", "--param", "multifd-compression=zlib"]
        self.compare("(a) the guest, multifd zlib, 2 channels", self.data_gib(ram), [
            ("migtool", lambda: self.run_migtool(ram, *caps)),
            ("QEMU's total-time",
             lambda: self.run_qemu(guest, "multifd", "multifd-compression=zlib")),
        ])

    def case_random(self):
        image = self.random_image()
        self.compare("(b) 2 GiB that do not compress", self.data_gib(image), [
            ("migtool", lambda: self.run_migtool(image)),
            ("migtool multifd, 2 channels",
             lambda: self.run_migtool(image, "--cap", "multifd=on")),
            ("socat into a file", lambda: self.run_socat(image)),
            ("cp", lambda: self.run_cp(image)),
        ])

    def case_tls(self):
        image = self.random_image()

        def multifd(n):
            return ["--cap", "multifd=on", "--param", f"multifd-channels={n}"]

        self.compare("(b) the same with TLS", self.data_gib(image), [
            ("migtool", lambda: self.run_tls(image)),
            ("migtool multifd, 2 channels", lambda: self.run_tls(image, *multifd(2))),
            ("migtool multifd, 4 channels", lambda: self.run_tls(image, *multifd(4))),
            ("migtool without TLS", lambda: self.run_migtool(image)),
            ("socat, OpenSSL", lambda: self.run_socat_tls(image)),
        ])

    def case_sparse(self):
        sparse, dense = self.sparse_image(False), self.sparse_image(True)
        self.compare("(c) 64 GiB, 1 % data", self.data_gib(sparse), [
            ("migtool", lambda: self.run_migtool(sparse)),
            ("migtool, the data without holes", lambda: self.run_migtool(dense)),
            ("cp --sparse=always", lambda: self.run_cp(sparse, "--sparse=always")),
        ])

    def case_ssh(self):
        ssh.case(self)

    def case_postcopy(self):
        postcopy.case(self)
        self.case_switchover()

    def case_switchover(self):
        switchover.case(self)

    def case_delta(self):
        changed = self.changed_image()[1]
        for how, options in (("in place", ["--in-place"]), ("into a new file", [])):
            self.compare(f"(d) an old copy of 2 GiB, 1 % changed, {how}", 2, [
                ("migtool --delta", lambda o=options: self.run_delta(*o)),
                ("rsync", lambda o=options: self.run_rsync_delta(*(["--inplace"] if o else []))),
            ])
            print(f"  migtool moved {self.travelled} bytes for {changed} that changed: "
                  f"{self.travelled / changed:.2f} times", flush=True)
        os.unlink(self.path("old.img"))

    def case_sandbox(self):
        ram = self.guest_ram()
        for how, caps in (("plain", []),
                          ("multifd zstd, 2 channels",
                           ["--cap", "multifd=on", "--param", "multifd-compression=zstd"])):
            self.compare(f"(e) the guest, {how}, in a sandbox and out of it", self.data_gib(ram), [
                ("migtool", lambda c=caps: self.run_migtool(ram, *c)),
                ("migtool --no-sandbox",
                 lambda c=caps: self.run_migtool(ram, *c, both=["--no-sandbox", "-q"])),
            ])

    def case_limits(self):
        self.compare("limits of this machine, a GiB", 1, [
            ("iperf3, 1 stream", self.run_iperf),
            ("memcpy, not cached", self.run_memcpy),
        ])


def main():
    cases = ["plain", "zstd", "zlib", "random", "sparse", "tls", "ssh", "delta", "postcopy", "sandbox",
             "limits"]
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--dir", default="/dev/shm/migtool-bench")
    p.add_argument("--migtool", default=os.path.join(TOP, "build", "migtool"))
    p.add_argument("case", nargs="*", default=cases)
    args = p.parse_args()
    known = cases + ["switchover"]
    unknown = [c for c in args.case if c not in known]
    if unknown:
        p.error(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")
    commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False).stdout.strip()
    print(f"migtool {commit}, Linux {os.uname().release}, {os.cpu_count()} cores, "
          f"{args.runs} interleaved runs; ratio = migtool's median / this one's")
    bench = Bench(args)
    for case in args.case:
        getattr(bench, "case_" + case)()


if __name__ == "__main__":
    main()
