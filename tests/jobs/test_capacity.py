"""Law 2: what is held, what is free and what there is agree, whoever looks and however many decide at once."""

from collections.abc import Callable
from itertools import cycle

import pytest

from haein.cluster.models import Device
from haein.lib import clock
from haein.placement import ledger
from jobs import lifecycle, scheduling, snapshots
from jobs.models import Allocation, Attempt, Job
from tests.cast import Person, together

Submit = Callable[..., Job]
READY = frozenset({"python"})


def balance() -> dict[object, ledger.Balance]:
    """The rows against capacity, and against what placement is told. Raises ImbalanceError."""
    kinds = {True: ledger.Kind.UNBILLED, False: ledger.Kind.BILLABLE}
    held = Allocation.objects.filter(ended_at=None)
    return ledger.check(
        [ledger.Capacity(device.pk, device.capacity, device.usable) for device in Device.objects.all()],
        [ledger.Holding(row.device_id, row.units, kinds[row.billable_from is None]) for row in held],
        {device.id: device.free for node in snapshots.now().nodes for device in node.devices},
    )


def free() -> int:
    return sum(each.free for each in balance().values())


def test_fractions_share_a_device_to_the_last_thousandth(big: None, alice: Person, submit: Submit) -> None:
    for share in (500, 300, 199, 1):
        submit(alice, share=share)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 4
    assert Allocation.objects.values("device").distinct().count() == 1
    assert free() == 7000


def test_a_job_of_several_gpus_has_them_on_devices_of_their_own(big: None, alice: Person, submit: Submit) -> None:
    submit(alice, gpus=3, share=250)
    scheduling.run_pass(now=clock.now(), ready=READY)
    assert sorted(Allocation.objects.values_list("units", flat=True)) == [250, 250, 250]
    assert Allocation.objects.values("device").distinct().count() == 3


def test_a_job_without_gpus_holds_cores_only(big: None, alice: Person, submit: Submit) -> None:
    submit(alice, gpus=0, cpus=64_000)
    waits = submit(alice, gpus=0, cpus=100)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1
    assert not Allocation.objects.exists()
    assert free() == 8000
    waits.refresh_from_db()
    assert waits.state == "queued"


@pytest.mark.django_db(transaction=True)
def test_many_passes_at_once_never_give_more_than_there_is(big: None, alice: Person, submit: Submit) -> None:
    shapes = cycle([(1, 1000), (2, 500), (1, 330), (3, 125), (1, 7), (4, 1000), (0, 1000)])
    for _, (gpus, share) in zip(range(70), shapes, strict=False):
        submit(alice, gpus=gpus, share=share)
    placed = together(lambda _: scheduling.run_pass(now=clock.now(), ready=READY), 6)
    balance()
    assert sum(placed) == Attempt.objects.count() == Job.objects.filter(state="starting").count()
    assert sum(placed) < 70
    assert not Attempt.objects.exclude(number=1).exists()


@pytest.mark.django_db(transaction=True)
def test_what_an_ended_attempt_held_is_free_again(big: None, alice: Person, submit: Submit) -> None:
    submit(alice, gpus=8)
    second = submit(alice, gpus=8)
    scheduling.run_pass(now=clock.now(), ready=READY)
    assert free() == 0
    attempt = Attempt.objects.get()
    Job.objects.filter(pk=attempt.job_id).update(cancel_requested_at=clock.now())
    lifecycle._drop([attempt.pk], clock.now())
    assert free() == 8000
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1
    assert Attempt.objects.get(state="starting").job_id == second.pk
