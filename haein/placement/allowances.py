"""Who may go: what every account holds and may hold, whose guarantee a job is inside, and what is lent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from haein.placement import mig
from haein.placement.model import WHOLE, DeviceState, Snapshot
from haein.placement.queueing import Account, Running, Waiting

# How strong a hold is. Whoever is inside a guarantee is above whoever borrows; inside a guarantee of the pool he sits
# in he is above those who are there by a guarantee that would be as good elsewhere.
BORROWED, INSIDE, INSIDE_POOL = 0, 1, 2
NOTHING = Account(id=None)
_EXACT = WHOLE * mig.COMPUTE_SLICES


@dataclass(slots=True)
class _Held:
    """What an account holds: units and jobs, units inside its guarantee, units that can't be reclaimed, unit-seconds
    that what runs may still add to this month's."""

    units: int = 0
    jobs: int = 0
    inside: int = 0
    firm: int = 0
    reserved: int = 0


class Allowances:
    """The accounts during one pass."""

    def __init__(
        self, accounts: Mapping[Hashable, Account], running: Sequence[Running], snapshot: Snapshot, now: float
    ) -> None:
        self._accounts = accounts
        self._held: dict[Hashable, _Held] = {}
        # By the tuple of accounts as an object: a queue of thousands has few, and hashing them takes most of the time.
        self._booked: dict[int, tuple[tuple[Account, _Held], ...]] = {}
        self._now = now
        self._capacity = _capacity(snapshot, running)
        self._free = _free(snapshot)
        self._pool_of = {node.id: node.pool for node in snapshot.nodes}
        for each in running:
            self._count(each.accounts, each.units, each.began, each.ends, each.guaranteed)
            if each.fixed and not each.guaranteed:
                self._of(each.accounts[0]).firm += each.units
        self.promoted = self._promote(running)
        self._kept = Counter[str]()
        for account in accounts.values():
            if account.guaranteed and not account.lends:
                self._kept[account.pool] += max(0, account.guaranteed - self._of(account.id).inside)

    def tier(self, job: Waiting) -> int:
        """How strong its hold would be if it started now."""
        account, held = self._books(job.accounts)[0]
        if job.spot or not account.guaranteed or held.inside + job.units > account.guaranteed:
            return BORROWED
        return INSIDE_POOL if account.pool else INSIDE

    def refusal(self, job: Waiting, tier: int) -> str:
        """Why its accounts forbid it to start now, as a code; "" if they do not."""
        for account, held in self._books(job.accounts):
            if account.most is not None and held.units + job.units > account.most:
                return "over_most"
            if account.most_jobs is not None and held.jobs >= account.most_jobs:
                return "over_jobs"
            ends = self._now + job.limit_s
            if (
                account.left is not None
                and held.reserved + _reserve(job.units, self._now, ends, account) > account.left
            ):
                return "over_hours"
        return self._refusal_of_borrower(job) if tier == BORROWED else ""

    def _books(self, accounts: tuple[Hashable, ...]) -> tuple[tuple[Account, _Held], ...]:
        known = self._booked.get(id(accounts))
        if known is None:
            known = tuple((self._accounts.get(name, NOTHING), self._of(name)) for name in accounts)
            self._booked[id(accounts)] = known
        return known

    def start(self, job: Waiting, tier: int, nodes: Iterable[tuple[Hashable, int]]) -> None:
        """It starts; `nodes` are where, with the units held there."""
        self._count(job.accounts, job.units, self._now, self._now + job.limit_s, tier != BORROWED)
        if job.never and tier == BORROWED:
            self._of(job.accounts[0]).firm += job.units
        account = self._accounts.get(job.accounts[0], NOTHING)
        if tier != BORROWED and not account.lends:
            self._kept[account.pool] -= job.units
        for node_id, units in nodes:
            self._free[self._pool_of[node_id]] -= units

    def pend(self, job: Waiting) -> None:
        """It waits for room that nobody can reclaim, and whoever comes after it may not take that first."""
        self._of(job.accounts[0]).firm += job.units

    def guarded(self) -> set[str]:
        """The pools in which something is guaranteed by name."""
        return {account.pool for account in self._accounts.values() if account.pool and account.guaranteed}

    def _refusal_of_borrower(self, job: Waiting) -> str:
        pool = self._books(job.accounts)[0][0].pool
        if self._kept and job.units:
            free = sum(self._free.values())
            if free - sum(self._kept.values()) < job.units <= free:
                return "not_lent"
        if pool and self._free[pool] - self._kept[pool] < job.units <= self._free[pool] and job.units:
            return "not_lent"
        if job.never and not self._unpromised(job, pool, self._firm):
            return "promised"
        return ""

    def in_time(self, job: Waiting) -> bool:
        """Whether what nobody is promised would be enough for it, were nothing firm there."""
        return self._unpromised(job, self._accounts.get(job.accounts[0], NOTHING).pool, lambda _: 0)

    def _unpromised(self, job: Waiting, pool: str, held: Callable[[Hashable], int]) -> bool:
        """Whether nobody can reclaim the room that the job takes: all guarantees and all that is firm, and it, fit."""
        for where in {"", pool}:
            firm = 0
            for account in self._accounts.values():
                if where in ("", account.pool):
                    firm += max(account.guaranteed, held(account.id))
            if where in ("", pool):
                mine = self._accounts.get(job.accounts[0], NOTHING)
                before = held(job.accounts[0])
                firm += max(mine.guaranteed, before + job.units) - max(mine.guaranteed, before if mine.id else 0)
            if firm > self._capacity[where]:
                return False
        return True

    def _firm(self, name: Hashable) -> int:
        held = self._of(name)
        return held.inside + held.firm

    def _count(self, accounts: Sequence[Hashable], units: int, began: float, ends: float, inside: bool) -> None:
        for name in accounts:
            held = self._of(name)
            held.units += units
            held.jobs += 1
            held.reserved += _reserve(units, began, ends, self._accounts.get(name, NOTHING))
        if inside:
            self._of(accounts[0]).inside += units

    def _of(self, name: Hashable) -> _Held:
        if name not in self._held:
            self._held[name] = _Held()
        return self._held[name]

    def _promote(self, running: Sequence[Running]) -> tuple[Hashable, ...]:
        """Who borrows and fits into what has become free of his team's guarantee is inside it from now on.

        Before those who wait: it is the same team's, and nobody has to leave for it.
        """
        promoted = []
        for each in sorted(running, key=lambda each: each.began):
            account = self._accounts.get(each.accounts[0], NOTHING)
            held = self._of(each.accounts[0])
            if each.guaranteed or each.spot or each.ending is not None or not account.guaranteed:
                continue
            if held.inside + each.units <= account.guaranteed:
                held.inside += each.units
                held.firm -= each.units if each.fixed else 0
                promoted.append(each.id)
        return tuple(promoted)


def tier_of(running: Running, accounts: Mapping[Hashable, Account]) -> int:
    """How strong the hold of one that runs is."""
    if not running.guaranteed:
        return BORROWED
    return INSIDE_POOL if accounts.get(running.accounts[0], NOTHING).pool else INSIDE


def _reserve(units: int, began: float, ends: float, account: Account) -> int:
    """What it may use up of the account's month, in unit-seconds."""
    ends = min(ends, account.month_ends or ends)
    return int(units * max(0.0, ends - max(began, account.month_began)))


def _capacity(snapshot: Snapshot, running: Iterable[Running]) -> Counter[str]:
    """Thousandths of the devices in service, by pool; "" is all of them. What is held, but by nobody who runs here,
    others hold: it is not to be had back."""
    # In 7000ths of a device, of which thousandths and 56ths are whole numbers.
    ours: Counter[Hashable] = Counter()
    for each in running:
        for placement in each.placements:
            for grant in placement.grants:
                ours[grant.device_id] += grant.units * (_EXACT // (mig.UNITS if grant.profile else WHOLE))
    capacity: Counter[str] = Counter()
    for node in snapshot.nodes:
        if node.usable:
            units = sum(WHOLE - _outside(device, ours[device.id]) for device in node.devices if device.usable)
            capacity[""] += units
            if node.pool:
                capacity[node.pool] += units
    return capacity


def _outside(device: DeviceState, ours: int) -> int:
    """Thousandths of the device that are held, but not by those 7000ths."""
    held = (device.capacity - device.free) * (_EXACT // device.capacity)
    return max(0, held - ours) * WHOLE // _EXACT


def _free(snapshot: Snapshot) -> Counter[str]:
    """Thousandths of devices in service that nobody holds, by the pool of their node."""
    free: Counter[str] = Counter()
    for node in snapshot.nodes:
        if node.usable:
            free[node.pool] += sum(device.free * WHOLE // device.capacity for device in node.devices if device.usable)
    return free
