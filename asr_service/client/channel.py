"""Channels to a server: their limits, their pings, and TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from asr_service.client.address import address_problem

Credentials = grpc.ChannelCredentials

MAX_MESSAGE_BYTES = 64 << 20  # the server's limit is what counts; the client's default of 4 MiB would come before it
# While a call is open a silent connection is pinged: a host that has vanished sends no word of it, and the call would
# wait for ever. The server's `min_ping_interval_s` must stay below the first.
KEEPALIVE_S = 30.0
# The answer may lie behind megabytes of audio that a slow uplink has yet to carry.
KEEPALIVE_TIMEOUT_S = 30.0


def tls_credentials(ca: Path | None = None) -> Credentials:
    """Credentials of TLS; `ca` has the certificates (PEM) to trust instead of gRPC's own. Raises OSError."""
    return grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes())


def channel(library: Any, address: str, credentials: Credentials | None, own_connection: bool) -> Any:
    """A channel of `grpc` or `grpc.aio`. Raises ValueError for what is no address."""
    problem = address_problem(address, needs_port=credentials is None)
    if problem:
        raise ValueError(f"address is {address!r}, {problem}")
    options = _channel_options(own_connection)
    if credentials is not None:
        return library.secure_channel(address, credentials, options=options)
    return library.insecure_channel(address, options=options)


def _channel_options(own_connection: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", int(own_connection)),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.http2.max_pings_without_data", 0),  # as many as it takes: a client that only waits sends no data
        # The one that counts: where it is longer (60 s by default), gRPC forgets to set the timer of the other.
        ("grpc.http2.ping_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
    ]
