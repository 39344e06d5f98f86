"""Reads a job file, and says of everything that is wrong in it where it is and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from haein.client import fields, git_source
from haein.client.errors import HaeinError
from haein.client.git_source import GitSource
from haein.client.spec import JobSpec

MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """`line` counts from 1; 0 is the file as a whole."""

    line: int
    sentence: str


class BadJobFile(HaeinError):
    """A job file that can't be used: `faults` holds everything that is wrong in it, from the top down."""

    def __init__(self, name: str, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults)
        super().__init__(
            "\n".join(f"{name}:{fault.line}: {fault.sentence}" if fault.line else f"{name}: {fault.sentence}"
                      for fault in self.faults)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobFile:
    """`values` holds those of JobSpec's attributes that the file gives, `lines` where, by the same names."""

    path: Path
    values: Mapping[str, Any]
    files: Path | GitSource | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> JobFile:
        """Raises BadJobFile."""
        return _Reading(path).done()

    def spec(self, **instead: Any) -> JobSpec:
        """What it asks for, with the given attributes in place of its own. Raises BadJobFile without a command."""
        values = {"name": self.path.stem[:120], **self.values, **instead}
        if "command" not in values:
            raise BadJobFile(
                self.path.name, [Fault(0, "command is missing: say what to run, for example command: python train.py")]
            )
        return JobSpec(**values)


class _Reading:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[Fault] = []
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.files: Path | GitSource | None = None

    def done(self) -> JobFile:
        root = self._root()
        if root is not None:
            self._group(root, "")
        if self.faults:
            raise BadJobFile(self.path.name, self.faults)
        return JobFile(self.path, self.values, self.files, self.lines)

    def _root(self) -> yaml.MappingNode | None:
        try:
            text = self.path.read_bytes()
            if len(text) > MOST_BYTES:
                self.faults.append(Fault(0, "larger than 1 MiB, which is no job file"))
                return None
            documents = list(yaml.compose_all(text.decode("utf-8-sig"), yaml.SafeLoader))
        except OSError as error:
            self.faults.append(Fault(0, f"can't be read: {error.strerror}"))
        except UnicodeDecodeError:
            self.faults.append(Fault(0, "is not text in UTF-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.faults.append(Fault(mark.line + 1 if mark else 0, f"is not YAML: {error.problem or error.context}"))
        except yaml.YAMLError as error:
            self.faults.append(Fault(0, f"is not YAML: {error}".splitlines()[0]))
        except RecursionError:
            self.faults.append(Fault(0, "is nested too deeply"))
        else:
            return self._only(documents)
        return None

    def _only(self, documents: list[yaml.Node]) -> yaml.MappingNode | None:
        if len(documents) > 1:
            self._note(documents[1], "", "a second document begins here: put each job into a file of its own")
        elif documents and isinstance(documents[0], yaml.MappingNode):
            return documents[0]
        else:
            self.faults.append(Fault(1, "write the job's fields, for example command: python train.py"))
        return None

    def _note(self, node: yaml.Node, path: str, sentence: str) -> None:
        self.faults.append(Fault(node.start_mark.line + 1, f"{path} {sentence}".strip()))

    def _group(self, group: yaml.MappingNode, within: str) -> None:
        for name, key, value in self._entries(group, within):
            path = f"{within}.{name}" if within else name
            if path == "files":
                self.files = self._files(value)
            elif path in fields.GROUPS:
                if isinstance(value, yaml.MappingNode):
                    self._group(value, path)
                else:
                    self._note(key, path, "holds fields of its own, for example resources: {gpus: 1}")
            elif path in fields.BY_PATH:
                known = fields.BY_PATH[path]
                self.values[known.into] = known.read(value, path, self._note)
                self.lines[known.into] = key.start_mark.line + 1
            else:
                self._note(key, path, f"is no field of a job: {_nearest(name, within)}")

    def _entries(self, group: yaml.MappingNode, within: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        seen = set()
        for key, value in group.value:
            name = fields.text_of(key) or ""
            if name in seen:
                self._note(key, f"{within}.{name}" if within else name, "is given twice: keep one of them")
                continue
            seen.add(name)
            yield name, key, value

    def _files(self, node: yaml.Node) -> Path | GitSource | None:
        if isinstance(node, yaml.MappingNode):
            return self._git(node)
        text = fields.text_of(node)
        if not text:
            self._note(node, "files", "names nothing: write a folder, for example files: .")
            return None
        if "://" in text or text.startswith("git@"):
            self._note(node, "files", "is an address: write files: {git: ADDRESS, commit: HASH}")
            return None
        place = self.path.parent / Path(text).expanduser()
        if not place.exists():
            self._note(node, "files", f'is "{text}", which is not there')
            return None
        return place

    def _git(self, node: yaml.MappingNode) -> GitSource | None:
        told: dict[str, str] = {}
        before = len(self.faults)
        for name, key, value in self._entries(node, "files"):
            if name not in fields.GIT_SAYS:
                self._note(key, f"files.{name}", f"is no field of it: {_meant(name, fields.GIT_SAYS)}")
            elif not (text := fields.text_of(value)):
                self._note(value, f"files.{name}", f"is missing: {fields.GIT_SAYS[name]}")
            else:
                told[name] = text
                if fault := git_source.fault_of(name, text):
                    self._note(value, f"files.{name}", f'is "{text}": {fault}')
        given = {fields.text_of(key) for key, _ in node.value}
        for name in ("git", "commit"):
            if name not in given:
                self._note(node, f"files.{name}", f"is missing: {fields.GIT_SAYS[name]}")
        if len(self.faults) > before:
            return None
        return GitSource(git_source.absolute(told["git"], self.path.parent), told["commit"], told.get("path", ""))


def from_option(attribute: str, text: str) -> Any:
    """A command line option's value in JobSpec's unit. Raises ValueError with a sentence."""
    known = fields.BY_ATTRIBUTE[attribute]
    tag = yaml.SafeLoader("").resolve(  # type: ignore[no-untyped-call]
        yaml.ScalarNode, text, (True, False)
    )
    faults: list[str] = []
    value = known.read(yaml.ScalarNode(tag, text), "", lambda _node, _path, sentence: faults.append(sentence))
    if faults:
        raise ValueError(faults[0])
    return value


def _nearest(name: str, within: str) -> str:
    if name in fields.ELSEWHERE:
        return f"here it is {fields.ELSEWHERE[name]}"
    here = [path for path in _paths() if path.rpartition(".")[0] == within]
    elsewhere = {path.rpartition(".")[2]: path for path in _paths()}
    if name in elsewhere:
        home = elsewhere[name].rpartition(".")[0]
        return f"it belongs within {home}" if home else "it belongs at the beginning of a line"
    return _meant(name, [path.rpartition(".")[2] for path in here])


def _paths() -> list[str]:
    return [*fields.BY_PATH, *fields.GROUPS, "files"]


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
