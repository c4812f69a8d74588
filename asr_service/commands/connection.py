"""`--server`, `--tls`, `--ca` and `--metadata`: the server that a command speaks to, and what it tells a proxy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asr_service.commands.option_types import metadata
from asr_service.errors import ConfigError

if TYPE_CHECKING:
    from asr_service.client import Client


def add_server_options(parser: argparse.ArgumentParser, help_text: str) -> None:
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
    """Exit as for wrong usage where an option has no effect."""
    if arguments.tls and not arguments.server:
        arguments.usage_error("--tls has no effect without --server")
    if arguments.metadata and not arguments.server:
        arguments.usage_error("--metadata has no effect without --server")
    if arguments.ca and not arguments.tls:
        arguments.usage_error("--ca has no effect without --tls")


def connect(arguments: argparse.Namespace, address: str) -> Client:
    """A client of `address`. Raises ConfigError for a certificate file that cannot be read, or has none."""
    import ssl

    from asr_service.client import Client, tls_credentials

    if not arguments.tls:
        return Client(address)
    try:
        if arguments.ca is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(arguments.ca)  # gRPC would only log it
        return Client(address, credentials=tls_credentials(arguments.ca))
    except ssl.SSLError as error:
        raise ConfigError(f"--ca {arguments.ca} has no certificate (PEM)") from error
    except OSError as error:
        raise ConfigError(f"cannot read --ca {arguments.ca}: {error.strerror}") from error
