"""The calls of `asr.v1.Speech`, blocking and asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from asr_service.client.channel import Credentials, channel
from asr_service.client.error import ServiceError
from asr_service.client.requests import Content, Control, chunk_message, first_message, unary_request
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc

Metadata = Sequence[tuple[str, str | bytes]]


class Recognition:
    """What `recognize` returns: the response, and its words as one text."""

    def __init__(self, response: pb.RecognizeResponse) -> None:
        self.response = response

    @property
    def transcript(self) -> str:
        return "".join(result.alternatives[0].transcript for result in self.response.results)


class Client:
    """A blocking client; several threads may use one.

    Each call takes `metadata` besides the options: pairs of key (lower case) and value, for a proxy or `x-request-id`.

    Args:
        address: HOST:PORT with a port from 1 to 65535, or what gRPC resolves itself (`unix:`, `dns:///`, `ipv4:`). With
            credentials a host alone will do: its port is 443. Anything else is a ValueError.
        timeout_s: bounds unary calls; None does not.
        credentials: of a proxy with TLS (`grpc.ssl_channel_credentials` makes them); None speaks plain text.
        own_connection: gRPC lets clients of one process share a connection, and so a worker of the server; this one has
            its own.
    """

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        timeout_s: float | None = None,
        credentials: Credentials | None = None,
        own_connection: bool = False,
    ) -> None:
        self._channel: grpc.Channel = channel(grpc, address, credentials, own_connection)
        self._stub: Any = pb_grpc.SpeechStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    def recognize(self, audio: str | Path | Content, *, metadata: Metadata = (), **options: Any) -> Recognition:
        """Recognise a file or its bytes in one call. Raises ServiceError, OSError."""
        request = unary_request(audio, options)
        try:
            return Recognition(self._stub.Recognize(request, timeout=self._timeout_s, metadata=tuple(metadata)))
        except grpc.RpcError as error:
            raise ServiceError(error) from error

    def stream(
        self, chunks: Iterable[Content | Control], *, metadata: Metadata = (), **options: Any
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        """Send chunks and controls as they come; yield responses as they come. Raises ServiceError.

        What `chunks` raises ends the call, and is raised here; so is TypeError for anything else among them.
        """
        first = first_message(options)
        failure: list[Exception] = []

        def messages() -> Iterator[pb.StreamingRecognizeRequest]:
            yield first
            try:
                for chunk in chunks:
                    yield chunk_message(chunk)
            except Exception as error:  # noqa: BLE001  # raised again below, in the caller's thread
                failure.append(error)
                call.cancel()

        call = self._stub.StreamingRecognize(messages(), metadata=tuple(metadata))
        try:
            yield from call
        except grpc.RpcError as error:
            raise failure[0] if failure else ServiceError(error) from error
        finally:
            call.cancel()  # where the caller stops early; does nothing at the end

    def server_info(self, *, metadata: Metadata = ()) -> pb.GetServerInfoResponse:
        """What the server offers. Raises ServiceError."""
        try:
            info: pb.GetServerInfoResponse = self._stub.GetServerInfo(
                pb.GetServerInfoRequest(), timeout=self._timeout_s, metadata=tuple(metadata)
            )
        except grpc.RpcError as error:
            raise ServiceError(error) from error
        return info

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """As `Client`, on an event loop."""

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        timeout_s: float | None = None,
        credentials: Credentials | None = None,
        own_connection: bool = False,
    ) -> None:
        self._channel: grpc.aio.Channel = channel(grpc.aio, address, credentials, own_connection)
        self._stub: Any = pb_grpc.SpeechStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    async def recognize(self, audio: str | Path | Content, *, metadata: Metadata = (), **options: Any) -> Recognition:
        request = unary_request(audio, options)
        try:
            return Recognition(await self._stub.Recognize(request, timeout=self._timeout_s, metadata=tuple(metadata)))
        except grpc.RpcError as error:
            raise ServiceError(error) from error

    async def stream(
        self, chunks: AsyncIterable[Content | Control], *, metadata: Metadata = (), **options: Any
    ) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
        first = first_message(options)
        failure: list[Exception] = []

        async def messages() -> AsyncIterator[pb.StreamingRecognizeRequest]:
            yield first
            try:
                async for chunk in chunks:
                    yield chunk_message(chunk)
            except Exception as error:  # noqa: BLE001  # raised again below, in the caller's task
                failure.append(error)
                call.cancel()

        call = self._stub.StreamingRecognize(messages(), metadata=tuple(metadata))
        try:
            async for response in call:
                yield response
        except asyncio.CancelledError as error:  # of the call by `messages`, or else of the caller's task
            if failure:
                raise failure[0] from error
            raise
        except grpc.RpcError as error:
            raise failure[0] if failure else ServiceError(error) from error
        finally:
            call.cancel()

    async def server_info(self, *, metadata: Metadata = ()) -> pb.GetServerInfoResponse:
        try:
            info: pb.GetServerInfoResponse = await self._stub.GetServerInfo(
                pb.GetServerInfoRequest(), timeout=self._timeout_s, metadata=tuple(metadata)
            )
        except grpc.RpcError as error:
            raise ServiceError(error) from error
        return info

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
