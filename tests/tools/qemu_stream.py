#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""An independent reader of QEMU's precopy migration streams, to check migtool's against.

qemu_stream.py [--out DIR] [--channel FILE]... STREAM

STREAM is a whole stream as `migrate "exec:cat > STREAM"` writes it. Every RAM block is rebuilt as
DIR/ram/<percent-encoded name>, what follows RAM goes verbatim to DIR/device-state, and a JSON
summary to stdout: machine, capabilities, uuid, commands, blocks with their SHA-256, the number of
records of each kind, sections, rounds (how often the scan of RAM began anew; compress' workers blur
it), repeated (pages that came again), the device state's size and SHA-256, its devices.
--channel, once for each, names what a multifd channel carried.

This knows nothing of devices, and accepts nothing that the format does not allow.
"""

import argparse
import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
import urllib.parse
import zlib

PAGE = 4096

SECTION_EOF, SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL = 0, 1, 2, 3, 4
SUBSECTION, VMDESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 5, 6, 7, 8, 0x7E

ZERO, MEM_SIZE, PLAIN, EOS, CONTINUE, XBZRLE, COMPRESS, FLUSH = (
    0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x100, 0x200)
KINDS = {ZERO: "zero", PLAIN: "page", XBZRLE: "xbzrle", COMPRESS: "compress", FLUSH: "flush"}
COMMANDS = {1: "open-return-path", 2: "ping", 3: "postcopy-advise", 11: "switchover-start"}

MULTIFD_MAGIC, MULTIFD_VERSION, MULTIFD_SYNC, MULTIFD_PAGES = 0x11223344, 1, 1, 128
METHODS = {0: "none", 2: "zlib", 4: "zstd"}


class StreamError(Exception):
    pass


class Reader:
    """Takes a byte string apart, front to back, and says where it failed."""

    def __init__(self, data, name):
        self.data, self.pos, self.name = data, 0, name

    def fail(self, message):
        raise StreamError(f"{self.name}: {message}, at byte {self.pos:#x}")

    def left(self):
        return len(self.data) - self.pos

    def take(self, count):
        if self.left() < count:
            self.fail(f"ends early: {count} bytes wanted, {self.left()} left")
        self.pos += count
        return self.data[self.pos - count:self.pos]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def u8(self):
        return self.number(1)

    def be16(self):
        return self.number(2)

    def be32(self):
        return self.number(4)

    def be64(self):
        return self.number(8)

    def counted(self):
        return self.take(self.u8()).decode()

    def expect(self, what, found, *wanted):
        if found not in wanted:
            self.fail(f"{what}: {found!r} instead of {' or '.join(map(repr, wanted))}")


class Block:
    """One RAM block, in a file that stays sparse or in anonymous memory."""

    def __init__(self, name, size, directory):
        self.name, self.size = name, size
        self.seen = bytearray(size // PAGE)  # 1: came, 3: came and is not zero
        if directory is None:
            self.memory = mmap.mmap(-1, size)
            return
        path = os.path.join(directory, file_name(name))
        with open(path, "wb+") as f:
            f.truncate(size)
            self.memory = mmap.mmap(f.fileno(), size)

    def read(self, offset):
        if not self.seen[offset // PAGE] & 2:
            return bytes(PAGE)  # without touching the hole
        return self.memory[offset:offset + PAGE]

    def digest(self):
        """SHA-256 of the content, without touching holes."""
        sha = hashlib.sha256()
        for offset in range(0, self.size, PAGE):
            sha.update(self.read(offset))
        return sha.hexdigest()

    def place(self, offset, page):
        """Returns whether the page had come before."""
        if len(page) != PAGE:
            raise StreamError(f"{self.name}, offset {offset:#x}: {len(page)} bytes for a page")
        before = self.seen[offset // PAGE]
        zero = page == bytes(PAGE)
        if not zero or before & 2:
            self.memory[offset:offset + PAGE] = page
        self.seen[offset // PAGE] |= 1 if zero else 3
        return bool(before)


def file_name(block):
    """A block's file name: percent-encoded, a leading dot too."""
    name = urllib.parse.quote(block, safe="")
    return "%2E" + name[1:] if name.startswith(".") else name


def uleb128(reader, what):
    """At most two bytes of seven bits, the low ones first."""
    value = reader.u8()
    if value & 0x80:
        high = reader.u8()
        if high & 0x80:
            reader.fail(f"{what} has more than two bytes")
        value = value & 0x7F | high << 7
    return value


def xbzrle_decode(delta, page):
    """The page that the delta makes of `page`."""
    reader, out, at = Reader(delta, "xbzrle delta"), bytearray(page), 0
    while reader.left():
        if reader.left() < 2:
            reader.fail("no room for a run of unchanged bytes")
        skip = uleb128(reader, "unchanged run")
        if skip == 0 and at:
            reader.fail("an empty run of unchanged bytes inside")
        at += skip
        if reader.left() < 2:
            reader.fail("no changed bytes after the unchanged ones")
        count = uleb128(reader, "changed run")
        if count == 0 or at + count > len(out):
            reader.fail(f"{count} changed bytes at {at} of {len(out)}")
        out[at:at + count] = reader.take(count)
        at += count
    return bytes(out)


def inflate_page(data):
    decoder = zlib.decompressobj()
    page = decoder.decompress(data, PAGE + 1)
    if not decoder.eof or decoder.unused_data:
        raise StreamError("a compressed page is not one whole zlib stream")
    return page


class Channel:
    """What one multifd channel carried."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.reader = Reader(f.read(), path)
        r = self.reader
        r.expect("magic", r.be32(), MULTIFD_MAGIC)
        r.expect("version", r.be32(), MULTIFD_VERSION)
        self.uuid, self.id = r.take(16), r.u8()
        r.expect("reserved bytes", r.take(39), bytes(39))
        self.methods = set()
        self.packets = list(self._packets())
        self.pages = self._decode()

    def _packets(self):
        """(flags, block name, offsets, payload) of each packet."""
        r = self.reader
        while r.left():
            r.expect("magic", r.be32(), MULTIFD_MAGIC)
            r.expect("version", r.be32(), MULTIFD_VERSION)
            flags, _, pages, size = struct.unpack(">IIII", r.take(16))
            r.take(8 + 32)  # packet number, reserved
            name = r.take(256).rstrip(b"\0").decode() if pages else r.take(256) and None
            offsets = struct.unpack(">128Q", r.take(8 * MULTIFD_PAGES))[:pages]
            if pages > MULTIFD_PAGES:
                r.fail(f"{pages} pages in a packet")
            if pages:
                r.expect("compression method", flags & 0x3E, *METHODS)
                self.methods.add(METHODS[flags & 0x3E])
            yield flags, name, offsets, bytes(r.take(size)) if pages else b""

    def _decode(self):
        """All pages in order: a channel's payloads are one continuous stream, whatever the method."""
        data = b"".join(payload for _, _, _, payload in self.packets)
        if len(self.methods) > 1:
            self.reader.fail(f"several methods: {self.methods}")
        if self.methods == {"zlib"}:
            data = zlib.decompressobj().decompress(data)
        elif self.methods == {"zstd"}:
            # The frame is never ended; an empty last block does that.
            data = subprocess.run(["zstd", "-dcq"], input=data + b"\1\0\0",
                                  stdout=subprocess.PIPE, check=True).stdout
        count = sum(len(offsets) for _, _, offsets, _ in self.packets)
        if len(data) != count * PAGE:
            self.reader.fail(f"{len(data)} bytes decoded for {count} pages")
        return Reader(data, f"channel {self.id}")

    def until_sync(self):
        """(block name, offset, page) of the packets up to the one with the next SYNC."""
        while self.packets:
            flags, name, offsets, _ = self.packets.pop(0)
            for offset in offsets:
                yield name, offset, self.pages.take(PAGE)
            if flags & MULTIFD_SYNC:
                return
        self.reader.fail("no SYNC for an end of section")


class Stream:
    def __init__(self, data, channels=(), out=None):
        self.r = Reader(data, "stream")
        self.channels = channels
        self.directory = out and os.path.join(out, "ram")
        self.blocks, self.block = {}, None
        self.ram_id, self.footers = None, None
        self.position = None
        self.summary = {"machine": None, "capabilities": [], "uuid": None, "commands": [],
                        "blocks": [], "records": {k: 0 for k in KINDS.values()},
                        "sections": {"start": 0, "part": 0, "end": 0}, "empty-parts": 0,
                        "rounds": 0, "repeated": 0, "multifd-pages": 0, "multifd-methods": []}

    def parse(self):
        """Reads everything; returns where the device state begins."""
        r = self.r
        r.expect("magic", r.take(4), b"QEVM")
        r.expect("version", r.be32(), 3)
        if r.left() and r.data[r.pos] == CONFIGURATION:
            r.take(1)
            self.configuration()
        while True:
            start, kind = r.pos, r.u8()
            if kind == COMMAND:
                self.command()
            elif kind == SECTION_START:
                self.section_start()
            elif kind in (SECTION_PART, SECTION_END):
                r.expect("section", r.be32(), self.ram_id)
                self.section("part" if kind == SECTION_PART else "end")
            elif kind in (SECTION_FULL, SECTION_EOF):
                r.pos = start
                break
            else:
                r.fail(f"element type {kind:#x}")
        for channel in self.channels:
            self.leftovers(channel)
        return start

    def configuration(self):
        r = self.r
        self.summary["machine"] = r.take(r.be32()).decode()
        while r.left() and r.data[r.pos] == SUBSECTION:
            r.take(1)
            name = r.counted()
            r.expect(f"version of {name}", r.be32(), 1)
            if name == "configuration/target-page-bits":
                r.expect("page bits", r.be32(), 12)
            elif name == "configuration/capabilities":
                self.summary["capabilities"] = [r.counted() for _ in range(r.be32())]
            elif name == "configuration/uuid":
                self.summary["uuid"] = r.take(16).hex()
            else:
                r.fail(f"unknown subsection {name}")

    def command(self):
        r = self.r
        number, length = r.be16(), r.be16()
        r.expect("command", number, *COMMANDS)
        self.summary["commands"].append(COMMANDS[number])
        r.take(length)

    def section_start(self):
        r = self.r
        if self.ram_id is not None:
            r.fail("RAM starts for the second time")
        self.ram_id = r.be32()
        r.expect("live section", r.counted(), "ram")
        r.expect("instance", r.be32(), 0)
        r.expect("version", r.be32(), 4)
        self.section("start")

    def section(self, kind):
        before = sum(self.summary["records"].values())
        self.summary["sections"][kind] += 1
        while self.record():
            pass
        for channel in self.channels:
            for name, offset, page in channel.until_sync():
                self.place(self.find(name), offset, page)
                self.summary["multifd-pages"] += 1
        if kind == "part" and before == sum(self.summary["records"].values()):
            self.summary["empty-parts"] += 1
        if self.footers is None:
            self.footers = self.r.data[self.r.pos] == FOOTER
        if self.footers:
            self.r.expect("footer", self.r.u8(), FOOTER)
            self.r.expect("footer's section", self.r.be32(), self.ram_id)

    def record(self):
        """One record; False at the end of the section."""
        r = self.r
        word = r.be64()
        offset, flags = word & ~(PAGE - 1), word & (PAGE - 1)
        kind = flags & ~CONTINUE
        if flags == EOS:
            r.expect("offset of EOS", offset, 0)
            return False
        if flags == MEM_SIZE:
            self.block_list(offset)
            return True
        if kind not in KINDS or flags == FLUSH | CONTINUE:
            r.fail(f"record flags {flags:#x}")
        self.summary["records"][KINDS[kind]] += 1
        if kind == FLUSH:
            return True
        if not flags & CONTINUE:
            self.block = self.find(r.counted())
        elif self.block is None:
            r.fail("the first record continues a block")
        self.check(self.block, offset)
        self.note_position(offset)
        self.place(self.block, offset, self.payload(kind, offset))
        return True

    def payload(self, kind, offset):
        r = self.r
        if kind == ZERO:
            r.expect("fill byte", r.u8(), 0)
            return bytes(PAGE)
        if kind == PLAIN:
            return r.take(PAGE)
        if kind == COMPRESS:
            return inflate_page(r.take(r.be32()))
        r.expect("xbzrle encoding", r.u8(), 1)
        return xbzrle_decode(r.take(r.be16()), self.block.read(offset))

    def block_list(self, total):
        r = self.r
        if self.blocks or total > 1 << 46:
            r.fail(f"a block list of {total:#x} bytes, {len(self.blocks)} blocks so far")
        if self.directory:
            os.makedirs(self.directory, exist_ok=True)
        while total > 0:
            name, size = r.counted(), r.be64()
            if not name or name in self.blocks or size == 0 or size % PAGE or size > total:
                r.fail(f"block {name} of {size} bytes, {total} left")
            entry = {"name": name, "size": size}
            if "x-ignore-shared" in self.summary["capabilities"]:
                entry["gpa"] = r.be64()
            self.summary["blocks"].append(entry)
            self.blocks[name] = Block(name, size, self.directory)
            total -= size

    def find(self, name):
        if name not in self.blocks:
            self.r.fail(f"block {name!r} is not in the list")
        return self.blocks[name]

    def check(self, block, offset):
        if offset % PAGE or offset + PAGE > block.size:
            self.r.fail(f"offset {offset:#x} in {block.name} of {block.size:#x} bytes")

    def place(self, block, offset, page):
        self.check(block, offset)
        self.summary["repeated"] += block.place(offset, page)

    def note_position(self, offset):
        """A scan goes through the blocks in the list's order, upwards (but compress' workers)."""
        position = [*self.blocks].index(self.block.name), offset
        if self.position is None or position < self.position:
            self.summary["rounds"] += 1
        self.position = position

    def leftovers(self, channel):
        if any(offsets for _, _, offsets, _ in channel.packets):
            channel.reader.fail("pages after the last end of section")
        self.summary["multifd-methods"] += sorted(channel.methods)


def element_at(data, at):
    """Whether a device's section, or the end of them all, can be what begins there."""
    if data[at:at + 1] == bytes([SECTION_FULL]):
        name = data[at + 6:at + 6 + data[at + 5]] if len(data) > at + 5 else b""
        return name.isascii() and name.decode("ascii", "replace").isprintable() and name != b""
    if data[at:at + 1] == bytes([SECTION_EOF]):
        rest = data[at + 1:]  # may be cut off, but not go on behind the description
        return not rest or (rest[0] == VMDESCRIPTION
                            and int.from_bytes(rest[1:5], "big") >= len(rest) - 5)
    return False


def devices(r):
    """(idstr, instance, version, data) of each FULL section.

    A section has no length: its data ends where its own footer stands before a next element.
    """
    while r.left() and r.data[r.pos] == SECTION_FULL:
        r.take(1)
        number, name, instance, version = r.be32(), r.counted(), r.be32(), r.be32()
        footer, start, end = bytes([FOOTER]) + number.to_bytes(4, "big"), r.pos, r.pos
        while True:
            end = r.data.find(footer, end)
            if end < 0:
                r.fail(f"no footer of {name}")
            if element_at(r.data, end + 5):
                break
            end += 1
        r.pos = end + 5
        yield name, instance, version, r.data[start:end]


def check_device_state(blob):
    """What devices there are; what follows the end is refused."""
    r = Reader(blob, "device state")
    found = [{"name": name, "instance": instance, "version": version, "size": len(data)}
             for name, instance, version, data in devices(r)]
    r.expect("element", r.u8(), SECTION_EOF)
    if r.left():
        r.expect("element", r.u8(), VMDESCRIPTION)
        json.loads(r.take(r.be32()) or "{}")
    if r.left():
        r.fail("bytes after the end")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("stream")
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--channel", metavar="FILE", action="append", default=[])
    args = parser.parse_args()
    try:
        with open(args.stream, "rb") as f:
            data = f.read()
        stream = Stream(data, [Channel(c) for c in args.channel], args.out)
        blob = data[stream.parse():]
        summary = stream.summary
        for entry in summary["blocks"]:
            entry["sha256"] = stream.blocks[entry["name"]].digest()
        summary["device-state"] = {"size": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        summary["devices"] = check_device_state(blob)
    except (StreamError, OSError, ValueError, zlib.error,
            subprocess.CalledProcessError) as e:
        sys.exit(f"qemu_stream.py: {args.stream}: {e}")
    if args.out:
        os.makedirs(args.out, exist_ok=True)
        with open(os.path.join(args.out, "device-state"), "wb") as f:
            f.write(blob)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
