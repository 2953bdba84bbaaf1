"""`eccos serve`: answer over HTTP, in the APIs that clients already speak."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import console
from eccos_core.errors import InputError
from eccos_core.io.optional import require_package

if TYPE_CHECKING:
    from eccos_core.config import Config, ServerConfig
    from eccos_core.server.settings import ServerSettings


class NearLimit(StrEnum):
    """What happens to a request that the budget cannot pay."""

    STEP_DOWN = "step_down"
    REFUSE = "refuse"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="CONFIG",
        help="The YAML file; Without it: eccos.yaml here, else the bundled pocket pool.",
        show_default=False,
    ),
]
SmolOption = Annotated[
    bool,
    typer.Option("--smol", help="Serve the pocket pool with SmolLM2, which reads longer prompts and chats."),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", help="The address to listen on. Others than 127.0.0.1 need keys. Default: `eccos.server.host`."
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="The port. 0 takes a free one. Default: `eccos.server.port`."),
]
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="DATABASE",
        envvar="ECCOS_KEYS_DATABASE",
        show_envvar=False,
        help="Where keys are kept: a SQLite file, or postgresql://.... Default: `eccos.server.keys.database`.",
    ),
]
NearLimitOption = Annotated[
    NearLimit | None,
    typer.Option(
        "--near-limit",
        help="What happens to a request that the budget cannot pay. Default: `eccos.server.keys.near_limit`.",
    ),
]

FilesOption = Annotated[
    Path | None,
    typer.Option(
        "--files",
        metavar="FOLDER",
        help="Keep uploaded files and batches here. Without it they are gone when the server stops.",
        show_default=False,
    ),
]
CorsOption = Annotated[
    list[str] | None,
    typer.Option("--cors-origin", metavar="ORIGIN", help="A web page's origin that may call; repeat it for more."),
]
WorkersOption = Annotated[
    int,
    typer.Option("--workers", min=1, max=64, metavar="N", help="How many processes answer. Each is a replica."),
]
WorkerOption = Annotated[str | None, typer.Option("--worker", hidden=True)]  # what a worker gets from its parent


def serve(
    config: ConfigOption = None,
    smol: SmolOption = False,
    host: HostOption = None,
    port: PortOption = None,
    keys: KeysOption = None,
    near_limit: NearLimitOption = None,
    files: FilesOption = None,
    cors_origin: CorsOption = None,
    workers: WorkersOption = 1,
    worker: WorkerOption = None,
) -> None:
    """Answer over HTTP: OpenAI's and Anthropic's APIs, in front of your pool.

    Point any client at it, and ask for the model `eccos`. Stop it with Ctrl-C: running requests end first. Without keys
    it serves this machine only. `eccos keys create` makes the first key.

    Example: eccos serve -c eccos.yaml

    Example: curl http://127.0.0.1:8484/v1/chat/completions -H 'content-type: application/json' -d '{"model": "eccos",
    "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    """
    require_package("fastapi", "server", "eccos serve")
    require_package("uvicorn", "server", "eccos serve")
    require_package("sqlalchemy", "server", "eccos serve")
    from eccos_core.assembly.backend import needs_litellm
    from eccos_core.backends.litellm.lazy_import import preload_litellm
    from eccos_core.config import load_config
    from eccos_core.pocket import smol_config_path
    from eccos_core.router import Router
    from eccos_core.server.embedding_models import EmbeddingModels
    from eccos_core.server.follow_file import follow_file
    from eccos_core.server.keys import KeyGate
    from eccos_core.server.keys.build import open_gate, with_options
    from eccos_core.server.run import run_server
    from eccos_core.server.settings import ServerSettings
    from eccos_core.server.workers import WorkerLine

    if smol and config is not None:
        raise InputError("--smol serves a pool of its own. Leave out --config or --smol.")
    path = smol_config_path() if smol else resolve_config(config)
    loaded, line = load_config(path), None if worker is None else WorkerLine.read(worker)
    said = loaded.server
    settings = ServerSettings(
        host=host or said.host,
        port=said.port if port is None else port,
        max_body_bytes=round(said.max_body_mb * 1_000_000),
        files_dir=files,
        cors_origins=tuple(cors_origin or said.cors_origins),
        worker=None if line is None else line.number,
    )

    def with_our_options(server: ServerConfig) -> ServerConfig:
        return with_options(server, keys, near_limit.value if near_limit else None)

    rules, embeddings = with_our_options(said), EmbeddingModels()
    if workers > 1 and line is None:
        _serve_with_workers(loaded, path, settings, rules, workers, keys, near_limit)
        return
    importing = preload_litellm() if needs_litellm(loaded) or loaded.embeddings else None
    with Router.from_yaml(path, reload=True, progress=None if line is not None else console().print) as router:
        gate = open_gate(router, path, rules)
        if isinstance(gate, KeyGate) and not gate.database.count() and (line is None or line.number == 1):
            _announce("No key exists yet, so every request is refused. Make one with `eccos keys create NAME`.")
        try:
            follow_file(router, path, gate, embeddings, rules, with_our_options)
            if importing is not None:
                importing.join()  # else the first caller would wait for it
            run_server(router, settings, gate, embeddings, announce=_announce, worker=line)
        finally:
            gate.close()


def _announce(line: str) -> None:
    console().print(line, soft_wrap=True)


def _serve_with_workers(
    config: Config,
    path: Path,
    settings: ServerSettings,
    rules: ServerConfig,
    workers: int,
    keys: str | None,
    near_limit: NearLimit | None,
) -> None:
    """Start the workers on one socket, and look after them until the server is told to stop."""
    import sys
    import tempfile
    from functools import partial

    from eccos_core.server.keys.build import has_keys
    from eccos_core.server.run import announce_address, listen
    from eccos_core.server.settings import check_open
    from eccos_core.server.workers import WorkerLine, WorkerSupervisor, check_workers

    check_workers(config, workers)
    with_keys = has_keys(path, rules)
    check_open(settings, has_keys=with_keys)
    with tempfile.TemporaryDirectory(prefix="eccos-serve-") as temporary, listen(settings) as listening:
        files = settings.files_dir or Path(temporary)
        options = ["--config", str(path), "--host", settings.host, "--port", str(settings.port), "--files", str(files)]
        options += [] if keys is None else ["--keys", keys]
        options += [] if near_limit is None else ["--near-limit", near_limit.value]
        for origin in settings.cors_origins:
            options += ["--cors-origin", origin]

        def command(line: WorkerLine) -> list[str]:
            return [sys.executable, "-m", "eccos_core.cli", "serve", *options, "--worker", str(line)]

        told = partial(announce_address, listening, len(config.models), _announce, has_keys=with_keys, workers=workers)
        WorkerSupervisor(command, listening, settings, workers, told).run()
