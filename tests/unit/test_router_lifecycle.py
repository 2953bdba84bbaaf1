"""A router is built in a few lines, swapped, shared and closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core import Budget, Model, QualityFloor, QualityPrice, Router
from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Completion
from eccos_core.errors import BackendError, InputError, UnknownModelError
from eccos_core.protocols import Steering
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.streaming import FixedPrice, FloorTarget, InitialPrices, StreamController
from eccos_core.testing import ScriptedBackend, TablePredictor, WordEncoder, scripted_router

POOL = (Model("small", 1e-7, 4e-7), Model("large", 3e-6, 1.5e-5))
TABLE = np.array([[0.9, 0.9], [0.3, 0.9]])


def backend() -> ScriptedBackend:
    return ScriptedBackend({"small": ["from small"], "large": ["from large"]}, POOL)


def five_lines(**more: object) -> Router:
    models = [Model("small", 1e-7, 4e-7), Model("large", 3e-6, 1.5e-5)]
    predictor = TablePredictor(["small", "large"], TABLE)
    return Router(models=models, predictor=predictor, backend=backend(), encoder=WordEncoder(["easy"]), **more)  # type: ignore[arg-type]


def pocket(folder: Path) -> Path:
    file = folder / "eccos.yaml"
    file.write_text(
        """
model_list:
- {model_name: small, litellm_params: {model: openai/x, api_base: "http://127.0.0.1:9/v1", api_key: none},
   model_info: {input_cost_per_token: 1.0e-7, output_cost_per_token: 1.0e-7, assumed_quality: 0.9, max_concurrency: 1}}
eccos: {encoder: static, predictor: prior, history: in_memory, decision_log: {path: log.sqlite}}
"""
    )
    return file


# ------------------------------------------------------------------------------------------------ built in Python


def test_models_a_predictor_and_a_backend_are_enough() -> None:
    router = five_lines()
    assert router.complete("an easy question").text == "from small"
    assert [each.model for each in router.complete_batch(["easy", "hard", "hard"], policy=QualityFloor(0.9))] == [
        "small",
        "large",
        "large",
    ]
    assert router.policy == QualityFloor(0.75, on_infeasible="best_effort")
    assert router.status().workload.in_flight == 0


def test_a_stream_keeps_the_floor_of_the_default_policy() -> None:
    router = five_lines(policy=QualityFloor(0.8))
    made = [router.decide("hard") for _ in range(600)]
    assert np.mean([each.quality for each in made[-500:]]) >= 0.79


def test_a_price_is_the_price_of_single_requests_too() -> None:
    assert five_lines(policy=QualityPrice(1.0)).decide("hard").model == "large"
    assert five_lines(policy=QualityPrice(0.0)).decide("hard").model == "small"


def test_a_budget_is_for_batches_and_says_what_single_requests_need() -> None:
    router = five_lines(policy=Budget(1.0))
    assert [each.text for each in router.complete_batch(["hard"])] == ["from large"]
    with pytest.raises(InputError, match="StreamController"):
        router.complete("hard")
    with pytest.raises(InputError, match="StreamController"):
        router.with_window(0.01).complete("hard")


def test_predictor_and_pool_must_have_the_same_models() -> None:
    with pytest.raises(InputError, match=r"knows the models large, small, the pool has small, large"):
        Router(POOL, TablePredictor(["large", "small"], TABLE), backend(), encoder=WordEncoder(["easy"]))


@pytest.mark.parametrize(
    "steering", [FixedPrice(0.1), StreamController(FloorTarget(0.5), InitialPrices(0.1))], ids=["fixed", "controller"]
)
def test_it_is_a_steering(steering: Steering) -> None:
    assert isinstance(steering, Steering)
    quality, cost, everyone = np.array([0.5, 0.9]), np.array([0.001, 0.002]), np.array([True, True])
    assert steering.usd_per_quality == pytest.approx(0.1)
    assert steering.decide(quality, cost, everyone).model == 1
    assert steering.decide(quality, cost, np.array([True, False])).model == 0
    router = five_lines()
    together = steering.decide_jointly(
        np.stack([quality] * 3), np.stack([cost] * 3), np.stack([everyone] * 3), np.array([1, 1]),
        router.decider.optimizer, router.parts.names,
    )  # fmt: skip
    assert sorted(each.model for each in together if not isinstance(each, Exception)) == [0, 1]
    assert sum(isinstance(each, Exception) for each in together) == 1
    steering.correct_cost(1.0)


# ------------------------------------------------------------------------------------------------ swapped


def test_a_request_in_flight_ends_on_the_parts_that_it_began_with() -> None:
    router = five_lines()
    stream = router.stream("easy")
    next(stream)
    other = scripted_router(ScriptedBackend({"new": ["from new"]}), (Model("new", 0.0, 0.0),), {"": [0.9]})
    router.swap(other.parts)
    last = list(stream)[-1].completion
    assert last is not None
    assert last.model == "small"
    assert router.complete("easy").text == "from new"


def test_parts_that_do_not_fit_change_nothing() -> None:
    router = five_lines()
    parts = router.parts
    with pytest.raises(InputError, match="same order"):
        router.swap(replace(parts, models=parts.models[:1]))
    with pytest.raises(InputError, match="micro-batch window"):
        router.swap(replace(parts, window_s=3.0))
    assert router.parts is parts


# ------------------------------------------------------------------------------------------------ closed


def test_a_closed_router_calls_nothing_and_leaves_your_parts_open(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    with five_lines(decision_store=DecisionStore(log=log)) as router:
        answer = router.complete("easy")
    kept = log.get(answer.decision.id)
    assert kept is not None
    assert kept.model == "small"
    router.close()
    for call in (router.complete, lambda text: list(router.stream(text)), lambda text: router.complete_batch([text])):
        with pytest.raises(InputError, match="this router is closed"):
            call("easy")
    assert router.decide("easy").model == "small"
    assert log.flush()
    log.close()


async def test_async_with_closes_too(tmp_path: Path) -> None:
    async with Router.from_yaml(pocket(tmp_path)) as router:
        decision = router.decide("a question")
    log = router.decision_store.log
    assert log is not None
    assert log.get(decision.id) is not None
    with pytest.raises(InputError, match="closed"):
        await router.acomplete("a question")
    router.decide("another")
    assert log.dropped == 1, "the log that from_yaml opened is closed"


def test_one_file_has_one_shared_router_until_the_last_user_closes_it(tmp_path: Path) -> None:
    file = pocket(tmp_path)
    first, second = Router.shared(file), Router.shared(str(file))
    assert first is second
    with first.workload.hold("small"):
        assert second.status().workload.in_flight == 1
    first.close()
    assert second.decide("still open").model == "small"
    with pytest.raises(BackendError):
        second.parts.backend.complete("small", second.explain("x")[0].requests[0])
    second.close()
    with pytest.raises(InputError, match="closed"):
        second.complete("too late")
    third = Router.shared(file)
    assert third is not first
    third.close()


def test_reload_reads_the_file_now(tmp_path: Path) -> None:
    file = pocket(tmp_path)
    with Router.from_yaml(file, reload=True) as router:
        text = file.read_text()
        file.write_text(text.replace("max_concurrency: 1", "max_concurrency: 7"))
        assert router.reload()
        assert router.models[0].max_concurrency == 7
        file.write_text("model_list: [")
        assert not router.reload()
        assert "YAML" in (router.problem or "")
        assert router.models[0].max_concurrency == 7
    with pytest.raises(InputError, match="reload=True"):
        five_lines().reload()


# ------------------------------------------------------------------------------------------------ answers


def test_an_answer_of_a_backend_has_no_decision_and_says_so() -> None:
    with pytest.raises(InputError, match="called directly"):
        _ = Completion("text", "small", 1, 1, 0.0, 0.1).decision
    assert five_lines().complete("easy").decision.model == "small"


def test_return_exceptions_gives_our_errors_and_raises_all_others() -> None:
    broken = ScriptedBackend(
        {"small": [BackendError("small", "no", kind="bad_request"), "fine"], "large": ["fine"]}, POOL
    )
    router = Router(POOL, TablePredictor(["small", "large"], TABLE), broken, encoder=WordEncoder(["easy"]))
    results = router.complete_batch(["easy 1", "easy 2"], policy=QualityPrice(0.0), return_exceptions=True)
    assert sum(isinstance(each, BackendError) for each in results) == 1

    def fault(_: object) -> str:
        raise ZeroDivisionError

    faulty = Router(
        POOL,
        TablePredictor(["small", "large"], TABLE),
        ScriptedBackend({"small": [fault], "large": [fault]}, POOL),
        encoder=WordEncoder(["easy"]),
    )
    with pytest.raises(ZeroDivisionError):
        faulty.complete_batch(["easy"], return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(faulty.acomplete_batch(["easy"], return_exceptions=True))
    with pytest.raises(UnknownModelError):
        faulty.parts.workload.hold("unknown")
