"""Measure an OpenAI-compatible server with a few requests, and fit what one of its passes takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import atomic_writer
from eccos_core.roofline import LinearCost

FORMAT = "eccos serving costs 1"
FEWEST_WORDS, LONGEST_WORDS, TOGETHER = 8, 2048, (1, 2, 4, 8, 16)
_PARTS_OF_LONGEST = (64, 8, 2, 1)
_REPEATS, _OUTPUT_TOKENS, _SHORT_PART = 3, 48, 32
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class ServerMeasurement:
    """One request among `together` that ran at the same time. `token_s`: per token after the first."""

    together: int
    prompt_tokens: int
    output_tokens: int
    first_token_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class ServerCalibration:
    """What passes of a server take. `request_s` is spent on each request outside of passes: network and tokenising.

    The errors are medians of |forecast / measured - 1|, of the first token and of the tokens after it.
    """

    model: str
    cost: LinearCost
    request_s: float
    first_token_error: float
    token_error: float
    measurements: int


def measure_server(
    url: str, model: str, api_key: str | None = None, longest_words: int = LONGEST_WORDS
) -> list[ServerMeasurement]:
    """Ask a server for streamed answers: prompts of several lengths alone, then several requests at once.

    Each prompt is of random words, at most `longest_words`, so that no cached prefix helps. An answer of one token says
    nothing and is left out. Raises `InputError` when the server cannot be reached, refuses, answers without a stream or
    without its tokens, or ends most answers at once.
    """
    if longest_words < FEWEST_WORDS:
        raise InputError(f"the longest prompt has {longest_words} words, must be >= {FEWEST_WORDS}")
    if urlsplit(url).username or urlsplit(url).password:
        raise InputError("the address holds a user or a password. Give the key with --api-key-env instead.")
    return asyncio.run(_measure(url.rstrip("/"), model, api_key, longest_words))


def fit_server(model: str, measured: Sequence[ServerMeasurement]) -> ServerCalibration:
    """Fit a cost to measurements, by least squares of relative errors. No share becomes negative.

    Raises `InputError` for fewer than 8 measurements, or when all requests ran alone.
    """
    if len(measured) < 8 or len({one.together for one in measured}) < 2:
        raise InputError(
            f"{len(measured)} measurements of {len({one.together for one in measured})} batch sizes cannot be fitted: "
            "8 or more are needed, of 2 batch sizes or more"
        )
    alone = [one for one in measured if one.together == 1]
    first = np.array([[1.0, one.prompt_tokens] for one in alone])
    first_s = np.array([one.first_token_s for one in alone])
    start_of_request, prefill_token_s = _non_negative(first, first_s)
    steady = _came_one_by_one(measured)
    later = np.array(
        [[1.0, one.together, one.together * (one.prompt_tokens + one.output_tokens / 2)] for one in steady]
    )
    later_s = np.array([one.token_s for one in steady])
    start_s, decode_s, context_token_s = _non_negative(later, later_s)
    return ServerCalibration(
        model=model,
        cost=LinearCost(start_s, prefill_token_s, decode_s, context_token_s),
        request_s=max(0.0, start_of_request - start_s),
        first_token_error=_median_error(first @ [start_of_request, prefill_token_s], first_s),
        token_error=_median_error(later @ [start_s, decode_s, context_token_s], later_s),
        measurements=len(measured),
    )


def write_calibration(path: Path, calibration: ServerCalibration) -> None:
    """Write a calibration as JSON, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(json.dumps({"format": FORMAT, **asdict(calibration)}, indent=2).encode() + b"\n")


def read_calibration(path: Path) -> ServerCalibration:
    """Read what `write_calibration` wrote. Raises `DataError` for everything else."""
    file = str(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(file, f"is no JSON: {error}") from error
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise DataError(file, f"is no file of `eccos calibrate`: its format must be {FORMAT!r}")
    try:
        cost = LinearCost(**{name: float(value) for name, value in found.pop("cost").items()})
        calibration = ServerCalibration(cost=cost, **found)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(file, f"lacks a number of a calibration ({error}); run `eccos calibrate` again") from error
    shares = np.array([*asdict(cost).values(), calibration.request_s], dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and cost.start_s + cost.decode_s > 0):
        raise DataError(file, "has a time that is negative, not finite, or zero for a whole pass; calibrate again")
    return calibration


async def _measure(url: str, model: str, api_key: str | None, longest: int) -> list[ServerMeasurement]:
    import httpx

    generator = np.random.default_rng()
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=max(TOGETHER))
    found: list[ServerMeasurement | None] = []
    short = max(1, longest // _SHORT_PART)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, headers=headers, limits=limits) as client:
        await _ask(client, url, model, _words(generator, short), 1)  # loads what is loaded late
        asked = [(1, max(1, longest // part)) for part in _PARTS_OF_LONGEST for _ in range(_REPEATS)]
        asked += [(together, short) for together in TOGETHER[1:]]
        for together, words in asked:
            prompts = [_words(generator, words) for _ in range(together)]
            found += await asyncio.gather(*(_ask(client, url, model, prompt, together) for prompt in prompts))
    measured = [one for one in found if one is not None]
    if len(measured) < len(found) / 2:
        raise InputError(
            f"{len(found) - len(measured)} of {len(found)} answers of {model!r} have fewer than 2 tokens, so there is "
            "no time between tokens. Name a model that writes more."
        )
    return measured


def _words(generator: np.random.Generator, count: int) -> str:
    return " ".join(str(number) for number in generator.integers(100, 999, count))


async def _ask(client: Any, url: str, model: str, prompt: str, together: int) -> ServerMeasurement | None:
    import httpx

    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Count on from these numbers, and do not stop: {prompt}"}],
        "max_tokens": _OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first_s = last_s = 0.0
    usage: dict[str, Any] | None = None
    streamed = False
    try:
        async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise InputError(_refusal(url, model, client, response.status_code, await response.aread()))
            async for line in response.aiter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                streamed = True
                piece = json.loads(line.removeprefix("data:"))
                usage = piece.get("usage") or usage
                if any((choice.get("delta") or {}).get("content") for choice in piece.get("choices", ())):
                    last_s = time.perf_counter() - started
                    first_s = first_s or last_s
    except httpx.ConnectError:
        raise InputError(f"{url} cannot be reached. Is the server running, and is the address right?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"{url} cannot be asked ({type(error).__name__}); give the address up to /v1") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{url} streams what is no chat completion ({type(error).__name__})") from error
    if not streamed:
        kind = response.headers.get("content-type", "no content type")
        raise InputError(f"{url} answers without a stream ({kind:.60}). Does the address end in /v1, of OpenAI's API?")
    if usage is None or not usage.get("prompt_tokens"):
        raise InputError(f"{url} streams no `usage` with its tokens. The server must support stream_options.")
    output = int(usage.get("completion_tokens") or 0)
    if output < 2 or last_s <= first_s:
        return None
    return ServerMeasurement(together, int(usage["prompt_tokens"]), output, first_s, (last_s - first_s) / (output - 1))


def _refusal(url: str, model: str, client: Any, status: int, said: bytes) -> str:
    """Say what a server answered, without the key, and what to change."""
    key = str(client.headers.get("authorization", "")).removeprefix("Bearer ")
    text = said.decode("utf-8", "replace")
    text = text.replace(key, "***") if key else text
    hint = {
        401: " Give its key with --api-key-env.",
        403: " Give its key with --api-key-env.",
        404: " Give the address up to /v1, and a model that the server has.",
    }.get(status, " A prompt may be too long for the model: lower --longest." if status == 400 else "")
    return f"{url} answers HTTP {status} for the model {model!r}: {text:.200}{hint}"


def _non_negative(columns: FloatArray, measured: FloatArray) -> list[float]:
    """Solve least squares of relative errors with no coefficient below 0, over all sets of columns.

    The coefficient of the first column is above 0: a pass takes time, whatever it does.
    """
    weighted = columns / measured[:, None]
    best, least = np.zeros(columns.shape[1]), np.inf
    for kept in chain.from_iterable(combinations(range(columns.shape[1]), n + 1) for n in range(columns.shape[1])):
        solved = np.zeros(columns.shape[1])
        solved[list(kept)] = np.linalg.lstsq(weighted[:, kept], np.ones(len(measured)), rcond=None)[0]
        error = float(((weighted @ solved - 1) ** 2).sum())
        if (solved >= 0).all() and solved[0] > 0 and error < least:
            best, least = solved, error
    return [float(value) for value in best]


def _came_one_by_one(measured: Sequence[ServerMeasurement]) -> list[ServerMeasurement]:
    """Leave out requests whose tokens a busy client saw in one piece: below a third of the median of as many at once.

    Such a time is near 0, and would outweigh all others.
    """
    medians = {
        count: float(np.median([one.token_s for one in measured if one.together == count]))
        for count in {one.together for one in measured}
    }
    return [one for one in measured if one.token_s >= medians[one.together] / 3]


def _median_error(forecast: FloatArray, measured: FloatArray) -> float:
    return float(np.median(np.abs(forecast / measured - 1)))
