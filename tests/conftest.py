"""Brings the cast on where there is a stage for it: tests of the pure parts also run without Django (-p no:django).

And the one Slurm that all tests of a session share.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("django"):
        config.pluginmanager.import_plugin("tests.cast")
    config.pluginmanager.import_plugin("tests.slurmlab")
