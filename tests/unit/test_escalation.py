"""The planner of a router by a rule of thumb: log-probabilities and agreement, from a configuration file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core.config import load_config
from eccos_core.domain import Capability, Completion, EscalationRule, Model, QualityFloor
from eccos_core.errors import ConfigError, InputError
from eccos_core.plans import PlanRule, RuleOfThumbVerifier
from eccos_core.router import Router
from eccos_core.routing.escalation import EscalationPlanner
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("middle", 2e-6), ("large", 2e-5))
)
QUESTION = "Which one is right?\nA. this\nB. that\nC. neither"


def answer(letter: str, logprob: float | None, cost_usd: float = 1e-5) -> Completion:
    tokens = None if logprob is None else {"content": [{"token": letter, "logprob": logprob}]}
    text = f"The answer is {letter}."
    return Completion(text, "", 10, 5, cost_usd, 0.01, {"role": "assistant", "content": text}, "stop", logprobs=tokens)


def router(answers: dict[str, Completion], usd_per_quality: float = 1.0) -> tuple[Router, ScriptedBackend]:
    backend = ScriptedBackend({name: [each] for name, each in answers.items()}, POOL)
    made = scripted_router(backend, POOL, {"": [0.6, 0.62, 0.9]}, usd_per_quality=usd_per_quality)
    names = [model.name for model in POOL]
    rule = PlanRule(RuleOfThumbVerifier.of(names, ("mean_logprob", "least_logprob")), trust=0.8)
    return Router.from_parts(replace(made.parts, planner=EscalationPlanner(EscalationRule(), rule))), backend


def test_answers_that_agree_are_more_likely_good() -> None:
    agreed, _ = router({"small": answer("B", -0.9), "middle": answer("B", -0.1), "large": answer("B", -0.1)}, 1e-3)
    torn, _ = router({"small": answer("B", -0.9), "middle": answer("C", -0.1), "large": answer("A", -0.1)}, 1e-3)
    sure, unsure = agreed.complete(QUESTION), torn.complete(QUESTION)
    assert sure.calls
    assert unsure.calls
    quality = [each.confidence.quality for each in (sure, unsure) if each.confidence]
    assert quality[0] is not None
    assert quality[1] is not None
    assert min(len(sure.calls), len(unsure.calls)) > 1  # else the test compares nothing
    assert quality[0] > quality[1]


def test_a_doubtful_answer_is_less_likely_good_than_a_sure_one() -> None:
    sure, _ = router({name: answer("B", -0.01) for name in ("small", "middle", "large")}, 1e-9)
    unsure, _ = router({name: answer("B", -2.0) for name in ("small", "middle", "large")}, 1e-9)
    first, second = sure.complete(QUESTION), unsure.complete(QUESTION)
    assert [len(each.calls) for each in (first, second)] == [1, 1]  # quality is worth nothing here
    assert first.calls[0].confidence is not None
    assert second.calls[0].confidence is not None
    assert (first.calls[0].confidence.quality or 0) > (second.calls[0].confidence.quality or 1)


def test_nobody_is_asked_again_while_quality_is_worth_nothing() -> None:
    made, backend = router({"small": answer("B", -2.0), "middle": answer("B", 0.0), "large": answer("B", 0.0)}, 0.0)
    assert made.complete(QUESTION).model == "small"
    assert [model for model, _ in backend.calls] == ["small"]


def test_log_probabilities_that_only_the_plan_asked_for_are_not_given() -> None:
    made, _ = router({name: answer("B", -0.1) for name in ("small", "middle", "large")})
    assert made.complete(QUESTION).logprobs is None
    assert made.complete(QUESTION, logprobs=True).logprobs is not None


CONFIG = """
model_list:
  - model_name: small
    litellm_params: {model: openai/small}
    model_info: {input_cost_per_token: 1e-6, output_cost_per_token: 1e-6, assumed_quality: 0.5}
  - model_name: large
    litellm_params: {model: openai/large}
    model_info: {input_cost_per_token: 1e-5, output_cost_per_token: 1e-5, assumed_quality: 0.9}
eccos:
  encoder: static
  decision_log: off
  policy: {quality_floor: 0.7, escalate: {max_calls: 2, max_latency_s: 20}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "eccos.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_turns_it_on_and_the_log_says_that_nothing_was_learned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Router.from_yaml(write(tmp_path, CONFIG)) as made:
        planner = made.parts.planner
        assert isinstance(planner, EscalationPlanner)
        assert planner.rule == EscalationRule(max_calls=2, max_latency_s=20.0)
        assert planner.plan_rule.max_calls == 2
        assert made.route(["a question"], policy=QualityFloor(0.5))[0].plan is not None
    assert "nothing was learned about the answers of this pool" in caplog.text


def test_without_the_key_there_are_no_plans(tmp_path: Path) -> None:
    plain = CONFIG.replace(", escalate: {max_calls: 2, max_latency_s: 20}", "")
    with Router.from_yaml(write(tmp_path, plain)) as made:
        assert made.parts.planner is None
        assert made.decide("a question").plan is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("quality_floor: 0.7, escalate: {max_calls: 1}", r"eccos\.policy\.escalate\.max_calls"),
        ("quality_floor: 0.7, escalate: {max_latency_s: 0}", r"escalate\.max_latency_s"),
        ("quality_floor: 0.7, escalate: {stream: eager}", r"escalate\.stream"),
        ("quality_floor: 0.7, escalate: {max_cals: 2}", "max_cals"),
        ("certified_floor: 0.7, escalate: {}", "has escalate and certified_floor"),
        ("escalate: {}", "names no policy"),
    ],
)
def test_a_faulty_section_is_named_with_its_place(tmp_path: Path, given: str, words: str) -> None:
    text = CONFIG.replace("quality_floor: 0.7, escalate: {max_calls: 2, max_latency_s: 20}", given)
    with pytest.raises(ConfigError, match=words):
        load_config(write(tmp_path, text))


def test_tenants_take_no_escalation_of_their_own(tmp_path: Path) -> None:
    text = CONFIG + "  tenants: {one: {policy: {quality_floor: 0.5, escalate: {}}}}\n"
    with pytest.raises(ConfigError, match="has escalate; only"):
        load_config(write(tmp_path, text))


def test_a_pool_of_one_model_is_warned_about_and_still_answers(tmp_path: Path) -> None:
    one = CONFIG.replace(CONFIG[CONFIG.index("  - model_name: large") : CONFIG.index("eccos:")], "")
    config = load_config(write(tmp_path, one))
    assert any("asks nobody else" in warning for warning in config.warnings)


def test_a_rule_refuses_numbers_out_of_range() -> None:
    for faulty in ({"max_calls": 1}, {"max_latency_s": 0.0}, {"optimistic_quality": 1.5}):
        with pytest.raises(InputError, match=next(iter(faulty))):
            EscalationRule(**faulty)  # type: ignore[arg-type]
