"""Settings refuse nonsense and say which of them it is."""

from pathlib import Path

import pytest

from haein.lib.env import Environment, Misconfigured


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    file = tmp_path / "haein.env"
    file.write_text("# made by a test\nHAEIN_SHADE=blue\nHAEIN_COUNT=7\nHAEIN_URL=unix://:a=b@/sock?db=0\n\n")
    return Environment(file)


def test_the_file_is_read_and_the_process_environment_wins(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.text("HAEIN_SHADE") == "blue"
    monkeypatch.setenv("HAEIN_SHADE", "green")
    assert env.text("HAEIN_SHADE") == "green"


def test_a_value_may_hold_the_sign_that_separates_it(env: Environment) -> None:
    assert env.text("HAEIN_URL") == "unix://:a=b@/sock?db=0"


def test_what_is_nowhere_has_its_default(env: Environment) -> None:
    assert (env.text("HAEIN_X", "red"), env.number("HAEIN_X", 3), env.flag("HAEIN_X", True)) == ("red", 3, True)
    assert env.words("HAEIN_X") == []


def test_a_file_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert Environment(tmp_path / "none").text("HAEIN_SHADE", "red") == "red"


@pytest.mark.parametrize("value", ["many", "1.5", "0x10"])
def test_a_number_that_is_none_is_named(env: Environment, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HAEIN_COUNT", value)
    with pytest.raises(Misconfigured, match=f"HAEIN_COUNT is '{value}': it must be a whole number"):
        env.number("HAEIN_COUNT", 1)


def test_a_number_below_its_least_is_named(env: Environment) -> None:
    with pytest.raises(Misconfigured, match="HAEIN_COUNT is 7: it must be at least 8"):
        env.number("HAEIN_COUNT", 1, least=8)


def test_a_flag_is_1_or_0(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAEIN_FLAG", "yes")
    with pytest.raises(Misconfigured, match="HAEIN_FLAG is 'yes': it must be 1 or 0"):
        env.flag("HAEIN_FLAG")


def test_words_have_commas_between_them(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAEIN_HOSTS", " one.example, two.example ,")
    assert env.words("HAEIN_HOSTS") == ["one.example", "two.example"]
