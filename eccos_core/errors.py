"""One tree of errors. Everything that eccos raises on purpose is an `EccosError`.

    EccosError
    ├── InputError                     something that you gave us is wrong (exit code 1)
    │   ├── ConfigError                the YAML file; carries every problem found, each with its place
    │   ├── DataError                  an outcomes, questions or prices file, with its line
    │   ├── RequestError               a request that no model could be asked
    │   ├── UnknownModelError          a model that the pool does not have
    │   ├── UnknownDecisionError       a decision id that was never given out
    │   ├── SharedStateError           the Redis that replicas share: wrong password, foreign keys, another version
    │   └── ArtifactError              a fitted predictor that does not match encoder, pool or format
    ├── HistoryError                   a history made with another encoder or dimension, or unreachable
    ├── RoutingError                   no model may or can take the request
    │   ├── NoEligibleModelError       every model was ruled out, and says by which filter
    │   ├── InfeasibleError            a constraint that cannot be met: wanted and attainable
    │   └── Overloaded                 no free slot before the deadline, or the queue is full
    │       └── CircuitOpen            ... of a model that is left alone because it failed repeatedly
    ├── BackendError                   one call to one model failed
    │   └── StreamInterrupted          ... after some of its answer had arrived
    ├── ProviderBatchError             a request whose provider batch was cancelled, or cannot be read now
    ├── AttemptsExhausted              every model that was tried failed; lists each attempt
    ├── GradingError                   an answer that could not be graded: no score, which is not a wrong answer
    └── MissingDependencyError         an optional package is not installed; says the line that installs it

Messages name the rule, the offending value, its place and the way out. No message ever holds a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` or an empty string, to end a message with."""
    nearest = nearest_name(name, known)
    return f"; did you mean {nearest!r}?" if nearest else ""


class FailureKind(StrEnum):
    """What went wrong with one call to one model. Everything that reacts to a failure asks its kind, never its text.

    `BAD_REQUEST` is the request's own fault. `CONTEXT_WINDOW` (too large, an HTTP 413 included), `CONTENT_POLICY` and
    `UNSUPPORTED` (a parameter) may pass with another model, and blame none.
    """

    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    AUTHENTICATION = "authentication"
    CONTEXT_WINDOW = "context_window"
    CONTENT_POLICY = "content_policy"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    CONNECTION = "connection"
    MALFORMED_RESPONSE = "malformed_response"
    OUT_OF_MEMORY = "out_of_memory"
    OVERLOADED = "overloaded"
    UNKNOWN = "unknown"

    @property
    def retryable(self) -> bool:
        """Whether the same model may answer when it is asked again."""
        return self in _RETRYABLE

    @property
    def blames_request(self) -> bool:
        """Whether the request itself is at fault, so that no other model would do better."""
        return self is FailureKind.BAD_REQUEST

    @property
    def blames_model(self) -> bool:
        """Whether the failure counts against the model's circuit breaker."""
        return self not in _REQUEST_SPECIFIC

    @property
    def blames_deployment(self) -> bool:
        """Whether the load balancer leaves the deployment alone for a while."""
        return self.blames_model and self not in (FailureKind.MALFORMED_RESPONSE, FailureKind.UNKNOWN)

    @property
    def blames_address(self) -> bool:
        """Whether a wrong `api_base` may be the cause, so that the message should name it."""
        return self in _ADDRESS_RELATED

    @property
    def billed(self) -> bool:
        """Whether the provider may have charged for the call although it failed."""
        return self in _BILLED


_RETRYABLE = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMIT,
        FailureKind.UNAVAILABLE,
        FailureKind.CONNECTION,
        FailureKind.MALFORMED_RESPONSE,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.OVERLOADED,
    }
)
_REQUEST_SPECIFIC = frozenset(
    {FailureKind.BAD_REQUEST, FailureKind.CONTEXT_WINDOW, FailureKind.CONTENT_POLICY, FailureKind.UNSUPPORTED}
)
_ADDRESS_RELATED = frozenset(
    {FailureKind.CONNECTION, FailureKind.NOT_FOUND, FailureKind.TIMEOUT, FailureKind.MALFORMED_RESPONSE}
)
_BILLED = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
        FailureKind.CONTENT_POLICY,
        FailureKind.MALFORMED_RESPONSE,
        FailureKind.UNKNOWN,
    }
)


class ExclusionKind(StrEnum):
    """Which hard filter ruled a model out."""

    ALLOW_LIST = "allow_list"
    DENY_LIST = "deny_list"
    TAGS = "tags"
    CAPABILITIES = "capabilities"
    CONTEXT_WINDOW = "context_window"
    PARAMETERS = "parameters"
    LATENCY = "latency"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why one model may not answer one request: which filter, and the reason in words."""

    kind: ExclusionKind
    message: str

    def __str__(self) -> str:
        return self.message


class EccosError(Exception):
    """Base of every error that eccos raises on purpose. It can cross to another process whole."""

    def __reduce__(self) -> tuple[Callable[..., EccosError], tuple[object, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[EccosError], arguments: tuple[object, ...], state: Mapping[str, object]) -> EccosError:
    """Make an error that another process raised. Its message is made already, so nothing is computed again."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class InputError(EccosError):
    """Something that the caller gave is wrong; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: where (path inside the file) and what (rule, value, way out)."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class ConfigError(InputError):
    """Every problem found in a configuration file, reported at once."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in self.problems))


class DataError(InputError):
    """A line of a data file that cannot be used. `line` counts from 1; None when the whole file is meant."""

    def __init__(self, file: str, message: str, line: int | None = None) -> None:
        self.file = file
        self.line = line
        super().__init__(f"{file}{f':{line}' if line is not None else ''}: {message}")


class DatabaseAwayError(DataError):
    """A database that does not answer now. The same call may work later."""


class RequestError(InputError):
    """A request that cannot be asked of any model: empty, malformed, or not to be sent. `kind` says `bad_request`."""

    kind = FailureKind.BAD_REQUEST


class UnknownModelError(InputError):
    """A model name that the pool does not have."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        listed = ", ".join(self.known) or "none"
        super().__init__(f"unknown model {name!r}{did_you_mean(name, self.known) or '.'} The pool has: {listed}.")


class UnknownDecisionError(InputError):
    """A decision id that this router never gave out, or has forgotten."""

    def __init__(self, decision_id: str) -> None:
        self.decision_id = decision_id
        super().__init__(f"unknown decision {decision_id!r}: no such decision was made here, or it is no longer kept")


class ArtifactError(InputError):
    """A fitted predictor on disk that does not fit encoder, pool or format version."""


class SharedStateError(InputError):
    """The Redis that replicas share cannot be used: wrong password, foreign keys, or replicas of another version."""


class CertificateError(InputError):
    """A certificate that is missing, damaged, void, or for another claim than the policy's."""


class HistoryError(EccosError):
    """A history that cannot be used: made with another encoder or dimension, damaged, or unreachable."""


class RoutingError(EccosError):
    """No model may or can take the request."""


class NoEligibleModelError(RoutingError):
    """Every model of the pool was ruled out.

    `exclusions` says, per model, which filter did it. `reasons` gives the same in words. A reason that is given as
    text has the kind `OTHER`.
    """

    def __init__(self, request_id: str, exclusions: Mapping[str, Exclusion | str]) -> None:
        self.request_id = request_id
        self.exclusions = {
            model: each if isinstance(each, Exclusion) else Exclusion(ExclusionKind.OTHER, each)
            for model, each in exclusions.items()
        }
        self.reasons = {model: each.message for model, each in self.exclusions.items()}
        listed = "; ".join(f"{model}: {reason}" for model, reason in self.reasons.items())
        super().__init__(f"request {request_id!r}: no model of the pool may answer it. {listed}")


class InfeasibleError(RoutingError):
    """A constraint that no assignment meets.

    `constraint` names it, `wanted` and `attainable` are numbers in the constraint's own unit (mean quality in
    [0, 1], USD, or requests).
    """

    def __init__(self, constraint: str, wanted: float, attainable: float, message: str) -> None:
        self.constraint = constraint
        self.wanted = wanted
        self.attainable = attainable
        super().__init__(message)


class Overloaded(RoutingError):
    """No eligible model had a free slot before the deadline, or the queue was full."""

    def __init__(self, message: str, waited_s: float = 0.0, retry_after_s: float | None = None) -> None:
        self.waited_s = waited_s
        self.retry_after_s = retry_after_s
        super().__init__(message)


class CircuitOpen(Overloaded):
    """A model that failed repeatedly and is left alone for `retry_after_s` seconds, or is being probed just now.

    Not worth waiting for while another model may answer.
    """


class BackendError(EccosError):
    """One call to one model failed.

    `kind` says what went wrong. `retryable` says whether another try may help. The kind decides it unless you do.
    `retry_after_s` is how long the provider asks you to wait, in seconds. `elsewhere` says that another deployment of
    the model can be called at once. `attempts` lists the failed calls of this model so far, when there were several.
    """

    def __init__(
        self,
        model: str,
        message: str,
        *,
        retryable: bool | None = None,
        kind: FailureKind | str = FailureKind.UNKNOWN,
        retry_after_s: float | None = None,
        status_code: int | None = None,
    ) -> None:
        self.model = model
        self.kind = FailureKind(kind)
        self.retryable = self.kind.retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.status_code = status_code
        self.elsewhere = False
        self.attempts: tuple[Attempt, ...] = ()
        super().__init__(f"{model}: {message}")


class StreamInterrupted(BackendError):
    """A stream broke after its first token. `received` is the text that had arrived; it is never restarted silently."""

    def __init__(self, model: str, message: str, *, received: str, kind: FailureKind = FailureKind.CONNECTION) -> None:
        self.received = received
        super().__init__(
            model, f"{message} (the stream broke after {len(received)} characters)", retryable=False, kind=kind
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed call: which model, what kind of failure, the message, and how long it took."""

    model: str
    kind: FailureKind | str
    message: str
    latency_s: float


class AttemptsExhausted(EccosError):
    """Every model that the request may use was tried and failed; `attempts` lists them in order."""

    def __init__(self, request_id: str, attempts: Sequence[Attempt]) -> None:
        self.request_id = request_id
        self.attempts = tuple(attempts)
        listed = "; ".join(f"{a.model} ({a.kind}, {a.latency_s:.2f} s): {a.message}" for a in self.attempts)
        super().__init__(f"request {request_id!r}: all {len(self.attempts)} attempts failed. {listed}")


class ProviderBatchError(EccosError):
    """A request of a provider's batch that has no answer, and is not asked again: nobody knows that you want to pay.

    `batch_id` is the provider's name of the batch. `is_cancelled` says that somebody cancelled it. Else it still runs,
    or cannot be read now, and the same call finds it again.
    """

    def __init__(self, batch_id: str, message: str, *, is_cancelled: bool = False) -> None:
        self.batch_id = batch_id
        self.is_cancelled = is_cancelled
        super().__init__(f"provider batch {batch_id}: {message}")


class GradingError(EccosError):
    """An answer that could not be graded: a judge that gave no score, a grader that failed, an unusable reference."""


class ForkedProcessError(EccosError):
    """Something that was opened before a fork is used in the child. The message says where to open it instead."""


class MissingDependencyError(EccosError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        self.package = package
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: run `{install}`")
