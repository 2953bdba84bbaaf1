"""OpenAI's `/v1/files` and `/v1/batches`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eccos_core.errors import did_you_mean
from eccos_core.io.durations import read_seconds
from eccos_core.io.optional import needs_extra
from eccos_core.server.answering import Handler, json_response
from eccos_core.server.batch_record import DAY_S
from eccos_core.server.errors import ApiError
from eccos_core.server.files import paginate
from eccos_core.server.serving import Serving
from eccos_core.server.storage import Storage

with needs_extra("server", "eccos serve"):
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.responses import FileResponse, Response

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest


def upload_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `POST /v1/files`."""

    async def upload(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        if not http.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError("invalid_request", "send the file as multipart/form-data, with file and purpose")
        try:
            form = await http.form(max_files=1, max_fields=8, max_part_size=10_000)
        except HTTPException as error:
            raise ApiError("invalid_request", f"the form cannot be read: {str(error.detail)[:100]}") from None
        try:
            content, purpose = form.get("file"), form.get("purpose")
            if not isinstance(content, UploadFile):
                raise ApiError("invalid_request", "file is missing", param="file")
            if purpose != "batch":
                raise ApiError("invalid_request", "purpose must be batch: eccos keeps no other files", param="purpose")
            if (content.size or 0) > serving.settings.max_file_bytes:
                most = serving.settings.max_file_bytes
                raise ApiError("too_large", f"the file is larger than {most:,} bytes", param="file")
            name = content.filename or "upload.jsonl"
            stored = await asyncio.to_thread(storage.files.add, content.file, name, "batch", caller.key_id)
        finally:
            await form.close()
        return json_response(stored.describe())

    return upload


def list_files_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `GET /v1/files`."""

    async def list_files(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        owned = await asyncio.to_thread(lambda: list(storage.files.owned(caller.key_id)))
        purpose = http.query_params.get("purpose")
        listed = [each.describe() for each in owned if purpose in (None, each.purpose)]
        query = http.query_params
        return json_response(paginate(listed, query.get("after"), query.get("limit", "10000"), most=10_000))

    return list_files


def file_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `GET /v1/files/{id}`."""

    async def describe(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        stored = await asyncio.to_thread(storage.files.get, http.path_params["file_id"], caller.key_id)
        return json_response(stored.describe())

    return describe


def file_content_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `GET /v1/files/{id}/content`."""

    async def content(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        stored = await asyncio.to_thread(storage.files.get, http.path_params["file_id"], caller.key_id)
        return FileResponse(storage.files.path(stored), media_type="application/octet-stream")

    return content


def delete_file_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `DELETE /v1/files/{id}`."""

    async def delete(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        file_id = http.path_params["file_id"]
        await asyncio.to_thread(storage.files.delete, file_id, caller.key_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    return delete


def create_batch_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `POST /v1/batches`."""

    async def create(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        body = await serving.read_json(http)
        file_id = body.get("input_file_id")
        if not isinstance(file_id, str):
            raise ApiError("invalid_request", "input_file_id must be the id of a file", param="input_file_id")
        if body.get("endpoint") != "/v1/chat/completions":
            raise ApiError("invalid_request", "endpoint must be /v1/chat/completions", param="endpoint")
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
            raise ApiError("invalid_request", "metadata must be an object of texts", param="metadata")
        policy, patience_s = _policy(serving, body.get("eccos")), _patience(body.get("completion_window"))
        record = await storage.batches.create(caller, file_id, policy, metadata, patience_s)
        return json_response(record.describe())

    return create


def _patience(window: object) -> float:
    """Return the seconds of a completion window such as `24h`, which it is when nobody says. Raises `ApiError`."""
    patience_s = DAY_S if window is None else read_seconds(window) if isinstance(window, str) else None
    if not patience_s:
        message = "completion_window must be a time such as 24h or 90m"
        raise ApiError("invalid_request", message, param="completion_window")
    return patience_s


def _policy(serving: Serving, own: object) -> str | None:
    """Return the policy that a batch names in `eccos: {policy: ...}`. Raises `ApiError` for another field."""
    if own is None:
        return None
    if not isinstance(own, dict) or own.keys() - {"policy"}:
        raise ApiError("invalid_request", 'eccos must be an object such as {"policy": "cheap"}', param="eccos")
    policy, known = own.get("policy"), serving.router.parts.policies
    if policy is not None and policy not in known:
        hint = did_you_mean(str(policy), known) or "."
        told = f"unknown policy {str(policy)[:60]!r}{hint} There are: {', '.join(known)}"
        raise ApiError("invalid_request", told, param="eccos.policy")
    return policy


def list_batches_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `GET /v1/batches`."""

    async def list_batches(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        listed = [record.describe() for record in await storage.batches.owned(caller)]
        return json_response(paginate(listed, http.query_params.get("after"), http.query_params.get("limit", "20")))

    return list_batches


def batch_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `GET /v1/batches/{id}`."""

    async def describe(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        return json_response((await storage.batches.get(http.path_params["batch_id"], caller)).describe())

    return describe


def cancel_batch_handler(serving: Serving, storage: Storage) -> Handler:
    """Return the handler of `POST /v1/batches/{id}/cancel`."""

    async def cancel(http: HttpRequest) -> Response:
        caller = await serving.admit(http)
        return json_response((await storage.batches.cancel(http.path_params["batch_id"], caller)).describe())

    return cancel
