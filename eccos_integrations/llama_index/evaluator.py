"""`EccosEvaluator`: how good a response is, by a reward model, as a LlamaIndex evaluator."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from eccos_core.errors import InputError
from eccos_core.grading.reward import RewardGrader
from eccos_core.io.answers import Answer
from eccos_integrations._shared.reward import check_threshold, resolve_grader


class EccosEvaluator(BaseEvaluator):
    """Evaluate a response with a reward model of `eccos fit-reward`. No model is called, and no reference is needed.

        evaluator = EccosEvaluator(config="eccos.yaml", reward="./reward")
        evaluator.evaluate(query="What is 17 * 23?", response="391").score

    `reward` is the folder. Without it, `eccos.labels.reward` of the configuration names it. `threshold` is the least
    score that passes. `grader` is a `RewardGrader` that you built yourself. Contexts are not read. Raises
    `ArtifactError` for a reward model of another pool or encoder.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        reward: str | Path | None = None,
        *,
        threshold: float = 0.5,
        grader: RewardGrader | None = None,
    ) -> None:
        self.threshold = check_threshold("EccosEvaluator", threshold)
        self._grader = resolve_grader("EccosEvaluator", config, reward, grader)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Update nothing: a reward model has no prompts."""

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Evaluate a response. `model` may name who gave it. Raises `InputError` without a query or a response."""
        if query is None or response is None:
            raise InputError("EccosEvaluator needs query and response, to see whether one answers the other")
        answer = Answer(query, str(kwargs.get("model") or ""), response)
        score = await asyncio.to_thread(self._grader.grade_answer, answer)
        return EvaluationResult(query=query, response=response, passing=score >= self.threshold, score=score)
