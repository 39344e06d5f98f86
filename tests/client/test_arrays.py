"""Arrays by the command and the SDK, on what a server tells of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haein.client import Client, JobSpec, following
from tests.client.conftest import Run
from tests.client.replay import Answer, Asked, job, page, problem, serving, told

ARRAY = "01a21024-af56-7fc2-ab40-00000000abcd"
FIRST = job(state="queued", array={"id": ARRAY, "index": 0, "size": 3})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.Poll, "wait", lambda _self, _most=None: None)


def array(**states: int) -> dict[str, Any]:
    return {"id": ARRAY, "name": "digits", "size": 3, "states": states, "url": f"http://haein.test/jobs/?array={ARRAY}"}


def server_of(*seen: dict[str, Any]) -> Any:
    """Takes a submit, and tells these states of the array one after the other."""
    left = list(seen)

    def answers(asked: Asked) -> Answer:
        if asked.path == "jobs":
            return told(FIRST, 201) if asked.method == "POST" else page(FIRST)
        return told(left.pop(0) if len(left) > 1 else left[0])

    return serving(answers)


def test_submit_tells_of_all_its_jobs(run: Run) -> None:
    with server_of(array(queued=3)) as server:
        ran = run("submit", "--array", "0-2", "--", "true", url=server.url)
        assert (ran.code, ran.out) == (
            0, f"digits (0000abcd) is an array of 3 jobs: 3 queued.\nhttp://haein.test/jobs/?array={ARRAY}\n"
        )  # fmt: skip
        assert server.asked[0].json["array"] == "0-2"
        assert run("submit", "-q", "--array", "0-2", "--", "true", url=server.url).out == f"{ARRAY}\n"
        ran = run("submit", "--json", "--array", "0-2", "--", "true", url=server.url)
        assert json.loads(ran.out)["states"] == {"queued": 3}


@pytest.mark.parametrize(("end", "code"), [({"succeeded": 3}, 0), ({"succeeded": 2, "failed": 1}, 1)])
def test_wait_waits_for_all_and_says_whether_all_went_well(run: Run, end: dict[str, int], code: int) -> None:
    with server_of(array(queued=3), array(queued=1, running=2), array(**end)) as server:
        ran = run("submit", "--wait", "--array", "0-2", "--", "true", url=server.url)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines()[-1] == f"digits (0000abcd) has ended: {', '.join(f'{n} {s}' for s, n in end.items())}."


def test_there_is_no_one_log_to_follow(run: Run) -> None:
    ran = run("submit", "--follow", "--array", "0-2", "--", "true")
    assert (ran.code, "--follow shows the log of one job" in ran.err) == (2, True)


@pytest.mark.parametrize("text", ["0-", "a", "0-9%2"])
def test_what_is_no_array_asks_nobody(run: Run, text: str) -> None:
    ran = run("submit", "--array", text, "--", "true")
    assert (ran.code, "--array is" in ran.err) == (2, True)


def test_ps_lists_an_array_by_its_id_or_the_end_of_it(run: Run) -> None:
    with server_of(array(queued=3)) as server:
        for name in (ARRAY, "0000abcd"):
            ran = run("ps", "--array", name, url=server.url)
            assert "digits [0]" in ran.out
            assert (server.asked[-1].query["array"], "state" in server.asked[-1].query) == (ARRAY, False)
        ran = run("ps", "--array", "none", url=server.url)
        assert (ran.code, "There is no array 'none'" in ran.err) == (4, True)


def test_show_names_the_array(run: Run) -> None:
    answers = {"jobs": page(FIRST), f"jobs/{FIRST['id']}": told(FIRST)}
    with serving(lambda asked: answers.get(asked.path, page())) as server:
        shown = run("show", FIRST["id"], url=server.url).out
    assert "digits [0]" in shown
    assert f"{ARRAY}, 3 jobs" in shown


def test_cancel_ends_all_of_an_array(run: Run) -> None:
    with server_of(array(running=1, cancelled=2)) as server:
        ran = run("cancel", "--array", "0000abcd", url=server.url)
        assert (ran.code, ran.out) == (0, "digits (0000abcd) is being cancelled: 1 running, 2 cancelled.\n")
        assert server.paths()[-1] == f"POST arrays/{ARRAY}/cancel"
    for words in ((), ("digits", "--array", ARRAY)):
        ran = run("cancel", *words)
        assert (ran.code, "Name jobs, or an array" in ran.err) == (2, True)
    with serving(lambda _: problem(409, "conflict", "All have ended.")) as server:
        assert run("cancel", "--array", ARRAY, url=server.url).code == 1


def test_the_sdk_has_arrays_typed() -> None:
    with server_of(array(queued=3), array(succeeded=3)) as server, Client(server.url, "haein_test") as haein:
        place = haein.submit(JobSpec("digits", "true", array="0-2")).array
        assert place is not None
        assert (place.id, place.index, place.size) == (ARRAY, 0, 3)
        assert haein.array(place.id).is_open
        assert haein.wait_array(place.id).states == {"succeeded": 3}
        assert [one.array.index for one in haein.jobs(array=place.id) if one.array] == [0]
        assert haein.cancel_array(place.id).short_id == "0000abcd"
    with (
        server_of(array(queued=3)) as server,
        Client(server.url, "haein_test") as haein,
        pytest.raises(TimeoutError, match="has not ended after 0 s"),
    ):
        haein.wait_array(ARRAY, timeout=0)
