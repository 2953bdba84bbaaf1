"""Which requests may share a call, and up to how many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from eccos_core.domain import Request
from eccos_core.errors import InputError

MOST_IN_A_PACK = 64
CACHED_FROM_TOKENS = 1024  # OpenAI and Gemini cache no shorter prefix
INSTRUCTING_ROLES = ("system", "developer")
# call parameters that say the same of one answer and of several. `max_tokens` grows with the pack
PACKABLE_PARAMETERS = frozenset(
    {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "reasoning_effort", "verbosity", "thinking"}
    | {"user", "metadata", "service_tier", "safety_identifier", "store", "prompt_cache_key", "prompt_cache_retention"}
    | {"extra_headers"}
)


@dataclass(frozen=True, slots=True)
class PackingRule:
    """How a batch is packed.

    - `most`: most requests in one call, from 2 to 64.
    - `assume_quality_loss`: how much quality in [0, 1] an answer is assumed to lose in a pack, while nobody has
      measured it. None: such packs are not made.
    - `cache_from_tokens`: a provider's prompt cache keeps instructions of at least so many tokens.

    Raises `InputError` for a value outside these bounds.
    """

    most: int = 8
    assume_quality_loss: float | None = None
    cache_from_tokens: int = CACHED_FROM_TOKENS

    def __post_init__(self) -> None:
        if not 2 <= self.most <= MOST_IN_A_PACK:
            raise InputError(f"packing: most is {self.most}, must be a whole number from 2 to {MOST_IN_A_PACK}")
        if self.assume_quality_loss is not None and not 0 <= self.assume_quality_loss <= 1:
            raise InputError(f"packing: assume_quality_loss is {self.assume_quality_loss}, must be in [0, 1]")
        if self.cache_from_tokens < 0:
            raise InputError(f"packing: cache_from_tokens is {self.cache_from_tokens}, must be >= 0")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the pack sizes that arms have, ascending: the powers of two below `most`, and `most`."""
        powers = [1 << power for power in range(1, self.most.bit_length())]
        return tuple(sorted({size for size in powers if size < self.most} | {self.most}))


def reason_alone(request: Request) -> str | None:
    """Say what keeps a request from sharing a call, in words. None when it may."""
    if request.session_id is not None:
        return "it belongs to a session"
    *instructions, question = request.messages
    if any(message["role"] not in INSTRUCTING_ROLES for message in instructions) or question["role"] != "user":
        return "it is more than instructions and one user message"
    for message in request.messages:
        if set(message) != {"role", "content"} or not isinstance(message["content"], str):
            return "a message is more than a text"
    given = {name for name, value in request.parameters.items() if value is not None}
    if refused := sorted(given - PACKABLE_PARAMETERS):
        return f"it has the call parameter {', '.join(refused)}"
    return None


def group_key(request: Request) -> str | None:
    """Return what requests of one call have in common: instructions, parameters, rules and tenant.

    None for a request that is asked alone.
    """
    if reason_alone(request) is not None:
        return None
    rules: Mapping[str, object] = {
        "instructions": [dict(message) for message in request.messages[:-1]],
        "parameters": dict(request.parameters),
        "needs": sorted(request.needs),
        "allow": None if request.allow is None else sorted(request.allow),
        "deny": sorted(request.deny),
        "tags": sorted(request.required_tags),
        "min_quality": request.min_quality,
        "tenant": request.tenant,
    }
    return json.dumps(rules, sort_keys=True)
