"""Writes docs/reference/api.md: one entry of mkdocstrings for every public name, so that none is forgotten.

Public is what `__all__` of the modules below says. `--check` only says whether the page is up to date.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

from tools.docs.generated import ROOT, write_or_check

PAGE = ROOT / "docs" / "reference" / "api.md"
START = """# API

<!-- Written by tools/docs/api_reference.py. Change the docstrings, not this page. -->

You find every public name here. Most programs need only `Router` and a policy:

```python
from eccos_core import QualityFloor, Router

with Router.from_yaml("eccos.yaml") as router:
    print(router.complete_batch(["What is 17 * 23?"], policy=QualityFloor(0.5))[0].text)
```

A name that is not on this page is private, and may change.
"""
SECTIONS = (  # module, heading, and what you use it for
    ("eccos_core", "eccos_core", "Routing, its nouns and its errors. Import these names from `eccos_core`."),
    ("eccos_core.protocols", "Protocols", "What you implement to replace a part."),
    ("eccos_core.config", "Configuration", "Read a YAML file without building a router."),
    ("eccos_core.encoders", "Encoders", "Turn text into vectors."),
    ("eccos_core.history", "History", "Keep past outcomes."),
    ("eccos_core.predictors", "Predictors", "Fit, save and load predictors."),
    ("eccos_core.plans", "Plans", "Judge an answer, then accept it or ask another model."),
    ("eccos_core.optimizer", "Optimizers", "Solve a routing problem."),
    ("eccos_core.grading", "Grading", "Grade answers."),
    ("eccos_core.answers", "Answers", "What an answer tells about itself."),
    ("eccos_core.collecting", "Collecting", "Ask every model every question."),
    ("eccos_core.off_policy", "Off-policy evaluation", "Estimate what another policy would have done."),
    ("eccos_core.telemetry", "Telemetry", "Spans, metrics and log lines."),
    ("eccos_core.pocket", "Pocket pool", "The four tiny models that come with eccos."),
    ("eccos_core.testing", "Testing", "Fakes for your own tests."),
    ("eccos_integrations.langchain", "LangChain", "The pool as a chat model."),
    ("eccos_integrations.litellm", "LiteLLM", "Decide inside a `litellm.Router` or a proxy."),
    ("eccos_integrations.llama_index", "LlamaIndex", "The pool as an LLM."),
)


def reference() -> str:
    """The whole page."""
    listed: set[str] = set()
    text = START
    for module, heading, purpose in SECTIONS:
        entries = [path for path in _paths(module) if path not in listed]
        listed.update(entries)
        text += f"\n## {heading}\n\n{purpose}\n" + "".join(f"\n::: {path}\n" for path in entries)
    return text


def _paths(module: str) -> list[str]:
    """Where each public name of a module is defined, in alphabetical order of the names."""
    found = importlib.import_module(module)
    names = [name for name in getattr(found, "__all__", _defined_in(found)) if not name.startswith("__")]
    return [_path(module, name, getattr(found, name)) for name in sorted(names, key=str.lower)]


def _defined_in(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isclass(value) and value.__module__ == module.__name__
    ]


def _path(module: str, name: str, value: Any) -> str:
    home = value.__module__ if (inspect.isclass(value) or inspect.isfunction(value)) else None
    if home is not None and home.startswith(("eccos_core", "eccos_integrations")) and value.__name__ == name:
        return f"{home}.{name}"
    return f"{_home_of(module, name)}.{name}"


def _home_of(module: str, name: str) -> str:
    """The module below `module` that assigns a name, such as a type alias or a constant."""
    folder = module.partition(".")[0]
    found = [
        each
        for each, loaded in sorted(sys.modules.items())
        if each.startswith(folder) and f"\n{name}: TypeAlias" in (inspect.getsource(loaded) if _file(loaded) else "")
    ]
    return found[0] if found else module


def _file(module: Any) -> str | None:
    return getattr(module, "__file__", None)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, reference(), "tools.docs.api_reference"))
