"""A host that vanishes without a word, as with the power or a cable: our clients notice, and so does the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from asr_service.client import AsyncClient, Client, ServiceError
from asr_service.client import channel as clients
from asr_service.config import ServerSettings
from tests.fake_engine import linear16, say
from tests.server.conftest import Start

SPEECH = linear16(say(1, 2, 1.0))
RAW = {"encoding": "linear16", "sample_rate_hertz": 16_000}


class Wire:
    """Stands between a client and a server; `cut` it and nothing comes through, although both ends stay open."""

    def __init__(self, server: str) -> None:
        self._server = server.rpartition(":")
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("localhost", 0))
        self.address = f"localhost:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def close(self) -> None:
        self._whole.set()
        for end in (self._listening, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection((self._server[0], int(self._server[2])))
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(65_536):
                self._whole.wait()
                there.sendall(data)


@pytest.fixture
def wire(start: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """To a server that never answers; many pings are sent in the first second."""
    monkeypatch.setattr(clients, "KEEPALIVE_S", 0.15)
    monkeypatch.setattr(clients, "KEEPALIVE_TIMEOUT_S", 0.3)
    service = start(server={"min_ping_interval_s": 0.05})
    service.engine.gate.clear()
    wire = Wire(service.address)
    yield wire
    wire.close()
    service.engine.gate.set()


def cut_after_some_pings(wire: Wire) -> None:
    time.sleep(1.0)
    wire.cut()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("call", ["unary", "stream"])
def test_43_a_call_ends_when_its_server_has_vanished(wire: Wire, call: str) -> None:
    threading.Thread(target=cut_after_some_pings, args=(wire,)).start()
    began = time.monotonic()
    with Client(wire.address) as client, pytest.raises(ServiceError) as caught:
        client.recognize(SPEECH, **RAW) if call == "unary" else list(client.stream([SPEECH], **RAW))
    assert (caught.value.status, caught.value.reason) == ("UNAVAILABLE", "")
    assert time.monotonic() - began > 1.0  # until then its pings kept it, and nobody minded them


@pytest.mark.timeout(20)
def test_43_so_does_one_on_an_event_loop(wire: Wire) -> None:
    async def speech() -> AsyncIterator[bytes]:
        yield SPEECH

    async def main() -> None:
        threading.Thread(target=cut_after_some_pings, args=(wire,)).start()
        async with AsyncClient(wire.address) as client:
            with pytest.raises(ServiceError) as caught:
                async for _ in client.stream(speech(), **RAW):
                    pass
        assert caught.value.status == "UNAVAILABLE"

    asyncio.run(main())


def test_a_server_lets_our_clients_ping_as_often_as_they_do() -> None:
    assert ServerSettings().min_ping_interval_s < clients.KEEPALIVE_S


@pytest.mark.timeout(20)
@pytest.mark.parametrize("call", ["unary", "stream"])
def test_43_a_clients_place_is_free_again_when_it_has_vanished(start: Start, call: str) -> None:
    service = start(server={"min_ping_interval_s": 0.05, "keepalive_s": 1, "keepalive_timeout_s": 1})
    service.engine.gate.clear()
    wire = Wire(service.address)

    def talk() -> None:
        with Client(wire.address) as client, contextlib.suppress(ServiceError):
            client.recognize(SPEECH, **RAW) if call == "unary" else list(client.stream([SPEECH], **RAW))

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    while not service.engine.active_streams:
        time.sleep(0.01)
    wire.cut()
    while service.engine.active_streams:  # far less than gRPC's own minute, which the test's limit does not wait for
        time.sleep(0.01)
    wire.close()
    service.engine.gate.set()
    talking.join()
