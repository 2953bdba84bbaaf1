"""What each pocket model is and what it is taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccos_core.pocket.questions import Diet

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["CONTEXT_WINDOW", "RECIPES", "Recipe"]

#: Tokens, question and answer together.
CONTEXT_WINDOW = 256


@dataclass(frozen=True, slots=True)
class Recipe:
    """The shape of a Llama, and its schooling: ``steps`` batches of ``batch`` questions of ``diet``."""

    name: str
    hidden: int
    layers: int
    heads: int
    intermediate: int
    steps: int
    learning_rate: float
    diet: Diet
    batch: int = 128
    seed: int = 20_502

    def build_model(self, tokenizer: Any) -> LlamaForCausalLM:
        """An untrained model of this shape, in float32 (seed torch first: the weights are drawn here)."""
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=CONTEXT_WINDOW,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            # On sequences this short, plain attention is twice as fast as the fused one in bfloat16 on a CPU.
            attn_implementation="eager",
        )
        return LlamaForCausalLM(config)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("pocket-small", 48, 2, 4, 128, 6_000, 4e-3, Diet(knowledge_share=0.5, reach=0.35, hardest=3)),
        Recipe("pocket-medium", 96, 4, 4, 256, 4_000, 2e-3, Diet(knowledge_share=0.55, reach=0.65, hardest=4)),
        Recipe("pocket-large", 192, 4, 6, 512, 3_500, 1.2e-3, Diet(knowledge_share=0.7)),
        Recipe("pocket-maths", 96, 4, 4, 256, 5_000, 2e-3, Diet(knowledge_share=0.0)),
    )
}
