"""The parts that a router is made of, as one frozen value. `Router.swap` replaces them all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eccos_core.certification import Certificate
from eccos_core.domain import (
    ConversationView,
    GroupShare,
    LatencyRule,
    Model,
    Policy,
    QualityFloor,
    QualitySource,
    Request,
)
from eccos_core.errors import CertificateError, InputError
from eccos_core.learning import DriftMonitor, OnlineLearner
from eccos_core.packing import PackingRule, PackLosses
from eccos_core.protocols import (
    AnswerObserver,
    Backend,
    BatchProvider,
    Encoder,
    Optimizer,
    Predictor,
    Steering,
    Workload,
)
from eccos_core.routing.certified import fingerprint
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.floor_map import NO_CORRECTION, FloorMap
from eccos_core.routing.named_policies import NamedPolicy, built_in_policies
from eccos_core.routing.planner import Planner
from eccos_core.routing.tenants import Tenants
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry
from eccos_core.workload.latency import LatencyTracker

DEFAULT_POLICY = QualityFloor(0.75, on_infeasible="best_effort")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Everything that a router works with. Use `dataclasses.replace` to change some of it.

    - `models`: the pool, M models. `predictor.models` has the same names in the same order.
    - `steering` decides the requests of a stream. `tenant_steering` does so for tenants with a policy of their own.
    - `policy`: what a batch is solved under, unless its tenant or its caller says otherwise.
    - `policies`: those that a request may choose by name.
    - `groups`: shares of a batch that go to some of the models.
    - `conversation`: which messages of a conversation the encoder reads.
    - `max_attempts`: most models that one request is sent to, the first included.
    - `deadline_s`: longest wait for a slot, in seconds.
    - `answer_deadline_s`: most seconds from the first call of a request to the end of its last one.
    - `window_s`: single requests that arrive within so many seconds (0 to 0.05) are decided together.
    - `allowed_call_params`: call parameters that LiteLLM itself obeys and that callers may give all the same.
    - `certificate`: what the policy's price was certified for. It is void for another predictor, encoder or pool.
    - `drift`: what compares labels with forecasts. Its alarms make a certificate void.
    - `learner`: what corrects forecasts by labels, and explores.
    - `floor_map`: how high the mean forecast of a batch must be, so that the quality you realise is at the floor.
    - `quality_sources`: what each model's forecast starts from (M,). Empty stands for outcomes of all.
    - `latency_rule`: what waiting is worth. `latency` knows how long each model has recently taken.
    - `signals`: the quality that each signal of an application stands for.
    - `packing`: how batches share calls. None packs only where a caller asks for it.
    - `pack_losses`: what answers lose in packs, by the history.
    - `answer_observer`: what looks at answers in the background, to label some of them.
    - `provider_batches`: the batch APIs of providers, for batches with patience.
    - `planner`: what looks at an answer before it is given, and may ask another model. None gives the first answer.

    Raises `InputError` when predictor and pool do not have the same models, and `CertificateError` for a certificate
    of other parts.
    """

    models: tuple[Model, ...]
    encoder: Encoder
    predictor: Predictor
    optimizer: Optimizer
    steering: Steering
    workload: Workload
    backend: Backend
    decision_store: DecisionStore
    policy: Policy = DEFAULT_POLICY
    tenants: Tenants = field(default_factory=lambda: Tenants({}))
    tenant_steering: Mapping[str, Steering] = field(default_factory=dict)
    groups: tuple[GroupShare, ...] = ()
    conversation: ConversationView = "last_user"
    telemetry: Telemetry = NO_TELEMETRY
    max_attempts: int = 3
    deadline_s: float = 60.0
    answer_deadline_s: float = 120.0
    window_s: float = 0.0
    allowed_call_params: frozenset[str] = frozenset()
    certificate: Certificate | None = None
    drift: DriftMonitor = field(default_factory=DriftMonitor)
    learner: OnlineLearner | None = None
    floor_map: FloorMap = NO_CORRECTION
    quality_sources: tuple[QualitySource, ...] = ()
    latency_rule: LatencyRule = field(default_factory=LatencyRule)
    latency: LatencyTracker = field(default_factory=LatencyTracker)
    signals: Mapping[str, float] = field(default_factory=dict)
    answer_observer: AnswerObserver | None = None
    planner: Planner | None = None
    provider_batches: BatchProvider | None = None
    policies: Mapping[str, NamedPolicy] = field(default_factory=built_in_policies)
    packing: PackingRule | None = None
    pack_losses: PackLosses = field(default_factory=PackLosses)

    def __post_init__(self) -> None:
        names = tuple(model.name for model in self.models)
        if self.predictor.models != names:
            raise InputError(
                f"the predictor knows the models {', '.join(self.predictor.models)}, the pool has {', '.join(names)}. "
                "They must be the same, in the same order."
            )
        if self.certificate is not None:
            found = fingerprint(self.models, self.encoder, self.predictor)
            if found != self.certificate.fingerprint:
                raise CertificateError(
                    "the certificate is void: predictor, encoder, models or prices are not those that it was made for. "
                    "Run `eccos certify` again, or give certificate=None."
                )

    @property
    def certificate_problem(self) -> str | None:
        """Why the certificate is void. None while it holds, or without one."""
        if self.certificate is None or not self.drift.alarms:
            return None
        return f"the certificate is void: {self.drift.alarms[-1]} Then run `eccos certify` again."

    @property
    def applied_learner(self) -> OnlineLearner | None:
        """The learner that corrects and explores. None with a certificate, which is for the fitted forecasts."""
        return self.learner if self.certificate is None else None

    @property
    def valid_certificate(self) -> Certificate | None:
        """The certificate, while no alarm about drift has made it void."""
        return self.certificate if self.certificate_problem is None else None

    def policy_of(self, request: Request) -> Policy:
        """Return the policy of a request: the one that it names, that of its tenant, or the usual one."""
        if request.policy is not None:
            return self.policies[request.policy].policy
        return self.tenants.policy_of(request) or self.policy

    def steering_of(self, request: Request) -> Steering:
        """Return what decides a request that comes alone."""
        if request.policy is not None:
            return self.policies[request.policy].steering
        return self.tenant_steering.get(request.tenant or "", self.steering)

    def slot_wait_s(self, request: Request) -> float:
        """Return how long a request waits for a slot at most: as it says itself, or `deadline_s`."""
        return self.deadline_s if request.deadline_s is None else request.deadline_s

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the pool's models, in its order."""
        return self.predictor.models
