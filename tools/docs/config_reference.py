"""Writes `docs/reference/configuration.md` from the models of the configuration file.

Run `python -m tools.docs.config_reference`. With `--check` it writes nothing, and exits with 1 when the page is old.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from eccos_core.config.json_schema import MODEL_INFO, build_schema
from eccos_core.config.litellm_settings import REST, SETTINGS, Use
from eccos_core.config.renamed import RENAMED_KEYS, RENAMED_VALUES
from eccos_core.config.schema import EccosSection
from eccos_core.io.files import atomic_writer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"

INTRODUCTION = """\
<!-- Written by tools/docs/config_reference.py from the models. Change eccos_core/config and run the script again. -->
# Configuration reference

You describe your models and your goal in one YAML file. `model_list` is LiteLLM's own list, so your LiteLLM
configuration works as it is. You add a section `eccos:`. You may leave out every key of it.

```yaml
# yaml-language-server: $schema=eccos.schema.json
model_list:
  - model_name: small
    litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY}
    model_info: {max_concurrency: 32}
eccos:
  policy: {quality_floor: 0.8}
```

Check your file. You get every problem at once, each with its place:

```sh
eccos check eccos.yaml
```

Let your editor complete and check the file. Write the schema beside it, and name it in the first line as above:

```sh
eccos schema --out eccos.schema.json
```

Relative paths start at the folder of the YAML file. A key that you leave empty keeps its default.
"""

LITELLM = """\
## What eccos uses of your LiteLLM file

Your LiteLLM file loads as it is. `eccos check` names everything in it that has no effect here, and so does the log when
a router starts. Rules that you may rely on come first, as `NOT APPLIED`: guardrails, fallbacks and budgets.

| in eccos | what it means |
|---|---|
| used | It does what it does in LiteLLM. |
| translated | It becomes the setting of eccos that is named. What you write under `eccos:` wins. |
| replaced | eccos does this in its own way. |
| **not applied** | You may rely on it, and it does not hold here. |
| not used | It belongs to LiteLLM's own router or its proxy server. |

An entry of `model_list` that cannot answer questions is left out with a warning. These are wildcards (`openai/*`) and
LiteLLM's own routers (`auto_router/...`). Models for embeddings, reranking, images or audio are left out too. eccos
knows them by their `mode`, by LiteLLM's price map, or by their name. If it is wrong, write `model_info: {mode: chat}`.
`eccos serve` still answers `/v1/embeddings` with the models for embeddings.

An entry without a price is left out too, unless [`unpriced`](#unpriced) says otherwise. The warning says how to price
it. For a model on your own machines that is `usd_per_gpu_hour` with `tokens_per_hour`, or with `gpu` and
`architecture`, or `free: true`.

The last value of a key that stands twice holds, as in LiteLLM. Under `eccos:` such a key is an error. A section whose
name looks like a misspelt `eccos` or `model_list` is refused.
"""


def render_page() -> str:
    """Write the whole page as text."""
    schema = build_schema()
    definitions = schema["$defs"]
    parts = [INTRODUCTION, "\n".join(_model_list(definitions)), LITELLM, "\n".join(_litellm_settings())]
    parts += ["\n".join(_section(key, rule, definitions)) for key, rule in _keys(definitions["EccosSection"])]
    parts.append("\n".join(_renamed()))
    return "\n".join(part.strip() + "\n" for part in parts)


def _keys(definition: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(definition.get("properties", {}).items())


def _model_list(definitions: Mapping[str, Any]) -> Iterator[str]:
    entry = definitions["ModelEntry"]
    yield "## `model_list`\n"
    yield f"{entry['description']}\n"
    yield from _table(
        [
            ("model_name", entry["properties"]["model_name"], True),
            ("litellm_params", entry["properties"]["litellm_params"], True),
            ("model_info", entry["properties"]["model_info"], False),
        ],
        {},
    )
    yield "\n### `model_info`\n"
    yield "Each model needs a price. Give prices per token, the price of a GPU, or `free`. LiteLLM knows many others.\n"
    yield from _table([(key, rule, False) for key, rule in MODEL_INFO.items()], {})


def _litellm_settings() -> Iterator[str]:
    """Write the table of LiteLLM's settings. The rows come from the code that translates them."""
    yield "| in your file | in eccos | |"
    yield "|---|---|---|"
    for row in SETTINGS:
        keys = ", ".join("other keys" if key == REST else f"`{key}`" for key in row.keys)
        place = f"`{row.section}`: {keys}" if row.section else keys.replace("other keys", "other sections")
        use = f"**{row.use}**" if row.use is Use.NOT_APPLIED else row.use
        yield f"| {place} | {use} | {row.note} |"


def _section(key: str, rule: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Write one key of `eccos:`: what it is, its default, an example of each form, and the keys below it."""
    yield f"## `{key}`\n"
    yield f"{rule['description']}\n"
    models = list(_find_models(rule))
    yield f"Type: {_type(rule, definitions)}. Default: {_default(rule, models)}.\n"
    for example in _examples(key):
        text = yaml.safe_dump({"eccos": {key: example}}, sort_keys=False, default_flow_style=None, width=100)
        yield f"```yaml\n{text.strip()}\n```\n"
    for name in models:
        yield from _model_table(key, name, definitions, several=len(models) > 1)


def _examples(key: str) -> list[Any]:
    """Read the examples from the model: the JSON schema sorts their keys."""
    extra = EccosSection.model_fields[key].json_schema_extra
    return list(extra["examples"]) if isinstance(extra, dict) else []  # type: ignore[arg-type]


def _model_table(key: str, name: str, definitions: Mapping[str, Any], *, several: bool) -> Iterator[str]:
    definition = definitions[name]
    kind = definition["properties"].get("kind")
    if several:
        shown = "` or `".join(f"kind: {word}" for word in _words(kind)) if kind else _first_required(definition)
        yield f"### `{key}` with `{shown}`\n\n{definition['description']}\n"
    required = definition.get("required", [])
    yield from _table([(each, rule, each in required) for each, rule in _keys(definition)], definitions)
    yield ""
    for each, rule in _keys(definition):
        for inner in _find_models(rule):
            if inner == "PolicyConfig" and key != "policy":
                yield f"`{each}` has the keys of [`policy`](#policy).\n"


def _first_required(definition: Mapping[str, Any]) -> str:
    return str(next(iter(definition.get("required", definition["properties"]))))


def _table(rows: list[tuple[str, Mapping[str, Any], bool]], definitions: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, rule, required in rows:
        default = "required" if required else _default(rule, list(_find_models(rule)))
        yield f"| `{key}` | {_type(rule, definitions)} | {default} | {rule['description']} |"


def _default(rule: Mapping[str, Any], models: list[str]) -> str:
    if rule.get("default") is not None:
        default = rule["default"]
        if default in ([], {}):
            return "none"
        return f"`{_show(default)}`"
    return "the defaults below" if "$ref" in rule or (models and "anyOf" in rule and "default" not in rule) else "none"


def _show(default: Any) -> str:
    if isinstance(default, str):
        return default
    return f"{default:g}" if isinstance(default, float) and default < 1e6 else json.dumps(default)


def _find_models(rule: Any) -> Iterator[str]:
    """Find the models that a rule names, each once and in order."""
    found: dict[str, None] = {}

    def search(part: Any) -> None:
        if isinstance(part, Mapping):
            if "$ref" in part:
                found.setdefault(part["$ref"].rpartition("/")[2])
            for value in (part.get("anyOf"), part.get("items"), part.get("additionalProperties")):
                search(value)
        elif isinstance(part, list):
            for each in part:
                search(each)

    search(rule)
    return iter(found)


def _words(rule: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in rule.get("enum", [rule["const"]] if "const" in rule else [])]


def _type(rule: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Say in words what a rule allows, with its bounds."""
    options = [option for option in rule.get("anyOf", [rule]) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(_option(option, definitions) for option in options))


def _option(option: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if option.get("const") is False:
        return "`off`"
    if words := _words(option):
        return ", ".join(f"`{word}`" for word in words)
    if "patternErrorMessage" in option:
        return str(option["patternErrorMessage"])
    kind = option.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return "a list of " + _items(option["items"])
    if kind == "string":
        return "a path" if option.get("format") == "path" else "text"
    names = {"number": "a number", "integer": "a whole number", "boolean": "`true` or `false`", "object": "a mapping"}
    return names[kind] + _bounds(option)


def _items(items: Mapping[str, Any]) -> str:
    if items.get("type") == "string":
        return "names"
    return "mappings" if "$ref" in items else "words or mappings"


def _bounds(option: Mapping[str, Any]) -> str:
    if "minimum" in option and "maximum" in option:
        return f" from {option['minimum']:g} to {option['maximum']:g}"
    if "exclusiveMinimum" in option:
        return f" > {option['exclusiveMinimum']:g}"
    return f" ≥ {option['minimum']:g}" if "minimum" in option else ""


def _renamed() -> Iterator[str]:
    yield "## Renamed keys\n"
    yield "Old names are refused, and the message says the new name.\n"
    yield "| old | new |"
    yield "|---|---|"
    for old, new in RENAMED_KEYS.items():
        yield f"| `{old}` | `{new}` |"
    for key, values in RENAMED_VALUES.items():
        for old, new in values.items():
            yield f"| `{key}: {old}` | `{key}: {new}` |"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with `--check` compare it. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and exit with 1 when the page is old")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/reference/configuration.md)")
    options = parser.parse_args(arguments)
    text = render_page()
    if not options.check:
        with atomic_writer(options.page) as stream:
            stream.write(text.encode())
        return 0
    if options.page.exists() and options.page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{options.page} is old. Run `python -m tools.docs.config_reference`.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
