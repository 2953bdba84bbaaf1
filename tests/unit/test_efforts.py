"""Efforts of a model: one model of the pool each, with shared slots, rates, circuit breaker and prior."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.assembly.effort_priors import LOG_ODDS_PER_STEP, SPOKEN
from eccos_core.assembly.policies import build_groups, build_tenants
from eccos_core.assembly.starting_quality import quality_sources, starting_priors, ungraded_priors
from eccos_core.backends import EffortBackend
from eccos_core.backends.efforts import OUTPUT_LIMITS, THINKING, at_effort
from eccos_core.config import Config, load_config
from eccos_core.domain import BreakerState, Completion, Model, OutcomeTable, Request
from eccos_core.errors import BackendError, CircuitOpen, ConfigError, FailureKind, NoEligibleModelError, Overloaded
from eccos_core.predictors import fit_predictor
from eccos_core.routing.deployments import Deployments
from eccos_core.routing.eligibility import eligibility_mask
from eccos_core.testing import ScriptedBackend
from eccos_core.workload import BreakerSettings, WorkloadTracker

EFFORTS = "{low: {reasoning_effort: low}, high: {reasoning_effort: high, max_tokens: 8000}}"
PRICE = "input_cost_per_token: 1.0e-6, output_cost_per_token: 2.0e-6"
POOL = f"""\
model_list:
- {{model_name: small, litellm_params: {{model: openai/s, api_key: none}}, model_info: {{free: true}}}}
- model_name: large
  litellm_params: {{model: openai/l, api_key: none, rpm: 60}}
  model_info: {{{PRICE}, max_concurrency: 4, tags: [eu], efforts: EFFORTS}}
eccos: {{history: in_memory, encoder: static, MORE}}
"""


def load(folder: Path, efforts: str = EFFORTS, more: str = "predictor: prior", pool: str = POOL) -> Config:
    file = folder / "eccos.yaml"
    file.write_text(pool.replace("EFFORTS", efforts).replace("MORE", more))
    return load_config(file)


def problem_of(folder: Path, **changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **changes)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- the configuration


def test_each_effort_is_a_model_of_the_pool(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert [model.name for model in config.models] == ["small", "large@low", "large@high"]
    low, high = config.pool[1:]
    assert {low.model.effort_of, high.model.effort_of} == {"large"}
    assert low.deployments == high.deployments
    assert (low.model.max_concurrency, low.requests_per_minute, low.model.tags) == (4, 60, {"eu"})
    assert low.effort is not None
    assert dict(low.effort.parameters) == {"reasoning_effort": "low"}
    assert (low.model.max_output_tokens, high.model.max_output_tokens) == (None, 8000)


def test_efforts_are_ordered_by_what_they_ask_for_else_as_they_stand(tmp_path: Path) -> None:
    known = "{b: {reasoning_effort: high}, a: {reasoning_effort: minimal}, c: {reasoning_effort: medium}}"
    assert [m.name for m in load(tmp_path, known).models[1:]] == ["large@a", "large@c", "large@b"]
    unknown = "{z: {thinking: {type: disabled}}, a: {thinking: {type: enabled, budget_tokens: 4000}}, plain: {}}"
    assert [m.name for m in load(tmp_path, unknown).models[1:]] == ["large@z", "large@a", "large@plain"]


@pytest.mark.parametrize(
    ("efforts", "words"),
    [
        ("{}", "model_info.efforts: is empty, must list at least one effort"),
        ("[low]", "must be a mapping"),
        ("{low: low}", "efforts.low: is text, must be a mapping of call parameters"),
        ("{lo@w: {}}", "the name of the effort 'lo@w' must be letters, digits"),
        ("{low: {api_base: 'http://x'}}", "efforts.low.api_base: is no parameter of an effort"),
        ("{low: {model: openai/other}}", "efforts.low.model: is no parameter of an effort"),
        ("{low: {rpm: 5}}", "efforts.low.rpm: is no parameter of an effort"),
        ("{low: {max_tokens: 0}}", "efforts.low.max_tokens: is 0, must be a whole number >= 1"),
        ("{low: {reasoning_effort: off}}", "efforts.low.reasoning_effort: is false, must be a text such as 'low'"),
    ],
)
def test_a_wrong_effort_is_named_with_its_place(tmp_path: Path, efforts: str, words: str) -> None:
    assert words in problem_of(tmp_path, efforts=efforts)


def test_an_effort_may_not_have_the_name_of_another_model(tmp_path: Path) -> None:
    other = POOL.replace("model_name: small", "model_name: large@low")
    assert "is also the name of an effort of 'large'" in problem_of(tmp_path, pool=other)


def test_deployments_of_one_model_have_the_same_efforts(tmp_path: Path) -> None:
    both = POOL.replace("model_name: small", "model_name: large").replace(
        "{free: true}", f"{{{PRICE}, max_concurrency: 1, efforts: {{low: {{reasoning_effort: minimal}}}}}}"
    )
    assert "All deployments of a model have the same efforts" in problem_of(tmp_path, pool=both)
    once = POOL.replace("model_name: small", "model_name: large").replace("{free: true}", f"{{{PRICE}}}")
    assert [len(entry.deployments) for entry in load(tmp_path, pool=once).pool] == [2, 2]


def test_lists_of_models_take_the_model_for_all_its_efforts(tmp_path: Path) -> None:
    more = "groups: [{name: g, models: [large], at_most: 0.5}], tenants: {t: {allow: [large]}, u: {deny: [large@low]}}"
    config = load(tmp_path, more=more)
    assert build_groups(config)[0].members.tolist() == [False, True, True]
    tenants = build_tenants(config)

    def may(**asked: Any) -> list[bool]:
        request = tenants.narrow(Request.of("hello", **asked))
        return eligibility_mask([request], config.models, [5])[0].tolist()

    assert may(tenant="t") == [False, True, True]
    assert may(tenant="t", allow=frozenset({"large@low"})) == [False, True, False]
    assert may(tenant="u") == [True, False, True]
    assert may(deny=frozenset({"large"})) == [True, False, False]
    assert may(allow=frozenset({"large"}), deny=frozenset({"large@high"})) == [False, True, False]
    assert may(required_tags=frozenset({"eu"})) == [False, True, True]
    with pytest.raises(NoEligibleModelError):
        may(allow=frozenset({"large"}), deny=frozenset({"large"}))


def test_where_one_model_is_wanted_an_effort_must_be_named(tmp_path: Path) -> None:
    judge = "labels: {judge: {model: large, share: 0.1, budget_usd_per_day: 1}}"
    assert "names 'large', which has efforts; name one of them: large@low, large@high" in problem_of(
        tmp_path, more=judge
    )
    assert load(tmp_path, more=judge.replace("large", "large@low")).labels.judge is not None


# ------------------------------------------------------------------------------------------------------- the workload

ARMS = [
    Model("small", 0.0, 0.0),
    Model("large@low", 1e-6, 1e-6, max_concurrency=3, effort_of="large"),
    Model("large@high", 1e-6, 1e-6, max_concurrency=3, effort_of="large"),
]
ANSWER = Completion("", "large@low", 10, 10, 0.0, 0.1)


def test_efforts_share_slots() -> None:
    workload = WorkloadTracker(ARMS)
    with ExitStack() as held:
        held.enter_context(workload.hold("large@low"))
        held.enter_context(workload.hold("large@high"))
        assert workload.free_slots(["large@low", "large@high"]).tolist() == [1, 1]
        held.enter_context(workload.hold("large@high"))
        with pytest.raises(Overloaded, match="model 'large' has no free slot: 3 of 3 requests are in flight"):
            held.enter_context(workload.hold("large@low"))
        status = {each.model: each for each in workload.status().models}
        assert (status["large@low"].in_flight, status["large@high"].in_flight) == (1, 2)
        assert workload.status().in_flight == 3
    assert workload.free_slots().tolist()[1:] == [3, 3]


def test_efforts_share_rates() -> None:
    limits = {"large@low": 2, "large@high": 2}
    workload = WorkloadTracker(ARMS, clock=lambda: 0.0, requests_per_minute=limits)
    for name in limits:
        with workload.hold(name):
            pass
    with pytest.raises(Overloaded, match="2 requests per minute are used up"), workload.hold("large@low"):
        pass


def test_a_circuit_that_one_effort_opens_is_open_for_all_and_closes_for_all() -> None:
    now = [0.0]
    workload = WorkloadTracker(ARMS, lambda: now[0], breaker=BreakerSettings(failures=3, open_s=10))
    for _ in range(3):
        workload.observe("large@low", None, BackendError("large@low", "boom", kind=FailureKind.UNAVAILABLE))
    with pytest.raises(CircuitOpen), workload.hold("large@high"):
        pass
    assert {each.breaker for each in workload.status().models[1:]} == {BreakerState.OPEN}
    now[0] = 11.0
    with workload.hold("large@high"):
        with pytest.raises(CircuitOpen), workload.hold("large@low"):
            pass
        workload.observe("large@high", ANSWER)
    assert {each.breaker for each in workload.status().models} == {BreakerState.CLOSED}


def test_a_model_that_gets_efforts_keeps_its_calls_in_flight() -> None:
    workload = WorkloadTracker([Model("large", 0.0, 0.0, max_concurrency=3)])
    with workload.hold("large"):
        workload.reconfigure(ARMS)
        assert workload.free_slots(["large@low"]).tolist() == [2]
    assert workload.free_slots(["large@low"]).tolist() == [3]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 9), st.integers(1, 12))
def test_shared_slots_are_taken_once(owner: list[int], slots: int, requests: int) -> None:
    models = [Model(f"m{i}", 0.0, 0.0, effort_of=f"d{one}") for i, one in enumerate(owner)]
    deployments = Deployments(models)
    free = np.full(len(models), slots)
    calls = np.arange(len(models))
    left = deployments.take(free, calls)
    for column, one in enumerate(owner):
        assert left[column] == slots - sum(n for n, other in zip(calls, owner, strict=True) if other == one)
    caps = deployments.shared_caps(free, requests)
    shared = {one for one in owner if owner.count(one) > 1} if slots < requests else set()
    assert len(caps) == len(shared)
    assert all(np.floor(cap.at_most * requests + 1e-9) == slots for cap in caps)


# --------------------------------------------------------------------------------------------------------- the prior


def table_of(config: Config, **quality: list[float]) -> OutcomeTable:
    names = tuple(model.name for model in config.models)
    rows = len(next(iter(quality.values())))
    grid = np.full((rows, len(names)), np.nan)
    tokens = grid.copy()
    for name, values in quality.items():
        column = names.index(name.replace("_", "@"))
        grid[:, column], tokens[:, column] = values, 100.0
    texts = tuple(f"question {row}" for row in range(rows))
    return OutcomeTable(texts, texts, names, grid, tokens, tokens)


def test_without_outcomes_quality_and_length_rise_with_the_effort(tmp_path: Path) -> None:
    three = "{low: {reasoning_effort: low}, mid: {reasoning_effort: medium}, high: {reasoning_effort: high}}"
    config = load(tmp_path, three)
    priors = ungraded_priors(config)
    assert priors["large@mid"].assumed_quality == pytest.approx(0.8)
    for name, sign, length in (("large@low", -1, SPOKEN + 0.2), ("large@high", 1, SPOKEN + 0.8)):
        assert priors[name].assume_like == "large@mid"
        assert priors[name].log_odds == sign * LOG_ODDS_PER_STEP
        assert priors[name].length_ratio == pytest.approx(length / (SPOKEN + 0.5))
    names = tuple(model.name for model in config.models)
    empty = OutcomeTable((), (), names, *(np.empty((0, len(names))) for _ in range(3)))
    forecast = fit_predictor("prior", empty, np.empty((0, 4), np.float32), priors=priors).predict(
        np.zeros((1, 4), np.float32), np.array([20.0])
    )
    _, low, mid, high = forecast.quality[0]
    assert low < mid < high
    assert mid == pytest.approx(0.8, abs=0.01)
    assert high == pytest.approx(1 / (1 + np.exp(-np.log(0.8 / 0.2) - 0.25)), abs=0.02)
    _, short, usual, long = forecast.output_tokens[0]
    assert short / usual == pytest.approx((SPOKEN + 0.2) / (SPOKEN + 0.5), rel=0.02)
    assert long / usual == pytest.approx((SPOKEN + 0.8) / (SPOKEN + 0.5), rel=0.02)


def test_an_effort_without_outcomes_follows_the_one_that_has_some(tmp_path: Path) -> None:
    config = load(tmp_path)
    table = table_of(config, small=[0.0, 1.0] * 30, large_low=[1.0, 1.0, 1.0, 0.0] * 15)
    priors = starting_priors(config, table)
    assert priors["large@high"].assume_like == "large@low"
    graded = frozenset({"small", "large@low"})
    assert quality_sources(config, graded) == ("outcomes", "outcomes", "assume_like")
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    forecast = fit_predictor("prior", table, vectors, priors=priors).predict(vectors[:1], np.array([20.0]))
    _, low, high = forecast.quality[0]
    assert low == pytest.approx(0.75, abs=0.03)
    assert low < high < 0.85
    assert forecast.output_tokens[0, 2] > 1.5 * forecast.output_tokens[0, 1]


def test_other_models_may_be_assumed_to_be_like_one_that_has_efforts(tmp_path: Path) -> None:
    like = POOL.replace("{free: true}", "{free: true, assume_like: large}")
    priors = ungraded_priors(load(tmp_path, pool=like))
    assert priors["small"].assume_like == "large@low"
    itself = POOL.replace("tags: [eu]", "assume_like: large@low")
    assert "must name another model of the pool" in problem_of(tmp_path, pool=itself)


def test_the_item_response_model_gives_an_effort_the_slope_of_its_sibling() -> None:
    from eccos_core.predictors.learners.item_response import _fit_model

    draw = np.random.default_rng(1)
    points = draw.normal(size=(400, 3))
    chance = 1 / (1 + np.exp(-3 * points[:, 0]))  # a slope of 3, beside one of 1 below
    other = 1 / (1 + np.exp(-points[:, 0]))
    observed = (draw.random((400, 3)) < np.stack([other, chance, chance], axis=1)).astype(float)
    known = np.ones(observed.shape, dtype=bool)
    known[:, 2] = False
    start = np.zeros(3)
    _, _, alone = _fit_model(points, observed, known, start, 3.0, {})
    _, _, tied = _fit_model(points, observed, known, start, 3.0, {2: 1})
    assert alone[2] == pytest.approx(1.0)
    assert tied[2] == pytest.approx(tied[1], rel=0.05)
    assert tied[1] > 1.5


# ---------------------------------------------------------------------------------------------------------- the calls

LOW, HIGH = {"reasoning_effort": "low"}, {"reasoning_effort": "high", "max_tokens": 8000}


def backend_of(*answers: Any) -> tuple[EffortBackend, ScriptedBackend]:
    scripted = ScriptedBackend({model.name: list(answers) or ["fine"] for model in ARMS})
    models = {model.name: model for model in ARMS}
    return EffortBackend(scripted, models, {"large@low": LOW, "large@high": HIGH}), scripted


def test_each_effort_adds_its_parameters() -> None:
    backend, scripted = backend_of()
    for model in ("small", "large@low", "large@high"):
        backend.complete(model, Request.of("hello"))
    assert [dict(request.parameters) for _, request in scripted.calls] == [{}, LOW, HIGH]


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ({"temperature": 0.5}, {**HIGH, "temperature": 0.5}),
        ({"max_tokens": 100}, {"reasoning_effort": "high", "max_tokens": 100}),
        ({"max_tokens": 9000}, {"reasoning_effort": "high", "max_tokens": 8000}),
        ({"max_completion_tokens": 9000}, {"reasoning_effort": "high", "max_completion_tokens": 8000}),
        ({"reasoning_effort": "medium"}, {"reasoning_effort": "medium", "max_tokens": 8000}),
        ({"reasoning_effort": None}, HIGH),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}, "max_tokens": 8000}),
    ],
)
def test_the_callers_parameters_win_and_the_smaller_limit_holds(own: dict[str, Any], sent: dict[str, Any]) -> None:
    assert dict(at_effort(Request.of("hello", parameters=own), HIGH).parameters) == sent


PARAMETERS = st.dictionaries(
    st.sampled_from([*sorted(THINKING), *OUTPUT_LIMITS, "temperature"]), st.integers(1, 9), max_size=4
)


@given(PARAMETERS, PARAMETERS)
def test_only_limits_of_the_answer_ever_change_what_a_caller_says(own: dict[str, int], effort: dict[str, int]) -> None:
    sent = at_effort(Request.of("hello", parameters=own), effort).parameters
    assert sent.keys() >= own.keys()
    for name, value in own.items():
        assert sent[name] <= value if name in OUTPUT_LIMITS else sent[name] == value
    if not own.keys() & set(OUTPUT_LIMITS):
        assert {n: sent[n] for n in OUTPUT_LIMITS if n in sent} == {n: effort[n] for n in OUTPUT_LIMITS if n in effort}


def test_a_caller_who_asks_for_an_effort_gets_the_model_that_has_it() -> None:
    backend, _ = backend_of()
    assert backend.unsupported_parameters("large@low", {"reasoning_effort": "high"}) == {"reasoning_effort"}
    assert backend.unsupported_parameters("large@high", {"reasoning_effort": "high"}) == frozenset()
    for name in ("large@low", "large@high", "small"):
        assert backend.unsupported_parameters(name, {"reasoning_effort": "medium"}) == frozenset()
        assert backend.unsupported_parameters(name, {"reasoning_effort": None}) == frozenset()


REFUSED = BackendError(
    "large@low", "BadRequestError: Unsupported parameter: 'reasoning_effort'", kind=FailureKind.BAD_REQUEST
)
VAGUE = BackendError("large@low", "BadRequestError: invalid request", kind=FailureKind.BAD_REQUEST)


def test_a_refused_effort_is_asked_again_without_it_and_then_left_out(caplog: pytest.LogCaptureFixture) -> None:
    backend, scripted = backend_of(REFUSED, "fine")
    with caplog.at_level(logging.WARNING, "eccos.backend"):
        first = backend.complete("large@low", Request.of("hello"))
        second = asyncio.run(backend.acomplete("large@low", Request.of("hello")))
    assert (first.text, first.attempts, second.attempts) == ("fine", 2, 1)
    assert [dict(request.parameters) for _, request in scripted.calls] == [LOW, {}, {}]
    assert backend.rejected == {"large@low"}
    (record,) = caplog.records
    said = record.eccos  # type: ignore[attr-defined]
    assert (said["event"], said["model"], said["parameters"]) == ("effort_rejected", "large@low", ["reasoning_effort"])
    assert "model_info.efforts" in record.getMessage()


def test_a_request_that_fails_without_its_effort_too_says_nothing_of_the_effort() -> None:
    backend, scripted = backend_of(VAGUE)
    with pytest.raises(BackendError):
        backend.complete("large@low", Request.of("hello"))
    assert len(scripted.calls) == 2
    backend, scripted = backend_of(VAGUE, "fine")
    assert backend.complete("large@low", Request.of("hello")).text == "fine"
    assert backend.rejected == frozenset()


@pytest.mark.parametrize("kind", [FailureKind.RATE_LIMIT, FailureKind.CONTENT_POLICY, FailureKind.TIMEOUT])
def test_other_failures_are_raised_as_they_are(kind: FailureKind) -> None:
    backend, scripted = backend_of(BackendError("large@low", "reasoning_effort", kind=kind))
    with pytest.raises(BackendError):
        backend.complete("large@low", Request.of("hello"))
    assert len(scripted.calls) == 1


def test_a_refused_effort_of_a_stream_is_asked_again_before_its_first_piece() -> None:
    backend, _ = backend_of(REFUSED, "all is well")
    pieces = list(backend.stream("large@low", Request.of("hello")))
    assert "".join(piece.text for piece in pieces) == "all is well"
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.attempts == 2

    async def stream() -> str:
        backend, _ = backend_of(REFUSED, "all is well")
        return "".join([chunk.text async for chunk in backend.astream("large@low", Request.of("hello"))])

    assert asyncio.run(stream()) == "all is well"
