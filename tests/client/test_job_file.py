"""A job file that is wrong says where and how to mend it; one that is right is read as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from haein.client import BadJobFile, GitSource, JobFile
from haein.client.schema import schema

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

WRONG = [
    ("resources: {gpus: one}", 'resources.gpus is "one": write a whole number, for example gpus: 1'),
    ('resources: {gpus: "1"}', 'resources.gpus is "1": write a whole number, for example gpus: 1'),
    ("resources: {gpus: 65}", "resources.gpus is 65: from 0 to 64 is possible"),
    ("resources: {gpus: 1.5}", "resources.gpus is 1.5: write a whole number, for example gpus: 1"),
    ("resources: {share: 0.5}", "resources.share is 0.5: write it as a percentage: share: 50%"),
    ("resources: {share: 0%}", 'resources.share is "0%": write a percentage from 0.1% to 100%, for example share: 50%'),
    ("resources: {share: 101%}", 'is "101%": write a percentage'),
    ("resources: {memory: 2}", "resources.memory is 2: write a size with its unit, for example memory: 2GiB"),
    ("resources: {memory: 1MiB}", 'is "1MiB": from 64MiB to 16TiB is possible'),
    ("resources: {cpus: none}", 'resources.cpus is "none": write a number of cores, for example cpus: 0.5'),
    ("resources: {cpus: 0.01}", "resources.cpus is 0.01: from 0.1 to 1024 cores are possible"),
    ("resources: {gpu_memory: 2}", "resources.gpu_memory is 2: write a size with its unit, for example gpu_memory:"),
    ("resources: {gpu_memory: 0MiB}", 'is "0MiB": from 1MiB to 4TiB is possible'),
    ("resources: {profile: 1g}", 'resources.profile is "1g": write a MIG profile, for example profile: 1g.23gb'),
    ("resources: {profile: }", "resources.profile is empty: name a MIG profile"),
    ("resources: {gpu_model: 'B200;'}", 'resources.gpu_model is "B200;": write a model, for example'),
    ("resources: {workers: 4}", "resources.workers is no field of a job: it belongs at the beginning of a line"),
    ("profile: 1g.23gb", "profile is no field of a job: it belongs within resources"),
    ("nodes: 4", "nodes is no field of a job: here it is workers"),
    ("workers: 0", "workers is 0: from 1 to 1024 is possible"),
    ("workers: four", 'workers is "four": write a whole number, for example workers: 4'),
    ("preemption: sometimes", 'preemption is "sometimes": write one of allowed, never, spot'),
    ("checkpoints: maybe", 'checkpoints is "maybe": write true or false'),
    ("near: street", 'near is "street": write one of any, node, rack, pod'),
    ("near: [rack]", "near is a list: write one of any, node, rack, pod"),
    ("near_required: maybe", 'near_required is "maybe": write true or false'),
    ('near_required: "true"', 'near_required is "true": write true or false'),
    ("near_required: yes", 'near_required is "yes": write true or false'),
    ("pool: a b", "pool is \"a b\": a pool's name has at most 60 letters, digits, or any of . : / _ -"),
    ("labels: nvme", 'labels is "nvme": write a list, for example labels: [nvme]'),
    ("labels: [a b]", 'labels has "a b": a label has 1 to 60 letters, digits, or any of . : / = _ -'),
    ("resources: {gpu: 1}", "resources.gpu is no field of a job: here it is resources.gpus"),
    ("resources: 2", "resources holds fields of its own"),
    ("gpus: 1", "gpus is no field of a job: it belongs within resources"),
    ("enviroment: x", "enviroment is no field of a job: did you mean environment?"),
    ("run: python x.py", "run is no field of a job: here it is command"),
    ("zzz: 1", "zzz is no field of a job: there are array, checkpoints, command"),
    ("time_limit: soon", 'time_limit is "soon": write a time such as 30m, 2h or 1d 12h'),
    ("time_limit: 1:30", "time_limit is 1:30: write a time such as"),
    ("time_limit: 91d", 'time_limit is "91d": from 1s to 90d is possible'),
    ("retries: 21", "retries is 21: from 0 to 20 is possible"),
    ("priority: high", 'priority is "high": write a whole number, for example priority: 10'),
    ("tags: example", 'tags is "example": write a list, for example tags: [example]'),
    ("tags: [a b]", 'tags has "a b": a tag has 1 to 40 letters'),
    ("variables: [A=1]", "variables is a list: write names and values"),
    ("variables: {HAEIN_JOB_ID: 1}", "variables.HAEIN_JOB_ID is set by Haein itself: choose another name"),
    ("variables: {1A: 1}", "variables.1A can't name a variable"),
    ("variables: {A: }", 'variables.A is empty: write a text or a number, or "" for nothing'),
    ("command: []", "command is a list: say what to run"),
    ("command:", "command is empty: say what to run, for example command: python train.py"),
    ("name:", "name is empty: give the job a name"),
    ("name: ''", 'name is "": give the job a name'),
    ("files: nowhere", 'files is "nowhere", which is not there'),
    ("files: https://git.example.com/a.git", "files is an address: write files: {git: ADDRESS, commit: HASH}"),
    ("files: {git: https://git.example.com/a.git}", "files.commit is missing: The commit, by its hash"),
    (f"files: {{git: 'ext::sh -c x', commit: {COMMIT}}}", "only https, ssh and git addresses"),
    (f"files: {{git: 'http://git.example.com/a', commit: {COMMIT}}}", "only https, ssh and git addresses"),
    (f"files: {{git: '--upload-pack=x', commit: {COMMIT}}}", "write an address"),
    (f"files: {{git: 'ssh://-oProxyCommand=x/a', commit: {COMMIT}}}", "files.git is"),
    ("files: {git: 'https://git.example.com/a.git', commit: --help}", "write the commit's hash"),
    ("files: {git: 'https://git.example.com/a.git', commit: main}", "write the commit's hash"),
    (f"files: {{git: 'https://git.example.com/a.git', commit: {COMMIT}, path: ../x}}", "name a folder within"),
    (f"files: {{git: 'https://git.example.com/a.git', comit: {COMMIT}}}",
    "files.comit is no field of it: did you mean"),
    ("name: b", "name is given twice: keep one of them"),
]  # fmt: skip

# Ranges of sizes and times, repeated keys, addresses, and what is on the disk.
BEYOND_A_SCHEMA = (
    "1MiB", "0MiB", "required: yes", "91d", "1:30", "files: nowhere", "name: b", "files: https", "ext::", "http://",
    "--up", "ssh://-", "../x",
)  # fmt: skip

RIGHT: list[tuple[str, str, Any]] = [
    ("command: [cd x, python y.py]", "command", "cd x\npython y.py"),
    ("command: |\n  set -e\n  python y.py\n", "command", "set -e\npython y.py\n"),
    ("resources: {share: 12.5%}", "share", 125),
    ("resources: {share: 100%}", "share", 1000),
    ("resources: {cpus: 0.5}", "cpus", 0.5),
    ("resources: {cpus: 4}", "cpus", 4),
    ("resources: {memory: 1GiB}", "memory_mb", 1024),
    ("resources: {memory: 1.5 GiB}", "memory_mb", 1536),
    ("resources: {memory: 1GB}", "memory_mb", 954),
    ("resources: {gpu_memory: 1MiB}", "gpu_memory_mb", 1),
    ("resources: {gpu_memory: 20GiB}", "gpu_memory_mb", 20_480),
    ("resources: {profile: 1g.23gb}", "profile", "1g.23gb"),
    ("resources: {gpu_model: H100|H200}", "gpu_model", "H100|H200"),
    ("resources: {gpu_model: NVIDIA A100-SXM4-80GB}", "gpu_model", "NVIDIA A100-SXM4-80GB"),
    ("workers: 4", "workers", 4),
    ("near: rack", "near", "rack"),
    ("near_required: true", "near_required", True),
    ("near_required: False", "near_required", False),
    ("pool: training", "pool", "training"),
    ("pool: 7", "pool", "7"),
    ("labels: [nvme, zone=a]", "labels", ["nvme", "zone=a"]),
    ("resources: {gpus: 0}", "gpus", 0),
    ("time_limit: 90", "time_limit_s", 5400),
    ("time_limit: 1d 12h", "time_limit_s", 129_600),
    ("time_limit: 30m", "time_limit_s", 1800),
    ("time_limit: 1.5h", "time_limit_s", 5400),
    ("variables: {A: yes, B: 1e3, C: 010, D: '', E: 12:30}", "variables",
     {"A": "yes", "B": "1e3", "C": "010", "D": "", "E": "12:30"}),
    ("tags: [v1.0, 2026]", "tags", ["v1.0", "2026"]),
    ("environment: 3.10", "environment", "3.10"),
    ("name: 5", "name", "5"),
    ("priority: -5", "priority", -5),
    ("array: 0-9", "array", "0-9"),
    ("array: 1, 3,7", "array", "1, 3,7"),
    ("array: 0-30:10", "array", "0-30:10"),
    ("array: 7", "array", "7"),
]  # fmt: skip


def written(folder: Path, *lines: str, command: str = "command: true") -> Path:
    place = folder / "train.yaml"
    text = "\n".join(lines)
    place.write_text(text if text.startswith("command") else f"{command}\n{text}\n")
    return place


@pytest.mark.parametrize(("line", "sentence"), WRONG)
def test_a_fault_names_its_line_and_the_way_out(tmp_path: Path, line: str, sentence: str) -> None:
    place = written(tmp_path, "name: a", line) if line == "name: b" else written(tmp_path, line)
    with pytest.raises(BadJobFile) as caught:
        JobFile.read(place)
    number = 3 if line == "name: b" else 1 if line.startswith("command") else 2
    assert str(caught.value).startswith(f"train.yaml:{number}: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("line", "attribute", "value"), RIGHT)
def test_what_is_right_is_read_in_the_specs_unit(tmp_path: Path, line: str, attribute: str, value: object) -> None:
    spec = JobFile.read(written(tmp_path, line)).spec()
    assert getattr(spec, attribute) == value


@pytest.mark.parametrize("line", [line for line, _, _ in RIGHT])
def test_the_schema_accepts_what_the_parser_accepts(tmp_path: Path, line: str) -> None:
    jsonschema.validate(yaml.safe_load(written(tmp_path, line).read_text()), schema())


@pytest.mark.parametrize(
    "line",
    [line for line, _ in WRONG if not any(words in line for words in BEYOND_A_SCHEMA)],
)
def test_the_schema_refuses_what_the_parser_refuses(tmp_path: Path, line: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(written(tmp_path, line).read_text()), schema())


def test_all_faults_come_at_once_from_the_top_down(tmp_path: Path) -> None:
    with pytest.raises(BadJobFile) as caught:
        JobFile.read(written(tmp_path, "retries: x", "tags: 1", "resources:", "  gpus: y"))
    assert [fault.line for fault in caught.value.faults] == [2, 3, 5]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "train.yaml:1: is not YAML"),
        ("a: b: c", "train.yaml:1: is not YAML"),
        ("", "write the job's fields"),
        ("- a", "write the job's fields"),
        ("command: x\n---\ncommand: y", "train.yaml:3: a second document begins here"),
        ("&a [*a]", "write the job's fields"),
        ("command: \x07", "is not YAML"),
    ],
)
def test_what_is_no_job_file_at_all(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(BadJobFile, match=sentence):
        JobFile.read(tmp_path / "train.yaml")


def test_a_file_without_a_command_or_a_name(tmp_path: Path) -> None:
    place = written(tmp_path, "", command="retries: 1")
    with pytest.raises(BadJobFile, match=r"train\.yaml: command is missing"):
        JobFile.read(place).spec()
    assert JobFile.read(place).spec(command="true").name == "train"


def test_files_are_seen_from_the_job_files_folder(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert JobFile.read(written(tmp_path, "files: src")).files == tmp_path / "src"
    found = JobFile.read(written(tmp_path, f"files: {{git: src, commit: {COMMIT}, path: a/b}}")).files
    assert found == GitSource(str(tmp_path / "src"), COMMIT, "a/b")


def test_the_docs_hold_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads((ROOT / "docs/job.schema.json").read_text()) == schema()


@pytest.mark.parametrize("place", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda place: place.name)
def test_the_examples_are_right(place: Path) -> None:
    JobFile.read(place).spec()
    jsonschema.validate(yaml.safe_load(place.read_text()), schema())
