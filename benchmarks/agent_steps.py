"""What deciding each step of an agent saves over deciding once per run: `python benchmarks/agent_steps.py`.

A scripted world of coding agents. The numbers come from reason, not from results:

- A task has two to four parts. A part is one to three looks at files, an edit, and a run of the tests: 8 to 20 calls.
- Most steps are mechanical: every model nearly always does them. A look is hard in 10 % of the cases, an edit in 40 %,
  a test run in 10 %. The text of a task tells how hard its kind is on average, and not which step is hard.
- A model does a step with a probability that depends on its skill and the step. What is hard stays hard. A step that
  fails returns an error and is tried again. A quarter of the failed edits report success, and only the tests show them:
  then the agent goes back to the edit.
- A run succeeds when all is done within 30 calls.
- Each model bills input, output and its prompt cache. A provider keeps a cache for minutes, whoever else is asked.

Training: 150 tasks, each done six times, for both ways to decide. Per run, each model does each task alone, twice. Per
step, random models do each task three times, and then the router that learned from this, with a fifth of the steps at
random. A step is labelled by whether its tool failed, or by what followed too (`credit_steps`). The discount and the
price of quality are chosen on 400 other tasks: the least cost at which the share of runs that succeed is at most a
point below that of the best model alone. The test is 1,000 further tasks, in real agents: `create_agent` with
`EccosMiddleware`. `--sensitivity` changes one number of the world at a time, and learns everything anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from eccos_core.domain import TOOL_FAILED, Capability, Completion, Message, Model, Outcome, Request
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, StepEncoder, SurfaceEncoder
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.tokens import conversation_text, count_tokens
from eccos_core.io.step_credit import credit_steps
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
MOST_CALLS, OUTPUT_TOKENS = 30, 150
TOLERANCE = 0.01  # share of the validation runs that may succeed less than with the best model alone
DISCOUNTS = (0.0, 0.5)  # of `credit_steps`
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
        return self.succeeded or self.calls >= MOST_CALLS

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


@dataclass(frozen=True)
class Call:
    """One call of a run: its input tokens, and what a forecast reads of it. What `Router` computes of a request."""

    run: Run
    tokens: int
    text: str


Choose = Callable[[Sequence[Call]], Sequence[str]]


def play(runs: Sequence[Run], choose: Choose) -> Sequence[Run]:
    """Do runs without LangChain, all side by side: as agents would, with the same messages."""
    begun: dict[int, list[Message]] = {
        run.number: [{"role": "system", "content": SYSTEM}, {"role": "user", "content": run.text}] for run in runs
    }
    tokens = {number: count_tokens(messages, TOOLS) for number, messages in begun.items()}
    empty, active = count_tokens([]), list(runs)
    while active:
        calls = [
            Call(run, tokens[run.number], conversation_text(begun[run.number], "agent_step", has_tools=True))
            for run in active
        ]
        left = []
        for call, name in zip(calls, choose(calls), strict=True):
            run, answer = call.run, call.run.answer(name, call.tokens, call.text)
            made = answer.message.get("tool_calls")
            if made:
                said, failed = run.observe()
                result: Message = {"role": "tool", "tool_call_id": made[0]["id"], "content": said}
                new = [answer.message, result | ({TOOL_FAILED: True} if failed else {})]
                begun[run.number] += new
                tokens[run.number] += sum(count_tokens([message]) - empty for message in new)
                left.append(run)
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

    def play_all(self, runs: Sequence[Run], usd_per_quality: float, random_share: float = 0.0) -> Sequence[Run]:
        """Do runs without LangChain, with this share of the steps by random models."""
        kept: dict[int, str] = {}
        rng = np.random.default_rng(1)

        def choose(calls: Sequence[Call]) -> Sequence[str]:
            if self.per == "run" and kept:
                return [kept[call.run.number] for call in calls]
            texts = [call.text if self.per == "step" else call.run.text for call in calls]
            tokens = np.array([call.tokens for call in calls], dtype=np.float64)
            cached = np.array([[min(c.run.seen.get(name, 0), c.tokens) for name in NAMES] for c in calls], dtype=float)
            forecast = self.predictor.predict(self.encoder.encode(texts), tokens)
            usd = forecast.with_recorded_cost(cost_usd(POOL, tokens, forecast.output_tokens, cached))
            best = np.argmin(usd - usd_per_quality * forecast.quality, axis=1)
            guessed = rng.random(len(calls)) < random_share
            best = np.where(guessed, rng.integers(len(NAMES), size=len(calls)), best)
            kept.update({call.run.number: NAMES[column] for call, column in zip(calls, best, strict=True)})
            return [NAMES[column] for column in best]

        return play(runs, choose)

    def run_agents(self, runs: Sequence[Run], usd_per_quality: float) -> Sequence[Run]:
        """Do runs in real agents of LangChain."""
        from langchain.agents import create_agent

        from eccos_integrations.langchain import EccosMiddleware

        book = {str(run.number): run for run in runs}
        router = build_router(self.predictor, self.encoder, usd_per_quality, self.view, book)
        eccos = EccosMiddleware(router=router, per=self.per)  # type: ignore[arg-type]

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


def learn_steps(tasks: Sequence[Run], kind: str, discount: float) -> Policy:
    """Fit what decides each step, from random models, and then from its own runs too."""
    rng = np.random.default_rng(0)
    runs: list[Run] = []
    name = f"each step, discount {discount:g}"
    for luck in (1, 2, 3):
        runs += play(again(tasks, luck), lambda calls: [NAMES[c] for c in rng.integers(3, size=len(calls))])
    encoder = StepEncoder(plain_encoder())
    first = fit(name, label_steps(runs, discount), encoder, kind, "step")
    for luck, price in ((4, 0.01), (5, 0.03), (6, 0.1)):
        runs += first.play_all(again(tasks, luck), price, random_share=0.2)
    return fit(name, label_steps(runs, discount), encoder, kind, "step")


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
