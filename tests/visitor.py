"""A person without a browser: keeps cookies, fills in forms, reads pages; for tests and benchmarks on a real server."""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit


class Visitor:
    """A connection a request, so that a server that was killed in between is simply asked anew."""

    def __init__(self, address: str) -> None:
        self.host = urlsplit(address).netloc
        self.cookies: dict[str, str] = {}

    def get(self, path: str) -> tuple[int, str]:
        return self._ask("GET", path, None)

    def post(self, path: str, **fields: object) -> tuple[int, str]:
        """The answer's status and, for a redirect, its target; else its text."""
        return self._ask("POST", path, urlencode({name: str(value) for name, value in fields.items()}))

    def come_in(self, link: str) -> None:
        """Through the one-time link that `make up` prints."""
        status, where = self.get(urlsplit(link).path)
        assert (status, where) == (302, "/"), (status, where)

    def submit(self, command: str, **fields: object) -> str:
        """A job through the form; returns its id."""
        form = {
            "name": "job",
            "environment": "python",
            "gpus": 1,
            "share": 10,
            "cpus": 0.1,
            "memory_gb": 0.125,
            "time_limit": "1h",
            "retries": 0,
            "priority": 0,
        }
        status, where = self.post("/jobs/new/", command=command, **{**form, **fields})
        assert status == 302, where
        return where.strip("/").split("/")[-1]

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["X-CSRFToken"] = self.cookies.get("csrftoken", "")
        with closing(http.client.HTTPConnection(self.host, timeout=10)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie", []):
            self.cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
        return answer.status, answer.headers["Location"] if answer.status == 302 else text


def timed(visitor: Visitor, command: str, **fields: object) -> tuple[str, float]:
    """A job's id, and the seconds that its submit took."""
    start = time.perf_counter()
    job = visitor.submit(command, **fields)
    return job, time.perf_counter() - start
