"""What the workers do for tenants: once an hour, forget what nobody can come back to."""

from celery import shared_task

from haein.tenants import api


@shared_task(name="tenants.forget_old_keys")
def forget_old_keys() -> None:
    api.forget_old_keys()
