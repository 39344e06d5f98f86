"""The contexts of the cluster's page: totals, the table of nodes, one node, and what of the free GPUs is stranded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from django.core.paginator import Paginator
from django.http import QueryDict
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard import heatmap, present, windows
from haein.cluster.backends.base import SliceGrant
from haein.cluster.models import Device, Outside
from haein.lib import clock
from haein.placement import mig, stranded
from haein.placement.model import WHOLE, Request
from haein.placement.stranded import GPU, Why
from haein.tenants.scope import Scope
from jobs import emptying, occupancy
from jobs.models import Allocation
from jobs.occupancy import NodeDetail, NodeFacts, Occupancy, Waiting

PAGE = 25
STATES: Mapping[str, str | Promise] = {
    "free": gettext_lazy("Free"),
    "partly": gettext_lazy("Partly held"),
    "full": gettext_lazy("Fully held"),
    "unusable": gettext_lazy("Unusable"),
    "drained": gettext_lazy("Drained"),
}
SORTS: Mapping[str, str | Promise] = {
    "name": gettext_lazy("By name"),
    "-free": gettext_lazy("Most free first"),
    "-held": gettext_lazy("Most held first"),
    "-unusable": gettext_lazy("Most unusable first"),
}
_WHY: Mapping[Why, str | Promise] = {
    Why.ELSEWHERE: gettext_lazy("another model, pool or label: %(gpus)s"),
    Why.OTHERWISE: gettext_lazy("the device is shared or carved in the other way: %(gpus)s"),
    Why.GPU_MEMORY: gettext_lazy("too little GPU memory beside it: %(gpus)s"),
    Why.LITTLE: gettext_lazy("too little left on each device: %(gpus)s"),
    Why.NO_START: gettext_lazy("no legal start for the instance: %(gpus)s"),
    Why.FEW_DEVICES: gettext_lazy("too few such devices on one node: %(gpus)s"),
    Why.CPUS: gettext_lazy("too few CPU cores on the node: %(gpus)s"),
    Why.MEMORY: gettext_lazy("too little memory on the node: %(gpus)s"),
}


def gpus(units: int) -> str:
    """7000ths of a device as devices."""
    return f"{units / GPU:,.2f}".rstrip("0").rstrip(".")


def totals(occupied: Occupancy) -> dict[str, Any]:
    """Law 2 in whole GPUs: what is held, outside, free, unusable, drained and reserved adds up to all of them."""
    units, nodes, devices = occupied.totals(), len(occupied.nodes), len(occupied.node)
    away = sum(not node.present for node in occupied.nodes)
    drained = sum(node.drained_at is not None for node in occupied.nodes)
    held_by = int((occupied.holders > 0).sum())
    free_devices = int(((occupied.taken == 0) & ~occupied.carved & (occupied.free > 0)).sum())
    on = ngettext("on %(n)d node", "on %(n)d nodes", nodes) % {"n": nodes}
    others = (_("Outside"), gpus(units["outside"]), _("held by work not submitted through Haein"))
    kept = (_("Reserved"), gpus(units["reserved"]), _("for a team, and not in use"))
    return {
        "figures": [
            (_("GPUs"), f"{devices:,}", f"{on}, {_('%(n)d away') % {'n': away}}" if away else on),
            (_("Held"), gpus(units["held"]), _("on %(n)s devices") % {"n": f"{held_by:,}"}),
            *([others] if units["outside"] else []),
            (_("Free"), gpus(units["free"]), _("%(n)s of them whole") % {"n": f"{free_devices:,}"}),
            (_("Unusable"), gpus(units["unusable"]), _("out of order, or beyond any legal slice")),
            (_("Drained"), gpus(units["drained"]), ngettext("%(n)d node", "%(n)d nodes", drained) % {"n": drained}),
            *([kept] if units["reserved"] else []),
        ],
        "outside": units["outside"] > 0,
    }


def options(occupied: Occupancy) -> dict[str, Any]:
    """What the page can be filtered and sorted by."""
    return {
        "models": occupied.layout.models,
        "pools": sorted({node.pool for node in occupied.nodes if node.pool}),
        "states": STATES.items(),
        "sorts": SORTS.items(),
    }


def table(occupied: Occupancy, asked: QueryDict) -> dict[str, Any]:
    """A page of the nodes that fit the filter."""
    filters = {name: asked.get(name, "").strip() for name in ("q", "model", "pool", "state", "sort")}
    free, held = occupied.by_node(occupied.free), occupied.by_node(occupied.held)
    outside = occupied.by_node(occupied.outside)
    count = occupied.by_node(np.ones(len(occupied.node), dtype=np.bool_))
    broken = occupied.by_node(occupied.broken)
    places = _fitting(occupied, filters)
    order = {"-free": free, "-held": held, "-unusable": broken}.get(filters["sort"])
    if order is not None:
        places.sort(key=lambda place: -int(order[place]))
    page = Paginator(places, PAGE).get_page(asked.get("page"))
    rows = [
        {
            "name": node.name,
            "where": _where(node),
            "devices": int(count[place]),
            "held": gpus(int(held[place])),
            "outside": gpus(int(outside[place])) if outside[place] else "",
            "free": gpus(int(free[place])),
            "broken": int(broken[place]),
            "present": node.present,
            "problem": node.problem,
            "drained": node.drained_at is not None,
            "cpus": _of(present.cores(int(occupied.node_cpus[place])), present.cores(node.cpus)),
            "memory": _of(present.memory(int(occupied.node_memory_mb[place])), present.memory(node.memory_mb)),
        }
        for place in page.object_list
        for node in (occupied.nodes[place],)
    ]
    query = urlencode({name: value for name, value in filters.items() if value})
    return {"page": page, "rows": rows, "filter": {**filters, "sort": filters["sort"] or "name"}, "query": query}


def _fitting(occupied: Occupancy, filters: Mapping[str, str]) -> list[int]:
    """The places of the nodes that fit, by name."""
    fits = np.ones(len(occupied.nodes), dtype=np.bool_)
    of_a_device = np.ones(len(occupied.node), dtype=np.bool_)
    if filters["model"]:
        names = np.array([name == filters["model"] for name in occupied.layout.models], dtype=np.bool_)
        of_a_device &= names[occupied.layout.model] if len(names) else False
    if filters["state"] in STATES:
        of_a_device &= _in_state(occupied, filters["state"])
    if filters["model"] or filters["state"] in STATES:
        fits &= occupied.by_node(of_a_device) > 0
    words, pool = filters["q"].lower(), filters["pool"]
    return [
        place
        for place in np.flatnonzero(fits).tolist()
        if words in occupied.nodes[place].name.lower() and pool in ("", occupied.nodes[place].pool)
    ]


def _in_state(occupied: Occupancy, state: str) -> occupancy.Flags:
    if state == "unusable":
        return occupied.broken
    if state == "drained":
        return occupied.drained
    fits: occupancy.Flags = (occupied.states == heatmap.STATES[state]) & ~occupied.broken & ~occupied.drained
    return fits


def node_url(name: str) -> str:
    return f"{reverse('cluster')}?{urlencode({'node': name})}"


def _where(node: NodeFacts) -> str:
    return " · ".join(part for part in (node.pod, node.rack, node.pool) if part)


def _of(used: str, all_of_it: str) -> str:
    return _("%(used)s of %(all)s") % {"used": used, "all": all_of_it}


def waste(occupied: Occupancy, scope: Scope) -> dict[str, Any]:
    """For what waits (of all teams only to an operator) and for the standard shapes: how many fit, what is stranded."""
    asked = occupancy.waiting(None if scope.user.is_operator else scope)
    asked += [Waiting(request, 1, 0) for request in stranded.standard(occupied.layout.models)]
    kinds = _kinds(occupied)
    return {
        "free_gpus": gpus(int(occupied.free.sum())),
        "shapes": [_fit(each, kinds.report(each.request)) for each in asked],
    }


def _fit(asked: Waiting, report: stranded.Report) -> dict[str, Any]:
    gang = asked.workers > 1
    shape = _shape(report.request)
    return {
        "shape": f"{asked.workers} × ({shape})" if gang else shape,
        "waiting": asked.jobs,
        "fits": _("%(n)s workers") % {"n": f"{report.fits:,}"} if gang else f"{report.fits:,}",
        "stranded": gpus(report.stranded),
        "why": _why(report),
    }


@lru_cache(maxsize=2)
def _kinds(occupied: Occupancy) -> stranded.Kinds:
    """Made once for all the readers of one picture."""
    return stranded.Kinds(occupied.rooms())


@lru_cache(maxsize=2)
def carvings(_occupied: Occupancy) -> dict[str, Any]:
    """What was carved last, by the sentences of the plans; read once for all the readers of one picture."""
    return {"carvings": [{"at": at, "text": text[:1].upper() + text[1:]} for at, text in occupancy.carvings()]}


def _shape(request: Request) -> str:
    parts = [
        present.slices(request),
        request.model.replace("|", _(" or ")),
        present.memory(request.gpu_memory_mb) if request.gpu_memory_mb else "",
        _("%(cores)s cores") % {"cores": present.cores(request.cpus)} if request.cpus else "",
        present.memory(request.memory_mb) if request.memory_mb else "",
        request.pool,
        *sorted(request.labels),
    ]
    return ", ".join(part for part in parts if part)


def _why(report: stranded.Report) -> str:
    if not report.free:
        return _("Nothing is free.")
    if not report.stranded:
        return _("All that is free can be used.")
    parts = sorted(report.why.items(), key=lambda part: -part[1])
    sentence = "; ".join(str(_WHY[reason]) % {"gpus": gpus(units)} for reason, units in parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def node(detail: NodeDetail, scope: Scope, *, now: datetime) -> dict[str, Any]:
    """One node; who holds its devices only where the reader may know."""
    found = detail.node
    others = _by_device(detail.outside)
    empty = emptying.of_node(found.pk, now=now) if detail.jobs else None
    return {
        "node": found,
        "where": [
            (_("Rack"), found.rack or _("n/a")),
            (_("Pod"), found.pod or _("n/a")),
            (_("Pool"), found.pool or _("none")),
            (_("Labels"), ", ".join(found.labels) or _("none")),
            (_("CPU cores"), _of(present.cores(detail.cpus), present.cores(found.cpus))),
            (_("Memory"), _of(present.memory(detail.memory_mb), present.memory(found.memory_mb))),
            (_("Jobs"), str(detail.jobs)),
        ],
        "running": ngettext("%(n)d job runs there and goes on.", "%(n)d jobs run there and go on.", detail.jobs)
        % {"n": detail.jobs},
        "empty": empty
        and {
            "latest": clock.from_epoch(empty.latest),
            "probably": None if empty.probably is None else clock.from_epoch(empty.probably),
        },
        "planned": windows.of_node(found.name, scope, now=now),
        "outside": [_work(work, scope) for work in detail.outside],
        "devices": [
            _device(device, held, others[device.uuid], scope, away=bool(found.problem))
            for device, held in detail.devices
        ],
        "may_drain": scope.user.is_operator,
    }


def _by_device(outside: Sequence[Outside]) -> Mapping[str, list[tuple[Outside, SliceGrant]]]:
    """What work from outside holds of each device, by the device's uuid."""
    found: defaultdict[str, list[tuple[Outside, SliceGrant]]] = defaultdict(list)
    for work in outside:
        for uuid, units, memory, profile, start in work.slices:
            found[uuid].append((work, SliceGrant(uuid, -1, units, memory, profile, start)))
    return found


def _work(work: Outside, scope: Scope) -> dict[str, Any]:
    """Who it is, and since when, is an operator's to know."""
    known = scope.user.is_operator
    whole = all(units == WHOLE and not profile for _uuid, units, _memory, profile, _start in work.slices)
    slices = ngettext("%(n)d GPU slice", "%(n)d GPU slices", len(work.slices))
    gpus = (ngettext("%(n)d GPU", "%(n)d GPUs", len(work.slices)) if whole else slices) % {"n": len(work.slices)}
    cores = _("%(cores)s cores") % {"cores": present.cores(work.cpus)}
    return {
        "who": _who(work, scope),
        "what": ", ".join([*([gpus] if work.slices else []), cores, present.memory(work.memory_mb)]),
        "since": work.since if known else None,
    }


def _who(work: Outside, scope: Scope) -> str:
    if not scope.user.is_operator:
        return _("outside")
    return _("%(work)s of %(owner)s") % {"work": work.name, "owner": work.owner} if work.owner else work.name


def _device(
    device: Device,
    held: Sequence[Allocation],
    others: Sequence[tuple[Outside, SliceGrant]],
    scope: Scope,
    *,
    away: bool,
) -> dict[str, Any]:
    """`away` says that its node takes no work."""
    open_ = _open(device, held, [grant for _work, grant in others])
    slices = [_slice(allocation, scope) for allocation in held]
    slices += [_part(grant) | {"holder": _who(work, scope), "url": None, "outside": True} for work, grant in others]
    carved = bool(device.layout) or any(each["left"] is not None for each in slices)
    return {
        "name": f"gpu{device.index}",
        "model": device.model.name,
        "memory": present.memory(device.model.memory_mb),
        "problem": device.problem,
        "unusable": bool(device.problem) or away,
        "emulated": device.emulated,
        "layout": _layout(device.layout),
        "carved": carved,
        "open": [_drawn(profile, start) for profile, start in open_],
        "free": _left(device, open_, [*held, *(grant for _work, grant in others)], carved=carved),
        "slices": slices,
    }


def _layout(layout: Sequence[tuple[str, int]]) -> str:
    """How many instances there are of each profile."""
    counts = Counter(profile for profile, _start in layout)
    return ", ".join(f"{count} × {profile}" for profile, count in sorted(counts.items()))


def _open(device: Device, held: Sequence[Allocation], others: Sequence[SliceGrant]) -> list[tuple[str, int]]:
    """Of what is carved for good the instances that nobody holds."""
    table, taken = mig.profiles(device.model.name), 0
    for profile, start in [
        *((each.profile, each.start) for each in held),
        *((each.profile, each.start) for each in others),
    ]:
        if profile in table and start is not None and start >= 0:
            taken |= table[profile].bits(start)
    return [(name, start) for name, start in device.layout if name in table and not table[name].bits(start) & taken]


def _left(
    device: Device, open_: Sequence[tuple[str, int]], held: Sequence[Allocation | SliceGrant], *, carved: bool
) -> str:
    if device.layout:
        numbers = {"left": len(open_), "all": len(device.layout)}
        return _("%(left)d of %(all)d instances free") % numbers
    units = sum(each.units for each in held)
    if carved:
        slices = mig.COMPUTE_SLICES - units // mig.COMPUTE_UNITS
        return _("%(left)d of %(all)d compute slices free") % {"left": max(0, slices), "all": mig.COMPUTE_SLICES}
    return _("%(share)s free") % {"share": present.percent(max(0, WHOLE - units))}


def _slice(allocation: Allocation, scope: Scope) -> dict[str, Any]:
    job = allocation.attempt.job
    known = job.team_id in scope.team_ids or scope.user.is_operator
    return _part(allocation) | {
        "holder": job.name if known else _("another team"),
        # A job's page is its own team's alone.
        "url": present.job_url(job.pk) if job.team_id in scope.team_ids else None,
    }


def _part(held: Allocation | SliceGrant) -> dict[str, Any]:
    """What is held, and where it is drawn, in percent of the device: by its memory slices, or its share of compute."""
    if held.profile and held.start is not None:
        words = _("%(profile)s from %(start)d") % {"profile": held.profile, "start": held.start}
        return {"what": words, **_drawn(held.profile, held.start)}
    return {"what": _share(held), "left": None, "width": held.units / 10}


def _drawn(profile: str, start: int) -> dict[str, float]:
    memory = next((table[profile].memory for table in mig.MODELS.values() if profile in table), 0)
    return {"left": start * 100 / mig.MEMORY_SLICES, "width": memory * 100 / mig.MEMORY_SLICES}


def _share(held: Allocation | SliceGrant) -> str:
    share = present.percent(held.units)
    return f"{share} · {present.memory(held.memory)}" if held.memory else share
