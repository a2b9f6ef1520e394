# SPDX-License-Identifier: GPL-2.0-or-later
"""
The postcopy case of run.py: guests that run before their memory has come.

What a fault costs depends first on where the kernel puts who takes part in it: to wake another core
costs more than all the rest, much more so if the core has fallen asleep and is a virtual one. So who
is measured is tied to cores, the same ones for all contenders, and with an idle link the cores are
kept awake (/dev/cpu_dma_latency). A host is a core where the two ends are on two hosts.
"""
import json
import os
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tools"))
from qmp import Qmp  # noqa: E402, pylint: disable=wrong-import-position

MIB = 2048
FAULTS = 20000
PROBE = {"START": 0x1000000, "LOG": 0x400000}
PROBE_MIB = 544
AWAKE = "/dev/cpu_dma_latency"  # as long as it is open, no core sleeps longer than was written to it
HERE_CORE, THERE_CORE, ANY = "0", "1", ""  # of the guest, of the other side
SLICE_US = 10  # what takes longer was a fault: a page that is there costs a guest under TCG less than 1


class NotBuilt(Exception):
    """What cannot be measured here, and why."""


def percentiles(us):
    us.sort()
    n = len(us)
    return {"faults": n, "p50": us[n // 2], "p90": us[n * 9 // 10], "p99": us[n * 99 // 100],
            "max": us[-1]}


class Postcopy:
    """Guests and who serves them; `bench` is run.py's Bench."""

    def __init__(self, bench):
        self.b = bench
        self.dir = bench.path("postcopy")
        self.procs = []
        self.seed = 0
        self.cores = {"guest": ANY, "recv": ANY, "source": ANY}
        self.probe_pages = 0
        self.awake = -1
        build = os.path.dirname(bench.migtool)
        self.vmm_path = os.path.join(build, "guest", "vmm")
        self.handler_path = os.path.join(build, "bench", "handler")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.sock = os.path.join(self.dir, "uffd")
        self.record = os.path.join(self.dir, "needed")

    def image(self):
        name = self.b.path(f"pages-{MIB}.img")
        if not os.path.exists(name):
            subprocess.run([self.vmm_path, "make", name, str(MIB)], check=True)
        return name

    # ---- processes ----

    def start(self, argv, role=None, **kw):
        kw = {"stdin": subprocess.DEVNULL, "text": True, **kw}
        cores = self.cores.get(role, ANY)
        tied = ["taskset", "-c", cores] if cores else []
        p = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *tied, *argv], **kw)
        self.procs.append(p)
        return p

    def piped(self, role, *argv):
        return self.start(argv, role, stdout=subprocess.PIPE)

    def tie(self, guest=ANY, recv=ANY, source=ANY, awake=False):
        """Which cores they may use, until the next call."""
        self.cores = {"guest": guest, "recv": recv, "source": source}
        if awake and self.awake < 0 and os.access(AWAKE, os.W_OK):
            self.awake = os.open(AWAKE, os.O_WRONLY)
            os.write(self.awake, struct.pack("i", 0))
        elif not awake and self.awake >= 0:
            os.close(self.awake)
            self.awake = -1

    def end(self):
        """Whoever still runs is a server of a run that is over."""
        for p in self.procs:
            if p.poll() is None:
                p.kill()
            p.wait()
            for f in (p.stdin, p.stdout, p.stderr):
                if f:
                    f.close()
        self.procs.clear()
        if os.path.exists(self.sock):
            os.unlink(self.sock)

    def succeed(self, p, output=None):
        """Its standard output as JSON, when it has ended well; output is a file that has it."""
        text = p.communicate()[0]
        if p.returncode:
            raise SystemExit(f"{p.args} ended with {p.returncode}")
        if output:
            with open(output, encoding="utf-8") as f:
                text = f.read()
        return json.loads(text)

    def vmm(self, *options):
        return self.piped("guest", self.vmm_path, "run", *options, self.sock, str(MIB))

    # ---- who serves ----

    def minimal(self, net):
        """The smallest handler, for the image or for a server of pages."""
        where = ["image", self.sock, self.image()]
        if net:
            pages = self.piped("source", self.handler_path, "pages", self.image())
            where = ["net", self.sock, pages.stdout.readline().strip()]
        handler = self.piped("recv", self.handler_path, *where)
        handler.stdout.readline()

    def await_socket(self, recv):
        while not os.path.exists(self.sock):
            if recv.poll() is not None:
                with open(self.dir + "/recv.err", encoding="utf-8") as f:
                    raise NotBuilt(f.readline().strip())
            time.sleep(0.001)

    def recv(self, uri, *options):
        with open(self.dir + "/recv.err", "w", encoding="utf-8") as err:
            return self.start([self.b.migtool, "recv", "-q", "--json", "--uffd-socket", self.sock,
                               *options, uri], "recv", stdout=subprocess.PIPE, stderr=err)

    def migtool(self, net, *options, send=()):
        """recv, and if net is set the source, whose memory is on the other side of TCP."""
        if not net:
            recv = self.recv("image:" + self.image(), *options)
            self.await_socket(recv)
            return recv, None
        port = self.b.next_port()
        uri = f"tcp:127.0.0.1:{port}"
        recv = self.recv(uri, "--cap", "postcopy-ram=on", *options)
        while not self.listens(port):
            if recv.poll() is not None:
                with open(self.dir + "/recv.err", encoding="utf-8") as f:
                    raise NotBuilt(f.readline().strip())
            time.sleep(0.001)
        source = self.start([self.b.migtool, "send", "-q", "--json", "--cap", "postcopy-ram=on", *send,
                             self.image(), uri], "source", stdout=subprocess.PIPE)
        self.await_socket(recv)
        return recv, source

    @staticmethod
    def listens(port):
        with open("/proc/net/tcp", encoding="ascii") as f:
            return f":{port:04X} 00000000:0000 0A" in f.read()

    # ---- the VMM's faults ----

    def touched(self, *options):
        self.seed += 1
        return json.loads(self.vmm("--latency", "--seed", str(self.seed), *options).communicate()[0])

    def latency_minimal(self, net, **cores):
        self.tie(**cores)
        self.minimal(net)
        return self.touched("--count", str(FAULTS))

    def latency_migtool(self, net, push, **cores):
        self.tie(**cores)
        self.migtool(net, f"--push={push}")
        return self.touched("--count", str(FAULTS))

    def faults(self, title, contenders):
        """Medians over the runs; ratios to the first contender, which is the smallest."""
        got = {name: [] for name, _ in contenders}
        missing = {}
        for i in range(self.b.runs):
            for name, run in contenders:
                if name in missing:
                    continue
                print(f"\r\033[K{title}: run {i + 1}/{self.b.runs}, {name}", end="", file=sys.stderr)
                try:
                    got[name].append(run())
                except NotBuilt as e:
                    missing[name] = e
                finally:
                    self.end()
        print("\r\033[K", end="", file=sys.stderr)
        print(f"\n{title}\n  {'us':34}{'faults':>8}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>10}"
              f"{'p50 ratio':>11}{'p99 ratio':>11}")
        first = got[contenders[0][0]]
        for name, runs in got.items():
            if name in missing:
                print(f"  {name:34}{missing[name]}")
                continue
            mid = {k: statistics.median(r[k] for r in runs) for k in ("faults", "p50", "p90", "p99")}
            ratio = {k: mid[k] / statistics.median(r[k] for r in first) for k in ("p50", "p99")}
            print(f"  {name:34}{mid['faults']:8.0f}{mid['p50']:9.1f}{mid['p90']:9.1f}{mid['p99']:9.1f}"
                  f"{max(r['max'] for r in runs):10.1f}{ratio['p50']:11.2f}{ratio['p99']:11.2f}",
                  flush=True)

    # ---- QEMU's ----

    def build_probe(self, pages):
        self.probe_pages = pages
        shutil.rmtree(self.dir + "/probe.guest", ignore_errors=True)
        flags = [f"-D{k}={v:#x}" for k, v in {**PROBE, "PAGES": pages}.items()]
        for argv in (["cpp", "-P", *flags, HERE + "/probe.S", "probe.s"], ["as", "--32", "-o", "probe.o", "probe.s"],
                     ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "probe.img", "probe.o"]):
            subprocess.run(argv, cwd=self.dir, check=True)

    def qemu(self, name, role, *args):
        """A QEMU with the probe's guest, its QMP and its serial line."""
        for kind in ("qmp", "serial"):
            path = f"{self.dir}/{name}.{kind}"
            if os.path.exists(path):
                os.unlink(path)
        self.start(["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine",
                    "pc,accel=tcg", "-m", str(PROBE_MIB), "-serial",
                    f"unix:{self.dir}/{name}.serial,server=on,wait=off", "-qmp",
                    f"unix:{self.dir}/{name}.qmp,server=on,wait=off", "-drive",
                    f"file={self.dir}/probe.img,if=floppy,format=raw,readonly=on", *args], role)
        qmp = Qmp(f"{self.dir}/{name}.qmp", 120)
        serial = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        serial.connect(f"{self.dir}/{name}.serial")
        return qmp, serial

    @staticmethod
    def await_line(serial, want):
        text = b""
        while want not in text:
            if not select.select([serial], [], [], 120)[0]:
                raise SystemExit(f"the probe's guest said {text}, not {want}")
            text += serial.recv(64)
            if b"bad" in text:
                raise SystemExit("the probe's guest found a page that is wrong")

    @staticmethod
    def configure(qmp, capabilities, **parameters):
        qmp.execute("migrate-set-capabilities",
                    capabilities=[{"capability": c, "state": True} for c in capabilities])
        if parameters:
            qmp.execute("migrate-set-parameters", **parameters)

    def probe_image(self):
        """The probe's guest, waiting, as an image for migtool."""
        image = self.dir + "/probe.guest"
        if not os.path.exists(image):
            qmp, serial = self.qemu("a", "source")
            self.await_line(serial, b"filled\n")
            recv = self.start([self.b.migtool, "recv", "-q", f"unix:{self.dir}/save", image])
            while not os.path.exists(self.dir + "/save"):
                time.sleep(0.01)
            self.configure(qmp, [], max_bandwidth=100 << 30)
            qmp.execute("migrate", uri=f"unix:{self.dir}/save")
            recv.wait()
            serial.close()
            self.end()
        return image

    def probe(self, qmp, serial):
        """Lets the guest that has just come look at its pages; what that took."""
        qmp.poll("query-status", lambda a: a["status"] == "running")
        serial.send(b"x")
        self.await_line(serial, b"done\n")
        log = self.dir + "/log"
        qmp.execute("pmemsave", val=PROBE["LOG"], size=self.probe_pages * 4, filename=log)
        serial.close()
        with open(log, "rb") as f:
            ticks = struct.unpack(f"<{self.probe_pages}I", f.read())
        return percentiles([t / self.ticks for t in ticks if t > SLICE_US * self.ticks])

    def latency_qemu(self, source, preempt, held):
        """source: "qemu" or "migtool"."""
        if held:
            self.tie(guest=HERE_CORE, source=THERE_CORE, awake=True)
        else:
            self.tie()
        capabilities = ["postcopy-ram"] + (["postcopy-preempt"] if preempt else [])
        limit = 50 << 20 if held else 0
        image = self.probe_image() if source == "migtool" else None
        to, serial = self.qemu("b", "guest", "-incoming", "defer")
        self.configure(to, capabilities)
        to.execute("migrate-incoming", uri="tcp:127.0.0.1:0")
        uri = f"tcp:127.0.0.1:{to.execute('query-migrate')['socket-address'][0]['port']}"
        if image:
            more = [f"--cap={c}=on" for c in capabilities] + ["--param", f"max-postcopy-bandwidth={limit}"]
            self.start([self.b.migtool, "send", "-q", "--peer", "qemu", *more, image, uri], "source")
        else:
            of, line = self.qemu("a", "source")
            self.await_line(line, b"filled\n")
            line.close()
            self.configure(of, capabilities, max_bandwidth=100000, max_postcopy_bandwidth=limit)
            of.execute("migrate", uri=uri)
            of.poll("query-migrate", lambda a: a.get("status") == "active")
            of.execute("migrate-start-postcopy")
        return self.probe(to, serial)

    def faults_qemu(self):
        self.ticks = float(subprocess.run([self.handler_path, "ticks"], capture_output=True, text=True,
                                          check=True).stdout)
        # not an idle link: QEMU's max-postcopy-bandwidth makes requests wait too, 0.1 s each
        for push, held, pages in (("held to 50 MiB/s, a core for each host", True, 1 << 16),
                                  ("at full rate, where the kernel likes it", False, 1 << 17)):
            self.build_probe(pages)
            self.faults(f"(f) what a guest under QEMU (TCG) waits for a page, tcp, push {push}", [
                ("QEMU to QEMU", lambda h=held: self.latency_qemu("qemu", False, h)),
                ("QEMU to QEMU, postcopy-preempt", lambda h=held: self.latency_qemu("qemu", True, h)),
                ("migtool to QEMU", lambda h=held: self.latency_qemu("migtool", False, h)),
                ("migtool to QEMU, postcopy-preempt",
                 lambda h=held: self.latency_qemu("migtool", True, h)),
            ])

    # ---- CRIU ----

    @staticmethod
    def say_criu():
        """Does its lazy-pages run here? It wants a kernel whose vDSO it knows."""
        if not shutil.which("criu"):
            print("\n  CRIU lazy-pages: criu is not installed")
            return
        p = subprocess.run(["criu", "check", "--feature", "uffd-noncoop"], capture_output=True, text=True,
                           check=False)
        said = (p.stdout + p.stderr).strip().splitlines()
        print("\n  CRIU lazy-pages: " + ("runs here; it is not measured" if not p.returncode else
                                         "does not run here: " + next((x for x in said if "vDSO" in x), said[-1])))

    # ---- all of it ----

    def first_page(self, net):
        """Milliseconds from recv's start to the guest's first page."""
        self.tie()
        start = time.monotonic()
        self.migtool(net, "--push=on")
        return (self.touched("--count", "1")["first"] - start) * 1000

    def first_alone(self):
        self.tie()
        start = time.monotonic()
        vmm = self.piped("guest", self.vmm_path, "alone", "--count", "1", self.image(), str(MIB))
        return (json.loads(vmm.communicate()[0])["first"] - start) * 1000

    def pushed(self, net):
        """GiB/s of the background alone, from the VMM's start to recv's end."""
        self.tie()
        recv, _ = self.migtool(net, "--push=on")
        start = time.monotonic()
        vmm = self.start([self.vmm_path, "run", "--touch", "0", self.sock, str(MIB)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        answer = self.succeed(recv)
        seconds = time.monotonic() - start
        if not answer["complete"]:
            raise SystemExit("the push ended before all had come")
        if " 0 wrong" not in vmm.communicate("\n")[0]:
            raise SystemExit("the guest's memory is wrong")
        return self.b.data_gib(self.image()) / seconds

    def precopied(self):
        return self.b.data_gib(self.image()) / self.b.run_migtool(self.image())[0]

    def numbers(self, title, unit, contenders):
        got = {name: [] for name, _ in contenders}
        missing = {}
        for i in range(self.b.runs):
            for name, run in contenders:
                if name in missing:
                    continue
                print(f"\r\033[K{title}: run {i + 1}/{self.b.runs}, {name}", end="", file=sys.stderr)
                try:
                    got[name].append(run())
                except NotBuilt as e:
                    missing[name] = e
                finally:
                    self.end()
        print("\r\033[K", end="", file=sys.stderr)
        first = statistics.median(got[contenders[0][0]])
        print(f"\n{title}\n  {unit:34}{'median':>9}{'min':>8}{'max':>8}{'less':>9}{'ratio':>8}")
        for name, v in got.items():
            if name in missing:
                print(f"  {name:34}{missing[name]}")
                continue
            mid = statistics.median(v)
            print(f"  {name:34}{mid:9.2f}{min(v):8.2f}{max(v):8.2f}{mid - first:9.2f}{mid / first:8.2f}",
                  flush=True)

    def moved(self, net, *options):
        """Bytes that came when the guest had touched a page in 20, and had ended."""
        recv, source = self.migtool(net, "--push=off", *options)
        self.vmm("--latency", "--seed", "1", "--touch", "5").communicate()
        answer = self.succeed(recv)
        return (self.succeed(source) if source else answer)["ram"]["transferred"]

    def working_set(self, net):
        self.tie()
        full = self.b.data_gib(self.image()) * 1024
        name = "tcp" if net else "image:"
        try:
            rows = [("demand only", self.moved(net, "--record", self.record, "--force")),
                    ("demand and --prefetch", self.moved(net, "--prefetch", self.record))]
        except NotBuilt as e:
            print(f"  {name:34}{e}")
            return
        finally:
            self.end()
        for what, n in rows:
            print(f"  {name + ', ' + what:34}{n / (1 << 20):9.1f}{n / (1 << 20) / full:9.3f}", flush=True)

    def case(self):
        one = {"guest": HERE_CORE, "recv": HERE_CORE, "source": HERE_CORE, "awake": True}
        two = {**one, "source": THERE_CORE}
        across = {**two, "recv": THERE_CORE}
        for where, cores in (("all on one core", one), ("the guest on a core of its own", across)):
            self.faults(f"(f) what a thread waits for a page of 4 KiB of an image on this host, {where}", [
                ("minimal handler", lambda c=cores: self.latency_minimal(False, **c)),
                ("migtool image:", lambda c=cores: self.latency_migtool(False, "off", **c)),
            ])
        for where, cores in (("all on one core", one), ("a core for each host", two),
                             ("the guest on a core of its own", across),
                             ("a core for each host, which may sleep", {**two, "awake": False})):
            self.faults(f"(f) the same over tcp on loopback, idle link, {where}", [
                ("minimal handler", lambda c=cores: self.latency_minimal(True, **c)),
                ("migtool tcp", lambda c=cores: self.latency_migtool(True, "off", **c)),
            ])
        self.faults("(f) with the push at full rate, where the kernel likes it", [
            ("minimal handler, tcp, no push", lambda: self.latency_minimal(True)),
            ("migtool tcp", lambda: self.latency_migtool(True, "on")),
            ("migtool image:", lambda: self.latency_migtool(False, "on")),
        ])
        self.faults_qemu()
        self.say_criu()
        self.numbers("(f) from recv's start to the guest's first page, 2 GiB", "ms", [
            ("the VMM alone, image mapped", self.first_alone),
            ("migtool image:", lambda: self.first_page(False)),
            ("migtool tcp", lambda: self.first_page(True)),
        ])
        self.numbers("(f) the background push", "GiB/s", [
            ("migtool tcp, precopy", self.precopied),
            ("migtool tcp, push into a guest", lambda: self.pushed(True)),
            ("migtool image:, push into a guest", lambda: self.pushed(False)),
        ])
        print(f"\n(f) a guest that touches 5 % of its memory, and a full copy of "
              f"{self.b.data_gib(self.image()) * 1024:.0f} MiB\n  {'':34}{'MiB':>9}{'of it':>9}")
        for net in (False, True):
            self.working_set(net)


def case(bench):
    postcopy = Postcopy(bench)
    try:
        postcopy.case()
    finally:
        postcopy.end()
        shutil.rmtree(postcopy.dir, ignore_errors=True)
