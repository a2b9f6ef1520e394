#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client for shell scripts.

qmp.py [--timeout SECONDS] SOCKET COMMAND [ARGUMENT]...

  '{"execute": ...}'...   sends each in turn and prints what it returns, one JSON line each
  set SETTING...          SETTING: NAME turns the capability on, NAME=VALUE sets the parameter
  migrate URI [SETTING]...
  incoming URI [SETTING]...
  resettings SETTING...   parameters while a migration runs
  cancel | stop | cont | quit
  status                  prints query-migrate's status, `none` before any migration
  info                    prints query-migrate
  wait STATUS[,STATUS]    until query-migrate says one of them, then prints query-migrate
  wait-run STATE[,STATE]  until query-status says one of them
  wait-field NAME VALUE   until query-migrate's ram.NAME is at least VALUE
  address                 prints the tcp: or unix: URI that `incoming` really listens on
  pmemsave FILE START SIZE
  getfd NAME NUMBER       passes the inherited descriptor NUMBER to QEMU

The socket may appear late: connecting is tried again until the time is up. The exit status is 1
when QEMU answers with an error, 2 when `wait` can no longer succeed, 3 when the time is up.
"""

import array
import json
import socket
import sys
import time


class QmpError(Exception):
    pass


class TimeUp(Exception):
    pass


class Qmp:
    def __init__(self, path, timeout):
        self.deadline = time.monotonic() + timeout
        self.events = []
        self.buffer = b""
        self.sock = self._connect(path)
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeUp()
        return left

    def _connect(self, path):
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self.left())
            try:
                sock.connect(path)
                return sock
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                sock.close()
                time.sleep(min(0.01, self.left()))

    def _receive(self):
        while b"\n" not in self.buffer:
            self.sock.settimeout(self.left())
            try:
                data = self.sock.recv(65536)
            except socket.timeout as e:
                raise TimeUp() from e
            if not data:
                raise QmpError("QEMU closed the QMP connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def send(self, request, fds=()):
        data = json.dumps(request).encode() + b"\n"
        control = []
        if fds:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        self.sock.sendmsg([data], control)

    def request(self, request, fds=()):
        self.send(request, fds)
        while True:
            answer = self._receive()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(answer["error"]["desc"])
            elif "return" in answer:
                return answer["return"]

    def execute(self, command, fds=(), **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        return self.request(request, fds)

    def poll(self, command, good, hopeless=lambda answer: False):
        while True:
            answer = self.execute(command)
            if good(answer):
                return answer
            if hopeless(answer):
                print(json.dumps(answer))
                print(f"qmp.py: will not happen any more: {answer}", file=sys.stderr)
                sys.exit(2)
            time.sleep(min(0.02, self.left()))


def value_of(text):
    """A number or boolean where it looks like one, else the string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parameters(qmp, settings):
    wanted = dict(s.split("=", 1) for s in settings if "=" in s)
    if wanted:
        arguments = {k: value_of(v) for k, v in wanted.items()}
        qmp.request({"execute": "migrate-set-parameters", "arguments": arguments})


def configure(qmp, settings):
    on = [{"capability": s, "state": True} for s in settings if "=" not in s]
    if on:
        qmp.execute("migrate-set-capabilities", capabilities=on)
    parameters(qmp, settings)


def wait_status(qmp, names):
    wanted = names.split(",")
    ended = {"completed", "failed", "cancelled"} - set(wanted)
    answer = qmp.poll("query-migrate", lambda a: a.get("status") in wanted,
                      lambda a: a.get("status") in ended)
    print(json.dumps(answer))


def wait_field(qmp, name, least):
    qmp.poll("query-migrate", lambda a: a.get("ram", {}).get(name, -1) >= int(least),
             lambda a: a.get("status") in ("completed", "failed", "cancelled"))


def address(qmp):
    found = qmp.execute("query-migrate")["socket-address"][0]
    if found["type"] == "inet":
        print(f"tcp:{found['host']}:{found['port']}")
    else:
        print(f"unix:{found['path']}")


def migrate(qmp, uri, *settings):
    configure(qmp, settings)
    qmp.execute("migrate", uri=uri)


def incoming(qmp, uri, *settings):
    configure(qmp, settings)
    qmp.execute("migrate-incoming", uri=uri)


def quit_qemu(qmp):
    try:
        qmp.execute("quit")
    except (QmpError, ConnectionError):
        pass  # it may be gone before it has answered


COMMANDS = {
    "set": lambda qmp, *a: configure(qmp, a),
    "resettings": lambda qmp, *a: parameters(qmp, a),
    "migrate": migrate,
    "incoming": incoming,
    "cancel": lambda qmp: qmp.execute("migrate_cancel"),
    "stop": lambda qmp: qmp.execute("stop"),
    "cont": lambda qmp: qmp.execute("cont"),
    "quit": quit_qemu,
    "status": lambda qmp: print(qmp.execute("query-migrate").get("status", "none")),
    "info": lambda qmp: print(json.dumps(qmp.execute("query-migrate"))),
    "wait": wait_status,
    "wait-run": lambda qmp, names: print(json.dumps(
        qmp.poll("query-status", lambda a: a["status"] in names.split(",")))),
    "wait-field": wait_field,
    "address": address,
    "pmemsave": lambda qmp, name, start, size: qmp.execute(
        "pmemsave", val=int(start, 0), size=int(size, 0), filename=name),
    "getfd": lambda qmp, name, number: qmp.execute("getfd", fds=[int(number)], fdname=name),
}


def main(argv):
    timeout = 30.0
    if argv[:1] == ["--timeout"]:
        timeout, argv = float(argv[1]), argv[2:]
    if len(argv) < 2:
        sys.exit(__doc__)
    try:
        qmp = Qmp(argv[0], timeout)
        if argv[1] in COMMANDS:
            COMMANDS[argv[1]](qmp, *argv[2:])
        elif argv[1].startswith("{"):
            for text in argv[1:]:
                print(json.dumps(qmp.request(json.loads(text))))
        else:
            sys.exit(__doc__)
    except (QmpError, OSError) as e:
        print(f"qmp.py: {' '.join(argv[1:])}: {e}", file=sys.stderr)
        return 1
    except TimeUp:
        print(f"qmp.py: {' '.join(argv[1:])}: {timeout:g} seconds are up", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
