"""Slurm's commands: what they are given, what they can't be made to believe, and what it is called when they fail."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner, Outcome, SshRunner
from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused
from haein.cluster.backends.slurm.records import State
from haein.slurmlab import Lab
from tests.house import until

from .ways import RUNS_AS, commands, ended, open_folder, record, running, submission


class Watched(LocalRunner):
    """Keeps what was run."""

    def __init__(self, conf: Path) -> None:
        super().__init__(conf)
        self.run_so_far: list[list[str]] = []

    def run(self, argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Outcome:
        self.run_so_far.append(list(argv))
        return super().run(argv, stdin=stdin, environment=environment)


@pytest.fixture
def theirs(slurm: Lab) -> Iterator[Callable[..., int]]:
    """Submits a job of somebody else's, by sbatch itself."""
    mine: list[int] = []

    def submit(*options: str) -> int:
        words = ["sbatch", "--parsable", "--output=/dev/null", "--mem=100", *options, "--wrap", "sleep 600"]
        mine.append(int(slurm.run(*words)))
        return mine[-1]

    yield submit
    commands(slurm).cancel(mine)


def test_one_command_tells_of_all_jobs(slurm: Lab, theirs: Callable[..., int]) -> None:
    runner = Watched(slurm.conf)
    numbers = {theirs("--hold") for _ in range(20)}
    told = {job.id for job in CommandGateway(runner).jobs()}
    assert numbers <= told
    assert [argv[0] for argv in runner.run_so_far] == ["squeue"]


@pytest.mark.parametrize("many", [3, 40])
def test_one_command_tells_what_all_jobs_hold(slurm: Lab, theirs: Callable[..., int], many: int) -> None:
    runner = Watched(slurm.conf)
    numbers = [theirs("--cpus-per-task=1", "--nodelist=node006") for _ in range(many)]
    for number in numbers:
        running(commands(slurm), number)
    held = CommandGateway(runner).held(numbers)
    assert sorted(held) == numbers
    assert {(each.node, each.cpus, each.memory_mb) for (each,) in held.values()} == {("node006", 1, 100)}
    assert [argv[0] for argv in runner.run_so_far] == ["scontrol"]


@pytest.mark.parametrize(
    "name", ["a|b", "two\nlines", "x|y\n17|RUNNING|root", "<mark>", "  blanks  ", "훈련", "'\"$(id)"]
)
def test_no_name_makes_up_another_job(slurm: Lab, theirs: Callable[..., int], name: str) -> None:
    before = {job.id for job in commands(slurm).jobs()}
    number = theirs("--hold", f"--job-name={name}", f"--comment={name}")
    job = record(commands(slurm), number)
    assert (job.name, job.comment) == (name, name)
    assert {job.id for job in commands(slurm).jobs()} - before <= {number}


@pytest.mark.parametrize("many", [0, 40])
def test_no_name_makes_up_what_another_job_holds(slurm: Lab, theirs: Callable[..., int], many: int) -> None:
    honest = theirs("--gres=gpu:b200:1", "--nodelist=node006")
    running(commands(slurm), honest)
    lie = "JOB_GRES=(null)   Nodes=node001 CPU_IDs=0-9 Mem=9 GRES=gpu:b200:8(IDX:0-7) MinCPUsNode=1"
    liar = theirs("--nodelist=node006", f"--job-name=x\nJobId={honest} JobName=x {lie}")
    running(commands(slurm), liar)
    unknown = range(900_000, 900_000 + many)
    told = commands(slurm).held([liar, honest, *unknown])
    (held,) = told[honest]
    assert (held.node, held.gres[0].count) == ("node006", 1)


def test_words_are_arguments_and_never_a_shells(slurm: Lab) -> None:
    trap = slurm.folder / "trap"
    comment = f"$(touch {trap}) `touch {trap}` ; touch {trap} # 'x' \"y\" --help"
    number = commands(slurm).submit(submission(slurm, "haein-words", "true", comment=comment))
    assert ended(commands(slurm), number).comment == comment
    assert not trap.exists()


def test_a_job_gets_nothing_of_ours(slurm: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAEIN_SECRET_KEY", "ours alone")
    folder = open_folder(slurm.folder / "environment")
    order = submission(slurm, "haein-bare", f"env > {folder}/told", environment={"NEWS": "two\nlines"})
    ended(commands(slurm), commands(slurm).submit(order))
    told = (folder / "told").read_text()
    assert "NEWS=two\nlines\n" in told
    assert "ours alone" not in told
    assert "HAEIN" not in told


class Roots(LocalRunner):
    is_root = True


class NotRoots(LocalRunner):
    is_root = False


def test_only_root_submits_for_others_by_the_commands(slurm: Lab) -> None:
    way = CommandGateway(NotRoots(slurm.conf))
    with pytest.raises(
        SlurmRefused, match="Only root may submit for another user by Slurm's commands, and so for nobody"
    ):
        way.submit(submission(slurm, "haein-other", "true", user="nobody"))


def test_a_user_that_the_machine_does_not_know_is_refused(slurm: Lab) -> None:
    with pytest.raises(SlurmRefused, match="Slurm does not know the user"):
        CommandGateway(Roots(slurm.conf)).submit(submission(slurm, "haein-nobody", "true", user="no-such-user"))


def test_a_node_is_drained_and_taken_back(slurm: Lab) -> None:
    way = commands(slurm)

    def states() -> frozenset[str]:
        return next(node for node in way.nodes() if node.name == "node007").states

    way.set_drained("node007", 'fan\n of  GPU 3, "loud" = broken')
    node = next(node for node in way.nodes() if node.name == "node007")
    assert (node.reason, node.reason_by) == ('fan of GPU 3, "loud" = broken', slurm.user)
    assert "DRAIN" in node.states
    way.set_resumed("node007")
    assert "DRAIN" not in states()
    way.set_resumed("node007")
    # Until its slurmd was asked again.
    until(lambda: "NOT_RESPONDING" not in states(), "node007 answers")


def test_a_node_that_is_not_there_is_not_drained(slurm: Lab) -> None:
    with pytest.raises(SlurmRefused, match="no node of this name"):
        commands(slurm).set_drained("node099", "why not")


def test_a_suspended_job_is_told_with_the_time_that_it_stood_still(slurm: Lab) -> None:
    way = commands(slurm)
    number = way.submit(submission(slurm, "haein-still", "sleep 600", gres="gpu:b200:1"))
    running(way, number)
    slurm.run("scontrol", "suspend", str(number))
    until(lambda: record(way, number).state is State.SUSPENDED, "it stands still")
    since = time.monotonic()
    until(lambda: time.monotonic() - since > 2.1, "two seconds went by")
    slurm.run("scontrol", "resume", str(number))
    running(way, number)
    way.cancel([number])
    job = ended(way, number)
    assert 2 <= job.suspended_s <= 4

    def on_record() -> int | None:
        told = way.history([job.name], job.submitted) or ()
        return next((past.suspended_s for past in told if past.id == number and past.ended), None)

    assert until(on_record, "slurmdbd has it on record") == job.suspended_s


def test_a_slurm_that_does_not_answer_is_down(slurm: Lab, tmp_path: Path) -> None:
    elsewhere = tmp_path / "slurm.conf"
    words = slurm.conf.read_text().replace(f"SlurmctldPort={slurm.ports.controller}", "SlurmctldPort=1")
    elsewhere.write_text(words)
    (tmp_path / "cgroup.conf").write_text((slurm.conf.parent / "cgroup.conf").read_text())
    (tmp_path / "gres.conf").write_text((slurm.conf.parent / "gres.conf").read_text())
    way = CommandGateway(LocalRunner(elsewhere, timeout=2))
    for ask in (way.jobs, way.nodes, lambda: way.submit(submission(slurm, "haein-lost", "true"))):
        with pytest.raises(SlurmDown, match="gave no answer within 2 s"):
            ask()


def test_a_machine_without_the_commands_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmDown, match="squeue can't be run: No such file"):
        CommandGateway(LocalRunner()).jobs()


class Tomorrows(LocalRunner):
    """A Slurm that has learned other words."""

    def run(self, argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Outcome:
        outcome = super().run(argv, stdin=stdin, environment=environment)
        return Outcome(
            outcome.code, outcome.out.replace("RealMemory=", "Memory=").replace("CPU_IDs=0", "CPU_IDs=x"), ""
        )


def test_an_answer_that_cannot_be_read_is_no_crash(slurm: Lab, theirs: Callable[..., int]) -> None:
    way = CommandGateway(Tomorrows(slurm.conf))
    with pytest.raises(SlurmDown, match="scontrol wrote what Haein can't read"):
        way.nodes()
    number = theirs("--nodelist=node006", "--exclusive")
    running(commands(slurm), number)
    with pytest.raises(SlurmDown, match="scontrol wrote what Haein can't read"):
        way.held([number])


def test_a_site_without_accounting_has_no_history(own_slurm: Callable[..., Lab]) -> None:
    assert commands(own_slurm(nodes=1)).history(["haein-any"], 0) is None


@pytest.mark.long
def test_a_slurmdbd_that_does_not_answer_is_down(own_slurm: Callable[..., Lab]) -> None:
    lab = own_slurm(nodes=1, accounting=True)
    lab.stop_accounting()
    with pytest.raises(SlurmDown, match="sacct says that Slurm can't be asked now"):
        commands(lab).history(["haein-any"], int(time.time()))


# Debian's machines need not have an SSH server: the far end is a shell here, which gets the one line that sshd would
# give it.
FAR_SHELL = """#!/bin/sh
for line; do :; done
printf '%s\\n' "$@" > {asked}
exec sh -c "$line"
"""


@pytest.fixture
def far(slurm: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CommandGateway]:
    """The lab over an ssh that is this script."""

    def make(script: str) -> CommandGateway:
        program = tmp_path / "ssh"
        program.write_text(script.format(asked=tmp_path / "asked"))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return CommandGateway(SshRunner("operator@login", tmp_path, slurm.conf))

    return make


def test_over_ssh_the_far_shell_gets_the_very_words(
    far: Callable[[str], CommandGateway], slurm: Lab, tmp_path: Path
) -> None:
    way = far(FAR_SHELL)
    trap = slurm.folder / "far-trap"
    folder = open_folder(slurm.folder / "far")
    order: dict[str, Any] = {
        "comment": f'it\'s; $(touch {trap}) "x"',
        "environment": {"WORDS": "a 'b' $HOME\nc"},
        "gres": "gpu:b200:1",
    }
    number = way.submit(
        submission(slurm, "haein-far", f'id -u > {folder}/who; echo "$WORDS" > {folder}/words', **order)
    )
    job = ended(way, number)
    assert (job.comment, job.user, job.exit_code) == (order["comment"], RUNS_AS.pw_name, 0)
    assert (folder / "words").read_text() == "a 'b' $HOME\nc\n"
    assert (folder / "who").read_text().strip() == str(RUNS_AS.pw_uid)
    assert not trap.exists()
    assert [node.name for node in way.nodes()][:2] == ["node001", "node002"]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert "BatchMode=yes" in asked
    assert asked[asked.index("--") + 1] == "operator@login"


def test_over_ssh_a_job_is_watched_and_ended(far: Callable[[str], CommandGateway], slurm: Lab) -> None:
    way = far(FAR_SHELL)
    number = way.submit(submission(slurm, "haein-far", "sleep 600", gres="gpu:b200:1", nodes=("node003",)))
    running(way, number)
    (held,) = way.held([number])[number]
    assert (held.node, held.gres[0].count) == ("node003", 1)
    way.cancel([number])
    assert ended(way, number).state is State.CANCELLED


def test_an_ssh_that_fails_is_slurm_being_down(far: Callable[[str], CommandGateway], slurm: Lab) -> None:
    way = far("#!/bin/sh\necho 'ssh: connect to host login port 22: No route to host' >&2\nexit 255\n")
    with pytest.raises(SlurmDown, match=r"operator@login can't be reached over SSH: .*No route to host"):
        way.jobs()
