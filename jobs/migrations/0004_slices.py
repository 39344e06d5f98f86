import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# What was held until now were whole devices and shares of them: they cost what they held, with their part of the memory.
FILL = """
    UPDATE jobs_allocation AS held SET weight = held.units, memory = held.units * model.memory_mb::bigint / 1000
    FROM cluster_device AS device JOIN cluster_devicemodel AS model ON model.id = device.model_id
    WHERE device.id = held.device_id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("cluster", "0002_slices"),
        ("jobs", "0003_lists_by_name_and_priority"),
        ("tenants", "0003_tokens_and_idempotency"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("rank", models.PositiveIntegerField()),
            ],
            options={
                "ordering": ["rank"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="allocation",
            name="allocation_once",
        ),
        migrations.AddField(
            model_name="allocation",
            name="memory",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="allocation",
            name="profile",
            field=models.CharField(blank=True, max_length=20),
        ),
        migrations.AddField(
            model_name="allocation",
            name="rank",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="allocation",
            name="start",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="allocation",
            name="weight",
            field=models.PositiveIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AddField(
            model_name="job",
            name="gpu_memory_mb",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="job",
            name="gpu_model",
            field=models.CharField(blank=True, max_length=80),
        ),
        migrations.AddField(
            model_name="job",
            name="labels",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=60), default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="near",
            field=models.CharField(default="any", max_length=10),
        ),
        migrations.AddField(
            model_name="job",
            name="near_required",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="job",
            name="pool",
            field=models.CharField(blank=True, max_length=60),
        ),
        migrations.AddField(
            model_name="job",
            name="profile",
            field=models.CharField(blank=True, max_length=20),
        ),
        migrations.AddField(
            model_name="job",
            name="workers",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddConstraint(
            model_name="allocation",
            constraint=models.UniqueConstraint(fields=("attempt", "rank", "device"), name="allocation_once"),
        ),
        migrations.AddConstraint(
            model_name="allocation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at", None), ("start__isnull", False)),
                fields=("device", "start"),
                name="allocation_one_at_a_start",
            ),
        ),
        migrations.AddConstraint(
            model_name="allocation",
            constraint=models.CheckConstraint(
                condition=models.Q(("weight__gt", 0), ("weight__lte", 1000)), name="allocation_weight"
            ),
        ),
        migrations.AddConstraint(
            model_name="allocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("profile", ""), ("start", None)),
                    models.Q(models.Q(("profile", ""), _negated=True), ("start__isnull", False)),
                    _connector="OR",
                ),
                name="allocation_instance",
            ),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.CheckConstraint(condition=models.Q(("workers__gte", 1)), name="job_workers"),
        ),
        migrations.AddField(
            model_name="worker",
            name="attempt",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="workers", to="jobs.attempt"
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="node",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="cluster.node"),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.UniqueConstraint(fields=("attempt", "rank"), name="worker_once"),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.CheckConstraint(condition=models.Q(("rank__gte", 1)), name="worker_rank"),
        ),
    ]
