"""The pocket pool: four tiny language models that need no key and no download.

`pocket_path` gives the folder of one; any tool that reads Hugging Face folders can load it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from eccos_core.errors import ArtifactError, UnknownModelError

__all__ = [
    "pocket_models_folder",
    "pocket_names",
    "pocket_path",
    "pocket_predictor_path",
    "pool_config_path",
    "pool_history_path",
    "smol_config_path",
]

_NAMES = ("pocket-small", "pocket-medium", "pocket-large", "pocket-maths")


def pocket_names() -> tuple[str, ...]:
    """Names of the pocket models: the three generalists by size, then the specialist."""
    return _NAMES


def pocket_models_folder() -> Path:
    """The folder that holds the folders of all pocket models."""
    return (Path(str(files("eccos_core.pocket"))) / "models").resolve()


def pocket_path(name: str) -> Path:
    """Folder of a pocket model: configuration, safetensors weights, tokenizer and chat template.

    Raises:
        UnknownModelError: there is no pocket model of this name; the message has the known names and the nearest.
        ArtifactError: the model is known, but its weights are not where they belong.
    """
    if name not in _NAMES:
        raise UnknownModelError(name, _NAMES)
    folder = pocket_models_folder() / name
    if not (folder / "model.safetensors").is_file():
        raise ArtifactError(
            f"the weights of {name!r} are not in {folder}: reinstall eccos, or train them with "
            f"`python -m tools.pocket.train --only {name}`"
        )
    return folder


def pool_config_path() -> Path:
    """The configuration of the pocket pool, a YAML file like any other."""
    return Path(str(files("eccos_core.pocket"))) / "pool.yaml"


def plans_config_path() -> Path:
    """The configuration of the pocket pool with `escalate`: answers are looked at before they are given."""
    return Path(str(files("eccos_core.pocket"))) / "plans.yaml"


def smol_config_path() -> Path:
    """The configuration of the pocket pool with SmolLM2, which reads documents and chats. It needs `eccos[smol]`."""
    return Path(str(files("eccos_core.pocket"))) / "smol.yaml"


def pool_history_path() -> Path:
    """What `eccos collect` recorded over the pocket pool: an outcomes file."""
    return Path(str(files("eccos_core.pocket"))) / "history.jsonl.gz"


def pocket_predictor_path() -> Path:
    """The fitted predictor of the pocket pool, made by `python -m tools.pocket.fit_predictor`."""
    return Path(str(files("eccos_core.pocket"))) / "predictor"
