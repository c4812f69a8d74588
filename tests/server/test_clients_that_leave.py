"""Cancelled, late, slow and silent clients: what they held is freed, what they are owed is kept, all in bounds."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server import interceptors
from asr_service.server.interceptors import CallInterceptor
from asr_service.streaming.async_session import AsyncSession
from tests.fake_engine import DIGITS, FakeEngine, linear16, say
from tests.server.conftest import Service, Start, until_error
from tests.server.messages import audio, chunks, config, finals, transcript

SPEECH = linear16(say(1, 2, 1.0))


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def endless(*first: pb.StreamingRecognizeRequest) -> Iterator[pb.StreamingRecognizeRequest]:
    yield from first
    threading.Event().wait(20)


@pytest.mark.parametrize("when", ["before-config", "mid-stream", "while-the-engine-is-busy", "after-half-close"])
def test_41_cancel_frees_the_slot(start: Start, when: str) -> None:
    service = start()
    if when == "before-config":
        call = service.stream(endless())
        time.sleep(0.1)
    elif when == "mid-stream":
        call = service.stream(endless(config(), audio(SPEECH)))
        next(call)
        assert service.engine.active_streams == 1
    else:
        service.engine.gate.clear()
        requests = iter([config(), audio(SPEECH)]) if when == "after-half-close" else endless(config(), audio(SPEECH))
        call = service.stream(requests)
        assert eventually(lambda: service.engine.queued_samples > 0)
    call.cancel()
    assert eventually(lambda: service.engine.active_streams == 0)
    service.engine.gate.set()
    assert transcript(service.stream([config(), audio(SPEECH)])) == "one two"


@pytest.mark.parametrize("begins", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "no-settings"])
def test_35_connections_that_never_speak_are_closed(start: Start, begins: bytes) -> None:
    service = start(server={"startup_timeout_s": 0.3})
    host, _, port = service.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(20)]
        for connection in silent:
            connection.sendall(begins)
        assert transcript(service.stream([config(), audio(SPEECH)])) == "one two"
        for connection in silent:
            while connection.recv(4096):
                pass


@pytest.mark.parametrize("timeout_s", [0.001, 0.3])
def test_42_deadline_frees_the_slot(start: Start, timeout_s: float) -> None:
    service = start()
    service.engine.gate.clear()
    with pytest.raises(grpc.RpcError) as caught:
        list(service.stream([config(), audio(SPEECH)], timeout=timeout_s))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: service.engine.active_streams == 0)


def test_cancelled_unary_call_frees_the_slot(start: Start) -> None:
    service = start()
    service.engine.gate.clear()
    request = pb.RecognizeRequest(
        config=pb.RecognitionConfig(encoding="LINEAR16", sample_rate_hertz=16_000), audio=SPEECH
    )
    call = service.stub.Recognize.future(request, timeout=20)
    assert eventually(lambda: service.engine.active_streams == 1)
    call.cancel()
    assert eventually(lambda: service.engine.active_streams == 0)


def test_hundred_rude_clients_leave_nothing_behind(start: Start) -> None:
    service = start()
    for number in range(100):
        call = service.stream(iter([config(), audio(SPEECH)]) if number % 2 else endless(config(), audio(SPEECH)))
        if number % 3 == 0:
            next(call)
        call.cancel()
        assert eventually(lambda: service.engine.active_streams < 4)
    assert eventually(lambda: service.engine.active_streams == 0)
    assert transcript(service.stream([config(), audio(SPEECH)])) == "one two"


def long_words(start: Start, times: int = 4_000, **stream: object) -> Service:
    """Words so long that a few (of 40 000 times: one) fill the transport's window, which else would hide a client that
    does not read.

    The window would also grow with the bandwidth that is measured, to megabytes on loopback.
    """
    engine = FakeEngine(spell=lambda digit: DIGITS[digit] * times)
    return start(engine, options=[("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)], **stream)


def test_32_client_that_never_reads_is_a_slow_consumer(start: Start) -> None:
    service = long_words(start, slow_consumer_s=0.5, max_pending_updates=4, max_buffered_s=4.0)
    many = linear16(say(*[1, 1.0] * 150))
    call = service.stream(endless(config(), *chunks(many, 32_000)))
    assert eventually(lambda: service.engine.active_streams == 1)
    assert eventually(lambda: service.engine.active_streams == 0, 20)
    got, told = until_error(call)
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
    indices = [result.utterance_index for response in got for result in response.results]
    assert indices == list(range(len(indices)))  # what was delivered has no gap


@pytest.fixture
def delivering(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a response is on its way to a client."""
    begun = threading.Event()
    original = AsyncSession.deliver

    async def deliver(session: AsyncSession, write: Awaitable[None]) -> None:
        begun.set()
        await original(session, write)

    monkeypatch.setattr(AsyncSession, "deliver", deliver)
    return begun


@dataclass
class Aborts:
    """Set when a call begins to wait for its status to leave, and when it no longer does."""

    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def aborts(monkeypatch: pytest.MonkeyPatch) -> Aborts:
    told = Aborts()
    original = CallInterceptor._abort

    async def abort(interceptor: CallInterceptor, *args: Any) -> None:
        told.begun.set()
        try:
            await original(interceptor, *args)
        finally:
            told.ended.set()

    monkeypatch.setattr(CallInterceptor, "_abort", abort)
    return told


class Log:
    """Of the server's, which is in this process."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Code and reason of those that have ended."""
        lines = [record for record in self._caplog.records if (record.name, record.msg) == ("asr.call", "call")]
        return [(line.__dict__["fields"]["code"], line.__dict__["fields"]["reason"]) for line in lines]

    @property
    def problems(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO)
    return Log(caplog)


SLOW = ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")


def test_32_client_that_does_not_read_the_last_response_is_a_slow_consumer(
    start: Start, delivering: threading.Event, log: Log
) -> None:
    service = long_words(start, 40_000, slow_consumer_s=0.2)

    def requests() -> Iterator[pb.StreamingRecognizeRequest]:
        yield config()
        yield audio(linear16(say(1, 1.0)))
        delivering.wait(10)  # so that the end comes alone, while the last response waits for the client

    call = service.stream(requests())
    assert eventually(lambda: log.calls == [SLOW])
    got, told = until_error(call)
    assert len(finals(got)) == 1
    assert told.reason == "SLOW_CONSUMER" and "1 waiting" in told.message


def call_whose_status_waits(
    start: Start, aborts: Aborts, monkeypatch: pytest.MonkeyPatch, *, status_s: float
) -> tuple[Service, Any]:
    """A call that is being ended while its client reads nothing; the server waits `status_s` for it."""
    monkeypatch.setattr(interceptors, "STATUS_S", status_s)
    service = long_words(start, 40_000, slow_consumer_s=0.2, max_pending_updates=2)
    call = service.stream(endless(config(), audio(linear16(say(*[1, 1.0] * 4)))))
    assert aborts.begun.wait(10)
    return service, call


def test_32_status_that_nobody_reads_holds_no_task(
    start: Start, aborts: Aborts, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, call = call_whose_status_waits(start, aborts, monkeypatch, status_s=0.1)
    assert log.calls == [SLOW]
    assert aborts.ended.wait(10)
    got, told = until_error(call)  # gRPC still has the status for a client that reads after all
    assert (len(finals(got)), told.reason) == (1, "SLOW_CONSUMER")
    assert (log.calls, log.problems) == ([SLOW], [])


def test_cancel_while_a_status_waits_is_no_mistake_of_ours(
    start: Start, aborts: Aborts, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, call = call_whose_status_waits(start, aborts, monkeypatch, status_s=30.0)
    call.cancel()
    assert aborts.ended.wait(10)
    assert list(service.stream([config()])) == []  # the server's loop is done with the first call by then
    assert (log.calls, log.problems) == ([SLOW, ("OK", "")], [])


@pytest.mark.parametrize(("timeout_s", "code"), [(30.0, "CANCELLED"), (0.3, "DEADLINE_EXCEEDED")])
def test_41_42_a_stream_that_leaves_before_its_config_is_not_said_to_have_forgotten_it(
    start: Start, log: Log, timeout_s: float, code: str
) -> None:
    service = start()
    for number in range(1, 4):
        requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        call = service.stub.StreamingRecognize(iter(requests.get, None), timeout=timeout_s)
        call.initial_metadata()  # sent before the first message is waited for
        if code == "CANCELLED":
            call.cancel()
        assert eventually(lambda number=number: len(log.calls) == number)
        requests.put(None)
    assert (log.calls, log.problems) == ([(code, "")] * 3, [])


def test_cancel_that_fails_a_write_first_is_a_cancel(start: Start, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """So may the initial metadata fail, now and then; a blocked write of the call's own task always does."""
    writing = threading.Event()

    async def deliver(_: AsyncSession, write: Awaitable[None]) -> None:
        writing.set()
        await write

    monkeypatch.setattr(AsyncSession, "deliver", deliver)
    service = long_words(start, 40_000)
    call = service.stream(endless(config(), audio(linear16(say(1, 1.0)))))
    assert writing.wait(10)
    call.cancel()
    assert eventually(lambda: len(log.calls) == 1)
    assert (log.calls, log.problems) == ([("CANCELLED", "")], [])


def test_33_slow_reader_gets_all_finals_and_few_interims(start: Start) -> None:
    service = long_words(start, slow_consumer_s=5.0, max_pending_updates=8)
    many = linear16(say(*[1, 2, 3, 4, 5, 1.0] * 15))
    call = service.stream([config(interim_results=True), *chunks(many, 1_600)])
    got: list[pb.StreamingRecognizeResponse] = []
    for response in call:
        got.append(response)
        time.sleep(0.02)
    assert [result.utterance_index for response in got for result in response.results if result.is_final] == list(
        range(15)
    )
    assert len(finals(got)) == 15
    interims = len(got) - 15
    frames_with_words = 15 * (5 * 4 - 1)
    assert interims < frames_with_words / 2


def test_31_reader_that_pauses_slows_the_stream_and_loses_nothing(start: Start) -> None:
    service = long_words(start, slow_consumer_s=20.0, max_pending_updates=4, max_buffered_s=4.0)
    many = linear16(say(*[1, 1.0] * 60))
    call = service.stream([config(), *chunks(many, 32_000)])
    first = next(call)
    time.sleep(1.0)
    assert len(finals([first, *call])) == 60
    assert service.engine.most_queued_s <= 4.0
