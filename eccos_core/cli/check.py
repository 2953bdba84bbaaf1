"""`eccos check`: prints every problem of a configuration file, or its pool."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.output import YOUR_INPUT, ConfigArgument, JsonOption, console, print_json, print_table
from eccos_core.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from eccos_core.cli.probe import Probe
    from eccos_core.config import Config
    from eccos_core.domain import Model
    from eccos_core.predictors import ModelPrior

ProbeOption = Annotated[bool, typer.Option("--probe", help="Also call each deployment once with a one-token prompt.")]

_COLUMNS = ("model", "provider", "in", "out", "cap", "context", "can")
_NUMBERS = ("in", "out", "cap", "context")


def check(config: ConfigArgument, probe: ProbeOption = False, json: JsonOption = False) -> None:
    """Check a configuration file. You get every problem, or a table of the pool.

    Prices are in USD per million tokens. The exit code is 1 when anything is wrong.
    """
    from eccos_core.config import load_config

    try:
        loaded = load_config(config)
    except ConfigError as error:
        if not json:
            raise
        problems = [{"place": problem.place, "message": problem.message} for problem in error.problems]
        print_json({"file": error.file, "ok": False, "problems": problems})
        raise typer.Exit(YOUR_INPUT) from None
    probes = _probe(loaded) if probe else ()
    if json:
        print_json(_as_json(loaded, probes))
    else:
        _print_pool(loaded, probes)
    if any(not result.ok for result in probes):
        raise typer.Exit(YOUR_INPUT)


def _probe(config: Config) -> tuple[Probe, ...]:
    from eccos_core.cli.probe import probe_pool

    with console().status("Calling each deployment once ..."):
        return probe_pool(config)


def _print_pool(config: Config, probes: tuple[Probe, ...]) -> None:
    from rich.text import Text

    out = console(sys.stdout)
    title = f"{config.path}: {len(config.pool)} model{'s' if len(config.pool) != 1 else ''}, USD per million tokens"
    print_table(out, title, _COLUMNS, [_row(model) for model in config.models], numbers=_NUMBERS)
    out.print(_summarize(config), soft_wrap=True)
    for result in probes:
        style = "green" if result.ok else "red"
        text = f"{result.latency_s * 1000:.0f} ms" if result.ok else result.cause
        out.print(Text.assemble((f"{result.label}: ", "bold"), (text, style)), soft_wrap=True)
    for rule in config.not_applied:
        out.print(Text.assemble(("NOT APPLIED ", "bold red"), rule), soft_wrap=True)
    for warning in config.warnings:
        out.print(Text.assemble(("Warning ", "bold yellow"), warning), soft_wrap=True)
    for setting in config.translated:
        out.print(Text.assemble(("Translated ", "bold green"), setting), soft_wrap=True)
    if missing := models_without_outcomes(config):
        out.print(Text.assemble(("No outcomes ", "bold yellow"), _how_to_start(config, missing)), soft_wrap=True)
    out.print(_describe_result(config, probes), soft_wrap=True)


def _describe_result(config: Config, probes: tuple[Probe, ...]) -> Text:
    from rich.text import Text

    if failures := _describe_failures(probes):
        return Text(failures, style="red")
    if not (count := len(config.not_applied)):
        return Text("No problems found.", style="green")
    rules = "1 rule of your file does" if count == 1 else f"{count} rules of your file do"
    return Text(f"The file loads, but {rules} not hold here (NOT APPLIED above).", style="bold yellow")


def models_without_outcomes(config: Config) -> list[str]:
    """List the models whose quality eccos assumes: the history is empty, and the file does not say what to expect.

    Only what the file and the disk tell is looked at. A history on a server counts as filled.
    """
    from eccos_core.config import ChromaPersistentConfig, InMemoryConfig

    match config.history:
        case InMemoryConfig(outcomes=None):
            is_empty = True
        case ChromaPersistentConfig(path=path):
            is_empty = not path.exists()
        case _:
            is_empty = False
    if not is_empty or config.predictor.artifact is not None:
        return []
    return [e.model.name for e in config.pool if e.assume_like is None and e.assumed_quality is None]


def _how_to_start(config: Config, missing: list[str]) -> str:
    """Say what is assumed, and the three steps that replace it by outcomes."""
    from eccos_core.assembly.starting_quality import starting_source, ungraded_priors
    from eccos_core.config import InMemoryConfig

    option = f"--config {config.path}"
    if isinstance(config.history, InMemoryConfig):
        second = "write `history: {outcomes: outcomes.jsonl}` under `eccos:`"
    else:
        second = f"eccos ingest outcomes.jsonl {option}"
    priors = ungraded_priors(config)
    sources = {"public_benchmarks": "public benchmark results", "price_rank": "the rank of its price"}
    starts = [
        _describe_prior(entry.model.name, priors[entry.model.name], sources[starting_source(entry)])
        for entry in config.pool
        if entry.model.name in missing
    ]
    return (
        f"The history is empty, so quality is assumed: {'; '.join(starts)}. To learn how good they are, run these:\n"
        f"  eccos collect --questions questions.jsonl --out outcomes.jsonl {option}\n"
        f"  {second}\n"
        f"  eccos fit --out fitted {option}\n"
        "Or say what you expect: give each model an assumed_quality from 0 to 1 under model_info."
    )


def _describe_prior(name: str, prior: ModelPrior, source: str) -> str:
    if prior.assumed_quality is not None:
        return f"{name} starts at {prior.assumed_quality:.2f}, from {source}"
    return f"{name} starts {'above' if prior.log_odds > 0 else 'below'} {prior.assume_like}, by its effort"


def _describe_failures(probes: tuple[Probe, ...]) -> str:
    failed = sum(not result.ok for result in probes)
    return f"{failed} of {len(probes)} deployments did not answer." if failed else ""


def _row(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        model.provider or "?",
        _per_million(model.usd_per_input_token),
        _per_million(model.usd_per_output_token),
        str(model.max_concurrency) if model.max_concurrency is not None else "-",
        _tokens(model.context_window),
        _describe_abilities(model),
    )


def _per_million(usd_per_token: float) -> str:
    usd = usd_per_token * 1e6
    return "free" if usd == 0 else f"{usd:.2f}" if usd > 0.0099 else f"{usd:.2g}"


def _tokens(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e6:.3g}M" if count >= 1_000_000 else f"{count / 1000:.3g}k" if count >= 1000 else str(count)


def _describe_abilities(model: Model) -> str:
    from eccos_core.domain import Capability

    able = [one.value.replace("_", " ") for one in Capability if one in model.capabilities and one != "streaming"]
    if Capability.STREAMING not in model.capabilities:
        able.append("no streaming")
    if model.effort_of:
        able.append(f"shares slots with {model.effort_of}@*")
    return ", ".join([*able, *(f"#{tag}" for tag in sorted(model.tags))]) or "text"


def _summarize(config: Config) -> str:
    from eccos_core.config import CertifiedPolicy
    from eccos_core.domain import Budget, QualityFloor, QualityPrice

    match config.policy:
        case CertifiedPolicy(claim=claim):
            policy = f"{claim.in_words()}, certified with {claim.confidence:g} confidence"
        case QualityFloor(alpha=alpha, confidence=confidence):
            policy = f"mean quality at least {alpha:g}"
            policy += "" if confidence is None else f", forecast with {confidence:g} confidence"
        case Budget(usd=usd):
            policy = f"at most {usd:g} USD a batch"
        case QualityPrice(usd_per_quality_point=usd):
            policy = f"a point of quality is worth {usd:g} USD"
    if not isinstance(config.policy, CertifiedPolicy) and config.policy.on_infeasible == "best_effort":
        policy += ", else the nearest attainable"
    kinds = (
        _describe_part(config.encoder),
        _describe_part(config.predictor),
        _describe_part(config.history),
        config.optimizer.kind,
    )
    names = ("encoder", "predictor", "history", "optimizer")
    return "\n".join([f"policy: {policy}", ", ".join(f"{n}: {k}" for n, k in zip(names, kinds, strict=True))])


def _describe_part(config: object) -> str:
    """Describe a part in a few words."""
    from eccos_core import config as configs

    match config:
        case configs.SentenceTransformerConfig(model=model):
            return model
        case configs.StaticConfig(model=model, dimensions=dimensions):
            return f"static {model} ({dimensions})"
        case configs.ConcatenatedConfig(encoders=parts):
            return " + ".join(_describe_part(part) for part in parts)
        case configs.ChromaPersistentConfig(path=path):
            return f"Chroma in {_relative_to_here(path)}"
        case configs.ChromaServerConfig(url=url):
            return f"Chroma at {url}"
        case configs.InMemoryConfig(outcomes=outcomes):
            return f"in memory, from {_relative_to_here(outcomes)}" if outcomes else "in memory"
        case _:
            return type(config).__name__.removesuffix("Config").lower()


def _relative_to_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _as_json(config: Config, probes: tuple[Probe, ...]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "file": str(config.path),
        "ok": not _describe_failures(probes),
        "problems": [],
        "not_applied": list(config.not_applied),
        "warnings": list(config.warnings),
        "translated": list(config.translated),
        "without_outcomes": models_without_outcomes(config),
        "policy": _policy_as_json(config),
        "encoder": _describe_part(config.encoder),
        "predictor": _describe_part(config.predictor),
        "history": _describe_part(config.history),
        "optimizer": config.optimizer.kind,
        "models": [
            {
                "name": entry.model.name,
                "effort_of": entry.model.effort_of or None,
                "effort": None if entry.effort is None else dict(entry.effort.parameters),
                "provider": entry.model.provider,
                "usd_per_million_input_tokens": _million(entry.model.usd_per_input_token),
                "usd_per_million_output_tokens": _million(entry.model.usd_per_output_token),
                "usd_per_million_cached_input_tokens": _million(entry.model.usd_per_cached_input_token),
                "usd_per_million_reasoning_tokens": _million(entry.model.usd_per_reasoning_token),
                "max_concurrency": entry.model.max_concurrency,
                "requests_per_minute": entry.requests_per_minute,
                "tokens_per_minute": entry.tokens_per_minute,
                "context_window": entry.model.context_window,
                "max_output_tokens": entry.model.max_output_tokens,
                "capabilities": sorted(entry.model.capabilities),
                "tags": sorted(entry.model.tags),
                "deployments": len(entry.deployments),
            }
            for entry in config.pool
        ],
    }
    if probes:
        document["probes"] = [
            {"deployment": p.label, "ok": p.ok, "latency_s": p.latency_s if p.ok else None, "cause": p.cause or None}
            for p in probes
        ]
    return document


def _million(usd_per_token: float | None) -> float | None:
    return None if usd_per_token is None else round(usd_per_token * 1e6, 9)


def _policy_as_json(config: Config) -> dict[str, Any]:
    from dataclasses import asdict

    from eccos_core.config import CertifiedPolicy

    policy = config.policy.claim if isinstance(config.policy, CertifiedPolicy) else config.policy
    return {"kind": type(policy).__name__, **asdict(policy)}
