#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes streams that a receiver has to refuse, and a few odd ones that it has to take.

bad_streams.py GOLDEN DIR

GOLDEN is the directory of golden streams. Each case becomes DIR/NAME.stream; DIR/cases lists them,
a line each: name, exit status (several that may be: with commas), words that the message has to
contain. Two sorts: a small stream built here with one thing wrong in it, and a golden stream that is
cut inside the first element or record of each kind. DIR/packets is the same for multifd: each
DIR/NAME.channel is to be played instead of multifd-none's channel 0.
"""

import os
import subprocess
import sys
import zlib

sys.dont_write_bytecode = True
import qemu_stream as q  # noqa: E402 (no __pycache__ in the source tree)

SIZE = 4 * q.PAGE
PAGE = bytes(range(256)) * 16
BLOCK = "pc.ram"
RAM_ID = 2


def be(value, size):
    return value.to_bytes(size, "big")


def counted(name):
    return be(len(name), 1) + name.encode()


def header(magic=b"QEVM", version=3):
    return magic + be(version, 4)


def configuration(machine=b"pc-i440fx-7.2", length=None, rest=b""):
    return be(q.CONFIGURATION, 1) + be(len(machine) if length is None else length, 4) + machine + rest


def footer(number=RAM_ID, kind=q.FOOTER):
    return be(kind, 1) + be(number, 4)


def record(flags, offset=0, name=BLOCK, payload=b""):
    return be(offset | flags, 8) + (b"" if flags & q.CONTINUE else counted(name)) + payload


EOS = be(q.EOS, 8)


def block_list(blocks=((BLOCK, SIZE),), total=None):
    if total is None:
        total = sum(size for _, size in blocks)
    return be(total | q.MEM_SIZE, 8) + b"".join(counted(n) + be(s, 8) for n, s in blocks)


def start(data=None, idstr="ram", instance=0, version=4, end=EOS + footer()):
    return (be(q.SECTION_START, 1) + be(RAM_ID, 4) + counted(idstr) + be(instance, 4)
            + be(version, 4) + (block_list() if data is None else data) + end)


def part(data=b"", number=RAM_ID, end=EOS + footer()):
    return be(q.SECTION_PART, 1) + be(number, 4) + data + end


def last(data=b""):
    return be(q.SECTION_END, 1) + be(RAM_ID, 4) + data + EOS + footer()


PLAIN = record(q.PLAIN, payload=PAGE)
STATE = (be(q.SECTION_FULL, 1) + be(9, 4) + counted("globalstate") + be(0, 4) + be(1, 4)
         + be(7, 4) + b"paused".ljust(100, b"\0") + footer(9))
TAIL = last() + STATE + b"\0" + be(q.VMDESCRIPTION, 1) + be(2, 4) + b"{}"
HEAD = header() + configuration()
BEGIN = HEAD + start()


def with_page(data):
    """A whole stream whose second section has these records."""
    return BEGIN + part(PLAIN) + part(data) + TAIL


def xbzrle(delta, encoding=1, length=None, flags=q.XBZRLE):
    payload = be(encoding, 1) + be(len(delta) if length is None else length, 2) + delta
    return with_page(record(flags, payload=payload))


def compress(data, length=None):
    payload = be(len(data) if length is None else length, 4) + data
    return with_page(record(q.COMPRESS, payload=payload))


def good():
    """Odd, but what a QEMU sends or takes."""
    blocks = (BLOCK, SIZE), ("pc.bios", q.PAGE)
    yield "good-small", with_page(b"")
    yield "good-empty-parts", BEGIN + part() * 100 + TAIL
    yield "good-no-ram-end", BEGIN + part(PLAIN) + STATE + b"\0" + be(q.VMDESCRIPTION, 1) + be(0, 4)
    yield "good-no-description", BEGIN + part(PLAIN) + last() + STATE + b"\0"
    yield "good-no-devices", BEGIN + part(PLAIN) + last() + b"\0" + be(q.VMDESCRIPTION, 1) + be(0, 4)
    yield "good-section-id", (HEAD + start().replace(be(RAM_ID, 4), be(77, 4), 1)
                              .replace(footer(), footer(77))
                              + part(PLAIN, 77, EOS + footer(77)) + STATE + b"\0")
    yield "good-continue-over-sections", BEGIN + part(PLAIN) + part(
        record(q.PLAIN | q.CONTINUE, q.PAGE, payload=PAGE)) + TAIL
    yield "good-pages-in-start", HEAD + start(block_list() + PLAIN) + TAIL
    yield "good-zero-after-page", with_page(record(q.ZERO, payload=b"\0"))
    yield "good-empty-delta", xbzrle(b"")
    yield "good-flush-word", with_page(be(q.FLUSH, 8))
    yield "good-two-blocks", HEAD + start(block_list(blocks)) + part(
        PLAIN + record(q.PLAIN, name="pc.bios", payload=PAGE)) + TAIL


def framing():
    yield "framing-magic", 2, 'begins with "QEVN', header(magic=b"QEVN") + configuration()
    yield "framing-version", 2, "version is 2, expected 3", header(version=2) + configuration()
    yield "framing-machine-length", 12, "2147483648 bytes, at most 255", header() + configuration(length=1 << 31)
    yield "framing-configuration-subsection", "4,12", "configuration/novel", header() + configuration(
        rest=b"\5" + counted("configuration/novel") + be(1, 4)) + start() + TAIL
    yield "framing-capability-count", 12, "2147483648 capabilities are listed, at most 64", header() + configuration(
        rest=b"\5" + counted("configuration/capabilities") + be(1, 4) + be(1 << 31, 4))
    yield "framing-page-bits", "2,4,12", "bits are 40, expected 12 to 16", header() + configuration(
        rest=b"\5" + counted("configuration/target-page-bits") + be(1, 4) + be(40, 4)) + start() + TAIL
    uuid = b"\5" + counted("configuration/uuid") + be(1, 4) + bytes(16)
    yield "framing-subsection-twice", 12, "comes twice", header() + configuration(
        rest=uuid * 2) + start() + TAIL
    yield "framing-machine-control", 12, "\\x1b", header() + configuration(machine=b"pc\x1b[2J")
    yield "framing-machine-bytes", 12, "\\xff", header() + configuration(machine=b"pc\xff")
    yield "framing-element", 12, "element 0x55", BEGIN + b"\x55"
    yield "framing-element-before-ram", 12, "element 0x55", HEAD + b"\x55"
    yield "framing-command", "4,12", "command 999", HEAD + be(q.COMMAND, 1) + be(999, 2) + be(0, 2) + start() + TAIL
    yield "framing-command-length", 12, "(PING) of 5 bytes, expected 4", HEAD + be(q.COMMAND, 1) + be(2, 2) + be(5, 2) + b"\0" * 5
    yield "framing-part-of-unknown-section", 12, "section 3, which has not begun", BEGIN + part(PLAIN, 3) + TAIL
    yield "framing-part-before-start", 12, "section 2, which has not begun", HEAD + part(PLAIN) + TAIL
    yield "framing-other-live-device", "4,12", "block", HEAD + start(idstr="block") + TAIL
    yield "framing-ram-version", "2,12", "RAM", HEAD + start(version=5) + TAIL
    yield "framing-ram-instance", 12, "RAM", HEAD + start(instance=1) + TAIL
    yield "framing-second-start", 12, "a second one", BEGIN + start() + TAIL
    yield "framing-footer-id", 12, "the footer of section 2 names section 3", BEGIN + part(PLAIN, end=EOS + footer(3)) + TAIL
    yield "framing-footer-kind", 12, "byte 0x7f, expected a footer 0x7e", BEGIN + part(PLAIN, end=EOS + footer(kind=0x7F)) + TAIL


def blocks():
    def listed(*entries, total=None):
        return HEAD + start(block_list(entries, total)) + TAIL

    yield "blocks-overshoot", 12, "at most the 0x3000 left of the total", listed((BLOCK, SIZE), total=SIZE - q.PAGE)
    yield "blocks-size-zero", 12, BLOCK, listed((BLOCK, 0), ("pc.bios", SIZE))
    yield "blocks-unaligned", 12, BLOCK, listed((BLOCK, SIZE + 512), ("pc.bios", SIZE - 512))
    yield "blocks-twice", 12, BLOCK, listed((BLOCK, SIZE), (BLOCK, SIZE))
    yield "blocks-control", 12, "\\x07", listed(("a\x07", SIZE))
    yield "blocks-no-name", 12, "empty name", listed(("", SIZE))
    yield "blocks-enormous", "4,11,12", "128.00 TiB", listed((BLOCK, 1 << 62))
    yield "blocks-overflow", "4,11,12", "0xffffffffffffc000 bytes", listed(
        (BLOCK, (1 << 64) - SIZE), ("pc.bios", 2 * SIZE), total=SIZE)
    yield "blocks-too-many", "4,12", "more than 1024 blocks", listed(*((f"b{i}", q.PAGE) for i in range(20000)))
    yield "blocks-again", 12, "0x4 (MEM_SIZE)", BEGIN + part(block_list()) + TAIL


def records():
    yield "record-flags-none", 12, "flags 0x0", with_page(be(q.PAGE, 8))
    yield "record-full", 12, "flags 0x1 (FULL)", with_page(record(1))
    yield "record-hook", 12, "flags 0x80 (HOOK)", with_page(record(0x80))
    yield "record-two-kinds", 12, "flags 0xa (ZERO|PAGE)", with_page(record(q.ZERO | q.PLAIN, payload=PAGE))
    yield "record-only-continue", 12, "flags 0x20 (CONTINUE)", with_page(record(q.CONTINUE, payload=PAGE))
    yield "record-ours", 12, "flags 0x400 (RUN)", with_page(record(0x400, payload=be(1, 4) + PAGE))
    yield "record-ours-zero", 12, "flags 0x800 (ZERO_RUN)", with_page(record(0x800, payload=be(q.PAGE, 8)))
    yield "record-continues-nothing", 12, "the same block as the last one, and there was none", BEGIN + part(
        record(q.PLAIN | q.CONTINUE, payload=PAGE)) + TAIL
    yield "record-unknown-block", 12, "pc.rim", with_page(
        record(q.PLAIN, name="pc.rim", payload=PAGE))
    yield "record-beyond-block", 12, BLOCK, with_page(record(q.PLAIN, SIZE, payload=PAGE))
    yield "record-far-beyond-block", 12, BLOCK, with_page(
        record(q.PLAIN, (1 << 64) - q.PAGE, payload=PAGE))
    yield "record-zero-beyond-block", 12, BLOCK, with_page(record(q.ZERO, SIZE, payload=b"\0"))
    yield "xbzrle-encoding", 12, "encoding 2 of 3 bytes, expected 1", xbzrle(b"\0\1\1", encoding=2)
    yield "xbzrle-length", 12, "4097 bytes, expected 1 of at most 4096", xbzrle(b"\0\1\1", length=q.PAGE + 1)
    yield "xbzrle-beyond-block", 12, BLOCK, with_page(
        record(q.XBZRLE, SIZE, payload=b"\1" + be(3, 2) + b"\0\1\1"))
    for name, delta in (("one-byte", "00"), ("no-literals", "0000aa"), ("inner-zrun", "0001aa0001bb"),
                        ("long-uleb", "80800101aa"), ("short-literals", "0003aabb"),
                        ("no-room", "802001aa"), ("past-end", "ff1f02aabb"), ("dangling", "0001aa05")):
        yield f"xbzrle-{name}", 12, "is no delta of a page of 4096 bytes", xbzrle(bytes.fromhex(delta))
    page = zlib.compress(PAGE)
    yield "compress-empty", 12, "0 compressed bytes, expected 1 to", compress(b"", 0)
    yield "compress-length", 12, "1073741824 compressed bytes, expected 1 to", compress(page, 1 << 30)
    yield "compress-garbage", 12, "is no page of 4096 bytes", compress(b"\x78\x01" + b"\xff" * 30)
    yield "compress-more", 12, "is no page of 4096 bytes", compress(zlib.compress(PAGE + b"x"))
    yield "compress-less", 12, "is no page of 4096 bytes", compress(zlib.compress(PAGE[:-1]))
    yield "compress-unfinished", 12, "is no page of 4096 bytes", compress(page[:-4])
    yield "compress-leftover", 12, "is no page of 4096 bytes", compress(page + b"x")
    yield "compress-beyond-block", 12, BLOCK, with_page(
        record(q.COMPRESS, SIZE, payload=be(len(page), 4) + page))


def golden(directory, name):
    path = os.path.join(directory, f"{name}.stream.zst")
    return subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout


NOT_ALL = "channels came"  # it ended before, or the time did
EARLY = "multifd channel 0"


def packets(directory):
    """(name, status, words, data): the golden channel 0 with one thing wrong. What may be no channel of ours
    at all is dropped, and the right one is waited for."""
    data = golden(directory, "multifd-none.channel-0")
    at = 64  # behind the channel's first packet
    while data[at + 16:at + 20] == bytes(4):
        at += 1344
    for name, status, where, new, words in (
            ("first-magic", "10,30", 0, be(0x11223345, 4), NOT_ALL),
            ("first-version", "10,30", 4, be(2, 4), NOT_ALL), ("first-uuid", "10,30", 8, be(7, 16), NOT_ALL),
            ("first-id", 12, 24, be(2, 1), "channel 2 came, expected 0 to 1"),
            ("first-id-of-other", 12, 24, be(1, 1), "channel 1 came twice"),
            ("magic", 12, at, be(0x11223345, 4), "magic 0x11223345"),
            ("version", 12, at + 4, be(2, 4), "version 2, expected 0x11223344 version 1"),
            ("method", 4, at + 8, be(0xE, 4), "method 0xe, which is none of none"),
            ("capacity", 12, at + 12, be(129, 4), "room for 129 pages, at most 128"),
            ("pages", 12, at + 16, be(129, 4), "129 pages and 0 zero pages, at most 128"),
            ("payload-short", 12, at + 20, be(4095, 4), "4095 bytes for pages of"),
            ("payload-huge", 12, at + 20, be(0x7FFFFFFF, 4), "payload of 2147483647 bytes, at most"),
            ("block", 12, at + 64, b"q", "the unknown block 'qc.ram'"),
            ("block-endless", 12, at + 64, b"a" * 256, "block name without an end"),
            ("offset-unaligned", 12, at + 320, be(1, 8), "offset 0x1 or length 0x1000 is not aligned"),
            ("offset-beyond", 12, at + 320, be(2 << 20, 8), "0x1000 bytes at 0x200000 reach beyond"),
            ("offset-far", 12, at + 320, be((1 << 64) - q.PAGE, 8),
             "0x1000 bytes at 0xfffffffffffff000 reach beyond")):
        yield name, status, words, data[:where] + new + data[where + len(new):]
    yield "ends-in-first", "10,30", NOT_ALL, data[:30]
    yield "ends-in-header", 10, EARLY, data[:at + 500]
    yield "ends-in-payload", 10, EARLY, data[:at + 1344 + 5000]
    yield "ends-without-sync", 10, EARLY, data[:64]


class Tracer(q.Stream):
    """Notes where the first element or record of each kind is."""

    def __init__(self, data):
        super().__init__(data)
        self.first = {}

    def note(self, what, start):
        self.first.setdefault(what, (start, self.r.pos))

    def configuration(self):
        start = self.r.pos - 1
        super().configuration()
        self.note("configuration", start)

    def section(self, kind):
        start = self.r.pos
        super().section(kind)
        self.note("start" if kind == "start" else f"{kind}-tail",
                  start if kind == "start" else self.r.pos - 13)

    def record(self):
        start = self.r.pos
        word = q.Reader(self.r.data[start:start + 8], "word").be64()
        more = super().record()
        name = {q.EOS: "eos", q.MEM_SIZE: "block-list"}
        self.note(name.get(word & (q.PAGE - 1) & ~q.CONTINUE)
                  or q.KINDS[word & (q.PAGE - 1) & ~q.CONTINUE], start)
        return more


def cuts(directory):
    """Golden streams that end in the middle of something."""
    for name in ("plain", "uuid", "xbzrle", "compress"):
        data = golden(directory, name)
        tracer = Tracer(data)
        blob = tracer.parse()
        places = dict(tracer.first, header=(0, 8), **{"device-state": (blob, blob + 2000)})
        for what, (begin, end) in sorted(places.items()):
            yield f"cut-{name}-{what}", data[:(begin + end) // 2]
        yield f"cut-{name}-between", data[:tracer.first["page"][0]]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    directory = sys.argv[2]
    os.makedirs(directory, exist_ok=True)
    cases = [(name, 0, "", data) for name, data in good()]
    for family in framing, blocks, records:
        cases += family()
    cases += [(name, 12, "end", data) for name, data in cuts(sys.argv[1])]
    with open(os.path.join(directory, "cases"), "w", encoding="ascii") as index:
        for name, status, words, data in cases:
            with open(os.path.join(directory, f"{name}.stream"), "wb") as f:
                f.write(data)
            print(name, status, words, file=index)
    with open(os.path.join(directory, "packets"), "w", encoding="ascii") as index:
        for name, status, words, data in packets(sys.argv[1]):
            with open(os.path.join(directory, f"{name}.channel"), "wb") as f:
                f.write(data)
            print(name, status, words, file=index)


if __name__ == "__main__":
    main()
