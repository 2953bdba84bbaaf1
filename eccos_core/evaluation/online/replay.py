"""Replay recorded outcomes as a stream: a policy chooses, and sees the outcome of its choice alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError, did_you_mean
from eccos_core.evaluation.online.bandits import BestFixed, LinearBandit, ParetoBandit, PickLLM
from eccos_core.evaluation.online.eccos_policies import EccosOnline
from eccos_core.evaluation.online.stream import OnlineStream, PolicyFactory
from eccos_core.io.files import atomic_writer

CHECKPOINTS = (500, 2_000, 8_000)
RECENT = 5_000
Progress = Callable[[str, int, int], None]

POLICIES: Mapping[str, PolicyFactory] = MappingProxyType(
    {
        "eccos": EccosOnline(),
        "eccos_epsilon": EccosOnline("epsilon", 0.05),
        "eccos_greedy": EccosOnline("off"),
        "full_information": EccosOnline("off", all_outcomes=True),
        "never_updated": EccosOnline("off", updated=False),
        "best_fixed": BestFixed(),
        "pickllm": PickLLM(),
        "metallm": LinearBandit(alpha=1.0),
        "mixllm": LinearBandit(alpha=1.0, separate_cost=True),
        "epsilon_greedy": LinearBandit(alpha=0.0, epsilon=0.05),
        "paretobandit": ParetoBandit(),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class OnlineRun:
    """One policy on one order of the questions. rewards and regrets (N,) are in the order of the stream.

    regrets: what the best fixed model of the whole stream would have got more.
    """

    rewards: FloatArray
    spent_usd: float
    best_fixed: float

    def cumulative(self) -> dict[str, float]:
        """Return the mean reward of the first 500, 2,000 and 8,000 requests, and of all."""
        ends = [count for count in CHECKPOINTS if count < len(self.rewards)] + [len(self.rewards)]
        return {str(end): float(self.rewards[:end].mean()) for end in ends}

    @property
    def last(self) -> float:
        """Mean reward of the last 5,000 requests, at most of the last half."""
        return float(self.rewards[-min(RECENT, max(len(self.rewards) // 2, 1)) :].mean())


@dataclass(frozen=True, slots=True, eq=False)
class OnlineReport:
    """The runs of each policy, one for each seed."""

    dataset: str
    questions: int
    warm: int
    usd_per_quality: float
    runs: Mapping[str, tuple[OnlineRun, ...]]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON has them. Regrets are per request."""
        return {
            "dataset": self.dataset,
            "questions": self.questions,
            "warm": self.warm,
            "usd_per_quality": self.usd_per_quality,
            "policies": {name: self._policy(name) for name in self.runs},
        }

    def write_json(self, path: Path) -> None:
        """Write the JSON object to a file, whole or not at all."""
        with atomic_writer(path) as stream:
            stream.write(json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def _policy(self, name: str) -> dict[str, Any]:
        runs = self.runs[name]
        means = [run.cumulative() for run in runs]
        full = self.runs.get("full_information")
        reward = float(np.mean([run.rewards.mean() for run in runs]))
        return {
            "cumulative": {at: float(np.mean([each[at] for each in means])) for at in means[0]},
            "last_5000": float(np.mean([run.last for run in runs])),
            "seeds": [float(run.rewards.mean()) for run in runs],
            "spent_usd": float(np.mean([run.spent_usd for run in runs])),
            "regret": {
                "best_fixed": float(np.mean([run.best_fixed for run in runs])) - reward,
                "full_information": None
                if full is None
                else float(np.mean([run.rewards.mean() for run in full])) - reward,
            },
        }


def check_policies(names: tuple[str, ...]) -> None:
    """Raise `InputError` for an unknown policy."""
    for name in names:
        if name not in POLICIES:
            raise InputError(f"unknown policy {name!r}{did_you_mean(name, POLICIES)}; there are: {', '.join(POLICIES)}")


def replay_online(
    stream: OnlineStream,
    names: tuple[str, ...],
    *,
    dataset: str,
    warm: int = 0,
    seeds: int = 5,
    progress: Progress | None = None,
) -> OnlineReport:
    """Replay the stream in a random order for each seed. The first `warm` questions have the outcomes of all models.

    Rewards are those of the questions after them. Raises `InputError` for an unknown policy, no seed, or too many
    warm questions.
    """
    check_policies(names)
    if seeds < 1:
        raise InputError(f"seeds is {seeds}, must be at least 1")
    if not 0 <= warm < len(stream.table):
        raise InputError(f"warm is {warm}, must be at least 0 and less than the {len(stream.table)} questions")
    report = progress or (lambda *_: None)
    runs: dict[str, list[OnlineRun]] = {name: [] for name in names}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(stream.table))
        for at, name in enumerate(names):
            report(f"seed {seed + 1} of {seeds}, {name}", at, len(names))
            runs[name].append(_run(stream, POLICIES[name], order, warm, seed))
    return OnlineReport(
        dataset, len(stream.table), warm, stream.usd_per_quality, {name: tuple(each) for name, each in runs.items()}
    )


def _run(stream: OnlineStream, make: PolicyFactory, order: IntArray, warm: int, seed: int) -> OnlineRun:
    policy = make(stream, order[:warm], seed)
    rest = order[warm:]
    chosen = np.empty(len(rest), dtype=np.int64)
    for step, row in enumerate(rest.tolist()):
        chosen[step] = policy.choose(row, stream.known[row])
        policy.learn(row, int(chosen[step]))
    best = float(stream.mean_reward(rest).max())
    return OnlineRun(stream.reward[rest, chosen], float(stream.cost_usd[rest, chosen].sum()), best)
