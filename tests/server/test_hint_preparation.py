"""Calls with phrase hints wait for what the engine must build, and for no longer than it can be of use."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from asr_service.config import PhraseHintSettings, Settings
from asr_service.errors import NoCapacity, Unavailable
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.hint_preparation import HintPreparation
from asr_service.server.interceptors import Call, current_call
from asr_service.server.servicer import SpeechServicer
from asr_service.types import Mode, PhraseHint, RecognitionConfig
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import Start, refusal
from tests.server.messages import config as first_message

ROOT = Path(__file__).resolve().parents[2]


def test_trees_are_made_beside_the_event_loop_before_the_stream_opens(start: Start) -> None:
    engine = FakeEngine(features=("phrase_hints",))
    service = start(engine)
    answer = service.recognize(
        linear16(say(1, 0.5)),
        encoding=pb.RecognitionConfig.LINEAR16,
        sample_rate_hertz=16_000,
        phrase_hints=[pb.PhraseHints(phrases=["Kato"], boost=3.0)],
    )
    assert answer.results
    (thread, mode, hints), *more = engine.prepared
    assert not more
    assert thread.startswith("phrase-hints") and mode is Mode.ACCURATE and hints == (PhraseHint("kato", 3.0),)


@pytest.mark.asyncio
async def test_when_too_many_wait_for_their_trees_the_next_is_refused() -> None:
    built = threading.Event()
    engine = FakeEngine()
    engine.prepare = lambda *_: built.wait(30)  # type: ignore[assignment]
    preparation = HintPreparation(PhraseHintSettings(max_waiting=2))
    config = RecognitionConfig(phrase_hints=(PhraseHint("kato", 3.0),))
    waiting = [asyncio.create_task(preparation.prepare(engine, config)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoCapacity, match=r"2 calls with .* wait to begin"):
        await preparation.prepare(engine, config)
    await preparation.prepare(engine, RecognitionConfig())  # nothing to wait for
    waiting[1].cancel()  # its client has gone
    built.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    await preparation.prepare(engine, config)


@pytest.mark.asyncio
async def test_40_nothing_is_built_for_a_call_that_finds_no_stream_free() -> None:
    class Busy(FakeEngine):
        active_streams = 1

    engine, builds, built = Busy(max_streams=2), [], threading.Event()
    engine.prepare = lambda *_: builds.append(1) or built.wait(30)  # type: ignore[assignment]
    preparation = HintPreparation(PhraseHintSettings(max_waiting=9))
    config = RecognitionConfig(phrase_hints=(PhraseHint("kato", 3.0),))
    waiting = asyncio.create_task(preparation.prepare(engine, config))
    await asyncio.sleep(0)
    with pytest.raises(NoCapacity, match="all 2 streams are taken, or will be by calls that wait"):
        await preparation.prepare(engine, config)
    engine.active_streams = 0
    another = asyncio.create_task(preparation.prepare(engine, config))
    built.set()
    await asyncio.gather(waiting, another)
    assert len(builds) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (lambda servicer, _: servicer.begin_drain(), "shutting down"),
        (lambda _, engine: setattr(engine, "healthy", False), "the engine has failed"),
    ],
    ids=["drain", "failure"],
)
async def test_a_call_whose_trees_are_ready_too_late_is_refused_like_any_other(
    happens: Callable[[SpeechServicer, FakeEngine], None], told: str
) -> None:
    servicer, engine = SpeechServicer(Settings()), FakeEngine(features=("phrase_hints",))
    begun, built = threading.Event(), threading.Event()

    def prepare(*_: object) -> None:
        begun.set()
        built.wait(30)

    engine.prepare = prepare  # type: ignore[method-assign]
    engine.start()
    servicer.engine = engine
    current_call.set(Call("hinted"))
    hints = [pb.PhraseHints(phrases=["Kato"])]
    request = pb.RecognizeRequest(
        config=pb.RecognitionConfig(encoding="LINEAR16", sample_rate_hertz=16_000, phrase_hints=hints),
        audio=linear16(say(1, 0.5)),
    )
    context: Any = None
    call = asyncio.create_task(servicer.Recognize(request, context))
    await asyncio.to_thread(begun.wait, 30)
    happens(servicer, engine)
    built.set()
    with pytest.raises(Unavailable, match=told):
        await call
    assert (servicer.live_calls, engine.active_streams) == (0, 0)
    engine.stop()


@pytest.mark.parametrize("call", ["unary", "stream"])
def test_a_call_that_waits_for_its_phrase_hints_is_refused_when_the_server_drains_and_does_not_keep_it(
    call: str,
) -> None:
    script = """
import asyncio, sys, time
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
from tests.fake_engine import FakeEngine

class SlowEngine(FakeEngine):
    def prepare(self, mode, phrase_hints):
        print("builds", flush=True)
        time.sleep(60)

configure_logging("info")
settings = Settings(server=ServerSettings(address="localhost:0", drain_s=20.0, grace_s=20.0))
sys.exit(asyncio.run(serve(settings, lambda: SlowEngine(features=("phrase_hints",)))))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            while (line := json.loads(process.stderr.readline()))["message"] != "serving":
                pass
            with grpc.insecure_channel(f"localhost:{line['port']}") as channel:
                stub = pb_grpc.SpeechStub(channel)
                hinted = first_message({"phrase_hints": [pb.PhraseHints(phrases=["kato"])]})
                if call == "stream":
                    waits = stub.StreamingRecognize(iter([hinted]), timeout=20)
                else:
                    request = pb.RecognizeRequest(config=hinted.streaming_config.config, audio=linear16(say(1)))
                    waits = stub.Recognize.future(request, timeout=20)
                assert process.stdout.readline() == "builds\n"
                process.send_signal(signal.SIGTERM)
                with pytest.raises(grpc.RpcError) as caught:
                    list(waits) if call == "stream" else waits.result()
            told = refusal(caught.value)
            assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert told.retry_after_s == 1.0
            assert process.wait(10) == 0
        finally:
            process.kill()
