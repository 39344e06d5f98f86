"""The backend `slurm`: Slurm runs the work on the nodes that Haein's queue has chosen, and says what became of it.

Two sources together say what an attempt does. Slurm says whether it waits, runs or has ended, where, and from which
second to which: its word counts for room and for money. The process beside the job (agent.py) writes the log, how the
command ended and when it saved its work, into the attempt's folder in the file system that this server and the nodes
share, in the form of the local backend's. What is remembered in a process (what Slurm said a moment ago, where a
running job is) can be asked for again by any other.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar
from uuid import UUID

from haein.cluster.backends.base import (
    Backend,
    BackendDown,
    Capability,
    Cause,
    Drain,
    Environment,
    FileFact,
    Isolation,
    Launch,
    LogChunk,
    NodeFact,
    Outside,
    Phase,
    Place,
    Reading,
    Refused,
    Sight,
)
from haein.cluster.backends.local import devices as local_devices
from haein.cluster.backends.local import job_files, log_reading, orders, preparing, records
from haein.cluster.backends.local.backend import READING_AGE_S, ended_sight, environment_fact, saved_at
from haein.cluster.backends.locking import alone
from haein.cluster.backends.slurm import devices, endings, names, script
from haein.cluster.backends.slurm.gateway import Gateway, SlurmDown, SlurmRefused
from haein.cluster.backends.slurm.records import HOLDING, WAITING, Held, JobRecord, State
from haein.cluster.backends.slurm.script import Terms

Answer = TypeVar("Answer")

SUBMITTED, FINAL, ABILITIES = "submitted", "final", "abilities"
CLUSTER_AGE_S = 10.0
LIST_AGE_S = 2.0
# So long after a submission slurmctld may not list the job yet, or may have lost it with its last state file.
SETTLED_S = 15.0
# So long a file of a node may take to be seen here (NFS keeps attributes for up to a minute).
FILES_S = 60.0
# For slurmdbd to hear of a job that slurmctld has dropped already.
ACCOUNTING_S = 120.0
UPLOAD_CAP = 20_000 << 20
# Of what Slurm will not do, what is the site's to mend and no fault of the job (slurm_errno.h).
SITES_FAULT = frozenset(
    {2000, 2001, 2002, 2003, 2007, 2010, 2044, 2045, 2046, 2052, 2053, 2056, 2066, 2070, 2101, 2105, 2113, 9001}
)


def nobodys_account(_organization_id: UUID | None, _team_id: UUID) -> str:
    """Where all is submitted under the site's one account."""
    return ""


@dataclass(frozen=True, slots=True)
class Site:
    """What an operator says of the site. `folder` is seen under the same path here and on every node. Jobs run as
    `user` ("" for this process's own), or as `users` say by organization. `account_of` names the Slurm account of an
    organization's team ("" for the site's default). A job that Slurm has not started within `patience_s` is taken
    back. `emulated` says that its GPUs are no real ones."""

    folder: Path
    user: str = ""
    users: Mapping[UUID, str] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    account_of: Callable[[UUID | None, UUID], str] = nobodys_account
    patience_s: int = 60
    emulated: bool = False
    log_cap_mb: int = 128
    service_gid: int | None = None


# What must be readable in a record for it to count: all of them lie in a folder where the job's own user may write.
_FIELDS: Mapping[str, Mapping[str, Callable[[str], object]]] = {
    records.START: {"started_at": float, "cpus": int, "devices": str},
    records.EXIT: {"ended_at": float, "cause": Cause.__getitem__, "detail": str, "exit_code": str, "signal": str},
    records.STOP: {"at": float, "why": str, "detail": str},
    records.USAGE: {"at": float, "cores": float, "memory_mb": float, "processes": int},
    records.ORDER: {"grace_s": int, "workers": int, "workers_by_node": int, "checkpoint": str},
    SUBMITTED: {"at": float, "slurm_job": int},
}


def _read(folder: str, name: str) -> dict[str, str] | None:
    """The record, if there is one that says what it must."""
    found = records.read(folder, name)
    try:
        for field_name, kind in _FIELDS[name].items():
            kind((found or {})[field_name])
    except (KeyError, ValueError):
        return None
    return found


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The nodes as they were a moment ago: facts, and by name their devices and partitions."""

    facts: tuple[NodeFact, ...]
    rigs: Mapping[str, devices.Rig]
    pools: Mapping[str, str]
    capabilities: frozenset[Capability]
    share_step: int
    at: float


class SlurmBackend(Backend):
    """Drives the Slurm behind `gateway`, as the `site` has it."""

    name = "slurm"
    queues = True
    launches_at_once = 8

    def __init__(self, gateway: Gateway, site: Site) -> None:
        self._gateway = gateway
        self._site = site
        self._layout = preparing.Layout(site.folder.resolve())
        self._attempts = str(self._layout.attempts)
        self._self = getpass.getuser()
        self._users = frozenset({site.user or self._self, *site.users.values()})
        self._cluster: _Cluster | None = None
        self._accounts: dict[str, pwd.struct_passwd] = {}
        self._last_list: tuple[float, Mapping[str, list[JobRecord]]] = (0.0, {})
        self._places: dict[UUID, tuple[Place, ...]] = {}
        self._outside: dict[tuple[int, int], tuple[Held, ...]] = {}

    # What there is

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._abilities()[0]

    @property
    def share_step(self) -> int:
        return self._abilities()[1]

    def _abilities(self) -> tuple[frozenset[Capability], int]:
        """As the last look has put them down, whoever's it was: pages ask, and they wait for no Slurm, up or down."""
        told = records.read(str(self._layout.var), ABILITIES)
        if told is None:
            seen = self._seen()
            return seen.capabilities, seen.share_step
        return frozenset(Capability[name] for name in told["capabilities"].split()), int(told["share_step"])

    def environments(self) -> Sequence[Environment]:
        return [
            environment_fact(self._layout.environments / name) for name in preparing.environment_names(self._layout)
        ]

    def inventory(self) -> Sequence[NodeFact]:
        return self._look().facts

    def _seen(self) -> _Cluster:
        """The cluster as it was a few seconds ago, and while Slurm is down as it was last."""
        known = self._cluster
        if known is not None and time.monotonic() - known.at < CLUSTER_AGE_S:
            return known
        try:
            return self._look()
        except BackendDown:
            if known is None:
                raise
            return known

    def _look(self) -> _Cluster:
        nodes, reservations = _asked(self._gateway.nodes), _asked(self._gateway.reservations)
        reserved = devices.reserved_nodes(reservations, now=time.time(), ours=self._site.terms.reservation)
        wanted = self._site.terms.partitions
        facts, rigs, pools = [], {}, {}
        for node in nodes:
            pool = next((name for name in wanted or node.partitions if name in node.partitions), "")
            if wanted and not pool:
                continue
            fact = devices.node_fact(
                node, pool=pool, emulated=self._site.emulated, reserved=reserved.get(node.name, "")
            )
            facts.append(fact)
            rigs[node.name], pools[node.name] = devices.rig_of(node, emulated=self._site.emulated), pool
        able, step = _abilities(list(rigs.values()))
        self._cluster = _Cluster(tuple(facts), rigs, pools, able, step, time.monotonic())
        self._put_down(able, step)
        return self._cluster

    def _put_down(self, able: frozenset[Capability], step: int) -> None:
        told = {"capabilities": " ".join(sorted(each.name for each in able)), "share_step": str(step)}
        folder = str(self._layout.var)
        if records.read(folder, ABILITIES) != told:
            with suppress(OSError):  # who serves pages may not write there, and need not
                records.replace(folder, ABILITIES, list(told.items()), durable=False, mode=0o644)

    def isolation(self) -> Isolation:
        if len(set(self._site.users.values())) < len(self._site.users):
            return Isolation(
                False, "Organizations share a user on Slurm's nodes: HAEIN_SLURM_USERS must give each its own."
            )
        if self._site.users:
            return Isolation(True, "Each organization's jobs run as a user of its own on Slurm's nodes.")
        user = self._site.user or self._self
        return Isolation(
            False,
            f"All jobs run as the user {user} on Slurm's nodes, and Landlock alone can't keep two organizations apart. "
            "For more than one, give each a user of its own: HAEIN_SLURM_USERS.",
        )

    # Launching

    def launch(self, launch: Launch) -> None:
        try:
            folder = self._make_folder(launch)
            with alone(folder):
                self._launch(launch, folder)
        except OSError as error:
            raise BackendDown(f"The attempt could not be prepared in the shared folder: {error}.") from error

    def _launch(self, launch: Launch, folder: Path) -> None:
        here = str(folder)
        if _final(here) or any(records.exists(here, name) for name in (records.START, records.EXIT, records.STOP)):
            return
        # An order that is there was submitted, or was about to be: the answer may have been lost on its way.
        if records.exists(here, records.ORDER) and self._is_known(launch.attempt_id, here):
            return
        try:
            self._submit(launch, here)
        except script.Uneven:
            sentence = "Its workers would share nodes unevenly there, which Slurm can't be asked for."
            _never_began(here, launch, Cause.NOT_TAKEN, sentence)
        except (Refused, SlurmRefused) as refusal:
            if isinstance(refusal, SlurmRefused) and refusal.number in SITES_FAULT:
                raise BackendDown(f"Slurm will not take jobs from Haein: {refusal}") from refusal
            said = str(refusal) if isinstance(refusal, Refused) else f"Slurm refused the job: {refusal}"
            _never_began(here, launch, Cause.NOT_STARTED, said)
            raise Refused(said) from refusal

    def _submit(self, launch: Launch, folder: str) -> None:
        cluster, layout = self._seen(), self._layout
        environment = preparing.environment_folder(layout, launch.environment)
        user = self._user_of(launch)
        owner = self._owner(user)
        rigs = {place.node: cluster.rigs[place.node] for place in launch.places if place.node in cluster.rigs}
        submission = script.submission(
            launch,
            layout,
            rigs,
            cluster.pools,
            self._site.terms,
            account=self._site.account_of(launch.organization_id, launch.team_id),
            user="" if user == self._self else user,
        )
        order, more = script.order(
            launch,
            layout,
            rigs,
            environment=environment,
            log_cap=self._site.log_cap_mb << 20,
            must_confine=user == self._self,
        )
        preparing.make_job_folders(launch, layout, owner, UPLOAD_CAP)
        # Holds the user's variables, which may be secrets: the job's own user reads it, and nobody else.
        records.replace(folder, records.ORDER, [*orders.to_pairs(order), *more], durable=False, mode=0o600)
        if owner.uid:
            os.chown(f"{folder}/{records.ORDER}", owner.uid, owner.gid, follow_symlinks=False)
        number = _asked(lambda: self._gateway.submit(submission))
        pairs = [("slurm_job", str(number)), ("at", f"{time.time():.6f}")]
        records.replace(folder, SUBMITTED, pairs, durable=False)

    def _is_known(self, attempt: UUID, folder: str) -> bool:
        """Whether Slurm has, or had, a job of the attempt."""
        # A hundred launches that are tried again ask once: a list that is younger than the order has it, or never will.
        at, listed = self._last_list
        if at < _age_of(folder) + 1 or time.time() - at > LIST_AGE_S:
            listed = self._listed()
        if names.job_name(attempt) in listed:
            return True
        submitted = _read(folder, SUBMITTED)
        if submitted is not None and time.time() - float(submitted["at"]) < SETTLED_S:
            return True
        return bool(self._history({attempt: _age_of(folder)}).get(attempt))

    def _user_of(self, launch: Launch) -> str:
        if not self._site.users:
            return self._site.user or self._self
        user = self._site.users.get(launch.organization_id) if launch.organization_id else None
        if user is None:
            raise BackendDown(
                "The organization has no user on Slurm's nodes yet: an operator adds it to HAEIN_SLURM_USERS."
            )
        return user

    def _owner(self, user: str) -> preparing.Owner:
        if user == self._self:
            return preparing.Owner()
        if os.geteuid() != 0:
            raise BackendDown(f"Haein must run as root to lay out files for jobs that run as {user}.")
        known = self._accounts.get(user)
        if known is None:
            try:
                known = self._accounts[user] = pwd.getpwnam(user)
            except KeyError:
                raise BackendDown(f"There is no user {user} on this machine, as whom Slurm is to run jobs.") from None
        gid = known.pw_gid if self._site.service_gid is None else self._site.service_gid
        return preparing.Owner(known.pw_uid, known.pw_gid, gid)

    def _make_folder(self, launch: Launch) -> Path:
        """The attempt's folder, which the process on the node writes into, as the job's user."""
        folder = self._layout.attempt(launch.attempt_id)
        if folder.exists():
            return folder
        owner = self._owner(self._user_of(launch))
        preparing.make_parent(folder)
        if owner.uid:
            preparing.make(folder, 0o2750, uid=owner.uid, gid=owner.service_gid)
        else:
            preparing.make(folder, 0o750)
        return folder

    # Observing

    def observe(self, attempts: Collection[UUID]) -> Mapping[UUID, Sight]:
        listed = self._listed()
        sights: dict[UUID, Sight] = {}
        unlisted: list[UUID] = []
        waiting: list[tuple[UUID, JobRecord]] = []
        holding: dict[UUID, JobRecord] = {}
        for attempt in attempts:
            found = listed.get(names.job_name(attempt))
            if not found:
                unlisted.append(attempt)
                continue
            folder = self._folder(attempt)
            record = _best(found, folder)
            if record.state in WAITING:
                waiting.append((attempt, record))
                sights[attempt] = Sight(attempt, Phase.UNKNOWN, detail=endings.waits_for(record))
            elif record.state in HOLDING:
                holding[attempt] = record
            elif os.path.exists(folder):
                sights[attempt] = self._ended(attempt, folder, record)
            else:  # forgotten here, and not yet by slurmctld
                sights[attempt] = Sight(attempt, Phase.UNKNOWN)
        self._learn_places(holding)
        for attempt, record in holding.items():
            sights[attempt] = self._running(attempt, self._folder(attempt), record)
        self._take_back(waiting)
        sights.update(self._see_unlisted(unlisted))
        return sights

    def _listed(self) -> Mapping[str, list[JobRecord]]:
        """Every job of slurmctld's by its name. Anybody may give his job the name of one of ours, and not its user."""
        begun = time.time()
        found: dict[str, list[JobRecord]] = {}
        for record in _asked(self._gateway.jobs):
            if record.user in self._users:
                found.setdefault(record.name, []).append(record)
        self._last_list = begun, found
        return found

    def _running(self, attempt: UUID, folder: str, record: JobRecord) -> Sight:
        if record.started is None or record.state is State.CONFIGURING:
            return Sight(attempt, Phase.UNKNOWN, detail="Slurm prepares its nodes.")
        return Sight(
            attempt,
            Phase.RUNNING,
            started_at=float(record.started),
            log_bytes=log_reading.end_of(Path(folder, records.LOG)),
            checkpointed_at=self._checkpointed_at(folder),
            places=self._places.get(attempt, ()),
        )

    def _ended(self, attempt: UUID, folder: str, record: JobRecord) -> Sight:
        """The end by Slurm's record, put down so that it stays the same when Slurm has forgotten the job."""
        if final := _final(folder):
            return self._as_written(attempt, folder, final)
        start, end = _read(folder, records.START), _read(folder, records.EXIT)
        ended_at = record.ended or 0
        if end is None and record.state in {State.COMPLETED, State.FAILED} and time.time() - ended_at < FILES_S:
            is_shared_late = start is not None or record.state is State.COMPLETED
            if is_shared_late and not _is_quiet(folder):
                return self._running(attempt, folder, record)
        if end is None and record.state is State.NODE_FAIL and time.time() - ended_at < FILES_S and _is_tended(folder):
            # Its slurmd is lost and it is not: nobody else runs it before it has ended.
            _wish(folder, endings.STOP_ASKED, "Slurm has given up the node that it runs on.")
            return self._running(attempt, folder, record)
        if end is not None and endings.was_started_anew(record, float(end["ended_at"])):
            # slurmctld had forgotten that it ran; its own process says from when to when.
            record = _by_its_own_records(attempt, start, float(end["ended_at"]))
        wish = _read(folder, records.STOP)
        sight = endings.of(attempt, record, start, end, wish, _last_line(folder))
        _write_final(folder, sight)
        self._places.pop(attempt, None)
        return self._as_written(attempt, folder, _final(folder) or {})

    def _as_written(self, attempt: UUID, folder: str, final: Mapping[str, str]) -> Sight:
        log_bytes = log_reading.end_of(Path(folder, records.LOG))
        return ended_sight(attempt, final, log_bytes, self._checkpointed_at(folder))

    def _see_unlisted(self, attempts: Sequence[UUID]) -> Mapping[UUID, Sight]:
        """Those of whom slurmctld has no job: never submitted, lost by it, or ended and dropped by it."""
        sights: dict[UUID, Sight] = {}
        asked: dict[UUID, float] = {}
        for attempt in attempts:
            folder = self._folder(attempt)
            final = _final(folder)
            if final is not None:
                sights[attempt] = self._as_written(attempt, folder, final)
            elif records.exists(folder, records.ORDER):
                asked[attempt] = _age_of(folder)
            elif records.exists(folder, records.STOP):
                sights[attempt] = self._unbegun(attempt, folder)  # nobody will submit it now
            else:
                sights[attempt] = Sight(attempt, Phase.UNKNOWN)
        history = self._history(asked) if asked else {}
        for attempt in asked:
            sights[attempt] = self._see_dropped(attempt, history.get(attempt))
        return sights

    def _see_dropped(self, attempt: UUID, told: Sequence[JobRecord] | None) -> Sight:
        """One that was submitted and that slurmctld does not know. `told` is what accounting says; None while it can't
        be asked."""
        folder = self._folder(attempt)
        start, end = _read(folder, records.START), _read(folder, records.EXIT)
        over = [record for record in told or () if record.state not in WAITING | HOLDING]
        if over:
            return self._ended(attempt, folder, _best(over, folder))
        if start is None and end is None:
            if records.exists(folder, records.STOP) and time.time() - _age_of(folder) > SETTLED_S:
                return self._unbegun(attempt, folder)
            # Lost with slurmctld's last state file, or not accepted: another submission runs it once, by the claim.
            return Sight(attempt, Phase.UNKNOWN)
        last = float((end or {}).get("ended_at") or _last_seen(folder, start or {}))
        if told is None or time.time() - last < ACCOUNTING_S:
            return self._still(attempt, folder, start)
        if end is not None:
            record = _by_its_own_records(attempt, start, last)
            return self._ended(attempt, folder, record)
        # Whatever is left of it ends at the next look at its folder; a second run may begin only then.
        _wish(folder, endings.STOP_ASKED, "Slurm has lost the job.")
        lost = Sight(
            attempt,
            Phase.ENDED,
            started_at=float(start["started_at"]) if start else None,
            ended_at=last,
            cause=Cause.LOST,
            detail="Slurm has lost the job and knows nothing of it.",
        )
        _write_final(folder, lost)
        return lost

    def _unbegun(self, attempt: UUID, folder: str) -> Sight:
        """One that was called back and that no Slurm job will begin any more."""
        cause, detail = endings.unbegun(_read(folder, records.STOP) or {"why": endings.STOP_ASKED})
        _write_final(folder, Sight(attempt, Phase.ENDED, ended_at=time.time(), cause=cause, detail=detail))
        return self._as_written(attempt, folder, _final(folder) or {})

    def _still(self, attempt: UUID, folder: str, start: Mapping[str, str] | None) -> Sight:
        """It runs, or has run, as far as its own process says; Slurm is asked again."""
        if start is None:
            return Sight(attempt, Phase.UNKNOWN)
        return Sight(
            attempt,
            Phase.RUNNING,
            started_at=float(int(float(start["started_at"]))),
            log_bytes=log_reading.end_of(Path(folder, records.LOG)),
            checkpointed_at=self._checkpointed_at(folder),
        )

    def _history(self, since: Mapping[UUID, float]) -> Mapping[UUID, Sequence[JobRecord] | None]:
        """By attempt what accounting has on record; None for each while it is down, nothing where it keeps none."""
        if not since:
            return {}
        wanted = [names.job_name(attempt) for attempt in since]
        try:
            told = self._gateway.history(wanted, int(min(since.values())) - 60)
        except SlurmDown:
            return dict.fromkeys(since)
        found: dict[UUID, list[JobRecord]] = {attempt: [] for attempt in since}
        for record in told or ():
            attempt = names.attempt_of(record.name)
            if attempt in found and record.user in self._users:
                found[attempt].append(record)
        return found

    def _take_back(self, waiting: Sequence[tuple[UUID, JobRecord]]) -> None:
        """Those that Slurm does not start: hopeless ones at once, the others when patience is at its end."""
        now = time.time()
        back = []
        for attempt, record in waiting:
            hopeless = endings.is_hopeless(record)
            if hopeless or now - record.submitted >= self._site.patience_s:
                folder = self._folder(attempt)
                if not records.exists(folder, records.STOP):
                    why = endings.HOPELESS if hopeless else endings.TAKEN_BACK
                    _wish(folder, why, endings.waits_for(record))
                back.append(record.id)
        if back:
            with suppress(SlurmRefused):
                _asked(lambda: self._gateway.cancel(back))

    def _learn_places(self, holding: Mapping[UUID, JobRecord]) -> None:
        """Where those run that were not seen running before."""
        new = {record.id: attempt for attempt, record in holding.items() if attempt not in self._places}
        if not new:
            return
        rigs = self._seen().rigs
        for number, held in _asked(lambda: self._gateway.held(list(new))).items():
            attempt = new.get(number)
            if attempt is not None:
                self._places[attempt] = self._places_of(self._folder(attempt), held, rigs)

    def _places_of(self, folder: str, held: Sequence[Held], rigs: Mapping[str, devices.Rig]) -> tuple[Place, ...]:
        """By rank; () where Slurm does not say."""
        order = _read(folder, records.ORDER) or {}
        sharing = int(order.get("workers_by_node", "1"))
        found: list[Place] = []
        for each in held:
            place = devices.place_of(each, rigs[each.node]) if each.node in rigs else None
            if place is None:
                return ()
            found += devices.shared_out(place, sharing)
        return tuple(found) if len(found) == int(order.get("workers", "1")) else ()

    def _checkpointed_at(self, folder: str) -> float | None:
        return saved_at((_read(folder, records.ORDER) or {}).get("checkpoint", ""))

    def outside(self) -> Sequence[Outside]:
        theirs = {
            (record.id, record.submitted): record
            for record in _asked(self._gateway.jobs)
            if record.state in HOLDING and record.started is not None and not self._is_ours(record)
        }
        new = [number for number, submitted in theirs if (number, submitted) not in self._outside]
        if new:
            for number, held in _asked(lambda: self._gateway.held(new)).items():
                key = next((key for key in theirs if key[0] == number), None)
                if key is not None:
                    self._outside[key] = tuple(held)
        self._outside = {key: held for key, held in self._outside.items() if key in theirs}
        rigs = self._seen().rigs
        return [
            self._outside_of(theirs[key], each, rigs[each.node])
            for key, held in self._outside.items()
            for each in held
            if each.node in rigs
        ]

    def _is_ours(self, record: JobRecord) -> bool:
        attempt = names.attempt_of(record.name)
        return attempt is not None and record.user in self._users and self._layout.attempt(attempt).exists()

    def _outside_of(self, record: JobRecord, held: Held, rig: devices.Rig) -> Outside:
        place = devices.place_of(held, rig)
        return Outside(
            name=f"Slurm job {record.id}",
            owner=record.user,
            node=held.node,
            cpus=held.cpus * 1000,
            memory_mb=held.memory_mb,
            slices=place.slices if place else (),
            since=float(record.started or record.submitted),
        )

    # Ending

    def stop(self, attempts: Collection[UUID]) -> None:
        known = [attempt for attempt in attempts if self._is_open(attempt)]
        for attempt in known:
            folder = self._folder(attempt)
            if not records.exists(folder, records.STOP):
                _wish(folder, endings.STOP_ASKED, "")
        if not known:
            return
        listed = self._listed()
        now = time.time()
        # Who runs finds the wish within a second, and ends as softly as the job was promised. Who waits, and who has
        # not ended long after his grace, is ended by Slurm.
        ending = [
            record.id
            for attempt in known
            for record in listed.get(names.job_name(attempt), ())
            if record.state in WAITING or (record.state in HOLDING and self._is_overdue(attempt, now))
        ]
        if ending:
            with suppress(SlurmRefused):
                _asked(lambda: self._gateway.cancel(ending))

    def _is_open(self, attempt: UUID) -> bool:
        folder = self._folder(attempt)
        if not os.path.exists(folder):
            return False
        return _final(folder) is None and not records.exists(folder, records.EXIT)

    def _is_overdue(self, attempt: UUID, now: float) -> bool:
        folder = self._folder(attempt)
        wish, order = _read(folder, records.STOP), _read(folder, records.ORDER)
        if wish is None or order is None:
            return False
        return now - float(wish["at"]) > int(order["grace_s"]) + FILES_S

    def signal_checkpoint(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            folder = self._folder(attempt)
            if records.exists(folder, records.START) and not records.exists(folder, records.EXIT):
                try:  # found on the node within a second
                    records.replace(folder, records.SAVE, [("at", f"{time.time():.6f}")], durable=False)
                except OSError as error:
                    raise BackendDown(f"The wish to save could not be written: {error}.") from error

    def drain(self, node: str, reason: str) -> None:
        if self._drain_of(node) is Drain.THEIRS:
            return
        try:
            _asked(lambda: self._gateway.set_drained(node, f"{names.DRAIN_MARK}{reason}"))
        except SlurmRefused as refusal:
            raise BackendDown(f"Slurm does not let Haein drain {node}: {refusal}") from refusal

    def resume(self, node: str) -> None:
        if self._drain_of(node) is not Drain.OURS:
            return
        try:
            _asked(lambda: self._gateway.set_resumed(node))
        except SlurmRefused as refusal:
            raise BackendDown(f"Slurm does not let Haein take {node} back: {refusal}") from refusal

    def _drain_of(self, node: str) -> Drain | None:
        found = next((each for each in _asked(self._gateway.nodes) if each.name == node), None)
        return devices.drain_of(found) if found else None

    # Reading

    def read_log(self, attempt: UUID, offset: int, limit: int) -> LogChunk:
        return log_reading.read(self._layout.attempt(attempt) / records.LOG, offset, limit)

    def readings(self, attempts: Collection[UUID]) -> Sequence[Reading]:
        found = (self._reading(attempt) for attempt in attempts)
        return [reading for reading in found if reading is not None]

    def _reading(self, attempt: UUID) -> Reading | None:
        folder = self._folder(attempt)
        usage, start = _read(folder, records.USAGE), _read(folder, records.START)
        if usage is None or start is None or records.exists(folder, records.EXIT):
            return None
        at = float(usage["at"])
        if time.time() - at > READING_AGE_S:
            return None
        held = start["devices"].split()
        order = _read(folder, records.ORDER) or {}
        if int(order.get("workers", "1")) > 1:
            # The other nodes measure nothing, and this one only what passes their output on.
            return Reading(attempt, at, None, None, 0, tuple((device, None, None) for device in self._held_by(attempt)))
        cpu, memory = float(usage["cores"]), float(usage["memory_mb"])
        rows: Sequence[local_devices.Row] = [(device, None, None) for device in held]
        if self._site.emulated and held:
            rows = local_devices.emulated_rows(held, cpu, int(start["cpus"]) / 1000, memory)
        return Reading(attempt, at, cpu, memory, int(usage["processes"]), tuple(rows))

    def _held_by(self, attempt: UUID) -> list[str]:
        return [grant.device_uuid for place in self._places.get(attempt, ()) for grant in place.slices]

    def list_files(self, job: UUID, folder: PurePosixPath) -> Sequence[FileFact]:
        return job_files.list_folder(self._layout.work(job), folder)

    def open_file(self, job: UUID, path: PurePosixPath) -> tuple[BinaryIO, FileFact]:
        return job_files.open_regular(self._layout.work(job), path)

    def forget(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            folder = self._folder(attempt)
            if _final(folder) is not None:
                shutil.rmtree(self._layout.scratch(attempt), ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, attempt: UUID) -> str:
        return f"{self._attempts}/{attempt}"  # thousands a second: a Path would take five times as long


def _abilities(rigs: Sequence[devices.Rig]) -> tuple[frozenset[Capability], int]:
    """What jobs may ask for, and the thousandths that a share of a device is a multiple of."""
    found = {Capability.PYTHON_ENVIRONMENTS, Capability.GANGS}
    if any(device.layout for rig in rigs for device in rig.devices):
        found.add(Capability.MIG)
    shards = devices.least_shards(rigs)
    if shards:
        found.add(Capability.FRACTIONS)
    return frozenset(found), devices.WHOLE // shards if shards else devices.WHOLE


def _asked(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except SlurmDown as error:
        raise BackendDown(str(error)) from error


def _best(found: Sequence[JobRecord], folder: str) -> JobRecord:
    """Of several Slurm jobs with one attempt the one that has claimed it, else the one that is furthest on."""
    if len(found) == 1:
        return found[0]
    claim = records.read(folder, "claim") or {}
    claimed = [record for record in found if str(record.id) == claim.get("slurm_job")]
    return max(
        claimed or found, key=lambda record: (record.state in HOLDING, record.state in WAITING, record.submitted)
    )


def _how_far(record: JobRecord) -> tuple[bool, bool, int]:
    return record.state in HOLDING, record.state in WAITING, record.submitted


def _by_its_own_records(attempt: UUID, start: Mapping[str, str] | None, ended_at: float) -> JobRecord:
    """Where no accounting tells of it: by the clock of the node, in Slurm's grain."""
    began = int(float(start["started_at"])) if start else None
    return JobRecord(
        id=int((start or {}).get("slurm_job") or 0),
        name=names.job_name(attempt),
        state=State.COMPLETED,
        user="",
        account="",
        partition="",
        submitted=began or int(ended_at),
        started=began,
        ended=max(int(ended_at), began or 0),
        nodes=(),
        cpus=0,
    )


def _never_began(folder: str, launch: Launch, cause: Cause, detail: str) -> None:
    _write_final(folder, Sight(launch.attempt_id, Phase.ENDED, ended_at=time.time(), cause=cause, detail=detail))


def _wish(folder: str, why: str, detail: str) -> None:
    try:
        pairs = [("at", f"{time.time():.6f}"), ("why", why), ("detail", detail)]
        records.replace(folder, records.STOP, pairs, durable=False)
    except OSError as error:
        raise BackendDown(f"The wish to stop could not be written: {error}.") from error


def _write_final(folder: str, sight: Sight) -> None:
    pairs = [
        ("started_at", "" if sight.started_at is None else f"{sight.started_at:.6f}"),
        ("ended_at", f"{sight.ended_at:.6f}"),
        ("cause", sight.cause.name if sight.cause else ""),
        ("exit_code", "" if sight.exit_code is None else str(sight.exit_code)),
        ("signal", "" if sight.signal is None else str(sight.signal)),
        ("detail", sight.detail),
    ]
    if _final(folder) is None:
        with suppress(FileNotFoundError):
            os.unlink(f"{folder}/{FINAL}")  # somebody else's: the job's own user may write there
        records.claim(folder, FINAL, records.write_aside(folder, FINAL, pairs, durable=True))


def _final(folder: str) -> dict[str, str] | None:
    """The end as we have put it down, if we have."""
    try:
        is_ours = os.lstat(f"{folder}/{FINAL}").st_uid == os.geteuid()
    except FileNotFoundError:
        return None
    return records.read(folder, FINAL) if is_ours else None


def _age_of(folder: str) -> float:
    """When it was submitted, or was about to be, in seconds since the epoch."""
    try:
        return os.stat(f"{folder}/{records.ORDER}").st_mtime
    except FileNotFoundError:
        return time.time()


def _is_tended(folder: str) -> bool:
    """Whether its own process is seen to be there."""
    return records.exists(folder, records.LOCK) and records.is_held(folder)


def _is_quiet(folder: str) -> bool:
    """Whether its own process can't write any more: seen where file locks reach over the network, as here."""
    return records.exists(folder, records.LOCK) and not records.is_held(folder)


def _last_seen(folder: str, start: Mapping[str, str]) -> float:
    usage = _read(folder, records.USAGE) or {}
    return max(float(start.get("started_at") or 0), float(usage.get("at", 0)))


def _last_line(folder: str) -> str:
    """What Slurm's script printed last; no link is followed, as everywhere in that folder."""
    try:
        fd = os.open(f"{folder}/slurm.out", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb", buffering=0) as file:
        lines = file.read(4096).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
