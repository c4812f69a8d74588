"""`--server`, `--tls`, `--ca` and `--metadata`: the server that a command speaks to, and what it tells a proxy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asr_service.commands.option_types import metadata

if TYPE_CHECKING:
    from asr_service.connection import Connection


def add_server_options(parser: argparse._ActionsContainer, help_text: str) -> None:
    parser.add_argument("--server", metavar="HOST:PORT", help=help_text)
    parser.add_argument("--tls", action="store_true", help="the server is behind a proxy with TLS")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates (PEM) that vouch for it (default: gRPC's)"
    )
    parser.add_argument(
        "--metadata",
        type=metadata,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of each call, for a proxy or as x-request-id (repeatable)",
    )


def check_server_options(arguments: argparse.Namespace) -> None:
    """Exit as for wrong usage where an option has no effect, or --server is no address."""
    if arguments.server is not None:
        from asr_service.client.address import address_problem

        problem = address_problem(arguments.server)
        if problem:
            arguments.usage_error(f"--server is {arguments.server!r}, {problem}")
    if arguments.tls and not arguments.server:
        arguments.usage_error("--tls has no effect without --server")
    if arguments.metadata and not arguments.server:
        arguments.usage_error("--metadata has no effect without --server")
    if arguments.ca and not arguments.tls:
        arguments.usage_error("--ca has no effect without --tls")


def connection(arguments: argparse.Namespace, address: str) -> Connection:
    """What the options say of the server at `address`."""
    from asr_service.connection import Connection

    return Connection(address, arguments.tls, arguments.ca, tuple(arguments.metadata))
