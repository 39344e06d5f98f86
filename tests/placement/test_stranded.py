"""The report of stranded GPUs adds up for every shape, and says what can be placed and why the rest can't be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement import books, mig, stranded
from haein.placement.cluster import Cluster
from haein.placement.ledger import Kind
from haein.placement.mix import Mix
from haein.placement.model import WHOLE, DeviceState, Grant, Instance, NodeState, Request, Snapshot
from haein.placement.policies import HAEIN
from haein.placement.stranded import GPU, Why

from .test_layouts import SEVENTHS, fixed
from .test_slices import b200, slice_
from .worlds import ask, node

MODELS = ("B200", "L4")
LAYOUTS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("1g.23gb", 6),),
    (("3g.90gb", 0),),
    (("3g.90gb", 0), ("3g.90gb", 4)),
    (("4g.90gb", 0), ("1g.45gb", 4)),
    (("7g.180gb", 0),),
    (("1g.23gb", 0), ("1g.23gb", 3), ("2g.45gb", 4)),
)


@st.composite
def device(draw: st.DrawFn, name: str, index: int) -> DeviceState:
    whole = draw(st.sampled_from([0, 16_000]))
    base = DeviceState(
        id=f"{name}/{index}",
        node=name,
        model=draw(st.sampled_from(MODELS)),
        free=WHOLE,
        usable=draw(st.sampled_from([True, True, True, False])),
        memory_mb=whole,
        free_memory_mb=whole,
    )
    if base.model == "B200" and draw(st.booleans()):
        (carved,) = b200(name, draw(st.sampled_from(LAYOUTS))).devices
        layout: tuple[Instance, ...] = ()
        if draw(st.booleans()):
            layout = carved.slices
            held = tuple(each for each in layout if draw(st.booleans()))
            carved = carved.carved(held)
        return replace(base, capacity=56, free=carved.free, free_memory_mb=0, slices=carved.slices, layout=layout)
    units = draw(st.one_of(st.sampled_from([0, 250, 500, WHOLE]), st.integers(0, WHOLE)))
    left = whole if units == WHOLE else draw(st.integers(0, whole))
    return replace(base, free=units, free_memory_mb=left)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeState:
    count = draw(st.integers(0, 5))
    cpus, memory_mb = draw(st.integers(0, 8)) * 1000, draw(st.integers(0, 8)) * 1024
    return replace(
        node(name, cpus=cpus, memory_mb=memory_mb),
        usable=draw(st.sampled_from([True, True, True, False])),
        devices=tuple(draw(device(name, index)) for index in range(count)),
        pool=draw(st.sampled_from(["", "red"])),
        labels=draw(st.sampled_from([frozenset[str](), frozenset({"fast"})])),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    asked = Request(
        id="job",
        gpus=draw(st.integers(1, 4)),
        cpus=draw(st.integers(0, 3000)),
        memory_mb=draw(st.integers(0, 3000)),
        model=draw(st.sampled_from(["", "", "B200", "L4", "B200|L4", "H100"])),
        pool=draw(st.sampled_from(["", "", "red"])),
        labels=draw(st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"fast"})])),
    )
    if draw(st.booleans()):
        return replace(asked, profile=draw(st.sampled_from(["1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "1g.10gb"])))
    share = draw(st.sampled_from([100, 300, 500, WHOLE]))
    return replace(asked, share=share, gpu_memory_mb=draw(st.sampled_from([0, 0, 4000])) if share < WHOLE else 0)


snapshots = st.integers(0, 4).flatmap(lambda count: st.tuples(*(nodes(f"n{at}") for at in range(count)))).map(Snapshot)


def slots(each: DeviceState, asked: Request) -> int:
    """How many such slices the device could give, one after another."""
    if not each.usable or (asked.model and each.model not in asked.model.split("|")):
        return 0
    if asked.profile:
        profile = mig.profiles(each.model).get(asked.profile)
        if profile is None or (each.capacity == WHOLE and (each.free, each.free_memory_mb) != (WHOLE, each.memory_mb)):
            return 0
        if each.layout:
            return sum(one.profile == asked.profile for one in each.layout if one not in each.slices)
        taken = {slot for one in each.slices for slot in spread(each.model, one.profile, one.start)}
        found = 0
        for start in profile.starts:
            wanted = spread(each.model, asked.profile, start)
            if not taken & wanted:
                taken |= wanted
                found += 1
        return found
    if each.slices or each.layout:
        return 0
    units, memory = (WHOLE, each.memory_mb) if each.capacity != WHOLE else (each.free, each.free_memory_mb)
    needed = each.memory_mb if asked.share == WHOLE else asked.gpu_memory_mb or each.memory_mb * asked.share // WHOLE
    found = 0
    while each.memory_mb >= asked.gpu_memory_mb and units >= asked.share and memory >= needed:
        units, memory, found = units - asked.share, memory - needed, found + 1
    return found


def spread(model: str, name: str, start: int) -> set[int]:
    return set(range(start, start + mig.profiles(model)[name].memory))


def greedily(snapshot: Snapshot, asked: Request) -> int:
    """Placed one by one, each time on the devices that have the most left, until nothing goes."""
    placed = 0
    for each in snapshot.nodes:
        if not each.usable or asked.pool not in ("", each.pool) or not asked.labels <= each.labels:
            continue
        left = sorted((slots(device, asked) for device in each.devices), reverse=True)
        cpus, memory_mb = each.free_cpus, each.free_memory_mb
        while len(left) >= asked.gpus and left[asked.gpus - 1] and cpus >= asked.cpus and memory_mb >= asked.memory_mb:
            left = sorted([*(count - 1 for count in left[: asked.gpus]), *left[asked.gpus :]], reverse=True)
            cpus, memory_mb, placed = cpus - asked.cpus, memory_mb - asked.memory_mb, placed + 1
    return placed


def held(each: DeviceState) -> list[Grant]:
    """What must be held of a device for it to be as it is."""
    if each.capacity == WHOLE:
        return [Grant(each.id, WHOLE - each.free, each.memory_mb - each.free_memory_mb)]
    table = mig.profiles(each.model)
    return [Grant(each.id, 8 * table[one.profile].compute, 7 * table[one.profile].memory) for one in each.slices]


def free(snapshot: Snapshot) -> int:
    """What the books of Law 2 call free, in 7000ths."""
    grants = [grant for each in snapshot.nodes for device in each.devices for grant in held(device)]
    balances = books.check(snapshot, [(grant, Kind.BILLABLE) for grant in grants])
    return sum(
        balance.free * GPU // balance.capacity
        for (_, dimension), balance in balances.items()
        if dimension is books.Dimension.COMPUTE
    )


@given(snapshots, requests())
def test_as_many_fit_as_can_be_placed_one_by_one(snapshot: Snapshot, asked: Request) -> None:
    (report,) = stranded.of(snapshot, [asked])
    assert report.fits == greedily(snapshot, asked)


@given(snapshots, requests())
def test_the_engine_places_as_many(snapshot: Snapshot, asked: Request) -> None:
    """Several slices of carved or shared devices may be placed so that fewer fit in the end: those are left out."""
    asked = asked if asked.share == WHOLE and not asked.profile else replace(asked, gpus=1)
    (report,) = stranded.of(snapshot, [asked])
    cluster = Cluster(snapshot, HAEIN, Mix.of([asked]))
    placed = 0
    while cluster.place(asked):
        placed += 1
    assert report.fits == placed


@given(snapshots, requests())
def test_every_free_unit_is_usable_or_stranded_for_one_reason(snapshot: Snapshot, asked: Request) -> None:
    (report,) = stranded.of(snapshot, [asked])
    assert report.free == free(snapshot)
    assert report.usable + report.stranded == report.free
    assert sum(report.why.values()) == report.stranded
    assert all(units > 0 for units in report.why.values())


def why(snapshot: Snapshot, asked: Request) -> dict[Why, float]:
    """In devices."""
    (report,) = stranded.of(snapshot, [asked])
    return {reason: units / GPU for reason, units in report.why.items()}


def shared(name: str, units: int, free_mb: int) -> NodeState:
    each = DeviceState(
        id=name, node=name, model="B200", free=units, usable=True, memory_mb=16_000, free_memory_mb=free_mb
    )
    return replace(node(name), devices=(each,))


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node("a", 300, 1000)], ask(1), {Why.LITTLE: 0.3}),
        ([node("a", 1000, 750)], ask(1, 500), {Why.LITTLE: 0.25}),
        ([node("a", *[1000] * 7), node("b", *[1000] * 7)], ask(8), {Why.FEW_DEVICES: 14}),
        ([node("a", *[1000] * 8, free_cpus=3000)], ask(1), {Why.CPUS: 5}),
        ([node("a", *[1000] * 8, free_memory_mb=2048)], ask(1), {Why.MEMORY: 6}),
        ([node("a", 1000, model="L4")], ask(1, model="B200"), {Why.ELSEWHERE: 1}),
        ([replace(node("a", 1000), pool="red")], replace(ask(1), pool="blue"), {Why.ELSEWHERE: 1}),
        ([node("a", 1000)], replace(ask(1), labels=frozenset({"fast"})), {Why.ELSEWHERE: 1}),
        ([b200("a", (("1g.23gb", 6),))], ask(1, 500), {Why.OTHERWISE: 6 / 7}),
        ([b200("a", (("1g.23gb", 0),))], slice_("4g.90gb"), {Why.NO_START: 6 / 7}),
        ([node("a", 500)], slice_("1g.23gb"), {Why.OTHERWISE: 0.5}),
        ([shared("a", 800, 1000)], ask(1, 400), {Why.GPU_MEMORY: 0.8}),
        ([fixed("a", SEVENTHS)], ask(1), {Why.OTHERWISE: 1}),
        ([fixed("a", SEVENTHS, held=SEVENTHS[:2])], slice_("3g.90gb"), {Why.OTHERWISE: 5 / 7}),
    ],
)
def test_the_reason_is_the_one_that_holds(nodes: list[NodeState], asked: Request, expected: dict[Why, float]) -> None:
    assert why(Snapshot(tuple(nodes)), asked) == pytest.approx(expected)


def test_what_is_held_or_out_of_service_is_neither_free_nor_stranded() -> None:
    away = replace(node("b", 1000), usable=False)
    (report,) = stranded.of(Snapshot((node("a", 0, 1000), away)), [ask(2)])
    assert (report.fits, report.free, report.why) == (0, GPU, {Why.FEW_DEVICES: GPU})


def test_a_request_without_gpus_is_refused() -> None:
    with pytest.raises(ValueError, match="gpus"):
        stranded.of(Snapshot((node("a", 1000),)), [ask(0)])


def test_the_standard_shapes_have_instances_only_where_a_model_has() -> None:
    assert [(each.gpus, each.share) for each in stranded.standard(["L4"])] == [(1, 1000), (8, 1000), (1, 500)]
    assert [each.profile for each in stranded.standard(["B200", "L4"])[3:]] == ["1g.23gb", "3g.90gb"]
