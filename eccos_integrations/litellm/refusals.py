"""Refusals of eccos as LiteLLM's own errors, with the status that clients know."""

from __future__ import annotations

from typing import Any

from eccos_core.errors import EccosError, InfeasibleError, InputError, Overloaded


class EscalationUnsupportedError(InputError):
    """The policy follows an answer with further calls, and LiteLLM makes one call for a request."""


def status_of(error: EccosError) -> int:
    """Return the HTTP status: 429 where waiting or money may help, 500 for a wrong configuration, else 400."""
    if isinstance(error, EscalationUnsupportedError):
        return 500
    return 429 if isinstance(error, Overloaded | InfeasibleError) else 400


def as_litellm_error(error: EccosError | str, model: str, status: int | None = None) -> Exception:
    """Return LiteLLM's error for a refusal. Its message is for the caller and holds no secret."""
    import litellm

    status = status or (status_of(error) if isinstance(error, EccosError) else 400)
    kinds: dict[int, Any] = {429: litellm.RateLimitError, 500: litellm.InternalServerError}
    kind = kinds.get(status, litellm.BadRequestError)
    refused: Exception = kind(message=f"eccos: {error}", model=model, llm_provider="eccos")
    return refused
