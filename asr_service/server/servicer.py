"""The service `asr.v1.Speech`: order of messages, sizes, and one session for each call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from asr_service.audio import StreamDecoder
from asr_service.config import Settings
from asr_service.engine.interface import Engine
from asr_service.errors import (
    AsrError,
    AudioTooLong,
    ChunkTooLarge,
    ConfigExpected,
    ConfigRepeated,
    EmptyMessage,
    InvalidAudio,
    InvalidField,
    MalformedMessage,
    NoConfig,
    StreamIdle,
    Unavailable,
)
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.hint_preparation import HintPreparation
from asr_service.server.interceptors import current_call, internal_error
from asr_service.server.requests import streaming_config, streaming_paths, unary_config
from asr_service.server.responses import server_info, streaming_response, unary_response
from asr_service.streaming.async_session import AsyncSession, LoopWaker
from asr_service.streaming.audio_limits import audio_limits, stream_limits, unary_settings
from asr_service.streaming.session import shutting_down
from asr_service.types import RecognitionConfig

log = logging.getLogger("asr.servicer")

# A cancel or a deadline first looks like the end of the client's messages; gRPC may take so long to tell which it was.
CANCEL_S = 0.1
# The bytes of a unary call are first decoded on another thread, so many at a time: some milliseconds of work mostly.
PROBE_BYTES = 64 * 1024

Requests = AsyncIterator[pb.StreamingRecognizeRequest]
Context = grpc.aio.ServicerContext[Any, Any]


class SpeechServicer(pb_grpc.SpeechServicer):
    """Serves calls once it has an engine. Belongs to one event loop.

    Attributes:
        engine: None while the model is loading.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine: Engine | None = None
        self._settings = settings
        self._waker: LoopWaker | None = None
        self._hints = HintPreparation(settings.phrase_hints)
        self._draining = False
        self._live: dict[AsyncSession, bool] = {}  # whether it is a stream
        self._expecting: set[asyncio.Timeout] = set()  # of streams that wait for their first message
        self._nobody = asyncio.Event()
        self._nobody.set()

    @property
    def live_calls(self) -> int:
        return len(self._live)

    async def wait_for_calls(self) -> None:
        """Wait until no call is live."""
        await self._nobody.wait()

    def begin_drain(self) -> None:
        """Refuse new calls, and those that wait for their first message or their hints; those that run go on."""
        self._draining = True
        self._hints.refuse(shutting_down)
        self._wait_no_longer()

    def end_streams(self) -> None:
        """Let streams that still take audio give their finals and end. Unary calls go on: their audio is all here."""
        for session, is_stream in list(self._live.items()):
            if is_stream:
                session.end_early(shutting_down())

    def fail_calls(self, error: Callable[[], AsrError]) -> None:
        """End all calls at once, each with an error of its own."""
        self._hints.refuse(error)
        self._wait_no_longer()
        for session in list(self._live):
            session.fail(error())

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:  # noqa: ARG002
        return server_info(self._ready_engine().info, self._settings)

    async def Recognize(self, request: pb.RecognizeRequest, context: Context) -> pb.RecognizeResponse:  # noqa: ARG002
        engine = self._ready_engine()
        config = unary_config(request, engine.info, self._settings)
        if not request.audio:
            raise InvalidAudio("audio is empty (0 bytes)", field="audio")
        limits = audio_limits(self._settings.audio, max_duration_s=self._settings.stream.max_unary_s)
        decoder = StreamDecoder(config.audio, limits=limits, channel=config.channel)
        probe = StreamDecoder(config.audio, limits=limits, channel=config.channel)
        session = await self._open(engine, config, decoder, is_stream=False)
        reader = asyncio.create_task(_push_whole(request.audio, session, probe))
        try:
            finals = [result async for update in session.updates() for result in update.results if result.is_final]
            audio_s = session.session.received_s
            return unary_response(finals, config, audio_s=audio_s, request_id=current_call.get().request_id)
        except AudioTooLong as error:
            raise AudioTooLong(f"{error.message}; use StreamingRecognize", field=error.field) from error
        finally:
            self._close(session, reader)

    async def StreamingRecognize(self, request_iterator: Requests, context: Context) -> None:
        with streaming_paths():
            engine = self._ready_engine()
            config = await self._first_message(request_iterator, engine)
            request_id = current_call.get().request_id
            limits = stream_limits(self._settings.audio, self._settings.stream)
            decoder = StreamDecoder(config.audio, limits=limits, channel=config.channel)
            session = await self._open(engine, config, decoder, is_stream=True)
            reader = asyncio.create_task(self._read(request_iterator, session))
            try:
                async for update in session.updates():
                    await session.deliver(context.write(streaming_response(update, config, request_id)))
            finally:
                # Also where the client has gone: a cancel first looks like a half-close, so the session may be about
                # to do work for nobody.
                self._close(session, reader)

    def _ready_engine(self) -> Engine:
        if self._draining:
            raise shutting_down()
        if self.engine is None:
            raise Unavailable("the model is still loading")
        if not self.engine.healthy:
            raise engine_failed()
        return self.engine

    async def _open(
        self, engine: Engine, config: RecognitionConfig, decoder: StreamDecoder, *, is_stream: bool
    ) -> AsyncSession:
        self._ready_engine()  # the server may have begun to drain while the call waited for its first message
        _held = await self._hints.prepare(engine, config)  # until the session is open
        self._ready_engine()  # or for its hints
        if self._waker is None:
            self._waker = LoopWaker(asyncio.get_running_loop())
        session = AsyncSession(
            engine,
            config,
            decoder=decoder,
            waker=self._waker,
            settings=self._settings.stream if is_stream else unary_settings(self._settings.stream),
            endpointing=self._settings.endpointing,
        )
        self._live[session] = is_stream
        self._nobody.clear()
        current_call.get().fields |= {"mode": config.mode.value, "encoding": config.audio.encoding.value}
        return session

    def _close(self, session: AsyncSession, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        self._live.pop(session, None)
        if not self._live:
            self._nobody.set()
        current_call.get().fields |= {
            "audio_s": round(session.session.received_s, 3),
            "finals": session.session.finals,
            "dropped_bytes": session.session.dropped_bytes,
        }
        session.close()

    def _wait_no_longer(self) -> None:
        for timeout in self._expecting:
            if not timeout.expired():  # one that has just fired is here until its task has its turn
                timeout.reschedule(0.0)

    async def _first_message(self, requests: Requests, engine: Engine) -> RecognitionConfig:
        timeout_s = self._settings.server.startup_timeout_s
        try:
            # Not wait_for: before Python 3.12 it swallows a cancel that comes together with the message.
            async with asyncio.timeout(timeout_s) as timeout:
                self._expecting.add(timeout)
                try:
                    first = await anext(requests)
                finally:
                    self._expecting.remove(timeout)
        except StopAsyncIteration:
            await asyncio.sleep(CANCEL_S)
            raise NoConfig("the stream ended before its first message, streaming_config") from None
        except TimeoutError:
            self._ready_engine()
            raise StreamIdle(f"no first message within {timeout_s:g} s") from None
        except DecodeError as error:
            raise MalformedMessage("the first message is no StreamingRecognizeRequest") from error
        kind = first.WhichOneof("streaming_request")
        if kind is None:
            raise EmptyMessage("the first message is empty; it must be streaming_config")
        if kind != "streaming_config":
            raise ConfigExpected(f"the first message is {kind}; it must be streaming_config", field=kind)
        size, most = first.ByteSize(), self._settings.server.max_config_bytes
        if size > most:
            message = f"streaming_config has {size} bytes; at most {most} are allowed"
            raise InvalidField(message, field="streaming_config")
        return streaming_config(first.streaming_config, engine.info, self._settings)

    async def _read(self, requests: Requests, session: AsyncSession) -> None:
        """Take the client's messages until it half-closes or the session takes no more."""
        try:
            async for request in requests:
                await self._on_message(request, session)
                if not session.session.takes_audio:
                    return
            await session.finish()
        except (InvalidAudio, InvalidField) as error:  # what was said before the damage is told first
            session.end_early(error)
        except AsrError as error:
            session.fail(error)
        except DecodeError:
            session.fail(MalformedMessage("a message is no StreamingRecognizeRequest"))
        except Exception:
            log.exception("reading failed", extra={"fields": {"request_id": current_call.get().request_id}})
            session.fail(internal_error(current_call.get()))

    async def _on_message(self, request: pb.StreamingRecognizeRequest, session: AsyncSession) -> None:
        kind = request.WhichOneof("streaming_request")
        if kind == "audio":
            size, most = len(request.audio), self._settings.server.max_chunk_bytes
            if size > most:
                raise ChunkTooLarge(f"audio has {size} bytes in one message; at most {most} are allowed", field="audio")
            await session.push(request.audio)
        elif kind == "control":
            control = request.control.WhichOneof("control")
            if control == "flush":
                await session.flush()
            elif control == "keep_alive":
                session.keep_alive()
            else:
                raise EmptyMessage("control is empty; it must be flush or keep_alive", field="control")
        elif kind == "streaming_config":
            raise ConfigRepeated("streaming_config comes once, as the first message", field="streaming_config")
        else:
            raise EmptyMessage("the message is empty; it must be audio or control")


def engine_failed() -> Unavailable:
    """What a call ends with that no engine will answer."""
    return Unavailable("the engine has failed; the server must be restarted")


async def _push_whole(audio: bytes, session: AsyncSession, probe: StreamDecoder) -> None:
    """Decode all of the audio for nothing (`probe`), and feed it to the engine only if that goes well.

    One call has one answer: of audio that is too long or damaged nothing is told but the error, and to recognise what
    comes before would be minutes of work for nobody, against at most a few seconds of decoding.
    """
    try:
        await _try_decoding(audio, session, probe)
        await session.push(audio)
        await session.finish()
    except AsrError as error:
        session.fail(error)
    except Exception:  # nobody awaits this task: the call would wait for its results until its deadline
        log.exception("reading failed", extra={"fields": {"request_id": current_call.get().request_id}})
        session.fail(internal_error(current_call.get()))


async def _try_decoding(audio: bytes, session: AsyncSession, decoder: StreamDecoder) -> None:
    """Raises InvalidAudio, InvalidField as the decoder does at any place in the audio.

    On another thread, for the event loop has streams to serve; in pieces, so that short recordings need not wait for
    long ones, and no more than a piece of work is left over where the call ends meanwhile.
    """
    for start in range(0, len(audio), PROBE_BYTES):
        await asyncio.to_thread(_drop, decoder.blocks, audio[start : start + PROBE_BYTES])
        session.session.reading_resumed()  # it is not the client that is silent
    await asyncio.to_thread(_drop, decoder.rest)


def _drop(decode: Callable[..., Iterator[object]], *data: bytes) -> None:
    for _ in decode(*data):
        pass
