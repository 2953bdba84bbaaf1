"""Configurable fields whose batches stay joint.

LangChain invokes the inputs of a batch one by one as soon as a field is configured. Here the inputs with the same
configuration form one batch, so a configured floor or budget is that of the batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import AnyConfigurableField


class JointConfigurableFields(RunnableConfigurableFields):  # type: ignore[type-arg]  # Pydantic cannot subscript it
    """`RunnableConfigurableFields` that makes one batch of each distinct configuration."""

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[Any, Any]:
        """Make further fields configurable."""
        return JointConfigurableFields(default=self.default, fields={**self.fields, **kwargs})

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer the inputs, one joint batch for each configuration. Results keep their order."""
        results: list[Any] = [None] * len(inputs)
        for model, configs, rows in self._group_inputs(config, len(inputs)):
            part = model.batch([inputs[i] for i in rows], configs, return_exceptions=return_exceptions, **kwargs)
            for row, answer in zip(rows, part, strict=True):
                results[row] = answer
        return results

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The asynchronous twin of `batch`."""
        results: list[Any] = [None] * len(inputs)
        for model, configs, rows in self._group_inputs(config, len(inputs)):
            part = await model.abatch([inputs[i] for i in rows], configs, return_exceptions=return_exceptions, **kwargs)
            for row, answer in zip(rows, part, strict=True):
                results[row] = answer
        return results

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Answer as `batch` does, and yield (place, answer) as they end."""
        for model, configs, rows in self._group_inputs(config, len(inputs)):
            part = [inputs[i] for i in rows]
            for place, answer in model.batch_as_completed(part, configs, return_exceptions=return_exceptions, **kwargs):
                yield rows[place], answer

    async def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """The asynchronous twin of `batch_as_completed`."""
        for model, configs, rows in self._group_inputs(config, len(inputs)):
            part = [inputs[i] for i in rows]
            running: Any = model.abatch_as_completed(part, configs, return_exceptions=return_exceptions, **kwargs)
            async for place, answer in running:
                yield rows[place], answer

    def _group_inputs(
        self, config: RunnableConfig | Sequence[RunnableConfig] | None, count: int
    ) -> Iterator[tuple[Any, list[RunnableConfig], list[int]]]:
        """Yield the configured models, each with the configurations and the places of its inputs."""
        ids = {spec.id for spec in self.fields.values()}
        rows: dict[str, list[int]] = {}
        configs = get_config_list(config, count)
        for row, each in enumerate(configs):
            configured = {k: v for k, v in (each.get("configurable") or {}).items() if k in ids}
            rows.setdefault(repr(sorted(configured.items())), []).append(row)
        for places in rows.values():
            prepared = [self.prepare(configs[row]) for row in places[:1]]
            model = prepared[0][0]
            yield model, [configs[row] for row in places], places


def keep_batches_joint(
    default: RunnableSerializable[LanguageModelInput, Any], plain: RunnableSerializable[LanguageModelInput, Any]
) -> RunnableSerializable[LanguageModelInput, Any]:
    """Return `plain`, which LangChain made of `default`, with batches that stay joint."""
    assert isinstance(plain, RunnableConfigurableFields)
    return JointConfigurableFields(default=default, fields=plain.fields)
