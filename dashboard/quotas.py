"""What pages say of quotas: the operator's sheet, a team's bars, and the form that sets one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.core.paginator import Paginator
from django.http import Http404, QueryDict
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.forms import SpanField
from haein.lib.errors import NotFound
from haein.tenants.models import Team, TeamMember
from haein.tenants.scope import Scope
from jobs import limits, quotas, sheets
from jobs.models import Quota
from jobs.quotas import Owner, Values
from jobs.sheets import Line, Total

PAGE = 20
# How a row's columns are called in the form, where people's units are not the row's.
_SIZES = ("guaranteed", "borrow", "weight", "gpus_per_job")
_SAME = ("lends", "running_jobs", "gpu_hours")


class _Gpus(forms.DecimalField):
    """GPUs or parts of one; thousandths in the row."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 0, "max_digits": 12, "decimal_places": 3, "required": False, **options})


class QuotaForm(forms.Form):
    """All of a quota. Its fields are in people's units; `values()` is in the row's."""

    guaranteed = _Gpus(
        label=gettext_lazy("Guaranteed GPUs"),
        help_text=gettext_lazy("The team’s own whenever it asks. Parts are fine: 1.5."),
    )
    borrow = _Gpus(
        label=gettext_lazy("May borrow"),
        help_text=gettext_lazy("GPUs beyond the guarantee, of what is idle. Empty: no limit."),
    )
    lends = forms.BooleanField(
        label=gettext_lazy("Others may use what is idle of the guarantee"), required=False, initial=True
    )
    weight = _Gpus(
        label=gettext_lazy("Weight"),
        min_value=Decimal("0.001"),
        help_text=gettext_lazy("How much of what can be borrowed, against other teams. Usually 1."),
    )
    running_jobs = forms.IntegerField(label=gettext_lazy("Running jobs at once"), min_value=0, required=False)
    gpus_per_job = _Gpus(label=gettext_lazy("GPUs of one job"))
    time_limit = SpanField(
        label=gettext_lazy("Time limit of one job"),
        required=False,
        help_text=gettext_lazy("At most that a job may ask for: 12h, 2d."),
    )
    gpu_hours = forms.IntegerField(
        label=gettext_lazy("GPU-hours a month"), min_value=0, required=False, help_text=gettext_lazy("Calendar, UTC.")
    )

    def __init__(self, owner: Owner, *, operator: bool, data: QueryDict | None = None, before: Quota | None) -> None:
        super().__init__(data, initial=_initial(before))
        self._before = before
        if owner.member:
            self.fields["borrow"].label = gettext_lazy("GPUs at once")
            self.fields["borrow"].help_text = gettext_lazy("At most, of all the member’s jobs. Empty: no limit.")
        elif not owner.team:
            self.fields["guaranteed"].help_text = gettext_lazy("For its teams to share out among them.")
        for name in ("guaranteed", "lends") if owner.member else ("lends",) if not owner.team else ():
            del self.fields[name]
        if owner.member or not owner.team or owner.pool or not operator:
            del self.fields["weight"]

    def values(self) -> Values:
        """What the cleaned form says; what it does not ask stays as it is."""
        data = self.cleaned_data
        found = asdict(quotas.values_of(self._before) if self._before else Values())
        for name in _SIZES:
            if name in self.fields:
                found[name] = None if data[name] is None else int(data[name] * 1000)
        found |= {name: data[name] for name in _SAME if name in self.fields}
        found["time_limit_s"] = data["time_limit"]
        found["guaranteed"] = found["guaranteed"] or 0
        found["weight"] = found["weight"] or Values().weight
        return Values(**found)

    def explain(self, faults: dict[str, str]) -> None:
        for name, sentence in faults.items():
            field = {"time_limit_s": "time_limit"}.get(name, name)
            self.add_error(field if field in self.fields else None, sentence)


def _initial(quota: Quota | None) -> dict[str, Any]:
    said = quotas.values_of(quota) if quota else Values()
    sizes = {name: getattr(said, name) for name in _SIZES}
    return {
        **{name: None if size is None else (Decimal(size) / 1000).normalize() for name, size in sizes.items()},
        **{name: getattr(said, name) for name in _SAME},
        "time_limit": said.time_limit_s,
    }


def owner(scope: Scope, asked: QueryDict) -> Owner:
    """Whose quota an address or a form means, the reader's team's if it names nobody. Raises Http404."""
    try:
        ids = {name: UUID(str(asked[name])) for name in ("organization", "team", "member") if asked.get(name)}
        ids = ids or {"team": scope.team.pk}
        return quotas.owner(scope=scope, pool=asked.get("pool", "").replace("\0", ""), **ids)
    except ValueError:
        raise Http404(_("There is no such organization or team.")) from None
    except NotFound as missing:
        raise Http404(missing.message) from None


def key(whose: Owner) -> dict[str, str]:
    """The same as an address says it."""
    parts = {"organization": whose.organization, "team": whose.team, "member": whose.member}
    return {**{name: str(part.pk) for name, part in parts.items() if part}, "pool": whose.pool}


def editing(scope: Scope, whose: Owner, form: QuotaForm | None, *, adding: bool) -> dict[str, Any]:
    """The panel in which a quota is set; when `adding`, also for which pool and which member."""
    before = quotas.find(whose)
    team = whose.team
    members = TeamMember.objects.filter(team=team).select_related("user").order_by("user__name") if team else []
    return {
        "editing": {
            "owner": whose,
            "whose": key(whose),
            "form": form or QuotaForm(whose, operator=scope.user.is_operator, before=before),
            "there": before is not None,
            "adding": adding,
            "members": [(str(part.user_id), str(part.user)) for part in members] if adding else [],
            "pools": sheets.pools() if adding else [],
        }
    }


def sheet(asked: QueryDict, *, now: datetime) -> dict[str, Any]:
    """A page of all teams with their organizations, and the totals."""
    words = asked.get("q", "").replace("\0", "").strip()
    page = Paginator(sheets.teams(words), PAGE).get_page(asked.get("page"))
    found = sheets.lines(list(page.object_list), now=now)
    return {
        "page": page,
        "lines": [line(each) for each in found],
        "totals": [_total(each) for each in sheets.totals()],
        "words": words,
        "query": urlencode({"q": words} if words else {}),
    }


def _total(total: Total) -> dict[str, Any]:
    given, all_of_it = quotas.gpus(total.guaranteed), quotas.gpus(total.capacity)
    name = total.pool or _("The cluster")
    return {
        "name": name,
        "guaranteed": given,
        "capacity": all_of_it,
        "percent": f"{100 * total.guaranteed / total.capacity:.0f} %" if total.capacity else _("n/a"),
        "over": _("%(name)s is over-promised: teams are guaranteed %(given)s GPUs, and %(all)s are in service.")
        % {"name": name, "given": given, "all": all_of_it}
        if total.over
        else "",
    }


def line(each: Line) -> dict[str, Any]:
    """One line of the sheet."""
    whose, quota, use = each.owner, each.quota, each.use
    of_team = whose.team is not None and whose.member is None
    name = str(whose.member or whose.team or whose.organization)
    whole_name = f"{name} ({whose.pool})" if whose.pool else name
    return {
        "key": sheets.account_of(each),
        "kind": "member" if whose.member else "team" if whose.team else "organization",
        "name": name,
        "whole_name": whole_name,
        "pool": whose.pool,
        **_links(whose, name, whole_name),
        "guaranteed": quotas.gpus(quota.guaranteed) if quota and not whose.member else "",
        "borrow": _borrow(quota),
        "lends": _("yes") if of_team and (quota is None or quota.lends) else _("no") if of_team else "",
        "weight": quotas.gpus(quota.weight if quota else Values().weight) if of_team and not whose.pool else "",
        "limits": _limits(quota),
        "inside": quotas.gpus(use.inside),
        "borrowed": quotas.gpus(use.borrowed),
        "waiting": quotas.gpus(use.waiting),
        "hours": _hours(quota, use.spent),
        "over": _("Its teams are guaranteed %(over)s GPUs more than it is itself.") % {"over": quotas.gpus(each.over)}
        if each.over
        else "",
    }


def _links(whose: Owner, name: str, whole_name: str) -> dict[str, str]:
    """The queries of the addresses where the line is changed and where others are added below it, and their names."""
    found = {
        "edit": urlencode({"edit": "1", **key(whose)}),
        "edit_name": _("Change the quota of %(name)s") % {"name": whole_name},
    }
    if whose.member or whose.pool:
        return found
    more = (
        _("Add a quota for a pool or a member of %(name)s") if whose.team else _("Add a quota for a pool of %(name)s")
    )
    return {
        **found,
        "add": urlencode({"edit": "1", "add": "1", **key(whose)}),
        "add_name": more % {"name": name},
    }


def _borrow(quota: Quota | None) -> str:
    return _("no limit") if quota is None or quota.borrow is None else quotas.gpus(quota.borrow)


def _limits(quota: Quota | None) -> str:
    if quota is None:
        return ""
    parts = [
        _("%(n)s jobs at once") % {"n": quota.running_jobs} if quota.running_jobs is not None else "",
        _("%(n)s GPUs a job") % {"n": quotas.gpus(quota.gpus_per_job)} if quota.gpus_per_job is not None else "",
        _("%(time)s h a job") % {"time": limits.clock_text(quota.time_limit_s)}
        if quota.time_limit_s is not None
        else "",
    ]
    return ", ".join(part for part in parts if part)


def _hours(quota: Quota | None, spent: int) -> str:
    used = f"{spent / quotas.HOUR:,.1f}"
    if quota is None or quota.gpu_hours is None:
        return used
    return _("%(used)s of %(all)s") % {"used": used, "all": f"{quota.gpu_hours:,}"}


def of_team(team: Team, of: Iterable[Team], *, now: datetime) -> dict[str, Any]:
    """A team's own page: bars of what it uses, its members, and the quotas above it."""
    found = sheets.lines([team], now=now)
    return {
        "team": team,
        "teams": [(str(each.pk), each.name) for each in of],
        "bars": [_bar(each) for each in sheets.ledgers(found)],
        "above": [line(each) for each in found if each.owner.team is None],
        "people": [line(each) for each in sheets.people(team, now=now)],
    }


def _bar(each: Line) -> dict[str, Any]:
    """What is used in parts of all that the team holds, is guaranteed or waits for, and the same in words."""
    quota, use = each.quota, each.use
    guaranteed = quota.guaranteed if quota else 0
    most = guaranteed + quota.borrow if quota and quota.borrow is not None else None
    idle = max(0, guaranteed - use.inside)
    whole = max(guaranteed + use.borrowed, most or 0, use.held + use.waiting, 1)
    return {
        **line(each),
        "title": each.owner.pool or _("All work"),
        "parts": [
            ("inside", f"{100 * use.inside / whole:.2f}"),
            ("idle", f"{100 * idle / whole:.2f}"),
            ("borrowed", f"{100 * use.borrowed / whole:.2f}"),
        ],
        "said": _said(quota, guaranteed, most, idle, each),
    }


def _said(
    quota: Quota | None, guaranteed: int, most: int | None, idle: int, each: Line
) -> Sequence[tuple[str, str, str]]:
    """(cell, what it is, in numbers)"""
    use = each.use
    used = {"used": quotas.gpus(use.inside), "all": quotas.gpus(guaranteed)}
    lends = quota is None or quota.lends
    return [
        (
            "inside",
            _("Used inside the guarantee"),
            _("%(used)s of %(all)s GPUs") % used if guaranteed else _("no guarantee"),
        ),
        ("idle", _("Idle, open to others") if lends else _("Idle, kept for the team"), quotas.gpus(idle)),
        ("borrowed", _("Borrowed"), _of_most(use.borrowed, quota)),
        ("", _("At most at once"), quotas.gpus(most) if most is not None else _("no limit")),
        ("", _("Waiting"), quotas.gpus(use.waiting)),
        ("", _("GPU-hours this month"), _hours(quota, use.spent)),
    ]


def _of_most(borrowed: int, quota: Quota | None) -> str:
    if quota is None or quota.borrow is None:
        return _("%(used)s, no limit") % {"used": quotas.gpus(borrowed)}
    return _("%(used)s of %(all)s") % {"used": quotas.gpus(borrowed), "all": quotas.gpus(quota.borrow)}
