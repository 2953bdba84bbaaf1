"""Quantise a model folder, and write the entries that put its variants into a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eccos_core.backends.local.quantise_folder import QuantisedVariant
from eccos_core.backends.local.registry import ENGINE_OPTIONS, LOCAL_PREFIX, model_folder
from eccos_core.config.yaml import read_yaml
from eccos_core.errors import BackendError, InputError
from eccos_core.pocket import pocket_models_folder, pocket_names, pool_config_path

_ONLY_THE_BASE = frozenset({"assumed_quality", "assume_like", "id"})
_KEPT_PARAMETERS = ENGINE_OPTIONS | {"max_tokens", "temperature", "top_p", "stop", "seed"}  # and so no secret


def quantisable_folder(name: str) -> Path:
    """Return the folder of a path or of a pocket model's name. Raises `InputError`."""
    try:
        folder = model_folder(name)
    except BackendError as error:
        if Path(name).expanduser().is_dir():
            raise InputError(f"{name!r} is no Hugging Face model folder: it has no config.json") from error
        known = ", ".join(pocket_names())
        raise InputError(f"there is no folder {name!r}. Give a Hugging Face folder, or one of {known}.") from error
    if not folder.is_dir():
        raise InputError(f"{name!r} is one file ({folder.name}), quantised already. Give a Hugging Face folder.")
    return folder


def find_base_entry(folder: Path, config: Path | None) -> Mapping[str, Any] | None:
    """Return the entry of the model in a configuration, as it is written there. Without one, a pocket model's own.

    None for another folder without a configuration. Raises `InputError` where the configuration has no such entry, and
    `ConfigError` for a file that cannot be read.
    """
    if config is None and folder.parent != pocket_models_folder():
        return None
    place = config or pool_config_path()
    document, _ = read_yaml(place)
    entries = document.get("model_list")
    for entry in entries if isinstance(entries, list) else []:
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        model = params.get("model") if isinstance(params, dict) else None
        if isinstance(model, str) and isinstance(entry.get("model_name"), str) and _folder_of(model) == folder:
            found: Mapping[str, Any] = entry
            return found
    raise InputError(f"{place} has no model {LOCAL_PREFIX}{folder}. Add it there, or leave out --config.")


def pool_entries(
    folder: Path, variants: Sequence[QuantisedVariant], base: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return an entry of `model_list` for each variant.

    It has the base's parameters and prices, because a variant is as large at run time, and `assume_like` names the
    base. Without a base entry it has no price: you must write one.
    """
    base = base or {"model_name": folder.name, "litellm_params": {}}
    name = base["model_name"]
    kept = {key: value for key, value in base["litellm_params"].items() if key in _KEPT_PARAMETERS}
    info = {key: value for key, value in (base.get("model_info") or {}).items() if key not in _ONLY_THE_BASE}
    return [
        {
            "model_name": f"{name}-{variant.scheme}",
            "litellm_params": {"model": f"{LOCAL_PREFIX}{variant.folder}", **kept},
            "model_info": {**info, "assume_like": name},
        }
        for variant in variants
    ]


def _folder_of(model: str) -> Path | None:
    if not model.startswith(LOCAL_PREFIX):
        return None
    try:
        return model_folder(model.removeprefix(LOCAL_PREFIX))
    except BackendError:
        return None
