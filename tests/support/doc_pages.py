"""Reads the code blocks of README and docs, and runs a page as a reader would: top to bottom, in one folder.

What you write on a page:

- A `python`, `bash` or `sh` block runs. `<!-- not run: REASON -->` on the line before it leaves it out.
- `<!-- exits 1 -->` on the line before a `bash` block says that its last command ends with that code.
- `title="NAME"` writes the block to the file NAME in the page's folder. Later blocks can use the file.
- A `yaml` block is a whole configuration, an `eccos:` section, or entries of `model_list`. It must load.
- A `json` block must parse. Where its title ends in `.jsonl`, every line must parse.
- A `text` block is output or a sketch and does not run. Other languages are refused.

Each page's folder begins with `eccos.yaml` (three models on a scripted server), `outcomes.jsonl`, `questions.jsonl`,
`prices.json` and `models/my-model` (a Hugging Face folder), unless the page says
`<!-- starts in an empty folder -->`. A page that writes an `eccos.yaml` of its own keeps everything but the addresses
of its models.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.config import Config, load_config
from eccos_core.domain import Capability, Model
from eccos_core.pocket import pocket_path

ROOT = Path(__file__).resolve().parent.parent.parent
RUN, PARSED, SHOWN = frozenset({"python", "bash", "sh"}), frozenset({"yaml", "json"}), frozenset({"text"})
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(\S.*?)\s*-->\s*$")
_EXITS = re.compile(r"<!--\s*exits (\d+)\s*-->\s*$")
_TITLE = re.compile(r'title="([^"]+)"')
_ABILITIES = {
    Capability.TOOLS: "supports_function_calling",
    Capability.PARALLEL_TOOLS: "supports_parallel_function_calling",
    Capability.VISION: "supports_vision",
    Capability.JSON_SCHEMA: "supports_response_schema",
}
EMPTY = "<!-- starts in an empty folder -->"
FAKE_KEYS = (
    *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY"),
    *("CHROMA_TOKEN", "TOGETHER_API_KEY"),
)
SAID = {  # what the scripted server says to questions that have this text
    "17 * 23": "[[say The answer is 391.]]",
    "capital of France": "[[say Paris]]",
    "capital of Peru": "[[say Lima]]",
    "Which is a mammal": "[[say B]]",
    "Use the tool": '[[tool multiply {"a": 17, "b": 23}]]',
}
POOL = (("small", 1e-7, 4e-7, 0.6), ("medium", 4e-7, 1.6e-6, 0.8), ("large", 2e-6, 8e-6, 0.95))
TRUE = {"supports_function_calling": True, "supports_response_schema": True, "supports_vision": True}

_THINKING = {
    "model_name": "served",
    "litellm_params": {"model": "hosted_vllm/served", "api_base": "http://localhost:8000/v1"},
    "model_info": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6},
}


@dataclass(frozen=True, slots=True)
class Block:
    """One code block: its language, its text, and the line of the page on which it begins."""

    language: str
    body: str
    line: int
    title: str | None = None
    not_run: str | None = None
    exits: int = 0


def pages() -> list[Path]:
    """README and every page of the docs, as paths from the root of the repository."""
    return [Path("README.md"), *sorted(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))]


def blocks_of(text: str) -> list[Block]:
    """The code blocks of a page, in order."""
    found = []
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()].rstrip("\n").rpartition("\n")[2].strip()
        reason, code = _NOT_RUN.search(before), _EXITS.search(before)
        title = _TITLE.search(fence["info"])
        found.append(
            Block(
                language=fence["info"].split(" ")[0].strip(),
                body=textwrap.dedent(fence["body"]),
                line=text.count("\n", 0, fence.start()) + 1,
                title=title[1] if title else None,
                not_run=reason[1] if reason else None,
                exits=int(code[1]) if code else 0,
            )
        )
    return found


class Page:
    """A page that runs in `folder`. `server_url`: the scripted server that stands in for hosted models."""

    def __init__(self, page: Path, folder: Path, server_url: str) -> None:
        self.page = page
        self.folder = folder
        self.server_url = server_url
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run_all(self, text: str) -> None:
        """Run every block of a text, in order."""
        for block in blocks_of(text):
            self.run(block)

    def run(self, block: Block) -> None:
        """Run or check one block. Raises whatever the block raises, and `AssertionError` for a broken rule."""
        where = f"{self.page}:{block.line}"
        assert block.language in RUN | PARSED | SHOWN, (
            f"{where}: a code block says {block.language!r}. Say python, bash, sh, yaml, json or text."
        )
        if block.not_run is not None:
            return
        match block.language:
            case "yaml":
                self._load(block, where)
            case "json":
                self._parse(block)
            case "bash" | "sh":
                self._run_commands(block, where)
            case "python" if block.title is None:
                code = compile("\n" * block.line + block.body, str(ROOT / self.page), "exec", dont_inherit=True)
                exec(code, self.names)
        if block.title is not None and block.language != "yaml":
            self._write(block.title, block.body)

    def _write(self, name: str, body: str) -> None:
        file = self.folder / name
        assert file.resolve().is_relative_to(self.folder.resolve()), f"{self.page}: {name} leaves the page's folder"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body, encoding="utf-8")

    def _parse(self, block: Block) -> None:
        if block.title is not None and block.title.endswith(".jsonl"):
            for line in block.body.splitlines():
                json.loads(line)
        else:
            json.loads(block.body)

    def _load(self, block: Block, where: str) -> None:
        """Load a configuration. With a title, write it too, with the scripted server in place of hosted models."""
        document = yaml.safe_load(block.body)
        if isinstance(document, list):
            document = {"model_list": document}
        assert isinstance(document, dict), f"{where}: this YAML is neither a configuration nor a part of one"
        if not {"model_list", "include"} & set(document):
            document = {**yaml.safe_load((self.folder / "eccos.yaml").read_text()), **document}
            if "stop_early" in (document.get("eccos") or {}):  # it names a served model and its chat template
                document["model_list"] = [*document["model_list"], _THINKING]
                self._write("template.jinja", "")
        self._write(".checked.yaml", yaml.safe_dump(document, sort_keys=False))
        loaded = load_config(self.folder / ".checked.yaml")
        if block.title is not None:
            self._write(block.title, yaml.safe_dump(self._served(document, loaded), sort_keys=False))

    def _served(self, document: Mapping[str, Any], loaded: Config) -> dict[str, Any]:
        models = {model.deployment: model for model in loaded.models}
        entries = [self._served_entry(entry, models[entry["model_name"]]) for entry in document["model_list"]]
        return {**document, "model_list": entries}

    def _served_entry(self, entry: Mapping[str, Any], model: Model) -> dict[str, Any]:
        if str(entry["litellm_params"]["model"]).startswith("eccos-local/"):
            return dict(entry)
        info = dict(entry.get("model_info") or {})
        if "usd_per_gpu_hour" not in info and not info.get("free"):
            info["input_cost_per_token"] = model.usd_per_input_token
            info["output_cost_per_token"] = model.usd_per_output_token
        info.update({key: can in model.capabilities for can, key in _ABILITIES.items()})
        params = {"model": f"openai/{model.deployment}", "api_base": self.server_url, "api_key": "none"}
        params |= {key: value for key, value in entry["litellm_params"].items() if key in {"rpm", "tpm", "weight"}}
        return {"model_name": model.deployment, "litellm_params": params, "model_info": info}

    def _run_commands(self, block: Block, where: str) -> None:
        lines = [line.strip() for line in block.body.replace("\\\n", " ").splitlines()]
        commands = [line for line in lines if line and not line.startswith("#")]
        for place, command in enumerate(commands):
            expected = block.exits if place == len(commands) - 1 else 0
            code, said = self._run_command(command)
            assert code == expected, f"{where}: `{command}` ended with {code}, not {expected}\n{said}"

    def _run_command(self, command: str) -> tuple[int, str]:
        words = shlex.split(command, comments=True)
        if words[0] == "eccos" and not {">", "|", "&&", ";"} & set(words):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = run(app, words[1:])
            return code, said.getvalue()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr


def write_start(folder: Path, server_url: str) -> None:
    """Write what every page begins with: a configuration, outcomes, questions, prices and a model folder."""
    (folder / "models").mkdir()
    shutil.copytree(pocket_path("pocket-small"), folder / "models" / "my-model")  # a copy: pages may write to it
    entries = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": server_url, "api_key": "none"},
            "model_info": {
                "input_cost_per_token": into,
                "output_cost_per_token": out,
                "assumed_quality": good,
                "max_concurrency": 32,
                "max_input_tokens": 32_768,
                **(TRUE if name != "small" else {}),
                "tags": ["eu", "private"] if name == "large" else ["eu"],
            },
        }
        for name, into, out, good in POOL
    ]
    eccos = {"policy": {"quality_floor": 0.8, "on_infeasible": "best_effort"}, "predictor": "prior"}
    document = {"model_list": entries, "eccos": eccos}
    (folder / "eccos.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _outcomes()))
    questions = [
        {"id": f"q{number}", "query": f"What is {number} + 2?", "reference": number + 2, "grader": "number"}
        for number in range(6)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    prices = {
        name: {"usd_per_million_input_tokens": 1e6 * into, "usd_per_million_output_tokens": 1e6 * out}
        for name, into, out, _ in POOL
    }
    (folder / "prices.json").write_text(json.dumps(prices))


def _outcomes() -> Iterator[dict[str, Any]]:
    for number in range(60):
        hard = number % 2
        query = f"Prove that {number} squared is not prime" if hard else f"What is {number} plus 2?"
        yield {
            "id": f"o{number}",
            "query": query,
            "dataset": "proofs" if hard else "sums",
            "outputs": [
                {
                    "model": name,
                    "correct": float(number % 10 < 10 * good - 4 * hard),
                    "input_tokens": 9,
                    "output_tokens": 20,
                }
                for name, _, _, good in POOL
            ],
        }
