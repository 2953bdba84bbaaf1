"""OpenAI's embeddings: the router's own encoder, and embedding models of `model_list` through LiteLLM."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eccos_core.backends.litellm.embedder import EmbeddingInput
from eccos_core.errors import did_you_mean
from eccos_core.io.tokens import count_text_tokens, count_tokens
from eccos_core.server.answering import Handler, json_response, while_connected
from eccos_core.server.embedding_models import EmbeddingService
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller, settled
from eccos_core.server.serving import Serving

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

ENCODER = "eccos-encoder"  # the model name of the router's own encoder
MOST_INPUTS = 2_048
MOST_TOKEN_ID = 2**31
PASSED_ON = ("dimensions", "user", "input_type")
_FIELDS = ("model", "input", "encoding_format", *PASSED_ON)


def embeddings_handler(serving: Serving) -> Handler:
    """Return the handler of `POST /v1/embeddings`."""

    async def embeddings(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        form = body.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise ApiError("invalid_request", "encoding_format must be float or base64", param="encoding_format")
        name, service = body.get("model"), serving.embeddings.current
        if name == ENCODER:
            return await _encode(serving, body, form)
        if not isinstance(name, str) or name not in service.usd_per_token:
            raise _unknown_model(name, service)
        inputs, parameters = _read_inputs(body), _read_parameters(body)
        return await while_connected(http, _embed(serving, service, caller, name, inputs, parameters, form))

    return embeddings


async def _embed(
    serving: Serving,
    service: EmbeddingService,
    caller: Caller,
    name: str,
    inputs: Sequence[EmbeddingInput],
    parameters: Mapping[str, Any],
    form: str,
) -> Response:
    """Call the provider within the caller's budget. A call that its caller leaves is settled at what was reserved."""
    price = service.usd_per_token[name]
    tokens = await asyncio.to_thread(_count_inputs, inputs)
    spending = await serving.gate.reserve_tokens(caller, name, tokens, tokens * price)
    async with settled(spending) as bill:
        found = await service.embedder.aembed(name, inputs, parameters)
        tokens = tokens if found.input_tokens is None else found.input_tokens
        bill.cost_usd = cost_usd = tokens * price
        serving.metrics.count_embeddings(name, tokens, cost_usd)
    headers = {"x-eccos-model": name, "x-eccos-cost-usd": f"{cost_usd:.9f}"}
    return json_response(_describe(name, found.vectors, tokens, form), headers=headers)


async def _encode(serving: Serving, body: Mapping[str, Any], form: str) -> Response:
    """Answer with the router's own encoder, which costs nothing."""
    texts = _read_inputs(body, ids=False)
    encoder = serving.router.parts.encoder
    if body.get("dimensions") not in (None, encoder.dimensions):
        message = f"dimensions must be {encoder.dimensions}, or be left out"
        raise ApiError("invalid_request", message, param="dimensions")
    vectors = await asyncio.to_thread(encoder.encode, texts)
    tokens = sum(count_tokens([{"role": "user", "content": text}]) for text in texts)
    return json_response(_describe(ENCODER, vectors, tokens, form))


def _unknown_model(name: object, service: EmbeddingService) -> ApiError:
    known = [ENCODER, *service.usd_per_token]
    hint = did_you_mean(str(name), known) or "."
    message = (
        f"unknown embedding model {str(name)[:100]!r}{hint} There are: {', '.join(known)}. {ENCODER} is what "
        "the router reads questions with. Others are the embedding models of model_list."
    )
    return ApiError("not_found", message, code="model_not_found", param="model")


def _read_inputs(body: Mapping[str, Any], *, ids: bool = True) -> list[Any]:
    """Read one or several texts, or token ids where `ids` allows them. Raises `ApiError`."""
    given = body.get("input")
    inputs = [given] if isinstance(given, str) or (ids and _are_token_ids(given)) else given
    words = "texts or lists of token ids" if ids else "texts"
    if not isinstance(inputs, list) or not inputs or not _are_alike(inputs, ids=ids):
        message = f"input must be a text, or a list of {words}, none of them empty"
        raise ApiError("invalid_request", message, param="input")
    if len(inputs) > MOST_INPUTS:
        raise ApiError("invalid_request", f"input has more than {MOST_INPUTS} {words}", param="input")
    return [each.encode("utf-8", "replace").decode() if isinstance(each, str) else each for each in inputs]


def _are_alike(inputs: list[Any], *, ids: bool) -> bool:
    return all(isinstance(each, str) and each for each in inputs) or (ids and all(map(_are_token_ids, inputs)))


def _are_token_ids(given: object) -> bool:
    if not isinstance(given, list) or not given:
        return False
    return all(type(each) is int and 0 <= each < MOST_TOKEN_ID for each in given)


def _read_parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read what goes to the provider. Raises `ApiError` for any other field, which would be lost without a word."""
    for field in body:
        if field not in _FIELDS:
            hint = did_you_mean(field, _FIELDS) or "."
            message = f"{field[:60]} is not taken here{hint} There are: {', '.join(_FIELDS)}"
            raise ApiError("invalid_request", message, param=field[:60])
    dimensions = body.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise ApiError("invalid_request", "dimensions must be a whole number above 0", param="dimensions")
    for field in ("user", "input_type"):
        if not isinstance(body.get(field), str | None):
            raise ApiError("invalid_request", f"{field} must be a text", param=field)
    return {field: body[field] for field in PASSED_ON if body.get(field) is not None}


def _count_inputs(inputs: Sequence[EmbeddingInput]) -> int:
    return sum(count_text_tokens(each) if isinstance(each, str) else len(each) for each in inputs)


def _describe(model: str, vectors: Any, tokens: int, form: str) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector, form)}
        for place, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def _written(vector: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return [float(number) for number in vector]
