"""A log line says what went wrong and nothing of what was being handled."""

import logging

import pytest

from haein import logs
from tests.cast import PASSWORD


def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure()
        password = PASSWORD[::-1]
        try:
            raise RuntimeError(f"{len(password)} letters")
        except RuntimeError:
            logging.getLogger("test").exception("it failed")
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    said = capsys.readouterr().err
    assert "it failed" in said
    assert f"RuntimeError: {len(PASSWORD)} letters" in said
    assert PASSWORD[::-1] not in said
