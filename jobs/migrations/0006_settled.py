from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0005_replay"),
    ]

    operations = [
        migrations.CreateModel(
            name="Settled",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("candidate", models.CharField(max_length=20)),
                ("mix", models.JSONField()),
                ("cluster", models.JSONField()),
                ("at", models.DateTimeField()),
            ],
        ),
    ]
