"""The verbs of whoever runs the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog
from django.db import transaction
from django.utils.translation import gettext as _

from haein.cluster.backends.base import Backend, BackendDown, Drain, NodeFact
from haein.cluster.models import Node
from haein.lib import live
from haein.lib.errors import Forbidden, Invalid, NotFound
from haein.tenants import audit
from haein.tenants.models import User

log = structlog.get_logger(__name__)

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
def undrain(*, by: User, node: str) -> str:
    """The node takes new work again, as far as that is ours to say: what still keeps work away is returned, a sentence.

    Nothing is done where it is not drained. Raises Forbidden, NotFound.
    """
    found = _locked(by, node)
    if found.drained_at:
        found.drained_at, found.drain_reason = None, ""
        found.save(update_fields=["drained_at", "drain_reason"])
        audit.record("node.undrain", node, by=by)
        live.push(live.CLUSTER)
    if not found.problem:
        return ""
    return _("Haein would use %(node)s, but the cluster itself takes no work there: %(problem)s") % {
        "node": node,
        "problem": found.problem,
    }


def drained() -> dict[str, str]:
    """The reasons of what our rows drain, by the names of the nodes."""
    return dict(Node.objects.exclude(drained_at=None).values_list("name", "drain_reason"))


def hand_over(engine: Backend, facts: Sequence[NodeFact]) -> None:
    """Have the engine drain what our rows drain, and no more of ours than that: whatever it was told and has not done,
    or was never told because somebody died, is told again. What others drained there stays theirs.

    For workers: the account that answers requests need have no rights over the engine.
    """
    wished = drained()
    for fact in facts:
        if fact.name in wished and fact.drain is None:
            _tell(engine, fact.name, drained=True, reason=wished[fact.name])
        elif fact.name not in wished and fact.drain is Drain.OURS:
            _tell(engine, fact.name, drained=False)


def _tell(engine: Backend, node: str, *, drained: bool, reason: str = "") -> None:
    """Outside of any transaction. An engine that can't be asked now is told by the next hand_over()."""
    try:
        engine.drain(node, reason) if drained else engine.resume(node)
    except BackendDown as error:
        log.warning("the engine was not told of a drain", node=node, drained=drained, why=str(error))


def _locked(by: User, name: str) -> Node:
    if not by.is_operator:
        raise Forbidden(_("Only an operator may take a node out of service."))
    node = Node.objects.select_for_update().filter(name=name).first()
    if node is None:
        raise NotFound(_("There is no such node."))
    return node
