"""The demonstration's quotas: most of the cluster is promised, and never more than it has."""

from __future__ import annotations

import pytest
from django.db.models import Sum

from dashboard.demo import allotting, people
from haein.cluster.models import Node
from haein.tenants.models import AuditEntry, Organization, User
from jobs.models import Quota
from tests.demo.conftest import NODES

pytestmark = pytest.mark.usefixtures("going_on")


def test_four_fifths_are_promised_at_most() -> None:
    given = Quota.objects.filter(team__isnull=False, member=None)
    assert given.count() == len(people.TEAMS)  # six nodes have none for serving alone
    promised = given.aggregate(all=Sum("guaranteed"))["all"]
    assert 0.5 * NODES * 8000 <= promised <= 0.8 * NODES * 8000
    assert set(given.filter(lends=False).values_list("team__name", flat=True)) == {"Serving"}
    assert AuditEntry.objects.filter(action="quota.set").count() == Quota.objects.count()


def test_on_the_whole_cluster_serving_has_a_guarantee_in_its_pool() -> None:
    Node.objects.filter(name="sim-006").update(pool="serve")
    allotting.allot(129, by=User.objects.get(email=people.OPERATOR.email))
    given = Quota.objects.filter(team__isnull=False, member=None)
    sizes = dict(given.filter(pool="serve").values_list("team__name", "guaranteed"))
    assert sizes == {"Serving": 58_000, "Ranking": 38_000}
    promised = given.aggregate(all=Sum("guaranteed"))["all"]
    assert 0.77 * 1_032_000 <= promised <= 0.8 * 1_032_000
    for organization in Organization.objects.filter(quotas__team=None).distinct():
        for pool in ("", "serve"):
            rows = Quota.objects.filter(organization=organization, pool=pool, member=None)
            own = sum(rows.filter(team=None).values_list("guaranteed", flat=True))
            assert own == sum(rows.filter(team__isnull=False).values_list("guaranteed", flat=True))


def test_every_student_has_a_limit_and_who_teaches_has_none() -> None:
    limited = set(Quota.objects.filter(member__isnull=False).values_list("member__email", flat=True))
    (course,) = (team for team in people.TEAMS if team.name == people.COURSE_TEAM)
    assert limited == {person.email for person in course.people[1:]}
