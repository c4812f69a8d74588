"""A server that is told to stop waits for what its engine still has to say, and no longer than the settings allow."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from asr_service.config import ServerSettings, Settings
from asr_service.errors import Unavailable
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.app import ServerThread, SpeechServer
from asr_service.server.interceptors import Call, CallInterceptor, current_call
from asr_service.server.servicer import SpeechServicer, engine_failed
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import refusal
from tests.server.messages import audio, config, finals

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.timeout(60)
def test_60_a_final_that_takes_its_time_comes_within_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_service.server.app.LAST_STATUS_S", 0.05)
    engine, requests = FakeEngine(), queue.SimpleQueue()
    server = ServerThread(Settings(server=ServerSettings("localhost:0", drain_s=0.0, grace_s=30.0)), lambda: engine)
    address = server.__enter__()
    with grpc.insecure_channel(address) as channel:
        call = pb_grpc.SpeechStub(channel).StreamingRecognize(iter(requests.get, None), timeout=30.0)
        for message in (config(), audio(linear16(say(1, 1.0, 2)))):
            requests.put(message)
        assert finals([next(call)]) == ["one"]
        engine.gate.clear()
        stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
        stopping.start()
        time.sleep(0.5)  # ten times what the last statuses get
        engine.gate.set()
        assert finals([next(call)]) == [" two"]
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert refusal(caught.value).reason == "SHUTTING_DOWN"
        requests.put(None)
        stopping.join(30.0)
        assert not stopping.is_alive()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "unary"])
def test_60_a_call_that_takes_longer_than_the_grace_is_told_why_it_is_cut_off(is_stream: bool) -> None:
    engine, requests = FakeEngine(), queue.SimpleQueue()
    settings = ServerSettings("localhost:0", drain_s=0.1, grace_s=0.1)
    server = ServerThread(Settings(server=settings), lambda: engine)
    with grpc.insecure_channel(server.__enter__()) as channel:
        stub = pb_grpc.SpeechStub(channel)
        engine.gate.clear()
        if is_stream:
            call = stub.StreamingRecognize(iter(requests.get, None), timeout=30.0)
            for message in (config(), audio(linear16(say(1, 1.0)))):
                requests.put(message)
        else:
            recognition = config().streaming_config.config
            call = stub.Recognize.future(pb.RecognizeRequest(config=recognition, audio=linear16(say(1, 1.0))), 30.0)
        while not engine.active_streams:
            time.sleep(0.01)
        stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            next(call) if is_stream else call.result()
        told = refusal(caught.value)
        assert (told.code, told.reason, told.retry_after_s) == (UNAVAILABLE, "SHUTTING_DOWN", 1.0)
        engine.gate.set()
        requests.put(None)
        stopping.join(30.0)
        assert not stopping.is_alive()


@pytest.mark.asyncio
@pytest.mark.timeout(60)
async def test_60_a_unary_call_gets_all_its_words_when_streams_are_ended() -> None:
    servicer, engine = SpeechServicer(Settings()), FakeEngine()
    engine.gate.clear()
    engine.start()
    servicer.engine = engine
    current_call.set(Call("unary"))
    recognition = pb.RecognitionConfig(encoding="LINEAR16", sample_rate_hertz=16_000)
    context: Any = None
    request = pb.RecognizeRequest(config=recognition, audio=linear16(say(1, 40.0, 2, 40.0, 3)))
    call = asyncio.create_task(servicer.Recognize(request, context))
    for _ in range(20):
        await asyncio.sleep(0)
    assert servicer.live_calls == 1
    servicer.begin_drain()
    servicer.end_streams()
    engine.gate.set()
    response = await call
    assert "".join(result.alternatives[0].transcript for result in response.results) == "one two three"
    engine.stop()


@pytest.mark.timeout(60)
def test_60_a_stream_that_has_not_said_anything_is_told_that_the_server_stops() -> None:
    opened, requests = threading.Event(), queue.SimpleQueue()
    server = ServerThread(Settings(server=ServerSettings("localhost:0", drain_s=0.0)), FakeEngine)
    with grpc.insecure_channel(server.__enter__()) as channel:
        call = pb_grpc.SpeechStub(channel).StreamingRecognize(iter(requests.get, None), timeout=30.0)
        threading.Thread(target=lambda: call.initial_metadata() and opened.set(), daemon=True).start()
        assert opened.wait(10.0), "the handler sends them before it waits for the first message"
        server.__exit__(None, None, None)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert (refusal(caught.value).code, refusal(caught.value).reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        requests.put(None)


async def silent_stream(engine: FakeEngine) -> tuple[SpeechServicer, asyncio.Task[None]]:
    """A servicer, and its call whose client has not sent anything yet."""
    servicer = SpeechServicer(Settings())
    servicer.engine = engine
    current_call.set(Call("silent"))

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        await asyncio.Event().wait()
        yield config()

    context: Any = None
    call = asyncio.create_task(servicer.StreamingRecognize(requests(), context))
    await asyncio.sleep(0.01)
    return servicer, call


@pytest.mark.asyncio
@pytest.mark.timeout(60)
async def test_a_stream_that_has_not_said_anything_is_told_that_the_engine_has_failed() -> None:
    engine = FakeEngine()
    servicer, call = await silent_stream(engine)
    engine.healthy = False
    servicer.fail_calls(engine_failed)
    with pytest.raises(Unavailable, match="engine has failed"):
        await call


@pytest.mark.asyncio
@pytest.mark.timeout(60)
async def test_60_a_stream_whose_time_to_begin_has_just_run_out_does_not_stop_the_stopping() -> None:
    servicer, call = await silent_stream(FakeEngine())
    servicer.begin_drain()
    await asyncio.sleep(0)  # the timeout has fired, the call has not had its turn yet
    assert not call.done()
    servicer.fail_calls(engine_failed)
    with pytest.raises(Unavailable, match="shutting down"):
        await call


@pytest.mark.asyncio
@pytest.mark.timeout(60)
async def test_a_server_whose_engine_has_failed_is_to_end_whatever_its_calls_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asr_service.server.app.HEALTH_CHECK_PERIOD_S", 0.01)
    engine, known = FakeEngine(), []
    server = SpeechServer(Settings(server=ServerSettings("localhost:0", drain_s=0.0)), lambda: engine)
    monkeypatch.setattr(SpeechServicer, "fail_calls", lambda *_: known.append(server.failed.is_set()))
    await server.open()
    engine.healthy = False
    await server.failed.wait()
    await server.stop()
    assert known[0]


@pytest.mark.parametrize(
    ("stopping", "remaining_s", "told"),
    [
        (False, None, ("CANCELLED", "")),
        (True, None, ("CANCELLED", "SHUTTING_DOWN")),
        (True, 20.0, ("CANCELLED", "SHUTTING_DOWN")),
        (True, 0.01, ("DEADLINE_EXCEEDED", "")),
    ],
)
def test_the_line_of_a_call_that_is_cut_off_says_why(
    stopping: bool, remaining_s: float | None, told: tuple[str, str]
) -> None:
    interceptor = CallInterceptor("asr.v1.Speech", retry_after_s=1.0)
    interceptor.stopping = stopping
    context: Any = SimpleNamespace(time_remaining=lambda: remaining_s)
    assert interceptor._cancelled(context, 2.0) == told
