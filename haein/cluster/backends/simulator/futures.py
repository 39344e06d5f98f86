"""What becomes of an attempt, decided whole when it is launched: from then on it follows from the record and the clock.

Of a command two things are understood, wherever they stand in it: `echo WORDS` is said at the start, and
`simulate 90s util=85 exit=1` sets how long it runs (s, m, h or d), how busy its devices are, in percent, and its exit
code. Whatever is not said is drawn.

A job that checkpoints saves its work every SAVES_EVERY_S and SAVES_IN_S after a signal. Its next attempt goes on from
there: the same run is drawn for it, and what was saved of it is taken off.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from random import Random

from haein.cluster.backends.base import Cause, Launch, Refused, SliceGrant
from haein.placement import mig

# Ours, in the shape that the traces of real clusters have: half of all jobs are over in minutes, while the few long
# ones make up most of the time.
MEDIAN_S, SPREAD = 300.0, 2.0
FAILING = 0.15
FAIL_EXIT_CODE = 1
START_MEDIAN_S, START_SPREAD, LONGEST_START_S = 2.0, 0.5, 10.0
STOPS_IN_S = 1.0
# A node that has failed is only found out after a while, as a real one is: by then the inventory tells of it, or a job
# sent there again and again would be lost as often as it may be.
UNREACHABLE_S = 15.0
# A wish takes a moment to be written; nobody may have seen, meanwhile, what it takes back.
SOONEST_STOP_S = 0.2

# Simulated seconds. That a job saves every ten minutes is ours.
SAVES_EVERY_S, SAVES_IN_S = 600.0, 5.0

CHECKPOINT = "simulated-checkpoint-"
TOLD = re.compile(r"\bsimulate\s+(\d+(?:\.\d+)?)([smhd])\b((?:\s+\w+=[^\s;&|]*)*)")
SAID = re.compile(r"""(?:^|[;&|\n])\s*echo[ \t]+([^;&|\n]*)""")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST = {"util": 100, "exit": 255}


@dataclass(frozen=True, slots=True)
class End:
    at: float
    cause: Cause
    exit_code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Future:
    """Times in seconds since the epoch; `speed` is how many simulated seconds there were in a real one.

    `checkpoint` is the path of the run's checkpoint below the jobs' folders, and is dated a third into the run. CPUs
    and memory are those of all workers together. `slices` has (uuid of the device, whether its utilization can be read,
    MiB of memory) for each slice held; `busy` is their utilization at work, in percent. `saves` says that the job
    checkpoints, `resumed_s` is how much of its work (simulated seconds) earlier attempts had saved, at `resumed_at`.
    """

    started_at: float
    ended_at: float
    cause: str
    exit_code: int | None
    detail: str
    speed: int
    seed: str
    grace_s: int
    checkpoint: str = ""
    says: Sequence[str] = ()
    busy: float = 0.0
    cpus: int = 0
    memory_mb: int = 0
    slices: Sequence[tuple[str, bool, int]] = ()
    saves: bool = False
    resumed_s: float = 0.0
    resumed_at: float | None = None

    @classmethod
    def unpack(cls, data: bytes) -> Future:
        return cls(**json.loads(data))

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def checkpoint_at(self) -> float:
        return self.started_at + (self.ended_at - self.started_at) / 3

    def end(self, wish: float | None) -> End:
        """Its end, if somebody wished at that moment that it stop."""
        if wish is not None:
            at = wish + SOONEST_STOP_S
            if at >= self.started_at:  # it runs, and takes its time to end
                at = max(at, wish + min(self.grace_s, STOPS_IN_S) / self.speed)
            if at < self.ended_at:
                return End(at, Cause.STOPPED, None, "It was asked to end, and did.")
        return End(self.ended_at, Cause[self.cause], self.exit_code, self.detail)

    def saved_at(self, until: float, signals: Iterable[float]) -> float | None:
        """When the job last saved its work, in this attempt until then or in an earlier one; None: never."""
        if not self.saves:
            return None
        every = SAVES_EVERY_S / self.speed
        times = [self.started_at + max(0.0, until - self.started_at) // every * every]
        times += [at for signal in signals if (at := signal + SAVES_IN_S / self.speed) <= until]
        last = max(times)
        return last if last > self.started_at else self.resumed_at

    def saved_s(self, until: float, signals: Iterable[float]) -> float:
        """How much of the job's work is saved, in simulated seconds."""
        at = self.saved_at(until, signals)
        here = (at - self.started_at) * self.speed if at is not None and at > self.started_at else 0.0
        return self.resumed_s + here


def refused(sentence: str, *, now: float) -> Future:
    return Future(now, now, Cause.NOT_STARTED.name, None, sentence, speed=1, seed="", grace_s=0)


def decide(
    launch: Launch,
    *,
    seed: int,
    speed: int,
    device_memory_mb: int,
    now: float,
    failing: str,
    fails_at: float,
    resumed_s: float = 0.0,
    resumed_at: float | None = None,
) -> Future:
    """`failing` is the first of its nodes to fail, and when. Raises Refused for a `simulate` that makes no sense."""
    own = f"{seed}:{launch.attempt_id}"
    random = Random(f"{seed}:{launch.job_id}" if launch.checkpoints else own)
    # Drawn in this order whether it is used or not, so that one word of a command changes nothing else.
    delay = min(random.lognormvariate(math.log(START_MEDIAN_S), START_SPREAD), LONGEST_START_S)
    drawn_s = max(1.0, random.lognormvariate(math.log(MEDIAN_S), SPREAD))
    fails, part = random.random() < FAILING, random.random()
    busy = random.triangular(20, 100, 85)

    told = TOLD.search(launch.command)
    if told:
        duration, words = float(told[1]) * UNITS[told[2]], _words(told[3])
        exit_code, busy = words.get("exit", 0), words.get("util", busy)
    elif fails:
        duration, exit_code = max(1.0, drawn_s * part), FAIL_EXIT_CODE
    else:
        duration, exit_code = drawn_s, 0

    # What was saved last may have been all: then it has only to say so.
    duration = max(1.0, duration - resumed_s) if resumed_s else duration
    started_at = now + delay / speed
    end = End(started_at + duration / speed, Cause.EXITED, exit_code, _explained(exit_code))
    if duration > launch.time_limit_s:
        at = started_at + launch.time_limit_s / speed
        end = End(at, Cause.TIME_LIMIT, None, f"It ran into its time limit of {launch.time_limit_s} s.")
    if fails_at <= now:
        started_at = now + UNREACHABLE_S  # the moment it is given up: it never starts
        end = End(started_at, Cause.LOST, None, f"The node {failing} can't be reached (simulated).")
    elif fails_at < end.at:
        end = End(fails_at, Cause.LOST, None, f"The node {failing} failed (simulated).")
    return Future(
        started_at=started_at,
        ended_at=end.at,
        cause=end.cause.name,
        exit_code=end.exit_code,
        detail=end.detail,
        speed=speed,
        seed=own,
        grace_s=launch.grace_s,
        checkpoint=f"{launch.job_id}/{CHECKPOINT}{launch.attempt_number}.json" if started_at < end.at else "",
        says=[words.strip().strip("'\"") for words in SAID.findall(launch.command)],
        busy=busy,
        cpus=launch.cpus * len(launch.places),
        memory_mb=launch.memory_mb * len(launch.places),
        slices=[_slice(grant, device_memory_mb) for place in launch.places for grant in place.slices],
        saves=launch.checkpoints,
        resumed_s=resumed_s,
        resumed_at=resumed_at,
    )


def _slice(grant: SliceGrant, device_memory_mb: int) -> tuple[str, bool, int]:
    if grant.profile:  # NVML gives no utilization of an instance
        return grant.device_uuid, False, device_memory_mb * grant.memory // mig.UNITS
    return grant.device_uuid, True, grant.memory or device_memory_mb * grant.units // 1000


def _words(text: str) -> dict[str, int]:
    """The `name=value` words behind `simulate 90s`."""
    found = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in MOST or not value.isdecimal() or int(value) > MOST[name]:
            raise Refused(f"simulate can't take {word!r}: it knows util=0 to util=100 and exit=0 to exit=255.")
        found[name] = int(value)
    return found


def _explained(exit_code: int) -> str:
    return f"The simulated command ended with exit code {exit_code}." if exit_code else ""
