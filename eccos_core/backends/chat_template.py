"""Renders a model's own chat template, to continue its answer as raw text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eccos_core.domain import Request
from eccos_core.errors import InputError

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILE = "tokenizer_config.json"


class ChatTemplate:
    """The chat template of a file, or of a Hugging Face model folder.

    Calling it with a request gives the text that the model's answer comes after. Raises `InputError` for a file that
    holds no template, or one that cannot be rendered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        source, self._special = _read_template(path)
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InputError(f"{path}: this chat template cannot be read: {error}") from None

    def __call__(self, request: Request) -> str:
        """Return the raw text before the model's answer."""
        from jinja2 import TemplateError

        messages = [dict(message) for message in request.messages]
        effort = request.parameters.get("reasoning_effort")
        more = {} if effort is None else {"reasoning_effort": effort}
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special, **more)
        except TemplateError as error:
            raise InputError(f"{self.path}: the chat template refuses request {request.id!r}: {error}") from None


def _read_template(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the source of a template, and the special tokens that it may name."""
    if not path.is_dir():
        return _read(path), {"bos_token": "", "eos_token": ""}
    described: dict[str, Any] = {}
    if (path / TOKENIZER_FILE).is_file():
        described = json.loads(_read(path / TOKENIZER_FILE))
    special = {name: _token(described.get(name)) for name in ("bos_token", "eos_token")}
    if (path / TEMPLATE_FILE).is_file():
        return _read(path / TEMPLATE_FILE), special
    source = described.get("chat_template")
    if not isinstance(source, str):
        raise InputError(f"{path}: this folder has no chat template; it needs a {TEMPLATE_FILE}")
    return source, special


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _token(value: Any) -> str:
    return str(value.get("content") or "") if isinstance(value, dict) else value or ""


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
