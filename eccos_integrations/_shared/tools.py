"""Checks of tools and tool choices in OpenAI's form, which is how every model of the pool is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eccos_core.errors import did_you_mean


def choose_function(name: str) -> dict[str, Any]:
    """Return OpenAI's form of the choice of one function."""
    return {"type": "function", "function": {"name": name}}


def check_chosen_function(choice: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the choice of one function. Raise `ValueError` when `names` lacks the function."""
    wanted = choice["function"]["name"]
    if wanted not in names:
        raise ValueError(
            f"tool_choice names {wanted!r}, which is not one of the tools{did_you_mean(wanted, names) or '.'} "
            f"The tools are: {', '.join(names) or 'none'}."
        )
    return choice
