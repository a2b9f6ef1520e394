#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A peer for migtool, written from migtool-stream(5) and nothing else: if it cannot talk to migtool,
the page or migtool is wrong.

migtool_peer.py receive [OPTION]... ADDRESS DIR     is the destination of a `migtool send`
migtool_peer.py send [OPTION]... ADDRESS DIR        is the source of a `migtool recv`

ADDRESS is a UNIX socket's path, which is dialled or with --listen listened on, or with --one-way a
file. DIR is a directory image: ram/NAME, device-state. What happened goes to stdout as JSON; the
status is 0 if all went as the page says. --wrong WHAT does one thing wrong; `wrong-greeting`,
`wrong-send`, `wrong-send-multifd` and `wrong-receive` list what there is, with the status that
migtool has to end with and words of its message.
"""

import argparse
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

PAGE = 4096
MAGIC = b"migtool\n"
MULTIFD_MAGIC, SYNC, METHODS = 0x11223344, 1, {"none": 0, "zlib": 2, "zstd": 4}
ZERO, MEM_SIZE, PLAIN, EOS, CONTINUE, XBZRLE, COMPRESS, FLUSH, RUN, ZERO_RUN = (
    0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800)
KINDS = {ZERO: "zero", PLAIN: "page", XBZRLE: "xbzrle", COMPRESS: "compress", FLUSH: "flush",
         RUN: "run", ZERO_RUN: "zero-run", MEM_SIZE: "mem-size"}
DEVICE_STATE, DIGEST, COMMIT, FAILED, KEEPALIVE = 0x4001, 0x4002, 0x4003, 0x4004, 0x4005
RP_PONG, RP_READY, RP_FAILED, RP_DONE, RP_KEEPALIVE = 2, 0x4001, 0x4002, 0x4003, 0x4004


class PeerError(Exception):
    pass


def be(value, size):
    return value.to_bytes(size, "big")


def string(text):
    data = text.encode()
    return be(len(data), 1) + data


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


XXHASH = ctypes.CDLL("libxxhash.so.0").XXH3_128bits_withSeed
XXHASH.restype = Hash128
XXHASH.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def hash128(data):
    data = bytes(data)
    h = XXHASH(data, len(data), 0x6D6967746F6F6C31)
    return be(h.high, 8) + be(h.low, 8)


def term(name, offset, page):
    return hash128(hash128(page) + hash128(name.encode()) + be(offset, 8))


def memory_digest(blocks):
    total = 0
    for name, memory in blocks.items():
        for at in range(0, len(memory), 4096):
            if any(page := memory[at:at + 4096]):
                total += int.from_bytes(term(name, at, page), "big")
    return be(total % (1 << 128), 16)


def digest_payload(blocks, state):
    """DIGEST's and READY's 40 bytes; `state` is None without a device state."""
    return memory_digest(blocks) + (bytes(24) if state is None
                                    else hash128(state) + be(len(state), 8))


def load_image(directory):
    blocks = {}
    for name in sorted(os.listdir(os.path.join(directory, "ram"))):
        with open(os.path.join(directory, "ram", name), "rb") as f:
            blocks[urllib.parse.unquote(name)] = f.read()
    path = os.path.join(directory, "device-state")
    state = None
    if os.path.exists(path):
        with open(path, "rb") as f:
            state = f.read()
    return blocks, state


def save_image(directory, blocks, state):
    os.makedirs(os.path.join(directory, "ram"))
    for name, memory in blocks.items():
        name = urllib.parse.quote(name, safe="")
        name = "%2E" + name[1:] if name.startswith(".") else name
        with open(os.path.join(directory, "ram", name), "wb") as f:
            f.write(memory)
    if state is not None:
        with open(os.path.join(directory, "device-state"), "wb") as f:
            f.write(state)


def zstd(data, *args):
    return subprocess.run(["zstd", "-cq", *args], input=data, stdout=subprocess.PIPE,
                          check=True).stdout


class Wire:
    """One connection, or a file."""

    def __init__(self, sock=None, path=None, mode=None):
        self.sock = sock
        self.file = sock.makefile("rwb") if sock else open(path, mode)
        self.frame = b""  # the last one

    def put(self, data):
        self.file.write(data)
        self.file.flush()

    def take(self, count):
        data = self.file.read(count)
        if len(data) != count:
            raise PeerError(f"the peer closed: {count} bytes wanted, {len(data)} came")
        return data

    def at_end(self):
        return self.file.read(1) == b""

    def u8(self):
        return self.take(1)[0]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def string(self):
        return self.take(self.u8()).decode()

    def expect(self, what, found, wanted):
        if found != wanted:
            raise PeerError(f"{what} is {found!r}, the page says {wanted!r}")

    def put_frame(self, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.put(MAGIC + be(len(data), 4) + data)

    def get_frame(self):
        self.expect("magic", self.take(8), MAGIC)
        size = self.take(4)
        data = self.take(int.from_bytes(size, "big"))
        self.frame = MAGIC + size + data
        return json.loads(data)

    def put_message(self, kind, payload=b""):
        self.put(be(kind, 2) + be(len(payload), 4 if kind >= 0x4000 else 2) + payload)

    def get_message(self):
        """(type, payload) of the next message of the destination's that is no KEEPALIVE."""
        while True:
            kind = self.number(2)
            payload = self.take(self.number(4 if kind >= 0x4000 else 2))
            if kind != RP_KEEPALIVE:
                return kind, payload
            self.expect("length of KEEPALIVE", len(payload), 8)


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    return sock


def first_packet(session, number):
    return be(MULTIFD_MAGIC, 4) + be(2, 4) + session + be(number, 1) + bytes(39)


class Peer:
    """What both roles share: connections, and the record of what happened."""

    def __init__(self, args):
        self.args, self.wrong = args, args.wrong
        self.summary = {}
        self.session = None
        self.listener = None
        self.main = None

    def open_main(self, mode):
        args = self.args
        if args.one_way:
            self.main = Wire(path=args.address, mode=mode)
            return
        if args.listen:
            self.listener = socket.socket(socket.AF_UNIX)
            # whoever sees the name can connect
            self.listener.bind(args.address + ".new")
            self.listener.listen(300)
            os.rename(args.address + ".new", args.address)
            self.listener.settimeout(60)
            self.main = Wire(self.accept())
        else:
            self.main = Wire(connect(args.address))

    def accept(self):
        sock, _ = self.listener.accept()
        sock.settimeout(60)
        return sock

    def open_channels(self, numbers):
        """Channels by number; whoever dialled the main connection dials them."""
        channels = {}
        for i in numbers:
            if self.listener:
                wire = Wire(self.accept())
                wire.expect("channel's magic", wire.number(4), MULTIFD_MAGIC)
                wire.expect("channel's version", wire.number(4), 2)
                wire.expect("session id", wire.take(16), self.session)
                i = wire.u8()
                wire.expect("rest of a first packet", wire.take(39), bytes(39))
                if i in channels or i not in numbers:
                    raise PeerError(f"channel {i} came")
            else:
                wire = Wire(connect(self.args.address))
                wire.put(first_packet(self.session, i))
            channels[i] = wire
        return channels


# ---- the destination ----

# What `migtool send` has to end with, and words of its message.
RECEIVE_WRONG = {
    "refuse": (5, "no room\\x0afor \u00e9"),
    "silent": (30, "does not answer the greeting"),
    "close": (10, "no answer to the greeting"),
    "answer-version": (2, "version 2"),
    "answer-no-object": (2, "no JSON object"),
    "answer-no-magic": (2, "no migtool: it says \"HTTP/1.1\""),
    "answer-too-long": (12, "1048577 bytes"),
    "no-channels": (12, "0 multifd channels"),
    "full": (11, "the disk is \\x1b[31mfull"),
    "other-ready": (13, "differs from ours"),
    "unknown-message": (12, "0x4321"),
    "wrong-length": (12, "READY has 39 bytes"),
    "no-done": (50, "COMMIT was sent and not answered"),
    "close-early": (10, "unix:"),
}


class Destination(Peer):
    def __init__(self, args):
        super().__init__(args)
        self.blocks, self.names, self.state = {}, [], None
        self.block = None
        self.features = []
        self.channels = {}
        self.lock = threading.Condition()
        self.synced = self.released = 0
        self.trouble = None
        self.summary.update(records={k: 0 for k in KINDS.values()}, packets=0, sections="")

    def run(self):
        self.open_main("rb")
        if not self.args.listen and not self.args.one_way:
            self.main.put(first_packet(bytes(16), 255))
        greeting = self.greet()
        self.header(greeting)
        self.summary["channels"] = len(self.channels)
        while self.element():
            pass
        digest = digest_payload(self.blocks, self.state)
        self.main.expect("DIGEST", self.digest, digest)
        if not greeting.get("one-way"):
            self.finish(digest)
        self.main.expect("end of the stream", self.main.at_end(), True)
        save_image(self.args.image, self.blocks, self.state)

    def greet(self):
        main, wrong = self.main, self.wrong
        greeting = self.summary["greeting"] = main.get_frame()
        main.expect("version", greeting["version"], 1)
        main.expect("needs", greeting.get("needs") or [], [])
        self.session = bytes.fromhex(greeting["session"])
        main.expect("length of the session id", len(self.session), 16)
        self.page = greeting.get("page-size") or 4096
        for block in greeting["blocks"]:
            self.names.append(block["name"])
            self.blocks[block["name"]] = bytearray(block["size"])
        self.features = [f for f in self.args.features if f in greeting["features"]]
        announced = greeting["parameters"]["multifd-channels"]
        count = min(self.args.channels or announced, announced)
        if greeting.get("one-way"):
            self.features = greeting["features"]
            return greeting
        for _ in range(self.args.waits):
            main.put_frame({"version": 1, "wait": True})
            time.sleep(0.2)
        if wrong == "silent":
            main.at_end()
        if wrong in ("silent", "close"):
            raise PeerError("on purpose")
        answer = {"version": 2 if wrong == "answer-version" else 1, "program": "a peer", "take": True,
                  "features": self.features + ["unheard-of"], "unheard-of": 1,
                  "parameters": {"multifd-channels": 0 if wrong == "no-channels" else count}}
        if wrong == "refuse":
            answer = {"version": 1, "take": False, "status": 4, "hint": "tidy \x1b[31mup",
                      "reason": "no room\nfor \u00e9"}
        if wrong == "answer-no-object":
            answer = [answer]
        if wrong == "answer-too-long":
            main.put(MAGIC + be((1 << 20) + 1, 4))
        elif wrong == "answer-no-magic":
            main.put(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            main.put_frame(answer)
        if "multifd" in greeting["capabilities"] and wrong is None and not greeting.get("dry-run"):
            self.channels = self.open_channels(range(count))
            self.method = greeting["parameters"]["multifd-compression"]
            for wire in self.channels.values():
                threading.Thread(target=self.channel, args=(wire,), daemon=True).start()
        return greeting

    def header(self, greeting):
        main = self.main
        main.expect("magic", main.take(4), b"QEVM")
        main.expect("version", main.number(4), 3)
        main.expect("element", main.u8(), 7)
        main.expect("machine", main.take(main.number(4)).decode(), greeting.get("machine") or "")
        self.with_gpa, bits = False, 12
        while (kind := main.u8()) == 5:
            name = main.string()
            main.expect("subsection's version", main.number(4), 1)
            if name == "configuration/target-page-bits":
                bits = main.number(4)
            elif name == "configuration/capabilities":
                names = [main.string() for _ in range(main.number(4))]
                main.expect("capabilities", names, ["x-ignore-shared"])
                self.with_gpa = True
            elif name == "configuration/uuid":
                main.expect("uuid", main.take(16).hex(), greeting["uuid"].replace("-", ""))
            else:
                raise PeerError(f"subsection {name}")
        main.expect("page", 1 << bits, self.page)
        self.next = kind

    def element(self):
        """False behind the end."""
        main = self.main
        kind, self.next = self.next, None
        if kind is None:
            kind = main.u8()
        if kind == 8:
            self.command()
        elif kind in (1, 2, 3):
            self.section(kind)
        elif kind == 0:
            main.expect("sections", self.summary["sections"].replace("p", ""), "se")
            main.expect("description", main.u8(), 6)
            main.take(main.number(4))
            return False
        else:
            raise PeerError(f"element {kind:#x}")
        return True

    def command(self):
        main = self.main
        number = main.number(2)
        payload = main.take(main.number(4 if number >= 0x4000 else 2))
        if number == DEVICE_STATE:
            self.state = (self.state or b"") + payload
        elif number == DIGEST:
            self.digest = payload
        elif number == FAILED:
            self.summary["failed"] = failure(payload)
            raise PeerError("the source failed")
        elif number != KEEPALIVE:
            raise PeerError(f"command {number:#x}")

    def section(self, kind):
        main = self.main
        self.summary["sections"] += " spe"[kind]
        number = main.number(4)
        if kind == 1:
            self.ram = number
            main.expect("section", main.string(), "ram")
            main.expect("instance", main.number(4), 0)
            main.expect("version", main.number(4), 4)
        main.expect("section's number", number, self.ram)
        while self.record():
            if self.wrong == "full" and self.summary["records"]["run"]:
                main.put_message(RP_FAILED, be(11, 4) + "the disk is \x1b[31mfull".encode())
                raise PeerError("on purpose")
            if self.wrong == "close-early" and self.summary["records"]["run"]:
                raise PeerError("on purpose")
        main.expect("footer", main.u8(), 0x7E)
        main.expect("footer's section", main.number(4), number)

    def record(self):
        main = self.main
        word = main.number(8)
        offset, flags = word & ~(self.page - 1), word & (self.page - 1)
        if flags == EOS:
            main.expect("EOS' offset", offset, 0)
            return False
        kind = flags & ~CONTINUE
        if kind not in KINDS:
            raise PeerError(f"record flags {flags:#x}")
        self.summary["records"][KINDS[kind]] += 1
        if flags == FLUSH:
            self.barrier()
        elif flags == MEM_SIZE:
            for name in self.names:
                main.expect("block", main.string(), name)
                main.expect("size", main.number(8), len(self.blocks[name]))
                offset -= len(self.blocks[name])
                if self.with_gpa:
                    main.number(8)
            main.expect("rest of the block list", offset, 0)
        else:
            if not flags & CONTINUE:
                self.block = main.string()
            self.place(self.blocks[self.block], offset, self.payload(kind, offset))
        return True

    def payload(self, kind, offset):
        main = self.main
        if kind == ZERO:
            main.expect("fill byte", main.u8(), 0)
            return bytes(self.page)
        if kind == PLAIN:
            return main.take(self.page)
        if kind == COMPRESS:
            page = zlib.decompress(main.take(main.number(4)))
            main.expect("length of a page", len(page), self.page)
            return page
        if kind == XBZRLE:
            main.expect("xbzrle", main.u8(), 1)
            delta = main.take(main.number(2))
            return apply_delta(self.blocks[self.block][offset:offset + self.page], delta)
        if "page-runs" not in self.features:
            raise PeerError(f"a {KINDS[kind]} without its feature")
        return main.take(main.number(4) * self.page) if kind == RUN else bytes(main.number(8))

    def place(self, memory, offset, data):
        if not data or len(data) % self.page or offset + len(data) > len(memory):
            raise PeerError(f"{len(data)} bytes at {offset:#x} of {len(memory):#x}")
        memory[offset:offset + len(data)] = data

    # -- channels --

    def barrier(self):
        with self.lock:
            while self.synced < len(self.channels):
                if self.trouble or not self.lock.wait(60):
                    raise PeerError(f"no SYNC: {self.trouble}")
            self.synced = 0
            self.released += 1
            self.lock.notify_all()

    def channel(self, wire):
        try:
            decoder = zlib.decompressobj()
            while not wire.file.closed:
                magic = wire.file.read(4)
                if magic == b"":
                    return
                wire.expect("packet's magic", int.from_bytes(magic, "big"), MULTIFD_MAGIC)
                version = wire.number(4)
                wire.expect("version", version, 2 if "multifd-2" in self.features else 1)
                flags = self.packet_v2(wire) if version == 2 else self.packet_v1(wire, decoder)
                with self.lock:
                    self.summary["packets"] += 1
                    if flags & SYNC:
                        mine = self.released
                        self.synced += 1
                        self.lock.notify_all()
                        self.lock.wait_for(lambda: self.released > mine)
        except (PeerError, zlib.error, OSError, subprocess.CalledProcessError) as e:
            self.trouble = e
            with self.lock:
                self.lock.notify_all()

    def packet_v2(self, wire):
        flags, index, runs, size, _, raw, _ = (wire.number(n) for n in (4, 4, 4, 4, 8, 4, 4))
        if runs > 256 or raw > 524288 or size > raw or (raw and not size):
            raise PeerError(f"packet of {runs} runs, {size} bytes for {raw}")
        runs = [(wire.number(8), wire.number(4)) for _ in range(runs)]
        pages = wire.take(size)
        method = flags & ~SYNC
        if method:
            wire.expect("method", method, METHODS[self.method])
            pages = zlib.decompress(pages) if method == 2 else zstd(pages, "-d")
        wire.expect("bytes of pages", len(pages), raw)
        memory = self.blocks[self.names[index]] if runs else None
        for offset, count in runs:
            size = (count & 0x7FFFFFFF) * self.page
            if count & 0x80000000:
                self.place(memory, offset, bytes(size))
            else:
                self.place(memory, offset, pages[:size])
                pages = pages[size:]
        wire.expect("pages left over", pages, b"")
        return flags

    def packet_v1(self, wire, decoder):
        flags, most, count, size, _, zeros = (wire.number(n) for n in (4, 4, 4, 4, 8, 4))
        wire.take(28)
        name = wire.take(256).rstrip(b"\0").decode()
        room = 524288 // self.page
        offsets = [wire.number(8) for _ in range(room)]
        if most > room or count + zeros > most:
            raise PeerError(f"packet of {count} and {zeros} of {most} pages")
        if count:
            wire.expect("method", flags & ~SYNC, METHODS[self.method])
            pages = wire.take(size)
            if self.method == "zlib":
                pages = decoder.decompress(pages)
            elif self.method == "zstd":
                raise PeerError("this peer cannot follow a zstd frame over packets")
            wire.expect("bytes of pages", len(pages), count * self.page)
            for i in range(count):
                self.place(self.blocks[name], offsets[i],
                           pages[i * self.page:(i + 1) * self.page])
        for offset in offsets[count:count + zeros]:
            self.place(self.blocks[name], offset, bytes(self.page))
        return flags

    # -- the end --

    def finish(self, digest):
        main, wrong = self.main, self.wrong
        main.put_message(RP_KEEPALIVE, bytes(8))
        if wrong == "unknown-message":
            main.put_message(0x4321)
        if wrong == "wrong-length":
            main.put_message(RP_READY, digest[:39])
        if wrong == "other-ready":
            digest = bytes([digest[0] ^ 1]) + digest[1:]
        main.put_message(RP_READY, digest)
        main.expect("element", main.u8(), 8)
        main.expect("command", main.number(2), COMMIT)
        main.expect("length of COMMIT", main.number(4), 0)
        if wrong == "no-done":
            raise PeerError("on purpose")
        main.put_message(RP_DONE)


def apply_delta(page, delta):
    page, at, i, first = bytearray(page), 0, 0, True

    def count():
        nonlocal i
        value = delta[i]
        i += 1
        if value & 0x80:
            value = value & 0x7F | delta[i] << 7
            i += 1
        return value

    while i < len(delta):
        same = count()
        fresh = count()
        if (same == 0 and not first) or fresh == 0 or at + same + fresh > len(page):
            raise PeerError("a delta that is none")
        at += same
        page[at:at + fresh] = delta[i:i + fresh]
        at, i, first = at + fresh, i + fresh, False
    if i != len(delta):
        raise PeerError("a delta that is cut")
    return bytes(page)


def failure(payload):
    reason, _, hint = payload[4:].partition(b"\0")
    return {"status": int.from_bytes(payload[:4], "big"), "reason": reason.decode(),
            "hint": hint.decode()}


# ---- the source ----

# What `migtool recv` refuses or ends with, and words of its message.
GREETING_WRONG = {
    "need": (2, "needs 'time-travel'"),
    "version": (2, "version 2"),
    "capability": (2, "'time-travel'"),
    "compression": (2, "compresses with"),
    "no-json": (2, "no JSON object"),
    "twice": (2, "no JSON object"),
    "no-session": (12, "session id"),
    "no-blocks": (12, "no block"),
    "block-size": (12, "multiple of the page"),
    "block-page": (12, "power of two"),
    "block-twice": (12, "stands twice"),
    "gpa": (12, "gpa"),
    "page-size": (12, "page size"),
    "uuid": (12, "uuid"),
}
SEND_WRONG = {
    "page-bits": (12, "greeting said 4096"),
    "other-name": (12, "not the one of the greeting"),
    "other-size": (12, "not the one of the greeting"),
    "fewer-blocks": (12, "the greeting said"),
    "unknown-block": (12, "unknown block"),
    "beyond": (12, "beyond its end"),
    "no-pages": (12, "a run of no pages"),
    "odd-zeros": (12, "multiple of the page"),
    "two-flags": (12, "not understood"),
    "device": (12, "0x04"),
    "command": (12, "0x4abc"),
    "part-after-end": (12, "behind the last one"),
    "commit-early": (12, "COMMIT"),
    "no-end": (12, "before the memory did"),
    "no-digest": (12, "without a digest"),
    "other-digest": (13, "digest"),
    "other-state": (13, "device state"),
    "state-late": (50, "instead of COMMIT"),
    "failed": (5, "it changed \\x1b[31mat once"),
    "cut": (10, "ended"),
    "silent": (30, "nothing moved"),
    "no-commit": (50, "COMMIT did not come"),
}
SEND_WRONG_MULTIFD = {
    "channel-twice": (12, "came twice"),
    "channel-number": (12, "channel 2 came"),
    "channel-missing": (30, "multifd channels came"),
    "packet-magic": (12, "magic"),
    "packet-block": (12, "block 77"),
    "packet-beyond": (12, "channel"),
    "packet-raw": (12, "at most 524288"),
    "packet-runs": (12, "257 runs"),
    "packet-method": (12, "method"),
    "packet-flags": (12, "flags"),
    "packet-sum": (12, "header says"),
    "no-sync": (10, "before its SYNC"),
}


class Source(Peer):
    def run(self):
        self.open_main("wb")
        main = self.main
        if self.args.listen:
            main.expect("first packet", main.take(8), be(MULTIFD_MAGIC, 4) + be(2, 4))
            main.expect("rest of it", main.take(56)[16:], b"\xff" + bytes(39))
        self.blocks, self.state = load_image(self.args.image)
        self.names = list(self.blocks)
        self.session = os.urandom(16)
        self.block, self.packets = None, 0
        try:
            if self.greet():
                self.stream()
        except (BrokenPipeError, ConnectionResetError):
            pass
        if not self.args.one_way:
            try:
                main.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self.last_words()
        self.summary["digest"] = digest_payload(self.blocks, self.state).hex()

    def greet(self):
        main, wrong, args = self.main, self.wrong, self.args
        blocks = [{"name": n, "size": len(m), "page-size": 4096, "unheard-of": {}}
                  for n, m in self.blocks.items()]
        capabilities = ["multifd"] if args.channels else []
        greeting = {"version": 1, "session": self.session.hex(), "blocks": blocks, "needs": [],
                    "features": args.features + ["unheard-of"], "capabilities": capabilities,
                    "device-state": self.state is not None, "machine": None, "one-way": args.one_way,
                    "parameters": {"multifd-channels": args.channels or 2,
                                   "multifd-compression": args.method, "unheard-of": [1]},
                    "unheard-of": "and ignored", "dry-run": args.dry_run}
        spoil = {"need": {"needs": ["time-travel"]}, "version": {"version": 2},
                 "capability": {"capabilities": ["time-travel"]},
                 "compression": {"parameters": {"multifd-compression": "\x1b[31m"}},
                 "no-session": {"session": None}, "no-blocks": {"blocks": []},
                 "block-size": {"blocks": [{"name": "a", "size": 4097}]},
                 "block-page": {"blocks": [{"name": "a", "size": 4096, "page-size": 5000}]},
                 "block-twice": {"blocks": blocks + blocks[:1]},
                 "gpa": {"blocks": [{"name": "a", "size": 4096, "gpa": "0x-1"}]},
                 "page-size": {"page-size": 2048}, "uuid": {"uuid": "no"}}
        greeting.update(spoil.get(wrong, {}))
        if wrong == "no-json":
            main.put_frame(b"[1]")
        elif wrong == "twice":
            main.put_frame(b'{"version":1,' + json.dumps(greeting).encode()[1:])
        else:
            main.put_frame(greeting)
        self.features = args.features
        if args.one_way:
            return True
        waits = 0
        while (answer := main.get_frame()).get("wait"):
            waits += 1
        self.summary.update(answer=answer, waits=waits)
        if not answer["take"] or args.dry_run:
            return False
        self.features = answer["features"]
        main.expect("features", [f for f in self.features if f not in args.features], [])
        self.count = answer["parameters"]["multifd-channels"]
        return True

    def stream(self):
        args, wrong, main = self.args, self.wrong, self.main
        main.put(b"QEVM" + be(3, 4) + be(7, 1) + be(0, 4))
        if wrong == "page-bits":
            main.put(be(5, 1) + string("configuration/target-page-bits") + be(1, 4) + be(14, 4))
        if args.strangers:
            self.strangers()
        self.channels = self.open_source_channels() if args.channels else {}
        self.put_command(KEEPALIVE)
        self.put_section(1, self.block_list() + self.barrier())
        if wrong == "silent":
            self.last_words()
            return
        if wrong == "failed":
            self.put_command(FAILED, be(4, 4) + b"it changed \x1b[31mat once\0do not")
        if wrong == "device":
            main.put(be(4, 1) + be(9, 4) + string("timer") + be(0, 4) + be(2, 4))
        if wrong == "command":
            self.put_command(0x4ABC)
        if wrong == "commit-early":
            self.put_command(COMMIT)
        self.put_memory()
        if wrong == "cut":
            main.put(be(2, 1) + be(77, 4) + be(0, 4))
            main.sock.shutdown(socket.SHUT_WR)
            return
        if wrong != "no-end":
            self.put_section(3, b"")
        if wrong == "part-after-end":
            self.put_section(2, b"")
        self.put_end()

    def open_source_channels(self):
        numbers = {"channel-missing": [0], "channel-twice": [0, 0], "channel-number": [0, 2]}
        return self.open_channels(numbers.get(self.wrong, range(self.count)))

    def strangers(self):
        """Connections that are none of ours, before ours."""
        self.others = []
        for data in (first_packet(os.urandom(16), 0), first_packet(self.session[::-1], 1),
                     first_packet(bytes(16), 255), b"QEVM" + be(3, 4), MAGIC + be(2, 4) + b"{}",
                     b"GET / HTTP/1.1\r\n\r\n", be(MULTIFD_MAGIC, 4)):
            sock = connect(self.args.address)
            sock.sendall(data)
            self.others.append(sock)

    def put_section(self, kind, data):
        head = be(kind, 1) + be(77, 4)
        if kind == 1:
            head += string("ram") + be(0, 4) + be(4, 4)
        self.main.put(head + data + be(EOS, 8) + b"\x7e" + be(77, 4))

    def put_command(self, number, payload=b""):
        self.main.put(be(8, 1) + be(number, 2) + be(len(payload), 4) + payload)

    def block_list(self):
        wrong = self.wrong
        names, sizes = self.names[:], [len(m) for m in self.blocks.values()]
        if wrong == "other-name":
            names[-1] += "x"
        if wrong == "other-size":
            sizes[-1] += PAGE
        if wrong == "fewer-blocks":
            sizes.pop()
        return be(sum(sizes) | MEM_SIZE, 8) + b"".join(
            string(n) + be(s, 8) for n, s in zip(names, sizes))

    def record(self, flags, offset, name, payload):
        same = name == self.block
        self.block = name
        return be(offset | flags | (CONTINUE if same else 0), 8) + (
            b"" if same else string(name)) + payload

    def runs(self, name):
        """(offset, length, is zero) of the block's runs."""
        memory, start = self.blocks[name], 0
        for at in range(PAGE, len(memory) + PAGE, PAGE):
            zero = not any(memory[start:start + PAGE])
            if at >= len(memory) or zero == any(memory[at:at + PAGE]) or at - start >= 1 << 19:
                yield start, min(at, len(memory)) - start, zero
                start = at

    def put_memory(self):
        for name in self.names:
            data = self.spoilt_record(name)
            for offset, length, zero in self.runs(name):
                if self.channels and (not zero or "multifd-2" in self.features):
                    self.put_packet(name, offset, length, zero)
                else:
                    data += self.memory_records(name, offset, length, zero)
            if name == self.names[-1]:
                data += self.barrier()
            self.put_section(2, data)

    def memory_records(self, name, offset, length, zero):
        memory = self.blocks[name]
        if "page-runs" in self.features:
            if zero:
                return self.record(ZERO_RUN, offset, name, be(length, 8))
            # a run and a single page, to have both
            out = self.record(PLAIN, offset, name, memory[offset:offset + PAGE])
            rest = memory[offset + PAGE:offset + length]
            if rest:
                out += self.record(RUN, offset + PAGE, name, be(len(rest) // PAGE, 4) + rest)
            return out
        return b"".join(self.record(ZERO, at, name, b"\0") if zero else
                        self.record(PLAIN, at, name, memory[at:at + PAGE])
                        for at in range(offset, offset + length, PAGE))

    def spoilt_record(self, name):
        size = len(self.blocks[name])
        spoilt = {"unknown-block": lambda: self.record(PLAIN, 0, "unheard-of", bytes(PAGE)),
                  "beyond": lambda: self.record(RUN, size - PAGE, name, be(2, 4)),
                  "no-pages": lambda: self.record(RUN, 0, name, be(0, 4)),
                  "odd-zeros": lambda: self.record(ZERO_RUN, 0, name, be(1, 8)),
                  "two-flags": lambda: self.record(RUN | PLAIN, 0, name, be(1, 4))}
        return spoilt[self.wrong]() if self.wrong in spoilt else b""

    def put_packet(self, name, offset, length, zero):
        wire = list(self.channels.values())[self.packets % len(self.channels)]
        self.packets += 1
        raw = b"" if zero else self.blocks[name][offset:offset + length]
        if "multifd-2" in self.features:
            wire.put(self.packet_v2(name, offset, length, raw))
        else:
            wire.put(self.packet_v1(wire, name, offset, raw))

    def packet_v2(self, name, offset, length, raw):
        wrong, method, payload = self.wrong, 0, raw
        if raw and self.args.method == "zlib":
            payload = zlib.compress(raw)
        elif raw and self.args.method == "zstd":
            payload = zstd(raw, "--stream-size=%d" % len(raw), "--no-check")
        if len(payload) < len(raw):
            method = METHODS[self.args.method]
        else:
            payload = raw
        flags = {"packet-method": 4, "packet-flags": 0x40}.get(wrong, method)
        index = 77 if wrong == "packet-block" else self.names.index(name)
        magic = 77 if wrong == "packet-magic" else MULTIFD_MAGIC
        size = {"packet-raw": 524289, "packet-sum": raw and len(raw) + PAGE or 0}.get(wrong, len(raw))
        if wrong == "packet-beyond":
            offset = len(self.blocks[name])
        return (be(magic, 4) + be(2, 4) + be(flags, 4) + be(index, 4)
                + be(257 if wrong == "packet-runs" else 1, 4) + be(len(payload), 4)
                + be(self.packets, 8) + be(size, 4) + be(0, 4) + be(offset, 8)
                + be(length // PAGE | (0 if raw else 0x80000000), 4) + payload)

    def packet_v1(self, wire, name, offset, raw):
        offsets = range(offset, offset + len(raw), PAGE)
        payload = raw
        if self.args.method == "zlib":
            if not hasattr(wire, "encoder"):
                wire.encoder = zlib.compressobj(1)
            payload = wire.encoder.compress(raw) + wire.encoder.flush(zlib.Z_SYNC_FLUSH)
        return self.header_v1(METHODS[self.args.method], name, offsets, payload) + payload

    def header_v1(self, flags, name="", offsets=(), payload=b""):
        rest = b"".join(be(o, 8) for o in offsets)
        return (be(MULTIFD_MAGIC, 4) + be(1, 4) + be(flags, 4) + be(128, 4) + be(len(offsets), 4)
                + be(len(payload), 4) + be(self.packets, 8) + bytes(32)
                + name.encode().ljust(256, b"\0") + rest.ljust(1024, b"\xaa"))

    def barrier(self):
        """SYNC on each channel; the record for the main connection."""
        if not self.channels:
            return b""
        for number, wire in self.channels.items():
            if self.wrong == "no-sync" and number == 0 and self.packets:
                wire.sock.shutdown(socket.SHUT_WR)
            elif "multifd-2" in self.features:
                wire.put(be(MULTIFD_MAGIC, 4) + be(2, 4) + be(SYNC, 4) + bytes(28))
            else:
                wire.put(self.header_v1(SYNC))
        return be(FLUSH, 8)

    def put_end(self):
        wrong, main = self.wrong, self.main
        if self.state is not None:
            for at in range(0, len(self.state) or 1, 1000):
                self.put_command(DEVICE_STATE, self.state[at:at + 1000])
        digest = digest_payload(self.blocks, self.state)
        if wrong == "other-digest":
            digest = bytes([digest[0] ^ 1]) + digest[1:]
        if wrong == "other-state":
            digest = digest[:-1] + bytes([digest[-1] ^ 1])
        if wrong != "no-digest":
            self.put_command(DIGEST, digest)
        main.put(be(0, 1) + be(6, 1) + be(3, 4) + b"any")
        if self.args.one_way:
            main.file.close()
            return
        kind, payload = main.get_message()
        if kind == RP_FAILED:
            self.summary["failed"] = failure(payload)
            return
        main.expect("type", kind, RP_READY)
        main.expect("READY", payload, digest)
        words = be(kind, 2) + be(len(payload), 4) + payload
        if wrong == "no-commit":
            return
        if wrong == "state-late":
            self.put_command(DEVICE_STATE, b"late")
        self.put_command(KEEPALIVE)
        self.put_command(COMMIT)
        kind, payload = main.get_message()
        main.expect("type", kind, RP_DONE)
        main.expect("length of DONE", len(payload), 0)
        self.summary["done"] = True
        if self.args.record:
            words += be(8, 1) + be(COMMIT, 2) + be(0, 4) + be(kind, 2) + be(0, 4)
            with open(self.args.record + ".answer", "wb") as f:
                f.write(main.frame)
            with open(self.args.record + ".end", "wb") as f:
                f.write(words)
        main.expect("end of the stream", main.at_end(), True)

    def last_words(self):
        """What a destination that failed said while we were writing."""
        try:
            while "failed" not in self.summary and "done" not in self.summary:
                kind, payload = self.main.get_message()
                if kind == RP_FAILED:
                    self.summary["failed"] = failure(payload)
        except (PeerError, OSError):
            pass


WRONG = {"wrong-greeting": GREETING_WRONG, "wrong-send": SEND_WRONG,
         "wrong-send-multifd": SEND_WRONG_MULTIFD,
         "wrong-receive": RECEIVE_WRONG}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("role", choices=("send", "receive", "term", *WRONG))
    parser.add_argument("address", nargs="?")
    parser.add_argument("image", nargs="?")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--one-way", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--features", default="page-runs,multifd-2",
                        type=lambda s: s.split(",") if s else [])
    parser.add_argument("--channels", type=int, default=0)
    parser.add_argument("--method", choices=tuple(METHODS), default="none")
    parser.add_argument("--strangers", action="store_true")
    parser.add_argument("--waits", type=int, default=0)
    parser.add_argument("--record", metavar="FILE",
                        help="the answer's bytes to FILE.answer, the last words to FILE.end")
    parser.add_argument("--wrong", metavar="WHAT",
                        choices=[name for table in WRONG.values() for name in table])
    return parser.parse_intermixed_args()


def main():
    args = arguments()
    if args.role in WRONG:
        for name, (status, words) in WRONG[args.role].items():
            print(name, status, words, sep="\t")
        return
    if args.role == "term":  # FILE OFFSET: the term of the page there in pc.ram
        with open(args.address, "rb") as f:
            f.seek(int(args.image, 0))
            print(term("pc.ram", int(args.image, 0), f.read(4096)).hex())
        return
    peer = (Source if args.role == "send" else Destination)(args)
    try:
        peer.run()
    except (PeerError, OSError, KeyError, ValueError) as e:
        peer.summary["error"] = f"{type(e).__name__}: {e}"
    print(json.dumps(peer.summary))
    sys.stdout.flush()
    os._exit("error" in peer.summary)


if __name__ == "__main__":
    main()
