"""This client understands the server of every release whose answers are kept (tests/records/record.py made them)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haein.client import Client, Conflict, JobSpec
from tests.client.conftest import Run
from tests.client.replay import RELEASES, Server, recorded, serving

# Fields of a job that the first server with an API knew: another is refused by its name.
KNOWN_TO_ALL = {
    *("name", "command", "environment", "variables", "gpus", "share", "cpus", "memory_mb", "time_limit_s", "retries"),
    *("priority", "tags", "upload", "cloned_from"),
}


@pytest.fixture(params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def server(release: Path) -> Any:
    with serving(recorded(release)) as server:
        yield server


@pytest.fixture
def job(release: Path) -> str:
    """The job whose log, files and cost were recorded."""
    (place,) = release.glob("*-files-content-*.json")
    return str(json.loads(place.read_text())["request"]["path"].split("/")[1])


def test_every_typed_call(release: Path, server: Server, job: str, tmp_path: Path) -> None:
    with Client(server.url, "haein_test", patience=0) as haein:
        assert haein.me().scopes
        assert [one.name for one in haein.environments()] == ["python"]
        assert haein.nodes()[0].devices[0].model
        assert haein.prices()[0].per_hour > 0
        assert haein.quote(JobSpec("digits", "true")).currency
        seen = haein.job(job)
        assert (seen.name, seen.state, seen.exit_code, seen.share, seen.cpus, seen.tags) == (
            "digits", "succeeded", 0, 100, 0.1, ("example",)
        )  # fmt: skip
        assert seen.created_at is not None
        assert seen in list(haein.jobs())
        assert [line.text for line in haein.logs(job)] == ["hello"]
        assert [line.text for line in haein.logs(job, follow=True)] == ["hello"]
        assert [line.text for line in haein.logs(job, tail=1)] == ["hello"]
        assert {file.name: file.type for file in haein.files(job)} == {"out": "folder"}
        assert haein.download(job, "out/model.txt", tmp_path / "model")[0].read_text() == "hello\n"
        (attempt,) = haein.attempts(job)
        assert (attempt.number, attempt.devices[0].share) == (1, 100)
        # What a release does not know is not made up.
        assert [worker.rank for worker in attempt.workers] == ([] if release.name == "api-0.2.0" else [0])
        assert [one.new_state for one in haein.events(job)] == ["queued", "starting", "running", "succeeded"]
        assert haein.cost(job).lines[0].share == 100
        assert next(haein.usage()).job is not None
        assert haein.usage_summary().currency
        with pytest.raises(Conflict):
            haein.cancel(job)
        assert haein.submit(JobSpec("digits", "true", labels=[])).state == "queued"
        assert set(server.asked[-1].json) == KNOWN_TO_ALL
        haein.revoke_token()


COMMANDS: list[tuple[str, Callable[[Any], object]]] = [
    ("whoami", lambda told: told["user"]["email"]),
    ("show {job}", lambda told: told["state"] == "succeeded"),
    ("cost {job}", lambda told: told["total"]),
    ("cost", lambda told: told["currency"]),
    ("files {job}", lambda told: told[0]["name"] == "out"),
    ("nodes", lambda told: told[0]["devices"]),
    ("prices", lambda told: told[0]["per_hour"]),
    ("environments", lambda told: told[0]["ready"]),
    ("logs {job}", lambda told: told["lines"][0][2] == "hello"),
]


@pytest.mark.parametrize(("words", "look"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_every_reading_command(server: Server, job: str, run: Run, words: str, look: Callable[[Any], object]) -> None:
    typed = words.format(job=job).split()
    shown = run(*typed, url=server.url)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.strip()
    told = run(*typed, "--json", url=server.url)
    assert told.code == 0
    assert look(json.loads(told.out))
