"""Brings the cast and its engine on where there is a stage: tests of the pure parts also run without Django.

And the one Slurm that all tests of a session share.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("django"):
        config.pluginmanager.import_plugin("tests.cast")
        config.pluginmanager.import_plugin("tests.jobs.engine")
    config.pluginmanager.import_plugin("tests.slurmlab")
