"""The rows that decode together: one key-value cache, left padding, rows that join and leave between steps.

Imports torch; import this module late.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from eccos_core.io.optional import needs_extra

with needs_extra("local", "a local model"):
    import torch
    from torch import Tensor
    from torch.nn import functional


def sample(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """The next token of each row, by inverse transform sampling from the nucleus.

    logits (B, V); temperature (B,) with 0 for greedy; top_p (B,) in (0, 1]; uniform (B,) in [0, 1), one draw a row.
    Returns (B,) token ids. A row's result depends on its own numbers only, so a seed gives the same answer in any
    company (up to rounding of the logits).
    """
    greedy = logits.argmax(dim=-1)
    sampled = temperature > 0
    if not bool(sampled.any()):
        return greedy
    scaled = logits.float() / temperature.clamp(min=1e-5).unsqueeze(1)
    probability, order = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True)
    cumulative = probability.cumsum(dim=-1)
    kept = ((cumulative - probability) < top_p.unsqueeze(1)).sum(dim=-1, keepdim=True).clamp(min=1)
    mass = cumulative.gather(1, kept - 1)
    place = (cumulative <= uniform.unsqueeze(1) * mass).sum(dim=-1, keepdim=True)
    chosen = order.gather(1, torch.minimum(place, kept - 1)).squeeze(1)
    return torch.where(sampled, chosen, greedy)


class RunningBatch:
    """B rows in different stages of their answers, advanced one token at a time by one forward pass.

    The cache is padded on the left, so that all rows end in the same column and the newest token is always the last.
    `can_join` is False for caches that cannot be padded on the left and put side by side (sliding windows, recurrent
    states): then a batch runs to its end before the next begins.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self.device = model.device
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._cache: Any = None
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=self.device)  # (B, L), 0 where padded

    @property
    def size(self) -> int:
        """B, rows in the batch."""
        return self._mask.shape[0]

    @property
    def columns(self) -> int:
        """L, columns of the cache, padding included."""
        return self._mask.shape[1]

    @property
    def can_join(self) -> bool:
        """Whether new rows may join now."""
        return self._cache is None or self._is_mergeable(self._cache)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any, Tensor]:
        """Read K prompts: logits (K, V) of each next token, their cache, and their mask (K, P). Changes nothing."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, width - len(prompt) :] = 1
        mask = mask.to(self.device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        logits, cache = self._forward(ids.to(self.device), mask, positions, None)
        return logits, cache, mask

    def join(self, cache: Any, mask: Tensor) -> None:
        """Put prefilled rows below the running ones. Takes ownership of `cache`."""
        if self._cache is None or self.size == 0:
            self._cache, self._mask = cache, mask
            return
        length, new_length = self._mask.shape[1], mask.shape[1]
        width = max(length, new_length)
        for layer, new_layer in zip(self._cache.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                ours = functional.pad(getattr(layer, name), (0, 0, width - length, 0))
                theirs = functional.pad(getattr(new_layer, name), (0, 0, width - new_length, 0))
                setattr(layer, name, torch.cat((ours, theirs)))
        self._mask = torch.cat(
            (functional.pad(self._mask, (width - length, 0)), functional.pad(mask, (width - new_length, 0)))
        )

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to every row. Return the logits (B, V) of the next one."""
        positions = self._mask.sum(dim=-1, keepdim=True)
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        ids = torch.tensor(tokens, dtype=torch.long, device=self.device).unsqueeze(1)
        logits, self._cache = self._forward(ids, self._mask, positions, self._cache)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order; columns that are padding in all of them are dropped."""
        if not rows:
            self.clear()
            return
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]
        unused = int(self._mask.argmax(dim=-1).min())  # the first 1 of each row; padding is on the left
        if unused and self._is_mergeable(self._cache):
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]

    def choose(self, logits: Tensor, draws: Sequence[tuple[float, float, float]]) -> list[int]:
        """Return the next token of each row. draws: (temperature, top_p, uniform draw) of each row."""
        if all(temperature <= 0 for temperature, _, _ in draws):
            greedy: list[int] = logits.argmax(dim=-1).tolist()
            return greedy
        numbers = torch.tensor(draws, device=logits.device)
        chosen: list[int] = sample(logits, numbers[:, 0], numbers[:, 1], numbers[:, 2]).tolist()
        return chosen

    def logprobs(self, logits: Tensor, tokens: Sequence[int]) -> list[float]:
        """Return the log-probability of the token that each row chose. logits (B, V)."""
        chosen = torch.tensor(tokens, device=logits.device).unsqueeze(1)
        found: list[float] = torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).squeeze(1).tolist()
        return found

    def clear(self) -> None:
        """Forget every row and free the cache."""
        self._cache = None
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=self.device)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
        if cache is not None:
            arguments["cache"] = cache
        if self._takes_positions:
            arguments["position_ids"] = positions
        if self._takes_logits_to_keep:
            arguments["logits_to_keep"] = 1
        output = self._model(**arguments)
        return output.logits[:, -1], output.cache

    @staticmethod
    def _is_mergeable(cache: Any) -> bool:
        with needs_extra("local", "a local model"):
            from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in cache.layers)
