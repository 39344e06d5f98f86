"""Every page is there for whoever may see it, in the frame that all pages share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from haein.lib import clock
from jobs import pulse
from jobs.models import Job
from tests.cast import Person
from tests.dashboard import crowd

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]
PAGES = ["/", "/jobs/", "/jobs/new/", "/billing/", "/cluster/"]


@pytest.mark.parametrize("path", PAGES)
def test_a_new_team_finds_every_page(alice: Person, path: str) -> None:
    assert alice.client.get(path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_a_team_at_work_finds_every_page_and_so_does_who_only_looks_on(alice: Person, vera: Person, path: str) -> None:
    crowd.gather(alice, 30)
    assert alice.client.get(path).status_code == 200
    assert vera.client.get(path).status_code == 200


def test_every_state_has_its_page(alice: Person) -> None:
    crowd.gather(alice, 9)
    client = alice.client
    for job in Job.objects.all():
        page = client.get(f"/jobs/{job.pk}/")
        assert page.status_code == 200
        assert job.name in page.content.decode()


def test_a_new_team_is_offered_one_thing_to_do(alice: Person, submit: Submit) -> None:
    client = alice.client
    assert client.get("/").context["first_run"]
    submit(alice)
    assert not client.get("/").context["first_run"]


def test_the_frame_says_who_where_and_that_devices_are_emulated(alice: Person) -> None:
    page = alice.client.get("/").content.decode()
    for words in ("Acme", "Vision", "Alice", "Emulated"):
        assert words in page


def test_a_scheduler_that_is_silent_is_spoken_of(alice: Person) -> None:
    client = alice.client
    assert "scheduler has not reported" in str(client.get("/").context["troubles"])
    pulse.beat("scheduler", problem="", now=clock.now())
    assert client.get("/").context["troubles"] == []
    pulse.beat("scheduler", problem="No socket.", now=clock.now())
    assert "No socket." in client.get("/").content.decode()


def test_a_browser_fetches_from_here_alone_and_shows_no_page_in_a_frame(alice: Person) -> None:
    answer = alice.client.get("/")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.replace("style-src-attr 'unsafe-inline'", "")
    assert "unsafe-eval" not in policy
    assert answer["X-Frame-Options"] == "DENY"


def test_a_list_is_a_page_or_its_part_for_htmx(alice: Person, submit: Submit) -> None:
    submit(alice, name="digits")
    client = alice.client
    whole, part = client.get("/jobs/"), client.get("/jobs/", headers={"HX-Request": "true"})
    assert "<html" in whole.content.decode()
    assert "<html" not in part.content.decode()
    assert 'id="jobs-list"' in part.content.decode()
    assert "HX-Request" in part["Vary"]


@pytest.mark.parametrize(
    "query", ["?page=0", "?page=9999", "?page=x", "?state=none", "?sort=none", "?q=%00", "?tag=%00&q=%25_"]
)
def test_an_address_that_makes_no_sense_is_still_a_list(alice: Person, submit: Submit, query: str) -> None:
    submit(alice)
    assert alice.client.get(f"/jobs/{query}").status_code == 200


def test_what_people_type_is_shown_as_they_typed_it_and_nothing_else(alice: Person, submit: Submit) -> None:
    job = submit(alice, name="<script>alert(1)</script>", command="echo '</script><b>'", tags=["a.b"])
    client = alice.client
    for path in ("/", "/jobs/", f"/jobs/{job.pk}/", f"/jobs/{job.pk}/clone/"):
        text = client.get(path).content.decode()
        assert "<script>alert" not in text
        assert "</script><b>" not in text


def test_an_unknown_address_is_not_found(alice: Person, client: Client) -> None:
    assert alice.client.get("/nowhere/").status_code == 404
    assert client.get("/nowhere/").status_code == 404


def test_a_post_from_another_site_is_refused(alice: Person, submit: Submit) -> None:
    job = submit(alice)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice.user, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert browser.post(f"/jobs/{job.pk}/cancel/").status_code == 403
    job.refresh_from_db()
    assert job.state == "queued"


def test_the_web_server_says_that_it_is_alive_without_asking_the_database(client: Client) -> None:
    assert client.get("/healthz").content == b"ok\n"
