"""The contexts of windows: the operators' list with its timeline, and what concerns a reader on the cluster's page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import windows
from jobs.models import Window
from jobs.windows import State

STATES = {
    State.COMING: (gettext_lazy("Coming"), "waiting"),
    State.NOW: (gettext_lazy("Now"), "active"),
    State.OVER: (gettext_lazy("Over"), "quiet"),
    State.CANCELLED: (gettext_lazy("Cancelled"), "quiet"),
}
MOST_NAMED = 4
LEAST_SHOWN, MOST_SHOWN = timedelta(days=1), timedelta(days=14)


def concerning(scope: Scope, *, now: datetime) -> dict[str, Any]:
    return {"windows": [row(each, now=now) for each in windows.seen_by(scope, now=now)]}


def of_node(name: str, scope: Scope, *, now: datetime) -> list[dict[str, Any]]:
    """Those of one node."""
    return [row(each, now=now) for each in windows.seen_by(scope, now=now) if name in windows.nodes_of(each)]


def page(by: User, scope: Scope, *, now: datetime) -> dict[str, Any]:
    coming = list(windows.seen_by(scope, now=now))
    return {
        "coming": [row(each, now=now) for each in coming],
        "over": [row(each, now=now) for each in windows.over(by=by, now=now)],
        "timeline": _timeline(coming, now),
    }


def row(window: Window, *, now: datetime) -> dict[str, Any]:
    state = windows.state(window, now=now)
    name, tone = STATES[state]
    nodes = windows.nodes_of(window)
    return {
        "id": window.pk,
        "what": what(window, len(nodes)),
        "nodes": named(nodes),
        "reason": window.reason,
        "starts": window.starts_at,
        "ends": window.ends_at,
        "state_name": name,
        "tone": tone,
        "icon": {State.NOW: "state-running", State.COMING: "state-queued"}.get(state, "stop"),
        "by": str(window.made_by),
    }


def what(window: Window, nodes: int) -> str:
    if window.team is None:
        return ngettext("%(n)d node goes out for maintenance", "%(n)d nodes go out for maintenance", nodes) % {
            "n": nodes
        }
    whose = {"gpus": window.gpus, "model": window.model, "team": window.team.name}
    return _("%(gpus)d × %(model)s reserved for %(team)s") % whose


def named(nodes: Sequence[str]) -> str:
    """The first few of them."""
    more = [f"(+{len(nodes) - MOST_NAMED})"] if len(nodes) > MOST_NAMED else []
    return ", ".join([*nodes[:MOST_NAMED], *more])


def _timeline(coming: Sequence[Window], now: datetime) -> dict[str, Any] | None:
    """Each as a bar over the time from now on, two weeks at most; in percent of it."""
    if not coming:
        return None
    shown = min(max(max(each.ends_at for each in coming) - now, LEAST_SHOWN), MOST_SHOWN)
    return {
        "until": now + shown,
        "bars": [
            {
                "what": what(each, len(windows.nodes_of(each))),
                "tone": "reserved" if each.team_id else "out",
                "left": round(_part(each.starts_at - now, shown), 2),
                "width": round(max(0.5, _part(each.ends_at - now, shown) - _part(each.starts_at - now, shown)), 2),
            }
            for each in coming
            if each.starts_at < now + shown
        ],
    }


def _part(span: timedelta, of: timedelta) -> float:
    return min(100.0, max(0.0, 100 * span / of))
