"""Django's entry into the project package: loads what must be there in every process, once."""

from django.apps import AppConfig


class HaeinConfig(AppConfig):
    name = "haein"
    label = "haein"

    def ready(self) -> None:
        # These need the settings, which are complete only now.
        from haein import celery, checks, logs
        from haein.cluster import isolation
        from haein.tenants import services

        logs.configure()
        checks.register()
        celery.app.set_default()
        services.register_gate(isolation.refusal)
