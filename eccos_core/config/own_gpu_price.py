"""Prices a model on a GPU of your own from its architecture, where nobody measured its tokens per hour."""

from __future__ import annotations

from pathlib import Path

from eccos_core.config.problems import resolve_path
from eccos_core.config.section import Section
from eccos_core.domain import ContextPrice
from eccos_core.errors import EccosError, InputError
from eccos_core.pocket import pocket_names, pocket_path
from eccos_core.roofline import serve_model
from eccos_core.roofline.token_price import price_by_context

LOCAL = "eccos-local/"
KEYS = ("architecture", "gpu", "gpus")


def price_own_gpu(
    params: Section, info: Section, folder: Path, usd_per_gpu_hour: float, largest_batch: int | None
) -> ContextPrice | None:
    """Price a token by the length of its context. Return None after reporting what is missing or wrong.

    `architecture` under model_info names a Hugging Face folder or a known model. A model that runs in this process is
    its own. `folder` is where relative paths start, `largest_batch` the most calls in flight.
    """
    before = len(info.problems.found)
    named, gpu = info.text("architecture", None), info.text("gpu", None)
    gpus = info.integer("gpus", 1)
    window = info.integer("max_input_tokens", None) or info.integer("context_window", None)
    if len(info.problems.found) > before:
        return None
    source = named or _own_folder(str(params.raw("model") or ""))
    if source is None or gpu is None:
        info.problems.add(
            info.at("usd_per_gpu_hour"),
            "needs tokens_per_hour beside it (measured tokens, input and output together) to become a price, or "
            "gpu (such as h100) and architecture (a Hugging Face folder, or a name such as llama-3-8b)",
        )
        return None
    at = "architecture" if named else "gpu"
    try:
        local = resolve_path(source, folder)
        served = serve_model(
            str(local) if local.is_dir() else source,
            gpu,
            usd_per_gpu_hour=usd_per_gpu_hour,
            gpus=gpus,
            largest_batch=largest_batch,
        )
        return price_by_context(served, window)
    except InputError as error:
        info.problems.add(info.at(at), str(error))
        return None


def _own_folder(model: str) -> str | None:
    """The folder of a model that runs in this process; None for others."""
    if not model.startswith(LOCAL):
        return None
    where = model.removeprefix(LOCAL)
    try:
        found = Path(pocket_path(where)) if where in pocket_names() else Path(where)
    except EccosError:
        return None
    return str(found) if (found / "config.json").is_file() else None
