"""Prints the one-time link that makes the first operator."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from haein.tenants import services


class Command(BaseCommand):
    help = "Print a one-time link that signs in the first operator; nothing when there is one already."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-url", default="", help="the address before the link; HAEIN_URL by default")
        parser.add_argument("--renew", action="store_true", help="a new link although an operator exists")

    def handle(self, *args: Any, **options: Any) -> None:
        token = services.setup_link(renew=options["renew"])
        if token:
            base = options["base_url"].rstrip("/") or settings.HAEIN_URL
            self.stdout.write(f"{base}/setup/{token}/")
