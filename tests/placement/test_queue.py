"""A replay's queue tries only those whom an end may have made room for, and comes out as if it tried everybody."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement import replay
from haein.placement.cluster import Cluster
from haein.placement.model import Gang, Near, Placement
from haein.placement.policies import FIRST_FIT, PACKED, POLICIES, Policy
from haein.placement.traces import Job

from .test_hammering import ASKED, cluster_of

Models = list[list[str]]
GANG = st.builds(Gang, each=ASKED, members=st.integers(2, 3), near=st.sampled_from([Near.NODE, Near.ANYWHERE]))


@dataclass
class Everybody:
    """At every moment everybody who waits is tried, by rank; returns (start, end) by the job's place in the list."""

    models: Models
    policy: Policy
    jobs: list[Job]
    ran: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self) -> dict[int, tuple[int, int]]:
        cluster = Cluster(cluster_of(self.models), self.policy, replay.mix_of(self.jobs))
        held: dict[int, tuple[Placement, ...]] = {}
        moments = {job.submitted or 0 for job in self.jobs}
        while moments:
            now = min(moments)
            moments.remove(now)
            for at in [at for at in held if self.ran[at][1] <= now]:
                cluster.end(self.jobs[at].request, held.pop(at))
            waiting = [at for at, job in enumerate(self.jobs) if (job.submitted or 0) <= now and at not in self.ran]
            for at in sorted(waiting, key=lambda at: (-self.jobs[at].priority, self.jobs[at].submitted, at)):
                if placed := cluster.start(self.jobs[at].request):
                    held[at], self.ran[at] = placed, (now, now + (self.jobs[at].duration or 0))
                    moments.add(self.ran[at][1])
        return self.ran


@given(
    models=st.lists(st.lists(st.sampled_from(["B200", "B200", "L4"]), min_size=1, max_size=3), min_size=1, max_size=3),
    policy=st.sampled_from([FIRST_FIT.name, PACKED.name, "fgd"]),
    jobs=st.lists(
        st.builds(
            Job,
            request=st.one_of(ASKED, ASKED, GANG),
            submitted=st.integers(0, 30),
            duration=st.integers(1, 20),
            priority=st.sampled_from([0, 0, 3]),
        ),
        min_size=1,
        max_size=25,
    ),
)
def test_it_comes_out_as_if_everybody_were_tried_at_every_moment(models: Models, policy: str, jobs: list[Job]) -> None:
    found = replay.queue(cluster_of(models), jobs, POLICIES[policy])
    ran = Everybody(models, POLICIES[policy], jobs).run()
    assert (found.jobs, found.refused) == (len(ran), len(jobs) - len(ran))
    waits = sorted(begun - (jobs[at].submitted or 0) for at, (begun, _) in ran.items())
    assert found.mean_wait_s * max(1, len(waits)) == pytest.approx(sum(waits))
    assert found.p95_wait_s in (waits or [0])
    if ran:
        assert found.makespan_s == max(end for _, end in ran.values()) - min(jobs[at].submitted or 0 for at in ran)
