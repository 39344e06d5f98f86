"""The sentences of refusals, kept as templates so that whoever shows them can translate them first."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from decimal import Decimal


class Code(enum.StrEnum):
    """Which sentence explains a refusal. The values are stored by callers, so they stay."""

    NO_WHOLE_GPU = "no_whole_gpu"
    FEW_WHOLE_GPUS = "few_whole_gpus"
    FEW_WHOLE_GPUS_ONE_PARTLY = "few_whole_gpus_one_partly"
    NO_SHARE = "no_share"
    FEW_SHARES = "few_shares"
    FEW_CPUS = "few_cpus"
    FEW_CPUS_BESIDE_GPUS = "few_cpus_beside_gpus"
    LITTLE_MEMORY = "little_memory"
    OUT_OF_SERVICE = "out_of_service"
    NO_NODE = "no_node"
    NO_GPU = "no_gpu"
    NO_MODEL = "no_model"
    TOO_MANY_GPUS = "too_many_gpus"
    TOO_MANY_CPUS = "too_many_cpus"
    TOO_MANY_CPUS_BESIDE_GPUS = "too_many_cpus_beside_gpus"
    TOO_MUCH_MEMORY = "too_much_memory"
    NOT_THERE = "not_there"
    NO_PROFILE = "no_profile"
    NO_INSTANCE = "no_instance"
    FEW_INSTANCES = "few_instances"
    INSTANCES_HELD = "instances_held"
    NO_SUCH_INSTANCE = "no_such_instance"
    ONLY_INSTANCES = "only_instances"
    NO_GPU_MEMORY = "no_gpu_memory"
    LITTLE_GPU_MEMORY = "little_gpu_memory"
    GANG_NOW = "gang_now"
    GANG_NEVER = "gang_never"
    CARVE = "carve"
    CARVE_REST = "carve_rest"


def gettext_noop(message: str) -> str:
    """Mark a template for makemessages, which knows this name, without importing Django into placement."""
    return message


# `kind` is "GPU" or "B200 GPU"; a plural s after it belongs to the English template. Where a number may be 1, the
# sentence is worded so that nothing agrees with it.
TEMPLATES: Mapping[Code, str] = {
    Code.NO_WHOLE_GPU: gettext_noop("No whole %(kind)s is free; the most left on one is %(left)d of 1000."),
    Code.FEW_WHOLE_GPUS: gettext_noop(
        "%(gpus)d whole %(kind)ss must be free on one node; the best node has %(whole)d."
    ),
    Code.FEW_WHOLE_GPUS_ONE_PARTLY: gettext_noop(
        "%(gpus)d whole %(kind)ss must be free on one node; "
        "the best node has %(whole)d whole and one more with %(left)d of 1000 left."
    ),
    Code.NO_SHARE: gettext_noop("No %(kind)s has %(share)d of 1000 free; the most left on one is %(left)d."),
    Code.FEW_SHARES: gettext_noop(
        "%(share)d of 1000 must be free on each of %(gpus)d %(kind)ss of one node; "
        "the best node has that much on %(fitting)d."
    ),
    Code.FEW_CPUS: gettext_noop("Too few CPU cores are free: %(cpus)s asked for, at most %(most)s free on one node."),
    Code.FEW_CPUS_BESIDE_GPUS: gettext_noop(
        "Too few CPU cores are free: %(cpus)s asked for, at most %(most)s free on a node where the GPUs fit."
    ),
    Code.LITTLE_MEMORY: gettext_noop(
        "Too little memory is free: %(memory)s asked for, at most %(most)s free on a node where the rest fits."
    ),
    Code.OUT_OF_SERVICE: gettext_noop(
        "What could take this is out of service now (nodes out of service: %(nodes)d of %(all_nodes)d, "
        "GPUs: %(gpus)d of %(all_gpus)d)."
    ),
    Code.NO_NODE: gettext_noop("The cluster has no node."),
    Code.NO_GPU: gettext_noop("GPUs asked for: %(gpus)d; the cluster has none."),
    Code.NO_MODEL: gettext_noop("The cluster has no %(model)s GPU; it has: %(models)s."),
    Code.TOO_MANY_GPUS: gettext_noop(
        "%(gpus)d %(kind)ss on one node were asked for; the largest node has %(most)d. Ask for %(most)d or fewer."
    ),
    Code.TOO_MANY_CPUS: gettext_noop(
        "Too many CPU cores on one node: %(cpus)s asked for, the largest node has %(most)s. Ask for %(most)s or fewer."
    ),
    Code.TOO_MANY_CPUS_BESIDE_GPUS: gettext_noop(
        "Too many CPU cores on one node: %(cpus)s asked for, the largest node that has the GPUs has %(most)s. "
        "Ask for %(most)s or fewer."
    ),
    Code.TOO_MUCH_MEMORY: gettext_noop(
        "Too much memory on one node: %(memory)s asked for, the largest node that has the rest has %(most)s. "
        "Ask for %(most)s or less."
    ),
    Code.NOT_THERE: gettext_noop("No node is %(what)s."),
    Code.NO_PROFILE: gettext_noop(
        "No %(kind)s of the cluster can be carved into %(profile)s; there are: %(profiles)s."
    ),
    Code.NO_INSTANCE: gettext_noop(
        "No %(kind)s has a legal start free for %(profile)s, and none is free to be carved anew."
    ),
    Code.FEW_INSTANCES: gettext_noop(
        "%(profile)s must fit on each of %(gpus)d %(kind)ss of one node; the best node has room for it on %(fitting)d."
    ),
    Code.INSTANCES_HELD: gettext_noop("The instances of %(profile)s here are all held."),
    Code.NO_SUCH_INSTANCE: gettext_noop(
        "No %(kind)s of the cluster has an instance of %(profile)s, and none can be carved anew; "
        "the instances there are: %(profiles)s."
    ),
    Code.ONLY_INSTANCES: gettext_noop(
        "Each %(kind)s of the cluster is carved for good and gives only its instances: %(profiles)s."
    ),
    Code.NO_GPU_MEMORY: gettext_noop("%(memory)s of one %(kind)s's memory were asked for; the largest has %(most)s."),
    Code.LITTLE_GPU_MEMORY: gettext_noop(
        "No %(kind)s has %(share)d of 1000 and %(memory)s of its memory free together; "
        "the most memory free beside that share is %(most)s."
    ),
    Code.GANG_NOW: gettext_noop(
        "Room for %(members)d workers at once is needed %(near)s; there is room for %(most)d at most now."
    ),
    Code.GANG_NEVER: gettext_noop(
        "Room for %(members)d workers at once is needed %(near)s; even an empty cluster has room for %(most)d at most."
    ),
    Code.CARVE: gettext_noop("carve %(device)s into %(profiles)s: touches no running job, lets %(jobs)s start"),
    Code.CARVE_REST: gettext_noop(
        "carve what is free of %(device)s into %(profiles)s: touches no running job, lets %(jobs)s start"
    ),
}

# Where the members of a gang must be.
NEARNESS: Mapping[str, str] = {
    "NODE": gettext_noop("on one node"),
    "RACK": gettext_noop("in one rack"),
    "POD": gettext_noop("in one pod"),
    "ANYWHERE": gettext_noop("in the cluster"),
}


def english(code: Code, params: Mapping[str, str | int]) -> str:
    return TEMPLATES[code] % params


def cores(thousandths: int) -> str:
    """Exact, because a rounded "asked for 2, free 2" would explain nothing."""
    return f"{(Decimal(thousandths) / 1000).normalize():f}"


def memory(mb: int) -> str:
    """In GiB where that is exact, else in MiB."""
    return f"{mb // 1024} GiB" if mb and mb % 1024 == 0 else f"{mb} MiB"
