"""A server that answers what a real one has answered, or what a test has it answer, on a free port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

RECORDS = Path(__file__).parents[1] / "records"
RELEASES = sorted(path for path in RECORDS.iterdir() if path.is_dir() and path.name.startswith("api-"))


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`cut`: so many bytes of the body are sent, and then the connection is gone."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def told(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON; an underscore in a header's name stands for a dash."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode() + b"\n", {"Content-Type": "application/json", **named})


def problem(status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None, **headers: str) -> Answer:
    body = {"type": f"urn:haein:problem:{code}", "title": code, "status": status, "detail": detail, "code": code}
    return told(body | ({"errors": errors} if errors else {}), status, **headers)


def page(*results: Any) -> Answer:
    return told({"next": None, "previous": None, "results": list(results)})


def job(**fields: Any) -> dict[str, Any]:
    """A job as the API tells it."""
    identifier = "01a21024-af56-7fc2-ab40-adcd07336688"
    base = {
        "id": identifier, "name": "digits", "state": "succeeded", "reason": "The command ended with exit code 0.",
        "command": "true", "attempts": 1, "exit_code": 0, "signal": None, "created_at": "2026-11-25T00:39:29Z",
        "url": f"http://haein.test/jobs/{identifier}/", "tags": [], "variables": {}, "cancel_requested": False,
    }  # fmt: skip
    return base | fields


Answers = Callable[[Asked], Answer]


class Server:
    """`asked` holds every request so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []

    def paths(self) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.asked]


@contextmanager
def serving(answers: Answers) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _do(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, parts.path.removeprefix("/api/v1/"),
                          dict(parse_qsl(parts.query, keep_blank_values=True)), dict(self.headers), body)  # fmt: skip
            server.asked.append(asked)
            answer = answers(asked)
            self.send_response(answer.status)
            headers = {"Content-Length": str(len(answer.body)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def recorded(release: Path) -> Answers:
    """The answers that the release's server has given; a request that was not recorded is answered with 501."""
    exchanges = [json.loads(path.read_text()) for path in sorted(release.glob("*.json"))]

    def answers(asked: Asked) -> Answer:
        for exchange in exchanges:
            request = exchange["request"]
            if (request["method"], request["path"], request["query"]) == (asked.method, asked.path, asked.query):
                body = exchange["body"]
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                return Answer(exchange["status"], raw if exchange["status"] != 204 else b"", exchange["headers"])
        return problem(501, "not_recorded", f"{asked.method} {asked.path} {asked.query} was not recorded")

    return answers
