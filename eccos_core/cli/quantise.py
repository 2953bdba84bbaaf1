"""`eccos quantise`: variants of a local model with weights in 8 or 4 bits, and their pool entries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.io.safe_text import printable

if TYPE_CHECKING:
    from eccos_core.backends.local.quantise_folder import QuantisedVariant

FolderArgument = Annotated[
    str, typer.Argument(metavar="FOLDER", help="A Hugging Face folder with safetensors, or a pocket model.")
]
ToOption = Annotated[str, typer.Option("--to", metavar="SCHEMES", help="int8, int4, or both, separated by a comma.")]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Where the variants' folders are made. Default: here.")
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        metavar="QUESTIONS",
        help="Questions as for `eccos collect`. int4 is rounded for 256 of them.",
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="eccos, or compressed-tensors for vLLM and transformers.")
]
PoolOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="CONFIG", help="The YAML file that has the model. Its name and prices are used."),
]


def quantise(
    folder: FolderArgument,
    to: ToOption,
    out: OutOption = Path(),
    calibrate: CalibrateOption = None,
    format: FormatOption = "eccos",  # noqa: A002
    config: PoolOption = None,
    json: JsonOption = False,
) -> None:
    """Write variants of a local model with weights in 8 or 4 bits, and print their pool entries.

    The variants are folders NAME-int8 and NAME-int4. They take less disk, and less memory with keep_quantised.

    Example: eccos quantise models/my-model --to int8,int4 --config eccos.yaml
    """
    from eccos_core.backends.local.quantise_folder import parse_format, parse_schemes, quantise_folder
    from eccos_core.collecting import read_questions
    from eccos_core.workflows.quantise import find_base_entry, pool_entries, quantisable_folder

    schemes = parse_schemes(to)
    source = quantisable_folder(folder)
    base = find_base_entry(source, config)
    prompts = None if calibrate is None else [question.query for question in read_questions(calibrate, "exact")]
    with console().status(f"Quantising {source.name} ..."):
        variants = quantise_folder(source, schemes, out, prompts, parse_format(format))
    entries = pool_entries(source, variants, base)
    if json:
        print_json({"base": str(source), "variants": [_as_row(each) for each in variants], "model_list": entries})
        return
    for each in variants:
        size = f"{each.weight_bytes:,} bytes, {each.share:.1%} of {each.base_weight_bytes:,}"
        console().print(f"{each.folder.name}: {size}", markup=False, soft_wrap=True)
    if base is None:
        hint = "Write what a token costs into each model_info, as for the base model."
        console().print(hint, markup=False, soft_wrap=True)
    sys.stdout.write(printable(_yaml(entries)))


def _as_row(variant: QuantisedVariant) -> dict[str, Any]:
    return {
        "scheme": variant.scheme,
        "folder": str(variant.folder),
        "weight_bytes": variant.weight_bytes,
        "base_weight_bytes": variant.base_weight_bytes,
    }


def _yaml(entries: list[dict[str, Any]]) -> str:
    import yaml

    text: str = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000)
    return text
