"""A hook for LiteLLM's proxy: a request for the model `eccos` goes to the group that eccos chooses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from eccos_core.errors import EccosError, InputError, RequestError
from eccos_core.router import Router
from eccos_core.routing.outside_call import OutsideCall
from eccos_integrations.litellm.bridge import CONFIG_VARIABLE, ONCE, OPEN_CALLS, Bridge, record_label
from eccos_integrations.litellm.outcomes import answered_by, decision_headers, install_recorder
from eccos_integrations.litellm.refusals import status_of
from eccos_integrations.litellm.requests import (
    DECISION_KEY,
    FEEDBACK_KEY,
    OWN_KEY,
    Asked,
    PassThrough,
    metadata_of,
    policy_in,
    read_asked,
    tenant_of_key,
)


class EccosProxyHook(CustomLogger):  # type: ignore[misc] # LiteLLM is not typed here
    """Chooses the model group of requests for the model `eccos`, or `eccos:NAME` for a policy, in LiteLLM's proxy.

    Key, team and budget were checked by LiteLLM before. Only groups that the key and its team may call are chosen from,
    and the rules of `eccos.tenants` hold. Where the chosen group fails, LiteLLM goes on with the next best ones. Other
    models are left alone. `groups` returns the model groups of the proxy, and None stands for those of its router.
    """

    def __init__(self, router: Router, *, groups: Callable[[], Collection[str]] | None = None) -> None:
        super().__init__()
        self.router = router
        self._bridge = Bridge(router)
        self._groups = groups or _proxy_groups
        install_recorder()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """See `CustomLogger`. Raises `HTTPException` for a request that eccos' rules refuse (400, 429)."""
        install_recorder()  # again: LiteLLM replaces its list of callbacks while it reads its YAML
        policy = policy_in(data.get("model"))
        own = _take_own(data)
        if FEEDBACK_KEY in own:
            await self._record_feedback(own[FEEDBACK_KEY])
        if policy is None:
            return data
        try:
            asked = self._read(user_api_key_dict, data, own, policy)
            call = await self._bridge.abegin(asked, await self._candidates(user_api_key_dict))
        except PassThrough as reason:
            ONCE.warn(f"a request for the model 'eccos' ({call_type}) passes through unchanged: {reason}")
            return data
        except EccosError as error:
            raise HTTPException(status_of(error), detail={"error": f"eccos: {error}"}) from error
        return self._send_to(call, data)

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """See `CustomLogger`. Answers and errors tell which model was decided for, and why."""
        metadata = metadata_of(data)
        found = OPEN_CALLS.find(metadata)
        return None if found is None else decision_headers(found.call, answered_by(found, metadata))

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: Any, *args: Any, **kw: Any
    ) -> None:
        """See `CustomLogger`. All calls have failed: the slot is free."""
        found = OPEN_CALLS.find(metadata_of(request_data))
        if found is not None:
            found.call.give_up()

    def _read(self, caller: Any, data: Mapping[str, Any], own: Mapping[str, Any], policy: str) -> Asked:
        messages = data.get("messages")
        if not messages or any(name in data for name in ("system", "input")):
            messages = _as_chat(data)
        tenant = tenant_of_key(
            self.router.parts.tenants,
            team=getattr(caller, "team_metadata", None) or {},
            team_names=(getattr(caller, "team_alias", None), getattr(caller, "team_id", None)),
            key=getattr(caller, "metadata", None) or {},
            key_names=(getattr(caller, "key_alias", None),),
        )
        metadata = {OWN_KEY: own.get(OWN_KEY), "user_api_key": None}  # nothing that a client writes names a tenant
        return read_asked(messages, data, metadata, self.router.parts.tenants, tenant=tenant, policy=policy)

    async def _candidates(self, caller: Any) -> frozenset[str]:
        """Return the models of the pool that the proxy has and the caller may call.

        Raises `PassThrough` where the proxy has none of them, and `RequestError` where the caller may call none.
        """
        groups = [name for name in self._groups() if self._bridge.names.of_group(name)]
        if not groups:
            raise PassThrough("the proxy has no model group with the name of a model of the pool")
        allowed = await _allowed_groups(caller, groups)
        if not allowed:
            raise RequestError("this key may call none of the models that eccos chooses from")
        return frozenset(name for group in allowed for name in self._bridge.names.of_group(group))

    def _send_to(self, call: OutsideCall, data: dict[str, Any]) -> dict[str, Any]:
        """Write the decision into the request."""
        names = self._bridge.names
        data["model"] = names.model(call.decision.model).deployment
        if not data.get("fallbacks"):
            groups = [names.model(name).deployment for name in call.decision.fallbacks]
            data["fallbacks"] = list(dict.fromkeys(group for group in groups if group != data["model"]))
        key = "litellm_metadata" if "litellm_metadata" in data else "metadata"
        data[key] = {**(data.get(key) or {}), DECISION_KEY: call.decision.id}
        return data

    async def _record_feedback(self, told: object) -> None:
        """Label the answer that a request's metadata tells about. What cannot be is logged, and stops no request."""
        given = told if isinstance(told, Mapping) else {}
        try:
            await record_label(self.router, given.get("decision_id"), given.get("quality"))
        except EccosError as error:
            ONCE.warn(f"feedback in a request's metadata labels nothing ({type(error).__name__})")


def find_config() -> str:
    """Return the file that configures eccos: `ECCOS_CONFIG` names it, or else it is the proxy's own.

    Raises `InputError` where there is none.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return named
    server = sys.modules.get("litellm.proxy.proxy_server")  # a proxy has imported it
    path = getattr(server, "user_config_file_path", None) or (os.environ.get("CONFIG_FILE_PATH") if server else None)
    if not path:
        raise InputError(
            f"eccos finds no configuration: this is no LiteLLM proxy with a YAML file. Set {CONFIG_VARIABLE} to the "
            "path of one."
        )
    return str(path)


def _take_own(data: dict[str, Any]) -> dict[str, Any]:
    """Take what only eccos understands out of a request. A client's own decision id is never believed."""
    own: dict[str, Any] = {}
    for holder in (data.get("metadata"), data.get("litellm_metadata"), data):
        if isinstance(holder, dict):
            own |= {name: holder.pop(name) for name in (OWN_KEY, FEEDBACK_KEY) if name in holder}
            holder.pop(DECISION_KEY, None)
    return own


def _as_chat(data: Mapping[str, Any]) -> Any:
    """Return the messages of a request of another API in OpenAI's form. Raises `PassThrough` where there are none."""
    from litellm.litellm_core_utils.prompt_templates.factory import resolve_structured_messages

    if "input" not in data:  # Anthropic's
        system = data.get("system")
        told = [{"role": "system", "content": system}] if isinstance(system, str | list) and system else []
        return [*told, *(_plain(each) for each in data.get("messages") or [])]
    try:
        found = resolve_structured_messages(messages=None, request_kwargs=dict(data))
    except Exception as error:
        raise PassThrough(f"LiteLLM could not translate it ({type(error).__name__})") from error
    return found


def _plain(message: Any) -> Any:
    """Return a message of Anthropic's API with its text, as far as a decision reads it."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        return message
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}})
        elif kind == "tool_result":
            inner = part.get("content")
            parts.append({"type": "text", "text": inner if isinstance(inner, str) else str(inner or "")})
        elif kind == "text":
            parts.append({"type": "text", "text": part.get("text")})
    return {"role": message.get("role"), "content": parts}


def _proxy_groups() -> list[str]:
    import litellm.proxy.proxy_server as server

    router = server.llm_router
    return [] if router is None else list(router.get_model_names())


async def _allowed_groups(caller: Any, groups: Collection[str]) -> list[str]:
    """Return the groups that LiteLLM lets a key and its team call.

    LiteLLM let the caller ask for `eccos`. Where the key's own list names no group of these, `eccos` stands for all
    that its team may call.
    """
    import litellm.proxy.proxy_server as server
    from litellm.proxy.auth.auth_checks import can_key_call_resolved_model

    listed = getattr(caller, "models", None) or []
    if listed and not any(name in groups for name in listed) and any(policy_in(name) is not None for name in listed):
        caller = caller.model_copy(update={"models": []})
    allowed = []
    for group in groups:
        try:
            await can_key_call_resolved_model(
                model=group, llm_model_list=server.llm_model_list, valid_token=caller, llm_router=server.llm_router
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, LiteLLM does not allow it
            ONCE.warn(f"LiteLLM keeps {group!r} from some keys ({type(error).__name__})")
            continue
        allowed.append(group)
    return allowed
