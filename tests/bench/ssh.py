# SPDX-License-Identifier: GPL-2.0-or-later
"""The ssh case of run.py: an sshd of its own on loopback, and who copies through it."""
import os
import shutil
import subprocess

TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools")

CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {dir}/host
AuthorizedKeysFile {dir}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp
SetEnv HOME={dir}/home
"""

GCM = ("-c", "aes128-gcm@openssh.com")

LIMITS = """  what limits each, on two cores that both ends share:
    libssh2, 1 connection     its cipher: libssh2 1.10 gives libcrypto 16 bytes a call, 2.7 s/GiB with the MAC;
                              and loopback, which wakes both ends of one stream on one core
    libssh2, 2 connections    the cores
    --rsh ssh, scp            OpenSSH's ChaCha20 and Poly1305, on both sides
    --rsh with AES-GCM        the far sshd, in packets of 32 KiB
    zstd                      the cores. CPU seconds of both ends, AES-GCM: the kernel 1.3, zstd 0.4 of the 1.6 that
                              level 1 takes (busy cores make the source leave it to what shrinks to a half), ssh's
                              three key exchanges 0.3, ciphers 0.25, the rest 0.35. libssh2: ciphers and MACs 1.5,
                              the kernel 1.2, zstd 0.7, the rest 0.5, more than two cores have in half of the
                              pipe's time
    50 ms, each stream        sshd's window: 2 MiB a round trip and connection"""


class Ssh:
    """sshd, and contenders that push an image through it; `bench` is run.py's Bench."""

    def __init__(self, bench):
        self.b = bench
        self.dir = bench.path("sshd")
        self.procs = []
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(f"{self.dir}/home")  # an account without start-up files of its shell
        for name in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.dir}/{name}"],
                           check=True)
        self.port = bench.next_port()
        with open(f"{self.dir}/config", "w", encoding="ascii") as f:
            f.write(CONFIG.format(port=self.port, dir=self.dir))
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self.background([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", f"{self.dir}/config"],
                        self.port)
        self.slow_port = bench.next_port()
        self.background([f"{TOOLS}/slow-path.py", str(self.slow_port), str(self.port), "50"],
                        self.slow_port)
        with open(f"{self.dir}/host.pub", encoding="ascii") as f:
            key = " ".join(f.read().split()[:2])
        with open(f"{self.dir}/known_hosts", "w", encoding="ascii") as f:
            for port in (self.port, self.slow_port):
                f.write(f"[127.0.0.1]:{port} {key}\n")

    def background(self, argv, port):
        with open(f"{self.dir}/log", "a", encoding="utf-8") as log:
            self.procs.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self.b.wait_port(port)

    def close(self):
        for p in self.procs:
            p.terminate()
            p.wait()

    def client(self, port_option):
        return ["-F", "none", "-i", f"{self.dir}/key", "-o", "IdentitiesOnly=yes", "-o",
                f"UserKnownHostsFile={self.dir}/known_hosts", "-o", "LogLevel=error", port_option]

    def ssh(self, slow=False, more=()):
        return ["ssh", *more, *self.client("-p"), str(self.slow_port if slow else self.port), "127.0.0.1"]

    # ---- contenders ----

    def out(self):
        return self.b.fresh()[0]

    def migtool(self, image, *options, rsh=None, slow=False):
        out = self.out()
        how = ["-i", f"{self.dir}/key", "-o", f"UserKnownHostsFile={self.dir}/known_hosts"]
        if rsh:
            how = ["--rsh", " ".join(["ssh", *rsh, *self.client("")[:-1]])]
        port = self.slow_port if slow else self.port
        send = self.b.start([self.b.migtool, "send", "-q", "--remote-command", self.b.migtool, *how,
                             *options, image, f"ssh://127.0.0.1:{port}{out}"])
        return self.b.timed([send], {0}, (image, out))

    def multifd(self, image, channels, *options, **kw):
        return self.migtool(image, "--cap", "multifd=on", "--param", f"multifd-channels={channels}",
                            *options, **kw)

    def zstd(self, image, channels, **kw):
        return self.multifd(image, channels, "--param", "multifd-compression=zstd", **kw)

    def pipe(self, command, image):
        out = self.out()
        result = self.b.timed([self.b.start(command.replace("OUT", out))], {0})
        if os.path.getsize(out) != os.path.getsize(image):
            raise SystemExit(f"{command}: the copy differs")
        return result

    def zstd_pipe(self, image, more=(), level="-1"):
        return self.pipe(f"zstd -q {level} -T2 -c {image} | {' '.join(self.ssh(more=more))} "
                         "'zstd -q -d -o OUT'", image)

    def stream(self, image, slow=False):
        return self.pipe(f"{' '.join(self.ssh(slow))} 'cat >OUT' <{image}", image)

    def rsync(self, image):
        return self.pipe(f"rsync -W -e '{' '.join(self.ssh()[:-1])}' {image} 127.0.0.1:OUT", image)

    def scp(self, image):
        client = " ".join(self.client("-P"))
        return self.pipe(f"scp -q {client} {self.port} {image} 127.0.0.1:OUT", image)


def case(bench):
    """Three tables, and what limits."""
    ssh = Ssh(bench)
    try:
        ram, random = bench.guest_ram(), bench.random_image()
        half = bench.path("half.img")
        with open(random, "rb") as f, open(half, "wb") as g:
            g.write(f.read(512 << 20))
        bench.compare("(a) the guest over ssh, compressed", bench.data_gib(ram), [
            ("2 connections, --rsh, aes128-gcm", lambda: ssh.zstd(ram, 2, rsh=GCM)),
            ("migtool multifd zstd, 2 connections", lambda: ssh.zstd(ram, 2)),
            ("migtool multifd zstd, 1 connection", lambda: ssh.zstd(ram, 1)),
            ("zstd -1 -T2 | ssh | zstd -d", lambda: ssh.zstd_pipe(ram)),
            ("the same with fast=5, aes128-gcm", lambda: ssh.zstd_pipe(ram, GCM, "--fast=5")),
            ("rsync -W -e ssh", lambda: ssh.rsync(ram)),
            ("scp", lambda: ssh.scp(ram)),
        ])
        bench.compare("(b) 512 MiB that do not compress, over ssh", 0.5, [
            ("migtool, 1 connection", lambda: ssh.migtool(half)),
            ("migtool multifd, 2 connections", lambda: ssh.multifd(half, 2)),
            ("migtool --rsh ssh", lambda: ssh.migtool(half, rsh=("",))),
            ("migtool --rsh 'ssh -c aes128-gcm'",
             lambda: ssh.migtool(half, rsh=GCM)),
            ("scp", lambda: ssh.scp(half)),
        ])
        bench.compare("(b) the same, 50 ms of round trip", 0.5, [
            ("migtool multifd, 8 connections", lambda: ssh.multifd(half, 8, slow=True)),
            ("migtool multifd, 4 connections", lambda: ssh.multifd(half, 4, slow=True)),
            ("migtool, 1 connection", lambda: ssh.migtool(half, slow=True)),
            ("ssh 'cat >file'", lambda: ssh.stream(half, slow=True)),
        ])
        os.unlink(half)
        print(LIMITS, flush=True)
    finally:
        ssh.close()
