"""Where a waiting job stands: what is ahead of it as far as its reader may know, when it starts, what is sooner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.utils.translation import gettext, ngettext

from haein.placement import asides
from haein.placement.asides import Block
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix
from haein.placement.model import WHOLE, Gang, Near, Request, Snapshot
from haein.placement.policies import HAEIN
from haein.tenants.scope import Scope
from jobs import explaining, promises, requests, scenes, snapshots, windows
from jobs.explaining import about
from jobs.models import Job
from jobs.promises import Score, When
from jobs.states import State

# What stands in the way of these is room, which another request may find; the others wait for something else.
WANTS_ROOM = explaining.BESIDES | {"no_capacity"}
# Of the reader's own teams so many waiting jobs are looked at, and so many are named.
MOST_OWN, MOST_NAMED = 2000, 3
# A time limit shorter than this helps nobody.
LEAST_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Standing:
    """`own` are those ahead that are the reader's teams' (id and name, the nearest first), `own_count` all of them."""

    ahead: int
    own: Sequence[tuple[UUID, str]]
    own_count: int
    when: When | None
    score: Score
    sooner: Sequence[str]


def of(job: Job, scope: Scope, *, now: datetime) -> Standing:
    mine = Job.objects.seen_by(scope).filter(state=State.QUEUED).order_by("-priority", "queued_at", "id")
    own = dict(mine.values_list("pk", "name")[:MOST_OWN])
    order, known = promises.order(now=now), promises.known([job.pk], now=now)
    place = known.places.get(job.pk)
    if place is None:
        # Submitted a moment ago, or nobody rehearses: by priority and age, which is the order within a team.
        return Standing(ahead(job), (), 0, None, known.score, sooner(job, now=now))
    before = sorted((at, pk) for pk in own if (at := order.get(pk.bytes, place.ahead)) < place.ahead)
    named = [(pk, own[pk]) for _, pk in before[: -MOST_NAMED - 1 : -1]]
    return Standing(place.ahead, named, len(before), place.when, known.score, sooner(job, now=now))


def ahead(job: Job) -> int:
    """How many waiting jobs are looked at before this one, by priority and age alone."""
    earlier = Q(priority__gt=job.priority) | Q(priority=job.priority, queued_at__lt=job.queued_at)
    return int(Job.objects.filter(earlier, state=State.QUEUED).count())


def sooner(job: Job, *, now: datetime) -> list[str]:
    """What could be asked for instead that starts at once, each tried on the cluster as it is."""
    if job.reason not in WANTS_ROOM:
        return []
    return [*_tried(job, now)]


def _tried(job: Job, now: datetime) -> Iterator[str]:
    snapshot = snapshots.glance()
    blocks = _blocks(job, snapshot, now)
    asked = requests.of(requests.columns(job), job.pk)
    room = _Room(snapshot, blocks, now, job.team_id)
    variants = list(_variants(asked))
    shorter = room.limits(job.time_limit_s)
    nearest = next((words for words, request in variants if room.takes(request, job.time_limit_s)), "")
    if nearest:
        yield nearest
    limit = next((limit for limit in shorter if room.takes(asked, limit)), None)
    if limit:
        yield gettext("with a time limit of %(limit)s: then it is gone before the room is needed") % {
            "limit": _down(limit)
        }
    if nearest or limit:
        return
    both = ((words, limit) for words, request in variants for limit in shorter if room.takes(request, limit))
    for words, limit in both:
        yield gettext("%(change)s and a time limit of %(limit)s: then it is gone before the room is needed") % {
            "change": words,
            "limit": _down(limit),
        }
        return


def _down(seconds: int) -> str:
    """A limit to choose: never longer than what was tried."""
    minutes = seconds // 60
    return about(timedelta(minutes=minutes if minutes < 120 else minutes // 60 * 60))


def _variants(asked: Request | Gang) -> Iterator[tuple[str, Request | Gang]]:
    """Others like it, the nearest first."""
    each = asked.each if isinstance(asked, Gang) else asked
    if isinstance(asked, Gang):
        if asked.required:
            yield gettext("with its workers anywhere"), replace(asked, near=Near.ANYWHERE, required=False)
        for members in _less(asked.members):
            words = ngettext("with %(count)d worker", "with %(count)d workers", members) % {"count": members}
            yield words, replace(asked, members=members) if members > 1 else each
    for words, changed in _of_one(each):
        yield words, replace(asked, each=changed) if isinstance(asked, Gang) else changed


def _of_one(each: Request) -> Iterator[tuple[str, Request]]:
    if each.model:
        yield gettext("on a GPU of any model"), replace(each, model="")
    if each.pool or each.labels:
        yield gettext("in any pool, without labels"), replace(each, pool="", labels=frozenset())
    for gpus in _less(each.gpus):
        yield ngettext("with %(count)d GPU", "with %(count)d GPUs", gpus) % {"count": gpus}, replace(each, gpus=gpus)
    if each.gpus and not each.profile:
        for share in (part for part in (500, 250, 100) if part < each.share):
            words = gettext("with %(percent)g %% of each GPU") % {"percent": share / WHOLE * 100}
            yield words, replace(each, share=share, gpu_memory_mb=0)
    if each.cpus > 1000 or each.memory_mb > 2048:
        yield (
            gettext("with half the CPU cores and memory"),
            replace(each, cpus=each.cpus // 2, memory_mb=each.memory_mb // 2),
        )


def _less(count: int) -> Iterator[int]:
    """Somewhat fewer, then far fewer: 6, 4, 2, 1 for 8."""
    tried = sorted({count * 3 // 4, count // 2, count // 4, 1}, reverse=True)
    return (each for each in tried if 0 < each < count)


def _blocks(job: Job, snapshot: Snapshot, now: datetime) -> list[Block]:
    """What is set apart, and kept for others."""
    known = {node.id: node for node in snapshot.nodes}
    kept = [each for each in scenes.kept() if each.job != job.pk]
    asked = {
        row.pk: requests.of(requests.columns(row))
        for row in Job.objects.filter(pk__in=[each.job for each in kept]).only(*requests.COLUMNS)
    }
    found = [asides.of_kept(each, asked[each.job], 0, known) for each in kept if each.job in asked]
    return [
        *(block for block in found if block),
        *(asides.of_window(each, snapshot.nodes) for each in windows.asides(now) if each.until > now.timestamp()),
    ]


class _Room:
    """The free room of this moment, as a job of the team may use it."""

    def __init__(self, snapshot: Snapshot, blocks: Sequence[Block], now: datetime, team: UUID) -> None:
        self._cluster = Cluster(snapshot, HAEIN, Mix({}))
        self._blocks = asides.Blocks(self._cluster)
        for block in blocks:
            self._blocks.add(block)
        self._moments = [block.at for block in blocks]
        self._now, self._team = now.timestamp(), team

    def takes(self, request: Request | Gang, limit_s: float) -> bool:
        ends = self._now + limit_s + settings.HAEIN_GRACE_SECONDS
        self._blocks.show(self._blocks.mode(asides.Asker(None, self._team, ends, 0, firm=False)))
        placed = self._cluster.start(request)
        self._cluster.end(request, placed)
        return bool(placed)

    def limits(self, limit_s: int) -> list[int]:
        """Shorter limits with which a job would be gone before something kept is needed, the longest first."""
        left = (int(at - self._now) - settings.HAEIN_GRACE_SECONDS - 60 for at in self._moments if at > self._now)
        return sorted({each // 60 * 60 for each in left if LEAST_LIMIT_S <= each < limit_s}, reverse=True)
