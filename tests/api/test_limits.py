"""What is too fast or too large is told when to come back, or what would fit; what is away says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import OperationalError

from haein.cluster.backends.base import BackendDown
from haein.lib.limits import BodyLimit
from jobs import services
from tests.cast import ASKED, Person, Program


def test_too_many_requests_are_told_when_to_come_back(alices: Program, bob: Person, settings: Any) -> None:
    settings.HAEIN_API_RATE = 3
    answers = [alices.get("me") for _ in range(5)]
    limited = answers[-1]
    assert limited.status_code == 429
    assert 1 <= int(limited["Retry-After"]) <= 60
    assert limited.json()["code"] == "too_many_requests"
    assert Program(bob).get("me").status_code == 200  # each counts alone


@pytest.mark.parametrize("error", [OperationalError("gone"), BackendDown("gone")])
def test_an_outage_is_told_as_one(
    big: None, alices: Program, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(services, "submit", fails)
    answer = alices.post("jobs", ASKED)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer["Retry-After"]) > 0


def test_a_fault_of_ours_tells_nothing_of_itself(big: None, alices: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(services, "submit", fails)
    answer = alices.post("jobs", ASKED)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.content.decode()


def _asked(headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> tuple[int, list[str]]:
    """The status, and what the application behind the limit was given."""
    given: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            given.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def story() -> int:
        wire: Any = ApplicationCommunicator(BodyLimit(application, 100), {"type": "http", "headers": headers})  # type: ignore[no-untyped-call]
        for number, piece in enumerate(pieces):
            await wire.send_input({"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1})
        answer = await wire.receive_output(5)
        await wire.receive_output(5)
        await wire.wait(5)
        return int(answer["status"])

    return asyncio.run(story()), given


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    assert _asked([(b"content-length", b"101")], []) == (413, [])
    assert _asked([(b"content-length", b"x")], []) == (413, [])


def test_a_body_that_does_not_say_is_read_no_further() -> None:
    assert _asked([], [b"x" * 60, b"x" * 60, b"x"]) == (200, ["http.request", "http.disconnect"])


def test_a_body_that_fits_is_read() -> None:
    assert _asked([(b"content-length", b"100")], [b"x" * 50, b"x" * 50]) == (200, ["http.request", "http.request"])
