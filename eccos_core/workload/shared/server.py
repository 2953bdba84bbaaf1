"""Runs the script in Redis. Every failure becomes one of two errors, and neither ever shows the password."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from eccos_core.errors import EccosError, SharedStateError
from eccos_core.io.optional import needs_extra
from eccos_core.workload.shared.settings import SharedSettings

with needs_extra("redis", "eccos.workload.shared"):
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        ClusterDownError,
        MasterDownError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TryAgainError,
    )
    from redis.retry import Retry

_AWAY = (ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_AWAY_WORDS = ("MISCONF", "OOM", "READONLY", "LOADING", "BUSY")  # the same, from within a script
_UNTRUSTED = (
    "has a certificate that this machine does not trust. Name the file of its authority: "
    "rediss://host:port/0?ssl_ca_certs=/path/to/ca.pem. The host must be the one that the certificate names"
)


class StateAway(EccosError):
    """Redis did not answer. The message says why."""


class SharedServer:
    """One Redis or Valkey. Safe to use from several threads.

    A call never waits longer than `timeout_s` for a connection, and again for the answer. `round_trips` counts calls.
    """

    def __init__(self, settings: SharedSettings) -> None:
        self._settings = settings
        self.round_trips = 0
        self._scripts: dict[str, tuple[str, str]] = {}
        try:
            self._client = redis.Redis.from_url(
                settings.url,
                decode_responses=True,
                socket_timeout=settings.timeout_s,
                socket_connect_timeout=settings.timeout_s,
                retry=Retry(NoBackoff(), 0),
                client_name="eccos",
            )
        except (ValueError, RedisError):
            raise SharedStateError(
                "eccos.workload.shared: the address is not one of a Redis. Write redis://host:port/0, rediss:// for "
                "TLS, or unix:///path"
            ) from None

    def run(self, script: str, key: str, message: Mapping[str, object]) -> dict[str, Any]:
        """Run a script of this package with one key and one message, in one round trip. Return its answer.

        Raises `StateAway` when Redis does not answer, and `SharedStateError` when it refuses.
        """
        text = json.dumps(message)
        try:
            answer = json.loads(self._evaluate(script, f"{self._settings.prefix}:{key}", text))
        except (AuthenticationError, NoPermissionError) as error:
            raise SharedStateError(self._say(self._explain_access(error))) from None
        except ResponseError as error:
            raise self._explain_response(error) from None
        except (RedisError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise SharedStateError(self._say(_UNTRUSTED)) from None
            raise StateAway(f"{self._settings.address} does not answer ({type(error).__name__})") from None
        if "error" in answer:
            raise SharedStateError(self._say(self._explain_refusal(answer)))
        found: dict[str, Any] = answer
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _evaluate(self, script: str, key: str, message: str) -> str:
        """Run a script by its hash. A Redis that does not know it yet, or any more, gets its text."""
        if script not in self._scripts:
            source = files("eccos_core.workload.shared").joinpath(script).read_text("utf-8")
            self._scripts[script] = source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        source, digest = self._scripts[script]
        try:
            return self._reconnect_once("EVALSHA", digest, "1", key, message)
        except NoScriptError:
            return self._reconnect_once("EVAL", source, "1", key, message)

    def _reconnect_once(self, *command: str) -> str:
        """Send a command. A connection that Redis closed since the last call is opened again, once.

        The script ignores a message that it has seen before, so it may arrive twice.
        """
        self.round_trips += 1
        try:
            return self._execute(*command)
        except redis.TimeoutError:
            raise
        except redis.ConnectionError as error:
            if isinstance(error, AuthenticationError):
                raise
            return self._execute(*command)

    def _execute(self, *command: str) -> str:
        answer: str = self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer

    def _say(self, problem: str) -> str:
        return f"eccos.workload.shared: {self._settings.address} {problem}"

    def _explain_access(self, error: RedisError) -> str:
        if isinstance(error, NoPermissionError):
            return "forbids its user what eccos needs. Allow EVAL, EVALSHA and the keys eccos:* (redis-cli ACL SETUSER)"
        if not urlsplit(self._settings.url).password:
            return "wants a password. Write redis://:password@host into the variable that holds the address"
        return "refuses the password or the user of the address. Correct the variable that holds the address"

    def _explain_response(self, error: ResponseError) -> EccosError:
        text = str(error)
        if "WRONGTYPE" in text:
            return SharedStateError(self._say(self._explain_refusal({"error": "foreign"})))
        if isinstance(error, _AWAY) or any(word in text for word in _AWAY_WORDS):
            return StateAway(f"{self._settings.address} cannot write now ({type(error).__name__})")
        if "NOPERM" in text:
            return SharedStateError(self._say(self._explain_access(NoPermissionError())))
        return SharedStateError(self._say(f"refuses the script: {text[:200]}"))

    def _explain_refusal(self, answer: Mapping[str, Any]) -> str:
        prefix = self._settings.prefix
        if answer["error"] == "schema":
            return (
                f"serves {answer['replicas']} replicas of another eccos, with schema {answer['found']!r} of the keys "
                f"{prefix}. Stop them first, or give the new replicas another `name` under workload.shared"
            )
        return (
            f"holds keys of another application under {prefix}. Give eccos another `name` under workload.shared, or "
            "another database number"
        )
