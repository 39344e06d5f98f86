"""Whether this cluster can keep organizations apart, for those who let another one in."""

from django.utils.translation import gettext as _

from haein.cluster.backends.base import BackendDown
from haein.cluster.registry import backend


def refusal() -> str:
    """Why there is room for one organization only, as a sentence for whoever signs up; "" where there is for more."""
    try:
        found = backend().isolation()
    except BackendDown as error:
        return _("The cluster can't say now whether it keeps organizations apart (%(why)s). Try again later.") % {
            "why": error
        }
    if found.separates_tenants:
        return ""
    return _("This server has room for one organization, and has it already. %(why)s") % {"why": found.sentence}
