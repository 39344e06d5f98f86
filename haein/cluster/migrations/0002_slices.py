import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cluster", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="drain_reason",
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AddField(
            model_name="node",
            name="drained_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="labels",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=60), blank=True, default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="pod",
            field=models.CharField(blank=True, max_length=60),
        ),
        migrations.AddField(
            model_name="node",
            name="pool",
            field=models.CharField(blank=True, max_length=60),
        ),
        migrations.AddField(
            model_name="node",
            name="rack",
            field=models.CharField(blank=True, max_length=60),
        ),
    ]
