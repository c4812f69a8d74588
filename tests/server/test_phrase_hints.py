"""Phrase hints of a request: what is taken, and what is refused by which name."""

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
from asr_service.engine.interface import EngineInfo
from asr_service.errors import InvalidField, NoCapacity, Unavailable, Unsupported
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.interceptors import Call, current_call
from asr_service.server.phrase_hints import HintPreparation
from asr_service.server.requests import streaming_config, unary_config
from asr_service.server.servicer import SpeechServicer
from asr_service.types import Mode, PhraseHint, RecognitionConfig
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import Start, refusal
from tests.server.messages import config as first_message

ROOT = Path(__file__).resolve().parents[2]
MODES = (Mode.STREAMING, Mode.ACCURATE)
INFO = EngineInfo("m", ("en",), MODES, ("phrase_hints",), max_streams=1, chunk_s=0.64)
SETTINGS = Settings(
    phrase_hints=PhraseHintSettings(max_phrases=6, max_characters=300, default_boost=7.0, default_boost_per_letter=2.0)
)


def taken(*groups: pb.PhraseHints, info: EngineInfo = INFO) -> tuple[PhraseHint, ...]:
    """What both calls make of the hints."""
    config = pb.RecognitionConfig(phrase_hints=groups)
    whole = unary_config(pb.RecognizeRequest(config=config), info, SETTINGS)
    streamed = streaming_config(pb.StreamingRecognitionConfig(config=config), info, SETTINGS)
    assert whole.phrase_hints == streamed.phrase_hints
    return whole.phrase_hints


def test_hints_are_normalised_as_the_models_words_are() -> None:
    groups = (
        pb.PhraseHints(phrases=["Kato", " Jean-Luc  O\u2019Brien ", "caf\u00e9"], boost=3.5),
        pb.PhraseHints(phrases=["'tis"]),
        pb.PhraseHints(phrases=["Al", "a b c"]),
    )
    assert taken(*groups) == (
        PhraseHint("kato", 3.5),
        PhraseHint("jean luc o'brien", 3.5),
        PhraseHint("cafe", 3.5),
        PhraseHint("'tis", 7.0),
        PhraseHint("al", 4.0),
        PhraseHint("a b c", 6.0),
    )
    assert taken() == ()


@pytest.mark.parametrize("apostrophe", ["'", "\u2018", "\u2019", "\u02bc", "\u00b4", "`"])
def test_what_is_typed_for_an_apostrophe_is_one(apostrophe: str) -> None:
    assert taken(pb.PhraseHints(phrases=[f"Don{apostrophe}t"])) == (PhraseHint("don't", 7.0),)


@pytest.mark.parametrize(
    ("groups", "field", "limit"),
    [
        ([{}], "config.phrase_hints[0].phrases", "at least one"),
        ([{"phrases": ["a"] * 7}], "config.phrase_hints", "6"),
        ([{"phrases": ["a"] * 4}] * 2, "config.phrase_hints", "6"),
        ([{"phrases": ["a" * 80] * 2}] * 2, "config.phrase_hints", "300"),
        ([{"phrases": ["a", "b" * 101]}], "config.phrase_hints[0].phrases[1]", "100"),
        ([{"phrases": ["a"]}, {"phrases": ["b " * 11]}], "config.phrase_hints[1].phrases[0]", "10"),
        ([{"phrases": ["a"], "boost": 20.5}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a"], "boost": 20.00001}], "config.phrase_hints[0].boost", "is 20.0000095; it must be 0 to 20"),
        ([{"phrases": ["a"], "boost": -1.0}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a"], "boost": float("nan")}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a\0"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["channel 4"]}], "config.phrase_hints[0].phrases[0]", "numbers as words"),
        ([{"phrases": ["\u5317\u4eac"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["", "a"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["' '"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
    ],
)
def test_hints_that_break_a_limit_are_refused_by_field_and_limit(groups, field: str, limit: str) -> None:
    with pytest.raises(InvalidField) as told:
        taken(*(pb.PhraseHints(**group) for group in groups))
    assert told.value.field == field
    assert field in told.value.message and limit in told.value.message
    assert told.value.message.isascii() and len(told.value.message) < 400


@pytest.mark.parametrize(
    "groups",
    [
        [{"phrases": ["a"] * 6}],
        [{"phrases": ["a" * 100] * 3}],
        [{"phrases": ["b " * 10]}],
        [{"phrases": ["a"], "boost": n} for n in (0.5, 7.0, 20.0, 3.0, 0.0, 4.0)],
    ],
    ids=["phrases", "characters", "words", "a boost each"],
)
def test_hints_at_the_limits_are_taken(groups) -> None:
    assert len(taken(*(pb.PhraseHints(**group) for group in groups))) == sum(len(group["phrases"]) for group in groups)


def test_hints_are_refused_where_the_model_does_not_offer_them() -> None:
    with pytest.raises(Unsupported, match="phrase_hints"):
        taken(pb.PhraseHints(phrases=["kato"]), info=EngineInfo("m", ("en",), MODES, (), max_streams=1, chunk_s=0.64))


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
