"""Quotas on the command line: in GPUs, what is not named stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haein.client import Client
from tests.client.conftest import Run
from tests.client.replay import Answer, Answers, Asked, page, problem, serving, told

VISION = {"id": "t1", "name": "Vision"}
BOB = {"id": "u1", "name": "Bob", "email": "bob@acme.test"}


def quota(**fields: Any) -> dict[str, Any]:
    limits = {"running_jobs": None, "gpus_per_job": None, "time_limit_s": None, "gpu_hours": None}
    used = {"guaranteed": 6.0, "borrowed": 1.5, "waiting": 0.0, "jobs": 4, "gpu_hours": 12.25}
    return {
        "id": "q1",
        "organization": {"id": "o1", "name": "Acme"},
        "team": VISION,
        "member": None,
        "pool": "",
        "guaranteed": 16.0,
        "borrow": None,
        "lends": True,
        "weight": 1.0,
        **limits,
        "used": used,
        **fields,
    }


def listing(*quotas: dict[str, Any]) -> Answers:
    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return page(*quotas)
        return (
            Answer(204)
            if asked.method == "DELETE"
            else told(quota(**{k: v for k, v in asked.json.items() if k == "pool"}))
        )

    return answer


def test_it_lists_what_is_used_of_what(run: Run) -> None:
    members = quota(id="q2", member=BOB, guaranteed=0.0, borrow=4.0, gpu_hours=100, gpus_per_job=2.0, time_limit_s=7200)
    with serving(listing(members, quota(), quota(id="q3", team=None))) as server:
        ran = run("quotas", url=server.url)
        assert json.loads(run("quotas", "--json").out)[1] == quota()
    lines = [line.split() for line in ran.out.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["Acme", "16", "6"],
        ["Acme", "Vision", "16"],
        ["Acme", "Vision", "Bob"],
    ]
    assert lines[3][3:] == ["0", "6", "4", "1.5", "yes", "1", "4", "12.25", "of", "100", "2", "GPUs,", "2h"]


def test_what_is_not_named_stays_as_it_is(run: Run) -> None:
    with serving(listing(quota(), quota(id="q2", member=BOB), quota(id="q3", pool="serve"))) as server:
        ran = run("quotas", "set", "--team", "Vision", "--borrow", "1.5", "--gpu-hours", "none", "--time-limit", "2d",
                  "--no-lends", url=server.url)  # fmt: skip
    assert (ran.code, ran.out) == (0, "Changed.\n")
    asked = server.asked[-1]
    assert (server.asked[0].query["team"], asked.method, asked.path) == ("Vision", "PUT", "quotas")
    assert asked.json == {
        "organization": "", "team": "Vision", "member": "", "pool": "", "guaranteed": 16.0, "borrow": 1.5,
        "lends": False, "weight": 1.0, "running_jobs": None, "gpus_per_job": None, "time_limit_s": 172_800,
        "gpu_hours": None,
    }  # fmt: skip


def test_a_new_one_says_only_what_was_named(run: Run) -> None:
    with serving(listing(quota())) as server:
        ran = run("quotas", "set", "--team", "Vision", "--member", "bob@acme.test", "--borrow", "2", url=server.url)
    assert (ran.code, ran.out) == (0, "Set.\n")
    assert server.asked[-1].json == {
        "organization": "", "team": "Vision", "member": "bob@acme.test", "pool": "", "borrow": 2
    }  # fmt: skip


def test_it_clears_the_one_that_is_meant(run: Run) -> None:
    with serving(listing(quota(), quota(id="q2", member=BOB))) as server:
        assert run("quotas", "clear", "--team", "Vision", "--member", "Bob@acme.test", url=server.url).code == 0
        assert server.paths()[-1] == "DELETE quotas/q2"
        assert run("quotas", "clear", "--team", "Vision", "--pool", "serve").code == 4
        assert [path for path in server.paths() if path.startswith("DELETE")] == ["DELETE quotas/q2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--team", "Vision"), "Say what to set"),
        (("--guaranteed", "1"), "Say whose"),
        (("--organization", "Acme", "--member", "b@a.test", "--borrow", "1"), "of which team"),
        (("--team", "Vision", "--guaranteed", "many"), '--guaranteed is "many"'),
        (("--team", "Vision", "--gpus-per-job", "inf"), '--gpus-per-job is "inf"'),
        (("--team", "Vision", "--time-limit", "soon"), '--time-limit is "soon"'),
    ],
)
def test_what_can_not_be_is_said_before_anything_is_sent(run: Run, words: tuple[str, ...], said: str) -> None:
    with serving(listing()) as server:
        ran = run("quotas", "set", *words, url=server.url)
        assert (ran.code, said in ran.err, server.asked) == (2, True, [])


def test_a_refusal_names_the_field(run: Run) -> None:
    fault = [{"field": "guaranteed", "detail": "2 are left."}]

    def answer(asked: Asked) -> Answer:
        return page() if asked.method == "GET" else problem(422, "invalid", "Correct the fields.", fault)

    with serving(answer) as server:
        ran = run("quotas", "set", "--team", "Vision", "--guaranteed", "3", url=server.url)
    assert (ran.code, "guaranteed: 2 are left." in ran.err) == (5, True)


def test_the_sdk_sets_and_reads_them() -> None:
    with serving(listing(quota())) as server, Client(server.url, "haein_test", patience=0) as haein:
        (found,) = haein.quotas(team="Vision")
        assert (found.used.borrowed, found.organization.name, found.member) == (1.5, "Acme", None)
        assert haein.set_quota(team="Vision", pool="serve", guaranteed=1.5).pool == "serve"
        assert server.asked[-1].json["guaranteed"] == 1.5
