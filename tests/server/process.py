"""A server in a process of its own, and a stream that stays open to it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from tests.server.messages import config

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A server in a process of its own; `lines` are its log."""

    def __init__(self, settings: Path, program: Sequence[str] = ("-m", "tests.server.tone_server")) -> None:
        command = [sys.executable, *program, str(settings)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.lines: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = f"localhost:{self.wait_for(message='listening')['port']}"
        self.channel = grpc.insecure_channel(self.address)
        self.stub = pb_grpc.SpeechStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._arrived:
                self.lines.append(json.loads(line))  # each line is one JSON object
                self._arrived.notify_all()

    def wait_for(self, **fields: Any) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if fields.items() <= line.items()), None)

        with self._arrived:
            line = self._arrived.wait_for(found, timeout=30)
        assert line, (fields, self.lines)
        return line

    def status(self, service: str = "") -> int:
        return self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status

    def end(self) -> int:
        """The exit code. All of the log has been read then."""
        code = self.process.wait(timeout=30)
        self._reader.join()
        return code


class OpenStream:
    """A stream whose client can go on sending."""

    def __init__(self, server: Process, **call: Any) -> None:
        self.messages: queue.Queue[pb.StreamingRecognizeRequest | None] = queue.Queue()
        self.call = server.stub.StreamingRecognize(iter(self.messages.get, None), **{"timeout": 30, **call})
        self.messages.put(config())
