"""The stopping rule against exhaustive dynamic programming, in worlds small enough to list everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.plans import PlanRule, PlanState, RuleOfThumbVerifier
from eccos_core.plans.joint import NODE_WEIGHTS, JointModel

Answer = tuple[int, str, int]  # (model, whose answer it repeats: "0", "1", "new" or "unknown", strength of evidence)


@dataclass(frozen=True)
class World:
    """Every probability of a small world, told directly: no arrays, no shared code."""

    good: np.ndarray  # (M, K)
    same_wrong: np.ndarray  # (M, M)
    known: np.ndarray  # (M,)
    share: np.ndarray  # (M, B, 2)
    joint: JointModel

    def chance(self, seen: tuple[Answer, ...], right: tuple[int, ...]) -> float:
        """P(these answers, with these ones right)."""
        total = 0.0
        for node, weight in enumerate(NODE_WEIGHTS):
            product = weight
            for place, (model, says, strength) in enumerate(seen):
                p = self.good[model, node]
                product *= p if right[place] else 1 - p
                product *= self.share[model, strength, right[place]]
                product *= self.way(seen[:place], right[:place], model, says, right[place])
            total += product
        return total

    def way(self, seen: tuple[Answer, ...], right: tuple[int, ...], model: int, says: str, is_right: int) -> float:
        if says == "unknown":
            return 1 - self.known[model]
        chances = {}
        for place, (other, others_say, _) in enumerate(seen):
            if others_say == "new":
                if right[place] and is_right:
                    chances[str(place)] = self.joint.both_right
                elif right[place] or is_right:
                    chances[str(place)] = self.joint.mixed
                else:
                    chances[str(place)] = self.same_wrong[other, model]
        total = sum(chances.values())
        scale = min(1.0, 0.98 / total) if total else 1.0
        if says == "new":
            return self.known[model] * (1 - total * scale)
        return self.known[model] * chances[says] * scale

    def best_now(self, seen: tuple[Answer, ...]) -> float:
        """P(seen, and the best answer is right)."""
        patterns = [tuple(map(int, np.binary_repr(i, len(seen)))) for i in range(2 ** len(seen))]
        chances = {pattern: self.chance(seen, pattern) for pattern in patterns}
        return max(sum(c for pattern, c in chances.items() if pattern[place]) for place in range(len(seen)))

    def mass(self, seen: tuple[Answer, ...]) -> float:
        patterns = [tuple(map(int, np.binary_repr(i, len(seen)))) for i in range(2 ** len(seen))] if seen else [()]
        return sum(self.chance(seen, pattern) for pattern in patterns)

    def value(self, seen: tuple[Answer, ...], price: float, cost: np.ndarray, left: int) -> float:
        """The value of the best plan from here, times P(seen)."""
        accept = price * self.best_now(seen)
        if not left:
            return accept
        return max([accept, *self.asking(seen, price, cost, left).values()])

    def asking(self, seen: tuple[Answer, ...], price: float, cost: np.ndarray, left: int) -> dict[int, float]:
        mass = self.mass(seen)
        ways = [str(place) for place, (_, says, _) in enumerate(seen) if says == "new"] + ["new", "unknown"]
        return {
            model: -cost[model] * mass
            + sum(
                self.value((*seen, (model, says, strength)), price, cost, left - 1)
                for says in ways
                for strength in range(self.share.shape[1])
            )
            for model in range(len(cost))
            if model not in [answer[0] for answer in seen]
        }


@cache
def verifier(models: int, seed: int) -> RuleOfThumbVerifier:
    draw = np.random.default_rng(seed)
    usual = RuleOfThumbVerifier.of([f"m{i}" for i in range(models)], ["mean_logprob"])
    pair = draw.normal(size=(models, models))
    joint = replace(
        usual.joint,
        loading=draw.uniform(0.2, 2.5, models),
        both_right=float(draw.uniform(0.7, 1.0)),
        mixed=float(draw.uniform(0.0, 0.1)),
        pair=pair + pair.T,
        known=usual.joint.known * 0 + draw.uniform(-2, 4, models) * (np.arange(6) == 0)[:, None],
    )
    return RuleOfThumbVerifier(usual.models, joint)


def world_of(rule: PlanRule, state: PlanState) -> World:
    joint = rule.verifier.belief(state).model
    terms = joint.questions(state.quality, state.output_tokens)
    return World(terms.good[0], terms.same_wrong[0], terms.known[0], joint.evidence.share, joint)


quality = st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3)
cost = st.lists(st.floats(0.0, 0.1), min_size=3, max_size=3)


@settings(deadline=None, max_examples=15)
@given(quality, cost, st.integers(0, 50), st.floats(0.01, 2.0))
def test_first_values_are_those_of_the_best_plans_of_two_calls(quality, cost, seed, price):
    rule = PlanRule(verifier(3, seed), trust=1.0, max_calls=2)
    state = PlanState.start(rule.verifier.models, np.array(quality), np.array(cost))
    found = rule.first_values(state, price)
    world = world_of(rule, state)
    for model in range(3):
        expected = sum(
            world.value(((model, says, strength),), price, np.array(cost), 1)
            for says in ("new", "unknown")
            for strength in range(world.share.shape[1])
        )
        assert price * found.quality[0, model] - (found.cost_usd[0, model] - cost[model]) == pytest.approx(
            expected, abs=1e-6
        )


@settings(deadline=None, max_examples=15)
@given(quality, cost, st.integers(0, 50), st.floats(0.01, 2.0), st.sampled_from(["new", "unknown"]))
def test_the_next_step_is_that_of_the_best_plan_of_three_calls(quality, cost, seed, price, says):
    rule = PlanRule(verifier(3, seed), trust=1.0, max_calls=3)
    start = PlanState.start(rule.verifier.models, np.array(quality), np.array(cost))
    state = start.after("m0", answer_known=says == "new")
    steps = rule.next_steps(state, price)
    world = world_of(rule, start)
    # evidence is continuous in a state and binned in the future, so this answer tells nothing by itself
    flat = replace_share(world, 0)
    seen = ((0, says, 0),)
    accept = price * flat.best_now(seen)
    gains = {
        model: (value - accept) / flat.mass(seen)
        for model, value in flat.asking(seen, price, np.array(cost), 2).items()
    }
    best = max(gains.values())
    assert steps.gain_usd[0] == pytest.approx(best, abs=1e-6)
    assert (steps.ask[0] >= 0) == (steps.gain_usd[0] > 0)
    if best > 1e-6:
        assert gains[int(steps.ask[0])] == pytest.approx(best, abs=1e-6)


def replace_share(world: World, model: int) -> World:
    share = world.share.copy()
    share[model] = 1.0 / world.share.shape[1]
    return replace(world, share=share)


@settings(deadline=None, max_examples=20)
@given(quality, cost, st.integers(0, 50), st.floats(0.01, 2.0))
def test_without_trust_plans_are_single_calls(quality, cost, seed, price):
    rule = PlanRule(verifier(3, seed), trust=0.0)
    state = PlanState.start(rule.verifier.models, np.array(quality), np.array(cost))
    values = rule.first_values(state, price)
    assert (values.quality == np.array(quality)).all()
    assert (values.cost_usd == np.array(cost)).all()
    assert rule.next_steps(state.after("m1"), price).ask[0] == -1


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.5, 0.95), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_beliefs_are_probabilities_and_agreement_of_good_models_helps(quality, order):
    rule = PlanRule(RuleOfThumbVerifier.of(["m0", "m1", "m2"]), trust=1.0)
    names = rule.verifier.models
    state = PlanState.start(names, np.array(quality), np.zeros(3))
    first = state.after(names[order[0]])
    second = first.after(names[order[1]], None, [1.0])
    other = first.after(names[order[1]], None, [0.0])
    for each in (first, second, other):
        judged = rule.verifier.quality(each)
        assert ((judged >= 0) & (judged <= 1)).all()
    before = rule.verifier.quality(first)[0, order[0]]
    assert before == pytest.approx(quality[order[0]], abs=1e-3)
    assert rule.verifier.quality(second)[0, order[0]] >= rule.verifier.quality(other)[0, order[0]] - 1e-9
