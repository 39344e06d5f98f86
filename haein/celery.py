"""The Celery application: the hands that move what the rows ask for."""

import os
from typing import Any

import structlog
from celery import Celery, signals

from haein.cluster.registry import backend

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "haein.settings")

app = Celery("haein")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["haein.tenants", "jobs", "billing"])


def say_what_keeps_jobs_apart(sender: Any, **_: Any) -> None:
    """Said by the worker, as it is who starts jobs: other parts may run as another account, with other rights."""
    if not sender.hostname.startswith("worker@"):
        return
    found = backend().isolation()
    log = structlog.get_logger(__name__)
    (log.info if found.separates_tenants else log.warning)(found.sentence)


signals.worker_ready.connect(say_what_keeps_jobs_apart)
