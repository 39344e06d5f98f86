"""What people are told of the queue: why a job waits, what would start and when, what may be asked for at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils.translation import gettext

from haein.lib import clock
from haein.placement import engine, mig, sentences
from haein.placement.model import Gang, Reason, Refusal, Request, Snapshot
from jobs import limits, promises, requests, snapshots, wording
from jobs.models import Claim, Job
from jobs.scheduling import MOST_NAMED
from jobs.spec import Spec

# The classes of reason that say all there is to say by the numbers of the moment, and those of whom room is one part:
# it is kept for the job, or for others.
OF_ROOM = frozenset({"no_capacity", "out_of_service", "never_fits"})
BESIDES = frozenset({"its_turn", "reclaiming", "kept", "window", "promised", "not_lent"})
EXPLAINED = OF_ROOM | BESIDES | limits.CODES
# Of the last capacity() what each request that was met would be refused for.
_met: tuple[Snapshot | None, dict[Request | Gang, Refusal | None]] = (None, {})


def explain(job: Job) -> str:
    """Why a waiting job waits, with the numbers of this moment. What would fit instead is standing.sooner()."""
    if job.reason in limits.CODES:
        return limits.explain_account(job, now=clock.now())
    request = requests.of(requests.columns(job))
    plan = engine.plan(snapshots.glance(), [request])
    besides = _besides(job)
    if plan.placements:
        return besides or gettext("There is room for it: it starts with the next look at the queue.")
    refusal = plan.refusals[0]
    short = _sentence(refusal) if refusal.reason is Reason.NO_CAPACITY_NOW else _with_nearest(refusal, request)
    return f"{short} {besides}".strip()


def _besides(job: Job) -> str:
    if job.reason == "its_turn":
        return _turn(job)
    return wording.sentence(job.reason, job.reason_values) if job.reason in BESIDES else ""


def _turn(job: Job) -> str:
    """What is kept for it, and when that is free by the limits of what runs there."""
    claim = Claim.objects.filter(job=job).first()
    if claim is None or claim.starts_at is None:
        return wording.sentence("its_turn", {})
    left = claim.starts_at - clock.now()
    return gettext(
        "Its turn has come: room is kept for it, and by the limits of what runs there it is free in %(span)s at most."
    ) % {"span": about(left)}


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be asked for by name on this cluster, each sorted; empty where it has none."""

    models: Sequence[str]
    profiles: Sequence[str]
    pools: Sequence[str]
    labels: Sequence[str]
    gangs: bool


def offers(*, instances: bool, gangs: bool) -> Offers:
    """By the nodes and devices there are; `instances` and `gangs` say what the backend is able to do.

    Where devices are carved by somebody else, the instances are those there are.
    """
    nodes = snapshots.capacity().nodes
    devices = [device for node in nodes for device in node.devices]
    models = sorted({device.model for device in devices})
    profiles = {name: profile for model in models for name, profile in mig.profiles(model).items()}
    there = {each.profile for layout in {device.layout for device in devices} for each in layout}
    names = profiles.keys() & there if there else profiles
    return Offers(
        models=models,
        profiles=sorted(names, key=lambda name: (profiles[name].compute, profiles[name].memory)) if instances else [],
        pools=sorted({node.pool for node in nodes if node.pool}),
        labels=sorted({label for node in nodes for label in node.labels}),
        gangs=gangs,
    )


def never_fits(spec: Spec) -> dict[str, str] | None:
    """The fields at fault, each with a sentence, when the cluster could never run the spec; else None."""
    now = snapshots.capacity()
    if not now.nodes:
        return None  # nothing has reported yet: it waits, and says so
    request = requests.of(requests.columns(spec))
    refusal = _ever(now, request)
    if refusal is None or refusal.reason is not Reason.NEVER_FITS:
        return None
    field = _AT_FAULT.get(refusal.code, "gpus")
    if refusal.code is sentences.Code.NOT_THERE:
        field = "pool" if spec.pool else "labels"
    return {field: _with_nearest(refusal, request)}


def _ever(now: Snapshot, request: Request | Gang) -> Refusal | None:
    """A thousand jobs that are submitted in a row mostly ask the same, of the same snapshot."""
    global _met
    known, refusals = _met
    if known is not now:
        refusals = {}
        _met = now, refusals
    if request not in refusals:
        refusals[request] = engine.ever_fits(now, request)
    return refusals[request]


_AT_FAULT = {
    sentences.Code.TOO_MANY_CPUS: "cpus",
    sentences.Code.TOO_MANY_CPUS_BESIDE_GPUS: "cpus",
    sentences.Code.TOO_MUCH_MEMORY: "memory_mb",
    sentences.Code.NO_MODEL: "gpu_model",
    sentences.Code.NO_PROFILE: "profile",
    sentences.Code.NO_SUCH_INSTANCE: "profile",
    sentences.Code.NO_GPU_MEMORY: "gpu_memory_mb",
    sentences.Code.GANG_NEVER: "workers",
}


def outlook(spec: Spec) -> tuple[str, str]:
    """When the spec would start as things are now, and why it would be refused at submit ("" if it would not)."""
    request = requests.of(requests.columns(spec))
    cluster = snapshots.glance()
    never = engine.ever_fits(cluster, request)
    if never and never.reason is Reason.NEVER_FITS and cluster.nodes:
        return "", _with_nearest(never, request)
    plan = engine.plan(cluster, [request])
    if plan.carvings:
        carved = "; ".join(carving.sentence for carving in plan.carvings[:MOST_NAMED])
        return gettext("Room is free: it would start at once (%(carved)s).") % {"carved": carved}, ""
    if plan.placements:
        return gettext("Room is free: it would start at once."), ""
    told = [gettext("It would wait. %(why)s") % {"why": _with_nearest(plan.refusals[0], request)}]
    now = clock.now()
    when = promises.if_submitted(spec, now=now)
    if when:
        spans = {"p50": about(when.p50 - now), "p90": about(when.p90 - now)}
        told.append(gettext("It would start in %(p50)s probably, and with nine chances in ten in %(p90)s.") % spans)
    return " ".join(told), ""


def about(span: timedelta) -> str:
    """As precise as a forecast is: minutes up to two hours, hours up to two days."""
    minutes = max(1, round(span.total_seconds() / 60))
    if minutes < 120:
        return gettext("%(count)d min") % {"count": minutes}
    if minutes < 48 * 60:
        return gettext("%(count)d h") % {"count": round(minutes / 60)}
    return gettext("%(count)d days") % {"count": round(minutes / 1440)}


def _sentence(refusal: Refusal) -> str:
    return gettext(sentences.TEMPLATES[refusal.code]) % refusal.params


def _with_nearest(refusal: Refusal, asked: Request | Gang) -> str:
    """The refusal's sentence, and the nearest request that would fit where there is one: only what differs of it."""
    differs = _differences(refusal.nearest, asked) if refusal.nearest else []
    if not differs:
        return _sentence(refusal)
    return f"{_sentence(refusal)} " + gettext("Nearest that fits: %(nearest)s.") % {"nearest": ", ".join(differs)}


def _differences(nearest: Request | Gang, asked: Request | Gang) -> list[str]:
    found = []
    if isinstance(nearest, Gang) and isinstance(asked, Gang) and nearest.members != asked.members:
        found.append(gettext("%(count)d workers") % {"count": nearest.members})
    near, wanted = (each.each if isinstance(each, Gang) else each for each in (nearest, asked))
    if isinstance(asked, Gang) and not isinstance(nearest, Gang):
        found.append(gettext("1 worker"))
    if near.gpus != wanted.gpus:
        found.append(gettext("%(count)d of the GPUs") % {"count": near.gpus})
    if near.share != wanted.share and not near.profile:
        found.append(gettext("a share of %(share)d of 1000") % {"share": near.share})
    if near.profile != wanted.profile:
        found.append(gettext("profile %(profile)s") % {"profile": near.profile})
    if near.gpu_memory_mb != wanted.gpu_memory_mb and not near.profile:
        found.append(gettext("%(memory)s of GPU memory") % {"memory": sentences.memory(near.gpu_memory_mb)})
    if near.cpus != wanted.cpus:
        found.append(gettext("%(cpus)s CPU cores") % {"cpus": sentences.cores(near.cpus)})
    if near.memory_mb != wanted.memory_mb:
        found.append(gettext("%(memory)s of memory") % {"memory": sentences.memory(near.memory_mb)})
    if near.model != wanted.model:
        found.append(gettext("another GPU model"))
    if (near.pool, near.labels) != (wanted.pool, wanted.labels):
        found.append(gettext("another pool or other labels"))
    return found
