"""The load: streams that play their playlists to a server over gRPC, at the pace of speech or one by one at once.

Times in a record are stream time of its call: zero is when the first sample was spoken, so the time at which a word was
shown less the time at which it ended is its latency, whatever held the audio up on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asr_service.bench.pacing import PaceLog, in_real_time, watch_event_loop
from asr_service.bench.playlist import BYTES_PER_SAMPLE, Call, Clip, playlist
from asr_service.bench.process_usage import Usage, usage
from asr_service.client import AsyncClient, ServiceError, result_of
from asr_service.connection import Connection
from asr_service.errors import NoCapacity
from asr_service.evaluation.latency import DisplayLog
from asr_service.types import SAMPLE_RATE_HZ, Word

# A call that has not ended this long after its audio has is given up.
PATIENCE_S = 60.0
USAGE_PERIOD_S = 1.0
# Where a stream that has begun late would still be on its way to the server.
LEAD_S = 0.5
# A live stream of these messages, and what it is answered.
Send = Callable[[AsyncIterable[bytes]], AsyncGenerator[Any, None]]
REFUSED = NoCapacity.reason
GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator does.

    Attributes:
        streams: at once.
        seconds: each stream plays this long, and its last clip to the end.
        message_s: length of a message.
        channels: connections at most; streams take turns in using them.
        pause_s: between clips.
        clips_per_call: None for one call that lasts as long as its stream.
        stagger_s: the streams begin one after the other in this time.
    """

    streams: int
    seconds: float
    message_s: float = 0.1
    channels: int = 1
    pause_s: float = 1.5
    clips_per_call: int | None = None
    stagger_s: float = 2.0

    @property
    def connections(self) -> int:
        """Those that some stream uses."""
        return min(self.channels, self.streams)


class ShownFinal(NamedTuple):
    """A final, when it came, and where its utterance ended: the endpoint's place in the stream."""

    utterance: int
    shown_s: float
    words: tuple[Word, ...]
    end_s: float


# Without a repr: asyncio.run makes one of what it returns (signal.signal looks its handler up among names), and one of
# all audio takes seconds.
@dataclass(repr=False)
class CallRecord:
    """What one call was answered, and when.

    Attributes:
        begun_s: when its first sample was spoken; run time.
        sent_s: audio that the call has taken, all of it where the call went well.
        first_shown_s: by utterance, when its first words were shown.
        finals: in order.
        status: name of a gRPC status, OK at the end of a call that went well, or GIVEN_UP.
        reason: of a call that the server ended, of the API reference: REFUSED where it had no place.
    """

    stream: int
    call: Call
    begun_s: float
    sent_s: float = 0.0
    display: DisplayLog = field(default_factory=DisplayLog)
    first_shown_s: dict[int, float] = field(default_factory=dict)
    finals: list[ShownFinal] = field(default_factory=list)
    status: str = "OK"
    reason: str = ""
    message: str = ""

    def note(self, response: Any, now_s: float) -> None:
        results = [result_of(result) for result in response.results]
        interims = [result for result in results if not result.is_final]
        if interims:
            index = interims[0].utterance_index
            text = " ".join(result.alternatives[0].text for result in interims)
            self.display.interim(index, text, now_s, None)
            if text.strip():
                self.first_shown_s.setdefault(index, now_s)
        for result in results:
            if result.is_final:
                words = result.alternatives[0].words
                self.display.final(result.utterance_index, words, now_s, None)
                self.first_shown_s.setdefault(result.utterance_index, now_s)
                self.finals.append(ShownFinal(result.utterance_index, now_s, words, result.end_s))


@dataclass(frozen=True, slots=True, repr=False)
class LoadRecord:
    """All that came of a load.

    Attributes:
        usage: run times with what the server had used by then.
        generator_cpu_s: processor time of this process while it played.
    """

    load: Load
    calls: tuple[CallRecord, ...]
    pace: PaceLog
    usage: tuple[tuple[float, Usage], ...] = ()
    generator_cpu_s: float = 0.0


def stream_calls(clips: Sequence[Clip], load: Load, stream: int) -> list[Call]:
    """What a stream plays under this load."""
    return playlist(clips, stream, seconds=load.seconds, pause_s=load.pause_s, clips_per_call=load.clips_per_call)


async def run_load(connection: Connection, clips: Sequence[Clip], load: Load, *, pid: int | None = None) -> LoadRecord:
    """Play until every stream has ended. `pid` is the server's process, where it may be looked at.

    Raises ConfigError as `Connection` does.
    """
    pace, calls, used = PaceLog(), list[CallRecord](), list[tuple[float, Usage]]()
    plans = [stream_calls(clips, load, stream) for stream in range(load.streams)]
    gc.collect()
    gc.freeze()  # what is here stays: a collection that walks all of it would make the generator late
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connection.async_client(own_connection=load.channels > 1))
            for _ in range(load.connections)
        ]
        sends = [_sending(client, connection) for client in clients]
        origin, spent_s = time.monotonic() + LEAD_S, time.process_time()
        watchers = [asyncio.create_task(watch_event_loop(pace))]
        if pid is not None:
            watchers.append(asyncio.create_task(_watch_usage(pid, origin, used)))
        try:
            async with asyncio.TaskGroup() as group:
                for stream, (plan, send) in enumerate(zip(plans, itertools.cycle(sends))):
                    begun = origin + load.stagger_s * stream / load.streams
                    group.create_task(_play(send, stream, plan, load, begun, origin, pace, calls))
        finally:
            spent_s = time.process_time() - spent_s
            gc.unfreeze()
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
    if pid is not None and (last := usage(pid)) is not None:
        used.append((time.monotonic() - origin, last))
    in_order = tuple(sorted(calls, key=lambda call: (call.stream, call.begun_s)))
    return LoadRecord(load, in_order, pace, tuple(used), spent_s)


async def play_alone(
    connection: Connection, calls: Iterable[tuple[int, Call]], message_s: float
) -> AsyncIterator[CallRecord]:
    """Each call by itself, as fast as the server takes it. What was shown when says nothing here; the words do.

    Raises ConfigError as `Connection` does.
    """
    async with connection.async_client() as client:
        send = _sending(client, connection)
        for stream, call in calls:
            record = CallRecord(stream, call, 0.0)
            await _call(send, record, _at_once(call.messages(message_s)), time.monotonic())
            yield record


def _sending(client: AsyncClient, connection: Connection) -> Send:
    return functools.partial(
        client.stream,
        metadata=connection.metadata,
        encoding="LINEAR16",
        sample_rate_hertz=SAMPLE_RATE_HZ,
        mode="streaming",
        interim_results=True,
        enable_word_time_offsets=True,
    )


async def _play(
    send: Send,
    stream: int,
    plan: Sequence[Call],
    load: Load,
    begun: float,
    origin: float,
    pace: PaceLog,
    calls: list[CallRecord],
) -> None:
    """One stream: its calls one after the other, up to the first that does not go well."""
    for call in plan:
        await asyncio.sleep(max(0.0, begun - time.monotonic()))
        record = CallRecord(stream, call, begun - origin)
        calls.append(record)
        messages = in_real_time(
            call.messages(load.message_s), begun=begun, message_s=load.message_s, duration_s=call.duration_s, log=pace
        )
        await _call(send, record, messages, begun)
        if record.status != "OK":
            return
        begun = max(begun + call.duration_s + call.pause_s, time.monotonic())


async def _call(send: Send, record: CallRecord, messages: AsyncIterable[bytes], begun: float) -> None:
    responses = send(_noted(messages, record))
    try:
        async with asyncio.timeout(max(0.0, begun - time.monotonic()) + record.call.duration_s + PATIENCE_S):
            async with contextlib.aclosing(responses):
                async for response in responses:
                    record.note(response, time.monotonic() - begun)
    except ServiceError as error:
        record.status, record.reason, record.message = error.status, error.reason, error.message
    except TimeoutError:
        record.status = GIVEN_UP
        record.message = f"the call had not ended {PATIENCE_S:g} s after its audio"


async def _noted(messages: AsyncIterable[bytes], record: CallRecord) -> AsyncIterator[bytes]:
    async for message in messages:
        record.sent_s += len(message) / BYTES_PER_SAMPLE / SAMPLE_RATE_HZ
        yield message


async def _at_once(messages: Iterator[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def _watch_usage(pid: int, origin: float, used: list[tuple[float, Usage]]) -> None:
    while (now_used := await asyncio.to_thread(usage, pid)) is not None:
        used.append((time.monotonic() - origin, now_used))
        await asyncio.sleep(USAGE_PERIOD_S)
