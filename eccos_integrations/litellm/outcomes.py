"""What LiteLLM's calls led to, for the router: answers, failures, and the headers that tell of a decision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from eccos_core.backends.litellm.error_mapping import to_backend_error
from eccos_core.backends.litellm.load_balancer import SimpleDeployment
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.backends.litellm.responses import CallRecord
from eccos_core.domain import Completion, Model, Request
from eccos_core.errors import BackendError
from eccos_core.routing.outside_call import OutsideCall
from eccos_integrations.litellm.bridge import ONCE, OPEN_CALLS, OpenCall
from eccos_integrations.litellm.call_effort import api_of, with_effort
from eccos_integrations.litellm.pool_names import PoolNames
from eccos_integrations.litellm.requests import metadata_of

HEADER = "x-eccos-"
_REDACTOR = SecretRedactor(())  # the messages of these errors are kept, and shown to nobody. Known shapes are enough


class OutcomeRecorder(CustomLogger):  # type: ignore[misc] # LiteLLM is not typed here
    """Tells routers of eccos how LiteLLM's calls ended. It never raises: a callback must not disturb a request."""

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """See `CustomLogger`."""
        _guard(_record_success, kwargs, response_obj, start_time, end_time)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """See `CustomLogger`."""
        _guard(_record_success, kwargs, response_obj, start_time, end_time)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """See `CustomLogger`. It hears of synchronous calls only."""
        parameters = kwargs.get("litellm_params") or {}
        if not kwargs.get("async_complete_streaming_response"):
            _guard(_record_failure, parameters, kwargs.get("exception"))

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> Any:
        """See `CustomLogger`. A deployment that was chosen at an effort is called with the effort's parameters.

        It hears of each asynchronous call, retries and fallbacks included, after the deployment was picked. So the
        parameters of one effort never reach another model.
        """
        return _call_at_effort(kwargs, call_type)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """See `CustomLogger`. It hears of each failed call, retries included."""
        _guard(_record_failure, request_data, exception)

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> Any:
        """See `CustomLogger`. The decision joins the answer's hidden parameters, under `eccos`."""
        _guard(_add_decision, request_data, response)


def install_recorder() -> None:
    """Add the recorder to LiteLLM's callbacks, once.

    LiteLLM copies `callbacks` into its lists of events when a request begins. A request that has begun before needs the
    recorder in those lists too, or else its outcome is lost.
    """
    if RECORDER not in litellm.callbacks:
        manager = litellm.logging_callback_manager
        manager.add_litellm_callback(RECORDER)
        manager.add_litellm_success_callback(RECORDER)
        manager.add_litellm_failure_callback(RECORDER)
        manager.add_litellm_async_success_callback(RECORDER)
        manager.add_litellm_async_failure_callback(RECORDER)


RECORDER = OutcomeRecorder()


def decision_headers(call: OutsideCall, model: str | None = None) -> dict[str, str]:
    """Return the headers that tell of a decision. `model` is who answered, the chosen model by default."""
    told = {"model": model or call.decision.model, "decision-id": call.decision.id, "reason": call.decision.reason}
    return {f"{HEADER}{name}": _one_line(value) for name, value in told.items()}


def answered_by(found: OpenCall, metadata: Mapping[str, Any]) -> str | None:
    """Return the model of the pool that LiteLLM's metadata says was called. None for a model outside the pool.

    A deployment with efforts was called at the effort that was decided, unless that has failed.
    """
    group = metadata.get("deployment_model_name") or metadata.get("model_group")
    info = metadata.get("model_info")
    return _name_of(
        found.call, found.bridge.names, group, metadata.get("deployment"), info if isinstance(info, Mapping) else None
    )


def _name_of(
    call: OutsideCall, names: PoolNames, group: object, litellm_model: object, info: Mapping[str, Any] | None
) -> str | None:
    models = names.of_deployment(group, litellm_model, info)
    if call.next_model in models:
        return call.next_model
    return next((name for name in models if name not in call.failed), models[0] if models else None)


def _call_at_effort(kwargs: Mapping[str, Any], call_type: object) -> dict[str, Any] | None:
    api, metadata = api_of(call_type), metadata_of(kwargs)
    found = OPEN_CALLS.find(metadata)
    if api is None or found is None:
        return None
    model = answered_by(found, metadata)
    effort = found.bridge.names.effort(model) if model is not None else {}
    return with_effort(kwargs, effort, api) if effort else None


def _record_success(kwargs: Mapping[str, Any], response: Any, start: Any, end: Any) -> None:
    metadata = metadata_of(kwargs.get("litellm_params") or {})
    found = OPEN_CALLS.find(metadata)
    if found is None or found.call.has_ended:
        return
    model = answered_by(found, metadata)
    if model is None or kwargs.get("cache_hit"):
        with found.call:  # an answer that says nothing of a model of the pool
            return
    try:
        completion = read_completion(found.bridge.names.model(model), found.call.request, kwargs, response, start, end)
    except BackendError as error:
        found.call.fail(error)
        return
    found.call.succeed(completion)


def _record_failure(request: Mapping[str, Any], exception: object) -> None:
    metadata = metadata_of(request)
    found = OPEN_CALLS.find(metadata)
    if found is None or not isinstance(exception, BaseException):
        return
    model = answered_by(found, metadata)
    if model is not None:
        found.call.fail(to_backend_error(model, exception, _REDACTOR))


def _add_decision(request: Mapping[str, Any], response: Any) -> None:
    metadata = metadata_of(request)
    found = OPEN_CALLS.find(metadata)
    hidden = getattr(response, "_hidden_params", None)
    if found is not None and isinstance(hidden, dict):
        decision = found.call.decision
        hidden["eccos"] = {
            "decision_id": decision.id,
            "model": answered_by(found, metadata) or decision.model,
            "reason": decision.reason,
            "predicted_quality": decision.quality,
            "predicted_cost_usd": decision.cost_usd,
        }


def read_completion(
    model: Model, request: Request, kwargs: Mapping[str, Any], response: Any, start: Any, end: Any
) -> Completion:
    """Read what LiteLLM tells its callbacks of an answer.

    Raises `BackendError` for an answer that a content filter removed, or that has no choices.
    """
    began = kwargs.get("current_attempt_api_call_start_time") or kwargs.get("api_call_start_time") or start
    latency_s = _seconds(end, began)
    deployment = SimpleDeployment(str(kwargs.get("model") or model.name))
    record = CallRecord(model, request, deployment, started=time.perf_counter() - latency_s)
    first_s = _seconds(kwargs.get("completion_start_time"), began) if kwargs.get("stream") else None
    litellm_usd = kwargs.get("response_cost")
    choices = getattr(response, "choices", None)
    if choices and getattr(choices[0], "message", None) is not None:
        message = choices[0].message.model_dump(exclude_none=True)
        usage = record.usage(response, message)
        return record.answer(message, choices[0].finish_reason, usage, litellm_usd, first_s)
    told = kwargs.get("standard_logging_object") or {}  # of APIs whose answers have another form
    usage = record.usage(_LoggedUsage(told), {"content": _logged_text(response)})
    return record.answer({"content": _logged_text(response)}, None, usage, litellm_usd, first_s)


class _LoggedUsage:
    def __init__(self, told: Mapping[str, Any]) -> None:
        self.prompt_tokens = told.get("prompt_tokens")
        self.completion_tokens = told.get("completion_tokens")


def _logged_text(response: Any) -> str:
    """Return the text of an answer of Anthropic's API or of the Responses API, as far as its form is known."""
    content = response.get("content") if isinstance(response, Mapping) else getattr(response, "output_text", None)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))


def _seconds(end: Any, start: Any) -> float:
    """Return the seconds between two moments, which LiteLLM gives as datetimes or as seconds. Never negative."""
    if isinstance(end, datetime) and isinstance(start, datetime):
        passed: Any = end - start
        return max(0.0, passed.total_seconds() if isinstance(passed, timedelta) else 0.0)
    if isinstance(end, int | float) and isinstance(start, int | float):
        return max(0.0, float(end) - float(start))
    return 0.0


def _one_line(value: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in value)


def _guard(record: Any, *told: Any) -> None:
    try:
        record(*told)
    except Exception as error:  # noqa: BLE001 - a callback must not disturb LiteLLM
        ONCE.warn(f"an outcome of LiteLLM could not be recorded ({type(error).__name__}: in {record.__name__})")
