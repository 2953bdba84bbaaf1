"""Install coding agents from npm and PyPI, and let each write a file through `eccos serve`: `make agents`.

    python -m tools.agents.run [--only claude-code codex] [--folder /tmp/agents] [--record tests/data/agents]

Behind eccos stands a scripted model on loopback: it calls the agent's own tool once, and then answers with a text. So
no account and no provider is needed. An agent passes when the file is there, its process ended well, and eccos refused
nothing. `--record` keeps the shapes of the requests, without anything of this machine. Needs npm and a network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eccos_core.testing.server import ModelServer
from tools.agents.known import AGENTS, FILE, NOTE, Agent
from tools.agents.recorder import Exchange, Recorder
from tools.agents.shapes import write_shapes

PROMPT = "Write a note into the file note.txt, then say that you are done. "
TIMEOUT_S = 180
POOL = """\
model_list:
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}, api_key: none}}
    model_info: &can
      input_cost_per_token: 1.0e-7
      output_cost_per_token: 4.0e-7
      supports_function_calling: true
      supports_parallel_function_calling: true
      supports_response_schema: true
      supports_vision: true
  - model_name: large
    litellm_params: {{model: openai/large, api_base: {url}, api_key: none}}
    model_info: {{<<: *can, input_cost_per_token: 2.0e-6, output_cost_per_token: 8.0e-6}}
eccos:
  policy: {{quality_floor: 0.5}}
  encoder: minilm
  predictor: prior
  history: {{outcomes: outcomes.jsonl}}
  decision_log: off
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run of an agent showed. `problem` is None when it did its work."""

    version: str
    exchanges: tuple[Exchange, ...]
    problem: str | None
    output: str


def install(agent: Agent, folder: Path) -> Path:
    """Install an agent into a folder of its own, once. Return the folder of its commands."""
    home = folder / agent.name
    if agent.from_pypi:
        if not (home / "bin" / agent.command[0]).exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", agent.package], check=True)
        return home / "bin"
    commands = home / "node_modules" / ".bin"
    if not (commands / agent.command[0]).exists():
        home.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home), agent.package]
        subprocess.run(npm, check=True)
    return commands


@contextmanager
def served_models(folder: Path) -> Iterator[str]:
    """Run a scripted provider, and `eccos serve` as its own process before it. Yield the address of eccos."""
    with ModelServer() as models:
        outputs = [{"model": name, "correct": 1.0} for name in ("small", "large")]
        lines = [json.dumps({"id": str(n), "query": f"question {n}", "outputs": outputs}) for n in range(20)]
        (folder / "outcomes.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "eccos.yaml").write_text(POOL.format(url=models.url))
        command = [sys.executable, "-m", "eccos_core.cli", "serve", "-c", str(folder / "eccos.yaml"), "--port", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        try:
            line = next((line for line in server.stderr if "/v1" in line), None)
            if line is None:
                raise SystemExit(f"eccos serve did not start (exit code {server.wait()})")
            yield line.split(" at ")[1].split("/v1")[0]
        finally:
            server.terminate()
            server.wait(timeout=60)


def run_agent(agent: Agent, commands: Path, address: str, folder: Path) -> Seen:
    """Let an agent write its note in a fresh folder, with a home folder of its own."""
    work, home = folder / agent.name / "work", folder / agent.name / "home"
    work.mkdir(parents=True)
    home.mkdir()
    with Recorder(address) as recorder:
        for name, content in agent.files(recorder.address).items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(content)
        environment = _environment(home, commands, agent.setting(recorder.address))
        version = _run([agent.command[0], "--version"], work, environment).stdout.strip().splitlines()
        prompt = PROMPT + agent.directive(work)
        done = _run([*agent.command, *(prompt.split(" ") if agent.takes_words else [prompt])], work, environment)
        exchanges = tuple(recorder.exchanges)
    return Seen(version[-1] if version else "?", exchanges, _problem(done, work, exchanges), done.stdout + done.stderr)


def _environment(home: Path, commands: Path, setting: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LANG", "TERM", "NODE_EXTRA_CA_CERTS") if name in os.environ}
    path = f"{commands}:{os.environ.get('PATH', '')}"
    return {**kept, "PATH": path, "HOME": str(home), "NO_PROXY": "127.0.0.1", **setting}


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        told = [
            part.decode("utf-8", "replace") if isinstance(part, bytes) else part or ""
            for part in (late.stdout, late.stderr)
        ]
        return subprocess.CompletedProcess(command, 124, *told)


def _problem(done: subprocess.CompletedProcess[str], work: Path, exchanges: tuple[Exchange, ...]) -> str | None:
    refused = [each for each in exchanges if each.status >= 400]
    if refused:
        return f"eccos answered {refused[0].status} to {refused[0].method} {refused[0].path}: {refused[0].answer[:300]}"
    if done.returncode:
        return f"it ended with {done.returncode}"
    note = work / FILE
    if not note.exists() or note.read_text().strip() != NOTE:
        return f"{FILE} is not there, or says something else"
    return None


def main() -> None:
    """Run what the command line asks for. Exit with 1 when an agent did not do its work."""
    parser = argparse.ArgumentParser(description="Run coding agents against eccos serve.")
    parser.add_argument("--only", nargs="*", choices=[agent.name for agent in AGENTS], help="these agents")
    parser.add_argument("--folder", type=Path, help="where agents are installed, and kept")
    parser.add_argument("--record", type=Path, help="write the shapes of the requests into this folder")
    parser.add_argument("--verbose", action="store_true", help="show what agents print, and each exchange")
    asked = parser.parse_args()
    if shutil.which("npm") is None:
        raise SystemExit("npm is not here. Install Node 20 or later.")
    failed = False
    with tempfile.TemporaryDirectory() as scratch, served_models(Path(scratch)) as address:
        for agent in AGENTS:
            if asked.only and agent.name not in asked.only:
                continue
            commands = install(agent, asked.folder or Path(scratch) / "installed")
            seen = run_agent(agent, commands, address, Path(scratch) / "runs")
            failed = failed or seen.problem is not None
            print(f"{agent.name:<12} {seen.version:<28} {len(seen.exchanges):>2} requests  {seen.problem or 'done'}")
            if asked.verbose:
                print(seen.output)
                for each in seen.exchanges:
                    print(f"  {each.status} {each.method} {each.path}\n    {each.answer[:1500]}")
            if asked.record:
                hidden = {scratch: "/tmp/agent", platform.release(): "6.1.0"}
                write_shapes(asked.record, agent.name, seen.version, seen.exchanges, hidden)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
