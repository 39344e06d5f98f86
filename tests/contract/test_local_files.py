"""A job's files can be listed and read by others, and no link that the job made leads them outside."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from haein.cluster.backends.base import FileFact

from .stage import LocalStage

MAKE = r"""
mkdir -p deep/er && echo data > deep/er/file && echo top > a.txt
ln -s /etc/passwd passwd; ln -s /etc etc; ln -s ../.. up; mkfifo pipe; echo odd > "$(printf 'odd\377')"
"""


@pytest.fixture
def job(local: LocalStage):  # type: ignore[no-untyped-def]
    launch, sight = local.run(MAKE)
    assert sight.exit_code == 0
    return launch.job_id


def test_it_lists_files_and_folders_by_name(local: LocalStage, job) -> None:  # type: ignore[no-untyped-def]
    facts = local.backend.list_files(job, PurePosixPath())
    assert [(str(fact.path), fact.is_folder, fact.size) for fact in facts] == [
        ("a.txt", False, 4),
        ("deep", True, 0),
        ("odd\ufffd", False, 4),
    ]
    (inner,) = local.backend.list_files(job, PurePosixPath("deep/er"))
    assert isinstance(inner, FileFact)
    assert str(inner.path) == "deep/er/file"
    assert inner.modified_at > 1e9


def test_it_opens_a_regular_file(local: LocalStage, job) -> None:  # type: ignore[no-untyped-def]
    file, fact = local.backend.open_file(job, PurePosixPath("deep/er/file"))
    with file:
        assert (file.read(), fact.size) == (b"data\n", 5)
        assert fact == local.backend.list_files(job, PurePosixPath("deep/er"))[0]


@pytest.mark.parametrize(
    "path",
    [
        "passwd",
        "etc/passwd",
        "up/secret",
        "../x",
        "/etc/passwd",
        "deep/../../x",
        "pipe",
        "deep",
        ".",
        "none",
        "a.txt/b",
    ],
)
def test_it_opens_nothing_else(local: LocalStage, job, path: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError):
        local.backend.open_file(job, PurePosixPath(path))


@pytest.mark.parametrize("path", ["etc", "up", "..", "/etc", "none", "a.txt"])
def test_it_lists_nothing_else(local: LocalStage, job, path: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError):
        local.backend.list_files(job, PurePosixPath(path))
