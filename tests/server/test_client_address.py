"""Addresses that our client takes, with TLS and without; what gRPC would take to mean another place is refused."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc
import pytest

from asr_service.client import AsyncClient, Client

NO_PORT = ["localhost", "10.0.0.1", "asr.example.org", "[::1]"]
WRONG = [
    *("", "localhost:", "localhost:99999", "localhost:65536", "localhost:0", "localhost:http", "localhost:-1", ":1"),
    *("[::1]:", "::1", "http://localhost:1", "local host:1", "x\udcff:1"),
]


async def connect(address: str, **options: Any) -> None:
    await AsyncClient(address, **options).close()


@pytest.mark.parametrize("address", [*NO_PORT, *WRONG], ids=ascii)
def test_an_address_is_a_host_and_a_port_that_there_is(address: str) -> None:
    told = f"^address is {re.escape(repr(address))}, must be HOST:PORT with a port from 1 to 65535$"
    with pytest.raises(ValueError, match=told):
        Client(address)
    with pytest.raises(ValueError, match=told):
        asyncio.run(connect(address))


@pytest.mark.parametrize("address", NO_PORT)
def test_an_address_without_a_port_is_one_of_a_proxy_with_tls(address: str) -> None:
    credentials = grpc.ssl_channel_credentials()
    Client(address, credentials=credentials).close()
    asyncio.run(connect(address, credentials=credentials))


@pytest.mark.parametrize("address", WRONG, ids=ascii)
def test_tls_makes_no_address_of_what_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT with a port from 1 to 65535"):
        Client(address, credentials=grpc.ssl_channel_credentials())


@pytest.mark.parametrize(
    "address", ["unix:asr.sock", "dns:///localhost", "ipv4:127.0.0.1", "[::1]:50051", "localhost:1", "10.0.0.1:65535"]
)
def test_addresses_of_other_kinds_are_grpcs(address: str) -> None:
    Client(address).close()
