"""What the workers do for billing: every few seconds, pull what has ended."""

from celery import shared_task

from billing import metering, prices


@shared_task(name="billing.meter")
def meter() -> None:
    prices.fill_gaps()
    metering.pull()
