"""What a job of ill will tries, run as a job: prints a line for everything that it reached, and why the rest failed.

The system's Python runs it, so it uses nothing but the standard library.
"""

import ctypes
import glob
import json
import os
import socket
import struct
import sys
from collections.abc import Callable

AIM = json.loads(os.environ["AIM"])
# What is in the folders that are aimed at; the way to its own files shows a job their names alone.
TELLING = {"lib", "secrets", "PG_VERSION"}
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
POSTGRESQL_3 = 196608


def read(path: str) -> bool:
    with open(path, "rb") as file:
        return bool(file.read(1))


def is_seen(mark: str) -> bool:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with open(path, "rb") as file:
            if mark.encode() in file.read():
                return True
    return False


def signal(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def trace(pid: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0x40000000)
    return bool(libc.ptrace(PTRACE_DETACH, pid, 0, 0) == 0)


def connected(name: str, port: int) -> list[socket.socket]:
    """Every way to the service that a job finds open."""
    found = []
    for family, address in ((socket.AF_UNIX, f"{AIM['sockets']}/{name}"), (socket.AF_INET, ("127.0.0.1", port))):
        wire = socket.socket(family)
        wire.settimeout(5)
        try:
            wire.connect(address)
            found.append(wire)
        except OSError as error:
            print(name, family, error, file=sys.stderr)
    return found


def reach_socket(name: str) -> bool:
    return any(wire.family == socket.AF_UNIX for wire in connected(name, 0))


def enter_valkey() -> bool:
    answers = []
    for wire in connected("valkey.sock", 6379):
        wire.sendall(b"PING\r\n")
        answers.append(wire.recv(100))
    return any(answer.startswith(b"+PONG") for answer in answers)


def enter_postgresql() -> bool:
    words = b"user\0haein\0database\0haein\0\0"
    answers = []
    for wire in connected(".s.PGSQL.5432", 5432):
        wire.sendall(struct.pack("!ii", len(words) + 8, POSTGRESQL_3) + words)
        answers.append(wire.recv(100))
    # 'R', a length, and how to prove oneself: 0 means that no proof is wanted, 10 is SCRAM.
    return any(answer[:1] == b"R" and answer[5:9] == bytes(4) for answer in answers)


def attacks() -> dict[str, Callable[[], bool]]:
    server, other = AIM["server"], AIM["other"]
    found: dict[str, Callable[[], bool]] = {}
    for name, path in AIM["files"].items():
        found[name] = lambda path=path: read(path)  # type: ignore[misc]
    for name, path in AIM["folders"].items():
        found[name] = lambda path=path: bool(set(os.listdir(path)) & TELLING)  # type: ignore[misc]
    return found | {
        "the server's environment": lambda: read(f"/proc/{server}/environ"),
        "the server's command line": lambda: is_seen(AIM["mark"]),
        "a signal to the server": lambda: signal(server),
        "a trace of the server": lambda: trace(server),
        "another job's environment": lambda: read(f"/proc/{other}/environ"),
        "a signal to another job": lambda: signal(other),
        "Valkey's socket": lambda: reach_socket("valkey.sock"),
        "PostgreSQL's socket": lambda: reach_socket(".s.PGSQL.5432"),
        "Valkey itself": enter_valkey,
        "PostgreSQL itself": enter_postgresql,
    }


for title, attack in attacks().items():
    try:
        if attack():
            print("reached", title)
    except OSError as error:
        print(title, error, file=sys.stderr)
print("tried everything")
