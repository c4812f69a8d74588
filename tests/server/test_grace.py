"""A server that is told to stop waits for what its engine still has to say, and no longer than the settings allow."""

from __future__ import annotations

import queue
import threading
import time

import grpc
import pytest

from asr_service.config import ServerSettings, Settings
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import refusal
from tests.server.messages import audio, config, finals


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
