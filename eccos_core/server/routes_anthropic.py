"""Anthropic's endpoints: `/v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from eccos_core.io.tokens import count_tokens
from eccos_core.server.answering import Handler, event_stream, first_chunk, json_response, while_connected
from eccos_core.server.anthropic_messages import describe_message, message_events, read_request
from eccos_core.server.asked import ROUTER, OwnFields, build_request, leave_out_unsupported
from eccos_core.server.litellm_bridge import ignored_header, import_translations
from eccos_core.server.openai_chat import own_headers, stream_headers
from eccos_core.server.serving import Serving, read_flag

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

_TRANSLATIONS = "litellm.llms.anthropic.messages.adapters.streaming_iterator"


def messages_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/messages`."""

    async def messages(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        await import_translations(_TRANSLATIONS)
        asked, model = read_request(body), body.get("model", ROUTER)
        parameters, left_out = leave_out_unsupported(
            serving.router, asked.parameters, ("reasoning_effort", "thinking"), model
        )
        own = OwnFields.read(body.get("eccos"), http.headers)
        request = build_request(serving.router, caller, model, asked.messages, parameters, own)
        ignored = ignored_header(asked.ignored, left_out)
        if not read_flag(body, "stream"):
            completion = await while_connected(http, serving.complete(caller, request))
            told = describe_message(completion, asked.tool_names)
            return json_response(told, headers={**own_headers(completion), **ignored})
        first, chunks = await while_connected(http, first_chunk(serving.stream(caller, request)))
        events = message_events(chunks, first.model or str(model), asked.tool_names)
        headers = {**stream_headers(first), **ignored}
        return event_stream(serving, events, "anthropic", "/v1/messages", headers)

    return messages


def count_tokens_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/messages/count_tokens`. It counts as the router does, in tokens of cl100k."""

    async def count(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        await import_translations(_TRANSLATIONS)
        asked = read_request(body, for_count=True)
        own = OwnFields.read(body.get("eccos"), http.headers)
        request = build_request(serving.router, caller, body.get("model", ROUTER), asked.messages, {}, own)
        tools = asked.parameters.get("tools")
        told = [] if not tools else [{"role": "system", "content": json.dumps(tools, ensure_ascii=False)}]
        return json_response({"input_tokens": count_tokens([*request.messages, *told])})

    return count
