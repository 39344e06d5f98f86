"""Scopes of tokens for windows and for quotas: tokens that were made before have neither."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0003_tokens_and_idempotency"),
    ]

    operations = [
        migrations.AlterField(
            model_name="token",
            name="scopes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(
                    choices=[
                        ("jobs:read", "read jobs, logs and files"),
                        ("jobs:write", "submit, cancel and retry jobs"),
                        ("billing:read", "read prices, usage and costs"),
                        ("cluster:read", "read nodes, devices, reservations and maintenance"),
                        ("cluster:write", "reserve GPUs and take nodes out, as an operator"),
                        ("quotas:write", "set quotas, where you may"),
                    ],
                    max_length=20,
                ),
                size=None,
            ),
        ),
    ]
