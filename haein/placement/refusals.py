"""Why a request does not fit, in one sentence with numbers, and the nearest request that would."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from haein.placement import devices, mig, sentences
from haein.placement.devices import State
from haein.placement.model import WHOLE, Gang, Reason, Refusal, Request, Snapshot
from haein.placement.rooms import Room
from haein.placement.sentences import Code

Explanation = tuple[Code, dict[str, str | int]]


def busy(rooms: Sequence[Room], request: Request) -> Refusal:
    """The cluster could take it, but not in the room there is now. At least one node is in service."""
    return _refusal(Reason.NO_CAPACITY_NOW, _explain_busy(rooms, request), request.id, nearest(rooms, request))


def out_of_service(snapshot: Snapshot, rooms: Sequence[Room], request: Request) -> Refusal:
    """Only what is out of service could take it. `rooms` are those in service, empty."""
    return _refusal(Reason.OUT_OF_SERVICE, _explain_out(snapshot), request.id, nearest(rooms, request))


def impossible(rooms: Sequence[Room], repaired: Sequence[Room], request: Request) -> Refusal:
    """Nothing in the cluster could ever take it. Both are empty rooms: those in service, and all there are.

    The sentence speaks of all there are, because "never" does; the nearest request is one that could run today.
    """
    explanation = _explain_impossible(repaired, request) if repaired else (Code.NO_NODE, {})
    return _refusal(Reason.NEVER_FITS, explanation, request.id, nearest(rooms, request))


def gang(reason: Reason, snapshot: Snapshot, wanted: Gang, most: int, near: Gang | None) -> Refusal:
    """Its members would fit one by one, but not all of them as near each other as they must be."""
    where = wanted.near.name if wanted.required else "ANYWHERE"
    code = Code.GANG_NEVER if reason is Reason.NEVER_FITS else Code.GANG_NOW
    explanation: Explanation = (
        (code, {"members": wanted.members, "near": sentences.NEARNESS[where], "most": most})
        if reason is not Reason.OUT_OF_SERVICE
        else _explain_out(snapshot)
    )
    return _refusal(reason, explanation, wanted.id, near)


def addressed(refusal: Refusal, request_id: Hashable) -> Refusal:
    """The same refusal for another request of the same shape."""
    near = refusal.nearest
    if isinstance(near, Gang):
        near = replace(near, each=replace(near.each, id=request_id))
    elif near:
        near = replace(near, id=request_id)
    return replace(refusal, request_id=request_id, nearest=near)


def _refusal(reason: Reason, explanation: Explanation, id: Hashable, near: Request | Gang | None) -> Refusal:
    code, params = explanation
    return Refusal(
        request_id=id,
        reason=reason,
        code=code,
        params=params,
        sentence=sentences.english(code, params),
        nearest=near,
    )


def _explain_out(snapshot: Snapshot) -> Explanation:
    usable = [node for node in snapshot.nodes if node.usable]
    all_gpus = sum(len(node.devices) for node in snapshot.nodes)
    return Code.OUT_OF_SERVICE, {
        "nodes": len(snapshot.nodes) - len(usable),
        "all_nodes": len(snapshot.nodes),
        "gpus": all_gpus - sum(device.usable for node in usable for device in node.devices),
        "all_gpus": all_gpus,
    }


def _explain_busy(rooms: Sequence[Room], request: Request) -> Explanation:
    rooms = [room for room in rooms if room.admits(request)]
    if not rooms:
        return _explain_place(request)
    with_gpus = [room for room in rooms if room.has_gpus(request)]
    if not with_gpus:
        return _explain_busy_gpus(rooms, request)
    with_cpus = [room for room in with_gpus if room.cpus >= request.cpus]
    if not with_cpus:
        code = Code.FEW_CPUS_BESIDE_GPUS if request.gpus else Code.FEW_CPUS
        return code, _cpus(with_gpus, request)
    return Code.LITTLE_MEMORY, _memory(with_cpus, request)


def _explain_place(request: Request) -> Explanation:
    asked = [f"in pool {request.pool}"] if request.pool else []
    asked += [f"labelled {label}" for label in sorted(request.labels)]
    return Code.NOT_THERE, {"what": ", ".join(asked)}


def _explain_busy_gpus(rooms: Sequence[Room], request: Request) -> Explanation:
    fitting, left = max(room.tally(request) for room in rooms)
    kind, share = _kind(request), request.share
    if request.profile:
        if not fitting:
            anew = any(not state.layout for room in rooms for state in room.candidates(request))
            code = Code.NO_INSTANCE if anew else Code.INSTANCES_HELD
            return code, {"kind": kind, "profile": request.profile}
        few: dict[str, str | int] = {"profile": request.profile, "gpus": request.gpus}
        return Code.FEW_INSTANCES, few | {"kind": kind, "fitting": fitting}
    if left >= share:
        return _explain_gpu_memory(rooms, request)
    if request.gpus == 1:
        code = Code.NO_WHOLE_GPU if share == WHOLE else Code.NO_SHARE
        return code, {"kind": kind, "share": share, "left": left}
    if share < WHOLE:
        return Code.FEW_SHARES, {"gpus": request.gpus, "kind": kind, "share": share, "fitting": fitting}
    if left:
        return Code.FEW_WHOLE_GPUS_ONE_PARTLY, {"gpus": request.gpus, "kind": kind, "whole": fitting, "left": left}
    return Code.FEW_WHOLE_GPUS, {"gpus": request.gpus, "kind": kind, "whole": fitting}


def _explain_gpu_memory(rooms: Sequence[Room], request: Request) -> Explanation:
    """Some device has the share free, but not the memory that goes with it."""
    ask = devices.ask_of(request)
    able = [state for room in rooms for state in room.candidates(request) if state.units >= request.share]
    short = max(
        (state for state in able if not devices.room(state, ask)), key=lambda state: (state.free_mb, state.units)
    )
    needed = max(ask.memory_of(short), ask.memory_mb)
    params: dict[str, str | int] = {"kind": _kind(request), "share": request.share}
    params |= {"memory": sentences.memory(needed), "most": sentences.memory(short.free_mb)}
    return Code.LITTLE_GPU_MEMORY, params


def _explain_impossible(rooms: Sequence[Room], request: Request) -> Explanation:
    rooms = [room for room in rooms if room.admits(request)]
    if not rooms:
        return _explain_place(request)
    with_gpus = [room for room in rooms if room.has_gpus(request)]
    if not with_gpus:
        return _explain_impossible_gpus(rooms, request)
    with_cpus = [room for room in with_gpus if room.cpus >= request.cpus]
    if not with_cpus:
        code = Code.TOO_MANY_CPUS_BESIDE_GPUS if request.gpus else Code.TOO_MANY_CPUS
        return code, _cpus(with_gpus, request)
    return Code.TOO_MUCH_MEMORY, _memory(with_cpus, request)


def _explain_impossible_gpus(rooms: Sequence[Room], request: Request) -> Explanation:
    models = sorted({state.model for room in rooms for state in room.states if state.model})
    if not any(room.states for room in rooms):
        return Code.NO_GPU, {"gpus": request.gpus}
    ask = devices.ask_of(request)
    of_model = [state for room in rooms for state in room.states if ask.takes(state.model)]
    if not of_model:
        return Code.NO_MODEL, {"model": request.model, "models": ", ".join(models)}
    most = max(len(room.candidates(request)) for room in rooms)
    if not most:
        return _explain_carved(of_model, request)
    largest = max(state.memory_mb for state in of_model)
    if largest < request.gpu_memory_mb:
        params = {"memory": sentences.memory(request.gpu_memory_mb), "most": sentences.memory(largest)}
        return Code.NO_GPU_MEMORY, {"kind": _kind(request), **params}
    if request.gpu_memory_mb:
        most = max(room.tally(request)[0] for room in rooms)
    return Code.TOO_MANY_GPUS, {"gpus": request.gpus, "kind": _kind(request), "most": most}


def _explain_carved(of_model: Sequence[State], request: Request) -> Explanation:
    """None of these devices gives such slices, not even empty."""
    profiles = sorted({name for state in of_model for name in _profiles(state)}) or ["-"]
    params: dict[str, str | int] = {"kind": _kind(request), "profile": request.profile, "profiles": ", ".join(profiles)}
    if not request.profile:
        return Code.ONLY_INSTANCES, params
    anew = any(state.carvable and not state.layout for state in of_model)
    return Code.NO_PROFILE if anew else Code.NO_SUCH_INSTANCE, params


def _profiles(state: State) -> frozenset[str]:
    """Of the instances that the device could have."""
    if state.layout:
        return frozenset(name for name, _ in state.layout)
    return frozenset(mig.profiles(state.model) if state.carvable else ())


def _kind(request: Request) -> str:
    return f"{request.model.replace('|', ' or ')} GPU" if request.model else "GPU"


def _cpus(rooms: Sequence[Room], request: Request) -> dict[str, str | int]:
    most = max(room.cpus for room in rooms)
    return {"cpus": sentences.cores(request.cpus), "most": sentences.cores(most)}


def _memory(rooms: Sequence[Room], request: Request) -> dict[str, str | int]:
    most = max(room.memory_mb for room in rooms)
    return {"memory": sentences.memory(request.memory_mb), "most": sentences.memory(most)}


def nearest(rooms: Sequence[Room], request: Request) -> Request | None:
    """The request that fits one of these rooms and keeps the most of what was asked for, never more of anything.

    "The most" is the product of the parts kept of GPUs, share, CPUs and memory, so that no dimension is given up whole
    to keep another. Another model, pool or label is offered only where those asked for have nothing to give, and a
    smaller profile only where none of the one asked for is left; an instance for a whole device or a share only where
    there are devices that are carved for good.
    """
    cuts = [_cut(room, request) for room in rooms if room.admits(request)]
    _, best = max(cuts, key=lambda cut: cut[0], default=(0, None))
    if best is not None:
        return best
    if request.gpus:
        for smaller in _smaller(rooms, request) if request.profile else _instances(rooms, request):
            found = nearest(rooms, smaller)
            if found:
                return found
    if request.gpus and request.model:
        return nearest(rooms, replace(request, model=""))
    if request.pool or request.labels:
        return nearest(rooms, replace(request, pool="", labels=frozenset()))
    return None


def _smaller(rooms: Sequence[Room], request: Request) -> list[Request]:
    """The same request for the next smaller profile of each model there is; it offers the ones below that itself."""
    tables = {state.model: mig.profiles(state.model) for room in rooms for state in room.states}
    names: dict[str, tuple[int, int]] = {}
    for table in tables.values():
        if request.profile in table:
            asked = table[request.profile]
            below = [
                (profile.compute, profile.memory, name)
                for name, profile in table.items()
                if profile.compute <= asked.compute and profile.memory <= asked.memory and profile != asked
            ]
            if below:
                compute, memory, name = max(below)
                names[name] = (compute, memory)
    return [replace(request, profile=name) for name in sorted(names, key=lambda name: names[name], reverse=True)]


def _instances(rooms: Sequence[Room], request: Request) -> list[Request]:
    """Instances of devices that are carved for good, the largest first, that are no more than what was asked for."""
    ask = devices.ask_of(request)
    carved = {(state.model, state.memory_mb, state.layout) for room in rooms for state in room.states if state.layout}
    found: dict[str, tuple[int, int]] = {}
    for model, memory_mb, layout in carved:
        if not ask.takes(model):
            continue
        for name in {name for name, _ in layout}:
            profile = mig.profiles(model)[name]
            most, of = (request.gpu_memory_mb, memory_mb) if request.gpu_memory_mb else (request.share, WHOLE)
            if (
                profile.compute * WHOLE <= request.share * mig.COMPUTE_SLICES
                and profile.memory * of <= most * mig.MEMORY_SLICES
            ):
                found[name] = profile.compute, profile.memory
    names = sorted(found, key=lambda name: (found[name], name), reverse=True)
    return [replace(request, share=WHOLE, gpu_memory_mb=0, profile=name) for name in names]


def _cut(room: Room, request: Request) -> tuple[int, Request | None]:
    """The request cut to one room, and how much of it was kept (0: something asked for is not there at all)."""
    gpus = _cut_gpus(room, request)
    if gpus is None:
        return 0, None
    cut = replace(gpus, cpus=min(request.cpus, room.cpus), memory_mb=min(request.memory_mb, room.memory_mb))
    kept = 1
    parts = (
        (request.gpus, cut.gpus * cut.share),
        (request.gpus and request.gpu_memory_mb, cut.gpu_memory_mb),
        (request.cpus, cut.cpus),
        (request.memory_mb, cut.memory_mb),
    )
    for asked, part in parts:
        kept *= part if asked else 1
    return kept, cut if kept else None


def _cut_gpus(room: Room, request: Request) -> Request | None:
    """How many GPUs, and the share on each, come closest: fewer of the size asked for before as many smaller ones."""
    fitting, left = room.tally(request)
    if fitting >= request.gpus:
        return request
    options = [replace(request, gpus=fitting)] if fitting else []
    if left and not request.profile:
        emptiest_first = sorted(room.candidates(request), key=lambda state: -_fair(state, request)[0])[: request.gpus]
        for count in range(1, len(emptiest_first) + 1):
            limits = [_fair(state, request) for state in emptiest_first[:count]]
            share = min(request.share, *(units for units, _ in limits))
            memory_mb = min(request.gpu_memory_mb, *(memory for _, memory in limits))
            if share and (memory_mb or not request.gpu_memory_mb):
                options.append(replace(request, gpus=count, share=share, gpu_memory_mb=memory_mb))
    return max(options, key=lambda cut: cut.gpus * cut.share, default=None)


def _fair(state: State, request: Request) -> tuple[int, int]:
    """The largest share that the device could give, and the most memory (of what was asked for) with it."""
    if request.gpu_memory_mb:
        return (state.units if state.free_mb else 0), state.free_mb
    if not state.memory_mb:
        return state.units, 0
    # The memory of a share is rounded down, so that the share with the last free MiB is one that still rounds to it.
    within = ((state.free_mb + 1) * WHOLE - 1) // state.memory_mb
    # A whole device has all its memory: the share of one with some of it held is below that.
    return min(state.units, within, WHOLE if state.untouched else WHOLE - 1), 0
