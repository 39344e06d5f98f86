"""Why a request does not fit, in one sentence with numbers, and the nearest request that would."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from haein.placement import sentences
from haein.placement.model import WHOLE, Reason, Refusal, Request, Snapshot
from haein.placement.rooms import Room
from haein.placement.sentences import Code

Explanation = tuple[Code, dict[str, str | int]]


def busy(rooms: Sequence[Room], request: Request) -> Refusal:
    """The cluster could take it, but not in the room there is now. At least one node is in service."""
    return _refusal(Reason.NO_CAPACITY_NOW, _explain_busy(rooms, request), request, nearest(rooms, request))


def out_of_service(snapshot: Snapshot, rooms: Sequence[Room], request: Request) -> Refusal:
    """Only what is out of service could take it. `rooms` are those in service, empty."""
    devices = [device for node in snapshot.nodes for device in node.devices]
    params: dict[str, str | int] = {
        "nodes": len(snapshot.nodes) - len(rooms),
        "all_nodes": len(snapshot.nodes),
        "gpus": len(devices) - sum(len(room.slots[""]) for room in rooms),
        "all_gpus": len(devices),
    }
    return _refusal(Reason.OUT_OF_SERVICE, (Code.OUT_OF_SERVICE, params), request, nearest(rooms, request))


def impossible(rooms: Sequence[Room], repaired: Sequence[Room], request: Request) -> Refusal:
    """Nothing in the cluster could ever take it. Both are empty rooms: those in service, and all there are.

    The sentence speaks of all there are, because "never" does; the nearest request is one that could run today.
    """
    explanation = _explain_impossible(repaired, request) if repaired else (Code.NO_NODE, {})
    return _refusal(Reason.NEVER_FITS, explanation, request, nearest(rooms, request))


def addressed(refusal: Refusal, request_id: Hashable) -> Refusal:
    """The same refusal for another request of the same shape."""
    near = replace(refusal.nearest, id=request_id) if refusal.nearest else None
    return replace(refusal, request_id=request_id, nearest=near)


def _refusal(reason: Reason, explanation: Explanation, request: Request, near: Request | None) -> Refusal:
    code, params = explanation
    return Refusal(
        request_id=request.id,
        reason=reason,
        code=code,
        params=params,
        sentence=sentences.english(code, params),
        nearest=near,
    )


def _explain_busy(rooms: Sequence[Room], request: Request) -> Explanation:
    with_gpus = [room for room in rooms if room.has_gpus(request)]
    if not with_gpus:
        return _explain_busy_gpus(rooms, request)
    with_cpus = [room for room in with_gpus if room.cpus >= request.cpus]
    if not with_cpus:
        code = Code.FEW_CPUS_BESIDE_GPUS if request.gpus else Code.FEW_CPUS
        return code, _cpus(with_gpus, request)
    return Code.LITTLE_MEMORY, _memory(with_cpus, request)


def _explain_busy_gpus(rooms: Sequence[Room], request: Request) -> Explanation:
    fitting, left = max(room.tally(request) for room in rooms)
    kind, share = _kind(request), request.share
    if request.gpus == 1:
        code = Code.NO_WHOLE_GPU if share == WHOLE else Code.NO_SHARE
        return code, {"kind": kind, "share": share, "left": left}
    if share < WHOLE:
        return Code.FEW_SHARES, {"gpus": request.gpus, "kind": kind, "share": share, "fitting": fitting}
    if left:
        return Code.FEW_WHOLE_GPUS_ONE_PARTLY, {"gpus": request.gpus, "kind": kind, "whole": fitting, "left": left}
    return Code.FEW_WHOLE_GPUS, {"gpus": request.gpus, "kind": kind, "whole": fitting}


def _explain_impossible(rooms: Sequence[Room], request: Request) -> Explanation:
    with_gpus = [room for room in rooms if room.has_gpus(request)]
    if not with_gpus:
        return _explain_impossible_gpus(rooms, request)
    with_cpus = [room for room in with_gpus if room.cpus >= request.cpus]
    if not with_cpus:
        code = Code.TOO_MANY_CPUS_BESIDE_GPUS if request.gpus else Code.TOO_MANY_CPUS
        return code, _cpus(with_gpus, request)
    return Code.TOO_MUCH_MEMORY, _memory(with_cpus, request)


def _explain_impossible_gpus(rooms: Sequence[Room], request: Request) -> Explanation:
    models = sorted({model for room in rooms for model in room.slots if model})
    if not any(room.slots[""] for room in rooms):
        return Code.NO_GPU, {"gpus": request.gpus}
    most = max(len(room.candidates(request)) for room in rooms)
    if not most:
        return Code.NO_MODEL, {"model": request.model, "models": ", ".join(models)}
    return Code.TOO_MANY_GPUS, {"gpus": request.gpus, "kind": _kind(request), "most": most}


def _kind(request: Request) -> str:
    return f"{request.model} GPU" if request.model else "GPU"


def _cpus(rooms: Sequence[Room], request: Request) -> dict[str, str | int]:
    most = max(room.cpus for room in rooms)
    return {"cpus": sentences.cores(request.cpus), "most": sentences.cores(most)}


def _memory(rooms: Sequence[Room], request: Request) -> dict[str, str | int]:
    most = max(room.memory_mb for room in rooms)
    return {"memory": sentences.memory(request.memory_mb), "most": sentences.memory(most)}


def nearest(rooms: Sequence[Room], request: Request) -> Request | None:
    """The request that fits one of these rooms and keeps the most of what was asked for, never more of anything.

    "The most" is the product of the parts kept of GPUs, share, CPUs and memory, so that no dimension is given up whole
    to keep another. Another model is offered only where the one asked for has nothing to give.
    """
    _, best = max((_cut(room, request) for room in rooms), key=lambda cut: cut[0], default=(0, None))
    if best is None:
        return nearest(rooms, replace(request, model="")) if request.gpus and request.model else None
    gpus, share, cpus, memory_mb = best
    return replace(request, gpus=gpus, share=share, cpus=cpus, memory_mb=memory_mb)


def _cut(room: Room, request: Request) -> tuple[int, tuple[int, int, int, int] | None]:
    """The request cut to one room, and how much of it was kept (0: something asked for is not there at all)."""
    gpus, share = _cut_gpus(room, request)
    if request.gpus and not gpus:
        return 0, None
    cpus, memory_mb = min(request.cpus, room.cpus), min(request.memory_mb, room.memory_mb)
    kept = 1
    for asked, part in ((request.gpus, gpus * share), (request.cpus, cpus), (request.memory_mb, memory_mb)):
        kept *= part if asked else 1
    return kept, (gpus, share, cpus, memory_mb) if kept else None


def _cut_gpus(room: Room, request: Request) -> tuple[int, int]:
    """How many GPUs, and the share on each, come closest: fewer of the size asked for before as many smaller ones."""
    fitting, left = room.tally(request)
    if fitting >= request.gpus:
        return request.gpus, request.share
    if not left:
        return fitting, request.share
    emptiest_first = room.candidates(request)[: -request.gpus - 1 : -1]
    cuts = [(count, min(request.share, units)) for count, (units, _) in enumerate(emptiest_first, 1)]
    return max(cuts, key=lambda cut: cut[0] * cut[1], default=(0, 0))
