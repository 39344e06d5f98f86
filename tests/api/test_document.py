"""The OpenAPI document is true: it is generated without a doubt, and a thousand requests made from it find no lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import reference
from haein.lib.api import CODES
from tests.architecture.sources import ROOT
from tests.house import House, made
from tests.tokens import token_of
from tests.visitor import Visitor

# What a schema can't say (an environment that there is, a shape that the cluster has) is refused with 422.
# 416: a range may be well formed and begin past the end of a file that happens to be short.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "416", "422"]
"""
SECONDS = 60


def test_the_document_is_generated_without_a_warning() -> None:
    made = subprocess.run(
        [sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn", "--file", "/dev/null"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr


def test_every_operation_is_on_the_page() -> None:
    document = reference.document()
    listed = [each.id for operations in reference.subjects("http://x").values() for each in operations]
    declared = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert sorted(listed) == sorted(declared)


def test_every_code_is_in_the_docs() -> None:
    page = (ROOT / "docs/api.md").read_text()
    for code, (status, _title) in CODES.items():
        assert f"| `{code}` | {status} |" in page


@pytest.fixture(scope="module")
def inhabited() -> Iterator[tuple[House, str]]:
    """A house with a member who has a job, and a stranger who knows its id."""
    with made() as house:
        house.up(HAEIN_API_RATE="1000000")
        visitor = Visitor(f"http://localhost:{house.port}")
        from tests.e2e.conftest import setup_link

        visitor.come_in(setup_link(house))
        job = visitor.submit("echo hello; echo x > file", name="theirs")
        yield house, job


@pytest.mark.long
@pytest.mark.parametrize("who", ["member", "stranger", "nobody"])
def test_no_request_finds_a_lie_in_it(inhabited: tuple[House, str], who: str, tmp_path: Path) -> None:
    house, _job = inhabited
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    command += [f"http://localhost:{house.port}/api/v1/schema", "--checks", "all", "--max-time", str(SECONDS)]
    command += ["--seed", "1", "-n", "20", "--continue-on-failure", "--no-color"]
    if who != "nobody":
        token = token_of(house, "operator@localhost" if who == "member" else _stranger(house))
        # That operation would end the token, and everything after it with it; nobody asks for it below.
        command += ["-H", f"Authorization: Bearer {token}", "--exclude-operation-id", "revoke_token"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8000:]
    assert "passed" in ran.stdout


def _stranger(house: House) -> str:
    """Somebody of another organization; returns the address."""
    visitor = Visitor(f"http://localhost:{house.port}")
    visitor.get("/accounts/signup/")
    fields = {"name": "Charlie", "organization": "Chaos", "email": "charlie@chaos.test"}
    status, _where = visitor.post("/accounts/signup/", **fields, password1="seven wooden blocks")
    assert status == 302
    return "charlie@chaos.test"
