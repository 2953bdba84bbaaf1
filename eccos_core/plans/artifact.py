"""Keep a plan rule in a folder with `plans.json` and `plans.safetensors`.

`eccos fit` puts the folder into that of the predictor, whose held-out forecasts it was learned from. It is written
under a temporary name, then renamed. A reader finds the old rule or the new one, never half.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.files import replace_atomically, temporary_sibling
from eccos_core.plans.evidence import EVIDENCE, AnswerEvidence
from eccos_core.plans.fit import PlanReport
from eccos_core.plans.joint import JointModel
from eccos_core.plans.rule import PlanRule
from eccos_core.plans.verifier import LearnedVerifier

FORMAT, VERSION = "eccos-plans", 1
MANIFEST, WEIGHTS = "plans.json", "plans.safetensors"
FOLDER = "plans"
"""The name of the folder inside a predictor's."""

_JOINT = ("loading", "both_wrong", "pair", "known", "centre", "scale")
_EVIDENCE = ("centre", "scale", "weights", "edges", "share")


def save_plan_rule(rule: PlanRule, report: PlanReport, folder: Path) -> None:
    """Write a learned rule and its report to a folder, in place of a rule that is there.

    Raises `ArtifactError` if the folder holds something else, and `InputError` for a rule of thumb.
    """
    from safetensors.numpy import save_file

    verifier = rule.verifier
    if not isinstance(verifier, LearnedVerifier):
        raise InputError("a rule of thumb holds nothing that was learned, so there is nothing to save")
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and holds no plans of eccos. Name another folder.")
    joint = verifier.joint
    arrays = {f"joint.{name}": getattr(joint, name) for name in _JOINT}
    arrays |= {f"evidence.{name}": getattr(joint.evidence, name) for name in _EVIDENCE}
    arrays |= {"slope": verifier.slope, "intercept": verifier.intercept}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "models": list(verifier.models),
        "features": list(EVIDENCE),
        "both_right": joint.both_right,
        "mixed": joint.mixed,
        "trust": rule.trust,
        "max_calls": rule.max_calls,
        "followers": None if rule.followers is None else list(rule.followers),
        "held_out": {name: None if value != value else value for name, value in asdict(report).items()},
    }
    fresh = temporary_sibling(folder)
    try:
        fresh.mkdir(parents=True)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(fresh / WEIGHTS))
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (fresh / MANIFEST).write_text(text, encoding="utf-8")
        replace_atomically(fresh, folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_plan_rule(folder: Path, models: Sequence[str] | None = None) -> PlanRule:
    """Load the rule of a folder. `models`: the pool, in the order of the columns. They may be fewer than fitted.

    Raises `ArtifactError` for a model it was not fitted to, a damaged folder, or another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        arrays = load_file(str(folder / WEIGHTS))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{folder}: no plans here. `eccos fit` writes them where outcomes have answers or features."
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: cannot be read ({error}). Run `eccos fit` again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{folder}: not plans that this version of eccos can read (it reads version {VERSION}). "
            "Run `eccos fit` again."
        )
    if manifest.get("features") != list(EVIDENCE):
        raise ArtifactError(f"{folder}: learned from other features of answers. Run `eccos fit` again.")
    try:
        rule = _build(manifest, arrays)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"{folder}: the plans are damaged ({error}). Run `eccos fit` again.") from error
    return rule if models is None else rule.for_pool(models)


def _build(manifest: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> PlanRule:
    models = tuple(str(name) for name in manifest["models"])
    count = len(models)
    found = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    if found["joint.loading"].shape != (count,) or found["joint.pair"].shape != (count, count):
        raise ValueError(f"the arrays are not of {count} models")
    joint = JointModel(
        **{name: found[f"joint.{name}"] for name in _JOINT},
        both_right=float(manifest["both_right"]),
        mixed=float(manifest["mixed"]),
        evidence=AnswerEvidence(**{name: found[f"evidence.{name}"] for name in _EVIDENCE}),
    )
    verifier = LearnedVerifier(models, joint, found["slope"], found["intercept"])
    followers = None if manifest["followers"] is None else tuple(str(name) for name in manifest["followers"])
    return PlanRule(verifier, float(manifest["trust"]), int(manifest["max_calls"]), followers)
