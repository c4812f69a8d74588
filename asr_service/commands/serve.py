"""`asr serve`: the gRPC server."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_service.config import ServerSettings
    from asr_service.engine.interface import Engine


# A server process. -P: the folder where the command was given is no place for modules, for what it has there may be
# called as one of ours or of Python's is.
SERVER = (sys.executable, "-P", "-m", "asr_service.server")


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="serve speech recognition over gRPC")
    parser.add_argument("--address", metavar="HOST:PORT", help="where to listen (default: localhost:50051)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML; see asr_service/config.py)")
    parser.add_argument("--max-streams", type=int, metavar="N", help="streams served at once, by each worker")
    parser.add_argument("--share-port", action="store_true", help="let other servers listen on the same port")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port, one a core")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import asyncio

    from asr_service.config import load_settings
    from asr_service.errors import ConfigError
    from asr_service.server.logs import configure_logging
    from asr_service.server.workers import MAX_WORKERS

    settings = load_settings(arguments.config)
    if arguments.address is not None:
        settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, address=arguments.address))
    if arguments.share_port:
        settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, share_port=True))
    if arguments.max_streams is not None:
        engine = dataclasses.replace(settings.engine, max_streams=arguments.max_streams)
        settings = dataclasses.replace(settings, engine=engine)
    configure_logging(settings.server.log_level)
    if not 1 <= arguments.workers <= MAX_WORKERS:
        raise ConfigError(f"--workers is {arguments.workers}, must be 1 to {MAX_WORKERS}", field="workers")
    if arguments.workers > 1:
        return run_workers(arguments, settings.server)
    from asr_service.server.app import serve

    def load() -> Engine:
        from asr_service.engine.load import load_engine

        return load_engine(arguments.model, settings=settings.engine)

    return asyncio.run(serve(settings, load))


def run_workers(arguments: argparse.Namespace, settings: ServerSettings) -> int:
    from asr_service.server.workers import Workers, reserve

    held, address = reserve(settings.address, share_port=settings.share_port)
    command = [*SERVER, "--share-port", "--address", address]
    for name, value in (
        ("--model", arguments.model),
        ("--config", arguments.config),
        ("--max-streams", arguments.max_streams),
    ):
        command += [] if value is None else [name, str(value)]
    with held:
        workers = Workers(
            command,
            arguments.workers,
            restart_s=settings.worker_restart_s,
            restart_most_s=settings.worker_restart_most_s,
            stop_s=settings.drain_s + settings.grace_s + settings.worker_stop_margin_s,
        )
        return workers.run()
