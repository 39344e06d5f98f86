"""What ended runs have used of this month's GPU-hours, from the rows of before it was counted."""

from collections import Counter
from datetime import UTC
from typing import Any

from django.db import migrations
from django.utils import timezone

from haein.placement.model import Request
from haein.placement.queueing import units_of


def count(apps: Any, _editor: Any) -> None:
    began = timezone.now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    names = ("team_id", "submitted_by_id", "pool", "gpus", "share", "profile", "workers")
    ended = apps.get_model("jobs", "Attempt").objects.filter(state="ended", ended_at__gt=began).exclude(cause="lost")
    rows = ended.values_list("placed_at", "ended_at", *(f"job__{name}" for name in names))
    used: Counter[Any] = Counter()
    for placed_at, ended_at, team, member, pool, gpus, share, profile, workers in rows.iterator():
        request = Request(id=None, gpus=gpus, share=share, profile=profile, cpus=0, memory_mb=0)
        used[team, member, pool] += int(
            (ended_at - max(placed_at, began)).total_seconds() * workers * units_of(request)
        )
    spent = apps.get_model("jobs", "Spent")
    spent.objects.bulk_create(
        [
            spent(team_id=team, member_id=member, pool=pool, month=began.date(), unit_seconds=seconds)
            for (team, member, pool), seconds in used.items()
            if seconds > 0
        ]
    )


class Migration(migrations.Migration):
    dependencies = [("jobs", "0007_queue")]

    operations = [migrations.RunPython(count, migrations.RunPython.noop)]
