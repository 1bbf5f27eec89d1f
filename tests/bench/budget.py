#!/usr/bin/env python3
"""What one executable of hade takes, beside what it may: bytes, memory and threads when idle, and instructions per request.

budget.py PROGRAM TARGET DEMO, the target being that of Rust that it was built for, and the demo a program with a handler at
/hello; the program's own page needs none. None of these depends on how fast or busy the machine is, but that a handler which is
asked again soon enough takes half as much. The exit status is 1 where one is too much.
"""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

REQUESTS = 1000
GLIBC = {"size": 2_700_000, "pss": 2900, "threads": 8}
MUSL = {"size": 1_600_000, "pss": 1750, "threads": 8}
INSTRUCTIONS = {"fixed": (7_000, 6_300), "handler": (22_000, 9_500)}
PATIENCE = 60


def wait_for(what, condition):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    sys.exit(f"budget.py: {what} never came in {PATIENCE} s")


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


class Service:
    """One in the foreground, in a directory of its own, ended by a signal."""

    def __init__(self, program, before=()):
        self.directory = tempfile.mkdtemp(prefix="hade-budget-")
        words = [word.replace("DIR", self.directory) for word in before]
        words += [program, "app", "start", "--base-dir", self.directory, "--address", "127.0.0.1:0"]
        with open(f"{self.directory}/out", "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        said = r"\w+: started, pid (\d+), on http://127\.0\.0\.1:(\d+)"
        found = wait_for("the start", lambda: re.search(said, read(f"{self.directory}/out")))
        self.master, self.port = int(found[1]), int(found[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.directory)

    def pids(self):
        return [self.master] + [int(pid) for pid in read(f"/proc/{self.master}/task/{self.master}/children").split()]

    def ask(self, path, connections, requests):
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        clients = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(connections)]
        for _ in range(requests // connections):
            for client in clients:
                client.sendall(request)
            for client in clients:
                answer = client.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200 "), answer


def idle(program):
    """KiB of all processes, and threads of the worker."""
    with Service(program) as service:
        service.ask("/demo/demo", 1, 1)
        pids = service.pids()
        pss = sum(int(re.search(r"^Pss: *(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)[1]) for pid in pids)
        return pss, len(os.listdir(f"/proc/{pids[-1]}/task"))


def instructions(program, path, connections, requests):
    """Those of a worker's whole life with so many requests in it."""
    callgrind = ("valgrind", "--quiet", "--tool=callgrind", "--callgrind-out-file=DIR/callgrind.%p")
    service = Service(program, callgrind)
    service.ask(path, connections, requests)
    worker = service.pids()[-1]
    service.process.send_signal(signal.SIGTERM)
    service.process.wait()
    text = read(f"{service.directory}/callgrind.{worker}")
    shutil.rmtree(service.directory)
    return int(re.search(r"^(?:summary|totals): (\d+)", text, re.M)[1])


def per_request(program, path, connections):
    few = 8
    more = instructions(program, path, connections, few + REQUESTS)
    return (more - instructions(program, path, connections, few)) / REQUESTS


def main():
    program = os.path.abspath(sys.argv[1])
    budget = MUSL if "musl" in sys.argv[2] else GLIBC
    pss, threads = idle(program)
    rows = [
        ("executable, bytes", os.stat(program).st_size, budget["size"]),
        ("PSS when idle, KiB", pss, budget["pss"]),
        ("threads of the worker when idle", threads, budget["threads"]),
    ]
    if shutil.which("valgrind"):
        for kind, served, path in [("fixed", program, "/demo/demo"), ("handler", os.path.abspath(sys.argv[3]), "/hello")]:
            for connections, most in zip((1, 8), INSTRUCTIONS[kind]):
                name = f"instructions, {kind}, {connections} at once"
                rows.append((name, per_request(served, path, connections), most))
    elif os.environ.get("CI"):
        sys.exit("budget.py: needs valgrind")
    else:
        print("instructions per request: skipped: needs valgrind")
    for name, value, most in rows:
        verdict = "" if value <= most else "   TOO MUCH"
        print(f"{name:42} {value:10.0f} of {most:10}{verdict}")
    return any(value > most for _, value, most in rows)


if __name__ == "__main__":
    sys.exit(main())
