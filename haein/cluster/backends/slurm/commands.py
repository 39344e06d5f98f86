"""Slurm by its own commands (squeue, scontrol, sacct, sbatch, scancel), on this machine or on another over SSH."""

from __future__ import annotations

import abc
import os
import pwd
import re
import secrets
import shlex
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from haein.cluster.backends.slurm import parsing, refusals
from haein.cluster.backends.slurm.gateway import Gateway, SlurmDown, SlurmRefused
from haein.cluster.backends.slurm.records import (
    Held,
    JobRecord,
    NodeRecord,
    ReservationRecord,
    State,
    Submission,
    really_ran,
)

# slurmctld lost sight of is given up by Slurm's commands after 9 s (its MessageTimeout's default is 10).
PATIENCE_S = 30.0
# slurm_errno.h
PERMISSION_DENIED, INVALID_USER = 2002, 2010
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Times come as seconds since the epoch from the tools that honour the first, and in UTC from the others.
_SPEAK_PLAINLY = {"SLURM_TIME_FORMAT": "%s", "TZ": "UTC0", "LC_ALL": "C.UTF-8"}
# An argument of a command line must stay under 128 kB, a name of ours is 42 bytes and an id at most 10.
_NAMES_A_CALL = 2000
_IDS_A_CALL = 5000
# Asked one by one over one scontrol, an answer takes 1.5 ms; all jobs at once take 1 ms each hundred.
_ONE_BY_ONE = 30

_SQUEUE_FIELDS = (
    "JobID", "State", "UserName", "Account", "Partition", "SubmitTime", "StartTime", "EndTime", "TimeUsed", "NodeList",
    "NumCPUs", "Reason", "exit_code", "RestartCnt",
)  # fmt: skip
_SACCT_FIELDS = (
    "JobIDRaw", "JobName", "State", "User", "Account", "Partition", "Submit", "Start", "End", "Suspended", "NodeList",
    "AllocCPUS", "ExitCode", "Reason", "Comment",
)  # fmt: skip
_JOB_DETAIL = re.compile(r"\s+Nodes=(\S+) CPU_IDs=(\S*) Mem=(\d+) GRES=(\S*)")
_DETAILS = re.compile(r" JOB_GRES=\S*(.*?) MinCPUsNode=", re.DOTALL)
_REASON = re.compile(r" Reason=(.*?) \[(\S+)@\S+\]", re.DOTALL)
_TOOL = re.compile(r"^(?:sbatch|squeue|scontrol|scancel|sacct|slurm_\w+)(?::| error:)\s*(?:error:|fatal:)?\s*")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


class Runner(abc.ABC):
    """Somewhere that Slurm's commands can be run."""

    @abc.abstractmethod
    def run(self, argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Outcome:
        """Run the command with these variables and no others but those that it needs to find Slurm and itself.

        Raises SlurmDown where it could not be run, or gave no answer in time.
        """

    @abc.abstractmethod
    def group_of(self, user: str) -> int | None:
        """The number of the user's own group; None where the machine does not know the user."""

    @property
    @abc.abstractmethod
    def is_root(self) -> bool:
        """Whether the commands run as root, who may submit for others."""


class LocalRunner(Runner):
    """Runs them here. `conf` is slurm.conf, where it is not at Slurm's own place; `timeout` in seconds."""

    def __init__(self, conf: Path | None = None, timeout: float = PATIENCE_S) -> None:
        self._needed = {"PATH": os.environ.get("PATH", _PATH)}
        if conf is not None:
            self._needed["SLURM_CONF"] = str(conf)
        self._timeout = timeout

    def run(self, argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Outcome:
        return _run(argv, stdin, {**self._needed, **(environment or {})}, self._timeout, argv[0])

    def group_of(self, user: str) -> int | None:
        try:
            return pwd.getpwnam(user).pw_gid
        except KeyError:
            return None

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0


class SshRunner(Runner):
    """Runs them on `target` ("user@host", or a name in ssh's own configuration) over one connection that is kept open:
    its socket is in `sockets`, a folder of our own with a short path (a Unix socket's has at most 107 bytes)."""

    def __init__(self, target: str, sockets: Path, conf: Path | None = None, timeout: float = PATIENCE_S) -> None:
        self._ssh = [
            "ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
            "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=auto", "-o", f"ControlPath={sockets}/%C",
            "-o", "ControlPersist=60", "--", target,
        ]  # fmt: skip
        self._target = target
        self._needed = {"SLURM_CONF": str(conf)} if conf is not None else {}
        self._timeout = timeout
        self._groups: dict[str, int] = {}
        self._is_root: bool | None = None

    def run(self, argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Outcome:
        # The far shell is given back the very words; its own PATH finds the commands, and env drops the rest of what
        # the login brought.
        words = [f"{name}={value}" for name, value in {**self._needed, **(environment or {})}.items()]
        far = f'exec env -i PATH="$PATH" {shlex.join([*words, *argv])}'
        outcome = _run([*self._ssh, far], stdin, dict(os.environ), self._timeout, f"{argv[0]} on {self._target}")
        if outcome.code == 255 and not _TOOL.match(outcome.err):
            raise SlurmDown(f"{self._target} can't be reached over SSH: {_last_line(outcome.err)}")
        return outcome

    def group_of(self, user: str) -> int | None:
        if user not in self._groups:
            outcome = self.run(["id", "-g", "--", user])
            if outcome.code != 0:
                return None
            self._groups[user] = int(outcome.out)
        return self._groups[user]

    @property
    def is_root(self) -> bool:
        if self._is_root is None:
            self._is_root = self.run(["id", "-u"]).out.strip() == "0"
        return self._is_root


def _run(argv: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float, asked: str) -> Outcome:
    try:
        done = subprocess.run(
            argv, input=stdin, env=environment, timeout=timeout, capture_output=True, encoding="utf-8",
            errors="surrogateescape", check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SlurmDown(f"{asked} gave no answer within {timeout:.0f} s.") from None
    except OSError as error:
        raise SlurmDown(f"{asked} can't be run: {error.strerror}.") from error
    return Outcome(done.returncode, done.stdout, done.stderr)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


class CommandGateway(Gateway):
    """Asks by one command for each question."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def nodes(self) -> Sequence[NodeRecord]:
        lines = self._ask(["scontrol", "-o", "-d", "-a", "show", "node"]).splitlines()
        with refusals.understood("scontrol"):
            nodes = [_node(line) for line in lines if line.startswith("NodeName=")]
        return sorted(nodes, key=lambda node: node.name)

    def reservations(self) -> Sequence[ReservationRecord]:
        lines = self._ask(["scontrol", "-o", "-a", "show", "reservation"]).splitlines()
        with refusals.understood("scontrol"):
            return [_reservation(line) for line in lines if line.startswith("ReservationName=")]

    def jobs(self) -> Sequence[JobRecord]:
        # Names and comments are anybody's words, line breaks included: a mark that nobody can know closes each of them,
        # so that no job's name makes up another job.
        mark = f"<{secrets.token_hex(8)}>"
        fields = ",".join([*(f"{name}:|" for name in _SQUEUE_FIELDS), f"Name:{mark}", f"Comment:{mark}"])
        out = self._ask(["squeue", "--noheader", "--all", "--states=all", "--noconvert", "-O", fields])
        every = iter(out.split(mark))
        with refusals.understood("squeue"):
            return [_job(words.lstrip("\n"), comment) for words, comment in zip(every, every, strict=False)]

    def held(self, ids: Collection[int]) -> Mapping[int, Sequence[Held]]:
        if not ids:
            return {}
        if len(ids) <= _ONE_BY_ONE:
            questions = "".join(f"show job {number}\n" for number in ids)
            out = self._ask(["scontrol", "-o", "-d"], stdin=questions, may_fail=True)
        else:
            out = self._ask(["scontrol", "-o", "-d", "-a", "show", "job"])
        told: dict[int, Sequence[Held]] = {}
        doubtful = set()
        for number, held in _holdings(out):
            if held and number in ids and told.setdefault(number, held) != held:
                doubtful.add(number)
        for number in doubtful:
            # Somebody's job carries another's record in its name. Asked alone, the first is the one asked for.
            out = self._ask(["scontrol", "-o", "-d", "show", "job", str(number)], may_fail=True)
            told.pop(number)
            told.update(list(_holdings(out))[:1])
        return told

    def history(self, names: Collection[str], since: int) -> Sequence[JobRecord] | None:
        records: list[JobRecord] = []
        begin = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        ordered = list(names)
        for first in range(0, len(ordered), _NAMES_A_CALL):
            wanted = ordered[first : first + _NAMES_A_CALL]
            mark = f"<{secrets.token_hex(8)}>"
            outcome = self._runner.run(
                ["sacct", "--duplicates", "--allocations", "--noheader", "--parsable2", f"--delimiter={mark}",
                 "--allusers", f"--starttime={begin}", f"--name={','.join(wanted)}",
                 f"--format={','.join(_SACCT_FIELDS)}"],
                environment=_SPEAK_PLAINLY,
            )  # fmt: skip
            if outcome.code != 0:
                if "accounting storage is disabled" in outcome.err:
                    return None
                raise _down(outcome, "sacct")
            rows = (line.split(mark) for line in outcome.out.splitlines())
            with refusals.understood("sacct"):
                records.extend(_past(row) for row in rows if len(row) == len(_SACCT_FIELDS))
        return [record for record in records if record.submitted >= since]

    def submit(self, submission: Submission) -> int:
        argv = ["sbatch", "--parsable", "--no-requeue", "--export=ALL", *_options(submission)]
        if submission.user:
            argv += self._as_user(submission.user)
        # sbatch hands on its own environment, and so gets nothing but the job's: --export=NONE would start the user's
        # login shell on the node, and a list of names would too.
        environment = {"PATH": _PATH, **submission.environment}
        outcome = self._runner.run(argv, stdin=submission.script, environment=environment)
        if outcome.code != 0:
            raise _fault(outcome, "sbatch")
        try:
            return int(outcome.out.strip().split(";")[0])
        except ValueError:
            raise SlurmDown(f"sbatch answered {outcome.out.strip()[:80]!r} where a job's id was expected.") from None

    def _as_user(self, user: str) -> list[str]:
        if not self._runner.is_root:
            raise SlurmRefused(
                f"Only root may submit for another user by Slurm's commands, and so for {user}; "
                "or over slurmrestd with a token of SlurmUser's.",
                PERMISSION_DENIED,
            )
        group = self._runner.group_of(user)
        if group is None:
            raise refusals.fault(INVALID_USER, "Invalid user id", "sbatch")
        # Without it the job keeps root's group.
        return [f"--uid={user}", f"--gid={group}"]

    def cancel(self, ids: Collection[int]) -> None:
        ordered = [str(number) for number in ids]
        for first in range(0, len(ordered), _IDS_A_CALL):
            self._tell(["scancel", *ordered[first : first + _IDS_A_CALL]])

    def set_drained(self, node: str, reason: str) -> None:
        self._tell(["scontrol", "update", f"nodename={node}", "state=drain", f"reason={' '.join(reason.split())}"])

    def set_resumed(self, node: str) -> None:
        # Unlike "resume" it leaves alone what is down.
        self._tell(["scontrol", "update", f"nodename={node}", "state=undrain"])

    def _ask(self, argv: Sequence[str], *, stdin: str = "", may_fail: bool = False) -> str:
        """What the command printed. One that `may_fail` may find some of what it was asked for unknown."""
        outcome = self._runner.run(argv, stdin=stdin, environment=_SPEAK_PLAINLY)
        if outcome.code == 0:
            return outcome.out
        fault = _fault(outcome, argv[0])
        if may_fail and not isinstance(fault, SlurmDown):
            return outcome.out
        raise SlurmDown(str(fault))

    def _tell(self, argv: Sequence[str]) -> None:
        outcome = self._runner.run(argv, environment=_SPEAK_PLAINLY)
        if outcome.code != 0:
            raise _fault(outcome, argv[0])


def _fault(outcome: Outcome, asked: str) -> Exception:
    """Slurm's own sentence is the last that a command prints."""
    messages = [_TOOL.sub("", line) for line in outcome.err.strip().splitlines()]
    message = messages[-1] if messages else f"exit code {outcome.code}"
    return refusals.fault(0, message.removeprefix("Batch job submission failed: "), asked)


def _down(outcome: Outcome, asked: str) -> SlurmDown:
    return SlurmDown(f"{asked} says that Slurm can't be asked now: {_TOOL.sub('', _last_line(outcome.err))}")


def _options(submission: Submission) -> Iterator[str]:
    yield f"--job-name={submission.name}"
    yield f"--chdir={submission.folder}"
    yield f"--output={submission.output}"
    yield f"--nodelist={parsing.compress(submission.nodes)}"
    yield f"--nodes={len(submission.nodes)}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={submission.cpus}"
    yield f"--mem={submission.memory_mb}M"
    yield f"--time={submission.time_limit_min}"
    named = {
        "comment": submission.comment,
        "gres": submission.gres,
        "partition": submission.partition,
        "account": submission.account,
        "qos": submission.qos,
        "reservation": submission.reservation,
    }
    for option, value in named.items():
        if value:
            yield f"--{option}={value}"


def _job(words: str, comment: str) -> JobRecord:
    (number, state, user, account, partition, submitted, started, ended, used, nodes, cpus, reason, status, restarts,
     name) = words.split("|", len(_SQUEUE_FIELDS))  # fmt: skip
    base = parsing.state(state)
    names = parsing.expand(nodes)
    begun, end = really_ran(base, names, parsing.moment(started), parsing.moment(ended))
    code, signal = parsing.exit_status(status) if base.is_over else (None, None)
    return JobRecord(
        id=int(number),
        name=name,
        state=base,
        user=user,
        account=parsing.text(account),
        partition=partition,
        submitted=parsing.moment(submitted) or 0,
        started=begun,
        ended=end,
        nodes=names,
        cpus=parsing.count(cpus),
        reason=parsing.text(reason),
        exit_code=code,
        signal=signal,
        comment=parsing.text(comment),
        suspended_s=_stood_still(begun, end, used),
        restarts=int(restarts),
    )


def _stood_still(begun: int | None, end: int | None, used: str) -> int:
    """Seconds between begin and end in which Slurm counted no time used. Of one that has not ended nobody tells."""
    if begun is None or end is None:
        return 0
    return max(0, end - begun - (parsing.duration(used) or 0))


def _past(row: Sequence[str]) -> JobRecord:
    (number, name, word, user, account, partition, submitted, started, ended, suspended, nodes, cpus, status, reason,
     comment) = row  # fmt: skip
    end = parsing.moment(ended)
    base = parsing.state(word)
    if end is not None and base is State.PENDING:
        # A run that was put back in the queue is over for good on record.
        base = State.CANCELLED
    code, signal = parsing.exit_status(status) if end is not None else (None, None)
    return JobRecord(
        id=int(number),
        name=name,
        state=base,
        user=user,
        account=parsing.text(account),
        partition=partition,
        submitted=parsing.moment(submitted) or 0,
        started=parsing.moment(started),
        ended=end,
        nodes=parsing.expand(nodes),
        cpus=int(cpus),
        reason=parsing.text(reason),
        exit_code=code,
        signal=signal,
        comment=comment,
        suspended_s=parsing.duration(suspended) or 0,
    )


def _pairs(line: str) -> dict[str, str]:
    """The "Key=value" words of a line; of a value with blanks the first word, of a repeated key the first."""
    pairs: dict[str, str] = {}
    for word in line.split(" "):
        key, equals, value = word.partition("=")
        if equals:
            pairs.setdefault(key, value)
    return pairs


def _node(line: str) -> NodeRecord:
    pairs = _pairs(line)
    reason = _REASON.search(line)
    return NodeRecord(
        name=pairs["NodeName"],
        # Without the cores that Slurm keeps for itself, where it tells (since 21.08).
        cpus=int(pairs.get("CPUEfctv", pairs["CPUTot"])),
        memory_mb=int(pairs["RealMemory"]) - int(pairs.get("MemSpecLimit", "0")),
        gres=parsing.gres(pairs["Gres"]),
        features=_words(pairs.get("ActiveFeatures", "")),
        partitions=_words(pairs.get("Partitions", "")),
        states=parsing.node_states(pairs["State"]),
        reason=reason[1] if reason else "",
        reason_by=reason[2] if reason else "",
    )


def _reservation(line: str) -> ReservationRecord:
    pairs = _pairs(line)
    return ReservationRecord(
        name=pairs["ReservationName"],
        starts=parsing.moment(pairs["StartTime"]) or 0,
        ends=parsing.moment(pairs["EndTime"]) or 0,
        nodes=parsing.expand(pairs["Nodes"]),
        users=_words(pairs["Users"]),
        accounts=_words(pairs["Accounts"]),
        flags=frozenset(_words(pairs["Flags"])),
    )


def _words(listed: str) -> tuple[str, ...]:
    return tuple(word for word in parsing.text(listed).split(",") if word)


def _holdings(out: str) -> Iterator[tuple[int, Sequence[Held]]]:
    """(id, what it holds) in scontrol's order."""
    for record in re.split(r"^JobId=", out, flags=re.MULTILINE)[1:]:
        with refusals.understood("scontrol"):
            told = int(record.split(maxsplit=1)[0]), _held(record)
        yield told


def _held(record: str) -> Sequence[Held]:
    """What `scontrol -d show job` tells of each node; nodes that hold alike stand together."""
    details = _DETAILS.search(record)
    if details is None:
        return ()
    return [
        Held(node, len(parsing.indices(cpus)), int(memory), parsing.gres(gres))
        for nodes, cpus, memory, gres in _JOB_DETAIL.findall(details[1])
        for node in parsing.expand(nodes)
    ]
