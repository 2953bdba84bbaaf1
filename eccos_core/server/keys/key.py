"""A virtual key: its rules, and how its secret is made, kept and checked.

The secret of a key has 256 random bits. Nobody can guess it, so a plain SHA-256 keeps it as well as a slow password
hash would: a slow hash only helps where people choose the secret. A plain hash also costs a request no time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from eccos_core.errors import InputError

PREFIX = "sk-eccos-"
_KEY = re.compile(r"sk-eccos-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[\w][\w .@:/-]{0,79}")
_NO_KEY = hashlib.sha256(b"no key has this hash").hexdigest()
MOST_USD = 1e9


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What a key may do. None means no limit.

    - `name`: for people. `tenant`: whose budget and rules hold.
    - `usd_per_month`: budget of a calendar month (UTC).
    - `requests_per_minute`, `tokens_per_minute`: rate limits.
    - `expires_at`: seconds since 1970, UTC.
    - `models`: the only models that may answer. `policies`: the only policies that may be asked for by name.
    - `is_admin`: whether the key may manage keys.

    Raises `InputError` for a value that is out of range.
    """

    name: str
    tenant: str | None = None
    usd_per_month: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None
    models: frozenset[str] | None = None
    policies: frozenset[str] | None = None
    is_admin: bool = False

    def __post_init__(self) -> None:
        for field, text in (("name", self.name), ("tenant", self.tenant)):
            if text is not None and not _NAME.fullmatch(text):
                rule = "1 to 80 letters, digits, spaces and . _ - @ : /, the first one a letter or digit"
                raise InputError(f"{field} must be {rule}")
        for field in ("usd_per_month", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, field)
            least = 0 if field == "usd_per_month" else 1
            if value is not None and not least <= value <= MOST_USD:
                raise InputError(f"{field} is {value:g}, must be from {least} to {MOST_USD:.0e}")
        for field in ("models", "policies"):
            if getattr(self, field) is not None and not getattr(self, field):
                raise InputError(f"{field} is empty, so the key could ask for nothing. Leave it out for no limit.")


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A key as it is kept, without its secret. `id` names it in lists, logs and errors."""

    id: str
    rules: KeyRules
    created_at: float
    revoked_at: float | None = None


def make_key() -> tuple[str, str]:
    """Return the id and the secret of a new key. The secret holds the id, so that it is found without a scan."""
    key_id = secrets.token_hex(6)
    return key_id, f"{PREFIX}{key_id}-{secrets.token_urlsafe(32)}"


def id_of(secret: str) -> str | None:
    """Return the id that a secret holds, None for what cannot be a key."""
    match = _KEY.fullmatch(secret)
    return match[1] if match else None


def hash_key(secret: str) -> str:
    """Return what is kept of a secret: its SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, kept: str | None) -> bool:
    """Compare a secret with a kept hash, in the same time for every answer. `kept` is None for an unknown key."""
    same = hmac.compare_digest(hash_key(secret), kept or _NO_KEY)
    return same and kept is not None
