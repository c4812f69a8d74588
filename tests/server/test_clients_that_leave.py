"""Cancelled, late, slow and silent clients: what they held is freed, what they are owed is kept, all in bounds."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from asr_service.generated.asr.v1 import speech_pb2 as pb
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


def long_words(start: Start, **stream: object) -> Service:
    """Words so long that a few fill the transport's window, which else would hide a client that does not read.

    The window would also grow with the bandwidth that is measured, to megabytes on loopback.
    """
    engine = FakeEngine(spell=lambda digit: DIGITS[digit] * 4_000)
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
