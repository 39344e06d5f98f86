"""The accounts of the engine below: whose each is, and every change of them with what takes it back."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("cluster", "0003_engines"),
    ]

    operations = [
        migrations.CreateModel(
            name="AccountChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("begun_at", models.DateTimeField()),
                ("steps", models.JSONField()),
                ("done", models.PositiveIntegerField(default=0)),
                ("problem", models.TextField(blank=True)),
                ("undone_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="EngineAccount",
            fields=[
                ("owner", models.UUIDField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=80, unique=True)),
                ("ready", models.BooleanField(default=False)),
            ],
        ),
    ]
