"""What deciding each step of an agent saves over deciding once per run: `python benchmarks/agent_steps.py`.

A scripted world of coding agents. The numbers come from reason, not from results:

- A task has two to four parts. A part is one to three looks at files, an edit, and a run of the tests: 6 to 20 calls.
- Most steps are mechanical: every model nearly always does them. A look is hard in 10 % of the cases, an edit in 40 %,
  a test run in 10 %. The text of a task tells how hard its kind is on average, and not which step is hard.
- A model does a step with a probability that depends on its skill and the step. What is hard stays hard. A step that
  fails returns an error and is tried again. A quarter of the failed edits report success, and only the tests show them:
  then the agent goes back to the edit.
- A run succeeds when all is done within 30 calls.
- Each model bills input, output and its prompt cache. A provider keeps a cache for minutes, whoever else is asked.

Training: 60 tasks, each done six times, for both ways to decide. Per run, each model does each task alone, twice. Per
step, random models do each task three times. A rule (one size up for each error in a row) does it three times more,
with a fifth of the steps at random. A step is labelled by whether its tool failed. With `--discounts 0 0.5`, labels of
what followed it too (`credit_steps`) are tried on validation. The price of quality is chosen on 200 other tasks: the
least cost at which the share of runs that succeed is at most a point below that of the best model alone. The test is
1,000 further tasks. Real agents do the first 200 of them again (`create_agent` with `EccosMiddleware`). The script
prints how many of them asked the same models, step by step.

`--sensitivity` changes one number of the world at a time, and learns everything anew. Give it `--test 400`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from eccos_core.domain import BoolArray, Capability, Completion, FloatArray, Message, Model, Outcome, Request
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, StepEncoder, SurfaceEncoder
from eccos_core.io.agent_step import RECENT_RESULTS, AgentStep, add_step
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.step_credit import credit_steps
from eccos_core.io.tokens import count_tokens
from eccos_core.predictors import fit_predictor
from eccos_core.protocols import Encoder, Predictor
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.pricing import cost_usd
from eccos_core.routing.sessions import Sessions
from eccos_core.streaming import FixedPrice
from eccos_core.testing import ScriptedBackend

ABLE = frozenset({Capability.TOOLS, Capability.STREAMING})
POOL = tuple(
    Model(name, usd_in, usd_out, usd_in / 10, context_window=128_000, capabilities=ABLE)
    for name, usd_in, usd_out in (("small", 1.5e-7, 6e-7), ("medium", 1e-6, 4e-6), ("large", 3e-6, 1.5e-5))
)
NAMES = tuple(model.name for model in POOL)
SKILL = {"small": 0.55, "medium": 0.95, "large": 1.5}
SLOPE = 5.0  # of the logit of doing a step, in skill less difficulty
MECHANICAL = (-0.3, 0.15)  # mean and deviation of the difficulty of a step that is not hard
OUTPUT_TOKENS = 150
TOLERANCE = 0.01  # share of the validation runs that may succeed less than with the best model alone
LOOK, EDIT, TEST = range(3)
KINDS = ("read_file", "edit_file", "run_tests")
SUBJECTS: tuple[tuple[str, float], ...] = (  # what a task is about, and how hard the hard steps of such tasks are
    ("rename a variable", 0.0),
    ("fix a typo in the documentation", 0.0),
    ("add a missing unit test", 0.25),
    ("parse one more date format", 0.4),
    ("speed up a slow query", 0.65),
    ("port a module to the new interface", 0.8),
    ("fix a deadlock between two workers", 1.0),
    ("find a numerical error in the solver", 1.1),
)
PLACES = ("the billing service", "the parser", "the web shop", "the scheduler", "the importer", "the mobile client")
SYSTEM = "You are a careful software engineer. Work in small steps, and check what you did. " * 12


@dataclass(frozen=True)
class World:
    """What the benchmark assumes, as far as `--sensitivity` changes it."""

    hard: tuple[float, float, float] = (0.1, 0.4, 0.1)  # share of hard steps by kind
    spread: float = 0.45  # deviation of the difficulty of hard steps in one kind of task
    silent: float = 0.25  # share of failed edits that report success
    keeps_cache: bool = True  # whether a model that was left keeps its prompt cache
    observed: float = 1.0  # factor on the length of what tools return
    most_calls: int = 30


@dataclass
class Run:
    """One run of one task. `steps` are (kind, how hard) of what is to be done. Luck is that of the run's number."""

    number: int
    text: str
    steps: list[tuple[int, float]]
    world: World
    done: int = 0
    calls: int = 0
    usd: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)  # tokens of the prompt that each model has cached
    broken: int | None = None  # the edit that failed in silence
    failed: bool = False
    log: list[tuple[str, str, bool]] = field(default_factory=list)  # text, model, whether its tool went well

    @property
    def is_over(self) -> bool:
        return self.succeeded or self.calls >= self.world.most_calls

    @property
    def succeeded(self) -> bool:
        return self.done == len(self.steps)

    def answer(self, name: str, tokens: int, text: str) -> Completion:
        """Answer one call of a model: the next tool call, or the end. The text is what a forecast reads."""
        model = POOL[NAMES.index(name)]
        cached = min(self.seen.get(name, 0), tokens)
        price = model.usd_per_input_token
        usd = (tokens - cached) * price + cached * price / 10 + OUTPUT_TOKENS * model.usd_per_output_token
        self.usd += usd
        self.seen = {**(self.seen if self.world.keeps_cache else {}), name: tokens + OUTPUT_TOKENS}
        if self.is_over:
            message: Message = {"role": "assistant", "content": "I am done."}
        else:
            tool = self._work(name)
            self.log.append((text, name, not self.failed))
            self.calls += 1
            function = {"name": KINDS[tool], "arguments": f'{{"path": "part{self.done}.py", "attempt": {self.calls}}}'}
            call = {"id": f"c{self.calls}", "type": "function", "function": function}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return Completion("", name, tokens, OUTPUT_TOKENS, usd, 0.0, message=message, cached_input_tokens=cached)

    def _work(self, name: str) -> int:
        """Do the next step, and return its kind. An edit that fails in silence shows at the next test run."""
        tool, hard = self.steps[self.done]
        luck = np.random.default_rng([self.number, self.done, self.calls, NAMES.index(name)]).random(2)
        fails = bool(luck[0] > 1 / (1 + np.exp(-SLOPE * (SKILL[name] - hard))))
        if fails and tool == EDIT and luck[1] < self.world.silent:
            fails, self.broken = False, self.done
        self.failed = fails or (tool == TEST and self.broken is not None)
        return tool

    def observe(self) -> tuple[str, bool]:
        """Return what the tool of the newest call says, and whether it failed."""
        at = self.done
        if self.failed:
            if self.steps[at][0] == TEST and self.broken is not None:
                self.done, self.broken = self.broken, None
            return f"Error: step {at} does not work after attempt {self.calls}.", True
        length = int((300 + 37 * (self.number % 40)) * self.world.observed)
        self.done += 1
        return f"Step {at + 1} is done. " + "line of the file\n" * (length // 17), False


def make_runs(count: int, seed: int, world: World) -> list[Run]:
    """Return the runs of tasks of one seed, not yet begun."""
    rng = np.random.default_rng(seed)
    runs = []
    for number in range(count):
        subject, level = SUBJECTS[rng.integers(len(SUBJECTS))]
        text = f"Please {subject} in {PLACES[rng.integers(len(PLACES))]}. It concerns ticket {rng.integers(10**4)}."
        steps = []
        for _ in range(rng.integers(2, 5)):
            for kind in (*[LOOK] * rng.integers(1, 4), EDIT, TEST):
                is_hard = rng.random() < world.hard[kind]
                mean, deviation = (level, world.spread) if is_hard else MECHANICAL
                steps.append((kind, float(rng.normal(mean, deviation))))
        runs.append(Run(100_000 * seed + number, text, steps, world))
    return runs


def again(runs: Sequence[Run], luck: int = 0) -> list[Run]:
    """Return the same tasks, not yet begun. With another `luck`, other draws."""
    return [Run(run.number + 10_000 * luck, run.text, run.steps, run.world) for run in runs]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} of the repository.",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "attempt": {"type": "integer"}},
                "required": ["path", "attempt"],
            },
        },
    }
    for name in KINDS
]


@dataclass
class Transcript:
    """The conversation of a run in numbers, kept as it grows: what `Router` computes anew of each request."""

    run: Run
    tokens: int
    characters: int
    errors: int = 0
    new: list[bool] = field(default_factory=list)  # for each result, whether it went well and says something new
    texts: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, run: Run) -> Transcript:
        """Begin with the system prompt and the task."""
        messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": run.text}]
        return cls(run, count_tokens(messages, TOOLS), len(SYSTEM) + len(run.text))

    def add(self, answer: Message, said: str, failed: bool) -> None:
        """Add a tool call and what came of it."""
        result: Message = {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": said}
        self.tokens += count_tokens([answer, result]) - count_tokens([])
        self.characters += len(said)
        self.errors = self.errors + 1 if failed else 0
        self.new.append(not failed and said not in self.texts)
        self.texts.append(said)
        self.kinds.append(answer["tool_calls"][0]["function"]["name"])

    @property
    def text(self) -> str:
        """What a forecast reads of the next step."""
        recent = self.new[-RECENT_RESULTS:]
        step = AgentStep(
            turn=len(self.texts),
            errors=self.errors,
            progress=sum(recent) / len(recent) if recent else 1.0,
            reads=self.kinds.count(KINDS[LOOK]),
            writes=self.kinds.count(KINDS[EDIT]),
            runs=self.kinds.count(KINDS[TEST]),
            context=self.characters,
            observed=len(self.texts[-1]) if self.texts else 0,
        )
        return add_step(self.run.text, step)


Choose = Callable[[Sequence[Transcript]], Sequence[str]]


def play(runs: Sequence[Run], choose: Choose) -> Sequence[Run]:
    """Do runs without LangChain, all side by side. `main` checks that real agents do the same."""
    active = [Transcript.begin(run) for run in runs]
    while active:
        left = []
        for each, name in zip(active, choose(active), strict=True):
            answer = each.run.answer(name, each.tokens, each.text)
            if answer.message.get("tool_calls"):
                each.add(answer.message, *each.run.observe())
                left.append(each)
        active = left
    return runs


def build_router(
    predictor: Predictor, encoder: Encoder, usd_per_quality: float, view: Any, book: dict[str, Run]
) -> Router:
    """Return a router of the pool. Its backend answers for the run that the session names."""

    def script(name: str) -> Callable[[Request], Completion]:
        def answer(request: Request) -> Completion:
            run = book[(request.session_id or "").partition(":")[0]]
            return run.answer(name, count_tokens(request.messages, request.parameters["tools"]), "")

        return answer

    return Router(
        POOL,
        predictor,
        ScriptedBackend({name: [script(name)] for name in NAMES}, POOL),
        encoder=encoder,
        steering=FixedPrice(usd_per_quality),
        conversation=view,
        decision_store=DecisionStore(sessions=Sessions()),
    )


def better_models(calls: Sequence[Transcript], quality: FloatArray) -> BoolArray:
    """Return who may answer, (R, M), as `step_up_after=1` says: who is better than all that failed in a row."""
    may = np.ones(quality.shape, dtype=np.bool_)
    for row, call in enumerate(calls):
        failed = [NAMES.index(name) for _, name, _ in call.run.log[len(call.run.log) - call.errors :]]
        if failed:
            may[row] = quality[row] > quality[row, failed].max()
            if not may[row].any():
                may[row, np.argmax(quality[row])] = True
    return may


@dataclass(frozen=True)
class Policy:
    """A way to decide: once per run or at each step, from one predictor."""

    name: str
    predictor: Predictor
    encoder: Encoder
    per: str

    @property
    def view(self) -> str:
        return "agent_step" if self.per == "step" else "last_user"

    def play_all(self, runs: Sequence[Run], usd_per_quality: float) -> Sequence[Run]:
        """Do runs without LangChain."""
        kept: dict[int, str] = {}

        def choose(calls: Sequence[Transcript]) -> Sequence[str]:
            if self.per == "run" and kept:
                return [kept[call.run.number] for call in calls]
            texts = [call.text if self.per == "step" else call.run.text for call in calls]
            tokens = np.array([call.tokens for call in calls], dtype=np.float64)
            cached = np.array([[min(c.run.seen.get(name, 0), c.tokens) for name in NAMES] for c in calls], dtype=float)
            forecast = self.predictor.predict(self.encoder.encode(texts), tokens)
            usd = forecast.with_recorded_cost(cost_usd(POOL, tokens, forecast.output_tokens, cached))
            value = usd_per_quality * forecast.quality - usd
            if self.per == "step":
                value[~better_models(calls, forecast.quality)] = -np.inf
            best = np.argmax(value, axis=1)
            kept.update({call.run.number: NAMES[column] for call, column in zip(calls, best, strict=True)})
            return [NAMES[column] for column in best]

        return play(runs, choose)

    def run_agents(self, runs: Sequence[Run], usd_per_quality: float) -> Sequence[Run]:
        """Do runs in real agents of LangChain."""
        from langchain.agents import create_agent

        from eccos_integrations.langchain import EccosMiddleware

        book = {str(run.number): run for run in runs}
        router = build_router(self.predictor, self.encoder, usd_per_quality, self.view, book)
        step_up_after = 1 if self.per == "step" else None
        eccos = EccosMiddleware(router=router, per=self.per, step_up_after=step_up_after)  # type: ignore[arg-type]

        def use(path: str, attempt: int, config: RunnableConfig) -> str:
            said, failed = book[config["configurable"]["thread_id"]].observe()
            if failed:
                raise ToolException(said)
            return said

        tools: list[BaseTool] = [
            StructuredTool.from_function(
                use, name=name, description=f"{name} of the repository.", handle_tool_error=True
            )
            for name in KINDS
        ]
        agent: Any = create_agent(eccos.model, tools, middleware=[eccos], system_prompt=SYSTEM)
        for run in runs:
            state = agent.invoke(
                {"messages": [("user", run.text)]},
                {"configurable": {"thread_id": str(run.number)}, "recursion_limit": 200},
            )
            assert abs(state["eccos"]["cost_usd"] - run.usd) < 1e-9
        return runs


def models_of(run: Run) -> list[str]:
    """Return who was asked, step by step."""
    return [name for _, name, _ in run.log]


def score(runs: Sequence[Run]) -> tuple[float, float]:
    """(share that succeeded, mean USD)"""
    return float(np.mean([run.succeeded for run in runs])), float(np.mean([run.usd for run in runs]))


def play_alone(tasks: Sequence[Run], name: str, luck: int = 0) -> Sequence[Run]:
    """Do all tasks with one model."""
    return play(again(tasks, luck), lambda calls: [name] * len(calls))


def plain_encoder() -> Encoder:
    """Return what reads texts: that of `Router`, and what a step adds to it is `StepEncoder`."""
    return ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])


def learn_runs(tasks: Sequence[Run], kind: str) -> Policy:
    """Fit what decides once per run: each model does each task alone, twice. The cost is that of the run."""
    outcomes = []
    for name in NAMES:
        for first, second in zip(*(play_alone(tasks, name, luck) for luck in (1, 2)), strict=True):
            quality, usd = (first.succeeded + second.succeeded) / 2, (first.usd + second.usd) / 2
            outcomes.append(Outcome(str(first.number), first.text, name, quality, cost_usd=usd))
    return fit("once per run", outcomes, plain_encoder(), kind, "run")


def explore_steps(tasks: Sequence[Run]) -> Sequence[Run]:
    """Do each task six times: thrice with random models, and thrice by the rule with a fifth of the steps at random."""
    rng = np.random.default_rng(0)

    def choose(calls: Sequence[Transcript], random_share: float) -> Sequence[str]:
        guesses = rng.integers(len(NAMES), size=len(calls))
        guessed = rng.random(len(calls)) < random_share
        return [NAMES[g] if u else c for g, u, c in zip(guesses, guessed, climb(calls), strict=True)]

    return [
        run
        for luck, share in enumerate((1.0, 1.0, 1.0, 0.2, 0.2, 0.2), start=1)
        for run in play(again(tasks, luck), partial(choose, random_share=share))
    ]


def learn_steps(runs: Sequence[Run], kind: str, discount: float) -> Policy:
    """Fit what decides each step, from runs of several models."""
    name = f"each step (discount {discount:g})"
    return fit(name, label_steps(runs, discount), StepEncoder(plain_encoder()), kind, "step")


def label_steps(runs: Sequence[Run], discount: float) -> list[Outcome]:
    """Return one outcome for each step of the runs."""
    outcomes = []
    for run in runs:
        labels = credit_steps([good for *_, good in run.log], float(run.succeeded), discount)
        outcomes += [
            Outcome(f"{run.number} {i}", text, name, label, output_tokens=OUTPUT_TOKENS)
            for i, ((text, name, _), label) in enumerate(zip(run.log, labels, strict=True))
        ]
    return outcomes


def fit(name: str, outcomes: Sequence[Outcome], encoder: Encoder, kind: str, per: str) -> Policy:
    """Fit the predictor of a way to decide."""
    started, table = time.perf_counter(), table_of(outcomes, NAMES)
    predictor = fit_predictor(kind, table, encoder.encode(table.queries))
    print(f"{name}: learned from {len(outcomes)} outcomes in {time.perf_counter() - started:.0f} s", flush=True)
    return Policy(name, predictor, encoder, per)


RUN_PRICES = tuple(np.geomspace(0.05, 3.0, 9))  # USD for a run that succeeds
STEP_PRICES = tuple(np.geomspace(0.003, 0.2, 7))  # USD for a step that goes well


def choose_price(policy: Policy, tasks: Sequence[Run], wanted: float) -> tuple[float, float, float]:
    """Return (price, success, USD): the least cost at which as many runs succeed as wanted. Else the most success."""
    prices = RUN_PRICES if policy.per == "run" else STEP_PRICES
    found = [(price, *score(policy.play_all(again(tasks), price))) for price in prices]
    good = [each for each in found if each[1] >= wanted - TOLERANCE]
    return min(good, key=lambda each: each[2]) if good else max(found, key=lambda each: (each[1], -each[2]))


def climb(calls: Sequence[Transcript]) -> Sequence[str]:
    """Choose by a rule that needs no learning: the small model, and one size up for each error in a row."""
    names = []
    for call in calls:
        well = [good for *_, good in reversed(call.run.log)]
        errors = well.index(True) if True in well else len(well)
        names.append(NAMES[min(errors, len(NAMES) - 1)])
    return names


@dataclass(frozen=True)
class Result:
    """The test runs of each way to decide, of the same tasks in the same order. The first three are models alone."""

    rows: dict[str, Sequence[Run]]
    best: str
    policies: list[tuple[Policy, float]]

    def compare(self, name: str, other: str, rounds: int = 4000) -> tuple[list[float], list[float]]:
        """Return the difference in success and the ratio of costs to another, each with its paired 95 % interval."""
        ours, theirs = self.rows[name], self.rows[other]
        success = np.array([a.succeeded - b.succeeded for a, b in zip(ours, theirs, strict=True)], dtype=float)
        usd = np.array([(a.usd, b.usd) for a, b in zip(ours, theirs, strict=True)])
        drawn = np.random.default_rng(0).integers(len(usd), size=(rounds, len(usd)))
        costs = usd[drawn].sum(axis=1)
        ratios = costs[:, 0] / costs[:, 1]
        interval = [2.5, 97.5]
        return (
            [float(success.mean()), *np.percentile(success[drawn].mean(axis=1), interval).tolist()],
            [float(usd[:, 0].sum() / usd[:, 1].sum()), *np.percentile(ratios, interval).tolist()],
        )


def measure(world: World, kind: str, sizes: tuple[int, int, int], discounts: Sequence[float]) -> Result:
    """Learn on training tasks, choose discount and prices on validation tasks, and do the test tasks."""
    training, validation, test = (make_runs(n, seed, world) for n, seed in zip(sizes, (1, 2, 5), strict=True))
    wanted = max(score(play_alone(validation, name))[0] for name in NAMES)
    per_run = learn_runs(training, kind)
    explored = explore_steps(training)
    per_step = [learn_steps(explored, kind, discount) for discount in discounts]
    chosen = {policy.name: (policy, *choose_price(policy, validation, wanted)) for policy in (per_run, *per_step)}
    for policy, price, success, usd in chosen.values():
        print(f"validation: {policy.name}, price {price:.3g}: {success:.3f} at {1000 * usd:.2f}", flush=True)
    steps = [chosen[policy.name] for policy in per_step]
    reached = [each for each in steps if each[2] >= wanted - TOLERANCE]
    step = min(reached, key=lambda each: each[3]) if reached else max(steps, key=lambda each: each[2])
    rows = {f"`{name}` alone": play_alone(test, name) for name in NAMES}
    best = max(rows, key=lambda name: score(rows[name])[0])
    rows["a rule: one size up for each error in a row"] = play(again(test), climb)
    policies = [(chosen[per_run.name][0], chosen[per_run.name][1]), (step[0], step[1])]
    for policy, price in policies:
        rows[policy.name] = policy.play_all(again(test), price)
    return Result(rows, best, policies)


WORLDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as above", {}),
    ("twice as many hard steps", {"hard": (0.2, 0.8, 0.2)}),
    ("every step is hard", {"hard": (1.0, 1.0, 1.0)}),
    ("a model that was left loses its prompt cache", {"keeps_cache": False}),
    ("every failed edit is silent", {"silent": 1.0}),
    ("at most 18 calls", {"most_calls": 18}),
    ("tools return four times as much", {"observed": 4.0}),
    ("the text tells how hard the hard steps are", {"spread": 0.1}),
)


def print_result(result: Result) -> None:
    """Print the table of one world, and the paired comparisons."""
    best_usd = score(result.rows[result.best])[1]
    print("\n| who decides | runs that succeed | USD per 1,000 runs | share of the best model's cost |")
    print("|---|---|---|---|")
    for name, runs in result.rows.items():
        success, usd = score(runs)
        error = np.sqrt(success * (1 - success) / len(runs))
        print(f"| {name} | {success:.3f} ± {error:.3f} | {1000 * usd:.2f} | {usd / best_usd:.2f} |")
    print("\n| compared in pairs, 95 % | success | cost |\n|---|---|---|")
    run, step = (policy.name for policy, _ in result.policies)
    for name, other in ((step, result.best), (step, run), (run, result.best), (step, list(result.rows)[3])):
        success_, cost = result.compare(name, other)
        told = f"{success_[0]:+.3f} ({success_[1]:+.3f} to {success_[2]:+.3f})"
        print(f"| {name}, against {other} | {told} | {cost[0]:.2f} ({cost[1]:.2f} to {cost[2]:.2f}) |", flush=True)


def print_sensitivity(kind: str, sizes: tuple[int, int, int], discounts: Sequence[float]) -> None:
    """Print what each change of the world does to success and cost."""
    lines = ["\n| the world | best alone | the rule | once per run | each step |\n|---|---|---|---|---|"]
    for name, changes in WORLDS:
        result = measure(replace(World(), **changes), kind, sizes, discounts)
        best_usd = score(result.rows[result.best])[1]
        shown = [result.best, *list(result.rows)[3:]]
        cells = (f"{score(result.rows[each])[0]:.3f} at {score(result.rows[each])[1] / best_usd:.2f}" for each in shown)
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder would hide the package `langchain`
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--training", type=int, default=60)
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument(
        "--agents", type=int, default=200, help="of the test runs, how many real agents of LangChain do"
    )
    parser.add_argument("--discounts", type=float, nargs="+", default=[0.0], help="of credit_steps, to choose from")
    parser.add_argument("--predictor", default="kernel")
    parser.add_argument("--sensitivity", action="store_true", help="change the world, one number at a time")
    given = parser.parse_args()
    sizes = (given.training, given.validation, given.test)
    if given.sensitivity:
        print_sensitivity(given.predictor, sizes, given.discounts)
        return
    result = measure(World(), given.predictor, sizes, given.discounts)
    print_result(result)
    for policy, price in result.policies:
        played = result.rows[policy.name][: given.agents]
        agents = policy.run_agents(again(played), price)
        same = sum(models_of(a) == models_of(b) for a, b in zip(agents, played, strict=True))
        ratio = score(agents)[1] / score(played)[1]  # LangChain names the tool of each result, which is input too
        told = f"the same models in {same} of {len(played)} runs, at {ratio:.3f} of the cost"
        print(f"{policy.name}: real agents asked {told}", flush=True)


if __name__ == "__main__":
    main()
