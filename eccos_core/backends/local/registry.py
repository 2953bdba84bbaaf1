"""The local models of this process: who needs which, and the engines that are loaded for them.

A backend claims its local models when it is made and gives the claims up when nothing can call it any more, requests in
flight included. The engine of a model that nobody claims is then closed and its memory freed; one that another backend
claims too (the one that a reload has put in its place) stays as it is. Cheap to import: neither torch nor LiteLLM.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import queue
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from eccos_core.backends.local.engine import LocalEngine
from eccos_core.backends.local.generation import EngineStatistics
from eccos_core.backends.local.model import EngineOptions
from eccos_core.errors import ArtifactError, BackendError, EccosError, FailureKind
from eccos_core.io.forks import reset_in_child
from eccos_core.pocket.smol import SMOL, smol_weights

LONGEST_CLOSING_S = 30.0  # that the end of the process waits for a model that is being freed
ENGINE_OPTIONS = frozenset(f.name for f in fields(EngineOptions))
_KINDS = {"device": (str, "a text"), "dtype": (str, "a text"), "keep_quantised": (bool, "true or false")}
LOCAL_PREFIX = "eccos-local/"  # of LiteLLM's name for a local model
Claim: TypeAlias = tuple[str, EngineOptions]  # the name of a model, and how it runs


def model_folder(name: str) -> Path:
    """The folder of a pocket model's name or of a path, or SmolLM2's file.

    Raises `BackendError` (not_found) when there is none.
    """
    if name == SMOL:
        try:
            return smol_weights()
        except ArtifactError as error:
            kind = FailureKind.NOT_FOUND
            raise BackendError(name, str(error), retryable=False, kind=kind, status_code=404) from error
    folder = Path(name).expanduser()
    if "/" not in name:
        from eccos_core.pocket import pocket_path

        with contextlib.suppress(EccosError, KeyError, FileNotFoundError):
            folder = Path(pocket_path(name))
    if not (folder / "config.json").is_file():
        raise BackendError(
            name,
            f"there is no pocket model and no Hugging Face model folder {name!r} (a folder has a config.json)",
            retryable=False,
            kind=FailureKind.NOT_FOUND,
            status_code=404,
        )
    return folder.resolve()


def engine_options(name: str, parameters: Mapping[str, Any]) -> EngineOptions:
    """What of the call parameters says how the model runs. Raises `BackendError` (bad_request)."""
    given = {option: parameters[option] for option in ENGINE_OPTIONS & parameters.keys()}
    for option, value in given.items():
        kind, said = _KINDS.get(option, (int, "a whole number"))
        if value is not None and not isinstance(value, kind):
            raise BackendError(
                name,
                f"{option} is {value!r}, must be {said}",
                retryable=False,
                kind=FailureKind.BAD_REQUEST,
                status_code=400,
            )
    return EngineOptions(**given)


def read_claims(ways: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Claim]:
    """Return the claims of (local name, parameters). A model that cannot run so is refused when it is called."""
    claims: list[Claim] = []
    for name, parameters in ways:
        with contextlib.suppress(BackendError):
            claims.append((name, engine_options(name, parameters)))
    return claims


class LocalModels:
    """The engines of this process: one for each folder and set of options, started at its first use.

    Safe to use from several threads. What was never claimed (a direct call of LiteLLM) stays until `close`.
    """

    def __init__(self) -> None:
        self._engines: dict[tuple[Path, EngineOptions], LocalEngine] = {}
        self._folders: dict[str, Path] = {}
        self._claims: Counter[Claim] = Counter()
        self._lock = threading.Lock()
        # the garbage collector may give claims up in the middle of anything: it only leaves word, without any lock
        self._given_up: queue.SimpleQueue[Sequence[Claim] | None] = queue.SimpleQueue()  # None: the process ends
        self._closing: threading.Thread | None = None

    def claim(self, owner: object, claims: Sequence[Claim]) -> None:
        """`owner` needs these models for as long as it lives."""
        with self._lock:
            self._claims.update(claims)
            if self._closing is None:
                self._closing = threading.Thread(target=self._close_unclaimed, name="eccos-local closing", daemon=True)
                self._closing.start()
                # a thread that is freeing a model when the interpreter goes away would take the process down with it
                atexit.register(self._stop_closing, self._closing)
        weakref.finalize(owner, self._given_up.put, tuple(claims)).atexit = False

    def engine(self, name: str, options: EngineOptions | None = None) -> LocalEngine:
        """The engine of a model. Raises `BackendError` (not_found)."""
        options = options or EngineOptions()
        with self._lock:
            folder = self._folders.get(name) or self._folders.setdefault(name, model_folder(name))
            found = self._engines.get((folder, options))
            if found is None:
                found = self._engines[folder, options] = LocalEngine(name, folder, options)
            return found

    def statistics(self, name: str) -> EngineStatistics | None:
        """What the model's busiest engine has done; None when it is not in use."""
        with self._lock:
            folder = self._folders.get(name)
            found = [engine.statistics() for (path, _), engine in self._engines.items() if path == folder]
        return max(found, key=lambda statistics: statistics.output_tokens, default=None)

    def usd_per_token(self, name: str, usd_per_gpu_hour: float | None) -> float | None:
        """What a token costs now: USD per GPU-hour over measured tokens per hour, input and output together.

        None without a price per GPU-hour, or before the first answer.
        """
        statistics = self.statistics(name)
        speed = statistics.tokens_per_second if statistics is not None else None
        return usd_per_gpu_hour / 3600 / speed if usd_per_gpu_hour is not None and speed else None

    def close(self) -> None:
        """Stop every engine and free its memory; a later call starts it again."""
        with self._lock:
            engines = list(self._engines.values())
            self._engines.clear()
        for engine in engines:
            engine.close()

    def _stop_closing(self, closing: threading.Thread) -> None:
        self._given_up.put(None)
        closing.join(timeout=LONGEST_CLOSING_S)

    def _close_unclaimed(self) -> None:
        """The closing thread: waits for claims to be given up."""
        while (given_up := self._given_up.get()) is not None:
            for engine in self._unclaimed(given_up):
                engine.close()
                del engine  # the last reference to the model, while this thread waits for the next

    def _unclaimed(self, given_up: Sequence[Claim]) -> list[LocalEngine]:
        """Takes out the engines that nobody claims now."""
        with self._lock:
            self._claims.subtract(given_up)
            self._claims = +self._claims
            needed = {(self._folders.get(name), options) for name, options in self._claims}
            left = {(self._folders[name], options) for name, options in given_up if name in self._folders} - needed
            return [self._engines.pop(key) for key in left if key in self._engines]


@functools.cache
def local_models() -> LocalModels:
    """The one of this process: LiteLLM's providers are the process's, too."""
    return LocalModels()


reset_in_child(local_models.cache_clear)  # the parent's engines have no worker thread in the child
