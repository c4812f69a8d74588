"""What our client tells of a call that failed: all that the server or the transport has said."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import soundfile
from google.protobuf import any_pb2
from google.rpc import status_pb2

from asr_service.client import AsyncClient, Client, ServiceError
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from tests.fake_engine import FakeEngine, say
from tests.server.conftest import Service, Start


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, say(1), 16_000, format="WAV")
    return buffer.getvalue()


WAV = wav()


def test_error_carries_status_reason_and_field(service: Service) -> None:
    with Client(service.address) as client:
        with pytest.raises(ServiceError) as caught:
            client.recognize(WAV, language_code="fr")
        assert (caught.value.status, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert caught.value.field == "config.language_code" and "fr" in caught.value.message
        with pytest.raises(ServiceError) as caught:
            list(client.stream([b"text, not audio" * 1000]))
        assert caught.value.reason == "ENCODING_UNKNOWN"


def test_error_carries_the_calls_id(service: Service) -> None:
    mine = [("x-request-id", "abc-3")]
    with Client(service.address) as client:
        with pytest.raises(ServiceError) as caught:
            client.recognize(WAV, language_code="fr", metadata=mine)
        assert (caught.value.request_id, caught.value.retry_after_s) == ("abc-3", None)
        with pytest.raises(ServiceError) as caught:
            list(client.stream([b"text, not audio" * 1000], metadata=mine))
        assert caught.value.request_id == "abc-3"


def test_error_says_when_to_try_again_where_that_can_help(start: Start) -> None:
    service = start(FakeEngine(max_streams=0), server={"retry_after_s": 2.5})

    async def ask() -> None:
        async with AsyncClient(service.address) as client:
            await client.recognize(WAV)

    with Client(service.address) as client, pytest.raises(ServiceError) as caught:
        client.recognize(WAV)
    with pytest.raises(ServiceError) as caught_on_a_loop:
        asyncio.run(ask())
    for error in (caught.value, caught_on_a_loop.value):
        assert (error.reason, error.retry_after_s) == ("NO_CAPACITY", 2.5)


def test_what_the_transport_says_has_no_id() -> None:
    with Client("localhost:1") as client, pytest.raises(ServiceError) as caught:
        client.server_info()
    assert (caught.value.request_id, caught.value.retry_after_s) == ("", None)


def answering(code: int, message: str, *details: any_pb2.Any) -> bytes:
    return status_pb2.Status(code=code, message=message, details=details).SerializeToString()


@pytest.mark.parametrize(
    "details",
    [
        answering(14, "upstream connect error"),
        answering(3, "stopping"),
        b"\xff\xff\xff",
        answering(14, "stopping", any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")),
    ],
    ids=["another message", "another code", "no message", "a detail that is none"],
)
def test_details_that_do_not_belong_to_the_status_are_as_none(details: bytes) -> None:
    class Proxy(pb_grpc.SpeechServicer):
        def Recognize(self, request: pb.RecognizeRequest, context: grpc.ServicerContext) -> None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            await client.recognize(b"x")

    server = grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_SpeechServicer_to_server(Proxy(), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        with Client(address) as client, pytest.raises(ServiceError) as caught:
            client.recognize(b"x")
        with pytest.raises(ServiceError) as caught_on_a_loop:
            asyncio.run(ask(address))
    finally:
        server.stop(None).wait()
    for error in (caught.value, caught_on_a_loop.value):
        assert (error.status, error.reason, error.field, error.message) == ("UNAVAILABLE", "", "", "stopping")
        assert (error.request_id, error.retry_after_s) == ("", None)
