"""Reads what people type into a job's spec, and says what is wrong in their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from haein.cluster.models import DeviceModel
from haein.lib.errors import Invalid
from haein.placement.policies import HAEIN, POLICIES
from haein.tenants.models import Team, Token
from jobs import indexes, replays, windows
from jobs.explaining import Offers
from jobs.indexes import MOST_TEXT
from jobs.spec import MOST_WORKERS, Preemption, Spec

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)?")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1, "": 60}


class SpanField(forms.CharField):
    """A span of time as people write it: 90, 30m, 2h, 1d 12h; in seconds. A bare number is minutes."""

    def to_python(self, value: Any) -> Any:
        text = (super().to_python(value) or "").strip().lower()
        if not text and not self.required:
            return None
        parts = _SPAN.findall(text)
        if not parts or _SPAN.sub("", text).strip(" ,"):
            raise forms.ValidationError(_("Write a time such as 30m, 2h or 1d 12h."))
        return round(sum(float(count) * _SECONDS[unit] for count, unit in parts))

    def prepare_value(self, value: Any) -> Any:
        return span_text(value) if isinstance(value, int) else value


def span_text(seconds: int) -> str:
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


class JobForm(forms.Form):
    """The new-job page. Its fields are in people's units; `spec()` is in the system's."""

    name = forms.CharField(label=_("Name"), max_length=120)
    command = forms.CharField(
        label=_("Command"),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
        help_text=_("Runs in the job's own folder, by the shell."),
    )
    upload = forms.FileField(
        label=_("Files"),
        required=False,
        help_text=_("One file, or a .zip or .tar.gz that is unpacked into the folder."),
    )
    environment = forms.CharField(label=_("Environment"), help_text=_("A Python environment of this cluster."))
    gpus = forms.IntegerField(label=_("GPUs"), min_value=0, max_value=64)
    share = forms.DecimalField(
        label=_("Share of each GPU, in percent"), min_value=Decimal("0.1"), max_value=100, decimal_places=1
    )
    cpus = forms.DecimalField(label=_("CPU cores"), min_value=Decimal("0.1"), decimal_places=3, max_digits=8)
    memory_gb = forms.DecimalField(
        label=_("Memory, in GiB"), min_value=Decimal("0.0625"), decimal_places=4, max_digits=10
    )
    profile = forms.CharField(
        label=_("MIG profile"),
        required=False,
        widget=forms.Select,
        help_text=_("Instead of a share: an instance of a GPU, for this job alone."),
    )
    gpu_model = forms.CharField(label=_("GPU model"), required=False, widget=forms.Select)
    gpu_memory_gb = forms.DecimalField(
        label=_("GPU memory, in GiB"),
        required=False,
        min_value=Decimal("0.1"),
        decimal_places=4,
        max_digits=10,
        help_text=_("Of a share; as large a part of the memory if left empty."),
    )
    workers = forms.IntegerField(
        label=_("Workers"),
        min_value=1,
        max_value=MOST_WORKERS,
        required=False,
        help_text=_("How many start together, or not at all. What is asked for above is for each of them."),
    )
    near = forms.ChoiceField(
        label=_("Near each other"),
        required=False,
        choices=[
            ("any", _("anywhere")),
            ("node", _("on one node")),
            ("rack", _("in one rack")),
            ("pod", _("in one pod")),
        ],
    )
    near_required = forms.BooleanField(label=_("Wait until they can be that near"), required=False)
    pool = forms.CharField(label=_("Pool"), required=False, widget=forms.Select)
    labels = forms.CharField(
        label=_("Labels"), required=False, help_text=_("That the node must have, with commas between them.")
    )
    time_limit = SpanField(label=_("Time limit"), help_text=_("For example 30m, 2h or 1d 12h. The job is ended then."))
    retries = forms.IntegerField(
        label=_("Retries"), min_value=0, max_value=20, help_text=_("How often it is run again by itself when it fails.")
    )
    priority = forms.IntegerField(label=_("Priority"), min_value=-100, max_value=100, help_text=_("Higher goes first."))
    preemption = forms.ChoiceField(
        label=_("When others need its GPUs"),
        required=False,
        choices=[
            (Preemption.ALLOWED.value, _("it yields those that its team has borrowed")),
            (Preemption.NEVER.value, _("it keeps them: it waits for GPUs that nobody can claim back")),
            (Preemption.SPOT.value, _("it is the first to go: it runs on idle GPUs of others alone")),
        ],
        help_text=_(
            "GPUs beyond what your team is guaranteed are borrowed. Whoever is guaranteed them may claim them back: "
            "the job is told, and after a while asked to end."
        ),
    )
    checkpoints = forms.BooleanField(
        label=_("It saves its work when it gets the signal SIGUSR1"),
        required=False,
        help_text=_(
            "Then it gets that signal before it must end. It says that its work is saved by touching the file "
            "$HAEIN_CHECKPOINT; its next run begins in the same folder."
        ),
    )
    requeue = forms.BooleanField(
        label=_("Queue it again after it had to yield"),
        required=False,
        help_text=_("With its old place in the queue. Otherwise it ends there."),
    )
    array = forms.CharField(
        label=_("Array"),
        required=False,
        max_length=MOST_TEXT,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=_(
            "A job for each index, at most 1,000: 0-9, 1,3,7 or 0-30:10. Each finds its own in $HAEIN_ARRAY_INDEX."
        ),
    )
    tags = forms.CharField(label=_("Tags"), required=False, help_text=_("With commas between them."))
    variables = forms.CharField(
        label=_("Environment variables"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "placeholder": "KEY=value"}),
        help_text=_("One KEY=value a line."),
    )

    def offer(self, offers: Offers) -> None:
        """Show what this cluster has; what it can't do at all is not asked for, unless it was asked for before."""
        self._choose("profile", _("none"), [(name, name) for name in offers.profiles])
        self._choose("gpu_model", _("any"), [(name, name) for name in offers.models])
        self._choose("pool", _("any"), [(name, name) for name in offers.pools])
        if offers.labels:
            self.fields["labels"].help_text = _("That the node must have; here: %(labels)s.") % {
                "labels": ", ".join(offers.labels)
            }
        elif not self["labels"].value():
            del self.fields["labels"]
        if not offers.gangs and str(self["workers"].value() or 1) == "1":
            for name in ("workers", "near", "near_required"):
                del self.fields[name]

    def asks_where(self) -> bool:
        """Whether something is asked for, or wrong, in the part of the form that is folded otherwise."""
        names = [name for name in ("gpu_model", "gpu_memory_gb", "pool", "labels") if name in self.fields]
        return any(self[name].value() or self[name].errors for name in names)

    def _choose(self, name: str, none: Promise, choices: list[tuple[str, str]]) -> None:
        asked = str(self[name].value() or "")
        if not choices and not asked:
            del self.fields[name]
            return
        known = {value for value, _label in choices}
        more = [(asked, asked)] if asked and asked not in known else []
        self.fields[name].widget.choices = [("", none), *choices, *more]

    def clean_labels(self) -> list[str]:
        return [label.strip() for label in self.cleaned_data["labels"].split(",") if label.strip()]

    def clean_tags(self) -> list[str]:
        return [tag.strip() for tag in self.cleaned_data["tags"].split(",") if tag.strip()]

    def clean_variables(self) -> dict[str, str]:
        lines = [line for line in self.cleaned_data["variables"].splitlines() if line.strip()]
        wrong = next((line for line in lines if "=" not in line), None)
        if wrong is not None:
            raise forms.ValidationError(_("“%(line)s” has no = in it: write KEY=value."), params={"line": wrong})
        pairs = (line.split("=", 1) for line in lines)
        return {name.strip(): value for name, value in pairs}

    def clean_array(self) -> str:
        array: str = self.cleaned_data["array"]
        try:
            indexes.read(array)
        except ValueError as fault:
            raise forms.ValidationError(str(fault)) from fault
        return array

    def slice(self) -> Spec | None:
        """What it asks of the cluster as far as it is filled in; None while that is not even the number of GPUs."""
        data = self.cleaned_data
        if data.get("gpus") is None or data.get("share") is None:
            return None
        return Spec(
            name="",
            command="",
            gpus=data["gpus"],
            share=int(data["share"] * 10),
            gpu_memory_mb=int((data.get("gpu_memory_gb") or 0) * 1024),
            profile=data.get("profile", ""),
            gpu_model=data.get("gpu_model", ""),
            cpus=int((data.get("cpus") or Decimal("0.1")) * 1000),
            memory_mb=int((data.get("memory_gb") or 1) * 1024),
            workers=data.get("workers") or 1,
            near=data.get("near") or "any",
            near_required=data.get("near_required", False),
            pool=data.get("pool", ""),
            labels=data.get("labels") or [],
            time_limit_s=data.get("time_limit") or 0,
            array=data.get("array", ""),
        )

    def spec(self) -> Spec:
        """What the cleaned form asks for."""
        data, asked = self.cleaned_data, self.slice()
        assert asked is not None  # a form without faults has its GPUs
        return replace(
            asked,
            name=data["name"],
            command=data["command"].replace("\r\n", "\n"),
            environment=data["environment"].strip(),
            variables=data["variables"],
            retries=data["retries"],
            priority=data["priority"],
            preemption=data["preemption"] or Preemption.ALLOWED.value,
            checkpoints=data["checkpoints"],
            requeue=data["requeue"],
            tags=data["tags"],
        )

    def explain(self, faults: dict[str, str]) -> None:
        """Put the spec's faults beside the fields that people see."""
        for name, sentence in faults.items():
            field = {
                "memory_mb": "memory_gb",
                "gpu_memory_mb": "gpu_memory_gb",
                "time_limit_s": "time_limit",
            }.get(name, name)
            self.add_error(field if field in self.fields else None, sentence)

    @staticmethod
    def initial_of(spec: Spec) -> dict[str, Any]:
        return {
            "name": spec.name,
            "command": spec.command,
            "environment": spec.environment,
            "gpus": spec.gpus,
            "share": Decimal(spec.share) / 10,
            "cpus": Decimal(spec.cpus) / 1000,
            "memory_gb": Decimal(spec.memory_mb) / 1024,
            "profile": spec.profile,
            "gpu_model": spec.gpu_model,
            "gpu_memory_gb": Decimal(spec.gpu_memory_mb) / 1024 if spec.gpu_memory_mb else "",
            "workers": spec.workers,
            "near": spec.near,
            "near_required": spec.near_required,
            "pool": spec.pool,
            "labels": ", ".join(spec.labels),
            "time_limit": spec.time_limit_s,
            "retries": spec.retries,
            "priority": spec.priority,
            "preemption": spec.preemption,
            "checkpoints": spec.checkpoints,
            "requeue": spec.requeue,
            "tags": ", ".join(spec.tags),
            "array": spec.array,
            "variables": "\n".join(f"{name}={value}" for name, value in spec.variables.items()),
        }


class TokenForm(forms.Form):
    """A token for a program."""

    name = forms.CharField(
        label=_("Name"), max_length=80, help_text=_("The program or machine that will use it: laptop, nightly CI.")
    )
    scopes = forms.MultipleChoiceField(
        label=_("What it may do"),
        choices=Token.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=Token.Scope.values,
    )
    days = forms.TypedChoiceField(
        label=_("Expires"),
        choices=[
            ("7", _("in a week")),
            ("30", _("in 30 days")),
            ("90", _("in 90 days")),
            ("365", _("in a year")),
            ("", _("never")),
        ],
        coerce=int,
        empty_value=None,
        required=False,
        initial="90",
    )


class PriceForm(forms.Form):
    """An operator's new price."""

    device_model = forms.ModelChoiceField(label=_("Device model"), queryset=DeviceModel.objects.order_by("name"))
    per_hour = forms.DecimalField(label=_("Price of an hour"), min_value=0, max_digits=12, decimal_places=6)
    valid_from = forms.DateTimeField(
        label=_("Valid from (UTC)"), widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )


class _TeamField(forms.ModelChoiceField):  # type: ignore[type-arg]  # Django's takes none when it runs
    def label_from_instance(self, team: Team) -> str:
        return f"{team.organization.name} / {team.name}"


class WindowForm(forms.Form):
    """GPUs that an operator reserves, or nodes that go out."""

    kind = forms.ChoiceField(
        label=_("What"),
        choices=[
            ("maintenance", _("nodes go out for maintenance")),
            ("reservation", _("GPUs are reserved for a team")),
        ],
        widget=forms.RadioSelect,
        initial="maintenance",
    )
    nodes = forms.CharField(label=_("Nodes"), required=False, help_text=_("By their names, with commas between them."))
    rack = forms.ChoiceField(label=_("Or a whole rack"), required=False)
    team = _TeamField(
        label=_("Team"),
        required=False,
        queryset=Team.objects.select_related("organization").order_by("organization__name", "name"),
    )
    gpus = forms.IntegerField(label=_("GPUs"), required=False, min_value=1, max_value=100_000)
    model = forms.ModelChoiceField(
        label=_("GPU model"), required=False, queryset=DeviceModel.objects.order_by("name"), to_field_name="name"
    )
    starts_at = forms.DateTimeField(label=_("From (UTC)"), widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    ends_at = forms.DateTimeField(label=_("To (UTC)"), widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    reason = forms.CharField(
        label=_("Why"), max_length=windows.MOST_REASON, help_text=_("Whoever is kept out will read it.")
    )

    def offer(self, racks: Sequence[str]) -> None:
        """The racks that there are; where nobody knows of any, none is asked for."""
        if racks:
            self.fields["rack"].choices = [("", _("none")), *((rack, rack) for rack in racks)]  # type: ignore[attr-defined]
        else:
            del self.fields["rack"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("kind") == "reservation":
            for name in ("team", "gpus", "model"):
                if data.get(name) is None and name not in self.errors:
                    self.add_error(name, forms.ValidationError(_("This is needed for a reservation.")))
        return data

    def node_names(self) -> list[str]:
        return [name for name in re.split(r"[\s,]+", self.cleaned_data["nodes"]) if name]

    def explain(self, faults: Mapping[str, str]) -> None:
        for name, sentence in faults.items():
            self.add_error(name if name in self.fields else None, sentence)


class DrainForm(forms.Form):
    """A node that goes out: at once, or from one moment to another."""

    reason = forms.CharField(required=False)
    starts_at = forms.DateTimeField(required=False)
    ends_at = forms.DateTimeField(required=False)


POLICY_NAMES = {
    "firstfit": _("the first node with room"),
    "bestfit": _("the node with the least left"),
    "fgd": _("least fragmentation, as published"),
    "packed": _("fill what is begun, keep nodes whole"),
    "haein": _("the default, settled for this mix of jobs"),
}


class ReplayForm(forms.Form):
    """What an operator wants replayed; `asked()` is in the system's units."""

    source = forms.ChoiceField(
        label=_("Jobs"),
        choices=[("own", _("Our own jobs, submitted in these days")), ("file", _("A trace from a file"))],
        widget=forms.RadioSelect,
        initial="own",
    )
    since = forms.DateField(label=_("First day"), widget=forms.DateInput(attrs={"type": "date"}), required=False)
    until = forms.DateField(label=_("Last day"), widget=forms.DateInput(attrs={"type": "date"}), required=False)
    trace = forms.FileField(
        label=_("Trace"),
        required=False,
        help_text=_("A CSV with openb’s columns and its three times, or with Muri’s; up to 8 MiB, .gz too."),
    )
    policies = forms.MultipleChoiceField(
        label=_("Policies"),
        choices=[(name, POLICY_NAMES[name]) for name in POLICIES],
        widget=forms.CheckboxSelectMultiple,
        initial=["bestfit", HAEIN.name],
    )
    own = forms.BooleanField(label=_("Our cluster as it is"), required=False, initial=True)
    nodes = forms.CharField(
        label=_("And with other numbers of nodes"),
        required=False,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
        help_text=_("With commas between them: 96, 129, 160."),
    )
    kind = forms.ChoiceField(
        label=_("Those nodes are"),
        choices=[("ours", _("like ours, in turn")), ("other", _("all as described here:"))],
        widget=forms.RadioSelect,
        initial="ours",
    )
    gpus = forms.IntegerField(label=_("GPUs"), min_value=1, max_value=64, required=False)
    model = forms.CharField(label=_("GPU model"), max_length=80, required=False)
    cpus = forms.DecimalField(label=_("CPU cores"), min_value=1, max_value=100_000, decimal_places=3, required=False)
    memory_gb = forms.DecimalField(
        label=_("Memory, in GiB"), min_value=1, max_value=1_000_000, decimal_places=4, required=False
    )

    def clean_nodes(self) -> tuple[int, ...]:
        words = self.cleaned_data["nodes"].replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) < 9 for word in words):
            raise forms.ValidationError(_("Write whole numbers with commas between them, such as 96, 129, 160."))
        return tuple(dict.fromkeys(int(word) for word in words))

    def clean(self) -> dict[str, Any]:
        """Only what belongs to what was chosen has to be there, and in order."""
        data: dict[str, Any] = super().clean() or {}
        days, kind = ("since", "until"), ("gpus", "model", "cpus", "memory_gb")
        from_file = data.get("source") == "file"
        described = data.get("kind") == "other" and bool(data.get("nodes"))
        for name in (*(days if from_file else ("trace",)), *(() if described else kind)):
            self.errors.pop(name, None)
        if from_file:
            self._need("trace", _("Choose a file, or replay our own jobs."))
        for name in () if from_file else days:
            self._need(name, _("Choose a day."))
        for name in kind if described else ():
            self._need(name, _("Say it, or take nodes like ours."))
        return data

    def clean_trace(self) -> Any:
        """Looked at here as well, so that all that is wrong is said at once."""
        file = self.cleaned_data["trace"]
        if file:
            try:
                replays.check_file(file.name, file.read(replays.MOST_BYTES + 1))
            except Invalid as invalid:
                raise forms.ValidationError(invalid.message) from invalid
            file.seek(0)
        return file

    def _need(self, name: str, sentence: Any) -> None:
        if not self.cleaned_data.get(name) and name not in self.errors:
            self.add_error(name, sentence)

    def asked(self) -> replays.Asked:
        """What the cleaned form asks for."""
        data = self.cleaned_data
        own_jobs = data["source"] == "own"
        kind = None
        if data["kind"] == "other" and data["nodes"]:
            memory_mb = int(data["memory_gb"] * 1024)
            kind = replays.NodeKind(data["gpus"], data["model"].strip(), int(data["cpus"] * 1000), memory_mb)
        return replays.Asked(
            policies=tuple(data["policies"]),
            own=data["own"],
            nodes=data["nodes"],
            kind=kind,
            since=_midnight(data["since"]) if own_jobs else None,
            until=_midnight(data["until"]) + timedelta(days=1) if own_jobs else None,
        )

    @staticmethod
    def initial_of(ours: replays.NodeKind | None, today: date) -> dict[str, Any]:
        """The last 30 days, and a node like one of ours."""
        days = {"since": today - timedelta(days=29), "until": today}
        if ours is None:
            return {**days, "kind": "other", "own": False}
        sizes = {"cpus": Decimal(ours.cpus) / 1000, "memory_gb": ours.memory_mb // 1024}
        return {**days, "gpus": ours.gpus, "model": ours.model, **sizes}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
