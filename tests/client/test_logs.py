"""A log is followed to its end: no line is lost, none comes twice, whatever cuts the connection."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from haein.client import Client, NotFound, following
from tests.client.replay import Answer, Asked, job, page, problem, serving, told

LINES = [f"line {number}" for number in range(60)]
WIDTH = 10  # bytes of the stored log for a line


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.Poll, "wait", lambda _self, _most=None: None)


def record(attempt: int, start: int, count: int, lines: list[str] = LINES, skipped: int = 0) -> bytes:
    first = start // WIDTH
    texts = lines[first : first + count]
    after = start + WIDTH * len(texts)
    said = {"attempt": attempt, "start": start, "next": after, "end": len(lines) * WIDTH, "skipped": skipped}
    return json.dumps({**said, "lines": [[1e9 + at, "out", text] for at, text in enumerate(texts)]}).encode() + b"\n"


def heartbeat() -> bytes:
    return b'{"attempt": 0, "start": 0, "next": 0, "end": 0, "skipped": 0, "lines": []}\n'


class Log:
    """A server whose streams are cut at random places, sometimes in good order, with heartbeats between records."""

    def __init__(self, seed: int, runs: int = 1) -> None:
        self.dice = random.Random(seed)
        self.runs = runs
        self.cuts = 0
        self.done: set[int] = set()

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.endswith("/attempts"):
            return page(*({"number": n, "ended_at": "2026-11-25T00:00:00Z" if n in self.done else None}
                          for n in range(1, self.runs + 1)))  # fmt: skip
        if not asked.path.endswith("/logs"):
            made = min(len(self.done) + 1, self.runs)
            return told(job(state="running" if len(self.done) < self.runs else "failed", attempts=made))
        attempt, start = int(asked.query["attempt"]), int(asked.query["offset"])
        body, at = b"", start
        while at < len(LINES) * WIDTH:
            count = self.dice.randint(1, 4)
            body += heartbeat() if self.dice.random() < 0.3 else b""
            body += record(attempt, at, count)
            at += count * WIDTH
        headers = {"Content-Type": "application/x-ndjson"}
        if self.cuts < 12 and body:
            self.cuts += 1
            place = self.dice.randrange(len(body))
            if self.dice.random() < 0.3:  # the server goes down in good order, between two records
                return Answer(200, body[: body.rfind(b"\n", 0, place) + 1], headers)
            return Answer(200, body, headers, cut=place)
        self.done.add(attempt)
        return Answer(200, body, headers)


@pytest.mark.parametrize("seed", range(20))
def test_no_line_is_lost_or_doubled(seed: int) -> None:
    with serving(Log(seed)) as server, Client(server.url, "t", patience=5) as haein:
        assert [line.text for line in haein.logs("1", follow=True)] == LINES


def test_following_goes_on_to_the_runs_that_follow() -> None:
    with serving(Log(1, runs=3)) as server, Client(server.url, "t", patience=5) as haein:
        told = [(line.attempt, line.text) for line in haein.logs("1", follow=True)]
        assert told == [(run, text) for run in (1, 2, 3) for text in LINES]


def test_one_run_alone_when_it_is_named() -> None:
    with serving(Log(1, runs=3)) as server, Client(server.url, "t", patience=5) as haein:
        assert {line.attempt for line in haein.logs("1", follow=True, attempt=1)} == {1}


def test_a_log_that_is_not_followed_is_read_to_its_end_through_a_cut() -> None:
    def answers(asked: Asked) -> Answer:
        start = int(asked.query["offset"])
        body = record(1, start, 20) + (record(1, start + 200, 20) if start < 400 else b"")
        return Answer(200, body, cut=len(body) - 30 if len(server.asked) == 1 else None)

    with serving(answers) as server, Client(server.url, "t", patience=5) as haein:
        assert [line.text for line in haein.logs("1")] == LINES


def test_a_log_of_a_job_that_never_ran() -> None:
    ended = job(state="cancelled", attempts=0)
    with serving(lambda _: told(ended)) as server, Client(server.url, "t") as haein:
        assert list(haein.logs("1", follow=True)) == []
    with (
        serving(lambda _: problem(404, "not_found", "No log.")) as other,
        Client(other.url, "t") as haein,
        pytest.raises(NotFound),
    ):
        list(haein.logs("1"))


def test_a_part_that_was_not_kept_is_said() -> None:
    with serving(lambda _: Answer(200, record(1, 300, 30, skipped=300))) as server, Client(server.url, "t") as haein:
        first, *rest = haein.logs("1")
        assert (first.stream, first.text) == ("haein", "[300 bytes of the log were not kept]")
        assert [line.text for line in rest] == LINES[30:]


@pytest.mark.parametrize("count", [1, 7, 60, 100])
def test_tail_is_a_number_of_lines(count: int) -> None:
    def answers(asked: Asked) -> Answer:
        start = max(0, (len(LINES) * WIDTH - int(asked.query["tail"]))) // WIDTH * WIDTH
        return Answer(200, record(1, start, 25) + record(1, start + 250, 99))

    with serving(answers) as server, Client(server.url, "t") as haein:
        assert [line.text for line in haein.logs("1", tail=count)] == LINES[-count:]


def test_tail_looks_further_back_for_long_lines() -> None:
    long = ["x" * 5000 + str(number) for number in range(20)]

    def answers(asked: Asked) -> Answer:
        size = int(asked.query["tail"])
        kept = min(20, size // 5000)
        said: dict[str, Any] = {
            "attempt": 1,
            "start": (20 - kept) * 5000,
            "next": 100_000,
            "end": 100_000,
            "skipped": 0,
        }
        return told({**said, "lines": [[1e9, "out", text] for text in long[20 - kept :]]})

    with serving(answers) as server, Client(server.url, "t") as haein:
        assert [line.text for line in haein.logs("1", tail=5)] == long[-5:]
