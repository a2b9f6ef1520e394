#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a migtool that does something wrong at the other end of a real one.

fake_peer.py source ADDRESS SCRIPT          connects to `migtool recv`
fake_peer.py destination ADDRESS SCRIPT     listens for `migtool send`; prints a line once it does
fake_peer.py                                plays each "ROLE ADDRESS SCRIPT" that it reads, a line each

The third way prints "ready", and "ended" (perhaps with more words) behind each: a test that plays
many waits for python to start but once, and --timeout need not allow for that.

ADDRESS is a UNIX socket's path. The SCRIPTs are the functions below: source_NAME, destination_NAME.
What the real one does then is its own affair: a connection that it closes ends a script early, and
that is no failure. Nobody is waited for longer than 30 seconds.
"""

import json
import os
import select
import socket
import sys
import zlib

sys.dont_write_bytecode = True
import migtool_stream as m  # noqa: E402
from bad_streams import HEAD, TAIL, be, last, part, start  # noqa: E402
from migtool_stream import q  # noqa: E402

LIMIT = 30
OPEN_RETURN_PATH = 1
SWITCHOVER_ACK = m.message(7)
END = be(0, 1) + be(q.VMDESCRIPTION, 1) + be(0, 4)


class Link:
    """One connection."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(LIMIT)

    def say(self, data):
        self.sock.sendall(data)
        return self

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def frame(self):
        self.read(8)
        return json.loads(self.read(int.from_bytes(self.read(4), "big")))

    def message(self):
        """Type and payload of what comes back to a source, keepalives left out."""
        while True:
            kind = int.from_bytes(self.read(2), "big")
            size = 4 if kind >= 0x4000 else 2
            data = self.read(int.from_bytes(self.read(size), "big"))
            if kind != m.RP_KEEPALIVE:
                return kind, data

    def hold(self):
        """Says no more, and waits until the other end closes."""
        try:
            while self.sock.recv(65536):
                pass
        except OSError:
            pass

    def stall(self):
        """Does not even read."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        poll.poll(LIMIT * 1000)

    def close(self):
        self.sock.close()


def connect(address):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    return Link(sock)


# ---- sources ----

def greet(address, **changes):
    link = connect(address).say(m.frame(m.greeting(one_way=False, **changes)))
    answer = link.frame()
    while answer.get("wait"):
        answer = link.frame()
    assert answer["take"], answer
    return link


def with_channels(address, *hellos, method="none"):
    """A session of two channels: the main connection, and one for each hello."""
    main = greet(address, capabilities=["multifd"],
                 parameters={"multifd-channels": 2, "multifd-compression": method})
    main.say(m.HEAD)
    return [main] + [connect(address).say(h) for h in hellos]


def source_silent(address):
    connect(address).hold()


def source_greets_half(address):
    connect(address).say(m.frame(m.greeting())[:50]).hold()


def source_crowd(address):
    links = [connect(address) for _ in range(20)]
    print("connected", flush=True)
    for link in links:
        link.hold()


def source_halves(address):
    """Greetings, long ones and a QEMU's head, that stop in the middle, and one that is wrong."""
    frame = m.frame(m.greeting(x="y" * 500000))
    texts = [m.frame(m.greeting())[:50], frame[:10], frame[:300000], b"QEVM",
             b"QEVM\0\0\0\3\7\0\0\0\2p"]
    links = [connect(address).say(texts[i % len(texts)]) for i in range(20)]
    wrong = connect(address).say(m.frame({"version": 77}))
    assert not wrong.frame().get("take"), "a wrong greeting was taken"
    print("connected", flush=True)
    for link in links:
        link.hold()


def source_flood(address):
    """Many more than there are places."""
    links = []
    for _ in range(600):
        links.append(connect(address))
    print("connected", flush=True)
    for link in links:
        link.hold()


def source_closes(address):
    connect(address).close()


def source_scans(address):
    connect(address).say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").hold()


def source_stalls_after_greeting(address):
    greet(address).hold()


def source_stalls_in_page(address):
    greet(address).say(m.BEGIN + part(m.run(pages=4))[:9000]).hold()


def source_closes_in_page(address):
    greet(address).say(m.BEGIN + part(m.run(pages=4))[:9000]).close()


def source_closes_before_digest(address):
    greet(address).say(m.BEGIN + part(m.zero_run()) + last()).close()


def ready(address):
    link = greet(address).say(m.GOOD)
    kind, data = link.message()
    assert (kind, data) == (m.RP_READY, m.ZERO_DIGEST), (kind, data)
    return link


def source_closes_after_ready(address):
    ready(address).close()


def source_stalls_after_ready(address):
    ready(address).hold()


def source_fails_after_ready(address):
    ready(address).say(m.command(m.FAILED, m.reason("second thoughts"))).hold()


def source_talks_after_ready(address):
    ready(address).say(part(m.run())).hold()


def source_fails_in_the_middle(address):
    greet(address).say(m.BEGIN + part(m.run()) + m.command(
        m.FAILED, m.reason("the disk is on fire", hint="run"))).hold()


def source_wrong_digest(address):
    greet(address).say(m.with_records(m.run())).hold()


def source_channel_twice(address):
    with_channels(address, m.hello(0), m.hello(0))[0].hold()


def source_channel_number(address):
    with_channels(address, m.hello(0), m.hello(2))[0].hold()


def source_channel_missing(address):
    with_channels(address, m.hello(1))[0].hold()


def source_channel_stalls(address):
    with_channels(address, m.hello(1), m.hello(0)[:20])[0].hold()


def source_channel_ends(address):
    links = with_channels(address, m.hello(1), m.hello(0))
    links[1].close()
    links[0].say(m.GOOD[len(m.HEAD):].replace(m.EOS, m.FLUSH + m.EOS, 1)).hold()


def channels_with(address, packet, method="none"):
    """Both channels are right, but for this packet on the second."""
    main, *links = with_channels(address, m.hello(0), m.hello(1), method=method)
    links[1].say(packet)
    main.say(m.BEGIN[len(m.HEAD):]).hold()


def foreign_channels(address, rest):
    """Strangers between the channels of a session that is right, and then `rest`."""
    stranger = "ff" * 16
    links = with_channels(address, m.hello(0, stranger), m.hello(1), m.hello(1, stranger),
                          b"GET / HTTP/1.1\r\n\r\n", m.hello(0, version=1), m.hello(0))
    main, one, zero = links[0], links[2], links[6]
    one.say(m.packet([(0, m.SIZE // q.PAGE, True)]) + m.packet(flags=m.SYNC))
    zero.say(m.packet(flags=m.SYNC))
    main.say(m.GOOD[len(m.HEAD):].replace(m.EOS, m.FLUSH + m.EOS, 1))
    kind, data = main.message()
    assert (kind, data) == (m.RP_READY, m.ZERO_DIGEST), (kind, data)
    rest(main)


def source_foreign_channels(address):
    def commit(main):
        assert main.say(m.command(m.COMMIT)).message()[0] == m.RP_DONE

    foreign_channels(address, commit)


def source_qemu_wants_ack(address):
    """A QEMU with switchover-ack."""
    link = connect(address).say(HEAD + m.command(OPEN_RETURN_PATH) + m.command(OPEN_RETURN_PATH))
    assert link.read(4) == SWITCHOVER_ACK
    link.say(start() + part() + TAIL)
    assert link.read(8) == m.message(m.RP_SHUT, be(0, 4))
    link.close()


ONE = [(0, 1, False)]
TWO = [(0, 2, False)]
PACKETS = {
    "magic": m.packet(ONE, m.PAGE, magic=0x11223345),
    "version": m.packet(ONE, m.PAGE, version=1),
    "flags": m.packet(ONE, m.PAGE, flags=0x80),
    "method": m.packet(ONE, m.PAGE[:99], flags=m.ZLIB),
    "block": m.packet(ONE, m.PAGE, block=1),
    "block-far": m.packet(ONE, m.PAGE, block=0xFFFFFFFF),
    "no-pages": m.packet([(0, 0, False)]),
    "runs": m.packet(ONE, m.PAGE, nruns=257),
    "payload-huge": m.packet(ONE, length=0x7FFFFFFF),
    "payload-short": m.packet(ONE, m.PAGE[:-1]),
    "payload-cut": m.packet(ONE, m.PAGE)[:-1],
    "raw-too-much": m.packet(ONE, m.PAGE * 2, raw=2 * q.PAGE),
    "raw-huge": m.packet(TWO, m.PAGE, raw=0xFFFFF000),
    "unaligned": m.packet([(1, 1, False)], m.PAGE),
    "beyond": m.packet([(m.SIZE, 1, False)], m.PAGE),
    "beyond-end": m.packet([(m.SIZE - q.PAGE, 2, False)], m.PAGE * 2),
    "far": m.packet([((1 << 64) - q.PAGE, 1, False)], m.PAGE),
    "zero-beyond": m.packet([(0, m.SIZE // q.PAGE + 1, True)]),
    "zero-far": m.packet([((1 << 64) - q.PAGE, 0x7FFFFFFF, True)]),
}
# What a payload for two pages may decode to instead: so many bytes.
DECODED = {"more": 3 * q.PAGE, "less": q.PAGE, "one-more": 2 * q.PAGE + 1, "one-less": 2 * q.PAGE - 1}


def source_packet(address, name):
    channels_with(address, PACKETS[name])


def zstd(count):
    """A frame that says its size, of one block that repeats a byte."""
    return (b"\x28\xb5\x2f\xfd\xa0" + count.to_bytes(4, "little")
            + (count << 3 | 3).to_bytes(3, "little") + b"x")


def compressed(address, what, method, flag, pack):
    """Payload that is garbage, empty, cut, or decodes to something else than two pages."""
    good = pack(2 * q.PAGE)
    special = {"garbage": b"\x55" * 100, "empty": b"", "cut": good[:-1], "left-over": good + b"x",
               "flipped": good[:-1] + bytes([good[-1] ^ 0xFF])}
    data = special[what] if what in special else pack(DECODED[what])
    channels_with(address, m.packet(TWO, data, flags=flag), method)


def source_zstd(address, what):
    compressed(address, what, "zstd", m.ZSTD, zstd)


def source_zlib(address, what):
    compressed(address, what, "zlib", m.ZLIB, lambda count: zlib.compress(b"x" * count))


# ---- destinations ----

def accept(server):
    sock, _ = server.accept()
    return Link(sock)


def taken(server, **changes):
    """A destination that has taken the greeting."""
    link = accept(server)
    link.frame()
    answer = {"version": 1, "program": "migtool 0.1.0", "take": True,
              "features": ["page-runs", "multifd-2"], "parameters": {"multifd-channels": 2}}
    answer.update(changes)
    return link.say(m.frame(answer))


def whole(server):
    """It has read the stream to its end."""
    link = taken(server)
    data = b""
    while not data.endswith(m.ZERO_DIGEST + b"\0" + be(q.VMDESCRIPTION, 1) + be(0, 4)):
        data += link.read(1)
    return link


def destination_silent(server):
    accept(server).hold()


def destination_closes(server):
    accept(server).close()


def destination_no_migtool(server):
    link = accept(server)
    link.frame()
    link.say(b"HTTP/1.1 400 Bad Request\r\n\r\n").hold()


def destination_answers_too_long(server):
    link = accept(server)
    link.frame()
    link.say(m.frame({}, length=1 << 30)).hold()


def destination_answers_no_json(server):
    link = accept(server)
    link.frame()
    link.say(m.frame(b"take it")).hold()


def destination_other_version(server):
    taken(server, version=2).hold()


def destination_refuses(server):
    taken(server, take=False, reason="I like \x1b[31mno\x1b[0m memory", status=4,
          hint="bring\ncake").hold()


def destination_refuses_with_success(server):
    taken(server, take=False, status=0).hold()


def destination_channels(server):
    taken(server, parameters={"multifd-channels": 256}).hold()


def destination_closes_in_the_middle(server):
    link = taken(server)
    link.read(1000)
    link.close()


def destination_stalls(server):
    taken(server).stall()


def destination_fails(server):
    link = taken(server)
    link.read(1000)
    link.say(m.message(m.RP_FAILED, m.reason("no space left: 3 of 9 bytes", 11, "make room"))).hold()


def destination_fails_with_escapes(server):
    link = taken(server)
    link.read(1000)
    link.say(m.message(m.RP_FAILED, m.reason("\x1b[2J\r\n" + "x" * 1000, 50))).hold()


def destination_wrong_digest(server):
    whole(server).say(m.message(m.RP_READY, bytes(39) + b"\1")).hold()


def destination_ready_early(server):
    taken(server).say(m.message(m.RP_READY, m.ZERO_DIGEST)).hold()


def destination_done_early(server):
    taken(server).say(m.message(m.RP_DONE)).hold()


def destination_unknown_message(server):
    taken(server).say(m.message(0x4FFF, b"abc")).hold()


def destination_long_message(server):
    taken(server).say(m.message(m.RP_READY, length=0xFFFFFFFF)).hold()


def destination_shut(server):
    taken(server).say(m.message(m.RP_SHUT, be(1, 4))).hold()


def destination_closes_before_ready(server):
    whole(server).close()


def destination_stalls_before_ready(server):
    whole(server).hold()


def committed(server):
    link = whole(server).say(m.message(m.RP_READY, m.ZERO_DIGEST))
    commit = m.command(m.COMMIT)
    assert link.read(len(commit)) == commit
    return link


def destination_closes_before_done(server):
    committed(server).close()


def destination_stalls_before_done(server):
    committed(server).hold()


def destination_fails_after_commit(server):
    committed(server).say(m.message(m.RP_FAILED, m.reason("cannot rename it"))).hold()


def quiet(link):
    """All that comes until nothing has for half a second."""
    data = b""
    while select.select([link.sock], [], [], .5)[0]:
        more = link.sock.recv(65536)
        assert more, "closed"
        data += more
    return data


def destination_qemu_acks(server):
    link = accept(server)
    data = quiet(link)
    assert m.command(OPEN_RETURN_PATH) in data and not data.endswith(END), data[-20:]
    link.say(SWITCHOVER_ACK)
    while not data.endswith(END):
        data += link.read(1)
    link.say(m.message(m.RP_SHUT, be(0, 4))).hold()


def destination_qemu_never_acks(server):
    link = accept(server)
    assert not quiet(link).endswith(END)
    link.hold()


def play(role, address, script):
    name, _, argument = script.partition(":")
    function = globals()[f"{role}_{name.replace('-', '_')}"]
    arguments = [argument] if argument else []
    try:
        if role == "source":
            function(address, *arguments)
        else:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(address)
                server.listen()
                print("listening", flush=True)
                function(server, *arguments)
            os.unlink(address)
    except (ConnectionError, TimeoutError) as e:
        print(f"ended early: {e}", flush=True)
    else:
        print("ended", flush=True)


def main():
    if len(sys.argv) == 4:
        play(*sys.argv[1:])
    elif len(sys.argv) == 1:
        print("ready", flush=True)
        for line in sys.stdin:
            play(*line.split())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
