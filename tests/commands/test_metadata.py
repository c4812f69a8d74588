"""`--metadata` of the commands that speak to a server: what goes over the wire, and what is refused before it does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import soundfile

from asr_service.cli import main
from asr_service.connection import Connection
from tests.fake_engine import say

COMMANDS = ["transcribe", "stream"]


class Listener(grpc.GenericRpcHandler):
    """Answers any stream with nothing, and keeps the metadata of the calls."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        self.calls.append([(key, value) for key, value in details.invocation_metadata if key != "user-agent"])
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: (b"" for _ in requests if False))


@pytest.fixture
def listener() -> Iterator[tuple[Listener, str]]:
    handler = Listener()
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield handler, f"localhost:{port}"
    server.stop(None).wait()


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "a.wav"
    soundfile.write(path, say(1), 16_000)
    return str(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_metadata_goes_with_each_call(command: str, recording: str, listener: tuple[Listener, str]) -> None:
    handler, address = listener
    pairs = [("authorization", "Bearer a=b+/=="), ("x-request-id", "7"), ("x-request-id", "8"), ("empty_1.a", "")]
    options = [word for key, value in pairs for word in ("--metadata", f"{key}={value}")]
    assert main([command, recording, "--server", address, *options]) == 0
    assert main([command, recording, "--server", address]) == 0
    assert handler.calls == [pairs, []]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        ("secret", "must be KEY=VALUE"),
        ("=secret", "has no key"),
        ("Authorization=secret", "lower-case letters, digits and -_. alone, not 'A'"),
        ("authorization: secret=", "not ':'"),
        ("schlüssel=secret", "not 'ü'"),
        ("grpc-timeout=secret", "grpc-timeout is a key of gRPC's own"),
        ("user-agent=secret", "user-agent is a key of gRPC's own"),
        ("trace-bin=secret", "ends in -bin"),
        ("a=secret\n", "the value of a may have printable ASCII characters alone, not '\\n'"),
        ("a=secrét", "not 'é'"),
    ],
)
def test_what_grpc_does_not_send_is_refused_by_its_option_and_its_value_kept_secret(
    command: str, pair: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "a.wav", "--server", "localhost:1", "--metadata", pair])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "argument --metadata: " in told and problem in told
    assert "secr" not in told


def test_a_connection_does_not_show_its_metadata() -> None:
    assert "secret" not in repr(Connection("localhost:1", metadata=(("authorization", "secret"),)))


def test_metadata_that_goes_nowhere_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "a.wav", "--metadata", "a=b"])
        assert "--metadata has no effect without --server" in capsys.readouterr().err
