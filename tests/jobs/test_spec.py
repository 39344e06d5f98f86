"""What is wrong with a spec is said all at once, field by field."""

from typing import Any

import pytest

from haein.lib.errors import Invalid
from jobs.spec import Spec

GOOD: dict[str, Any] = {"name": "train", "command": "python train.py"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "", "Give the job a name"),
        ("name", "x" * 121, "at most 120 characters"),
        ("name", "two\nlines", "none of them a line break"),
        ("command", "  ", "Say what to run"),
        ("command", "x" * 20_001, "at most 20,000 characters"),
        ("command", "a\x00b", "at most 20,000 characters"),
        ("variables", {"1ST": "x"}, "“1ST” can't name a variable"),
        ("variables", {"A-B": "x"}, "“A-B” can't name a variable"),
        ("variables", {"HAEIN_JOB_ID": "x"}, "HAEIN_JOB_ID: names that begin with HAEIN_"),
        ("variables", {"A": "x" * 10_001}, "A: a value has at most"),
        ("variables", {f"A{n}": "" for n in range(201)}, "At most 200 variables"),
        ("gpus", -1, "From 0 to 64 GPUs"),
        ("gpus", 65, "From 0 to 64 GPUs"),
        ("share", 0, "From 1 to 1000 thousandths"),
        ("share", 1001, "From 1 to 1000 thousandths"),
        ("cpus", 99, "From 100 to"),
        ("memory_mb", 63, "From 64 to"),
        ("time_limit_s", 0, "From 1 to"),
        ("time_limit_s", 90 * 86_400 + 1, "From 1 to"),
        ("retries", 21, "From 0 to 20 retries"),
        ("priority", 101, "From -100 to 100"),
        ("tags", ["a b"], "“a b”: a tag has"),
        ("tags", ["x" * 41], "a tag has at most 40"),
        ("tags", [f"t{n}" for n in range(21)], "At most 20 tags"),
    ],
)
def test_a_fault_is_named_by_its_field(field: str, value: object, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        Spec(**{**GOOD, field: value}).check()
    assert list(refused.value.fields) == [field]
    assert says in refused.value.fields[field]


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        Spec(name="", command="", gpus=-1).check()
    assert list(refused.value.fields) == ["name", "command", "gpus"]
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"gpus": 0},
        {"share": 1},
        {"share": 1000, "gpus": 64},
        {"name": "손글씨 학습 ✓"},
        {"variables": {"A": "", "_b1": "x=y\nz"}},
        {"tags": ["vision/digits", "v1.2", "a:b", "한글"]},
        {"priority": -100},
    ],
)
def test_what_is_within_the_limits_is_accepted(asked: dict[str, Any]) -> None:
    Spec(**GOOD | asked).check()
