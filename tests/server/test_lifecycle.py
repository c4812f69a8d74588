"""A server process: loading, health, signals, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from asr_service.config import ServerSettings, Settings
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.app import ServerThread
from asr_service.server.workers import TOLD_AGAIN_S, stop_signals
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import refusal
from tests.server.messages import audio, config, finals
from tests.server.process import ROOT, OpenStream, Process

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _hang_up_is_not_ignored() -> Iterator[None]:
    """As it is where the tests are run by `nohup`, and by all that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def starter(text: str = "", **process: Any) -> Process:
        path = tmp_path / "asr.toml"
        path.write_text(f'[server]\naddress = "localhost:0"\n{text}')
        started.append(Process(path, **process))
        return started[-1]

    yield starter
    for process in started:
        process.channel.close()
        process.process.kill()
        process.end()
        assert process.process.stderr is not None
        process.process.stderr.close()


def test_51_health_says_whether_the_model_is_there(start: Callable[..., Process]) -> None:
    server = start()
    assert server.status() == server.status("asr.v1.Speech") == NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=10)
    told = refusal(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert told.retry_after_s == 1.0
    server.wait_for(message="serving")
    assert server.status() == server.status("asr.v1.Speech") == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        server.status("no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_service(start: Callable[..., Process]) -> None:
    server = start()
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="asr.v1.Speech"),
    ]
    listed, described = stub.ServerReflectionInfo(iter(requests), timeout=10)
    assert "asr.v1.Speech" in {service.name for service in listed.list_services_response.service}
    assert described.file_descriptor_response.file_descriptor_proto


def test_50_reflection_can_be_turned_off(start: Callable[..., Process]) -> None:
    server = start("reflection = false")
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_60_streams_get_their_finals_when_the_server_is_told_to_stop(
    start: Callable[..., Process], number: signal.Signals
) -> None:
    server = start("drain_s = 1.0\ngrace_s = 5.0")
    server.wait_for(message="serving")
    streams = [OpenStream(server) for _ in range(3)]
    for stream in streams:
        stream.messages.put(audio(linear16(say(1, 1.0, 2))))
        assert finals([next(stream.call)]) == ["one"]
    server.process.send_signal(number)
    deadline = time.monotonic() + 10
    while server.status() == SERVING and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(grpc.RpcError) as caught:
        list(server.stub.StreamingRecognize(iter([config()]), timeout=10))
    told = refusal(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    # One client ends in time, the others are ended.
    streams[0].messages.put(None)
    assert finals(streams[0].call) == [" two"]
    for stream in streams[1:]:
        assert finals([next(stream.call)]) == [" two"]
        with pytest.raises(grpc.RpcError) as caught:
            next(stream.call)
        told = refusal(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert server.end() == 0


def test_58_a_server_whose_engine_has_failed_ends_for_another_one_to_start() -> None:
    script = """
import asyncio, sys, threading
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
from tests.fake_engine import FakeEngine
configure_logging("info")
engine = FakeEngine()
threading.Timer(0.3, setattr, (engine, "healthy", False)).start()
sys.exit(asyncio.run(serve(Settings(server=ServerSettings(address="localhost:0")), lambda: engine)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 70, done.stderr
    assert "the engine has failed" in done.stderr


def test_59_an_engine_that_hangs_ends_its_calls_and_its_process() -> None:
    script = """
import asyncio, sys, threading
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
from tests.fake_engine import FakeEngine

class StuckEngine(FakeEngine):
    def _on_audio(self, handle, pcm):
        self.healthy = False  # tests/engine/test_failures.py tests when an engine says so
        threading.Event().wait()

configure_logging("info")
sys.exit(asyncio.run(serve(Settings(server=ServerSettings(address="localhost:0")), StuckEngine)))
"""
    pipes = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert process.stderr is not None
        try:
            while (line := json.loads(process.stderr.readline()))["message"] != "serving":
                pass
            with grpc.insecure_channel(f"localhost:{line['port']}") as channel:
                messages = iter([config(), audio(linear16(say(1)))])
                with pytest.raises(grpc.RpcError) as caught:
                    list(pb_grpc.SpeechStub(channel).StreamingRecognize(messages, timeout=20))
            told = refusal(caught.value)
            assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert told.retry_after_s == 1.0
            assert process.wait(20) == 70
            assert "the engine has failed" in process.stderr.read()
        finally:
            process.kill()


def test_what_a_model_is_made_of_is_no_longer_looked_at_by_the_garbage_collector() -> None:
    script = """
import asyncio, gc, sys
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from tests.fake_engine import FakeEngine

class BigEngine(FakeEngine):
    def __init__(self):
        super().__init__()
        self.parts = [{"part": [number]} for number in range(100_000)]

    def start(self):
        super().start()
        tracked = len(gc.get_objects())
        gc.collect()
        print(tracked, len(gc.get_objects(generation=2)))
        self.healthy = False

sys.exit(asyncio.run(serve(Settings(server=ServerSettings(address="localhost:0")), BigEngine)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 70, done.stderr
    assert all(int(tracked) < 20_000 for tracked in done.stdout.split()), done.stdout


@pytest.mark.timeout(30)
@pytest.mark.parametrize("error", [MemoryError(), SystemExit(3)])
def test_whatever_loading_raises_comes_to_who_starts_a_server_in_a_thread(error: BaseException) -> None:
    def load() -> FakeEngine:
        raise error

    server = ServerThread(Settings(server=ServerSettings(address="localhost:0", drain_s=0.0)), load)
    with pytest.raises(type(error)):
        server.__enter__()


def test_60_a_server_that_still_loads_does_not_load_to_the_end_first() -> None:
    script = """
import asyncio, sys, time
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
configure_logging("info")
settings = Settings(server=ServerSettings(address="localhost:0"))
sys.exit(asyncio.run(serve(settings, lambda: time.sleep(600))))
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_61_second_signal_stops_at_once(start: Callable[..., Process]) -> None:
    server = start("drain_s = 60.0\ngrace_s = 60.0")
    server.wait_for(message="serving")
    stream = OpenStream(server)
    stream.messages.put(audio(linear16(say(1, 1.0))))
    next(stream.call)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    while server.status() == SERVING and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(TOLD_AGAIN_S)
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 1
    with pytest.raises(grpc.RpcError):
        list(stream.call)


def test_hang_up_is_left_to_whoever_has_it_ignored() -> None:
    assert stop_signals() == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stop_signals() == [signal.SIGTERM, signal.SIGINT]


WORKERS = """
import sys
from asr_service.server.workers import Workers
command = [sys.executable, "-m", "tests.server.tone_server", sys.argv[1]]
sys.exit(Workers(command, 1, restart_s=0.0, restart_most_s=0.0, stop_s=60.0).run())
"""


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM), (signal.SIGHUP,)],
    ids=["service manager", "terminal", "terminal and asr demo", "closed terminal"],
)
def test_one_signal_to_a_whole_group_is_one_to_each_worker(
    start: Callable[..., Process], numbers: Sequence[signal.Signals]
) -> None:
    server = start("drain_s = 20.0\ngrace_s = 20.0", program=("-c", WORKERS))
    server.wait_for(message="serving")
    stream = OpenStream(server)
    stream.messages.put(audio(linear16(say(1, 1.0, 2))))
    assert finals([next(stream.call)]) == ["one"]
    os.killpg(server.process.pid, numbers[0])  # the worker has it from here and from its parent
    for number in numbers[1:]:
        time.sleep(0.2)
        server.process.send_signal(number)
    time.sleep(0.5)
    stream.messages.put(None)
    assert finals(stream.call) == [" two"]
    assert server.end() == 0


@pytest.mark.parametrize(("patience_s", "signals", "code"), [(0.2, 1, 70), (600.0, 2, 1)])
def test_a_stuck_engine_does_not_keep_the_process(patience_s: float, signals: int, code: int) -> None:
    script = f"""
import asyncio, sys, threading
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
from tests.fake_engine import FakeEngine

class StuckEngine(FakeEngine):
    def stop(self):
        print("told to stop", flush=True)
        threading.Event().wait()

configure_logging("info")
settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s={patience_s}))
sys.exit(asyncio.run(serve(settings, StuckEngine)))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        while '"serving"' not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told to stop\n"
        if signals == 2:
            time.sleep(TOLD_AGAIN_S)
            process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(20) == code
        finally:
            process.kill()


def test_second_server_on_a_port_is_told_so(start: Callable[..., Process], tmp_path: Path) -> None:
    server = start()
    path = tmp_path / "second.toml"
    path.write_text(f'[server]\naddress = "{server.address}"\n')
    second = subprocess.run(
        [sys.executable, "-m", "tests.server.tone_server", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode != 0
    assert server.address in second.stderr


def test_each_call_is_one_line_and_no_line_has_what_was_said(start: Callable[..., Process]) -> None:
    server = start('log_level = "debug"')
    server.wait_for(message="serving")
    list(server.stub.StreamingRecognize(iter([config(), audio(linear16(say(1, 2)) + b"x")]), timeout=10))
    with pytest.raises(grpc.RpcError):
        list(server.stub.StreamingRecognize(iter([audio(b"x")]), timeout=10, metadata=(("x-request-id", "bad-one"),)))
    good = server.wait_for(method="/asr.v1.Speech/StreamingRecognize", code="OK")
    bad = server.wait_for(request_id="bad-one")
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 0
    assert (good["audio_s"], good["finals"], good["dropped_bytes"], good["mode"]) == (0.64, 1, 1, "streaming")
    assert (bad["code"], bad["reason"]) == ("INVALID_ARGUMENT", "CONFIG_EXPECTED")
    assert len([line for line in server.lines if line["message"] == "call"]) == 2
    assert not [line for line in server.lines if "one two" in json.dumps(line)]


def test_why_a_call_was_cut_off_is_in_its_line(start: Callable[..., Process]) -> None:
    server = start()
    server.wait_for(message="serving")

    def held(name: str, **call: Any) -> OpenStream:
        stream = OpenStream(server, metadata=(("x-request-id", name),), **call)
        stream.messages.put(audio(linear16(say(1, 1.0))))
        next(stream.call)
        return stream

    def logged(name: str) -> tuple[str, str]:
        line = server.wait_for(request_id=name)
        return line["code"], line["reason"]

    late, gone = [], []
    for attempt in range(4):
        with pytest.raises(grpc.RpcError):
            list(held(f"late{attempt}", timeout=0.5).call)
        held(f"gone{attempt}").call.cancel()
        late.append(logged(f"late{attempt}"))
        gone.append(logged(f"gone{attempt}"))
    # Now and then gRPC lets the handler read an end of the audio before it tells of the cancellation: an end in order.
    assert ("DEADLINE_EXCEEDED", "") in late
    assert {*late} <= {("DEADLINE_EXCEEDED", ""), ("OK", "")}
    assert ("CANCELLED", "") in gone
    assert {*gone} <= {("CANCELLED", ""), ("OK", "")}


def test_78_client_text_cannot_forge_log_lines(start: Callable[..., Process]) -> None:
    server = start()
    server.wait_for(message="serving")
    options = [("grpc.primary_user_agent", "evil\x1b[31m \u202e" + "x" * 500)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        evil = pb.RecognizeRequest(config=pb.RecognitionConfig(model='a\n{"level": "error"}\x1b[0m'), audio=b"x")
        with pytest.raises(grpc.RpcError) as caught:
            pb_grpc.SpeechStub(channel).Recognize(evil, timeout=10)
    assert "\n" not in caught.value.details()
    line = server.wait_for(method="/asr.v1.Speech/Recognize")
    assert line["reason"] == "INVALID_FIELD"
    assert len(line["user_agent"]) <= 203
