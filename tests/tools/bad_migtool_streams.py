#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes one-way streams that claim to come from a migtool and that a receiver has to refuse.

bad_migtool_streams.py RECORDED DIR

Each case becomes DIR/NAME.stream; DIR/cases lists them, a line each: name, exit status (several that
may be: with commas), words that the message has to contain. Most are built here with one thing wrong
in them; the others are RECORDED, a stream of `migtool send`, cut inside the first thing of each kind.
"""

import os
import sys

sys.dont_write_bytecode = True
import migtool_stream as m  # noqa: E402
from bad_streams import BLOCK, be, block_list, footer, header, last, part, start  # noqa: E402
from migtool_stream import q  # noqa: E402

GREETING = m.frame(m.greeting())
PAUSES = m.frame(m.greeting(capabilities=["pause-before-switchover"]))


def greeted(status, words, **changes):
    return status, words, m.frame(m.greeting(**changes)) + m.GOOD


def block(**changes):
    b = {"name": BLOCK, "size": m.SIZE, "page-size": q.PAGE}
    b.update({k.replace("_", "-"): v for k, v in changes.items()})
    return b


def good():
    yield "good", 0, "", GREETING + m.GOOD
    yield "good-unknown-keys", *greeted(0, "", novel={"a": [1]}, data_bytes=1 << 62)
    yield "good-unknown-feature", *greeted(0, "", features=["page-runs", "warp"])
    yield "good-few-keys", 0, "", m.frame({"version": 1, "session": m.SESSION, "one-way": True,
                                          "features": ["page-runs"],
                                          "blocks": [{"name": BLOCK, "size": m.SIZE}]}) + m.GOOD
    yield "good-keepalives", 0, "", GREETING + m.BEGIN + m.command(m.KEEPALIVE) * 3 + part(
        m.zero_run()) + m.command(m.KEEPALIVE) + m.END
    yield "good-paused", 0, "", PAUSES + m.BEGIN + part(m.zero_run()) + m.command(m.PAUSED) * 3 + m.END
    yield "good-no-pages", 0, "", GREETING + m.BEGIN + m.END
    paths = ("../../../../../tmp/escaped", m.SIZE), ("..", m.SIZE), ("/tmp/escaped", m.SIZE)
    yield "good-paths-as-names", 0, "", m.frame(m.greeting(blocks=[
        block(name=name) for name, _ in paths])) + m.HEAD + start(block_list(paths)) + m.END
    yield "good-page-again", 0, "", GREETING + m.BEGIN + part(m.run()) + part(m.zero_run()) + m.END


def greetings():
    yield "greeting-magic", 2, 'begins with "migtool\\x0d"', m.frame(m.greeting(), magic=b"migtool\r") + m.GOOD
    yield "greeting-length", 12, "1048576", m.frame(m.greeting(), length=(1 << 20) + 1) + m.GOOD
    yield "greeting-length-huge", 12, "1048576", m.frame(m.greeting(), length=0xFFFFFFFF)
    yield "greeting-empty", 2, "no JSON object", m.frame(b"") + m.GOOD
    yield "greeting-no-json", 12, "more than 16 levels", m.frame(b"{" * 100) + m.GOOD
    yield "greeting-deep-json", 12, "more than 16 levels", m.frame(b"[" * 100000 + b"]" * 100000) + m.GOOD
    yield "greeting-nul", 2, "no JSON object (at byte 34)", m.frame(b'{"version": 1, "session": "\\u0000"}') + m.GOOD
    yield "greeting-array", 2, "no JSON object", m.frame([1]) + m.GOOD
    yield "greeting-key-twice", 2, "no JSON object (at byte 24)", m.frame(b'{"version": 1, "version": 1}') + m.GOOD
    yield "greeting-version", *greeted(2, "version 2, expected 1", version=2)
    yield "greeting-no-version", *greeted(2, "version", version=None)
    yield "greeting-version-text", *greeted("2,12", "version", version="1")
    yield "greeting-needs", *greeted(2, "needs 'teleport'", needs=["teleport"])
    yield "greeting-needs-escape", *greeted(2, "\\x1b[31m", needs=["\x1b[31m"])
    yield "greeting-needs-no-list", *greeted(12, "needs", needs="teleport")
    yield "greeting-capability", *greeted(2, "capability 'warp'", capabilities=["warp"])
    yield "greeting-capability-refused", *greeted(4, "mapped-ram", capabilities=["mapped-ram"])
    yield "greeting-conflict", *greeted(4, "exclude each other", capabilities=["multifd", "compress"])
    yield "greeting-multifd", *greeted(4, "this transport is one connection", capabilities=["multifd"])
    yield "greeting-session", *greeted(12, "session", session="00")
    yield "greeting-no-session", *greeted(12, "session", session=None)
    yield "greeting-session-number", *greeted(12, "session", session=7)
    yield "greeting-channels", *greeted(12, "multifd-channels", parameters={"multifd-channels": 256})
    yield "greeting-no-channels", *greeted(12, "multifd-channels", parameters={"multifd-channels": 0})
    yield "greeting-method", *greeted(2, "'lz4'", parameters={"multifd-compression": "lz4"})
    yield "greeting-page-size", *greeted(12, "page size", page_size=5000)
    yield "greeting-page-size-huge", *greeted(12, "page-size", page_size=1 << 40)
    yield "greeting-uuid", *greeted(12, "uuid", uuid="x" * 36)
    yield "greeting-machine", *greeted(12, "machine", machine="m" * 300)
    yield "greeting-machine-control", *greeted(12, "\\x07", machine="a\x07b")
    yield "greeting-run-state-control", *greeted(12, "\\x0a", run_state="a\nb")
    yield "greeting-many-values", *greeted(12, "more than 32768 values", later=[{}] * 30000)
    deep = []
    for _ in range(20):
        deep = [deep]
    yield "greeting-deep", *greeted(12, "16 levels", later=deep)
    yield "greeting-base", *greeted(12, "base", base="0123")
    yield "greeting-base-here", *greeted(4, "deltas against an old copy", base="0" * 32)
    yield "greeting-no-blocks", *greeted(12, "block", blocks=[])
    yield "greeting-blocks-none", *greeted(12, "blocks", blocks=None)
    yield "greeting-blocks-many", *greeted(12, "blocks", blocks=[block(name=f"b{i}") for i in range(1025)])
    yield "greeting-block-twice", *greeted(12, "twice", blocks=[block(), block()])
    yield "greeting-block-name", *greeted(12, "name", blocks=[block(name="")])
    yield "greeting-block-long-name", *greeted(12, "name", blocks=[block(name="n" * 256)])
    yield "greeting-block-control", *greeted(12, "\\x1b", blocks=[block(name="a\x1b[2J")])
    yield "greeting-block-size", *greeted(12, "multiple", blocks=[block(size=m.SIZE + 1)])
    yield "greeting-block-empty", *greeted(12, "size", blocks=[block(size=0)])
    yield "greeting-block-negative", *greeted(12, "size", blocks=[block(size=-4096)])
    yield "greeting-block-enormous", *greeted("4,11,12", "128.00 TiB", blocks=[block(size=1 << 62)])
    yield "greeting-block-float", *greeted(12, "size", blocks=[block(size=4096.0)])
    yield "greeting-block-page", *greeted(12, "page size", blocks=[block(page_size=4097)])
    yield "greeting-block-gpa", *greeted(12, "gpa", blocks=[block(gpa="0xz")])
    yield "greeting-shared-bad-digest", *greeted(12, "digest", blocks=[block(shared=True, digest="x")])
    yield "greeting-shared-elsewhere", *greeted(
        4, "shared memory", blocks=[block(shared=True, digest="0" * 32)],
        capabilities=["x-ignore-shared"])
    yield "greeting-device-state", *greeted(4, "device state", device_state=True)


def elements():
    def stream(data):
        return GREETING + data

    yield "element-magic", 2, "magic is 0x51455658, expected 0x5145564d", stream(header(magic=b"QEVX") + m.GOOD)
    yield "element-unknown", 12, "0x55", stream(m.BEGIN + b"\x55")
    yield "element-device-section", 12, "0x04", stream(
        m.BEGIN + part(m.zero_run()) + last() + be(q.SECTION_FULL, 1))
    yield "element-other-blocks", 12, "greeting", stream(
        m.HEAD + start(block_list(((BLOCK, 2 * m.SIZE),))) + m.END)
    yield "element-more-blocks", 12, "greeting", stream(
        m.HEAD + start(block_list(((BLOCK, m.SIZE), ("b", q.PAGE)))) + m.END)
    yield "element-part-first", 12, "section", stream(m.HEAD + part(m.zero_run()) + m.END)
    yield "element-footer", 12, "footer", stream(m.BEGIN + part(m.zero_run())[:-5] + footer(9) + m.END)
    yield "element-no-last", 12, "DIGEST before the memory did end", stream(m.BEGIN + part(m.zero_run()) + m.END[len(last()):])
    yield "element-part-behind-last", 12, "behind the last", stream(
        m.BEGIN + last() + part(m.run()) + m.END)
    yield "element-no-list", 12, "no list of blocks", stream(
        m.HEAD + start(m.EOS) + part(m.zero_run()) + m.END)
    yield "element-list-late", 12, "before the list of blocks", stream(
        m.HEAD + start(m.zero_run() + block_list(((BLOCK, m.SIZE),))) + m.END)
    yield "element-description", 12, "4294967295", stream(m.GOOD[:-4] + be(0xFFFFFFFF, 4))
    yield "element-no-digest", 12, "digest", stream(
        m.BEGIN + part(m.zero_run()) + last() + b"\0" + be(q.VMDESCRIPTION, 1) + be(0, 4))
    yield "command-unknown", 12, "0x4fff", stream(m.BEGIN + m.command(0x4FFF, b"abc") + m.END)
    yield "command-qemu", 4, "command 3 (POSTCOPY_ADVISE) of 16 bytes", stream(m.BEGIN + m.command(3, bytes(16)) + m.END)
    yield "command-commit-early", 12, "COMMIT", stream(m.BEGIN + m.command(m.COMMIT) + m.END)
    yield "command-huge", 12, "4294967280 bytes, at most 1048576", stream(m.BEGIN + m.command(m.DEVICE_STATE, length=0xFFFFFFF0))
    yield "command-digest-length", 12, "DIGEST has 39 bytes", stream(
        m.BEGIN + part(m.zero_run()) + last() + m.command(m.DIGEST, bytes(39)))
    yield "command-digest-early", 12, "before the memory did end", stream(
        m.BEGIN + m.command(m.DIGEST, m.ZERO_DIGEST) + m.END)
    yield "command-digest-twice", 12, "a second time", stream(
        m.BEGIN + part(m.zero_run()) + last() + m.command(m.DIGEST, m.ZERO_DIGEST) * 2 + m.END[-6:])
    yield "command-failed", 11, "the source failed: the disk is on fire", stream(
        m.BEGIN + m.command(m.FAILED, m.reason("the disk is on fire", hint="run")))
    yield "command-failed-escape", 11, "\\x1b[2J", stream(
        m.BEGIN + m.command(m.FAILED, m.reason("\x1b[2J")))
    yield "command-failed-lost", 5, "x", stream(m.BEGIN + m.command(m.FAILED, m.reason("x", 50)))
    yield "command-failed-short", 12, "FAILED", stream(m.BEGIN + m.command(m.FAILED, b"abc"))
    yield "command-state-unexpected", 4, "device state", stream(
        m.BEGIN + m.command(m.DEVICE_STATE, b"abc") + m.END)
    yield "command-keepalive-length", 12, "KEEPALIVE", stream(m.BEGIN + m.command(m.KEEPALIVE, b"x"))
    yield "command-paused-unannounced", 12, "PAUSED", stream(m.BEGIN + m.command(m.PAUSED))
    yield "command-paused-length", 12, "PAUSED", PAUSES + m.BEGIN + m.command(m.PAUSED, b"x")
    yield "command-paused-early", 12, "PAUSED", PAUSES + m.HEAD + m.command(m.PAUSED)
    yield "command-paused-late", 12, "PAUSED", PAUSES + m.BEGIN + last() + m.command(m.PAUSED)
    wrong = bytearray(m.ZERO_DIGEST)
    wrong[5] = 1
    yield "digest-memory", 13, "digest", stream(
        m.BEGIN + part(m.zero_run()) + last() + m.command(m.DIGEST, bytes(wrong)) + m.END[-6:])
    yield "digest-page", 13, "digest", stream(m.with_records(m.run()))
    wrong = bytes(39) + b"\1"
    yield "digest-device", 13, "device state", stream(
        m.BEGIN + part(m.zero_run()) + last() + m.command(m.DIGEST, wrong) + m.END[-6:])


def records():
    def stream(data):
        return GREETING + m.with_records(data)

    top = (1 << 64) - q.PAGE
    yield "run-no-pages", 12, "no pages", stream(m.run(pages=0))
    yield "run-beyond", 12, BLOCK, stream(m.run(m.SIZE - q.PAGE, 2))
    yield "run-far", 12, BLOCK, stream(m.run(top))
    yield "run-huge", 12, BLOCK, stream(m.run(pages=0xFFFFFFFF, data=b""))
    yield "run-unknown-block", 12, "'pc.rim'", stream(m.run(name="pc.rim"))
    yield "run-short", 12, "end", GREETING + m.BEGIN + part(m.run(pages=3, data=b"x" * 5000))[:-13]
    yield "zero-run-empty", 12, "zero run of 0", stream(m.zero_run(length=0))
    yield "zero-run-odd", 12, "zero run of 4097", stream(m.zero_run(length=4097))
    yield "zero-run-beyond", 12, BLOCK, stream(m.zero_run(length=m.SIZE + q.PAGE))
    yield "zero-run-overflow", 12, BLOCK, stream(m.zero_run(q.PAGE, top))
    yield "zero-run-far", 12, BLOCK, stream(m.zero_run(top, q.PAGE))
    yield "zero-run-unknown-block", 12, "'../x'", stream(m.zero_run(name="../x"))
    yield "run-two-kinds", 12, "flags", stream(m.record(m.RUN | q.PLAIN, payload=be(1, 4) + m.PAGE))
    yield "run-continues-nothing", 12, "same block", stream(
        m.record(m.RUN | q.CONTINUE, payload=be(1, 4) + m.PAGE))
    yield "compressed-unannounced", 4, "compress", stream(m.record(q.COMPRESS, payload=be(9, 4)))
    yield "runs-not-offered", 12, "flags", m.frame(m.greeting(features=[])) + m.with_records(
        m.zero_run())
    shared = m.greeting(capabilities=["x-ignore-shared"])
    yield "ignore-shared-not-in-stream", 4, "x-ignore-shared", m.frame(shared) + m.GOOD


def shared():
    """For a copy that has the block already, all zero."""
    g = m.frame(m.greeting(capabilities=["x-ignore-shared"],
                           blocks=[block(shared=True, digest="0" * 32)]))
    head = header() + be(q.CONFIGURATION, 1) + be(0, 4) + be(q.SUBSECTION, 1) + be(26, 1) + (
        b"configuration/capabilities") + be(1, 4) + be(1, 4) + be(15, 1) + b"x-ignore-shared"
    listed = be(m.SIZE | q.MEM_SIZE, 8) + be(len(BLOCK), 1) + BLOCK.encode() + be(m.SIZE, 8) + be(0, 8)
    begin = g + head + start(listed)
    yield "shared-good", 0, "", begin + m.END
    yield "shared-page", 12, "a page of shared memory", begin + part(m.run()) + m.END
    yield "shared-zeros", 12, "a page of shared memory", begin + part(m.zero_run()) + m.END


def cuts(recorded):
    with open(recorded, "rb") as f:
        data = f.read()
    first = m.Reader(data).walk()
    wanted = {"greeting", "header", "configuration", "start", "block-list", "run", "zero-run", "eos",
              "footer", "part", "last", "device-state", "digest"}
    assert wanted <= first.keys(), wanted - first.keys()
    for what in sorted(wanted):
        begin, end = first[what]
        yield f"cut-in-{what}", 12, "end", data[:(begin + end) // 2]
        yield f"cut-behind-{what}", 12, "end", data[:end]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    recorded, directory = sys.argv[1:]
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "cases"), "w", encoding="utf-8") as index:
        for family in good(), greetings(), elements(), records(), shared(), cuts(recorded):
            for name, status, words, data in family:
                with open(os.path.join(directory, f"{name}.stream"), "wb") as f:
                    f.write(data)
                print(name, status, words, file=index)


if __name__ == "__main__":
    main()
