"""`asr serve`: the gRPC server."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="serve speech recognition over gRPC")
    parser.add_argument("--address", metavar="HOST:PORT", help="where to listen (default: localhost:50051)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML; see asr_service/config.py)")
    parser.add_argument("--max-streams", type=int, metavar="N", help="streams served at once")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import asyncio

    from asr_service.config import load_settings
    from asr_service.engine.interface import Engine
    from asr_service.server.app import serve
    from asr_service.server.logs import configure_logging

    settings = load_settings(arguments.config)
    if arguments.address is not None:
        settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, address=arguments.address))
    if arguments.max_streams is not None:
        engine = dataclasses.replace(settings.engine, max_streams=arguments.max_streams)
        settings = dataclasses.replace(settings, engine=engine)
    configure_logging(settings.server.log_level)

    def load() -> Engine:
        from asr_service.engine.load import load_engine

        return load_engine(arguments.model, settings=settings.engine)

    return asyncio.run(serve(settings, load))
