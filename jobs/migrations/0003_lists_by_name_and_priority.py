from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0002_append_only"),
        ("tenants", "0002_append_only"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name="job",
            index=models.Index(fields=["team", "name", "-id"], name="job_by_team_name"),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(fields=["team", "-priority", "-id"], name="job_by_team_priority"),
        ),
    ]
