"""A real server on a real socket, with an engine that recognises tones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from asr_service.config import ServerSettings, Settings, StreamSettings
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine

DEADLINE_S = 30.0


@dataclass
class Refusal:
    """What a failed call told."""

    code: grpc.StatusCode
    reason: str
    message: str
    fields: list[str]
    retry_after_s: float | None


def refusal(error: grpc.RpcError) -> Refusal:
    told = Refusal(error.code(), "", error.details(), [], None)
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            detail = kind()
            if not packed.Unpack(detail):
                continue
            if isinstance(detail, error_details_pb2.ErrorInfo):
                assert detail.domain == "asr.v1"
                told.reason = detail.reason
                assert detail.metadata["request_id"] == dict(error.initial_metadata())["x-request-id"]
            elif isinstance(detail, error_details_pb2.BadRequest):
                told.fields = [violation.field for violation in detail.field_violations]
                assert {violation.description for violation in detail.field_violations} == {told.message}
            else:
                told.retry_after_s = detail.retry_delay.ToMilliseconds() / 1000
    return told


def until_error(
    call: Iterable[pb.StreamingRecognizeResponse],
) -> tuple[list[pb.StreamingRecognizeResponse], Refusal]:
    """What a stream answers before it fails, and how it fails."""
    got: list[pb.StreamingRecognizeResponse] = []
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(call)
    return got, refusal(caught.value)


class Service:
    """A running server, its engine, and a client made of the generated stubs alone."""

    def __init__(self, address: str, engine: FakeEngine, channel: grpc.Channel) -> None:
        self.address = address
        self.engine = engine
        self.channel = channel
        self.stub = pb_grpc.SpeechStub(channel)

    def stream(
        self, requests: Iterable[pb.StreamingRecognizeRequest], **call: Any
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        return self.stub.StreamingRecognize(iter(requests), timeout=call.pop("timeout", DEADLINE_S), **call)

    def refused(self, requests: Iterable[pb.StreamingRecognizeRequest]) -> Refusal:
        """The refusal of a stream that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.stream(requests))
        return refusal(caught.value)

    def recognize(self, audio: bytes, **config: Any) -> pb.RecognizeResponse:
        request = pb.RecognizeRequest(config=pb.RecognitionConfig(**config), audio=audio)
        return self.stub.Recognize(request, timeout=DEADLINE_S)

    def unary_refused(self, audio: bytes, **config: Any) -> Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            self.recognize(audio, **config)
        return refusal(caught.value)


Start = Callable[..., Service]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server: settings of its streams, of itself (`server=`), and an engine."""
    with contextlib.ExitStack() as stack:

        def starter(
            engine: FakeEngine | None = None,
            *,
            server: dict[str, Any] | None = None,
            options: list[tuple[str, int]] | None = None,
            **stream: Any,
        ) -> Service:
            made = engine or FakeEngine()
            settings = Settings(
                server=ServerSettings(**{"address": "localhost:0", "drain_s": 0.0, "grace_s": 2.0} | (server or {})),
                stream=dataclasses.replace(StreamSettings(), **stream),
            )
            address = stack.enter_context(ServerThread(settings, lambda: made))
            channel = stack.enter_context(grpc.insecure_channel(address, options=options))
            return Service(address, made, channel)

        yield starter


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A server with default limits, shared by a module's tests that leave nothing behind."""
    engine = FakeEngine()
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, lambda: engine) as address, grpc.insecure_channel(address) as channel:
        yield Service(address, engine, channel)
        assert engine.active_streams == 0
