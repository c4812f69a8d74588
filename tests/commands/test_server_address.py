"""`--server` of the commands: what is no address is wrong usage, and what gRPC can resolve is not."""

from __future__ import annotations

import argparse

import pytest

from asr_service.cli import build_parser, main
from asr_service.commands.connection import check_server_options

COMMANDS = (["transcribe"], ["stream"], ["eval"], ["bench", "live"])
WRONG = (
    *("localhost", "localhost:", ":50051", "localhost:port", "localhost:0", "localhost:65536", "::1", "[::1]"),
    *("http://localhost:50051", "local host:1", "unix:", ""),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_server_without_its_port_is_wrong_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "a.wav", "--server", "localhost"])
    assert left.value.code == 2
    assert "--server is 'localhost', must be HOST:PORT with a port from 1 to 65535\n" in capsys.readouterr().err


@pytest.mark.parametrize("address", WRONG)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SystemExit):
        check_server_options(options(address))


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:50051", "10.0.0.1:1", "asr.example.org:65535", "[::1]:50051"),
        *("unix:/run/asr.sock", "unix:///run/asr.sock", "unix-abstract:asr", "dns:///asr.example.org:50051"),
        *("dns:asr.example.org", "ipv4:10.0.0.1:1,10.0.0.2:1", "ipv6:[::1]:50051", "xds:///asr"),
    ],
)
def test_what_grpc_can_resolve_is_taken(address: str) -> None:
    check_server_options(options(address))


def options(address: str) -> argparse.Namespace:
    return build_parser().parse_args(["transcribe", "a.wav", "--server", address])
