"""What the command says, to whom, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from haein.client import credentials, following
from haein.client.commands.asking import PATIENCE_S
from tests.client.conftest import Run
from tests.client.replay import Answer, Answers, Asked, job, page, problem, serving, told

ME = {"user": {"id": "1", "email": "alice@acme.test", "name": "Alice"}, "server": {"version": "0.2.0"}}
ID = job()["id"]
NEWER = ("profile", "gpu_model", "workers", "near", "near_required", "pool", "labels")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.Poll, "wait", lambda _self, _most=None: None)
    monkeypatch.setattr("haein.client.commands.asking.PATIENCE_S", 0.05)


# Signing in


def test_login_checks_the_token_and_keeps_it_for_this_person_alone(run: Run) -> None:
    with serving(lambda _: told(ME)) as server:
        ran = run("login", server.url + "/", "--token", "-", typed="haein_abc\n")
        assert ran.out == f"Signed in to {server.url} as Alice.\n"
        assert server.asked[0].headers["Authorization"] == "Bearer haein_abc"
        assert stat.S_IMODE(credentials.place().stat().st_mode) == 0o600
        assert stat.S_IMODE(credentials.place().parent.stat().st_mode) == 0o700
        assert "Alice" in run("whoami").out
        assert run("login", "--token", "-", typed="haein_abc\n").code == 0  # the same server again


def test_a_token_that_is_not_good_is_not_kept(run: Run) -> None:
    with serving(lambda _: problem(401, "unauthenticated", "The token is unknown.")) as server:
        ran = run("login", server.url, "--token", "-", typed="haein_abc\n")
    assert (ran.code, credentials.place().exists()) == (3, False)
    assert "The token is unknown." in ran.err


def test_a_token_on_the_command_line_is_refused(run: Run) -> None:
    ran = run("login", "https://haein.test", "--token", "haein_abc")
    assert (ran.code, "seen by everybody" in ran.err) == (2, True)


def test_the_environment_comes_first_and_a_kept_token_goes_to_its_own_server_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.store(credentials.Credentials("https://one.test", "haein_kept"))
    assert credentials.find() == credentials.Credentials("https://one.test", "haein_kept")
    monkeypatch.setenv("HAEIN_URL", "https://two.test")
    ran = run("ps")
    assert (ran.code, "not signed in to https://two.test" in ran.err) == (3, True)
    monkeypatch.setenv("HAEIN_TOKEN", "haein_own")
    assert credentials.find() == credentials.Credentials("https://two.test", "haein_own")


def test_logout_ends_the_token_and_forgets_it(run: Run) -> None:
    with serving(lambda asked: Answer(204) if asked.method == "DELETE" else told(ME)) as server:
        run("login", server.url, "--token", "-", typed="haein_abc\n")
        assert run("logout").code == 0
        assert server.paths()[-1] == "DELETE token"
    assert not credentials.place().exists()
    assert run("ps").code == 3


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("haein.test", "https://haein.test"), ("localhost:8000/", "http://localhost:8000"),
    (" https://a.test/x/ ", "https://a.test/x")],
)  # fmt: skip
def test_an_address_as_people_write_it(typed: str, meant: str) -> None:
    assert credentials.normal(typed) == meant


def test_what_is_no_address(run: Run) -> None:
    for typed in ("ftp://a.test", "https://", "https://a.test:port"):
        assert "is no address of a server" in run("login", typed, "--token", "-", typed="x").err


# Exit codes


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (page(), 0),
        (problem(500, "internal", "It broke."), 1),
        (problem(401, "unauthenticated", "Who?"), 3),
        (problem(403, "forbidden", "The token lacks jobs:read."), 3),
        (problem(404, "not_found", "No such page."), 4),
        (problem(422, "invalid", "No.", [{"field": "state", "detail": "No such state."}]), 5),
        (problem(503, "unavailable", "The database is away.", Retry_After="9"), 6),
        (Answer(200, b"<html>"), 1),
    ],
)
def test_the_exit_code_says_what_it_was(run: Run, answer: Answer, code: int) -> None:
    with serving(lambda _: answer) as server:
        ran = run("ps", url=server.url)
    assert ran.code == code
    assert "Traceback" not in ran.err
    assert bool(ran.err) == bool(code)


def test_nobody_there_is_6(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ran = run("ps", url=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.startswith("haein: The server at http://127.0.0.1:")
    assert PATIENCE_S <= 15


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["ps", "--limit", "0"],
        ["submit"],
        ["submit", "--"],
        ["submit", "--gpus", "one", "--", "true"],
        ["submit", "--profile", "1g", "--", "true"],
        ["submit", "--gpu-memory", "20", "--", "true"],
        ["submit", "--workers", "0", "--", "true"],
        ["submit", "--near", "street", "--", "true"],
        ["submit", "--env", "novalue", "--", "true"],
        ["submit", "--wait", "--follow", "--", "true"],
        ["submit", "--files", "/nowhere", "--", "true"],
        ["cp", "job", "here"],
        ["cp", "job:a", "/nowhere/b"],
        ["cost", "job", "--month", "2026-11"],
    ],
)
def test_what_was_typed_wrongly_is_2_and_asks_nobody(run: Run, words: list[str]) -> None:
    with serving(lambda _: page()) as server:
        assert run(*words, url=server.url).code == 2
        assert server.asked == []


# Submitting


def submitted(*jobs: dict[str, object]) -> tuple[list[Asked], Answers]:
    """Requests seen, and a server on which the job is in each of these states in turn."""
    states = list(jobs)
    seen: list[Asked] = []

    def answers(asked: Asked) -> Answer:
        seen.append(asked)
        if asked.method == "POST":
            return told(job(state="queued"), 201) if asked.path == "jobs" else told({"id": "u"}, 201)
        if asked.path.endswith("/attempts"):
            return page({"number": 1, "ended_at": "2026-11-25T00:00:00Z"})
        if asked.path.endswith("/logs"):
            said = {"attempt": 1, "start": 0, "next": 6, "end": 6, "skipped": 0, "lines": [[1e9, "out", "hello"]]}
            return told(said if asked.query["offset"] == "0" else {**said, "start": 6, "lines": []})
        return told(job(**(states.pop(0) if len(states) > 1 else states[0])))

    return seen, answers


def test_a_job_file_options_and_a_command(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "train.yaml"
    place.write_text(
        "command: true\nfiles: src\nresources: {gpus: 2, memory: 1GiB}\ntags: [a]\nvariables: {A: 1, B: 2}\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x").write_text("x")
    seen, answers = submitted({})
    with serving(answers) as server:
        ran = run("submit", str(place), "--gpus", "1", "--share", "50%", "--time-limit", "2h", "--tag", "b",
        "-e", "B=3",
                  "--", "python", "x.py", "--lr", "a b", url=server.url)  # fmt: skip
    assert ran.code == 0, ran.err
    upload, body = seen[0], seen[1].json
    assert (upload.query, upload.body[:2]) == ({"name": "files.tar.gz"}, b"\x1f\x8b")
    assert body == {
        "name": "train", "command": "python x.py --lr 'a b'", "environment": "python", "variables": {"A": "1",
        "B": "3"},
        "gpus": 1, "share": 500, "cpus": 1, "memory_mb": 1024, "time_limit_s": 7200, "retries": 0, "priority": 0,
        "tags": ["b"], "upload": "u", "cloned_from": None,
    }  # fmt: skip
    assert ran.out == f"digits (07336688) is queued.\n{job()['url']}\n"


def test_slices_and_gangs_by_file_and_by_option(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "train.yaml"
    place.write_text(
        "command: true\nresources: {profile: 1g.23gb, gpu_model: B200}\nworkers: 2\nnear: rack\nnear_required: true\n"
        "pool: slow\nlabels: [a]\n"
    )
    seen, answers = submitted({})
    with serving(answers) as server:
        assert run("submit", str(place), url=server.url).code == 0
        ran = run("submit", str(place), "--profile", "2g.45gb", "--gpu-model", "H100|H200", "--workers", "4", "--near",
                  "pod", "--no-near-required", "--pool", "fast", "--label", "b", "--label", "c=d",
                  url=server.url)  # fmt: skip
        assert ran.code == 0, ran.err
        run("submit", "--share", "25%", "--gpu-memory", "20GiB", "--near-required", "--", "true", url=server.url)
    file, options, share = (asked.json for asked in seen)
    assert {name: file[name] for name in NEWER} == {
        "profile": "1g.23gb", "gpu_model": "B200", "workers": 2, "near": "rack", "near_required": True, "pool": "slow",
        "labels": ["a"],
    }  # fmt: skip
    assert {name: options[name] for name in NEWER if name in options} == {
        "profile": "2g.45gb", "gpu_model": "H100|H200", "workers": 4, "near": "pod", "pool": "fast",
        "labels": ["b", "c=d"],
    }  # fmt: skip
    assert (share["share"], share["gpu_memory_mb"], share["near_required"]) == (250, 20_480, True)


def test_how_it_yields_by_file_and_by_option_and_unsaid_where_it_is_as_ever(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "train.yaml"
    place.write_text("command: true\npreemption: spot\ncheckpoints: true\nrequeue: false\n")
    seen, answers = submitted({})
    with serving(answers) as server:
        run("submit", str(place), url=server.url)
        run("submit", str(place), "--preemption", "never", "--no-checkpoints", "--requeue", url=server.url)
        run("submit", "--", "true", url=server.url)
    names = ("preemption", "checkpoints", "requeue")
    file, options, none = ({name: one.json[name] for name in names if name in one.json} for one in seen)
    assert file == {"preemption": "spot", "checkpoints": True, "requeue": False}
    assert options == {"preemption": "never"}  # the rest is what a server takes it for anyway
    assert none == {}


def test_a_job_that_must_yield_or_rests_says_so(run: Run) -> None:
    asked = {"preemption": "spot", "checkpoints": True, "requeue": False, "preemptions": 2}
    moments = {"preempt_at": "2026-11-20T10:00:00Z", "not_before": "2026-11-20T10:00:00Z"}
    with serving(lambda one: page() if one.path.endswith(("/attempts", "/events")) else told(job(**asked, **moments))
                 ) as server:  # fmt: skip
        lines = [re.split(r"  +", line.strip()) for line in run("show", ID, url=server.url).out.splitlines()]
    said = {line[0]: line[1] for line in lines if len(line) == 2}
    assert said["Yields"] == "always, as the first, saves its work, is not queued again, yielded 2 times"
    assert said["Must end"].endswith("to make room")
    assert said["Tried again"].endswith("or at once by haein retry")


def test_one_word_behind_the_dashes_is_a_line_for_the_shell(run: Run) -> None:
    seen, answers = submitted({})
    with serving(answers) as server:
        assert run("submit", "-q", "--", "a && b", url=server.url).out == f"{ID}\n"
    assert (seen[0].json["command"], seen[0].json["name"]) == ("a && b", "a && b")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"state": "succeeded"}, 0),
        ({"state": "failed", "exit_code": 7}, 7),
        ({"state": "failed", "exit_code": None, "signal": 9}, 137),
        ({"state": "failed", "exit_code": None}, 1),
        ({"state": "timed_out", "exit_code": 1}, 124),
        ({"state": "cancelled", "signal": 15}, 130),
    ],
)
def test_wait_streams_the_log_and_exits_as_the_job_did(run: Run, end: dict[str, object], code: int) -> None:
    _, answers = submitted({"state": "queued", "attempts": 0}, {"state": "running"}, end)
    with serving(answers) as server:
        ran = run("submit", "--wait", "--", "true", url=server.url)
    assert (ran.code, ran.out) == (code, "hello\n")
    _, answers = submitted({"state": "running"}, end)
    with serving(answers) as server:
        ran = run("submit", "--wait", "--json", "--", "true", url=server.url)
        assert (ran.code, json.loads(ran.out)["state"]) == (code, end["state"])
        assert run("submit", "--follow", "--", "true", url=server.url).code == 0


def test_what_the_server_refuses_is_told_by_the_files_own_lines(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "train.yaml"
    place.write_text("command: true\nresources:\n  gpus: 60\n  memory: 1GiB\n")
    errors = [{"field": "gpus", "detail": "The largest node has 8."}, {"field": "memory_mb", "detail": "Too much."}]
    with serving(lambda _: problem(422, "invalid", "No.", errors)) as server:
        ran = run("submit", str(place), "--memory", "2TiB", url=server.url)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.splitlines()[1:] == [
        "  train.yaml:3: resources.gpus: The largest node has 8.", "  resources.memory: Too much."
    ]  # fmt: skip


def test_a_job_file_with_faults_is_5_and_asks_nobody(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("command: true\nretries: x\n")
    with serving(lambda _: page()) as server:
        ran = run("submit", str(tmp_path / "train.yaml"), url=server.url)
        assert server.asked == []
    assert (ran.code, ran.err.startswith("haein: train.yaml:2: retries is")) == (5, True)


# Jobs by name


def test_a_job_by_its_id_the_end_of_it_or_its_name(run: Run) -> None:
    other = job(id="01a21024-af56-7fc2-ab40-0000000000aa", name="other")
    with serving(lambda asked: page(job(), other) if asked.path == "jobs" else told(job())) as server:
        for name in (ID, "07336688", "digits"):
            assert run("show", name, "--json", url=server.url).code == 0
            assert server.asked[-1].path == f"jobs/{ID}"
        ran = run("show", "nobody", url=server.url)
        assert (ran.code, "There is no job 'nobody'" in ran.err) == (4, True)


def test_a_name_that_several_have_lists_them(run: Run) -> None:
    other = job(id="01a21024-af56-7fc2-ab40-0000000000aa", state="running")
    with serving(lambda _: page(job(), other)) as server:
        ran = run("cancel", "digits", url=server.url)
    assert ran.code == 2
    assert "2 jobs are called 'digits'" in ran.err
    assert "07336688  succeeded" in ran.err
    assert "000000aa  running" in ran.err


def test_one_job_that_cannot_be_cancelled_does_not_keep_the_others_from_it(run: Run) -> None:
    second = "01a21024-af56-7fc2-ab40-0000000000aa"

    def answers(asked: Asked) -> Answer:
        if asked.path == f"jobs/{ID}/cancel":
            return problem(409, "conflict", "It has ended already.")
        return told(job(id=second, state="running", cancel_requested=True))

    with serving(answers) as server:
        ran = run("cancel", ID, second, url=server.url)
    assert (ran.code, ran.out) == (1, "digits (000000aa) is running, its end was asked for.\n")
    assert ran.err == "haein: It has ended already.\n"


def test_ps_shows_open_jobs_unless_asked_otherwise(run: Run) -> None:
    with serving(lambda _: page(job(name="[red]x\x1b[2J"), job())) as server:
        shown = run("ps", url=server.url)
        assert server.asked[-1].query["state"] == "open"
        run("ps", "--all", "--tag", "a", url=server.url)
        assert ("state" in server.asked[-1].query, server.asked[-1].query["tag"]) == (False, "a")
        assert run("ps", "-q", url=server.url).out == f"{ID}\n{ID}\n"
        cut = run("ps", "--limit", "1", "--json", url=server.url)
        assert json.loads(cut.out) == [job(name="[red]x\x1b[2J")]
    # A name is a name, neither an order to the table nor one to the terminal.
    assert "[red]x[2J " in shown.out
    assert "\x1b" not in shown.out


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"gpus": 0, "share": 1000}, "-"),
        ({"gpus": 2, "share": 1000}, "2"),
        ({"gpus": 2, "share": 500}, "2 x 50%"),
        ({"gpus": 2, "share": 1000, "profile": "1g.23gb"}, "2 x 1g.23gb"),
        ({"gpus": 8, "share": 1000, "workers": 4}, "4 workers x 8 GPUs"),
        ({"gpus": 1, "share": 1000, "workers": 4}, "4 workers x 1 GPU"),
        ({"gpus": 1, "share": 250, "workers": 2}, "2 workers x 1 x 25%"),
        ({"gpus": 0, "share": 1000, "workers": 2}, "2 workers"),
    ],
)
def test_what_a_job_holds_is_said_in_few_words(run: Run, asked: dict[str, object], shown: str) -> None:
    with serving(lambda _: page(job(**asked))) as server:
        line = run("ps", url=server.url).out.splitlines()[1]
    assert re.split(r"  +", line)[3] == shown


def test_a_gang_is_shown_worker_by_worker(run: Run) -> None:
    devices = [{"rank": rank, "device": f"n{rank}/gpu0", "share": 125, "profile": "1g.23gb", "start": 0,
                "emulated": rank == 1}
               for rank in (0, 1)]  # fmt: skip
    attempt = {
        "number": 1, "state": "running", "node": "n0", "devices": devices,
        "workers": [{"rank": 0, "node": "n0"}, {"rank": 1, "node": "n1"}],
    }  # fmt: skip
    asked = {
        "gpus": 1, "share": 1000, "profile": "1g.23gb", "gpu_model": "B200|H200", "workers": 2, "near": "rack",
        "near_required": True, "pool": "fast", "labels": ["nvme", "zone=a"],
    }  # fmt: skip

    def answers(one: Asked) -> Answer:
        if one.path.endswith("/attempts"):
            return page(attempt)
        return page() if one.path.endswith("/events") else told(job(**asked))

    with serving(answers) as server:
        lines = [re.split(r"  +", line.strip()) for line in run("show", ID, url=server.url).out.splitlines()]
    for pair in (["GPUs", "2 workers x 1 x 1g.23gb"], ["GPU model", "B200 or H200"], ["Near", "one rack, or they wait"],
                 ["Pool", "fast"], ["Labels", "nvme, zone=a"]):  # fmt: skip
        assert pair in lines
    assert ["1", "running", "n0", "n0/gpu0 1g.23gb"] in lines
    assert lines[-1] == ["n1", "n1/gpu0 1g.23gb (emulated)"]


def test_nodes_are_told_with_the_words_that_jobs_ask_for(run: Run) -> None:
    device = {"index": 0, "model": "B200", "emulated": True, "used": 125, "free": 875, "holders": []}
    node = {"name": "n1", "pool": "train", "labels": ["nvme", "zone=a"], "drained": True, "devices": [device, device]}
    with serving(lambda _: page(node)) as server:
        first, second = run("nodes", url=server.url).out.splitlines()[1:]
    assert re.split(r"  +", first)[:3] == ["n1 (drained)", "train", "nvme, zone=a"]
    assert "B200 (emulated)" in second
    assert "train" not in second


WINDOW = {
    "id": "w1", "kind": "reservation", "state": "coming", "reason": "the course",
    "team": {"id": "t1", "name": "Vision"},
    "starts_at": "2026-12-01T09:00:00Z", "ends_at": "2026-12-01T17:00:00Z", "gpus": 8, "model": "B200",
    "nodes": ["n1", "n2"],
}  # fmt: skip


def test_windows_are_listed_planned_and_cancelled(run: Run) -> None:
    times = ("--from", "2026-12-01T18:00+0900", "--to", "2026-12-01T20:00+0900", "--reason", "the course")
    with serving(lambda asked: page(WINDOW) if asked.method == "GET" else told(WINDOW)) as server:
        (line,) = run("windows", url=server.url).out.splitlines()[1:]
        kept = run("windows", "reserve", "8", "B200", "--team", "t1", *times, url=server.url)
        out = run("windows", "maintain", "n1", "n2", *times, url=server.url)
        assert run("windows", "cancel", "w1", url=server.url).out == "Cancelled.\n"
    assert re.split(r"  +", line)[:3] == ["w1", "8 x B200 for Vision", "n1, n2"]
    assert kept.out == out.out == "w1: 8 x B200 for Vision, n1, n2\n"
    both = {"starts_at": "2026-12-01T09:00:00+00:00", "ends_at": "2026-12-01T11:00:00+00:00", "reason": "the course"}
    assert [asked.json for asked in server.asked[1:3]] == [
        {**both, "team": "t1", "gpus": 8, "model": "B200"},
        {**both, "nodes": ["n1", "n2"], "rack": ""},
    ]
    assert server.asked[3].path == "windows/w1/cancel"


def test_the_queue_says_who_waits_and_when_they_start(run: Run) -> None:
    start = {"p50": "2026-11-25T12:00:00Z", "p90": "2026-11-25T14:00:00Z", "as_of": "2026-11-25T09:00:00Z"}
    waits = {"job": {"id": "x", "name": "big"}, "team": {"id": "y", "name": "Vision"}, "gpus": 8, "share": 1000}
    answer = {
        "waiting": 2,
        "others": 3,
        "gpus": {"all": 16, "held": 12.5, "free": 3.5, "lent": 2},
        "promises": {"count": 40, "p50_held_percent": 51, "p90_held_percent": 92},
        "results": [{**waits, "ahead": 1, "expected_start": start}, {**waits, "ahead": None, "expected_start": None}],
    }
    with serving(lambda _: told(answer)) as server:
        ran = run("queue", url=server.url)
    first, second = ran.out.splitlines()[1:]
    assert re.search(r"big +Vision +8 .* 1 +2026-11-25 .*  2026-11-25", first)
    assert "not known" in second
    assert "2 wait that you can see, and 3 more. 12.5 of 16 GPUs are held, 2 of them lent." in ran.err
    assert "Of 40 promises of the last seven days 92 % held." in ran.err


# As a process


def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "haein.client", *words], capture_output=True, text=True, env={**os.environ,
        **environ}, timeout=60
    )  # fmt: skip


def test_help_and_version_load_neither_http_nor_yaml() -> None:
    look = (
        "import sys, haein.client.cli as c\n"
        "try: c.app(['submit', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('httpx', 'yaml', 'django', 'haein.lib') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert command("--version").stdout.startswith("haein 0.")


def test_a_reader_that_goes_away_is_no_error() -> None:
    lines = {"attempt": 1, "start": 0, "next": 9, "end": 9, "skipped": 0, "lines": [[1e9, "out", "x" * 999]] * 999}
    with serving(lambda _: told(lines)) as server:
        ran = subprocess.run(
            f"{sys.executable} -m haein.client logs {ID} | head -1", shell=True, capture_output=True, text=True,
            env={**os.environ, "HAEIN_URL": server.url, "HAEIN_TOKEN": "t"},
        )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("x" * 999 + "\n", "")


def test_completion_offers_jobs_and_keeps_quiet_about_trouble() -> None:
    asking = {"_HAEIN_COMPLETE": "complete_bash", "COMP_WORDS": "haein show 07", "COMP_CWORD": "2", "HAEIN_TOKEN": "t"}
    start = "import sys; sys.argv[0] = 'haein'; from haein.client.cli import app; app(prog_name='haein')"

    def completed(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", start],
            capture_output=True,
            text=True,
            env={**os.environ, **asking, "HAEIN_URL": url},
        )

    with serving(lambda _: page(job())) as server:
        assert completed(server.url).stdout.split() == ["07336688"]
    quiet = completed("http://127.0.0.1:1")
    assert (quiet.stdout.strip(), quiet.stderr) == ("", "")
