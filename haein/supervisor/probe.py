"""Asks the web server whether it is there yet, without ever waiting for it."""

import os
import socket
import time


class Probe:
    def __init__(self, host: str, port: int) -> None:
        self._where = (_reachable(host), port)
        self._request = f"GET /healthz HTTP/1.0\r\nHost: {_name(port)}\r\n\r\n".encode()
        self._wire: socket.socket | None = None
        self._sent = False
        self._since = 0.0

    def answered(self) -> bool:
        """Goes one step further; True once an answer of any kind came back."""
        if self._wire is None:
            self._open()
            return False
        try:
            if not self._sent:
                self._wire.send(self._request)
                self._sent = True
            if self._wire.recv(64).startswith(b"HTTP/1."):
                self.close()
                return True
            self.close()
        except BlockingIOError:
            if time.monotonic() - self._since > 5:
                self.close()
        except OSError:
            self.close()
        return False

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _open(self) -> None:
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        self._wire = socket.socket(family)
        self._wire.setblocking(False)
        self._sent, self._since = False, time.monotonic()
        self._wire.connect_ex(self._where)


def _reachable(host: str) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _name(port: int) -> str:
    """A name that the server's settings let in."""
    allowed = (os.environ.get("HAEIN_HOSTS") or "localhost").split(",")[0].strip()
    return f"{allowed if allowed != '*' else 'localhost'}:{port}"
