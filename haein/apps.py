"""Django's entry into the project package: loads what must be there in every process, once."""

from django.apps import AppConfig


class HaeinConfig(AppConfig):
    name = "haein"
    label = "haein"

    def ready(self) -> None:
        from haein import celery, checks, logs  # needs the settings, which are complete only now

        logs.configure()
        checks.register()
        celery.app.set_default()
