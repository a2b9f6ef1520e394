#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the other end of a guest that runs before its memory has arrived, as migtool-stream(5) has
it; right, or with one thing wrong.

guest_peer.py source ADDRESS SCRIPT [IMAGE]     connects to `migtool recv`
guest_peer.py destination ADDRESS SCRIPT [IMAGE]  listens for `migtool send`; says so
guest_peer.py all source|destination DIR        plays all that are wrong, side by side, at DIR/SCRIPT;
                                                says so when they wait
guest_peer.py list source|destination           a line each: SCRIPT, migtool's status, the owner that it
                                                names, words of its message

ADDRESS is a UNIX socket's path.
"""

import os
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
import migtool_stream as m  # noqa: E402
from bad_streams import EOS, be, block_list, last, part, record, start  # noqa: E402
from fake_peer import Link, connect  # noqa: E402
from migtool_peer import digest_payload, memory_digest  # noqa: E402
from migtool_stream import q  # noqa: E402

MIB = 1 << 20
SIZE = 16 * MIB
URGENT = 254
LISTEN = 0x400A
RP_LISTENING, RP_REQUEST, RP_ENOUGH = 0x4007, 0x4008, 0x4009
FEATURES = ["page-runs", "postcopy", "urgent-channel"]
AHEAD = ["pages-ahead"]
DISCARD = 6
BEGIN = m.HEAD + start(block_list(((m.BLOCK, SIZE),)))
CONTINUE = 0x20


def request(block=0, length=q.PAGE, offset=0):
    return m.message(RP_REQUEST, be(block, 4) + be(length, 4) + be(offset, 8))


def listening(flags=0, unit=q.PAGE):
    return m.message(RP_LISTENING, be(flags, 4) + be(unit, 4))


# ---- sources ----

def discard(offset, length, name=m.BLOCK, version=0):
    return m.command(DISCARD, be(version, 1) + be(len(name), 1) + name.encode() + b"\0" + be(offset, 8)
                     + be(length, 8))


def greeted(address, more=(), **changes):
    link = connect(address).say(m.frame(m.greeting(
        one_way=False, features=[*FEATURES, *more], capabilities=["postcopy-ram"], **changes,
        blocks=[{"name": m.BLOCK, "size": SIZE, "page-size": q.PAGE}])))
    answer = link.frame()
    while answer.get("wait"):
        answer = link.frame()
    assert answer["take"] and {*FEATURES[1:], *more} <= set(answer["features"]), answer
    return link, connect(address).say(m.hello(URGENT))


def ready(address, ahead=b""):
    main, urgent = greeted(address, AHEAD if ahead else ())
    main.say(BEGIN + ahead + m.command(LISTEN))
    kind, data = main.message()
    assert kind == RP_LISTENING and data == be(0, 4) + be(q.PAGE, 4), (kind, data)
    return main, urgent


def running(address, ahead=b""):
    main, urgent = ready(address, ahead)
    main.say(m.command(m.COMMIT))
    assert main.message()[0] == m.RP_DONE
    return main, urgent


def source_good(address, image):
    """Everything on the main connection, and on both the first page that is asked for."""
    main, urgent = running(address)
    with open(image, "rb") as f:
        memory = f.read()
    assert urgent.read(6) == m.message(RP_REQUEST, bytes(16))[:6]
    asked = urgent.read(16)
    assert asked[:8] == be(0, 4) + be(q.PAGE, 4), asked
    first = int.from_bytes(asked[8:], "big")
    urgent.say(record(8, first, m.BLOCK, memory[first:first + q.PAGE]))
    for at in range(0, SIZE, MIB):
        main.say(part(b"".join(m.run(o, data=memory[o:o + q.PAGE])
                               for o in range(at, at + MIB, q.PAGE))))
    urgent.say(EOS)
    digest = memory_digest({m.BLOCK: memory}) + bytes(24)
    main.say(last() + m.command(m.DIGEST, digest) + b"\0")
    kind, data = main.message()
    while kind in (RP_REQUEST,):
        kind, data = main.message()
    assert (kind, data) == (m.RP_READY, digest), (kind, data)
    main.close()


def pages(memory, first, end):
    """A PART with these bytes of memory."""
    return part(b"".join(m.run(o, data=memory[o:o + q.PAGE]) for o in range(first, end, q.PAGE)))


def source_ahead(address, image):
    """Half of it before LISTEN, some of that twice; a part is taken back, and follows behind COMMIT."""
    main, urgent = greeted(address, AHEAD)
    with open(image, "rb") as f:
        memory = f.read()
    main.say(BEGIN + pages(b"\7" * SIZE, 0, MIB) + part(m.zero_run(MIB, 2 * MIB)))
    main.say(pages(memory, 0, SIZE // 2) + discard(5 * MIB, MIB) + m.command(LISTEN))
    assert main.message()[0] == RP_LISTENING
    main.say(m.command(m.COMMIT))
    assert main.message()[0] == m.RP_DONE
    main.say(pages(memory, 5 * MIB, 6 * MIB) + pages(memory, SIZE // 2, SIZE))
    urgent.say(EOS)
    digest = memory_digest({m.BLOCK: memory}) + bytes(24)
    main.say(last() + m.command(m.DIGEST, digest) + b"\0")
    kind, data = main.message()
    assert (kind, data) == (m.RP_READY, digest), (kind, data)
    main.close()


def before(data, more=()):
    """Said instead of LISTEN."""
    return lambda address: greeted(address, more)[0].say(BEGIN + data).hold()


def instead(data):
    """Said instead of COMMIT."""
    return lambda address: ready(address)[0].say(data).hold()


def behind(data):
    """Said behind COMMIT, on the main connection."""
    def play(address):
        links = running(address)
        links[0].say(data).hold()
    return play


def urgently(data):
    """Said behind COMMIT, on the other one."""
    def play(address):
        links = running(address)
        links[1].say(data)
        links[0].hold()
    return play


def closes_urgent(address):
    main, urgent = running(address)
    urgent.close()
    main.hold()


def closes(address):
    running(address)[0].close()


def ends(play, holes=b"", urgent_first=True):
    """The end of the memory, with the digest of zeros, wherever `play` leads to."""
    def run(address):
        main, urgent = play(address)
        if urgent_first:
            urgent.say(EOS)
        main.say((part(holes) if holes else b"") + last() + m.command(m.DIGEST, bytes(40)) + b"\0")
        main.hold()
    return run


def begun(address):
    main, urgent = greeted(address)
    return main.say(BEGIN), urgent


STATE = b"what devices were"


def listen_for(state):
    return m.command(LISTEN, digest_payload({}, state)[16:])


def with_state(data):
    """A device state was announced; said behind the list of blocks."""
    return lambda address: greeted(address, device_state=True)[0].say(BEGIN + data).hold()


def other_state_at_the_end(address):
    main, urgent = greeted(address, device_state=True)
    main.say(BEGIN + m.command(m.DEVICE_STATE, STATE) + listen_for(STATE))
    assert main.message()[0] == RP_LISTENING
    main.say(m.command(m.COMMIT))
    assert main.message()[0] == m.RP_DONE
    urgent.say(EOS)
    main.say(part(m.zero_run(0, SIZE)) + last() + m.command(m.DIGEST, digest_payload({}, b"")) + b"\0")
    main.hold()


def wrong_digest(address, digest=b"\1" + bytes(39)):
    main, urgent = running(address)
    urgent.say(EOS)
    main.say(part(m.zero_run(0, SIZE)) + last() + m.command(m.DIGEST, digest) + b"\0")
    main.hold()


def refused(address, **changes):
    link = connect(address).say(m.frame(m.greeting(
        one_way=False, features=FEATURES, capabilities=["postcopy-ram"], **changes,
        blocks=[{"name": m.BLOCK, "size": SIZE, "page-size": q.PAGE}])))
    answer = link.frame()
    while answer.get("wait"):
        answer = link.frame()
    assert not answer["take"], answer
    link.close()


def tried(address, state, *, listens=True):
    """Begins, with a device state or without (None), and may have come as far as LISTENING."""
    main, urgent = greeted(address, device_state=state is not None)
    main.say(BEGIN)
    if state is not None:
        main.say(m.command(m.DEVICE_STATE, state))
    if listens:
        main.say(m.command(LISTEN) if state is None else listen_for(state))
        assert main.message()[0] == RP_LISTENING
    return main, urgent


def breaks(links):
    for link in links:
        link.close()


def finishes(links, state):
    """A guest of zeros."""
    main, urgent = links
    main.say(m.command(m.COMMIT))
    assert main.message()[0] == m.RP_DONE
    urgent.say(EOS)
    digest = digest_payload({}, state)
    main.say(part(m.zero_run(0, SIZE)) + last() + m.command(m.DIGEST, digest) + b"\0")
    kind, data = main.message()
    while kind == RP_REQUEST:
        kind, data = main.message()
    assert (kind, data) == (m.RP_READY, digest), (kind, data)
    main.close()


def source_begun_with(address):
    """The guest may have read the device state of a try that broke: no other source is let in."""
    breaks(tried(address, STATE))
    refused(address)
    finishes(tried(address, STATE), STATE)


def source_begun_without(address):
    """And the other way round."""
    breaks(tried(address, None))
    refused(address, device_state=True)
    finishes(tried(address, None), None)


def source_state_later(address):
    """A try that got nowhere had none."""
    breaks(tried(address, None, listens=False))
    finishes(tried(address, STATE), STATE)


TRIES = {"begun-with": source_begun_with, "begun-without": source_begun_without,
         "state-later": source_state_later}

SOURCES = {
    "page-before-listen": (before(part(m.run())), 12, "source", "a page before COMMIT"),
    "page-in-start": (lambda a: greeted(a)[0].say(
        m.HEAD + start(block_list(((m.BLOCK, SIZE),)) + m.run())).hold(),
        12, "source", "a page before COMMIT"),
    "ahead-block": (before(part(m.run(name="no")), AHEAD), 12, "source", "unknown block 'no'"),
    "ahead-beyond": (before(part(m.run(SIZE - q.PAGE, 2)), AHEAD), 12, "source",
                     "bytes in a block of"),
    "ahead-zeros": (before(part(m.zero_run(q.PAGE, (1 << 64) - q.PAGE)), AHEAD), 12, "source",
                    "bytes in a block of"),
    "ahead-compressed": (before(part(record(0x100, 0, m.BLOCK, be(10, 4) + bytes(10))), AHEAD), 12,
                         "source", "not understood"),
    "ahead-late": (before(m.command(LISTEN) + part(m.run()), AHEAD), 12, "source",
                   "a page before COMMIT"),
    "ahead-missing": (ends(lambda a: running(a, part(m.zero_run(0, SIZE - q.PAGE)))), 50, "destination",
                      "the page at 0xfff000 of block"),
    "ahead-digest": (ends(lambda a: running(a, part(m.run(0, SIZE // q.PAGE, b"\1" * SIZE)))), 50,
                     "destination", "has digest"),
    "discard-not": (before(discard(0, q.PAGE)), 12, "source", "a page before COMMIT"),
    "discard-block": (before(discard(0, q.PAGE, "no"), AHEAD), 12, "source", "unknown block 'no'"),
    "discard-beyond": (before(discard(SIZE, q.PAGE), AHEAD), 12, "source", "POSTCOPY_RAM_DISCARD of"),
    "discard-far": (before(discard(q.PAGE, (1 << 64) - q.PAGE), AHEAD), 12, "source",
                    "POSTCOPY_RAM_DISCARD of"),
    "discard-odd": (before(discard(1, q.PAGE), AHEAD), 12, "source", "POSTCOPY_RAM_DISCARD of"),
    "discard-short": (before(m.command(DISCARD, b"\0"), AHEAD), 12, "source", "POSTCOPY_RAM_DISCARD"),
    "commit-before-listen": (before(m.command(m.COMMIT)), 12, "source", "COMMIT is not expected"),
    "listen-long": (before(m.command(LISTEN, b"x")), 12, "source", "LISTEN of 1 bytes"),
    "listen-of-no-state": (before(listen_for(STATE)), 12, "source", "there is no device state"),
    "state-missing": (with_state(m.command(LISTEN)), 12, "source", "there was no device state"),
    "state-no-digest": (with_state(m.command(m.DEVICE_STATE, STATE) + m.command(LISTEN)), 12, "source",
                        "there was a device state"),
    "state-other": (with_state(m.command(m.DEVICE_STATE, STATE) + listen_for(STATE + b"!")), 13, "source",
                    "differs from what the source sent (18 bytes)"),
    "state-behind-listen": (with_state(m.command(m.DEVICE_STATE, STATE) + listen_for(STATE)
                                       + m.command(m.DEVICE_STATE, STATE)), 12, "source", "behind LISTEN"),
    "state-before-blocks": (lambda a: greeted(a, device_state=True)[0].say(
        m.HEAD + m.command(m.DEVICE_STATE, STATE)).hold(), 12, "source", "before the list of blocks"),
    "state-other-at-end": (other_state_at_the_end, 50, "destination", "differs from what the source sent (0 bytes)"),
    "listen-twice": (instead(m.command(LISTEN)), 12, "source", "LISTEN is not expected"),
    "page-before-commit": (instead(part(m.run())), 12, "source", "a page before COMMIT"),
    "commit-twice": (behind(m.command(m.COMMIT)), 50, "destination", "COMMIT is not expected"),
    "device-state": (behind(m.command(m.DEVICE_STATE, b"x")), 50, "destination", "device state"),
    "unknown-block": (behind(part(m.run(name="no"))), 50, "destination", "unknown block 'no'"),
    "beyond": (behind(part(m.run(SIZE))), 50, "destination", "bytes in a block of"),
    "beyond-end": (behind(part(m.run(SIZE - q.PAGE, 2))), 50, "destination", "bytes in a block of"),
    "no-pages": (behind(part(m.run(0, 0))), 50, "destination", "0 bytes in a block of"),
    "zeros-far": (behind(part(m.zero_run(q.PAGE, (1 << 64) - q.PAGE))), 50, "destination",
                  "bytes in a block of"),
    "no-block": (behind(part(be(0x400 | CONTINUE, 8) + be(1, 4) + bytes(q.PAGE))), 50,
                 "destination", "there was none"),
    "compressed": (behind(part(record(0x100, 0, m.BLOCK, be(10, 4) + bytes(10)))), 50,
                   "destination", "not understood"),
    "fill": (behind(part(record(2, 0, m.BLOCK, b"\7"))), 50, "destination", "fill byte 0x07"),
    "urgent-flags": (urgently(be(0x13, 8)), 50, "destination", "not understood"),
    "urgent-block": (urgently(m.run(name="no")), 50, "destination", "unknown block 'no'"),
    "urgent-closes": (closes_urgent, 50, "destination", "ended"),
    "closes": (closes, 50, "destination", "ended"),
    "end-before-listen": (ends(begun, urgent_first=False), 12, "source", "ends before COMMIT"),
    "end-before-commit": (ends(ready, urgent_first=False), 12, "source", "ends before COMMIT"),
    "end-without-pages": (ends(running), 50, "destination", "the page at 0x0 of block"),
    "end-without-one": (ends(running, m.zero_run(0, SIZE - q.PAGE)), 50, "destination",
                        "the page at 0xfff000 of block"),
    "fails": (behind(m.command(m.FAILED, m.reason("the disk is on fire"))), 50, "destination",
              "the disk is on fire"),
    "wrong-digest": (wrong_digest, 50, "destination", "has digest"),
    "digest-of-devices": (lambda a: wrong_digest(a, bytes(39) + b"\1"), 50, "destination",
                          "device state"),
}


# ---- destinations ----

def accept(server):
    return Link(server.accept()[0])


def taken(server):
    main = accept(server)
    main.frame()
    main.say(m.frame({"version": 1, "program": "migtool 0.1.0", "take": True,
                      "features": FEATURES}))
    urgent = accept(server)
    hello = urgent.read(64)
    assert hello[24] == URGENT, hello
    return main, urgent


def up_to(link, data, behind=0):
    """Reads on until that has come, and so many bytes; whatever is behind these stays unread."""
    seen = b""
    while True:
        more = link.sock.recv(65536, socket.MSG_PEEK)
        if not more:
            raise ConnectionError("closed")
        at = (seen + more).find(data)
        if at >= 0:
            link.read(at + len(data) - len(seen) + behind)
            return
        link.read(len(more))
        seen = (seen + more)[-len(data):]


def told(server):
    main, urgent = taken(server)
    up_to(main, m.command(LISTEN))
    return main, urgent


def given(server, flags=0, unit=q.PAGE):
    main, urgent = told(server)
    main.say(listening(flags, unit))
    up_to(main, m.command(m.COMMIT))
    return main, urgent


def owns(server, flags=1, unit=q.PAGE):
    main, urgent = given(server, flags, unit)
    main.say(m.message(m.RP_DONE))
    return main, urgent


def destination_good(server):
    """Asks for two pages, one of them twice, and has enough."""
    main, urgent = owns(server)
    urgent.say(request(0, 2 * q.PAGE, 4 * q.PAGE) + request(0, q.PAGE, 4 * q.PAGE)
               + request(0, q.PAGE, SIZE - q.PAGE))
    seen = 0
    name = True
    while seen < 3:
        flags = int.from_bytes(urgent.read(8), "big") & (q.PAGE - 1)
        if name:
            assert not flags & CONTINUE
            urgent.read(urgent.read(1)[0])
        name = False
        if flags & m.ZERO_RUN:
            seen += int.from_bytes(urgent.read(8), "big") // q.PAGE
        else:
            pages = int.from_bytes(urgent.read(4), "big")
            urgent.read(pages * q.PAGE)
            seen += pages
    main.say(m.message(RP_ENOUGH))
    assert urgent.read(8) == EOS
    main.hold()


def destination_again(server, image):
    """Asks for what is on its way: that comes at once, but no third time."""
    with open(image, "rb") as f:
        memory = f.read()
    data = [o for o in range(0, SIZE, q.PAGE) if any(memory[o:o + q.PAGE])]
    first, end = data[0], data[-1]
    main, urgent = owns(server, 0)
    main.read(64 << 10)
    urgent.say(request(0, q.PAGE, first) * 2 + request(0, q.PAGE, end))
    for at in (first, end):
        word = int.from_bytes(urgent.read(8), "big")
        assert word & ~(q.PAGE - 1) == at, (hex(word), at)
        if at == first:
            urgent.read(urgent.read(1)[0])
        assert urgent.read(4 + q.PAGE) == be(1, 4) + memory[at:at + q.PAGE]
    main.say(m.message(RP_ENOUGH))
    up_to(main, be(q.COMMAND, 1) + be(m.DIGEST, 2) + be(40, 4), 41)
    assert urgent.read(8) == EOS
    main.hold()


def says_early(data):
    """Before LISTEN was said, or as soon as it was."""
    return lambda server: taken(server)[0].say(data).hold()


def says(data):
    """Instead of LISTENING."""
    return lambda server: told(server)[0].say(data).hold()


def says_given(data):
    """Instead of DONE."""
    return lambda server: given(server)[0].say(data).hold()


def says_owning(data):
    return lambda server: owns(server)[0].say(data).hold()


def asks(data, unit=q.PAGE):
    def play(server):
        links = owns(server, 1, unit)
        up_to(links[0], m.command(m.KEEPALIVE))  # it has read DONE
        links[1].say(data)
        links[0].hold()
    return play


def asks_early(server):
    links = told(server)
    links[1].say(request())
    links[0].hold()


def closes_owning(server):
    owns(server)[0].close()


def closes_given(server):
    given(server)[0].close()


def other_digest(server):
    main, _ = owns(server, 0)
    up_to(main, be(q.COMMAND, 1) + be(m.DIGEST, 2) + be(40, 4), 41)
    main.say(m.message(m.RP_READY, bytes(40))).hold()


DESTINATIONS = {
    "done-early": (says(m.message(m.RP_DONE)), 12, "source", "DONE before COMMIT"),
    "enough-early": (says(m.message(RP_ENOUGH)), 12, "source", "ENOUGH is not expected"),
    "ack-of-qemus": (says(m.message(7)), 12, "source", "SWITCHOVER_ACK is not expected"),
    "request-early": (says_early(request()), 12, "source", "REQUEST is not expected"),
    "unit-small": (says(listening(unit=2048)), 12, "source", "pages of 2048 bytes"),
    "unit-odd": (says(listening(unit=12288)), 12, "source", "pages of 12288 bytes"),
    "unit-huge": (says(listening(unit=1 << 31)), 12, "source", "expected a power of two"),
    "flags": (says(listening(6)), 12, "source", "flags 0x6"),
    "short": (says(m.message(RP_LISTENING, bytes(7))), 12, "source", "LISTENING has 7 bytes"),
    "fails": (says(m.message(m.RP_FAILED, m.reason("no room for it"))), 11, "source",
              "no room for it"),
    "listening-twice": (says_given(listening()), 50, "unknown", "LISTENING is not expected"),
    "closes-given": (closes_given, 50, "unknown", "COMMIT was sent and not answered"),
    "closes": (closes_owning, 50, "destination", "waits there for memory"),
    "fails-owning": (says_owning(m.message(m.RP_FAILED, m.reason("no room for it"))), 50,
                     "destination", "no room for it"),
    "ready-early": (says_owning(m.message(m.RP_READY, bytes(40))), 50, "destination",
                    "READY before all was sent"),
    "request-here": (says_owning(request()), 50, "destination", "REQUEST is not expected here"),
    "qemus-request": (says_owning(m.message(4, bytes(12))), 50, "destination", "not expected"),
    "other-digest": (other_digest, 50, "destination", "digest differs"),
    "urgent-other": (asks(m.message(m.RP_DONE)), 50, "destination",
                     "DONE on the connection for requested pages"),
    "urgent-closes": (lambda s: (lambda l: (l[1].close(), l[0].hold()))(owns(s)), 50,
                      "destination", "waits there for memory"),
    "block": (asks(request(1)), 50, "destination", "pages of block 1, and there are 1"),
    "block-far": (asks(request(0xFFFFFFFF)), 50, "destination", "pages of block 4294967295"),
    "nothing": (asks(request(0, 0)), 50, "destination", "a request for 0 bytes"),
    "unaligned": (asks(request(0, q.PAGE, 1)), 50, "destination", "bytes at 0x1 of block"),
    "odd-length": (asks(request(0, q.PAGE + 1)), 50, "destination", "a request for 4097 bytes"),
    "beyond": (asks(request(0, q.PAGE, SIZE)), 50, "destination", "a request for 4096 bytes"),
    "far": (asks(request(0, q.PAGE, (1 << 64) - q.PAGE)), 50, "destination", "a request for"),
    "half-unit": (asks(request(0, q.PAGE), 2 * MIB), 50, "destination", "in pages of 2097152"),
}


def listen(address, script):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        yield
        script(server)
        yield


def dial(address, script):
    """Once somebody listens there."""
    yield
    for _ in range(3000):
        try:
            script(address)
            break
        except (FileNotFoundError, ConnectionRefusedError):  # not there, or bound and no more yet
            time.sleep(0.02)
    yield


def go_on(playing):
    try:
        next(playing)
    except (OSError, IndexError):  # what the real one does then is its own affair
        pass


def play_all(role, where):
    for name, (script, *_) in (SOURCES if role == "source" else DESTINATIONS).items():
        playing = (dial if role == "source" else listen)(os.path.join(where, name), script)
        next(playing)
        threading.Thread(target=go_on, args=[playing], daemon=True).start()
    print("listening", flush=True)
    time.sleep(300)


def main():
    if sys.argv[1] == "all":
        play_all(sys.argv[2], sys.argv[3])
    role, address, script = (sys.argv[1:] + [None] * 2)[:3]
    if role == "list":
        for name, (_, status, owner, words) in (SOURCES if address == "source"
                                                else DESTINATIONS).items():
            print(name, status, owner, words)
        return
    try:
        if role == "source":
            if script in ("good", "ahead"):
                (source_good if script == "good" else source_ahead)(address, sys.argv[4])
            elif script in TRIES:
                TRIES[script](address)
            else:
                SOURCES[script][0](address)
            return
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            print("listening", flush=True)
            if script == "good":
                destination_good(server)
            elif script == "again":
                destination_again(server, sys.argv[4])
            else:
                DESTINATIONS[script][0](server)
    except (ConnectionError, BrokenPipeError):
        if script in ("good", "ahead", "again"):
            raise


if __name__ == "__main__":
    main()
