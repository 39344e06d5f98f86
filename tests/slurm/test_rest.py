"""slurmrestd: its tokens, its versions, and what it is called when it will not, or can't."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from haein.cluster.backends.base import Cause
from haein.cluster.backends.slurm import versions
from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused
from haein.cluster.backends.slurm.records import Gres, Held, JobRecord, State, Submission
from haein.cluster.backends.slurm.rest import RestGateway
from haein.cluster.backends.slurm.tokens import FileTokens, MintedTokens, Tokens, expiry, mint
from haein.slurmlab import Lab
from tests.contract.slurm_stage import SlurmStage
from tests.house import until

from .ways import commands, ended, record, submission

Way = Callable[..., RestGateway]


@pytest.fixture
def way(slurm: Lab) -> Iterator[Way]:
    """The shared lab's slurmrestd with other tokens, or another address, than it should be."""
    opened: list[RestGateway] = []

    def make(tokens: Tokens | None = None, url: str = "") -> RestGateway:
        opened.append(RestGateway(url or slurm.rest_url, tokens or MintedTokens(slurm.jwt_key, slurm.user)))
        return opened[-1]

    yield make
    for gateway in opened:
        gateway.close()


def questions(gateway: RestGateway, lab: Lab) -> list[Callable[[], Any]]:
    return [gateway.jobs, gateway.nodes, lambda: gateway.submit(submission(lab, "haein-lost", "true"))]


def test_many_at_once_are_all_accepted_once(slurmrestd: RestGateway, slurm: Lab) -> None:
    names = [f"haein-many-{number}" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda name: slurmrestd.submit(submission(slurm, name, "true")), names))
    assert len(set(ids)) == 60
    known = {job.id: job.name for job in commands(slurm).jobs()}
    assert [known[number] for number in ids] == names
    commands(slurm).cancel(ids)


def test_with_the_commands_beside_it_only_submissions_go_over_rest(slurm: Lab) -> None:
    # The daemon refuses what it does not know, and nobody listens where everything else would go.
    gateway = RestGateway(slurm.rest_url, MintedTokens(slurm.jwt_key, slurm.user), commands(slurm))
    try:
        number = gateway.submit(submission(slurm, "haein-both", "true"))
        assert ended(gateway, number) == record(commands(slurm), number)
        gateway.set_drained("node007", "a test's")
        assert "DRAIN" in next(node for node in gateway.nodes() if node.name == "node007").states
        gateway.set_resumed("node007")
        gateway.cancel([number])
    finally:
        gateway.close()


def test_a_daemon_that_cannot_drain_says_what_can(slurmrestd: RestGateway) -> None:
    with pytest.raises(SlurmRefused, match=r"slurmrestd \(v0\.0\.38\) can't drain nodes: .* HAEIN_SLURM_SSH|commands"):
        slurmrestd.set_drained("node007", "a test's")


def test_a_key_that_is_not_slurms_is_named(way: Way, slurm: Lab, tmp_path: Path) -> None:
    key = tmp_path / "other.key"
    key.write_bytes(b"x" * 32)
    gateway = way(MintedTokens(key, slurm.user))
    for ask in questions(gateway, slurm):
        with pytest.raises(SlurmDown, match=r"minted for .* with .*other\.key \(HAEIN_SLURM_JWT_KEY\)"):
            ask()


def test_a_key_that_is_not_there_is_named(way: Way, slurm: Lab, tmp_path: Path) -> None:
    with pytest.raises(SlurmDown, match=r"none\.key \(HAEIN_SLURM_JWT_KEY\), can't be read: No such file"):
        way(MintedTokens(tmp_path / "none.key", slurm.user)).jobs()


def test_a_token_that_expired_is_named_and_a_renewed_one_is_taken(way: Way, slurm: Lab, tmp_path: Path) -> None:
    file = tmp_path / "token"
    key, now = slurm.jwt_key.read_bytes(), int(time.time())
    gateway = way(FileTokens(file, slurm.user))
    with pytest.raises(SlurmDown, match=r"token \(HAEIN_SLURM_TOKEN_FILE\), can't be read"):
        gateway.jobs()
    file.write_text("\n")
    with pytest.raises(SlurmDown, match=r"no token for Slurm in .*token \(HAEIN_SLURM_TOKEN_FILE\)"):
        gateway.jobs()
    file.write_text(mint(key, slurm.user, now - 600, 500))
    for ask in questions(gateway, slurm):
        with pytest.raises(SlurmDown, match=r"token \(HAEIN_SLURM_TOKEN_FILE\) expired at 20\d\d-"):
            ask()
    # As `scontrol token` prints it.
    file.write_text(slurm.run("scontrol", "token", "lifespan=60"))
    assert gateway.nodes()


def test_a_token_of_somebody_who_may_not_name_others_is_refused(way: Way, slurm: Lab, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(mint(slurm.jwt_key.read_bytes(), "nobody", int(time.time()), 60))
    with pytest.raises(SlurmDown, match=r"Is the token in .* one of slurmctld's, for root\?"):
        way(FileTokens(file, "root")).jobs()


def test_a_minted_token_is_renewed_before_it_ends(slurm: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = MintedTokens(slurm.jwt_key, slurm.user, life_s=600)
    first, now = tokens.token(), time.time()
    assert expiry(first) == pytest.approx(now + 600, abs=2)
    monkeypatch.setattr(time, "time", lambda: now + 470)
    assert tokens.token() == first
    monkeypatch.setattr(time, "time", lambda: now + 490)
    assert expiry(tokens.token()) == pytest.approx(now + 490 + 600, abs=2)


def test_the_user_of_a_job_is_the_one_that_was_asked_for(slurmrestd: RestGateway, slurm: Lab) -> None:
    # As whoever's the token is where nobody was named.
    number = slurmrestd.submit(submission(slurm, "haein-self", "true", user=""))
    assert ended(slurmrestd, number).user == slurm.user


def test_what_is_no_slurmrestd_is_down(way: Way, slurm: Lab) -> None:
    gateway = way(url="http://127.0.0.1:1")
    for ask in questions(gateway, slurm):
        with pytest.raises(SlurmDown, match=r"slurmrestd at http://127\.0\.0\.1:1 can't be reached: .*refused"):
            ask()


@pytest.mark.long
def test_a_slurmctld_that_is_gone_is_down_and_found_again(own_slurm: Callable[..., Lab], way: Way) -> None:
    # slurmrestd waits for as long as the other daemons do, which goes by this.
    lab = own_slurm(nodes=1, node_timeout_s=50)
    gateway = way(MintedTokens(lab.jwt_key, lab.user), lab.rest_url)
    assert gateway.nodes()
    lab.kill_controller()
    with pytest.raises(SlurmDown):
        gateway.jobs()
    lab.start_controller()
    assert gateway.nodes()


def test_a_site_without_accounting_has_no_history(own_slurm: Callable[..., Lab], way: Way) -> None:
    lab = own_slurm(nodes=1)
    assert way(MintedTokens(lab.jwt_key, lab.user), lab.rest_url).history(["haein-any"], 0) is None


def test_the_backend_needs_nothing_but_slurmrestd(slurmrestd: RestGateway, slurm: Lab) -> None:
    stage = SlurmStage(slurm, slurmrestd)
    try:
        launch, sight = stage.run(stage.quick)
        assert (sight.cause, sight.exit_code) == (Cause.EXITED, 0)
        assert stage.said(launch) == ["hello"]
        endless = stage.begin(stage.endless)
        until(lambda: stage.look(endless).places, "it is told where it runs")
        stage.backend.stop([endless.attempt_id])
        until(lambda: stage.look(endless).cause is Cause.STOPPED, "it is stopped")
    finally:
        stage.close()


# The versions that no Debian has, by their published documents


ORDER = Submission(
    name="haein-1", comment="", script="#!/bin/sh\n", folder="/shared", output="/shared/out", nodes=("a1", "a2"),
    cpus=4, memory_mb=2000, time_limit_min=30, gres="gpu:b200:2", partition="main",
    environment={"A": "1"},
)  # fmt: skip
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "A": "1"}
EVERYWHERE = {
    "name": "haein-1", "current_working_directory": "/shared", "standard_output": "/shared/out",
    "standard_input": "/dev/null", "tasks": 2, "tasks_per_node": 1, "cpus_per_task": 4, "partition": "main",
}  # fmt: skip
LATER = {
    **EVERYWHERE, "minimum_nodes": 2, "maximum_nodes": 2, "required_nodes": ["a1", "a2"], "requeue": False,
    "memory_per_node": {"set": True, "infinite": False, "number": 2000},
    "time_limit": {"set": True, "infinite": False, "number": 30},
    "environment": ["PATH=/usr/local/bin:/usr/bin:/bin", "A=1"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (38, {"script": "#!/bin/sh\n", "job": {
            **EVERYWHERE, "nodes": [2, 2], "nodelist": "a[1-2]", "no_requeue": True, "memory_per_node": 2000,
            "time_limit": 30, "gres": "gpu:b200:2", "environment": ENVIRONMENT,
        }}),
        (39, {"script": "#!/bin/sh\n", "job": {**LATER, "tres_per_node": "gres:gpu:b200:2"}}),
        *((version, {"job": {**LATER, "script": "#!/bin/sh\n", "tres_per_node": "gres/gpu:b200:2"}})
          for version in (40, 41, 42, 43)),
    ],
)  # fmt: skip
def test_a_submission_is_written_as_each_version_reads_it(version: int, body: dict[str, Any]) -> None:
    assert versions.submission_body(version, ORDER) == body


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        (["/slurm/v0.0.36/jobs", "/slurm/v0.0.38/jobs/", "/slurmdb/v0.0.39/jobs"], 38),
        (["/slurm/v0.0.40/jobs/", "/slurm/v0.0.41/jobs/", "/slurm/v0.0.39/jobs"], 41),
        (["/slurm/v0.0.43/jobs/", "/slurm/v0.0.99/jobs/"], 43),
        (["/slurm/v0.0.37/jobs"], None),
        ([], None),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(paths: list[str], chosen: int | None) -> None:
    assert versions.newest(paths) == chosen


def wrapped(number: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": number}


UNSET = {"set": False, "infinite": False, "number": 0}
STATUS = {"status": ["SIGNALED"], "return_code": wrapped(0), "signal": {"id": wrapped(9), "name": "Killed"}}
COMMON = {
    "job_id": 7, "name": "haein-1", "user_name": "carol", "account": "lab", "partition": "main", "nodes": "a[1-2]",
    "state_reason": "None", "comment": "", "restart_cnt": 0,
}  # fmt: skip
OVER = JobRecord(
    id=7, name="haein-1", state=State.FAILED, user="carol", account="lab", partition="main", submitted=100,
    started=110, ended=150, nodes=("a1", "a2"), cpus=8, exit_code=0, signal=9,
)  # fmt: skip
SOCKETS_MAPPED = {"0": {"cores": {"0": "allocated", "1": "allocated"}}, "1": {"cores": {"0": "unallocated"}}}
SOCKETS_LISTED = [
    {"index": 0, "cores": [{"index": 0, "status": ["ALLOCATED"]}, {"index": 1, "status": ["ALLOCATED"]}]},
    {"index": 1, "cores": [{"index": 0, "status": ["UNALLOCATED"]}]},
]


@pytest.mark.parametrize(
    "told",
    [
        {"job_state": "FAILED", "submit_time": 100, "start_time": 110, "end_time": 150, "cpus": wrapped(8),
         "exit_code": wrapped(9), "suspend_time": 0, "pre_sus_time": 0},
        {"job_state": ["FAILED"], "submit_time": wrapped(100), "start_time": wrapped(110), "end_time": wrapped(150),
         "cpus": wrapped(8), "exit_code": STATUS, "suspend_time": wrapped(0), "pre_sus_time": wrapped(0)},
    ],
    ids=["0.0.39", "0.0.40"],
)  # fmt: skip
def test_a_job_reads_the_same_in_each_version(told: dict[str, Any]) -> None:
    assert versions.job({**COMMON, **told}) == OVER


def test_a_job_that_waits_has_neither_begun_nor_ended() -> None:
    told = {"job_state": ["PENDING"], "submit_time": wrapped(100), "start_time": wrapped(900),
            "end_time": wrapped(1800), "cpus": UNSET, "exit_code": STATUS, "nodes": ""}  # fmt: skip
    job = versions.job({**COMMON, **told})
    assert (job.state, job.started, job.ended, job.exit_code, job.signal) == (State.PENDING, None, None, None, None)


def test_a_job_that_leaves_its_nodes_is_completing() -> None:
    told = {"job_state": ["CANCELLED", "COMPLETING"], "submit_time": wrapped(100), "start_time": wrapped(110),
            "end_time": wrapped(150), "cpus": wrapped(8)}  # fmt: skip
    job = versions.job({**COMMON, **told})
    assert (job.state, job.ended, job.exit_code) == (State.COMPLETING, 150, None)


def test_a_job_that_stood_still_is_told_with_that_time() -> None:
    told = {"job_state": "COMPLETED", "submit_time": 100, "start_time": 110, "end_time": 150, "cpus": 8, "exit_code": 0,
            "suspend_time": 140, "pre_sus_time": 10}  # fmt: skip
    # It ran from 110 to 120, stood still up to 140, and ran on.
    assert versions.job({**COMMON, **told}).suspended_s == 20


@pytest.mark.parametrize(
    "resources",
    [
        {"nodes": "a[1-2]", "allocated_nodes": [
            {"nodename": name, "sockets": SOCKETS_MAPPED, "memory_allocated": 2000} for name in ("a1", "a2")
        ]},
        {"nodes": {"list": "a[1-2]", "allocation": [
            {"name": name, "sockets": SOCKETS_LISTED, "memory": {"used": 0, "allocated": 2000}} for name in ("a1", "a2")
        ]}},
    ],
    ids=["0.0.40", "0.0.41"],
)  # fmt: skip
def test_what_a_job_holds_reads_the_same_in_each_version(resources: dict[str, Any]) -> None:
    told = {
        "job_id": 7, "cpus": wrapped(8), "job_resources": resources,
        "gres_detail": ["gpu:b200:2(IDX:0-1)", "gpu:b200:2(IDX:4,6)"],
    }  # fmt: skip
    # Two cores of two threads each.
    assert versions.held(told) == [
        Held("a1", 4, 2000, (Gres("gpu", "b200", 2, (0, 1)),)),
        Held("a2", 4, 2000, (Gres("gpu", "b200", 2, (4, 6)),)),
    ]


def test_a_node_reads_as_later_versions_write_it() -> None:
    node = versions.node(
        {
            "name": "a1", "cpus": 64, "effective_cpus": 62, "real_memory": 131072, "specialized_memory": 1024,
            "gres": "gpu:b200:8(S:0-1)", "active_features": ["b200", "nvlink"], "partitions": ["main"],
            "state": ["IDLE", "DRAIN"], "reason": "fan", "reason_set_by_user": "root",
        }
    )  # fmt: skip
    assert (node.cpus, node.memory_mb, node.gres) == (62, 130048, (Gres("gpu", "b200", 8),))
    assert (node.features, node.states) == (("b200", "nvlink"), frozenset({"IDLE", "DRAIN"}))
    assert (node.reason, node.reason_by) == ("fan", "root")


def test_a_run_on_record_reads_as_later_versions_write_it() -> None:
    run = versions.past(
        {
            "job_id": 7, "name": "haein-1", "user": "carol", "account": "lab", "partition": "main", "nodes": "a[1-2]",
            "comment": {"administrator": "", "job": "ours", "system": ""},
            "state": {"current": ["FAILED"], "reason": "NonZeroExitCode"},
            "exit_code": {**STATUS, "return_code": UNSET},
            "time": {"submission": 100, "start": 110, "end": 150, "elapsed": 35, "suspended": 5},
            "tres": {"allocated": [{"type": "cpu", "count": 8}, {"type": "mem", "count": 2000}]},
        }
    )  # fmt: skip
    assert (run.state, run.started, run.ended, run.suspended_s, run.cpus) == (State.FAILED, 110, 150, 5, 8)
    assert (run.signal, run.comment, run.nodes) == (9, "ours", ("a1", "a2"))


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ('[{"error_code": 2014, "error": "Requested node configuration is not available"}]',
         (2014, "Requested node configuration is not available")),
        ('[{"description": "Unable to query JobId=9", "error_number": 2017, "error": "Invalid job id specified"}]',
         (2017, "Invalid job id specified")),
        ('[{"description": "Unknown key", "error_number": -1, "error": "Unspecified error"}, {"error_code": 9001}]',
         (0, "Unknown key")),
        ("[{}]", (0, "no reason told")),
    ],
)  # fmt: skip
def test_the_most_telling_error_comes_first(told: str, first: tuple[int, str]) -> None:
    assert versions.errors({"errors": json.loads(told)})[0] == first
