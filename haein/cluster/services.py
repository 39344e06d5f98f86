"""The verbs of whoever runs the cluster."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _

from haein.cluster.models import Node
from haein.lib import live
from haein.lib.errors import Forbidden, Invalid, NotFound
from haein.tenants import audit
from haein.tenants.models import User

MOST_REASON = 200  # characters, the column's


@transaction.atomic
def drain(*, by: User, node: str, reason: str, now: datetime) -> None:
    """Nothing new starts on the node; what runs there ends in its own time. Raises Forbidden, NotFound, Invalid."""
    reason = reason.strip()
    if not reason:
        raise Invalid({"reason": _("Say why: whoever waits for this node will read it.")})
    if len(reason) > MOST_REASON:
        raise Invalid({"reason": _("Say it in %(most)d characters or fewer.") % {"most": MOST_REASON}})
    found = _locked(by, node)
    if found.drained_at:
        raise Invalid({"reason": _("%(node)s is drained already.") % {"node": node}})
    found.drained_at, found.drain_reason = now, reason
    found.save(update_fields=["drained_at", "drain_reason"])
    audit.record("node.drain", node, by=by, reason=reason)
    live.push(live.CLUSTER)


@transaction.atomic
def undrain(*, by: User, node: str) -> None:
    """The node takes new work again. Nothing is done where it does so already. Raises Forbidden, NotFound."""
    found = _locked(by, node)
    if not found.drained_at:
        return
    found.drained_at, found.drain_reason = None, ""
    found.save(update_fields=["drained_at", "drain_reason"])
    audit.record("node.undrain", node, by=by)
    live.push(live.CLUSTER)


def _locked(by: User, name: str) -> Node:
    if not by.is_operator:
        raise Forbidden(_("Only an operator may take a node out of service."))
    node = Node.objects.select_for_update().filter(name=name).first()
    if node is None:
        raise NotFound(_("There is no such node."))
    return node
