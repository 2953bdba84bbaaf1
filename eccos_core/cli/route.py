"""`eccos route` decides for one question. `eccos ask` calls the model as well."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from eccos_core.domain import Completion, Decision
    from eccos_core.router import Router

QuestionArgument = Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes.")]
PoolOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="CONFIG",
        help="The YAML file; Without it: eccos.yaml here, else the bundled pocket pool.",
        show_default=False,
    ),
]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of the answer.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="0 takes the likeliest answer.")]


def route(question: QuestionArgument, config: PoolOption = None, json: JsonOption = False) -> None:
    """Show which model should answer a question, and why. Nothing is called."""
    router = router_of(config)
    prepared, decision = router.explain(question)
    router.decision_store.flush()
    forecast = prepared.forecast
    if json:
        print_json(
            {
                **decision_as_json(decision),
                "forecast": [
                    {
                        "model": name,
                        "quality": forecast.quality[0, column],
                        "quality_se": forecast.quality_se[0, column],
                        "output_tokens": forecast.output_tokens[0, column],
                        "output_tokens_high": forecast.output_tokens_high[0, column],
                        "cost_usd": prepared.cost_usd[0, column],
                        "eligible": bool(prepared.eligible[0, column]),
                    }
                    for column, name in enumerate(forecast.models)
                ],
            }
        )
        return
    out = console(sys.stdout)
    rows = [
        (
            ("> " if name == decision.model else "  ") + name,
            f"{forecast.quality[0, column]:.3f} ± {forecast.quality_se[0, column]:.3f}",
            f"{forecast.output_tokens[0, column]:.0f}",
            f"{prepared.cost_usd[0, column] * 1e6:.3f}",
            "" if prepared.eligible[0, column] else "may not answer this",
        )
        for column, name in enumerate(forecast.models)
    ]
    columns = ("model", "P(good answer)", "tokens out", "micro-USD", "")
    out.print(table("Forecast", columns, rows, numbers=("P(good answer)", "tokens out", "micro-USD")))
    out.print(decision.reason, soft_wrap=True)


def ask(
    question: QuestionArgument,
    config: PoolOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    json: JsonOption = False,
) -> None:
    """Answer a question with the cheapest model that is good enough."""
    from eccos_core.domain import Request

    given = {"max_tokens": max_tokens, "temperature": temperature}
    parameters = {key: value for key, value in given.items() if value is not None}
    router = router_of(config, for_calls=True)
    with console().status("Asking ..."):
        completion = router.complete(Request.of(question, parameters=parameters))
    router.decision_store.flush()
    if json:
        print_json(completion_as_json(completion))
        return
    from eccos_core.routing.decisions import format_usd

    console(sys.stdout).print(completion.text, soft_wrap=True)
    tokens = f"{completion.input_tokens} tokens in, {completion.output_tokens} out"
    console().print(
        f"{completion.model}: {format_usd(completion.cost_usd)}, {tokens}, {completion.latency_s * 1000:.0f} ms\n"
        f"{completion.decision.reason}\n"
        f"decision {completion.decision.id}",
        style="dim",
        soft_wrap=True,
    )


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """A decision as JSON values."""
    return {**asdict(decision), "fallbacks": list(decision.fallbacks)}


def completion_as_json(completion: Completion) -> dict[str, Any]:
    """A completion as JSON values, its decision included."""
    document = asdict(completion)
    document["message"] = dict(completion.message)
    document["decision"] = decision_as_json(completion.decision)
    return document


def router_of(config: Path | None, *, for_calls: bool = False) -> Router:
    """Build the router of a configuration file, or of the usual one, which is then named on standard error.

    A terminal sees what takes the time. `for_calls` imports LiteLLM meanwhile, where the pool needs it.
    """
    from rich.text import Text

    from eccos_core.assembly.backend import needs_litellm
    from eccos_core.backends.litellm.lazy_import import preload_litellm
    from eccos_core.cli.options import usual_config
    from eccos_core.config import load_config
    from eccos_core.router import Router

    chosen = config or usual_config()
    if config is None:
        console().print(f"Using {chosen}", style="dim", soft_wrap=True)
    if for_calls and needs_litellm(load_config(chosen)):
        preload_litellm()
    with console().status("Loading predictor and history ...") as status:
        return Router.from_yaml(chosen, progress=lambda stage: status.update(Text(f"Fitting: {stage}")))
