"""The section `eccos.packing`: how requests of a batch share calls."""

from __future__ import annotations

from pydantic import Field

from eccos_core.config.section_model import CountOrZero, PackSize, SectionModel, Share
from eccos_core.packing import PackingRule
from eccos_core.packing.rule import CACHED_FROM_TOKENS


class PackingConfig(SectionModel):
    """Many small requests in one call. A section that is written is on, for `complete_batch`."""

    most: PackSize = Field(
        default=8, description="Most requests in one call. An arm such as `small*4` stands for a model and a pack size."
    )
    assume_quality_loss: Share | None = Field(
        default=None,
        description="How much quality an answer is assumed to lose in a pack, from 0 to 1, until 30 outcomes of an arm "
        "have measured it. Left out, no pack is made that nobody has measured.",
    )
    cache_from_tokens: CountOrZero = Field(
        default=CACHED_FROM_TOKENS,
        description="Instructions of at least so many tokens are counted at a model's price for cached input. Raise it "
        "if your provider caches nothing.",
    )

    def rule(self) -> PackingRule:
        """Return the rule of the domain."""
        return PackingRule(self.most, self.assume_quality_loss, self.cache_from_tokens)
