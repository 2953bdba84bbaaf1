"""OpenAI's `/v1/responses`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.server.answering import Handler, event_stream, first_chunk, json_response, while_connected
from eccos_core.server.asked import ROUTER, OwnFields, build_request, leave_out_unsupported
from eccos_core.server.litellm_bridge import ignored_header, import_translations
from eccos_core.server.openai_chat import own_headers, stream_headers
from eccos_core.server.openai_responses import describe_response, read_request, response_events
from eccos_core.server.serving import Serving, read_flag

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

_TRANSLATIONS = "litellm.responses.litellm_completion_transformation.streaming_iterator"


def responses_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/responses`."""

    async def responses(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        await import_translations(_TRANSLATIONS)
        asked, model = read_request(body), body.get("model", ROUTER)
        droppable = ("reasoning_effort", "verbosity")
        parameters, left_out = leave_out_unsupported(serving.router, asked.parameters, droppable, model)
        own = OwnFields.read(body.get("eccos"), http.headers)
        request = build_request(serving.router, caller, model, asked.messages, parameters, own)
        ignored = ignored_header(asked.ignored, ["reasoning" if each == droppable[0] else each for each in left_out])
        if not read_flag(body, "stream"):
            completion = await while_connected(http, serving.complete(caller, request))
            told = describe_response(completion, asked)
            return json_response(told, headers={**own_headers(completion), **ignored})
        first, chunks = await while_connected(http, first_chunk(serving.stream(caller, request)))
        events = response_events(chunks, first.model or str(model), asked)
        return event_stream(serving, events, "openai", "/v1/responses", {**stream_headers(first), **ignored})

    return responses
