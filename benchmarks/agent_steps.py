"""What deciding each step of an agent saves over deciding once per run: `python benchmarks/agent_steps.py`.

A scripted world. A task has three to six parts: a file to read, to edit, or tests to run. Its text tells how hard tasks
of its kind are on average. How hard a part is, nobody tells. A model does a part with a probability that depends on
both. Where it fails, the tool returns an error and the agent tries again. What is hard stays hard, so errors in a row
are a sign of it. A run succeeds when all parts are done within 14 calls. Each model bills input, output and the prompt
cache, which holds as long as the run stays on the model.

Training: 150 tasks. For the router per run, each model does each task alone. For the router per step, each task is done
three times by random models, and each call is labelled by whether its tool failed. Both have as many runs. The price of
quality is chosen on 160 other tasks: the cheapest at which the share of runs that succeed is at most a point below that
of the best model alone. The test is 240 further tasks, in real agents: `create_agent` with `EccosMiddleware`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from eccos_core.domain import Capability, Completion, Message, Model, Outcome, Request
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, StepEncoder, SurfaceEncoder
from eccos_core.io.outcome_tables import table_of
from eccos_core.io.tokens import conversation_text, count_tokens
from eccos_core.predictors import fit_predictor
from eccos_core.protocols import Encoder, Predictor
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
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
MOST_CALLS, OUTPUT_TOKENS = 14, 150
PRICES = tuple(np.geomspace(2e-3, 0.2, 9))
TOLERANCE = 0.01  # share of the validation runs that may succeed less than with the best model alone
KINDS = (("read_file", -0.5), ("edit_file", 0.0), ("run_tests", -0.15))  # tool, and how much harder than the task
SUBJECTS: tuple[tuple[str, float], ...] = (  # what a task is about, and how hard such tasks are
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


@dataclass
class Run:
    """One run of one task. `parts` are (kind, how hard) of what is to be done. Luck is that of the run's number."""

    number: int
    text: str
    parts: list[tuple[int, float]]
    done: int = 0
    calls: int = 0
    usd: float = 0.0
    seen: tuple[str, int] = ("", 0)  # the model that has the prompt cached, and its tokens
    failed: bool = False
    log: list[tuple[str, str, bool]] = field(default_factory=list)  # text, model, whether it went well

    @property
    def is_over(self) -> bool:
        return self.done == len(self.parts) or self.calls >= MOST_CALLS

    @property
    def succeeded(self) -> bool:
        return self.done == len(self.parts)

    def answer(self, name: str, request: Request) -> Completion:
        """Answer one call of a model: the next tool call, or the end."""
        model = POOL[NAMES.index(name)]
        tokens = count_tokens(request.messages, request.parameters.get("tools"))
        cached = min(self.seen[1], tokens) if self.seen[0] == name else 0
        price = model.usd_per_input_token
        usd = (tokens - cached) * price + cached * price / 10 + OUTPUT_TOKENS * model.usd_per_output_token
        self.usd += usd
        self.seen = (name, tokens + OUTPUT_TOKENS)
        if self.is_over:
            message: Message = {"role": "assistant", "content": "I am done."}
        else:
            tool, harder = KINDS[self.parts[self.done][0]]
            logit = 5 * (SKILL[name] - self.parts[self.done][1] - harder)
            luck = np.random.default_rng([self.number, self.done, self.calls, NAMES.index(name)]).random()
            self.failed = bool(luck > 1 / (1 + np.exp(-logit)))
            self.log.append((conversation_text(request.messages, "agent_step", has_tools=True), name, not self.failed))
            self.calls += 1
            function = {"name": tool, "arguments": f'{{"path": "part{self.done}.py", "attempt": {self.calls}}}'}
            call = {"id": f"c{self.calls}", "type": "function", "function": function}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return Completion("", name, tokens, OUTPUT_TOKENS, usd, 0.0, message=message, cached_input_tokens=cached)

    def observe(self) -> tuple[str, bool]:
        """Return what the tool of the newest call says, and whether it failed."""
        if self.failed:
            return f"Error: part {self.done} does not work after attempt {self.calls}.", True
        length = 300 + 37 * (self.number % 40)
        self.done += 1
        return f"Part {self.done} is done. " + "line of the file\n" * (length // 17), False


def make_runs(count: int, seed: int) -> list[Run]:
    """Return the runs of tasks of one seed, not yet begun."""
    rng = np.random.default_rng(seed)
    runs = []
    for number in range(count):
        subject, hard = SUBJECTS[rng.integers(len(SUBJECTS))]
        text = f"Please {subject} in {PLACES[rng.integers(len(PLACES))]}. It concerns ticket {rng.integers(10**4)}."
        kinds = rng.integers(len(KINDS), size=rng.integers(3, 7)).tolist()
        parts = [(kind, hard + float(rng.normal(0, 0.45))) for kind in kinds]
        runs.append(Run(1000 * seed + number, text, parts))
    return runs


def again(runs: Sequence[Run]) -> list[Run]:
    """Return the same tasks, not yet begun."""
    return [Run(run.number, run.text, run.parts) for run in runs]


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
    for name, _ in KINDS
]


def play(run: Run, choose: Callable[[Request], str]) -> Run:
    """Do a run without LangChain: as an agent would, with the same messages."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": run.text}]
    while True:
        request = Request(tuple(messages), parameters={"tools": TOOLS}, session_id=f"{run.number}")
        answer = run.answer(choose(request), request)
        messages.append(answer.message)
        if not answer.message.get("tool_calls"):
            return run
        said, _ = run.observe()
        messages.append({"role": "tool", "tool_call_id": answer.message["tool_calls"][0]["id"], "content": said})


def build_router(
    predictor: Predictor, encoder: Encoder, usd_per_quality: float, view: Any, book: dict[str, Run]
) -> Router:
    """Return a router of the pool. Its backend answers for the run that the session names."""

    def script(name: str) -> Callable[[Request], Completion]:
        return lambda request: book[(request.session_id or "").partition(":")[0]].answer(name, request)

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
    view: str
    per: str

    def play_all(self, runs: Sequence[Run], usd_per_quality: float) -> tuple[float, float]:
        """Return (share of the runs that succeed, USD a run) without LangChain."""
        router = build_router(self.predictor, self.encoder, usd_per_quality, self.view, {})
        for run in runs:
            kept: list[str] = []

            def choose(request: Request, run: Run = run, kept: list[str] = kept) -> str:
                model = kept[0] if kept and self.per == "run" else router.decide(request).model
                kept[:] = [model]
                # what `Router.complete` tells the sessions after each answer
                seen = Completion("", model, count_tokens(request.messages, TOOLS), OUTPUT_TOKENS, 0.0, 0.0)
                sessions = router.decider.sessions
                assert sessions is not None
                sessions.record_completion(request.session_id, seen)
                return model

            play(run, choose)
        return score(runs)

    def run_agents(self, runs: Sequence[Run], usd_per_quality: float) -> tuple[float, float]:
        """Return the same, measured in real agents of LangChain."""
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
            for name, _ in KINDS
        ]
        agent: Any = create_agent(eccos.model, tools, middleware=[eccos], system_prompt=SYSTEM)
        for run in runs:
            state = agent.invoke(
                {"messages": [("user", run.text)]},
                {"configurable": {"thread_id": str(run.number)}, "recursion_limit": 200},
            )
            assert abs(state["eccos"]["cost_usd"] - run.usd) < 1e-9
        return score(runs)


def score(runs: Sequence[Run]) -> tuple[float, float]:
    """(share that succeeded, mean USD)"""
    return float(np.mean([run.succeeded for run in runs])), float(np.mean([run.usd for run in runs]))


def play_alone(tasks: Sequence[Run], name: str) -> list[Run]:
    """Do all tasks with one model."""
    return [play(run, lambda _: name) for run in again(tasks)]


def learn(tasks: Sequence[Run], kind: str, *, text_alone: bool) -> list[Policy]:
    """Fit the predictors of the three ways to decide, each on as many runs of the same tasks."""
    alone = {name: play_alone(tasks, name) for name in NAMES}
    rng = np.random.default_rng(0)
    mixed = [play(run, lambda _: NAMES[rng.integers(len(NAMES))]) for _ in NAMES for run in again(tasks)]
    whole = [
        Outcome(str(run.number), run.text, name, float(run.succeeded), cost_usd=run.usd)
        for name, runs in alone.items()
        for run in runs
    ]
    calls = [
        Outcome(f"{i} {text}", text, name, float(good), output_tokens=OUTPUT_TOKENS)
        for i, (text, name, good) in enumerate(call for run in mixed for call in run.log)
    ]
    plain = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    policies = []
    for name, outcomes, encoder, view, per in (
        ("once per run", whole, plain, "last_user", "run"),
        ("each step, by its text alone", _without_steps(calls), plain, "last_user", "step"),
        ("each step, with its numbers", calls, StepEncoder(plain), "agent_step", "step"),
    ):
        if name.endswith("alone") and not text_alone:
            continue
        started, table = time.perf_counter(), table_of(outcomes, NAMES)
        predictor = fit_predictor(kind, table, encoder.encode(table.queries))
        print(f"{name}: learned from {len(outcomes)} outcomes in {time.perf_counter() - started:.0f} s", flush=True)
        policies.append(Policy(name, predictor, encoder, view, per))
    return policies


def _without_steps(calls: Sequence[Outcome]) -> list[Outcome]:
    from eccos_core.io.agent_step import split_step

    return [
        Outcome(each.question_id, split_step(each.query)[0], each.model, each.quality, output_tokens=OUTPUT_TOKENS)
        for each in calls
    ]


def choose_price(policy: Policy, tasks: Sequence[Run], wanted: float) -> float:
    """Return the price at which as many runs succeed as wanted, at the least cost. Else that with most success."""
    found = [(price, *policy.play_all(again(tasks), price)) for price in PRICES]
    good = [each for each in found if each[1] >= wanted - TOLERANCE]
    return min(good, key=lambda each: each[2])[0] if good else max(found, key=lambda each: (each[1], -each[2]))[0]


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder would hide the package `langchain`
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--training", type=int, default=150)
    parser.add_argument("--validation", type=int, default=160)
    parser.add_argument("--test", type=int, default=240)
    parser.add_argument("--predictor", default="kernel")
    parser.add_argument("--text-alone", action="store_true", help="also decide each step without its numbers")
    given = parser.parse_args()
    policies = learn(make_runs(given.training, 1), given.predictor, text_alone=given.text_alone)
    validation, test = make_runs(given.validation, 2), make_runs(given.test, 5)
    wanted = max(score(play_alone(validation, name))[0] for name in NAMES)
    prices = [choose_price(policy, validation, wanted) for policy in policies]
    rows = [(f"`{name}` alone", *score(play_alone(test, name))) for name in NAMES]
    for policy, price in zip(policies, prices, strict=True):
        rows.append((f"{policy.name}", *policy.run_agents(again(test), price)))
    best = max(rows[: len(NAMES)], key=lambda row: row[1])
    print(f"\n{len(test)} test runs. On validation {wanted:.3f} succeed with the best model alone.")
    print(f"Prices of quality, USD: {', '.join(f'{price:.2g}' for price in prices)}\n")
    print("| who decides | success | USD per 1,000 runs | share of the best model's cost |\n|---|---|---|---|")
    for name, success, usd in rows:
        error = np.sqrt(success * (1 - success) / len(test))
        print(f"| {name} | {success:.3f} ± {error:.3f} | {1000 * usd:.2f} | {usd / best[2]:.2f} |")


if __name__ == "__main__":
    main()
