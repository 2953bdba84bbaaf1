"""Put the parameters of an effort into a call of LiteLLM, in the words of the API that is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from eccos_core.backends.efforts import OUTPUT_LIMITS, THINKING, at_effort
from eccos_core.domain import Request

Api = Literal["chat", "responses", "messages"]
_APIS: Final[Mapping[str, Api]] = {
    "completion": "chat",
    "acompletion": "chat",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "messages",
    "aanthropic_messages": "messages",
}


def api_of(call_type: object) -> Api | None:
    """Return the API of a LiteLLM call type. None for what is no conversation."""
    return _APIS.get(str(getattr(call_type, "value", call_type)))


def with_effort(call: Mapping[str, Any], effort: Mapping[str, Any], api: Api) -> dict[str, Any]:
    """Return the arguments of a call with the parameters of an effort.

    The call's own arguments win, and of two limits of the answer's length the smaller one holds. LiteLLM translates
    `reasoning_effort` for Anthropic's API. The Responses API has other words: `reasoning` and `max_output_tokens`.
    """
    if api == "chat":
        return {**call, **_asked(call, effort)}
    if api == "messages":
        effort = {("max_tokens" if name in OUTPUT_LIMITS else name): value for name, value in effort.items()}
        if call.get("output_config") is not None:  # the caller says how hard to think
            effort = {name: value for name, value in effort.items() if name not in THINKING}
        return {**call, **_asked(call, effort)}
    chat = {name: value for name, value in call.items() if name not in ("max_output_tokens", "reasoning")}
    if call.get("max_output_tokens") is not None:
        chat["max_tokens"] = call["max_output_tokens"]
    if call.get("reasoning") is not None:
        effort = {name: value for name, value in effort.items() if name not in THINKING}
    asked = _asked(chat, effort)
    limit = next((asked.pop(name) for name in OUTPUT_LIMITS if asked.get(name) is not None), None)
    wanted = asked.pop("reasoning_effort", None)
    told = {"max_output_tokens": limit, "reasoning": None if wanted is None else {"effort": wanted}}
    return {**call, **asked, **{name: value for name, value in told.items() if value is not None}}


def _asked(call: Mapping[str, Any], effort: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an effort says, under the arguments of the call that speak of the same things."""
    said = effort.keys() | THINKING | frozenset(OUTPUT_LIMITS)
    own = {name: call[name] for name in said if call.get(name) is not None}
    return dict(at_effort(Request(({"role": "user", "content": ""},), parameters=own), effort).parameters)
