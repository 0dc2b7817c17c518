"""Two mounts of one tree write other bytes of the same blocks: both see all of them in the end."""

import os
import sys

N_PLACES = 200
one, other = (os.path.join(folder, "merged") for folder in sys.argv[1:])
with open(one, "wb") as file:
    file.write(bytes(100_000))
files = [(os.open(one, os.O_RDWR), b"A" * 50, 0), (os.open(other, os.O_RDWR), b"B" * 50, 100)]
for place in range(N_PLACES):
    for file, data, offset in files:
        os.pwrite(file, data, place * 500 + offset)
    if place % 20 == 0:
        for file, _, _ in files:
            os.fsync(file)
for file, _, _ in files:
    os.close(file)
for path in one, other:
    with open(path, "rb") as file:
        found = file.read()
    assert len(found) == 100_000, len(found)
    for place in range(N_PLACES):
        for _, data, offset in files:
            start = place * 500 + offset
            assert found[start : start + 50] == data, (path, place, found[start : start + 50])
