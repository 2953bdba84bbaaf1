"""Read LiteLLM's requests: what is asked, for whom, and what only eccos understands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eccos_core.domain import Message, Request
from eccos_core.errors import RequestError
from eccos_core.routing.request_check import check_request
from eccos_core.routing.tenants import Tenants
from eccos_core.server.asked import OwnFields
from eccos_core.server.errors import ApiError

CHOICE = "eccos"  # the model name that lets eccos decide
DECISION_KEY = "eccos_decision_id"  # of the metadata
OWN_KEY = "eccos"  # of the metadata, or of a proxy's request body: what only eccos understands
FEEDBACK_KEY = "eccos_feedback"  # of the metadata: a label for an earlier answer
TENANT_KEY = "eccos_tenant"  # of the metadata of a team, a key, or a request of your own process
PARAMETERS = frozenset(  # OpenAI's, which hard filters and forecasts read
    {
        "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "modalities", "n",
        "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed", "stop",
        "temperature", "thinking", "tool_choice", "tools", "top_logprobs", "top_p",
    }
)  # fmt: skip


_ANY: tuple[Message, ...] = ({"role": "user", "content": ""},)


class PassThrough(Exception):
    """A request that is not for eccos to decide. The message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of LiteLLM, as eccos reads it. `own` are the fields of a `Request` that only eccos knows."""

    messages: Sequence[Message]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    tenant: str | None = None
    is_streamed: bool = False

    def request(self, candidates: Collection[str]) -> Request:
        """Return the request, with these models to choose from.

        Raises `PassThrough` for what is no conversation. Raises `RequestError` for wrong fields of eccos, and where the
        caller's own list leaves no model.
        """
        fields = dict(self.own)
        wanted = fields.pop("allow", None)
        allow = frozenset(candidates)
        if wanted is not None:
            allow &= wanted
            if not allow:
                raise RequestError(f"eccos.allow names {', '.join(sorted(wanted))}, none of which can be chosen here")
        own = Request(_ANY, tenant=self.tenant, allow=allow, **fields)
        try:
            request = replace(own, messages=tuple(self.messages), parameters=dict(self.parameters))
            check_request(request)
        except RequestError as error:
            raise PassThrough(f"it is no request that eccos can read ({type(error).__name__})") from error
        return request.streamed() if self.is_streamed else request


def metadata_of(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return LiteLLM's metadata of a request, under whichever name it has."""
    for name in ("litellm_metadata", "metadata"):
        found = request.get(name)
        if isinstance(found, Mapping) and found:
            return found
    return {}


def read_own(given: object) -> dict[str, Any]:
    """Read the fields that only eccos knows, as `eccos serve` does. Raises `RequestError` for what is wrong."""
    try:
        return dict(OwnFields.read(given, {}).values)
    except ApiError as error:
        raise RequestError(error.message) from error


def read_asked(
    messages: object,
    request: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tenants: Tenants,
    *,
    tenant: str | None = None,
    policy: str = "",
) -> Asked:
    """Read a request. `tenant` is whose rules hold, or else who the metadata says.

    Raises `PassThrough` for a request without messages, and `RequestError` for wrong fields of eccos.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise PassThrough("it has no messages, so it is no conversation")
    own = read_own(metadata.get(OWN_KEY))
    if policy:
        own["policy"] = policy
    return Asked(
        messages=messages,
        parameters={name: request[name] for name in PARAMETERS if request.get(name) is not None},
        own=own,
        tenant=tenant or find_tenant(tenants, metadata),
        is_streamed=request.get("stream") is True,
    )


def find_tenant(tenants: Tenants, metadata: Mapping[str, Any]) -> str | None:
    """Find whose rules hold, in LiteLLM's metadata of a request.

    A proxy writes who calls, and then only that counts: the team first, so that no key can leave its team's rules.
    In your own process you may name the tenant yourself, under `eccos_tenant`.
    """
    is_proxy = any(name in metadata for name in ("user_api_key", "user_api_key_hash", "user_api_key_auth"))
    if not is_proxy:
        named = metadata.get(TENANT_KEY)
        return named if isinstance(named, str) else None
    return tenant_of_key(
        tenants,
        team=_mapping(metadata.get("user_api_key_team_metadata")),
        team_names=(metadata.get("user_api_key_team_alias"), metadata.get("user_api_key_team_id")),
        key=_mapping(metadata.get("user_api_key_metadata")),
        key_names=(metadata.get("user_api_key_alias"),),
    )


def tenant_of_key(
    tenants: Tenants,
    *,
    team: Mapping[str, Any],
    team_names: Sequence[object],
    key: Mapping[str, Any],
    key_names: Sequence[object],
) -> str | None:
    """Return the tenant of a team or key: the one it names under `eccos_tenant`, or one that is called like it."""
    for metadata, names in ((team, team_names), (key, key_names)):
        named = metadata.get(TENANT_KEY)
        if isinstance(named, str) and named:
            return named
        for name in names:
            if isinstance(name, str) and name in tenants.names:
                return name
    return None


def policy_in(model: object) -> str | None:
    """Return the policy that a model name asks for: '' for `eccos`, NAME for `eccos:NAME`. None for other models."""
    if not isinstance(model, str):
        return None
    name, colon, policy = model.partition(":")
    return policy if name == CHOICE and bool(colon) == bool(policy) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
