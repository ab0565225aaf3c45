"""`clipzoo serve`: a page in the browser that classifies videos."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from clipzoo.runtime.ending import INTERRUPTED
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.predict import add_model_arguments, open_model
from clipzoo.config import ConfigError

TERMINATED = 128 + signal.SIGTERM
LARGEST_MB = 100_000


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that no temporary file remains."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: argparse.Namespace) -> None:
    port, max_mb = arguments.port, arguments.max_mb
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port: found {port}; allowed: 0 to 65535, 0 for any that is free")
    if not 0 < max_mb <= LARGEST_MB:  # NaN too is refused
        raise ConfigError(f"--max-mb: found {max_mb:g}; allowed: above 0, up to {LARGEST_MB:,}")
    from clipzoo.serve.page.server import PageServer, Settings  # slow: it imports torch

    options = ["--model", arguments.model] if arguments.model else []
    options += ["--device", arguments.device] if arguments.device != "auto" else []
    settings = Settings(
        host=arguments.host, port=port, max_bytes=int(max_mb * 1e6), options=options
    )
    with (
        _ended_by_sigterm(),
        PageServer(settings) as server,  # before the model: a port in use is said at once
    ):
        server.model = open_model(arguments.model, arguments.device)
        if not server.is_local:
            print(
                f"warning: --host {arguments.host}: everybody who reaches this machine can use the "
                "page, without a password and unencrypted; --host 127.0.0.1 and `ssh -L` let "
                "nobody else",
                file=sys.stderr,
            )
        print(
            f"serving {server.model.config.recipe} at {server.address}; Ctrl-C ends it", flush=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            sys.exit(INTERRUPTED)


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        "a page in the browser that classifies videos",
        ("serve", "serve --model models/mine --port 8000"),
    )
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="0 = any that is free (7860)"
    )
    parser.add_argument(
        "--max-mb", type=float, default=200, metavar="X", help="the largest video (200 MB)"
    )
    parser.set_defaults(run=_run)
