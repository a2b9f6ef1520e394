# SPDX-License-Identifier: GPL-2.0-or-later
"""What one migtool says to another, byte by byte, written down a second time.

The greeting, the additions to QEMU's stream, the messages that come back, multifd's packets. The
default stream is right: one block of SIZE zero bytes, whose digest is known without computing it (a
zero page counts 0).
"""

import json
import sys

sys.dont_write_bytecode = True
import qemu_stream as q  # noqa: E402
from bad_streams import EOS, PAGE, be, block_list, footer, header, last, part, record, start  # noqa: E402

MAGIC = b"migtool\n"
BLOCK = "pc.ram"
SIZE = 8 * q.PAGE
SESSION = "00112233445566778899aabbccddeeff"

RUN, ZERO_RUN = 0x400, 0x800
DEVICE_STATE, DIGEST, COMMIT, FAILED, KEEPALIVE = 0x4001, 0x4002, 0x4003, 0x4004, 0x4005
PAUSED = 0x4009
RP_SHUT, RP_PONG = 1, 2
RP_READY, RP_FAILED, RP_DONE, RP_KEEPALIVE = 0x4001, 0x4002, 0x4003, 0x4004


def frame(text, length=None, magic=MAGIC):
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    return magic + be(len(data) if length is None else length, 4) + data


def greeting(**changes):
    """The greeting's object; None takes a key away, _ stands for -."""
    g = {"version": 1, "program": "migtool 0.1.0", "session": SESSION, "needs": [],
         "features": ["page-runs", "multifd-2"], "capabilities": [],
         "parameters": {"multifd-channels": 2, "multifd-compression": "none"}, "page-size": q.PAGE,
         "blocks": [{"name": BLOCK, "size": SIZE, "page-size": q.PAGE}], "data-bytes": 0,
         "device-state": False, "dry-run": False, "one-way": True}
    g.update({k.replace("_", "-"): v for k, v in changes.items()})
    return {k: v for k, v in g.items() if v is not None}


def command(number, payload=b"", length=None):
    """Ours have a length of four bytes, QEMU's of two."""
    size = 4 if number >= 0x4000 else 2
    return (be(q.COMMAND, 1) + be(number, 2)
            + be(len(payload) if length is None else length, size) + payload)


def message(number, payload=b"", length=None):
    size = 4 if number >= 0x4000 else 2
    return be(number, 2) + be(len(payload) if length is None else length, size) + payload


def reason(text, status=11, hint=""):
    return be(status, 4) + text.encode() + b"\0" + hint.encode()


def zero_run(offset=0, length=SIZE, name=BLOCK):
    return record(ZERO_RUN, offset, name, be(length, 8))


def run(offset=0, pages=1, data=None, name=BLOCK):
    return record(RUN, offset, name, be(pages, 4) + (PAGE * pages if data is None else data))


HEAD = header() + be(q.CONFIGURATION, 1) + be(0, 4)
FLUSH = be(q.FLUSH, 8)
BEGIN = HEAD + start(block_list(((BLOCK, SIZE),)))
ZERO_DIGEST = bytes(40)
END = last() + command(DIGEST, ZERO_DIGEST) + b"\0" + be(q.VMDESCRIPTION, 1) + be(0, 4)
GOOD = BEGIN + part(zero_run()) + END


def with_records(data):
    return BEGIN + part(data) + END


# ---- multifd ----

def hello(channel, session=SESSION, version=2, magic=0x11223344):
    return be(magic, 4) + be(version, 4) + bytes.fromhex(session) + be(channel, 1) + bytes(39)


SYNC, ZLIB, ZSTD = 1, 2, 4


def packet(runs=(), payload=b"", flags=0, block=0, raw=None, number=0, version=2,
           magic=0x11223344, nruns=None, length=None):
    """runs: (offset, pages, is zero)"""
    if raw is None:
        raw = sum(pages for _, pages, zero in runs if not zero) * q.PAGE
    return (be(magic, 4) + be(version, 4) + be(flags, 4) + be(block, 4)
            + be(len(runs) if nruns is None else nruns, 4)
            + be(len(payload) if length is None else length, 4) + be(number, 8) + be(raw, 4)
            + be(0, 4)
            + b"".join(be(o, 8) + be(pages | (zero and 0x80000000), 4) for o, pages, zero in runs)
            + payload)


# ---- reading it ----

class Reader(q.Reader):
    """Walks a one-way stream and notes where the first thing of each kind is."""

    def __init__(self, data):
        super().__init__(data, "stream")
        self.first = {}

    def note(self, what, begin):
        self.first.setdefault(what, (begin, self.pos))

    def walk(self):
        begin = self.pos
        assert self.take(8) == MAGIC
        self.take(self.be32())
        self.note("greeting", begin)
        begin = self.pos
        assert self.take(8) == header()
        self.note("header", begin)
        begin = self.pos
        assert self.u8() == q.CONFIGURATION
        self.take(self.be32())
        self.note("configuration", begin)
        while self.element():
            pass
        return self.first

    def element(self):
        begin = self.pos
        kind = self.u8()
        if kind == q.COMMAND:
            number = self.be16()
            self.take(self.be32() if number >= 0x4000 else self.be16())
            self.note({DEVICE_STATE: "device-state", DIGEST: "digest"}[number], begin)
            return True
        if kind == 0:
            assert self.u8() == q.VMDESCRIPTION and self.be32() == 0
            self.note("end", begin)
            return False
        self.take(4)
        if kind == q.SECTION_START:
            self.counted()
            self.take(8)
        self.note({q.SECTION_START: "start", q.SECTION_PART: "part", q.SECTION_END: "last"}[kind],
                  begin)
        while self.record():
            pass
        begin = self.pos
        assert self.u8() == q.FOOTER
        self.take(4)
        self.note("footer", begin)
        return True

    def record(self):
        begin = self.pos
        word = self.be64()
        flags, left = word & (q.PAGE - 1), word & ~(q.PAGE - 1)
        if flags == q.MEM_SIZE:
            while left:
                self.counted()
                left -= self.be64()
            self.note("block-list", begin)
            return True
        if flags in (q.EOS, q.FLUSH):
            self.note("eos", begin)
            return flags != q.EOS
        if not flags & q.CONTINUE:
            self.counted()
        if flags & RUN:
            self.take(self.be32() * q.PAGE)
        else:
            assert flags & ZERO_RUN
            self.be64()
        self.note("run" if flags & RUN else "zero-run", begin)
        return True
