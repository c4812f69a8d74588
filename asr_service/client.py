"""A small client of `asr.v1.Speech`, blocking and asynchronous.

    with Client("localhost:50051") as client:
        print(client.recognize("talk.flac").transcript)
        for response in client.stream(chunks, encoding="linear16", sample_rate_hertz=16000, interim_results=True):
            ...

Options are the fields of RecognitionConfig and StreamingRecognitionConfig in protos/asr/v1/speech.proto; enum values by
name in any case, durations in seconds. Responses are the messages of that file; `result_of` and `event_of` make our own
types of their parts. What is repeated is a list, a message in it a dict or the message itself:

    client.recognize("talk.flac", phrase_hints=[{"phrases": ["Ebionites", "Nazarenes"], "boost": 8.0}])

Among the chunks of a stream there may be `FLUSH`, which ends the utterance here, and `KEEP_ALIVE`, for a pause without
audio:

    def chunks():
        while button.is_pressed():
            yield microphone.read()
        yield FLUSH

The server has neither TLS nor authentication. At a proxy that has them, with its token:

    with Client("asr.example.org:443", credentials=grpc.ssl_channel_credentials()) as client:
        client.recognize("talk.flac", metadata=[("authorization", f"Bearer {token}")])
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from asr_service.errors import AsrError
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.types import Hypothesis, RecognitionResult, SpeechEvent, SpeechEventKind, Word

M = TypeVar("M", bound=Message)
Content = bytes | bytearray | memoryview
Metadata = Sequence[tuple[str, str | bytes]]
Control = pb.StreamControl
Credentials = grpc.ChannelCredentials

FLUSH = Control(flush=Control.Flush())
KEEP_ALIVE = Control(keep_alive=Control.KeepAlive())

MAX_MESSAGE_BYTES = 64 << 20  # the server's limit is what counts; the client's default of 4 MiB would come before it
# While a call is open a silent connection is pinged: a host that has vanished sends no word of it, and the call would
# wait for ever. The server's `min_ping_interval_s` must stay below the first.
KEEPALIVE_S = 30.0
# The answer may lie behind megabytes of audio that a slow uplink has yet to carry.
KEEPALIVE_TIMEOUT_S = 30.0


class ServiceError(AsrError):
    """A call failed.

    Attributes:
        status: name of the gRPC status.
        reason: the stable reason of the API reference, "" where the transport failed.
        message: for people.
        field: the request's field at fault, "" where none is.
    """

    status: str  # type: ignore[misc]  # of the instance, for it is the server that says
    reason: str  # type: ignore[misc]

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error  # both kinds of client raise errors that are also calls, which the types do not say
        details = call.details() or call.code().name
        if "larger than max" in details:  # by gRPC itself, which knows no better advice
            details += "; longer recordings go through `stream`, in smaller chunks"
        super().__init__(details)
        self.status, self.reason = call.code().name, ""
        # Behind a proxy the details may be of another status than the call's, or no message at all.
        with contextlib.suppress(ValueError, DecodeError):
            rich: Any = rpc_status.from_call(call)
            for packed in rich.details if rich is not None else ():
                info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                if packed.Unpack(info):
                    self.reason = info.reason
                elif packed.Unpack(request) and request.field_violations:
                    self.field = request.field_violations[0].field


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
        address: HOST:PORT, or another target of gRPC (`unix:`, `dns:///`, `ipv4:`). A host alone is a ValueError;
            with credentials its port is 443.
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
        self._channel: grpc.Channel = _channel(grpc, address, credentials, own_connection)
        self._stub: Any = pb_grpc.SpeechStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    def recognize(self, audio: str | Path | Content, *, metadata: Metadata = (), **options: Any) -> Recognition:
        """Recognise a file or its bytes in one call. Raises ServiceError, OSError."""
        request = _unary_request(audio, options)
        try:
            return Recognition(self._stub.Recognize(request, timeout=self._timeout_s, metadata=tuple(metadata)))
        except grpc.RpcError as error:
            raise ServiceError(error) from error

    def stream(
        self, chunks: Iterable[bytes | Control], *, metadata: Metadata = (), **options: Any
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        """Send chunks and controls as they come; yield responses as they come. Raises ServiceError.

        What `chunks` raises ends the call, and is raised here.
        """
        first = _first_message(options)
        failure: list[Exception] = []

        def messages() -> Iterator[pb.StreamingRecognizeRequest]:
            yield first
            try:
                for chunk in chunks:
                    yield _message(chunk)
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
        self._channel: grpc.aio.Channel = _channel(grpc.aio, address, credentials, own_connection)
        self._stub: Any = pb_grpc.SpeechStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s

    async def recognize(self, audio: str | Path | Content, *, metadata: Metadata = (), **options: Any) -> Recognition:
        request = _unary_request(audio, options)
        try:
            return Recognition(await self._stub.Recognize(request, timeout=self._timeout_s, metadata=tuple(metadata)))
        except grpc.RpcError as error:
            raise ServiceError(error) from error

    async def stream(
        self, chunks: AsyncIterable[bytes | Control], *, metadata: Metadata = (), **options: Any
    ) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
        first = _first_message(options)
        failure: list[Exception] = []

        async def messages() -> AsyncIterator[pb.StreamingRecognizeRequest]:
            yield first
            try:
                async for chunk in chunks:
                    yield _message(chunk)
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

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def tls_credentials(ca: Path | None = None) -> Credentials:
    """Credentials of TLS; `ca` has the certificates (PEM) to trust instead of gRPC's own. Raises OSError."""
    return grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes())


def result_of(result: pb.StreamingRecognitionResult) -> RecognitionResult:
    """A result as our own type; words only where the message has them, as in finals with word times."""
    alternatives = tuple(
        Hypothesis(tuple(_word(word) for word in alternative.words), 0.0, alternative.confidence)
        for alternative in result.alternatives
    )
    return RecognitionResult(
        alternatives=alternatives,
        is_final=result.is_final,
        stability=result.stability,
        start_s=_seconds(result.result_start_time),
        end_s=_seconds(result.result_end_time),
        utterance_index=result.utterance_index,
    )


def event_of(event: pb.SpeechEvent) -> SpeechEvent:
    """An event as our own type."""
    return SpeechEvent(SpeechEventKind(pb.SpeechEvent.Type.Name(event.type).lower()), _seconds(event.time))


def _word(word: pb.Word) -> Word:
    return Word(word.word, _seconds(word.start_time), _seconds(word.end_time), word.confidence)


def _seconds(duration: Duration) -> float:
    return duration.ToMilliseconds() / 1000


def _channel(library: Any, address: str, credentials: Credentials | None, own_connection: bool) -> Any:
    """A channel of `grpc` or `grpc.aio`. Raises ValueError for a host alone: gRPC would try port 443, of TLS."""
    options = _channel_options(own_connection)
    if credentials is not None:
        return library.secure_channel(address, credentials, options=options)
    if re.fullmatch(r"[^:/\[\]]*|\[[^\]]*\]", address):
        raise ValueError(f"address is {address!r}, must be HOST:PORT")
    return library.insecure_channel(address, options=options)


def _channel_options(own_connection: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", int(own_connection)),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.http2.max_pings_without_data", 0),  # as many as it takes: a client that only waits sends no data
        # The one that counts: where it is longer (60 s by default), gRPC forgets to set the timer of the other.
        ("grpc.http2.ping_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
    ]


def _unary_request(audio: str | Path | Content, options: dict[str, Any]) -> pb.RecognizeRequest:
    content = Path(audio).read_bytes() if isinstance(audio, str | Path) else bytes(audio)
    return pb.RecognizeRequest(config=_filled(pb.RecognitionConfig(), options), audio=content)


def _first_message(options: dict[str, Any]) -> pb.StreamingRecognizeRequest:
    streaming = pb.StreamingRecognitionConfig(config=pb.RecognitionConfig())  # there, even if nothing is in it
    own = set(streaming.DESCRIPTOR.fields_by_name) - {"config"}
    _filled(streaming, {name: value for name, value in options.items() if name in own})
    _filled(streaming.config, {name: value for name, value in options.items() if name not in own}, others=own)
    return pb.StreamingRecognizeRequest(streaming_config=streaming)


def _message(chunk: bytes | Control) -> pb.StreamingRecognizeRequest:
    if isinstance(chunk, Control):
        return pb.StreamingRecognizeRequest(control=chunk)
    return pb.StreamingRecognizeRequest(audio=chunk)


def _filled(message: M, options: dict[str, Any], *, others: Collection[str] = (), place: str = "") -> M:
    """Set fields by name; `others` are options too, of another message; `place` is this one's among the options.

    Raises, naming the place, TypeError for a name that is no field and a value of another type, ValueError for no enum
    value and a value out of range.
    """
    for name, value in options.items():
        path = f"{place}.{name}" if place else name
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            known = ", ".join(sorted({*message.DESCRIPTOR.fields_by_name, *others}))
            said = f"{place}: {name} is no field" if place else f"{name} is no option"
            raise TypeError(f"{said}; there are {known}")
        present = getattr(message, name)
        if isinstance(present, Duration):
            with _naming(path, value, "a number of seconds"):
                present.FromMilliseconds(round(value * 1000))
        elif isinstance(present, Message):
            if not isinstance(value, dict):
                raise _wrong_type(path, value, _wanted(field))
            _filled(present, value, place=path)
        elif hasattr(present, "append"):
            if not isinstance(value, list | tuple):
                raise _wrong_type(path, value, "a list")
            for k, item in enumerate(value):
                if isinstance(item, dict) and field.message_type is not None:
                    _filled(present.add(), item, place=f"{path}[{k}]")
                else:
                    with _naming(f"{path}[{k}]", item, _wanted(field)):
                        present.append(item)
        else:
            is_name = field.enum_type is not None and isinstance(value, str)
            number = _enum_number(path, field.enum_type, value) if is_name else value
            with _naming(path, value, _wanted(field)):
                setattr(message, name, number)
    return message


@contextlib.contextmanager
def _naming(path: str, value: object, wanted: str) -> Iterator[None]:
    """Protobuf's errors as ours: its own do not say which value they are about."""
    try:
        yield
    except TypeError as error:
        raise _wrong_type(path, value, wanted) from error
    except (ValueError, OverflowError) as error:  # out of range, or a text that is no Unicode
        raise ValueError(f"{path} is {value!r}: {error}") from error


def _wrong_type(path: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{path} is {value!r}, must be {wanted}")


def _wanted(field: Any) -> str:
    """What a field takes (one of a list: each item), in words."""
    if field.message_type is not None:
        return f"a dict of {', '.join(field.message_type.fields_by_name)}"
    if field.enum_type is not None:
        return f"one of {_enum_names(field.enum_type)}"
    words = {field.CPPTYPE_STRING: "a text", field.CPPTYPE_BOOL: "True or False", field.CPPTYPE_FLOAT: "a number"}
    return words.get(field.cpp_type, "a whole number")


def _enum_number(path: str, kind: Any, value: str) -> int:
    if value.upper() not in kind.values_by_name:
        raise ValueError(f"{path} is {value!r}; there are {_enum_names(kind)}")
    return int(kind.values_by_name[value.upper()].number)


def _enum_names(kind: Any) -> str:
    """As they are given; the one for "not said" is none of them."""
    return ", ".join(name.lower() for name in kind.values_by_name if not name.endswith("_UNSPECIFIED"))
