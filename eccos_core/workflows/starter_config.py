"""Write a first configuration from three answers, or around a LiteLLM file (`eccos init`)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

import yaml

from eccos_core.assembly.starting_quality import ungraded_priors
from eccos_core.config import Config, load_config
from eccos_core.config.environment import PREFIX, key_variable
from eccos_core.config.litellm_prices import PriceMap
from eccos_core.config.parse_price import is_private
from eccos_core.errors import ConfigError, InputError
from eccos_core.io.files import atomic_writer, temporary_sibling

Priority = Literal["money", "balance", "answers"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
PROVIDERS = "providers"
_FLOOR_SHARES = {"money": 0.25, "balance": 0.6, "answers": 0.9}
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.:@/+-]*")
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_VARIABLE = re.compile(re.escape(PREFIX) + r"([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class StarterPool:
    """Which models there are, and where.

    models: as LiteLLM names them. at: `providers`, or the address of an OpenAI-compatible server that has them all.
    key_variable: the environment variable that holds the key, None for the usual one.
    Raises `InputError` for a name, an address or a variable that cannot be one. A key is never repeated.
    """

    models: tuple[str, ...]
    at: str = PROVIDERS
    key_variable: str | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("no model is named. Give at least one, as LiteLLM names it: gpt-4o-mini, claude-haiku-4-5")
        for name in self.models:
            if not _MODEL_NAME.fullmatch(name):
                raise InputError(
                    f"{name!r} cannot be the name of a model. Write it as LiteLLM does: openai/gpt-4o-mini"
                )
        if len(set(self.models)) < len(self.models):
            raise InputError("a model is named twice. Name each model once.")
        if self.key_variable is not None and not _VARIABLE_NAME.fullmatch(self.key_variable):
            raise InputError(
                "what you gave as the variable of the key is no name of a variable (capital letters, digits, _). Give "
                "the name, such as OPENAI_API_KEY, never the key itself."
            )
        if self.at != PROVIDERS:
            _check_address(self.at)

    def entries(self, prices: PriceMap) -> list[str]:
        """Return the entries of `model_list`, as lines of YAML.

        Raises `InputError` for a name without a provider that LiteLLM does not know.
        """
        names = [name.rpartition("/")[2] for name in self.models]
        return [
            line
            for full, short in zip(self.models, names, strict=True)
            for line in self._entry(full, short if names.count(short) == 1 else full, prices)
        ]

    def _entry(self, full: str, name: str, prices: PriceMap) -> list[str]:
        model = full if self.at == PROVIDERS else f"openai/{full.removeprefix('openai/')}"
        provider, slash, _ = model.partition("/")
        if not slash:
            known = prices.find(model)
            provider = str((known or {}).get("litellm_provider", "")).partition("-")[0]
            if not provider:
                raise InputError(f"{model!r} names no provider, and LiteLLM does not know it. Write PROVIDER/{model}.")
            model = f"{provider}/{model}"
        lines = [
            f"  - model_name: {_scalar(name)}",
            "    litellm_params:",
            f"      model: {_scalar(model)}",
            *([] if self.at == PROVIDERS else [f"      api_base: {_scalar(self.at)}"]),
            *self._key(provider, model),
        ]
        if prices.find(model) is None and not model.startswith("eccos-local/"):
            lines.append(
                "    # LiteLLM knows no price. Remove the two # below, and write USD per token, or free: true."
            )
            lines.append("    # model_info: {input_cost_per_token: 0.0, output_cost_per_token: 0.0}")
        return lines

    def _key(self, provider: str, model: str) -> list[str]:
        address = None if self.at == PROVIDERS else self.at
        variable = self.key_variable
        if variable is None and is_private(model, address):
            return [] if address is None else ["      api_key: none  # a server of your own that asks for no key"]
        variable = variable or key_variable(provider)
        return [] if variable is None else [f"      api_key: {PREFIX}{variable}"]


def write_starter_config(out: Path, source: StarterPool | Path, priority: Priority, *, overwrite: bool = False) -> None:
    """Write a configuration of the models of `source`: a pool, or a LiteLLM file that the new file includes.

    The floor lies between the assumed qualities of the weakest and the strongest model: at 25, 60 or 90 % for `money`,
    `balance` or `answers`. Variables need no value yet. Raises `InputError` when the file exists and may not be
    overwritten, and `ConfigError` when it would have problems. Nothing is written then.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists. Name another file with --out, or overwrite it with --overwrite.")
    if isinstance(source, Path) and source.resolve() == out.resolve():
        raise InputError(f"{out} is the LiteLLM file itself. Name another file with --out.")
    head = _include(source, out) if isinstance(source, Path) else ["model_list:", *source.entries(PriceMap())]
    config = _try(out, _render(head, priority, floor=0.75), source)
    floor = _floor(config, priority)
    with atomic_writer(out) as stream:
        stream.write(_render(head, priority, floor).encode())


def _include(source: Path, out: Path) -> list[str]:
    if not source.is_file():
        raise InputError(f"{source}: no such file. Give the YAML file of your LiteLLM proxy.")
    shown = os.path.relpath(source.resolve(), out.resolve().parent)
    return [f"# Models, keys and comments stay in your LiteLLM file.\ninclude: [{_scalar(shown)}]"]


def _render(head: Sequence[str], priority: Priority, floor: float) -> str:
    return "\n".join(
        [
            "# Written by `eccos init`. Check it with `eccos check`. Every key: docs/reference/configuration.md",
            *head,
            "",
            "eccos:",
            f"  # What matters: {priority}. The mean quality that eccos keeps, at the lowest cost. Raise it for better",
            "  # answers. Until you have outcomes, eccos assumes what each model can do, and the floor fits that.",
            f"  policy: {{quality_floor: {floor:.2f}, on_infeasible: best_effort}}",
            "  # Reads questions without a download. `minilm` is a little better once you have outcomes.",
            "  encoder: static",
            "  # Outcomes and labels are kept here, decisions there.",
            "  history: {path: .eccos/history}",
            "  decision_log: {path: .eccos/decisions.sqlite}",
            "",
        ]
    )


def _try(out: Path, text: str, source: StarterPool | Path) -> Config:
    """Load the text as if it stood in `out`, with a value for every variable. Raises `ConfigError`."""
    included = source.read_text(encoding="utf-8", errors="replace") if isinstance(source, Path) else ""
    named = dict.fromkeys(_VARIABLE.findall(text + included), "unset")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary_sibling(out)
    try:
        draft.write_text(text, encoding="utf-8")
        return load_config(draft, environment=named | dict(os.environ))
    except ConfigError as error:
        raise ConfigError(str(out), error.problems) from error
    finally:
        draft.unlink(missing_ok=True)


def _floor(config: Config, priority: Priority) -> float:
    assumed = [p.assumed_quality for p in ungraded_priors(config).values() if p.assumed_quality is not None]
    return round(min(assumed) + _FLOOR_SHARES[priority] * (max(assumed) - min(assumed)), 2)


def _check_address(address: str) -> None:
    """Raise `InputError` for what is no address, or one with a name and a password in it."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"where the models are must be {PROVIDERS!r}, or the address of a server such as http://localhost:8000/v1"
        )
    if "@" in parts.netloc or parts.query:
        raise InputError(
            "the address holds credentials or a query. Leave them out, and name the variable of the key with "
            "--key-variable."
        )


def _scalar(text: str) -> str:
    """Return a text as YAML, quoted where YAML would read something else."""
    return yaml.safe_dump(text, default_style=None, width=10_000).removesuffix("\n").removesuffix("\n...")
