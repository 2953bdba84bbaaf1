"""A read-only mapping that holds secrets and never shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

SHOWN_KEYS = frozenset(
    {
        "api_version",
        "aws_region_name",
        "base_model",
        "cache_read_input_token_cost",
        "custom_llm_provider",
        "drop_params",
        "input_cost_per_token",
        "max_parallel_requests",
        "max_retries",
        "max_tokens",
        "mode",
        "model",
        "num_retries",
        "order",
        "output_cost_per_token",
        "reasoning_effort",
        "rpm",
        "seed",
        "stream_timeout",
        "tags",
        "temperature",
        "timeout",
        "top_p",
        "tpm",
        "vertex_location",
        "weight",
    }
)
"""Keys whose values may be shown. Every other value counts as a secret."""

HIDDEN = "***"


class RedactedMapping(Mapping[str, Any]):
    """A read-only mapping whose `repr` shows only harmless values, and that cannot be pickled or copied deeply.

    `from_environment` names the keys whose values came from environment variables: they are hidden whatever their
    name. The values themselves are reached by key, as in any mapping.
    """

    __slots__ = ("_from_environment", "_values")

    def __init__(self, values: Mapping[str, Any], from_environment: frozenset[str] = frozenset()) -> None:
        self._values = dict(values)
        self._from_environment = from_environment

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {self._shown(key)}" for key in self._values) + "}"

    def _shown(self, key: str) -> str:
        value = self._values[key]
        harmless = key in SHOWN_KEYS and key not in self._from_environment
        return repr(value) if harmless and not isinstance(value, Mapping) else HIDDEN

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a configuration holds secrets and is never pickled or copied; load the YAML file again")
