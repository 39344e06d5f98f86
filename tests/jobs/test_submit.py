"""To submit is to write a row, what happened, and who did it; and what could never run is refused at the door."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from haein.lib.errors import Invalid, NotFound, Problem
from haein.tenants.models import AuditEntry
from jobs import examples, services, uploads
from jobs.models import Event, Job, Upload
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


def test_a_job_is_a_row_an_event_and_an_entry_in_the_audit(alice: Person, submit: Submit) -> None:
    job = submit(alice, name=" train ", tags=["a", "b", "a"], variables={"LR": "0.1"})
    job.refresh_from_db()
    assert (job.state, job.name, job.team, job.submitted_by) == ("queued", "train", alice.team, alice.user)
    assert (job.tags, job.variables, job.attempts_made) == (["a", "b"], {"LR": "0.1"}, 0)
    event = Event.objects.get(job=job)
    assert (event.kind, event.old_state, event.new_state, event.actor_name) == ("submit", "", "queued", "Alice")
    entry = AuditEntry.objects.get(action="job.submit")
    assert (entry.actor_id, entry.actor_name, entry.target) == (alice.user.pk, alice.user.email, str(job.pk))
    assert entry.organization_id == alice.scope.organization.pk


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"environment": "python9"}, "environment", "There is no such environment. Choose one of: python."),
        ({"environment": "docker.io/pytorch:2"}, "environment", "runs no container images. Choose one of its"),
        ({"gpus": 9}, "gpus", "8"),
        ({"cpus": 64_100}, "cpus", "64"),
        ({"memory_mb": 600_000}, "memory_mb", "5"),
        ({"name": ""}, "name", "Give the job a name"),
    ],
)
def test_it_refuses_what_could_never_run_and_names_the_field(
    alice: Person, submit: Submit, asked: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(Invalid) as refused:
        submit(alice, **asked)
    assert list(refused.value.fields) == [field]
    assert says in refused.value.fields[field]
    assert not Job.objects.exists()
    assert not AuditEntry.objects.filter(action="job.submit").exists()


def test_it_names_the_nearest_number_of_gpus_that_would_fit(alice: Person, submit: Submit) -> None:
    with pytest.raises(Invalid) as refused:
        submit(alice, gpus=12)
    assert "12" in refused.value.message
    assert "8" in refused.value.message


def test_a_viewer_may_look_but_not_launch(vera: Person, submit: Submit) -> None:
    with pytest.raises(Problem, match="Ask a team admin for the member role"):
        submit(vera)
    assert not Job.objects.exists()


def test_a_member_submits_for_the_same_team(alice: Person, bob: Person, submit: Submit) -> None:
    job = submit(bob)
    assert services.get(job.pk, scope=alice.scope) == job


def test_a_stranger_can_not_tell_a_job_from_none(alice: Person, charlie: Person, submit: Submit) -> None:
    job = submit(alice)
    with pytest.raises(NotFound, match=r"^There is no such job\.$"):
        services.get(job.pk, scope=charlie.scope)


def test_before_any_node_has_reported_a_job_is_accepted_and_waits(alice: Person, submit: Submit) -> None:
    from haein.cluster.models import Device, Node

    Device.objects.all().delete()
    Node.objects.all().delete()
    assert submit(alice, gpus=8).state == "queued"


@pytest.mark.parametrize("name", sorted(examples.EXAMPLES))
def test_every_example_is_a_job_with_its_file(alice: Person, name: str) -> None:
    job = examples.run(name, scope=alice.scope)
    assert job.upload is not None
    assert job.upload.team == alice.team
    assert job.upload.name in job.command
    assert uploads.path(job.upload).stat().st_size == job.upload.size > 0


def test_an_example_that_is_not_there_is_not_found(alice: Person) -> None:
    with pytest.raises(NotFound):
        examples.run("none", scope=alice.scope)


@pytest.mark.parametrize("name", ["", ".bashrc", "../.profile", "x" * 201, "a\nb"])
def test_a_file_needs_a_plain_name(alice: Person, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        uploads.keep(BytesIO(b"x"), team=alice.team, name=name, size=1)
    assert refused.value.field == "upload"


def test_a_file_keeps_only_the_last_part_of_its_path(alice: Person) -> None:
    kept = uploads.keep(BytesIO(b"data"), team=alice.team, name="C:\\files\\..\\train.py", size=4)
    assert kept.name == "train.py"
    assert uploads.path(kept).read_bytes() == b"data"


def test_a_file_that_is_too_large_is_refused_before_it_is_written(alice: Person, settings: Any, tmp_path: Path) -> None:
    settings.HAEIN_UPLOAD_BYTES = 1 << 20
    settings.HAEIN_VAR = tmp_path
    with pytest.raises(Invalid, match="larger than 1 MiB"):
        uploads.keep(BytesIO(b"x"), team=alice.team, name="big.bin", size=(1 << 20) + 1)
    assert not list(tmp_path.rglob("*"))
    assert not Upload.objects.exists()


def test_a_folder_that_can_not_be_written_is_a_sentence(alice: Person, settings: Any) -> None:
    settings.HAEIN_VAR = Path("/proc")
    with pytest.raises(Invalid, match="could not keep the file"):
        uploads.keep(BytesIO(b"x"), team=alice.team, name="a.bin", size=1)
