"""The Celery application: the hands that move what the rows ask for."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "haein.settings")

app = Celery("haein")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["jobs", "billing"])
