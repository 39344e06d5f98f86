"""What the versions of slurmrestd's API call the same things: bodies to send, and answers read.

0.0.38 (Slurm 22.05) was tried against the real daemon. The later ones are written after their published OpenAPI
documents: from 0.0.39 (23.02) on numbers that may be missing are objects of "set", "infinite" and "number", states are
lists from 0.0.40 (23.11) on, and resources of a job have another shape again from 0.0.41 (24.05) on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haein.cluster.backends.slurm import parsing
from haein.cluster.backends.slurm.records import (
    Held,
    JobRecord,
    NodeRecord,
    ReservationRecord,
    State,
    Submission,
    really_ran,
)

OLDEST, NEWEST = 38, 43
# From here on a node's state can be set.
WITH_NODE_STATES = 40

Answer = Mapping[str, Any]

# slurm_errno.h but for what is about the request itself (9000 and more), and the system's errno below it.
_SLURMS_OWN = range(1000, 9000)
_PATH = re.compile(r"/slurm/v0\.0\.(\d+)/")


def newest(paths: Iterable[str]) -> int | None:
    """The newest version that both the OpenAPI document's paths and this module know."""
    offered = {int(match[1]) for path in paths if (match := _PATH.match(path))}
    return max((version for version in offered if OLDEST <= version <= NEWEST), default=None)


def errors(answer: Answer) -> list[tuple[int, str]]:
    """(Slurm's error number or 0, its message) of each error, the most telling first: with a number of Slurm's own."""
    found = []
    for error in answer.get("errors") or ():
        number = error.get("error_number", error.get("error_code", 0)) or 0
        words = [str(error[key]) for key in ("error", "description") if error.get(key)] or ["no reason told"]
        # "Unspecified error" and "Failure during parsing" say less than what was being done.
        found.append((max(number, 0), words[0] if number in _SLURMS_OWN else words[-1]))
    return sorted(found, key=lambda error: error[0] not in _SLURMS_OWN)


def number(value: Any) -> int | None:
    """A plain number, or one wrapped in {"set", "infinite", "number"}; None where it is not set or has no end."""
    if isinstance(value, Mapping):
        if not value.get("set", True) or value.get("infinite"):
            return None
        value = value.get("number")
    return None if value is None else int(value)


# Submitting


def submission_body(version: int, submission: Submission) -> dict[str, Any]:
    """The body of POST job/submit."""
    count = len(submission.nodes)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **submission.environment}
    job: dict[str, Any] = {
        "name": submission.name,
        "current_working_directory": submission.folder,
        "standard_output": submission.output,
        "standard_input": "/dev/null",
        "tasks": count,
        "tasks_per_node": 1,
        "cpus_per_task": submission.cpus,
    }
    named = {
        "comment": submission.comment,
        "partition": submission.partition,
        "account": submission.account,
        "qos": submission.qos,
        "reservation": submission.reservation,
    }
    job |= {key: value for key, value in named.items() if value}
    if version < 39:
        # The document's "required_nodes" and "requeue" are refused and not heeded there; these do the same.
        job |= {
            "nodes": [count, count],
            "nodelist": parsing.compress(submission.nodes),
            "no_requeue": True,
            "memory_per_node": submission.memory_mb,
            "time_limit": submission.time_limit_min,
            "environment": environment,
        }
        if submission.gres:
            job["gres"] = submission.gres
        return {"script": submission.script, "job": job}
    job |= {
        "minimum_nodes": count,
        "maximum_nodes": count,
        "required_nodes": list(submission.nodes),
        "requeue": False,
        "memory_per_node": _wrapped(submission.memory_mb),
        "time_limit": _wrapped(submission.time_limit_min),
        "environment": [f"{name}={value}" for name, value in environment.items()],
    }
    if submission.gres:
        job["tres_per_node"] = _tres(version, submission.gres)
    if version == 39:
        return {"script": submission.script, "job": job}
    return {"job": {"script": submission.script, **job}}


def _wrapped(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


def _tres(version: int, gres: str) -> str:
    """ "gpu:b200:2" as a trackable resource: "gres:gpu:b200:2" up to Slurm 23.02, "gres/gpu:b200:2" after it."""
    separator = ":" if version == 39 else "/"
    return ",".join(f"gres{separator}{part}" for part in gres.split(","))


# Reading


def job(told: Answer) -> JobRecord:
    """A job of GET jobs."""
    words = _words(told["job_state"])
    state = parsing.state("COMPLETING" if "COMPLETING" in words else words[0])
    nodes = parsing.expand(told.get("nodes") or "")
    begun, end = really_ran(state, nodes, number(told.get("start_time")) or None, number(told.get("end_time")) or None)
    code, killed_by = _status(told.get("exit_code")) if state.is_over else (None, None)
    return JobRecord(
        id=told["job_id"],
        name=told.get("name") or "",
        state=state,
        user=told.get("user_name") or str(told.get("user_id", "")),
        account=told.get("account") or "",
        partition=told.get("partition") or "",
        submitted=number(told.get("submit_time")) or 0,
        started=begun,
        ended=end,
        nodes=nodes,
        cpus=number(told.get("cpus")) or 1,
        reason=parsing.text(told.get("state_reason") or ""),
        exit_code=code,
        signal=killed_by,
        comment=told.get("comment") or "",
        suspended_s=_stood_still(told, begun, end),
        restarts=told.get("restart_cnt") or 0,
    )


def _words(states: str | Sequence[str]) -> Sequence[str]:
    return (states,) if isinstance(states, str) else states


def _status(told: Any) -> tuple[int, int | None]:
    if not isinstance(told, Mapping) or "return_code" not in told:
        return parsing.exit_status(str(number(told) or 0))
    killed_by = told.get("signal") or {}
    # slurmdb's 0.0.38 has "signal_id" in it, later ones "id".
    return number(told["return_code"]) or 0, number(killed_by.get("id", killed_by.get("signal_id"))) or None


def _stood_still(told: Answer, begun: int | None, end: int | None) -> int:
    """Seconds of its run that it was suspended: what it had run is counted up to the last change, and from then on."""
    changed = number(told.get("suspend_time"))
    if begun is None or end is None or not changed:
        return 0
    return max(0, changed - begun - (number(told.get("pre_sus_time")) or 0))


def held(told: Answer) -> Sequence[Held]:
    """What a job of GET job/{id} holds, node by node."""
    resources = told.get("job_resources") or {}
    parts = _allocated(resources)
    cores = sum(cores for _, cores, _ in parts)
    cpus = number(told.get("cpus")) or cores
    # Cores are told, and where each has two threads a job holds twice as many CPUs.
    threads = max(1, cpus // cores) if cores else 1
    details = told.get("gres_detail") or []
    return [
        Held(node, cores * threads, memory, parsing.gres(details[position]) if position < len(details) else ())
        for position, (node, cores, memory) in enumerate(parts)
    ]


def _allocated(resources: Answer) -> list[tuple[str, int, int]]:
    """(node, cores, MiB) of each node, in the order in which the devices are told."""
    nodes = resources.get("nodes")
    if isinstance(nodes, Mapping):
        return [
            (part["name"], _cores_listed(part), part["memory"]["allocated"]) for part in nodes.get("allocation") or ()
        ]
    return [
        (part["nodename"], _cores_mapped(part), part["memory_allocated"])
        for part in resources.get("allocated_nodes") or ()
    ]


def _cores_mapped(part: Answer) -> int:
    """0.0.38 to 0.0.40: {"sockets": {"0": {"cores": {"0": "allocated"}}}}."""
    return sum(word.startswith("allocated") for socket in part["sockets"].values() for word in socket["cores"].values())


def _cores_listed(part: Answer) -> int:
    """From 0.0.41 on: {"sockets": [{"cores": [{"status": ["ALLOCATED"]}]}]}."""
    return sum("ALLOCATED" in core["status"] for socket in part["sockets"] for core in socket["cores"])


def node(told: Answer) -> NodeRecord:
    """A node of GET nodes."""
    states = [*_words(told["state"]), *(told.get("state_flags") or ())]
    return NodeRecord(
        name=told["name"],
        cpus=told.get("effective_cpus") or told["cpus"],
        memory_mb=told["real_memory"] - (told.get("specialized_memory") or 0),
        gres=parsing.gres(told.get("gres") or ""),
        features=_listed(told.get("active_features")),
        partitions=_listed(told.get("partitions")),
        states=frozenset(word.upper() for word in states),
        reason=told.get("reason") or "",
        reason_by=told.get("reason_set_by_user") or "",
    )


def _listed(told: Any) -> tuple[str, ...]:
    """Of a list, or of words with commas between them as earlier versions have it."""
    if isinstance(told, str):
        return tuple(word for word in told.split(",") if word)
    return tuple(told or ())


def reservation(told: Answer) -> ReservationRecord:
    """A reservation of GET reservations."""
    return ReservationRecord(
        name=told["name"],
        starts=number(told.get("start_time")) or 0,
        ends=number(told.get("end_time")) or 0,
        nodes=parsing.expand(told.get("node_list") or ""),
        users=_listed(told.get("users")),
        accounts=_listed(told.get("accounts")),
        flags=frozenset(_listed(told.get("flags"))),
    )


def past(told: Answer) -> JobRecord:
    """A run of a job of slurmdb's GET jobs."""
    times = told["time"]
    end = number(times.get("end")) or None
    state = parsing.state(_words(told["state"]["current"])[0])
    if end is not None and state is State.PENDING:
        # A run that was put back in the queue is over for good on record.
        state = State.CANCELLED
    code, killed_by = _status(told.get("exit_code")) if end is not None else (None, None)
    if state is State.FAILED and (code, killed_by) == (0, None):
        # The slurmdbd side of 0.0.38 says 0 of every job.
        code = None
    comment = told.get("comment")
    return JobRecord(
        id=told["job_id"],
        name=told.get("name") or "",
        state=state,
        user=told.get("user") or "",
        account=told.get("account") or "",
        partition=told.get("partition") or "",
        submitted=number(times.get("submission")) or 0,
        started=number(times.get("start")) or None,
        ended=end,
        nodes=parsing.expand(told.get("nodes") or ""),
        cpus=_allocated_cpus(told),
        reason=parsing.text(told["state"].get("reason") or ""),
        exit_code=code,
        signal=killed_by,
        comment=(comment.get("job") if isinstance(comment, Mapping) else comment) or "",
        suspended_s=number(times.get("suspended")) or 0,
    )


def _allocated_cpus(told: Answer) -> int:
    allocated = told.get("tres", {}).get("allocated") or ()
    return next((entry["count"] for entry in allocated if entry["type"] == "cpu" and entry["count"]), 0)
