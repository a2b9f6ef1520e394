# SPDX-License-Identifier: GPL-2.0-or-later
"""
The switchover case of run.py: how long a guest stands still while its new place gets ready.

COMMAND maps its memory, loads 300 MB of device data, which takes it a while, says READY=1, and reads its
first page, the guest's first instruction; it looks at its own clock before and behind that. At the source's
pause-before-switchover the guest is stopped, and let go on at once: what lies between the two moments
is the downtime. The clock is one for all on this host (CLOCK_MONOTONIC).

COMMAND must not have run before it was handed over, whatever it had loaded by then: a run where it did ends
the case.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

MIB = 256
STATE = 300 * 1000 * 1000
PUBLISHED = {"off": 1900, "on": 420}  # ms: a VFIO device's in QEMU, as the capability was published with


class Switchover:
    """One source, one destination and its COMMAND; `bench` is run.py's Bench."""

    def __init__(self, bench):
        self.b = bench
        self.dir = bench.path("switchover")
        self.maps = os.path.join(os.path.dirname(bench.migtool), "guest", "maps")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir + "/guest/ram")
        self.image = self.dir + "/guest/ram/pc.ram"
        self.copy, self.state = self.dir + "/copy", self.dir + "/state"
        with open(self.image, "wb") as f:
            f.truncate(MIB << 20)
        subprocess.run([self.maps, self.image, "map", "fill"], check=True)
        with open(self.dir + "/guest/device-state", "wb") as f:
            for _ in range(STATE // 1000000):
                f.write(os.urandom(1000000))

    def recv(self, uri, out):
        words = ["map", "now=began", f"state={self.state}", "now=ready", "notify=READY=1", "first",
                 "now=runs", "check", "now=right", "sleep"]
        return subprocess.Popen([self.b.migtool, "recv", "-q", "--json", "--cap", "postcopy-ram=on", "--notify",
                                 "--device-state", self.state, uri, self.copy, "--", "sh", "-c",
                                 'echo "pid $$"; exec "$@"', "sh", self.maps, self.copy, *words],
                                stdin=subprocess.DEVNULL, stdout=out)

    def send(self, uri, ack, pause):
        return subprocess.Popen([self.b.migtool, "send", "-q", "--json", "--cap", "postcopy-ram=on", "--cap",
                                 "return-path=on", "--cap", f"switchover-ack={ack}", "--cap", "events=on",
                                 "--cap", "pause-before-switchover=on", "--continue-fd", str(pause),
                                 self.dir + "/guest", uri], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, text=True, pass_fds=[pause])

    @staticmethod
    def listens(port):
        with open("/proc/net/tcp", encoding="ascii") as f:
            return f":{port:04X} 00000000:0000 0A" in f.read()

    def said(self):
        with open(self.dir + "/out", encoding="utf-8") as f:
            pairs = [line.split() for line in f if not line.startswith("{")]
        return {word: int(number) for word, number in (p for p in pairs if len(p) == 2)}

    def await_word(self, word, recv):
        end = time.monotonic() + 120
        while word not in self.said():
            if time.monotonic() > end or recv.poll():
                raise SystemExit(f"COMMAND did not say {word}, but {self.said()}")
            time.sleep(0.01)
        return self.said()

    def stop_guest(self, send):
        """When the source's guest was stopped."""
        for line in send.stdout:
            event = json.loads(line)
            if event.get("event") == "MIGRATION" and event["data"]["status"] == "pre-switchover":
                return time.monotonic_ns()
        raise SystemExit("the source has not come to pre-switchover")

    def transfer(self, ack):
        """What COMMAND said, with when the source's guest was stopped."""
        port = self.b.next_port()
        uri = f"tcp:127.0.0.1:{port}"
        pause, go_on = os.pipe()
        for name in (self.copy, self.state):
            if os.path.exists(name):
                os.unlink(name)
        with open(self.dir + "/out", "w", encoding="utf-8") as out:
            recv = self.recv(uri, out)
        while not self.listens(port) and recv.poll() is None:
            time.sleep(0.001)
        send = self.send(uri, ack, pause)
        stopped = self.stop_guest(send)
        os.write(go_on, b"x")
        if send.communicate()[1] or send.returncode or recv.wait():
            raise SystemExit(f"a transfer ended with {send.returncode} and {recv.returncode}")
        said = self.await_word("right", recv)
        os.kill(said["pid"], 9)
        os.close(pause)
        os.close(go_on)
        said["stopped"] = stopped
        return said

    def downtime(self, ack):
        said = self.transfer(ack)
        if said["runs"] < said["stopped"] or said["runs"] < said["ready"]:
            raise SystemExit(f"COMMAND ran before it was handed over: {said}")
        if (said["ready"] < said["stopped"]) != (ack == "on"):
            raise SystemExit(f"switchover-ack={ack}, and COMMAND was ready at another time: {said}")
        return {"downtime": (said["runs"] - said["stopped"]) / 1e6,
                "load": (said["ready"] - said["began"]) / 1e6,
                "stood": (said["runs"] - said["ready"]) / 1e6}

    def case(self):
        got = {"off": [], "on": []}
        for i in range(self.b.runs):
            for ack, runs in got.items():
                print(f"\r\033[Kswitchover: run {i + 1}/{self.b.runs}, {ack}", end="", file=sys.stderr)
                runs.append(self.downtime(ack))
        print("\r\033[K", end="", file=sys.stderr)
        print(f"\n(f) a guest's downtime, {STATE // 1000000} MB of device data, pause-before-switchover\n"
              f"  {'ms':34}{'downtime':>10}{'min':>9}{'max':>9}{'loading':>9}{'stood':>9}{'published':>11}")
        for ack, runs in got.items():
            mid = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
            down = [r["downtime"] for r in runs]
            print(f"  {'switchover-ack ' + ack:34}{mid['downtime']:10.1f}{min(down):9.1f}{max(down):9.1f}"
                  f"{mid['load']:9.1f}{mid['stood']:9.1f}{PUBLISHED[ack]:11}")
        off, on = (statistics.median(r["downtime"] for r in got[ack]) for ack in ("off", "on"))
        print(f"  gained: {off - on:.0f} ms, {off / on:.1f} times less; published: "
              f"{PUBLISHED['off'] - PUBLISHED['on']} ms, {PUBLISHED['off'] / PUBLISHED['on']:.1f} times less",
              flush=True)


def case(bench):
    switchover = Switchover(bench)
    try:
        switchover.case()
    finally:
        shutil.rmtree(switchover.dir, ignore_errors=True)
