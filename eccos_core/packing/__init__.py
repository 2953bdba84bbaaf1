"""Many small requests in one call (OverPrompt, arXiv 2305.14973): who may share a call, its prompt, and its answers.

Nothing here decides or calls. `eccos_core.routing.packing` does.
"""

from eccos_core.packing.arms import PackArm, model_of, parse_arm, size_class
from eccos_core.packing.losses import PackLoss, PackLosses
from eccos_core.packing.prompt import PackedPrompt, build_pack, read_items, split_answer
from eccos_core.packing.rule import PackingRule, group_key, reason_alone
from eccos_core.packing.shares import add_spent, share_call

__all__ = [
    "PackArm",
    "PackLoss",
    "PackLosses",
    "PackedPrompt",
    "PackingRule",
    "add_spent",
    "build_pack",
    "group_key",
    "model_of",
    "parse_arm",
    "read_items",
    "reason_alone",
    "share_call",
    "size_class",
    "split_answer",
]
