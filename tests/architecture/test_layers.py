"""Rows point the way imports do: down. (`make lint` holds the imports themselves.)"""

from itertools import chain

from django.apps import apps
from django.db.models import PROTECT, ForeignKey, Model

# From the top down; a model may point to its own layer and to those below it.
LAYERS = ["dashboard", "billing", "jobs", "telemetry", "cluster", "tenants"]
OURS = [model for model in apps.get_models() if model._meta.app_label in LAYERS]


def links(model: type[Model]) -> list[ForeignKey]:  # type: ignore[type-arg]
    return [field for field in model._meta.get_fields() if isinstance(field, ForeignKey)]


def test_no_key_points_upward() -> None:
    upward = [
        f"{model._meta.label}.{field.name} -> {field.related_model._meta.label}"
        for model in OURS
        for field in links(model)
        if LAYERS.index(field.related_model._meta.app_label) < LAYERS.index(model._meta.app_label)
    ]
    assert upward == []


def test_every_layer_that_has_rows_is_known() -> None:
    assert {model._meta.app_label for model in OURS} <= set(LAYERS)
    assert "jobs" in {model._meta.app_label for model in OURS}


def test_nothing_of_a_bill_or_a_job_goes_when_what_it_points_to_goes() -> None:
    """PROTECT everywhere: a row that money or history hangs on is never deleted along with another."""
    weak = [
        f"{model._meta.label}.{field.name}"
        for model, field in chain.from_iterable(((model, field) for field in links(model)) for model in OURS)
        if field.remote_field.on_delete is not PROTECT
    ]
    assert weak == ["jobs.Job.cloned_from"]  # the copy outlives the original
