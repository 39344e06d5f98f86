#!/usr/bin/env python3
"""The operator's and the developer's commands; `python manage.py help` lists them."""

import os
import secrets
import sys

from django.core.management import execute_from_command_line

# These only read the files that they are given, also where Haein was never started: they have nothing to sign.
WITHOUT_SECRETS = {"replay"}

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "haein.settings")
    if WITHOUT_SECRETS.intersection(sys.argv[1:2]):
        os.environ.setdefault("HAEIN_SECRET_KEY", secrets.token_hex())
    execute_from_command_line(sys.argv)
