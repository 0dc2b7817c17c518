"""Overwrites records of a file in a mounted folder, with an fsync after each, and notes outside of it what was
acknowledged, until the folder is gone. With --check: each record is the acknowledged one, or, for the one
that was being written, that or the next."""

import os
import sys

N_RECORDS, RECORD_BYTES = 64, 20_000


def record(number, version):
    return (b"%d:%d;" % (number, version)).ljust(100, b".") * (RECORD_BYTES // 100)


def write(folder, notes):
    file = os.open(os.path.join(folder, "records"), os.O_RDWR | os.O_CREAT, 0o600)
    with open(notes, "w") as noted:
        for version in range(1 << 30):
            for number in range(N_RECORDS):
                print("begin", number, version, file=noted, flush=True)
                os.pwrite(file, record(number, version), number * RECORD_BYTES)
                os.fsync(file)
                print("done", number, version, file=noted, flush=True)


def check(folder, notes):
    allowed = {}
    with open(notes) as noted:
        for line in noted:
            what, number, version = line.split()
            if what == "begin":
                allowed.setdefault(int(number), set()).add(int(version))
            else:
                allowed[int(number)] = {int(version)}
    n_done = 0
    with open(os.path.join(folder, "records"), "rb") as file:
        for number, versions in sorted(allowed.items()):
            file.seek(number * RECORD_BYTES)
            found = file.read(RECORD_BYTES)
            is_known = any(found == record(number, version) for version in versions)
            # The first write of the last record may be in part or not there at all.
            assert is_known or 0 in versions, (number, versions, found[:20])
            n_done += is_known
    assert n_done > 0
    print(n_done, "records are as they were acknowledged")


if sys.argv[1] == "--check":
    check(*sys.argv[2:])
else:
    write(*sys.argv[1:])
