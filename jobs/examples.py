"""The examples that come with Haein, each ready to run with one press."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from haein.lib.errors import NotFound
from haein.tenants.scope import Scope
from jobs import services, uploads
from jobs.models import Job, Upload
from jobs.spec import Spec


@dataclass(frozen=True, slots=True)
class Example:
    """A file of examples/ and the job that runs it."""

    file: str
    title: str
    spec: Spec


_SHAPE: Any = {"gpus": 1, "share": 500, "cpus": 500, "memory_mb": 1024}

EXAMPLES = {
    "digits": Example(
        "digits_train.py",
        gettext_noop("Train on handwritten digits"),
        Spec(name="digits", command="python digits_train.py", time_limit_s=1800, tags=["example"], **_SHAPE),
    ),
    "fails": Example(
        "fails.py",
        gettext_noop("A job that fails"),
        Spec(name="fails", command="python fails.py", time_limit_s=600, tags=["example"], **_SHAPE),
    ),
    "ignores_sigterm": Example(
        "ignores_sigterm.py",
        gettext_noop("A job that ignores the polite signal"),
        Spec(name="ignores-sigterm", command="python ignores_sigterm.py", time_limit_s=600, tags=["example"], **_SHAPE),
    ),
}


def get(name: str) -> Example:
    """Raises NotFound."""
    try:
        return EXAMPLES[name]
    except KeyError:
        raise NotFound(_("There is no such example.")) from None


def upload(name: str, *, scope: Scope) -> Upload:
    """The example's file, kept as an upload of the reader's team. Raises NotFound, Invalid."""
    file = Path(settings.BASE) / "examples" / get(name).file
    with file.open("rb") as source:
        return uploads.keep(source, team=scope.team, name=file.name, size=file.stat().st_size)


def run(name: str, *, scope: Scope) -> Job:
    """Submit the example as a job of the reader's team. Raises NotFound, Invalid, Problem."""
    return services.submit(scope=scope, spec=get(name).spec, upload=upload(name, scope=scope))
