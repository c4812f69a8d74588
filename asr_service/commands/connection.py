"""`--server`, `--tls`, `--ca` and `--metadata`: the server that a command speaks to, and what it tells a proxy."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from asr_service.commands.option_types import metadata

if TYPE_CHECKING:
    from asr_service.connection import Connection

# Schemes of addresses that gRPC resolves itself: what follows them need not be a host and a port.
_RESOLVED = re.compile(r"(dns|unix|unix-abstract|ipv4|ipv6|vsock|xds):.+")
_HOST_PORT = re.compile(r"(\[[^\]]+\]|[^:/\s\[\]]+):([0-9]{1,5})")


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
    if arguments.server is not None and not _is_address(arguments.server):
        arguments.usage_error(f"--server is {arguments.server!r}, must be HOST:PORT")
    if arguments.tls and not arguments.server:
        arguments.usage_error("--tls has no effect without --server")
    if arguments.metadata and not arguments.server:
        arguments.usage_error("--metadata has no effect without --server")
    if arguments.ca and not arguments.tls:
        arguments.usage_error("--ca has no effect without --tls")


def _is_address(text: str) -> bool:
    if _RESOLVED.fullmatch(text):
        return True
    found = _HOST_PORT.fullmatch(text)
    return found is not None and 0 < int(found[2]) < 65_536


def connection(arguments: argparse.Namespace, address: str) -> Connection:
    """What the options say of the server at `address`."""
    from asr_service.connection import Connection

    return Connection(address, arguments.tls, arguments.ca, tuple(arguments.metadata))
