"""One recognition stream: bytes in, updates out, exactly one end.

`Session` is plain synchronous code that belongs to one thread (a server's event loop, or a caller); only the engine's
sink runs elsewhere, and all it does is append to a queue and call `wake`. `async_session` and `transcribe` are the two
ways to wait for it.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_service.audio import StreamDecoder
from asr_service.config import EndpointingSettings, StreamSettings
from asr_service.engine.interface import (
    Engine,
    Failed,
    Final,
    Finished,
    Partial,
    Progress,
    SpeechBegin,
    SpeechEnd,
    StreamOptions,
    StreamOutput,
    UtterancePolicy,
)
from asr_service.errors import AsrError, ShuttingDown, SlowConsumer, StreamTooLong
from asr_service.streaming.client_limits import EmptyMessageLimit, IdleTimer
from asr_service.streaming.endpointer import TOLERANCE_S, Endpointer
from asr_service.streaming.outbox import Outbox
from asr_service.streaming.updates import StreamUpdate, UpdateBuilder
from asr_service.streaming.voice_timeout import VoiceTimeoutPolicy
from asr_service.types import SAMPLE_RATE_HZ, AudioEncoding, AudioFormat, RecognitionConfig, SpeechEventKind

# Samples are handed to the decoder in pieces of at least this length: a client that sends single bytes must not cost a
# resampler call for each.
COALESCE_S = 0.005
_SAMPLE_BYTES = {AudioEncoding.LINEAR16: 2, AudioEncoding.FLOAT32: 4, AudioEncoding.MULAW: 1, AudioEncoding.ALAW: 1}
# A WAV file's header is to come; this is of 16 kHz LINEAR16.
_WAV_BYTES = round(COALESCE_S * SAMPLE_RATE_HZ * 2)


class End(enum.Enum):
    """How a session ended. Each ends in exactly one of these."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class VoiceTimeout:
    """From the policy, among the engine's outputs: a voice activity timeout has passed."""

    time_s: float


class Session:
    """A stream on an engine.

    The owner calls `decode` and `feed` while `has_room`, then `finish`; after each `wake` it calls `collect` and takes
    updates; when `end` is set and no update is left, `error` says how it went. `close` at any time, always.

    Attributes:
        decoder: makes samples of the bytes; None where the owner has samples to `feed`.
        wake: called on the engine's thread when there is something to collect; must not block or raise.

    Raises:
        NoCapacity, ShuttingDown: from the engine, when it takes no more streams.
    """

    def __init__(
        self,
        engine: Engine,
        config: RecognitionConfig,
        *,
        decoder: StreamDecoder | None,
        wake: Callable[[], None],
        settings: StreamSettings,
        endpointing: EndpointingSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._config = config
        self._decoder = decoder
        self._wake = wake
        self._settings = settings
        self._clock = clock
        self._inbox: deque[StreamOutput | VoiceTimeout] = deque()  # bounded: the engine has max_buffered_s of audio
        self._outbox = Outbox(settings.max_pending_updates)
        self._builder = UpdateBuilder(config)
        self._pending_bytes = bytearray()
        self._coalesced_bytes = coalesced_bytes(config.audio)
        self._any_bytes = False
        self._fed_samples = 0
        self._processed_s = 0.0
        self._finishing = False
        self._error_at_end: AsrError | None = None
        self._cutoff_s = float("inf")
        self._idle = IdleTimer(settings, clock())
        self._empty_messages = EmptyMessageLimit(settings, clock())
        self._delivering = False  # the update taken last is still on its way to the client
        self._unread_since: float | None = None
        self.end: End | None = None
        self.error: AsrError | None = None
        self.finals = 0
        options = StreamOptions(
            config.mode, max(1, config.max_alternatives), config.interim_results, config.phrase_hints
        )
        self._handle = engine.open(options, self._policy(endpointing), self._sink)

    # --- what the client sends -------------------------------------------------------------------------------------

    @property
    def received_s(self) -> float:
        """Audio received so far, in seconds."""
        fed_s = self._fed_samples / SAMPLE_RATE_HZ
        return max(fed_s, self._decoder.received_s) if self._decoder is not None else fed_s

    @property
    def dropped_bytes(self) -> int:
        """Bytes at the end that made no whole sample."""
        return self._decoder.dropped_bytes if self._decoder is not None else 0

    @property
    def has_room(self) -> bool:
        """Whether more audio may be fed now. True after the end, where it goes nowhere."""
        if not self.takes_audio:
            return True
        return self._fed_samples / SAMPLE_RATE_HZ - self._processed_s < self._room_s and not self._outbox.is_full

    @property
    def takes_audio(self) -> bool:
        return self.end is None and not self._finishing

    def decode(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        """Samples of the bytes received, in blocks to `feed` one by one while there is room.

        The blocks are decoded as they are asked for, so that a little that decodes to a lot is never held as a whole.
        Exhaust them before the next call, unless the session ends meanwhile.

        Raises:
            InvalidAudio: the bytes are not the audio they are said to be.
            TooManyMessages: too many messages without bytes.
        """
        if not data:
            self._empty_messages.count(self._clock())
            return iter(())
        self._any_bytes = True
        self._pending_bytes += data
        if len(self._pending_bytes) < self._coalesced_bytes:
            return iter(())
        return self.decode_pending()

    def decode_pending(self) -> Iterator[NDArray[np.float32]]:
        """As `decode`, for bytes that still wait for more of them: before a flush."""
        data = bytes(self._pending_bytes)
        self._pending_bytes.clear()
        if data and self._decoder is not None:
            for samples in self._decoder.blocks(data):
                yield from self.blocks(samples)

    def decode_rest(self) -> Iterator[NDArray[np.float32]]:
        """As `decode`, when no more bytes come. Raises InvalidAudio also where the audio is cut off.

        A stream of no bytes at all has no audio to be wrong: it gives no results, like silence.
        """
        yield from self.decode_pending()
        if self._decoder is not None and self._any_bytes:
            for samples in self._decoder.rest():
                yield from self.blocks(samples)

    def blocks(self, pcm: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Cut samples, shape (n,), into blocks to `feed`."""
        length = int(self._settings.block_s * SAMPLE_RATE_HZ)
        for start in range(0, len(pcm), length):
            yield pcm[start : start + length]

    def feed(self, block: NDArray[np.float32]) -> None:
        """Give one block, shape (n,), to the engine. Does nothing once the stream takes no more audio."""
        if not self.takes_audio:
            return
        limit = int(self._settings.max_stream_s * SAMPLE_RATE_HZ)
        fitting = block[: limit - self._fed_samples]
        if len(fitting):
            self._engine.audio(self._handle, fitting)
            self._fed_samples += len(fitting)
        if len(fitting) < len(block):
            self.finish(StreamTooLong(f"the stream is longer than {self._settings.max_stream_s:g} s of audio"))

    def flush(self) -> None:
        """End the utterance here. The owner has fed `decode_pending` before."""
        self._empty_messages.count(self._clock())
        if self.takes_audio:
            self._engine.flush(self._handle)

    def keep_alive(self) -> None:
        self._empty_messages.count(self._clock())
        self._idle.restart(self._clock(), self.received_s)

    def finish(self, error: AsrError | None = None) -> None:
        """No more audio: the rest of the results, then the end; with `error`, that is how it ends."""
        if self.takes_audio:
            self._finishing = True
            self._error_at_end = error
            self._engine.finish(self._handle)

    # --- what the client gets --------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Turn what the engine has put out since the last call into updates."""
        while self._inbox and self.end is None:
            self._on_output(self._inbox.popleft())
        self._note_unread()

    def take(self) -> StreamUpdate | None:
        """The next update for the client, or None. Taking one means that those before it have been delivered."""
        update = self._outbox.take()
        self._delivering = update is not None
        self._unread_since = None
        self._note_unread()
        return update

    @property
    def has_updates(self) -> bool:
        return len(self._outbox) > 0

    # --- time and end ----------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The clock of the deadlines."""
        return self._clock()

    def audio_arrived(self) -> None:
        """Call after audio was fed: restarts the idle timer if it was enough."""
        self._idle.audio(self._clock(), self.received_s)

    def reading_resumed(self) -> None:
        """Call when the owner reads again after waiting for room: it is not the client that was silent."""
        self._idle.restart(self._clock(), self.received_s)

    def check_idle(self) -> None:
        """Raises StreamIdle if the client has sent too little for too long. For when the owner waits for a message."""
        if self.takes_audio:
            self._idle.check(self._clock())

    def check_slow_consumer(self) -> None:
        """Raises SlowConsumer if the client has read nothing for too long though the stream waits for it."""
        deadline = self.slow_consumer_deadline
        if deadline is not None and self._clock() >= deadline:
            patience_s = self._settings.slow_consumer_s
            raise SlowConsumer(f"no response was read for {patience_s:g} s, with {self._undelivered} waiting")

    @property
    def idle_deadline(self) -> float | None:
        return self._idle.deadline if self.takes_audio else None

    @property
    def slow_consumer_deadline(self) -> float | None:
        return None if self._unread_since is None else self._unread_since + self._settings.slow_consumer_s

    def fail(self, error: AsrError) -> None:
        """End at once with an error; updates that wait are still to be delivered."""
        self._end(End.FAILED, error)

    def close(self) -> None:
        """Free everything. Idempotent; a session that has not ended by then was cancelled."""
        self._end(End.CANCELLED, None)
        self._outbox.clear()
        self._delivering = False
        self._unread_since = None

    # --- inside ----------------------------------------------------------------------------------------------------

    @property
    def _room_s(self) -> float:
        return self._settings.max_buffered_s - self._settings.block_s

    def _policy(self, endpointing: EndpointingSettings) -> UtterancePolicy:
        config = self._config
        wanted = config.endpointing or endpointing.default(config.mode)
        policy: UtterancePolicy = Endpointer(wanted, settings=endpointing)
        if config.speech_start_timeout_s is not None or config.speech_end_timeout_s is not None:
            policy = VoiceTimeoutPolicy(
                policy,
                start_timeout_s=config.speech_start_timeout_s,
                end_timeout_s=config.speech_end_timeout_s,
                on_timeout=lambda time_s: self._sink(VoiceTimeout(time_s)),
            )
        return policy

    def _sink(self, output: StreamOutput | VoiceTimeout) -> None:
        self._inbox.append(output)
        self._wake()

    def _on_output(self, output: StreamOutput | VoiceTimeout) -> None:
        received_s = self.received_s
        if isinstance(output, Progress):
            self._processed_s = max(self._processed_s, output.processed_s)
        elif isinstance(output, Partial):
            if self._config.interim_results and output.start_s < self._cutoff_s:
                self._outbox.put(self._builder.interim(output, received_s))
        elif isinstance(output, Final):
            if output.start_s < self._cutoff_s:
                self._on_final(output)
        elif isinstance(output, SpeechBegin | SpeechEnd):
            # After a time-out only the finals of what was said before it come.
            if self._config.voice_activity_events and self._cutoff_s == float("inf"):
                self._outbox.put(self._builder.voice_activity(output, received_s))
        elif isinstance(output, VoiceTimeout):
            self._on_voice_timeout(output)
        elif isinstance(output, Finished):
            self._end(End.COMPLETED if self._error_at_end is None else End.FAILED, self._error_at_end)
        else:
            assert isinstance(output, Failed)
            self._end(End.FAILED, output.error)

    def _on_final(self, final: Final) -> None:
        update = self._builder.final(final, self.received_s)
        if self._config.single_utterance:
            end_s = update.results[0].end_s
            event = self._builder.event(SpeechEventKind.END_OF_SINGLE_UTTERANCE, end_s, self.received_s)
            self._outbox.put(event)
        self._outbox.put(update)
        self.finals += 1
        if self._config.single_utterance:
            self._end(End.COMPLETED, None)

    def _on_voice_timeout(self, timeout: VoiceTimeout) -> None:
        """The utterance ends there; what was said later is not part of the stream, though the engine may have it."""
        self._cutoff_s = timeout.time_s - TOLERANCE_S
        event = self._builder.event(SpeechEventKind.SPEECH_ACTIVITY_TIMEOUT, timeout.time_s, self.received_s)
        self._outbox.put(event)
        self.finish()

    @property
    def _must_be_read(self) -> bool:
        """The stream waits for the client's reading: it has no room, or there is nothing else left to do."""
        return self._outbox.is_full or self.end is not None

    @property
    def _undelivered(self) -> int:
        """Updates that the client has not read: those that wait, and the one on its way."""
        return len(self._outbox) + self._delivering

    def _note_unread(self) -> None:
        if self._unread_since is None and self._must_be_read and self._undelivered:
            self._unread_since = self._clock()

    def _end(self, end: End, error: AsrError | None) -> None:
        if self.end is not None:
            return
        self.end, self.error = end, error
        self._engine.cancel(self._handle)  # frees the slot; does nothing where the engine has done so
        self._pending_bytes.clear()
        self._inbox.clear()
        self._note_unread()


def coalesced_bytes(audio: AudioFormat) -> int:
    """Bytes that are worth a call of the decoder. Those of compressed audio all are: a page of 60 bytes is 20 ms."""
    if audio.encoding is AudioEncoding.WAV:
        return _WAV_BYTES
    return round(COALESCE_S * audio.sample_rate_hz * max(1, audio.channels) * _SAMPLE_BYTES.get(audio.encoding, 0))


def shutting_down() -> ShuttingDown:
    """What a stream ends with when the server stops."""
    return ShuttingDown("the server is shutting down; results up to here are final")
