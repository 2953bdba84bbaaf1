"""Partial feedback is replayed: who learns, who does not, and what nobody may see."""

import numpy as np
import pytest

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.online.eccos_policies import EccosOnline
from eccos_core.evaluation.online.new_model import replay_arrival
from eccos_core.evaluation.online.replay import POLICIES, OnlineReport, replay_online
from eccos_core.evaluation.online.stream import OnlineStream
from eccos_core.evaluation.recorded_cost import PriceTable

MODELS = ("cheap", "medium", "dear")
PRICES = {"cheap": (1e-6, 1e-6), "medium": (2e-6, 2e-6), "dear": (1e-5, 1e-5)}


def make_stream(count: int = 1200, usd_per_quality: float = 0.1) -> OnlineStream:
    """Build questions of two kinds. `medium` answers the first kind well, `cheap` the second, `dear` neither."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, count)
    vectors = random.standard_normal((count, 8)).astype(np.float32)
    vectors[:, 0] = 4.0 * kind - 2.0
    chance = np.where(kind[:, None] == 0, [0.2, 0.9, 0.4], [0.9, 0.3, 0.4])
    table = OutcomeTable(
        question_ids=tuple(f"q{row}" for row in range(count)),
        queries=tuple(f"question {row}" for row in range(count)),
        models=MODELS,
        quality=(random.random((count, 3)) < chance).astype(np.float64),
        input_tokens=np.full((count, 3), 50.0),
        output_tokens=np.full((count, 3), 100.0),
    )
    return OnlineStream.of(table, vectors, PriceTable.of(PRICES, table), usd_per_quality)


def replay(*names: str, warm: int = 0, seeds: int = 2, stream: OnlineStream | None = None) -> OnlineReport:
    return replay_online(stream or make_stream(), names, dataset="kinds", warm=warm, seeds=seeds)


def test_who_learns_from_text_beats_the_best_single_model() -> None:
    found = replay("eccos", "eccos_greedy", "full_information", "metallm", "best_fixed", "pickllm").as_json()[
        "policies"
    ]
    best = found["best_fixed"]["last_5000"]
    for name in ("eccos", "full_information", "metallm"):
        assert found[name]["last_5000"] > best + 0.15, name
    assert found["pickllm"]["last_5000"] < best + 0.02
    assert found["best_fixed"]["regret"]["best_fixed"] == pytest.approx(0.0)
    assert found["full_information"]["regret"]["full_information"] == pytest.approx(0.0)
    assert found["eccos"]["regret"]["best_fixed"] < 0 < found["pickllm"]["regret"]["best_fixed"]


def test_the_json_has_the_checkpoints_and_one_number_a_seed() -> None:
    found = replay("best_fixed", seeds=3).as_json()["policies"]["best_fixed"]
    assert list(found["cumulative"]) == ["500", "1200"]
    assert len(found["seeds"]) == 3
    assert found["cumulative"]["1200"] == pytest.approx(np.mean(found["seeds"]))
    assert found["regret"]["full_information"] is None


def test_warm_rows_are_learned_from_and_not_rewarded() -> None:
    report = replay("never_updated", "eccos_greedy", "best_fixed", warm=300)
    assert all(len(run.rewards) == 900 for runs in report.runs.values() for run in runs)
    found = report.as_json()["policies"]
    assert found["never_updated"]["cumulative"]["500"] > found["best_fixed"]["cumulative"]["500"] + 0.15


def test_only_the_outcome_of_the_choice_matters() -> None:
    """Turn every outcome that the policy does not see. Its choices stay as they are."""
    stream = make_stream()
    order = np.random.default_rng(0).permutation(len(stream.table))

    def choices(quality: np.ndarray) -> list[int]:
        seen = OnlineStream(
            stream.table,
            stream.vectors,
            quality,
            stream.cost_usd,
            stream.known,
            stream.list_price_usd,
            stream.usd_per_quality,
        )
        policy, made = EccosOnline()(seen, order[:0], 0), []
        for row in order.tolist():
            made.append(policy.choose(row, seen.known[row]))
            policy.learn(row, made[-1])
        return made

    first = choices(stream.quality)
    chosen = np.zeros(stream.quality.shape, dtype=np.bool_)
    chosen[order, first] = True
    assert choices(np.where(chosen, stream.quality, 1 - stream.quality)) == first


def test_a_model_without_an_outcome_is_never_chosen() -> None:
    stream = make_stream(300)
    known = stream.known.copy()
    known[:, 1] = False
    hidden = OnlineStream(
        stream.table,
        stream.vectors,
        np.where(known, stream.quality, np.nan),
        np.where(known, stream.cost_usd, np.nan),
        known,
        stream.list_price_usd,
        stream.usd_per_quality,
    )
    names = ("eccos", "eccos_epsilon", "pickllm", "metallm", "mixllm", "epsilon_greedy", "best_fixed")
    for runs in replay(*names, stream=hidden, seeds=1).runs.values():
        assert np.isfinite(runs[0].rewards).all()


def test_the_same_seed_gives_the_same_run() -> None:
    once, again = replay("eccos", "eccos_epsilon", seeds=1), replay("eccos", "eccos_epsilon", seeds=1)
    assert once.as_json() == again.as_json()


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("eccoss",), {}, "unknown policy 'eccoss'.*did you mean"),
        (("eccos",), {"warm": 1200}, "warm is 1200, must be at least 0 and less than the 1200 questions"),
        (("eccos",), {"seeds": 0}, "seeds is 0, must be at least 1"),
    ],
)
def test_bad_input_is_refused(names: tuple[str, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replay(*names, **options)


def test_a_new_model_is_never_chosen_before_it_comes_and_taken_up_after() -> None:
    arrival = replay_arrival(make_stream(1600), POLICIES["eccos"], "medium", seed=0, at=600)
    assert 0.35 < arrival.final_share < 0.65  # it is best for half of the questions
    assert arrival.requests is not None
    assert 200 <= arrival.requests < 1000
    assert arrival.exploration_usd is not None
    assert 0 < arrival.exploration_usd < arrival.spent_usd
    fixed = replay_arrival(make_stream(400), POLICIES["best_fixed"], "dear", seed=0)
    assert (fixed.final_share, fixed.requests, fixed.exploration_usd) == (0.0, None, None)


@pytest.mark.parametrize(
    ("model", "at", "message"),
    [("mediun", None, "unknown model 'mediun'.*did you mean"), ("medium", 0, "at request 0, must be above 0")],
)
def test_a_new_model_that_cannot_come_is_refused(model: str, at: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replay_arrival(make_stream(50), POLICIES["eccos"], model, seed=0, at=at)
