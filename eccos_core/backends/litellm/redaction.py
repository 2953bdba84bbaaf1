"""Keeping keys out of messages: every secret of a deployment, in each form in which it could be repeated."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
SHORTEST_SECRET = 4  # shorter values would black out ordinary words
SHORTEST_ENVIRONMENT_SECRET = 12  # the environment holds much that is only named like a secret
PLACEHOLDERS = frozenset({"none", "null", "true", "false", "empty", "test", "dummy", "local", "sk-none"})
SECRET_NAME = re.compile(r"key|token|secret|password|credential|authorization|cookie", re.IGNORECASE)
NOT_A_SECRET = re.compile(r"tokens|token_cost|per_token|tokenizer|_per_|keyboard|api_base$", re.IGNORECASE)
LOOKS_LIKE_A_SECRET = re.compile(
    r"(?:(?<=Bearer )|(?<=bearer ))[^\s\"',;]+"
    r"|\b(?:sk|pk|rk|gsk|hf|xai|ghp|glpat|AKIA)[-_][A-Za-z0-9_*-]{8,}"
    r"|\bAIza[A-Za-z0-9_-]{20,}"
    r"|(?<=://)[^\s/@]+(?=@)"
)
SECRET_IN_QUERY = re.compile(
    r"([?&](?:[\w.-]*(?:key|token|secret|password|signature|credential)[\w.-]*|sig|auth|code)=)([^\s&#\"'<>)\]]+)",
    re.IGNORECASE,
)


class SecretRedactor:
    """Replaces known secrets, and what looks like one, by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @classmethod
    def for_parameters(cls, parameters: Iterable[Mapping[str, Any]]) -> SecretRedactor:
        """Knows the secrets in LiteLLM parameters (nested ones too) and in this process's environment."""
        found = {
            value
            for name, value in os.environ.items()
            if _names_a_secret(name) and len(value) >= SHORTEST_ENVIRONMENT_SECRET
        }
        for mapping in parameters:
            found.update(_secrets_in(mapping))
        return cls(found)

    def redact(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return SECRET_IN_QUERY.sub(rf"\1{HIDDEN}", LOOKS_LIKE_A_SECRET.sub(HIDDEN, text))


def _names_a_secret(name: str) -> bool:
    return bool(SECRET_NAME.search(name)) and not NOT_A_SECRET.search(name)


def _secrets_in(value: Any, named_secret: bool = False) -> Iterable[str]:
    if isinstance(value, str):
        if named_secret and value.lower() not in PLACEHOLDERS:
            yield value
        elif "://" in value:
            yield from _secrets_in_url(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets_in(inner, named_secret or _names_a_secret(str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets_in(inner, named_secret)


def _secrets_in_url(url: str) -> Iterable[str]:
    """The password and the keys in the query of an address: a provider may repeat them elsewhere."""
    with suppress(ValueError):
        parts = urlsplit(url)
        for part in (parts.password, *(match.group(2) for match in SECRET_IN_QUERY.finditer(f"?{parts.query}"))):
            if part and part.lower() not in PLACEHOLDERS:
                yield unquote(part)


def _forms(secret: str) -> set[str]:
    """The secret as it is, in a URL, in JSON, in a Python repr, and without the white space around it."""
    stripped = secret.strip()
    plain = {secret, stripped, secret.removeprefix("Bearer ")}
    forms = {
        form
        for one in plain
        for form in (one, quote(one), quote(one, safe=""), quote_plus(one), json.dumps(one)[1:-1], repr(one)[1:-1])
    }
    return {form for form in forms if len(form) >= SHORTEST_SECRET}
