"""Copies one file with each of several programs, in turns, and prints how fast each was.

All of them read the same file of random bytes and write a new file, both in a tmpfs. A round is one run
of each; the first does not count. The host gives back memory that was freed only slowly: before
each run a plain copy of the file takes as much as the run will, and is removed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Contender:
    """A program, the files it writes for each that it reads, and how much faster `put` is to be."""

    def __init__(self, name, command, env=None, copies=1, wanted=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.env = {**os.environ, **(env or {})}
        self.copies = copies
        self.wanted = wanted
        self.seconds = []
        self.cpu_seconds = []

    def run(self, world, counts):
        out = world.fresh("out")
        for number in range(self.copies):
            shutil.copyfile(world.source, out / f"warm{number}")
        out = world.fresh("out")
        for name in ("server", "cache"):
            (out / name).mkdir()
        started = time.monotonic()
        process = subprocess.Popen(
            self.command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        told = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        took = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        if process.returncode != 0 or written < self.copies * world.size:
            raise SystemExit(f"{self.name}: {written} bytes written\n{told.decode()}")
        if counts:
            self.seconds.append(took)
            self.cpu_seconds.append(used.ru_utime + used.ru_stime)


class World:
    """A directory in the tmpfs, with the file that all of them read."""

    def __init__(self, directory, size):
        self.directory = Path(directory)
        self.size = size
        self.source = self.directory / "source"
        with open(self.source, "wb") as file:
            left = size
            while left > 0:
                left -= file.write(os.urandom(min(left, 1 << 20)))

    def fresh(self, name):
        path = self.directory / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def contenders(world, writeback):
    source, out = world.source, world.directory / "out"
    key, identity = world.directory / "key", world.directory / "identity"
    output_of(writeback, "keygen", key)
    output_of("age-keygen", "-o", identity)
    put = [writeback, "put", source, "--server", out / "server", "--key", key, "--name", "file"]
    # A remote called `sealed`, of type crypt, without a configuration file.
    crypt = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_SEALED_TYPE": "crypt",
        "RCLONE_CONFIG_SEALED_REMOTE": str(out / "server"),
        "RCLONE_CONFIG_SEALED_PASSWORD": output_of("rclone", "obscure", "a password"),
    }
    recipient = output_of("age-keygen", "-y", identity)
    ctr = ["-aes-256-ctr", "-K", "07" * 32, "-iv", "00" * 16]
    return [
        Contender("put", put),
        Contender("put --cache", put + ["--cache", out / "cache"], copies=2),
        Contender("age -e", ["age", "-e", "-r", recipient, "-o", out / "file", source], wanted=2.5),
        Contender("rclone crypt", ["rclone", "copyto", source, "sealed:file"], crypt, wanted=10),
        Contender("openssl enc", ["openssl", "enc", *ctr, "-in", source, "-out", out / "file"]),
        Contender("cp", ["cp", source, out / "file"], wanted=1),
    ]


def outcome(contender, put, size):
    """Medians; of the ratio, of the rounds' ratios. The spread is between the ratios' quartiles.

    What disturbs a run makes it slower and never faster: the ratio of the fastest runs says most.
    """
    ratios = [theirs / ours for theirs, ours in zip(contender.seconds, put.seconds)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    speeds = [size / 1e9 / seconds for seconds in contender.seconds]
    return {
        "command": contender.name,
        "gb_per_s": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "cpu_s_per_gb": statistics.median(contender.cpu_seconds) / (size / 1e9),
        "put_is_times_as_fast": ratio,
        "at_their_fastest": min(contender.seconds) / min(put.seconds),
        "spread": (high - low) / ratio,
        "wanted": contender.wanted,
    }


def line(outcome):
    wanted = outcome["wanted"]
    verdict = ""
    if wanted is not None:
        is_met = outcome["put_is_times_as_fast"] >= wanted
        verdict = f" ({'>=' if is_met else 'below'} {wanted})"
    return (
        "{command:<14}{gb_per_s:5.2f} GB/s ({slowest:.2f} to {fastest:.2f}), CPU {cpu_s_per_gb:.2f} s/GB;"
        " put is {put_is_times_as_fast:.2f} times as fast".format(**outcome)
        + verdict
        + ", spread {spread:.2f}; at their fastest {at_their_fastest:.2f} times".format(**outcome)
    )


def size_of(text):
    digits, unit = text[:-3], text[-3:]
    if unit not in UNITS or not digits.isdigit():
        raise argparse.ArgumentTypeError("a size is a whole number of KiB, MiB or GiB")
    return int(digits) * UNITS[unit]


def main():
    parser = argparse.ArgumentParser(prog="tests/peers/run", description=__doc__)
    parser.add_argument("writeback", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=size_of, default=size_of("2GiB"), help="of the file")
    parser.add_argument("--rounds", type=int, default=5, help="that count; at least 2")
    parser.add_argument("--dir", default="/dev/shm", help="a tmpfs with room for six such files")
    parser.add_argument("--json", action="store_true", help="print one object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        world = World(directory, args.size)
        all_of_them = contenders(world, args.writeback)
        for number in range(args.rounds + 1):
            for contender in all_of_them:
                contender.run(world, counts=number > 0)
    outcomes = [outcome(contender, all_of_them[0], args.size) for contender in all_of_them]
    if args.json:
        print(json.dumps({"size": args.size, "rounds": args.rounds, "commands": outcomes}))
    else:
        print("\n".join(map(line, outcomes)))


if __name__ == "__main__":
    main()
