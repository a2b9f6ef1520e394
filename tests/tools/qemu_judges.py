#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares our rules and tables with those of a running QEMU 7.2.

qemu_judges.py SOCKET pairs GOLDEN    each pair of capabilities that both know
qemu_judges.py SOCKET caps LISTING    names, in order (LISTING: migtool --list-caps)
qemu_judges.py SOCKET params JSON     names and defaults (JSON: migtool params --json)

Prints what differs and, last, how much was compared. The status is 1 if anything differs.
"""

import json
import sys

from qmp import Qmp, QmpError

# Rules of QEMU 8.1 that 7.2 has too, when it is no destination.
RULES_OF_7_2 = {4, 7, 8, 10, 11, 13}


def sets(qmp, names, state):
    qmp.execute("migrate-set-capabilities",
                capabilities=[{"capability": n, "state": state} for n in names])


def accepts(qmp, names):
    try:
        sets(qmp, names, True)
    except QmpError:
        return False
    sets(qmp, names, False)
    return True


def known_caps(qmp):
    return [c["capability"] for c in qmp.execute("query-migrate-capabilities")]


def pairs(qmp, path):
    """block and x-colo are built into this QEMU and not into migtool, so nothing compares."""
    known = set(known_caps(qmp)) - {"block", "x-colo"}
    snapshots = accepts(qmp, ["background-snapshot"])  # needs a kernel that tracks writes
    for line in open(path, encoding="utf-8"):
        pair, whose, verdict = (f.strip() for f in line.split("|", 2))
        names = pair.split(" + ")
        if not known.issuperset(names) or ("background-snapshot" in names and not snapshots):
            continue
        rule = int(whose.split()[1]) if whose.startswith("qemu") else 0
        expected = rule not in RULES_OF_7_2
        found = accepts(qmp, names)
        yield None if found == expected else (
            f"{pair}: QEMU {'accepts' if found else 'refuses'} it; we say: {whose}: {verdict}")


def caps(qmp, path):
    ours = [line.split("\t")[0] for line in open(path, encoding="utf-8")]
    for mine, theirs in zip(ours, known_caps(qmp)):
        yield None if mine == theirs else f"{mine}: QEMU has {theirs} in this place"


def params(qmp, path):
    ours = {p["name"]: p for p in json.load(open(path, encoding="utf-8"))}
    for name, default in qmp.execute("query-migrate-parameters").items():
        mine = ours.get(name)
        if mine is None:
            yield f"{name}: we do not know it"
        elif mine["default"] == default:
            yield f"{name}: marked as different" if "differs" in mine else None
        else:
            yield None if "differs" in mine else f"{name}: {mine['default']}, QEMU: {default}"


def main():
    socket, what, path = sys.argv[1:]
    compare = {"pairs": pairs, "caps": caps, "params": params}[what]
    results = list(compare(Qmp(socket, 60), path))
    bad = [r for r in results if r]
    for r in bad:
        print(r)
    print(f"{len(results)} compared, {len(bad)} differ")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
