"""What each pocket model is and what it is taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccos_core.pocket.questions import TrainingMix

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
    diet: TrainingMix
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
        Recipe(
            "pocket-small",
            48,
            2,
            4,
            128,
            5_000,
            3e-3,
            TrainingMix(0.5, hardest_fact=2, hardest_calculation=3),
            batch=64,
        ),
        Recipe(
            "pocket-medium",
            96,
            4,
            4,
            256,
            3_500,
            2e-3,
            TrainingMix(0.6, hardest_fact=3, hardest_calculation=4),
            batch=64,
        ),
        Recipe("pocket-large", 192, 4, 6, 512, 2_000, 1.8e-3, TrainingMix(0.5)),
        Recipe("pocket-maths", 96, 4, 4, 256, 5_000, 2e-3, TrainingMix(knowledge_share=0.0)),
    )
}
