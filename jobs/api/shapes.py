"""What goes in and out: the API's own words for a job, its attempts, events and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, QuerySet, Subquery
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer, inline_serializer
from rest_framework import serializers

from haein.lib import api
from haein.tenants.scope import Scope
from jobs import indexes, services, spec, wording
from jobs.arrays import Array
from jobs.models import Allocation, Attempt, Event, Job, Upload
from jobs.occupancy import Holding
from jobs.promises import When
from jobs.spec import Spec
from jobs.standing import Standing
from jobs.states import State

STATES = [state.value for state in State]


_VARIABLES = {
    "type": "object",
    "propertyNames": {"pattern": "^(?!HAEIN_)[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": "string", "maxLength": 10_000, "pattern": "^[^\\x00]*$"},
    "maxProperties": 200,
    "default": {},
    "description": "environment variables; names that begin with HAEIN_ are taken",
}


_ONE_LINE = "^[^\\x00-\\x1f\\x7f]*[!-~][^\\x00-\\x1f\\x7f]*$"


_INDEX_RANGE = "[0-9]{1,9}(-[0-9]{1,9}(:[0-9]{1,9})?)?"
_INDEXES = f"^({_INDEX_RANGE}( *, *{_INDEX_RANGE})*)?$"


@extend_schema_field(_VARIABLES)
class _Variables(serializers.DictField):
    pass


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "train", {"name": "train", "command": "python train.py", "gpus": 2, "share": 500, "tags": ["night"]}
        ),
        OpenApiExample("a MIG instance", {"name": "serve", "command": "python serve.py", "profile": "1g.23gb"}),
        OpenApiExample(
            "a gang",
            {"name": "pretrain", "command": "./worker.sh", "workers": 4, "gpus": 8, "cpus": 32.0, "near": "rack"},
        ),
        OpenApiExample("an array", {"name": "sweep", "command": "./try.sh $HAEIN_ARRAY_INDEX", "array": "0-9"}),
    ]
)
class JobSpec(api.Strict):
    """A job as it is asked for. What is left out has the value shown."""

    name = api.Text(min_length=1, max_length=120, help_text="what lists show", pattern=_ONE_LINE)
    command = api.Text(
        min_length=1,
        max_length=20_000,
        help_text="run by the shell in the job's folder",
        pattern="^[^\\x00]*[!-~][^\\x00]*$",
    )
    environment = api.Text(required=False, default="python", help_text="a name of /environments, or an image")
    variables = _Variables(child=api.Text(max_length=10_000), required=False, default=dict)
    gpus = api.Whole(
        required=False,
        default=1,
        min_value=0,
        max_value=spec.MOST_GPUS,
        help_text="GPUs, shares or instances of each worker, all of one node",
    )
    share = api.Whole(
        required=False, default=1000, min_value=1, max_value=1000, help_text="thousandths of each of its GPUs"
    )
    gpu_memory_mb = api.Whole(
        required=False,
        default=0,
        min_value=0,
        max_value=spec.MOST_GPU_MEMORY_MB,
        help_text="MiB of GPU memory of each share; 0: as large a part of it as of the device",
    )
    profile = api.Text(
        required=False,
        default="",
        max_length=20,
        pattern="^([1-7]g\\.[0-9]{1,3}gb)?$",
        help_text="a MIG profile by its name: each of its GPUs is such an instance",
    )
    gpu_model = api.Text(
        required=False,
        default="",
        max_length=80,
        pattern="^[A-Za-z0-9_ .:/|-]*$",
        help_text="a device model as /nodes names it, or several: H100|H200; empty: any",
    )
    cpus = api.Number(
        required=False,
        default=1.0,
        min_value=0.1,
        max_value=spec.MOST_CPUS / 1000,
        help_text="cores, also parts of one",
    )
    memory_mb = api.Whole(
        required=False, default=2048, min_value=64, max_value=spec.MOST_MEMORY_MB, help_text="MiB of host memory"
    )
    workers = api.Whole(
        required=False,
        default=1,
        min_value=1,
        max_value=spec.MOST_WORKERS,
        help_text="how many start together or not at all; GPUs, cores and memory are for each",
    )
    near = serializers.ChoiceField(
        [near.value for near in spec.Near],
        required=False,
        default=spec.Near.ANY.value,
        help_text="how near each other the workers are best",
    )
    near_required = api.Truth(
        required=False, default=False, help_text="whether they wait rather than start farther from each other"
    )
    pool = api.Text(
        required=False,
        default="",
        max_length=60,
        pattern="^[A-Za-z0-9_.:/-]*$",
        help_text="only nodes of this pool; empty: any",
    )
    labels = serializers.ListField(
        child=api.Text(min_length=1, max_length=60, pattern="^[A-Za-z0-9_.:/=-]+$"),
        required=False,
        default=list,
        max_length=20,
        help_text="only nodes that have all of these",
    )
    time_limit_s = api.Whole(required=False, default=3600, min_value=1, max_value=spec.MOST_TIME_S, help_text="seconds")
    retries = api.Whole(required=False, default=0, min_value=0, max_value=20)
    priority = api.Whole(required=False, default=0, min_value=-100, max_value=100)
    preemption = serializers.ChoiceField(
        [each.value for each in spec.Preemption],
        required=False,
        default=spec.Preemption.ALLOWED.value,
        help_text="whether others may take its place: `allowed` while it is on borrowed GPUs, `never` (it starts only "
        "where nobody can reclaim them), `spot` (always borrowed, the first to go)",
    )
    checkpoints = api.Truth(
        required=False,
        default=False,
        help_text="whether it saves its work on SIGUSR1, and then touches the file named in $HAEIN_CHECKPOINT",
    )
    requeue = api.Truth(
        required=False, default=True, help_text="whether it waits again after it had to yield, rather than end"
    )
    tags = serializers.ListField(
        child=api.Text(min_length=1, max_length=40, pattern="^[A-Za-z0-9_.:/-]+$"),
        required=False,
        default=list,
        max_length=20,
    )
    array = api.Text(
        required=False,
        default="",
        max_length=indexes.MOST_TEXT,
        pattern=_INDEXES,
        help_text=f"indexes, as 0-9, 1,3,7 or 0-30:10: a job for each, at most {indexes.MOST_MEMBERS}; empty: one job",
    )
    upload = api.Identifier(required=False, allow_null=True, default=None, help_text="the id of an upload of your team")
    cloned_from = api.Identifier(
        required=False, allow_null=True, default=None, help_text="the job that this one repeats"
    )


def spec_of(data: Mapping[str, Any]) -> Spec:
    """The spec that a valid JobSpec stands for."""
    same = {name: data[name] for name in data if name not in {"cpus", "upload", "cloned_from"}}
    return Spec(**{**same, "cpus": round(data["cpus"] * 1000)})


class ArrayShape(serializers.Serializer[Any]):
    """An array: jobs that were submitted at once and differ by their index."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    created_at = serializers.DateTimeField()
    size = serializers.IntegerField(help_text="how many jobs it has")
    states = serializers.DictField(child=serializers.IntegerField(), help_text="how many are in each state")
    url = serializers.URLField(help_text="the page with its jobs")


def array(row: Array) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("id", "name", "created_at", "size")},
        "states": {state.value: row.states.get(state, 0) for state in State},
        "url": f"{settings.HAEIN_URL}{reverse('jobs')}?array={row.id}",
    }


class UploadShape(serializers.ModelSerializer[Upload]):
    """A file that is kept for jobs to come."""

    class Meta:
        model = Upload
        fields = ("id", "name", "size", "created_at")


class _JobUpload(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    size = serializers.IntegerField(help_text="bytes")


class ExpectedStart(serializers.Serializer[Any]):
    """When it starts, with one chance in two and with nine in ten, as worked out at a moment."""

    p50 = serializers.DateTimeField()
    p90 = serializers.DateTimeField()
    as_of = serializers.DateTimeField()


def expected_start(when: When | None) -> dict[str, Any] | None:
    return {"p50": when.p50, "p90": when.p90, "as_of": when.as_of} if when else None


class ArrayPlace(serializers.Serializer[Any]):
    """The array that a job belongs to, and its index in it."""

    id = serializers.UUIDField()
    index = serializers.IntegerField()
    size = serializers.IntegerField(allow_null=True, help_text="how many jobs it has; null in lists")


class JobShape(serializers.Serializer[Any]):
    """A job: what was asked, and how far it has come."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    command = serializers.CharField()
    environment = serializers.CharField()
    variables = serializers.DictField(child=serializers.CharField(allow_blank=True))
    gpus = serializers.IntegerField()
    share = serializers.IntegerField(help_text="thousandths of each GPU")
    gpu_memory_mb = serializers.IntegerField(help_text="of each share; 0: as large a part of it as of the device")
    profile = serializers.CharField(allow_blank=True, help_text="a MIG profile; empty: no instance")
    gpu_model = serializers.CharField(allow_blank=True, help_text="one, or several: H100|H200; empty: any")
    cpus = serializers.FloatField(help_text="cores")
    memory_mb = serializers.IntegerField()
    workers = serializers.IntegerField(help_text="GPUs, cores and memory are for each")
    near = serializers.ChoiceField([near.value for near in spec.Near])
    near_required = serializers.BooleanField()
    pool = serializers.CharField(allow_blank=True, help_text="empty: any")
    labels = serializers.ListField(child=serializers.CharField())
    time_limit_s = serializers.IntegerField()
    retries = serializers.IntegerField()
    priority = serializers.IntegerField()
    preemption = serializers.ChoiceField([each.value for each in spec.Preemption])
    checkpoints = serializers.BooleanField()
    requeue = serializers.BooleanField()
    tags = serializers.ListField(child=serializers.CharField())
    upload = _JobUpload(allow_null=True)
    cloned_from = serializers.UUIDField(allow_null=True)
    array = ArrayPlace(allow_null=True, help_text="null: it was submitted alone")
    state = serializers.ChoiceField(STATES)
    reason = serializers.CharField(allow_blank=True, help_text="why it is where it is, as a sentence")
    reason_code = serializers.CharField(allow_blank=True)
    team = api.Named()
    submitted_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    queued_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    cancel_requested = serializers.BooleanField()
    attempts = serializers.IntegerField(help_text="runs that were begun")
    preemptions = serializers.IntegerField(help_text="how often it had to yield")
    guaranteed = serializers.BooleanField(
        allow_null=True,
        help_text="whether it runs inside its team's guarantee: not on borrowed GPUs; null: neither",
    )
    preempt_at = serializers.DateTimeField(
        allow_null=True, help_text="when it is asked to end because its room is needed; its events say why"
    )
    not_before = serializers.DateTimeField(
        allow_null=True, help_text="until when it rests after a failure; `retry` tries it at once"
    )
    exit_code = serializers.IntegerField(allow_null=True, help_text="of the newest attempt")
    signal = serializers.IntegerField(allow_null=True, help_text="that ended the newest attempt")
    ahead = serializers.IntegerField(allow_null=True, help_text="waiting jobs before this one; null in lists")
    expected_start = ExpectedStart(allow_null=True, help_text="of a waiting job; null in lists, and while not known")
    sooner = serializers.ListField(
        child=serializers.CharField(), help_text="what else could be asked for that would start at once; empty in lists"
    )
    url = serializers.URLField(help_text="its page")


def jobs_seen_by(scope: Scope) -> QuerySet[Job]:
    """The reader's jobs with what a JobShape needs, in one query."""
    return with_outcome(Job.objects.seen_by(scope))


def with_outcome(jobs: QuerySet[Job]) -> QuerySet[Job]:
    newest = Attempt.objects.filter(job=OuterRef("pk"), number=OuterRef("attempts_made"))
    return jobs.select_related("team", "submitted_by", "upload").annotate(
        exit_code=Subquery(newest.values("exit_code")[:1]),
        signal=Subquery(newest.values("signal")[:1]),
        guaranteed=Subquery(newest.values("guaranteed")[:1]),
        preempt_at=Subquery(newest.values("preempt_at")[:1]),
    )


def job(row: Job, *, stands: Standing | None = None, size: int | None = None, alone: bool = False) -> dict[str, Any]:
    """A JobShape; `size`: of its array; `alone`: with the numbers of this moment in its reason, at the price of a look
    at the whole cluster.
    """
    return {
        "id": row.pk,
        "name": row.name,
        "command": row.command,
        "environment": row.environment,
        "variables": row.variables,
        "gpus": row.gpus,
        "share": row.share,
        "gpu_memory_mb": row.gpu_memory_mb,
        "profile": row.profile,
        "gpu_model": row.gpu_model,
        "cpus": row.cpus / 1000,
        "memory_mb": row.memory_mb,
        "workers": row.workers,
        "near": row.near,
        "near_required": row.near_required,
        "pool": row.pool,
        "labels": row.labels,
        "time_limit_s": row.time_limit_s,
        "retries": row.retries,
        "priority": row.priority,
        "preemption": row.preemption,
        "checkpoints": row.checkpoints,
        "requeue": row.requeue,
        "tags": row.tags,
        "upload": {"id": row.upload.pk, "name": row.upload.name, "size": row.upload.size} if row.upload else None,
        "cloned_from": row.cloned_from_id,
        "array": {"id": row.array, "index": row.array_index, "size": size} if row.array else None,
        "state": row.state,
        "reason": services.why(row) if alone else wording.sentence(row.reason, row.reason_values),
        "reason_code": row.reason,
        "team": {"id": row.team_id, "name": row.team.name},
        "submitted_by": str(row.submitted_by),
        "created_at": row.created_at,
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "preemptions": row.preemptions,
        "guaranteed": getattr(row, "guaranteed", None) if row.is_active else None,
        "preempt_at": getattr(row, "preempt_at", None) if row.is_active else None,
        "not_before": services.rests_until(row),
        "cancel_requested": row.cancel_requested_at is not None,
        "attempts": row.attempts_made,
        "exit_code": getattr(row, "exit_code", None),
        "signal": getattr(row, "signal", None),
        "ahead": stands.ahead if stands else None,
        "expected_start": expected_start(stands.when) if stands else None,
        "sooner": list(stands.sooner) if stands else [],
        "url": settings.HAEIN_URL + reverse("job", args=[row.pk]),
    }


class _Worker(serializers.Serializer[Any]):
    rank = serializers.IntegerField()
    node = serializers.CharField()


_SHARE = "thousandths; of a MIG instance, the part of its device's price that it costs"


class _Held(serializers.Serializer[Any]):
    rank = serializers.IntegerField(help_text="of the worker that holds it")
    device = serializers.CharField()
    emulated = serializers.BooleanField(help_text="whether the device is not a real one")
    share = serializers.IntegerField(help_text=_SHARE)
    profile = serializers.CharField(allow_blank=True, help_text="of a MIG instance; empty: a share or all of it")
    start = serializers.IntegerField(allow_null=True, help_text="the memory slice where a MIG instance starts")
    memory_mb = serializers.IntegerField(
        allow_null=True, help_text="MiB of the device's memory; null for a MIG instance, and where nobody counted it"
    )


class AttemptShape(serializers.Serializer[Any]):
    """One run of a job."""

    id = serializers.UUIDField()
    number = serializers.IntegerField()
    state = serializers.ChoiceField(Attempt.State.values)
    node = serializers.CharField(help_text="of the first worker")
    workers = _Worker(many=True, help_text="by rank; one, unless it is a gang's")
    devices = _Held(many=True)
    placed_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    guaranteed = serializers.BooleanField(help_text="whether it has its place by its team's guarantee")
    preempt_at = serializers.DateTimeField(allow_null=True, help_text="when it was, or is, asked to end to make room")
    checkpoint_at = serializers.DateTimeField(
        allow_null=True, help_text="when its job last said that its work is saved"
    )
    cause = serializers.CharField(allow_blank=True)
    exit_code = serializers.IntegerField(allow_null=True)
    signal = serializers.IntegerField(allow_null=True)
    detail = serializers.CharField(allow_blank=True)


def attempt(row: Attempt) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("number", "state", "placed_at", "started_at", "ended_at")},
        **{name: getattr(row, name) for name in ("cause", "exit_code", "signal", "detail")},
        **{name: getattr(row, name) for name in ("guaranteed", "preempt_at", "checkpoint_at")},
        "id": row.pk,
        "node": row.node.name,
        "workers": [
            {"rank": 0, "node": row.node.name},
            *({"rank": worker.rank, "node": worker.node.name} for worker in row.workers.all()),
        ],
        "devices": [_held(each) for each in sorted(row.allocations.all(), key=lambda each: (each.rank, each.pk))],
    }


def _held(row: Allocation) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "device": str(row.device),
        "emulated": row.device.emulated,
        "share": share_of(row),
        "profile": row.profile,
        "start": row.start,
        "memory_mb": row.memory if row.memory and not row.profile else None,
    }


def share_of(held: Allocation | Holding) -> int:
    """Thousandths: of the device, or of its price where it is a MIG instance, whose units are 56ths."""
    return held.weight if held.profile else held.units


class EventShape(serializers.Serializer[Any]):
    """One thing that happened to a job."""

    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    kind = serializers.CharField()
    old_state = serializers.CharField(allow_blank=True)
    new_state = serializers.CharField()
    attempt = serializers.IntegerField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    actor = serializers.CharField(allow_blank=True)


def event(row: Event) -> dict[str, Any]:
    same = {name: getattr(row, name) for name in ("id", "at", "kind", "old_state", "new_state", "attempt")}
    return {**same, "reason": wording.sentence(row.reason, row.reason_values), "actor": row.actor_name}


class FileShape(serializers.Serializer[Any]):
    """A file or folder of a job."""

    name = serializers.CharField()
    path = serializers.CharField()
    type = serializers.ChoiceField(["file", "folder"])
    size = serializers.IntegerField(help_text="bytes; 0 for a folder")
    modified_at = serializers.DateTimeField()


class FolderShape(serializers.Serializer[Any]):
    path = serializers.CharField(allow_blank=True)
    results = FileShape(many=True)


class MetricsShape(serializers.Serializer[Any]):
    """Readings of one attempt, in columns of equal length; null where there was no such reading."""

    attempt = serializers.IntegerField()
    emulated = serializers.BooleanField(help_text="whether GPU readings are those of emulated devices")
    t = serializers.ListField(child=serializers.IntegerField(), help_text="milliseconds since the epoch")
    cpu = serializers.ListField(child=serializers.FloatField(allow_null=True), help_text="cores in use")
    memory_mb = serializers.ListField(child=serializers.FloatField(allow_null=True))
    utilization = serializers.ListField(child=serializers.FloatField(allow_null=True), help_text="percent")
    device_memory_mb = serializers.ListField(child=serializers.FloatField(allow_null=True))


class EnvironmentShape(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    ready = serializers.BooleanField()


class EnvironmentsShape(serializers.Serializer[Any]):
    results = EnvironmentShape(many=True)


class _Holder(serializers.Serializer[Any]):
    share = serializers.IntegerField(help_text=_SHARE)
    profile = serializers.CharField(allow_blank=True, help_text="of a MIG instance")
    start = serializers.IntegerField(allow_null=True, help_text="the memory slice where a MIG instance starts")
    job = api.Named(allow_null=True, help_text="null: another team's")


class _Outside(serializers.Serializer[Any]):
    share = serializers.IntegerField(help_text=_SHARE)
    profile = serializers.CharField(allow_blank=True, help_text="of a MIG instance")
    start = serializers.IntegerField(allow_null=True, help_text="the memory slice where a MIG instance starts")
    work = serializers.CharField(allow_null=True, help_text="what it is to the engine below; null: not an operator")
    owner = serializers.CharField(allow_null=True, help_text="whose it is there; null: not an operator")


class _Instance(serializers.Serializer[Any]):
    profile = serializers.CharField()
    start = serializers.IntegerField(help_text="the memory slice where it starts")


class _Device(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    model = serializers.CharField()
    memory_mb = serializers.IntegerField()
    emulated = serializers.BooleanField()
    problem = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(
        ["free", "partly", "full", "unusable"], help_text="full: nothing more of it can be held, unusable: a problem"
    )
    used = serializers.IntegerField(help_text="thousandths: the sum of its holders' shares")
    free = serializers.IntegerField(help_text="thousandths")
    holders = _Holder(many=True)
    outside = _Outside(many=True, help_text="work that was not submitted here")
    layout = _Instance(many=True, help_text="carved for good: the instances that it gives, and nothing else")


class NodeShape(serializers.Serializer[Any]):
    """A machine and its devices, as full as they are now."""

    name = serializers.CharField()
    present = serializers.BooleanField()
    emulated = serializers.BooleanField()
    cpus = serializers.FloatField()
    cpus_used = serializers.FloatField()
    memory_mb = serializers.IntegerField()
    memory_mb_used = serializers.IntegerField()
    pool = serializers.CharField(allow_blank=True)
    labels = serializers.ListField(child=serializers.CharField())
    rack = serializers.CharField(allow_blank=True, help_text="empty: not known")
    pod = serializers.CharField(allow_blank=True, help_text="empty: not known")
    drained = serializers.BooleanField(help_text="whether it takes no new work")
    problem = serializers.CharField(allow_blank=True, help_text="why the engine below gives it no work; empty: it does")
    devices = _Device(many=True)


class NodesShape(serializers.Serializer[Any]):
    results = NodeShape(many=True)


def paged(shape: type[serializers.Serializer[Any]]) -> Any:
    """The schema of a page of these."""
    fields = {
        "next": serializers.URLField(allow_null=True, help_text="the next page"),
        "previous": serializers.URLField(allow_null=True),
        "results": shape(many=True),
    }
    return inline_serializer(f"{shape.__name__.removesuffix('Shape')}Page", fields)


def page(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A list that needs no pages."""
    return {"results": list(results)}
