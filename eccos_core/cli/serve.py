"""`eccos serve`: answer over HTTP, in the APIs that clients already speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import console
from eccos_core.io.optional import require_package

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
HostOption = Annotated[str, typer.Option("--host", help="The address to listen on. Others than 127.0.0.1 need keys.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port. 0 takes a free one.")]

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


def serve(
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8484,
    files: FilesOption = None,
    cors_origin: CorsOption = None,
) -> None:
    """Answer over HTTP: OpenAI's and Anthropic's APIs, in front of your pool.

    Point any client at it, and ask for the model `eccos`. Stop it with Ctrl-C: running requests end first.

    Example: eccos serve -c eccos.yaml

    Example: curl http://127.0.0.1:8484/v1/chat/completions -H 'content-type: application/json' -d '{"model": "eccos",
    "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    """
    require_package("fastapi", "server", "eccos serve")
    require_package("uvicorn", "server", "eccos serve")
    from eccos_core.router import Router
    from eccos_core.server.run import run_server
    from eccos_core.server.settings import ServerSettings

    settings = ServerSettings(host=host, port=port, files_dir=files, cors_origins=tuple(cors_origin or ()))
    path = resolve_config(config)
    with Router.from_yaml(path, reload=True, progress=console().print) as router:
        run_server(router, settings, announce=lambda line: console().print(line, soft_wrap=True))
