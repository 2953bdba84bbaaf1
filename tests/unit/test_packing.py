"""Batches whose requests share calls: what is packed, what each request gets and pays, and what happens on faults."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_pool import INSTRUCTIONS, MODELS, RULE, answering, packing_router, review, reviews

from eccos_core.config import load_config
from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Budget, Capability, Completion, Model, Outcome, QualityFloor, QualityPrice, Request
from eccos_core.errors import BackendError, ConfigError, FailureKind, InputError, NoEligibleModelError
from eccos_core.history import MemoryHistory
from eccos_core.packing import PackingRule
from eccos_core.routing.decision_store import DecisionStore


def texts(answers: list[Any]) -> list[str]:
    return [each.text for each in answers]


# ------------------------------------------------------------------------------------------------------ what is packed


def test_requests_with_the_same_instructions_share_calls_and_each_gets_its_answer() -> None:
    router, backend = packing_router()
    asked = reviews(21)
    answers = router.complete_batch(asked)
    assert texts(answers) == [f"packed: review {n}" for n in range(21)]
    assert len(backend.calls) == 3, "21 requests in packs of 7"
    assert [request.messages[0]["content"] for _, request in backend.calls] == [INSTRUCTIONS] * 3
    assert {each.model for each in answers} == {"small*8"}
    assert [each.decision.request_id for each in answers] == [each.id for each in asked]
    assert len({each.decision.id for each in answers}) == 21
    decision = answers[0].decision
    assert (decision.model, decision.quality, decision.runner_up) == ("small*8", pytest.approx(0.78), "small")
    assert "Packed: the instructions are paid once" in decision.reason
    assert answers[0].message == {"role": "assistant", "content": "packed: review 0"}


async def test_the_asynchronous_twin_does_the_same() -> None:
    router, backend = packing_router()
    answers = await router.acomplete_batch([*reviews(8), review("skip this")])
    assert texts(answers) == [*(f"packed: review {n}" for n in range(8)), "alone: skip this"]
    assert len(backend.calls) == 3


def test_shares_add_up_to_what_the_calls_cost() -> None:
    router, backend = packing_router()
    bills: list[Completion] = []
    complete = backend.complete
    backend.complete = lambda model, request: bills.append(complete(model, request)) or bills[-1]  # type: ignore[method-assign,return-value,func-returns-value]
    answers = router.complete_batch([*reviews(10), review("skip it"), review("skip that")])
    assert len(bills) == 4, "two packs of six, and two requests alone"
    assert math.fsum(each.cost_usd for each in answers) == pytest.approx(math.fsum(each.cost_usd for each in bills))
    for name in ("input_tokens", "output_tokens"):
        assert sum(getattr(each, name) for each in answers) == sum(getattr(each, name) for each in bills)


def test_nothing_is_packed_unless_asked_for() -> None:
    router, backend = packing_router(rule=None)
    assert router.complete_batch(reviews(8))[0].model == "small"
    assert len(backend.calls) == 8
    router, backend = packing_router()
    router.complete_batch(reviews(8), pack=False)
    assert len(backend.calls) == 8


def test_nothing_is_packed_that_nobody_measured(caplog: pytest.LogCaptureFixture) -> None:
    router, backend = packing_router(rule=None)
    answers = router.complete_batch(reviews(8), pack=True)
    assert len(backend.calls) == 8
    assert "Not packed: no quality in packs is known" in answers[0].decision.reason
    assert "nothing is packed" in caplog.text
    assert "assume_quality_loss" in caplog.text


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"parameters": {"tools": [{"type": "function", "function": {"name": "f"}}]}}, "tools"),
        ({"session_id": "s"}, "session"),
        ({"parameters": {"stop": "x"}}, "stop"),
        ({"tenant": "bank"}, "no other request"),
        ({"min_quality": 0.1}, "no other request"),
    ],
)
def test_a_request_of_another_kind_is_asked_alone_and_told_why(other: dict[str, Any], why: str) -> None:
    models = tuple(
        Model(m.name, m.usd_per_input_token, m.usd_per_output_token, capabilities=frozenset(Capability)) for m in MODELS
    )
    router, backend = packing_router(models=models)
    answers = router.complete_batch([*reviews(4), review("another", **other)])
    assert texts(answers)[-1] == "alone: another"
    assert answers[-1].model == "small"
    assert why in answers[-1].decision.reason.split("Not packed: ")[1]
    assert len(backend.calls) == 2


def test_requests_of_two_tenants_never_share_a_call() -> None:
    router, backend = packing_router()
    mixed = [review(f"{tenant} {n}", tenant=tenant) for n in range(6) for tenant in ("bank", "hospital")]
    answers = router.complete_batch(mixed)
    assert texts(answers) == [f"packed: {each.messages[-1]['content']}" for each in mixed]
    assert len(backend.calls) == 2
    for _, request in backend.calls:
        text = str(request.messages[-1]["content"])
        assert ("bank" in text) != ("hospital" in text)


def test_short_instructions_are_not_packed_because_that_costs_more() -> None:
    router, backend = packing_router()
    answers = router.complete_batch([review(f"review {n}", "Be brief.") for n in range(8)])
    assert len(backend.calls) == 8
    assert "a call alone is worth more" in answers[0].decision.reason


def test_where_the_prompt_cache_is_cheaper_nothing_is_packed() -> None:
    """The case of OverPrompt: instructions of 1,500 tokens, items of 177 and answers of 3, cached input at a tenth."""
    instructions, item = "good bad " * 750, "word " * 170
    batch = [review(f"{item} {n}", instructions) for n in range(16)]

    def calls(cached_usd: float | None, rule: PackingRule = RULE) -> int:
        models = (Model("small", 1e-6, 4e-6, usd_per_cached_input_token=cached_usd), MODELS[1])
        router, backend = packing_router(models=models, rule=rule)
        router.complete_batch(batch)
        return len(backend.calls)

    assert calls(None) == 2, "without a cache eight share a call"
    assert calls(1e-7) == 16, "a cache at 10 % is cheaper"
    assert calls(5e-7) == 2, "a cache at half price is not"
    assert calls(1e-7, PackingRule(8, 0.02, cache_from_tokens=10_000)) == 2, "a provider that caches nothing so short"


def test_quality_that_costs_more_than_packing_saves_is_kept() -> None:
    router, backend = packing_router(policy=QualityPrice(1e-3))  # a point of quality is worth 0.001 USD
    router.complete_batch(reviews(8))
    assert len(backend.calls) == 8
    router, backend = packing_router(policy=QualityPrice(1e-5), rule=PackingRule(8, assume_quality_loss=0.001))
    router.complete_batch(reviews(8))
    assert len(backend.calls) == 1


def test_the_floor_holds_for_packs_too() -> None:
    router, _ = packing_router(policy=QualityFloor(0.79), rule=PackingRule(8, assume_quality_loss=0.05))
    answers = router.complete_batch(reviews(40))
    mean = sum(each.decision.quality for each in answers) / 40
    assert mean >= 0.79 - 1e-9
    assert any("*" in each.model for each in answers)


def test_a_budget_holds_for_packs_too() -> None:
    models = (Model("small", 1e-6, 4e-6), Model("large", 1e-5, 4e-5))
    router, _ = packing_router(policy=Budget(0.05), models=models, rule=PackingRule(8, assume_quality_loss=0.001))
    decisions = [each.decision for each in router.complete_batch(reviews(40))]
    assert sum(each.cost_usd for each in decisions) <= 0.05
    alone = [each.decision for each in router.complete_batch(reviews(40), pack=False)]
    assert sum(each.quality for each in decisions) > sum(each.quality for each in alone)


def test_a_pack_fits_into_the_model() -> None:
    models = (Model("small", 1e-6, 4e-6, context_window=900), MODELS[1])
    router, backend = packing_router(models=models)
    router.complete_batch([review("word " * 100 + str(n)) for n in range(8)])
    assert {len(backend.calls), 4} == {4}, "two of them fit, with room for their answers"
    models = (Model("small", 1e-6, 4e-6, max_output_tokens=100), MODELS[1])
    router, backend = packing_router(models=models)
    router.complete_batch(reviews(8, parameters={"max_tokens": 80}))
    assert len(backend.calls) == 8, "no two answers of 80 tokens fit into 100"


def test_slots_are_held_per_call() -> None:
    models = (Model("small", 1e-6, 4e-6, max_concurrency=2), MODELS[1])
    router, backend = packing_router(models=models)
    answers = router.complete_batch(reviews(32))
    assert {each.model for each in answers} == {"small*8"}
    assert len(backend.calls) == 4
    status = router.status().workload.models[0]
    assert (status.in_flight, status.calls) == (0, 4)


def test_a_pool_whose_model_is_called_like_an_arm_is_refused() -> None:
    router, _ = packing_router(models=(MODELS[0], Model("small*4", 1e-5, 4e-5)))
    with pytest.raises(InputError, match=r"'small\*4' has the name that packs of 'small' go by. Rename it"):
        router.complete_batch(reviews(4))


def test_errors_are_in_their_places() -> None:
    router, _ = packing_router()
    batch = [review("one"), review("two", allow=frozenset({"small"}), deny=frozenset({"small"})), review("three")]
    found = router.complete_batch(batch, return_exceptions=True)
    assert isinstance(found[1], NoEligibleModelError)
    assert [each.text for each in (found[0], found[2]) if isinstance(each, Completion)] == [
        "packed: one",
        "packed: three",
    ]
    with pytest.raises(NoEligibleModelError):
        router.complete_batch(batch)
    assert router.complete_batch([]) == []


# ------------------------------------------------------------------------------------------- what a pack leaves open


def test_an_answer_that_is_missing_is_asked_alone_and_pays_its_share_of_the_pack() -> None:
    router, _ = packing_router()
    answers = router.complete_batch([*reviews(7), review("skip me")])
    assert texts(answers)[-1] == "alone: skip me"
    last = answers[-1]
    assert (last.model, last.decision.model, last.attempts) == ("small", "small", 2)
    assert [(call.model, call.accepted) for call in last.calls] == [("small*8", False), ("small", True)]
    assert last.cost_usd == pytest.approx(sum(call.cost_usd for call in last.calls))
    assert last.calls[0].cost_usd > 0
    assert "Asked alone: its pack's answer has none for it." in last.decision.reason
    assert answers[0].calls == ()


def test_an_answer_that_cannot_be_split_is_asked_again_one_by_one() -> None:
    def refuse(request: Request) -> str:
        text = str(request.messages[-1]["content"])
        return "I cannot do that." if "separate requests" in text else f"alone: {text}"

    router, backend = packing_router({"small": [refuse], "large": [refuse]})
    answers = router.complete_batch(reviews(8))
    assert texts(answers) == [f"alone: review {n}" for n in range(8)]
    pack = (sum(len(str(m["content"]).split()) for m in backend.calls[0][1].messages)) * 1e-6 + 4 * 4e-6
    assert math.fsum(each.calls[0].cost_usd for each in answers) == pytest.approx(pack)


def test_a_pack_that_fails_is_asked_alone_of_another_model() -> None:
    down = BackendError("small", "503", retryable=True, kind=FailureKind.UNAVAILABLE)
    router, backend = packing_router({"small": [down], "large": [answering()]})
    answers = router.complete_batch(reviews(8))
    assert texts(answers) == [f"alone: review {n}" for n in range(8)]
    assert {each.model for each in answers} == {"large"}
    assert [each.attempts for each in answers] == [2] * 8
    assert [model for model, _ in backend.calls] == ["small", *["large"] * 8]


def test_a_pack_that_is_refused_as_a_whole_is_asked_alone_of_its_model() -> None:
    refused = BackendError("small", "policy", retryable=False, kind=FailureKind.CONTENT_POLICY)
    router, backend = packing_router({"small": [refused, answering()], "large": [answering()]})
    answers = router.complete_batch(reviews(8))
    assert {each.model for each in answers} == {"small"}
    assert len(backend.calls) == 9


# ---------------------------------------------------------------------------------------------------- log and labels


def test_the_log_tells_arms_shares_and_what_came_of_a_pack(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    router, _ = packing_router(decision_store=DecisionStore(MemoryHistory("words:", 1), log))
    answers = router.complete_batch([*reviews(7), review("skip me")])
    log.flush()
    entries = {entry.id: entry for entry in log.entries()}
    assert len(entries) == 8
    for answer in answers:
        entry = entries[answer.decision.id]
        assert (entry.decided_model, entry.model) == ("small*8", answer.model)
        assert entry.paid_usd == pytest.approx(answer.cost_usd)
        assert (entry.input_tokens, entry.output_tokens) == (answer.input_tokens, answer.output_tokens)
        assert set(entry.forecast) == {"small", "large", "small*8"}
    assert router.savings().measured.paid_usd == pytest.approx(math.fsum(each.cost_usd for each in answers))
    log.close()


def test_a_failed_call_of_a_pack_is_in_the_log(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    down = BackendError("small", "503", retryable=True, kind=FailureKind.UNAVAILABLE)
    router, _ = packing_router({"small": [down], "large": [answering()]}, decision_store=DecisionStore(None, log))
    router.complete_batch(reviews(4))
    log.flush()
    assert [[a.model for a in entry.attempts] for entry in log.entries()] == [["small"]] * 4
    log.close()


def test_labels_go_to_the_arm_and_measure_its_loss() -> None:
    router, backend = packing_router()
    history = router.decision_store.history
    assert history is not None
    for answer in router.complete_batch([review(f"good {n}") for n in range(32)]):
        router.record(answer.decision.id, 1.0)
    assert len(backend.calls) == 4
    table, _vectors = history.table()
    assert table.models == ("small*8",)
    assert (table.quality == 1.0).all()
    measured = router.complete_batch(reviews(8))[0].decision
    assert "(32 graded answers)" in measured.reason, "labels have replaced what was assumed"
    for each in router.complete_batch([review(f"more {n}") for n in range(64)]):
        router.record(each.decision.id, 0.0)
    assert "*" not in router.complete_batch(reviews(8), policy=QualityFloor(0.75))[0].model, "bad labels end it"


def test_an_arm_with_outcomes_needs_no_assumption() -> None:
    router, backend = packing_router(rule=PackingRule(8))
    history = router.decision_store.history
    assert history is not None
    outcomes = [Outcome(str(n), f"q {n}", model, 1.0) for n in range(40) for model in ("small", "small*4")]
    history.add(outcomes, np.ones((80, 1), np.float32))
    answers = router.complete_batch(reviews(16))
    assert {each.model for each in answers} == {"small*4"}
    assert len(backend.calls) == 4


def test_the_section_of_the_file_says_how_batches_are_packed(tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    pool = "model_list:\n- {model_name: small, litellm_params: {model: openai/gpt-4o-mini}}\n"
    file.write_text(pool + "eccos: {packing: {most: 4, assume_quality_loss: 0.02}}\n")
    packing = load_config(file, environment={}).packing
    assert packing is not None
    assert packing.rule() == PackingRule(4, 0.02, 1024)
    file.write_text(pool)
    assert load_config(file, environment={}).packing is None
    file.write_text(pool + "eccos: {packing: {most: 1, asume_quality_loss: 0.02}}\n")
    with pytest.raises(ConfigError) as error:
        load_config(file, environment={})
    assert "eccos.packing.most: is 1, must be a whole number between 2 and 64" in str(error.value)
    assert "did you mean 'assume_quality_loss'?" in str(error.value)
