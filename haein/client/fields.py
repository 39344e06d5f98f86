"""The job file's fields as one table: the parser, the command's options, the JSON Schema and the docs all read it.

A reader of a field takes the YAML node as it was written, not as YAML 1.1 would understand it: `1:30` is no number of
seconds here, and the variable `DEBUG: yes` is "yes". It returns the value in JobSpec's unit, or notes what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import yaml

Note = Callable[[yaml.Node, str, str], None]  # where, which field ("variables.EPOCHS"), what is wrong and the way out
Read = Callable[[yaml.Node, str, Note], Any]

TEXT_TAG = "tag:yaml.org,2002:str"
NULL_TAG = "tag:yaml.org,2002:null"
BOOL_TAG = "tag:yaml.org,2002:bool"
_NUMERIC = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

NAME_PATTERN = r"^(?=.*\S)[^\x00-\x1f\x7f]{1,120}$"
SHARE_PATTERN = r"^(?!0+(\.0)?\s*%)(100(\.0)?|[0-9]{1,2}(\.[0-9])?)\s*%$"
MEMORY_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?\s*(MiB|GiB|TiB|MB|GB|TB)$"
SPAN_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,6})?\s*(d|h|min|m|s)[\s,]*)+$"
TAG_PATTERN = r"^[\w.:/-]{1,40}$"
PROFILE_PATTERN = r"^[1-7]g\.[0-9]{1,3}gb$"
MODEL_PATTERN = r"^[\w.:/|-]([\w .:/|-]{0,78}[\w.:/|-])?$"
POOL_PATTERN = r"^[\w.:/-]{1,60}$"
LABEL_PATTERN = r"^[\w.:/=-]{1,60}$"
INDEXES_PATTERN = r"^[0-9]{1,9}(-[0-9]{1,9}(:[0-9]{1,9})?)?( *, *[0-9]{1,9}(-[0-9]{1,9}(:[0-9]{1,9})?)?)*$"
VARIABLE_PATTERN = r"^(?!HAEIN_)[A-Za-z_][A-Za-z0-9_]*$"
COMMIT_PATTERN = r"^[0-9a-fA-F]{7,64}$"

_BYTES = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SECONDS = {"d": 86_400, "h": 3600, "min": 60, "m": 60, "s": 1}
MOST_TIME_S = 90 * 86_400
MOST_COMMAND = 20_000
NEAR = ("any", "node", "rack", "pod")
PREEMPTION = ("allowed", "never", "spot")
_SCALAR = ["string", "number", "boolean"]


@dataclass(frozen=True, slots=True)
class Field:
    """`into` is JobSpec's attribute; `within` the group that holds it; `schema` its JSON Schema without description."""

    name: str
    into: str
    says: str
    example: str
    read: Read
    schema: Mapping[str, Any]
    within: str = ""

    @property
    def path(self) -> str:
        return f"{self.within}.{self.name}" if self.within else self.name


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a group of fields"
    if node.tag == NULL_TAG:
        return "empty"
    text = node.value if len(node.value) <= 60 else f"{node.value[:60]}..."
    return text if node.tag in _NUMERIC and _plain(node) else f'"{text}"'


def text_of(node: yaml.Node) -> str | None:
    """The characters as they were written; None for a list, a group and nothing at all."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) and node.tag != NULL_TAG else None


def _plain(node: yaml.Node) -> bool:
    """Whether it is written without quotes."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _text(least_words: str, pattern: str, otherwise: str) -> Read:
    compiled = re.compile(pattern, re.DOTALL)

    def read(node: yaml.Node, path: str, note: Note) -> str | None:
        text = text_of(node)
        if text is None or not text.strip():
            note(node, path, f"is {_shown(node)}: {least_words}")
        elif not compiled.fullmatch(text):
            note(node, path, f"is {_shown(node)}: {otherwise}")
        else:
            return text
        return None

    return read


def _whole(least: int, most: int, example: str) -> Read:
    def read(node: yaml.Node, path: str, note: Note) -> int | None:
        text = text_of(node)
        if text is None or not _plain(node) or not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            note(node, path, f"is {_shown(node)}: write a whole number, for example {example}")
        elif not least <= int(text) <= most:
            note(node, path, f"is {text}: from {least} to {most} is possible")
        else:
            return int(text)
        return None

    return read


def _cores(node: yaml.Node, path: str, note: Note) -> float | None:
    text = text_of(node)
    if text is None or not _plain(node) or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3}0*)?", text):
        note(node, path, f"is {_shown(node)}: write a number of cores, for example cpus: 0.5")
    elif not Decimal("0.1") <= Decimal(text) <= 1024:
        note(node, path, f"is {text}: from 0.1 to 1024 cores are possible")
    else:
        return float(text)
    return None


def _share(node: yaml.Node, path: str, note: Note) -> int | None:
    text = text_of(node)
    if text is not None and re.fullmatch(SHARE_PATTERN, text):
        return int(Decimal(text.rstrip("% ")) * 10)
    fix = "write a percentage from 0.1% to 100%, for example share: 50%"
    if text is not None and _plain(node) and re.fullmatch(r"0?\.[0-9]{1,3}|1(\.0*)?", text):
        fix = f"write it as a percentage: share: {(Decimal(text) * 100).normalize():f}%"
    note(node, path, f"is {_shown(node)}: {fix}")
    return None


def _size(least: str, most: str, example: str) -> Read:
    """Reads a size as MiB, the part of one that is left counted as one."""

    def read(node: yaml.Node, path: str, note: Note) -> int | None:
        text = text_of(node)
        if text is None or not re.fullmatch(MEMORY_PATTERN, text):
            note(node, path, f"is {_shown(node)}: write a size with its unit, for example {example}")
        elif not _mebibytes(least) <= _mebibytes(text) <= _mebibytes(most):
            note(node, path, f"is {_shown(node)}: from {least} to {most} is possible")
        else:
            return _mebibytes(text)
        return None

    return read


def _mebibytes(size: str) -> int:
    unit = re.sub(r"[0-9.\s]", "", size)
    return math.ceil(Decimal(size.removesuffix(unit)) * _BYTES[unit] / (1 << 20))


def _one_of(choices: Collection[str]) -> Read:
    def read(node: yaml.Node, path: str, note: Note) -> str | None:
        text = text_of(node)
        if text in choices:
            return text
        note(node, path, f"is {_shown(node)}: write one of {', '.join(choices)}")
        return None

    return read


def _yes_or_no(node: yaml.Node, path: str, note: Note) -> bool | None:
    text = (text_of(node) or "").lower()
    if node.tag == BOOL_TAG and _plain(node) and text in ("true", "false"):
        return text == "true"
    note(node, path, f"is {_shown(node)}: write true or false")
    return None


def _span(node: yaml.Node, path: str, note: Note) -> int | None:
    text = text_of(node)
    if text is not None and _plain(node) and re.fullmatch(r"[0-9]{1,9}", text):
        seconds = int(text) * 60
    elif text is not None and re.fullmatch(SPAN_PATTERN, text):
        parts = re.findall(r"([0-9.]+)\s*(d|h|min|m|s)", text)
        seconds = round(sum(Decimal(count) * _SECONDS[unit] for count, unit in parts))
    else:
        note(node, path, f"is {_shown(node)}: write a time such as 30m, 2h or 1d 12h")
        return None
    if 1 <= seconds <= MOST_TIME_S:
        return seconds
    note(node, path, f"is {_shown(node)}: from 1s to 90d is possible")
    return None


def _command(node: yaml.Node, path: str, note: Note) -> str | None:
    if isinstance(node, yaml.SequenceNode) and node.value:
        wrong = [line for line in node.value if text_of(line) is None]
        for line in wrong:
            note(line, path, f"has a line that is {_shown(line)}: put quotes around it")
        if wrong:
            return None
        command = "\n".join(str(line.value) for line in node.value)
    else:
        command = text_of(node) or ""
    if not command.strip():
        note(node, path, f"is {_shown(node)}: say what to run, for example command: python train.py")
    elif len(command) > MOST_COMMAND or "\0" in command:
        note(node, path, "is longer than 20,000 characters: put it into a file and send that")
    else:
        return command
    return None


def _words(pattern: str, example: str, otherwise: str) -> Read:
    def read(node: yaml.Node, path: str, note: Note) -> list[str] | None:
        if not isinstance(node, yaml.SequenceNode):
            note(node, path, f"is {_shown(node)}: write a list, for example {example}")
            return None
        if len(node.value) > 20:
            note(node, path, f"has {len(node.value)} entries: at most 20 are possible")
            return None
        wrong = [word for word in node.value if not re.fullmatch(pattern, text_of(word) or "")]
        for word in wrong:
            note(word, path, f"has {_shown(word)}: {otherwise}")
        return None if wrong else [str(word.value) for word in node.value]

    return read


def _variables(node: yaml.Node, path: str, note: Note) -> dict[str, str] | None:
    if not isinstance(node, yaml.MappingNode):
        note(node, path, f"is {_shown(node)}: write names and values, for example variables: {{EPOCHS: 5}}")
        return None
    if len(node.value) > 200:
        note(node, path, f"has {len(node.value)} entries: at most 200 are possible")
        return None
    found: dict[str, str] = {}
    good = True
    for key, value in node.value:
        fault = _variable_fault(text_of(key) or "", value, found)
        if fault:
            note(key, f"{path}.{text_of(key) or _shown(key)}", fault)
            good = False
        else:
            found[str(key.value)] = str(value.value)
    return found if good else None


def _variable_fault(name: str, value: yaml.Node, found: Mapping[str, str]) -> str:
    if name.startswith("HAEIN_"):
        return "is set by Haein itself: choose another name"
    if not re.fullmatch(VARIABLE_PATTERN, name):
        return "can't name a variable: use letters, digits and _, and begin with no digit"
    if name in found:
        return "is given twice: keep one of them"
    text = text_of(value)
    if text is None:
        return f'is {_shown(value)}: write a text or a number, or "" for nothing'
    return "is longer than 10,000 characters: put it into a file and send that" if len(text) > 10_000 else ""


FIELDS: tuple[Field, ...] = (
    Field(
        "name", "name", "What lists show. Without it, the file's own name.", "name: digits",
        _text("give the job a name", NAME_PATTERN, "a name has at most 120 characters, none of them a line break"),
        {"type": _SCALAR, "pattern": NAME_PATTERN},
    ),
    Field(
        "command", "command",
        "What to run: by the shell, in the job's folder. A list is the lines of one script.",
        "command: python train.py", _command,
        {
            "anyOf": [
                {"type": _SCALAR, "minLength": 1, "maxLength": MOST_COMMAND, "pattern": r"\S"},
                {"type": "array", "minItems": 1, "items": {"type": _SCALAR}},
            ]
        },
    ),
    Field(
        "environment", "environment", "A Python environment of the cluster; `haein environments` lists them.",
        "environment: python",
        _text("name one that `haein environments` lists", r"\S(.*\S)?", "take away the blanks around it"),
        {"type": _SCALAR, "pattern": r"^\S(.*\S)?$"},
    ),
    Field(
        "gpus", "gpus", "How many devices or instances, all of one machine; 0 is a job on cores only.", "gpus: 1",
        _whole(0, 64, "gpus: 1"), {"type": "integer", "minimum": 0, "maximum": 64}, "resources",
    ),
    Field(
        "share", "share", "How much of each of them: 0.1% to 100%.", "share: 50%",
        _share, {"type": "string", "pattern": SHARE_PATTERN}, "resources",
    ),
    Field(
        "gpu_memory", "gpu_memory_mb",
        "GPU memory of each share: 1MiB to 4TiB. Without it, as large a part as of the device.", "gpu_memory: 20GiB",
        _size("1MiB", "4TiB", "gpu_memory: 20GiB"), {"type": "string", "pattern": MEMORY_PATTERN}, "resources",
    ),
    Field(
        "profile", "profile", "A MIG profile: each of its GPUs is such an instance.", "profile: 1g.23gb",
        _text("name a MIG profile", PROFILE_PATTERN, "write a MIG profile, for example profile: 1g.23gb"),
        {"type": "string", "pattern": PROFILE_PATTERN}, "resources",
    ),
    Field(
        "gpu_model", "gpu_model", "Only GPUs of this model, or of one of these: H100|H200.", "gpu_model: B200",
        _text("name a model as `haein nodes` does", MODEL_PATTERN, "write a model, for example gpu_model: H100|H200"),
        {"type": _SCALAR, "pattern": MODEL_PATTERN}, "resources",
    ),
    Field(
        "cpus", "cpus", "CPU cores, also parts of one: 0.1 to 1024.", "cpus: 0.5",
        _cores, {"type": "number", "minimum": 0.1, "maximum": 1024}, "resources",
    ),
    Field(
        "memory", "memory_mb", "Memory of all its processes together: 64MiB to 16TiB.", "memory: 1GiB",
        _size("64MiB", "16TiB", "memory: 2GiB"), {"type": "string", "pattern": MEMORY_PATTERN}, "resources",
    ),
    Field(
        "workers", "workers", "How many start together or not at all; the resources are for each.", "workers: 4",
        _whole(1, 1024, "workers: 4"), {"type": "integer", "minimum": 1, "maximum": 1024},
    ),
    Field(
        "near", "near", "How near each other the workers are best: on one node, in one rack, in one pod.",
        "near: rack", _one_of(NEAR), {"enum": list(NEAR)},
    ),
    Field(
        "near_required", "near_required", "Whether they wait rather than start farther from each other.",
        "near_required: true", _yes_or_no, {"type": "boolean"},
    ),
    Field(
        "pool", "pool", "Only nodes of this pool.", "pool: training",
        _text("name a pool", POOL_PATTERN, "a pool's name has at most 60 letters, digits, or any of . : / _ -"),
        {"type": _SCALAR, "pattern": POOL_PATTERN},
    ),
    Field(
        "labels", "labels", "Only nodes that have all of these.", "labels: [nvme]",
        _words(
            LABEL_PATTERN, "labels: [nvme]", "a label has 1 to 60 letters, digits, or any of . : / = _ -"
        ),
        {"type": "array", "maxItems": 20, "items": {"type": _SCALAR, "pattern": LABEL_PATTERN}},
    ),
    Field(
        "time_limit", "time_limit_s",
        "Counted from its first second: 30m, 2h, 1d 12h; a bare number is minutes. At most 90d.", "time_limit: 30m",
        _span,
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_TIME_S // 60},
                {"type": "string", "pattern": SPAN_PATTERN},
            ]
        },
    ),
    Field(
        "retries", "retries", "How often it is run again by itself when it fails.", "retries: 0",
        _whole(0, 20, "retries: 2"), {"type": "integer", "minimum": 0, "maximum": 20},
    ),
    Field(
        "priority", "priority", "Higher goes first; from -100 to 100.", "priority: 0",
        _whole(-100, 100, "priority: 10"), {"type": "integer", "minimum": -100, "maximum": 100},
    ),
    Field(
        "preemption", "preemption",
        "Whether others may take its place: allowed (while it is on borrowed GPUs), never (it starts only where nobody "
        "can reclaim them), spot (always borrowed, the first to go).",
        "preemption: allowed", _one_of(PREEMPTION), {"enum": list(PREEMPTION)},
    ),
    Field(
        "checkpoints", "checkpoints",
        "Whether it saves its work on SIGUSR1, and then touches the file named in $HAEIN_CHECKPOINT.",
        "checkpoints: true", _yes_or_no, {"type": "boolean"},
    ),
    Field(
        "requeue", "requeue", "Whether it waits again after it had to yield, rather than end.",
        "requeue: true", _yes_or_no, {"type": "boolean"},
    ),
    Field(
        "array", "array", "A job for each index, which it finds in $HAEIN_ARRAY_INDEX; at most 1,000.", "array: 0-9",
        _text("write indexes such as 0-9", INDEXES_PATTERN, "write indexes such as 0-9, 1,3,7 or 0-30:10"),
        {"type": ["string", "integer"], "pattern": INDEXES_PATTERN, "minimum": 0},
    ),
    Field(
        "tags", "tags", "Words to find it by.", "tags: [example]",
        _words(TAG_PATTERN, "tags: [example]", "a tag has 1 to 40 letters, digits, or any of . : / _ -"),
        {"type": "array", "maxItems": 20, "items": {"type": _SCALAR, "pattern": TAG_PATTERN}},
    ),
    Field(
        "variables", "variables", "Environment variables of its process.", "variables: {EPOCHS: 5}",
        _variables,
        {
            "type": "object",
            "maxProperties": 200,
            "propertyNames": {"pattern": VARIABLE_PATTERN},
            "additionalProperties": {"type": _SCALAR, "maxLength": 10_000},
        },
    ),
)  # fmt: skip

BY_PATH: Mapping[str, Field] = MappingProxyType({field.path: field for field in FIELDS})
BY_ATTRIBUTE: Mapping[str, Field] = MappingProxyType({field.into: field for field in FIELDS})
GROUPS: Mapping[str, str] = MappingProxyType({"resources": "What each of its workers holds while it runs."})

FILES_SAYS = (
    "What is put into the job's folder before its first run: a folder beside this file without what .gitignore names,"
    " one file (a .zip or .tar.gz is unpacked), or a commit of a git repository. Without it, nothing."
)
GIT_SAYS: Mapping[str, str] = MappingProxyType(
    {
        "git": "The repository: an https, ssh or git address, or a folder on this machine.",
        "commit": "The commit, by its hash (`git rev-parse HEAD` prints it).",
        "path": "A folder within it that becomes the job's folder. Without it, all of it.",
    }
)
# What other tools call the same thing.
ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "run": "command", "commands": "command", "cmd": "command", "script": "command", "entrypoint": "command",
        "workdir": "files", "working_dir": "files", "upload": "files",
        "env": "variables", "envs": "variables", "timeout": "time_limit", "max_duration": "time_limit",
        "gpu": "resources.gpus", "accelerators": "resources.gpus", "num_gpus": "resources.gpus",
        "cpu": "resources.cpus", "mem": "resources.memory", "image": "environment",
        "mig": "resources.profile", "mig_profile": "resources.profile", "nodes": "workers", "num_nodes": "workers",
        "replicas": "workers", "partition": "pool", "node_labels": "labels", "constraint": "labels",
    }
)  # fmt: skip
