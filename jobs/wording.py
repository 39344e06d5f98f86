"""Every reason a job can be given, as a sentence a person understands; rows keep the code and the values."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

SENTENCES: Mapping[str, str] = {
    "": "",
    # waiting
    "new": _("Waiting for its first look at the cluster."),
    "no_capacity": _("No node has what it needs free right now."),
    "out_of_service": _("What could run it is out of service."),
    "never_fits": _("The cluster as it is now could never run it."),
    "suspended": _("The organization is suspended: nothing new is started until an operator resumes it."),
    "environment": _("Its environment is still being prepared."),
    "resting": _("It rests after a failure before it is tried again."),
    "resting_until": _("It rests after a failure until %(at)s. “Try now” tries it again at once."),
    "its_turn": _("Its turn has come: room is kept for it until what runs there has ended."),
    "reclaiming": _("Others were asked to leave what its team is guaranteed: it starts as soon as they have."),
    "kept": _("The room that is free is kept for jobs whose turn came first, until it would be in nobody's way."),
    "window": _(
        "The room that is free is set apart, reserved or for maintenance, before its time limit would be over."
    ),
    "over_most": _("It would be more at once than a quota allows."),
    "over_jobs": _("As many jobs run as a quota allows at once."),
    "over_hours": _("It could use more GPU-hours this month than a quota has left."),
    "not_lent": _("What is idle is guaranteed to teams that do not lend it."),
    "promised": _("It may not be preempted, and all idle room is guaranteed to others who may want it back."),
    # moves
    "submitted": _("Submitted."),
    "placed": _("Placed on %(where)s."),
    "placed_carving": _("Placed on %(where)s. To that end: %(carved)s."),
    # where an engine that chooses devices itself has put it
    "found_at": _("The cluster runs it on %(where)s, which it chose itself."),
    "gave_way": _("The cluster gave its place to another run; it is placed on %(where)s now."),
    "handed_over": _("Handed to the cluster. %(says)s"),
    "runs": _("Its process runs on %(node)s."),
    "runs_on_several": _("Its workers run: the first on %(node)s, and %(others)s more."),
    "succeeded": _("The command ended with exit code 0."),
    "explained": _("%(detail)s"),
    "time_limit": _("It reached its time limit of %(limit)s and was ended."),
    "cancelled": _("Cancelled by %(by)s."),
    "cancel_asked": _("%(by)s asked for it to be cancelled."),
    "cancelled_queued": _("Cancelled by %(by)s before it started."),
    "retried": _("%(by)s asked for another run."),
    "requeued": _("Queued again by itself (failure %(failure)s of %(allowed)s allowed): %(detail)s"),
    "not_again": _("%(detail)s It is not tried again, as it would end the same; its retries are for other failures."),
    "again_at": _("It is tried again from %(at)s on."),
    "hurried": _("%(by)s asked that it be tried again at once."),
    "preempted": _("It had to yield, and waits again, with its old place in the queue. %(why)s"),
    "preempted_for_good": _("It had to yield, and was not to be queued again. %(why)s"),
    "saved": _("Its work was last saved at %(at)s."),
    "credited": _("It ran inside its team's guarantee, so its last %(span)s are not charged."),
    # why a run must yield; shown to whoever runs it, so nobody else is named
    "reclaimed": _("A team that is guaranteed the GPUs it runs on needs them back (%(gpus)s in all)."),
    "maintenance": _("Its machine (%(nodes)s) goes out for maintenance from %(at)s."),
    "reservation": _("Its room is reserved for somebody else from %(at)s."),
    "moved": _("It is moved from %(old)s to %(new)s, so that a larger job finds room."),
    "warned": _("It is asked to end at %(at)s. %(why)s"),
    "notice_withdrawn": _("It need not end at %(at)s after all: its room is no longer needed."),
    "preempted_below": _(
        "The cluster ended it for other work, by rules of its own. It waits again, with its old place in the queue."
        " %(why)s"
    ),
    "preempted_below_for_good": _(
        "The cluster ended it for other work, by rules of its own, and it was not to be queued again. %(why)s"
    ),
    "not_taken": _(
        "The cluster did not start it and it was taken back; it waits again, with its old place in the queue. %(why)s"
    ),
    "imported": _("Imported: it was job %(id)s of the Slurm cluster %(cluster)s, which says that it is %(state)s."),
    "lost": _("Its machine or its runner went away; it is queued again and that run is not charged. %(detail)s"),
    "lost_too_often": _(
        "Its machine or its runner went away %(times)s times; it is not tried again. Nothing was charged."
    ),
}


def sentence(code: str, values: Mapping[str, object]) -> str:
    """The reason in the reader's language. A value may be a reason itself ({"code": ..., "values": ...}), or a list."""
    text = SENTENCES.get(code, code)
    return (gettext(text) % {name: _said(value) for name, value in values.items()}).strip() if text else ""


def _said(value: object) -> object:
    if isinstance(value, Mapping):
        return sentence(value["code"], value["values"])
    if isinstance(value, list):
        return " ".join(str(_said(each)) for each in value if each)
    return value


def runs(node: str, workers: int) -> tuple[str, dict[str, object]]:
    """The code and its values for what runs: on this node, and for a gang's further workers on others."""
    if workers == 1:
        return "runs", {"node": node}
    return "runs_on_several", {"node": node, "others": workers - 1}
