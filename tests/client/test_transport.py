"""Trying again without doing anything twice, and a name for every refusal."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from haein.client import (
    Client,
    Conflict,
    Forbidden,
    HaeinError,
    Invalid,
    JobSpec,
    NotFound,
    NotSignedIn,
    ServerAway,
    ServerFault,
    TooManyRequests,
    answers,
)
from tests.client.replay import Answer, Asked, job, page, problem, serving, told


def client(url: str, patience: float = 5) -> Client:
    return Client(url, "haein_test", patience=patience)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, "unauthenticated", "No."), NotSignedIn),
        (problem(403, "forbidden", "No."), Forbidden),
        (problem(404, "not_found", "No."), NotFound),
        (problem(409, "conflict", "No."), Conflict),
        (problem(422, "idempotency_mismatch", "No."), Conflict),
        (problem(500, "internal", "No."), ServerFault),
        (problem(503, "unavailable", "No.", Retry_After="60"), ServerAway),
        (problem(429, "too_many_requests", "No.", Retry_After="60"), TooManyRequests),
        (Answer(502, b"<h1>Bad gateway</h1>"), ServerAway),
        (Answer(404, b"<h1>Not here</h1>"), NotFound),
        (Answer(200, b"<h1>Welcome</h1>"), ServerFault),
        (Answer(301, b"", {"Location": "https://elsewhere.test/"}), ServerFault),
    ],
)
def test_a_refusal_has_its_name(answer: Answer, kind: type[HaeinError]) -> None:
    with serving(lambda _: answer) as server, client(server.url) as haein, pytest.raises(kind):
        haein.me()


def test_an_invalid_request_has_its_fields() -> None:
    errors = [{"field": "gpus", "detail": "Too many."}, {"field": "name", "detail": "Too long."}]
    with serving(lambda _: problem(422, "invalid", "No.", errors)) as server, client(server.url) as haein:
        with pytest.raises(Invalid) as caught:
            haein.submit(JobSpec("a", "b"))
        assert caught.value.fields == {"gpus": "Too many.", "name": "Too long."}


@pytest.mark.parametrize("status", [503, 429, 502])
def test_a_submit_is_said_again_with_the_same_key(status: int) -> None:
    def answers(asked: Asked) -> Answer:
        if len(server.asked) < 3:
            return problem(status, "unavailable", "Soon.", Retry_After="0")
        return told(job(), 201)

    with serving(answers) as server, client(server.url) as haein:
        assert haein.submit(JobSpec("a", "b")).name == "digits"
        keys = {asked.headers["Idempotency-Key"] for asked in server.asked}
        assert (len(server.asked), len(keys)) == (3, 1)


def test_an_answer_that_was_cut_is_asked_for_again_only_where_that_is_safe() -> None:
    with serving(lambda _: Answer(200, b"", {"Content-Length": "9"}, cut=0)) as server, client(server.url, 0) as haein:
        with pytest.raises(ServerAway):
            haein.cancel(job()["id"])
        assert len(server.asked) == 1


def test_a_cancel_is_not_said_twice_to_a_server_that_is_away() -> None:
    with (
        serving(lambda _: problem(503, "unavailable", "Soon.", Retry_After="0")) as server,
        client(server.url) as haein,
    ):
        with pytest.raises(ServerAway):
            haein.cancel(job()["id"])
        assert len(server.asked) == 1


def test_retry_after_is_waited_for() -> None:
    def answers(_: Asked) -> Answer:
        if len(server.asked) == 1:
            return problem(429, "too_many_requests", "Slowly.", Retry_After="1")
        return told({"user": {"name": "Alice"}})

    with serving(answers) as server, client(server.url) as haein:
        began = time.monotonic()
        assert haein.me().user.name == "Alice"
        assert time.monotonic() - began >= 1


def test_nobody_there_is_a_sentence_after_some_patience() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        said: list[str] = []
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        away = pytest.raises(ServerAway, match="does not answer")
        with Client(url, "haein_test", patience=0.1, waiting=said.append) as haein, away:
            haein.me()
        assert len(said) > 1


def test_an_upload_is_made_anew_for_every_try(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 1000)

    def answers(asked: Asked) -> Answer:
        if asked.path == "uploads" and len(server.asked) == 1:
            return problem(503, "unavailable", "Soon.", Retry_After="0")
        return (
            told({"id": "u1", "name": "files.tar.gz", "size": 1}, 201) if asked.path == "uploads" else told(job(), 201)
        )

    seen: list[tuple[int, int]] = []
    with serving(answers) as server, client(server.url) as haein:
        haein.submit(JobSpec("a", "b"), tmp_path, progress=lambda *at: seen.append(at))
        first, second, last = server.asked
        assert first.body == second.body != b""
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] != last.headers["Idempotency-Key"]
        assert last.json["upload"] == "u1"
        assert seen[-1] == (len(second.body), len(second.body))


def test_pages_are_walked_and_the_token_goes_nowhere_else() -> None:
    def answers(asked: Asked) -> Answer:
        if asked.query.get("cursor") == "2":
            return page(job(name="last"))
        return told({"next": "http://elsewhere.test/api/v1/jobs?cursor=2&state=open", "results": [job(name="first")]})

    with serving(answers) as server, client(server.url) as haein:
        assert [one.name for one in haein.jobs(state="open")] == ["first", "last"]
        assert server.asked[1].query == {"cursor": "2", "state": "open"}


def test_a_newer_and_an_older_server_are_both_understood() -> None:
    newer = answers.read(answers.Job, {**job(), "planet": "Mars", "team": {"id": "1", "name": "a", "moon": 1}})
    older = answers.read(answers.Job, {"id": "1"})
    assert (newer.team and newer.team.name, older.state, older.exit_code, older.tags) == ("a", "", None, ())
    assert answers.read(answers.Job, {"id": "1", "tags": None, "name": None}).tags == ()
    with pytest.raises(ValueError, match="not a Job"):
        answers.read(answers.Job, {"name": "without an id"})
    with pytest.raises(AttributeError):
        newer.name = "x"  # type: ignore[misc]


def test_wait_has_an_end() -> None:
    states = iter(["queued", "running", "succeeded"])
    with serving(lambda _: told(job(state=next(states)))) as server, client(server.url) as haein:
        assert haein.wait("1").state == "succeeded"
    late = pytest.raises(TimeoutError, match=r"is still queued after 0\.1 s")
    with serving(lambda _: told(job(state="queued"))) as server, client(server.url) as haein, late:
        haein.wait("1", timeout=0.1)
